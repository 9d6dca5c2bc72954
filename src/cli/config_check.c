/* SPDX-License-Identifier: Apache-2.0 */
/* Defaults, what follows from other keys, and checks. */
#include "cli/config_internal.h"

#include "io/file.h"
#include "io/prefix.h"
#include "io/socket.h"
#include "text/quantity.h"

#include "version.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pwd.h>
#include <unistd.h>

/* ---- places ---- */

static char *config_home(void)
{
    const char *home = getenv("HOME");

    if (home == NULL || *home != '/') {
        const struct passwd *entry = getpwuid(geteuid());
        home = entry != NULL && *entry->pw_dir == '/' ? entry->pw_dir : "/";
    }
    return xstrdup(home);
}

/* The XDG base directory specification: the variable if it holds an absolute path, else a folder under the home. */
static char *config_xdg(const char *variable, const char *below_home, const char *rest)
{
    const char *value = getenv(variable);
    cleanup_free char *home = config_home();

    if (value != NULL && *value == '/')
        return xasprintf("%s/%s", value, rest);
    return xasprintf("%s/%s/%s", home, below_home, rest);
}

char *config_default_path(void)
{
    if (geteuid() == 0)
        return xstrdup("/etc/interlink-cri/config.yaml");
    return config_xdg("XDG_CONFIG_HOME", ".config", "interlink-cri/config.yaml");
}

char *config_default_socket(void)
{
    const char *run = getenv("XDG_RUNTIME_DIR");

    if (geteuid() == 0)
        return xstrdup("/run/interlink-cri/interlink-cri.sock");
    if (run != NULL && *run == '/')
        return xasprintf("%s/interlink-cri/interlink-cri.sock", run);
    return config_xdg("XDG_STATE_HOME", ".local/state", "interlink-cri/interlink-cri.sock");
}

/* The specification's, and where distributions put them. */
static const char *const config_cni_bin_dirs[] = { "/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni", NULL };

/* Where clusters have kube-proxy, the network's plugins and the like. */
static const char *const config_node_pods_namespaces[] = { "kube-system", NULL };

void config_set_defaults(struct config *c)
{
    cleanup_free char *socket = config_default_socket();
    cleanup_free char *state = geteuid() == 0 ? xstrdup("/var/lib/interlink-cri")
                                              : config_xdg("XDG_STATE_HOME", ".local/state", "interlink-cri");

    c->node.version = INTERLINK_CRI_VERSION;
    c->node.socket = arena_strdup(&c->arena, socket);
    c->node.state_dir = arena_strdup(&c->arena, state);
    c->node.image_dir = c->node.relay_listen = c->node.relay_address = c->node.default_handler = "";
    c->node.node_pods_handler = "";
    c->node.node_pods_namespaces = config_node_pods_namespaces;
    c->node.metrics_address = c->node.kubeconfig = c->node.node_name = c->defaults_cpu = "";
    c->node.keep_capacity = true;
    c->node.queue_hold_ms = CONFIG_QUEUE_HOLD_MS;
    c->node.relay_keepalive_ms = CONFIG_RELAY_KEEPALIVE_MS;
    c->node.queue_lease_ms = CONFIG_QUEUE_LEASE_MS;
    c->node.streaming = (struct node_streaming_options){
        .enabled = true,
        .address = "127.0.0.1",
        .cert_file = "",
        .key_file = "",
        .idle_timeout_ms = CONFIG_STREAM_IDLE_MS,
        .keepalive_ms = CONFIG_STREAM_KEEPALIVE_MS,
        .creation_timeout_ms = CONFIG_STREAM_CREATION_MS,
    };
    c->streaming_port = "0";
    c->node.network_mode = "auto";
    c->node.cni_conf_dir = "/etc/cni/net.d";
    c->node.cni_bin_dirs = config_cni_bin_dirs;
    c->node.cni_timeout_ms = CONFIG_CNI_TIMEOUT_MS;
    c->node.registries = &c->registries;
    c->log_level = LOG_INFO;
    c->upstream.address = c->upstream.port = c->upstream.cert_file = c->upstream.key_file = "";
    c->upstream.ca_file = c->upstream.token_file = "";
    c->upstream.handler = "interlink";
}

