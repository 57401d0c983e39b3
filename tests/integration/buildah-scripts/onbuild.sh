#!/bin/bash
# Triggers: an image whose instructions run in the builds that begin with it.
set -eu
c=$(buildah from localhost/busybox)
buildah config --onbuild "RUN touch /triggered" --onbuild "COPY message.txt /from-context" $c
buildah commit --format docker $c localhost/trigger > /dev/null
buildah rm $c > /dev/null
cat > Containerfile.onbuild <<END
FROM localhost/trigger
RUN ls /triggered /from-context > /seen
END
buildah bud --quiet -t localhost/result -f Containerfile.onbuild . > /dev/null
buildah images --format '{{.Name}}' | grep localhost/ | sort -u
buildah rmi localhost/trigger > /dev/null
