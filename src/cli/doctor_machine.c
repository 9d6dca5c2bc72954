/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel and what it lets this user do. */
#include "agent/cgroup.h"
#include "cli/doctor.h"
#include "io/file.h"
#include "io/userns.h"
#include "text/timefmt.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

/* This program is younger than 2026-01-01. */
#define DOCTOR_CLOCK_MIN_NS (INT64_C(1767225600) * 1000000000)

/* ---- trying things in a child ---- */

struct doctor_answer {
    bool ok;
    char text[256];
};

static void doctor_answer_set(struct doctor_answer *a, bool ok, const char *format, ...) PRINTF_LIKE(3, 4);
static void doctor_answer_set(struct doctor_answer *a, bool ok, const char *format, ...)
{
    va_list args;

    a->ok = ok;
    va_start(args, format);
    vsnprintf(a->text, sizeof a->text, format, args);
    va_end(args);
}

/* Runs `try` in a child process, whose namespaces, mounts and limits end with it. */
static struct doctor_answer doctor_try(void (*try)(struct doctor_answer *a, const char *dir), const char *dir)
{
    struct doctor_answer answer = { false, "the check itself was killed" };
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0) {
        doctor_answer_set(&answer, false, "no pipe: %s", strerror(errno));
        return answer;
    }
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        struct doctor_answer mine = { false, "" };
        try(&mine, dir);
        _exit(write(ends[1], &mine, sizeof mine) == (ssize_t)sizeof mine ? 0 : 1);
    }
    close(ends[1]);
    struct doctor_answer read_back;
    if (pid > 0 && read(ends[0], &read_back, sizeof read_back) == (ssize_t)sizeof read_back)
        answer = read_back;
    close(ends[0]);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    return answer;
}

/* ---- kernel ---- */

void doctor_check_kernel(struct doctor *d)
{
    struct utsname name;
    unsigned major = 0, minor = 0;

    uname(&name);
    if (sscanf(name.release, "%u.%u", &major, &minor) != 2)
        major = 0;
    if (major < 4 || (major == 4 && minor < 18))
        doctor_say(d, DOCTOR_WARN, "kernel", "Linux 4.18 is the oldest that is known to work", "%s %s", name.sysname,
                   name.release);
    else if (geteuid() != 0 && (major < 5 || (major == 5 && minor < 11)))
        doctor_say(d, DOCTOR_WARN, "kernel", "before Linux 5.11 ordinary users have no overlayfs: images are copied",
                   "%s %s", name.sysname, name.release);
    else
        doctor_say(d, DOCTOR_OK, "kernel", "", "%s %s %s", name.sysname, name.release, name.machine);
}

/* ---- namespaces ---- */

static bool doctor_write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0)
        close(fd);
    return ok;
}

/* A user namespace with our own id as 0, as the agent makes it. */
static bool doctor_enter_user_namespace(void)
{
    char uid_map[64], gid_map[64];

    snprintf(uid_map, sizeof uid_map, "0 %u 1", (unsigned)geteuid());
    snprintf(gid_map, sizeof gid_map, "0 %u 1", (unsigned)getegid());
    return unshare(CLONE_NEWUSER) == 0 && doctor_write_file("/proc/self/setgroups", "deny") &&
           doctor_write_file("/proc/self/uid_map", uid_map) && doctor_write_file("/proc/self/gid_map", gid_map);
}

