/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/ctl.h"
#include "cli/doctor.h"

#include "cli/config.h"
#include "cli/ctl_stream.h"
#include "io/socket.h"
#include "text/timefmt.h"

#include <unistd.h>

/* ---- the flags ---- */

#define FLAG(member) offsetof(struct ctl_flags, member)
#define FLAG_OUTPUT { "output", 'o', OPTION_STRING, FLAG(output), "FORMAT", "Output format, one of: json, yaml, table", NULL }
#define FLAG_QUIET(help) { "quiet", 'q', OPTION_SWITCH, FLAG(quiet), NULL, help, NULL }
#define FLAG_VERBOSE { "verbose", 'v', OPTION_SWITCH, FLAG(verbose), NULL, "Show more of each", NULL }
#define FLAG_NAME(help) { "name", 0, OPTION_STRING, FLAG(name), "REGEX", help, NULL }
#define FLAG_NAMESPACE { "namespace", 0, OPTION_STRING, FLAG(name_space), "REGEX", "Filter by pod namespace (regular expression)", NULL }
#define FLAG_STATE(help) { "state", 's', OPTION_STRING, FLAG(state), "STATE", help, NULL }
#define FLAG_LABEL { "label", 0, OPTION_LIST, FLAG(labels), "KEY=VALUE", "Filter by label; may be given several times", NULL }
#define FLAG_LATEST { "latest", 'l', OPTION_SWITCH, FLAG(latest), NULL, "Only the newest one, whatever its state", NULL }
#define FLAG_LAST { "last", 'n', OPTION_NUMBER, FLAG(last), "N", "Only the N newest ones, whatever their state; 0: all", NULL }
#define FLAG_NO_TRUNC { "no-trunc", 0, OPTION_SWITCH, FLAG(no_trunc), NULL, "Show whole IDs", NULL }
#define FLAG_ALL(help) { "all", 'a', OPTION_SWITCH, FLAG(all), NULL, help, NULL }
#define FLAG_RUNTIME { "runtime", 'r', OPTION_STRING, FLAG(runtime), "HANDLER", "Runtime handler: where the pod runs", NULL }
#define FLAG_CANCEL \
    { "cancel-timeout", 'T', OPTION_DURATION, FLAG(cancel_timeout_ns), "TIME", "How long to wait before giving up", NULL }
#define FLAG_IMAGE_FILTER \
    { "filter", 'f', OPTION_LIST, FLAG(filters), "FILTER", \
      "dangling=true|false, reference=REGEX, before=IMAGE or since=IMAGE; may be given several times", NULL }
#define FLAGS_PULL \
    { "creds", 0, OPTION_STRING, FLAG(creds), "USERNAME[:PASSWORD]", "For the registry", "CRICTL_CREDS" }, \
    { "auth", 0, OPTION_STRING, FLAG(auth), "BASE64", "USERNAME[:PASSWORD] in base64, for the registry", "CRICTL_AUTH" }, \
    { "username", 'u', OPTION_STRING, FLAG(username), "USERNAME", "For the registry; asks for the password", NULL }, \
    { "pull-timeout", 0, OPTION_DURATION, FLAG(pull_timeout_ns), "TIME", "Longest time for the pull; 0s: none", \
      "CRICTL_PULL_TIMEOUT" }, \
    { "pt", 0, OPTION_DURATION, FLAG(pull_timeout_ns), "TIME", NULL, NULL }
#define FLAGS_WITH_PULL \
    { "no-pull", 0, OPTION_SWITCH, FLAG(no_pull), NULL, "Do not pull the image", NULL }, \
    { "with-pull", 0, OPTION_SWITCH, FLAG(with_pull), NULL, "Pull the image first", NULL }

