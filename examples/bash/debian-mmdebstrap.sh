#!/usr/bin/env bash
# A Debian base image from Debian's own packages, without any registry.
# usage: debian-mmdebstrap.sh [NAME] [SUITE] [SOURCES_LIST]
set -euo pipefail
name=${1:-localhost/debian:bookworm} suite=${2:-bookworm} sources=${3:-}

c=$(builda from scratch)
tar=$(mktemp)
trap 'rm -f "$tar"; builda rm "$c" >/dev/null 2>&1 || true' EXIT
mmdebstrap --variant=minbase --format=tar "$suite" "$tar" ${sources:+"$sources"}
builda add --quiet "$c" "$tar" /
builda config --cmd '["bash"]' --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$c"
builda commit "$c" "$name"
