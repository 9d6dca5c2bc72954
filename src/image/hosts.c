/* SPDX-License-Identifier: Apache-2.0 */
#include "image/hosts.h"

#include <dirent.h>
#include <sys/stat.h>

#include "http/http.h"
#include "image/hosts_toml.h"
#include "io/file.h"

static struct host *hosts_add(struct host_list *list)
{
    if (list->hosts == NULL)
        list->hosts = ARENA_ARRAY(&list->arena, struct host, REGISTRY_HOSTS_MAX);
    if (list->count == REGISTRY_HOSTS_MAX)
        return NULL;
    struct host *h = &list->hosts[list->count++];
    h->url = h->name = h->cert_path = h->key_path = "";
    h->capabilities = HOST_PULL | HOST_RESOLVE;
    h->ca_paths = ARENA_ARRAY(&list->arena, const char *, 1);
    return h;
}

/* Where a registry's API is, when its images are named otherwise. */
static const char *hosts_api(const char *domain)
{
    return strcmp(domain, "docker.io") == 0 || strcmp(domain, "index.docker.io") == 0 ? "registry-1.docker.io" : domain;
}

/* What somebody wrote -> the URL that /NAME/manifests/... is appended to. As containerd does it: https unless said otherwise,
 * and /v2 at the end unless the path is to be taken as it is. */
static bool hosts_set_url(struct host_list *list, struct host *h, const char *text, bool override_path, struct status *err)
{
    const char *full = strstr(text, "://") != NULL ? text : arena_printf(&list->arena, "https://%s", text);
    struct http_url url;

    if (!http_url_parse(full, &url, err))
        return false;
    if (strpbrk(url.target, "?#") != NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "'%.200s': the URL of a registry has no query", text);
    bool v6 = strchr(url.host, ':') != NULL;
    char *path = arena_strdup(&list->arena, url.target);
    for (size_t n = strlen(path); n > 0 && path[n - 1] == '/'; n--)
        path[n - 1] = '\0';
    const char *host = hosts_api(url.host);
    h->name = url.has_port ? arena_printf(&list->arena, "%s%s%s:%u", v6 ? "[" : "", host, v6 ? "]" : "", url.port)
                           : arena_printf(&list->arena, "%s%s%s", v6 ? "[" : "", host, v6 ? "]" : "");
    h->url = arena_printf(&list->arena, "%s://%s%s%s", url.scheme, h->name, path,
                          override_path || str_ends(path, "/v2") ? "" : "/v2");
    return true;
}

bool hosts_is_loopback(const char *domain)
{
    size_t n = domain[0] == '[' ? strcspn(domain, "]") + 1 : strcspn(domain, ":");
    struct str host = { domain, n < strlen(domain) ? n : strlen(domain) };

    return str_eq(host, "localhost") || str_eq(host, "[::1]") ||
           (str_starts(domain, "127.") && strspn(domain, "0123456789.") == host.n);
}

/* ---- the registry itself ---- */

/* Copies what a hosts.toml says about a server. */
static void hosts_apply(struct host_list *list, struct host *h, const struct hosts_toml_host *from, const char *dir)
{
    const char **cas = ARENA_ARRAY(&list->arena, const char *, from->ca_count + 1);

    if (from->has_capabilities)
        h->capabilities = (from->pull ? HOST_PULL : 0) | (from->resolve ? HOST_RESOLVE : 0);
#define HOSTS_PATH(text)                                                                                               \
    ((text)[0] == '/' || (text)[0] == '\0' ? arena_strdup(&list->arena, (text))                                         \
                                           : arena_printf(&list->arena, "%s/%s", dir, (text)))
    for (size_t i = 0; i < from->ca_count; i++)
        cas[i] = HOSTS_PATH(from->ca[i]);
    h->ca_paths = cas;
    if (from->client_count > 0) {
        h->cert_path = HOSTS_PATH(from->client_cert[0]);
        h->key_path = HOSTS_PATH(from->client_key[0]);
        if (h->key_path[0] == '\0')
            h->key_path = h->cert_path;
    }
#undef HOSTS_PATH
    h->skip_verify = from->skip_verify;
    h->dial_timeout_ms = from->dial_timeout_ms;
    const char **headers = ARENA_ARRAY(&list->arena, const char *, 2 * from->header_count + 1);
    for (size_t i = 0; i < 2 * from->header_count; i++)
        headers[i] = arena_strdup(&list->arena, from->headers[i]);
    h->headers = headers;
    h->header_count = from->header_count;
}