static const struct option_spec ctl_global_options[] = {
    { "runtime-endpoint", 'r', OPTION_STRING, FLAG(runtime_endpoint), "SOCKET", "CRI socket: a path or unix://PATH",
      "CONTAINER_RUNTIME_ENDPOINT" },
    { "image-endpoint", 'i', OPTION_STRING, FLAG(image_endpoint), "SOCKET", "Socket of the image service, when it is another",
      "IMAGE_SERVICE_ENDPOINT" },
    { "socket", 0, OPTION_STRING, FLAG(runtime_endpoint), "SOCKET", NULL, NULL },
    { "config", 'c', OPTION_STRING, FLAG(config), "FILE", "Where the socket is told: our configuration, or a crictl.yaml",
      "CRI_CONFIG_FILE" },
    { "timeout", 't', OPTION_DURATION, FLAG(timeout_ns), "TIME", "Longest time for each call; default: kubelet's", NULL },
    { "debug", 'D', OPTION_SWITCH, FLAG(debug), NULL, "Show each call on standard error", NULL },
};
static const struct option_spec ctl_info_options[] = { FLAG_OUTPUT, FLAG_QUIET("Without the runtime's own information") };
static const struct option_spec ctl_runp_options[] = { FLAG_RUNTIME, FLAG_CANCEL };
static const struct option_spec ctl_rmp_options[] = {
    { "force", 'f', OPTION_SWITCH, FLAG(force), NULL, "Stop pods that are running first", NULL },
    FLAG_ALL("Remove all pods"),
};
static const struct option_spec ctl_pods_options[] = {
    { "id", 0, OPTION_STRING, FLAG(id), "ID", "Filter by pod id", NULL },
    FLAG_NAME("Filter by pod name (regular expression)"), FLAG_NAMESPACE, FLAG_STATE("Filter by state: ready, notready"),
    FLAG_LABEL, FLAG_VERBOSE, FLAG_QUIET("Only show IDs"), FLAG_OUTPUT, FLAG_LATEST, FLAG_LAST, FLAG_NO_TRUNC,
};
static const struct option_spec ctl_inspectp_options[] = {
    FLAG_OUTPUT, FLAG_QUIET("Without the runtime's own information"), FLAG_NAME("Filter by pod name (regular expression)"),
    FLAG_NAMESPACE, FLAG_STATE("Filter by state: ready, notready"), FLAG_LABEL, FLAG_LATEST, FLAG_LAST,
};
static const struct option_spec ctl_create_options[] = { FLAGS_WITH_PULL, FLAG_CANCEL, FLAGS_PULL };
static const struct option_spec ctl_run_options[] = { FLAGS_WITH_PULL, FLAG_CANCEL, FLAGS_PULL, FLAG_RUNTIME };
static const struct option_spec ctl_stop_options[] = {
    { "timeout", 't', OPTION_NUMBER, FLAG(timeout_seconds), "SECONDS", "Between the stop signal and the kill; default: 0", NULL },
    FLAG_ALL("Stop all running containers"),
};
static const struct option_spec ctl_rm_options[] = {
    { "force", 'f', OPTION_SWITCH, FLAG(force), NULL, "Stop containers that are running first", NULL },
    { "keep-logs", 'k', OPTION_SWITCH, FLAG(keep_logs), NULL, "Leave the log file and its rotations", NULL },
    FLAG_ALL("Remove all containers"),
};
#define FLAGS_CONTAINER_FILTER \
    FLAG_NAME("Filter by container name (regular expression)"), \
    { "pod", 'p', OPTION_STRING, FLAG(pod), "POD-ID", "Filter by pod id", NULL }, \
    { "image", 0, OPTION_STRING, FLAG(image), "IMAGE", "Filter by image", NULL }, FLAG_LABEL, FLAG_LATEST, FLAG_LAST
#define FLAG_CONTAINER_STATE FLAG_STATE("Filter by state: created, running, exited, unknown")
#define FLAGS_STREAM \
    { "tls-sni", 0, OPTION_STRING, FLAG(tls_sni), "NAME", \
      "Name that the streaming server's certificate must carry; default: localhost", NULL }, \
    { "tls-server-name", 0, OPTION_STRING, FLAG(tls_sni), "NAME", NULL, NULL }, \
    { "tls-ca", 0, OPTION_STRING, FLAG(tls_ca), "FILE", "Who may have signed it; without this anyone", NULL }, \
    { "tls-cert", 0, OPTION_STRING, FLAG(tls_cert), "FILE", "Our own certificate", NULL }, \
    { "tls-key", 0, OPTION_STRING, FLAG(tls_key), "FILE", "Its key", NULL }, \
    { "transport", 'r', OPTION_STRING, FLAG(transport), "NAME", "spdy (the default) or websocket", NULL }
