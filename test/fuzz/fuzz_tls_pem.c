/* SPDX-License-Identifier: Apache-2.0 */
/* PEM, certificates and keys: as text, and as the chain that a server sends. */
#include "io/tls_keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input as a server's chain, cut at each byte 0xff that is followed by another. */
static void verify(struct tls_trust *trust, const char *host, const uint8_t *data, size_t size)
{
    struct tls_verifier *v = tls_verifier_new(trust, host);
    const br_x509_class **engine = tls_verifier_class(v);
    struct status err = STATUS_INIT;
    unsigned usages;

    (*engine)->start_chain(engine, host);
    for (size_t at = 0; at < size;) {
        size_t n = 0;
        while (at + n < size && !(data[at + n] == 0xff && at + n + 1 < size && data[at + n + 1] == 0xff))
            n++;
        (*engine)->start_cert(engine, (uint32_t)n);
        (*engine)->append(engine, data + at, n / 2);
        (*engine)->append(engine, data + at + n / 2, n - n / 2);
        (*engine)->end_cert(engine);
        at += n + 2;
    }
    if ((*engine)->end_chain(engine) == 0) {
        if ((*engine)->get_pkey(engine, &usages) == NULL || tls_verifier_failed(v, &err))
            abort();
    } else if (!tls_verifier_failed(v, &err) || err.message[0] == '\0') {
        abort();
    }
    tls_verifier_free(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tls_trust *pinned, *anyone;
    struct str text = { (const char *)data, size };
    struct status err = STATUS_INIT;
    struct der_certificate parts;
    char pin[TLS_PIN_SIZE];

    if (pinned == NULL) {
        pinned = tls_trust_pin("sha256:0000000000000000000000000000000000000000000000000000000000000000", &err);
        anyone = tls_trust_anyone();
    }
    struct tls_identity *identity = tls_identity_parse(text, text, &err);
    if (identity != NULL) {
        tls_identity_pin(identity, pin);
        if (!tls_pin_valid(pin))
            abort();
    }
    tls_identity_free(identity);
    struct tls_trust *trust = tls_trust_parse(text, &err);
    if (trust != NULL)
        verify(trust, "127.0.0.1", data, size);
    tls_trust_free(trust);
    verify(anyone, "host", data, size);
    verify(pinned, "host", data, size);
    if (der_certificate_parse(text, &parts)) {
        der_certificate_has_ip(&parts, "\x7f\0\0\1", 4);
        der_certificate_has_dns(&parts, "a.example");
        der_certificate_when(&parts, 1700000000);
    }
    /* The same parts out of anything. */
    parts = (struct der_certificate){ .extensions = text, .validity = text };
    if (der_certificate_has_dns(&parts, "a.example") && der_certificate_has_dns(&parts, "b.a"))
        der_certificate_when(&parts, 0);
    der_certificate_when(&parts, INT64_MAX);
    return 0;
}
