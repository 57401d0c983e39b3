#!/usr/bin/env bash
# Install files with the host's tools into a mounted container: nothing of the package manager ends up in the image.
# usage: install-by-mount.sh BASE [NAME]
set -euo pipefail
base=${1:?usage: install-by-mount.sh BASE [NAME]} name=${2:-localhost/installed:latest}

c=$(builda from "$base")
trap 'builda umount "$c" >/dev/null 2>&1 || true; builda rm "$c" >/dev/null 2>&1 || true' EXIT
m=$(builda mount "$c")
package=$(mktemp -d)
mkdir -p "$package/DEBIAN" "$package/usr/share/hello"
printf 'Package: hello-files\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: files\n' \
    >"$package/DEBIAN/control"
echo 'hello from a package' >"$package/usr/share/hello/greeting"
dpkg-deb --root-owner-group --build "$package" "$package.deb" >/dev/null
dpkg-deb --extract "$package.deb" "$m" # as --installroot does: the host's tool, the image's root
rm -r "$package" "$package.deb"
builda umount "$c" >/dev/null
builda commit "$c" "$name"
