#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Fetches, verifies and builds the third-party libraries of vendor/lock as static archives.
#
#   vendor/build.sh fetch          only fetch and verify every source into the cache
#   vendor/build.sh collect DIR    the same, then copy them to DIR (`make dist`)
#   vendor/build.sh musl           for the program: musl, small, into build/vendor/musl/{include,lib}
#   vendor/build.sh host           for tests: the machine's libc, into build/vendor/host/{include,lib}
#   vendor/build.sh key FLAVOUR    print the cache key: it changes when anything that matters does
#
# A source is taken from vendor/sources/, else the cache, else the machine's own Debian mirror (read from its apt
# configuration). The cache is ${INTERLINK_CRI_CACHE:-${XDG_CACHE_HOME:-~/.cache}/interlink-cri}; a built prefix is
# kept there too, so that the next clone unpacks it instead of building it.
#
# Environment: JOBS (default: the number of processors, at most 2), CC_HOST (gcc), CC_MUSL (musl-gcc).

set -euo pipefail
export LC_ALL=C TZ=UTC
umask 022

here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
lock=$here/lock
cache=${INTERLINK_CRI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/interlink-cri}
jobs=${JOBS:-$(n=$(nproc); echo $((n < 2 ? n : 2)))}
cc_host=${CC_HOST:-gcc}
cc_musl=${CC_MUSL:-musl-gcc}

say() { printf 'vendor: %s\n' "$*" >&2; }
die() { printf 'vendor: error: %s\n' "$*" >&2; exit 1; }

# need PROGRAM PACKAGE: stop with the remedy when a tool is missing.
need() {
    command -v "$1" >/dev/null || die "'$1' is missing; install the Debian package $2 (or run: make deps)"
}

# lock_lines [NAME]: the lines of the lock without comments, of one library or all.
lock_lines() { awk -v name="${1:-}" '!/^#/ && NF == 6 && (name == "" || $1 == name)' "$lock"; }

# ---- sources ----

# mirrors: the roots of the Debian mirrors that this machine's apt uses, one a line.
mirrors() {
    if command -v apt-get >/dev/null; then
        apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | sort -u
    fi
}

# fetch_file URI FILE SHA256: apt's own downloader knows the machine's proxies; curl and wget do elsewhere.
fetch_file() {
    if [ -x /usr/lib/apt/apt-helper ]; then
        # With --root's privileges dropped, apt could not write here: it runs as it is, and verifies the hash.
        /usr/lib/apt/apt-helper -o APT::Sandbox::User="$(id -un)" download-file "$1" "$2" "SHA256:$3" >/dev/null 2>&1
    elif command -v curl >/dev/null; then
        curl -fsSL -o "$2" "$1" 2>/dev/null
    elif command -v wget >/dev/null; then
        wget -qO "$2" "$1"
    else
        return 1
    fi
}

