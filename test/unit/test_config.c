/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/config.h"

#include "io/file.h"
#include "text/yaml.h"

#include <setjmp.h>
#include <cmocka.h>

#include <unistd.h>

static void good(const char *yaml, struct config *c)
{
    struct status err = STATUS_INIT;

    if (!config_parse("test.yaml", str_of(yaml), false, NULL, 0, c, &err))
        fail_msg("%s%s", yaml, err.message);
}

static void refused(const char *yaml, const char *message)
{
    struct config c;
    struct status err = STATUS_INIT;

    if (config_parse("test.yaml", str_of(yaml), false, NULL, 0, &c, &err))
        fail_msg("taken: %s", yaml);
    assert_string_equal(err.message, message);
}

static void test_defaults(void **state)
{
    cleanup_config struct config c;
    (void)state;

    good("", &c);
    assert_int_equal(c.node.handler_count, 1);
    assert_string_equal(c.node.handlers[0].name, "local");
    assert_string_equal(c.node.handlers[0].url, "");
    assert_string_equal(c.node.default_handler, "local");
    assert_string_equal(c.node.node_pods_handler, "local");
    assert_string_equal(c.node.node_pods_namespaces[0], "kube-system");
    assert_null(c.node.node_pods_namespaces[1]);
    assert_int_equal(c.node.queue_hold_ms, CONFIG_QUEUE_HOLD_MS);
    assert_true(c.node.socket[0] == '/' && c.node.state_dir[0] == '/');
    assert_true(str_ends(c.node.image_dir, "/images"));
    assert_string_equal(c.node.relay_listen, "");
    assert_true(c.node.streaming.enabled);
    assert_string_equal(c.node.streaming.address, "127.0.0.1");
    assert_int_equal(c.node.streaming.port, 0);
    assert_int_equal(c.node.streaming.idle_timeout_ms, 4 * 3600 * 1000);
    assert_null(c.node.pinned_images);
    assert_ptr_equal(c.node.registries, &c.registries);
    assert_int_equal(c.log_level, LOG_INFO);
}