/* What a container needs round it: as root directly, else inside a user namespace. Sets *user. */
static bool doctor_enter_namespaces(bool *user)
{
    const int wanted = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;

    *user = false;
    if (geteuid() != 0 || unshare(wanted) < 0) {
        *user = true;
        if (!doctor_enter_user_namespace() || unshare(wanted) < 0)
            return false;
    }
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static void doctor_try_namespaces(struct doctor_answer *a, const char *dir)
{
    bool user;
    (void)dir;

    if (doctor_enter_namespaces(&user))
        doctor_answer_set(a, true, "mount, pid, ipc and uts %s", user ? "inside a user namespace" : "as root");
    else
        doctor_answer_set(a, false, "refused: %s", strerror(errno));
}

void doctor_check_namespaces(struct doctor *d)
{
    struct doctor_answer a = doctor_try(doctor_try_namespaces, "");

    doctor_say(d, a.ok ? DOCTOR_OK : DOCTOR_FAIL, "namespaces",
               a.ok ? ""
                    : "allow user namespaces (sysctl user.max_user_namespaces and kernel.unprivileged_userns_clone), or run "
                      "as root; without them only Engine: host works",
               "%s", a.text);
}

/* ---- user ids ---- */

static void doctor_try_ids(struct doctor_answer *a, const char *dir)
{
    struct userns_map map;
    struct status err = STATUS_INIT;
    (void)dir;

    if (geteuid() == 0)
        doctor_answer_set(a, true, "all, for this is root");
    else if (subid_enter(&err) && userns_read_map("self", &map, &err))
        doctor_answer_set(a, true, "%u user ids and %u group ids for containers", userns_ids_count(&map.uids), userns_ids_count(&map.gids));
    else
        doctor_answer_set(a, false, "one, which containers see as root: %s", err.message);
}

void doctor_check_ids(struct doctor *d)
{
    struct doctor_answer a = doctor_try(doctor_try_ids, "");

    doctor_say(d, a.ok ? DOCTOR_OK : DOCTOR_WARN, "user ids",
               a.ok ? "" : "containers that want to run as another user are refused, and an image's files are all root's. Give this "
                           "user a range in /etc/subuid and /etc/subgid and install newuidmap",
               "%s", a.text);
}

/* ---- overlayfs ---- */

static void doctor_try_overlay(struct doctor_answer *a, const char *dir)
{
    static const char *const folders[] = { "lower", "upper", "work", "merged" };
    char options[512];
    bool user;

    if (!doctor_enter_namespaces(&user)) {
        doctor_answer_set(a, false, "not tried: no namespaces");
        return;
    }
    for (size_t i = 0; i < COUNT_OF(folders); i++) {
        cleanup_free char *path = xasprintf("%s/%s", dir, folders[i]);
        if (mkdir(path, 0700) < 0) {
            doctor_answer_set(a, false, "%s: %s", path, strerror(errno));
            return;
        }
    }
    cleanup_free char *merged = xasprintf("%s/merged", dir);
    snprintf(options, sizeof options, "lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work%s", dir, dir, dir,
             user ? ",userxattr" : "");
    if (mount("overlay", merged, "overlay", 0, options) == 0)
        doctor_answer_set(a, true, "can be mounted%s", user ? " by this user" : "");
    else
        doctor_answer_set(a, false, "cannot be mounted: %s", strerror(errno));
}

char *doctor_existing(const char *path)
{
    char *copy = xstrdup(path);

    while (access(copy, F_OK) != 0) {
        char *slash = strrchr(copy, '/');
        if (slash == NULL || slash == copy) {
            strcpy(copy, "/");
            break;
        }
        *slash = '\0';
    }
    return copy;
}

/* A folder to try things in: where the state is, if that can be written. NULL: none. The caller frees, and removes it. */
static char *doctor_scratch(const struct doctor *d)
{
    cleanup_free char *parent = doctor_existing(d->configured ? d->config.node.state_dir : "/tmp");
    char *dir = xasprintf("%s/.doctor-XXXXXX", access(parent, W_OK) == 0 ? parent : "/tmp");

    if (mkdtemp(dir) == NULL) {
        free(dir);
        return NULL;
    }
    return dir;
}

void doctor_check_overlay(struct doctor *d)
{
    static const char mend[] = "images are copied for each container instead: slower, and they take more space. StateDir on ext4 or xfs, "
                               "and Linux 5.11 for ordinary users, allow it";
    cleanup_free char *dir = doctor_scratch(d);
    struct doctor_answer a = { false, "not tried: no folder can be made" };
    struct status err = STATUS_INIT;

    if (dir != NULL) {
        a = doctor_try(doctor_try_overlay, dir);
        tree_remove(dir, &err);
    }
    doctor_say(d, a.ok ? DOCTOR_OK : DOCTOR_WARN, "overlayfs", a.ok ? "" : mend, "%s", a.text);
}

/* ---- cgroups ---- */

/* Does what the agent does: makes a pod's group and removes it again. */
static void doctor_try_cgroups(struct doctor_answer *a, const char *dir)
{
    static const struct {
        unsigned bit;
        const char *name;
    } controllers[] = { { CGROUP_CPU, "cpu" },       { CGROUP_MEMORY, "memory" },   { CGROUP_PIDS, "pids" },
                        { CGROUP_CPUSET, "cpuset" }, { CGROUP_HUGETLB, "hugetlb" }, { CGROUP_DEVICES, "devices" } };
    struct cgroups c;
    struct cgroup_options options = { .rootless = geteuid() != 0, .parent = "", .sandbox_id = "doctor", .job_dir = dir };
    cleanup_buf struct buf names = BUF_INIT;
    unsigned have = 0;

    cgroups_open(&c, &options);
    for (size_t i = 0; i < c.count; i++)
        have |= c.hierarchies[i].used ? c.hierarchies[i].controllers : 0;
    for (size_t i = 0; i < COUNT_OF(controllers); i++)
        if ((have & controllers[i].bit) != 0)
            buf_printf(&names, " %s", controllers[i].name);
    bool limits = (have & CGROUP_MEMORY) != 0 && (have & CGROUP_CPU) != 0;
    if (c.mode == CGROUP_NONE)
        doctor_answer_set(a, false, "none that this user may write: %s", c.reason);
    else
        doctor_answer_set(a, limits, "%s, writable:%s", cgroup_mode_name(c.mode), names.n > 0 ? buf_cstr(&names) : " none");
    cgroups_close(&c);
}

void doctor_check_cgroups(struct doctor *d)
{
    static const char mend[] = "limits are not applied, and a container's statistics are those of its job. Run as root, or have the "
                               "cgroup delegated (systemd: Delegate=yes)";
    cleanup_free char *dir = doctor_scratch(d);
    struct doctor_answer a = { false, "not tried: no folder can be made" };
    struct status err = STATUS_INIT;

    if (dir != NULL) {
        a = doctor_try(doctor_try_cgroups, dir);
        tree_remove(dir, &err);
    }
    doctor_say(d, a.ok ? DOCTOR_OK : DOCTOR_WARN, "cgroups", a.ok ? "" : mend, "%s", a.text);
}

/* ---- system call filters ---- */

void doctor_check_seccomp(struct doctor *d)
{
    /* With no program given, a kernel that knows filters fails for the address (seccomp(2)). */
    bool known = prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, 0, 0, 0) < 0 && errno == EFAULT;

    if (known)
        doctor_say(d, DOCTOR_OK, "seccomp", "", "system call filters are there");
    else
        doctor_say(d, DOCTOR_WARN, "seccomp", "pods that ask for a seccomp profile are refused: use a kernel with CONFIG_SECCOMP_FILTER",
                   "this kernel has no system call filters");
}

/* ---- clock ---- */

void doctor_check_clock(struct doctor *d)
{
    struct timex state = { .modes = 0 };
    int result = adjtimex(&state);
    char now[TIMEFMT_SIZE];

    timefmt_seconds(clock_real_ns(), now);
    if (clock_real_ns() < DOCTOR_CLOCK_MIN_NS)
        doctor_say(d, DOCTOR_FAIL, "clock", "set the clock: certificates and time stamps depend on it", "%s", now);
    else if (result < 0 || result == TIME_ERROR)
        doctor_say(d, DOCTOR_WARN, "clock", "run an NTP client: time stamps of pods come from several machines",
                   "%s, not synchronised as far as the kernel knows", now);
    else
        doctor_say(d, DOCTOR_OK, "clock", "", "%s, synchronised", now);
}

#undef DOCTOR_CLOCK_MIN_NS
