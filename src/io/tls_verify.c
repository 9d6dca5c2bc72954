/* SPDX-License-Identifier: Apache-2.0 */
#include "io/tls_keys.h"

#include <arpa/inet.h>
#include <strings.h>

struct tls_verifier {
    const br_x509_class *vtable; /* first: BearSSL's pointer to the engine is a pointer to it */
    br_x509_minimal_context minimal; /* TLS_TRUST_ANCHORS */
    br_x509_decoder_context decoder; /* the other kinds: only the leaf's key */
    struct tls_trust *trust;
    char host[256];
    uint8_t ip[16];
    size_t ip_n; /* 0: host is a name */
    struct buf leaf;
    size_t index; /* of the certificate that is coming in */
    bool name_differs;
    int leaf_when; /* with BR_ERR_X509_EXPIRED, as der_certificate_when() */
    int result; /* of the last chain; 0 when it was good */
};

/* ---- what went wrong ---- */

const char *tls_error_text(int br_err)
{
    switch (br_err) {
    case BR_ERR_UNSUPPORTED_VERSION:
    case BR_ERR_BAD_VERSION:
    case BR_ERR_BAD_LENGTH:
    case BR_ERR_UNKNOWN_TYPE: return "what the peer sends is not TLS 1.2";
    case BR_ERR_BAD_MAC: return "a record was changed on the way";
    case BR_ERR_NO_RANDOM: return "this machine gives no random bytes";
    case BR_ERR_BAD_CIPHER_SUITE: return "the peer offers no cipher suite that is accepted here (ECDHE with AES-GCM or ChaCha20)";
    case BR_ERR_BAD_SECRENEG: return "the peer does not support secure renegotiation";
    case BR_ERR_BAD_SIGNATURE:
    case BR_ERR_BAD_FINISHED: return "the peer does not hold the key of its certificate";
    case BR_ERR_NO_CLIENT_AUTH: return "the peer sent no client certificate";
    case BR_ERR_RECV_FATAL_ALERT + 40:
        return "the peer refused the handshake (it speaks no TLS as new as 1.2, has no cipher suite in common with us, or wants a client "
               "certificate)";
    case BR_ERR_RECV_FATAL_ALERT + 42:
    case BR_ERR_RECV_FATAL_ALERT + 43:
    case BR_ERR_RECV_FATAL_ALERT + 46: return "the peer does not accept our certificate";
    case BR_ERR_RECV_FATAL_ALERT + 44: return "the peer says that our certificate was revoked";
    case BR_ERR_RECV_FATAL_ALERT + 45: return "the peer says that our certificate has expired";
    case BR_ERR_RECV_FATAL_ALERT + 48: return "the peer does not know the authority that issued our certificate";
    case BR_ERR_RECV_FATAL_ALERT + 49: return "the peer denies access to our certificate";
    case BR_ERR_SEND_FATAL_ALERT + 40: return "the peer offers no cipher suite or curve that is accepted here";
    case BR_ERR_SEND_FATAL_ALERT + 70:
    case BR_ERR_RECV_FATAL_ALERT + 70: return "the peer does not speak TLS 1.2";
    case BR_ERR_RECV_FATAL_ALERT + 71: return "the peer wants stronger cipher suites";
    case BR_ERR_RECV_FATAL_ALERT + 112: return "the peer does not know the name that it was called by";
    case BR_ERR_RECV_FATAL_ALERT + 116: return "the peer requires a client certificate";
    case BR_ERR_X509_EMPTY_CHAIN: return "the peer sent no certificate";
    case BR_ERR_X509_UNSUPPORTED: return "the certificate uses an algorithm that is not supported";
    case BR_ERR_X509_WRONG_KEY_TYPE: return "the certificate's key does not fit its signature";
    case BR_ERR_X509_BAD_SIGNATURE: return "the certificate's signature is wrong";
    case BR_ERR_X509_EXPIRED: return "the certificate has expired or is not valid yet";
    case BR_ERR_X509_DN_MISMATCH: return "the certificates of the chain do not follow each other";
    case BR_ERR_X509_BAD_SERVER_NAME: return "the certificate was issued for another host";
    case BR_ERR_X509_CRITICAL_EXTENSION: return "the certificate has a critical extension that is not supported";
    case BR_ERR_X509_NOT_CA: return "a certificate of the chain is not an authority's";
    case BR_ERR_X509_FORBIDDEN_KEY_USAGE: return "the certificate must not be used for this";
    case BR_ERR_X509_WEAK_PUBLIC_KEY: return "the certificate's RSA key is shorter than 2048 bits";
    case BR_ERR_X509_NOT_TRUSTED: return "the certificate was not issued by an authority that is trusted here";
    default: break;
    }
    if (br_err >= BR_ERR_RECV_FATAL_ALERT && br_err < BR_ERR_SEND_FATAL_ALERT)
        return "the peer broke off with an alert";
    if (br_err > BR_ERR_X509_OK && br_err < 64)
        return "the certificate is malformed";
    return "the peer violated the protocol";
}

