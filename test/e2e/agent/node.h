/* SPDX-License-Identifier: Apache-2.0 */
/* node.h: what node_main.c's scenarios are written in: a relay, the agent's process, and the client of each call. */
#ifndef TEST_NODE_H
#define TEST_NODE_H

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/base.h"
#include "io/child.h"
#include "io/file.h"
#include "io/tls.h"
#include "node/relay.h"
#include "rpc/rpc.h"

#include "agent.pb-c.h"

#define PB(name) Interlink__Agent__V1__##name
#define SANDBOX "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"
#define TOKEN "c0ffee"
#define LAYER_HEX "1111111111111111111111111111111111111111111111111111111111111111"
#define WAIT_MS 60000

static struct {
    const char *work, *layer;
    char program[4096];
    struct loop *loop;
    struct relay *relay;
    struct tls_identity *identity;
    struct rpc_conn *conn;
    struct child agent;
    bool agent_ended, refuse, full_image;
    int agent_status;
    unsigned connections;
    int checks, failures;
} t;

static void check(bool ok, const char *format, ...) PRINTF_LIKE(2, 3);
static void check(bool ok, const char *format, ...)
{
    va_list args;

    t.checks++;
    t.failures += !ok;
    printf(ok ? "ok   " : "FAIL ");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(NULL);
}

static void fatal(const char *what, const struct status *err)
{
    printf("FAIL %s: %s\n", what, err->message);
    exit(1);
}

static int64_t now_us(void)
{
    return clock_mono_ns() / 1000;
}

static void turn_until(const bool *condition, const char *what)
{
    int64_t deadline = clock_mono_ms() + WAIT_MS;

    while (!*condition && clock_mono_ms() < deadline)
        loop_turn(t.loop, 100);
    if (!*condition) {
        check(false, "%s: no end after %d ms", what, WAIT_MS);
        if (t.agent.pid > 0 && !t.agent_ended)
            kill(t.agent.pid, SIGKILL);
        exit(1);
    }
}

static void turn_ms(int64_t ms)
{
    int64_t deadline = clock_mono_ms() + ms;

    while (clock_mono_ms() < deadline)
        loop_turn(t.loop, (int)(deadline - clock_mono_ms()));
}

/* ---- the relay and the agent's process ---- */

static void on_conn_close(void *arg, const struct status *err)
{
    (void)arg;
    if (getenv("VERBOSE") != NULL)
        fprintf((FILE *)stderr, "     connection closed: %s\n", err->message);
    rpc_conn_free(t.conn);
    t.conn = NULL;
}

static bool on_authorise(void *arg, const char *sandbox_id, const char *token, struct status *err)
{
    (void)arg;
    if (t.refuse)
        return status_set(err, STATUS_FAILED_PRECONDITION, "the pod is over");
    if (strcmp(sandbox_id, SANDBOX) != 0)
        return status_set(err, STATUS_NOT_FOUND, "no such pod");
    return strcmp(token, TOKEN) == 0 || status_set(err, STATUS_UNAUTHENTICATED, "wrong token");
}

static void on_agent(void *arg, const char *sandbox_id, struct stream *stream, struct str early)
{
    struct rpc_conn_options options = { .on_close = on_conn_close };

    (void)arg;
    (void)sandbox_id;
    if (t.conn != NULL)
        check(false, "a second connection while there is one");
    t.connections++;
    t.conn = rpc_conn_new(t.loop, stream, &options, early);
}

static void start_relay(void)
{
    struct status err;
    cleanup_free char *path = xasprintf("%s/relay/sock", t.work);
    struct relay_options options = { .authorise = on_authorise, .on_agent = on_agent };
    const char *kind = getenv("RELAY");

    if (kind != NULL && strcmp(kind, "tls") == 0) {
        t.identity = tls_identity_load_or_create(t.work, "relay", &err);
        if (t.identity == NULL)
            fatal("identity", &err);
        options.listen = "127.0.0.1:0";
        options.identity = t.identity;
    } else {
        options.unix_path = path;
    }
    t.relay = relay_start(t.loop, &options, &err);
    if (t.relay == NULL)
        fatal("relay", &err);
}

static void on_agent_exit(void *arg, int wait_status)
{
    (void)arg;
    t.agent_ended = true;
    t.agent_status = wait_status;
}

