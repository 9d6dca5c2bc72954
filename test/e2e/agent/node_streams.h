/* SPDX-License-Identifier: Apache-2.0 */
/* node_streams.h: scenarios of Attach, PortForward and the updates, and how fast streams are. */
#ifndef TEST_NODE_STREAMS_H
#define TEST_NODE_STREAMS_H

#include "node.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

/* ---- attach ---- */

static void create_streams(unsigned number, const char *flags, const char *command)
{
    struct answer a = create_with(number, image(), flags, 0, command);

    check(a.status.code == STATUS_OK, "create: %s", a.status.message);
    start(number);
}

static struct rpc_request *attach(struct exec *e, unsigned number, bool with_stdin)
{
    PB(AttachStart) start_message = INTERLINK__AGENT__V1__ATTACH_START__INIT;
    PB(ExecRequest) request = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/Attach", .output = &interlink__agent__v1__exec_response__descriptor,
        .on_message = on_exec_message, .on_finish = on_exec_finish, .arg = e,
    };

    *e = (struct exec){ 0 };
    struct rpc_request *r = rpc_request_start(t.conn, &options);
    start_message.container_id = id_of(number);
    start_message.stdin = with_stdin;
    start_message.stdout = start_message.stderr = true;
    request.attach = &start_message;
    rpc_request_send(r, &request.base);
    return r;
}

static bool type(struct rpc_request *r, const void *text, size_t n)
{
    PB(ExecRequest) request = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;

    request.stdin.data = (uint8_t *)(uintptr_t)text;
    request.stdin.len = n;
    return rpc_request_send(r, &request.base);
}

static void wait_output(const struct exec *e, const char *text)
{
    int64_t deadline = clock_mono_ms() + WAIT_MS;

    while (e->out.n < strlen(text) && clock_mono_ms() < deadline)
        loop_turn(t.loop, 100);
    check(e->out.n == strlen(text) && memcmp(e->out.p, text, e->out.n) == 0, "output \"%.*s\"", (int)e->out.n, (char *)e->out.p);
}

static void scenario_attach(void)
{
    struct exec a, b;
    struct watcher w;

    begin();
    watch_events(&w);
    create_streams(1, "i1", "exec sh");
    struct rpc_request *r = attach(&a, 1, true);
    type(r, "echo hello\n", 11);
    wait_output(&a, "hello\n");
    rpc_request_half_close(r);
    turn_until(&a.finished, "attach");
    check(a.exited && a.exit_code == 0, "a shell ends with its first client's input (%d, %s)", a.exit_code, a.status.message);
    buf_free(&a.out);
    turn_until(&w.exited, "exit");
    /* A terminal, left and taken up again. */
    w.exited = false;
    create_streams(2, "ti1", "stty -echo 2>/dev/null; read x; echo one $x; read x; echo two $x; exit 4");
    r = attach(&a, 2, true);
    turn_ms(100);
    type(r, "1\n", 2);
    int64_t deadline = clock_mono_ms() + WAIT_MS;
    while (a.out.n < strlen("one 1\r\n") && clock_mono_ms() < deadline)
        loop_turn(t.loop, 100);
    rpc_request_cancel(r);
    buf_free(&a.out);
    turn_ms(100);
    struct rpc_request *second = attach(&b, 2, false);
    r = attach(&a, 2, true);
    turn_ms(100);
    type(r, "2\n", 2);
    turn_until(&a.finished, "attach");
    turn_until(&b.finished, "attach");
    (void)second;
    check(a.exit_code == 4 && b.exit_code == 4, "both clients hear of the end");
    check(a.out.n == b.out.n && a.out.n >= 7 && memcmp(a.out.p + a.out.n - 7, "two 2\r\n", 7) == 0, "and see the same: %.*s",
          (int)a.out.n, (char *)a.out.p);
    buf_free(&a.out);
    buf_free(&b.out);
    shutdown_agent(0);
}

/* ---- update ---- */

static struct answer update(unsigned number, const Runtime__V1__LinuxContainerResources *resources)
{
    PB(UpdateContainerRequest) request = INTERLINK__AGENT__V1__UPDATE_CONTAINER_REQUEST__INIT;

    request.id = id_of(number);
    request.resources = (Runtime__V1__LinuxContainerResources *)(uintptr_t)resources;
    return call("UpdateContainer", &request.base, &interlink__agent__v1__update_container_response__descriptor);
}

