#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# build.sh OUT: writes OUT/echo_server (with sanitizers), its Python stubs OUT/py and OUT/descriptors.bin. Needs protoc-c, and
# the Python environment of venv.sh.
set -eu

[ $# -eq 1 ] || { echo "usage: build.sh OUT" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$top"
exec 8<"$out"
flock 8

make -s build/san/libinterlink-cri.a
mkdir -p "$out/gen" "$out/py"
protoc-c -I"$here" --c_out="$out/gen" "$here/echo.proto"
protoc -I"$here" -Iproto --include_imports --descriptor_set_out="$out/descriptors.bin" echo.proto health.proto \
    reflection.proto reflection_v1alpha.proto
{
    echo 'static const unsigned char descriptor_set[] = {'
    od -An -v -tx1 "$out/descriptors.bin" | sed 's/ \(..\)/0x\1,/g'
    echo '};'
} >"$out/gen/descriptors.inc"
"${CC_SAN:-gcc}" -std=c11 -D_GNU_SOURCE -DNGHTTP2_STATICLIB -O1 -g -fsanitize=address,undefined \
    -fno-sanitize-recover=undefined -Isrc -isystem "$out/gen" -isystem build/gen -isystem build/vendor/host/include \
    -Wall -Wextra -Werror -o "$out/echo_server" "$here/echo_server.c" "$out/gen/echo.pb-c.c" \
    build/san/libinterlink-cri.a -Lbuild/vendor/host/lib -lcrun -lcurl -larchive -lzstd -lnghttp2 -lbearssl -lprotobuf-c -lz \
    -lyaml -lllhttp -lseccomp -lcap -lpthread
"$("$here/../venv.sh")/bin/python" -m grpc_tools.protoc -I"$here" --python_out="$out/py" --grpc_python_out="$out/py" \
    "$here/echo.proto"
