/* SPDX-License-Identifier: Apache-2.0 */
#include "http/client_internal.h"

#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "version.h"

/* ---- what comes in ---- */

static void http_request_start_answer(struct http_request *r, struct str line)
{
    char number[4] = "";
    uint64_t status = 0;

    /* "HTTP/1.1 200 OK" */
    const char *space = memchr(line.p, ' ', line.n);
    if (space != NULL && line.n - (size_t)(space - line.p) >= 4)
        memcpy(number, space + 1, 3);
    r->http_status = parse_u64(number, 599, &status) ? (int)status : 0;
    r->final = false;
    http_headers_free(&r->head);
}

/* Whether libcurl will ask elsewhere, so that this answer is not the one. */
static bool http_request_is_redirect(const struct http_request *r)
{
    switch (r->http_status) {
    case 301:
    case 302:
    case 303:
    case 307:
    case 308: return r->options.redirects_max > 0 && http_headers_get(&r->head, "Location") != NULL;
    default: return false;
    }
}

static bool http_request_refuse(struct http_request *r, enum status_code code, const char *text)
{
    r->failed = true;
    return status_set(&r->err, code, "%s", text);
}

static size_t http_request_on_header(char *p, size_t size, size_t count, void *arg)
{
    struct http_request *r = arg;
    struct str line = { p, size * count };

    if (r->cancelled)
        return 0;
    while (line.n > 0 && (line.p[line.n - 1] == '\n' || line.p[line.n - 1] == '\r'))
        line.n--;
    if (line.n >= 5 && memcmp(line.p, "HTTP/", 5) == 0) {
        http_request_start_answer(r, line);
        return size * count;
    }
    if (line.n == 0) {
        if (!r->final && r->http_status >= 200 && !http_request_is_redirect(r)) {
            r->final = true;
            if (r->options.on_head != NULL)
                r->options.on_head(r->options.arg, r->http_status, &r->head);
        }
        return r->cancelled ? 0 : size * count;
    }
    const char *colon = memchr(line.p, ':', line.n);
    if (r->final || colon == NULL) /* a trailer, or a folded line */
        return size * count;
    if (r->head.count >= HTTP_HEADERS_MAX || r->head.bytes + line.n > HTTP_HEAD_MAX) {
        http_request_refuse(r, STATUS_RESOURCE_EXHAUSTED, "the answer's headers are too large");
        return 0;
    }
    struct str name = { line.p, (size_t)(colon - line.p) }, value = { colon + 1, line.n - (size_t)(colon + 1 - line.p) };
    for (; value.n > 0 && (*value.p == ' ' || *value.p == '\t'); value.n--)
        value.p++;
    while (value.n > 0 && (value.p[value.n - 1] == ' ' || value.p[value.n - 1] == '\t'))
        value.n--;
    http_headers_addn(&r->head, name, value);
    return size * count;
}

static size_t http_request_on_write(char *p, size_t size, size_t count, void *arg)
{
    struct http_request *r = arg;
    const struct http_request_options *o = &r->options;
    size_t n = size * count;
    bool sink = o->on_body != NULL && r->http_status / 100 == 2;

    if (r->cancelled)
        return CURL_WRITEFUNC_ERROR;
    if (r->paused) {
        r->held = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    size_t bound = o->body_max > 0 ? o->body_max : sink ? SIZE_MAX : HTTP_CLIENT_BODY_MAX;
    if (r->http_status / 100 != 2) {
        size_t room = HTTP_ERROR_BODY_MAX - r->body.n;
        buf_append(&r->body, p, n < room ? n : room);
        r->received += n;
        r->cut = n > room;
        return r->cut ? CURL_WRITEFUNC_ERROR : n;
    }
    if (n > bound - r->received) {
        http_request_refuse(r, STATUS_RESOURCE_EXHAUSTED, "the answer is larger than is allowed here");
        return CURL_WRITEFUNC_ERROR;
    }
    r->received += n;
    if (sink)
        o->on_body(o->arg, (struct str){ p, n });
    else
        buf_append(&r->body, p, n);
    return r->cancelled ? CURL_WRITEFUNC_ERROR : n;
}

/* Called for each connection right before its handshake, with BearSSL's context: the check of the certificate is ours. */
static CURLcode http_request_on_tls(CURL *easy, void *context, void *arg)
{
    struct http_request *r = arg;
    br_ssl_client_context *client = context;
    struct http_url url;
    char *text = NULL;

    curl_easy_getinfo(easy, CURLINFO_EFFECTIVE_URL, &text);
    if (r->verifier_count == COUNT_OF(r->verifiers)) {
        http_request_refuse(r, STATUS_UNAVAILABLE, "too many attempts to connect");
        return CURLE_ABORTED_BY_CALLBACK;
    }
    if (!http_client_load_tls(r->client, &r->err) || !http_url_parse(text != NULL ? text : "", &url, &r->err)) {
        r->failed = true;
        return CURLE_ABORTED_BY_CALLBACK;
    }
    struct tls_verifier *verifier = tls_verifier_new(r->client->trust, url.host);
    r->verifiers[r->verifier_count++] = verifier;
    tls_client_profile(client);
    br_ssl_engine_set_x509(&client->eng, tls_verifier_class(verifier));
    if (r->client->identity != NULL)
        tls_identity_offer(r->client->identity, client);
    return CURLE_OK;
}

static int http_request_on_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
    struct http_request *r = arg;

    (void)purpose;
    r->socket = fd;
    return CURL_SOCKOPT_OK;
}

