/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cgroup.h"

#include "io/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

/* A file of /proc or of a cgroup: a few thousand mounts or processes. */
#define CGROUP_FILE_MAX (1u << 20)
/* How long processes that were killed may take to go, and how deep a container may nest its own groups. */
#define CGROUP_REMOVE_MS 2000
#define CGROUP_DEPTH_MAX 32
/* Above the pods that have no cgroup_parent. */
#define CGROUP_COMMON "/interlink-cri"
#define CGROUP_ATTEMPTS 5

static const struct {
    const char *name;
    unsigned bit;
} cgroup_controllers[] = {
    { "cpu", CGROUP_CPU },         { "cpuacct", CGROUP_CPUACCT }, { "memory", CGROUP_MEMORY },   { "pids", CGROUP_PIDS },
    { "devices", CGROUP_DEVICES }, { "cpuset", CGROUP_CPUSET },   { "hugetlb", CGROUP_HUGETLB },
    { "io", CGROUP_IO },
};

const char *cgroup_mode_name(enum cgroup_mode mode)
{
    static const char *const names[] = { "none", "v1", "v2", "hybrid" };

    return names[mode];
}

static unsigned cgroup_controller_bit(struct str word)
{
    for (size_t i = 0; i < COUNT_OF(cgroup_controllers); i++)
        if (str_eq(word, cgroup_controllers[i].name))
            return cgroup_controllers[i].bit;
    return 0;
}

/* The bits of a list of names, separated by any of `separators`. */
static unsigned cgroup_controller_bits(const char *list, const char *separators)
{
    unsigned bits = 0;

    while (*list != '\0') {
        size_t n = strcspn(list, separators);
        bits |= cgroup_controller_bit((struct str){ list, n });
        list += n;
        list += strspn(list, separators);
    }
    return bits;
}

char *cgroup_line(char **text)
{
    char *line = *text;

    if (*line == '\0')
        return NULL;
    char *end = strchr(line, '\n');
    if (end == NULL) {
        *text = line + strlen(line);
    } else {
        *end = '\0';
        *text = end + 1;
    }
    return line;
}

char *cgroup_read_text(const char *path)
{
    struct buf text = BUF_INIT;
    struct status ignored;

    if (!file_read(path, CGROUP_FILE_MAX, &text, &ignored))
        buf_clear(&text);
    return buf_steal(&text);
}

/* ---- finding the hierarchies ---- */

/* /proc/PID/mountinfo (proc(5)): "31 23 0:28 / /sys/fs/cgroup/cpu rw,... [tags] - cgroup cgroup rw,cpu". */
static void cgroup_find_mounts(struct cgroups *c)
{
    cleanup_free char *text = cgroup_read_text("/proc/self/mountinfo");
    char *rest = text, *line;

    while ((line = cgroup_line(&rest)) != NULL && c->count < CGROUP_HIERARCHIES_MAX) {
        char *kind = strstr(line, " - cgroup");
        char *fields[6], *save = NULL, *word = kind == NULL ? NULL : strtok_r(line, " ", &save);
        size_t n = 0;
        for (; word != NULL && n < 6; word = n < 6 ? strtok_r(NULL, " ", &save) : NULL)
            fields[n++] = word;
        if (n < 6)
            continue;
        kind += strlen(" - ");
        bool unified = str_starts(kind, "cgroup2 ");
        char *options = strrchr(kind, ' ');
        unsigned bits = 0;
        if (options == NULL || (!unified && !str_starts(kind, "cgroup ")))
            continue;
        if (unified) {
            cleanup_free char *path = xasprintf("%s/cgroup.controllers", fields[4]);
            cleanup_free char *list = cgroup_read_text(path);
            bits = cgroup_controller_bits(list, " \n");
        } else {
            bits = cgroup_controller_bits(options + 1, ",");
        }
        /* A hierarchy mounted twice counts once. */
        bool known = false;
        for (size_t i = 0; i < c->count; i++)
            known = known || (c->hierarchies[i].unified == unified && (unified || (c->hierarchies[i].controllers & bits) != 0));
        if (known || (!unified && bits == 0))
            continue;
        c->hierarchies[c->count++] = (struct cgroup_hierarchy){
            .mount = xstrdup(fields[4]), .own = xstrdup("/"), .controllers = bits, .unified = unified
        };
    }
}

