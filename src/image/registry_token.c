/* SPDX-License-Identifier: Apache-2.0 */
/* Logging in. Calls to one server share its token; one call asks for it, the others wait. */
#include "image/registry_internal.h"

/* Calls the function for every call that waits for this host's token; each may end its call. */
static void registry_token_wake(struct registry_host *h, void (*fn)(struct registry_call *call, const void *arg), const void *arg)
{
    struct registry *r = h->registry;
    bool again = true;

    /* What fn does may change the list: look from the start each time. */
    while (again) {
        again = false;
        for (LIST_EACH(struct registry_call, call, &r->calls, link)) {
            if (!call->waits_for_token || registry_call_host(call) != h)
                continue;
            call->waits_for_token = false;
            again = true;
            fn(call, arg);
            break;
        }
    }
}

static void registry_token_send(struct registry_call *call, const void *arg)
{
    (void)arg;
    registry_send(call);
}

static void registry_token_refused(struct registry_call *call, const void *arg)
{
    registry_next_host(call, arg);
}

struct registry_token_pause {
    const struct status *err;
    const char *retry_after;
    bool reached;
};

static void registry_token_later(struct registry_call *call, const void *arg)
{
    const struct registry_token_pause *p = arg;

    registry_try_again(call, p->err, p->retry_after, p->reached);
}

static void registry_set_authorization(struct registry_host *h, const char *scheme, const char *value)
{
    free(h->authorization);
    h->authorization = xasprintf("%s%s", scheme, value);
    h->generation++;
}

static bool registry_ask_token(struct registry_host *h, bool post, struct status *err);

static void registry_on_token(void *arg, const struct http_result *result)
{
    struct registry_host *h = arg;
    struct arena cleanup_arena scratch = ARENA_INIT;
    struct status err = STATUS_INIT;
    const char *token;

    h->token_request = NULL;
    if (result->err == NULL && result->http_status == 200) {
        if (token_read(result->body, &scratch, &token, &err)) {
            registry_set_authorization(h, "Bearer ", token);
            registry_token_wake(h, registry_token_send, NULL);
            return;
        }
        registry_token_wake(h, registry_token_refused, &err);
        return;
    }
    /* Servers without OAuth's POST: the older way, when there is something to say in it. */
    bool no_post = result->err == NULL && (result->http_status == 404 || result->http_status == 405 ||
                                           result->http_status == 401 || result->http_status == 400);
    if (h->posted && no_post && h->registry->credentials.username[0] != '\0' && registry_ask_token(h, false, &err))
        return;
    registry_http_error(result, &err);
    if (err.code == STATUS_UNAUTHENTICATED || err.code == STATUS_PERMISSION_DENIED)
        err.code = STATUS_UNAUTHENTICATED;
    status_prefix(&err, "its token server");
    if (registry_may_retry(result)) {
        const struct registry_token_pause pause = { &err, http_headers_get(result->headers, "Retry-After"), result->sent };
        registry_token_wake(h, registry_token_later, &pause);
        return;
    }
    registry_token_wake(h, registry_token_refused, &err);
}

static bool registry_ask_token(struct registry_host *h, bool post, struct status *err)
{
    static const struct credentials nobody = { "", "", "", "", "" };
    struct registry *r = h->registry;
    struct arena cleanup_arena scratch = ARENA_INIT;
    struct token_query query;
    struct http_header headers[2];
    size_t count = 0;
    bool fit = credentials_fit(&r->credentials, h->host->name, r->reference.domain);
    const char *scope = arena_printf(&scratch, "repository:%s:pull", r->reference.path);

    if (!token_query_make(&h->challenge, fit ? &r->credentials : &nobody, post && fit, str_starts(h->host->url, "https:"), scope,
                          &scratch, &query, err))
        return false;
    if (query.authorization != NULL)
        headers[count++] = (struct http_header){ "Authorization", query.authorization };
    if (query.body != NULL)
        headers[count++] = (struct http_header){ "Content-Type", "application/x-www-form-urlencoded" };
    h->posted = query.body != NULL;
    h->token_request = http_request_start(h->client, &(struct http_request_options){
        .url = query.url,
        .headers = headers,
        .header_count = count,
        .body = query.body,
        .body_n = query.body == NULL ? 0 : strlen(query.body),
        .timeout_ms = REGISTRY_MANIFEST_TIMEOUT_MS,
        .body_max = 2 * REGISTRY_TOKEN_MAX,
        .redirects_max = query.body == NULL ? REGISTRY_REDIRECTS_MAX : 0,
        .on_done = registry_on_token,
        .arg = h,
    });
    return true;
}

static bool registry_answer_challenge(struct registry_call *call, struct registry_host *h, const struct http_result *result,
                                      struct status *err)
{
    struct registry *r = h->registry;
    const struct credentials *creds = &r->credentials;
    bool fit = credentials_fit(creds, h->host->name, r->reference.domain);

    challenge_read(result->headers, &r->arena, &h->challenge);
    switch (h->challenge.kind) {
    case CHALLENGE_BASIC:
        if (!fit || creds->username[0] == '\0')
            return status_set(err, STATUS_UNAUTHENTICATED, "it wants a user name and password, and %s",
                              credentials_any(creds) ? "the credentials given are not of that kind or not for it"
                                                     : "none were given");
        registry_set_authorization(h, "", basic_authorization(creds, &call->arena));
        registry_send(call);
        return true;
    case CHALLENGE_BEARER:
        if (fit && creds->bearer[0] != '\0') {
            registry_set_authorization(h, "Bearer ", creds->bearer);
            registry_send(call);
            return true;
        }
        if (!registry_ask_token(h, creds->refresh_token[0] != '\0', err))
            return false;
        call->waits_for_token = true;
        return true;
    default:
        registry_http_error(result, err);
        return false;
    }
}

void registry_log_in(struct registry_call *call, const struct http_result *result)
{
    struct registry_host *h = registry_call_host(call);
    struct status err = STATUS_INIT;

    if (call->generation != h->generation) {
        registry_send(call); /* somebody has a newer token by now */
        return;
    }
    if (h->token_request != NULL) {
        call->waits_for_token = true;
        return;
    }
    /* The first time nothing was shown; the second time a token may have run out; a third time is a no. */
    if (++call->logins > 2) {
        registry_http_error(result, &err);
        status_prefix(&err, "it does not take the %s", credentials_any(&h->registry->credentials)
                                                           ? "credentials given" : "anonymous token that it gave out itself");
        registry_next_host(call, &err);
        return;
    }
    if (!registry_answer_challenge(call, h, result, &err))
        registry_next_host(call, &err);
}