/* The client's, since a kept connection outlives its request. A peer that does not like our certificate says so and closes; when it
 * closed before all of ours was sent, libcurl gives up without reading what the kernel kept: a record (type 21) with a fatal
 * alert (RFC 5246, 7.2). */
static int http_request_on_close(void *arg, curl_socket_t fd)
{
    struct http_client *client = arg;
    unsigned char alert[7];

    for (LIST_EACH(struct http_request, r, &client->running, link)) {
        if (r->socket != fd)
            continue;
        r->socket = -1;
        if (r->verifier_count > 0 && recv(fd, alert, sizeof alert, MSG_DONTWAIT) == (ssize_t)sizeof alert &&
            alert[0] == 21 && alert[1] == 3 && alert[3] == 0 && alert[4] == 2 && alert[5] == 2)
            r->tls_error = (unsigned)BR_ERR_RECV_FATAL_ALERT + alert[6];
    }
    return close(fd);
}

/* ---- setting up ---- */

static bool http_request_set_headers(struct http_request *r, struct status *err)
{
    const struct http_request_options *o = &r->options;
    bool has_type = false;

    for (size_t i = 0; i < o->header_count; i++) {
        const struct http_header *h = &o->headers[i];
        if (!http_name_valid(h->name) || !http_value_valid(h->value))
            return status_set(err, STATUS_INVALID_ARGUMENT, "the header \"%.60s\" or its value has characters that a header "
                              "may not have", h->name);
        has_type = has_type || strcasecmp(h->name, "Content-Type") == 0;
        /* A header without a value is written with a semicolon to libcurl. */
        cleanup_free char *line = *h->value != '\0' ? xasprintf("%s: %s", h->name, h->value) : xasprintf("%s;", h->name);
        r->lines = curl_slist_append(r->lines, line);
    }
    r->lines = curl_slist_append(r->lines, "Expect:");
    if (!has_type)
        r->lines = curl_slist_append(r->lines, "Content-Type:");
    return true;
}

static bool http_request_set_method(struct http_request *r)
{
    const struct http_request_options *o = &r->options;
    CURL *easy = r->easy;
    bool ok = true;

    if (o->body != NULL || strcmp(o->method, "POST") == 0) {
        ok = curl_easy_setopt(easy, CURLOPT_POST, 1L) == CURLE_OK &&
             curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)o->body_n) == CURLE_OK &&
             curl_easy_setopt(easy, CURLOPT_POSTFIELDS, o->body != NULL ? o->body : "") == CURLE_OK;
        if (strcmp(o->method, "POST") != 0)
            ok = ok && curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, o->method) == CURLE_OK;
    } else if (strcmp(o->method, "HEAD") == 0) {
        ok = curl_easy_setopt(easy, CURLOPT_NOBODY, 1L) == CURLE_OK;
    } else if (strcmp(o->method, "GET") != 0) {
        ok = curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, o->method) == CURLE_OK;
    }
    /* On a kept connection that turns out dead, libcurl sends the request again. A POST must not happen twice. */
    if (strcmp(o->method, "POST") == 0 || strcmp(o->method, "PATCH") == 0)
        ok = ok && curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L) == CURLE_OK;
    return ok;
}

static bool http_request_set_way(struct http_request *r, const struct http_url *url)
{
    const struct http_request_options *o = &r->options;
    const struct http_client_options *c = &r->client->options;
    CURL *easy = r->easy;
    bool ok = true;

    if (o->unix_socket != NULL)
        ok = curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, o->unix_socket) == CURLE_OK;
    if (o->unix_socket != NULL || c->proxy != NULL)
        ok = ok && curl_easy_setopt(easy, CURLOPT_PROXY, o->unix_socket != NULL ? "" : c->proxy) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_NOPROXY, r->client->no_proxy) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK;
    const char *redirects = strcmp(url->scheme, "https") == 0 ? "https" : "http,https";
    ok = ok && curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, redirects) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, o->redirects_max > 0 ? 1L : 0L) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_MAXREDIRS, (long)o->redirects_max) == CURLE_OK;
    return ok;
}