bool tls_verifier_failed(const struct tls_verifier *v, struct status *err)
{
    static const char hint[] = "; if that is expected, name the right CA bundle in the configuration";

    switch (v->result) {
    case 0: return false;
    case BR_ERR_X509_NOT_TRUSTED:
        if (v->trust->kind == TLS_TRUST_PIN)
            status_set(err, STATUS_UNAUTHENTICATED, "the key of %s is not the one that is pinned", v->host);
        else
            status_set(err, STATUS_UNAUTHENTICATED, "the certificate of %s was not issued by any of the %zu authorities in "
                       "the CA bundle%s", v->host, v->trust->anchor_count, hint);
        break;
    case BR_ERR_X509_BAD_SERVER_NAME:
        status_set(err, STATUS_UNAUTHENTICATED, v->ip_n > 0 ? "the certificate of %s does not carry this IP address"
                                                            : "the certificate of %s was issued for another name", v->host);
        break;
    case BR_ERR_X509_EXPIRED:
        status_set(err, STATUS_UNAUTHENTICATED, "%s of %s %s; check this machine's clock too",
                   v->leaf_when != 0 ? "the certificate" : "a certificate in the chain", v->host,
                   v->leaf_when < 0   ? "is not valid yet"
                   : v->leaf_when > 0 ? "has expired"
                                      : "has expired or is not valid yet");
        break;
    default: status_set(err, STATUS_UNAUTHENTICATED, "certificate of %s: %s", v->host, tls_error_text(v->result)); break;
    }
    return true;
}

/* ---- the engine ---- */

#define TLS_VERIFIER_OF(ctx) ((struct tls_verifier *)(uintptr_t)(ctx))

static void tls_verifier_start_minimal(struct tls_verifier *v)
{
    static const br_hash_class *const hashes[] = { &br_sha224_vtable, &br_sha256_vtable, &br_sha384_vtable, &br_sha512_vtable };
    int64_t now = clock_real_ns() / 1000000000;

    /* No MD5 and SHA-1 (RFC 9325 section 4.5.2), no RSA key below 2048 bits. */
    br_x509_minimal_init(&v->minimal, &br_sha256_vtable, v->trust->anchors, v->trust->anchor_count);
    br_x509_minimal_set_rsa(&v->minimal, br_rsa_pkcs1_vrfy_get_default());
    br_x509_minimal_set_ecdsa(&v->minimal, br_ec_get_default(), br_ecdsa_vrfy_asn1_get_default());
    for (size_t i = 0; i < COUNT_OF(hashes); i++)
        br_x509_minimal_set_hash(&v->minimal, br_sha224_ID + (int)i, hashes[i]);
    br_x509_minimal_set_minrsa(&v->minimal, 2048 / 8);
    /* Days since January 1st of year 0 in the proleptic Gregorian calendar: 719528 to 1970. */
    br_x509_minimal_set_time(&v->minimal, (uint32_t)(now / 86400 + 719528), (uint32_t)(now % 86400));
}

static void tls_verifier_start_chain(const br_x509_class **ctx, const char *server_name)
{
    struct tls_verifier *v = TLS_VERIFIER_OF(ctx);

    v->index = 0;
    v->result = 0;
    buf_clear(&v->leaf);
    /* Whom the connection asks for must be whom we check for. */
    v->name_differs = server_name != NULL && *server_name != '\0' && strcasecmp(server_name, v->host) != 0;
    if (v->trust->kind == TLS_TRUST_ANCHORS) {
        tls_verifier_start_minimal(v);
        v->minimal.vtable->start_chain(&v->minimal.vtable, v->ip_n > 0 ? NULL : v->host);
    }
}

static void tls_verifier_start_cert(const br_x509_class **ctx, uint32_t length)
{
    struct tls_verifier *v = TLS_VERIFIER_OF(ctx);

    if (v->trust->kind == TLS_TRUST_ANCHORS)
        v->minimal.vtable->start_cert(&v->minimal.vtable, length);
}

static void tls_verifier_append(const br_x509_class **ctx, const unsigned char *p, size_t n)
{
    struct tls_verifier *v = TLS_VERIFIER_OF(ctx);

    if (v->index == 0 && n <= TLS_CERTIFICATE_MAX - v->leaf.n)
        buf_append(&v->leaf, p, n);
    else if (v->index == 0)
        v->result = BR_ERR_X509_LIMIT_EXCEEDED;
    if (v->trust->kind == TLS_TRUST_ANCHORS)
        v->minimal.vtable->append(&v->minimal.vtable, p, n);
}

