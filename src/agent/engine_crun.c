/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine that makes containers: libcrun for namespaces, mounts and the first process; cgroups, filters and exec are
 * ours, because libcrun's way of them costs 10 to 20 ms (cgroup.h, seccomp.h say why).
 *
 * start:  worker -> fork into the container's cgroup -> libcrun: create (the first process waits at a fifo), then start
 *
 * libcrun is told nothing of cgroups, writes its state to <engine>/run, and takes 0 to 2 of the calling process as the
 * container's. Descriptor 3 is a pipe that closes at exec: its end, and the flag PF_FORKNOEXEC of a process that died
 * without exec, say whether the program is running.
 */
#include "agent/engine_impl.h"
#include "agent/image_volume.h"
#include "agent/launch.h"
#include "agent/rootfs.h"
#include "agent/spec.h"
#include "agent/terminal.h"
#include "agent/track.h"
#include "io/file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libcrun/container.h>
#include <libcrun/error.h>
#include <libcrun/status.h>
/* Its config.h and error.h define words of everyday use. */
#undef error
#undef VERSION
#undef PACKAGE
#undef PACKAGE_NAME
#undef PACKAGE_VERSION
#undef PACKAGE_STRING
#undef PACKAGE_TARNAME
#undef PACKAGE_BUGREPORT
#undef PACKAGE_URL

/* Where descriptors go that must stay out of the way of 0 to 3. */
#define CRUN_FD_HIGH 10
#define CRUN_EXEC_FD 3
/* linux/sched.h of the kernel: forked but did not exec. Field 9 of /proc/PID/stat, kept until the process is reaped. */
#define CRUN_PF_FORKNOEXEC 0x40ul

/* ---- create ---- */

/* libcrun opens some places of the image by name; a link there would lead it out of the root. */
static bool crun_check_root(int root_fd, struct status *err)
{
    static const char *const places[] = { "dev", "proc", "sys" };
    struct stat st;

    for (size_t i = 0; i < COUNT_OF(places); i++)
        if (fstatat(root_fd, places[i], &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode))
            return status_set(err, STATUS_INVALID_ARGUMENT, "image: /%s is a symbolic link", places[i]);
    return true;
}

/* A volume whose owners are to be mapped: by the pod's own user namespace, as kubelet asks for it, or by another map. */
static bool crun_map_stage(const struct spec_input *in, const Runtime__V1__Mount *m, size_t index, const char *point,
                           struct status *err)
{
    const struct podns *pod = &in->engine->pod;
    struct userns_map map;
    bool mapped;

    if (!podns_parse_mount(m, index, &map, &mapped, err))
        return false;
    if (!mapped)
        return true;
    bool pods = pod->on && userns_maps_equal(&map, &pod->map);
    cleanup_close int other = pods ? -1 : userns_new(&map, err);
    if (!pods && other < 0)
        return false;
    return rootfs_map(point, pods ? pod->user_fd : other, err) || status_prefix(err, "uidMappings");
}

static bool crun_stage(void *arg, size_t index, const struct engine_source *source, Runtime__V1__MountPropagation propagation,
                       struct buf *out, struct status *err)
{
    char place[64];
    const struct spec_input *in = arg;
    const Runtime__V1__Mount *m = index < in->create->config->n_mounts ? in->create->config->mounts[index] : NULL;

    if (m != NULL && image_volume_wanted(m))
        return image_volume_stage(in->create, index, in->root, out, err);
    snprintf(place, sizeof place, "/proc/self/fd/%d", source->fd);
    return rootfs_stage(in->create->bundle, index, source->fd >= 0 ? place : source->path,
                        source->in_job ? -1 : in->engine->isolation.host_mount_fd, source->create, propagation, out, err) &&
           (m == NULL || crun_map_stage(in, m, index, buf_cstr(out), err));
}

static bool crun_write_bundle(const struct engine_create *c, const struct spec *s, struct status *err)
{
    struct buf json cleanup_buf = BUF_INIT;
    cleanup_free char *root = xasprintf("%s/rootfs", c->bundle), *config = xasprintf("%s/config.json", c->bundle);

    spec_write(s, root, &json);
    return file_replace(config, json.p, json.n, 0600, err) && process_write(&s->process, c->bundle, err);
}

static bool crun_prepare(struct engine *e, const struct engine_create *c, const struct security_facts *facts, struct spec *s,
                         struct buf *note, struct status *err)
{
    cleanup_free char *root = xasprintf("%s/rootfs", c->bundle);
    struct buf limits cleanup_buf = BUF_INIT;
    struct cdi_edits cdi;
    struct lsm_choice labels;

