/* SPDX-License-Identifier: Apache-2.0 */
/* The keys, and reading them into struct config. Defaults and checks of the whole are in config_check.c. */
#include "cli/config.h"

#include "cli/config_internal.h"
#include "text/nearest.h"
#include "text/quantity.h"
#include "text/timefmt.h"
#include "text/yaml.h"

#include <unistd.h>

/* ---- the table ---- */

#define CONFIG_AT(member) offsetof(struct config, member)
const struct config_key config_keys[] = {
    { "Socket", CONFIG_TEXT, CONFIG_AT(node.socket), "where kubelet and ctl connect: a path or unix://PATH", NULL },
    { "StateDir", CONFIG_PATH, CONFIG_AT(node.state_dir), "what must survive a restart", NULL },
    { "LogLevel", CONFIG_LEVEL, CONFIG_AT(log_level), "error, warn, info or debug", NULL },
    { "Handlers", CONFIG_HANDLERS, 0, "where pods run, by RuntimeClass handler", NULL },
    { "DefaultHandler", CONFIG_TEXT, CONFIG_AT(node.default_handler), "handler of pods without a RuntimeClass", NULL },
    { "NodePods.Handler", CONFIG_TEXT, CONFIG_AT(node.node_pods_handler), "handler of the node's own pods without a RuntimeClass", NULL },
    { "NodePods.Namespaces", CONFIG_TEXTS, CONFIG_AT(node.node_pods_namespaces), "namespaces whose pods are the node's own", NULL },
    { "SharedPaths", CONFIG_PATHS, CONFIG_AT(shared_paths), "paths that are the same on the machines where pods run", NULL },
    { "QueueHold", CONFIG_DURATION, CONFIG_AT(node.queue_hold_ms), "how long RunPodSandbox waits for a queued job", NULL },
    { "QueueLease", CONFIG_DURATION, CONFIG_AT(node.queue_lease_ms),
      "a queued job that kubelet asks for no more is cancelled after this", NULL },
    { "Kubeconfig", CONFIG_PATH, CONFIG_AT(node.kubeconfig), "credentials to ask the cluster's API server with", NULL },
    { "Node.Name", CONFIG_TEXT, CONFIG_AT(node.node_name), "what the cluster calls this node", NULL },
    { "Node.Capacity", CONFIG_SWITCH, CONFIG_AT(node.keep_capacity), "the node carries the capacity of the sites behind it", NULL },
    { "Defaults.CPU", CONFIG_TEXT, CONFIG_AT(defaults_cpu), "CPUs of a job about which nobody says more", NULL },
    { "Defaults.Memory", CONFIG_SIZE, CONFIG_AT(node.size.memory), "its memory", NULL },
    { "Defaults.Walltime", CONFIG_DURATION, CONFIG_AT(node.size.walltime_ms), "how long it may run", NULL },
    { "Relay.Listen", CONFIG_TEXT, CONFIG_AT(node.relay_listen), "address for agents on other machines, HOST:PORT", NULL },
    { "Relay.Advertise", CONFIG_TEXT, CONFIG_AT(node.relay_address), "what those agents dial, when it is another address",
      NULL },
    { "Relay.Keepalive", CONFIG_DURATION, CONFIG_AT(node.relay_keepalive_ms),
      "an agent elsewhere that is silent for so long is asked whether it lives", NULL },
    { "Streaming.Enabled", CONFIG_SWITCH, CONFIG_AT(node.streaming.enabled), "offer exec, attach and port-forward", NULL },
    { "Streaming.Address", CONFIG_TEXT, CONFIG_AT(node.streaming.address), "where their streams are served: an IP address",
      NULL },
    { "Streaming.Port", CONFIG_TEXT, CONFIG_AT(streaming_port), "its port; 0: any that is free", NULL },
    { "Streaming.CertFile", CONFIG_PATH, CONFIG_AT(node.streaming.cert_file), "certificate for streams (PEM)", NULL },
    { "Streaming.KeyFile", CONFIG_PATH, CONFIG_AT(node.streaming.key_file), "its key (PEM)", NULL },
    { "Streaming.IdleTimeout", CONFIG_DURATION, CONFIG_AT(node.streaming.idle_timeout_ms),
      "a stream that carries nothing for so long is closed; 0: never", NULL },
    { "Streaming.Keepalive", CONFIG_DURATION, CONFIG_AT(node.streaming.keepalive_ms),
      "a client that is silent for so long is asked whether it lives; 0: never", NULL },
    { "Streaming.CreationTimeout", CONFIG_DURATION, CONFIG_AT(node.streaming.creation_timeout_ms),
      "for a client to open all parts of its stream", NULL },
    { "Metrics.Address", CONFIG_TEXT, CONFIG_AT(node.metrics_address),
      "where metrics, health and state are served: a loopback address with a port, or unix:///PATH", NULL },
    { "Network.Mode", CONFIG_TEXT, CONFIG_AT(node.network_mode), "networks of pods' own on this machine: auto, always or never", NULL },
    { "Network.ConfDir", CONFIG_PATH, CONFIG_AT(node.cni_conf_dir), "where CNI configurations are", NULL },
    { "Network.BinDirs", CONFIG_PATHS, CONFIG_AT(node.cni_bin_dirs), "where CNI plugins are", NULL },
    { "Network.Timeout", CONFIG_DURATION, CONFIG_AT(node.cni_timeout_ms), "how long the CNI plugins of a pod may take together", NULL },
    { "Network.RelayCIDRs", CONFIG_TEXTS, CONFIG_AT(node.relay_cidrs), "addresses of pods on other machines", NULL },
    { "Network.GC", CONFIG_SWITCH, CONFIG_AT(node.cni_gc), "at the start, have CNI plugins forget pods that are gone", NULL },
    { "Images.Dir", CONFIG_PATH, CONFIG_AT(node.image_dir), "the image store", NULL },
    { "Images.Shared", CONFIG_SWITCH, CONFIG_AT(node.agents_share_images),
      "compute nodes see Images.Dir under the same path", NULL },
    { "Images.Pinned", CONFIG_TEXTS, CONFIG_AT(node.pinned_images), "images that kubelet must not remove", NULL },
    { "Images.MaxUnpackedSize", CONFIG_SIZE, CONFIG_AT(node.layer_bytes_max), "largest unpacked layer", NULL },
    { "Images.HostsDirs", CONFIG_PATHS, CONFIG_AT(registries.certs_dirs), "folders with hosts.toml files, as containerd has",
      NULL },
    { "Images.Mirrors", CONFIG_MIRRORS, 0, "servers to ask before a registry", NULL },
    { "Images.CAFile", CONFIG_PATH, CONFIG_AT(registries.ca_path), "certificate authorities for registries (PEM)", NULL },
    { "Images.Proxy", CONFIG_TEXT, CONFIG_AT(registries.proxy), "proxy for registries; none: no proxy", NULL },
    { "CDI.SpecDirs", CONFIG_PATHS, CONFIG_AT(node.cdi_dirs), "folders with CDI specifications where pods run", NULL },
    { "InterlinkAddress", CONFIG_TEXT, CONFIG_AT(upstream.address), "interLink API of the one handler", "INTERLINK_URL" },
    { "Interlinkport", CONFIG_TEXT, CONFIG_AT(upstream.port), "its port", "INTERLINK_PORT" },
    { "CRI.SocketPath", CONFIG_TEXT, CONFIG_AT(node.socket), "the same as Socket", NULL },
    { "CRI.RuntimeHandler", CONFIG_TEXT, CONFIG_AT(upstream.handler), "name of the one handler", NULL },
    { "TLS.Enabled", CONFIG_SWITCH, CONFIG_AT(upstream.tls), "use the files below for InterlinkAddress",
      "INTERLINK_TLS_ENABLED" },
    { "TLS.CertFile", CONFIG_PATH, CONFIG_AT(upstream.cert_file), "client certificate (PEM)", "INTERLINK_TLS_CERT_FILE" },
    { "TLS.KeyFile", CONFIG_PATH, CONFIG_AT(upstream.key_file), "its key (PEM)", "INTERLINK_TLS_KEY_FILE" },
    { "TLS.CACertFile", CONFIG_PATH, CONFIG_AT(upstream.ca_file), "who signs the API server (PEM)", "INTERLINK_TLS_CA_FILE" },
    { "VKTokenFile", CONFIG_PATH, CONFIG_AT(upstream.token_file), "bearer token for InterlinkAddress", "VK_TOKEN_FILE" },
    { "VerboseLogging", CONFIG_SWITCH, CONFIG_AT(upstream.verbose), "the same as LogLevel: debug", "INTERLINK_CRI_VERBOSE" },
    { "ErrorsOnlyLogging", CONFIG_SWITCH, CONFIG_AT(upstream.errors_only), "the same as LogLevel: error",
      "INTERLINK_CRI_ERRORS_ONLY" },
    { "DataRootFolder", CONFIG_PATH, CONFIG_AT(node.state_dir), "the same as StateDir", NULL },
};
const size_t config_key_count = COUNT_OF(config_keys);