static void test_everything(void **state)
{
    cleanup_config struct config c;
    (void)state;

    good("Socket: unix:///tmp/x.sock\nStateDir: /tmp/state\nLogLevel: warn\nQueueHold: 1m30s\nQueueLease: 5\n"
         "DefaultHandler: b\nSharedPaths: [/home, /shared/]\n"
         "Handlers:\n- {Name: c, Target: 'https://h:2', SharedPaths: []}\n- {Name: a, Target: local, Engine: host}\n- {Name: b, Target: 'https://h:1/x', CAFile: /ca, CertFile: /c, KeyFile: /k,"
         " BearerTokenFile: /t}\n"
         "Kubeconfig: /etc/kubernetes/kubelet.conf\nNode: {Name: n1, Capacity: false}\n"
         "Defaults: {CPU: 500m, Memory: 2Gi, Walltime: 1h}\n"
         "Relay: {Listen: '0.0.0.0:10443', Advertise: 'login:10443'}\n"
         "Streaming: {Address: '::', Port: 10250, CertFile: /c, KeyFile: /k, IdleTimeout: 0, Keepalive: 1m}\n"
         "Images:\n  Dir: /tmp/images\n  Shared: true\n  Pinned: [a, b]\n  MaxUnpackedSize: 1Gi\n  HostsDirs: [/h]\n  CAFile: /pem\n"
         "  Proxy: none\n  Mirrors:\n  - {Registry: docker.io, Endpoints: ['http://127.0.0.1:5000'], Only: true}\n", &c);
    assert_string_equal(c.node.socket, "/tmp/x.sock");
    assert_string_equal(c.node.state_dir, "/tmp/state");
    assert_int_equal(c.log_level, LOG_WARN);
    assert_int_equal(c.node.queue_hold_ms, 90000);
    assert_int_equal(c.node.queue_lease_ms, 5000);
    assert_int_equal(c.node.handler_count, 3);
    assert_null(c.node.handlers[0].shared_paths[0]);
    c.node.handlers++;
    assert_null(c.node.handlers[0].shared_paths);
    assert_string_equal(c.node.handlers[1].shared_paths[1], "/shared/");
    assert_string_equal(c.node.handlers[0].engine, "host");
    assert_string_equal(c.node.handlers[1].url, "https://h:1/x");
    assert_string_equal(c.node.handlers[1].client_key_file, "/k");
    assert_string_equal(c.node.handlers[1].bearer_token_file, "/t");
    assert_string_equal(c.node.default_handler, "b");
    assert_string_equal(c.node.node_pods_handler, "a"); /* the one on this machine */
    assert_string_equal(c.node.kubeconfig, "/etc/kubernetes/kubelet.conf");
    assert_string_equal(c.node.node_name, "n1");
    assert_false(c.node.keep_capacity);
    assert_int_equal(c.node.size.cpu_milli, 500);
    assert_int_equal(c.node.size.memory, 2ll << 30);
    assert_int_equal(c.node.size.walltime_ms, 3600000);
    assert_string_equal(c.node.relay_address, "login:10443");
    assert_string_equal(c.node.streaming.address, "::");
    assert_int_equal(c.node.streaming.port, 10250);
    assert_string_equal(c.node.streaming.key_file, "/k");
    assert_int_equal(c.node.streaming.idle_timeout_ms, 0);
    assert_int_equal(c.node.streaming.keepalive_ms, 60000);
    assert_int_equal(c.node.streaming.creation_timeout_ms, 30000);
    assert_true(c.node.agents_share_images);
    assert_string_equal(c.node.pinned_images[1], "b");
    assert_null(c.node.pinned_images[2]);
    assert_int_equal(c.node.layer_bytes_max, 1 << 30);
    assert_string_equal(c.registries.certs_dirs[0], "/h");
    assert_string_equal(c.registries.proxy, "");
    assert_int_equal(c.registries.mirror_count, 1);
    assert_string_equal(c.registries.mirrors[0].endpoints[0], "http://127.0.0.1:5000");
    assert_true(c.registries.mirrors[0].only);
}

static void test_upstream(void **state)
{
    cleanup_config struct config a, b, d;
    (void)state;

    good("InterlinkAddress: \"https://interlink-api.example.com\"\nInterlinkport: \"8080\"\nCRI:\n  SocketPath: \"unix:///x/cri.sock\"\n"
         "  RuntimeHandler: \"site\"\nVerboseLogging: true\nErrorsOnlyLogging: false\nTLS:\n  Enabled: true\n  CertFile: /c\n  KeyFile: /k\n"
         "  CACertFile: /ca\nDataRootFolder: /d\n", &a);
    assert_int_equal(a.node.handler_count, 1);
    assert_string_equal(a.node.handlers[0].name, "site");
    assert_string_equal(a.node.handlers[0].url, "https://interlink-api.example.com:8080");
    assert_string_equal(a.node.handlers[0].ca_file, "/ca");
    assert_string_equal(a.node.default_handler, "site");
    assert_string_equal(a.node.node_pods_handler, "site");
    assert_string_equal(a.node.socket, "/x/cri.sock");
    assert_string_equal(a.node.state_dir, "/d");
    assert_int_equal(a.log_level, LOG_DEBUG);
    good("InterlinkAddress: http://[::1]/base\nInterlinkPort: 3000\nTLS: {Enabled: false, CertFile: /c}\nLogLevel: warn\nVerboseLogging: true\n", &b);
    assert_string_equal(b.node.handlers[0].name, "interlink");
    assert_string_equal(b.node.handlers[0].url, "http://[::1]:3000/base");
    assert_string_equal(b.node.handlers[0].client_cert_file, "");
    assert_int_equal(b.log_level, LOG_WARN);
    good("Handlers: [{Name: here, Target: local}]\nInterlinkAddress: unix:///run/api.sock\nInterlinkport: 3000\n", &d);
    assert_int_equal(d.node.handler_count, 2);
    assert_string_equal(d.node.handlers[1].url, "unix:///run/api.sock");
    assert_string_equal(d.node.default_handler, "here");
}

