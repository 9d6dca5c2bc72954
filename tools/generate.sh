#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# generate.sh PROTO...: write build/gen: the C of each message (NAME.pb-c.h, NAME.pb-c.c), descriptors.inc (what gRPC
# reflection answers with) and version.h. A tree from `make dist` has all of it in gen/, and needs no protoc.
set -eu
export LC_ALL=C

mkdir -p build
# Put in place whole: another build of this tree may be reading it.
new=$(mktemp -d build/gen.XXXXXX)
trap 'rm -rf "$new"' EXIT
chmod 755 "$new"

if [ -f gen/descriptors.inc ]; then
    cp gen/* "$new"
else
    if ! command -v protoc-c >/dev/null || ! command -v protoc >/dev/null; then
        echo "generate: protoc and protoc-c are missing; install the Debian packages protobuf-compiler and" \
            "protobuf-c-compiler (or run: make deps)" >&2
        exit 1
    fi
    for proto in "$@"; do
        protoc-c -Iproto --c_out="$new" "$proto"
    done
    protoc -Iproto --include_imports --descriptor_set_out="$new/descriptors.bin" "$@"
    {
        echo '/* Generated from proto/: a google.protobuf.FileDescriptorSet, for gRPC reflection. */'
        echo 'static const unsigned char descriptor_set[] = {'
        od -An -v -tx1 "$new/descriptors.bin" | sed 's/ \(..\)/0x\1,/g'
        echo '};'
    } >"$new/descriptors.inc"
    rm "$new/descriptors.bin"
    printf '/* Generated from VERSION. */\n#define INTERLINK_CRI_VERSION "%s"\n' "$(cat VERSION)" >"$new/version.h"
fi

touch "$new/stamp"
rm -rf build/gen
mv "$new" build/gen
trap - EXIT
