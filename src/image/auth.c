/* SPDX-License-Identifier: Apache-2.0 */
#include "image/auth.h"

#include "image/hosts.h"
#include "text/json.h"

/* ---- what we know ---- */

static const char *credentials_text(struct arena *arena, const char *s)
{
    return s == NULL ? "" : arena_strdup(arena, s);
}

/* base64 of "user:password", as in Docker's config.json. */
static bool credentials_split(const char *auth, struct arena *arena, struct credentials *out, struct status *err)
{
    struct buf cleanup_buf plain = BUF_INIT;

    if (!base64_decode(str_of(auth), &plain))
        return status_set(err, STATUS_INVALID_ARGUMENT, "the registry credentials' 'auth' is no base64");
    while (plain.n > 0 && plain.p[plain.n - 1] == '\0') /* some tools pad with NULs */
        plain.n--;
    const char *text = buf_cstr(&plain), *colon = strchr(text, ':');
    if (colon == NULL || strlen(text) != plain.n)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the registry credentials' 'auth' is not of the form user:password");
    out->username = arena_strndup(arena, text, (size_t)(colon - text));
    out->password = arena_strdup(arena, colon + 1);
    return true;
}

bool credentials_read(const struct image_auth *auth, struct arena *arena, struct credentials *out, struct status *err)
{
    *out = (struct credentials){ "", "", "", "", "" };
    if (auth == NULL)
        return true;
    out->username = credentials_text(arena, auth->username);
    out->password = credentials_text(arena, auth->password);
    out->refresh_token = credentials_text(arena, auth->identity_token);
    out->bearer = credentials_text(arena, auth->registry_token);
    if (out->username[0] == '\0' && out->password[0] == '\0' && auth->auth != NULL && auth->auth[0] != '\0' &&
        !credentials_split(auth->auth, arena, out, err))
        return false;
    if (out->username[0] == '\0' && out->password[0] != '\0' && out->refresh_token[0] == '\0') {
        out->refresh_token = out->password;
        out->password = "";
    }
    if (!http_value_valid(out->bearer))
        return status_set(err, STATUS_INVALID_ARGUMENT, "the registry token holds a control character");
    /* "https://index.docker.io/v1/" -> "index.docker.io" */
    const char *server = auth->server_address == NULL ? "" : auth->server_address;
    const char *scheme = strstr(server, "://");
    server = scheme == NULL ? server : scheme + 3;
    out->host = arena_strndup(arena, server, strcspn(server, "/"));
    return true;
}

static bool credentials_is_docker(const char *host)
{
    return strcmp(host, "docker.io") == 0 || strcmp(host, "index.docker.io") == 0 || strcmp(host, "registry-1.docker.io") == 0;
}

bool credentials_fit(const struct credentials *c, const char *server, const char *domain)
{
    if (c->host[0] == '\0' || strcmp(c->host, server) == 0 || strcmp(c->host, domain) == 0)
        return true;
    return credentials_is_docker(c->host) && credentials_is_docker(server);
}

bool credentials_any(const struct credentials *c)
{
    return c->username[0] != '\0' || c->refresh_token[0] != '\0' || c->bearer[0] != '\0';
}

/* ---- what is asked for ---- */

