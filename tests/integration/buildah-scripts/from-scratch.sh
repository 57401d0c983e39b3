#!/bin/bash
# An image without a base: the host fills the mounted root.
set -o errexit
new=$(buildah from scratch)
root=$(buildah mount "$new")
install -d -m 755 "$root/bin" "$root/etc" "$root/data"
install -m 755 "$(command -v busybox)" "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
printf 'root:x:0:0::/:/bin/sh\nweb:x:33:33::/data:/bin/sh\n' > "$root/etc/passwd"
chown 33:33 "$root/data"
buildah unmount "$new"
buildah run --user web "$new" -- /bin/sh -c 'echo mine > /data/file'
buildah config --entrypoint '["/bin/sh", "-c"]' --cmd 'id -u' --user web --volume /data "$new"
buildah commit --squash "$new" result
buildah delete "$new"
