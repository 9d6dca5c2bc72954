/* SPDX-License-Identifier: Apache-2.0 */
/* site.h: `interlink-cri doctor --site`: what a site allows, seen from this node and, by a short job, from a compute node.
 *
 *   site.c          what is looked at, in which order
 *   site_node.c     from this node: the API, Slurm's limits, files left in shared folders
 *   site_job.c      a job that runs `agent --probe` there: submitted, watched, its log read, always deleted
 *   site_report.c   the table, JSON or YAML, and what to put into the configuration
 *
 * The job goes the way that pods go: through a handler of serve's configuration, or through a plugin of our own that lives in this
 * process with the site's plugin configuration. */
#ifndef CLI_SITE_H
#define CLI_SITE_H

#include "base/random.h"
#include "cli/doctor.h"
#include "interlink/interlink.h"
#include "io/loop.h"
#include "plugin/plugin.h"

struct site_finding {
    struct finding finding; /* strings on the arena */
    const char *where;      /* "this node", "compute node"... */
};

/* A folder that may be the same on both sides. */
struct site_folder {
    const char *path;
    bool configured; /* in SharedPaths */
    bool asked;      /* our file is in it */
};

enum { SITE_FOLDERS_MAX = 32 };

struct site {
    struct doctor *doctor;
    const struct node_handler_options *handler; /* NULL: a plugin of our own */
    struct arena arena;
    struct loop *loop;
    struct plugin_settings settings; /* of --plugin */
    bool interrupted;                /* Ctrl-C: what is under way is given up */
    bool stopped;                    /* the same, for good */
    struct doctor_ping ping;
    struct site_finding *findings;   /* owned array */
    size_t count;
    char nonce[ID_LENGTH + 1];
    struct site_folder folders[SITE_FOLDERS_MAX];
    size_t folder_count;
    char *work; /* owned; the folder of a plugin of our own; NULL: none */
    const struct json *report; /* the probe's; NULL: there is none. On the arena */
};

/* ---- site_report.c ---- */
void site_say(struct site *site, const char *where, enum finding_result result, const char *what, const char *mend,
              const char *format, ...) PRINTF_LIKE(6, 7);
void site_add(struct site *site, const char *where, const struct finding *f); /* copies */
/* What the probe says, under the compute node's name. */
void site_add_report(struct site *site);
/* All of it, in the wanted format ("table", "json", "yaml"). False: standard output is gone. */
bool site_print(struct site *site, const char *format);
/* 1 when something failed, else 0. */
int site_exit_status(const struct site *site);

/* ---- site_node.c ---- */
void site_choose_folders(struct site *site);
void site_leave_files(struct site *site);
/* Compares what the probe answered, and takes our files and its away again. */
void site_collect_files(struct site *site);
void site_check_slurm(struct site *site);
void site_check_proxy(struct site *site);

/* ---- site_job.c ---- */
/* Runs the probe behind this API and says how it went; site->report when it came back. The job is deleted when it returns, or a
 * finding says that it could not be. */
void site_run_job(struct site *site, const struct interlink_target_options *target, const char *relay, const char *pin);

/* ---- site.c ---- */
int site_main(struct doctor *d);

#endif
