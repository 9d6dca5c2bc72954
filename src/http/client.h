/* SPDX-License-Identifier: Apache-2.0 */
/* client.h: an HTTP/1.1 client: libcurl's multi interface on our loop, TLS by BearSSL.
 *
 * One `http_client` is one identity: whom it trusts, who it says it is, which way it goes out. Its connections are kept
 * and used again. Nothing is allocated in libcurl before the first request, and it is given back some time after the last.
 *
 * TLS: 1.2, certificates verified against the bundle, host names and IP addresses matched with subjectAltName. */
#ifndef HTTP_CLIENT_H
#define HTTP_CLIENT_H

#include "http/http.h"
#include "io/loop.h"

struct http_client;
struct http_request;

/* All strings may be NULL or "" for "not given" (except `proxy`, see there) and are copied. Files are read at the first
 * request over https, so what is wrong with them is an error of that request. */
struct http_client_options {
    const char *ca_path;  /* PEM bundle; with neither this nor ca_pem: the distribution's (tls_find_ca_bundle) */
    const char *ca_pem;   /* PEM text */
    const char *cert_path, *key_path; /* client certificate chain and key (EC or RSA), PEM files */
    const char *cert_pem, *key_pem;   /* the same as PEM text */
    const char *pin;      /* "sha256:<hex>" of the server's key (tls.h): then no CA counts */
    bool skip_verify;     /* any certificate will do: only where the user's configuration says so */
    const char *proxy;    /* "http://host:port"; NULL: from https_proxy, http_proxy, no_proxy; "": none */
    size_t connections_max;      /* at a time, in all; 0: HTTP_CLIENT_CONNECTIONS_MAX; more requests wait */
    size_t host_connections_max; /* at a time, to one host; 0: HTTP_CLIENT_HOST_CONNECTIONS_MAX */
};

/* Never fails: see above. */
struct http_client *http_client_new(struct loop *loop, const struct http_client_options *options);
/* Cancels what is under way (no on_done). NULL is fine. Not from inside on_head or on_body. */
void http_client_free(struct http_client *client);
size_t http_client_active(const struct http_client *client);

struct http_result {
    /* NULL: a complete answer came, whatever its status. Else why not: UNAVAILABLE (could not connect, connection lost),
     * DEADLINE_EXCEEDED, UNAUTHENTICATED (TLS: the peer is not who it should be), RESOURCE_EXHAUSTED (body too large),
     * INVALID_ARGUMENT (the URL), FAILED_PRECONDITION (our own certificate files), INTERNAL. */
    const struct status *err;
    int http_status;       /* 0 when no answer came */
    const struct http_headers *headers; /* of the last answer; never NULL */
    struct str body;       /* collected (see on_body); NUL-terminated beyond its end; borrowed */
    uint64_t body_bytes;   /* received, whether collected or handed to on_body */
    const char *url;       /* the last one, after redirects */
    /* False: the server cannot have acted on the request (it was not sent). With true and err, it may have. A POST or PATCH
     * is sent at most once; anything else may be sent again when a kept connection turns out to be dead. */
    bool sent;
};

struct http_request_options {
    const char *method; /* NULL: GET, or POST with a body. Any method may have a body */
    const char *url;    /* http or https; with a unix socket the host part is only the Host header */
    const char *unix_socket; /* path; NULL or "": TCP */
    const struct http_header *headers;
    size_t header_count;
    const void *body; /* copied at once; NULL: none */
    size_t body_n;
    int64_t connect_timeout_ms; /* name, TCP, TLS; 0: HTTP_CONNECT_TIMEOUT_MS */
    int64_t timeout_ms;         /* all of it; 0: none */
    int64_t low_speed_ms;       /* no byte in this time (while not paused): give up; 0: none */
    size_t body_max;            /* collected body; 0: HTTP_CLIENT_BODY_MAX. Also bounds on_body when not 0 */
    unsigned redirects_max;     /* 0: a 3xx is an answer like others. Never from https to http; an Authorization header
                                   is not sent to another host */
    /* All may be NULL. on_head: status and headers of the final answer, before its body. on_body: the body of a 2xx answer
     * as it comes; with it only other answers are collected (cut at HTTP_ERROR_BODY_MAX), for the error's text.
     * In both: http_request_pause and http_request_cancel are allowed, and starting other requests. */
    void (*on_head)(void *arg, int http_status, const struct http_headers *headers);
    void (*on_body)(void *arg, struct str piece);
    /* Exactly once, from the loop, unless cancelled; the request is gone when it returns. */
    void (*on_done)(void *arg, const struct http_result *result);
    void *arg;
};

/* Never fails at once: an error comes through on_done, from the loop. */
struct http_request *http_request_start(struct http_client *client, const struct http_request_options *options);
/* Holds the body back (the server runs into TCP's flow control). */
void http_request_pause(struct http_request *request, bool paused);
/* Nothing is called any more. NULL is fine. */
void http_request_cancel(struct http_request *request);

#endif
