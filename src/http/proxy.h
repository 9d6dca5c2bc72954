/* SPDX-License-Identifier: Apache-2.0 */
/* proxy.h: which HTTP proxy, if any, leads to a host. (libcurl has its own; this is for connections that are not requests.) */
#ifndef HTTP_PROXY_H
#define HTTP_PROXY_H

#include "http/http.h"

struct http_proxy {
    char host[256]; /* "" : none, connect directly */
    uint16_t port;
    char *authorization; /* owned: value of Proxy-Authorization; NULL: none */
};

/* `configured`: the proxy's URL, "" for none, NULL for what the environment says (https_proxy, HTTPS_PROXY, and no_proxy or
 * NO_PROXY for exceptions). Loopback is always reached directly. */
bool http_proxy_choose(const char *configured, const char *host, struct http_proxy *out, struct status *err);
void http_proxy_free(struct http_proxy *proxy);
/* Whether a no_proxy list ("a.org, .b.org, 10.0.0.0/8, ::1, *") covers the host. A name covers its subdomains. */
bool http_no_proxy_covers(const char *list, const char *host);

#endif