static void start_agent(void)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status err;
    char pin[TLS_PIN_SIZE] = "";
    const char *engine = getenv("ENGINE"), *verbose = getenv("VERBOSE"), *path = getenv("PATH");
    cleanup_free char *job = xasprintf("%s/job", t.work), *token_dir = xasprintf("%s/volumes/interlink", job);
    cleanup_free char *token = xasprintf("%s/token", token_dir);
    cleanup_free char *relay = t.identity != NULL ? xasprintf("127.0.0.1:%u", (unsigned)relay_port(t.relay))
                                                  : xasprintf("unix://%s/relay/sock", t.work);
    char *env[] = {
        arena_printf(&arena, "INTERLINK_RELAY=%s", relay),
        (char *)(uintptr_t)("INTERLINK_SANDBOX=" SANDBOX),
        arena_printf(&arena, "INTERLINK_JOB_DIR=%s", job),
        (char *)(uintptr_t)"INTERLINK_NAMESPACES=ipc,uts,pid",
        t.full_image ? (char *)(uintptr_t)"INTERLINK_IMAGES=" : arena_printf(&arena, "INTERLINK_IMAGES=%s/store", t.work),
        arena_printf(&arena, "INTERLINK_ENGINE=%s", engine != NULL ? engine : "auto"),
        arena_printf(&arena, "INTERLINK_LOG_LEVEL=%s", verbose != NULL ? "debug" : "warn"),
        arena_printf(&arena, "INTERLINK_RELAY_PIN=%s", (t.identity != NULL ? tls_identity_pin(t.identity, pin) : (void)0, pin)),
        arena_printf(&arena, "PATH=%s", path != NULL ? path : ""),
        NULL,
    };
    const char *argv[] = { t.program, "agent", NULL };
    struct child_options options = {
        .argv = argv, .envp = (const char *const *)env, .stdin_fd = -1, .stdout_fd = 1, .stderr_fd = 2, .new_session = true, .die_with_parent = true,
    };

    t.agent_ended = false;
    t.connections = 0;
    if (!tree_remove(job, &err) || !dir_make(token_dir, 0700, &err) || !file_replace(token, TOKEN, strlen(TOKEN), 0600, &err) ||
        !child_spawn(t.loop, &t.agent, &options, on_agent_exit, NULL, &err))
        fatal("agent", &err);
}

static void wait_connection(void)
{
    int64_t deadline = clock_mono_ms() + WAIT_MS;

    while (t.conn == NULL && !t.agent_ended && clock_mono_ms() < deadline)
        loop_turn(t.loop, 100);
    if (t.conn == NULL) {
        check(false, "the agent has not called (status %d)", t.agent_status);
        exit(1);
    }
}

static void drop_connection(void)
{
    rpc_conn_free(t.conn);
    t.conn = NULL;
}

/* ---- calls ---- */
struct answer {
    bool done;
    struct status status;
    int64_t number; /* of the response, whichever it has */
};

static void on_answer(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct answer *a = arg;

    a->done = true;
    a->status = *status;
    if (response != NULL && response->descriptor == &interlink__agent__v1__missing_blobs_response__descriptor)
        a->number = (int64_t)((const PB(MissingBlobsResponse) *)(const void *)response)->n_digests;
    if (response != NULL && response->descriptor == &interlink__agent__v1__hello_response__descriptor) {
        const PB(HelloResponse) *hello = (const void *)response;
        a->number = (int64_t)hello->n_containers;
        printf("     engine %s (%s), %s, cgroups %s\n", hello->engine, hello->engine_reason,
               hello->rootless ? "rootless" : "root", hello->cgroup_driver);
    }
}

static struct answer call(const char *method, const ProtobufCMessage *request, const ProtobufCMessageDescriptor *output)
{
    struct answer a = { 0 };
    char path[96];

    snprintf(path, sizeof path, "/interlink.agent.v1.Agent/%s", method);
    rpc_unary(t.conn, path, request, output, 0, on_answer, &a);
    turn_until(&a.done, method);
    return a;
}

