/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/kubeconfig.h"

#include "http/http.h"
#include "text/yaml.h"

struct kubeconfig_reader {
    struct kubeconfig *out;
    const char *path;
};

/* ---- values ---- */

static bool kubeconfig_refuse(const struct json *j, struct status *err, const char *why)
{
    json_fail(j, err, "%s", why);
    err->code = STATUS_FAILED_PRECONDITION;
    return false;
}

/* A file's name; relative ones are beside the kubeconfig. */
static bool kubeconfig_read_path(const struct kubeconfig_reader *r, const struct json *j, const char *name, const char **out,
                                 struct status *err)
{
    const char *text = "", *slash = strrchr(r->path, '/');

    if (!json_read_string(j, name, &text, err))
        return false;
    if (*text == '\0' || *text == '/' || slash == NULL)
        *out = text;
    else
        *out = arena_printf(&r->out->arena, "%.*s/%s", (int)(slash - r->path), r->path, text);
    return true;
}

/* base64 of a PEM text. */
static bool kubeconfig_read_data(const struct kubeconfig_reader *r, const struct json *j, const char *name, const char **out,
                                 struct status *err)
{
    struct buf pem = BUF_INIT;
    const char *text = "";

    if (!json_read_string(j, name, &text, err))
        return false;
    if (*text == '\0')
        return true;
    /* Long data is folded into lines at times. */
    cleanup_free char *packed = xstrdup(text);
    size_t n = 0;
    for (const char *p = text; *p != '\0'; p++)
        if (strchr(" \t\r\n", *p) == NULL)
            packed[n++] = *p;
    bool ok = base64_decode((struct str){ packed, n }, &pem) && pem.n > 0 && memchr(pem.p, '\0', pem.n) == NULL;
    if (ok)
        *out = arena_strndup(&r->out->arena, (const char *)pem.p, pem.n);
    else
        json_fail(json_member(j, name), err, "wanted PEM text in base64");
    explicit_bzero(packed, strlen(text));
    if (pem.p != NULL)
        explicit_bzero(pem.p, pem.cap); /* it may have been a private key */
    buf_free(&pem);
    return ok;
}

/* A pair of keys for the same thing: the data goes before the file. */
static bool kubeconfig_read_pem(const struct kubeconfig_reader *r, const struct json *j, const char *file_key,
                                const char *data_key, const char **path, const char **pem, struct status *err)
{
    if (!kubeconfig_read_path(r, j, file_key, path, err) || !kubeconfig_read_data(r, j, data_key, pem, err))
        return false;
    if (**pem != '\0')
        *path = "";
    return true;
}

/* ---- the parts ---- */

/* The element called `name` of a list of named things, and of that the object under `what`. */
static const struct json *kubeconfig_find(const struct json *root, const char *list_name, const char *what,
                                          const char *name, struct status *err)
{
    const struct json *list = NULL, *found = NULL, *object = NULL;

    if (!json_read_node(root, list_name, JSON_ARRAY, &list, err))
        return NULL;
    for (JSON_EACH(item, list)) {
        if (!json_want(item, JSON_OBJECT, err))
            return NULL;
        if (strcmp(json_string(json_member(item, "name"), ""), name) != 0)
            continue;
        if (found != NULL) {
            json_fail(item, err, "a second one is called \"%.128s\"", name);
            return NULL;
        }
        found = item;
    }
    if (found == NULL) {
        status_set(err, STATUS_INVALID_ARGUMENT, "%s: none is called \"%.128s\"", list_name, name);
        return NULL;
    }
    if (!json_read_node(found, what, JSON_OBJECT, &object, err))
        return NULL;
    if (object == NULL)
        json_fail(found, err, "it has no %s", what);
    return object;
}

static bool kubeconfig_read_cluster(const struct kubeconfig_reader *r, const struct json *j, struct status *err)
{
    struct kubeconfig *out = r->out;
    const struct json *server = json_member(j, "server"), *proxy = json_member(j, "proxy-url");
    struct http_url url;
    bool insecure = false;
    const char *name = "", *text = "";

    if (!json_read_string(j, "server", &text, err) || !json_read_bool(j, "insecure-skip-tls-verify", &insecure, err) ||
        !json_read_string(j, "tls-server-name", &name, err) || !json_read_string(j, "proxy-url", &out->proxy, err) ||
        !kubeconfig_read_pem(r, j, "certificate-authority", "certificate-authority-data", &out->ca_path, &out->ca_pem, err))
        return false;
    if (*text == '\0')
        return json_fail(j, err, "no server is named");
    if (insecure)
        return kubeconfig_refuse(json_member(j, "insecure-skip-tls-verify"), err,
                                 "not offered: whoever answered would be believed. Name the authority in certificate-authority");
    if (*name != '\0')
        return kubeconfig_refuse(json_member(j, "tls-server-name"), err,
                                 "not offered: let `server` have a name or an address that the certificate carries");
    if (!http_url_parse(text, &url, err))
        return json_fail(server, err, "\"%.128s\" is no URL such as https://10.0.0.1:6443", text);
    if (strcmp(url.scheme, "https") != 0)
        return kubeconfig_refuse(server, err, "not offered without TLS: wanted https://");
    if (strpbrk(url.target, "?#") != NULL)
        return json_fail(server, err, "a query has no place here");
    size_t n = strlen(text);
    while (text[n - 1] == '/')
        n--;
    out->server = arena_strndup(&out->arena, text, n);
    if (*out->proxy != '\0' && (!http_url_parse(out->proxy, &url, err) || strcmp(url.scheme, "http") != 0))
        return kubeconfig_refuse(proxy, err, "offered only as http://HOST:PORT");
    return true;
}

