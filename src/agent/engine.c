/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/engine_impl.h"

#include "agent/cdi.h"
#include "agent/engine_apptainer.h"
#include "agent/launch.h"
#include "agent/terminal.h"
#include "agent/track.h"
#include "io/child.h"
#include "io/file.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* As everywhere: 64 MB. */
#define ENGINE_SHM_OPTIONS "mode=1777,size=65536k"
/* A machine's /etc/hosts or resolv.conf. */
#define ENGINE_FILE_MAX (1u << 20)
/* How long killed processes may take to go when no cgroup tells. */
#define ENGINE_KILL_MS 2000

/* ---- which one ---- */

static bool engine_has_containers(const struct isolation *is)
{
    return is->mount && (is->pid || is->host_pid);
}

static void engine_describe_crun(const struct isolation *is, char reason[ENGINE_REASON_SIZE])
{
    if (is->uid == 0 && !is->user)
        snprintf(reason, ENGINE_REASON_SIZE, "namespaces as root");
    else
        snprintf(reason, ENGINE_REASON_SIZE, "namespaces in a user namespace with %u id%s", is->uids, is->uids == 1 ? "" : "s");
}

/* From inside namespaces of ours, which lack something, apptainer would lack it, too. */
static bool engine_has_apptainer(const struct engine_options *o, struct apptainer *out, struct status *err)
{
    if (o->isolation.user || o->isolation.mount)
        return status_set(err, STATUS_FAILED_PRECONDITION, "the agent is in namespaces of its own already");
    return apptainer_find(o->apptainer, out, err);
}

static const char *engine_apptainer_way(const struct engine_options *o, const struct apptainer *apptainer)
{
    return apptainer->setuid ? "setuid" : o->isolation.uid == 0 ? "as root" : "with user namespaces";
}

/* The best that works here; what was passed over is in the reason, or in the error when there is nothing. */
static const struct engine_ops *engine_pick_any(const struct engine_options *o, struct apptainer *apptainer,
                                                char reason[ENGINE_REASON_SIZE], struct status *err)
{
    const struct isolation *is = &o->isolation;
    struct status why = STATUS_INIT;

    if (engine_has_containers(is)) {
        engine_describe_crun(is, reason);
        return &engine_crun;
    }
    if (engine_has_apptainer(o, apptainer, &why)) {
        snprintf(reason, ENGINE_REASON_SIZE, "%s at %s, %s; not crun: %s", apptainer->version, apptainer->path,
                 engine_apptainer_way(o, apptainer), is->missing);
        return &engine_apptainer;
    }
    if (o->allow_host) {
        snprintf(reason, ENGINE_REASON_SIZE, "allowed by the configuration; not crun: %s; not apptainer: %.300s", is->missing, why.message);
        return &engine_host;
    }
    status_set(err, STATUS_FAILED_PRECONDITION,
               "no engine can make containers in this job: not crun: %.255s; not apptainer: %.300s; not host: the configuration does not "
               "allow it (Engine: host)", is->missing, why.message);
    return NULL;
}

static const struct engine_ops *engine_pick(const struct engine_options *o, struct apptainer *apptainer,
                                            char reason[ENGINE_REASON_SIZE], struct status *err)
{
    if (*o->wanted == '\0' || strcmp(o->wanted, "auto") == 0)
        return engine_pick_any(o, apptainer, reason, err);
    if (strcmp(o->wanted, "crun") == 0) {
        engine_describe_crun(&o->isolation, reason);
        if (engine_has_containers(&o->isolation))
            return &engine_crun;
        status_set(err, STATUS_FAILED_PRECONDITION, "no engine can make containers in this job: %.255s", o->isolation.missing);
        return NULL;
    }
    if (strcmp(o->wanted, "apptainer") == 0) {
        if (!engine_has_apptainer(o, apptainer, err)) {
            status_prefix(err, "no engine can make containers in this job: apptainer");
            err->code = STATUS_FAILED_PRECONDITION;
            return NULL;
        }
        snprintf(reason, ENGINE_REASON_SIZE, "configured; %s at %s, %s", apptainer->version, apptainer->path,
                 engine_apptainer_way(o, apptainer));
        return &engine_apptainer;
    }
    if (strcmp(o->wanted, "host") == 0) {
        snprintf(reason, ENGINE_REASON_SIZE, "configured");
        return &engine_host;
    }
    if (strcmp(o->wanted, "inside") == 0) {
        snprintf(reason, ENGINE_REASON_SIZE, "the agent is in the container already");
        return &engine_inside;
    }
    status_set(err, STATUS_INVALID_ARGUMENT, "there is no engine \"%.40s\" (auto, crun, apptainer or host)", o->wanted);
    return NULL;
}

