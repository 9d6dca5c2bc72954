/* SPDX-License-Identifier: Apache-2.0 */
/* Where filters come from: the default profile, kept as a table, and profiles in JSON. */
#include "agent/seccomp.h"

#include "text/json.h"

#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/socket.h>

#ifndef SECCOMP_RET_KILL_PROCESS
#define SECCOMP_RET_KILL_PROCESS 0x80000000u
#endif
#ifndef SECCOMP_RET_LOG
#define SECCOMP_RET_LOG 0x7ffc0000u
#endif
#ifndef SECCOMP_FILTER_FLAG_LOG
#define SECCOMP_FILTER_FLAG_LOG 2u
#endif
#ifndef SECCOMP_FILTER_FLAG_SPEC_ALLOW
#define SECCOMP_FILTER_FLAG_SPEC_ALLOW 4u
#endif
#define SECCOMP_RET_EPERM (SECCOMP_RET_ERRNO | EPERM)

/* ---- the default profile ---- */

#define SECCOMP_CAP(name) (1ull << (name))
/* On this architecture's machines only. */
enum { SECCOMP_ANY, SECCOMP_X86, SECCOMP_ARM };

/* Calls that are allowed: always (capability 0: no bit), or when the bounding set has the capability. What containerd
 * and docker apply; sorted, so that it can be compared with theirs. */