#define FLAG_TTY { "tty", 't', OPTION_SWITCH, FLAG(tty), NULL, "In a terminal; needs -i", NULL }
static const struct option_spec ctl_attach_options[] = {
    FLAG_TTY, { "stdin", 'i', OPTION_SWITCH, FLAG(interactive), NULL, "Send our standard input", NULL }, FLAGS_STREAM,
};
static const struct option_spec ctl_port_forward_options[] = { FLAGS_STREAM };
static const struct option_spec ctl_exec_options[] = {
    FLAG_TTY, { "interactive", 'i', OPTION_SWITCH, FLAG(interactive), NULL, "Send our standard input", NULL },
    { "sync", 's', OPTION_SWITCH, FLAG(sync), NULL, "Run the command to its end, then show its output", NULL },
    { "timeout", 0, OPTION_NUMBER, FLAG(timeout_seconds), "SECONDS", "Kill the command after this; 0: never", NULL },
    FLAGS_CONTAINER_FILTER,
    { "state", 0, OPTION_STRING, FLAG(state), "STATE", "Filter by state: created, running, exited, unknown", NULL },
    FLAG_QUIET("Do not name each container"),
    { "ignore-errors", 'e', OPTION_SWITCH, FLAG(ignore_errors), NULL, "Exit with 0 whatever the commands do", NULL },
    FLAGS_STREAM,
};
#undef FLAGS_STREAM
#undef FLAG_TTY
static const struct option_spec ctl_ps_options[] = {
    { "id", 0, OPTION_STRING, FLAG(id), "ID", "Filter by container id", NULL },
    FLAGS_CONTAINER_FILTER, FLAG_CONTAINER_STATE, FLAG_NAMESPACE, FLAG_ALL("Show containers of every state"), FLAG_VERBOSE,
    FLAG_QUIET("Only show IDs"), FLAG_OUTPUT, FLAG_NO_TRUNC,
    { "resolve-image-path", 'r', OPTION_SWITCH, FLAG(resolve_image_path), NULL, "Show the image's name instead of its id", NULL },
};
static const struct option_spec ctl_inspect_options[] = {
    FLAG_OUTPUT, FLAG_QUIET("Without the runtime's own information"), FLAGS_CONTAINER_FILTER, FLAG_CONTAINER_STATE,
    FLAG_NAMESPACE, FLAG_ALL("Of every state"),
};
static const struct option_spec ctl_images_options[] = {
    FLAG_VERBOSE, FLAG_QUIET("Only show IDs"), FLAG_IMAGE_FILTER, FLAG_OUTPUT,
    { "digests", 0, OPTION_SWITCH, FLAG(digests), NULL, "Show digests", NULL },
    FLAG_NO_TRUNC,
    { "pinned", 0, OPTION_SWITCH, FLAG(pinned), NULL, "Show whether an image is pinned", NULL },
};
static const struct option_spec ctl_inspecti_options[] = {
    FLAG_OUTPUT, FLAG_QUIET("Without the runtime's own information"),
    { "name", 0, OPTION_STRING, FLAG(name), "IMAGE", "Filter by image name", NULL }, FLAG_IMAGE_FILTER,
};
static const struct option_spec ctl_rmi_options[] = {
    FLAG_ALL("Remove all images"),
    { "prune", 'q', OPTION_SWITCH, FLAG(prune), NULL, "Remove all images that no container uses", NULL },
};
static const struct option_spec ctl_imagefsinfo_options[] = { FLAG_OUTPUT };
static const struct option_spec ctl_pull_options[] = {
    { "pod-config", 0, OPTION_STRING, FLAG(pod_config), "FILE", "Pod that the image is for", NULL },
    { "annotation", 'a', OPTION_LIST, FLAG(annotations), "KEY=VALUE", "Annotation of the image; may be given several times", NULL },
    FLAGS_PULL,
};
static const struct option_spec ctl_load_options[] = {
    { "base-name", 0, OPTION_STRING, FLAG(base_name), "NAME", "Name of images that carry only a tag", NULL },
};
static const struct option_spec ctl_logs_options[] = {
    { "follow", 'f', OPTION_SWITCH, FLAG(follow), NULL, "Show more as it comes, until the container ends", NULL },
    { "previous", 'p', OPTION_SWITCH, FLAG(previous), NULL, "Of the container's previous instance", NULL },
    { "reopen", 'r', OPTION_SWITCH, FLAG(reopen), NULL, "Have the runtime reopen the log file first", NULL },
    { "tail", 0, OPTION_NUMBER, FLAG(tail), "N", "Only the last N lines; default: all", NULL },
    { "limit-bytes", 0, OPTION_NUMBER, FLAG(limit_bytes), "N", "At most N bytes", NULL },
    { "since", 0, OPTION_STRING, FLAG(since), "TIME", "Only lines since a time, or a duration back from now (42m)", NULL },
    { "timestamps", 't', OPTION_SWITCH, FLAG(timestamps), NULL, "Show when each line came", NULL },
    { "stream", 's', OPTION_STRING, FLAG(stream), "STREAM", "stdout or stderr; default: both", NULL },
};
#define FLAG_SECONDS \
    { "seconds", 's', OPTION_NUMBER, FLAG(sample_seconds), "N", "Seconds to measure CPU use over; default: 1", NULL }