/* libcurl's own check is off, for it reads the bundle anew for each connection and knows no IP addresses; ours is put in its
 * place by http_request_on_tls. So each of these must succeed. */
static bool http_request_set_tls(struct http_request *r)
{
    CURL *easy = r->easy;

    return curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, http_request_on_tls) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, r) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_SSL_SESSIONID_CACHE, 0L) == CURLE_OK;
}

static bool http_request_set_rest(struct http_request *r)
{
    const struct http_request_options *o = &r->options;
    CURL *easy = r->easy;
    bool ok = curl_easy_setopt(easy, CURLOPT_PRIVATE, r) == CURLE_OK;

    ok = ok && curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, http_request_on_socket) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_SOCKOPTDATA, r) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, http_request_on_close) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, r->client) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_URL, o->url) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, r->text) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_USERAGENT, "interlink-cri/" INTERLINK_CRI_VERSION) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_HTTPHEADER, r->lines) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, http_request_on_header) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_HEADERDATA, r) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, http_request_on_write) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_WRITEDATA, r) == CURLE_OK;
    long connect_ms = (long)(o->connect_timeout_ms > 0 ? o->connect_timeout_ms : HTTP_CONNECT_TIMEOUT_MS);
    ok = ok && curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, connect_ms) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)o->timeout_ms) == CURLE_OK;
    if (o->low_speed_ms > 0) {
        ok = ok && curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L) == CURLE_OK;
        ok = ok && curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)((o->low_speed_ms + 999) / 1000)) == CURLE_OK;
    }
    return ok;
}

bool http_request_prepare(struct http_request *r, struct status *err)
{
    struct http_url url;

    if (!http_url_parse(r->options.url, &url, err) || !http_request_set_headers(r, err))
        return false;
    if (!http_name_valid(r->options.method))
        return status_set(err, STATUS_INVALID_ARGUMENT, "\"%.40s\" is not an HTTP method", r->options.method);
    const char *proxy = r->client->options.proxy;
    if (proxy != NULL && strncasecmp(proxy, "https://", 8) == 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "TLS to a proxy is not supported: name it with http://");
    r->easy = curl_easy_init();
    if (r->easy == NULL || !http_request_set_rest(r) || !http_request_set_method(r) || !http_request_set_way(r, &url) ||
        !http_request_set_tls(r))
        return status_set(err, STATUS_INTERNAL, "libcurl does not take the request for %.200s", r->options.url);
    return true;
}

/* ---- the end ---- */

/* BearSSL's error number, which libcurl tells in its text only. */
static const char *http_request_tls_text(const struct http_request *r)
{
    static const char mark[] = "connection error 0x";
    const char *p = strstr(r->text, mark);

    if (r->tls_error != 0)
        return tls_error_text((int)r->tls_error);
    if (p != NULL)
        return tls_error_text((int)strtol(p + sizeof mark - 1, NULL, 16));
    return r->text[0] != '\0' ? r->text : "the handshake failed";
}

static void http_request_explain_connect(const struct http_request *r, struct status *err)
{
    long number = 0;

    curl_easy_getinfo(r->easy, CURLINFO_OS_ERRNO, &number);
    const char *why = number > 0 ? strerror((int)number) : r->text;
    if (r->options.unix_socket != NULL)
        status_set(err, STATUS_UNAVAILABLE, "cannot connect to the socket %s: %s", r->options.unix_socket, why);
    else
        status_set(err, STATUS_UNAVAILABLE, "cannot connect: %s", why);
}

static void http_request_explain_tls(const struct http_request *r, CURLcode code, struct status *err)
{
    if (r->verifier_count > 0 && tls_verifier_failed(r->verifiers[r->verifier_count - 1], err))
        return;
    bool lost = strstr(r->text, "BearSSL") == NULL && (code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR);
    bool closed = r->tls_error == 0 && (lost || strstr(r->text, "closed during") != NULL);
    status_set(err, code == CURLE_PEER_FAILED_VERIFICATION ? STATUS_UNAUTHENTICATED : STATUS_UNAVAILABLE, "TLS: %s",
               closed ? "the server closed the connection during the handshake (does it want a client certificate?)"
                      : http_request_tls_text(r));
}

