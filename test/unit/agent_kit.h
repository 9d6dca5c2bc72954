/* SPDX-License-Identifier: Apache-2.0 */
/* agent_kit.h: an agent without a machine: a fake engine that runs plain processes, and a node on the other end of a socket
 * pair, both on one loop. Included by one test program at a time. */
#ifndef TEST_AGENT_KIT_H
#define TEST_AGENT_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/agent_container.h"
#include "agent/agent_context.h"
#include "agent/terminal.h"
#include "agent/usage.h"
#include "base/base.h"
#include "io/child.h"
#include "io/file.h"
#include "rpc/rpc.h"

#include "agent.pb-c.h"

#define PB(name) Interlink__Agent__V1__##name
#define KIT_TIMEOUT_MS 20000

/* ---- the engine ---- */
struct engine {
    int start_delay_ms; /* the worker answers this much after the process has begun */
    bool refuse;
    const struct usage *usage; /* what the cgroups say, of each container and of the pod; NULL: there are none */
};
static struct engine kit_engine;

static void kit_sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

struct engine *engine_new(const struct engine_options *options, char reason[ENGINE_REASON_SIZE], struct status *err)
{
    (void)options;
    (void)err;
    reason[0] = '\0';
    return &kit_engine;
}

void engine_free(struct engine *engine)
{
    (void)engine;
}

const char *engine_name(const struct engine *engine)
{
    (void)engine;
    return "host";
}

const char *engine_cgroups(const struct engine *engine)
{
    return engine->usage != NULL ? "v2" : "none";
}

bool engine_rootless(const struct engine *engine)
{
    (void)engine;
    return true;
}

void engine_features(const struct engine *engine, Interlink__Agent__V1__Features *out)
{
    (void)engine;
    interlink__agent__v1__features__init(out);
    out->recursive_read_only_mounts = true;
}

const char *engine_probe(const struct engine_options *options, Interlink__Agent__V1__Features *out, char reason[ENGINE_REASON_SIZE],
                         struct status *err)
{
    (void)options;
    (void)err;
    reason[0] = '\0';
    engine_features(&kit_engine, out);
    return "host";
}

bool engine_configure(struct engine *engine, const Runtime__V1__PodSandboxConfig *sandbox, struct status *err)
{
    (void)engine;
    return strcmp(sandbox->hostname, "bad name") != 0 || status_set(err, STATUS_INVALID_ARGUMENT, "hostname: no");
}

/* Where mounts come from, for the tests to read. */
static bool kit_write_sources(const struct engine_create *c, struct status *err)
{
    cleanup_free char *path = xasprintf("%s/sources", c->bundle);
    cleanup_buf struct buf text = BUF_INIT;

    for (size_t i = 0; c->sources != NULL && i < c->config->n_mounts; i++) {
        const struct engine_source *s = &c->sources[i];
        buf_printf(&text, "%zu: '%s'%s%s%s\n", i, s->path, s->in_job ? " job" : "", s->create ? " create" : "", s->fd >= 0 ? " fd" : "");
    }
    return file_replace(path, text.p, text.n, 0600, err);
}

/* The command, a word a line, is all that a container of this engine is. */
bool engine_create(struct engine *engine, const struct engine_create *c, struct engine_created *out, struct status *err)
{
    cleanup_free char *path = xasprintf("%s/argv", c->bundle);
    cleanup_buf struct buf text = BUF_INIT;

    if (engine->refuse)
        return status_set(err, STATUS_FAILED_PRECONDITION, "linux.security_context.run_as_user: no such luck");
    for (size_t i = 0; i < c->config->n_command; i++)
        buf_printf(&text, "%s\n", c->config->command[i]);
    *out = (struct engine_created){ .uid = 1000, .gid = 2000, .groups = { 3000, 4000 }, .group_count = 2, .note = "a note" };
    return kit_write_sources(c, err) && file_replace(path, text.p, text.n, 0600, err);
}

