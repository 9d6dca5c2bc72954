/* SPDX-License-Identifier: Apache-2.0 */
#include "http/client_internal.h"

/* One descriptor of libcurl's. */
struct http_client_socket {
    struct list link;
    struct http_client *client;
    struct watch watch;
    int fd;
};

/* ---- certificates ---- */

static const char *http_or_null(const char *s)
{
    return s != NULL && *s != '\0' ? s : NULL;
}

static struct tls_trust *http_client_load_trust(const struct http_client_options *o, struct status *err)
{
    if (o->skip_verify)
        return tls_trust_anyone();
    if (o->pin != NULL)
        return tls_trust_pin(o->pin, err);
    if (o->ca_pem != NULL)
        return tls_trust_parse(str_of(o->ca_pem), err);
    const char *path = o->ca_path != NULL ? o->ca_path : tls_find_ca_bundle();
    if (path == NULL) {
        status_set(err, STATUS_FAILED_PRECONDITION, "no CA bundle was found on this machine: install the distribution's "
                   "ca-certificates, or name a bundle in the configuration or in SSL_CERT_FILE");
        return NULL;
    }
    return tls_trust_load(path, err);
}

static struct tls_identity *http_client_load_identity(const struct http_client_options *o, struct status *err)
{
    if (o->cert_pem != NULL)
        return tls_identity_parse(str_of(o->cert_pem), str_of(o->key_pem != NULL ? o->key_pem : o->cert_pem), err);
    return tls_identity_load(o->cert_path, o->key_path != NULL ? o->key_path : o->cert_path, err);
}

bool http_client_load_tls(struct http_client *client, struct status *err)
{
    const struct http_client_options *o = &client->options;

    if (client->trust == NULL)
        client->trust = http_client_load_trust(o, err);
    if (client->trust != NULL && client->identity == NULL && (o->cert_pem != NULL || o->cert_path != NULL))
        client->identity = http_client_load_identity(o, err);
    bool ok = client->trust != NULL && (client->identity != NULL || (o->cert_pem == NULL && o->cert_path == NULL));
    if (!ok)
        err->code = STATUS_FAILED_PRECONDITION;
    return ok;
}

/* ---- libcurl on the loop ---- */

/* Takes what libcurl has finished with off it, and what was cancelled meanwhile; reports come later, from the loop. */
static void http_client_collect(struct http_client *client)
{
    CURLMsg *message;
    int left;

    for (LIST_EACH_SAFE(struct http_request, r, &client->running, link)) {
        if (r->cancelled) {
            list_remove(&r->link);
            http_request_free(r);
        }
    }
    while ((message = curl_multi_info_read(client->multi, &left)) != NULL) {
        struct http_request *r;
        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)(void *)&r);
        r->code = message->data.result;
        curl_multi_remove_handle(client->multi, r->easy);
        list_remove(&r->link);
        list_append(&client->finished, &r->link);
    }
}

static void http_client_forget_socket(struct http_client_socket *s)
{
    watch_stop(&s->watch);
    list_remove(&s->link);
    free(s);
}

/* Drops the kept connections and libcurl's memory. */
static void http_client_close(struct http_client *client)
{
    if (client->multi != NULL)
        curl_multi_cleanup(client->multi);
    client->multi = NULL;
    while (!list_empty(&client->sockets))
        http_client_forget_socket(CONTAINER_OF(client->sockets.next, struct http_client_socket, link));
    timer_stop(&client->timer);
    tls_trust_free(client->trust);
    tls_identity_free(client->identity);
    client->trust = NULL;
    client->identity = NULL;
}

static void http_client_on_idle(void *arg)
{
    http_client_close(arg);
}

static void http_client_report(struct http_client *client)
{
    bool freed = false;

    client->freed = &freed;
    while (!list_empty(&client->finished)) {
        struct http_request *r = CONTAINER_OF(client->finished.next, struct http_request, link);
        list_remove(&r->link);
        http_request_report(r);
        if (freed)
            return;
    }
    client->freed = NULL;
    if (client->active == 0 && client->multi != NULL && !timer_running(&client->idle))
        timer_start(client->loop, &client->idle, HTTP_CLIENT_IDLE_MS, http_client_on_idle, client);
}

static void http_client_on_kick(void *arg);

