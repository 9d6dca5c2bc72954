/* SPDX-License-Identifier: Apache-2.0 */
/* agent_settings.h: what an agent's environment says (the variables stand in agent.h). */
#ifndef AGENT_AGENT_SETTINGS_H
#define AGENT_AGENT_SETTINGS_H

#include "agent/agent_relay.h"
#include "base/base.h"

/* All strings are owned; what is not said is "". */
struct agent_settings {
    const char *manifest; /* of the pod to be run, borrowed and set by the caller; NULL: a node says what is to be run */
    char sandbox_id[ID_LENGTH + 1];
    char *job_dir;        /* absolute */
    char *own_dir;        /* the same, when we have made it */
    char *images_dir;
    char *token, *token_file; /* both "": the token is in the job's folder */
    char *relay_pin, *engine, *apptainer, *cgroup_parent, *netns, *cdi_dirs;
    struct agent_relay relay;
    bool relay_is_unix;
    bool join_wanted;
    int64_t keepalive_ms;
    bool own_ipc, own_uts, own_pid; /* namespaces */
};

/* Fills what is zero but for the manifest, and sets up the log. INVALID_ARGUMENT names the variable; agent_settings_free is due then, too. */
bool agent_settings_read(struct agent_settings *s, struct status *err);
void agent_settings_free(struct agent_settings *s);

/* The value of one variable, owned by the caller; "" when it is not set. */
char *agent_settings_get(const char *name);

/* In a container that somebody else has made. */
bool agent_settings_inside(const struct agent_settings *s);

/* Takes them out of the environment: what is ours is nobody else's, not the containers', and not that of programs that the engine may run. */
void agent_settings_hide(void);

#endif