/* A sentence for each way in which a request can fail. */
static void http_request_explain(const struct http_request *r, CURLcode code, struct status *err)
{
    double handshake = 0; /* when it was done, or 0 */

    curl_easy_getinfo(r->easy, CURLINFO_PRETRANSFER_TIME, &handshake);
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
        status_set(err, STATUS_UNAVAILABLE, "the host's name cannot be looked up (wrong name, or no name server answers)");
        break;
    case CURLE_COULDNT_RESOLVE_PROXY:
        status_set(err, STATUS_UNAVAILABLE, "the name of the HTTP proxy cannot be looked up");
        break;
    case CURLE_COULDNT_CONNECT: http_request_explain_connect(r, err); break;
    case CURLE_OPERATION_TIMEDOUT:
        status_set(err, STATUS_DEADLINE_EXCEEDED, handshake > 0 ? "no complete answer in time" : "cannot connect in time");
        break;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER: http_request_explain_tls(r, code, err); break;
    case CURLE_GOT_NOTHING:
        status_set(err, STATUS_UNAVAILABLE, "the server closed the connection without an answer");
        break;
    case CURLE_PARTIAL_FILE: status_set(err, STATUS_UNAVAILABLE, "the answer was cut off"); break;
    case CURLE_TOO_MANY_REDIRECTS:
        status_set(err, STATUS_UNAVAILABLE, "more than %u redirects", r->options.redirects_max);
        break;
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
        /* libcurl takes what has no status line for HTTP/0.9. */
        if (code == CURLE_WEIRD_SERVER_REPLY || strstr(r->text, "HTTP/0.9") != NULL)
            status_set(err, STATUS_UNAVAILABLE, "the answer is not HTTP/1.1");
        else
            status_set(err, STATUS_UNAVAILABLE, "the server redirects to where we do not follow (from https only to https)");
        break;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
        if (strstr(r->text, "CONNECT") != NULL || strstr(r->text, "proxy") != NULL)
            status_set(err, STATUS_UNAVAILABLE, "the HTTP proxy refuses: %s", r->text);
        else if (r->verifier_count > 0 && (handshake <= 0 || strstr(r->text, "BearSSL") != NULL))
            http_request_explain_tls(r, code, err);
        else
            status_set(err, STATUS_UNAVAILABLE, "the connection was lost");
        break;
    default:
        status_set(err, STATUS_UNAVAILABLE, "%s", r->text[0] != '\0' ? r->text : curl_easy_strerror(code));
        break;
    }
}

/* The URL for messages: without its query, which may carry a signature. */
static void http_request_prefix(const struct http_request *r, const char *url, struct status *err)
{
    int n = (int)strcspn(url, "?#");

    status_prefix(err, "%.20s %.*s", r->options.method, n < 300 ? n : 300, url);
}

void http_request_report(struct http_request *r)
{
    struct http_result result = { .headers = &r->head, .body_bytes = r->received, .url = r->options.url };
    struct status err = STATUS_INIT;
    long sent = 0;
    char *url = NULL;

    if (r->easy != NULL) {
        curl_easy_getinfo(r->easy, CURLINFO_REQUEST_SIZE, &sent);
        curl_easy_getinfo(r->easy, CURLINFO_EFFECTIVE_URL, &url);
        if (url != NULL && *url != '\0')
            result.url = url;
    }
    result.sent = sent > 0;
    if (r->failed)
        err = r->err;
    else if (r->code != CURLE_OK && !r->cut)
        http_request_explain(r, r->code, &err);
    else if (!r->final) /* libcurl takes an end in the middle of the headers for the end of the answer */
        status_set(&err, STATUS_UNAVAILABLE, "the answer was cut off");
    if (err.code != STATUS_OK) {
        http_request_prefix(r, result.url, &err);
        result.err = &err;
    }
    result.http_status = r->http_status;
    result.body = (struct str){ buf_cstr(&r->body), r->body.n };
    /* The client may be freed in on_done: nothing of it is needed from here on. */
    r->client->active--;
    r->client = NULL;
    if (r->options.on_done != NULL && !r->cancelled)
        r->options.on_done(r->options.arg, &result);
    http_request_free(r);
}

void http_request_free(struct http_request *r)
{
    if (r->easy != NULL) {
        if (r->client != NULL && r->client->multi != NULL)
            curl_multi_remove_handle(r->client->multi, r->easy);
        curl_easy_cleanup(r->easy);
    }
    curl_slist_free_all(r->lines);
    for (size_t i = 0; i < r->verifier_count; i++)
        tls_verifier_free(r->verifiers[i]);
    http_headers_free(&r->head);
    buf_free(&r->body);
    arena_free(&r->arena);
    if (r->client != NULL)
        r->client->active--;
    free(r);
}