#define CONFIG_AT_HANDLER(member) offsetof(struct node_handler_options, member)
const struct config_key config_handler_keys[] = {
    { "Name", CONFIG_TEXT, CONFIG_AT_HANDLER(name), "what RuntimeClass.handler says", NULL },
    { "Target", CONFIG_TEXT, CONFIG_AT_HANDLER(url), "local, or the URL of an interLink API", NULL },
    { "Engine", CONFIG_TEXT, CONFIG_AT_HANDLER(engine), "auto, crun, apptainer or host", NULL },
    { "JobPer", CONFIG_TEXT, CONFIG_AT_HANDLER(job_per), "what is one job: pod or container", NULL },
    { "Program", CONFIG_PATH, CONFIG_AT_HANDLER(program), "path of interlink-cri on the machines where jobs run", NULL },
    { "BearerTokenFile", CONFIG_PATH, CONFIG_AT_HANDLER(bearer_token_file), "token for the API", NULL },
    { "CAFile", CONFIG_PATH, CONFIG_AT_HANDLER(ca_file), "who signs the API server (PEM)", NULL },
    { "CertFile", CONFIG_PATH, CONFIG_AT_HANDLER(client_cert_file), "client certificate (PEM)", NULL },
    { "KeyFile", CONFIG_PATH, CONFIG_AT_HANDLER(client_key_file), "its key (PEM)", NULL },
    { "Dial", CONFIG_TEXTS, CONFIG_AT_HANDLER(dial), "a command whose standard input and output lead to the agent of a job", NULL },
    { "Proxy", CONFIG_TEXT, CONFIG_AT_HANDLER(proxy), "HTTP proxy to the API; none: no proxy", NULL },
    { "SharedPaths", CONFIG_PATHS, CONFIG_AT_HANDLER(shared_paths), "instead of those for all handlers", NULL },
};
const size_t config_handler_key_count = COUNT_OF(config_handler_keys);

