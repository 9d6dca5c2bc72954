/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/machine.h"

#include "agent/cgroup.h"
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
#define MACHINE_CLOCK_MIN_NS (INT64_C(1767225600) * 1000000000)

void finding_set(struct finding *f, enum finding_result result, const char *what, const char *mend, const char *format, ...)
{
    va_list args;

    f->result = result;
    f->what = what;
    f->mend = mend;
    va_start(args, format);
    vsnprintf(f->found, sizeof f->found, format, args);
    va_end(args);
}

const char *finding_result_name(enum finding_result result)
{
    static const char *const names[] = { "ok", "warn", "fail" };

    return names[result];
}

/* ---- trying things in a child ---- */

struct machine_answer {
    bool ok;
    char text[256];
};

static void machine_answer_set(struct machine_answer *a, bool ok, const char *format, ...) PRINTF_LIKE(3, 4);
static void machine_answer_set(struct machine_answer *a, bool ok, const char *format, ...)
{
    va_list args;

    a->ok = ok;
    va_start(args, format);
    vsnprintf(a->text, sizeof a->text, format, args);
    va_end(args);
}

/* Runs `try` in a child process, whose namespaces, mounts and limits end with it. */
static struct machine_answer machine_try(void (*try)(struct machine_answer *a, const char *dir), const char *dir)
{
    struct machine_answer answer = { false, "the check itself was killed" };
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0) {
        machine_answer_set(&answer, false, "no pipe: %s", strerror(errno));
        return answer;
    }
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        struct machine_answer mine = { false, "" };
        try(&mine, dir);
        _exit(write(ends[1], &mine, sizeof mine) == (ssize_t)sizeof mine ? 0 : 1);
    }
    close(ends[1]);
    struct machine_answer read_back;
    if (pid > 0 && read(ends[0], &read_back, sizeof read_back) == (ssize_t)sizeof read_back)
        answer = read_back;
    close(ends[0]);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    return answer;
}

/* ---- kernel ---- */

static void machine_kernel(struct finding *f, const char *parent)
{
    (void)parent;
    struct utsname name;
    unsigned major = 0, minor = 0;

    uname(&name);
    if (sscanf(name.release, "%u.%u", &major, &minor) != 2)
        major = 0;
    if (major < 4 || (major == 4 && minor < 18))
        finding_set(f, FINDING_WARN, "kernel", "Linux 4.18 is the oldest that is known to work", "%s %s", name.sysname,
                   name.release);
    else if (geteuid() != 0 && (major < 5 || (major == 5 && minor < 11)))
        finding_set(f, FINDING_WARN, "kernel", "before Linux 5.11 ordinary users have no overlayfs: images are copied",
                   "%s %s", name.sysname, name.release);
    else
        finding_set(f, FINDING_OK, "kernel", "", "%s %s %s", name.sysname, name.release, name.machine);
}

/* ---- namespaces ---- */

static bool machine_write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0)
        close(fd);
    return ok;
}

/* A user namespace with our own id as 0, as the agent makes it. */
static bool machine_enter_user_namespace(void)
{
    char uid_map[64], gid_map[64];

    snprintf(uid_map, sizeof uid_map, "0 %u 1", (unsigned)geteuid());
    snprintf(gid_map, sizeof gid_map, "0 %u 1", (unsigned)getegid());
    return unshare(CLONE_NEWUSER) == 0 && machine_write_file("/proc/self/setgroups", "deny") &&
           machine_write_file("/proc/self/uid_map", uid_map) && machine_write_file("/proc/self/gid_map", gid_map);
}

