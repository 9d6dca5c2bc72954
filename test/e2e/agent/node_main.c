/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small node for a real agent: a relay, and the client of proto/agent.proto. Says what it saw, a line a check.
 *
 *   node_main WORK_DIR LAYER_DIR SCENARIO...      (no scenario: all but bench; see the table at the end)
 *
 * LAYER_DIR is an unpacked layer with a busybox in /bin. WORK_DIR is emptied. Environment: AGENT (the program whose role `agent`
 * is tried; default: this one), ENGINE, RELAY=tls (over TCP with a pinned key), VERBOSE=1.
 * Exit status 0: every check passed.
 */
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

static struct answer create_from(unsigned number, PB(Image) *from, int64_t memory, const char *command)
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
    request.id = id_of(number);
    request.config = &config;
    request.image = from;
    return call("CreateContainer", &request.base, &interlink__agent__v1__create_container_response__descriptor);
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

/* ---- scenarios ---- */

static void begin(void)
{
    start_agent();
    wait_connection();
    hello_and_configure();
}

static void scenario_life(void)
{
    struct watcher w;
    struct reader r = { .keep = true };

    begin();
    watch_events(&w);
    create(1, "echo hello; hostname; echo oops >&2; exit 3");
    start(1);
    read_logs(&r, 1);
    turn_until(&w.exited, "exit");
    turn_until(&r.finished, "log");
    check(w.exit_code == 3 && strcmp(w.reason, "Error") == 0, "exit code 3, reason Error (%d, %s)", w.exit_code, w.reason);
    check(r.end && r.position == w.log_end, "the log ends where the event says");
    buf_append_byte(&r.text, 0);
    check(strstr((char *)r.text.p, " stdout F hello\n") != NULL && strstr((char *)r.text.p, " stdout F pod\n") != NULL &&
              strstr((char *)r.text.p, " stderr F oops\n") != NULL,
          "its lines");
    remove_container(1);
    create(2, "trap 'exit 4' TERM; while :; do sleep 0.02; done");
    start(2);
    turn_ms(100);
    w.exited = false;
    signal_container(2, SIGTERM);
    turn_until(&w.exited, "exit after TERM");
    check(w.exit_code == 4, "TERM reaches the process (%d)", w.exit_code);
    create(3, "sleep 1000");
    start(3);
    w.exited = false;
    signal_container(3, SIGKILL);
    turn_until(&w.exited, "exit after KILL");
    check(w.exit_code == 137, "KILL (%d)", w.exit_code);
    buf_free(&r.text);
    shutdown_agent(0);
}

static void scenario_oom(void)
{
    struct watcher w;

    if (getuid() != 0) /* an ordinary user's cgroups are seldom his */
        return;
    begin();
    watch_events(&w);
    struct answer a = create_from(1, image(), 32 << 20, "x=a; while :; do x=$x$x; done");
    check(a.status.code == STATUS_OK, "create with a memory limit: %s", a.status.message);
    start(1);
    turn_until(&w.exited, "exit");
    check(w.exit_code == 137 && strcmp(w.reason, "OOMKilled") == 0, "killed by its memory limit (%d, %s)", w.exit_code,
          w.reason);
    shutdown_agent(0);
}

static void scenario_start_error(void)
{
    char *words[] = { (char *)(uintptr_t)"/no/such/program" };
    Runtime__V1__ContainerConfig config = RUNTIME__V1__CONTAINER_CONFIG__INIT;
    PB(CreateContainerRequest) request = INTERLINK__AGENT__V1__CREATE_CONTAINER_REQUEST__INIT;
    PB(StartContainerRequest) start_request = INTERLINK__AGENT__V1__START_CONTAINER_REQUEST__INIT;
    struct watcher w;

    begin();
    watch_events(&w);
    config.command = words;
    config.n_command = 1;
    request.id = start_request.id = id_of(1);
    request.config = &config;
    request.image = image();
    call_ok("CreateContainer", &request.base, &interlink__agent__v1__create_container_response__descriptor);
    struct answer a = call("StartContainer", &start_request.base, &interlink__agent__v1__start_container_response__descriptor);
    check(a.status.code == STATUS_NOT_FOUND, "start says NOT_FOUND: %s", a.status.message);
    turn_until(&w.exited, "StartError");
    check(w.exit_code == 128 && strcmp(w.reason, "StartError") == 0, "128, StartError");
    remove_container(1);
    shutdown_agent(0);
}