static void test_refused(void **state)
{
    (void)state;
    refused("Socket: /x\nStateDr: /y\n", "test.yaml: line 2, column 1: StateDr: no such key, did you mean StateDir?");
    refused("Images:\n  Dri: /y\n", "test.yaml: line 2, column 3: Images.Dri: no such key, did you mean Dir?");
    refused("Zzzzzzz: 1\n", "test.yaml: line 1, column 1: Zzzzzzz: no such key");
    refused("JobPer: pod\n", "test.yaml: line 1, column 1: JobPer: it belongs to a handler: below Handlers");
    refused("Kubeconfig: x\n", "test.yaml: line 1, column 1: Kubeconfig: wanted an absolute path, found \"x\"");
    refused("Node: {Name: Edge_1}\n", "Node.Name \"Edge_1\": wanted lower-case letters, digits, dashes and dots");
    refused("Node: {Capacity: yes}\n", "test.yaml: line 1, column 8: Node.Capacity: wanted a boolean, found a string");
    refused("Defaults: {CPU: lots}\n", "Defaults.CPU: \"lots\" is no quantity: wanted a number like 500m, 1.5, 128Mi or 2e3");
    refused("Defaults: {CPU: 0}\n", "Defaults.CPU: must be above zero");
    refused("Defaults: {Memory: 0}\n", "test.yaml: line 1, column 12: Defaults.Memory: must be above zero");
    refused("Defaults: {GPU: 1}\n", "test.yaml: line 1, column 12: Defaults.GPU: no such key, did you mean CPU?");
    refused("Sidecarport: 1\n",
            "test.yaml: line 1, column 1: Sidecarport: it belongs to the configuration of the interLink API server");
    refused("Handlers:\n- Name: a\n  Target: local\n  Jobper: pod\n",
            "test.yaml: line 4, column 3: Handlers[0].Jobper: no such key, did you mean JobPer?");
    refused("Handlers:\n- Name: a\n  Target: http://x\n  JobPer: step\n",
            "test.yaml: line 4, column 3: Handlers[0].JobPer: wanted pod or container, found \"step\"");
    refused("Handlers:\n- Name: a\n  Target: local\n  JobPer: container\n",
            "test.yaml: line 4, column 3: Handlers[0].JobPer: handler a runs its pods on this machine: a pod is one job there");
    refused("Handlers:\n- Name: a\n  Target: local\n  Program: /x\n",
            "test.yaml: line 4, column 3: Handlers[0].Program: handler a runs its pods on this machine, with this very program");
    refused("StateDir: relative\n", "test.yaml: line 1, column 1: StateDir: wanted an absolute path, found \"relative\"");
    refused("StateDir: [1]\n", "test.yaml: line 1, column 1: StateDir: wanted a string, found an array");
    refused("LogLevel: loud\n", "test.yaml: line 1, column 1: LogLevel: wanted error, warn, info or debug, found \"loud\"");
    refused("QueueHold: soon\n", "test.yaml: line 1, column 1: QueueHold: wanted a duration like 10s or 5m, or a number of seconds, "
                                 "found \"soon\"");
    refused("QueueHold: -5\n", "test.yaml: line 1, column 1: QueueHold: wanted a duration like 10s or 5m, or a number of seconds, "
                               "found \"-5\"");
    refused("Images:\n  MaxUnpackedSize: 0\n", "test.yaml: line 2, column 3: Images.MaxUnpackedSize: must be above zero");
    refused("Images: {Shared: maybe}\n", "test.yaml: line 1, column 10: Images.Shared: wanted a boolean, found a string");
    refused("Images: 5\n", "test.yaml: line 1, column 1: Images: wanted an object, found a number");
    refused("[1]\n", "test.yaml: line 1, column 1: wanted an object, found an array");
    refused("Handlers: [{Name: A, Target: local}]\n",
            "test.yaml: line 1, column 13: Handlers[0].Name: wanted a Name of lower-case letters, digits and dashes, at most 63, found \"A\"");
    refused("Handlers: [{Name: a}]\n",
            "test.yaml: line 1, column 12: Handlers[0]: handler a has no Target: local, or the URL of an interLink API");
    refused("Handlers: [{Name: a, Target: 'ftp://x'}]\n",
            "test.yaml: line 1, column 22: Handlers[0].Target: \"ftp://x\": wanted local, unix://PATH, http://HOST:PORT or https://HOST:PORT");
    refused("Handlers: [{Name: a, Target: 'http://u@h'}]\n",
            "test.yaml: line 1, column 22: Handlers[0].Target: \"http://u@h\": a host, a port and a path are all it may hold");
    refused("Handlers: [{Name: a, Target: local, Engine: docker}]\n",
            "test.yaml: line 1, column 37: Handlers[0].Engine: wanted auto, crun, apptainer or host, found \"docker\"");
    refused("Handlers: [{Name: a, Target: local, SharedPaths: [/a]}]\n",
            "test.yaml: line 1, column 37: Handlers[0].SharedPaths: handler a runs its pods on this machine, which has all paths");
    refused("SharedPaths: [a]\n", "test.yaml: line 1, column 15: SharedPaths[0]: wanted an absolute path, found \"a\"");
    refused("Handlers: [{Name: a, Target: local}, {Name: a, Target: local}]\n", "Handlers: two are called a");
    refused("DefaultHandler: b\n", "DefaultHandler b is not among the Handlers");
    refused("NodePods: {Handler: b}\n", "NodePods.Handler b is not among the Handlers");
    refused("NodePods: {Namespaces: [Kube]}\n",
            "NodePods.Namespaces \"Kube\": wanted lower-case letters, digits and dashes, at most 63");
    refused("InterlinkAddress: http://h:1\nInterlinkport: 2\n", "InterlinkAddress http://h:1 has a port already: leave Interlinkport out");
    refused("InterlinkAddress: http://h\nInterlinkport: 70000\n", "Interlinkport \"70000\": wanted a number from 1 to 65535");
    refused("Relay: {Advertise: 'h:1'}\n", "Relay.Advertise is of no use without Relay.Listen");
    refused("Relay: {Listen: '[::]:1', Advertise: 'h:1, unix:///x'}\n", "Relay.Advertise \"unix:///x\": wanted HOST:PORT");
    refused("Relay: {Keepalive: 0}\n", "Relay.Keepalive: wanted a second or more");
    refused("Handlers: [{Name: c, Target: 'http://h', Dial: [srun, '--jobid={job}']}]\n",
            "test.yaml: line 1, column 42: Handlers[0].Dial: \"--jobid={job}\": only {pod}, {uid}, {jid} and {node} are filled in");
    refused("Handlers: [{Name: c, Target: 'http://h', Dial: []}]\n",
            "test.yaml: line 1, column 42: Handlers[0].Dial: wanted a command and its arguments");
    refused("Handlers: [{Name: c, Target: local, Dial: [x]}]\n",
            "test.yaml: line 1, column 37: Handlers[0].Dial: handler c runs its pods on this machine, where agents call by themselves");
    refused("Handlers: [{Name: c, Target: 'http://h', Proxy: 'socks5://p'}]\n",
            "test.yaml: line 1, column 42: Handlers[0].Proxy: wanted http://[USER:PASSWORD@]HOST[:PORT], or none");
    refused("Streaming: {Address: 0.0.0.0}\n",
            "Streaming.Address 0.0.0.0 can be reached from other machines: give a CertFile and a KeyFile, so that streams are "
            "encrypted, or an address of this machine's own (127.0.0.1)");
    refused("Streaming: {Address: '::ffff:127.0.0.1'}\n",
            "Streaming.Address ::ffff:127.0.0.1 can be reached from other machines: give a CertFile and a KeyFile, so that streams "
            "are encrypted, or an address of this machine's own (127.0.0.1)");
    refused("Streaming: {Address: login}\n", "Streaming.Address \"login\": wanted an IP address");
    refused("Streaming: {Port: 65536}\n", "Streaming.Port \"65536\": wanted a number from 0 to 65535");
    refused("Streaming: {CertFile: /c}\n", "Streaming: CertFile and KeyFile go together");
    refused("Network: {Mode: maybe}\n", "Network.Mode: wanted auto, always or never, found \"maybe\"");
    refused("Network: {Timeout: 0}\n", "Network.Timeout: must be above zero");
    refused("Network: {BinDirs: []}\n", "Network.BinDirs: is empty");
    refused("Network: {BinDirs: ['/a:b']}\n", "Network.BinDirs: \"/a:b\" holds a colon, which separates them for plugins");
    refused("Streaming: {CreationTimeout: 0}\n", "Streaming.CreationTimeout must be above zero");
    refused("Socket: tcp://1.2.3.4:5\n", "Socket \"tcp://1.2.3.4:5\": wanted an absolute path or unix://PATH");
    refused("a: 1\na: 2\n", "test.yaml: line 2, column 1: the key a is given twice in one mapping");
    refused("Images: {Mirrors: [{Registry: x}]}\n", "test.yaml: line 1, column 20: Images.Mirrors[0]: no Endpoints for x");
}