static bool kubeconfig_read_user(const struct kubeconfig_reader *r, const struct json *j, struct status *err)
{
    static const struct {
        const char *key, *why;
    } refused[] = {
        { "exec", "not offered: no other program is run for credentials. Use a certificate, a token or a tokenFile" },
        { "auth-provider", "not offered. Use a certificate, a token or a tokenFile" },
        { "username", "not offered: Kubernetes itself no longer takes passwords" },
        { "password", "not offered: Kubernetes itself no longer takes passwords" },
        { "as", "not offered: use the credentials of who is meant" },
        { "as-uid", "not offered: use the credentials of who is meant" },
        { "as-groups", "not offered: use the credentials of who is meant" },
        { "as-user-extra", "not offered: use the credentials of who is meant" },
    };
    struct kubeconfig *out = r->out;

    for (size_t i = 0; i < COUNT_OF(refused); i++) {
        const struct json *member = json_member(j, refused[i].key);
        if (member != NULL && member->type != JSON_NULL && !(member->type == JSON_STRING && member->length == 0))
            return kubeconfig_refuse(member, err, refused[i].why);
    }
    if (!kubeconfig_read_pem(r, j, "client-certificate", "client-certificate-data", &out->cert_path, &out->cert_pem, err) ||
        !kubeconfig_read_pem(r, j, "client-key", "client-key-data", &out->key_path, &out->key_pem, err) ||
        !json_read_string(j, "token", &out->token, err) || !kubeconfig_read_path(r, j, "tokenFile", &out->token_path, err))
        return false;
    if (*out->token_path != '\0')
        out->token = "";
    bool cert = *out->cert_path != '\0' || *out->cert_pem != '\0', key = *out->key_path != '\0' || *out->key_pem != '\0';
    if (cert != key)
        return json_fail(j, err, "client-certificate and client-key go together");
    if (!cert && *out->token == '\0' && *out->token_path == '\0')
        return json_fail(j, err, "there are no credentials: wanted client-certificate and client-key, token or tokenFile");
    if (!http_value_valid(out->token))
        return json_fail(json_member(j, "token"), err, "it has characters that a token cannot have");
    return true;
}

static bool kubeconfig_read(const struct kubeconfig_reader *r, const struct json *j, struct status *err)
{
    const char *context = "", *cluster = "", *user = "";
    const struct json *part;

    if (j->type == JSON_NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "the file is empty");
    if (!json_want(j, JSON_OBJECT, err) || !json_read_string(j, "current-context", &context, err))
        return false;
    if (*context == '\0')
        return status_set(err, STATUS_INVALID_ARGUMENT, "current-context: missing");
    part = kubeconfig_find(j, "contexts", "context", context, err);
    if (part == NULL || !json_read_string(part, "cluster", &cluster, err) || !json_read_string(part, "user", &user, err))
        return false;
    part = kubeconfig_find(j, "clusters", "cluster", cluster, err);
    if (part == NULL || !kubeconfig_read_cluster(r, part, err))
        return false;
    part = kubeconfig_find(j, "users", "user", user, err);
    return part != NULL && kubeconfig_read_user(r, part, err);
}

bool kubeconfig_parse(const char *path, struct str text, struct kubeconfig *out, struct status *err)
{
    struct kubeconfig_reader reader = { out, path };

    *out = (struct kubeconfig){ .server = "", .ca_path = "", .ca_pem = "", .cert_path = "", .cert_pem = "", .key_path = "",
                                .key_pem = "", .token = "", .token_path = "", .proxy = "" };
    const struct json *j = yaml_parse(&out->arena, text, err);
    if (j != NULL && kubeconfig_read(&reader, j, err))
        return true;
    kubeconfig_free(out);
    return status_prefix(err, "kubeconfig %s", path);
}

void kubeconfig_free(struct kubeconfig *k)
{
    arena_free(&k->arena);
    memset(k, 0, sizeof *k);
}