static void scenario_exec(void)
{
    static const char *const true_words[] = { "true" };
    static const char *const echo_words[] = { "/bin/sh", "-c", "echo $PATH; exit 6" };
    static const char *const hang_words[] = { "/bin/sh", "-c", "sleep 7777 & setsid sleep 7777 & (setsid sleep 7777 &) ; sleep 7777" };
    static const char *const zero_words[] = { "/bin/sh", "-c", "head -c 500000000 /dev/zero" };
    static const char *const none_words[] = { "/no/such/program" };
    enum { RUNS = 200 };
    int64_t us[RUNS];
    struct exec e;

    begin();
    create(1, "sleep 1000");
    start(1);
    exec_run(&e, 1, 0, echo_words, 3);
    check(e.exit_code == 6 && e.out.n == 5 && memcmp(e.out.p, "/bin\n", 5) == 0, "output and exit code of an exec (%s)", e.status.message);
    buf_free(&e.out);
    exec_run(&e, 1, 0, none_words, 1);
    check(e.status.code == STATUS_NOT_FOUND, "no such program: %s", e.status.message);
    for (int i = 0; i < RUNS; i++) {
        us[i] = now_us();
        exec_run(&e, 1, 0, true_words, 1);
        us[i] = now_us() - us[i];
        if (!e.exited || e.exit_code != 0)
            check(false, "exec true: %d %s", e.exit_code, e.status.message);
    }
    print_times("exec true", us, RUNS);
    int64_t begin_us = now_us();
    exec_run(&e, 1, 500, hang_words, 3);
    check(e.timed_out && e.exit_code == 137, "an exec over its time is killed");
    printf("     took %.1f ms over its time-out of 500 ms\n", (double)(now_us() - begin_us) / 1000 - 500);
    check(count_processes("sleep 7777") == 0, "and leaves no process");
    begin_us = now_us();
    exec_run(&e, 1, 0, zero_words, 3);
    check(e.bytes == 500000000, "500 MB come out of an exec");
    printf("     at %.0f MB/s\n", 500e6 / (double)(now_us() - begin_us));
    buf_free(&e.out);
    shutdown_agent(0);
}

static void scenario_cut(void)
{
    struct reader r = { .keep = true };
    unsigned cuts = 0;

    begin();
    create(1, "i=0; while [ $i -lt 60 ]; do seq $((i*5000+1)) $((i*5000+5000)); i=$((i+1)); done");
    start(1);
    srand(7);
    read_logs(&r, 1);
    while (!r.finished || !r.end) {
        loop_turn(t.loop, 50);
        if ((r.finished && !r.end) || (!r.finished && rand() % 60 == 0)) {
            drop_connection();
            cuts++;
            wait_connection();
            read_logs(&r, 1);
        }
    }
    check(r.jumps == 0, "no offset was skipped over %u cut connections", cuts);
    unsigned expected = 1;
    char *save = NULL;
    buf_append_byte(&r.text, 0);
    for (char *line = strtok_r((char *)r.text.p, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save))
        expected += strlen(line) > 40 && (unsigned)atoi(line + 40) == expected;
    check(expected == 300001, "every line came once and in order (%u)", expected - 1);
    check(cuts > 0 && t.connections == cuts + 1, "one connection at a time (%u)", t.connections);
    buf_free(&r.text);
    shutdown_agent(0);
}