static void test_overrides(void **state)
{
    static const struct config_override overrides[] = { { "LogLevel", "debug" }, { "Images.Dir", "relative" } };
    cleanup_config struct config c;
    struct status err = STATUS_INIT;
    cleanup_free char *cwd = getcwd(NULL, 0);
    cleanup_free char *wanted = xasprintf("%s/relative", cwd);
    (void)state;

    setenv("INTERLINK_CRI_LOG_LEVEL", "error", 1);
    setenv("INTERLINK_CRI_STATE_DIR", "/from/env", 1);
    setenv("INTERLINK_URL", "http://h", 1);
    setenv("INTERLINK_PORT", "99", 1);
    assert_true(config_parse("x", STR("LogLevel: warn\nStateDir: /from/file\n"), true, overrides, COUNT_OF(overrides), &c, &err));
    assert_int_equal(c.log_level, LOG_DEBUG);
    assert_string_equal(c.node.state_dir, "/from/env");
    assert_string_equal(c.node.image_dir, wanted);
    assert_string_equal(c.node.handlers[0].url, "http://h:99");
    struct config bad;
    setenv("INTERLINK_CRI_QUEUE_HOLD", "x", 1);
    assert_false(config_parse("x", STR(""), true, NULL, 0, &bad, &err));
    assert_non_null(strstr(err.message, "INTERLINK_CRI_QUEUE_HOLD: wanted a duration"));
    unsetenv("INTERLINK_CRI_QUEUE_HOLD");
    unsetenv("INTERLINK_CRI_LOG_LEVEL");
    unsetenv("INTERLINK_CRI_STATE_DIR");
    unsetenv("INTERLINK_URL");
    unsetenv("INTERLINK_PORT");
}

