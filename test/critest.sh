#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# critest.sh CRITEST [FLAG...]: runs Kubernetes' conformance tests for container runtimes against the program.
#
# CRITEST is the program of that name from github.com/kubernetes-sigs/cri-tools (go build ./cmd/critest there); FLAGs are its own,
# e.g. -ginkgo.focus=seccomp or -websocket-exec. Everything happens in a private network and mount namespace: a registry with all
# images that critest wants, a bridge network by CNI, serve, and critest, which listens on fixed ports. Root only.
#
#   INTERLINK_CRI_BINARY   the program (./interlink-cri)
#   CRITEST_DIR            where to work and leave logs (build/critest)
#   CRITEST_USER           run serve and critest as this uid (root makes the namespaces and there is no CNI)
#   CRITEST_SUBIDS=1       that user has 65536 ids of its own in /etc/subuid and /etc/subgid (uidmap's newuidmap is needed)
#   CRITEST_PORTS=1        ports below 1024 are free for all (net.ipv4.ip_unprivileged_port_start=0)
#   CRITEST_NO_CNI=1       without a pod network of its own
#
# Ends with one line "N passed, N failed, N skipped" and leaves report.xml, critest.log, serve.log.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
critest=$(realpath "${1:?usage: critest.sh CRITEST [FLAG...]}")
shift
binary=$(realpath "${INTERLINK_CRI_BINARY:-$top/interlink-cri}")
dir=$(realpath -m "${CRITEST_DIR:-$top/build/critest}")
[ "$(id -u)" = 0 ] || { echo "critest.sh: must be root, for the private namespaces (CRITEST_USER=UID runs the rest as that user)" >&2; exit 77; }

mkdir -p "$dir"
images=$dir/images
if [ ! -f "$images/refs.json" ]; then
    # /bin/sh in the images must be an ash that executes programs: Debian's dynamic busybox.
    (cd "$dir" && apt-get download -q busybox >/dev/null && dpkg -x busybox_*.deb busybox)
    SH_BIN=$(find "$dir/busybox" -name busybox -type f -perm -u+x | head -n 1) \
        "$top/test/fixtures/images/make-images.sh" build "$images"
fi
"$top/test/fixtures/images/make-images.sh" patch "$images" "$critest" "$dir/critest" >/dev/null

export dir images top binary
as_user=
if [ -n "${CRITEST_USER:-}" ]; then
    as_user="setpriv --reuid=$CRITEST_USER --regid=$CRITEST_USER --clear-groups"
    mkdir -p "$dir/run"
    chown -R "$CRITEST_USER:$CRITEST_USER" "$dir/run"
fi
export as_user
exec unshare -n -m --propagation private bash -s -- "$@" <<'INSIDE'
set -eu
ip link set lo up
sysctl -qw net.ipv4.ip_forward=1
mount -t tmpfs tmpfs /etc/cni 2>/dev/null || { mkdir -p /etc/cni && mount -t tmpfs tmpfs /etc/cni; }
mkdir -p /etc/cni/net.d
mount -t tmpfs tmpfs /run
if [ -z "${CRITEST_USER:-}" ] && [ -z "${CRITEST_NO_CNI:-}" ]; then
    cat >/etc/cni/net.d/10-bridge.conflist <<C
{"cniVersion":"1.0.0","name":"critest","plugins":[
 {"type":"bridge","bridge":"critest0","isGateway":true,"ipMasq":true,"hairpinMode":true,
  "ipam":{"type":"host-local","dataDir":"/etc/cni/leases","ranges":[[{"subnet":"10.89.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true},"snat":true}]}
C
fi
if [ -n "${CRITEST_PORTS:-}" ]; then
    sysctl -qw net.ipv4.ip_unprivileged_port_start=0
fi
if [ -n "${CRITEST_SUBIDS:-}" ]; then
    mkdir -p "$dir/etc/upper" "$dir/etc/work"
    mount -t overlay -o "lowerdir=/etc,upperdir=$dir/etc/upper,workdir=$dir/etc/work" critest-etc /etc
    echo "$CRITEST_USER:1000000:65536" | tee /etc/subuid >/etc/subgid
    getent passwd "$CRITEST_USER" >/dev/null || echo "critest:x:$CRITEST_USER:$CRITEST_USER::/:/bin/sh" >>/etc/passwd
fi
run=$dir/run
mkdir -p "$run"
cat >"$run/config.yaml" <<C
Socket: $run/cri.sock
StateDir: $run/state
Images:
  HostsDirs: [$images/certs.d]
${CRITEST_CONFIG:-}
C
finish() {
    kill "$serve" 2>/dev/null || true
    wait "$serve" 2>/dev/null || true
    kill "$registry" 2>/dev/null || true
}
"$top/test/fixtures/images/make-images.sh" serve "$images" 5000 >"$dir/registry.log" 2>&1 &
registry=$!
HOME=$run $as_user "$binary" serve --config "$run/config.yaml" >"$dir/serve.log" 2>&1 &
serve=$!
trap finish EXIT
for _ in $(seq 100); do
    [ -S "$run/cri.sock" ] && (exec 3<>/dev/tcp/127.0.0.1/5000) 2>/dev/null && break
    sleep 0.1
done
cd "$run"
status=0
$as_user "$dir/critest" -runtime-endpoint "unix://$run/cri.sock" -image-endpoint "unix://$run/cri.sock" \
    -test-images-file "$images/critest-images.yaml" -ginkgo.seed=1 -ginkgo.no-color -ginkgo.junit-report="$run/report.xml" \
    "$@" >"$dir/critest.log" 2>&1 || status=$?
cp "$run/report.xml" "$dir/report.xml" 2>/dev/null || true
python3 - "$dir/report.xml" <<'PY'
import sys, xml.etree.ElementTree as tree
passed = failed = skipped = 0
for case in tree.parse(sys.argv[1]).iter("testcase"):
    name, status = case.get("name"), case.get("status")
    if not name.startswith("[It]"):
        continue
    if status == "passed":
        passed += 1
    elif status in ("skipped", "pending"):
        skipped += 1
        why = case.find("skipped")
        print("SKIPPED", name[5:], "--", (why.get("message") or "").replace("skipped - ", "") if why is not None else "")
    else:
        failed += 1
        why = case.find("failure") if case.find("failure") is not None else case.find("error")
        print("FAILED ", name[5:], "--", ((why.get("message") or "") if why is not None else "")[:300].replace("\n", " "))
print(f"{passed} passed, {failed} failed, {skipped} skipped")
PY
exit $status
INSIDE
