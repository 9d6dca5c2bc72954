/* SPDX-License-Identifier: Apache-2.0 */
/* plugin.h: an interLink plugin: the REST server in front of a backend. It understands both dialects on the same
 * routes, told apart by the body: an API server's (so `serve` dials it directly) and the plugin wire (so the stock API
 * server can stand between).
 *
 *   POST       /create              PodCreateRequests or RetrievedPodData     {"PodUID","PodJID"}
 *   GET|POST   /status              [v1.Pod...]                               [PodStatus...]; [] is the ping
 *   DELETE|POST /delete             v1.Pod                                    text, when nothing of the job is left
 *   GET|POST   /getLogs             LogStruct                                 streamed text
 *   any        /pinglink                                                      PingResponse
 *   POST       /updateCache         a uid                                     text; there is no cache to update
 *
 * Errors are plain text with a precise code: 400 malformed, 404 unknown, 405 method, 413 too large, 422 a pod that the
 * backend does not run, 429 too many jobs, 500 what went wrong here. */
#ifndef PLUGIN_PLUGIN_H
#define PLUGIN_PLUGIN_H

#include "base/base.h"

struct json;
struct loop;
struct plugin;

struct plugin_options {
    const char *listen;  /* "unix:///run/x.sock", "/run/x.sock" or "host:port" (a literal address) */
    const char *dir;     /* absolute; made with mode 0700 when it is not there */
    const char *backend; /* "" or "local", "slurm" */
    const char *program; /* "": this very binary; see backend_options */
    const struct json *settings; /* the backend's own part of the configuration, borrowed for the start; NULL: none */
    bool allow_tcp;      /* listen on TCP, where nobody can be told from anybody else; false: refused */
};

/* Starts listening on the loop; for a process of its own and embedded in `serve` alike. Needs child_reaper_start().
 * NULL on failure. */
struct plugin *plugin_start(struct loop *loop, const struct plugin_options *options, struct status *err);
/* Stops listening and closes all connections; jobs go on and are adopted by the next start. NULL is fine. */
void plugin_stop(struct plugin *plugin);
size_t plugin_job_count(const struct plugin *plugin);

/* ---- the configuration file of `interlink-cri plugin` ---- */
struct plugin_settings {
    char *listen, *dir, *backend, *program, *log_level; /* owned; "" for "not given" */
    bool allow_tcp;
    struct arena arena;       /* of the configuration */
    const struct json *slurm; /* its mapping `Slurm`; NULL: none */
};
void plugin_settings_init(struct plugin_settings *s);
void plugin_settings_free(struct plugin_settings *s);
/* Reads the file over what is there. False: err names the file and the place. */
bool plugin_read_config(struct plugin_settings *s, const char *path, struct status *err);
/* What was not given: folder and socket. */
void plugin_fill_defaults(struct plugin_settings *s);

/* `interlink-cri plugin ...`; argv[0] is "plugin". Returns the exit status. */
int plugin_main(int argc, char **argv);

#endif