static void test_names(void **state)
{
    static const char *const wanted[][3] = {
        { "StateDir", "state-dir", "INTERLINK_CRI_STATE_DIR" },
        { "Images.CAFile", "images-ca-file", "INTERLINK_CRI_IMAGES_CA_FILE" },
        { "InterlinkAddress", "interlink-address", "INTERLINK_CRI_INTERLINK_ADDRESS" },
        { "CRI.SocketPath", "cri-socket-path", "INTERLINK_CRI_CRI_SOCKET_PATH" },
    };
    (void)state;

    for (size_t i = 0; i < config_key_count; i++) {
        cleanup_free char *option = config_option_name(&config_keys[i]), *variable = config_environment_name(&config_keys[i]);
        for (size_t k = 0; k < COUNT_OF(wanted); k++)
            if (strcmp(config_keys[i].place, wanted[k][0]) == 0) {
                assert_string_equal(option, wanted[k][1]);
                assert_string_equal(variable, wanted[k][2]);
            }
    }
}

/* ---- the example ---- */

static void read_example(struct buf *out)
{
    static const char *const paths[] = { "docs/config.example.yaml", "../docs/config.example.yaml", "../../docs/config.example.yaml" };
    struct status err = STATUS_INIT;

    for (size_t i = 0; i < COUNT_OF(paths); i++)
        if (file_read(paths[i], 1 << 20, out, &err))
            return;
    fail_msg("%s", err.message);
}