static bool call_ok(const char *method, const ProtobufCMessage *request, const ProtobufCMessageDescriptor *output)
{
    struct answer a = call(method, request, output);

    if (a.status.code != STATUS_OK)
        check(false, "%s: %s: %s", method, status_code_name(a.status.code), a.status.message);
    return a.status.code == STATUS_OK;
}

static char *id_of(unsigned number)
{
    static char ids[8][ID_LENGTH + 1];
    static unsigned next;
    char *id = ids[next++ % 8];

    snprintf(id, ID_LENGTH + 1, "%064x", number);
    return id;
}

static void hello_and_configure(void)
{
    PB(HelloRequest) hello = INTERLINK__AGENT__V1__HELLO_REQUEST__INIT;
    PB(ConfigureSandboxRequest) configure = INTERLINK__AGENT__V1__CONFIGURE_SANDBOX_REQUEST__INIT;
    Runtime__V1__PodSandboxConfig config = RUNTIME__V1__POD_SANDBOX_CONFIG__INIT;

    config.hostname = (char *)(uintptr_t)"pod";
    configure.config = &config;
    call_ok("Hello", &hello.base, &interlink__agent__v1__hello_response__descriptor);
    call_ok("ConfigureSandbox", &configure.base, &interlink__agent__v1__configure_sandbox_response__descriptor);
}

static PB(Image) *image(void)
{
    static const char config[] = "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Env\":[\"PATH=/bin\"]},\"rootfs\":"
                                 "{\"type\":\"layers\",\"diff_ids\":[\"sha256:" LAYER_HEX "\"]}}";
    static PB(Layer) layer = INTERLINK__AGENT__V1__LAYER__INIT, *layers[1] = { &layer };
    static PB(Image) value = INTERLINK__AGENT__V1__IMAGE__INIT;

    layer.digest = layer.diff_id = (char *)(uintptr_t)("sha256:" LAYER_HEX);
    value.id = layer.digest;
    value.config.data = (uint8_t *)(uintptr_t)config;
    value.config.len = sizeof config - 1;
    value.layers = layers;
    value.n_layers = 1;
    return &value;
}

/* `flags`: 't' terminal, 'i' standard input, '1' stdin_once. */
static struct answer create_with(unsigned number, PB(Image) *from, const char *flags, int64_t memory, const char *command)
{
    char *words[] = { (char *)(uintptr_t)"/bin/sh", (char *)(uintptr_t)"-c", (char *)(uintptr_t)command };
    Runtime__V1__ContainerConfig config = RUNTIME__V1__CONTAINER_CONFIG__INIT;
    Runtime__V1__ContainerMetadata metadata = RUNTIME__V1__CONTAINER_METADATA__INIT;
    Runtime__V1__LinuxContainerConfig linux = RUNTIME__V1__LINUX_CONTAINER_CONFIG__INIT;
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    Runtime__V1__LinuxContainerSecurityContext security = RUNTIME__V1__LINUX_CONTAINER_SECURITY_CONTEXT__INIT;
    Runtime__V1__NamespaceOption namespaces = RUNTIME__V1__NAMESPACE_OPTION__INIT;
    PB(CreateContainerRequest) request = INTERLINK__AGENT__V1__CREATE_CONTAINER_REQUEST__INIT;

    namespaces.network = RUNTIME__V1__NAMESPACE_MODE__NODE;
    namespaces.pid = RUNTIME__V1__NAMESPACE_MODE__CONTAINER;
    security.namespace_options = &namespaces;
    linux.security_context = &security;
    linux.resources = &resources;
    resources.memory_limit_in_bytes = memory;
    metadata.name = (char *)(uintptr_t)"c";
    config.metadata = &metadata;
    config.linux = &linux;
    config.command = words;
    config.n_command = 3;
    config.tty = strchr(flags, 't') != NULL;
    config.stdin = strchr(flags, 'i') != NULL;
    config.stdin_once = strchr(flags, '1') != NULL;
    request.id = id_of(number);
    request.config = &config;
    request.image = from;
    return call("CreateContainer", &request.base, &interlink__agent__v1__create_container_response__descriptor);
}

static struct answer create_from(unsigned number, PB(Image) *from, int64_t memory, const char *command)
{
    return create_with(number, from, "", memory, command);
}