static void tls_verifier_end_cert(const br_x509_class **ctx)
{
    struct tls_verifier *v = TLS_VERIFIER_OF(ctx);

    if (v->trust->kind == TLS_TRUST_ANCHORS)
        v->minimal.vtable->end_cert(&v->minimal.vtable);
    if (++v->index > TLS_CHAIN_MAX)
        v->result = BR_ERR_X509_LIMIT_EXCEEDED;
}

static int tls_verifier_judge(struct tls_verifier *v)
{
    struct str leaf = { v->leaf.n > 0 ? (const char *)v->leaf.p : "", v->leaf.n };
    struct der_certificate parts;
    uint8_t hash[br_sha256_SIZE];
    int code = 0;

    if (v->index == 0)
        return BR_ERR_X509_EMPTY_CHAIN;
    if (v->trust->kind == TLS_TRUST_ANCHORS) {
        code = (int)v->minimal.vtable->end_chain(&v->minimal.vtable);
        if (!der_certificate_parse(leaf, &parts))
            return code != 0 ? code : BR_ERR_X509_UNEXPECTED;
        v->leaf_when = der_certificate_when(&parts, clock_real_ns() / 1000000000);
        /* Names are those of subjectAltName alone (RFC 9525 section 2): BearSSL would take a common name, too. */
        if (code == 0 && (v->ip_n > 0 ? !der_certificate_has_ip(&parts, v->ip, v->ip_n) : !der_certificate_has_dns(&parts, v->host)))
            code = BR_ERR_X509_BAD_SERVER_NAME;
        return code == 0 && v->name_differs ? BR_ERR_X509_BAD_SERVER_NAME : code;
    }
    if (tls_certificate_key(&v->decoder, leaf, &code) == NULL)
        return code;
    if (v->trust->kind == TLS_TRUST_PIN &&
        (!tls_spki_hash(leaf, hash) || memcmp(hash, v->trust->pin, sizeof hash) != 0))
        return BR_ERR_X509_NOT_TRUSTED;
    return 0;
}

static unsigned tls_verifier_end_chain(const br_x509_class **ctx)
{
    struct tls_verifier *v = TLS_VERIFIER_OF(ctx);

    if (v->result == 0)
        v->result = tls_verifier_judge(v);
    buf_free(&v->leaf);
    return (unsigned)v->result;
}

static const br_x509_pkey *tls_verifier_get_pkey(const br_x509_class *const *ctx, unsigned *usages)
{
    struct tls_verifier *v = TLS_VERIFIER_OF(ctx);

    if (v->trust->kind == TLS_TRUST_ANCHORS)
        return v->minimal.vtable->get_pkey(&v->minimal.vtable, usages);
    if (usages != NULL)
        *usages = BR_KEYTYPE_KEYX | BR_KEYTYPE_SIGN;
    return br_x509_decoder_get_pkey(&v->decoder);
}

static const br_x509_class tls_verifier_vtable = {
    sizeof(struct tls_verifier), tls_verifier_start_chain, tls_verifier_start_cert, tls_verifier_append,
    tls_verifier_end_cert,       tls_verifier_end_chain,   tls_verifier_get_pkey,
};

/* The address as certificates hold it; 0 when the host is a name. */
static size_t tls_parse_ip(const char *host, uint8_t ip[16])
{
    if (inet_pton(AF_INET, host, ip) == 1)
        return 4;
    return inet_pton(AF_INET6, host, ip) == 1 ? 16 : 0;
}

struct tls_verifier *tls_verifier_new(struct tls_trust *trust, const char *host)
{
    struct tls_verifier *v = xcalloc(1, sizeof *v);

    v->vtable = &tls_verifier_vtable;
    v->trust = tls_trust_ref(trust);
    snprintf(v->host, sizeof v->host, "%s", host);
    /* "example.org." is the same host; certificates have no last dot. */
    size_t n = strlen(v->host);
    if (n > 1 && v->host[n - 1] == '.')
        v->host[n - 1] = '\0';
    v->ip_n = tls_parse_ip(v->host, v->ip);
    return v;
}

const br_x509_class **tls_verifier_class(struct tls_verifier *v)
{
    return &v->vtable;
}

const char *tls_verifier_server_name(const struct tls_verifier *v)
{
    return v->ip_n > 0 ? NULL : v->host;
}

void tls_verifier_free(struct tls_verifier *v)
{
    if (v == NULL)
        return;
    tls_trust_free(v->trust);
    buf_free(&v->leaf);
    free(v);
}
