/* SPDX-License-Identifier: Apache-2.0 */
/* doctor.h: `interlink-cri doctor`: one line a check: what was looked at, ok, warn or FAIL, what was found, how to mend it.
 *
 *   doctor.c           the list of checks, the report
 *   doctor_machine.c   the kernel and the machine: namespaces, overlayfs, cgroups, system call filters, space, clock
 *   doctor_cluster.c   the cluster: credentials, the Node, RuntimeClasses, the admission policy
 *   doctor_kubelet.c   kubelet's settings on this machine, and the service manager's for us
 *   doctor_site.c      the configuration, the socket, folders, interLink APIs, pods' networks
 *   site.h             --site: the same of a site, by a job
 *
 * Checks that could disturb this process run in a child of it. */
#ifndef CLI_DOCTOR_H
#define CLI_DOCTOR_H

#include "agent/machine.h"
#include "base/base.h"
#include "cli/config.h"
#include "interlink/interlink.h"

struct doctor {
    const char *config_path; /* --config; "" */
    const char *kubelet_dir; /* --kubelet-dir: kubelet's --root-dir */
    /* --site and its options (site.h). */
    bool site;
    const char *handler, *plugin, *output; /* "" when not given; output: "table", "json", "yaml" */
    int64_t timeout_ns; /* for the job to start and tell */
    struct config config;
    bool configured;         /* `config` could be read */
    unsigned counts[FINDING_FAIL + 1];
    bool colour;
};

/* Prints one line. `mend` ("" for none) goes below it. */
void doctor_say(struct doctor *d, enum finding_result result, const char *what, const char *mend, const char *format, ...)
    PRINTF_LIKE(5, 6);

/* doctor_machine.c */
/* The nearest folder above `path` that is there; the caller frees. */
char *doctor_existing(const char *path);
void doctor_check_machine(struct doctor *d);

/* doctor_site.c */
void doctor_check_config(struct doctor *d);
void doctor_check_state_dir(struct doctor *d);
void doctor_check_space(struct doctor *d);
void doctor_check_logs(struct doctor *d);
void doctor_check_socket(struct doctor *d);
void doctor_check_handlers(struct doctor *d);
/* Whether an API answers a ping; waits for it. */
struct doctor_ping {
    bool done, ok;
    char text[STATUS_MESSAGE_MAX]; /* why not */
};
struct interlink_target_options doctor_target_options(const struct node_handler_options *o);
bool doctor_ping(struct loop *loop, const struct interlink_target_options *options, struct doctor_ping *out);
void doctor_check_own_pods(struct doctor *d);
void doctor_check_relay(struct doctor *d);
void doctor_check_network(struct doctor *d);
void doctor_check_gate(struct doctor *d);
void doctor_check_volumes(struct doctor *d);

/* doctor_cluster.c */
/* What only matters for handlers on other machines. */
bool doctor_is_remote(const struct doctor *d);
void doctor_check_cluster(struct doctor *d);

/* doctor_kubelet.c */
void doctor_check_service(struct doctor *d);
void doctor_check_kubelet(struct doctor *d);
void doctor_check_hugepages(struct doctor *d);

/* argv[0] is the verb. 0 when nothing failed, else 1. */
int doctor_main(int argc, char **argv);

#endif