#define CONFIG_AT_MIRROR(member) offsetof(struct registry_mirror, member)
const struct config_key config_mirror_keys[] = {
    { "Registry", CONFIG_TEXT, CONFIG_AT_MIRROR(registry), "docker.io, HOST:PORT, or * for all others", NULL },
    { "Endpoints", CONFIG_TEXTS, CONFIG_AT_MIRROR(endpoints), "URLs, asked in this order", NULL },
    { "CAFile", CONFIG_PATH, CONFIG_AT_MIRROR(ca_path), "who signs them (PEM)", NULL },
    { "SkipVerify", CONFIG_SWITCH, CONFIG_AT_MIRROR(skip_verify), "take any certificate", NULL },
    { "Only", CONFIG_SWITCH, CONFIG_AT_MIRROR(only), "never ask the registry itself", NULL },
};
const size_t config_mirror_key_count = COUNT_OF(config_mirror_keys);
#undef CONFIG_AT
#undef CONFIG_AT_HANDLER
#undef CONFIG_AT_MIRROR

/* Keys that people will try, and what to say then. */
static const struct {
    const char *place, *why;
} config_refused[] = {
    { "SidecarURL", "it belongs to the configuration of the interLink API server" },
    { "Sidecarurl", "it belongs to the configuration of the interLink API server" },
    { "SidecarPort", "it belongs to the configuration of the interLink API server" },
    { "Sidecarport", "it belongs to the configuration of the interLink API server" },
    { "CRI.RequestTimeout", "kubelet sets its own deadlines (runtimeRequestTimeout): leave it out" },
    { "JobPer", "it belongs to a handler: below Handlers" },
};

