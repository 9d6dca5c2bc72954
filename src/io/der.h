/* SPDX-License-Identifier: Apache-2.0 */
/* der.h: reading and writing ASN.1 in DER (X.690), as much as certificates need: definite lengths, one-byte tags. */
#ifndef IO_DER_H
#define IO_DER_H

#include "base/base.h"

#define DER_INTEGER 0x02
#define DER_BIT_STRING 0x03
#define DER_OCTET_STRING 0x04
#define DER_OID 0x06
#define DER_UTF8_STRING 0x0c
#define DER_UTC_TIME 0x17
#define DER_GENERALIZED_TIME 0x18
#define DER_SEQUENCE 0x30
#define DER_SET 0x31
#define DER_CONTEXT(n) (0xa0 | (n))           /* [n], constructed */
#define DER_CONTEXT_PRIMITIVE(n) (0x80 | (n)) /* [n] IMPLICIT of a primitive type */

/* ---- reading: slices are borrowed from the input ---- */
/* Takes the next element off the front of *in. False at the end or when it is malformed. `whole` (tag and length too) may
 * be NULL. */
bool der_next(struct str *in, unsigned *tag, struct str *value, struct str *whole);
/* The same when it has that tag; else nothing is taken, and false. */
bool der_take(struct str *in, unsigned tag, struct str *value);

/* ---- writing: everything is appended ---- */
void der_put(struct buf *out, unsigned tag, const void *value, size_t n);
/* An element around what another buffer holds, which is empty afterwards. */
void der_wrap(struct buf *out, unsigned tag, struct buf *value);

/* ---- X.509 (RFC 5280) ---- */
/* Slices of a certificate. */
struct der_certificate {
    struct str spki;       /* SubjectPublicKeyInfo, tag and length included */
    struct str extensions; /* the content of Extensions; empty when there are none */
    struct str validity;   /* the content of Validity */
};
bool der_certificate_parse(struct str certificate, struct der_certificate *out);
/* Whether subjectAltName holds that iPAddress (4 or 16 bytes). */
bool der_certificate_has_ip(const struct der_certificate *c, const void *ip, size_t n);
/* Whether it holds that dNSName, or one whose first label is "*" (RFC 9525 section 6.3). A common name is none. */
bool der_certificate_has_dns(const struct der_certificate *c, const char *host);
/* -1: not valid yet at that time (seconds since the epoch); 1: not any more; 0: valid, or it cannot be told. */
int der_certificate_when(const struct der_certificate *c, int64_t seconds);

#endif
