/* SPDX-License-Identifier: Apache-2.0 */
#include "node/cni_exec.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "io/child.h"
#include "io/file.h"

/* How often things are looked at that nobody tells of: a plugin, where the kernel cannot say when it ends (pidfd_open(2), Linux 5.3). */
#define CNI_EXEC_LOOK_MS 5
/* Rounds of looking for strays and killing them. */
#define CNI_EXEC_ROUNDS 200
#define CNI_EXEC_ENVIRONMENT_MAX (1u << 20)

/* ---- one program ---- */

struct cni_process {
    pid_t pid;
    int in, out, errors; /* our ends; -1: closed */
    int pidfd;           /* readable once it has ended; -1: none */
    int wait_status;
    bool over;
};

static void cni_exec_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Never returns. */
static void cni_exec_child(const char *program, const char *type, const char **env, int in, int out, int errors)
{
    const char *argv[] = { type, NULL };

    child_reset_signals();
    setsid();
    /* Those ends may be 0 to 2 themselves, for serve's own may be closed. */
    in = fcntl(in, F_DUPFD, 3);
    out = fcntl(out, F_DUPFD, 3);
    errors = fcntl(errors, F_DUPFD, 3);
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(errors, 2) < 0 || chdir("/") < 0)
        _exit(127);
    child_close_fds_except(NULL, 0);
    execve(program, (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
    dprintf(2, "cannot execute %s: %s", program, strerror(errno));
    _exit(126);
}

static bool cni_exec_start(struct cni_process *p, const char *program, const char *type, const char **env, struct status *err)
{
    int pipes[3][2];

    for (int i = 0; i < 3; i++)
        if (pipe2(pipes[i], O_CLOEXEC) < 0) {
            status_errno(err, "cannot start the CNI plugin %s: no pipe", type);
            for (; i > 0; i--) {
                close(pipes[i - 1][0]);
                close(pipes[i - 1][1]);
            }
            return false;
        }
    p->pid = fork();
    if (p->pid == 0)
        cni_exec_child(program, type, env, pipes[0][0], pipes[1][1], pipes[2][1]);
    if (p->pid < 0)
        status_errno(err, "cannot start the CNI plugin %s: fork", type);
    close(pipes[0][0]);
    close(pipes[1][1]);
    close(pipes[2][1]);
    p->pidfd = p->pid > 0 ? (int)syscall(SYS_pidfd_open, p->pid, 0) : -1;
    p->in = pipes[0][1];
    p->out = pipes[1][0];
    p->errors = pipes[2][0];
    fd_set_nonblocking(p->in, true);
    fd_set_nonblocking(p->out, true);
    fd_set_nonblocking(p->errors, true);
    return p->pid > 0;
}

static void cni_exec_write(struct cni_process *p, struct str *input)
{
    while (p->in >= 0 && input->n > 0) {
        ssize_t n = write(p->in, input->p, input->n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0)
            break; /* it does not read: its business */
        input->p += n;
        input->n -= (size_t)n;
    }
    cni_exec_close(&p->in);
}

/* False: more than may be kept. */
static bool cni_exec_read_output(int *fd, struct buf *output)
{
    for (;;) {
        ssize_t n = read(*fd, buf_reserve(output, 4096), 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return true;
        if (n <= 0)
            break;
        output->n += (size_t)n;
        if (output->n > CNI_OUTPUT_MAX)
            return false;
    }
    cni_exec_close(fd);
    return true;
}

/* The last words are the ones that count. */
static void cni_exec_read_errors(struct cni_process *p, struct buf *errors)
{
    char chunk[4096];
    ssize_t n;

    while ((n = read(p->errors, chunk, sizeof chunk)) > 0 || (n < 0 && errno == EINTR)) {
        buf_append(errors, chunk, n > 0 ? (size_t)n : 0);
        if (errors->n > CNI_ERRORS_MAX)
            buf_consume(errors, errors->n - CNI_ERRORS_MAX);
    }
    if (n == 0)
        cni_exec_close(&p->errors);
}

static void cni_exec_kill(struct cni_process *p)
{
    kill(-p->pid, SIGKILL);
    kill(p->pid, SIGKILL);
    while (!p->over && waitpid(p->pid, &p->wait_status, 0) < 0 && errno == EINTR)
        ;
    p->over = true;
}

/* Until it has ended; what is left in the pipes then is all it said, whoever else may still hold them. */
static bool cni_exec_attend(struct cni_process *p, const char *type, struct str input, int64_t deadline, struct buf *output,
                       struct buf *errors, struct status *err)
{
    while (!p->over) {
        struct pollfd fds[] = { { .fd = p->in, .events = POLLOUT },
                                { .fd = p->out, .events = POLLIN },
                                { .fd = p->errors, .events = POLLIN },
                                { .fd = p->pidfd, .events = POLLIN } };
        int64_t left = deadline - clock_mono_ms();
        if (left <= 0)
            return status_set(err, STATUS_DEADLINE_EXCEEDED, "CNI plugin %s did not end in time and was killed", type);
        poll(fds, COUNT_OF(fds), p->pidfd < 0 ? CNI_EXEC_LOOK_MS : left < INT32_MAX ? (int)left : INT32_MAX);
        p->over = waitpid(p->pid, &p->wait_status, WNOHANG) == p->pid;
        cni_exec_write(p, &input);
        if (p->out >= 0 && !cni_exec_read_output(&p->out, output))
            return status_set(err, STATUS_RESOURCE_EXHAUSTED, "CNI plugin %s printed more than %u bytes and was killed", type,
                              CNI_OUTPUT_MAX);
        if (p->errors >= 0)
            cni_exec_read_errors(p, errors);
    }
    return true;
}

static bool cni_exec_run(const struct cni_exec *exec, const struct cni_plugin *plugin, enum cni_command command, const char **env,
                    struct str input, int64_t deadline, struct buf *output, struct status *err)
{
    struct cni_process p = { .pid = -1, .in = -1, .out = -1, .errors = -1, .pidfd = -1 };
    cleanup_buf struct buf errors = BUF_INIT;
    cleanup_free char *program = cni_find_program(exec->folders, plugin->type, err);

    if (program == NULL)
        return status_prefix(err, "%s", cni_command_name(command));
    log_debug("CNI: %s %s", cni_command_name(command), program);
    signal(SIGPIPE, SIG_IGN); /* of a plugin that does not read */
    bool ok = cni_exec_start(&p, program, plugin->type, env, err);
    ok = ok && cni_exec_attend(&p, plugin->type, input, deadline, output, &errors, err);
    if (!ok && p.pid > 0)
        cni_exec_kill(&p);
    cni_exec_close(&p.in);
    cni_exec_close(&p.out);
    cni_exec_close(&p.errors);
    cni_exec_close(&p.pidfd);
    if (!ok)
        return status_prefix(err, "%s", cni_command_name(command));
    if (!WIFEXITED(p.wait_status) || WEXITSTATUS(p.wait_status) != 0)
        return cni_failure(plugin->type, command, p.wait_status, (struct str){ (const char *)output->p, output->n },
                           (struct str){ (const char *)errors.p, errors.n }, err);
    if (errors.n > 0)
        log_debug("CNI: %s says: %s", plugin->type, buf_cstr(&errors));
    return true;
}

/* ---- chains ---- */

static const char *cni_exec_path(struct arena *arena, const char *const *folders)
{
    const char *path = "";

    for (; *folders != NULL; folders++)
        path = arena_printf(arena, "%s%s%s", path, *path != '\0' ? ":" : "", *folders);
    return path;
}

/* Nothing of it goes on beside the DEL that comes next. Returns false. */
static bool cni_exec_end_in_failure(const struct cni_attachment *attachment)
{
    if (attachment != NULL)
        cni_end_strays(attachment->container_id, 0);
    return false;
}

/* A chain in which each plugin hears the same result, forwards or backwards. */
static bool cni_exec_run_all(const struct cni_exec *exec, const struct cni_network *network, enum cni_command command,
                        const struct cni_attachment *attachment, const struct json *previous, struct status *err)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    const char **env = cni_environment(&arena, command, attachment, cni_exec_path(&arena, exec->folders));
    int64_t deadline = clock_mono_ms() + exec->timeout_ms;

    for (size_t i = 0; i < network->plugin_count; i++) {
        const struct cni_plugin *plugin = &network->plugins[command == CNI_DEL ? network->plugin_count - 1 - i : i];
        cleanup_buf struct buf input = BUF_INIT, output = BUF_INIT;
        cni_request(network, plugin, attachment, previous, NULL, &input);
        if (!cni_exec_run(exec, plugin, command, env, (struct str){ (const char *)input.p, input.n }, deadline, &output, err))
            return cni_exec_end_in_failure(attachment);
    }
    return true;
}

bool cni_add(const struct cni_exec *exec, const struct cni_network *network, const struct cni_attachment *attachment,
             struct buf *result, struct status *err)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    const char **env = cni_environment(&arena, CNI_ADD, attachment, cni_exec_path(&arena, exec->folders));
    int64_t deadline = clock_mono_ms() + exec->timeout_ms;
    struct cni_result r = { .json = NULL };

    for (size_t i = 0; i < network->plugin_count; i++) {
        const struct cni_plugin *plugin = &network->plugins[i];
        cleanup_buf struct buf input = BUF_INIT;
        cni_request(network, plugin, attachment, r.json, NULL, &input);
        buf_clear(result);
        if (!cni_exec_run(exec, plugin, CNI_ADD, env, (struct str){ (const char *)input.p, input.n }, deadline, result, err))
            return cni_exec_end_in_failure(attachment);
        if (!cni_result_parse(&arena, (struct str){ (const char *)result->p, result->n }, attachment->interface, &r, err))
            return status_prefix(err, "CNI plugin %s printed no result", plugin->type);
    }
    return r.address_count > 0 ||
           status_set(err, STATUS_FAILED_PRECONDITION, "network %s gave the pod's interface %s no address", network->name,
                      attachment->interface);
}