/* Upstream's documents write some keys in two ways. */
static const char *const config_spellings[][2] = { { "InterlinkPort", "Interlinkport" } };

bool config_key_is_scalar(const struct config_key *key)
{
    return key->kind < CONFIG_TEXTS;
}

/* Words of a place: a capital begins one after a small letter, or before one at the end of capitals; a dot does. */
static char *config_words(const char *prefix, const char *place, char separator, bool upper)
{
    cleanup_buf struct buf out = BUF_INIT;

    buf_append_str(&out, prefix);
    for (const char *p = place; *p != '\0'; p++) {
        bool capital = *p >= 'A' && *p <= 'Z';
        bool before_small = p > place && p[-1] >= 'a' && p[-1] <= 'z';
        bool capitals_end = p > place && p[-1] >= 'A' && p[-1] <= 'Z' && p[1] >= 'a' && p[1] <= 'z';
        if (*p == '.' || (capital && (before_small || capitals_end)))
            buf_append_byte(&out, (uint8_t)separator);
        if (*p == '.')
            continue;
        char letter = *p;
        if (upper && letter >= 'a' && letter <= 'z')
            letter = (char)(letter - 'a' + 'A');
        if (!upper && capital)
            letter = (char)(letter - 'A' + 'a');
        buf_append_byte(&out, (uint8_t)letter);
    }
    return buf_steal(&out);
}

char *config_option_name(const struct config_key *key)
{
    return config_words("", key->place, '-', false);
}

char *config_environment_name(const struct config_key *key)
{
    return config_words("INTERLINK_CRI_", key->place, '_', true);
}

/* ---- values ---- */

static bool config_put_text(struct config *c, const struct config_key *key, const char *text, const char *where, void *p,
                            struct status *err)
{
    int64_t number = 0;
    char *folder;

    switch (key->kind) {
    case CONFIG_PATH:
        if (*text != '/' && *text != '\0') {
            folder = getcwd(NULL, 0);
            if (folder == NULL)
                return status_errno(err, "%s: the current folder cannot be told", where);
            text = arena_printf(&c->arena, "%s/%s", folder, text);
            free(folder);
        }
        *(const char **)p = arena_strdup(&c->arena, text);
        return true;
    case CONFIG_TEXT:
        *(const char **)p = arena_strdup(&c->arena, text);
        return true;
    case CONFIG_SWITCH:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
            return status_set(err, STATUS_INVALID_ARGUMENT, "%s: wanted true or false, found \"%.64s\"", where, text);
        *(bool *)p = *text == 't';
        return true;
    case CONFIG_DURATION:
        if (!config_read_duration(text, &number))
            return status_set(err, STATUS_INVALID_ARGUMENT,
                              "%s: wanted a duration like 10s or 5m, or a number of seconds, found \"%.64s\"", where, text);
        *(int64_t *)p = number;
        return true;
    case CONFIG_SIZE:
        if (!quantity_parse(text, QUANTITY_ONE, &number, err))
            return status_prefix(err, "%s", where);
        if (number <= 0)
            return status_set(err, STATUS_INVALID_ARGUMENT, "%s: must be above zero", where);
        *(uint64_t *)p = (uint64_t)number;
        return true;
    case CONFIG_LEVEL:
        c->has_log_level = true;
        return log_level_parse(text, p) ||
               status_set(err, STATUS_INVALID_ARGUMENT, "%s: wanted error, warn, info or debug, found \"%.64s\"", where, text);
    case CONFIG_TEXTS:
    case CONFIG_PATHS:
    case CONFIG_HANDLERS:
    case CONFIG_MIRRORS:
        break;
    }
    return status_set(err, STATUS_INVALID_ARGUMENT, "%s: is set in the file only", where);
}

bool config_read_duration(const char *text, int64_t *ms)
{
    uint64_t seconds;
    int64_t ns;

    if (parse_u64(text, INT64_MAX / 1000, &seconds)) {
        *ms = (int64_t)seconds * 1000;
        return true;
    }
    if (!timefmt_parse_duration(text, &ns) || ns < 0)
        return false;
    *ms = (ns + 999999) / 1000000;
    return true;
}

