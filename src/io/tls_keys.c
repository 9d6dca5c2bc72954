/* SPDX-License-Identifier: Apache-2.0 */
#include "io/tls_keys.h"

#include <unistd.h>

#include "io/file.h"

/* ---- PEM (RFC 7468) ---- */

static void tls_pem_sink(void *arg, const void *p, size_t n)
{
    struct buf *der = arg;

    /* A larger object is cut, which its own parser then notices. */
    if (der->n + n <= TLS_CERTIFICATE_MAX)
        buf_append(der, p, n);
}

bool tls_pem_each(struct str pem, bool (*fn)(void *arg, const char *label, struct str der, struct status *err), void *arg,
                  struct status *err)
{
    br_pem_decoder_context decoder;
    struct buf der = BUF_INIT;
    bool ok = true, inside = false, ended = false;

    br_pem_decoder_init(&decoder);
    while (ok && (pem.n > 0 || !ended)) {
        /* The last line may lack its line feed, which BearSSL insists on. */
        if (pem.n == 0) {
            pem = STR("\n");
            ended = true;
        }
        size_t taken = br_pem_decoder_push(&decoder, pem.p, pem.n);
        pem.p += taken;
        pem.n -= taken;
        switch (br_pem_decoder_event(&decoder)) {
        case BR_PEM_BEGIN_OBJ:
            buf_clear(&der);
            inside = true;
            br_pem_decoder_setdest(&decoder, tls_pem_sink, &der);
            break;
        case BR_PEM_END_OBJ:
            inside = false;
            ok = fn(arg, br_pem_decoder_name(&decoder), (struct str){ der.n > 0 ? (const char *)der.p : "", der.n }, err);
            break;
        case BR_PEM_ERROR:
            ok = status_set(err, STATUS_INVALID_ARGUMENT, "the PEM text is broken (or encrypted, which is not supported)");
            break;
        default: break;
        }
    }
    if (ok && inside)
        ok = status_set(err, STATUS_INVALID_ARGUMENT, "the PEM text ends in the middle of an object");
    if (der.p != NULL)
        explicit_bzero(der.p, der.cap); /* it may have been a private key */
    buf_free(&der);
    return ok;
}

void tls_pem_append(struct buf *out, const char *label, const void *der, size_t n)
{
    size_t size = br_pem_encode(NULL, NULL, n, label, BR_PEM_LINE64);

    br_pem_encode(buf_reserve(out, size + 1), der, n, label, BR_PEM_LINE64);
    out->n += size;
}

static bool tls_label_is_certificate(const char *label)
{
    return strcmp(label, "CERTIFICATE") == 0 || strcmp(label, "X509 CERTIFICATE") == 0;
}

/* ---- one certificate ---- */

const br_x509_pkey *tls_certificate_key(br_x509_decoder_context *context, struct str certificate, int *br_err)
{
    br_x509_decoder_init(context, NULL, NULL);
    br_x509_decoder_push(context, certificate.p, certificate.n);
    const br_x509_pkey *key = br_x509_decoder_get_pkey(context);
    if (key == NULL)
        *br_err = br_x509_decoder_last_error(context);
    return key;
}

bool tls_spki_hash(struct str certificate, uint8_t out[br_sha256_SIZE])
{
    struct der_certificate parts;
    br_sha256_context sha;

    if (!der_certificate_parse(certificate, &parts))
        return false;
    br_sha256_init(&sha);
    br_sha256_update(&sha, parts.spki.p, parts.spki.n);
    br_sha256_out(&sha, out);
    return true;
}

bool tls_pin_parse(const char *text, uint8_t out[br_sha256_SIZE])
{
    return strlen(text) == TLS_PIN_SIZE - 1 && str_starts(text, "sha256:") && hex_decode(text + 7, out, br_sha256_SIZE);
}

bool tls_pin_valid(const char *text)
{
    uint8_t ignored[br_sha256_SIZE];

    return tls_pin_parse(text, ignored);
}

/* ---- identities ---- */