/* /proc/PID/cgroup: "4:cpu,cpuacct:/path" and "0::/path" for the unified hierarchy. */
static void cgroup_find_own(struct cgroups *c)
{
    cleanup_free char *text = cgroup_read_text("/proc/self/cgroup");
    char *rest = text, *line;

    while ((line = cgroup_line(&rest)) != NULL) {
        char *names = strchr(line, ':');
        char *path = names == NULL ? NULL : strchr(names + 1, ':');
        if (path == NULL || path[1] != '/' || strstr(path, "/..") != NULL)
            continue;
        *path++ = '\0';
        unsigned bits = cgroup_controller_bits(names + 1, ",");
        for (size_t i = 0; i < c->count; i++) {
            struct cgroup_hierarchy *h = &c->hierarchies[i];
            if (h->unified ? !str_starts(line, "0:") || names[1] != '\0' : (h->controllers & bits) == 0)
                continue;
            free(h->own);
            h->own = xstrdup(path);
        }
    }
}

/* v2 when the unified hierarchy is all there is; hybrid when v1 hierarchies hold the controllers. */
static enum cgroup_mode cgroup_detect(const struct cgroups *c)
{
    bool v1 = false, v2 = false;

    for (size_t i = 0; i < c->count; i++) {
        v1 = v1 || !c->hierarchies[i].unified;
        v2 = v2 || c->hierarchies[i].unified;
    }
    return v1 && v2 ? CGROUP_HYBRID : v1 ? CGROUP_V1 : v2 ? CGROUP_V2 : CGROUP_NONE;
}

/* ---- the pod's folder ---- */

/* One line in <job_dir>/cgroups before the folder is there: a killed agent must leave nothing that is not written. */
static bool cgroup_announce(const struct cgroups *c, const char *path)
{
    cleanup_close int fd = open(c->list_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    cleanup_free char *line = xasprintf("%s\n", path);
    struct status ignored;

    return fd >= 0 && write_all(fd, line, strlen(line), &ignored);
}

static void cgroup_enable_controllers(const char *dir)
{
    cleanup_close int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

    for (size_t i = 0; fd >= 0 && i < COUNT_OF(cgroup_controllers); i++) {
        char word[32];
        snprintf(word, sizeof word, "+%s", cgroup_controllers[i].name);
        /* One by one: what this kernel or this branch lacks must not take the others away. */
        (void)cgroup_write(fd, "cgroup.subtree_control", word);
    }
}

/* v1 cpuset: a new group has no processors and no memory nodes at all until it is given some. */
static void cgroup_inherit_cpuset(const char *parent, const char *dir)
{
    static const char *const names[] = { "cpuset.cpus", "cpuset.mems" };

    for (size_t i = 0; i < COUNT_OF(names); i++) {
        cleanup_free char *from = xasprintf("%s/%s", parent, names[i]);
        cleanup_free char *value = cgroup_read_text(from);
        cleanup_close int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0 && *value != '\0')
            (void)cgroup_write(fd, names[i], value);
    }
}

/* Makes <mount>/<pod>, component by component. False with errno. */
static bool cgroup_try_pod(struct cgroups *c, struct cgroup_hierarchy *h)
{
    cleanup_free char *path = xasprintf("%s%s", h->mount, c->pod);
    size_t start = strlen(h->mount);

    h->made = 0;
    for (size_t i = start + 1;; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        bool last = path[i] == '\0';
        char *slash = NULL;
        path[i] = '\0';
        if (h->unified) {
            slash = strrchr(path, '/');
            *slash = '\0';
            cgroup_enable_controllers(path);
            *slash = '/';
        }
        /* Only the pod's own folder is announced, for whoever tidies up kills all in it: those above may be shared with
         * other pods, and so may one that was given. */
        bool made = false;
        if (access(path, F_OK) < 0) {
            if (last && !c->given && !cgroup_announce(c, path))
                return false;
            made = mkdir(path, 0755) == 0;
            if (!made && errno != EEXIST)
                return false;
        }
        h->made = made ? h->made + 1 : 0;
        /* Containers see their own and read their limits there, whoever they run as; our umask is stricter. */
        if (made || str_ends(path, CGROUP_COMMON))
            (void)!chmod(path, 0755);
        if (made && (h->controllers & CGROUP_CPUSET) != 0 && !h->unified) {
            slash = strrchr(path, '/');
            *slash = '\0';
            cleanup_free char *parent = xstrdup(path);
            *slash = '/';
            cgroup_inherit_cpuset(parent, path);
        }
        if (last)
            break;
        path[i] = '/';
    }
    if (h->unified)
        cgroup_enable_controllers(path);
    return true;
}

