#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Makes the Python environment of the end-to-end tests, once, and prints its path:
#
#     "$(test/e2e/venv.sh)/bin/python" -m pytest test/e2e
#
# It lies in ${INTERLINK_CRI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/interlink-cri}, named by a hash of requirements.txt and the
# Python it was made with, so a change of either makes a new one. Needs python3 (3.11 to 3.13) with venv, flock, and the
# network the first time. PYTHON chooses another interpreter.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-/usr/bin/python3}
cache=${INTERLINK_CRI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/interlink-cri}

made_with=$("$python" -c 'import platform, sys; print(sys.executable, platform.python_version(), platform.machine())') || {
    echo "venv.sh: cannot run $python; install python3 or set PYTHON" >&2
    exit 1
}
key=$({ cat "$here/requirements.txt"; echo "$made_with"; } | sha256sum | cut -c1-16)
venv=$cache/venv-$key

if [ ! -e "$venv/complete" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/venv.lock"
    flock 9
    if [ ! -e "$venv/complete" ]; then  # nobody else made it while we waited
        rm -rf "$venv"
        "$python" -m venv "$venv" >&2 || {
            rm -rf "$venv"
            echo "venv.sh: $python cannot make a virtual environment; install python3-venv" >&2
            exit 1
        }
        "$venv/bin/python" -m pip --quiet --disable-pip-version-check install \
            --require-hashes --only-binary :all: -r "$here/requirements.txt" >&2 || {
            rm -rf "$venv"
            echo "venv.sh: the packages of $here/requirements.txt could not be installed; the first time needs the network" >&2
            exit 1
        }
        : >"$venv/complete"
    fi
fi
echo "$venv"
