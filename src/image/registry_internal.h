/* SPDX-License-Identifier: Apache-2.0 */
/* registry_internal.h: what registry.c (calls) and registry_token.c (logging in) share; nobody else includes it. */
#ifndef IMAGE_REGISTRY_INTERNAL_H
#define IMAGE_REGISTRY_INTERNAL_H

#include "image/auth.h"
#include "image/registry.h"

/* One server, as we know it by now. */
struct registry_host {
    struct registry *registry;
    const struct host *host;
    struct http_client *client; /* owned; made when it is first asked */
    bool answered;              /* it speaks HTTP */
    char *authorization;        /* header value that it took or was promised to take; owned; NULL: none */
    unsigned generation;        /* of `authorization`: grows with each new one */
    struct http_request *token_request; /* under way; the calls that need it wait */
    struct challenge challenge;         /* what it is for */
    bool posted;
};

struct registry {
    struct loop *loop;
    struct arena arena;
    struct reference reference;
    struct credentials credentials;
    struct host_list list;
    char *ca_path, *proxy; /* owned; NULL as in the options */
    struct registry_host *hosts; /* on the arena; list.count */
    struct list calls;
};

struct registry_call {
    struct list link;
    struct registry *registry;
    struct registry_get get; /* name on the arena */
    struct arena arena;
    size_t host;              /* being asked */
    unsigned tries;           /* of this host, without progress */
    unsigned logins;          /* answered challenges of this host */
    unsigned redirects;
    unsigned generation;      /* of the authorization that was sent */
    bool waits_for_token;
    bool no_range;            /* the server is confused by ranges */
    uint64_t progress;        /* bytes since the last broken try */
    struct http_request *request;
    struct timer timer;
    struct status gave_up;    /* on_start or on_body said so */
    struct buf complaints;    /* one a host that could not help */
    enum status_code worst;   /* of the last of them */
};

/* ---- registry.c ---- */
/* The server wants nothing of it: the next one. `err` without the server's name. */
void registry_next_host(struct registry_call *call, const struct status *err);
/* Again after a pause: `retry_after` is a header's value or NULL. `reached`: the server was there. */
void registry_try_again(struct registry_call *call, const struct status *err, const char *retry_after, bool reached);
/* Sends (or sends again) the request. */
void registry_send(struct registry_call *call);
/* "404 Not Found (manifest unknown)" and the code for it. */
void registry_http_error(const struct http_result *result, struct status *err);
bool registry_may_retry(const struct http_result *result);
struct registry_host *registry_call_host(struct registry_call *call);

/* ---- registry_token.c ---- */
/* The server answered 401: finds what it wants, gets it, and sends the call again; or goes to the next host. */
void registry_log_in(struct registry_call *call, const struct http_result *result);

#endif