static bool kit_run(const char *const *argv, const struct engine_stdio *io, pid_t *pid, struct status *err)
{
    int error[2], number = 0;

    if (pipe2(error, O_CLOEXEC) < 0)
        return status_errno(err, "pipe");
    *pid = fork();
    if (*pid == 0) {
        int null = open("/dev/null", O_RDWR);
        setsid();
        if (io->tty) {
            terminal_take(io->terminal_fd, io->width, io->height, getuid());
        } else {
            dup2(io->in >= 0 ? io->in : null, 0);
            dup2(io->out >= 0 ? io->out : null, 1);
            dup2(io->err >= 0 ? io->err : null, 2);
        }
        child_close_fds_except(&error[1], 1);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        number = errno;
        ssize_t ignored UNUSED = write(error[1], &number, sizeof number);
        _exit(127);
    }
    close(error[1]);
    ssize_t n = read(error[0], &number, sizeof number);
    close(error[0]);
    if (n == (ssize_t)sizeof number) {
        waitpid(*pid, NULL, 0);
        errno = number;
        return status_errno(err, "cannot execute \"%s\"", argv[0]);
    }
    return true;
}

bool engine_start(struct engine *engine, const char *id, const char *bundle, const struct engine_stdio *io, pid_t *pid,
                  struct status *err)
{
    cleanup_free char *path = xasprintf("%s/argv", bundle);
    cleanup_buf struct buf text = BUF_INIT;
    const char *argv[64] = { NULL };
    size_t count = 0;

    (void)id;
    if (!file_read(path, 65536, &text, err))
        return false;
    for (char *word = strtok((char *)(uintptr_t)buf_cstr(&text), "\n"); word != NULL; word = strtok(NULL, "\n"))
        argv[count++] = word;
    cleanup_free char *pid_path = xasprintf("%s/pid", bundle);
    bool ok = kit_run(argv, io, pid, err) && file_replace(pid_path, pid, sizeof *pid, 0600, err);
    kit_sleep_ms(engine->start_delay_ms);
    return ok;
}

bool engine_exec(struct engine *engine, const char *id, const char *bundle, pid_t init, const char *const *argv,
                 const struct engine_stdio *io, pid_t *pid, struct status *err)
{
    (void)id;
    (void)bundle;
    if (kill(init, 0) < 0)
        return status_errno(err, "container");
    bool ok = kit_run(argv, io, pid, err);
    kit_sleep_ms(engine->start_delay_ms);
    return ok;
}

int engine_terminal(int socket_fd, struct status *err)
{
    int fd = terminal_receive(socket_fd);

    if (fd < 0)
        status_errno(err, "no terminal");
    else
        fd_set_nonblocking(fd, true);
    return fd;
}

bool engine_signal(struct engine *engine, const char *id, const char *bundle, pid_t init, int signal, bool all,
                   struct status *err)
{
    cleanup_free char *path = xasprintf("%s/pid", bundle);
    cleanup_buf struct buf pid = BUF_INIT;

    (void)engine;
    (void)id;
    if (init > 0)
        kill(init, signal);
    if (all && file_read(path, sizeof(pid_t), &pid, err)) {
        pid_t group;
        memcpy(&group, pid.p, sizeof group);
        kill(-group, signal);
    }
    return true;
}

bool engine_oom_killed(const struct engine *engine, const char *id, const char *bundle)
{
    cleanup_free char *path = xasprintf("%s/oom", bundle);

    (void)engine;
    (void)id;
    return access(path, F_OK) == 0;
}

/* The limits become a file of the bundle. */
bool engine_update(struct engine *engine, const char *id, const char *bundle, const Runtime__V1__LinuxContainerResources *r,
                   struct status *err)
{
    cleanup_free char *path = xasprintf("%s/limit", bundle);
    cleanup_buf struct buf text = BUF_INIT;

    (void)id;
    kit_sleep_ms(engine->start_delay_ms);
    buf_printf(&text, "%" PRId64, r->memory_limit_in_bytes);
    return r->memory_limit_in_bytes > 1000
               ? file_replace(path, text.p, text.n, 0600, err)
               : status_set(err, STATUS_FAILED_PRECONDITION, "linux.memory_limit_in_bytes: the container uses more than that");
}

