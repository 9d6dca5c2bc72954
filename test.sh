#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# test.sh [SUITE...]: builds what the tests need and runs them. Without arguments: everything that fits ten minutes.
#
#   build     the program: static, at most 3 MiB          proto     our messages against the official ones
#   layout    the layout's rules                          unit      modules alone, with sanitizers
#   fuzz      each parser for FUZZ_SECONDS (3)            e2e       the program with sanitizers, from outside
#   repro     two builds are bit-identical                flat      the amalgamation gives the same program
#   dist      the tarball builds without network          release   the end-to-end tests on the static program
#   kubernetes  real kubelets, API servers and kubectl on the static program (builds Kubernetes the first time: some 8 minutes)
#   slurm       pods as jobs of a real Slurm, also under a real kubelet (needs root; installs slurm-wlm, munge and patchelf)
#
# `all` runs every one of them but slurm. Logs: build/test/. The last line says "N passed, N failed, N skipped".
set -u
cd "$(dirname "$0")" || exit 1

everyday="build layout proto unit fuzz e2e"
all="$everyday repro flat dist release kubernetes"
suites=${*:-$everyday}
[ "$suites" = all ] && suites=$all

export FUZZ_SECONDS=${FUZZ_SECONDS:-3}
logs=build/test
mkdir -p "$logs"
passed=0 failed=0 skipped=0
jobs=$(nproc)

command -v make >/dev/null || { echo "test.sh: make is missing: apt-get install make" >&2; exit 1; }
make --no-print-directory deps-test || exit 1

say() { printf '%s %s\n' "$(date +%H:%M:%S)" "$*"; }
count() { # NAME PASSED FAILED SKIPPED
    passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + $4))
    say "$1: $2 passed, $3 failed, $4 skipped"
}
# check NAME COMMAND...: one check; exit status 77 is a skip, whose last line says why.
check() {
    local name=$1 status=0
    shift
    "$@" >"$logs/$name.log" 2>&1 || status=$?
    case $status in
    0) count "$name" 1 0 0 ;;
    77) count "$name" 0 0 1; tail -n 1 "$logs/$name.log" ;;
    *) count "$name" 0 1 0; tail -n 40 "$logs/$name.log" ;;
    esac
    return $status
}

static_and_small() {
    make interlink-cri || return 1
    ldd interlink-cri 2>&1 | grep -q 'not a dynamic executable' || { echo "interlink-cri is not static"; return 1; }
    local size
    size=$(stat -c %s interlink-cri)
    echo "interlink-cri: $size bytes"
    [ "$size" -le $((3 * 1024 * 1024)) ] || { echo "that is more than 3 MiB"; return 1; }
    ./interlink-cri --version
}

same_twice() {
    local other
    other=$(mktemp -d) || return 1
    make interlink-cri || return 1
    git ls-files -z | xargs -0 cp --parents -t "$other" || return 1
    make -C "$other" interlink-cri || return 1
    cmp interlink-cri "$other/interlink-cri" && rm -rf "$other" && echo "bit-identical: $(sha256sum <interlink-cri)"
}

flat() {
    make amalgamation build/interlink-cri-flat || return 1
    build/interlink-cri-flat --version && cmp build/interlink-cri-flat interlink-cri
}

dist_builds() {
    local other version
    version=$(cat VERSION)
    make dist || return 1
    other=$(mktemp -d) || return 1
    tar -C "$other" -xf "build/interlink-cri-$version.tar.gz" || return 1
    if ! unshare -n true 2>/dev/null; then
        echo "no network namespace here: it is built with the network as it is" >&2
        INTERLINK_CRI_CACHE=$other/cache make -C "$other"/interlink-cri-"$version" || return 1
    else
        INTERLINK_CRI_CACHE=$other/cache unshare -n make -C "$other"/interlink-cri-"$version" || return 1
    fi
    "$other"/interlink-cri-"$version"/interlink-cri --version && rm -rf "$other"
}

unit() {
    make -k -j"$jobs" unit >"$logs/unit-build.log" 2>&1 || { count unit-build 0 1 0; grep -E 'error|\*\*\*' "$logs/unit-build.log" | head -n 20; }
    local ok=0 bad=0 skip=0 program log n
    for source in test/unit/test_*.c; do
        program=build/unit/$(basename "$source" .c) log=$logs/$(basename "$source" .c).log
        [ -x "$program" ] || { bad=$((bad + 1)); echo "$program was not built"; continue; }
        timeout 300 "$program" >"$log" 2>&1 || true
        n=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log" | tail -n 1)
        ok=$((ok + ${n:-0}))
        n=$(sed -n 's/^\[  SKIPPED \] \([0-9]*\) test.*/\1/p' "$log" | tail -n 1)
        skip=$((skip + ${n:-0}))
        n=$(sed -n 's/^\[  FAILED  \] \([0-9]*\) test.*/\1/p' "$log" | tail -n 1)
        # A program that died has no closing line.
        if [ -n "${n:-}" ] || ! grep -q '^\[  PASSED  \]' "$log"; then
            bad=$((bad + ${n:-1}))
            echo "== $program"
            tail -n 30 "$log"
        fi
    done
    count unit "$ok" "$bad" "$skip"
}