bool config_load(const char *path, const struct config_override *overrides, size_t override_count, struct config *out,
                 struct status *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_free char *fallback = NULL;
    const char *variable = getenv("INTERLINK_CRI_CONFIG");

    if ((path == NULL || *path == '\0') && variable != NULL && *variable != '\0')
        path = variable;
    if (path == NULL || *path == '\0') {
        fallback = config_default_path();
        path = access(fallback, F_OK) == 0 ? fallback : "";
    }
    if (*path != '\0' && !file_read(path, CONFIG_FILE_MAX, &text, err))
        return status_prefix(err, "the configuration");
    return config_parse(path, (struct str){ (const char *)text.p, text.n }, true, overrides, override_count, out, err);
}

/* ---- checks ---- */

/* RuntimeClass.handler is a DNS label (RFC 1123). */
static bool config_is_label(const char *name)
{
    size_t n = strlen(name);

    if (n == 0 || n > 63 || name[0] == '-' || name[n - 1] == '-')
        return false;
    return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

/* Says what is wrong with a URL of an interLink API, or NULL. */
static const char *config_url_fault(const char *url)
{
    size_t n = strlen(url);

    if (str_starts(url, "unix://"))
        return url[7] == '/' ? NULL : "a path must follow unix://";
    if (!str_starts(url, "http://") && !str_starts(url, "https://"))
        return "wanted local, unix://PATH, http://HOST:PORT or https://HOST:PORT";
    const char *host = strstr(url, "://") + 3;
    if (*host == '\0' || *host == '/' || *host == ':')
        return "it names no host";
    if (strcspn(url, " \t\r\n\"<>?#@") != n)
        return "a host, a port and a path are all it may hold";
    return NULL;
}

/* What libcurl makes of other schemes needs more than is built in. */
static bool config_check_proxy(const struct json *j, const char *proxy, struct status *err)
{
    const char *rest = str_starts(proxy, "http://") ? proxy + 7 : proxy;

    if (*proxy == '\0' || strcmp(proxy, "none") == 0)
        return true;
    if (*rest == '\0' || strstr(rest, "://") != NULL || strpbrk(rest, "/ \t\r\n\"<>?#") != NULL)
        return json_fail(json_member(j, "Proxy"), err, "wanted http://[USER:PASSWORD@]HOST[:PORT], or none");
    return true;
}

static bool config_check_dial(const struct json *j, const struct node_handler_options *handler, struct status *err)
{
    const struct json *dial = json_member(j, "Dial");

    if (handler->dial == NULL)
        return true;
    if (*handler->url == '\0')
        return json_fail(dial, err, "handler %s runs its pods on this machine, where agents call by themselves", handler->name);
    if (handler->dial[0] == NULL || *handler->dial[0] == '\0')
        return json_fail(dial, err, "wanted a command and its arguments");
    for (const char *const *word = handler->dial; *word != NULL; word++)
        for (const char *p = strchr(*word, '{'); p != NULL; p = strchr(p + 1, '{')) {
            size_t n = strcspn(p, "}") + 1;
            bool known = false;
            for (size_t i = 0; i < COUNT_OF(node_dial_places); i++)
                known = known || (strlen(node_dial_places[i]) == n && strncmp(node_dial_places[i], p, n) == 0);
            if (!known)
                return json_fail(dial, err, "\"%.64s\": only {pod}, {uid}, {jid} and {node} are filled in", *word);
        }
    return true;
}

bool config_check_handler(const struct json *j, struct node_handler_options *handler, struct status *err)
{
    static const char *const engines[] = { "", "auto", "crun", "apptainer", "host" };
    bool known = false;

    if (!json_is(j, JSON_OBJECT))
        return json_want(j, JSON_OBJECT, err);
    if (!config_is_label(handler->name))
        return json_fail(json_member(j, "Name") != NULL ? json_member(j, "Name") : j, err,
                         "wanted a Name of lower-case letters, digits and dashes, at most 63, found \"%.64s\"", handler->name);
    const struct json *target = json_member(j, "Target");
    const char *fault = strcmp(handler->url, "local") == 0 ? NULL : config_url_fault(handler->url);
    if (*handler->url == '\0')
        return json_fail(j, err, "handler %s has no Target: local, or the URL of an interLink API", handler->name);
    if (fault != NULL)
        return json_fail(target, err, "\"%.128s\": %s", handler->url, fault);
    if (strcmp(handler->url, "local") == 0)
        handler->url = "";
    if (*handler->url == '\0' && handler->shared_paths != NULL)
        return json_fail(json_member(j, "SharedPaths"), err, "handler %s runs its pods on this machine, which has all paths", handler->name);
    for (size_t i = 0; i < COUNT_OF(engines); i++)
        known = known || strcmp(handler->engine, engines[i]) == 0;
    if (!known)
        return json_fail(json_member(j, "Engine"), err, "wanted auto, crun, apptainer or host, found \"%.64s\"", handler->engine);
    if (*handler->job_per != '\0' && strcmp(handler->job_per, "pod") != 0 && strcmp(handler->job_per, "container") != 0)
        return json_fail(json_member(j, "JobPer"), err, "wanted pod or container, found \"%.64s\"", handler->job_per);
    if (*handler->url == '\0' && *handler->job_per != '\0' && strcmp(handler->job_per, "pod") != 0)
        return json_fail(json_member(j, "JobPer"), err, "handler %s runs its pods on this machine: a pod is one job there",
                         handler->name);
    if (*handler->url == '\0' && *handler->program != '\0')
        return json_fail(json_member(j, "Program"), err, "handler %s runs its pods on this machine, with this very program",
                         handler->name);
    if ((*handler->client_cert_file == '\0') != (*handler->client_key_file == '\0'))
        return json_fail(j, err, "handler %s: CertFile and KeyFile go together", handler->name);
    return config_check_dial(j, handler, err) && config_check_proxy(j, handler->proxy, err);
}

bool config_check_mirror(const struct json *j, const struct registry_mirror *mirror, struct status *err)
{
    if (!json_is(j, JSON_OBJECT))
        return json_want(j, JSON_OBJECT, err);
    if (mirror->registry == NULL || *mirror->registry == '\0')
        return json_fail(j, err, "no Registry is named: docker.io, HOST:PORT, or * for all others");
    if (mirror->endpoints == NULL || mirror->endpoints[0] == NULL)
        return json_fail(j, err, "no Endpoints for %.128s", mirror->registry);
    for (const char *const *e = mirror->endpoints; *e != NULL; e++)
        if (!str_starts(*e, "http://") && !str_starts(*e, "https://"))
            return json_fail(json_member(j, "Endpoints"), err, "\"%.128s\": wanted http://HOST:PORT or https://HOST:PORT", *e);
    return true;
}

/* ---- what follows ---- */

/* Is there a port in "http://host:8080/path" already? */
static bool config_has_port(const char *url)
{
    const char *host = strstr(url, "://") + 3;
    size_t n = strcspn(host, "/");

    for (size_t i = n; i > 0 && host[i - 1] != ']'; i--)
        if (host[i - 1] == ':')
            return true;
    return false;
}

static bool config_upstream_url(struct config *c, const char **url, struct status *err)
{
    const char *address = c->upstream.address, *fault = config_url_fault(address);
    uint64_t port = 0;

    if (fault != NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "InterlinkAddress \"%.128s\": %s", address, fault);
    *url = address;
    if (str_starts(address, "unix://") || *c->upstream.port == '\0')
        return true;
    if (!parse_u64(c->upstream.port, 65535, &port) || port == 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "Interlinkport \"%.64s\": wanted a number from 1 to 65535",
                          c->upstream.port);
    if (config_has_port(address))
        return status_set(err, STATUS_INVALID_ARGUMENT, "InterlinkAddress %.128s has a port already: leave Interlinkport out",
                          address);
    const char *path = strstr(address, "://") + 3;
    path += strcspn(path, "/");
    *url = arena_printf(&c->arena, "%.*s:%u%s", (int)(path - address), address, (unsigned)port,
                        strcmp(path, "/") == 0 ? "" : path);
    return true;
}

/* Upstream's flat keys make one handler, behind those of Handlers; with nothing at all, the one handler is this machine. */
static bool config_make_handlers(struct config *c, struct status *err)
{
    size_t n = c->node.handler_count;
    struct node_handler_options *handlers = ARENA_ARRAY(&c->arena, struct node_handler_options, n + 1);
    struct node_handler_options *one = &handlers[n];

    if (n > 0)
        memcpy(handlers, c->node.handlers, n * sizeof *handlers);
    *one = (struct node_handler_options)NODE_HANDLER_OPTIONS_INIT("local");
    if (*c->upstream.address != '\0') {
        if (!config_is_label(c->upstream.handler))
            return status_set(err, STATUS_INVALID_ARGUMENT,
                              "CRI.RuntimeHandler \"%.64s\": wanted lower-case letters, digits and dashes, at most 63",
                              c->upstream.handler);
        one->name = c->upstream.handler;
        one->bearer_token_file = c->upstream.token_file;
        if (c->upstream.tls) {
            one->ca_file = c->upstream.ca_file;
            one->client_cert_file = c->upstream.cert_file;
            one->client_key_file = c->upstream.key_file;
        }
        if ((*one->client_cert_file == '\0') != (*one->client_key_file == '\0'))
            return status_set(err, STATUS_INVALID_ARGUMENT, "TLS: CertFile and KeyFile go together");
        if (!config_upstream_url(c, &one->url, err))
            return false;
    }
    c->node.handlers = handlers;
    c->node.handler_count = n + (*c->upstream.address != '\0' || n == 0);
    for (size_t i = 0; i < c->node.handler_count; i++)
        if (*handlers[i].url != '\0' && handlers[i].shared_paths == NULL)
            handlers[i].shared_paths = c->shared_paths;
    return true;
}

static bool config_has_handler(const struct config *c, const char *name, const char *place, struct status *err)
{
    for (size_t i = 0; i < c->node.handler_count; i++)
        if (strcmp(c->node.handlers[i].name, name) == 0)
            return true;
    return status_set(err, STATUS_INVALID_ARGUMENT, "%s %.64s is not among the Handlers", place, name);
}

static bool config_check_handlers(struct config *c, struct status *err)
{
    struct node_options *o = &c->node;
    const char *given = o->node_pods_handler;

    for (size_t i = 0; i < o->handler_count; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(o->handlers[i].name, o->handlers[k].name) == 0)
                return status_set(err, STATUS_INVALID_ARGUMENT, "Handlers: two are called %s", o->handlers[i].name);
    if (*o->default_handler == '\0')
        o->default_handler = o->handlers[0].name;
    for (size_t i = o->handler_count; i > 0 && *given == '\0'; i--)
        if (*o->handlers[i - 1].url == '\0')
            o->node_pods_handler = o->handlers[i - 1].name;
    if (*o->node_pods_handler == '\0')
        o->node_pods_handler = o->default_handler;
    for (const char *const *name = o->node_pods_namespaces; *name != NULL; name++)
        if (!config_is_label(*name))
            return status_set(err, STATUS_INVALID_ARGUMENT,
                              "NodePods.Namespaces \"%.64s\": wanted lower-case letters, digits and dashes, at most 63", *name);
    return config_has_handler(c, o->default_handler, "DefaultHandler", err) &&
           config_has_handler(c, o->node_pods_handler, "NodePods.Handler", err);
}

/* One or more, separated by commas. */
static bool config_check_advertise(const char *list, struct status *err)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct address address;

    while (*list != '\0') {
        size_t n = strcspn(list, ",");
        const char *item = arena_strndup(&arena, list + strspn(list, " "), n - (strspn(list, " ") < n ? strspn(list, " ") : n));
        if (!address_parse(item, &address, err))
            return status_prefix(err, "Relay.Advertise");
        if (address.is_unix || address.port == 0)
            return status_set(err, STATUS_INVALID_ARGUMENT, "Relay.Advertise \"%.128s\": wanted HOST:PORT", item);
        list += n + (list[n] == ',');
    }
    return true;
}

