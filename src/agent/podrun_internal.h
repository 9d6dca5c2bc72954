/* SPDX-License-Identifier: Apache-2.0 */
/*
 * podrun_internal.h: what podrun's files share.
 *
 * A container, moved in podrun_move() only:
 *
 *                 its turn      image is there     made         started                ended, output stored
 *     WAITING ------------> IMAGE --------> CREATING ---> STARTING ---> RUNNING ------------------+
 *                             ^                |              |                                   |
 *                             |                +--------------+---- refused ----------------+     |
 *                             |                                                             v     v
 *                             +-------------- BACKOFF <-------- to be restarted ---------- ENDED <+
 */
#ifndef AGENT_PODRUN_INTERNAL_H
#define AGENT_PODRUN_INTERNAL_H

#include "agent/logfile.h"
#include "agent/podrun.h"
#include "agent/podspec.h"
#include "http/client.h"
#include "io/socket.h"
#include "rpc/rpc.h"

#include "agent.pb-c.h"

enum podrun_phase {
    PODRUN_WAITING,
    PODRUN_IMAGE,
    PODRUN_CREATING,
    PODRUN_STARTING,
    PODRUN_RUNNING,
    PODRUN_ENDED,
    PODRUN_BACKOFF,
};

/* One action of a probe or hook under way. All zero: none. */
struct podrun_check {
    struct podrun_container *container; /* NULL: none */
    struct rpc_request *exec;
    struct http_request *http;
    struct connector tcp;
    struct timer timer;
    int64_t timeout_ms;
    struct buf output; /* of a command: its last words */
    void (*done)(void *arg, bool ok, const char *why);
    void *arg;
};

struct podrun_probe {
    struct podrun_container *container;
    enum podspec_probe_kind kind;
    struct podrun_check check;
    struct timer timer;
    int64_t streak; /* of equal results: > 0 good ones, < 0 bad ones */
};

/* How an attempt ended. */
struct podrun_end {
    bool known;
    int exit_code, signal;
    char reason[32];
    char message[PODRUN_MESSAGE_MAX];
    int64_t started_ns, finished_ns;
};

struct podrun_container {
    struct podrun *run;
    const struct podspec_container *spec;
    enum podrun_phase phase;
    char id[ID_LENGTH + 1]; /* of the attempt */
    char image_id[80];
    int64_t attempt;
    int64_t started_ns;
    int stop_signal;
    struct podrun_end end, last; /* of this attempt and of the one before */
    bool log_ended;
    char waiting_reason[64], waiting_message[512];
    struct logfile *log; /* owned; NULL: none */
    unsigned log_parts;
    uint64_t log_part_from;
    bool started, ready;   /* by its probes */
    bool stopping, termed; /* it is being stopped; TERM was sent */
    bool for_good;         /* ENDED, and not to be restarted */
    int64_t kill_at_ms;    /* while stopping; monotonic */
    int64_t backoff_ms, image_pause_ms;
    struct timer timer, kill_timer;
    struct podrun_check hook;
    struct podrun_probe probes[PODSPEC_PROBES];
    char stop_reason[256]; /* why it is being stopped */
};

struct podrun {
    struct loop *loop;
    const char *job_dir, *images_dir;
    struct arena arena; /* of the spec */
    struct buf manifest;
    struct podspec spec;
    struct rpc_conn *conn; /* owned */
    struct http_client *http; /* owned; NULL until a probe needs it */
    struct podrun_container *containers; /* spec.count */
    bool ready;      /* set up: containers may be made */
    bool stopping;   /* the pod is on its way out */
    bool leaving;    /* the agent was told to end */
    int64_t stop_by_ms; /* monotonic: the grace period's end */
    struct status failure; /* of the pod as a whole */
    struct timer deadline, status_timer;
    struct deferred step;
    void (*on_done)(void *arg, int exit_code);
    void *arg;
};

/* ---- podrun.c ---- */
void podrun_step_soon(struct podrun *run);
/* Nothing more can be run: the pod ends, and this is why. */
void podrun_fail(struct podrun *run, const struct status *err);

/* ---- podrun_container.c ---- */
void podrun_container_begin(struct podrun_container *c);
/* The agent says so. */
void podrun_container_on_state(struct podrun_container *c, const Interlink__Agent__V1__ContainerState *state);
/* Idempotent; the sooner end of the grace period counts. */
void podrun_container_stop(struct podrun_container *c, int64_t grace_ms, const char *why);
void podrun_container_free(struct podrun_container *c);
static inline bool podrun_container_active(const struct podrun_container *c)
{
    return c->phase == PODRUN_CREATING || c->phase == PODRUN_STARTING || c->phase == PODRUN_RUNNING;
}
char *podrun_log_path(const struct podrun *run, const char *container, int64_t attempt); /* the caller frees */

/* ---- podrun_config.c ---- */
void podrun_sandbox_config(struct arena *arena, const struct podrun *run, Runtime__V1__PodSandboxConfig *out);
/* All but the image. FAILED_PRECONDITION when a hostPath is not what it should be. */
bool podrun_container_config(struct arena *arena, const struct podrun_container *c, Interlink__Agent__V1__CreateContainerRequest *out,
                             struct status *err);

/* ---- podrun_files.c ---- */
/* Sends all volumes that have files; done from the loop. */
void podrun_files_put(struct podrun *run, void (*done)(struct podrun *run, const struct status *err));
/* The name under which a mount's files were sent: the volume's, or one of its own for a subPath. */
const char *podrun_files_name(struct arena *arena, const struct podspec *spec, size_t container, size_t mount);

/* ---- podrun_image.c ---- */
/* False: not yet, and then reason and message say why. *stop_signal: the image's. */
bool podrun_image_find(const struct podrun *run, const char *name, struct arena *arena, Interlink__Agent__V1__Image *out,
                       int *stop_signal, char reason[64], char message[512]);

/* ---- podrun_probe.c ---- */
void podrun_check_start(struct podrun_check *check, struct podrun_container *c, const struct podspec_action *action,
                        int64_t timeout_ms, void (*done)(void *arg, bool ok, const char *why), void *arg);
void podrun_check_cancel(struct podrun_check *check);
void podrun_probes_start(struct podrun_container *c);
void podrun_probes_stop(struct podrun_container *c);

/* ---- podrun_status.c ---- */
void podrun_status_changed(struct podrun *run);
bool podrun_status_write(struct podrun *run, struct status *err);

#endif