fuzz_one() { # NAME
    local corpus=build/fuzz/corpus/${1#fuzz_}
    mkdir -p "$corpus"
    [ -x "build/fuzz/$1" ] && timeout 120 "build/fuzz/$1" -max_total_time="$FUZZ_SECONDS" -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix="build/fuzz/$1-" "$corpus" $(ls -d "test/fuzz/corpus/${1#fuzz_}" 2>/dev/null) >"$logs/$1.log" 2>&1
}

fuzz() {
    make -k -j"$jobs" fuzz-build >"$logs/fuzz-build.log" 2>&1 || { count fuzz-build 0 1 0; grep -E 'error|\*\*\*' "$logs/fuzz-build.log" | head -n 20; }
    local failed name bad=0
    set -- test/fuzz/fuzz_*.c
    export -f fuzz_one
    export logs FUZZ_SECONDS
    failed=$(basename -a -s .c "$@" | xargs -P "$jobs" -I{} bash -c 'fuzz_one {} || echo {}')
    for name in $failed; do
        bad=$((bad + 1))
        echo "== $name"
        tail -n 30 "$logs/$name.log" 2>/dev/null
    done
    count fuzz $(($# - bad)) "$bad" 0
}

# pytest on the binary given, over test/e2e or what is named.
e2e() { # NAME BINARY [PYTEST ARGUMENT...]
    local python temporary name=$1 binary=$2 report=$logs/$1.xml
    shift 2
    # Most tests wait more than they compute: two processes more than there are cores.
    [ $# -gt 0 ] || set -- test/e2e --ignore=test/e2e/kubernetes --ignore=test/e2e/slurm -n $((jobs + 2)) --dist loadfile
    temporary=$(mktemp -d /tmp/icri-test-XXXXXX) # short: a unix socket's path has 107 bytes
    chmod 755 "$temporary"
    python=$(test/e2e/venv.sh)/bin/python || { count "$name" 0 1 0; return; }
    rm -f "$report"
    INTERLINK_CRI_BINARY=$PWD/$binary "$python" -m pytest -q -rs --maxfail=20 --timeout=300 -p no:cacheprovider --junitxml="$report" \
        --basetemp="$temporary/t" "$@" >"$logs/$name.log" 2>&1
    local status=$?
    rm -rf "$temporary"
    [ $status -le 1 ] && [ -f "$report" ] || { count "$name" 0 1 0; tail -n 40 "$logs/$name.log"; return; }
    set -- "$name" $("$python" - "$report" <<'PY'
import sys, xml.etree.ElementTree as tree
suite = tree.parse(sys.argv[1]).getroot().find("testsuite").attrib
bad = int(suite["failures"]) + int(suite["errors"])
print(int(suite["tests"]) - bad - int(suite["skipped"]), bad, suite["skipped"])
PY
)
    [ "$3" = 0 ] || tail -n 80 "$logs/$1.log"
    grep -E '^SKIPPED' "$logs/$1.log"
    count "$@"
}

# Before the tests, whose time is bounded. Without Go (77), or where no kubelet can run, they say why they skip.
kubernetes_is_there() {
    local status=0
    [ "$(id -u)" = 0 ] && unshare -n -m true 2>/dev/null || return 0
    test/fixtures/k8s/build.sh kubeadm kube-proxy >"$logs/kubernetes-build.log" 2>&1 || status=$?
    [ $status = 0 ] || [ $status = 77 ] || { tail -n 20 "$logs/kubernetes-build.log"; return 1; }
}

# A Slurm of the distribution's, where it can be installed; the tests say why they skip without.
slurm_is_there() {
    [ "$(id -u)" != 0 ] || tools/deps.sh slurm-wlm munge patchelf >"$logs/slurm-deps.log" 2>&1 || tail -n 3 "$logs/slurm-deps.log"
}

for suite in $suites; do
    case $suite in
    build) check build static_and_small ;;
    layout) check layout python3 test/layout.py ;;
    proto) check proto /usr/bin/python3 test/proto/compare.py ;;
    unit) unit ;;
    fuzz) fuzz ;;
    e2e) if make -j"$jobs" san >"$logs/san.log" 2>&1; then e2e e2e build/san/interlink-cri; else count e2e-build 0 1 0; tail -n 20 "$logs/san.log"; fi ;;
    repro) check repro same_twice ;;
    flat) check flat flat ;;
    dist) check dist dist_builds ;;
    release) e2e release interlink-cri ;;
    kubernetes)
        if ! make interlink-cri >"$logs/build.log" 2>&1 || ! kubernetes_is_there; then
            count kubernetes-build 0 1 0
        else
            e2e kubernetes interlink-cri test/e2e/kubernetes -n $((jobs + 1)) --dist loadfile
        fi
        ;;
    slurm)
        if ! make -j"$jobs" san >"$logs/san.log" 2>&1 || ! kubernetes_is_there; then
            count slurm-build 0 1 0
        else
            slurm_is_there
            e2e slurm build/san/interlink-cri test/e2e/slurm -n $((jobs + 1)) --dist loadfile
        fi
        ;;
    *) echo "test.sh: unknown suite $suite; see the head of this file" >&2; exit 2 ;;
    esac
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