static bool hosts_add_one(struct host_list *list, const char *url, const char *domain, bool override_path, struct host **out,
                          struct status *err)
{
    struct host *h = hosts_add(list);

    if (h == NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "there are more than %d servers for %s", REGISTRY_HOSTS_MAX, domain);
    if (!hosts_set_url(list, h, url, override_path, err))
        return false;
    h->is_registry = strcmp(h->name, hosts_api(domain)) == 0;
    *out = h;
    return true;
}

/* `settings` may be NULL. A loopback address is asked by http, and by https only if that does not get an answer: registries on
 * the own machine have no certificate, as a rule. */
static bool hosts_add_registry(struct host_list *list, const char *domain, const struct hosts_toml_host *settings,
                               const char *dir, struct status *err)
{
    bool plain = hosts_is_loopback(domain) && !str_ends(domain, ":443") &&
                 (settings == NULL || (settings->ca_count == 0 && settings->client_count == 0 && !settings->has_skip_verify));
    struct host *h;

    if (plain) {
        if (!hosts_add_one(list, arena_printf(&list->arena, "http://%s", domain), domain, false, &h, err))
            return false;
        if (settings != NULL)
            hosts_apply(list, h, settings, dir);
    }
    if (!hosts_add_one(list, arena_printf(&list->arena, "https://%s", domain), domain, false, &h, err))
        return false;
    if (settings != NULL)
        hosts_apply(list, h, settings, dir);
    h->after_silence = plain;
    return true;
}

/* ---- folders ---- */

/* Docker's way: NAME.crt are authorities, NAME.cert and NAME.key our own certificate. */
static bool hosts_add_certificates(struct host_list *list, const char *dir, const char *domain, struct status *err)
{
    struct hosts_toml_host settings = { .url = "" };
    const char *cas[16], *certs[1], *keys[1];
    DIR *d = opendir(dir);
    struct dirent *entry;

    while (d != NULL && (entry = readdir(d)) != NULL) {
        if (str_ends(entry->d_name, ".crt") && settings.ca_count < COUNT_OF(cas)) {
            cas[settings.ca_count++] = arena_strdup(&list->arena, entry->d_name);
        } else if (str_ends(entry->d_name, ".cert") && settings.client_count == 0) {
            certs[0] = arena_strdup(&list->arena, entry->d_name);
            keys[0] = arena_printf(&list->arena, "%.*s.key", (int)strlen(entry->d_name) - 5, entry->d_name);
            settings.client_count = 1;
        }
    }
    if (d != NULL)
        closedir(d);
    settings.ca = cas;
    settings.client_cert = certs;
    settings.client_key = keys;
    return hosts_add_registry(list, domain, &settings, dir, err);
}