static bool tls_identity_add_certificate(void *arg, const char *label, struct str der, struct status *err)
{
    struct tls_identity *identity = arg;

    if (!tls_label_is_certificate(label))
        return true;
    if (identity->chain_length == TLS_CHAIN_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the chain has more than %d certificates", TLS_CHAIN_MAX);
    identity->chain[identity->chain_length++] =
        (br_x509_certificate){ .data = xmemdup(der.p, der.n), .data_len = der.n };
    return true;
}

static bool tls_identity_add_key(void *arg, const char *label, struct str der, struct status *err)
{
    struct tls_identity *identity = arg;

    if (strcmp(label, "ENCRYPTED PRIVATE KEY") == 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the private key is encrypted: decrypt it first");
    if (identity->key_type != 0 || !str_ends(label, "PRIVATE KEY"))
        return true;
    br_skey_decoder_init(&identity->key);
    br_skey_decoder_push(&identity->key, der.p, der.n);
    int code = br_skey_decoder_last_error(&identity->key);
    if (code != 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the private key is not an RSA or EC key in a format known here (%d)",
                          code);
    identity->key_type = (unsigned)br_skey_decoder_key_type(&identity->key);
    return true;
}

static bool tls_rsa_matches(const br_rsa_public_key *public, const br_rsa_private_key *private)
{
    br_rsa_compute_modulus compute = br_rsa_compute_modulus_get_default();
    size_t n = compute(NULL, private);

    if (n == 0 || n > BR_X509_BUFSIZE_KEY)
        return false;
    uint8_t modulus[BR_X509_BUFSIZE_KEY];
    if (compute(modulus, private) != n)
        return false;
    const uint8_t *a = modulus, *b = public->n;
    size_t a_n = n, b_n = public->nlen;
    for (; a_n > 0 && *a == 0; a_n--)
        a++;
    for (; b_n > 0 && *b == 0; b_n--)
        b++;
    return a_n == b_n && memcmp(a, b, a_n) == 0;
}

static bool tls_ec_matches(const br_ec_public_key *public, const br_ec_private_key *private)
{
    uint8_t q[BR_EC_KBUF_PUB_MAX_SIZE];

    /* Only curves that BearSSL computes on can be answered for. */
    if ((br_ec_get_default()->supported_curves >> private->curve & 1) == 0 || public->curve != private->curve)
        return false;
    size_t n = br_ec_compute_pub(br_ec_get_default(), NULL, q, private);
    return n == public->qlen && memcmp(q, public->q, n) == 0;
}

static bool tls_identity_check(const struct tls_identity *identity, struct status *err)
{
    br_x509_decoder_context decoder;
    uint8_t ignored[br_sha256_SIZE];
    int code = 0;

    if (identity->chain_length == 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "there is no certificate in the PEM text");
    if (identity->key_type == 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "there is no private key in the PEM text");
    struct str leaf = { (const char *)identity->chain[0].data, identity->chain[0].data_len };
    const br_x509_pkey *key = tls_certificate_key(&decoder, leaf, &code);
    if (key == NULL || !tls_spki_hash(leaf, ignored))
        return status_set(err, STATUS_INVALID_ARGUMENT, "the certificate cannot be used: %s", tls_error_text(code));
    bool matches = key->key_type == identity->key_type &&
                   (key->key_type == BR_KEYTYPE_RSA
                        ? tls_rsa_matches(&key->key.rsa, br_skey_decoder_get_rsa(&identity->key))
                        : tls_ec_matches(&key->key.ec, br_skey_decoder_get_ec(&identity->key)));
    return matches || status_set(err, STATUS_INVALID_ARGUMENT, "the private key does not belong to the certificate");
}

struct tls_identity *tls_identity_parse(struct str cert_pem, struct str key_pem, struct status *err)
{
    struct tls_identity *identity = xcalloc(1, sizeof *identity);

    identity->references = 1;
    identity->chain = xcalloc(TLS_CHAIN_MAX, sizeof *identity->chain);
    if (!tls_pem_each(cert_pem, tls_identity_add_certificate, identity, err) ||
        !tls_pem_each(key_pem, tls_identity_add_key, identity, err) || !tls_identity_check(identity, err)) {
        tls_identity_free(identity);
        return NULL;
    }
    return identity;
}

struct tls_identity *tls_identity_load(const char *cert_path, const char *key_path, struct status *err)
{
    cleanup_buf struct buf cert = BUF_INIT;
    struct buf key = BUF_INIT;
    struct tls_identity *identity = NULL;

    if (file_read(cert_path, TLS_PEM_MAX, &cert, err) && file_read(key_path, TLS_PEM_MAX, &key, err)) {
        identity = tls_identity_parse((struct str){ buf_cstr(&cert), cert.n }, (struct str){ buf_cstr(&key), key.n }, err);
        if (identity == NULL)
            status_prefix(err, "certificate %s with key %s", cert_path, key_path);
    }
    if (key.p != NULL)
        explicit_bzero(key.p, key.cap);
    buf_free(&key);
    return identity;
}

struct tls_identity *tls_identity_load_or_create(const char *dir, const char *name, struct status *err)
{
    cleanup_free char *path = xasprintf("%s/%s.pem", dir, name);

    if (!dir_make(dir, 0700, err))
        return NULL;
    if (access(path, F_OK) < 0) {
        struct buf pem = BUF_INIT;
        char id[ID_LENGTH + 1];
        random_id(id);
        cleanup_free char *temporary = xasprintf("%s/.%s.%s", dir, name, id);
        tls_identity_make(name, &pem);
        bool ok = file_write_atomic(temporary, pem.p, pem.n, 0600, err);
        explicit_bzero(pem.p, pem.cap);
        buf_free(&pem);
        if (!ok)
            return NULL;
        /* link() and not rename(): whoever comes second takes what the first one made. */
        if (link(temporary, path) < 0 && errno != EEXIST)
            ok = status_errno(err, "cannot make %s", path);
        unlink(temporary);
        if (!ok || !file_sync_dir(dir, err))
            return NULL;
    }
    return tls_identity_load(path, path, err);
}

struct tls_identity *tls_identity_ref(struct tls_identity *identity)
{
    identity->references++;
    return identity;
}

void tls_identity_free(struct tls_identity *identity)
{
    if (identity == NULL || --identity->references > 0)
        return;
    for (size_t i = 0; i < identity->chain_length; i++)
        free(identity->chain[i].data);
    free(identity->chain);
    explicit_bzero(&identity->key, sizeof identity->key);
    free(identity);
}

void tls_identity_pin(const struct tls_identity *identity, char out[TLS_PIN_SIZE])
{
    uint8_t hash[br_sha256_SIZE];

    tls_spki_hash((struct str){ (const char *)identity->chain[0].data, identity->chain[0].data_len }, hash);
    memcpy(out, "sha256:", 7);
    hex_encode(hash, sizeof hash, out + 7);
}

/* ---- trust ---- */

static void tls_append_dn(void *arg, const void *p, size_t n)
{
    buf_append(arg, p, n);
}

/* Copies what an anchor needs into one piece of memory, behind its name. */
static void tls_trust_add_anchor(struct tls_trust *trust, const struct buf *dn, const br_x509_pkey *key, bool ca)
{
    br_x509_trust_anchor anchor = { .flags = ca ? BR_X509_TA_CA : 0, .pkey.key_type = key->key_type };
    bool rsa = key->key_type == BR_KEYTYPE_RSA;
    size_t key_n = rsa ? key->key.rsa.nlen + key->key.rsa.elen : key->key.ec.qlen;
    uint8_t *memory = xmalloc(dn->n + key_n);

    memcpy(memory, dn->p, dn->n);
    anchor.dn.data = memory;
    anchor.dn.len = dn->n;
    memory += dn->n;
    if (rsa) {
        memcpy(memory, key->key.rsa.n, key->key.rsa.nlen);
        memcpy(memory + key->key.rsa.nlen, key->key.rsa.e, key->key.rsa.elen);
        anchor.pkey.key.rsa = (br_rsa_public_key){ .n = memory, .nlen = key->key.rsa.nlen,
                                                   .e = memory + key->key.rsa.nlen, .elen = key->key.rsa.elen };
    } else {
        memcpy(memory, key->key.ec.q, key->key.ec.qlen);
        anchor.pkey.key.ec = (br_ec_public_key){ .curve = key->key.ec.curve, .q = memory, .qlen = key->key.ec.qlen };
    }
    if (trust->anchor_count == trust->anchor_capacity) {
        trust->anchor_capacity = trust->anchor_capacity > 0 ? 2 * trust->anchor_capacity : 4;
        trust->anchors = xrealloc(trust->anchors, trust->anchor_capacity * sizeof *trust->anchors);
    }
    trust->anchors[trust->anchor_count++] = anchor;
}

static bool tls_trust_add_certificate(void *arg, const char *label, struct str der, struct status *err)
{
    struct tls_trust *trust = arg;
    br_x509_decoder_context decoder;
    cleanup_buf struct buf dn = BUF_INIT;

    (void)err;
    if (!tls_label_is_certificate(label))
        return true;
    br_x509_decoder_init(&decoder, tls_append_dn, &dn);
    br_x509_decoder_push(&decoder, der.p, der.n);
    const br_x509_pkey *key = br_x509_decoder_get_pkey(&decoder);
    if (key != NULL && dn.n > 0)
        tls_trust_add_anchor(trust, &dn, key, br_x509_decoder_isCA(&decoder));
    return true;
}

struct tls_trust *tls_trust_parse(struct str pem, struct status *err)
{
    struct tls_trust *trust = xcalloc(1, sizeof *trust);

    trust->references = 1;
    trust->kind = TLS_TRUST_ANCHORS;
    bool ok = tls_pem_each(pem, tls_trust_add_certificate, trust, err);
    if (ok && trust->anchor_count == 0)
        ok = status_set(err, STATUS_INVALID_ARGUMENT, "there is no usable certificate in the CA bundle");
    if (!ok) {
        tls_trust_free(trust);
        return NULL;
    }
    return trust;
}

struct tls_trust *tls_trust_load(const char *path, struct status *err)
{
    cleanup_buf struct buf pem = BUF_INIT;

    if (!file_read(path, TLS_PEM_MAX, &pem, err))
        return NULL;
    struct tls_trust *trust = tls_trust_parse((struct str){ buf_cstr(&pem), pem.n }, err);
    if (trust == NULL)
        status_prefix(err, "CA bundle %s", path);
    return trust;
}

struct tls_trust *tls_trust_pin(const char *pin, struct status *err)
{
    struct tls_trust *trust = xcalloc(1, sizeof *trust);

    trust->references = 1;
    trust->kind = TLS_TRUST_PIN;
    if (!tls_pin_parse(pin, trust->pin)) {
        status_set(err, STATUS_INVALID_ARGUMENT, "\"%.100s\" is not a key pin: it is written sha256: and 64 hex digits", pin);
        free(trust);
        return NULL;
    }
    return trust;
}

struct tls_trust *tls_trust_anyone(void)
{
    struct tls_trust *trust = xcalloc(1, sizeof *trust);

    trust->references = 1;
    trust->kind = TLS_TRUST_ANYONE;
    return trust;
}

struct tls_trust *tls_trust_ref(struct tls_trust *trust)
{
    trust->references++;
    return trust;
}

void tls_trust_free(struct tls_trust *trust)
{
    if (trust == NULL || --trust->references > 0)
        return;
    for (size_t i = 0; i < trust->anchor_count; i++)
        free(trust->anchors[i].dn.data);
    free(trust->anchors);
    free(trust);
}

const char *tls_find_ca_bundle(void)
{
    static const char *const usual[] = {
        "/etc/ssl/certs/ca-certificates.crt",                /* Debian, Ubuntu, Arch, Gentoo */
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", /* Fedora, RHEL 7 and later, Rocky, Alma */
        "/etc/pki/tls/certs/ca-bundle.crt",                  /* older Red Hat */
        "/etc/ssl/ca-bundle.pem",                            /* SUSE */
        "/var/lib/ca-certificates/ca-bundle.pem",            /* SUSE, SLE HPC images without the link above */
        "/etc/ssl/cert.pem",                                 /* Alpine */
    };
    const char *chosen = getenv("SSL_CERT_FILE");

    if (chosen != NULL && *chosen != '\0')
        return chosen;
    for (size_t i = 0; i < COUNT_OF(usual); i++)
        if (access(usual[i], R_OK) == 0)
            return usual[i];
    return NULL;
}