#define FLAG_WATCH { "watch", 'w', OPTION_SWITCH, FLAG(watch), NULL, "Show it again and again", NULL }
static const struct option_spec ctl_stats_options[] = {
    FLAG_ALL("Show containers that do not run, too"),
    { "id", 0, OPTION_STRING, FLAG(id), "ID", "Filter by container id", NULL },
    { "pod", 'p', OPTION_STRING, FLAG(pod), "POD-ID", "Filter by pod id", NULL },
    FLAG_LABEL, FLAG_OUTPUT, FLAG_SECONDS, FLAG_WATCH,
};
static const struct option_spec ctl_statsp_options[] = {
    { "id", 0, OPTION_STRING, FLAG(id), "ID", "Filter by pod id", NULL }, FLAG_LABEL, FLAG_OUTPUT, FLAG_SECONDS, FLAG_WATCH,
};
static const struct option_spec ctl_metricsp_options[] = { FLAG_OUTPUT, FLAG_WATCH };
static const struct option_spec ctl_output_options[] = { FLAG_OUTPUT }; /* metricdescs, events */
static const struct option_spec ctl_update_options[] = {
    { "cpu-period", 0, OPTION_NUMBER, FLAG(cpu_period), "MICROSECONDS", "Period that the quota is of", NULL },
    { "cpu-quota", 0, OPTION_NUMBER, FLAG(cpu_quota), "MICROSECONDS", "CPU time in each period; -1: no limit", NULL },
    { "cpu-share", 0, OPTION_NUMBER, FLAG(cpu_shares), "N", "Weight against other containers", NULL },
    { "memory", 0, OPTION_NUMBER, FLAG(memory), "BYTES", "Memory limit", NULL },
    { "cpuset-cpus", 0, OPTION_STRING, FLAG(cpuset_cpus), "LIST", "Processors to use: 0-3,8", NULL },
    { "cpuset-mems", 0, OPTION_STRING, FLAG(cpuset_mems), "LIST", "Memory nodes to use", NULL },
    { "oom-score-adj", 0, OPTION_NUMBER, FLAG(oom_score_adj), "N", "-1000 to 1000: who is killed first when memory is short",
      NULL },
};
static const struct option_spec ctl_checkpoint_options[] = {
    { "export", 'e', OPTION_STRING, FLAG(export_path), "FILE", "Archive to write", NULL },
};
static const struct option_spec ctl_update_runtime_config_options[] = {
    { "pod-cidr", 'p', OPTION_STRING, FLAG(pod_cidr), "CIDR", "Addresses for pods; empty: none", NULL },
};
#undef FLAG_SECONDS
#undef FLAG_WATCH

/* ---- the verbs ---- */

