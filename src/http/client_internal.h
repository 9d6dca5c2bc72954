/* SPDX-License-Identifier: Apache-2.0 */
/* client_internal.h: what client.c (libcurl on our loop) and client_request.c (one request) share; nobody else includes it. */
#ifndef HTTP_CLIENT_INTERNAL_H
#define HTTP_CLIENT_INTERNAL_H

#include <curl/curl.h>

#include "http/client.h"
#include "io/tls.h"

struct http_client {
    struct loop *loop;
    struct http_client_options options; /* strings in `arena` */
    struct arena arena;
    const char *no_proxy;
    CURLM *multi;            /* NULL while there is nothing to do for long */
    struct tls_trust *trust; /* loaded at the first handshake, dropped with `multi` */
    struct tls_identity *identity;
    struct timer timer;     /* libcurl's */
    struct timer idle;
    struct deferred kick;   /* starts what waits, resumes, cancels, reports */
    struct list waiting;    /* requests not yet given to libcurl */
    struct list running;
    struct list finished;   /* to be reported */
    struct list sockets;    /* watches of libcurl's descriptors */
    size_t active;
    bool inside;            /* libcurl runs: its functions must not be entered again */
    bool *freed;            /* set while on_done runs: tells that it freed us */
};

struct http_request {
    struct list link;
    struct http_client *client;
    struct http_request_options options; /* strings in `arena` */
    struct arena arena;
    CURL *easy;
    struct curl_slist *lines;  /* headers as libcurl takes them */
    struct http_headers head;  /* of the answer that is coming in */
    int http_status;
    bool final;                /* the answer is not one that will be followed by another */
    struct buf body;
    uint64_t received;
    bool paused;      /* as the owner wants it */
    bool held;        /* libcurl holds it back */
    bool cancelled;
    bool cut;         /* enough of an error's body was read */
    bool failed;      /* `err` says why: found by us, not by libcurl */
    struct status err;
    CURLcode code;    /* libcurl's verdict */
    struct tls_verifier *verifiers[8]; /* owned; one for each handshake: redirects, other addresses of the host */
    size_t verifier_count;
    int socket;         /* libcurl's, of the connection last made; -1: none */
    unsigned tls_error; /* BearSSL's number for what the peer said before it closed; 0: nothing */
    char text[CURL_ERROR_SIZE];
};

/* ---- client.c ---- */
/* Reads certificates and keys that the options name, once. */
bool http_client_load_tls(struct http_client *client, struct status *err);

/* ---- client_request.c ---- */
/* Makes the easy handle; false when the request cannot be made as it is. */
bool http_request_prepare(struct http_request *r, struct status *err);
/* Tells the owner how it ended, and frees it. */
void http_request_report(struct http_request *r);
void http_request_free(struct http_request *r);

#endif