bool cni_del(const struct cni_exec *exec, const struct cni_network *network, const struct cni_attachment *attachment,
             struct status *err)
{
    return cni_exec_run_all(exec, network, CNI_DEL, attachment, cni_network_since(network, "0.4.0") ? attachment->result : NULL, err);
}

bool cni_check(const struct cni_exec *exec, const struct cni_network *network, const struct cni_attachment *attachment,
               struct status *err)
{
    return network->disable_check || !cni_network_since(network, "0.4.0") ||
           cni_exec_run_all(exec, network, CNI_CHECK, attachment, attachment->result, err);
}

bool cni_status(const struct cni_exec *exec, const struct cni_network *network, struct status *err)
{
    return !cni_network_since(network, "1.1.0") || cni_exec_run_all(exec, network, CNI_STATUS, NULL, NULL, err);
}

bool cni_gc(const struct cni_exec *exec, const struct cni_network *network, const struct json *valid, struct status *err)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    const char **env = cni_environment(&arena, CNI_GC, NULL, cni_exec_path(&arena, exec->folders));
    int64_t deadline = clock_mono_ms() + exec->timeout_ms;
    bool ok = true;

    if (network->disable_gc || !cni_network_since(network, "1.1.0"))
        return true;
    for (size_t i = 0; i < network->plugin_count; i++) {
        const struct cni_plugin *plugin = &network->plugins[i];
        cleanup_buf struct buf input = BUF_INIT, output = BUF_INIT;
        struct status later;
        cni_request(network, plugin, NULL, NULL, valid, &input);
        ok = cni_exec_run(exec, plugin, CNI_GC, env, (struct str){ (const char *)input.p, input.n }, deadline, &output,
                          ok ? err : &later) && ok;
    }
    return ok;
}