static void scenario_refused(void)
{
    begin();
    create(1, "trap '' TERM; sleep 8888");
    start(1);
    t.refuse = true;
    drop_connection();
    turn_until(&t.agent_ended, "the agent's end");
    t.refuse = false;
    check(t.agent_status == 0, "an agent whose pod is unknown ends by itself with 0 (%d)", t.agent_status);
    check(count_processes("sleep 8888") == 0, "and its containers with it");
}

static void scenario_term(void)
{
    begin();
    create(1, "trap 'exit 0' TERM; while :; do sleep 0.02; done");
    start(1);
    create(2, "sleep 8889");
    turn_ms(100);
    int64_t began = now_us();
    kill(t.agent.pid, SIGTERM);
    turn_until(&t.agent_ended, "the agent's end");
    printf("     took %.1f ms\n", (double)(now_us() - began) / 1000);
    check(WIFEXITED(t.agent_status) && WEXITSTATUS(t.agent_status) == 143, "SIGTERM: containers stop, exit status 143 (%d)", t.agent_status);
    drop_connection();
}

static void scenario_killed(void)
{
    begin();
    create(1, "sleep 8890");
    start(1);
    check(count_processes("sleep 8890") > 0, "a container runs");
    kill(t.agent.pid, SIGKILL);
    turn_until(&t.agent_ended, "the agent's end");
    int64_t deadline = clock_mono_ms() + 3000;
    while (count_processes("sleep 8890") > 0 && clock_mono_ms() < deadline)
        turn_ms(20);
    check(count_processes("sleep 8890") == 0, "kill -9 of the agent takes its containers with it");
    drop_connection();
}

/* Layers sent over the connection, to a machine that sees no store. */
static void scenario_blobs(void)
{
    struct status err;
    cleanup_free char *tar = xasprintf("%s/layer.tar", t.work);
    cleanup_free char *command = xasprintf("tar -C %s -cf %s .", t.layer, tar);
    struct buf blob cleanup_buf = BUF_INIT;
    PB(MissingBlobsRequest) missing = INTERLINK__AGENT__V1__MISSING_BLOBS_REQUEST__INIT;
    PB(PutBlobRequest) put = INTERLINK__AGENT__V1__PUT_BLOB_REQUEST__INIT;
    char digest_text[72], config[512];
    struct exec e = { 0 };
    struct watcher w;

    if (system(command) != 0 || !file_read(tar, 1u << 30, &blob, &err))
        fatal("layer.tar", &err);
    br_sha256_context sha;
    uint8_t sum[32];
    br_sha256_init(&sha);
    br_sha256_update(&sha, blob.p, blob.n);
    br_sha256_out(&sha, sum);
    memcpy(digest_text, "sha256:", 7);
    hex_encode(sum, sizeof sum, digest_text + 7);
    PB(Image) from = *image();
    PB(Layer) layer = INTERLINK__AGENT__V1__LAYER__INIT, *layers[1] = { &layer };
    layer.digest = layer.diff_id = digest_text;
    from.layers = layers;
    from.config.data = (uint8_t *)config;
    from.config.len = (size_t)snprintf(config, sizeof config,
                                       "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Env\":[\"PATH=/bin\"]},\"rootfs\":"
                                       "{\"type\":\"layers\",\"diff_ids\":[\"%s\"]}}", digest_text);
    t.full_image = true;
    begin();
    t.full_image = false;
    missing.image = &from;
    struct answer a = call("MissingBlobs", &missing.base, &interlink__agent__v1__missing_blobs_response__descriptor);
    check(a.number == 1, "the layer is missing");
    a = create_from(1, &from, 0, "echo sent");
    check(a.status.code == STATUS_FAILED_PRECONDITION, "create without it: %s", a.status.message);
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/PutBlob", .output = &interlink__agent__v1__put_blob_response__descriptor,
        .on_finish = on_exec_finish, .arg = &e,
    };
    int64_t began = now_us();
    struct rpc_request *r = rpc_request_start(t.conn, &options);
    put.digest = digest_text;
    for (size_t at = 0; at < blob.n; at += put.data.len) {
        put.data.data = blob.p + at;
        put.data.len = blob.n - at < 100000 ? blob.n - at : 100000;
        rpc_request_send(r, &put.base);
        put.digest = (char *)(uintptr_t)"";
    }
    rpc_request_half_close(r);
    turn_until(&e.finished, "PutBlob");
    check(e.status.code == STATUS_OK, "PutBlob (%s)", e.status.message);
    printf("     %.1f MB at %.0f MB/s\n", (double)blob.n / 1e6, (double)blob.n / (double)(now_us() - began));
    watch_events(&w);
    a = create_from(1, &from, 0, "exit 5");
    check(a.status.code == STATUS_OK, "create with it (%s)", a.status.message);
    start(1);
    turn_until(&w.exited, "exit");
    check(w.exit_code == 5, "and it runs");
    shutdown_agent(0);
}

