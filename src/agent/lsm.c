/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/lsm.h"

#include "io/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define LSM_CONTEXT "linux.security_context."
#define LSM_PROFILE "interlink-cri-default"
#define LSM_FILE_MAX 65536u
/* Categories of the usual policies: c0 to c1023. */
#define LSM_CATEGORIES 1024u
/* Folders in folders of a volume. */
#define LSM_DEPTH_MAX 256
/* A kernel object's label; the policy's own are far shorter. */
#define LSM_LABEL_MAX 4096

/* ---- the kernel's side ---- */

void lsm_open(struct lsm *l, const char *root)
{
    struct buf text cleanup_buf = BUF_INIT;
    struct status ignored;
    cleanup_free char *enabled = xasprintf("%s/sys/module/apparmor/parameters/enabled", root);
    cleanup_free char *policy = xasprintf("%s/sys/kernel/security/apparmor", root);
    cleanup_free char *enforce = xasprintf("%s/sys/fs/selinux/enforce", root);

    *l = (struct lsm){ .root = root };
    /* libcrun, too, wants both. */
    l->apparmor = access(policy, F_OK) == 0 && file_read(enabled, 16, &text, &ignored) && text.n > 0 && text.p[0] == 'Y';
    l->selinux = access(enforce, F_OK) == 0;
}

