#!/usr/bin/env -S builda session bash
# Install files with the host's tools into a mounted container: nothing of the package manager ends up in the image.
# usage: install-by-mount.sh BASE [NAME]
set -euo pipefail
base=${1:?usage: install-by-mount.sh BASE [NAME]} name=${2:-localhost/installed:latest}

c=$(builda from "$base")
m=$(builda mount "$c")
package=$(mktemp -d)
trap 'rm -r "$package" "$package.deb"' EXIT # of the host: the session removes only what builda makes
mkdir -p "$package/DEBIAN" "$package/usr/share/hello"
printf 'Package: hello-files\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: files\n' \
    >"$package/DEBIAN/control"
echo 'hello from a package' >"$package/usr/share/hello/greeting"
dpkg-deb --root-owner-group --build "$package" "$package.deb" >/dev/null
dpkg-deb --extract "$package.deb" "$m" # as --installroot does: the host's tool, the image's root
builda commit "$c" "$name"