static const struct json *at(const struct json *j, const char *place)
{
    for (const char *p = place; *p != '\0' && j != NULL;) {
        char name[64];
        size_t n = strcspn(p, ".");
        snprintf(name, sizeof name, "%.*s", (int)n, p);
        j = json_member(j, name);
        p += n + (p[n] == '.');
    }
    return j;
}

static void has_keys(const struct json *list, const struct config_key *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bool found = false;
        for (JSON_EACH(item, list))
            found = found || json_member(item, keys[i].place) != NULL;
        if (!found)
            fail_msg("docs/config.example.yaml lacks %s in a list", keys[i].place);
    }
}

/* The example as it stands is valid and changes nothing; with every setting uncommented it is valid and names every key. */
static void test_example(void **state)
{
    cleanup_buf struct buf text = BUF_INIT, all = BUF_INIT;
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_config struct config c, full;
    struct status err = STATUS_INIT;
    (void)state;

    read_example(&text);
    good(buf_cstr(&text), &c);
    assert_string_equal(c.node.default_handler, "local");
    const char *line = buf_cstr(&text);
    for (; *line != '\0'; line = strchr(line, '\n') + 1) {
        const char *from = line[0] == '#' && line[1] != '#' ? line + 1 : line;
        buf_append(&all, from, (size_t)(strchr(line, '\n') - from) + 1);
    }
    good(buf_cstr(&all), &full);
    assert_int_equal(full.node.handler_count, 3);
    const struct json *j = yaml_parse(&arena, str_of(buf_cstr(&all)), &err);
    for (size_t i = 0; i < config_key_count; i++)
        if (at(j, config_keys[i].place) == NULL)
            fail_msg("docs/config.example.yaml lacks %s", config_keys[i].place);
    has_keys(at(j, "Handlers"), config_handler_keys, config_handler_key_count);
    has_keys(at(j, "Images.Mirrors"), config_mirror_keys, config_mirror_key_count);
}

/* Those of interLink's own CRI, for the one handler of its flat keys; ours go before. */
static void test_upstreams_environment(void **state)
{
    static const char *const pairs[][2] = {
        { "INTERLINK_URL", "https://api.example" }, { "INTERLINK_PORT", "3000" },        { "VK_TOKEN_FILE", "/run/token" },
        { "INTERLINK_TLS_ENABLED", "true" },        { "INTERLINK_TLS_CERT_FILE", "/c" }, { "INTERLINK_TLS_KEY_FILE", "/k" },
        { "INTERLINK_TLS_CA_FILE", "/ca" },
    };
    struct config c;
    struct status err = STATUS_INIT;
    (void)state;

    for (size_t i = 0; i < COUNT_OF(pairs); i++)
        setenv(pairs[i][0], pairs[i][1], 1);
    bool ok = config_parse("test.yaml", STR(""), true, NULL, 0, &c, &err);
    for (size_t i = 0; i < COUNT_OF(pairs); i++)
        unsetenv(pairs[i][0]);
    if (!ok)
        fail_msg("%s", err.message);
    assert_int_equal(c.node.handler_count, 1);
    const struct node_handler_options *handler = &c.node.handlers[0];
    assert_string_equal(handler->url, "https://api.example:3000");
    assert_string_equal(handler->bearer_token_file, "/run/token");
    assert_string_equal(handler->ca_file, "/ca");
    assert_string_equal(handler->client_cert_file, "/c");
    assert_string_equal(handler->client_key_file, "/k");
    config_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_everything), cmocka_unit_test(test_upstream), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_overrides), cmocka_unit_test(test_names),     cmocka_unit_test(test_example),
        cmocka_unit_test(test_upstreams_environment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
