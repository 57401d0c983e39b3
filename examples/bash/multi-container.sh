#!/usr/bin/env -S builda session bash
# Two containers: one builds, the other gets only the result. What a multi-stage Containerfile does.
# usage: multi-container.sh BASE [NAME]
set -euo pipefail
base=${1:?usage: multi-container.sh BASE [NAME]} name=${2:-localhost/app:latest}

build=$(builda from "$base")
final=$(builda from "$base")
builda run "$build" -- sh -c 'mkdir -p /out/bin && printf "#!/bin/sh\necho built\n" >/out/bin/app && chmod 755 /out/bin/app'
builda copy --quiet --from "$build" --chown 0:0 "$final" /out/bin/app /usr/bin/app
builda config --entrypoint '["/usr/bin/app"]' --cmd '' "$final"
builda commit "$final" "$name"