static bool cgroup_make_pod(struct cgroups *c, struct cgroup_hierarchy *h)
{
    /* Another pod that ends may take the common folder away under us. */
    for (int attempt = 0; attempt < CGROUP_ATTEMPTS; attempt++) {
        if (cgroup_try_pod(c, h)) {
            /* Our own common folder goes with the last pod, whoever made it. */
            if (str_starts(c->pod, CGROUP_COMMON "/"))
                h->made = 2;
            return true;
        }
        if (errno != ENOENT)
            return false;
    }
    return false;
}

static void cgroup_remove_pod(struct cgroups *c, struct cgroup_hierarchy *h)
{
    cleanup_free char *path = xasprintf("%s%s", h->mount, c->pod);

    /* Folders above that others use by now are not empty, so rmdir leaves them. */
    for (; h->made > 0; h->made--) {
        if (rmdir(path) < 0)
            break;
        *strrchr(path, '/') = '\0';
    }
    h->made = 0;
    h->used = false;
}

/* ---- what was delegated to an ordinary user (v2) ---- */

static bool cgroup_writable(const char *mount, const char *path, const char *file)
{
    cleanup_free char *full = xasprintf("%s%s/%s", mount, strcmp(path, "/") == 0 ? "" : path, file);

    return access(full, W_OK) == 0;
}

/* The folder above the agent's own one: "/user.slice/.../x.scope/agent" -> ".../x.scope". NULL when there is none that we
 * may use; the caller frees. */
static char *cgroup_delegated(const struct cgroup_hierarchy *h)
{
    if (strcmp(h->own, "/") == 0)
        return NULL;
    cleanup_free char *parent = xstrdup(h->own);
    char *slash = strrchr(parent, '/');
    *slash = '\0';
    if (*parent == '\0' || !cgroup_writable(h->mount, parent, "cgroup.procs") ||
        !cgroup_writable(h->mount, parent, "cgroup.subtree_control"))
        return NULL;
    cleanup_free char *control = xasprintf("%s%s/cgroup.subtree_control", h->mount, parent);
    cleanup_free char *list = cgroup_read_text(control);
    return cgroup_controller_bits(list, " \n") == 0 ? NULL : steal_ptr(&parent);
}

void cgroup_delegate(void)
{
    struct cgroups c = { .mode = CGROUP_NONE };
    cleanup_free char *dir = NULL, *leaf = NULL;

    cgroup_find_mounts(&c);
    cgroup_find_own(&c);
    if (cgroup_detect(&c) == CGROUP_V2) {
        const struct cgroup_hierarchy *h = &c.hierarchies[0];
        cleanup_free char *parent = cgroup_delegated(h);
        dir = xasprintf("%s%s", h->mount, strcmp(h->own, "/") == 0 ? "" : h->own);
        cleanup_free char *procs_path = xasprintf("%s/cgroup.procs", dir);
        cleanup_free char *procs = cgroup_read_text(procs_path);
        char alone[32];
        snprintf(alone, sizeof alone, "%d\n", (int)getpid());
        if (parent == NULL && strcmp(h->own, "/") != 0 && strcmp(procs, alone) == 0 &&
            cgroup_writable(h->mount, h->own, "cgroup.subtree_control")) {
            leaf = xasprintf("%s/agent", dir);
            cleanup_close int fd = mkdir(leaf, 0755) == 0 || errno == EEXIST ? open(leaf, O_PATH | O_CLOEXEC) : -1;
            if (fd >= 0 && cgroup_write(fd, "cgroup.procs", "0"))
                cgroup_enable_controllers(dir);
        }
    }
    for (size_t i = 0; i < c.count; i++) {
        free(c.hierarchies[i].mount);
        free(c.hierarchies[i].own);
    }
}