is_sha256() { [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$2" ]; }

# source_file SHA256 PATH: print the name of the verified file, fetching it when needed.
source_file() {
    local sha=$1 path=$2 base=${2##*/} kept=$cache/sources/$1 uri mirror tried=''
    if [ -f "$here/sources/$base" ]; then
        is_sha256 "$here/sources/$base" "$sha" ||
            die "vendor/sources/$base is not the file that vendor/lock names (its sha256 differs); delete it and run again"
        echo "$here/sources/$base"
        return
    fi
    if [ -f "$kept" ]; then
        if is_sha256 "$kept" "$sha"; then
            echo "$kept"
            return
        fi
        say "$base in the cache is damaged; fetching it again"
        rm -f "$kept"
    fi
    mkdir -p "$cache/sources"
    local part=$cache/sources/.$sha.$$
    # '+' and '~' are legal in paths, but not every mirror takes them unescaped.
    local escaped=${path//+/%2b}
    escaped=${escaped//\~/%7e}
    for mirror in ${INTERLINK_CRI_MIRROR:-$(mirrors)}; do
        uri=${mirror%/}/$escaped
        tried="$tried $uri"
        rm -f "$part"
        if fetch_file "$uri" "$part" "$sha" && [ -f "$part" ]; then
            if is_sha256 "$part" "$sha"; then
                say "fetched $base ($(wc -c <"$part") bytes)"
                mv "$part" "$kept"
                echo "$kept"
                return
            fi
            say "$uri is another file than vendor/lock names (its sha256 differs)"
        fi
        rm -f "$part"
    done
    die "cannot get $base (sha256 $sha).
  Tried:${tried:- nothing, for this machine has no apt configuration with a Debian mirror}
  To mend it: put that file into vendor/sources/, or set INTERLINK_CRI_MIRROR to the root of a Debian mirror,
  or build from the archive that 'make dist' writes on a connected machine: it holds every source."
}

fetch_all() {
    local name version kind sha licence path
    while read -r name version kind sha licence path; do
        source_file "$sha" "$path" >/dev/null
    done < <(lock_lines)
}

collect() {
    local name version kind sha licence path file
    mkdir -p "$1"
    while read -r name version kind sha licence path; do
        file=$(source_file "$sha" "$path")
        cp "$file" "$1/${path##*/}"
    done < <(lock_lines)
}

# wanted_patch LIBRARY PATCH: which of Debian's patches are applied. Left out: packaging, tests, other tools.
wanted_patch() {
    case $1/$2 in
    curl/ZZZ* | curl/build-* | curl/11_* | curl/wcurl-* | curl/tool_* | curl/openssl_* | curl/curl_path_*) return 1 ;;
    nghttp2/CVE-*-test.patch) return 1 ;;
    nghttp2/CVE-*) ;;
    nghttp2/*) return 1 ;;
    libseccomp/api_* | libseccomp/hash_*) ;;
    libseccomp/*) return 1 ;;
    libcap/Address-*) ;;
    libcap/*) return 1 ;;
    libarchive/typos.patch) return 1 ;;
    esac
}

# unpack NAME: the patched source tree of a library, in $work/NAME.
unpack() {
    local name version kind sha licence path file dir=$work/$1 patch
    mkdir -p "$dir"
    while read -r name version kind sha licence path; do
        file=$(source_file "$sha" "$path")
        case $kind in
        orig)
            tar -xf "$file" -C "$dir" --strip-components=1 --no-same-owner
            ;;
        deb) # an ar archive of tar archives
            (cd "$dir" && ar x "$file" && tar -xf data.tar.* --no-same-owner && rm -f control.tar.* data.tar.* debian-binary)
            ;;
        deb-patches)
            rm -rf "$dir/debian"
            tar -xf "$file" -C "$dir" --no-same-owner
            while read -r patch; do
                case $patch in '' | '#'*) continue ;; esac
                wanted_patch "$name" "$patch" || continue
                apply_patch "$dir" "$dir/debian/patches/$patch"
            done <"$dir/debian/patches/series"
            ;;
        *) die "vendor/lock: unknown kind '$kind' of $name" ;;
        esac
    done < <(lock_lines "$1")
    [ -n "${file:-}" ] || die "vendor/lock has no line for $1"
    for patch in "$here/patches/$1"/*.patch; do
        [ -f "$patch" ] && apply_patch "$dir" "$patch"
    done
    # One time for all files: make then sees generated files as fresh and does not call autotools, gperf or python.
    find "$dir" -exec touch -h -d @1600000000 {} +
}

apply_patch() {
    patch -d "$1" -p1 -s -f --no-backup-if-mismatch -r - -i "$2" >"$work/patch.log" 2>&1 || {
        cat "$work/patch.log" >&2
        die "$(basename "$2") does not apply to $(basename "$1")"
    }
}

# ---- compiling ----

# compile ARCHIVE 'FLAGS' FILE...: compile each file and put the objects into lib/ARCHIVE.
compile() {
    local archive=$prefix/lib/$1 flags=$2 objects=$work/objects/$1
    shift 2
    mkdir -p "$objects"
    # Objects are named after the whole path, so that two a/x.c and b/x.c do not meet in one archive.
    printf '%s\n' "$@" | xargs -P "$jobs" -I{} sh -c '
        object=$1/$(printf %s "$2" | tr / _ | sed "s/\.c$/.o/")
        $CC $BASE $3 -c -o "$object" "$2" || exit 255' sh "$objects" {} "$flags" ||
        die "compiling $(basename "$archive") failed (see above)"
    "$ar" rcsD "$archive" "$objects"/*.o
}

# seal ARCHIVE PATTERN...: make one object of a library and keep only the symbols that match visible outside of it. Its
# internal names (base64_decode, hash, memfd_create...) then cannot meet ours. Sections stay apart, so --gc-sections works.
seal() {
    local archive=$prefix/lib/$1 object=$work/objects/${1%.a}-sealed.o pattern keep=()
    shift
    for pattern in "$@"; do keep+=("--keep-global-symbol=$pattern"); done
    mkdir -p "$work/objects"
    "$ld" -r -o "$object" --whole-archive "$archive" || die "joining $(basename "$archive") failed"
    "$objcopy" --wildcard "${keep[@]}" "$object"
    rm "$archive"
    "$ar" rcsD "$archive" "$object"
}

# quietly LOG COMMAND...: run a noisy build step; its output is shown only when it fails.
quietly() {
    local log=$work/$1.log
    shift
    "$@" >>"$log" 2>&1 || {
        tail -n 40 "$log" >&2
        die "'$*' failed (last lines above; all of it in $log)"
    }
}

# configure NAME OPTION...: autoconf's configure in the source tree of NAME.
configure() {
    local name=$1
    shift
    quietly "$name" env CC="$CC" CFLAGS="$BASE" CPPFLAGS="-I$prefix/include" LDFLAGS="-L$prefix/lib $STATIC" \
        PKG_CONFIG=/bin/false ./configure --prefix="$prefix" --build="$machine" --host="$triple" \
        --disable-shared --enable-static --disable-dependency-tracking "$@"
}

build_nghttp2() {
    local version
    version=$(lock_lines nghttp2 | awk '$3 == "orig" { print $2 }')
    sed -e "s/@PACKAGE_VERSION@/$version/" \
        -e "s/@PACKAGE_VERSION_NUM@/$(printf '0x%02x%02x%02x' ${version//./ })/" \
        lib/includes/nghttp2/nghttp2ver.h.in >lib/includes/nghttp2/nghttp2ver.h
    compile libnghttp2.a "-O2 -Ilib/includes -Ilib -DNGHTTP2_STATICLIB -DNDEBUG -DHAVE_ARPA_INET_H -DHAVE_NETINET_IN_H \
        -DHAVE_CLOCK_GETTIME -DHAVE_DECL_CLOCK_MONOTONIC=1" lib/*.c
    mkdir -p "$prefix/include/nghttp2"
    cp lib/includes/nghttp2/*.h "$prefix/include/nghttp2/"
}

build_bearssl() {
    # Ciphers, hashes and big integers are worth their speed; the rest is kept small. Randomness: getentropy() or
    # /dev/urandom, chosen by BearSSL itself.
    compile libbearssl.a "-Iinc -Isrc" $(find src -name '*.c' | sort | grep -vE '^src/(symcipher|hash|mac|int|ec|aead)/')
    compile libbearssl.a "-O2 -Iinc -Isrc" $(find src -name '*.c' | sort | grep -E '^src/(symcipher|hash|mac|int|ec|aead)/')
    cp inc/*.h "$prefix/include/"
}

build_protobuf-c() {
    compile libprotobuf-c.a "-I. -DNDEBUG" protobuf-c/protobuf-c.c
    mkdir -p "$prefix/include/protobuf-c"
    cp protobuf-c/protobuf-c.h "$prefix/include/protobuf-c/"
}

build_jsmn() { cp jsmn.h "$prefix/include/"; }

build_zlib() {
    compile libz.a "-O2 -DHAVE_UNISTD_H -DHAVE_STDARG_H -D_LARGEFILE64_SOURCE=1 -DHAVE_HIDDEN" *.c
    cp zlib.h zconf.h "$prefix/include/"
}

build_libyaml() {
    compile libyaml.a '-Iinclude -DYAML_VERSION_MAJOR=0 -DYAML_VERSION_MINOR=2 -DYAML_VERSION_PATCH=5
        -DYAML_VERSION_STRING="0.2.5"' src/*.c
    cp include/yaml.h "$prefix/include/"
}

build_llhttp() {
    cd usr/src/llhttp
    compile libllhttp.a "-Iinclude" src/*.c
    cp include/llhttp.h "$prefix/include/"
}

build_zstd() { # the decompressor only
    compile libzstd.a "-O2 -Ilib -DZSTD_DISABLE_ASM -DZSTD_LEGACY_SUPPORT=0 -DDYNAMIC_BMI2=0 -DXXH_NAMESPACE=ZSTD_ \
        -DZSTD_STRIP_ERROR_STRINGS=0" lib/common/*.c lib/decompress/*.c
    cp lib/zstd.h lib/zstd_errors.h "$prefix/include/"
}

build_libarchive() {
    configure libarchive --enable-xattr --disable-acl --disable-bsdtar --disable-bsdcat --disable-bsdcpio --disable-bsdunzip \
        --with-zlib --with-zstd --without-bz2lib --without-libb2 --without-iconv --without-lz4 --without-lzma --without-lzo2 \
        --without-cng --without-openssl --without-mbedtls --without-nettle --without-xml2 --without-expat
    # Without these, zstd layers fail with -20 and file capabilities are lost: better no library than that one.
    local macro
    for macro in HAVE_LIBZ HAVE_LIBZSTD ARCHIVE_XATTR_LINUX; do
        grep -qE "^#define $macro 1" config.h || die "libarchive was configured without $macro"
    done
    quietly libarchive make -j"$jobs" libarchive.la
    cp .libs/libarchive.a "$prefix/lib/"
    cp libarchive/archive.h libarchive/archive_entry.h "$prefix/include/"
}

build_curl() {
    # HTTP/1.1 and TLS by BearSSL, nothing else. Names are resolved in a thread, for the event loop must not block.
    # The CA bundle below is only the default: CURLOPT_CAINFO names the site's own.
    configure curl --with-bearssl="$prefix" --without-zlib --without-brotli --without-zstd --without-libpsl --without-libidn2 \
        --without-nghttp2 --without-libssh2 --without-librtmp --without-ca-path --without-libgsasl \
        --with-ca-bundle=/etc/ssl/certs/ca-certificates.crt \
        --enable-http --enable-proxy --enable-unix-sockets --enable-ipv6 --enable-threaded-resolver --enable-basic-auth \
        --enable-bearer-auth --disable-ftp --disable-file --disable-ldap --disable-ldaps --disable-rtsp --disable-dict \
        --disable-telnet --disable-tftp --disable-pop3 --disable-imap --disable-smb --disable-smtp --disable-gopher \
        --disable-mqtt --disable-ipfs --disable-websockets --disable-manual --disable-docs --disable-libcurl-option \
        --disable-ntlm --disable-negotiate-auth --disable-kerberos-auth --disable-digest-auth --disable-aws --disable-tls-srp \
        --disable-cookies --disable-netrc --disable-alt-svc --disable-hsts --disable-doh --disable-mime --disable-form-api \
        --disable-dateparse --disable-progress-meter --disable-dnsshuffle --disable-get-easy-options --disable-versioned-symbols \
        --disable-ca-search
    quietly curl make -j"$jobs" -C lib libcurl.la
    cp lib/.libs/libcurl.a "$prefix/lib/"
    mkdir -p "$prefix/include/curl"
    cp include/curl/*.h "$prefix/include/curl/"
}

build_libseccomp() {
    # The table that gperf makes is in the archive; configure only wants to see the tool.
    configure libseccomp --disable-python GPERF=/bin/false
    quietly libseccomp make -C include
    quietly libseccomp make -C src -j"$jobs" libseccomp.la
    cp src/.libs/libseccomp.a "$prefix/lib/"
    seal libseccomp.a 'seccomp_*'
    cp include/seccomp.h include/seccomp-syscalls.h "$prefix/include/"
}

build_libcap() {
    # Its makefile generates the table of names; without gperf, so that every machine makes the same.
    quietly libcap make -C libcap cap_names.h CC="$cc_host" BUILD_CC="$cc_host" USE_GPERF=no GOLANG=no PTHREADS=no SHARED=no
    compile libcap.a "-Dlinux -D_LARGEFILE64_SOURCE -D_FILE_OFFSET_BITS=64 -Ilibcap/include -Ilibcap/include/uapi -Ilibcap" \
        libcap/cap_{alloc,proc,extint,flag,text,file,syscalls}.c
    mkdir -p "$prefix/include/sys"
    cp libcap/include/sys/capability.h "$prefix/include/sys/"
}

build_crun() {
    # argp.h is glibc's; libcrun calls nothing of it, but needs what it includes.
    mkdir -p stub
    printf '#include <%s>\n' ctype.h errno.h getopt.h limits.h stdio.h >stub/argp.h
    echo 'typedef int error_t;' >>stub/argp.h
    configure crun PYTHON=/bin/true --disable-systemd --disable-criu --disable-dl --disable-bpf --enable-caps --enable-seccomp \
        --enable-embedded-yajl --disable-crun --enable-libcrun ac_cv_search_argp_parse="none required" \
        ac_cv_header_argp_h=yes CPPFLAGS="-I$prefix/include -I$PWD/stub"
    local macro
    for macro in HAVE_CAP HAVE_SECCOMP; do
        grep -qE "^#define $macro 1" config.h || die "libcrun was configured without $macro"
    done
    cp .tarball-git-version.h git-version.h
    (cd libocispec/yajl && compile libcrun.a "-DNDEBUG -DHAVE_CONFIG_H -I. -Isrc/headers -Isrc" src/yajl*.c)
    (cd libocispec && compile libcrun.a "-DHAVE_CONFIG_H -I. -Isrc -Iyajl/src/headers" \
        src/ocispec/{image_spec_schema,runtime_spec_schema,image_manifest_items}*.c src/ocispec/{json_common,read-file}.c)
    compile libcrun.a "-DHAVE_CONFIG_H -I. -Isrc -Istub -Ilibocispec/src -Ilibocispec/yajl/src/headers -I$prefix/include
        -fvisibility=hidden" src/libcrun/*.c src/libcrun/handlers/*.c src/libcrun/blake3/blake3.c src/libcrun/blake3/blake3_portable.c
    seal libcrun.a 'libcrun_*' 'crun_*' ensure_cloned_binary 'yajl_*' '*runtime_spec_schema_*' '*json_map_*'
    # What a user of the library includes: libcrun's headers, its config.h, the OCI structs and the JSON parser's.
    # Its headers include <config.h> and <argp.h>: those are in a folder of their own, for the file that uses libcrun.
    mkdir -p "$prefix"/include/{libcrun/compat,ocispec,yajl}
    cp src/libcrun/*.h "$prefix/include/libcrun/"
    cp config.h stub/argp.h "$prefix/include/libcrun/compat/"
    cp libocispec/src/ocispec/*.h "$prefix/include/ocispec/"
    cp libocispec/yajl/src/headers/yajl/*.h "$prefix/include/yajl/"
}

# In this order: libarchive needs zlib and zstd, curl needs bearssl, crun needs libcap and libseccomp.
libraries="nghttp2 bearssl protobuf-c jsmn zlib libyaml llhttp zstd libarchive curl libseccomp libcap crun"

# ---- flavours ----

# set_flavour FLAVOUR: the compiler and its flags.
set_flavour() {
    flavour=$1
    prefix=$top/build/vendor/$flavour
    case $flavour in
    musl)
        CC=$cc_musl
        need "${CC%% *}" musl-tools
        BASE="-Os -fno-pie -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables -g0"
        STATIC=-static
        ;;
    host)
        CC=$cc_host
        need "${CC%% *}" gcc
        BASE="-O1 -g -fno-omit-frame-pointer -fPIC"
        STATIC=
        ;;
    *) die "unknown flavour '$flavour'; it is musl or host" ;;
    esac
    triple=$($CC -dumpmachine)
    machine=$($cc_host -dumpmachine)
    # A cross compiler brings its own linker and tools.
    ld=$($CC -print-prog-name=ld)
    objcopy=$($CC -print-prog-name=objcopy)
    ar=$($CC -print-prog-name=ar)
    BASE="$BASE -w"
    export CC BASE
}

# link_kernel_headers: musl-gcc searches no system folder. The kernel's three, and nothing of glibc's beside them, are given
# to it by -idirafter.
link_kernel_headers() {
    local folder=/usr/include asm=/usr/include/$triple/asm
    [ "$triple" = "$machine" ] || { folder=/usr/$triple/include asm=/usr/$triple/include/asm; }
    [ -d "$asm" ] || asm=$folder/asm
    [ -d "$folder/linux" ] && [ -d "$asm" ] ||
        die "the kernel's headers are missing in $folder; install the Debian package linux-libc-dev (or run: make deps)"
    mkdir -p "$prefix/kernel"
    ln -sfn "$folder/linux" "$prefix/kernel/linux"
    ln -sfn "$folder/asm-generic" "$prefix/kernel/asm-generic"
    ln -sfn "$asm" "$prefix/kernel/asm"
}

# static_libc: the C library that $CC links statically (its specs, not its search path, know it).
static_libc() {
    echo 'int main(void) { return 0; }' | $CC -static -x c -o /dev/null - -Wl,--trace | grep -o '/[^ ()]*/libc\.a' | head -n 1
}

cache_key() {
    {
        cat "$lock" "$here/build.sh"
        find "$here/patches" -name '*.patch' | sort | xargs -r cat
        echo "$flavour $triple"
        $CC --version | head -n 1
        [ "$flavour" = host ] || sha256sum <"$(static_libc)"
        sha256sum </usr/include/linux/version.h
    } | sha256sum | cut -c1-32
}

build_flavour() {
    set_flavour "$1"
    local key kept lib start
    key=$(cache_key)
    kept=$cache/built/$flavour-$key.tar.gz
    mkdir -p "$top/build/vendor"
    exec 9>"$top/build/vendor/$flavour.lock"
    flock 9 # two builds of one tree at once
    if [ "$(cat "$prefix/key" 2>/dev/null)" = "$key" ]; then
        say "$flavour: up to date"
        return
    fi
    # Built or unpacked beside its place and moved there whole, so that nobody sees half of it.
    local place=$prefix
    work=$(mktemp -d "${TMPDIR:-/tmp}/interlink-cri-vendor.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    prefix=$work/prefix
    mkdir -p "$prefix"
    if [ -f "$kept" ] && tar -xzf "$kept" -C "$prefix" 2>/dev/null; then
        say "$flavour: taken from the cache"
    else
        rm -rf "$prefix"
        mkdir -p "$prefix"/{include,lib}
        local tool
        for tool in make:make patch:patch ar:binutils xz:xz-utils; do need "${tool%%:*}" "${tool##*:}"; done
        link_kernel_headers
        [ "$flavour" = host ] || BASE="$BASE -idirafter $prefix/kernel"
        # Built in another folder, the archives are the same: no path of this machine stays in them.
        BASE="$BASE -ffile-prefix-map=$work=vendor"
        export BASE
        fetch_all
        for lib in $libraries; do
            start=$SECONDS
            unpack "$lib"
            # An exit inside the parentheses is a die(), which set -e passes on.
            (cd "$work/$lib" && "build_$lib")
            say "$flavour: built $lib in $((SECONDS - start)) s"
        done
        mkdir -p "$cache/built"
        tar -C "$prefix" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf - include lib |
            gzip -n >"$kept.$$"
        mv "$kept.$$" "$kept"
    fi
    link_kernel_headers
    echo "$key" >"$prefix/key"
    rm -rf "$place"
    mv "$prefix" "$place"
    rm -rf "$work"
    trap - EXIT
}

command -v sha256sum >/dev/null || die "'sha256sum' is missing; install the Debian package coreutils"
case ${1:-} in
fetch) fetch_all ;;
collect) collect "${2:?a folder}" ;;
musl | host) build_flavour "$1" ;;
key) set_flavour "${2:?a flavour}" && cache_key ;;
*)
    sed -n '4,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
