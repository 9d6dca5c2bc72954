/* SPDX-License-Identifier: Apache-2.0 */
#include "http/proxy.h"

#include <arpa/inet.h>
#include <strings.h>

/* The bytes of a literal address; 0 when it is a name. */
static size_t http_proxy_ip(const char *text, uint8_t ip[16])
{
    if (inet_pton(AF_INET, text, ip) == 1)
        return 4;
    return inet_pton(AF_INET6, text, ip) == 1 ? 16 : 0;
}

/* "10.0.0.0/8", or without a slash the one address. */
static bool http_proxy_in_network(const char *network, const char *host)
{
    uint8_t a[16], b[16];
    char text[INET6_ADDRSTRLEN + 1];
    size_t n = strcspn(network, "/");
    uint64_t bits;

    if (n >= sizeof text)
        return false;
    memcpy(text, network, n);
    text[n] = '\0';
    size_t a_n = http_proxy_ip(text, a), b_n = http_proxy_ip(host, b);
    if (a_n == 0 || a_n != b_n)
        return false;
    if (network[n] == '\0')
        bits = 8 * a_n;
    else if (!parse_u64(network + n + 1, 8 * a_n, &bits))
        return false;
    for (size_t i = 0; i < bits; i++)
        if (((a[i / 8] ^ b[i / 8]) >> (7 - i % 8) & 1) != 0)
            return false;
    return true;
}

static bool http_proxy_covers_name(const char *entry, const char *host)
{
    size_t n = strlen(host), m;

    entry += *entry == '.';
    m = strlen(entry);
    if (m == 0 || m > n || strcasecmp(host + n - m, entry) != 0)
        return false;
    return m == n || host[n - m - 1] == '.';
}

bool http_no_proxy_covers(const char *list, const char *host)
{
    char entry[256];

    while (*list != '\0') {
        list += strspn(list, ", \t");
        size_t n = strcspn(list, ", \t");
        if (n > 0 && n < sizeof entry) {
            memcpy(entry, list, n);
            entry[n] = '\0';
            if (strcmp(entry, "*") == 0 || http_proxy_covers_name(entry, host) || http_proxy_in_network(entry, host))
                return true;
        }
        list += n;
    }
    return false;
}

static const char *http_proxy_env(const char *lower, const char *upper)
{
    const char *value = getenv(lower);

    if (value == NULL || *value == '\0')
        value = getenv(upper);
    return value != NULL ? value : "";
}

/* "user:password@" in front of the host, percent-encoded, becomes the header's value. */
static bool http_proxy_set_authorization(struct http_proxy *proxy, struct str user, struct status *err)
{
    cleanup_buf struct buf plain = BUF_INIT;
    struct buf value = BUF_INIT;

    if (!http_percent_decode(user, false, &plain))
        return status_set(err, STATUS_INVALID_ARGUMENT, "the proxy's user name or password is not percent-encoded properly");
    buf_append_str(&value, "Basic ");
    base64_append(&value, plain.p, plain.n, false);
    proxy->authorization = buf_steal(&value);
    return true;
}

bool http_proxy_choose(const char *configured, const char *host, struct http_proxy *out, struct status *err)
{
    struct http_url url;

    *out = (struct http_proxy){ 0 };
    if (http_no_proxy_covers("localhost,127.0.0.0/8,::1", host))
        return true;
    if (configured == NULL) {
        if (http_no_proxy_covers(http_proxy_env("no_proxy", "NO_PROXY"), host))
            return true;
        configured = http_proxy_env("https_proxy", "HTTPS_PROXY");
    }
    if (*configured == '\0')
        return true;
    if (strncasecmp(configured, "https://", 8) == 0 || strncasecmp(configured, "socks", 5) == 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "only http:// proxies are supported");
    const char *rest = strncasecmp(configured, "http://", 7) == 0 ? configured + 7 : configured;
    const char *at = strrchr(rest, '@');
    if (at != NULL && !http_proxy_set_authorization(out, (struct str){ rest, (size_t)(at - rest) }, err))
        return false;
    cleanup_free char *plain = xasprintf("http://%s", at != NULL ? at + 1 : rest);
    if (!http_url_parse(plain, &url, err)) {
        http_proxy_free(out);
        return status_prefix(err, "HTTP proxy");
    }
    strcpy(out->host, url.host);
    out->port = url.port;
    return true;
}

void http_proxy_free(struct http_proxy *proxy)
{
    free(proxy->authorization);
    *proxy = (struct http_proxy){ 0 };
}