static bool config_check_addresses(struct config *c, struct status *err)
{
    struct address address;

    if (!address_parse(c->node.socket, &address, err))
        return status_prefix(err, "Socket");
    if (!address.is_unix || *address.path != '/')
        return status_set(err, STATUS_INVALID_ARGUMENT, "Socket \"%.128s\": wanted an absolute path or unix://PATH",
                          c->node.socket);
    c->node.socket = arena_strdup(&c->arena, address.path);
    if (c->node.relay_keepalive_ms < 1000)
        return status_set(err, STATUS_INVALID_ARGUMENT, "Relay.Keepalive: wanted a second or more");
    if (*c->node.relay_listen == '\0')
        return *c->node.relay_address == '\0' ||
               status_set(err, STATUS_INVALID_ARGUMENT, "Relay.Advertise is of no use without Relay.Listen");
    if (!address_parse(c->node.relay_listen, &address, err))
        return status_prefix(err, "Relay.Listen");
    if (address.is_unix)
        return status_set(err, STATUS_INVALID_ARGUMENT, "Relay.Listen \"%.128s\": wanted HOST:PORT", c->node.relay_listen);
    if (*c->node.relay_address == '\0')
        c->node.relay_address = c->node.relay_listen;
    return config_check_advertise(c->node.relay_address, err);
}