    if (!lsm_choose(&e->lsm, c->config, c->sandbox, e->root, &s->arena, &labels, note, err))
        return false;
    const struct rootfs_options how = { .userns = e->isolation.user, .pod = &e->pod, .label = labels.mount };
    if (!rootfs_make(c->bundle, c->layers, c->layer_count, &how, err))
        return false;
    /* libcrun, then the pod's root and a stranger to our folders, looks for "rootfs" where it is. */
    if (e->pod.on && chmod(c->bundle, 0711) < 0)
        return status_errno(err, "cannot open %s for the pod's root", c->bundle);
    cleanup_close int root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        return status_errno(err, "cannot open %s", root);
    struct spec_input in = { .engine = e, .create = c, .facts = facts, .root = &how, .root_fd = root_fd, .labels = &labels, .cdi = &cdi,
                             .stage = crun_stage };
    in.arg = &in;
    if (!cdi_collect(c->config, e->cdi_dirs, &s->arena, &cdi, err) || !crun_check_root(root_fd, err) ||
        !spec_process(&in, s, note, err) || !spec_mounts(&in, s, err) ||
        !spec_devices(&in, s, err))
        return false;
    bool restrict_devices = e->cgroups.devices && e->root && !s->all_devices;
    if (!cgroup_create(&e->cgroups, c->id, spec_resources(c), restrict_devices ? s->rules : NULL, s->rule_count, &limits, err))
        return false;
    engine_note_limits(e, spec_resources(c), &limits, note);
    return crun_write_bundle(c, s, err);
}

static bool crun_create(struct engine *e, const struct engine_create *c, struct engine_created *out, struct status *err)
{
    struct spec s cleanup_spec = { .arena = ARENA_INIT };
    struct buf note cleanup_buf = BUF_INIT;
    struct security_facts facts;
    struct status ignored;

    security_facts_fill(&facts, &e->isolation, e->ops->name, e->root, e->cgroups.devices);
    facts.pod = e->pod.on ? &e->pod : NULL;
    facts.foreign_network = e->root && !e->pod.on && !e->isolation.network && !security_host_network(c->sandbox);
    if (!security_check(&facts, c->config, c->sandbox, err))
        return false;
    if (!crun_prepare(e, c, &facts, &s, &note, err)) {
        cgroup_remove(&e->cgroups, c->id, &ignored);
        rootfs_unmount(c->bundle, &ignored);
        return false;
    }
    engine_fill_created(out, &s.process.user, &note);
    return true;
}

/* ---- start: in the process that calls libcrun ---- */

struct crun_result {
    pid_t pid; /* > 0: runs */
    struct status err;
};

/* libcrun's words go to the agent's log, by a descriptor of their own: 2 is the container's by then. */
static void crun_log(int number, const char *message, int verbosity, void *arg)
{
    int fd = *(int *)arg;

    if (verbosity <= LIBCRUN_VERBOSITY_ERROR || log_enabled(LOG_DEBUG))
        dprintf(fd, "libcrun: %s%s%s\n", message, number != 0 ? ": " : "", number != 0 ? strerror(number) : "");
}

/* libcrun names our own paths ("mount `BUNDLE/mounts/0` to `etc/passwd`"); who made the pod knows the container's only. */
static bool crun_mount_error(const char *text, int number, struct status *err)
{
    const char *from = strstr(text, "mount `"), *to = from == NULL ? NULL : strstr(from, "` to `");
    const char *end = to == NULL ? NULL : strchr(to + 6, '`');

    if (number == 0 || end == NULL)
        return false;
    to += 6;
    errno = number;
    status_errno(err, "mounts: nothing can be mounted at \"/%.*s\" of this image%s", (int)(end - to - (*to == '/')), to + (*to == '/'),
                 number == ENOTDIR ? " (of the volume and of what is there one is a folder and one is not)" : "");
    err->code = STATUS_FAILED_PRECONDITION;
    return true;
}

static bool crun_fail(libcrun_error_t *e, const char *program, struct status *err)
{
    int number = *e != NULL ? (*e)->status : 0;
    const char *text = *e != NULL && (*e)->msg != NULL ? (*e)->msg : "no reason given";

    /* What find_executable says about the program itself. */
    if ((number == ENOENT || number == EACCES || number == EPERM) && strstr(text, program) != NULL &&
        strstr(text, "exec") != NULL)
        launch_exec_error(program, number == EPERM ? EACCES : number, err);
    else if (crun_mount_error(text, number, err))
        ;
    else if (number > 0) {
        errno = number;
        status_errno(err, "libcrun: %s", text);
    } else {
        status_set(err, STATUS_INTERNAL, "libcrun: %s", text);
    }
    libcrun_error_release(e);
    return false;
}

/* The terminal comes through a socket that libcrun connects to. Named relative to the bundle, where we are: a socket's path
 * is short. */