/* What a file of the container's cgroup holds (v1), or of the pod's (number 0). */
static bool cgroup_holds(const char *controller, unsigned number, const char *file, const char *text)
{
    cleanup_free char *path = xasprintf("/sys/fs/cgroup/%s/interlink-cri/" SANDBOX "/%s%s%s", controller,
                                        number > 0 ? id_of(number) : "", number > 0 ? "/" : "", file);
    struct buf content cleanup_buf = BUF_INIT;
    struct status err = STATUS_INIT;

    if (!file_read(path, 4096, &content, &err) || content.n == 0)
        return false;
    content.p[content.n - 1] = '\0';
    if (strcmp((char *)content.p, text) != 0)
        printf("     %s: %s\n", path, (char *)content.p);
    return strcmp((char *)content.p, text) == 0;
}

static void scenario_update(void)
{
    static const char *const score_words[] = { "cat", "/proc/1/oom_score_adj", "/proc/self/oom_score_adj" };
    Runtime__V1__LinuxContainerResources r = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    PB(UpdateSandboxRequest) pod = INTERLINK__AGENT__V1__UPDATE_SANDBOX_REQUEST__INIT;
    struct exec e;
    bool v1 = access("/sys/fs/cgroup/memory/memory.limit_in_bytes", F_OK) == 0 && getuid() == 0;

    begin();
    create(1, "x=$(head -c 30000000 /dev/zero | tr '\\0' x); echo ready; sleep 8892; echo $x");
    start(1);
    create(2, "cat /proc/self/oom_score_adj; sleep 8893");
    r.oom_score_adj = 500;
    struct answer a = update(2, &r);
    check(a.status.code == STATUS_OK, "a container that has not started: %s", a.status.message);
    start(2);
    struct reader log = { .keep = true };
    read_logs(&log, 2);
    int64_t deadline = clock_mono_ms() + WAIT_MS;
    while (log.text.n == 0 && clock_mono_ms() < deadline)
        loop_turn(t.loop, 100);
    check(memmem(log.text.p, log.text.n, " 500\n", 5) != NULL, "starts with the new oom_score_adj");
    r.oom_score_adj = 600;
    a = update(2, &r);
    check(a.status.code == STATUS_OK, "raised while it runs: %s", a.status.message);
    exec_run(&e, 2, 0, score_words, 3);
    check(e.out.n == 8 && memcmp(e.out.p, "600\n600\n", 8) == 0, "for what runs and what comes: %.*s", (int)e.out.n, (char *)e.out.p);
    buf_free(&e.out);
    r.oom_score_adj = -999;
    a = update(2, &r);
    check(a.status.code == STATUS_OK, "lowered as far as may be: %s", a.status.message);
    r.oom_score_adj = 5000;
    a = update(2, &r);
    check(a.status.code == STATUS_INVALID_ARGUMENT, "too much: %s", a.status.message);
    r.oom_score_adj = 0;
    r.cpu_shares = 2048;
    r.cpu_quota = 20000;
    r.cpu_period = 50000;
    r.memory_limit_in_bytes = 256 << 20;
    r.cpuset_cpus = (char *)(uintptr_t)"0";
    a = update(1, &r);
    if (!v1) {
        check(a.status.code == STATUS_OK || (a.status.code == STATUS_FAILED_PRECONDITION && str_starts(a.status.message, "linux.")),
              "limits where there may be none: %s", a.status.message);
        shutdown_agent(0);
        return;
    }
    check(a.status.code == STATUS_OK, "new limits: %s", a.status.message);
    check(cgroup_holds("cpu", 1, "cpu.shares", "2048") && cgroup_holds("cpu", 1, "cpu.cfs_quota_us", "20000") &&
              cgroup_holds("cpu", 1, "cpu.cfs_period_us", "50000") &&
              cgroup_holds("memory", 1, "memory.limit_in_bytes", "268435456") && cgroup_holds("cpuset", 1, "cpuset.cpus", "0"),
          "they are in force");
    exec_run(&e, 1, 0, (const char *const[]){ "cat", "/proc/1/cgroup" }, 2);
    check(memmem(e.out.p, e.out.n, "cpuset:/interlink-cri/", 22) != NULL, "its processes are in the new group");
    buf_free(&e.out);
    /* One cannot be, so none is. */
    r.cpu_shares = 4096;
    r.cpu_quota = 30000;
    r.memory_limit_in_bytes = 1 << 20;
    a = update(1, &r);
    check(a.status.code == STATUS_FAILED_PRECONDITION && strstr(a.status.message, "linux.memory_limit_in_bytes: the container uses more") != NULL,
          "less memory than it uses: %s", a.status.message);
    r.memory_limit_in_bytes = 512 << 20;
    r.cpuset_cpus = (char *)(uintptr_t)"9999";
    a = update(1, &r);
    check(a.status.code == STATUS_FAILED_PRECONDITION && str_starts(a.status.message, "linux.cpuset_cpus: "), "no such processor: %s",
          a.status.message);
    check(cgroup_holds("cpu", 1, "cpu.shares", "2048") && cgroup_holds("cpu", 1, "cpu.cfs_quota_us", "20000") &&
              cgroup_holds("memory", 1, "memory.limit_in_bytes", "268435456"),
          "the limits are as before");
    /* The pod's. */
    Runtime__V1__LinuxContainerResources overhead = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    runtime__v1__linux_container_resources__init(&r);
    pod.overhead = &overhead;
    pod.resources = &r;
    overhead.cpu_shares = 24;
    r.cpu_shares = 1000;
    overhead.memory_limit_in_bytes = 1 << 20;
    r.memory_limit_in_bytes = 1 << 30;
    a = call("UpdateSandbox", &pod.base, &interlink__agent__v1__update_sandbox_response__descriptor);
    check(a.status.code == STATUS_OK, "the pod's limits: %s", a.status.message);
    check(cgroup_holds("cpu", 0, "cpu.shares", "1024") && cgroup_holds("memory", 0, "memory.limit_in_bytes", "1074790400"),
          "they are in force");
    buf_free(&log.text);
    shutdown_agent(0);
}