#define OPTIONS(table) table, COUNT_OF(table)
#define CONTAINER_FILES "container-config.[json|yaml] pod-config.[json|yaml]"
static const struct command ctl_commands[] = {
    { "version", "", "", "Display runtime version information", "", NULL, 0, 0, 0, false, ctl_version },
    { "info", "", "", "Display information of the container runtime", "", OPTIONS(ctl_info_options), 0, 0, false, ctl_info },
    { "runp", "", "pod-config.[json|yaml]", "Run a new pod", "", OPTIONS(ctl_runp_options), 1, 1, false, ctl_runp },
    { "create", "", "POD-ID " CONTAINER_FILES, "Create a new container", "", OPTIONS(ctl_create_options), 3, 3, false, ctl_create },
    { "start", "", "CONTAINER-ID [CONTAINER-ID...]", "Start one or more created containers", "", NULL, 0, 1, SIZE_MAX, false,
      ctl_start },
    { "run", "", CONTAINER_FILES, "Run a new container in a new pod", "", OPTIONS(ctl_run_options), 2, 2, false, ctl_run },
    { "ps", "", "", "List containers", "", OPTIONS(ctl_ps_options), 0, 0, false, ctl_ps },
    { "pods", "", "", "List pods", "", OPTIONS(ctl_pods_options), 0, 0, false, ctl_pods },
    { "logs", "", "CONTAINER-ID", "Fetch the logs of a container", "", OPTIONS(ctl_logs_options), 1, 1, false, ctl_logs },
    { "exec", "", "[CONTAINER-ID] COMMAND [ARG...]", "Run a command in a running container",
      "With a filter, the command runs in every container that fits, and no CONTAINER-ID is given. The exit status is the\n"
      "command's. In a terminal, ctrl-p ctrl-q leaves.", OPTIONS(ctl_exec_options), 1, SIZE_MAX, true, ctl_exec },
    { "attach", "", "CONTAINER-ID", "Attach to a running container", "In a terminal, ctrl-p ctrl-q leaves; the container runs on.",
      OPTIONS(ctl_attach_options), 1, 1, false, ctl_attach },
    { "port-forward", "", "POD-ID [LOCAL_PORT:]REMOTE_PORT...", "Forward local ports to a pod",
      "Without a local port it is the same one; \":80\" takes any that is free. Until it is interrupted.",
      OPTIONS(ctl_port_forward_options), 2, SIZE_MAX, false, ctl_port_forward },
    { "stop", "", "CONTAINER-ID [CONTAINER-ID...]", "Stop one or more running containers", "", OPTIONS(ctl_stop_options), 0,
      SIZE_MAX, false, ctl_stop },
    { "rm", "", "CONTAINER-ID [CONTAINER-ID...]", "Remove one or more containers", "", OPTIONS(ctl_rm_options), 0, SIZE_MAX, false,
      ctl_rm },
    { "stopp", "", "POD-ID [POD-ID...]", "Stop one or more running pods", "", NULL, 0, 1, SIZE_MAX, false, ctl_stopp },
    { "rmp", "", "POD-ID [POD-ID...]", "Remove one or more pods", "", OPTIONS(ctl_rmp_options), 0, SIZE_MAX, false, ctl_rmp },
    { "inspect", "", "[CONTAINER-ID...]", "Display the status of one or more containers", "", OPTIONS(ctl_inspect_options), 0,
      SIZE_MAX, false, ctl_inspect },
    { "inspectp", "", "[POD-ID...]", "Display the status of one or more pods", "", OPTIONS(ctl_inspectp_options), 0, SIZE_MAX, false,
      ctl_inspectp },
    { "pull", "", "NAME[:TAG|@DIGEST]", "Pull an image from a registry", "", OPTIONS(ctl_pull_options), 1, 1, false, ctl_pull },
    { "load", "", "PATH [PATH...]", "Load images from disk",
      "PATH is an OCI layout folder, the same as a tar archive, or an archive made by `docker save` (plain, gzip or zstd). The\n"
      "server reads it, so it must be on its machine.", OPTIONS(ctl_load_options), 1, SIZE_MAX, false, ctl_load },
    { "images", "image img", "[REPOSITORY[:TAG]]", "List images", "", OPTIONS(ctl_images_options), 0, 1, false, ctl_images },
    { "rmi", "", "IMAGE-ID [IMAGE-ID...]", "Remove one or more images",
      "CRI knows whole images only: naming one tag removes the image with all of its tags.", OPTIONS(ctl_rmi_options), 0, SIZE_MAX,
      false, ctl_rmi },
    { "inspecti", "", "[IMAGE-ID...]", "Display the status of one or more images", "", OPTIONS(ctl_inspecti_options), 0, SIZE_MAX,
      false, ctl_inspecti },
    { "imagefsinfo", "", "", "Display what the images take on the disk", "", OPTIONS(ctl_imagefsinfo_options), 0, 0, false,
      ctl_imagefsinfo },
    { "stats", "", "[ID]", "List resource usage of containers", "", OPTIONS(ctl_stats_options), 0, 1, false, ctl_stats },
    { "statsp", "", "[ID]", "List resource usage of pods", "", OPTIONS(ctl_statsp_options), 0, 1, false, ctl_statsp },
    { "metricsp", "", "", "List metrics of pods, by the names that cAdvisor gave them", "", OPTIONS(ctl_metricsp_options), 0, 0,
      false, ctl_metricsp },
    { "metricdescs", "", "", "List what metrics there are", "", OPTIONS(ctl_output_options), 0, 0, false, ctl_metricdescs },
    { "events", "event", "", "Show what happens to containers as it happens", "", OPTIONS(ctl_output_options), 0, 0, false,
      ctl_events },
    { "update", "", "CONTAINER-ID [CONTAINER-ID...]", "Update the limits of one or more containers",
      "What is not given stays as it is.", OPTIONS(ctl_update_options), 1, SIZE_MAX, false, ctl_update },
    { "checkpoint", "", "CONTAINER-ID [CONTAINER-ID...]", "Checkpoint one or more running containers", "",
      OPTIONS(ctl_checkpoint_options), 1, SIZE_MAX, false, ctl_checkpoint },
    { "runtime-config", "", "", "Retrieve the container runtime configuration", "", NULL, 0, 0, 0, false, ctl_runtime_config },
    { "update-runtime-config", "", "", "Update the runtime configuration", "", OPTIONS(ctl_update_runtime_config_options), 0, 0,
      false, ctl_update_runtime_config },
};
static const struct command ctl_global = { "ctl", "", "VERB [ARG...]", "Talk to a container runtime through its CRI socket",
                                           "The verbs, their flags and their files are crictl's.", OPTIONS(ctl_global_options), 0,
                                           SIZE_MAX, true, NULL };
