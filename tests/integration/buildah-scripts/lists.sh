#!/bin/bash
# A list of images for several platforms, made by hand.
set -e
buildah manifest create localhost/list > /dev/null
for arch in amd64 arm64; do
    c=$(buildah from --pull-never scratch)
    buildah config --arch $arch --label arch=$arch $c
    buildah copy $c message.txt /$arch > /dev/null
    buildah commit -q --rm $c localhost/app-$arch > /dev/null
    buildah manifest add --arch $arch localhost/list containers-storage:localhost/app-$arch > /dev/null 2>&1 ||
        buildah manifest add --arch $arch localhost/list localhost/app-$arch > /dev/null
done
buildah manifest inspect localhost/list | grep -o '"architecture": "[a-z0-9]*"' | sort
buildah manifest push --all localhost/list dir:list-dir > /dev/null 2>&1
ls list-dir | grep -c manifest
buildah manifest rm localhost/list > /dev/null
buildah tag localhost/app-amd64 localhost/result
buildah rmi localhost/app-amd64 localhost/app-arm64 > /dev/null
