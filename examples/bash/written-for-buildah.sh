#!/usr/bin/env bash
# A script written for Buildah. It runs unchanged by its alias, and in a session its steps are cached:
# builda session examples/bash/written-for-buildah.sh BASE
# usage: written-for-buildah.sh BASE [NAME]
set -e
shopt -s expand_aliases
alias buildah=builda

base=${1:?usage: written-for-buildah.sh BASE [NAME]}
name=${2:-localhost/written-for-buildah:latest}

container=$(buildah from "$base")
mnt=$(buildah mount "$container")
mkdir -p "$mnt/srv"
echo 'hello from the host' > "$mnt/srv/greeting"
buildah run "$container" -- /bin/sh -c 'tr a-z A-Z < /srv/greeting > /srv/loud'
buildah config --env GREETING="$(buildah run "$container" -- cat /srv/loud)" "$container"
buildah run "$container" -- /bin/sh -c 'echo "$GREETING" > /srv/copy'
buildah config --cmd 'cat /srv/copy' --label "org.example.by=buildah" "$container"
buildah unmount "$container"
buildah commit --quiet --timestamp 0 "$container" "$name"
buildah rm "$container"
