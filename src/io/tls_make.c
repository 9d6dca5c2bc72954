/* SPDX-License-Identifier: Apache-2.0 */
/* A key and its self-signed certificate, for peers that pin the key: nobody looks at the rest of the certificate, which is as
 * plain as X.509 allows. */
#include "io/tls_keys.h"

#define TLS_OID_ECDSA_SHA256 "\x2a\x86\x48\xce\x3d\x04\x03\x02" /* 1.2.840.10045.4.3.2 */
#define TLS_OID_EC_KEY "\x2a\x86\x48\xce\x3d\x02\x01"           /* 1.2.840.10045.2.1 */
#define TLS_OID_P256 "\x2a\x86\x48\xce\x3d\x03\x01\x07"         /* 1.2.840.10045.3.1.7 */
#define TLS_OID_CN "\x55\x04\x03"                               /* 2.5.4.3 */
#define TLS_OID_SAN "\x55\x1d\x11"                              /* 2.5.29.17 */

static void tls_put_oid(struct buf *out, const char *oid)
{
    der_put(out, DER_OID, oid, strlen(oid));
}

static void tls_put_algorithm(struct buf *out, const char *oid, const char *parameter_oid)
{
    struct buf inner = BUF_INIT;

    tls_put_oid(&inner, oid);
    if (parameter_oid != NULL)
        tls_put_oid(&inner, parameter_oid);
    der_wrap(out, DER_SEQUENCE, &inner);
}

/* RDNSequence with one CN. */
static void tls_put_name(struct buf *out, const char *name)
{
    struct buf attribute = BUF_INIT, set = BUF_INIT, sequence = BUF_INIT;

    tls_put_oid(&attribute, TLS_OID_CN);
    der_put(&attribute, DER_UTF8_STRING, name, strlen(name));
    der_wrap(&set, DER_SEQUENCE, &attribute);
    der_wrap(&sequence, DER_SET, &set);
    der_wrap(out, DER_SEQUENCE, &sequence);
}

static void tls_put_bits(struct buf *out, const void *p, size_t n)
{
    struct buf bits = BUF_INIT;

    buf_append_byte(&bits, 0); /* unused bits */
    buf_append(&bits, p, n);
    der_wrap(out, DER_BIT_STRING, &bits);
}

static void tls_put_extensions(struct buf *out, const char *name)
{
    struct buf names = BUF_INIT, octets = BUF_INIT, extension = BUF_INIT, list = BUF_INIT, all = BUF_INIT;

    der_put(&names, DER_CONTEXT_PRIMITIVE(2), name, strlen(name)); /* dNSName */
    der_wrap(&octets, DER_SEQUENCE, &names);
    tls_put_oid(&extension, TLS_OID_SAN);
    der_wrap(&extension, DER_OCTET_STRING, &octets);
    der_wrap(&list, DER_SEQUENCE, &extension);
    der_wrap(&all, DER_SEQUENCE, &list);
    der_wrap(out, DER_CONTEXT(3), &all);
}

static void tls_put_tbs(struct buf *out, const char *name, const br_ec_public_key *key)
{
    struct buf tbs = BUF_INIT, inner = BUF_INIT;
    uint8_t serial[16];

    der_put(&inner, DER_INTEGER, "\x02", 1); /* v3 */
    der_wrap(&tbs, DER_CONTEXT(0), &inner);
    random_bytes(serial, sizeof serial);
    serial[0] = (uint8_t)((serial[0] & 0x3f) | 0x40); /* positive, and no superfluous zero in front */
    der_put(&tbs, DER_INTEGER, serial, sizeof serial);
    tls_put_algorithm(&tbs, TLS_OID_ECDSA_SHA256, NULL);
    tls_put_name(&tbs, name);
    /* From ever to ever (RFC 5280 section 4.1.2.5): compute nodes' clocks are not always right. */
    der_put(&inner, DER_UTC_TIME, "700101000000Z", 13);
    der_put(&inner, DER_GENERALIZED_TIME, "99991231235959Z", 15);
    der_wrap(&tbs, DER_SEQUENCE, &inner);
    tls_put_name(&tbs, name);
    tls_put_algorithm(&inner, TLS_OID_EC_KEY, TLS_OID_P256);
    tls_put_bits(&inner, key->q, key->qlen);
    der_wrap(&tbs, DER_SEQUENCE, &inner);
    tls_put_extensions(&tbs, name);
    der_wrap(out, DER_SEQUENCE, &tbs);
}

void tls_identity_make(const char *name, struct buf *pem)
{
    br_hmac_drbg_context rng;
    uint8_t seed[32], key_memory[BR_EC_KBUF_PRIV_MAX_SIZE], public_memory[BR_EC_KBUF_PUB_MAX_SIZE];
    uint8_t hash[br_sha256_SIZE], signature[80], der[256];
    br_ec_private_key key;
    br_ec_public_key public;
    br_sha256_context sha;
    struct buf certificate = BUF_INIT, whole = BUF_INIT;

    random_bytes(seed, sizeof seed);
    br_hmac_drbg_init(&rng, &br_sha256_vtable, seed, sizeof seed);
    br_ec_keygen(&rng.vtable, br_ec_get_default(), &key, key_memory, BR_EC_secp256r1);
    br_ec_compute_pub(br_ec_get_default(), &public, public_memory, &key);

    tls_put_tbs(&certificate, name, &public);
    br_sha256_init(&sha);
    br_sha256_update(&sha, certificate.p, certificate.n);
    br_sha256_out(&sha, hash);
    size_t n = br_ecdsa_sign_asn1_get_default()(br_ec_get_default(), &br_sha256_vtable, hash, &key, signature);
    tls_put_algorithm(&certificate, TLS_OID_ECDSA_SHA256, NULL);
    tls_put_bits(&certificate, signature, n);
    der_wrap(&whole, DER_SEQUENCE, &certificate);

    n = br_encode_ec_pkcs8_der(der, &key, &public);
    tls_pem_append(pem, "PRIVATE KEY", der, n);
    tls_pem_append(pem, "CERTIFICATE", whole.p, whole.n);
    buf_free(&whole);
    explicit_bzero(seed, sizeof seed);
    explicit_bzero(key_memory, sizeof key_memory);
    explicit_bzero(der, sizeof der);
    explicit_bzero(&rng, sizeof rng);
}