/* "line 3, column 1: Images.Dir" */
static const char *config_where(struct config *c, const struct json *j)
{
    cleanup_buf struct buf path = BUF_INIT;

    json_path(j, &path);
    return arena_printf(&c->arena, "line %" PRIu32 ", column %" PRIu32 ": %s", j->line, j->column, buf_cstr(&path));
}

static bool config_put_scalar(struct config *c, const struct config_key *key, const struct json *j, void *p,
                              struct status *err)
{
    const char *text = j->text;

    if (j->type == JSON_BOOL && key->kind == CONFIG_SWITCH) {
        *(bool *)p = j->boolean;
        return true;
    }
    /* A port or a size is written as a number as often as not. */
    if (j->type == JSON_NUMBER && key->kind != CONFIG_SWITCH && key->kind != CONFIG_PATH)
        return config_put_text(c, key, text, config_where(c, j), p, err);
    if (key->kind == CONFIG_SWITCH)
        return json_want(j, JSON_BOOL, err);
    if (!json_as_string(j, &text, err))
        return false;
    if (key->kind == CONFIG_PATH && *text != '/' && *text != '\0')
        return json_fail(j, err, "wanted an absolute path, found \"%.128s\"", text);
    return config_put_text(c, key, text, config_where(c, j), p, err);
}

static bool config_put_texts(struct config *c, const struct config_key *key, const struct json *j,
                             const char *const **out, struct status *err)
{
    size_t n = 0;

    if (!json_want(j, JSON_ARRAY, err))
        return false;
    const char **texts = ARENA_ARRAY(&c->arena, const char *, j->count + 1);
    for (JSON_EACH(item, j)) {
        if (!json_as_string(item, &texts[n], err))
            return false;
        if (key->kind == CONFIG_PATHS && *texts[n] != '/')
            return json_fail(item, err, "wanted an absolute path, found \"%.128s\"", texts[n]);
        n++;
    }
    *out = texts;
    return true;
}

/* ---- objects ---- */

static bool config_unknown(const struct json *j, const char *place, const struct config_key *keys, size_t count,
                           size_t skip, struct status *err)
{
    struct nearest nearest = nearest_start(place + skip);
    char hint[96];

    for (size_t i = 0; i < COUNT_OF(config_refused); i++)
        if (strcmp(config_refused[i].place, place) == 0 || strcmp(config_refused[i].place, j->key) == 0)
            return json_fail(j, err, "%s", config_refused[i].why);
    for (size_t i = 0; i < count; i++)
        nearest_offer(&nearest, keys[i].place + (strncmp(keys[i].place, place, skip) == 0 ? skip : 0));
    return json_fail(j, err, "no such key%s", nearest_hint(&nearest, hint, sizeof hint));
}

static const struct config_key *config_find(const char *place, const struct config_key *keys, size_t count)
{
    for (size_t i = 0; i < COUNT_OF(config_spellings); i++)
        if (strcmp(config_spellings[i][0], place) == 0)
            place = config_spellings[i][1];
    for (size_t i = 0; i < count; i++)
        if (strcmp(keys[i].place, place) == 0)
            return &keys[i];
    return NULL;
}

static bool config_is_group(const char *place, const struct config_key *keys, size_t count)
{
    size_t n = strlen(place);

    for (size_t i = 0; i < count; i++)
        if (strncmp(keys[i].place, place, n) == 0 && keys[i].place[n] == '.')
            return true;
    return false;
}

static bool config_put_object(struct config *c, const struct json *j, const char *prefix, const struct config_key *keys,
                              size_t count, void *base, struct status *err);

static bool config_put_handlers(struct config *c, const struct json *j, struct status *err)
{
    size_t n = 0;

    if (!json_want(j, JSON_ARRAY, err))
        return false;
    struct node_handler_options *handlers = ARENA_ARRAY(&c->arena, struct node_handler_options, j->count + 1u);
    for (JSON_EACH(item, j)) {
        handlers[n] = (struct node_handler_options)NODE_HANDLER_OPTIONS_INIT("");
        if (!config_put_object(c, item, "", config_handler_keys, config_handler_key_count, &handlers[n], err) ||
            !config_check_handler(item, &handlers[n], err))
            return false;
        n++;
    }
    c->node.handlers = handlers;
    c->node.handler_count = n;
    return true;
}

