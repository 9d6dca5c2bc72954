#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# demo-image.sh DIR: writes an OCI layout with one image, example.local/demo:1, made of a few programs of this machine and
# the libraries they need. No network, no tools beyond what every Debian has.
set -eu
out=${1:?usage: demo-image.sh DIR}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

mkdir -p "$root"/{bin,dev,etc,proc,sys,tmp,run}
for program in sh cat echo sleep ls id ps env true false; do
    path=$(command -v "$program" 2>/dev/null) || continue
    case $path in /*) ;; *) path=/bin/$program ;; esac
    [ -x "$path" ] || continue
    cp -L "$path" "$root/bin/$program"
    { ldd "$path" 2>/dev/null || true; } | grep -o '/[^ )]*' | while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -Ln "$library" "$root$library" 2>/dev/null || true
    done
done
echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"

mkdir -p "$out/blobs/sha256"
put() { # FILE: moves it among the blobs; prints digest and size
    local hex
    hex=$(sha256sum <"$1" | cut -d' ' -f1)
    mv "$1" "$out/blobs/sha256/$hex"
    digest=sha256:$hex size=$(stat -c %s "$out/blobs/sha256/$hex")
}
tar -C "$root" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$out/layer.tar" .
diff=sha256:$(sha256sum <"$out/layer.tar" | cut -d' ' -f1)
gzip -n "$out/layer.tar"
put "$out/layer.tar.gz"
layer="{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"$digest\",\"size\":$size}"
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
echo "{\"architecture\":\"$arch\",\"os\":\"linux\",\"config\":{\"Env\":[\"PATH=/bin\"],\"Cmd\":[\"sh\"]},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"$diff\"]}}" >"$out/config"
put "$out/config"
config="{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"$digest\",\"size\":$size}"
echo "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":$config,\"layers\":[$layer]}" >"$out/manifest"
put "$out/manifest"
echo '{"imageLayoutVersion":"1.0.0"}' >"$out/oci-layout"
echo "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"$digest\",\"size\":$size,\"annotations\":{\"org.opencontainers.image.ref.name\":\"example.local/demo:1\"}}]}" >"$out/index.json"
echo "example.local/demo:1 $digest"
