#!/bin/bash -e
# All that an image says of itself, with options in every order and form that scripts use.
ctr=$(buildah from --name web localhost/busybox)
buildah add web site.tar /srv/www/
buildah copy --chown 33:33 web site /srv/static
buildah add web message.txt /srv/www/message.txt
buildah config --port 80/tcp -p 443 --annotation org.example.kind=server --stop-signal SIGQUIT web
buildah config -e MODE=prod -e EMPTY= --env PATH_TOO='$PATH:/srv/bin' -u 33:33 web
buildah config --entrypoint "/bin/busybox httpd -f" --cmd "-p 80 -h /srv/www" web
buildah config --label a=b --label "c=d e" web
buildah config --label a- web
buildah config --healthcheck "CMD true" --healthcheck-interval 5s web 2> /dev/null
buildah config --history-comment "by hand" --os linux --arch amd64 web
buildah commit --quiet --format oci web localhost/result:latest
buildah inspect --type image --format '{{.OCIv1.Config.User}} {{.OCIv1.Config.StopSignal}}' localhost/result | sed 's/$/./'
buildah rm web