#undef FLAG
#undef FLAG_OUTPUT
#undef FLAG_QUIET
#undef FLAG_VERBOSE
#undef FLAG_NAME
#undef FLAG_NAMESPACE
#undef FLAG_STATE
#undef FLAG_LABEL
#undef FLAG_LATEST
#undef FLAG_LAST
#undef FLAG_NO_TRUNC
#undef FLAG_ALL
#undef FLAG_RUNTIME
#undef FLAG_CANCEL
#undef FLAG_IMAGE_FILTER
#undef FLAGS_PULL
#undef FLAGS_WITH_PULL
#undef FLAGS_CONTAINER_FILTER
#undef FLAG_CONTAINER_STATE
#undef OPTIONS
#undef CONTAINER_FILES

/* ---- where to connect ---- */

/* A crictl.yaml: only what matters here. False when the file is none. */
static bool ctl_read_crictl_yaml(struct ctl *ctl, const struct json *j, struct status *err)
{
    struct ctl_flags *f = &ctl->flags;
    const char *runtime = "", *image = "";
    int64_t seconds = 0;

    if (!json_read_string(j, "runtime-endpoint", &runtime, err) || !json_read_string(j, "image-endpoint", &image, err) ||
        !json_read_i64(j, "timeout", 0, INT32_MAX, &seconds, err) ||
        !json_read_bool(j, "pull-image-on-create", &ctl->pull_on_create, err) ||
        !json_read_bool(j, "disable-pull-on-run", &ctl->no_pull_on_run, err))
        return status_prefix(err, "%s", f->config);
    if (*f->runtime_endpoint == '\0')
        f->runtime_endpoint = runtime;
    if (*f->image_endpoint == '\0')
        f->image_endpoint = image;
    if (f->timeout_ns == 0)
        f->timeout_ns = seconds * 1000000000;
    return true;
}

static bool ctl_socket_path(struct ctl *ctl, const char *endpoint, const char **path, struct status *err)
{
    struct address address;

    if (!address_parse(endpoint, &address, err))
        return false;
    if (!address.is_unix)
        return status_set(err, STATUS_INVALID_ARGUMENT, "\"%.128s\": CRI runs over a unix socket: wanted unix://PATH", endpoint);
    *path = arena_strdup(&ctl->arena, address.path);
    return true;
}

/* From the flags and their variables, else from a configuration, else the usual place. */
static bool ctl_find_endpoints(struct ctl *ctl, struct status *err)
{
    struct ctl_flags *f = &ctl->flags;
    cleanup_config struct config config = { 0 };

    if (*f->config != '\0') {
        const struct json *j = ctl_read_file(ctl, f->config, err);
        if (j == NULL)
            return false;
        if (json_member(j, "runtime-endpoint") != NULL && !ctl_read_crictl_yaml(ctl, j, err))
            return false;
    }
    if (*f->runtime_endpoint == '\0') {
        if (!config_load(f->config, NULL, 0, &config, err))
            return false;
        f->runtime_endpoint = arena_strdup(&ctl->arena, config.node.socket);
    }
    if (*f->image_endpoint == '\0')
        f->image_endpoint = f->runtime_endpoint;
    return ctl_socket_path(ctl, f->runtime_endpoint, &ctl->runtime.path, err) &&
           ctl_socket_path(ctl, f->image_endpoint, &ctl->image.path, err);
}