bool engine_update_pod(struct engine *engine, const Runtime__V1__LinuxContainerResources *overhead,
                       const Runtime__V1__LinuxContainerResources *resources, struct status *err)
{
    (void)engine;
    return overhead != NULL && resources != NULL && overhead->cpu_shares == 1 && resources->cpu_shares == 2
               ? true
               : status_set(err, STATUS_FAILED_PRECONDITION, "resources.cpu_shares: no");
}

bool engine_remove(struct engine *engine, const char *id, const char *bundle, struct status *err)
{
    (void)engine;
    (void)id;
    return tree_remove(bundle, err);
}

bool engine_usage(const struct engine *engine, const char *id, bool counters, struct usage *u)
{
    (void)id;
    (void)counters;
    if (engine->usage != NULL)
        *u = *engine->usage;
    return engine->usage != NULL;
}

bool engine_pod_usage(const struct engine *engine, const char *pod_uid, struct usage *u)
{
    return engine_usage(engine, pod_uid, false, u);
}

uint64_t engine_oom_kills(const struct engine *engine, const char *id)
{
    (void)id;
    return engine->usage != NULL ? engine->usage->oom_kills : USAGE_UNKNOWN;
}

size_t engine_pids(const struct engine *engine, const char *id, const char *bundle, pid_t *pids, size_t max)
{
    cleanup_free char *path = xasprintf("%s/pid", bundle);
    cleanup_buf struct buf pid = BUF_INIT;
    struct status ignored;

    (void)engine;
    (void)id;
    if (max == 0 || !file_read(path, sizeof(pid_t), &pid, &ignored))
        return 0;
    memcpy(pids, pid.p, sizeof(pid_t));
    return 1;
}

/* Tests that want a layer make it. */
char *engine_layer(const struct engine *engine, const char *bundle)
{
    cleanup_free char *path = xasprintf("%s/upper", bundle);

    (void)engine;
    return access(path, F_OK) == 0 ? steal_ptr(&path) : NULL;
}

/* ---- agent and node ---- */
struct kit {
    struct agent agent;
    struct rpc_service service;
    const struct rpc_service *list[1];
    struct rpc_services services;
    struct rpc_conn *server, *client;
    char dir[64];
    bool ended;
};
static struct kit *kit;

static void kit_on_close(void *arg, const struct status *err)
{
    struct rpc_conn **conn = arg;

    (void)err;
    rpc_conn_free(*conn);
    *conn = NULL;
}

static void kit_on_orphan(void *arg, pid_t pid, int wait_status)
{
    (void)arg;
    agent_orphans_add(&kit->agent.orphans, pid, wait_status);
}

static void kit_on_ended(void *arg)
{
    (void)arg;
    kit->ended = true;
}

UNUSED static void kit_connect(void)
{
    struct status err;
    int fds[2];
    struct rpc_conn_options server = { .services = &kit->services, .on_close = kit_on_close, .arg = &kit->server };
    struct rpc_conn_options client = { .on_close = kit_on_close, .arg = &kit->client };

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    kit->server = rpc_conn_new(kit->agent.loop, stream_of_fd(kit->agent.loop, fds[0], &err), &server, STR(""));
    kit->client = rpc_conn_new(kit->agent.loop, stream_of_fd(kit->agent.loop, fds[1], &err), &client, STR(""));
}

UNUSED static void kit_disconnect(void)
{
    rpc_conn_free(kit->client);
    kit->client = NULL;
    rpc_conn_free(kit->server);
    kit->server = NULL;
}

UNUSED static int kit_setup(void **state)
{
    struct status err;

    (void)state;
    log_setup(LOG_ERROR, "agent");
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    kit_engine = (struct engine){ 0 };
    kit = xcalloc(1, sizeof *kit);
    snprintf(kit->dir, sizeof kit->dir, "/tmp/agent-kit-XXXXXX");
    assert_non_null(mkdtemp(kit->dir));
    kit->agent.loop = loop_new(&err);
    kit->agent.job_dir = xstrdup(kit->dir);
    kit->agent.images_dir = xstrdup("");
    kit->agent.machine_name = xstrdup("machine");
    kit->agent.engine = &kit_engine;
    kit->agent.ending.on_done = kit_on_ended;
    agent_events_init(&kit->agent.events);
    agent_ports_init(&kit->agent.ports);
    list_init(&kit->agent.intakes);
    agent_stats_init(&kit->agent.stats);
    assert_true(child_reaper_start(kit->agent.loop, kit_on_orphan, NULL, &err));
    agent_service(&kit->agent, &kit->service);
    kit->list[0] = &kit->service;
    kit->services = (struct rpc_services){ .services = kit->list, .count = 1 };
    kit_connect();
    return 0;
}

