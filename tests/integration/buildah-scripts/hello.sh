#!/usr/bin/env bash
# The first steps: a container, a command in it, a file, settings, an image.
set -x
container=$(buildah from localhost/busybox)
buildah run $container -- mkdir -p /usr/share/hello
buildah copy $container message.txt /usr/share/hello/message
buildah run "$container" sh -c 'cat /usr/share/hello/message | tr a-z A-Z > /usr/share/hello/loud'
buildah config --author "A. Writer" --created-by "hello.sh" --label name=hello --env GREETING=hi $container
buildah config --cmd "cat /usr/share/hello/loud" --workingdir /usr/share/hello $container
buildah commit $container localhost/result
buildah rm $container