/* ---- port-forward ---- */
struct forward {
    struct rpc_request *request;
    bool connected, end, finished, blocked;
    uint64_t bytes;
    struct status status;
};

static void on_forward_message(void *arg, const ProtobufCMessage *message)
{
    struct forward *f = arg;
    const PB(PortForwardResponse) *response = (const void *)message;

    f->connected = f->connected || response->connected;
    f->end = response->end != 0;
    f->bytes += response->data.len;
}

static void on_forward_writable(void *arg)
{
    struct forward *f = arg;

    f->blocked = false;
}

static void on_forward_finish(void *arg, const struct status *status)
{
    struct forward *f = arg;

    f->finished = true;
    f->request = NULL;
    f->status = *status;
}

static void forward(struct forward *f, uint32_t port)
{
    PB(PortForwardStart) start_message = INTERLINK__AGENT__V1__PORT_FORWARD_START__INIT;
    PB(PortForwardRequest) request = INTERLINK__AGENT__V1__PORT_FORWARD_REQUEST__INIT;
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/PortForward", .output = &interlink__agent__v1__port_forward_response__descriptor,
        .on_message = on_forward_message, .on_writable = on_forward_writable, .on_finish = on_forward_finish, .arg = f,
    };

    *f = (struct forward){ 0 };
    f->request = rpc_request_start(t.conn, &options);
    start_message.port = port;
    request.start = &start_message;
    rpc_request_send(f->request, &request.base);
}

/* Sends `bytes` and half-closes. */
static void forward_send(struct forward *f, uint64_t bytes)
{
    static uint8_t block[256 << 10];
    PB(PortForwardRequest) request = INTERLINK__AGENT__V1__PORT_FORWARD_REQUEST__INIT;

    while (bytes > 0 && f->request != NULL) {
        request.data.data = block;
        request.data.len = bytes < sizeof block ? (size_t)bytes : sizeof block;
        bytes -= request.data.len;
        f->blocked = !rpc_request_send(f->request, &request.base);
        while (f->blocked && f->request != NULL)
            loop_turn(t.loop, 100);
    }
    if (f->request != NULL)
        rpc_request_half_close(f->request);
}

/* A server in a process of its own: answers each connection with `bytes` and what it counted. */
static pid_t serve(uint64_t bytes, uint16_t *port)
{
    static uint8_t block[256 << 10];
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 100) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &n) < 0)
        return -1;
    *port = ntohs(address.sin_port);
    pid_t pid = fork();
    if (pid != 0) {
        close(fd);
        return pid;
    }
    for (;;) {
        int c = accept(fd, NULL, NULL);
        if (c < 0)
            _exit(1);
        while (read(c, block, sizeof block) > 0)
            ;
        for (uint64_t left = bytes; left > 0;) {
            ssize_t done = write(c, block, left < sizeof block ? (size_t)left : sizeof block);
            if (done <= 0)
                break;
            left -= (uint64_t)done;
        }
        close(c);
    }
}