static const char *const *engine_split_dirs(struct arena *arena, const char *list)
{
    char *copy = arena_strdup(arena, list), *save = NULL;
    const char **dirs = ARENA_ARRAY(arena, const char *, strlen(list) / 2 + 2);
    size_t count = 0;

    for (char *dir = strtok_r(copy, ":", &save); dir != NULL; dir = strtok_r(NULL, ":", &save))
        dirs[count++] = dir;
    return count > 0 ? dirs : cdi_default_dirs;
}

/* The pod's /dev/shm, seen by no other pod and gone with the agent's mount namespace. */
static bool engine_make_shm(struct engine *e, struct status *err)
{
    cleanup_free char *path = xasprintf("%s/shm", e->dir);

    if (!dir_make(path, 0700, err))
        return false;
    if (e->ops != &engine_crun || e->isolation.host_ipc)
        return true;
    return mount("shm", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, ENGINE_SHM_OPTIONS) == 0 ||
           status_errno(err, "cannot mount the pod's /dev/shm at %s", path);
}

struct engine *engine_new(const struct engine_options *o, char reason[ENGINE_REASON_SIZE], struct status *err)
{
    struct apptainer apptainer = { .path = "" };
    const struct engine_ops *ops = engine_pick(o, &apptainer, reason, err);
    char name[HOST_NAME_MAX + 1] = "";

    if (ops == NULL)
        return NULL;
    struct engine *e = xcalloc(1, sizeof *e);
    e->ops = ops;
    e->apptainer = apptainer;
    e->isolation = o->isolation;
    e->pod = (struct podns)PODNS_INIT;
    e->dir = xasprintf("%s/engine", o->work_dir != NULL ? o->work_dir : o->job_dir);
    e->root = o->isolation.uid == 0 && !o->isolation.user;
    e->cdi_dirs = engine_split_dirs(&e->arena, o->cdi_dirs);
    lsm_open(&e->lsm, "");
    gethostname(name, sizeof name - 1);
    e->hostname = xstrdup(name);
    cleanup_free char *run = xasprintf("%s/run", e->dir);
    struct cgroup_options options = { .rootless = !e->root, .parent = o->cgroup_parent, .sandbox_id = o->sandbox_id,
                                      .job_dir = o->job_dir };
    cgroups_open(&e->cgroups, &options);
    if (!dir_make(run, 0700, err) || !engine_make_shm(e, err) || (ops == &engine_apptainer && !engine_apptainer_open(e, err))) {
        engine_free(e);
        return NULL;
    }
    if (e->cgroups.mode == CGROUP_NONE)
        log_info("resource limits are not applied: %s", e->cgroups.reason);
    return e;
}

void engine_free(struct engine *e)
{
    struct status err;

    if (e == NULL)
        return;
    cleanup_free char *shm = xasprintf("%s/shm", e->dir);
    podns_stop(&e->pod);
    umount2(shm, MNT_DETACH | UMOUNT_NOFOLLOW);
    cgroups_close(&e->cgroups);
    if (!tree_remove(e->dir, &err))
        log_warn("%s", err.message);
    free(e->dir);
    free(e->hostname);
    arena_free(&e->arena);
    free(e);
}

const char *engine_name(const struct engine *e)
{
    return e->ops->name;
}

const char *engine_cgroups(const struct engine *e)
{
    return cgroup_mode_name(e->cgroups.mode);
}

bool engine_has_one_id(const struct engine *e)
{
    return !e->root && (!e->isolation.user || e->isolation.uids == 1 || e->isolation.gids == 1);
}

bool engine_rootless(const struct engine *e)
{
    return !e->root;
}

void engine_features(const struct engine *e, Interlink__Agent__V1__Features *out)
{
    interlink__agent__v1__features__init(out);
    e->ops->features(&e->isolation, out);
}

/* Tried where the images are: it depends on the file system. */
static bool engine_tries_user_namespaces(const struct engine_options *o)
{
    struct status err = STATUS_INIT;

    if (o->images == NULL || *o->images == '\0')
        return false;
    if (o->isolation.user || o->isolation.uid != 0)
        status_set(&err, STATUS_FAILED_PRECONDITION, "only root may map the machine's ids");
    else if (podns_supported(o->images, &err))
        return true;
    log_info("pods cannot have user namespaces of their own: %s", err.message);
    return false;
}