static bool create(unsigned number, const char *command)
{
    struct answer a = create_from(number, image(), 0, command);

    if (a.status.code != STATUS_OK)
        check(false, "create: %s: %s", status_code_name(a.status.code), a.status.message);
    return a.status.code == STATUS_OK;
}

static bool start(unsigned number)
{
    PB(StartContainerRequest) request = INTERLINK__AGENT__V1__START_CONTAINER_REQUEST__INIT;

    request.id = id_of(number);
    return call_ok("StartContainer", &request.base, &interlink__agent__v1__start_container_response__descriptor);
}

static bool signal_container(unsigned number, int signal_number)
{
    PB(SignalContainerRequest) request = INTERLINK__AGENT__V1__SIGNAL_CONTAINER_REQUEST__INIT;

    request.id = id_of(number);
    request.signal = signal_number;
    return call_ok("SignalContainer", &request.base, &interlink__agent__v1__signal_container_response__descriptor);
}

static bool remove_container(unsigned number)
{
    PB(RemoveContainerRequest) request = INTERLINK__AGENT__V1__REMOVE_CONTAINER_REQUEST__INIT;

    request.id = id_of(number);
    return call_ok("RemoveContainer", &request.base, &interlink__agent__v1__remove_container_response__descriptor);
}

static void shutdown_agent(int64_t grace_ms)
{
    PB(ShutdownRequest) request = INTERLINK__AGENT__V1__SHUTDOWN_REQUEST__INIT;

    request.grace_ms = grace_ms;
    int64_t begin = now_us();
    call_ok("Shutdown", &request.base, &interlink__agent__v1__shutdown_response__descriptor);
    int64_t replied = now_us();
    turn_until(&t.agent_ended, "the agent's end");
    printf("     shutdown: reply after %.1f ms, exit after %.1f ms\n", (double)(replied - begin) / 1000,
           (double)(now_us() - begin) / 1000);
    check(t.agent_status == 0, "the agent exits with 0 after Shutdown (%d)", t.agent_status);
    drop_connection();
}

static void begin(void)
{
    start_agent();
    wait_connection();
    hello_and_configure();
}

/* ---- events ---- */
struct watcher {
    struct rpc_request *request;
    unsigned exits;
    int exit_code;
    char reason[32];
    bool exited;
    uint64_t log_end;
};

static void on_event(void *arg, const ProtobufCMessage *message)
{
    struct watcher *w = arg;
    const PB(Event) *event = (const void *)message;

    if (event->state->phase != INTERLINK__AGENT__V1__CONTAINER_PHASE__EXITED)
        return;
    w->exits++;
    w->exited = true;
    w->exit_code = event->state->exit_code;
    w->log_end = event->state->log_end;
    snprintf(w->reason, sizeof w->reason, "%s", event->state->reason);
}

static void on_events_finish(void *arg, const struct status *status)
{
    struct watcher *w = arg;

    (void)status;
    w->request = NULL;
}

static void watch_events(struct watcher *w)
{
    PB(EventsRequest) request = INTERLINK__AGENT__V1__EVENTS_REQUEST__INIT;
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/Events", .output = &interlink__agent__v1__event__descriptor,
        .on_message = on_event, .on_finish = on_events_finish, .arg = w,
    };

    *w = (struct watcher){ 0 };
    w->request = rpc_request_start(t.conn, &options);
    rpc_request_send(w->request, &request.base);
    rpc_request_half_close(w->request);
}

/* ---- logs ---- */
struct reader {
    struct rpc_request *request;
    uint64_t position, payload;
    bool end, finished, keep;
    size_t chunks, jumps;
    struct buf text;
};

static void on_chunk(void *arg, const ProtobufCMessage *message)
{
    struct reader *r = arg;
    const PB(LogsResponse) *chunk = (const void *)message;
    PB(LogsRequest) request = INTERLINK__AGENT__V1__LOGS_REQUEST__INIT;

    r->jumps += chunk->offset != r->position;
    r->chunks++;
    r->position = chunk->offset + chunk->data.len;
    r->end = r->end || chunk->end;
    if (r->keep)
        buf_append(&r->text, chunk->data.data, chunk->data.len);
    request.stored = r->position;
    rpc_request_send(r->request, &request.base);
}

