/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cni_network.h: network configurations of CNI, the Container Network Interface: what network pods get, and which plugins make it.
 *
 * Source: containernetworking/cni, SPEC.md 1.1.0, sections 1 and 3. Configurations are found as containerd finds them: the first
 * file of a folder in lexical order that ends in .conflist, .conf or .json. A .conf may hold a single plugin (before 1.0.0).
 */
#ifndef NODE_CNI_NETWORK_H
#define NODE_CNI_NETWORK_H

#include "base/base.h"
#include "text/json.h"

struct cni_plugin {
    const char *type;          /* its program's name */
    const struct json *config; /* all that the configuration says to it */
};

/* On the arena that it was read onto. */
struct cni_network {
    const char *file; /* it was found in; "" when it came from elsewhere */
    const char *name;
    const char *version; /* of the specification: the highest that both the configuration and we know */
    bool disable_check, disable_gc;
    bool inline_only; /* no plugins are added from the folder with the network's name */
    struct cni_plugin plugins[CNI_PLUGINS_MAX];
    size_t plugin_count;
};

/* Reads one configuration. INVALID_ARGUMENT, with the place; FAILED_PRECONDITION for a version that we do not know. */
bool cni_network_parse(struct arena *arena, struct str text, struct cni_network *out, struct status *err);
/* Finds and reads the one that counts. *found is false when the folder has none, or is not there. Blocks on the disk, for some
 * small files. */
bool cni_network_find(struct arena *arena, const char *folder, struct cni_network *out, bool *found, struct status *err);
/* Appends it as one configuration, with plugins that were added from elsewhere: for the record of a pod. */
void cni_network_write(const struct cni_network *network, struct buf *json);

/* Whether a plugin, or any plugin of the network, takes this from the runtime ("portMappings"). */
bool cni_plugin_can(const struct cni_plugin *plugin, const char *capability);
bool cni_network_can(const struct cni_network *network, const char *capability);
/* Whether the network's version is at least this one ("0.4.0"). */
bool cni_network_since(const struct cni_network *network, const char *version);
/* The plugin's program, in the first of the folders (NULL-terminated) that has it; the caller frees. NULL: NOT_FOUND. Blocks. */
char *cni_find_program(const char *const *folders, const char *type, struct status *err);
/* Whether every program that the network names is there, those for addresses too. FAILED_PRECONDITION names the missing one. Blocks. */
bool cni_network_check_programs(const struct cni_network *network, const char *const *folders, struct status *err);

/* Nesting of configurations and results: they are put into other documents, which are bounded in turn (JSON_DEPTH_MAX). */
bool cni_check_depth(const struct json *j, struct status *err);

#endif