const char *engine_probe(const struct engine_options *options, Interlink__Agent__V1__Features *out,
                         char reason[ENGINE_REASON_SIZE], struct status *err)
{
    struct apptainer apptainer;
    const struct engine_ops *ops = engine_pick(options, &apptainer, reason, err);

    interlink__agent__v1__features__init(out);
    if (ops == NULL)
        return NULL;
    ops->features(&options->isolation, out);
    out->user_namespaces = ops == &engine_crun && engine_tries_user_namespaces(options);
    return ops->name;
}

/* ---- the pod's files ---- */

static bool engine_write(const struct engine *e, const char *name, const struct buf *text, struct status *err)
{
    cleanup_free char *path = xasprintf("%s/%s", e->dir, name);

    return file_replace(path, text->p, text->n, 0644, err) &&
           (!e->pod.on || chown(path, podns_uid(&e->pod, 0), podns_gid(&e->pod, 0)) == 0 ||
            status_errno(err, "cannot give %s to the pod's root", path));
}

static bool engine_append_words(struct buf *out, const char *keyword, char *const *words, size_t count, bool one_line,
                                struct status *err)
{
    for (size_t i = 0; i < count; i++) {
        if (words[i][0] == '\0' || strpbrk(words[i], " \t\n") != NULL)
            return status_set(err, STATUS_INVALID_ARGUMENT, "dns_config: \"%.100s\" cannot be a %s in resolv.conf", words[i], keyword);
        if (i == 0 || !one_line)
            buf_printf(out, "%s", keyword);
        buf_printf(out, " %s%s", words[i], one_line && i + 1 < count ? "" : "\n");
    }
    return true;
}

/* resolv.conf(5). Without settings of the pod's the machine's own is used. */
static bool engine_write_resolv_conf(struct engine *e, const Runtime__V1__DNSConfig *dns, struct status *err)
{
    struct buf text cleanup_buf = BUF_INIT;
    struct status ignored;

    if (dns == NULL || dns->n_servers + dns->n_searches + dns->n_options == 0)
        (void)file_read("/etc/resolv.conf", ENGINE_FILE_MAX, &text, &ignored);
    else if (!engine_append_words(&text, "search", dns->searches, dns->n_searches, true, err) ||
             !engine_append_words(&text, "nameserver", dns->servers, dns->n_servers, false, err) ||
             !engine_append_words(&text, "options", dns->options, dns->n_options, true, err))
        return false;
    return engine_write(e, "resolv.conf", &text, err);
}

static bool engine_call_sethostname(void *arg, struct status *err)
{
    const char *name = arg;

    return sethostname(name, strlen(name)) == 0 || status_errno(err, "cannot set \"%s\"", name);
}

static bool engine_set_hostname(struct engine *e, const char *name, struct status *err)
{
    if (*name == '\0' || strcmp(name, e->hostname) == 0)
        return true;
    if (strlen(name) > HOST_NAME_MAX || strpbrk(name, " \t\n/") != NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "hostname: \"%.100s\" cannot be a host's name", name);
    /* Where the name cannot be set for the pod alone it only appears in HOSTNAME and /etc/hostname. */
    if (e->isolation.uts && !(e->pod.on ? podns_run(&e->pod, engine_call_sethostname, (void *)(uintptr_t)name, err)
                                        : engine_call_sethostname((void *)(uintptr_t)name, err)))
        return status_prefix(err, "hostname");
    free(e->hostname);
    e->hostname = xstrdup(name);
    return true;
}

struct engine_sysctl {
    const char *path, *value;
};

static bool engine_write_sysctl(void *arg, struct status *err)
{
    const struct engine_sysctl *s = arg;
    cleanup_close int fd = open(s->path, O_WRONLY | O_CLOEXEC);

    return (fd >= 0 && write(fd, s->value, strlen(s->value)) == (ssize_t)strlen(s->value)) ||
           status_errno(err, "cannot set %s", s->path);
}

/* Only those that a namespace of the pod's holds (namespaces(7)): the others would be the whole machine's. */
static bool engine_set_sysctl(struct engine *e, const char *name, const char *value, struct status *err)
{
    static const char *const ipc[] = { "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni",          "kernel.sem", "kernel.shmall",
                                       "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced", NULL };
    bool network = str_starts(name, "net."), known = str_starts(name, "fs.mqueue.");

    for (size_t i = 0; ipc[i] != NULL; i++)
        known = known || strcmp(name, ipc[i]) == 0;
    if (!(network && e->isolation.network) && !(known && e->isolation.ipc))
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "linux.sysctls: %.100s cannot be set for this pod alone: %s", name,
                          network ? "it uses the machine's network" : "no namespace of its own holds it");
    if (strchr(name, '/') != NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "linux.sysctls: \"%.100s\": words of a sysctl have dots between them", name);
    cleanup_free char *path = xasprintf("/proc/sys/%s", name);
    for (char *p = path + strlen("/proc/sys/"); *p != '\0'; p++)
        if (*p == '.')
            *p = '/';
    struct engine_sysctl s = { path, value };
    /* Of its IPC namespace only the pod's root may; of its network the machine's as well. */
    return (e->pod.on && !network ? podns_run(&e->pod, engine_write_sysctl, &s, err) : engine_write_sysctl(&s, err)) ||
           status_prefix(err, "linux.sysctls: %.100s", name);
}

