/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup.h: the pod's control groups: v1 hierarchies, the unified one (v2), or a hybrid of both.
 *
 *   <mount>/<pod>        made here, or by kubelet (then it stays)
 *   <mount>/<pod>/<id>   one a container
 *
 * As root <pod> is the cgroup_parent that the pod names, else /interlink-cri/<sandbox>. An ordinary user has only what
 * was delegated to it: then <pod> is a folder beside the one that the agent runs in. Otherwise there are no cgroups:
 * limits are not applied, which is noted and no reason to refuse (kubelet always sends some).
 *
 * Each folder made is first written to <job_dir>/cgroups, one a line, so that whoever clears up after a killed agent
 * finds it.
 *
 * Moving a running process between cgroups waits for an RCU grace period (10 ms and more). So nothing is ever moved:
 * cgroup_fork starts processes inside (v2: CLONE_INTO_CGROUP, Linux 5.7; v1: a thread moving itself is exempt, Linux 5.5).
 */
#ifndef AGENT_CGROUP_H
#define AGENT_CGROUP_H

#include "base/base.h"

#include "cri.pb-c.h"

enum cgroup_mode { CGROUP_NONE, CGROUP_V1, CGROUP_V2, CGROUP_HYBRID };

/* Controllers that are used, as bits. */
enum {
    CGROUP_CPU = 1,
    CGROUP_CPUACCT = 2,
    CGROUP_MEMORY = 4,
    CGROUP_PIDS = 8,
    CGROUP_DEVICES = 16,
    CGROUP_CPUSET = 32,
    CGROUP_HUGETLB = 64,
    CGROUP_IO = 128, /* v2; only counts */
};

#define CGROUP_HIERARCHIES_MAX 16
struct cgroup_hierarchy {
    char *mount; /* owned; "/sys/fs/cgroup/memory" */
    char *own;   /* owned; this process's cgroup below it: "/" or "/a/b" */
    unsigned controllers;
    bool unified;
    bool used;      /* <mount>/<pod> is there for us */
    unsigned made;  /* how many of the last components of <pod> we made */
};

struct cgroups {
    enum cgroup_mode mode;
    struct cgroup_hierarchy hierarchies[CGROUP_HIERARCHIES_MAX];
    size_t count;
    char *pod;       /* owned; absolute below the mounts; "" when mode is CGROUP_NONE */
    bool given; /* it was told to us, so other pods may use it, too */
    char *list_path; /* owned; <job_dir>/cgroups */
    bool devices;    /* access to device nodes can be restricted */
    char reason[192]; /* why there are none; "" */
};

struct cgroup_options {
    bool rootless;
    const char *parent; /* "": none given */
    const char *sandbox_id;
    const char *job_dir;
};

/* Finds out what there is and makes the pod's folder. Never fails: mode CGROUP_NONE with a reason instead. */
void cgroups_open(struct cgroups *c, const struct cgroup_options *options);
/* Removes the folders that cgroups_open made, as far as they are empty. */
void cgroups_close(struct cgroups *c);
const char *cgroup_mode_name(enum cgroup_mode mode); /* "none", "v1", "v2", "hybrid" */

/* For an ordinary user on v2, before anything else: when this process is alone in a delegated cgroup, it goes into a
 * leaf of it, so that the rest of it can hold containers (v2 forbids processes beside child groups). Best effort. */
void cgroup_delegate(void);

/* ---- device nodes that a container may use ---- */
struct cgroup_device {
    char type;      /* 'c' or 'b' */
    int64_t major, minor; /* -1: any */
    bool read, write, mknod;
};

/* ---- one container ---- */
/* Makes its folder and writes the limits. `devices` == NULL: no restriction. What cannot be applied is appended to
 * note ("cpuset_cpus, hugepage_limits"). Fails only when the folder cannot be made or devices cannot be restricted. */
bool cgroup_create(const struct cgroups *c, const char *id, const Runtime__V1__LinuxContainerResources *resources,
                   const struct cgroup_device *devices, size_t device_count, struct buf *note, struct status *err);
/* As fork(2), the child being in the container's cgroup: pid, 0 in the child, -1 with err. */
pid_t cgroup_fork(const struct cgroups *c, const char *id, struct status *err);
/* Calls visit for each process in it, also those in groups that the container made itself; how many there are, or -1 when
 * there is no cgroup. (cgroup_members.c) */
int cgroup_each(const struct cgroups *c, const char *id, void (*visit)(void *arg, pid_t pid), void *arg);
/* Sends a signal to every process in it; the number of processes that were there, or -1 when there is no cgroup. With
 * SIGKILL and where the kernel has cgroup.kill (v2, Linux 5.14) at once. */
int cgroup_signal(const struct cgroups *c, const char *id, int signal);
bool cgroup_oom_killed(const struct cgroups *c, const char *id);
/* New limits for a container's group that is there, or for the pod's own (id ""): what `r` names; fields that are 0 or empty
 * stay as they are. On failure what was written is taken back, and the message begins with the field ("memory_limit_in_bytes:
 * the container uses more than that"): FAILED_PRECONDITION, or INVALID_ARGUMENT. Takes as long as the kernel needs to
 * reclaim memory: worker. (cgroup_update.c) */
bool cgroup_update(const struct cgroups *c, const char *id, const Runtime__V1__LinuxContainerResources *r, struct status *err);
/* Kills what is left and removes the folder and those that the container made in it. Waits up to two seconds. */
bool cgroup_remove(const struct cgroups *c, const char *id, struct status *err);

/* ---- for the files beside ---- */
/* The container's folder; the caller frees. */
char *cgroup_path(const struct cgroups *c, const struct cgroup_hierarchy *h, const char *id);
/* A whole file; "" when it cannot be read; the caller frees. */
char *cgroup_read_text(const char *path);
/* Makes a container's folder `path` in h, as create does, without limits. */
bool cgroup_make_group(const struct cgroups *c, const struct cgroup_hierarchy *h, const char *path, struct status *err);
/* Splits off the next line of *text (changed in place); NULL at the end. */
char *cgroup_line(char **text);

/* ---- cgroup_limits.c ---- */
/* dir_fd: the container's folder in hierarchy h. Appends the names of fields that could not be applied. */
void cgroup_write_limits(const struct cgroup_hierarchy *h, int dir_fd, const char *path,
                         const Runtime__V1__LinuxContainerResources *r, struct buf *note);
bool cgroup_restrict_devices(const struct cgroup_hierarchy *h, int dir_fd, const struct cgroup_device *devices, size_t count,
                             struct status *err);
/* The one file of v2 that v1 has under the same name, so that `unified` can name it there, too. */
#define CGROUP_PIDS_MAX "pids.max"
/* "2MB", "1GB": how the kernel spells a size of huge pages in a file's name. */
bool cgroup_page_size_ok(const char *size);
/* Whether `unified` may name it: a file of the group, none of those by which processes are moved or groups nested. */
bool cgroup_unified_ok(const char *name);
/* cpu_shares 2..262144 to cpu.weight 1..10000. */
int64_t cgroup_weight(int64_t shares);
/* Writes text to a file below dir_fd in one write(2). False with errno. */
bool cgroup_write(int dir_fd, const char *name, const char *text);
/* The program for v2, one word an instruction; for the tests. Returns the number of instructions (<= max). */
struct bpf_insn;
size_t cgroup_device_program(const struct cgroup_device *devices, size_t count, struct bpf_insn *out, size_t max);

#endif