static bool config_put_mirrors(struct config *c, const struct json *j, struct status *err)
{
    size_t n = 0;

    if (!json_want(j, JSON_ARRAY, err))
        return false;
    struct registry_mirror *mirrors = ARENA_ARRAY(&c->arena, struct registry_mirror, j->count);
    for (JSON_EACH(item, j)) {
        if (!config_put_object(c, item, "", config_mirror_keys, config_mirror_key_count, &mirrors[n], err) ||
            !config_check_mirror(item, &mirrors[n], err))
            return false;
        n++;
    }
    c->registries.mirrors = mirrors;
    c->registries.mirror_count = n;
    return true;
}

static bool config_put(struct config *c, const struct config_key *key, const struct json *j, void *base,
                       struct status *err)
{
    void *p = (char *)base + key->offset;

    if (j->type == JSON_NULL) /* "Key:" with nothing behind it: the default */
        return true;
    switch (key->kind) {
    case CONFIG_HANDLERS:
        return config_put_handlers(c, j, err);
    case CONFIG_MIRRORS:
        return config_put_mirrors(c, j, err);
    case CONFIG_TEXTS:
    case CONFIG_PATHS:
        return config_put_texts(c, key, j, p, err);
    default:
        return config_put_scalar(c, key, j, p, err);
    }
}

static bool config_put_object(struct config *c, const struct json *j, const char *prefix, const struct config_key *keys,
                              size_t count, void *base, struct status *err)
{
    if (j->type == JSON_NULL)
        return true;
    if (!json_want(j, JSON_OBJECT, err))
        return false;
    for (JSON_EACH(member, j)) {
        const char *place = arena_printf(&c->arena, "%s%s", prefix, member->key);
        const struct config_key *key = config_find(place, keys, count);
        bool ok = key != NULL ? config_put(c, key, member, base, err)
                  : config_is_group(place, keys, count)
                      ? config_put_object(c, member, arena_printf(&c->arena, "%s.", place), keys, count, base, err)
                      : config_unknown(member, place, keys, count, strlen(prefix), err);
        if (!ok)
            return false;
    }
    return true;
}

/* ---- the environment and the command line ---- */

static bool config_put_environment(struct config *c, struct status *err)
{
    for (size_t i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];
        if (!config_key_is_scalar(key))
            continue;
        cleanup_free char *name = config_environment_name(key);
        const char *shown = name, *text = getenv(name);
        if ((text == NULL || *text == '\0') && key->environment != NULL) {
            shown = key->environment;
            text = getenv(shown);
        }
        if (text != NULL && *text != '\0' &&
            !config_put_text(c, key, text, shown, (char *)c + key->offset, err))
            return false;
    }
    return true;
}

static bool config_put_override(struct config *c, const struct config_override *o, struct status *err)
{
    const struct config_key *key = config_find(o->key, config_keys, config_key_count);

    if (key == NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "no configuration key is called %s", o->key);
    cleanup_free char *name = config_option_name(key);
    cleanup_free char *shown = xasprintf("--%s", name);
    return config_put_text(c, key, o->value, shown, (char *)c + key->offset, err);
}

static bool config_fill(struct config *c, const char *name, struct str text, bool environment,
                        const struct config_override *overrides, size_t override_count, struct status *err)
{
    config_set_defaults(c);
    const struct json *j = yaml_parse(&c->arena, text, err);
    if (j == NULL || !config_put_object(c, j, "", config_keys, config_key_count, c, err))
        return status_prefix(err, "%s", name);
    if (environment && !config_put_environment(c, err))
        return false;
    for (size_t i = 0; i < override_count; i++)
        if (!config_put_override(c, &overrides[i], err))
            return false;
    return config_finish(c, err);
}

bool config_parse(const char *name, struct str text, bool environment, const struct config_override *overrides,
                  size_t override_count, struct config *out, struct status *err)
{
    memset(out, 0, sizeof *out);
    out->path = arena_strdup(&out->arena, name);
    if (config_fill(out, name, text, environment, overrides, override_count, err))
        return true;
    config_free(out);
    return false;
}

void config_free(struct config *c)
{
    arena_free(&c->arena);
    memset(c, 0, sizeof *c);
}