static int crun_listen_console(const char *name)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", name);
    unlink(name);
    if (fd >= 0 && (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 1) < 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static bool crun_pass_terminal(int listen_fd, const struct engine_stdio *io, int terminal_fd, struct status *err)
{
    cleanup_close int connection = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    cleanup_close int master = connection < 0 ? -1 : terminal_receive(connection);

    if (master < 0)
        return status_errno(err, "cannot receive the container's terminal");
    if (io->width > 0 || io->height > 0)
        terminal_resize(master, io->width, io->height);
    return terminal_send(terminal_fd, master) || status_errno(err, "cannot hand over the container's terminal");
}

static bool crun_place_stdio(const struct engine_stdio *io, const struct podns *pod, const struct user *user)
{
    int from[3] = { io->tty ? -1 : io->in, io->tty ? -1 : io->out, io->tty ? -1 : io->err };
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (int i = 0; i < 3; i++) {
        from[i] = fcntl(from[i] < 0 ? null_fd : from[i], F_DUPFD_CLOEXEC, CRUN_FD_HIGH);
        if (from[i] < 0)
            return false;
    }
    for (int i = 0; i < 3; i++) {
        struct stat st;
        if (dup2(from[i], i) < 0)
            return false;
        /* So that the container's user can open /dev/stdout by name; from inside libcrun may not give our pipes away. */
        if (pod->on && fstat(i, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode)))
            (void)!fchown(i, podns_uid(pod, user->uid), podns_gid(pod, user->gid));
    }
    for (int i = 0; i < 3; i++)
        close(from[i]);
    if (null_fd > 2)
        close(null_fd);
    return true;
}

/* The write end becomes CRUN_EXEC_FD; the read end is returned. -1 with errno. */
static int crun_make_exec_pipe(void)
{
    int fds[2], high[2];

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -1;
    for (int i = 0; i < 2; i++) {
        high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, CRUN_FD_HIGH);
        close(fds[i]);
    }
    if (high[0] < 0 || high[1] < 0 || dup3(high[1], CRUN_EXEC_FD, O_CLOEXEC) < 0)
        return -1;
    close(high[1]);
    return high[0];
}

/* Waits until the program is executed, or the process has ended without; the exit status is not ours to take. */
static bool crun_await_exec(int read_fd, pid_t pid, const char *program, struct status *err)
{
    char path[64], byte;
    struct buf text cleanup_buf = BUF_INIT;
    struct status ignored;
    unsigned long flags = 0;

    while (read(read_fd, &byte, 1) < 0 && errno == EINTR)
        ;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (!file_read(path, 4096, &text, &ignored))
        return true;
    const char *end = strrchr(buf_cstr(&text), ')');
    if (end != NULL && sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %lu", &flags) == 1 && (flags & CRUN_PF_FORKNOEXEC) != 0) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "exec: \"%.200s\": it cannot be executed: not a program for this machine, or its interpreter or "
                          "dynamic loader is missing",
                          program);
    }
    return true;
}

/* Also what may have changed since create. Environment and arguments as bytes: config.json only has them as far as they are UTF-8. The container's own are freed by
 * nobody, for this process ends soon. */
static void crun_set_strings(libcrun_container_t *container, const struct process *p)
{
    runtime_spec_schema_config_schema_process *to = container->container_def->process;
    size_t n = 0;

    to->args = p->argv;
    for (to->args_len = 0; p->argv[to->args_len] != NULL; to->args_len++)
        ;
    while (p->env[n] != NULL)
        n++;
    to->env = p->env;
    to->env_len = n;
    to->oom_score_adj = (int)p->oom_score_adj;
    to->oom_score_adj_present = p->has_oom_score_adj;
}

struct crun_start {
    const struct engine *engine;
    const char *id, *bundle;
    const struct engine_stdio *io;
    const struct process *process;
    int log_fd, terminal_fd, result_fd;
};

