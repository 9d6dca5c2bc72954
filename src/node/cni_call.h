/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cni_call.h: one call of a CNI plugin as text: what it gets (environment and standard input) and what it says (a result or an
 * error). No I/O. Source: SPEC.md 1.1.0, sections 2, 3 and 5.
 */
#ifndef NODE_CNI_CALL_H
#define NODE_CNI_CALL_H

#include "node/cni_network.h"

enum cni_command { CNI_ADD, CNI_DEL, CNI_CHECK, CNI_STATUS, CNI_GC };

/* What stays the same from a pod's ADD to its DEL. All borrowed. */
struct cni_attachment {
    const char *container_id;
    const char *netns;     /* path; "": there is none any more (DEL) */
    const char *interface; /* to be made in the pod */
    const char *arguments; /* CNI_ARGS: "IgnoreUnknown=1;K8S_POD_NAME=..." */
    const struct json *capabilities; /* object: what the runtime gives to plugins that take it; NULL: nothing */
    const struct json *result;       /* of the ADD; NULL before, and when there was none */
};

const char *cni_command_name(enum cni_command command);
/* The plugin's standard input. `previous`: the result that it goes on from; NULL: none. `valid`: of GC, the attachments that
 * are to stay, an array; else NULL. */
void cni_request(const struct cni_network *network, const struct cni_plugin *plugin, const struct cni_attachment *attachment,
                 const struct json *previous, const struct json *valid, struct buf *out);
/* NULL-terminated. `path`: where plugins are, with colons between. Nothing of ours but PATH and HOME. `attachment`: NULL for the
 * commands that have none. */
const char **cni_environment(struct arena *arena, enum cni_command command, const struct cni_attachment *attachment,
                             const char *path);

struct cni_result {
    const struct json *json; /* as it came */
    const char *addresses[CNI_ADDRESSES_MAX]; /* of the pod's interface, without prefixes; IPv4 first, as containerd has it */
    size_t address_count;
};
/* What an ADD printed. Addresses that belong to another interface are left out. INVALID_ARGUMENT. */
bool cni_result_parse(struct arena *arena, struct str text, const char *interface, struct cni_result *out, struct status *err);
/* The error of a plugin that ended otherwise than with 0: its own words when there are some. Returns false. */
bool cni_failure(const char *type, enum cni_command command, int wait_status, struct str output, struct str errors,
                 struct status *err);

#endif
