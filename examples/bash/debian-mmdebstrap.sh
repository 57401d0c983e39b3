#!/usr/bin/env -S builda session bash
# A Debian base image from Debian's own packages, without any registry: mmdebstrap writes into the mounted container.
# usage: debian-mmdebstrap.sh [NAME [SUITE [SOURCES-OR-OPTIONS-OF-MMDEBSTRAP...]]]
set -euo pipefail
name=${1:-localhost/debian:bookworm} suite=${2:-bookworm}

c=$(builda from scratch)
m=$(builda mount "$c")
mmdebstrap --quiet --variant=minbase --format=directory "$suite" "$m" "${@:3}"
builda config --cmd '["bash"]' --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$c"
builda commit "$c" "$name"