static void scenario_forward(void)
{
    struct forward many[10], f;
    uint16_t port = 0;
    pid_t server = serve(1000000, &port);

    begin();
    for (size_t i = 0; i < COUNT_OF(many); i++)
        forward(&many[i], port);
    for (size_t i = 0; i < COUNT_OF(many); i++) {
        forward_send(&many[i], 500000);
        turn_until(&many[i].finished, "port-forward");
        if (many[i].status.code != STATUS_OK || !many[i].end || many[i].bytes != 1000000)
            check(false, "connection %zu: %s, %" PRIu64 " bytes", i, many[i].status.message, many[i].bytes);
    }
    check(true, "ten connections, both ways, each way ended by itself");
    kill(server, SIGKILL);
    turn_ms(50);
    forward(&f, port);
    turn_until(&f.finished, "port-forward");
    check(f.status.code == STATUS_FAILED_PRECONDITION && strstr(f.status.message, "connection refused on 127.0.0.1") != NULL,
          "nothing listens: %s", f.status.message);
    shutdown_agent(0);
}

/* ---- how fast ---- */

static void print_rate(const char *what, uint64_t bytes, int64_t began_us, long agent_ms, clock_t ours)
{
    printf("     %s: %.0f MB/s; CPU for a GB: agent %.0f ms, this node %.0f ms\n", what,
           (double)bytes / (double)(now_us() - began_us), (double)agent_ms * 1e9 / (double)bytes,
           (double)(clock() - ours) * 1000 / CLOCKS_PER_SEC * 1e9 / (double)bytes);
    fflush(NULL);
}

static void scenario_streams(void)
{
    const uint64_t bytes = getenv("BYTES") != NULL ? strtoull(getenv("BYTES"), NULL, 10) : 2000000000;
    char command[128];
    struct exec e;
    struct forward f;
    uint16_t port = 0;
    pid_t server = serve(bytes, &port);

    begin();
    create(1, "sleep 1000");
    start(1);
    pid_t agent = child_of(t.agent.pid);
    snprintf(command, sizeof command, "exec dd if=/dev/zero bs=1000000 count=%" PRIu64 " 2>/dev/null", bytes / 1000000);
    long cpu = cpu_of(agent);
    clock_t ours = clock();
    int64_t began = now_us();
    exec_run(&e, 1, 0, (const char *const[]){ "/bin/sh", "-c", command }, 3);
    check(e.bytes == bytes, "exec's output");
    print_rate("exec, output", bytes, began, cpu_of(agent) - cpu, ours);
    buf_free(&e.out);
    /* Input: an exec that reads all of it. */
    PB(ExecStart) start_message = INTERLINK__AGENT__V1__EXEC_START__INIT;
    PB(ExecRequest) request = INTERLINK__AGENT__V1__EXEC_REQUEST__INIT;
    struct forward input = { 0 };
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/Exec", .output = &interlink__agent__v1__exec_response__descriptor,
        .on_writable = on_forward_writable, .on_finish = on_forward_finish, .arg = &input,
    };
    char *words[] = { (char *)(uintptr_t)"/bin/sh", (char *)(uintptr_t)"-c", (char *)(uintptr_t)"cat > /dev/null" };
    static uint8_t block[64 << 10];
    start_message.container_id = id_of(1);
    start_message.command = words;
    start_message.n_command = 3;
    start_message.stdin = true;
    request.start = &start_message;
    cpu = cpu_of(agent);
    ours = clock();
    began = now_us();
    input.request = rpc_request_start(t.conn, &options);
    rpc_request_send(input.request, &request.base);
    request.start = NULL;
    for (uint64_t left = bytes; left > 0;) {
        request.stdin.data = block;
        request.stdin.len = left < sizeof block ? (size_t)left : sizeof block;
        left -= request.stdin.len;
        input.blocked = !rpc_request_send(input.request, &request.base);
        while (input.blocked && !input.finished)
            loop_turn(t.loop, 100);
    }
    rpc_request_half_close(input.request);
    turn_until(&input.finished, "exec");
    print_rate("exec, input", bytes, began, cpu_of(agent) - cpu, ours);
    /* A port, both ways, one after the other. */
    cpu = cpu_of(agent);
    ours = clock();
    began = now_us();
    forward(&f, port);
    forward_send(&f, bytes);
    turn_until(&f.finished, "port-forward");
    check(f.bytes == bytes, "port-forward: %s", f.status.message);
    print_rate("port-forward, one way and then back", 2 * bytes, began, cpu_of(agent) - cpu, ours);
    kill(server, SIGKILL);
    /* Attached, with the log beside. */
    struct reader log = { 0 };
    create_streams(2, "i", command);
    cpu = cpu_of(agent);
    ours = clock();
    began = now_us();
    attach(&e, 2, false);
    read_logs(&log, 2);
    turn_until(&e.finished, "attach");
    print_rate("attached, and in the log", e.bytes, began, cpu_of(agent) - cpu, ours);
    buf_free(&e.out);
    shutdown_agent(0);
}

#endif