/* ---- opening and closing ---- */

/* "/a/b" without "." and "..", so that nothing outside of the mount is reached. */
static bool cgroup_path_ok(const char *path)
{
    if (path[0] != '/' || path[1] == '\0')
        return false;
    for (const char *p = path; *p != '\0';) {
        p += strspn(p, "/");
        size_t n = strcspn(p, "/");
        if ((n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return false;
        p += n;
    }
    return true;
}

/* Chooses <pod>; NULL with c->reason when there is no place for it. The caller frees. */
static char *cgroup_choose_pod(struct cgroups *c, const struct cgroup_options *o)
{
    if (!o->rootless) {
        if (*o->parent == '\0')
            return xasprintf(CGROUP_COMMON "/%s", o->sandbox_id);
        char *pod = xstrdup(o->parent);
        for (size_t n = strlen(pod); n > 1 && pod[n - 1] == '/'; n--)
            pod[n - 1] = '\0';
        c->given = cgroup_path_ok(pod);
        if (c->given)
            return pod;
        free(pod);
        snprintf(c->reason, sizeof c->reason, "the pod's cgroup_parent is not a path below a cgroup: %.100s", o->parent);
        return NULL;
    }
    if (c->mode != CGROUP_V2) {
        snprintf(c->reason, sizeof c->reason, "cgroup %s is not delegated to ordinary users", cgroup_mode_name(c->mode));
        return NULL;
    }
    cleanup_free char *parent = cgroup_delegated(&c->hierarchies[0]);
    if (parent == NULL) {
        snprintf(c->reason, sizeof c->reason, "no cgroup with controllers is delegated to this user");
        return NULL;
    }
    return xasprintf("%s/interlink-%.12s", parent, o->sandbox_id);
}

static void cgroup_forget(struct cgroups *c)
{
    for (size_t i = 0; i < c->count; i++) {
        free(c->hierarchies[i].mount);
        free(c->hierarchies[i].own);
    }
    free(c->pod);
    free(c->list_path);
    c->count = 0;
    c->mode = CGROUP_NONE;
    c->devices = false;
    c->pod = xstrdup("");
    c->list_path = xstrdup("");
}

void cgroups_open(struct cgroups *c, const struct cgroup_options *o)
{
    unsigned wanted = CGROUP_CPU | CGROUP_CPUACCT | CGROUP_MEMORY | CGROUP_PIDS | CGROUP_DEVICES | CGROUP_CPUSET |
                      CGROUP_HUGETLB;
    size_t used = 0;

    *c = (struct cgroups){ .list_path = xasprintf("%s/cgroups", o->job_dir) };
    cgroup_find_mounts(c);
    cgroup_find_own(c);
    c->mode = cgroup_detect(c);
    if (c->mode == CGROUP_NONE) {
        snprintf(c->reason, sizeof c->reason, "no cgroup file system is mounted");
        cgroup_forget(c);
        return;
    }
    c->pod = cgroup_choose_pod(c, o);
    for (size_t i = 0; c->pod != NULL && i < c->count; i++) {
        struct cgroup_hierarchy *h = &c->hierarchies[i];
        /* In a hybrid the controllers are on v1; what is left on v2 is not worth a second kind of group. */
        if ((c->mode == CGROUP_HYBRID && h->unified) || (h->controllers & wanted) == 0)
            continue;
        h->used = cgroup_make_pod(c, h);
        if (h->used) {
            used++;
            c->devices = c->devices || (h->unified ? !o->rootless : (h->controllers & CGROUP_DEVICES) != 0);
        } else {
            snprintf(c->reason, sizeof c->reason, "cannot make %.40s%.90s: %s", h->mount, c->pod, strerror(errno));
            cgroup_remove_pod(c, h);
        }
    }
    if (used == 0)
        cgroup_forget(c);
}

void cgroups_close(struct cgroups *c)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->hierarchies[i].used)
            cgroup_remove_pod(c, &c->hierarchies[i]);
    cgroup_forget(c);
    free(c->pod);
    free(c->list_path);
    c->pod = c->list_path = NULL;
}

