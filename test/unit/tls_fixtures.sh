#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Writes tls_fixtures.h: the certificates and keys of the TLS tests, valid for a century (one of them for the past only).
# Needs openssl; run it in this folder, and only to change what is there.
set -eu
out=$PWD/tls_fixtures.h
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

# `openssl ca`, for it alone sets both dates: the century began before anybody's clock.
cat >ca.conf <<END
[ca]
default_ca = here
[here]
database = index
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
END
: >index
echo 1000 >serial

sign() { # name, enddate, extra arguments
    name=$1 end=$2
    shift 2
    openssl ca -batch -notext -config ca.conf -in "$name.csr" -out "$name.crt" -startdate 20200101000000Z -enddate "$end" \
        -extfile ext "$@" 2>/dev/null
}

new_key() { # name, key options
    name=$1
    shift
    openssl req -new -nodes -sha256 -subj "/CN=$name" -keyout "$name.key" -out "$name.csr" "$@" 2>/dev/null
}

new_ca() { # name, key options
    new_key "$@"
    printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n' >ext
    sign "$1" 21200101000000Z -selfsign -keyfile "$1.key"
}

new_leaf() { # name, ca, subjectAltName, enddate, key options
    leaf=$1 ca=$2 san=$3 until=$4
    shift 4
    new_key "$leaf" "$@"
    printf 'subjectAltName=%s\nbasicConstraints=CA:FALSE\n' "$san" >ext
    sign "$leaf" "$until" -cert "$ca.crt" -keyfile "$ca.key"
}

ec='-newkey ec -pkeyopt ec_paramgen_curve:P-256'
rsa='-newkey rsa:2048'
new_ca ca $rsa
new_ca other_ca $ec
new_leaf rsa ca DNS:localhost,DNS:relay.example,IP:127.0.0.1,IP:::1 21200101000000Z $rsa
new_leaf ec ca DNS:localhost,DNS:*.wild.example,IP:127.0.0.1 21200101000000Z $ec
new_leaf expired ca DNS:localhost 20200201000000Z $ec
new_leaf client_ec ca DNS:client 21200101000000Z $ec
new_leaf client_rsa ca DNS:client 21200101000000Z $rsa
new_leaf weak ca DNS:localhost 21200101000000Z -newkey rsa:1024
openssl ec -in ec.key -out ec_sec1.key 2>/dev/null
openssl rsa -in rsa.key -traditional -out rsa_pkcs1.key 2>/dev/null
openssl pkey -in ec.key -aes128 -passout pass:x -out encrypted.key

{
    echo '/* SPDX-License-Identifier: Apache-2.0 */'
    echo '/* Written by tls_fixtures.sh. Keys of tests: worth nothing to anybody. */'
    for file in *.crt *.key; do
        case $file in ca.key | other_ca.key | 10*) continue ;; esac
        name=fixture_$(echo "$file" | tr . _)
        echo "static const char $name[] __attribute__((unused)) ="
        sed 's/.*/    "&\\n"/' "$file"
        echo '    ;'
    done
    for name in ec rsa; do
        printf 'static const char fixture_%s_pin[] __attribute__((unused)) = "sha256:%s";\n' "$name" \
            "$(openssl x509 -in $name.crt -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum | cut -d' ' -f1)"
    done
} >"$out"
