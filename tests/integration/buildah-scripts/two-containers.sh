#!/usr/bin/env bash
# A container that compiles, and a small one that takes the result.
set -euo pipefail
builder=$(buildah from localhost/busybox)
trap 'buildah rm --all > /dev/null' EXIT
buildah config --workingdir /src --env CFLAGS="-O2 -g" "$builder"
buildah copy "$builder" . /src > /dev/null
buildah run "$builder" -- sh -c 'mkdir -p out/lib; for n in 1 2 3; do echo "$n $CFLAGS" > out/lib/$n; done; ln -s lib/1 out/first'
final=$(buildah from scratch)
buildah copy --from "$builder" "$final" /src/out /app/ > /dev/null
buildah copy --from localhost/busybox --chown 5:6 "$final" /bin/busybox /bin/busybox > /dev/null
mnt=$(buildah mount "$builder")
cp "$mnt/src/message.txt" plain.txt
buildah copy --chmod 640 "$final" plain.txt /app/plain > /dev/null
buildah config --cmd '["/bin/busybox", "cat", "/app/first"]' "$final"
buildah commit -q --rm "$final" localhost/result > /dev/null
