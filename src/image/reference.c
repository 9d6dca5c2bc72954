/* SPDX-License-Identifier: Apache-2.0 */
#include "image/reference.h"

static bool reference_is_lower(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool reference_is_alnum(char c)
{
    return reference_is_lower(c) || (c >= 'A' && c <= 'Z');
}

static bool reference_bad(struct status *err, const char *text, const char *why)
{
    return status_set(err, STATUS_INVALID_ARGUMENT, "image reference '%.300s': %s", text, why);
}

/* [\w][\w.-]{0,127} */
static bool reference_tag_valid(struct str tag)
{
    if (tag.n == 0 || tag.n > REFERENCE_TAG_MAX || tag.p[0] == '.' || tag.p[0] == '-')
        return false;
    for (size_t i = 0; i < tag.n; i++)
        if (!reference_is_alnum(tag.p[i]) && strchr("_.-", tag.p[i]) == NULL)
            return false;
    return true;
}

/* Letters and digits with single separators between them: one dot, one or two underscores, or any number of hyphens. */
static bool reference_component_valid(struct str c)
{
    size_t i = 0;

    while (i < c.n) {
        size_t start = i;
        while (i < c.n && reference_is_lower(c.p[i]))
            i++;
        if (i == start)
            return false;
        if (i == c.n)
            return true;
        size_t separator = i;
        while (i < c.n && c.p[i] == c.p[separator])
            i++;
        size_t length = i - separator;
        char kind = c.p[separator];
        if (!(kind == '-' || (kind == '_' && length <= 2) || (kind == '.' && length == 1)))
            return false;
    }
    return false;
}

static bool reference_path_valid(struct str path)
{
    size_t start = 0;

    for (size_t i = 0; i <= path.n; i++) {
        if (i < path.n && path.p[i] != '/')
            continue;
        if (!reference_component_valid((struct str){ path.p + start, i - start }))
            return false;
        start = i + 1;
    }
    return true;
}

/* A host name's label: letters, digits, hyphens inside. */
static bool reference_labels_valid(struct str host)
{
    size_t start = 0;

    for (size_t i = 0; i <= host.n; i++) {
        if (i < host.n && host.p[i] != '.') {
            if (!reference_is_alnum(host.p[i]) && host.p[i] != '-')
                return false;
            continue;
        }
        if (i == start || host.p[start] == '-' || host.p[i - 1] == '-')
            return false;
        start = i + 1;
    }
    return true;
}

/* host, host:port, [v6], [v6]:port */
static bool reference_domain_valid(struct str domain)
{
    struct str host = domain, port = { domain.p + domain.n, 0 };
    bool v6 = domain.n > 0 && domain.p[0] == '[';

    for (size_t i = domain.n; i > 0; i--) {
        if (domain.p[i - 1] == ']')
            break;
        if (domain.p[i - 1] == ':') {
            host.n = i - 1;
            port = (struct str){ domain.p + i, domain.n - i };
            if (port.n == 0 || port.n > 5)
                return false;
            break;
        }
    }
    for (size_t i = 0; i < port.n; i++)
        if (port.p[i] < '0' || port.p[i] > '9')
            return false;
    if (!v6)
        return reference_labels_valid(host);
    if (host.n < 4 || host.p[host.n - 1] != ']')
        return false;
    for (size_t i = 1; i < host.n - 1; i++)
        if (host.p[i] != ':' && strchr("0123456789abcdefABCDEF", host.p[i]) == NULL)
            return false;
    return true;
}

/* Whether the part before the first slash names a registry rather than the first folder of a path on Docker Hub. */
static bool reference_is_domain(struct str head)
{
    if (str_eq(head, "localhost"))
        return true;
    for (size_t i = 0; i < head.n; i++)
        if (head.p[i] == '.' || head.p[i] == ':' || (head.p[i] >= 'A' && head.p[i] <= 'Z'))
            return true;
    return false;
}

static bool reference_set_name(const char *text, struct str name, struct reference *out, struct status *err)
{
    const char *slash = memchr(name.p, '/', name.n);
    struct str domain = STR("docker.io"), path = name;

    if (slash != NULL && reference_is_domain((struct str){ name.p, (size_t)(slash - name.p) })) {
        domain = (struct str){ name.p, (size_t)(slash - name.p) };
        path = (struct str){ slash + 1, name.n - domain.n - 1 };
    }
    if (str_eq(domain, "index.docker.io"))
        domain = STR("docker.io");
    bool official = str_eq(domain, "docker.io") && memchr(path.p, '/', path.n) == NULL;
    if (!reference_domain_valid(domain))
        return reference_bad(err, text, "the registry's host name is not valid");
    if (path.n == 0)
        return reference_bad(err, text, "the repository's name is missing");
    for (size_t i = 0; i < path.n; i++)
        if (path.p[i] >= 'A' && path.p[i] <= 'Z')
            return reference_bad(err, text, "the repository's name must be in lower case");
    if (!reference_path_valid(path))
        return reference_bad(err, text, "the repository's name may hold a-z and 0-9, with '.', '_', '__' or '-' between "
                                        "them, and '/' between its parts");
    if (domain.n + 1 + path.n + (official ? strlen("library/") : 0) > REFERENCE_NAME_MAX)
        return reference_bad(err, text, "the name is longer than 255 characters");
    snprintf(out->domain, sizeof out->domain, "%.*s", (int)domain.n, domain.p);
    snprintf(out->path, sizeof out->path, "%s%.*s", official ? "library/" : "", (int)path.n, path.p);
    return true;
}

static bool reference_is_bare_id(const char *text)
{
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

bool reference_parse(const char *text, struct reference *out, struct status *err)
{
    struct str name = str_of(text), tag = { "", 0 };
    const char *at = strchr(text, '@');
    struct digest digest;

    memset(out, 0, sizeof *out);
    if (name.n == 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the image reference is empty");
    if (name.n >= REFERENCE_TEXT_SIZE)
        return reference_bad(err, text, "it is too long");
    for (size_t i = 0; i < name.n; i++)
        if ((unsigned char)name.p[i] <= ' ' || (unsigned char)name.p[i] >= 0x7f)
            return reference_bad(err, text, "it holds a blank, a control character or one outside of ASCII");
    if (reference_is_bare_id(text))
        return reference_bad(err, text, "64 hexadecimal digits are an image's id, not a name");
    if (at != NULL) {
        if (!digest_parse(at + 1, &digest, err))
            return status_prefix(err, "image reference '%.300s'", text);
        name.n = (size_t)(at - text);
    }
    for (size_t i = name.n; i > 0 && name.p[i - 1] != '/'; i--) {
        if (name.p[i - 1] != ':')
            continue;
        tag = (struct str){ name.p + i, name.n - i };
        name.n = i - 1;
        if (!reference_tag_valid(tag))
            return reference_bad(err, text, "a tag has 1 to 128 letters, digits, '_', '.' and '-', and begins with none of the "
                                            "last two");
        break;
    }
    if (!reference_set_name(text, name, out, err))
        return false;
    if (at != NULL)
        digest_text(&digest, out->digest);
    else if (tag.n > 0)
        snprintf(out->tag, sizeof out->tag, "%.*s", (int)tag.n, tag.p);
    else
        memcpy(out->tag, "latest", sizeof "latest");
    return true;
}

void reference_name(const struct reference *r, char out[REFERENCE_TEXT_SIZE])
{
    snprintf(out, REFERENCE_TEXT_SIZE, "%s/%s", r->domain, r->path);
}

void reference_text(const struct reference *r, char out[REFERENCE_TEXT_SIZE])
{
    bool digest = r->digest[0] != '\0';

    snprintf(out, REFERENCE_TEXT_SIZE, "%s/%s%s%s", r->domain, r->path, digest ? "@" : ":", digest ? r->digest : r->tag);
}
