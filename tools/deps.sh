#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# deps.sh PACKAGE...: install the Debian packages that are missing, as root or through sudo. Says which ones are missing, and
# the command that installs them, where neither is possible.
set -eu

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "deps: this is not a Debian system; install what is called here, in Debian's words: $*" >&2
    exit 1
fi

missing=
for package in "$@"; do
    case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
    *" installed") ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    as_root="env"
elif sudo -n true 2>/dev/null; then
    as_root="sudo -n env"
else
    echo "deps: missing:$missing" >&2
    echo "deps: neither root nor sudo without a password; ask an administrator to run:" >&2
    echo "    apt-get update && apt-get install --no-install-recommends$missing" >&2
    exit 1
fi

echo "deps: installing$missing"
install() { $as_root DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null; }
# A fresh machine has no package lists, an old one stale lists: update, then.
$as_root apt-get -qq update || echo "deps: apt-get update failed; trying with the lists that are here" >&2
install || {
    echo "deps: could not install$missing (see above)" >&2
    exit 1
}
