#!/usr/bin/env -S builda session bash
# Change only what an image says of itself: nothing is mounted, run or copied.
# usage: config-only.sh BASE [NAME]
set -euo pipefail
base=${1:?usage: config-only.sh BASE [NAME]} name=${2:-localhost/configured:latest}

c=$(builda from "$base")
builda config --env MODE=prod --workingdir /srv --user 1000 --port 8080 --label org.example.a=b \
    --entrypoint '["sh", "-c"]' --cmd '["echo hello"]' "$c"
builda commit "$c" "$name"