static void http_client_drive(struct http_client *client, curl_socket_t fd, int events)
{
    int running;

    client->inside = true;
    curl_multi_socket_action(client->multi, fd, events, &running);
    client->inside = false;
    http_client_collect(client);
    if (!list_empty(&client->finished))
        deferred_start(client->loop, &client->kick, http_client_on_kick, client);
}

static void http_client_on_timer(void *arg)
{
    http_client_drive(arg, CURL_SOCKET_TIMEOUT, 0);
}

static void http_client_on_ready(void *arg, unsigned events)
{
    struct http_client_socket *s = arg;
    int action = 0;

    if (events & WATCH_READ)
        action |= CURL_CSELECT_IN;
    if (events & WATCH_WRITE)
        action |= CURL_CSELECT_OUT;
    if (events & WATCH_HANGUP)
        action |= CURL_CSELECT_IN | CURL_CSELECT_OUT | CURL_CSELECT_ERR;
    http_client_drive(s->client, s->fd, action);
}

static int http_client_set_timer(CURLM *multi, long ms, void *arg)
{
    struct http_client *client = arg;

    (void)multi;
    if (ms < 0)
        timer_stop(&client->timer);
    else
        timer_start(client->loop, &client->timer, ms, http_client_on_timer, client);
    return 0;
}

static int http_client_set_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket)
{
    struct http_client *client = arg;
    struct http_client_socket *s = socket;
    unsigned events = (what & CURL_POLL_IN ? WATCH_READ : 0u) | (what & CURL_POLL_OUT ? WATCH_WRITE : 0u);
    struct status err = STATUS_INIT;

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (s != NULL)
            http_client_forget_socket(s);
        curl_multi_assign(client->multi, fd, NULL);
        return 0;
    }
    if (s == NULL) {
        s = xcalloc(1, sizeof *s);
        s->client = client;
        s->fd = fd;
        list_init(&s->link);
        if (!watch_start(client->loop, &s->watch, fd, events, http_client_on_ready, s, &err)) {
            log_error("http: %s", err.message);
            free(s);
            return -1;
        }
        list_append(&client->sockets, &s->link);
        curl_multi_assign(client->multi, fd, s);
    }
    watch_set(&s->watch, events);
    return 0;
}

static bool http_client_open(struct http_client *client, struct status *err)
{
    static bool initialised; /* libcurl's own global state; it asks for this once a process */

    timer_stop(&client->idle);
    if (client->multi != NULL)
        return true;
    if (!initialised && curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
        return status_set(err, STATUS_INTERNAL, "libcurl cannot start");
    initialised = true;
    CURLM *multi = curl_multi_init();
    if (multi == NULL)
        return status_set(err, STATUS_INTERNAL, "libcurl cannot start");
    size_t total = client->options.connections_max, host = client->options.host_connections_max;
    curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, http_client_set_socket);
    curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, client);
    curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, http_client_set_timer);
    curl_multi_setopt(multi, CURLMOPT_TIMERDATA, client);
    curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)(total > 0 ? total : HTTP_CLIENT_CONNECTIONS_MAX));
    curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)(host > 0 ? host : HTTP_CLIENT_HOST_CONNECTIONS_MAX));
    client->multi = multi;
    return true;
}

/* ---- requests: their way in and out ---- */

static void http_client_begin(struct http_client *client, struct http_request *r)
{
    list_remove(&r->link);
    if (r->cancelled) {
        http_request_free(r);
        return;
    }
    if (!http_client_open(client, &r->err) || !http_request_prepare(r, &r->err)) {
        r->failed = true;
        list_append(&client->finished, &r->link);
        return;
    }
    list_append(&client->running, &r->link);
    client->inside = true;
    CURLMcode code = curl_multi_add_handle(client->multi, r->easy);
    client->inside = false;
    if (code != CURLM_OK) {
        r->failed = true;
        status_set(&r->err, STATUS_INTERNAL, "libcurl does not take the request: %s", curl_multi_strerror(code));
        list_remove(&r->link);
        list_append(&client->finished, &r->link);
    }
}