static bool lsm_write(const char *path, const char *text)
{
    cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

    return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

bool lsm_set_exec(const struct lsm *l, const char *apparmor, const char *selinux)
{
    char path[PATH_MAX], text[LSM_LABEL_MAX];

    if (*apparmor != '\0') {
        snprintf(text, sizeof text, "exec %s", apparmor);
        /* Since Linux 5.8 each module has a folder of its own. */
        snprintf(path, sizeof path, "%s/proc/self/attr/apparmor/exec", l->root);
        if (!lsm_write(path, text)) {
            if (errno != ENOENT || access(path, F_OK) == 0)
                return false;
            snprintf(path, sizeof path, "%s/proc/self/attr/exec", l->root);
            if (!lsm_write(path, text))
                return false;
        }
    }
    snprintf(path, sizeof path, "%s/proc/self/attr/exec", l->root);
    return *selinux == '\0' || lsm_write(path, selinux);
}

/* Whether the kernel takes it; else errno. */
static bool lsm_try(const struct lsm *l, const char *apparmor, const char *selinux)
{
    int wait_status = 0;
    pid_t pid = fork();

    if (pid == 0)
        _exit(lsm_set_exec(l, apparmor, selinux) ? 0 : errno < 255 ? errno : 255);
    if (pid < 0)
        return false;
    while (waitpid(pid, &wait_status, 0) < 0 && errno == EINTR)
        ;
    errno = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : EIO;
    return errno == 0;
}

/* ---- AppArmor ---- */

/* What a container may not do, whatever its capabilities: change the kernel's settings and the machine's devices by files, mount, look
 * into processes that are not containers'. */
static const char lsm_profile_text[] =
    "profile " LSM_PROFILE " flags=(attach_disconnected,mediate_deleted) {\n"
    "  network,\n"
    "  capability,\n"
    "  file,\n"
    "  umount,\n"
    "  signal (receive) peer=unconfined,\n"
    "  signal (send,receive) peer=" LSM_PROFILE ",\n"
    "  ptrace (trace,read,tracedby,readby) peer=" LSM_PROFILE ",\n"
    "  deny mount,\n"
    "  deny /proc/{acpi,asound,bus,fs,irq,scsi}/** wklx,\n"
    "  deny /proc/{kcore,keys,kmem,kpagecount,latency_stats,mem,sched_debug,sysrq-trigger,timer_list} rwklx,\n"
    "  deny /proc/sys/{abi,debug,dev,fs,user,vm}/** wklx,\n"
    "  deny /proc/sys/kernel/{[^s],s[^h],sh[^m]}** wklx,\n"
    "  deny /sys/** wklx,\n"
    "  deny /sys/{firmware,kernel/security}/** rwklx,\n"
    "}\n";

static void lsm_note(struct buf *note, const char *text)
{
    buf_printf(note, "%s%s", note->n > 0 ? "; " : "", text);
}

/* Feeds the profile to apparmor_parser. False when that is not there or fails: its words are in the agent's log. */
static bool lsm_apparmor_load(const struct lsm *l)
{
    static const char *const programs[] = { "/sbin/apparmor_parser", "/usr/sbin/apparmor_parser" };
    cleanup_free char *program = NULL;
    int fds[2], wait_status = 1;

    for (size_t i = 0; i < COUNT_OF(programs); i++) {
        free(program);
        program = xasprintf("%s%s", l->root, programs[i]);
        if (access(program, X_OK) == 0)
            break;
    }
    if (access(program, X_OK) < 0 || pipe2(fds, O_CLOEXEC) < 0)
        return false;
    /* It fits the pipe. */
    ssize_t ignored UNUSED = write(fds[1], lsm_profile_text, strlen(lsm_profile_text));
    close(fds[1]);
    pid_t pid = fork();
    if (pid == 0) {
        if (dup2(fds[0], 0) == 0)
            execl(program, "apparmor_parser", "-K", "-r", (char *)NULL); /* not from a cache; replacing what is there */
        _exit(127);
    }
    close(fds[0]);
    while (pid > 0 && waitpid(pid, &wait_status, 0) < 0 && errno == EINTR)
        ;
    return wait_status == 0;
}

static bool lsm_apparmor_default(const struct lsm *l, bool explicit_wish, bool root, struct lsm_choice *out, struct buf *note)
{
    if (!l->apparmor) {
        if (explicit_wish)
            lsm_note(note, LSM_CONTEXT "apparmor: RuntimeDefault means nothing, for AppArmor is off on this machine");
        return true;
    }
    if (lsm_try(l, LSM_PROFILE, "") || (root && lsm_apparmor_load(l) && lsm_try(l, LSM_PROFILE, "")))
        out->apparmor = LSM_PROFILE;
    else if (explicit_wish)
        lsm_note(note, LSM_CONTEXT "apparmor: RuntimeDefault is not applied: the profile " LSM_PROFILE " is not loaded and cannot be");
    return true;
}

static bool lsm_apparmor_localhost(const struct lsm *l, const char *name, struct lsm_choice *out, struct status *err)
{
    if (str_starts(name, "localhost/"))
        name += strlen("localhost/");
    if (*name == '\0' || strlen(name) > LSM_LABEL_MAX / 2 || strpbrk(name, " \t\n") != NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, LSM_CONTEXT "apparmor.localhost_ref: \"%.100s\" is not a profile's name", name);
    if (!l->apparmor)
        return status_set(err, STATUS_FAILED_PRECONDITION, LSM_CONTEXT "apparmor: AppArmor is off on this machine");
    if (!lsm_try(l, name, ""))
        return status_set(err, STATUS_FAILED_PRECONDITION, LSM_CONTEXT "apparmor.localhost_ref: the profile \"%.200s\" %s%s", name,
                          errno == ENOENT ? "is not loaded on this machine" : "cannot be set: ",
                          errno == ENOENT ? "" : strerror(errno));
    out->apparmor = name;
    return true;
}

/* One field is deprecated in CRI, and still what older kubelets send. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

static bool lsm_apparmor(const struct lsm *l, const Runtime__V1__LinuxContainerSecurityContext *s, bool root, struct lsm_choice *out,
                         struct buf *note, struct status *err)
{
    const char *word = s == NULL ? "" : s->apparmor_profile;

    if (s != NULL && s->privileged)
        return true;
    if (s != NULL && s->apparmor != NULL) {
        switch (s->apparmor->profile_type) {
        case RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__Unconfined:
            return true;
        case RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__RuntimeDefault:
            return lsm_apparmor_default(l, true, root, out, note);
        case RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__Localhost:
            return lsm_apparmor_localhost(l, s->apparmor->localhost_ref, out, err);
        default:
            return status_set(err, STATUS_INVALID_ARGUMENT, LSM_CONTEXT "apparmor.profile_type: %d is unknown",
                              (int)s->apparmor->profile_type);
        }
    }
    if (*word == '\0' || strcmp(word, "runtime/default") == 0)
        return lsm_apparmor_default(l, *word != '\0', root, out, note);
    if (strcmp(word, "unconfined") == 0)
        return true;
    return str_starts(word, "localhost/")
               ? lsm_apparmor_localhost(l, word, out, err)
               : status_set(err, STATUS_INVALID_ARGUMENT, LSM_CONTEXT "apparmor_profile: \"%.100s\" is unknown", word);
}

#pragma GCC diagnostic pop

/* ---- SELinux ---- */

/* The value of `key` in a text of lines "key = "value"" or "key=value"; on the arena; NULL. */
static char *lsm_setting(struct arena *arena, struct str text, const char *key)
{
    char *copy = arena_strndup(arena, text.p, text.n), *save = NULL;

    for (char *line = strtok_r(copy, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
        line += strspn(line, " \t");
        size_t n = strlen(key);
        if (strncmp(line, key, n) != 0)
            continue;
        line += n + strspn(line + n, " \t");
        if (*line != '=')
            continue;
        line++;
        line += strspn(line, " \t\"");
        line[strcspn(line, "\" \t\r")] = '\0';
        return line;
    }
    return NULL;
}

/* The policy's label of this kind for containers: "process" or "file"; NULL when it has none. */
static char *lsm_policy_label(const struct lsm *l, struct arena *arena, const char *kind)
{
    struct buf config cleanup_buf = BUF_INIT, contexts cleanup_buf = BUF_INIT;
    struct status ignored;
    cleanup_free char *config_path = xasprintf("%s/etc/selinux/config", l->root);

    if (!file_read(config_path, LSM_FILE_MAX, &config, &ignored))
        return NULL;
    const char *type = lsm_setting(arena, (struct str){ (const char *)config.p, config.n }, "SELINUXTYPE");
    if (type == NULL || *type == '\0' || strchr(type, '/') != NULL)
        return NULL;
    cleanup_free char *path = xasprintf("%s/etc/selinux/%s/contexts/lxc_contexts", l->root, type);
    return file_read(path, LSM_FILE_MAX, &contexts, &ignored)
               ? lsm_setting(arena, (struct str){ (const char *)contexts.p, contexts.n }, kind)
               : NULL;
}

static bool lsm_options_say(const Runtime__V1__SELinuxOption *o)
{
    return o != NULL && (*o->user != '\0' || *o->role != '\0' || *o->type != '\0' || *o->level != '\0');
}

/* user:role:type:level, the last with colons of its own. */
static const char *lsm_compose(struct arena *arena, const char *base, const char *user, const char *role, const char *type,
                               const char *level)
{
    const char *parts[4] = { "", "", "", "" }, *given[4] = { user, role, type, level };
    char *copy = arena_strdup(arena, base), *rest = copy;

    for (size_t i = 0; i < 4 && rest != NULL; i++) {
        parts[i] = rest;
        rest = i < 3 ? strchr(rest, ':') : NULL;
        if (rest != NULL)
            *rest++ = '\0';
    }
    for (size_t i = 0; i < 4; i++)
        if (*given[i] != '\0')
            parts[i] = given[i];
    return arena_printf(arena, "%s:%s:%s%s%s", parts[0], parts[1], parts[2], *parts[3] != '\0' ? ":" : "", parts[3]);
}

/* Two different categories that follow from the pod's uid (FNV-1a). Pods of one machine differ, but for one chance in half a million. */
static const char *lsm_level(struct arena *arena, const Runtime__V1__PodSandboxConfig *sandbox)
{
    const char *uid = sandbox != NULL && sandbox->metadata != NULL ? sandbox->metadata->uid : "";
    uint64_t hash = 14695981039346656037u;

    for (; *uid != '\0'; uid++)
        hash = (hash ^ (uint8_t)*uid) * 1099511628211u;
    unsigned a = (unsigned)(hash % LSM_CATEGORIES), b = (unsigned)(hash / LSM_CATEGORIES % (LSM_CATEGORIES - 1));
    b += b >= a;
    return arena_printf(arena, "s0:c%u,c%u", a < b ? a : b, a < b ? b : a);
}

/* A container that sees the machine's processes or is privileged is not confined, unless it says how. */
static bool lsm_unconfined(const Runtime__V1__LinuxContainerSecurityContext *s)
{
    const Runtime__V1__NamespaceOption *n = s == NULL ? NULL : s->namespace_options;

    return s != NULL && (s->privileged || (n != NULL && (n->pid == RUNTIME__V1__NAMESPACE_MODE__NODE ||
                                                         n->ipc == RUNTIME__V1__NAMESPACE_MODE__NODE)));
}

static bool lsm_selinux(const struct lsm *l, const Runtime__V1__LinuxContainerSecurityContext *s,
                        const Runtime__V1__PodSandboxConfig *sandbox, bool root, struct arena *arena, struct lsm_choice *out,
                        struct buf *note, struct status *err)
{
    static const Runtime__V1__SELinuxOption nothing = RUNTIME__V1__SELINUX_OPTION__INIT;
    const Runtime__V1__LinuxSandboxSecurityContext *pod = sandbox == NULL || sandbox->linux == NULL ? NULL : sandbox->linux->security_context;
    const Runtime__V1__SELinuxOption *o = s != NULL && lsm_options_say(s->selinux_options)        ? s->selinux_options
                                          : pod != NULL && lsm_options_say(pod->selinux_options) ? pod->selinux_options
                                                                                                  : NULL;

    if (!l->selinux) {
        if (o != NULL)
            lsm_note(note, LSM_CONTEXT "selinux_options mean nothing: SELinux is off on this machine");
        return true;
    }
    if (o == NULL && !root)
        return true;
    const char *process = lsm_policy_label(l, arena, "process"), *file = lsm_policy_label(l, arena, "file");
    if (process == NULL || file == NULL)
        return o == NULL || status_set(err, STATUS_FAILED_PRECONDITION, LSM_CONTEXT "selinux_options: this machine's policy has no labels for "
                                       "containers (contexts/lxc_contexts)");
    bool unconfined = o == NULL && lsm_unconfined(s);
    const char *level = o != NULL && *o->level != '\0' ? o->level : unconfined ? "s0" : lsm_level(arena, sandbox);
    if (o == NULL)
        o = &nothing;
    out->selinux = lsm_compose(arena, process, o->user, o->role, *o->type != '\0' || !unconfined ? o->type : "spc_t", level);
    /* Of files: the policy's role and type, in the pod's level. */
    out->mount = lsm_compose(arena, file, o->user, "", "", level);
    if (lsm_try(l, "", out->selinux))
        return true;
    if (o != &nothing)
        return status_set(err, errno == EINVAL ? STATUS_INVALID_ARGUMENT : STATUS_FAILED_PRECONDITION,
                          LSM_CONTEXT "selinux_options: the label \"%.200s\" cannot be set: %s", out->selinux, strerror(errno));
    log_warn("containers have no SELinux label: \"%s\" cannot be set: %s", out->selinux, strerror(errno));
    out->selinux = out->mount = "";
    return true;
}

bool lsm_choose(const struct lsm *l, const Runtime__V1__ContainerConfig *config, const Runtime__V1__PodSandboxConfig *sandbox, bool root,
                struct arena *arena, struct lsm_choice *out, struct buf *note, struct status *err)
{
    const Runtime__V1__LinuxContainerSecurityContext *s = config->linux == NULL ? NULL : config->linux->security_context;

    *out = (struct lsm_choice){ "", "", "" };
    return lsm_apparmor(l, s, root, out, note, err) && lsm_selinux(l, s, sandbox, root, arena, out, note, err);
}

/* ---- labels of files ---- */

/* By the object itself and never by its path: whoever writes into the folder meanwhile cannot lead us elsewhere. */
static bool lsm_label_fd(int fd, const char *label)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    /* A file system without labels (NFS, say) has one for all its files, by its mount. */
    return setxattr(path, "security.selinux", label, strlen(label) + 1, 0) == 0 || errno == ENOTSUP;
}

static bool lsm_relabel_at(int dir_fd, const char *name, dev_t device, const char *label, int depth)
{
    cleanup_close int fd = openat(dir_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct dirent *entry;
    struct stat st;
    bool ok = true;

    if (fd < 0)
        return errno == ENOENT; /* it has gone meanwhile */
    if (fstat(fd, &st) < 0 || (depth > 0 && st.st_dev != device))
        return true;
    if (!lsm_label_fd(fd, label))
        return false;
    if (!S_ISDIR(st.st_mode))
        return true;
    if (depth == LSM_DEPTH_MAX) {
        errno = ELOOP;
        return false;
    }
    int list_fd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = list_fd < 0 ? NULL : fdopendir(list_fd);
    if (dir == NULL && list_fd >= 0)
        close(list_fd);
    if (dir == NULL)
        return false;
    while (ok && (entry = readdir(dir)) != NULL)
        ok = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
             lsm_relabel_at(fd, entry->d_name, st.st_dev, label, depth + 1);
    int number = errno;
    closedir(dir);
    errno = number;
    return ok;
}

bool lsm_relabel(const char *host_path, const char *path, const char *label, struct status *err)
{
    static const char *const never[] = {
        "/",     "/bin",  "/boot", "/dev",  "/etc", "/home", "/lib", "/lib64", "/media",  "/mnt",     "/opt",
        "/proc", "/root", "/run",  "/sbin", "/srv", "/sys",  "/tmp", "/usr",   "/var", "/var/lib", "/var/log",
    };

    for (size_t i = 0; i < COUNT_OF(never); i++)
        if (strcmp(host_path, never[i]) == 0)
            return status_set(err, STATUS_FAILED_PRECONDITION, "selinux_relabel: %s is the system's own", host_path);
    return lsm_relabel_at(AT_FDCWD, path, 0, label, 0) || status_errno(err, "selinux_relabel: %s", host_path);
}

#undef LSM_CONTEXT
#undef LSM_PROFILE
#undef LSM_FILE_MAX
#undef LSM_CATEGORIES
#undef LSM_DEPTH_MAX
#undef LSM_LABEL_MAX
