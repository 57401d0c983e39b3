#!/usr/bin/env -S builda session bash
# Two images that belong together, named and pushed together: if one of them fails, neither is named nor pushed.
# usage: all-or-nothing.sh BASE REPOSITORY TAG
set -euo pipefail
base=${1:?usage: all-or-nothing.sh BASE REPOSITORY TAG} repository=${2:?} tag=${3:?}

make_image() { # PART TEXT: an image whose program prints TEXT, and is tried before the image counts
    local c
    c=$(builda from "$base")
    builda run --env PART="$1" --env SAYS="$2" "$c" --script - <<'END'
printf '#!/bin/sh\necho "%s"\n' "$SAYS" > "/bin/$PART"
chmod 755 "/bin/$PART"
END
    builda run "$c" -- "/bin/$1"
    builda config --entrypoint "[\"/bin/$1\"]" --cmd '' "$c"
    builda commit --quiet "$c" "$repository/$1:$tag"
    builda push "$repository/$1:$tag" # when the script has succeeded
}

make_image client 'the client works' &
make_image server 'the server works' &
wait -n && wait -n # each of them: a plain `wait` forgets failures
