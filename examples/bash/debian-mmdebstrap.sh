#!/usr/bin/env bash
# A Debian base image from Debian's own packages, without any registry: mmdebstrap writes into the mounted container.
# usage: debian-mmdebstrap.sh [NAME [SUITE [SOURCES-OR-OPTIONS-OF-MMDEBSTRAP...]]]
set -euo pipefail
name=${1:-localhost/debian:bookworm} suite=${2:-bookworm}

c=$(builda from scratch)
trap 'builda rm "$c" >/dev/null 2>&1 || true' EXIT
m=$(builda mount "$c")
mmdebstrap --quiet --variant=minbase --format=directory "$suite" "$m" "${@:3}"
builda umount "$c" >/dev/null
builda config --cmd '["bash"]' --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$c"
builda commit "$c" "$name"