/* ---- running ---- */

static void ctl_set_defaults(struct ctl_flags *f)
{
    f->runtime_endpoint = f->image_endpoint = f->config = f->id = f->name = f->name_space = f->pod = f->image = "";
    f->state = f->output = f->creds = f->auth = f->username = f->pod_config = f->runtime = f->since = f->stream = "";
    f->transport = f->tls_sni = f->tls_ca = f->tls_cert = f->tls_key = "";
    f->base_name = f->cpuset_cpus = f->cpuset_mems = f->export_path = "";
    f->sample_seconds = 1;
    f->tail = f->limit_bytes = -1;
}

static void ctl_on_interrupt(void *arg, const struct signalfd_siginfo *info)
{
    struct ctl *ctl = arg;

    if (ctl->interrupted) { /* asked twice */
        ctl_terminal_restore();
        _exit(1);
    }
    ctl->interrupted = true;
    ctl->interrupted_by = (int)info->ssi_signo;
}

static int ctl_help(const struct command *command)
{
    cleanup_buf struct buf text = BUF_INIT;

    if (command == &ctl_global) {
        options_usage(&text, "interlink-cri", &ctl_global);
        buf_append_str(&text, "\nVerbs (`interlink-cri ctl VERB --help` tells their options):\n");
        commands_list(&text, ctl_commands, COUNT_OF(ctl_commands));
    } else {
        options_usage(&text, "interlink-cri ctl", command);
    }
    fputs(buf_cstr(&text), stdout);
    return 0;
}

static bool ctl_start_loop(struct ctl *ctl, struct status *err)
{
    const char *no_colour = getenv("NO_COLOR");

    ctl->colour = isatty(STDOUT_FILENO) == 1 && (no_colour == NULL || *no_colour == '\0');
    ctl->loop = loop_new(err);
    return ctl->loop != NULL && loop_signal(ctl->loop, SIGINT, ctl_on_interrupt, ctl, err) &&
           loop_signal(ctl->loop, SIGTERM, ctl_on_interrupt, ctl, err);
}

static int ctl_run_verb(struct ctl *ctl, const char *const *words, size_t count)
{
    struct status err = STATUS_INIT;
    struct option_result result;
    const struct command *command = command_find(ctl_commands, COUNT_OF(ctl_commands), words[0], &err);

    if (command == NULL || !options_parse(&ctl->arena, command, (int)count, (char *const *)(uintptr_t)words, &ctl->flags,
                                          &result, &err)) {
        ctl_fail(ctl, &err);
        fprintf(stderr, "`interlink-cri ctl %s%s--help` tells more.\n", command != NULL ? command->name : "",
                command != NULL ? " " : "");
        return 1;
    }
    if (result.help)
        return ctl_help(command);
    ctl->command = command;
    if (!ctl_find_endpoints(ctl, &err) || !ctl_start_loop(ctl, &err))
        return ctl_fail(ctl, &err);
    int status = command->run(ctl, result.arguments, result.count);
    return ctl_flush(ctl) ? status : 1;
}

int ctl_main(int argc, char **argv)
{
    struct ctl ctl = { 0 };
    struct status err = STATUS_INIT;
    struct option_result result;
    int status;

    ctl_set_defaults(&ctl.flags);
    if (!options_parse(&ctl.arena, &ctl_global, argc, argv, &ctl.flags, &result, &err))
        status = ctl_fail(&ctl, &err);
    else if (result.help || result.count == 0 || strcmp(result.arguments[0], "help") == 0)
        status = ctl_help(&ctl_global);
    else if (strcmp(result.arguments[0], "doctor") == 0) /* the role, which needs no runtime */
        status = doctor_main((int)result.count, (char **)(uintptr_t)result.arguments);
    else
        status = ctl_run_verb(&ctl, result.arguments, result.count);
    rpc_conn_free(ctl.runtime.conn);
    rpc_conn_free(ctl.image.conn);
    if (ctl.loop != NULL)
        loop_free(ctl.loop);
    buf_free(&ctl.out);
    arena_free(&ctl.arena);
    return status;
}
