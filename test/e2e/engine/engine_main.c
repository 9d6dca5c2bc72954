/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives an engine as the agent does: isolates itself, makes containers from one unpacked layer, runs, executes, kills and
 * removes them, and says what it saw, one line a check:
 *
 *   engine_main JOB_DIR LAYER_DIR [ENGINE [MODE]]
 *
 * ENGINE: auto, crun, apptainer ($APPTAINER: its path), host. MODE: host-pid (the machine's PID namespace), times (only the last part), wait (one container
 * runs until somebody ends us), table (what is given and what is refused, by field, for docs/engines.md; as root), propagate (mounts come and go between $SHARED and a container; as root).
 *
 * The pod's id is in $SANDBOX_ID. Exit status 0: every check passed. Times are printed for whoever wants to compare.
 */
#include "agent/engine.h"
#include "agent/engine_apptainer.h"
#include "image/config.h"
#include "io/child.h"
#include "io/file.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct {
    struct engine *engine;
    const char *job, *layer;
    bool root, containers, apptainer, limits, own_pid;
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

/* ---- workers ---- */

struct reply {
    bool ok;
    struct status err;
    struct engine_created created;
    pid_t pid;
};

struct call {
    enum { CREATE, START, EXEC, REMOVE } kind;
    struct engine_create create;
    const char *id, *bundle;
    pid_t init;
    const char *const *argv;
    struct engine_stdio io;
};

static void work(const struct call *c, struct reply *r)
{
    switch (c->kind) {
    case CREATE:
        r->ok = engine_create(t.engine, &c->create, &r->created, &r->err);
        break;
    case START:
        r->ok = engine_start(t.engine, c->id, c->bundle, &c->io, &r->pid, &r->err);
        break;
    case EXEC:
        r->ok = engine_exec(t.engine, c->id, c->bundle, c->init, c->argv, &c->io, &r->pid, &r->err);
        break;
    case REMOVE:
        r->ok = engine_remove(t.engine, c->id, c->bundle, &r->err);
        break;
    }
}

static struct reply call(const struct call *c)
{
    struct reply r;
    int fds[2];

    memset(&r, 0, sizeof r);
    if (pipe2(fds, O_CLOEXEC) < 0)
        abort();
    pid_t pid = fork();
    if (pid == 0) {
        struct status ignored;
        close(fds[0]);
        work(c, &r);
        _exit(write_all(fds[1], &r, sizeof r, &ignored) ? 0 : 1);
    }
    close(fds[1]);
    if (read(fds[0], &r, sizeof r) != (ssize_t)sizeof r)
        status_set(&r.err, STATUS_INTERNAL, "the worker died");
    close(fds[0]);
    waitpid(pid, NULL, 0);
    return r;
}

/* ---- containers ---- */

static int next_id;

struct box {
    char id[ID_LENGTH + 1];
    char *bundle;
    pid_t init;
    int out; /* read end of its output, -1 */
    struct reply created, started;
    double create_ms, start_ms;
};

static Runtime__V1__ContainerConfig config;
static Runtime__V1__LinuxContainerConfig linux_config;
static Runtime__V1__LinuxContainerSecurityContext security;
static Runtime__V1__NamespaceOption namespaces;
static Runtime__V1__LinuxContainerResources resources;
static Runtime__V1__PodSandboxConfig sandbox;
static Runtime__V1__LinuxPodSandboxConfig sandbox_linux;
static Runtime__V1__LinuxSandboxSecurityContext sandbox_security;
static Runtime__V1__SecurityProfile seccomp;
static struct image_config image;
static char *argv_store[16];
static const struct engine_source *sources;
static pid_t target_pid;
static const struct engine_image_volume *volumes;
static size_t volume_count;

static void reset_config(void)
{
    runtime__v1__container_config__init(&config);
    runtime__v1__linux_container_config__init(&linux_config);
    runtime__v1__linux_container_security_context__init(&security);
    runtime__v1__namespace_option__init(&namespaces);
    runtime__v1__linux_container_resources__init(&resources);
    runtime__v1__security_profile__init(&seccomp);
    config.linux = &linux_config;
    linux_config.security_context = &security;
    security.namespace_options = &namespaces;
    security.seccomp = &seccomp;
    namespaces.pid = t.own_pid ? RUNTIME__V1__NAMESPACE_MODE__CONTAINER : RUNTIME__V1__NAMESPACE_MODE__NODE;
    sources = NULL;
    target_pid = 0;
}

static void set_command(const char *const *argv)
{
    config.n_command = 0;
    for (; *argv != NULL; argv++)
        argv_store[config.n_command++] = (char *)(uintptr_t)*argv;
    config.command = argv_store;
}
#define COMMAND(...) set_command((const char *const[]){ __VA_ARGS__, NULL })
#define SH(script) COMMAND("sh", "-c", script)

static double now_ms(void)
{
    return (double)clock_mono_ns() / 1e6;
}

static bool box_create(struct box *b)
{
    *b = (struct box){ .out = -1 };
    snprintf(b->id, sizeof b->id, "%064x", ++next_id);
    b->bundle = xasprintf("%s/containers/%s", t.job, b->id);
    struct status err;
    if (!dir_make(b->bundle, 0700, &err))
        abort();
    const char *layers[] = { t.layer };
    struct call c = { .kind = CREATE,
                      .create = { .id = b->id, .bundle = b->bundle, .config = &config, .sandbox = &sandbox,
                                  .image = t.containers || t.apptainer ? &image : NULL, .layers = layers, .layer_count = 1,
                                  .sources = sources, .volumes = volumes, .volume_count = volume_count, .target_pid = target_pid } };
    double start = now_ms();
    b->created = call(&c);
    b->create_ms = now_ms() - start;
    return b->created.ok;
}

