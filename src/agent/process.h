/* SPDX-License-Identifier: Apache-2.0 */
/* process.h: how the processes of a container are to be started: everything but namespaces and mounts. Made by create,
 * kept in the bundle (<bundle>/process), read again by start and exec, which run in other workers. */
#ifndef AGENT_PROCESS_H
#define AGENT_PROCESS_H

#include "agent/user.h"
#include "base/base.h"

/* A directory or file to be bound for a container of the host engine; a link to be made for one of apptainer's. */
struct process_bind {
    char *source, *target;
    bool read_only;
};

struct process {
    struct arena arena; /* owns all that pointers below lead to */
    char **argv, **env; /* NULL-terminated; bytes, not necessarily UTF-8 */
    char *cwd;
    struct user user;
    /* Capabilities as bits by number (capabilities(7)). */
    uint64_t bounding, permitted, inheritable, ambient; /* effective: as permitted */
    bool no_new_privs;
    bool tty;
    bool has_oom_score_adj;
    int32_t oom_score_adj;
    bool keep_groups; /* those of the job's user that have no number here */
    bool own_pid, own_cgroup; /* the container has a PID, a cgroup namespace of its own, which exec has to join */
    uint8_t *seccomp;         /* struct sock_filter[]; NULL: no filter */
    size_t seccomp_size;
    uint32_t seccomp_flags;
    char *apparmor, *selinux; /* a profile and a label (lsm.h); "": none */
    struct process_bind *binds;
    size_t bind_count;
};

void process_free(struct process *p);
#define cleanup_process __attribute__((cleanup(process_free)))
bool process_write(const struct process *p, const char *bundle, struct status *err);
/* The same as bytes, for a process of this program. */
void process_encode(const struct process *p, struct buf *out);
bool process_decode(struct process *p, struct str bytes, struct status *err);
/* NOT_FOUND when the container has never been created. On failure there is nothing to free. */
bool process_read(struct process *p, const char *bundle, struct status *err);
/* The value of a variable; NULL when it is not set. */
const char *process_env(const struct process *p, const char *name);

#endif