/* ---- one container ---- */

char *cgroup_path(const struct cgroups *c, const struct cgroup_hierarchy *h, const char *id)
{
    return xasprintf("%s%s/%s", h->mount, c->pod, id);
}

/* Whether a container gets a group in this hierarchy at all: the fewer, the cheaper. */
static bool cgroup_needed(const struct cgroup_hierarchy *h, const Runtime__V1__LinuxContainerResources *r)
{
    unsigned needed = CGROUP_CPU | CGROUP_CPUACCT | CGROUP_MEMORY | CGROUP_PIDS | CGROUP_DEVICES;

    if (r != NULL && (*r->cpuset_cpus != '\0' || *r->cpuset_mems != '\0'))
        needed |= CGROUP_CPUSET;
    if (r != NULL && r->n_hugepage_limits > 0)
        needed |= CGROUP_HUGETLB;
    return h->used && (h->unified || (h->controllers & needed) != 0);
}

/* A pod that shares its parent with ours and ends may take the empty folder away under us: then it is made again. */
static bool cgroup_make_container(const struct cgroups *c, const struct cgroup_hierarchy *h, const char *path)
{
    for (int attempt = 0; mkdir(path, 0755) < 0 && errno != EEXIST; attempt++) {
        struct cgroups pod = *c;
        struct cgroup_hierarchy again = *h; /* we are a worker: what the agent keeps is not ours to change */
        if (errno != ENOENT || attempt == CGROUP_ATTEMPTS || (!cgroup_try_pod(&pod, &again) && errno != ENOENT))
            return false;
    }
    return true;
}

bool cgroup_make_group(const struct cgroups *c, const struct cgroup_hierarchy *h, const char *path, struct status *err)
{
    cleanup_free char *pod = xasprintf("%s%s", h->mount, c->pod);

    /* In a pod folder that is not ours, each container's is announced by itself. */
    if ((c->given || h->made == 0) && !cgroup_announce(c, path))
        return status_errno(err, "cannot write to %s", c->list_path);
    if (!cgroup_make_container(c, h, path))
        return status_errno(err, "cannot make the cgroup %s", path);
    if ((h->controllers & CGROUP_CPUSET) != 0 && !h->unified)
        cgroup_inherit_cpuset(pod, path);
    return true;
}

bool cgroup_create(const struct cgroups *c, const char *id, const Runtime__V1__LinuxContainerResources *resources,
                   const struct cgroup_device *devices, size_t device_count, struct buf *note, struct status *err)
{
    for (size_t i = 0; i < c->count; i++) {
        const struct cgroup_hierarchy *h = &c->hierarchies[i];
        if (!cgroup_needed(h, resources))
            continue;
        cleanup_free char *path = cgroup_path(c, h, id);
        if (!cgroup_make_group(c, h, path, err))
            return false;
        cleanup_close int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
            return status_errno(err, "cannot open the cgroup %s", path);
        if (resources != NULL)
            cgroup_write_limits(h, fd, path, resources, note);
        if (devices != NULL && (h->unified || (h->controllers & CGROUP_DEVICES) != 0) &&
            !cgroup_restrict_devices(h, fd, devices, device_count, err))
            return status_prefix(err, "cgroup %s", path);
    }
    for (size_t i = 0; resources != NULL && i < resources->n_unified; i++)
        if ((c->mode == CGROUP_V1 || c->mode == CGROUP_HYBRID) && strcmp(resources->unified[i]->key, CGROUP_PIDS_MAX) != 0)
            buf_printf(note, "%sunified[%.64s]", note->n > 0 ? ", " : "", resources->unified[i]->key);
    return true;
}