static const struct {
    uint64_t capability;
    int machine;
    const char *names; /* separated by spaces */
} seccomp_allowed[] = {
    { 0, SECCOMP_ANY,
      "_llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod "
      "chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime "
      "clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat "
      "dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait "
      "epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 "
      "fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl "
      "fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs "
      "fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake "
      "futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid "
      "geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid "
      "getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname "
      "getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init "
      "inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 "
      "io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset "
      "landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr listxattrat "
      "llistxattr lremovexattr lseek lsetxattr lsm_get_self_attr lsm_list_modules lsm_set_self_attr lstat "
      "lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod "
      "mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive "
      "mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv "
      "msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause "
      "pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl "
      "pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 "
      "read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages "
      "removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction "
      "rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait "
      "rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity "
      "sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 "
      "sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl "
      "semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto "
      "set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 "
      "setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid "
      "setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat "
      "shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair "
      "splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo "
      "tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime "
      "timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times "
      "tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat "
      "utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev" },
    { 0, SECCOMP_ANY, "process_vm_readv process_vm_writev ptrace" }, /* safe since Linux 4.8 */
    { 0, SECCOMP_X86, "arch_prctl modify_ldt" },
    { 0, SECCOMP_ARM, "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2" },
    { SECCOMP_CAP(CAP_DAC_READ_SEARCH), SECCOMP_ANY, "open_by_handle_at" },
    { SECCOMP_CAP(CAP_SYS_ADMIN), SECCOMP_ANY,
      "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount "
      "open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare" },
    { SECCOMP_CAP(CAP_SYS_BOOT), SECCOMP_ANY, "reboot" },
    { SECCOMP_CAP(CAP_SYS_CHROOT), SECCOMP_ANY, "chroot" },
    { SECCOMP_CAP(CAP_SYS_MODULE), SECCOMP_ANY, "delete_module finit_module init_module" },
    { SECCOMP_CAP(CAP_SYS_PACCT), SECCOMP_ANY, "acct" },
    { SECCOMP_CAP(CAP_SYS_PTRACE), SECCOMP_ANY, "kcmp pidfd_getfd process_madvise" },
    { SECCOMP_CAP(CAP_SYS_RAWIO), SECCOMP_ANY, "ioperm iopl" },
    { SECCOMP_CAP(CAP_SYS_TIME), SECCOMP_ANY, "clock_settime clock_settime64 settimeofday stime" },
    { SECCOMP_CAP(CAP_SYS_TTY_CONFIG), SECCOMP_ANY, "vhangup" },
    { SECCOMP_CAP(CAP_SYS_NICE), SECCOMP_ANY, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node" },
    { SECCOMP_CAP(CAP_SYSLOG), SECCOMP_ANY, "syslog" },
    { SECCOMP_CAP(39) /* CAP_BPF, Linux 5.8 */, SECCOMP_ANY, "bpf" },
    { SECCOMP_CAP(38) /* CAP_PERFMON, Linux 5.8 */, SECCOMP_ANY, "perf_event_open" },
};

static bool seccomp_add_names(struct seccomp_rules *r, const char *names, uint32_t action,
                              const struct seccomp_condition *condition, struct status *err)
{
    while (*names != '\0') {
        size_t n = strcspn(names, " ");
        if (!seccomp_rules_add(r, (struct str){ names, n }, action, condition, condition != NULL, err))
            return false;
        names += n;
        names += strspn(names, " ");
    }
    return true;
}

/* Calls whose arguments decide. */
static bool seccomp_add_conditional(struct seccomp_rules *r, bool admin, struct status *err)
{
    static const uint64_t personalities[] = { 0, 0x0008, 0x20000, 0x20008, 0xffffffff };
    /* New user, mount... namespaces need CAP_SYS_ADMIN. */
    const struct seccomp_condition no_namespaces = {
        .argument = 0,
        .op = SECCOMP_MASKED_EQ,
        .value = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP,
    };
    /* Not AF_ALG (the kernel's crypto, a long record of holes) and AF_VSOCK (the hypervisor). The family is an int: the
     * kernel ignores the upper half of its register, and so must this. */
    const struct seccomp_condition families[] = {
        { .argument = 0, .op = SECCOMP_MASKED_EQ, .value = UINT32_MAX, .value_two = AF_ALG },
        { .argument = 0, .op = SECCOMP_MASKED_EQ, .value = UINT32_MAX, .value_two = AF_VSOCK },
    };

    for (size_t i = 0; i < COUNT_OF(personalities); i++) {
        struct seccomp_condition is = { .argument = 0, .op = SECCOMP_EQ, .value = personalities[i] };
        if (!seccomp_add_names(r, "personality", SECCOMP_RET_ALLOW, &is, err))
            return false;
    }
    for (size_t i = 0; i < COUNT_OF(families); i++)
        if (!seccomp_add_names(r, "socket", SECCOMP_RET_EPERM, &families[i], err))
            return false;
    if (!seccomp_add_names(r, "socket", SECCOMP_RET_ALLOW, NULL, err))
        return false;
    /* clone3's flags are in memory, out of reach: "no such call" makes programs use clone. */
    return admin || (seccomp_add_names(r, "clone", SECCOMP_RET_ALLOW, &no_namespaces, err) &&
                     seccomp_add_names(r, "clone3", SECCOMP_RET_ERRNO | ENOSYS, NULL, err));
}

bool seccomp_default(uint64_t bounding, struct seccomp_filter *out, struct status *err)
{
    struct seccomp_rules rules;
    bool ok = true;

    seccomp_rules_init(&rules, SECCOMP_RET_EPERM);
    rules.enosys_above = true;
    int machine = rules.arches[0] == SCMP_ARCH_X86_64 || rules.arches[0] == SCMP_ARCH_X86    ? SECCOMP_X86
                  : rules.arches[0] == SCMP_ARCH_AARCH64 || rules.arches[0] == SCMP_ARCH_ARM ? SECCOMP_ARM
                                                                                             : SECCOMP_ANY;
    seccomp_rules_add_arch(&rules, SCMP_ARCH_X86);
    seccomp_rules_add_arch(&rules, SCMP_ARCH_X32);
    seccomp_rules_add_arch(&rules, SCMP_ARCH_ARM);
    for (size_t i = 0; i < COUNT_OF(seccomp_allowed) && ok; i++) {
        if ((seccomp_allowed[i].capability != 0 && (seccomp_allowed[i].capability & bounding) == 0) ||
            (seccomp_allowed[i].machine != SECCOMP_ANY && seccomp_allowed[i].machine != machine))
            continue;
        ok = seccomp_add_names(&rules, seccomp_allowed[i].names, SECCOMP_RET_ALLOW, NULL, err);
    }
    ok = ok && seccomp_add_conditional(&rules, (bounding & SECCOMP_CAP(CAP_SYS_ADMIN)) != 0, err) &&
         seccomp_compile(&rules, &out->program, err);
    out->flags = SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    seccomp_rules_free(&rules);
    return ok;
}

/* ---- profiles in JSON ---- */

/* Valid, but not for us. */
static bool seccomp_json_refuse(const struct json *j, const char *what, struct status *err)
{
    json_fail(j, err, "%s: notifications are not offered", what);
    err->code = STATUS_FAILED_PRECONDITION;
    return false;
}

static bool seccomp_json_action(const struct json *j, int64_t errno_ret, uint32_t *out, struct status *err)
{
    static const struct {
        const char *name;
        uint32_t action;
        bool data; /* the low half is errnoRet */
    } actions[] = {
        { "SCMP_ACT_KILL", SECCOMP_RET_KILL, false },       { "SCMP_ACT_KILL_THREAD", SECCOMP_RET_KILL, false },
        { "SCMP_ACT_KILL_PROCESS", SECCOMP_RET_KILL_PROCESS, false },
        { "SCMP_ACT_TRAP", SECCOMP_RET_TRAP, false },       { "SCMP_ACT_ERRNO", SECCOMP_RET_ERRNO, true },
        { "SCMP_ACT_TRACE", SECCOMP_RET_TRACE, true },      { "SCMP_ACT_ALLOW", SECCOMP_RET_ALLOW, false },
        { "SCMP_ACT_LOG", SECCOMP_RET_LOG, false },
    };
    const char *name;

    if (!json_as_string(j, &name, err))
        return false;
    for (size_t i = 0; i < COUNT_OF(actions); i++) {
        if (strcmp(name, actions[i].name) != 0)
            continue;
        *out = actions[i].action | (actions[i].data ? (uint32_t)errno_ret : 0);
        return true;
    }
    if (strcmp(name, "SCMP_ACT_NOTIFY") == 0)
        return seccomp_json_refuse(j, name, err);
    return json_fail(j, err, "the action %.40s cannot be applied", name);
}

static bool seccomp_json_condition(const struct json *j, struct seccomp_condition *out, struct status *err)
{
    static const char *const ops[] = { "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE",       "SCMP_CMP_EQ",
                                       "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ" };
    const char *op = "";
    uint64_t argument = 0;

    *out = (struct seccomp_condition){ .argument = 0 };
    if (!json_want(j, JSON_OBJECT, err) || !json_read_u64(j, "index", 5, &argument, err) ||
        !json_read_u64(j, "value", UINT64_MAX, &out->value, err) ||
        !json_read_u64(j, "valueTwo", UINT64_MAX, &out->value_two, err) || !json_read_string(j, "op", &op, err))
        return false;
    out->argument = (uint8_t)argument;
    for (size_t i = 0; i < COUNT_OF(ops); i++)
        if (strcmp(op, ops[i]) == 0) {
            out->op = (uint8_t)i;
            return true;
        }
    return json_fail(j, err, "unknown comparison \"%.40s\"", op);
}

/* Conditions of one rule must all hold; but those on one and the same argument are alternatives, as in the other runtimes. */
static bool seccomp_json_add(struct seccomp_rules *r, struct str name, uint32_t action,
                             const struct seccomp_condition *conditions, size_t count, struct status *err)
{
    unsigned seen = 0;
    bool alternatives = false;

    for (size_t i = 0; i < count; i++) {
        alternatives = alternatives || (seen & 1u << conditions[i].argument) != 0;
        seen |= 1u << conditions[i].argument;
    }
    if (!alternatives)
        return seccomp_rules_add(r, name, action, conditions, count, err);
    for (size_t i = 0; i < count; i++)
        if (!seccomp_rules_add(r, name, action, &conditions[i], 1, err))
            return false;
    return true;
}

static bool seccomp_json_rule(struct seccomp_rules *r, const struct json *j, int64_t default_errno, struct status *err)
{
    struct seccomp_condition conditions[64];
    const struct json *names = NULL, *args = NULL, *only = NULL, *action_json = json_member(j, "action");
    size_t count = 0;
    uint32_t action;
    int64_t errno_ret = default_errno;
    const char *name;

    if (!json_want(j, JSON_OBJECT, err) || !json_read_node(j, "names", JSON_ARRAY, &names, err) ||
        !json_read_node(j, "args", JSON_ARRAY, &args, err) ||
        !json_read_i64(j, "errnoRet", 0, SECCOMP_RET_DATA, &errno_ret, err))
        return false;
    if (action_json == NULL)
        return json_fail(j, err, "no action");
    if (!seccomp_json_action(action_json, errno_ret, &action, err))
        return false;
    /* Docker's own profiles have rules that hold on some machines only; to apply them everywhere would be wrong. */
    for (int i = 0; i < 2; i++) {
        if (!json_read_node(j, i == 0 ? "includes" : "excludes", JSON_OBJECT, &only, err))
            return false;
        if (json_first(only) != NULL)
            return json_fail(j, err, "rules with conditions (includes, excludes) are not part of OCI profiles");
    }
    for (JSON_EACH(a, args)) {
        if (count == COUNT_OF(conditions))
            return json_fail(a, err, "more than %zu conditions in one rule", COUNT_OF(conditions));
        if (!seccomp_json_condition(a, &conditions[count++], err))
            return false;
    }
    for (JSON_EACH(n, names))
        if (!json_as_string(n, &name, err) || !seccomp_json_add(r, str_of(name), action, conditions, count, err))
            return false;
    return true;
}

static bool seccomp_json_arches(struct seccomp_rules *r, const struct json *arches, struct status *err)
{
    static const struct {
        const char *name;
        uint32_t arch;
    } known[] = {
        { "SCMP_ARCH_X86", SCMP_ARCH_X86 },         { "SCMP_ARCH_X86_64", SCMP_ARCH_X86_64 },
        { "SCMP_ARCH_X32", SCMP_ARCH_X32 },         { "SCMP_ARCH_ARM", SCMP_ARCH_ARM },
        { "SCMP_ARCH_AARCH64", SCMP_ARCH_AARCH64 },
    };
    const char *name;

    for (JSON_EACH(a, arches)) {
        if (!json_as_string(a, &name, err))
            return false;
        for (size_t i = 0; i < COUNT_OF(known); i++)
            if (strcmp(name, known[i].name) == 0)
                seccomp_rules_add_arch(r, known[i].arch);
    }
    return true;
}

static bool seccomp_json_flags(const struct json *flags, uint32_t *out, struct status *err)
{
    const char *name;

    *out = flags == NULL ? SECCOMP_FILTER_FLAG_SPEC_ALLOW : 0;
    for (JSON_EACH(f, flags)) {
        if (!json_as_string(f, &name, err))
            return false;
        if (strcmp(name, "SECCOMP_FILTER_FLAG_LOG") == 0)
            *out |= SECCOMP_FILTER_FLAG_LOG;
        else if (strcmp(name, "SECCOMP_FILTER_FLAG_SPEC_ALLOW") == 0)
            *out |= SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        else if (strcmp(name, "SECCOMP_FILTER_FLAG_TSYNC") != 0) /* there is one thread: nothing to do */
            return json_fail(f, err, "the flag %.60s cannot be applied", name);
    }
    return true;
}

bool seccomp_from_json(struct str json, struct seccomp_filter *out, struct status *err)
{
    struct arena arena cleanup_arena = ARENA_INIT;
    const struct json *root = json_parse(&arena, json, err);
    const struct json *syscalls = NULL, *arches = NULL, *flags = NULL, *action = json_member(root, "defaultAction");
    struct seccomp_rules rules;
    uint32_t default_action;
    int64_t default_errno = EPERM;

    if (root == NULL || !json_want(root, JSON_OBJECT, err) || !json_read_node(root, "syscalls", JSON_ARRAY, &syscalls, err) ||
        !json_read_node(root, "architectures", JSON_ARRAY, &arches, err) ||
        !json_read_node(root, "flags", JSON_ARRAY, &flags, err) || !seccomp_json_flags(flags, &out->flags, err) ||
        !json_read_i64(root, "defaultErrnoRet", 0, SECCOMP_RET_DATA, &default_errno, err))
        return false;
    if (action == NULL)
        return json_fail(root, err, "a seccomp profile without defaultAction");
    if (json_member(root, "listenerPath") != NULL || json_member(root, "listenerMetadata") != NULL)
        return seccomp_json_refuse(root, json_member(root, "listenerPath") != NULL ? "listenerPath" : "listenerMetadata", err);
    if (!seccomp_json_action(action, default_errno, &default_action, err))
        return false;
    seccomp_rules_init(&rules, default_action);
    rules.enosys_above = default_action == SECCOMP_RET_EPERM && json_member(root, "defaultErrnoRet") == NULL;
    bool ok = seccomp_json_arches(&rules, arches, err);
    for (const struct json *s = json_first(syscalls); ok && s != NULL; s = s->next)
        ok = seccomp_json_rule(&rules, s, EPERM, err);
    ok = ok && seccomp_compile(&rules, &out->program, err);
    seccomp_rules_free(&rules);
    return ok;
}

#undef SECCOMP_RET_EPERM
#undef SECCOMP_CAP
