#!/usr/bin/env bash
# A build that may fail at any command and leaves no container and no image behind when it does.
# usage: leave-nothing.sh BASE COMMAND [NAME]
set -euo pipefail
base=${1:?usage: leave-nothing.sh BASE COMMAND [NAME]} command=${2:?} name=${3:-localhost/maybe:latest}

c=
cleanup() {
    status=$?
    [[ -z $c ]] || builda rm "$c" >/dev/null
    ((status == 0)) || echo "build failed with status $status, nothing was left behind" >&2
    exit "$status"
}
trap cleanup EXIT
c=$(builda from "$base")
builda run "$c" -- sh -c "$command"
builda commit "$c" "$name"
