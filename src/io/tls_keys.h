/* SPDX-License-Identifier: Apache-2.0 */
/* tls_keys.h: what the tls_*.c files share about certificates and keys; nobody else includes it. */
#ifndef IO_TLS_KEYS_H
#define IO_TLS_KEYS_H

#include "io/der.h"
#include "io/tls.h"

struct tls_identity {
    unsigned references;
    br_x509_certificate *chain; /* owned, each with its data */
    size_t chain_length;
    unsigned key_type; /* BR_KEYTYPE_EC or BR_KEYTYPE_RSA */
    br_skey_decoder_context key;
};

enum tls_trust_kind { TLS_TRUST_ANCHORS, TLS_TRUST_PIN, TLS_TRUST_ANYONE };

struct tls_trust {
    unsigned references;
    enum tls_trust_kind kind;
    br_x509_trust_anchor *anchors; /* owned; each one's memory hangs on dn.data */
    size_t anchor_count, anchor_capacity;
    uint8_t pin[br_sha256_SIZE];
};

/* Decoded objects of a PEM text, in order: fn returns false to stop (having set err). False also for broken PEM. Bytes outside
 * objects are ignored. */
bool tls_pem_each(struct str pem, bool (*fn)(void *arg, const char *label, struct str der, struct status *err), void *arg,
                  struct status *err);
/* Writes one object with its lines of dashes. */
void tls_pem_append(struct buf *out, const char *label, const void *der, size_t n);
bool tls_spki_hash(struct str certificate, uint8_t out[br_sha256_SIZE]);
/* A context that decodes one certificate's key; valid as long as the context. NULL: *br_err says why. */
const br_x509_pkey *tls_certificate_key(br_x509_decoder_context *context, struct str certificate, int *br_err);
bool tls_pin_parse(const char *text, uint8_t out[br_sha256_SIZE]);

/* Makes a P-256 key and a self-signed certificate for it, as PEM (key first). */
void tls_identity_make(const char *name, struct buf *pem);

#endif