UNUSED static int kit_teardown(void **state)
{
    struct status err;

    (void)state;
    /* Whatever the test left behind ends with the pod. */
    int64_t deadline = clock_mono_ms() + KIT_TIMEOUT_MS;
    agent_ending_start(&kit->agent, 0, NULL);
    while (!kit->ended && clock_mono_ms() < deadline)
        loop_turn(kit->agent.loop, 100);
    assert_true(kit->ended);
    assert_int_equal(kit->agent.containers.count, 0);
    kit_disconnect();
    while (kit->agent.exec_count + kit->agent.attach_count > 0 && clock_mono_ms() < deadline)
        loop_turn(kit->agent.loop, 100);
    assert_int_equal(kit->agent.exec_count, 0);
    assert_int_equal(kit->agent.attach_count, 0);
    assert_int_equal(kit->agent.intake_count, 0);
    agent_ending_cancel(&kit->agent);
    timer_stop(&kit->agent.settle);
    agent_stats_free(&kit->agent);
    agent_events_free(&kit->agent.events);
    agent_ports_free(&kit->agent);
    agent_files_free(&kit->agent);
    strmap_free(&kit->agent.containers);
    if (kit->agent.sandbox != NULL)
        protobuf_c_message_free_unpacked(&kit->agent.sandbox->base, NULL);
    free(kit->agent.job_dir);
    free(kit->agent.images_dir);
    free(kit->agent.machine_name);
    loop_free(kit->agent.loop);
    assert_true(tree_remove(kit->dir, &err));
    free(kit);
    /* No process is left; those that were killed a moment ago may need one more. */
    deadline = clock_mono_ms() + 1000;
    while (waitpid(-1, NULL, WNOHANG) >= 0 && clock_mono_ms() < deadline)
        kit_sleep_ms(1);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    return 0;
}

/* ---- calls ---- */
struct kit_answer {
    bool done;
    struct status status;
    ProtobufCMessage *response; /* owned; NULL on failure */
};

static void kit_on_answer(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct kit_answer *a = arg;

    a->done = true;
    a->status = *status;
    if (response == NULL)
        return;
    size_t n = protobuf_c_message_get_packed_size(response);
    cleanup_free uint8_t *packed = xmalloc(n + 1);
    protobuf_c_message_pack(response, packed);
    a->response = protobuf_c_message_unpack(response->descriptor, NULL, n, packed);
}

UNUSED static void kit_turn_until(const bool *condition)
{
    int64_t deadline = clock_mono_ms() + KIT_TIMEOUT_MS;

    while (!*condition && clock_mono_ms() < deadline)
        loop_turn(kit->agent.loop, 100);
    assert_true(*condition);
}

UNUSED static void kit_turn_ms(int64_t ms)
{
    int64_t deadline = clock_mono_ms() + ms;

    while (clock_mono_ms() < deadline)
        loop_turn(kit->agent.loop, (int)(deadline - clock_mono_ms()));
}

UNUSED static void kit_ask(struct kit_answer *a, const char *method, const ProtobufCMessage *request,
                           const ProtobufCMessageDescriptor *output)
{
    char path[128];

    *a = (struct kit_answer){ 0 };
    snprintf(path, sizeof path, "/interlink.agent.v1.Agent/%s", method);
    rpc_unary(kit->client, path, request, output, 0, kit_on_answer, a);
}

UNUSED static struct kit_answer kit_call(const char *method, const ProtobufCMessage *request,
                                         const ProtobufCMessageDescriptor *output)
{
    struct kit_answer a;

    kit_ask(&a, method, request, output);
    kit_turn_until(&a.done);
    return a;
}

UNUSED static void kit_answer_free(struct kit_answer *a)
{
    if (a->response != NULL)
        protobuf_c_message_free_unpacked(a->response, NULL);
    a->response = NULL;
}