static bool box_start(struct box *b)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0)
        abort();
    struct call c = { .kind = START, .id = b->id, .bundle = b->bundle, .io = { .in = -1, .out = fds[1], .err = fds[1] } };
    double start = now_ms();
    b->started = call(&c);
    b->start_ms = now_ms() - start;
    b->init = b->started.pid;
    close(fds[1]);
    b->out = fds[0];
    return b->started.ok;
}

static char *read_all(int fd)
{
    struct buf b = BUF_INIT;
    ssize_t n;

    while ((n = read(fd, buf_reserve(&b, 4096), 4096)) > 0)
        b.n += (size_t)n;
    return buf_steal(&b);
}

/* Waits for the container's end; exit code, or 128 + n. */
static int box_wait(struct box *b)
{
    int status;

    if (b->init <= 0 || waitpid(b->init, &status, 0) != b->init)
        return -1;
    b->init = 0;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static struct reply box_remove(struct box *b)
{
    struct call c = { .kind = REMOVE, .id = b->id, .bundle = b->bundle };
    struct reply r = call(&c);

    if (b->out >= 0)
        close(b->out);
    while (b->init > 0 && waitpid(-1, NULL, WNOHANG) > 0)
        ;
    if (access(b->bundle, F_OK) == 0)
        r.ok = false;
    free(b->bundle);
    return r;
}

/* Creates, starts, waits, removes: the output, and the exit code in *code. */
static char *run(int *code)
{
    struct box b;
    char *out;

    *code = -1;
    if (!box_create(&b))
        out = xasprintf("create: %s", b.created.err.message);
    else if (!box_start(&b))
        out = xasprintf("start: %s", b.started.err.message);
    else {
        out = read_all(b.out);
        *code = box_wait(&b);
    }
    struct reply r = box_remove(&b);
    if (!r.ok)
        check(false, "remove: %s", r.err.message);
    return out;
}

static void expect(const char *what, int code, const char *contains)
{
    int got;
    cleanup_free char *out = run(&got);

    for (char *p = out; (p = strchr(p, '\n')) != NULL;)
        *p = '|';
    check(got == code && strstr(out, contains) != NULL, "%s: exit %d, \"%.300s\"%s%s", what, got, out,
          got == code && strstr(out, contains) != NULL ? "" : " wanted ", got == code && strstr(out, contains) != NULL ? "" : contains);
}

static void expect_refused(const char *what, enum status_code code, const char *contains)
{
    struct box b;

    bool ok = box_create(&b);
    check(!ok && b.created.err.code == code && strstr(b.created.err.message, contains) != NULL, "%s: %s: %s", what,
          ok ? "created" : status_code_name(b.created.err.code), b.created.err.message);
    struct reply r = box_remove(&b);
    check(r.ok, "%s: removed %s", what, r.err.message);
}

static struct reply exec_in(struct box *b, const char *const *argv, bool tty, char **out, int *code)
{
    int fds[2], pair[2] = { -1, -1 };

    *out = xstrdup("");
    *code = -1;
    if (pipe2(fds, O_CLOEXEC) < 0 || (tty && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0))
        abort();
    struct call c = { .kind = EXEC, .id = b->id, .bundle = b->bundle, .init = b->init, .argv = argv,
                      .io = { .in = -1, .out = fds[1], .err = fds[1], .tty = tty, .terminal_fd = pair[1], .width = 100, .height = 30 } };
    struct reply r = call(&c);
    close(fds[1]);
    if (r.ok) {
        int master = -1;
        if (tty) {
            master = engine_terminal(pair[0], &r.err);
            fd_set_nonblocking(master, false);
        }
        free(*out);
        *out = read_all(tty ? master : fds[0]);
        int status;
        waitpid(r.pid, &status, 0);
        *code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        if (master >= 0)
            close(master);
    }
    close(fds[0]);
    if (tty) {
        close(pair[0]);
        close(pair[1]);
    }
    return r;
}

static void expect_exec(struct box *b, const char *what, bool tty, const char *const *argv, int code, const char *contains)
{
    char *out;
    int got;
    struct reply r = exec_in(b, argv, tty, &out, &got);

    for (char *p = out; (p = strchr(p, '\n')) != NULL;)
        *p = '|';
    check(r.ok ? got == code && strstr(out, contains) != NULL : code < 0 && strstr(r.err.message, contains) != NULL,
          "%s: exit %d, \"%.200s\" %s", what, got, out, r.ok ? "" : r.err.message);
    free(out);
}
#define EXEC_SH(script) (const char *const[]){ "sh", "-c", script, NULL }

/* ---- scenarios ---- */

static void test_output(void)
{
    static Runtime__V1__KeyValue env[2];
    static Runtime__V1__KeyValue *envs[] = { &env[0], &env[1] };
    static uint8_t bytes[] = { 0xff, 'x' };

    reset_config();
    SH("echo out; echo err >&2; exit 7");
    expect("exit code", 7, "out|err");
    reset_config();
    runtime__v1__key_value__init(&env[0]);
    runtime__v1__key_value__init(&env[1]);
    env[0].key = (char *)(uintptr_t) "GREETING";
    env[0].value = (ProtobufCBinaryData){ 5, (uint8_t *)(uintptr_t) "hello" };
    env[1].key = (char *)(uintptr_t) "BYTES";
    env[1].value = (ProtobufCBinaryData){ 2, bytes };
    config.envs = envs;
    config.n_envs = 2;
    SH("echo $GREETING:${#BYTES}:$PATH:$HOME:$(hostname)");
    expect("environment", 0, "hello:2:/usr/local/sbin");
    SH("env");
    expect("bytes that are not UTF-8", 0, "BYTES=\xffx");
    reset_config();
    SH("kill -9 $$; sleep 5");
    /* PID 1 of its own namespace does not die by its own hand. */
    if (!t.own_pid)
        expect("signal", 137, "");
    reset_config();
    COMMAND("no-such-program");
    expect("not in PATH", -1, "\"no-such-program\": executable file not found in $PATH");
    COMMAND("/no/such/program");
    expect("no such file", -1, "no such file or directory");
    COMMAND("/etc/passwd");
    expect("not executable", -1, "ermission denied");
    if (t.containers || t.apptainer) {
        COMMAND("garbage");
        expect("no program of this machine's", -1, "exec: \"garbage\":");
    }
}

static void test_image(void)
{
    static char *entrypoint[] = { (char *)(uintptr_t) "echo", (char *)(uintptr_t) "entry" };
    static char *cmd[] = { (char *)(uintptr_t) "cmd" };
    static char *args[] = { (char *)(uintptr_t) "args" };

    if (!t.containers && !t.apptainer)
        return;
    reset_config();
    image.entrypoint = entrypoint;
    image.entrypoint_count = 2;
    image.cmd = cmd;
    image.cmd_count = 1;
    expect("ENTRYPOINT and CMD", 0, "entry cmd");
    config.args = args;
    config.n_args = 1;
    expect("args replace CMD", 0, "entry args");
    config.n_args = 0;
    COMMAND("echo", "command");
    expect("command replaces both", 0, "command");
    SH("pwd; cat missing");
    image.working_dir = (char *)(uintptr_t) "/made/here";
    expect("working directory", 1, "/made/here");
    image.entrypoint_count = image.cmd_count = 0;
    image.working_dir = (char *)(uintptr_t) "";
    config.n_command = 0;
    expect_refused("no command", STATUS_INVALID_ARGUMENT, "command:");
}

static void test_user(void)
{
    static Runtime__V1__Int64Value uid, gid;
    static int64_t groups[] = { 3000 };

    reset_config();
    runtime__v1__int64_value__init(&uid);
    runtime__v1__int64_value__init(&gid);
    uid.value = t.root ? 1000 : 4242;
    gid.value = 1234;
    security.run_as_user = &uid;
    COMMAND("id");
    if (!t.root) {
        expect_refused("uid without root", STATUS_FAILED_PRECONDITION, "linux.security_context.run_as_user: uid 4242 cannot be mapped");
        security.run_as_user = NULL;
        expect("own uid", 0, t.containers ? "uid=0(root)" : "uid=");
        security.supplemental_groups = groups;
        security.n_supplemental_groups = 1;
        expect_refused("group without root", STATUS_FAILED_PRECONDITION, "supplemental_groups: gid 3000");
        return;
    }
    if (!t.containers)
        return;
    expect("run_as_user", 0, "uid=1000(web) gid=1000(web) groups=1000(web),2000(extra)");
    security.run_as_group = &gid;
    security.supplemental_groups = groups;
    security.n_supplemental_groups = 1;
    expect("groups", 0, "gid=1234 groups=");
    security.supplemental_groups_policy = RUNTIME__V1__SUPPLEMENTAL_GROUPS_POLICY__Strict;
    expect("strict groups", 0, "groups=1234,3000");
    SH("grep Cap /proc/self/status; touch /x");
    expect("no capabilities for others", 1, "CapEff:\t0000000000000000");
    reset_config();
    security.run_as_username = (char *)(uintptr_t) "nobody-there";
    COMMAND("id");
    expect_refused("unknown name", STATUS_INVALID_ARGUMENT, "run_as_username");
    security.run_as_username = (char *)(uintptr_t) "web";
    SH("id; echo $HOME");
    expect("run_as_username", 0, "uid=1000(web)");
}

static void test_security(void)
{
    static Runtime__V1__Capability caps;
    static char *add[] = { (char *)(uintptr_t) "SYS_BOOT" }, *drop[] = { (char *)(uintptr_t) "ALL" };
    static char *masked[] = { (char *)(uintptr_t) "/proc/keys", (char *)(uintptr_t) "/sys/firmware" };
    static char *readonly[] = { (char *)(uintptr_t) "/proc/sys" };

    if (!t.containers)
        return;
    reset_config();
    SH("grep -E 'Cap(Eff|Bnd)|NoNew|Seccomp:' /proc/self/status");
    expect("default capabilities", 0, "CapEff:\t00000000a80425fb");
    security.no_new_privs = true;
    expect("no_new_privs", 0, "NoNewPrivs:\t1");
    expect("seccomp", 0, "Seccomp:\t2");
    seccomp.profile_type = RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__Unconfined;
    expect("no seccomp", 0, "Seccomp:\t0");
    runtime__v1__capability__init(&caps);
    security.capabilities = &caps;
    caps.drop_capabilities = drop;
    caps.n_drop_capabilities = 1;
    expect("no capabilities", 0, "CapEff:\t0000000000000000");
    caps.add_capabilities = add;
    caps.n_add_capabilities = 1;
    if (t.root)
        expect("one capability", 0, "CapEff:\t0000000000400000");
    else
        expect_refused("useless capability", STATUS_FAILED_PRECONDITION, "capabilities.add_capabilities: CAP_SYS_BOOT");
    reset_config();
    SH("mkdir /a; cat /proc/keys | wc -c; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/panic");
    security.readonly_rootfs = true;
    expect("read-only root", t.root ? 0 : 1, "mkdir: can't create directory '/a': Read-only file system");
    security.masked_paths = masked;
    security.n_masked_paths = 2;
    security.readonly_paths = readonly;
    security.n_readonly_paths = 1;
    expect("masked and read-only paths", 1, "file system|0|0|sh: can't create /proc/sys/kernel/panic: Read-only file system");
    reset_config();
    security.privileged = true;
    COMMAND("true");
    expect_refused("privileged in an ordinary pod", STATUS_INVALID_ARGUMENT, "privileged");
    sandbox_security.privileged = true;
    SH("grep CapBnd /proc/self/status; ls -l /dev/null /dev/vda /dev/kmsg; mkdir /m; mount -t tmpfs t /m && echo mounted");
    if (t.root)
        expect("privileged", 0, "mounted");
    else
        expect_refused("privileged without root", STATUS_FAILED_PRECONDITION, "privileged: this job runs without root");
    sandbox_security.privileged = false;
}

static void test_mounts(void)
{
    static Runtime__V1__Mount m[3];
    static Runtime__V1__Mount *mounts[] = { &m[0], &m[1], &m[2] };
    cleanup_free char *dir = xasprintf("%s/host", t.job), *file = xasprintf("%s/host/file", t.job),
                      *missing = xasprintf("%s/not-there", t.job), *link = xasprintf("%s/link", t.job);
    struct status err;

    if (!t.containers && !t.apptainer)
        return;
    reset_config();
    if (!dir_make(dir, 0755, &err) || !file_replace(file, "content\n", 8, 0644, &err) || (symlink("host", link) < 0 && errno != EEXIST))
        abort();
    for (size_t i = 0; i < 3; i++)
        runtime__v1__mount__init(&m[i]);
    m[0].container_path = (char *)(uintptr_t) "/mnt/dir";
    m[0].host_path = link;
    m[1].container_path = (char *)(uintptr_t) "/mnt/dir/../ro.txt";
    m[1].host_path = file;
    m[1].readonly = true;
    m[2].container_path = (char *)(uintptr_t) "/made";
    m[2].host_path = missing;
    config.mounts = mounts;
    config.n_mounts = 3;
    SH("cat /mnt/dir/file /mnt/ro.txt && echo more > /mnt/dir/new && touch /made/x; echo x > /mnt/ro.txt");
    expect("mounts", 1, "content|content|sh: can't create /mnt/ro.txt: Read-only file system");
    cleanup_free char *fresh = xasprintf("%s/new", dir), *made = xasprintf("%s/x", missing);
    check(access(fresh, F_OK) == 0, "written through a mount");
    check(access(made, F_OK) == 0, "a missing host path was made");
    const struct engine_source elsewhere[] = { { .path = "", .fd = -1, .create = true }, { .path = "", .fd = -1 },
                                               { .path = "/no/such/source", .fd = -1 } };
    sources = elsewhere;
    expect_refused("missing source", STATUS_NOT_FOUND, "mounts[2]: host_path /no/such/source");
    sources = NULL;
    m[2].propagation = RUNTIME__V1__MOUNT_PROPAGATION__PROPAGATION_BIDIRECTIONAL;
    expect_refused("bidirectional on a private mount", STATUS_FAILED_PRECONDITION,
                   t.apptainer ? "mounts[2]: the apptainer engine only makes plain mounts" : "mounts[2]: host_path");
    m[2].propagation = 0;
    m[1].recursive_read_only = true;
    SH("echo x > /mnt/ro.txt");
    struct utsname kernel;
    uname(&kernel);
    if (t.apptainer)
        expect_refused("recursively read-only", STATUS_FAILED_PRECONDITION, "mounts[1]: the apptainer engine only makes plain mounts");
    else if (strverscmp(kernel.release, "5.12") >= 0)
        expect("recursively read-only", 1, "Read-only file system");
    else
        expect_refused("recursively read-only", STATUS_FAILED_PRECONDITION, "recursive_read_only: needs Linux 5.12");
    reset_config();
    SH("cat /etc/hostname /etc/resolv.conf; echo shared > /dev/shm/x; mount | grep -c 'on / '; ls -di /dev/shm; ls -l /dev/fd");
    expect("the pod's files", 0, "nameserver 192.0.2.53");
    SH("cat /dev/shm/x");
    expect("/dev/shm is the pod's", 0, "shared");
}

static void test_devices(void)
{
    static Runtime__V1__Device d;
    static Runtime__V1__Device *devices[] = { &d };

    reset_config();
    runtime__v1__device__init(&d);
    d.host_path = (char *)(uintptr_t) "/dev/no-such-device";
    d.container_path = d.host_path;
    d.permissions = (char *)(uintptr_t) "rwm";
    config.devices = devices;
    config.n_devices = 1;
    COMMAND("true");
    expect_refused("no such device", STATUS_FAILED_PRECONDITION, "devices[0].host_path: /dev/no-such-device");
    if (!t.containers && !t.apptainer)
        return;
    d.host_path = (char *)(uintptr_t) "/dev/zero";
    d.container_path = (char *)(uintptr_t) "/dev/my-zero";
    SH("head -c 5 /dev/my-zero | wc -c");
    expect("a device", 0, "5");
    reset_config();
    SH("mknod /disk b 254 0; head -c 1 /disk; mknod /null c 1 3 && echo x > /null && echo fine");
    if (t.root && t.limits)
        expect("a forbidden device", 0, "peration not permitted");
}

static void test_limits(void)
{
    struct box b;

    reset_config();
    linux_config.resources = &resources;
    resources.memory_limit_in_bytes = 32 << 20;
    resources.memory_swap_limit_in_bytes = 32 << 20;
    resources.cpu_shares = 51;
    resources.cpu_quota = 10000;
    resources.cpu_period = 100000;
    resources.oom_score_adj = -998;
    SH("cat /proc/self/oom_score_adj; a=x; while true; do a=$a$a; done");
    if (!t.limits) {
        COMMAND("true");
        bool ok = box_create(&b);
        check(ok && strstr(b.created.created.note, "limits are not applied") != NULL, "limits without cgroups are noted: %s",
              b.created.created.note);
        box_remove(&b);
        return;
    }
    check(box_create(&b) && box_start(&b), "limits: %s%s %s", b.created.err.message, b.started.err.message,
          b.created.created.note);
    int code = box_wait(&b);
    bool oom = engine_oom_killed(t.engine, b.id, b.bundle);
    check(code == 137 && oom, "out of memory: exit %d, oom %d", code, oom);
    struct reply r = box_remove(&b);
    check(r.ok, "removed %s", r.err.message);
}

static void test_exec(void)
{
    struct box b;
    int code;

    reset_config();
    SH("trap 'echo bye; exit 3' TERM; sleep 1000 & echo ready; while true; do sleep 0.05; done");
    check(box_create(&b) && box_start(&b), "a container to exec in: %s%s", b.created.err.message, b.started.err.message);
    if (!b.started.ok)
        return;
    char line[8] = "";
    ssize_t n = read(b.out, line, sizeof line - 1);
    check(n > 0 && strncmp(line, "ready", 5) == 0, "it runs: %s", line);
    expect_exec(&b, "exec", false, EXEC_SH("echo in; exit 5"), 5, "in|");
    expect_exec(&b, "exec with a terminal", true, EXEC_SH("tty; stty size 2>/dev/null; echo $TERM"), 0, t.containers ? "/dev/pts/0" : "/dev/pts/");
    expect_exec(&b, "exec sees the same environment", false, EXEC_SH("echo $PATH $HOSTNAME"), 0, "/usr/local/sbin");
    expect_exec(&b, "exec of nothing", false, (const char *const[]){ "no-such-program", NULL }, -1, "executable file not found");
    if (t.containers) {
        expect_exec(&b, "exec has the filter", false, EXEC_SH("grep Seccomp: /proc/self/status"), 0, "Seccomp:\t2");
        expect_exec(&b, "exec has the capabilities", false, EXEC_SH("grep CapEff /proc/self/status"), 0, "00000000a80425fb");
        expect_exec(&b, "exec sees no descriptors of ours", false, EXEC_SH("ls /proc/self/fd | wc -l"), 0, "4");
        if (t.own_pid)
            expect_exec(&b, "exec is in the PID namespace", false, EXEC_SH("cat /proc/1/cmdline | tr '\\0' ' '"), 0, "trap");
    }
    struct status err = STATUS_INIT;
    check(engine_signal(t.engine, b.id, b.bundle, b.init, SIGTERM, false, &err), "TERM %s", err.message);
    code = box_wait(&b);
    check(code == 3, "its handler ran: exit %d", code);
    struct reply r = box_remove(&b);
    check(r.ok, "removed %s", r.err.message);
    /* Kill all. */
    reset_config();
    SH("sleep 1000 & sleep 1000 & setsid sleep 1000 & wait");
    check(box_create(&b) && box_start(&b), "a container to kill: %s%s", b.created.err.message, b.started.err.message);
    nanosleep(&(struct timespec){ 0, 50000000 }, NULL);
    check(engine_signal(t.engine, b.id, b.bundle, b.init, SIGKILL, true, &err), "KILL %s", err.message);
    code = box_wait(&b);
    check(code == 137, "killed: exit %d", code);
    cleanup_free char *rest = read_all(b.out); /* ends when the last of them has gone */
    r = box_remove(&b);
    check(r.ok, "removed %s", r.err.message);
}

static void test_terminal(void)
{
    struct box b;
    int pair[2];

    reset_config();
    config.tty = true;
    SH("tty; stty size; echo $TERM; ls -l $(tty)");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        abort();
    if (!box_create(&b)) {
        check(false, "terminal: %s", b.created.err.message);
        return;
    }
    struct call c = { .kind = START, .id = b.id, .bundle = b.bundle,
                      .io = { .in = -1, .out = -1, .err = -1, .tty = true, .terminal_fd = pair[1], .width = 120, .height = 40 } };
    b.started = call(&c);
    b.init = b.started.pid;
    struct status err;
    int master = b.started.ok ? engine_terminal(pair[0], &err) : -1;
    if (master >= 0)
        fd_set_nonblocking(master, false);
    cleanup_free char *out = master >= 0 ? read_all(master) : xstrdup("");
    int code = box_wait(&b);
    check(code >= 0 && strstr(out, "/dev/pts/") != NULL && strstr(out, "xterm") != NULL, "terminal: exit %d \"%s\" %s", code, out, b.started.err.message);
    check((!t.containers && !t.apptainer) || strstr(out, "40 120") != NULL, "its size");
    close(master);
    close(pair[0]);
    close(pair[1]);
    box_remove(&b);
}

static void test_namespaces(void)
{
    struct box a, b;

    if (!t.containers)
        return;
    reset_config();
    if (t.own_pid) {
        COMMAND("sh", "-c", "echo $$");
        expect("PID namespace of its own", 0, "1");
        namespaces.pid = RUNTIME__V1__NAMESPACE_MODE__POD;
        SH("ls -d /proc/1 && [ $$ -gt 1 ] && echo shared");
        expect("the pod's PID namespace", 0, "shared");
        SH("sleep 1000 & exit 0");
        check(box_create(&a) && box_start(&a), "a container that leaves a process in the pod's PID namespace");
        check(box_wait(&a) == 0, "its first process has ended");
        struct status err = STATUS_INIT;
        check(engine_signal(t.engine, a.id, a.bundle, 0, SIGKILL, true, &err), "kill all %s", err.message);
        cleanup_free char *rest = read_all(a.out); /* ends when nobody is left */
        check(waitpid(-1, NULL, 0) > 0, "what it left has come to us");
        struct reply left = box_remove(&a);
        check(left.ok, "removed %s", left.err.message);
        namespaces.pid = RUNTIME__V1__NAMESPACE_MODE__NODE;
        COMMAND("true");
        expect_refused("the machine's PID namespace", STATUS_FAILED_PRECONDITION, "namespace_options.pid: NODE");
        reset_config();
        COMMAND("sleep", "1000");
        check(box_create(&a) && box_start(&a), "a target");
        reset_config();
        namespaces.pid = RUNTIME__V1__NAMESPACE_MODE__TARGET;
        target_pid = a.init;
        SH("cat /proc/1/cmdline | tr '\\0' ' '");
        expect("another container's PID namespace", 0, "sleep 1000");
        struct reply r = box_remove(&a);
        check(r.ok, "removed while running %s", r.err.message);
    }
    reset_config();
    namespaces.ipc = RUNTIME__V1__NAMESPACE_MODE__NODE;
    COMMAND("true");
    expect_refused("the machine's IPC namespace", STATUS_FAILED_PRECONDITION, "namespace_options.ipc");
    (void)b;
}

/* What this engine has to refuse, by name: docs/engines.md. */
static void test_apptainer(void)
{
    static Runtime__V1__Int64Value zero;
    static Runtime__V1__Capability caps;
    static char *add[] = { (char *)(uintptr_t) "SYS_PTRACE" }, *drop[] = { (char *)(uintptr_t) "ALL" };
    static Runtime__V1__Mount m;
    static Runtime__V1__Mount *mounts[] = { &m };
    static Runtime__V1__SELinuxOption label;

    if (!t.apptainer)
        return;
    reset_config();
    SH("grep -E 'Cap(Eff|Bnd)|NoNew|Seccomp:' /proc/self/status; env | sort | head -c 300; ls /proc/self/fd | wc -l");
    expect("no privileges, the default filter", 0, "CapEff:\t0000000000000000|CapBnd:");
    expect("the filter", 0, "NoNewPrivs:\t1|Seccomp:\t2");
    SH("env | grep -c -E 'APPTAINER|SINGULARITY|APPTAINERENV' ; ls -A /root /home 2>/dev/null; cat /proc/1/comm");
    expect("nothing of the machine's", 0, "0|");
    runtime__v1__capability__init(&caps);
    security.capabilities = &caps;
    caps.drop_capabilities = drop;
    caps.n_drop_capabilities = 1;
    COMMAND("true");
    expect("no capabilities", 0, "");
    caps.add_capabilities = add;
    caps.n_add_capabilities = 1;
    expect_refused("a capability", STATUS_FAILED_PRECONDITION, "linux.security_context.capabilities.add_capabilities: CAP_SYS_PTRACE");
    reset_config();
    COMMAND("true");
    sandbox_security.privileged = security.privileged = true;
    expect_refused("privileged", STATUS_FAILED_PRECONDITION, "linux.security_context.privileged: ");
    sandbox_security.privileged = security.privileged = false;
    runtime__v1__int64_value__init(&zero);
    zero.value = getuid() == 0 ? 1000 : 0;
    security.run_as_user = &zero;
    expect_refused("another user", STATUS_FAILED_PRECONDITION, "linux.security_context.run_as_user: ");
    reset_config();
    COMMAND("true");
    image.user = (char *)(uintptr_t) "12345";
    struct box b;
    check(box_create(&b) && strstr(b.created.created.note, "not as the image's \"12345\"") != NULL, "the image's user is noted: %s%s",
          b.created.err.message, b.created.created.note);
    box_remove(&b);
    image.user = (char *)(uintptr_t) "";
    static const Runtime__V1__NamespaceMode modes[] = { RUNTIME__V1__NAMESPACE_MODE__POD, RUNTIME__V1__NAMESPACE_MODE__NODE };
    for (size_t i = 0; i < 2; i++) {
        namespaces.pid = modes[i];
        expect_refused("a shared PID namespace", STATUS_FAILED_PRECONDITION, "linux.security_context.namespace_options.pid: only CONTAINER");
    }
    reset_config();
    runtime__v1__selinux_option__init(&label);
    label.type = (char *)(uintptr_t) "spc_t";
    security.selinux_options = &label;
    SH("mkdir /a || exit 3");
    security.selinux_options = NULL;
    security.readonly_rootfs = true;
    expect("read-only root", 3, "Read-only file system");
    reset_config();
    runtime__v1__mount__init(&m);
    config.mounts = mounts;
    config.n_mounts = 1;
    cleanup_free char *log = xasprintf("%s/termination", t.job);
    struct status err;
    if (!file_replace(log, "", 0, 0644, &err))
        abort();
    m.host_path = log;
    m.container_path = (char *)(uintptr_t) "/dev/termination-log";
    SH("echo bye > /dev/termination-log");
    expect("a file in /dev", 0, "");
    struct buf text = BUF_INIT;
    check(file_read(log, 64, &text, &err) && strcmp(buf_cstr(&text), "bye\n") == 0, "it has been written: %s", buf_cstr(&text));
    buf_free(&text);
    COMMAND("true");
    m.container_path = (char *)(uintptr_t) "/mnt";
    m.host_path = (char *)(uintptr_t)t.job;
    static char *options[] = { (char *)(uintptr_t) "noexec" };
    m.mount_options = options;
    m.n_mount_options = 1;
    expect_refused("a mount's options", STATUS_FAILED_PRECONDITION, "mounts[0]: the apptainer engine only makes plain mounts");
    m.n_mount_options = 0;
    m.container_path = (char *)(uintptr_t) "/with,comma";
    expect_refused("a path with a comma", STATUS_FAILED_PRECONDITION, "mounts: the apptainer engine cannot mount \"/with,comma\"");
}

#define ROUNDS 20

static int compare_doubles(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

/* The least says what the work takes, the median what the machine makes of it. */
static void print_times(const char *what, double *ms, int rounds)
{
    qsort(ms, (size_t)rounds, sizeof *ms, compare_doubles);
    printf("time %-16s least %6.2f ms, median %6.2f ms\n", what, ms[0], ms[rounds / 2]);
}

static void test_times(void)
{
    double create[ROUNDS], start[ROUNDS], exec[ROUNDS], removed[ROUNDS];
    int rounds = t.apptainer ? 4 : ROUNDS; /* of half a second each */

    reset_config();
    linux_config.resources = &resources;
    resources.memory_limit_in_bytes = 64 << 20;
    resources.cpu_shares = 51;
    COMMAND("sleep", "1000");
    for (int i = 0; i < rounds; i++) {
        struct box b;
        char *out;
        int code;
        if (!box_create(&b) || !box_start(&b)) {
            check(false, "times: %s%s", b.created.err.message, b.started.err.message);
            return;
        }
        create[i] = b.create_ms;
        start[i] = b.start_ms;
        double begin = now_ms();
        exec_in(&b, (const char *const[]){ "true", NULL }, false, &out, &code);
        free(out);
        exec[i] = now_ms() - begin;
        begin = now_ms();
        box_remove(&b);
        removed[i] = now_ms() - begin;
    }
    print_times("create", create, rounds);
    print_times("start", start, rounds);
    print_times("exec true", exec, rounds);
    print_times("remove (running)", removed, rounds);
}

/* ---- the table ---- */

static void table_row(const char *field, const char *begins)
{
    struct box b;
    const char *word = "yes";

    COMMAND("true");
    bool ok = box_create(&b);
    const char *message = b.created.err.message;
    if (!ok && strstr(message, "neither shared nor a slave") == NULL) /* it depends on the machine's mount */
        word = b.created.err.code == STATUS_FAILED_PRECONDITION && strncmp(message, begins, strlen(begins)) == 0 ? "no" : message;
    else if (ok && strstr(b.created.created.note, strrchr(begins, '.') != NULL ? strrchr(begins, '.') + 1 : begins) != NULL)
        word = "note";
    printf("row|%s|%s\n", field, word);
    box_remove(&b);
    reset_config();
    namespaces.pid = RUNTIME__V1__NAMESPACE_MODE__CONTAINER;
}
#define SECURITY "linux.security_context."

static void table_mounts(void)
{
    static Runtime__V1__Mount m;
    static Runtime__V1__Mount *mounts[] = { &m };
    static char *options[] = { (char *)(uintptr_t) "noexec" };
    static Runtime__V1__ImageSpec spec;
    const char *layers[] = { t.layer };
    const struct engine_image_volume volume = { .mount = 0, .layers = layers, .layer_count = 1 };

    for (int i = 0; i < 4; i++) {
        static const char *const fields[] = { "propagation", "mount_options", "recursive_read_only", "image" };
        cleanup_free char *field = xasprintf("mounts[0].%s", fields[i]);
        runtime__v1__mount__init(&m);
        runtime__v1__image_spec__init(&spec);
        config.mounts = mounts;
        config.n_mounts = 1;
        m.container_path = (char *)(uintptr_t) "/mnt";
        m.host_path = (char *)(uintptr_t) (i == 3 ? "" : t.job);
        m.propagation = i == 0 ? RUNTIME__V1__MOUNT_PROPAGATION__PROPAGATION_HOST_TO_CONTAINER : 0;
        m.mount_options = options;
        m.n_mount_options = i == 1;
        m.readonly = i >= 2;
        m.recursive_read_only = i == 2;
        spec.image = (char *)(uintptr_t) "sha256:x";
        m.image = i == 3 ? &spec : NULL;
        volumes = &volume;
        volume_count = i == 3;
        table_row(field, "mounts[0]");
    }
    volume_count = 0;
}

static void test_table(void)
{
    static Runtime__V1__Int64Value id, own;
    static Runtime__V1__Capability caps;
    static char *add[] = { (char *)(uintptr_t) "SYS_PTRACE" }, *drop[] = { (char *)(uintptr_t) "ALL" };
    static char *masked[] = { (char *)(uintptr_t) "/proc/keys" };
    static int64_t groups[] = { 3000 };
    bool host = !t.containers && !t.apptainer;

    reset_config();
    namespaces.pid = RUNTIME__V1__NAMESPACE_MODE__CONTAINER;
    runtime__v1__int64_value__init(&id);
    runtime__v1__int64_value__init(&own);
    runtime__v1__capability__init(&caps);
    id.value = 1000;
    security.run_as_user = &id;
    table_row("run_as_user", SECURITY "run_as_user");
    security.run_as_user = &own;
    security.run_as_group = &id;
    table_row("run_as_group", SECURITY "run_as_group");
    security.run_as_username = (char *)(uintptr_t)(host ? "daemon" : "web");
    table_row("run_as_username", SECURITY "run_as_username");
    image.user = (char *)(uintptr_t) "1000";
    if (!host)
        table_row("the image's User", "image");
    image.user = (char *)(uintptr_t) "";
    security.supplemental_groups = groups;
    security.n_supplemental_groups = 1;
    table_row("supplemental_groups", SECURITY "supplemental_groups");
    security.capabilities = &caps;
    caps.add_capabilities = add;
    caps.n_add_capabilities = 1;
    table_row("capabilities.add_capabilities", SECURITY "capabilities.add_capabilities");
    caps.n_add_capabilities = 0;
    caps.drop_capabilities = drop;
    caps.n_drop_capabilities = 1;
    security.capabilities = &caps;
    table_row("capabilities.drop_capabilities", SECURITY "capabilities.drop_capabilities");
    sandbox_security.privileged = security.privileged = true;
    table_row("privileged", SECURITY "privileged");
    sandbox_security.privileged = false;
    security.readonly_rootfs = true;
    table_row("readonly_rootfs", SECURITY "readonly_rootfs");
    security.no_new_privs = true;
    table_row("no_new_privs", SECURITY "no_new_privs");
    table_row("seccomp", SECURITY "seccomp");
    security.masked_paths = masked;
    security.n_masked_paths = 1;
    table_row("masked_paths", SECURITY "masked_paths");
    namespaces.pid = RUNTIME__V1__NAMESPACE_MODE__POD;
    table_row("namespace_options.pid: POD", SECURITY "namespace_options.pid");
    table_mounts();
}

static void configure(void)
{
    static Runtime__V1__DNSConfig dns;
    static char *servers[] = { (char *)(uintptr_t) "192.0.2.53" };
    struct status err = STATUS_INIT;

    runtime__v1__pod_sandbox_config__init(&sandbox);
    runtime__v1__linux_pod_sandbox_config__init(&sandbox_linux);
    runtime__v1__linux_sandbox_security_context__init(&sandbox_security);
    runtime__v1__dnsconfig__init(&dns);
    sandbox.hostname = (char *)(uintptr_t) "pod-name";
    sandbox.linux = &sandbox_linux;
    sandbox_linux.security_context = &sandbox_security;
    dns.servers = servers;
    dns.n_servers = 1;
    sandbox.dns_config = &dns;
    check(engine_configure(t.engine, &sandbox, &err), "configure %s", err.message);
}

static void wait_for_ever(void)
{
    struct box b;

    reset_config();
    COMMAND("sleep", "1000");
    struct call c = { .kind = START, .io = { .in = -1, .out = 1, .err = 2 } };
    bool ok = box_create(&b);
    c.id = b.id;
    c.bundle = b.bundle;
    b.started = call(&c);
    printf(ok && b.started.ok ? "waiting\n" : "FAIL %s%s\n", b.created.err.message, b.started.err.message);
    fflush(NULL);
    for (;;)
        pause();
}

/* The other side is test_engine.py. */
static void test_propagation(void)
{
    static Runtime__V1__Mount m;
    static Runtime__V1__Mount *mounts[] = { &m };
    const char *shared = getenv("SHARED");
    struct box b;

    if (shared == NULL || !t.root) {
        check(false, "SHARED is not set, or this is not root");
        return;
    }
    reset_config();
    sandbox_security.privileged = security.privileged = true;
    runtime__v1__mount__init(&m);
    m.container_path = (char *)(uintptr_t) "/shared";
    m.host_path = (char *)(uintptr_t)shared;
    m.propagation = RUNTIME__V1__MOUNT_PROPAGATION__PROPAGATION_BIDIRECTIONAL;
    config.mounts = mounts;
    config.n_mounts = 1;
    SH("while [ ! -e /shared/late/file ]; do sleep 0.05; done; sleep 0.1; cat /shared/late/file; mkdir /shared/up; "
       "mount -t tmpfs up /shared/up && echo x > /shared/up/mark");
    check(box_create(&b) && box_start(&b), "bidirectional: %s%s", b.created.err.message, b.started.err.message);
    printf("mount now\n");
    fflush(NULL);
    cleanup_free char *out = read_all(b.out);
    int code = box_wait(&b);
    check(code == 0 && strstr(out, "seen") != NULL, "a later mount is seen: exit %d %s", code, out);
    struct reply r = box_remove(&b);
    check(r.ok, "removed %s", r.err.message);
    reset_config();
    m.propagation = RUNTIME__V1__MOUNT_PROPAGATION__PROPAGATION_HOST_TO_CONTAINER;
    config.mounts = mounts;
    config.n_mounts = 1;
    SH("cat /shared/late/file");
    expect("from the machine to the container", 0, "seen");
    m.propagation = RUNTIME__V1__MOUNT_PROPAGATION__PROPAGATION_PRIVATE;
    expect("what is mounted there already", 0, "seen");
}

static void test_all(void)
{
    test_output();
    test_image();
    test_user();
    test_security();
    test_mounts();
    test_devices();
    test_limits();
    test_exec();
    test_terminal();
    test_namespaces();
    test_apptainer();
}

int main(int argc, char **argv)
{
    struct isolate_options options = { .argv = argv, .host_pid = argc > 4 && strcmp(argv[4], "host-pid") == 0,
                                       .netns = "", .none = argc > 3 && strcmp(argv[3], "apptainer") == 0 };
    struct isolation isolation;
    struct status err = STATUS_INIT;
    char reason[ENGINE_REASON_SIZE] = "";

    /* In a container, as the agent's program. */
    if (argc > 2 && strcmp(argv[1], "agent") == 0)
        return strcmp(argv[2], "enter") == 0 ? engine_apptainer_enter(argc, argv) : 0;
    if (argc < 3) {
        fprintf(stderr, "usage: engine_main JOB_DIR LAYER_DIR [ENGINE [MODE]]\n");
        return 2;
    }
    log_setup(LOG_WARN, "engine");
    umask(0077); /* as the agent's */
    if (!isolate_enter(&options, &isolation, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    t.job = argv[1];
    t.layer = argv[2];
    struct engine_options o = { .wanted = argc > 3 ? argv[3] : "auto", .allow_host = true, .job_dir = t.job, .isolation = isolation,
                                .sandbox_id = getenv("SANDBOX_ID") != NULL ? getenv("SANDBOX_ID") : "feedface",
                                .cgroup_parent = "", .cdi_dirs = "", .apptainer = getenv("APPTAINER") };
    t.engine = engine_new(&o, reason, &err);
    if (t.engine == NULL) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    printf("engine %s (%s), cgroups %s, pid %d, missing \"%s\"\n", engine_name(t.engine), reason, engine_cgroups(t.engine), (int)getpid(),
           isolation.missing);
    t.containers = strcmp(engine_name(t.engine), "crun") == 0;
    t.apptainer = strcmp(engine_name(t.engine), "apptainer") == 0;
    t.root = !engine_rootless(t.engine) && !t.apptainer;
    t.limits = strcmp(engine_cgroups(t.engine), "none") != 0;
    t.own_pid = (t.containers && isolation.pid) || t.apptainer;
    image.working_dir = image.user = (char *)(uintptr_t) "";
    configure();
    const char *mode = argc > 4 ? argv[4] : "";
    if (strcmp(mode, "wait") == 0)
        wait_for_ever();
    else if (strcmp(mode, "propagate") == 0)
        test_propagation();
    else if (strcmp(mode, "table") == 0)
        test_table();
    else if (strcmp(mode, "times") != 0)
        test_all();
    if (strcmp(mode, "propagate") != 0 && strcmp(mode, "table") != 0)
        test_times();
    engine_free(t.engine);
    cleanup_free char *dir = xasprintf("%s/engine", t.job);
    check(access(dir, F_OK) < 0, "the engine's folder is gone");
    /* What was killed takes a moment to go on a busy machine. */
    bool none = false;
    for (int i = 0; i < 200 && !none; i++) {
        none = waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD;
        if (!none)
            nanosleep(&(struct timespec){ 0, 10000000 }, NULL);
    }
    check(none, "no process is left");
    printf("%d checks, %d failures\n", t.checks, t.failures);
    return t.failures > 0;
}
