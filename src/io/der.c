/* SPDX-License-Identifier: Apache-2.0 */
#include "io/der.h"

#include <strings.h>
#include <time.h>

bool der_next(struct str *in, unsigned *tag, struct str *value, struct str *whole)
{
    const uint8_t *p = (const uint8_t *)in->p;
    size_t length, head = 2;

    if (in->n < 2 || (p[0] & 0x1f) == 0x1f)
        return false;
    length = p[1];
    if (length & 0x80) {
        size_t bytes = length & 0x7f;
        if (bytes == 0 || bytes > 4 || in->n < 2 + bytes || p[2] == 0)
            return false;
        length = 0;
        for (size_t i = 0; i < bytes; i++)
            length = length << 8 | p[2 + i];
        if (length < 0x80)
            return false;
        head += bytes;
    }
    if (length > in->n - head)
        return false;
    *tag = p[0];
    *value = (struct str){ in->p + head, length };
    if (whole != NULL)
        *whole = (struct str){ in->p, head + length };
    in->p += head + length;
    in->n -= head + length;
    return true;
}

bool der_take(struct str *in, unsigned tag, struct str *value)
{
    struct str rest = *in;
    unsigned found;

    if (!der_next(&rest, &found, value, NULL) || found != tag)
        return false;
    *in = rest;
    return true;
}

void der_put(struct buf *out, unsigned tag, const void *value, size_t n)
{
    buf_append_byte(out, (uint8_t)tag);
    if (n < 0x80) {
        buf_append_byte(out, (uint8_t)n);
    } else {
        size_t bytes = n > 0xffffff ? 4 : n > 0xffff ? 3 : n > 0xff ? 2 : 1;
        buf_append_byte(out, (uint8_t)(0x80 | bytes));
        for (size_t i = bytes; i-- > 0;)
            buf_append_byte(out, (uint8_t)(n >> (8 * i)));
    }
    buf_append(out, value, n);
}

void der_wrap(struct buf *out, unsigned tag, struct buf *value)
{
    der_put(out, tag, value->p, value->n);
    buf_free(value);
}

/* TBSCertificate ::= SEQUENCE { [0] version OPTIONAL, serialNumber, signature, issuer, validity, subject,
 *   subjectPublicKeyInfo, [1] and [2] OPTIONAL, [3] extensions OPTIONAL } */
bool der_certificate_parse(struct str certificate, struct der_certificate *out)
{
    enum { VALIDITY = 3 };
    static const unsigned before_key[] = { DER_INTEGER, DER_SEQUENCE, DER_SEQUENCE, [VALIDITY] = DER_SEQUENCE, DER_SEQUENCE };
    struct str body, tbs, ignored;
    unsigned tag;

    *out = (struct der_certificate){ .extensions = STR("") };
    if (!der_take(&certificate, DER_SEQUENCE, &body) || !der_take(&body, DER_SEQUENCE, &tbs))
        return false;
    der_take(&tbs, DER_CONTEXT(0), &ignored);
    for (size_t i = 0; i < COUNT_OF(before_key); i++)
        if (!der_take(&tbs, before_key[i], i == VALIDITY ? &out->validity : &ignored))
            return false;
    if (!der_next(&tbs, &tag, &ignored, &out->spki) || tag != DER_SEQUENCE)
        return false;
    while (tbs.n > 0) {
        struct str value;
        if (!der_next(&tbs, &tag, &value, NULL))
            return false;
        if (tag == DER_CONTEXT(3) && !der_take(&value, DER_SEQUENCE, &out->extensions))
            return false;
    }
    return true;
}

/* The content of subjectAltName (2.5.29.17), a list of names. */
static bool der_certificate_names(const struct der_certificate *c, struct str *names)
{
    struct str extensions = c->extensions, extension, id, octets, critical;

    while (der_take(&extensions, DER_SEQUENCE, &extension)) {
        if (!der_take(&extension, DER_OID, &id) || id.n != 3 || memcmp(id.p, "\x55\x1d\x11", 3) != 0)
            continue;
        der_take(&extension, 0x01, &critical);
        return der_take(&extension, DER_OCTET_STRING, &octets) && der_take(&octets, DER_SEQUENCE, names);
    }
    return false;
}

bool der_certificate_has_dns(const struct der_certificate *c, const char *host)
{
    const char *rest = strchr(host, '.');
    struct str names, name;
    unsigned tag;

    if (!der_certificate_names(c, &names))
        return false;
    while (der_next(&names, &tag, &name, NULL)) {
        bool wild = name.n > 2 && name.p[0] == '*' && name.p[1] == '.' && rest != NULL && rest > host;
        const char *wanted = wild ? rest : host;
        if (tag == DER_CONTEXT_PRIMITIVE(2) && name.n - wild == strlen(wanted) && strncasecmp(name.p + wild, wanted, name.n - wild) == 0)
            return true;
    }
    return false;
}

bool der_certificate_has_ip(const struct der_certificate *c, const void *ip, size_t n)
{
    struct str names, name;
    unsigned tag;

    if (!der_certificate_names(c, &names))
        return false;
    while (der_next(&names, &tag, &name, NULL))
        if (tag == DER_CONTEXT_PRIMITIVE(7) && name.n == n && memcmp(name.p, ip, n) == 0)
            return true;
    return false;
}

/* RFC 5280 section 4.1.2.5: YYMMDDHHMMSSZ until 2049, else with four digits for the year. As the 14 digits that sort by time. */
static bool der_time(struct str *in, char digits[15])
{
    struct str value;
    unsigned tag;

    if (!der_next(in, &tag, &value, NULL))
        return false;
    if (tag == DER_UTC_TIME && value.n == 13)
        snprintf(digits, 15, "%s%.12s", value.p[0] < '5' ? "20" : "19", value.p);
    else if (tag == DER_GENERALIZED_TIME && value.n == 15)
        snprintf(digits, 15, "%.14s", value.p);
    else
        return false;
    return strspn(digits, "0123456789") == 14;
}

int der_certificate_when(const struct der_certificate *c, int64_t seconds)
{
    struct str validity = c->validity;
    time_t now = (time_t)seconds;
    char from[15], until[15], at[32];
    struct tm tm;

    if (gmtime_r(&now, &tm) == NULL || strftime(at, sizeof at, "%Y%m%d%H%M%S", &tm) != 14 || !der_time(&validity, from) ||
        !der_time(&validity, until))
        return 0;
    return strcmp(at, from) < 0 ? -1 : strcmp(at, until) > 0 ? 1 : 0;
}
