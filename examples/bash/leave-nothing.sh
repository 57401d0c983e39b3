#!/usr/bin/env -S builda session bash
# A build that may fail at any command and leaves no container behind when it does: the session removes them.
# usage: leave-nothing.sh BASE COMMAND [NAME]
set -euo pipefail
base=${1:?usage: leave-nothing.sh BASE COMMAND [NAME]} command=${2:?} name=${3:-localhost/maybe:latest}

c=$(builda from "$base")
builda run "$c" -- sh -c "$command"
builda commit "$c" "$name"