/* ---- strays ---- */

/* A container could show such a variable, too: what has other files is none of ours. */
static bool cni_exec_shares_files(const char *pid)
{
    cleanup_free char *path = xasprintf("/proc/%s/ns/mnt", pid);
    struct stat its, own;

    return stat(path, &its) == 0 && stat("/proc/self/ns/mnt", &own) == 0 && its.st_ino == own.st_ino && its.st_dev == own.st_dev;
}

static bool cni_exec_works_for(const char *pid, const char *container_id)
{
    static const char name[] = "CNI_CONTAINERID=";
    cleanup_free char *path = xasprintf("/proc/%s/environ", pid);
    cleanup_buf struct buf text = BUF_INIT;
    struct status ignored = STATUS_INIT;

    if (!file_read(path, CNI_EXEC_ENVIRONMENT_MAX, &text, &ignored))
        return false;
    buf_append_byte(&text, '\0');
    for (const char *p = (const char *)text.p, *end = p + text.n; p < end; p += strlen(p) + 1)
        if (strncmp(p, name, sizeof name - 1) == 0 && strcmp(p + sizeof name - 1, container_id) == 0)
            return cni_exec_shares_files(pid);
    return false;
}

/* How many there are; `number`: a signal for each, 0: none. */
static size_t cni_exec_signal_strays(const char *container_id, int number)
{
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    uint64_t pid;
    size_t count = 0;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (!parse_u64(entry->d_name, INT32_MAX, &pid) || (pid_t)pid == getpid() || !cni_exec_works_for(entry->d_name, container_id))
            continue;
        count++;
        kill((pid_t)pid, number);
    }
    if (dir != NULL)
        closedir(dir);
    return count;
}

static void cni_exec_pause(void)
{
    nanosleep(&(struct timespec){ 0, CNI_EXEC_LOOK_MS * 1000000L }, NULL);
}

void cni_end_strays(const char *container_id, int64_t grace_ms)
{
    int64_t end = clock_mono_ms() + grace_ms;
    size_t count = cni_exec_signal_strays(container_id, 0);

    for (; count > 0 && clock_mono_ms() < end; count = cni_exec_signal_strays(container_id, 0))
        cni_exec_pause();
    if (count > 0)
        log_info("CNI: %zu processes are left of pod %.13s's plugins: killing them", count, container_id);
    for (int round = 0; count > 0 && round < CNI_EXEC_ROUNDS; round++) {
        count = cni_exec_signal_strays(container_id, SIGKILL);
        cni_exec_pause();
    }
}

/* ---- the lock: a name among the machine's abstract sockets (unix(7)) ---- */

int cni_lock(const char *container_id, int64_t timeout_ms, struct status *err)
{
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    int64_t end = clock_mono_ms() + timeout_ms;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int n = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "interlink-cri/cni/%.80s", container_id);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);

    if (fd < 0) {
        status_errno(err, "cannot make a socket");
        return -1;
    }
    while (bind(fd, (struct sockaddr *)&name, length) < 0) {
        if (errno != EADDRINUSE || clock_mono_ms() >= end) {
            status_set(err, STATUS_DEADLINE_EXCEEDED, "an earlier life of serve has not finished with the pod's network: %s", strerror(errno));
            close(fd);
            return -1;
        }
        cni_exec_pause();
    }
    return fd;
}

#undef CNI_EXEC_LOOK_MS
#undef CNI_EXEC_ROUNDS
#undef CNI_EXEC_ENVIRONMENT_MAX
