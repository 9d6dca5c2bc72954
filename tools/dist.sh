#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# dist.sh VERSION: write build/interlink-cri-VERSION.tar.gz: the tree as git has it (with local changes), every third-party
# source in vendor/sources/ and the generated code in gen/. It builds with a compiler alone: no network, no protoc.
set -eu
export LC_ALL=C

version=$1
name=interlink-cri-$version
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir "$stage/$name"

if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git ls-files | while read -r file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done >"$stage/files"
    git describe --always --dirty --abbrev=12 >"$stage/$name/REVISION"
    time=$(git log -1 --format=%ct)
else # a tree that was itself unpacked from such a tarball
    find . -path ./build -prune -o -path ./gen -prune -o -path ./vendor/sources -prune -o -path ./interlink-cri -prune -o \
        -type f ! -name REVISION -print0 >"$stage/files"
    [ ! -f REVISION ] || cp REVISION "$stage/$name/"
    time=0
fi
tar -c --null -T "$stage/files" | tar -x -C "$stage/$name"
vendor/build.sh collect "$stage/$name/vendor/sources"
mkdir "$stage/$name/gen"
cp build/gen/* "$stage/$name/gen/"
rm -f "$stage/$name/gen/stamp"

out=build/$name.tar.gz
tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner --mode=u+rw,go=rX,a-s --mtime="@$time" -c "$name" | gzip -9n >"$out.part"
mv "$out.part" "$out"
echo "$out ($(wc -c <"$out") bytes)"
