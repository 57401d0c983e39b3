#!/usr/bin/env bash
# What scripts take from commands: digests, names, IDs, files, exit codes.
set -eu
id=$(buildah from --quiet localhost/busybox)
digest=$(buildah add --quiet $id message.txt /a)
test -z "$digest" || echo "$digest" | cut -c 1-7
version=$(buildah run $id -- sh -c 'echo 1.2.3')
test "$version" = 1.2.3
buildah run $id -- sh -c 'exit 7' 2> /dev/null || echo "status $?"
echo "from the host" | buildah run $id -- sh -c 'cat > /stdin'
buildah run --volume "$PWD:/host:ro" $id -- cp /host/message.txt /copied
buildah run --env ONLY=here --workingdir /tmp --user 1:2 $id -- sh -c 'echo $ONLY $PWD $(id -u) $(id -g)' > told
cat told
buildah copy $id told /told > /dev/null
buildah rename $id renamed
buildah containers --format '{{.ContainerName}}'
buildah commit --iidfile iid --timestamp 1700000000 renamed localhost/result 2> /dev/null
test -s iid
buildah inspect --format '{{.FromImage}}' renamed
buildah push --quiet localhost/result oci-archive:result.tar:x
buildah push --quiet --format docker localhost/result dir:result-dir
test -s result.tar -a -s result-dir/manifest.json
buildah rm renamed > /dev/null
