/* SPDX-License-Identifier: Apache-2.0 */
/* tls.h: TLS 1.2 over any stream (BearSSL), certificates and keys.
 *
 *   tls_identity   a certificate chain and its private key
 *   tls_trust      whom to believe: a CA bundle, or one pinned key
 *   tls_server,    a stream over a stream
 *   tls_client
 *   tls_verifier   the certificate check itself, for libcurl's connections too
 *
 * Suites: ECDHE with AES-GCM or ChaCha20-Poly1305 (RFC 9325). The closing of TLS 1.2 is of both directions at once: after
 * stream_shutdown_write nothing more can be read. */
#ifndef IO_TLS_H
#define IO_TLS_H

#include "io/stream.h"

#include <bearssl.h>

/* ---- who we are ---- */
struct tls_identity; /* shared: references are counted */

/* PEM: certificate chain, leaf first, and key (SEC 1, PKCS #1 or PKCS #8; EC P-256/384/521 or RSA; not encrypted).
 * The same file may hold both. NULL on failure. The key must belong to the certificate. */
struct tls_identity *tls_identity_load(const char *cert_path, const char *key_path, struct status *err);
struct tls_identity *tls_identity_parse(struct str cert_pem, struct str key_pem, struct status *err);
/* Our own, in the one file <dir>/<name>.pem (0600; the folder is made 0700 if it is not there). Made at the first call, whole
 * or not at all: an EC P-256 key and a self-signed certificate for CN `name`. For peers that pin. Blocks on the disk. */
struct tls_identity *tls_identity_load_or_create(const char *dir, const char *name, struct status *err);
struct tls_identity *tls_identity_ref(struct tls_identity *identity);
void tls_identity_free(struct tls_identity *identity); /* drops a reference; NULL is fine */

/* "sha256:<64 hex digits>": the hash of the leaf's SubjectPublicKeyInfo (DER), as RFC 7469 pins. */
#define TLS_PIN_SIZE (7 + 64 + 1)
void tls_identity_pin(const struct tls_identity *identity, char out[TLS_PIN_SIZE]);
bool tls_pin_valid(const char *text);
/* What a TLS client context of BearSSL needs to offer the identity when the server asks for a certificate. The identity
 * must outlive the connection's handshake. */
void tls_identity_offer(const struct tls_identity *identity, br_ssl_client_context *client);

/* ---- whom we believe ---- */
struct tls_trust; /* shared: references are counted */

/* A PEM bundle; certificates in it that cannot be used (a curve or format that BearSSL does not know) are left out, but one
 * must remain. */
struct tls_trust *tls_trust_load(const char *path, struct status *err);
struct tls_trust *tls_trust_parse(struct str pem, struct status *err);
struct tls_trust *tls_trust_pin(const char *pin, struct status *err);
struct tls_trust *tls_trust_anyone(void); /* no check at all */
struct tls_trust *tls_trust_ref(struct tls_trust *trust);
void tls_trust_free(struct tls_trust *trust); /* NULL is fine */
/* The first of the distributions' usual files that can be read; SSL_CERT_FILE goes before. NULL when there is none. */
const char *tls_find_ca_bundle(void);

/* ---- the check of a server's certificate ---- */
/* A BearSSL X.509 engine: install &v->vtable with br_ssl_engine_set_x509. Wraps br_x509_minimal and adds iPAddress names,
 * pins and a sentence for each failure. */
struct tls_verifier;
/* `host`: name or literal address that the certificate must carry (not looked at when pinned). Holds a reference to trust. */
struct tls_verifier *tls_verifier_new(struct tls_trust *trust, const char *host);
const br_x509_class **tls_verifier_class(struct tls_verifier *v);
/* What to name in the handshake (SNI): the host, or NULL for an address (RFC 6066 section 3). */
const char *tls_verifier_server_name(const struct tls_verifier *v);
/* Whether the certificate was refused, and why (UNAUTHENTICATED). */
bool tls_verifier_failed(const struct tls_verifier *v, struct status *err);
void tls_verifier_free(struct tls_verifier *v); /* NULL is fine */
/* A sentence for a BearSSL error number: "the peer does not speak TLS 1.2", ... */
const char *tls_error_text(int br_err);
/* Version, suites, hashes and options that we want, for a context that is zeroed or was made by br_ssl_client_init_full. */
void tls_client_profile(br_ssl_client_context *client);

/* ---- connections ---- */
/* Both take `lower` (also on failure) and give a stream over it. The handshake runs by itself; until it is done reads and
 * writes say -EAGAIN. A failed one (or one that takes longer than handshake_timeout_ms; 0: TLS_HANDSHAKE_TIMEOUT_MS)
 * reads as -EPROTO, with a WATCH_HANGUP event, and tls_stream_error says why. An end without close_notify, which may
 * be a cut by somebody else, reads as -ECONNRESET, not 0. */
struct stream *tls_server(struct loop *loop, struct stream *lower, struct tls_identity *identity,
                          int64_t handshake_timeout_ms, struct status *err);
/* identity: our certificate if the server asks for one; NULL: none. References are held. */
struct stream *tls_client(struct loop *loop, struct stream *lower, struct tls_trust *trust, const char *host,
                          struct tls_identity *identity, int64_t handshake_timeout_ms, struct status *err);
/* Why a stream made here broke; false when it has not. `s` must come from tls_server or tls_client. */
bool tls_stream_error(const struct stream *s, struct status *err);
bool tls_stream_established(const struct stream *s);

#endif