/* What a container needs round it: as root directly, else inside a user namespace. Sets *user. */
static bool machine_enter_namespaces(bool *user)
{
    const int wanted = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;

    *user = false;
    if (geteuid() != 0 || unshare(wanted) < 0) {
        *user = true;
        if (!machine_enter_user_namespace() || unshare(wanted) < 0)
            return false;
    }
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static void machine_try_namespaces(struct machine_answer *a, const char *dir)
{
    bool user;
    (void)dir;

    if (machine_enter_namespaces(&user))
        machine_answer_set(a, true, "mount, pid, ipc and uts %s", user ? "inside a user namespace" : "as root");
    else
        machine_answer_set(a, false, "refused: %s", strerror(errno));
}

/* The switches that can forbid it, with what each says; "" when none does. */
static const char *const machine_switches[][2] = {
    { "/proc/sys/user/max_user_namespaces", "0" },
    { "/proc/sys/kernel/unprivileged_userns_clone", "0" },             /* Debian's and Arch's kernels */
    { "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1" }, /* Ubuntu, since 23.10 */
};

static void machine_forbidding(struct buf *out)
{
    for (size_t i = 0; i < COUNT_OF(machine_switches); i++) {
        cleanup_buf struct buf text = BUF_INIT;
        struct status ignored = STATUS_INIT;
        if (!file_read(machine_switches[i][0], 64, &text, &ignored))
            continue;
        while (text.n > 0 && text.p[text.n - 1] == '\n')
            text.n--;
        if (strcmp(buf_cstr(&text), machine_switches[i][1]) == 0)
            buf_printf(out, "; %s is %s", machine_switches[i][0] + strlen("/proc/sys/"), machine_switches[i][1]);
    }
}

static void machine_namespaces(struct finding *f, const char *parent)
{
    struct machine_answer a = machine_try(machine_try_namespaces, "");
    cleanup_buf struct buf forbidding = BUF_INIT;
    (void)parent;

    if (!a.ok)
        machine_forbidding(&forbidding);
    finding_set(f, a.ok ? FINDING_OK : FINDING_FAIL, "namespaces",
                a.ok ? ""
                     : "allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
                       "kernel.apparmor_restrict_unprivileged_userns), or run as root; without them only Engine: apptainer and host work",
                "%s%s", a.text, buf_cstr(&forbidding));
}

/* ---- user ids ---- */

static void machine_try_ids(struct machine_answer *a, const char *dir)
{
    struct userns_map map;
    struct status err = STATUS_INIT;
    (void)dir;

    if (geteuid() == 0)
        machine_answer_set(a, true, "all, for this is root");
    else if (subid_enter(&err) && userns_read_map("self", &map, &err))
        machine_answer_set(a, true, "%u user ids and %u group ids for containers", userns_ids_count(&map.uids), userns_ids_count(&map.gids));
    else
        machine_answer_set(a, false, "one, which containers see as root: %s", err.message);
}

static void machine_ids(struct finding *f, const char *parent)
{
    (void)parent;
    struct machine_answer a = machine_try(machine_try_ids, "");

    finding_set(f, a.ok ? FINDING_OK : FINDING_WARN, "user ids",
               a.ok ? "" : "containers that want to run as another user are refused, and an image's files are all root's. Give this "
                           "user a range in /etc/subuid and /etc/subgid and install newuidmap",
               "%s", a.text);
}

/* ---- overlayfs ---- */

static void machine_try_overlay(struct machine_answer *a, const char *dir)
{
    static const char *const folders[] = { "lower", "upper", "work", "merged" };
    char options[512];
    bool user;

    if (!machine_enter_namespaces(&user)) {
        machine_answer_set(a, false, "not tried: no namespaces");
        return;
    }
    for (size_t i = 0; i < COUNT_OF(folders); i++) {
        cleanup_free char *path = xasprintf("%s/%s", dir, folders[i]);
        if (mkdir(path, 0700) < 0) {
            machine_answer_set(a, false, "%s: %s", path, strerror(errno));
            return;
        }
    }
    cleanup_free char *merged = xasprintf("%s/merged", dir);
    snprintf(options, sizeof options, "lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work%s", dir, dir, dir,
             user ? ",userxattr" : "");
    if (mount("overlay", merged, "overlay", 0, options) == 0)
        machine_answer_set(a, true, "can be mounted%s", user ? " by this user" : "");
    else
        machine_answer_set(a, false, "cannot be mounted: %s", strerror(errno));
}

/* A folder to try things in. NULL: none can be made. The caller frees, and removes it. */
static char *machine_scratch(const char *parent)
{
    char *dir = xasprintf("%s/.doctor-XXXXXX", parent != NULL ? parent : "");

    if (parent == NULL || mkdtemp(dir) == NULL) {
        free(dir);
        return NULL;
    }
    return dir;
}

static void machine_overlay(struct finding *f, const char *parent)
{
    static const char mend[] = "images are copied for each container instead: slower, and they take more space. StateDir on ext4 or xfs, "
                               "and Linux 5.11 for ordinary users, allow it";
    cleanup_free char *dir = machine_scratch(parent);
    struct machine_answer a = { false, "not tried: no folder can be made" };
    struct status err = STATUS_INIT;

    if (dir != NULL) {
        a = machine_try(machine_try_overlay, dir);
        tree_remove(dir, &err);
    }
    finding_set(f, a.ok ? FINDING_OK : FINDING_WARN, "overlayfs", a.ok ? "" : mend, "%s", a.text);
}

/* ---- cgroups ---- */

/* Does what the agent does: makes a pod's group and removes it again. */
static void machine_try_cgroups(struct machine_answer *a, const char *dir)
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
        machine_answer_set(a, false, "none that this user may write: %s", c.reason);
    else
        machine_answer_set(a, limits, "%s, writable:%s", cgroup_mode_name(c.mode), names.n > 0 ? buf_cstr(&names) : " none");
    cgroups_close(&c);
}