/* The pod's own user namespace, when it asks for one: before anything that belongs to it is set. */
static bool engine_start_podns(struct engine *e, const Runtime__V1__PodSandboxConfig *sandbox, struct status *err)
{
    const Runtime__V1__LinuxSandboxSecurityContext *s = sandbox->linux == NULL ? NULL : sandbox->linux->security_context;
    cleanup_free char *shm = xasprintf("%s/shm", e->dir);
    struct userns_map map;
    bool own;

    if (!podns_check_sandbox(sandbox, err) ||
        !podns_parse("linux.security_context.namespace_options", s == NULL ? NULL : s->namespace_options, &map, &own, err))
        return false;
    if (!own)
        return true;
    if (!e->root || e->ops != &engine_crun)
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "linux.security_context.namespace_options.userns_options: %s",
                          e->root ? "this engine makes no user namespaces" : "only root may map the machine's ids, and this job runs without");
    return podns_start(&e->pod, &map, err) &&
           (chown(shm, podns_uid(&e->pod, 0), podns_gid(&e->pod, 0)) == 0 || status_errno(err, "cannot give %s to the pod's root", shm));
}

bool engine_configure(struct engine *e, const Runtime__V1__PodSandboxConfig *sandbox, struct status *err)
{
    struct buf hostname cleanup_buf = BUF_INIT, hosts cleanup_buf = BUF_INIT;
    struct status ignored;
    const Runtime__V1__LinuxPodSandboxConfig *l = sandbox->linux;

    if (!engine_start_podns(e, sandbox, err) || !engine_set_hostname(e, sandbox->hostname, err))
        return false;
    for (size_t i = 0; l != NULL && i < l->n_sysctls; i++)
        if (!engine_set_sysctl(e, l->sysctls[i]->key, l->sysctls[i]->value, err))
            return false;
    buf_printf(&hostname, "%s\n", e->hostname);
    (void)file_read("/etc/hosts", ENGINE_FILE_MAX, &hosts, &ignored);
    return engine_write(e, "hostname", &hostname, err) && engine_write(e, "hosts", &hosts, err) &&
           engine_write_resolv_conf(e, sandbox->dns_config, err);
}

/* ---- containers ---- */

void engine_fill_created(struct engine_created *out, const struct user *user, struct buf *note)
{
    _Static_assert(USER_GROUPS_MAX <= ENGINE_GROUPS_MAX, "a user's groups fit");

    *out = (struct engine_created){ .uid = user->uid, .gid = user->gid, .group_count = user->group_count };
    for (size_t i = 0; i < user->group_count; i++)
        out->groups[i] = user->groups[i];
    snprintf(out->note, sizeof out->note, "%s", buf_cstr(note));
}

bool engine_launch(struct engine *e, const char *id, const char *bundle, const struct engine_stdio *io, const struct launch *l,
                   pid_t *pid, struct status *err)
{
    struct process process cleanup_process = { .arena = ARENA_INIT };
    struct launch whole = *l;

    if (!process_read(&process, bundle, err))
        return false;
    whole.process = &process;
    whole.argv = (const char *const *)process.argv;
    whole.io = io;
    whole.cgroups = &e->cgroups;
    whole.id = id;
    whole.one_id = engine_has_one_id(e);
    whole.lsm = &e->lsm;
    whole.bundle = bundle;
    return launch_process(&whole, pid, err);
}

void engine_note_limits(const struct engine *e, const Runtime__V1__LinuxContainerResources *r, struct buf *limits,
                        struct buf *note)
{
    if (r == NULL)
        return;
    if (e->cgroups.mode == CGROUP_NONE && (r->cpu_quota > 0 || r->cpu_shares > 0 || r->memory_limit_in_bytes > 0 ||
                                           *r->cpuset_cpus != '\0' || *r->cpuset_mems != '\0' || r->n_unified > 0))
        buf_printf(note, "%sresource limits are not applied: %s", note->n > 0 ? "; " : "", e->cgroups.reason);
    if (limits->n > 0)
        buf_printf(note, "%slimits not applied: %s", note->n > 0 ? "; " : "", buf_cstr(limits));
}