static bool crun_run(struct crun_start *s, pid_t *pid, struct status *err)
{
    cleanup_free char *state = xasprintf("%s/run", s->engine->dir);
    libcrun_error_t failure = NULL;
    libcrun_container_status_t status = { .pid = 0 };
    libcrun_context_t context = { .state_root = state,
                                  .id = s->id,
                                  .bundle = ".",
                                  .console_socket = s->io->tty ? "console" : NULL,
                                  .preserve_fds = 1, /* CRUN_EXEC_FD */
                                  .fifo_exec_wait_fd = -1,
                                  .output_handler = crun_log,
                                  .output_handler_arg = &s->log_fd,
                                  .no_new_keyring = true, /* the pod has one (isolate.c) */
                                  .force_no_cgroup = true };
    int exec_fd = crun_make_exec_pipe(), listen_fd = -1;
    const char *program = s->process->argv[0];

    crun_set_output_handler(crun_log, &s->log_fd);
    if (exec_fd < 0)
        return status_errno(err, "cannot make a pipe");
    if (s->io->tty && (listen_fd = crun_listen_console("console")) < 0)
        return status_errno(err, "cannot make a socket for the terminal");
    libcrun_container_t *container = libcrun_container_load_from_file("config.json", &failure);
    if (container == NULL)
        return crun_fail(&failure, program, err);
    crun_set_strings(container, s->process);
    if (libcrun_container_create(&context, container, 0, &failure) < 0)
        return crun_fail(&failure, program, err);
    close(CRUN_EXEC_FD);
    if (libcrun_read_container_status(&status, state, s->id, &failure) < 0)
        return crun_fail(&failure, program, err);
    bool ok = (!s->io->tty || crun_pass_terminal(listen_fd, s->io, s->terminal_fd, err)) &&
              (track_add(".", status.pid, true) || status_errno(err, "cannot remember the container's first process"));
    if (ok && libcrun_status_write_exec_fifo(state, s->id, &failure) < 0)
        ok = crun_fail(&failure, program, err);
    if (!ok)
        kill(status.pid, SIGKILL);
    *pid = status.pid;
    return ok && crun_await_exec(exec_fd, status.pid, program, err);
}

/* Never returns. */
static void crun_child(struct crun_start *s)
{
    struct crun_result result;

    memset(&result, 0, sizeof result);
    s->log_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, CRUN_FD_HIGH);
    s->result_fd = fcntl(s->result_fd, F_DUPFD_CLOEXEC, CRUN_FD_HIGH);
    s->terminal_fd = s->io->tty ? fcntl(s->io->terminal_fd, F_DUPFD_CLOEXEC, CRUN_FD_HIGH) : -1;
    /* As root: nobody in a container that shares the PID namespace may look into this copy of the agent. (In a user namespace
     * /proc/self would be lost with it; there the capabilities that containers lack protect it.) */
    if (s->engine->root)
        prctl(PR_SET_DUMPABLE, 0L);
    if (!crun_place_stdio(s->io, &s->engine->pod, &s->process->user) || chdir(s->bundle) < 0)
        status_errno(&result.err, "cannot set up standard input and output");
    else if (!crun_run(s, &result.pid, &result.err))
        result.pid = 0;
    struct status ignored;
    _exit(write_all(s->result_fd, &result, sizeof result, &ignored) ? 0 : 1);
}

/* ---- start: in the worker ---- */

static bool crun_start(struct engine *e, const char *id, const char *bundle, const struct engine_stdio *io, pid_t *pid,
                       struct status *err)
{
    struct process process cleanup_process = { .arena = ARENA_INIT };
    struct crun_result result;
    int fds[2], wait_status = 0;
    ssize_t n;

    if (!process_read(&process, bundle, err))
        return false;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return status_errno(err, "cannot make a pipe");
    struct crun_start s = { .engine = e, .id = id, .bundle = bundle, .io = io, .process = &process, .result_fd = fds[1] };
    pid_t child = cgroup_fork(&e->cgroups, id, err);
    if (child == 0) {
        close(fds[0]);
        crun_child(&s);
    }
    close(fds[1]);
    do
        n = child < 0 ? 0 : read(fds[0], &result, sizeof result);
    while (n < 0 && errno == EINTR);
    close(fds[0]);
    if (child < 0)
        return false;
    while (waitpid(child, &wait_status, 0) < 0 && errno == EINTR)
        ;
    if (n != (ssize_t)sizeof result) {
        /* Inside the container's memory limit the kernel may have killed libcrun itself. */
        if (cgroup_oom_killed(&e->cgroups, id))
            return status_set(err, STATUS_RESOURCE_EXHAUSTED,
                              "the memory limit is too small to start the container (linux.resources.memory_limit_in_bytes)");
        return status_set(err, STATUS_INTERNAL, "starting the container ended with wait status %#x and no word", wait_status);
    }
    if (result.pid <= 0) {
        *err = result.err;
        return false;
    }
    *pid = result.pid;
    return true;
}

/* ---- remove ---- */

static bool crun_remove(struct engine *e, const char *id, const char *bundle, struct status *err)
{
    cleanup_free char *state = xasprintf("%s/run/%s", e->dir, id);

    return rootfs_unmount(bundle, err) && tree_remove(state, err);
}

/* ---- what it can do ---- */

static void crun_features(const struct isolation *isolation UNUSED, Interlink__Agent__V1__Features *out)
{
    out->recursive_read_only_mounts = spec_has_mount_setattr();
}

const struct engine_ops engine_crun = { "crun", crun_features, crun_create, crun_start, crun_remove, NULL, NULL, NULL };

#undef CRUN_FD_HIGH
#undef CRUN_EXEC_FD
#undef CRUN_PF_FORKNOEXEC