/* Opens, in every hierarchy where the container has a group, the file that takes a process. Returns the count. */
static size_t cgroup_open_members(const struct cgroups *c, const char *id, int fds[CGROUP_HIERARCHIES_MAX], int *dir_fd)
{
    size_t n = 0;

    *dir_fd = -1;
    for (size_t i = 0; i < c->count; i++) {
        const struct cgroup_hierarchy *h = &c->hierarchies[i];
        if (!h->used)
            continue;
        cleanup_free char *dir = cgroup_path(c, h, id);
        cleanup_free char *path = xasprintf("%s/%s", dir, h->unified ? "cgroup.procs" : "tasks");
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        fds[n++] = fd;
        if (h->unified)
            *dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    return n;
}

pid_t cgroup_fork(const struct cgroups *c, const char *id, struct status *err)
{
    int fds[CGROUP_HIERARCHIES_MAX], dir_fd;
    size_t n = cgroup_open_members(c, id, fds, &dir_fd);
    bool inside = n == 0;
    pid_t pid = -1;

#if defined(SYS_clone3) && defined(CLONE_INTO_CGROUP)
    if (dir_fd >= 0) {
        struct clone_args args = { .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (unsigned)dir_fd };
        pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
        inside = pid >= 0;
    }
#endif
    if (pid < 0)
        pid = fork();
    int number = errno;
    bool ok = true;
    if (pid == 0 && !inside)
        /* "0" is the caller itself: see the head of cgroup.h. */
        for (size_t i = 0; i < n && ok; i++)
            ok = write(fds[i], "0", 1) == 1;
    for (size_t i = 0; i < n; i++)
        close(fds[i]);
    if (dir_fd >= 0)
        close(dir_fd);
    if (pid == 0 && !ok)
        _exit(126);
    if (pid < 0) {
        errno = number;
        status_errno(err, "cannot start a process");
    }
    return pid;
}

/* ---- at its end ---- */

bool cgroup_oom_killed(const struct cgroups *c, const char *id)
{
    for (size_t i = 0; i < c->count; i++) {
        const struct cgroup_hierarchy *h = &c->hierarchies[i];
        if (!h->used || (h->controllers & CGROUP_MEMORY) == 0)
            continue;
        cleanup_free char *dir = cgroup_path(c, h, id);
        cleanup_free char *path = xasprintf("%s/%s", dir, h->unified ? "memory.events" : "memory.oom_control");
        cleanup_free char *text = cgroup_read_text(path);
        char *rest = text, *line;
        while ((line = cgroup_line(&rest)) != NULL)
            if (str_starts(line, "oom_kill ") && strcmp(line, "oom_kill 0") != 0)
                return true;
    }
    return false;
}

/* Removes the groups below dir, then dir. False with errno. */
static bool cgroup_remove_tree(const char *dir, int depth)
{
    if (rmdir(dir) == 0 || errno == ENOENT)
        return true;
    DIR *d = depth < CGROUP_DEPTH_MAX ? opendir(dir) : NULL;
    struct dirent *entry;
    while (d != NULL && (entry = readdir(d)) != NULL) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        cleanup_free char *child = xasprintf("%s/%s", dir, entry->d_name);
        (void)cgroup_remove_tree(child, depth + 1);
    }
    if (d != NULL)
        closedir(d);
    return rmdir(dir) == 0 || errno == ENOENT;
}

bool cgroup_remove(const struct cgroups *c, const char *id, struct status *err)
{
    int64_t deadline = clock_mono_ms() + CGROUP_REMOVE_MS;
    bool ok = true;

    if (cgroup_signal(c, id, SIGKILL) < 0)
        return true;
    for (size_t i = 0; i < c->count; i++) {
        if (!c->hierarchies[i].used)
            continue;
        cleanup_free char *path = cgroup_path(c, &c->hierarchies[i], id);
        /* A killed process keeps its groups busy until it has gone, which takes a moment. */
        for (long wait_us = 200; !cgroup_remove_tree(path, 0); wait_us = wait_us < 20000 ? wait_us * 2 : wait_us) {
            if (clock_mono_ms() > deadline) {
                ok = status_errno(err, "cannot remove the cgroup %s", path);
                break;
            }
            struct timespec pause = { 0, wait_us * 1000 };
            nanosleep(&pause, NULL);
            (void)cgroup_signal(c, id, SIGKILL);
        }
    }
    return ok;
}

#undef CGROUP_FILE_MAX
#undef CGROUP_REMOVE_MS
#undef CGROUP_DEPTH_MAX
#undef CGROUP_COMMON
#undef CGROUP_ATTEMPTS
