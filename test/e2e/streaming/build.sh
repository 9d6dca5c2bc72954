#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# build.sh OUT: writes OUT/channel_main, with sanitizers.
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
# The compiler may be two words (ccache gcc).
${CC_SAN:-gcc} -std=c11 -D_GNU_SOURCE -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -Isrc \
    -isystem build/gen -isystem build/vendor/host/include -Wall -Wextra -Werror -o "$out/channel_main" "$here/channel_main.c" \
    build/san/libinterlink-cri.a -Lbuild/vendor/host/lib -lcrun -lcurl -larchive -lzstd -lnghttp2 -lbearssl -lprotobuf-c -lz \
    -lyaml -lllhttp -lseccomp -lcap -lpthread
