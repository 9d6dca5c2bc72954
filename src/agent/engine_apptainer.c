/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine of machines where we may make no namespaces: the site's apptainer makes them (apptainer.h says how). The container's
 * root is a folder of its own, made from the image's layers, for overlayfs cannot be mounted here either.
 *
 * start:  worker -> apptainer instance start   (stays: its first process holds the container's namespaces)
 *         worker -> apptainer exec instance:// -> in the container: this program, `agent enter` -> the container's program
 *
 * The pid that the agent knows is that of the `apptainer exec`, which ends as its program did; signals go to the program, its
 * child, for apptainer does not pass them on. Through the socket that `agent enter` inherits it sends a pipe, whose end says
 * that the program runs, and takes a struct process; its last words go the other way.
 */
#include "agent/apptainer.h"
#include "agent/engine_apptainer.h"
#include "agent/engine_impl.h"
#include "agent/launch.h"
#include "agent/rootfs.h"
#include "agent/spec.h"
#include "agent/terminal.h"
#include "agent/track.h"
#include "image/unpack.h"
#include "io/file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Command and environment of a process: what execve(2) takes is less. */
#define ENTER_BYTES_MAX (8u << 20)
/* Of apptainer's complaints. */
#define ENTER_WORDS_MAX 4096u
#define ENTER_WORDS_SHOWN 400

/* ---- create ---- */

bool engine_apptainer_open(struct engine *e, struct status *err)
{
    cleanup_free char *state = xasprintf("%s/apptainer", e->dir), *enter = xasprintf("%s/enter", e->dir);
    cleanup_close int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    cleanup_close int to = -1;
    struct stat st;

    if (!dir_make(state, 0700, err))
        return false;
    unlink(enter);
    to = open(enter, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0500);
    if (from < 0 || to < 0 || fstat(from, &st) < 0)
        return status_errno(err, "cannot copy this program to %s", enter);
    for (off_t done = 0; done < st.st_size;) {
        ssize_t n = sendfile(to, from, &done, (size_t)(st.st_size - done));
        if (n <= 0 && errno != EINTR)
            return status_errno(err, "cannot copy this program to %s", enter);
    }
    return fchmod(to, 0555) == 0 || status_errno(err, "cannot copy this program to %s", enter);
}

/* A file or folder for something to be mounted on. */
static bool enter_make_point(int root_fd, const char *destination, bool is_dir, struct status *err)
{
    cleanup_free char *parent = xstrdup(destination);
    char *slash = strrchr(parent, '/');

    if (is_dir)
        return rootfs_mkdir(root_fd, destination, err);
    *slash = '\0';
    if (!rootfs_mkdir(root_fd, parent, err))
        return false;
    cleanup_close int there = rootfs_open(root_fd, destination, O_PATH);
    cleanup_close int folder = there >= 0 ? -1 : rootfs_open(root_fd, *parent != '\0' ? parent : "/", O_PATH | O_DIRECTORY);
    cleanup_close int file = there >= 0 ? -1 : openat(folder, slash + 1, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    return there >= 0 || file >= 0 || status_errno(err, "cannot make the file %s in the container", destination);
}

/* To be made by `agent enter`: in this engine a process's binds are links in /dev. */
static void enter_link(struct spec *s, const char *from, const char *to)
{
    s->process.binds[s->process.bind_count++] = (struct process_bind){ .source = arena_strdup(&s->arena, from),
                                                                       .target = arena_strdup(&s->arena, to) };
}

static bool enter_make_points(int root_fd, struct spec *s, struct status *err)
{
    static const char *const folders[] = { "/proc", "/sys", "/dev", "/tmp", "/var/tmp", "/etc" };
    struct stat st;

    s->process.binds = ARENA_ARRAY(&s->arena, struct process_bind, s->mount_count + s->device_count);
    for (size_t i = 0; i < COUNT_OF(folders); i++)
        if (!rootfs_mkdir(root_fd, folders[i], err))
            return false;
    for (size_t i = 0; i < s->mount_count; i++) {
        const struct spec_mount *m = &s->mounts[i];
        const char *place = apptainer_place(s, i, &s->arena);
        if (!apptainer_mount_wanted(m) || str_starts(place, "/dev/"))
            continue;
        if (stat(m->source, &st) < 0)
            return status_errno(err, "mounts: %s", m->source);
        if (!enter_make_point(root_fd, place, S_ISDIR(st.st_mode), err))
            return status_prefix(err, "mounts");
        if (place != m->destination)
            enter_link(s, place, m->destination);
    }
    for (size_t i = 0; i < s->device_count; i++) {
        const struct spec_device *d = &s->devices[i];
        if (strcmp(d->path, d->source) == 0)
            continue;
        if (!str_starts(d->path, "/dev/"))
            return status_set(err, STATUS_FAILED_PRECONDITION, "devices: the apptainer engine has devices below /dev only, not at %.200s",
                              d->path);
        enter_link(s, d->source, d->path);
    }
    return enter_make_point(root_fd, APPTAINER_ENTER, false, err);
}

/* Mounts are apptainer's to make; here it is only seen that there is something. */
static bool enter_stage(void *arg, size_t index, const struct engine_source *source, Runtime__V1__MountPropagation propagation UNUSED,
                        struct buf *out, struct status *err)
{
    struct stat st;

    (void)arg;
    (void)index;
    if (source->path[0] != '/')
        return status_set(err, STATUS_INVALID_ARGUMENT, "host_path \"%s\" is not an absolute path", source->path);
    if (stat(source->path, &st) < 0) {
        if (errno != ENOENT || !source->create)
            return status_set(err, STATUS_NOT_FOUND, "host_path %s: %s on this machine", source->path, strerror(errno));
        if (!dir_make(source->path, 0755, err))
            return false;
    }
    buf_append_str(out, source->path);
    return true;
}

/* What apptainer cannot do at all, and nothing else asks about. */
static bool enter_check(const struct engine_create *c, const struct lsm_choice *labels, struct status *err)
{
    const Runtime__V1__LinuxContainerSecurityContext *s = spec_security(c);

    if (spec_privileged(c))
        return status_set(err, STATUS_FAILED_PRECONDITION, "linux.security_context.privileged: the apptainer engine gives no privileges");
    if (*labels->apparmor != '\0')
        return status_set(err, STATUS_FAILED_PRECONDITION, "linux.security_context.apparmor: the apptainer engine sets no profile");
    if (*labels->selinux != '\0' && s != NULL && s->selinux_options != NULL)
        return status_set(err, STATUS_FAILED_PRECONDITION, "linux.security_context.selinux_options: the apptainer engine sets no label");
    return true;
}

static void enter_notes(const struct engine_create *c, struct buf *note)
{
    const Runtime__V1__LinuxContainerSecurityContext *s = spec_security(c);

    if (s != NULL && s->n_masked_paths + s->n_readonly_paths > 0)
        buf_printf(note, "%smasked_paths and readonly_paths are left to apptainer", note->n > 0 ? "; " : "");
}

static bool enter_write_start(struct engine *e, const struct engine_create *c, const char *root, struct spec *s, struct status *err)
{
    cleanup_free char *enter = xasprintf("%s/enter", e->dir), *pid_file = xasprintf("%s/pid", c->bundle);
    cleanup_free char *path = xasprintf("%s/start", c->bundle);
    struct buf text cleanup_buf = BUF_INIT;
    const char *const *argv;
    struct apptainer_instance i = { .program = &e->apptainer, .id = c->id, .root = root, .enter = enter, .pid_file = pid_file,
                                    .spec = s, .own_ipc = !e->isolation.host_ipc, .root_user = e->root, .nvidia = c->nvidia,
                                    .rocm = c->rocm };

    if (!apptainer_start_argv(&i, &s->arena, &argv, err))
        return false;
    for (; *argv != NULL; argv++)
        buf_append(&text, *argv, strlen(*argv) + 1);
    return file_replace(path, text.p, text.n, 0600, err);
}

static bool enter_prepare(struct engine *e, const struct engine_create *c, const struct security_facts *facts, struct spec *s,
                          struct buf *note, struct status *err)
{
    cleanup_free char *root = xasprintf("%s/rootfs", c->bundle);
    struct buf limits cleanup_buf = BUF_INIT;
    struct cdi_edits cdi;
    struct lsm_choice labels;
    struct unpacked unpacked;

    if (!lsm_choose(&e->lsm, c->config, c->sandbox, false, &s->arena, &labels, note, err) || !enter_check(c, &labels, err))
        return false;
    if (c->layer_count == 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "image: it has no layers");
    if (!unpack_rootfs_copy(c->layers, c->layer_count, root, &unpacked, err))
        return false;
    cleanup_close int root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        return status_errno(err, "cannot open %s", root);
    labels = (struct lsm_choice){ "", "", "" };
    struct spec_input in = { .engine = e, .create = c, .facts = facts, .root_fd = root_fd, .labels = &labels, .cdi = &cdi,
                             .stage = enter_stage };
    if (!cdi_collect(c->config, e->cdi_dirs, &s->arena, &cdi, err) || !spec_process(&in, s, note, err) || !spec_mounts(&in, s, err) ||
        !spec_devices(&in, s, err) || !enter_make_points(root_fd, s, err))
        return false;
    if (!cgroup_create(&e->cgroups, c->id, spec_resources(c), NULL, 0, &limits, err))
        return false;
    engine_note_limits(e, spec_resources(c), &limits, note);
    enter_notes(c, note);
    return enter_write_start(e, c, root, s, err) && process_write(&s->process, c->bundle, err);
}

static bool apptainer_create(struct engine *e, const struct engine_create *c, struct engine_created *out, struct status *err)
{
    struct spec s cleanup_spec = { .arena = ARENA_INIT };
    struct buf note cleanup_buf = BUF_INIT;
    struct security_facts facts;
    struct status ignored;

    /* It has one user, also where that is root, and gives nobody a capability. */
    security_facts_fill(&facts, &e->isolation, e->ops->name, false, false);
    facts.available = 0;
    if (!security_check(&facts, c->config, c->sandbox, err))
        return false;
    if (!enter_prepare(e, c, &facts, &s, &note, err)) {
        cgroup_remove(&e->cgroups, c->id, &ignored);
        return false;
    }
    engine_fill_created(out, &s.process.user, &note);
    return true;
}

/* ---- in the worker ---- */

/* Runs apptainer as a process of the container's cgroup, with all that it can have of ours. */
static bool enter_launch(struct engine *e, const char *id, const char *bundle, const struct process *of, const char *const *argv,
                         const struct engine_stdio *io, const int *pass, size_t pass_count, pid_t *pid, struct status *err)
{
    struct process p = { .arena = ARENA_INIT, .cwd = (char *)(uintptr_t)"/", .bounding = ~0ull, .apparmor = (char *)(uintptr_t)"",
                         .selinux = (char *)(uintptr_t)"", .has_oom_score_adj = of->has_oom_score_adj,
                         .oom_score_adj = of->oom_score_adj, .keep_groups = true };
    cleanup_free char *state = xasprintf("%s/apptainer", e->dir);
    struct security_facts facts;

    security_facts_fill(&facts, &e->isolation, e->ops->name, e->root, false);
    p.permitted = facts.available;
    p.user.uid = geteuid();
    p.user.gid = getegid();
    p.env = apptainer_env(state, &p.arena);
    struct launch l = { .process = &p, .argv = argv, .io = io, .cgroups = &e->cgroups, .id = id, .one_id = true, .bundle = bundle };
    for (l.pass_count = 0; l.pass_count < pass_count; l.pass_count++)
        l.pass[l.pass_count] = pass[l.pass_count];
    bool ok = launch_process(&l, pid, err);
    process_free(&p);
    return ok;
}

/* The last line that apptainer wrote, for a message. */
static const char *enter_complaint(const char *log_path, struct buf *text)
{
    struct status ignored;

    if (!file_read(log_path, ENTER_WORDS_MAX, text, &ignored))
        buf_clear(text);
    while (text->n > 0 && (text->p[text->n - 1] == '\n' || text->p[text->n - 1] == ' '))
        text->n--;
    const char *line = strrchr(buf_cstr(text), '\n');
    return text->n == 0 ? "it said nothing" : line != NULL ? line + 1 : buf_cstr(text);
}

static bool enter_start_instance(struct engine *e, const char *id, const char *bundle, const struct process *process, struct status *err)
{
    cleanup_free char *path = xasprintf("%s/start", bundle), *log_path = xasprintf("%s/start.log", bundle);
    cleanup_arena struct arena arena = ARENA_INIT;
    struct buf text cleanup_buf = BUF_INIT, words cleanup_buf = BUF_INIT;
    size_t n = 0;
    int wait_status = 0;
    pid_t pid;

    if (!file_read(path, ENTER_BYTES_MAX, &text, err))
        return false;
    const char **argv = ARENA_ARRAY(&arena, const char *, text.n + 1);
    for (const char *p = buf_cstr(&text), *end = p + text.n; p < end; p += strlen(p) + 1)
        argv[n++] = p;
    cleanup_close int log_fd = open(log_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (log_fd < 0)
        return status_errno(err, "cannot create %s", log_path);
    struct engine_stdio io = { .in = -1, .out = log_fd, .err = log_fd };
    if (!enter_launch(e, id, NULL, process, argv, &io, NULL, 0, &pid, err))
        return false;
    while (waitpid(pid, &wait_status, 0) < 0 && errno == EINTR)
        ;
    return wait_status == 0 || status_set(err, STATUS_FAILED_PRECONDITION, "apptainer cannot start the container: %.*s", ENTER_WORDS_SHOWN,
                                          enter_complaint(log_path, &words));
}

/* Everything that the process needs goes to it over the socket once it is there. */
static bool enter_send(int socket_fd, const struct process *process, int *report_fd, struct status *err)
{
    struct buf bytes cleanup_buf = BUF_INIT;

    *report_fd = terminal_receive(socket_fd);
    if (*report_fd < 0)
        return false;
    process_encode(process, &bytes);
    uint64_t size = bytes.n;
    return write_all(socket_fd, &size, sizeof size, err) && write_all(socket_fd, bytes.p, bytes.n, err);
}

/* Runs the process in the instance. */
static bool enter_run(struct engine *e, const char *id, const char *bundle, const struct process *process, const struct engine_stdio *io,
                      pid_t *pid, struct status *err)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct engine_stdio own = { .in = io->tty ? -1 : io->in, .out = io->tty ? -1 : io->out, .err = io->tty ? -1 : io->err };
    int pair[2], wait_status = 0;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return status_errno(err, "cannot make a socket pair");
    const char *const words[] = { "agent", "enter", arena_printf(&arena, "%d", pair[1]),
                                  arena_printf(&arena, "%d", io->tty ? io->terminal_fd : -1), arena_printf(&arena, "%u", io->width),
                                  arena_printf(&arena, "%u", io->height), NULL };
    int pass[] = { pair[1], io->terminal_fd };
    bool ok = enter_launch(e, id, bundle, process, apptainer_exec_argv(&e->apptainer, id, words, &arena), &own, pass, io->tty ? 2 : 1, pid,
                           err);
    cleanup_close int ours = pair[0];
    cleanup_close int report_fd = -1;
    close(pair[1]);
    if (!ok)
        return false;
    bool sent = enter_send(ours, process, &report_fd, err);
    if (sent && launch_await(report_fd, process->argv[0], err))
        return true;
    if (!sent)
        kill(*pid, SIGKILL);
    while (waitpid(*pid, &wait_status, 0) < 0 && errno == EINTR)
        ;
    *pid = -1;
    return !sent ? status_set(err, STATUS_FAILED_PRECONDITION,
                              "apptainer did not bring \"%.200s\" into the container (wait status %#x); what it said is in the "
                              "container's log", process->argv[0], (unsigned)wait_status)
                 : false;
}

static bool apptainer_start(struct engine *e, const char *id, const char *bundle, const struct engine_stdio *io, pid_t *pid,
                            struct status *err)
{
    struct process process cleanup_process = { .arena = ARENA_INIT };

    return process_read(&process, bundle, err) && enter_start_instance(e, id, bundle, &process, err) &&
           enter_run(e, id, bundle, &process, io, pid, err);
}

static bool apptainer_exec(struct engine *e, const char *id, const char *bundle, const struct process *process,
                           const struct engine_stdio *io, pid_t *pid, struct status *err)
{
    return enter_run(e, id, bundle, process, io, pid, err);
}

/* ---- in the container ---- */

static bool enter_read(int fd, void *p, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = read(fd, (char *)p + done, n - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    return true;
}

/* agent enter SOCKET TERMINAL WIDTH HEIGHT */
int engine_apptainer_enter(int argc, char **argv)
{
    struct process process = { .arena = ARENA_INIT };
    struct buf bytes = BUF_INIT;
    struct status err;
    uint64_t numbers[4], size;
    int report[2];

    if (argc != 7)
        return 64;
    /* "-1" is no number and means none. */
    for (size_t i = 0; i < COUNT_OF(numbers); i++)
        if (!parse_u64(argv[3 + i], INT32_MAX, &numbers[i]))
            numbers[i] = UINT64_MAX;
    int socket_fd = (int)numbers[0];
    struct engine_stdio io = { .in = 0, .out = 1, .err = 2, .tty = numbers[1] != UINT64_MAX, .terminal_fd = (int)numbers[1],
                               .width = (uint32_t)numbers[2], .height = (uint32_t)numbers[3] };
    if (pipe2(report, O_CLOEXEC) < 0 || !terminal_send(socket_fd, report[0]))
        return 71;
    close(report[0]);
    if (!enter_read(socket_fd, &size, sizeof size) || size > ENTER_BYTES_MAX ||
        !enter_read(socket_fd, buf_reserve(&bytes, (size_t)size), (size_t)size) ||
        !process_decode(&process, (struct str){ (const char *)bytes.p, (size_t)size }, &err))
        return 71;
    close(socket_fd);
    for (size_t i = 0; i < process.bind_count; i++)
        (void)!symlink(process.binds[i].source, process.binds[i].target); /* there already, but for the first process */
    launch_inside(&process, &io, report[1]);
    return 71;
}

/* ---- signals and the end ---- */

/* The program: the first child of the `apptainer exec` that the agent knows. */
static pid_t apptainer_program(pid_t pid)
{
    char path[64];
    struct buf text cleanup_buf = BUF_INIT;
    struct status ignored;

    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    if (!file_read(path, 4096, &text, &ignored))
        return pid;
    long child = strtol(buf_cstr(&text), NULL, 10);
    return child > 1 ? (pid_t)child : pid;
}

/* The instance's first process, with which all of its PID namespace goes. Only while it still is what it was. */
static void apptainer_kill(const char *bundle)
{
    cleanup_free char *path = xasprintf("%s/pid", bundle);
    struct buf text cleanup_buf = BUF_INIT, name cleanup_buf = BUF_INIT;
    struct status ignored;
    char comm[64];

    if (!file_read(path, 64, &text, &ignored))
        return;
    long pid = strtol(buf_cstr(&text), NULL, 10);
    snprintf(comm, sizeof comm, "/proc/%ld/comm", pid);
    if (pid > 1 && file_read(comm, 64, &name, &ignored) && strstr(buf_cstr(&name), "init") != NULL)
        kill((pid_t)pid, SIGKILL);
    unlink(path);
}

static bool apptainer_remove(struct engine *e UNUSED, const char *id UNUSED, const char *bundle, struct status *err UNUSED)
{
    apptainer_kill(bundle);
    return true;
}

static void apptainer_features(const struct isolation *isolation UNUSED, Interlink__Agent__V1__Features *out UNUSED)
{
    /* none of them */
}

const struct engine_ops engine_apptainer = { "apptainer",      apptainer_features, apptainer_create,  apptainer_start,
                                             apptainer_remove, apptainer_exec,     apptainer_program, apptainer_kill };

#undef ENTER_BYTES_MAX
#undef ENTER_WORDS_MAX
#undef ENTER_WORDS_SHOWN