static bool challenge_is_token(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static const char *challenge_word(const char **p, struct arena *arena)
{
    const char *start = *p;

    while (challenge_is_token(**p))
        (*p)++;
    return arena_strndup(arena, start, (size_t)(*p - start));
}

/* token or quoted-string. */
static const char *challenge_value(const char **p, struct arena *arena)
{
    if (**p != '"')
        return challenge_word(p, arena);
    size_t length = 1, n = 0;
    while ((*p)[length] != '\0' && (*p)[length] != '"')
        length += (*p)[length] == '\\' && (*p)[length + 1] != '\0' ? 2 : 1;
    char *out = arena_alloc(arena, length + 1);
    for ((*p)++; **p != '\0' && **p != '"'; (*p)++) {
        if (**p == '\\' && (*p)[1] != '\0')
            (*p)++;
        out[n++] = **p;
    }
    if (**p == '"')
        (*p)++;
    return out;
}

static void challenge_keep(const struct challenge *found, struct challenge *best)
{
    if (found->kind == CHALLENGE_BEARER && found->realm[0] == '\0')
        return;
    if (found->kind > best->kind)
        *best = *found;
}

/* One header line may hold several challenges: `Bearer realm="x",service="y", Basic realm="z"`. A word without '=' behind it
 * begins the next one. */
static void challenge_read_line(const char *p, struct arena *arena, struct challenge *best)
{
    const struct challenge none = { CHALLENGE_NONE, "", "", "" };
    struct challenge now = none;

    while (*p != '\0') {
        if (!challenge_is_token(*p)) {
            p++;
            continue;
        }
        const char *word = challenge_word(&p, arena);
        p += strspn(p, " \t");
        if (*p != '=') {
            challenge_keep(&now, best);
            now = none;
            now.kind = strcasecmp(word, "bearer") == 0 ? CHALLENGE_BEARER : strcasecmp(word, "basic") == 0 ? CHALLENGE_BASIC
                                                                                                           : CHALLENGE_NONE;
            continue;
        }
        p++;
        p += strspn(p, " \t");
        const char *value = challenge_value(&p, arena);
        if (strcasecmp(word, "realm") == 0)
            now.realm = value;
        else if (strcasecmp(word, "service") == 0)
            now.service = value;
        else if (strcasecmp(word, "scope") == 0)
            now.scope = value;
    }
    challenge_keep(&now, best);
}

void challenge_read(const struct http_headers *headers, struct arena *arena, struct challenge *out)
{
    *out = (struct challenge){ CHALLENGE_NONE, "", "", "" };
    for (size_t i = 0; i < headers->count; i++)
        if (strcasecmp(headers->items[i].name, "www-authenticate") == 0)
            challenge_read_line(headers->items[i].value, arena, out);
}

/* ---- the request for a token ---- */

const char *basic_authorization(const struct credentials *creds, struct arena *arena)
{
    struct buf cleanup_buf pair = BUF_INIT, cleanup_buf header = BUF_INIT;

    buf_printf(&pair, "%s:%s", creds->username, creds->password);
    buf_append_str(&header, "Basic ");
    base64_append(&header, pair.p, pair.n, false);
    return arena_strdup(arena, buf_cstr(&header));
}

static void token_add(struct buf *form, const char *name, const char *value)
{
    buf_printf(form, "%s%s=", form->n > 0 ? "&" : "", name);
    http_percent_encode(form, value, "");
}

bool token_query_make(const struct challenge *c, const struct credentials *creds, bool post, bool secure, const char *scope,
                      struct arena *arena, struct token_query *out, struct status *err)
{
    struct buf cleanup_buf form = BUF_INIT;
    struct http_url url;

    *out = (struct token_query){ 0 };
    if (!http_url_parse(c->realm, &url, err))
        return status_prefix(err, "the registry names a token server that cannot be asked");
    if (secure && strcmp(url.scheme, "https") != 0)
        return status_set(err, STATUS_FAILED_PRECONDITION, "the registry was asked by https, but its token server '%.200s' "
                                                           "would be asked by plain http", c->realm);
    if (c->scope[0] != '\0')
        scope = c->scope;
    if (post) {
        bool refresh = creds->refresh_token[0] != '\0';
        token_add(&form, "grant_type", refresh ? "refresh_token" : "password");
        token_add(&form, "service", c->service);
        token_add(&form, "client_id", "interlink-cri");
        token_add(&form, "scope", scope);
        if (refresh) {
            token_add(&form, "refresh_token", creds->refresh_token);
        } else {
            token_add(&form, "username", creds->username);
            token_add(&form, "password", creds->password);
        }
        out->url = c->realm;
        out->body = arena_strdup(arena, buf_cstr(&form));
        return true;
    }
    if (c->service[0] != '\0')
        token_add(&form, "service", c->service);
    /* Several scopes in one challenge are several parameters. */
    for (const char *p = scope; *p != '\0'; p += strspn(p, " ")) {
        size_t n = strcspn(p, " ");
        if (n > 0)
            token_add(&form, "scope", arena_strndup(arena, p, n));
        p += n;
    }
    if (creds->username[0] != '\0') {
        token_add(&form, "account", creds->username);
        out->authorization = basic_authorization(creds, arena);
    }
    out->url = arena_printf(arena, "%s%c%s", c->realm, strchr(c->realm, '?') == NULL ? '?' : '&', buf_cstr(&form));
    return true;
}

bool token_read(struct str json, struct arena *arena, const char **token, struct status *err)
{
    struct arena cleanup_arena scratch = ARENA_INIT;
    const struct json *root = json_parse(&scratch, json, err);

    if (root == NULL)
        return status_prefix(err, "the token server's answer");
    const char *text = json_string(json_member(root, "token"), "");
    if (text[0] == '\0')
        text = json_string(json_member(root, "access_token"), "");
    if (text[0] == '\0' || strlen(text) > REGISTRY_TOKEN_MAX || !http_value_valid(text))
        return status_set(err, STATUS_INVALID_ARGUMENT, "the token server's answer holds no usable token");
    *token = arena_strdup(arena, text);
    return true;
}