static void http_client_on_kick(void *arg)
{
    struct http_client *client = arg;

    while (!list_empty(&client->waiting))
        http_client_begin(client, CONTAINER_OF(client->waiting.next, struct http_request, link));
    for (LIST_EACH(struct http_request, r, &client->running, link)) {
        if (r->held && !r->paused) {
            r->held = false;
            client->inside = true;
            curl_easy_pause(r->easy, CURLPAUSE_CONT);
            client->inside = false;
        }
    }
    if (client->multi != NULL)
        http_client_collect(client);
    http_client_report(client);
}

struct http_request *http_request_start(struct http_client *client, const struct http_request_options *options)
{
    struct http_request *r = xcalloc(1, sizeof *r);
    struct http_request_options *o = &r->options;

    r->client = client;
    r->socket = -1;
    *o = *options;
    bool has_body = o->body != NULL;
    o->method = arena_strdup(&r->arena, http_or_null(o->method) != NULL ? o->method : has_body ? "POST" : "GET");
    o->url = arena_strdup(&r->arena, o->url);
    o->unix_socket = http_or_null(o->unix_socket) != NULL ? arena_strdup(&r->arena, o->unix_socket) : NULL;
    if (has_body)
        o->body = arena_memdup(&r->arena, o->body, o->body_n);
    struct http_header *headers = ARENA_ARRAY(&r->arena, struct http_header, o->header_count + 1);
    for (size_t i = 0; i < o->header_count; i++) {
        headers[i].name = arena_strdup(&r->arena, o->headers[i].name);
        headers[i].value = arena_strdup(&r->arena, o->headers[i].value);
    }
    o->headers = headers;
    client->active++;
    list_append(&client->waiting, &r->link);
    deferred_start(client->loop, &client->kick, http_client_on_kick, client);
    return r;
}

void http_request_pause(struct http_request *r, bool paused)
{
    r->paused = paused;
    if (!paused && r->held)
        deferred_start(r->client->loop, &r->client->kick, http_client_on_kick, r->client);
}

void http_request_cancel(struct http_request *r)
{
    if (r == NULL)
        return;
    if (r->client->inside) {
        /* libcurl is in the middle of this or another request: http_client_collect takes it off, or its report is not
         * given. */
        r->cancelled = true;
        return;
    }
    list_remove(&r->link);
    http_request_free(r);
}

/* ---- the client ---- */

struct http_client *http_client_new(struct loop *loop, const struct http_client_options *options)
{
    struct http_client *client = xcalloc(1, sizeof *client);
    struct http_client_options *o = &client->options;
    const char **strings[] = { &o->ca_path, &o->ca_pem, &o->cert_path, &o->key_path, &o->cert_pem, &o->key_pem, &o->pin };

    client->loop = loop;
    *o = *options;
    for (size_t i = 0; i < COUNT_OF(strings); i++)
        *strings[i] = http_or_null(*strings[i]) != NULL ? arena_strdup(&client->arena, *strings[i]) : NULL;
    if (o->proxy != NULL)
        o->proxy = arena_strdup(&client->arena, o->proxy);
    /* What runs on this machine is never asked for through a proxy, whatever the environment forgot to say. */
    const char *no_proxy = getenv("no_proxy");
    if (http_or_null(no_proxy) == NULL)
        no_proxy = getenv("NO_PROXY");
    if (http_or_null(no_proxy) == NULL)
        client->no_proxy = "localhost,127.0.0.0/8,::1";
    else if (strcmp(no_proxy, "*") == 0)
        client->no_proxy = "*";
    else
        client->no_proxy = arena_printf(&client->arena, "%s,localhost,127.0.0.0/8,::1", no_proxy);
    list_init(&client->waiting);
    list_init(&client->running);
    list_init(&client->finished);
    list_init(&client->sockets);
    return client;
}

size_t http_client_active(const struct http_client *client)
{
    return client->active;
}

void http_client_free(struct http_client *client)
{
    if (client == NULL)
        return;
    struct list *lists[] = { &client->waiting, &client->running, &client->finished };
    for (size_t i = 0; i < COUNT_OF(lists); i++)
        while (!list_empty(lists[i])) {
            struct http_request *r = CONTAINER_OF(lists[i]->next, struct http_request, link);
            list_remove(&r->link);
            http_request_free(r);
        }
    http_client_close(client);
    timer_stop(&client->idle);
    deferred_stop(&client->kick);
    arena_free(&client->arena);
    if (client->freed != NULL)
        *client->freed = true;
    free(client);
}