static void machine_cgroups(struct finding *f, const char *parent)
{
    static const char mend[] = "limits are not applied, and a container's statistics are those of its job. Run as root, or have the "
                               "cgroup delegated (systemd: Delegate=yes)";
    cleanup_free char *dir = machine_scratch(parent);
    struct machine_answer a = { false, "not tried: no folder can be made" };
    struct status err = STATUS_INIT;

    if (dir != NULL) {
        a = machine_try(machine_try_cgroups, dir);
        tree_remove(dir, &err);
    }
    finding_set(f, a.ok ? FINDING_OK : FINDING_WARN, "cgroups", a.ok ? "" : mend, "%s", a.text);
}

/* ---- system call filters ---- */

static void machine_seccomp(struct finding *f, const char *parent)
{
    (void)parent;
    /* With no program given, a kernel that knows filters fails for the address (seccomp(2)). */
    bool known = prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, 0, 0, 0) < 0 && errno == EFAULT;

    if (known)
        finding_set(f, FINDING_OK, "seccomp", "", "system call filters are there");
    else
        finding_set(f, FINDING_WARN, "seccomp", "pods that ask for a seccomp profile are refused: use a kernel with CONFIG_SECCOMP_FILTER",
                   "this kernel has no system call filters");
}

/* ---- clock ---- */

static void machine_clock(struct finding *f, const char *parent)
{
    (void)parent;
    struct timex state = { .modes = 0 };
    int result = adjtimex(&state);
    char now[TIMEFMT_SIZE];

    timefmt_seconds(clock_real_ns(), now);
    if (clock_real_ns() < MACHINE_CLOCK_MIN_NS)
        finding_set(f, FINDING_FAIL, "clock", "set the clock: certificates and time stamps depend on it", "%s", now);
    else if (result < 0 || result == TIME_ERROR)
        finding_set(f, FINDING_WARN, "clock", "run an NTP client: time stamps of pods come from several machines",
                   "%s, not synchronised as far as the kernel knows", now);
    else
        finding_set(f, FINDING_OK, "clock", "", "%s, synchronised", now);
}

/* ---- all of it ---- */

void machine_check(const char *dir, void (*say)(void *arg, const struct finding *f), void *arg)
{
    static void (*const checks[])(struct finding *f, const char *parent) = {
        machine_kernel, machine_namespaces, machine_ids, machine_overlay, machine_cgroups, machine_seccomp, machine_clock,
    };

    for (size_t i = 0; i < COUNT_OF(checks); i++) {
        struct finding f;
        checks[i](&f, dir);
        say(arg, &f);
    }
}

#undef MACHINE_CLOCK_MIN_NS
