#!/usr/bin/env -S builda session bash
# From nothing: mount an empty container, put a static busybox in it, and make it an image.
# usage: scratch-busybox.sh [NAME]
set -euo pipefail
name=${1:-localhost/busybox:latest}

c=$(builda from scratch)
m=$(builda mount "$c")
mkdir -p "$m"/{bin,etc,root,tmp}
chmod 1777 "$m/tmp"
cp "$(command -v busybox)" "$m/bin/busybox"
"$m/bin/busybox" --list | grep -vx busybox | while read -r applet; do ln -s busybox "$m/bin/$applet"; done
echo 'root:x:0:0:root:/root:/bin/sh' >"$m/etc/passwd"
echo 'root:x:0:' >"$m/etc/group"
builda config --cmd '["sh"]' --env PATH=/bin --label org.example.from=scratch "$c"
builda commit "$c" "$name"