/* Many containers one after the other leave nothing. */
static void scenario_soak(void)
{
    enum { RUNS = 200 };
    int64_t created[RUNS], started[RUNS], removed[RUNS];
    cleanup_free char *containers = xasprintf("%s/job/containers", t.work);
    struct watcher w;

    begin();
    watch_events(&w);
    long before = 0;
    for (int i = 0; i < RUNS; i++) {
        created[i] = now_us();
        create((unsigned)i, "exit 0");
        created[i] = now_us() - created[i];
        w.exited = false;
        started[i] = now_us();
        start((unsigned)i);
        started[i] = now_us() - started[i];
        turn_until(&w.exited, "exit");
        removed[i] = now_us();
        remove_container((unsigned)i);
        removed[i] = now_us() - removed[i];
        if (i == 20)
            before = memory_of(child_of(t.agent.pid), false);
    }
    check(w.exits == RUNS, "%d containers have ended", RUNS);
    print_times("create", created, RUNS);
    print_times("start", started, RUNS);
    print_times("remove", removed, RUNS);
    long after = memory_of(child_of(t.agent.pid), false);
    check(after <= before + 256, "memory: %ld KiB after 20, %ld KiB after %d", before, after, RUNS);
    cleanup_free char *command = xasprintf("exit $(ls %s | wc -l)", containers);
    check(system(command) == 0, "no bundle is left");
    cleanup_free char *fds = xasprintf("exit $(ls /proc/%d/fd | wc -l)", child_of(t.agent.pid));
    int status = system(fds);
    check(WEXITSTATUS(status) < 20, "%d descriptors are open", WEXITSTATUS(status));
    shutdown_agent(0);
}

static void scenario_memory(void)
{
    begin();
    create(1, "trap 'exit 0' TERM; sleep 8891 & wait");
    start(1);
    turn_ms(2500);
    pid_t inner = child_of(t.agent.pid);
    long outer_kib = memory_of(t.agent.pid, false), inner_kib = memory_of(inner, false), cpu = cpu_of(inner);
    printf("     idle, one container: outer %ld KiB + agent %ld KiB = %ld KiB\n", outer_kib, inner_kib, outer_kib + inner_kib);
    turn_ms(3000);
    check(cpu_of(inner) == cpu, "an idle agent uses no CPU");
    shutdown_agent(5000);
}