static void on_logs_finish(void *arg, const struct status *status)
{
    struct reader *r = arg;

    if (getenv("VERBOSE") != NULL)
        fprintf((FILE *)stderr, "     log at %" PRIu64 ": %s %s\n", r->position, status_code_name(status->code), status->message);
    r->finished = true;
    r->request = NULL;
}

static void read_logs(struct reader *r, unsigned number)
{
    PB(LogsRequest) request = INTERLINK__AGENT__V1__LOGS_REQUEST__INIT;
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/Logs", .output = &interlink__agent__v1__logs_response__descriptor,
        .on_message = on_chunk, .on_finish = on_logs_finish, .arg = r,
    };

    r->finished = false;
    request.container_id = id_of(number);
    request.from = r->position;
    r->request = rpc_request_start(t.conn, &options);
    rpc_request_send(r->request, &request.base);
}

/* ---- exec ---- */
struct exec {
    bool finished, exited, timed_out;
    int exit_code;
    struct status status;
    uint64_t bytes;
    struct buf out;
};

static void on_exec_message(void *arg, const ProtobufCMessage *message)
{
    struct exec *e = arg;
    const PB(ExecResponse) *response = (const void *)message;

    e->bytes += response->stdout.len;
    if (e->out.n < 4096)
        buf_append(&e->out, response->stdout.data, response->stdout.len);
    if (response->exited != NULL) {
        e->exited = true;
        e->exit_code = response->exited->exit_code;
        e->timed_out = response->exited->timed_out != 0;
    }
}

static void on_exec_finish(void *arg, const struct status *status)
{
    struct exec *e = arg;

    e->finished = true;
    e->status = *status;
}

static void exec_run(struct exec *e, unsigned number, int64_t timeout_ms, const char *const *words, size_t count)
{
    PB(ExecStart) start_message = INTERLINK__AGENT__V1__EXEC_START__INIT;
    PB(ExecRequest) request = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/Exec", .output = &interlink__agent__v1__exec_response__descriptor,
        .on_message = on_exec_message, .on_finish = on_exec_finish, .arg = e,
    };

    *e = (struct exec){ 0 };
    struct rpc_request *r = rpc_request_start(t.conn, &options);
    start_message.container_id = id_of(number);
    start_message.command = (char **)(uintptr_t)words;
    start_message.n_command = count;
    start_message.timeout_ms = timeout_ms;
    request.start = &start_message;
    rpc_request_send(r, &request.base);
    rpc_request_half_close(r);
    turn_until(&e->finished, "exec");
}

/* ---- measuring ---- */

/* Resident memory of a process and its children that run the same program, in KiB; the peak of it with `peak`. */
static long memory_of(pid_t pid, bool peak)
{
    char path[64], line[256];
    long kib = 0, value;

    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, peak ? "VmHWM: %ld" : "VmRSS: %ld", &value) == 1)
            kib = value;
    if (f != NULL)
        fclose(f);
    return kib;
}

static pid_t child_of(pid_t pid)
{
    char path[64], text[32] = "";

    snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, pid);
    FILE *f = fopen(path, "r");
    if (f == NULL || fgets(text, sizeof text, f) == NULL)
        text[0] = '\0';
    if (f != NULL)
        fclose(f);
    return (pid_t)strtol(text, NULL, 10);
}

/* CPU time of a process in milliseconds. */
static long cpu_of(pid_t pid)
{
    char path[64];
    struct buf text cleanup_buf = BUF_INIT;
    struct status err;
    unsigned long user = 0, kernel = 0;

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    if (file_read(path, 4096, &text, &err))
        sscanf(strrchr(buf_cstr(&text), ')'), ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel);
    return (long)(user + kernel) * 1000 / sysconf(_SC_CLK_TCK);
}

static unsigned count_processes(const char *word)
{
    cleanup_free char *command = xasprintf("exit $(ps -e -o args= | grep -v grep | grep -c -- '%s')", word);
    int status = system(command);

    return (unsigned)WEXITSTATUS(status);
}

static int compare_int64(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

static void print_times(const char *what, int64_t *us, size_t n)
{
    qsort(us, n, sizeof *us, compare_int64);
    printf("     %s: p50 %.2f ms, p99 %.2f ms (%zu)\n", what, (double)us[n / 2] / 1000, (double)us[n * 99 / 100] / 1000, n);
}

#endif
