#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# demo.sh: one real pod on the embedded default, from an empty folder to a tidy end. `make demo` runs it.
set -eu
cd "$(dirname "$0")/.."
program=$PWD/interlink-cri

# A unix socket's path is short, so the folder is directly below /tmp.
dir=$(mktemp -d /tmp/icri-demo.XXXXXX)
serve=
finish() {
    status=$?
    [ -z "$serve" ] || { kill "$serve" 2>/dev/null && wait "$serve" 2>/dev/null; } || true
    [ $status = 0 ] || { echo; echo "demo: failed; what serve said:" >&2; tail -n 20 "$dir/serve.log" >&2; }
    rm -rf "$dir"
    exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold='' plain=''; fi
step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
ctl() { "$program" ctl --runtime-endpoint "unix://$dir/cri.sock" "$@"; }
show() { printf '$ interlink-cri ctl %s\n' "$*"; ctl "$@"; }

step "A server in $dir, with the embedded default: pods run on this machine"
cat >"$dir/config.yaml" <<Y
Socket: $dir/cri.sock
StateDir: $dir/state
Y
"$program" serve --config "$dir/config.yaml" >"$dir/serve.log" 2>&1 &
serve=$!
for _ in $(seq 100); do ctl version >/dev/null 2>&1 && break; kill -0 $serve 2>/dev/null || exit 1; sleep 0.05; done
show version

step "A small image, made here from this machine's own shell"
test/demo-image.sh "$dir/image" >/dev/null
show load "$dir/image"
show images

step "A pod with one container"
cat >"$dir/pod.json" <<J
{"metadata": {"name": "demo", "namespace": "default", "uid": "demo-1"}, "log_directory": "$dir/logs",
 "linux": {"security_context": {"namespace_options": {"network": 2}}}}
J
cat >"$dir/container.json" <<J
{"metadata": {"name": "hello"}, "image": {"image": "example.local/demo:1"}, "log_path": "hello.log",
 "command": ["sh", "-c", "echo hello from a container; echo and its standard error >&2; trap 'echo bye; exit 42' TERM; while :; do sleep 1 & wait; done"],
 "envs": [{"key": "GREETING", "value": "hello"}]}
J
pod=$(ctl runp "$dir/pod.json")
container=$(ctl create "$pod" "$dir/container.json" "$dir/pod.json")
ctl start "$container" >/dev/null
show pods
show ps
sleep 0.3

step "Its log, and a command in it"
show logs "$container"
show exec -s "$container" sh -c 'echo "$GREETING from process $$, as user $(id -u), beside:"; ps'

step "It stops on TERM, with its own exit code"
ctl stop -t 10 "$container" >/dev/null
show ps -a
printf 'exit code: '
ctl inspect "$container" | sed -n 's/.*"exitCode": *\([0-9]*\).*/\1/p' | head -n 1
show logs "$container"

step "And nothing is left"
ctl rm "$container" >/dev/null
ctl stopp "$pod" >/dev/null
ctl rmp "$pod" >/dev/null
ctl rmi example.local/demo:1 >/dev/null
show pods
show images
step "Done. Next: ./test.sh, or \`interlink-cri serve\` and \`interlink-cri doctor\`."
