#!/usr/bin/env -S builda session bash
# What a CI job does: build with a cache in the registry, try the image, and push it only if all of that succeeded.
# usage: build.sh REPOSITORY TAG [CONTEXT]
set -euo pipefail
repository=${1:?usage: build.sh REPOSITORY TAG [CONTEXT]} tag=${2:?usage: build.sh REPOSITORY TAG [CONTEXT]} context=${3:-.}

builda bud --cache-from "$repository/cache" --cache-to "$repository/cache" -t "$repository:$tag" "$context"
c=$(builda from "$repository:$tag")
builda run "$c" -- /usr/bin/app
builda tag "$repository:$tag" "$repository:latest"
builda push "$repository:$tag"
builda push "$repository:latest"
