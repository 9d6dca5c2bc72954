/* SPDX-License-Identifier: Apache-2.0 */
/* user.h: who a container's process runs as, from the pod's wishes, the image's `User` and the image's own /etc/passwd
 * and /etc/group (passwd(5), group(5)). Works on text: no I/O. */
#ifndef AGENT_USER_H
#define AGENT_USER_H

#include "base/base.h"

/* A container's /etc/passwd or /etc/group; larger ones are refused. */
#define USER_FILE_MAX (1u << 20)
#define USER_GROUPS_MAX 64

struct user_request {
    bool has_uid, has_gid;
    int64_t uid, gid;     /* run_as_user, run_as_group */
    const char *username; /* run_as_username; "": none */
    const char *image_user; /* "", "1002", "1003:group", "name:group" */
    const int64_t *groups;  /* supplemental_groups */
    size_t group_count;
    bool strict; /* SupplementalGroupsPolicy Strict: /etc/group adds none */
};

struct user {
    uint32_t uid, gid;
    /* None twice: the primary one, then those asked for, then those that /etc/group adds. */
    uint32_t groups[USER_GROUPS_MAX];
    size_t group_count, asked_count;
    char home[256]; /* "/" when it is not known */
};

/* INVALID_ARGUMENT when the request makes no sense or names somebody whom the image does not know; the message starts
 * with the field. */
bool user_resolve(const struct user_request *request, struct str passwd, struct str group, struct user *out,
                  struct status *err);

/* One more group; one that is there already is no error. INVALID_ARGUMENT when there are too many. */
bool user_add_group(struct user *u, uint32_t gid, struct status *err);

#endif