static bool config_is_loopback(const char *address)
{
    struct in_addr v4;
    struct in6_addr v6;

    if (inet_pton(AF_INET, address, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, address, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

static bool config_check_streaming(struct config *c, struct status *err)
{
    struct node_streaming_options *o = &c->node.streaming;
    uint64_t port;
    uint8_t bytes[sizeof(struct in6_addr)];

    if (inet_pton(AF_INET, o->address, bytes) != 1 && inet_pton(AF_INET6, o->address, bytes) != 1)
        return status_set(err, STATUS_INVALID_ARGUMENT, "Streaming.Address \"%.128s\": wanted an IP address", o->address);
    if (!parse_u64(c->streaming_port, 65535, &port))
        return status_set(err, STATUS_INVALID_ARGUMENT, "Streaming.Port \"%.64s\": wanted a number from 0 to 65535",
                          c->streaming_port);
    o->port = (uint16_t)port;
    if ((*o->cert_file == '\0') != (*o->key_file == '\0'))
        return status_set(err, STATUS_INVALID_ARGUMENT, "Streaming: CertFile and KeyFile go together");
    if (o->creation_timeout_ms == 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "Streaming.CreationTimeout must be above zero");
    return !o->enabled || *o->cert_file != '\0' || config_is_loopback(o->address) ||
           status_set(err, STATUS_INVALID_ARGUMENT,
                      "Streaming.Address %s can be reached from other machines: give a CertFile and a KeyFile, so that streams "
                      "are encrypted, or an address of this machine's own (127.0.0.1)", o->address);
}

static bool config_check_metrics(const struct config *c, struct status *err)
{
    const char *text = c->node.metrics_address;
    struct address address;

    if (*text == '\0')
        return true;
    if (!address_parse(text, &address, err))
        return status_prefix(err, "Metrics.Address");
    return address.is_unix ? *address.path == '/' ||
                                 status_set(err, STATUS_INVALID_ARGUMENT, "Metrics.Address \"%.128s\": wanted an absolute path", text)
                           : config_is_loopback(address.host) ||
                                 status_set(err, STATUS_INVALID_ARGUMENT,
                                            "Metrics.Address \"%.128s\": wanted an address of this machine's own, such as "
                                            "127.0.0.1:9464 or unix:///PATH: there is no authentication, so put a proxy that "
                                            "has one before it", text);
}

/* One, or one of each family. */
static bool config_check_relay_cidrs(const struct config *c, struct status *err)
{
    struct prefix p[3];
    size_t count = 0;

    for (const char *const *range = c->node.relay_cidrs; range != NULL && *range != NULL && count < COUNT_OF(p); range++)
        if (!prefix_parse(*range, &p[count++], err))
            return status_prefix(err, "Network.RelayCIDRs");
    return count < 2 || (count == 2 && ip_is_v4(&p[0].ip) != ip_is_v4(&p[1].ip)) ||
           status_set(err, STATUS_INVALID_ARGUMENT, "Network.RelayCIDRs: wanted one range, or one of IPv4 and one of IPv6");
}

static bool config_check_network(const struct config *c, struct status *err)
{
    static const char *const modes[] = { "auto", "always", "never" };
    bool known = false;

    for (size_t i = 0; i < COUNT_OF(modes); i++)
        known = known || strcmp(c->node.network_mode, modes[i]) == 0;
    if (!known)
        return status_set(err, STATUS_INVALID_ARGUMENT, "Network.Mode: wanted auto, always or never, found \"%.64s\"", c->node.network_mode);
    if (c->node.cni_timeout_ms == 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "Network.Timeout: must be above zero");
    for (const char *const *dir = c->node.cni_bin_dirs; *dir != NULL; dir++)
        if (strchr(*dir, ':') != NULL)
            return status_set(err, STATUS_INVALID_ARGUMENT, "Network.BinDirs: \"%.128s\" holds a colon, which separates them for plugins", *dir);
    if (!config_check_relay_cidrs(c, err))
        return false;
    return *c->node.cni_bin_dirs != NULL || status_set(err, STATUS_INVALID_ARGUMENT, "Network.BinDirs: is empty");
}

static bool config_check_cluster(struct config *c, struct status *err)
{
    const char *name = c->node.node_name;
    size_t n = strlen(name);

    if (n > 253 || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") != n)
        return status_set(err, STATUS_INVALID_ARGUMENT, "Node.Name \"%.128s\": wanted lower-case letters, digits, dashes and dots", name);
    if (*c->defaults_cpu == '\0')
        return true;
    if (!quantity_parse(c->defaults_cpu, QUANTITY_MILLI, &c->node.size.cpu_milli, err))
        return status_prefix(err, "Defaults.CPU");
    return c->node.size.cpu_milli > 0 || status_set(err, STATUS_INVALID_ARGUMENT, "Defaults.CPU: must be above zero");
}

bool config_finish(struct config *c, struct status *err)
{
    if (!config_make_handlers(c, err) || !config_check_handlers(c, err) || !config_check_addresses(c, err) ||
        !config_check_streaming(c, err) || !config_check_metrics(c, err) || !config_check_network(c, err) ||
        !config_check_cluster(c, err))
        return false;
    if (!c->has_log_level && (c->upstream.verbose || c->upstream.errors_only))
        c->log_level = c->upstream.verbose ? LOG_DEBUG : LOG_ERROR;
    if (*c->node.image_dir == '\0')
        c->node.image_dir = arena_printf(&c->arena, "%s/images", c->node.state_dir);
    if (c->registries.proxy != NULL && strcmp(c->registries.proxy, "none") == 0)
        c->registries.proxy = "";
    if (strcmp(c->node.state_dir, "/") == 0 || strcmp(c->node.image_dir, "/") == 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "StateDir and Images.Dir must be folders of their own");
    return true;
}