static bool hosts_read_toml(struct host_list *list, const char *file, const char *dir, const char *domain, struct status *err)
{
    struct buf cleanup_buf text = BUF_INIT;
    struct hosts_toml toml;
    struct host *h;

    if (!file_read(file, HOSTS_TOML_SIZE_MAX, &text, err) ||
        !hosts_toml_parse(file, (struct str){ (const char *)text.p, text.n }, &toml, err))
        return false;
    if (toml.unknown[0] != '\0')
        log_warn("%s: passed over", toml.unknown);
    bool ok = true;
    for (size_t i = 0; ok && i < toml.count; i++) {
        ok = hosts_add_one(list, toml.hosts[i].url, domain, toml.hosts[i].override_path, &h, err) ||
             status_prefix(err, "%s:%u", file, toml.hosts[i].line);
        if (ok)
            hosts_apply(list, h, &toml.hosts[i], dir);
    }
    if (ok && toml.server.url[0] == '\0') {
        ok = hosts_add_registry(list, domain, &toml.server, dir, err);
    } else if (ok) {
        ok = hosts_add_one(list, toml.server.url, domain, toml.server.override_path, &h, err) ||
             status_prefix(err, "%s:%u", file, toml.server.line);
        if (ok)
            hosts_apply(list, h, &toml.server, dir);
    }
    hosts_toml_free(&toml);
    return ok;
}

/* *found: a folder knows the registry, and the list is complete. */
static bool hosts_look(struct host_list *list, const char *certs_dir, const char *domain, bool *found, struct status *err)
{
    const char *colon = strrchr(domain, ':');
    const char *names[3] = { "", domain, "_default" };
    struct stat st;

    /* A name that is fit for any file system comes first. */
    if (colon != NULL && colon[strspn(colon, ":0123456789")] == '\0')
        names[0] = arena_printf(&list->arena, "%.*s_%s_", (int)(colon - domain), domain, colon + 1);
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        const char *dir = arena_printf(&list->arena, "%s/%s", certs_dir, names[i]);
        const char *file = arena_printf(&list->arena, "%s/hosts.toml", dir);
        if (names[i][0] == '\0' || stat(dir, &st) < 0 || !S_ISDIR(st.st_mode))
            continue;
        *found = true;
        if (stat(file, &st) == 0)
            return hosts_read_toml(list, file, dir, domain, err);
        return hosts_add_certificates(list, dir, domain, err);
    }
    return true;
}

/* ---- the configuration's own mirrors ---- */

static bool hosts_add_mirrors(struct host_list *list, const struct registry_options *o, const char *domain, bool *only,
                              struct status *err)
{
    const struct registry_mirror *chosen = NULL;

    for (size_t i = 0; i < o->mirror_count; i++) {
        const struct registry_mirror *m = &o->mirrors[i];
        if (strcmp(m->registry, domain) == 0 || (strcmp(m->registry, "*") == 0 && chosen == NULL))
            chosen = m;
    }
    if (chosen == NULL)
        return true;
    *only = chosen->only;
    for (const char *const *url = chosen->endpoints; url != NULL && *url != NULL; url++) {
        struct host *h;
        if (!hosts_add_one(list, *url, domain, false, &h, err))
            return status_prefix(err, "the mirrors of %s", domain);
        h->skip_verify = chosen->skip_verify;
        if (chosen->ca_path != NULL && chosen->ca_path[0] != '\0') {
            const char **cas = ARENA_ARRAY(&list->arena, const char *, 2);
            cas[0] = arena_strdup(&list->arena, chosen->ca_path);
            h->ca_paths = cas;
        }
    }
    return true;
}

bool hosts_for(const struct registry_options *options, const char *domain, struct host_list *out, struct status *err)
{
    struct host_list list = { .arena = ARENA_INIT };
    bool only = false, found = false;
    bool ok = hosts_add_mirrors(&list, options, domain, &only, err);

    for (const char *const *dir = options->certs_dirs; ok && !only && !found && dir != NULL && *dir != NULL; dir++)
        ok = hosts_look(&list, *dir, domain, &found, err);
    if (ok && !only && !found)
        ok = hosts_add_registry(&list, domain, NULL, "", err);
    if (ok && list.count == 0)
        ok = status_set(err, STATUS_FAILED_PRECONDITION, "the configuration forbids to ask %s and names no mirror of it", domain);
    if (!ok) {
        hosts_free(&list);
        return false;
    }
    *out = list;
    return true;
}

void hosts_free(struct host_list *list)
{
    arena_free(&list->arena);
    memset(list, 0, sizeof *list);
}