bool engine_create(struct engine *e, const struct engine_create *c, struct engine_created *out, struct status *err)
{
    /* Folders made in the container, or for it on the machine, are for others to read; the agent's own umask is stricter. */
    umask(0022);
    return e->ops->create(e, c, out, err);
}

bool engine_start(struct engine *e, const char *id, const char *bundle, const struct engine_stdio *io, pid_t *pid,
                  struct status *err)
{
    return e->ops->start(e, id, bundle, io, pid, err);
}

/* A terminal wants a TERM, as containerd gives one; on the process's arena. */
static void engine_add_term(struct process *p)
{
    size_t n = 0;

    if (process_env(p, "TERM") != NULL)
        return;
    while (p->env[n] != NULL)
        n++;
    char **env = ARENA_ARRAY(&p->arena, char *, n + 2);
    memcpy(env, p->env, n * sizeof *env);
    env[n] = arena_strdup(&p->arena, "TERM=xterm");
    p->env = env;
}

bool engine_exec(struct engine *e, const char *id, const char *bundle, pid_t init, const char *const *argv,
                 const struct engine_stdio *io, pid_t *pid, struct status *err)
{
    struct process process cleanup_process = { .arena = ARENA_INIT };

    if (argv[0] == NULL || argv[0][0] == '\0')
        return status_set(err, STATUS_INVALID_ARGUMENT, "cmd: no program is named");
    if (!process_read(&process, bundle, err))
        return false;
    if (io->tty)
        engine_add_term(&process);
    if (e->ops->exec != NULL) {
        process.argv = (char **)(uintptr_t)argv;
        return e->ops->exec(e, id, bundle, &process, io, pid, err);
    }
    struct launch l = { .process = &process, .argv = argv, .io = io, .cgroups = &e->cgroups, .id = id, .init = init,
                        .one_id = engine_has_one_id(e), .pod = &e->pod, .lsm = &e->lsm, .as_we_are = e->ops == &engine_inside,
                        /* Else its mount namespace says whose it is. */
                        .bundle = (e->ops == &engine_host || e->ops == &engine_inside) && !e->isolation.mount ? bundle : NULL };
    return launch_process(&l, pid, err);
}

int engine_terminal(int socket_fd, struct status *err)
{
    int fd = terminal_receive(socket_fd);

    if (fd < 0)
        status_errno(err, "cannot receive the terminal");
    else
        fd_set_nonblocking(fd, true);
    return fd;
}

bool engine_signal(struct engine *e, const char *id, const char *bundle, pid_t init, int signal, bool all, struct status *err)
{
    int count = all ? cgroup_signal(&e->cgroups, id, signal) : 0;

    /* Each process hears it once. */
    if (count < 0)
        count = (int)track_signal(bundle, signal);
    if (all && signal == SIGKILL && e->ops->kill != NULL)
        e->ops->kill(bundle);
    if (init > 0 && e->ops->program != NULL)
        init = e->ops->program(init);
    if (count == 0 && init > 0 && kill(init, signal) < 0 && errno != ESRCH)
        return status_errno(err, "cannot send signal %d to process %d", signal, (int)init);
    return true;
}

bool engine_oom_killed(const struct engine *e, const char *id, const char *bundle UNUSED)
{
    return cgroup_oom_killed(&e->cgroups, id);
}

/* Without a cgroup: kills until nobody is left, for what is killed may just have forked. */
static bool engine_kill_tracked(const char *bundle, struct status *err)
{
    int64_t deadline = clock_mono_ms() + ENGINE_KILL_MS;

    while (track_signal(bundle, SIGKILL) > 0) {
        struct timespec pause = { 0, 1000000 };
        if (clock_mono_ms() > deadline)
            return status_set(err, STATUS_INTERNAL, "processes of the container in %s cannot be killed", bundle);
        nanosleep(&pause, NULL);
    }
    return true;
}

bool engine_remove(struct engine *e, const char *id, const char *bundle, struct status *err)
{
    if (e->ops->kill != NULL)
        e->ops->kill(bundle);
    if (!engine_kill_tracked(bundle, err))
        return false;
    track_unpin(bundle);
    return cgroup_remove(&e->cgroups, id, err) && e->ops->remove(e, id, bundle, err) &&
           tree_remove(bundle, err);
}

#undef ENGINE_SHM_OPTIONS
#undef ENGINE_FILE_MAX
#undef ENGINE_KILL_MS