/* A call of which only the code counts. */
UNUSED static enum status_code kit_code(const char *method, const ProtobufCMessage *request,
                                        const ProtobufCMessageDescriptor *output)
{
    struct kit_answer a = kit_call(method, request, output);

    kit_answer_free(&a);
    return a.status.code;
}

UNUSED static enum status_code kit_configure(void)
{
    Runtime__V1__PodSandboxConfig sandbox = RUNTIME__V1__POD_SANDBOX_CONFIG__INIT;
    PB(ConfigureSandboxRequest) request = INTERLINK__AGENT__V1__CONFIGURE_SANDBOX_REQUEST__INIT;

    request.config = &sandbox;
    return kit_code("ConfigureSandbox", &request.base, &interlink__agent__v1__configure_sandbox_response__descriptor);
}

/* Ids of 64 digits out of a number. */
static char *kit_id(unsigned number)
{
    static char ids[8][ID_LENGTH + 1];
    static unsigned next;
    char *id = ids[next++ % 8];

    snprintf(id, ID_LENGTH + 1, "%064x", number);
    return id;
}

/* `flags`: 't' terminal, 'i' standard input, '1' stdin_once. */
UNUSED static struct kit_answer kit_create(unsigned number, const char *flags, const char *command)
{
    char *words[] = { (char *)(uintptr_t)"/bin/sh", (char *)(uintptr_t)"-c", (char *)(uintptr_t)command };
    Runtime__V1__ContainerConfig config = RUNTIME__V1__CONTAINER_CONFIG__INIT;
    PB(CreateContainerRequest) request = INTERLINK__AGENT__V1__CREATE_CONTAINER_REQUEST__INIT;

    request.id = kit_id(number);
    request.config = &config;
    config.tty = strchr(flags, 't') != NULL;
    config.stdin = strchr(flags, 'i') != NULL;
    config.stdin_once = strchr(flags, '1') != NULL;
    config.command = words;
    config.n_command = 3;
    return kit_call("CreateContainer", &request.base, &interlink__agent__v1__create_container_response__descriptor);
}

UNUSED static struct kit_answer kit_start(unsigned number)
{
    PB(StartContainerRequest) request = INTERLINK__AGENT__V1__START_CONTAINER_REQUEST__INIT;

    request.id = kit_id(number);
    return kit_call("StartContainer", &request.base, &interlink__agent__v1__start_container_response__descriptor);
}

UNUSED static enum status_code kit_signal(unsigned number, int signal_number)
{
    PB(SignalContainerRequest) request = INTERLINK__AGENT__V1__SIGNAL_CONTAINER_REQUEST__INIT;

    request.id = kit_id(number);
    request.signal = signal_number;
    return kit_code("SignalContainer", &request.base, &interlink__agent__v1__signal_container_response__descriptor);
}

UNUSED static enum status_code kit_remove(unsigned number)
{
    PB(RemoveContainerRequest) request = INTERLINK__AGENT__V1__REMOVE_CONTAINER_REQUEST__INIT;

    request.id = kit_id(number);
    return kit_code("RemoveContainer", &request.base, &interlink__agent__v1__remove_container_response__descriptor);
}

/* Creates and starts `sh -c command`. */
UNUSED static void kit_run_container_with(unsigned number, const char *flags, const char *command)
{
    struct kit_answer a = kit_create(number, flags, command);

    assert_int_equal(a.status.code, STATUS_OK);
    kit_answer_free(&a);
    a = kit_start(number);
    assert_int_equal(a.status.code, STATUS_OK);
    kit_answer_free(&a);
}

UNUSED static void kit_run_container(unsigned number, const char *command)
{
    kit_run_container_with(number, "", command);
}

UNUSED static struct agent_container *kit_container(unsigned number)
{
    return strmap_get(&kit->agent.containers, kit_id(number));
}

UNUSED static void kit_wait_state(unsigned number, enum agent_container_state state)
{
    int64_t deadline = clock_mono_ms() + KIT_TIMEOUT_MS;

    while (kit_container(number)->state != state && clock_mono_ms() < deadline)
        loop_turn(kit->agent.loop, 100);
    assert_int_equal(kit_container(number)->state, state);
}

#endif
