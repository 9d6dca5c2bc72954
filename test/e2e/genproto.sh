#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# genproto.sh OUT: writes the Python modules NAME_pb2 and NAME_pb2_grpc of every proto/NAME.proto into the folder OUT,
# which then belongs on sys.path. Does nothing when they are already there and up to date. PROTO names another source folder.
set -eu

[ $# -eq 1 ] || { echo "usage: genproto.sh OUT" >&2; exit 2; }
out=$1
here=$(cd "$(dirname "$0")" && pwd)
proto=$(cd "${PROTO:-$here/../../proto}" && pwd)

# Two test runs may want the same folder at once; one at a time then.
exec 8<"$proto"
flock 8

stamp=$(cat "$proto"/*.proto "$here/requirements.txt" "$here/genproto.sh" | sha256sum | cut -c1-64)
[ "$(cat "$out/.stamp" 2>/dev/null || true)" != "$stamp" ] || exit 0
if [ -e "$out" ] && [ ! -e "$out/.stamp" ] && [ -n "$(ls -A "$out")" ]; then
    echo "genproto.sh: $out holds something else; name a new or an empty folder" >&2
    exit 1
fi

venv=$("$here/venv.sh")
mkdir -p "$(dirname "$out")"
new=$(mktemp -d "$out.XXXXXX")
trap 'rm -rf "$new"' EXIT
chmod 755 "$new"
"$venv/bin/python" -m grpc_tools.protoc -I"$proto" --python_out="$new" --grpc_python_out="$new" "$proto"/*.proto
echo "$stamp" >"$new/.stamp"
rm -rf "$out"
mv "$new" "$out"