/* Payload of 100-byte lines that arrives here. The layer has a program /bin/lines: BYTES, BYTES a write. */
static void scenario_bench(void)
{
    static const unsigned writes[] = { 4096, 65536 };
    const unsigned long long bytes = getenv("BYTES") != NULL ? strtoull(getenv("BYTES"), NULL, 10) : 1000000000;
    struct watcher w;

    begin();
    watch_events(&w);
    for (unsigned i = 0; i < COUNT_OF(writes); i++) {
        struct reader r = { 0 };
        char command[64];
        snprintf(command, sizeof command, "exec /bin/lines %llu %u", bytes, writes[i]);
        create(1 + i, command);
        w.exited = false;
        long cpu = cpu_of(child_of(t.agent.pid));
        int64_t began = now_us();
        clock_t ours = clock();
        start(1 + i);
        read_logs(&r, 1 + i);
        turn_until(&r.finished, "log");
        double seconds = (double)(now_us() - began) / 1e6;
        turn_until(&w.exited, "exit");
        check(r.position == bytes / 100 * 140 && r.jumps == 0, "%llu bytes in 100-byte lines, in writes of %u", bytes, writes[i]);
        printf("     %.0f MB/s; CPU of the agent %ld ms, of this node %ld ms; %zu messages; agent at most %ld KiB\n",
               (double)bytes / 1e6 / seconds, cpu_of(child_of(t.agent.pid)) - cpu, (long)((clock() - ours) * 1000 / CLOCKS_PER_SEC), r.chunks,
               memory_of(child_of(t.agent.pid), true));
        turn_ms(3500);
        printf("     quiet again: agent %ld KiB\n", memory_of(child_of(t.agent.pid), false));
    }
    shutdown_agent(0);
}

static const struct {
    const char *name;
    void (*run)(void);
    bool only_by_name;
} scenarios[] = {
    { "life", scenario_life, false },       { "start_error", scenario_start_error, false }, { "exec", scenario_exec, false },
    { "oom", scenario_oom, false },         { "cut", scenario_cut, false },                 { "refused", scenario_refused, false },
    { "term", scenario_term, false },       { "killed", scenario_killed, false },           { "blobs", scenario_blobs, false },
    { "soak", scenario_soak, false },       { "memory", scenario_memory, false },           { "bench", scenario_bench, true },
};

static bool wanted(int argc, char **argv, const char *name, bool only_by_name)
{
    for (int i = 3; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc == 3 && !only_by_name;
}

int main(int argc, char **argv)
{
    struct status err;

    if (argc == 2 && strcmp(argv[1], "agent") == 0)
        return agent_main(argc, argv);
    if (argc < 3) {
        fprintf(stderr, "usage: node_main WORK_DIR LAYER_DIR [SCENARIO...]\n");
        return 2;
    }
    t.work = argv[1];
    t.layer = argv[2];
    ssize_t n = readlink("/proc/self/exe", t.program, sizeof t.program - 1);
    if (getenv("AGENT") != NULL)
        snprintf(t.program, sizeof t.program, "%s", getenv("AGENT"));
    cleanup_free char *layers = xasprintf("%s/store/layers", t.work), *link_path = xasprintf("%s/" LAYER_HEX, layers);
    cleanup_free char *relay = xasprintf("%s/relay", t.work);
    signal(SIGPIPE, SIG_IGN);
    t.loop = loop_new(&err);
    if (n < 0 || t.loop == NULL || !child_reaper_start(t.loop, NULL, NULL, &err) || !tree_remove(t.work, &err) ||
        !dir_make(layers, 0700, &err) || !dir_make(relay, 0700, &err) || symlink(t.layer, link_path) < 0)
        fatal("set-up", &err);
    start_relay();
    for (size_t i = 0; i < COUNT_OF(scenarios); i++) {
        if (!wanted(argc, argv, scenarios[i].name, scenarios[i].only_by_name))
            continue;
        printf("-- %s\n", scenarios[i].name);
        scenarios[i].run();
    }
    relay_free(t.relay);
    tls_identity_free(t.identity);
    loop_free(t.loop);
    if (t.failures == 0 && !tree_remove(t.work, &err))
        fatal("something is left in the work folder", &err);
    printf("%d checks, %d failures\n", t.checks, t.failures);
    return t.failures == 0 ? 0 : 1;
}
