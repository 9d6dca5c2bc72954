/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent_context.h"
#include "agent/agent_join.h"
#include "agent/agent_settings.h"
#include "agent/agent_settle.h"
#include "agent/engine_apptainer.h"
#include "agent/podrun.h"
#include "agent/probe.h"
#include "image/unpack.h"
#include "io/child.h"
#include "io/file.h"
#include "io/socket.h"
#include "rpc/dial.h"
#include "rpc/rpc.h"
#include "text/protojson.h"
#include "text/quantity.h"
#include "version.h"

/* The agent and its connection. */
struct agent_program {
    struct agent agent;
    struct isolation isolation;
    struct agent_settings set;
    struct agent_join join;
    struct rpc_service service;
    const struct rpc_service *service_list[1];
    struct rpc_services services;
    struct dial *dial;     /* while there is no connection; there is never a second one */
    struct dial *joined;   /* the same over what the node has opened; it may come while we hold a connection that is dead */
    char way[320];         /* what the connection is, or was, for messages */
    struct rpc_conn *conn;
    struct timer redial, farewell;
    struct podrun *podrun; /* owned; with a manifest */
    int64_t pause_ms;      /* before the next dial */
    int64_t pause_max_ms;
    bool leaving;
    int exit_code;
    int64_t terminated_ms; /* the last TERM that counted; monotonic */
    struct worker sweeper; /* of scratch folders */
    struct status dial_fault; /* last told */
    int64_t dial_fault_ms; /* monotonic */
};

static void agent_take_settings(struct agent_program *p)
{
    memcpy(p->agent.sandbox_id, p->set.sandbox_id, sizeof p->agent.sandbox_id);
    p->agent.job_dir = p->set.job_dir;
    p->agent.images_dir = p->set.images_dir;
    p->agent.relay = &p->set.relay;
    p->pause_ms = AGENT_REDIAL_MIN_MS;
    p->pause_max_ms = p->set.relay_is_unix ? AGENT_REDIAL_UNIX_MAX_MS : AGENT_REDIAL_MAX_MS;
}

/* From the environment, so that the process in front of the agent can do the same. */
static void agent_scratch_options(struct scratch_options *out, uint32_t uid, const char *kind)
{
    const char *job_dir = getenv("INTERLINK_JOB_DIR"), *sandbox = getenv("INTERLINK_SANDBOX");

    *out = (struct scratch_options){ .wanted = getenv("INTERLINK_SCRATCH"), .job_dir = job_dir != NULL ? job_dir : "",
                                     .sandbox_id = sandbox != NULL ? sandbox : "", .uid = uid, .kind = kind };
}

static void agent_clean_after(void)
{
    struct scratch_options options;

    agent_scratch_options(&options, geteuid(), "");
    scratch_clean(&options);
}

static bool agent_enter_isolation(struct agent_program *p, char **argv, struct status *err)
{
    struct isolate_options options = {
        .argv = argv, .host_ipc = !p->set.own_ipc, .host_uts = !p->set.own_uts, .host_pid = !p->set.own_pid, .netns = p->set.netns,
        .none = strcmp(p->set.engine, "apptainer") == 0 || agent_settings_inside(&p->set), .after = agent_clean_after,
    };

    return isolate_enter(&options, &p->isolation, err);
}

/* ---- set-up ---- */

static void agent_on_orphan(void *arg, pid_t pid, int wait_status)
{
    struct agent_program *p = arg;

    agent_orphans_add(&p->agent.orphans, pid, wait_status);
}

/* What the pod's deletion grants it; a signal of the batch system's own comes without. */
static int64_t agent_grace_ms(const struct agent *agent)
{
    cleanup_free char *path = xasprintf("%s/" AGENT_GRACE_FILE, agent->job_dir);
    cleanup_buf struct buf text = BUF_INIT;
    struct status ignored = STATUS_INIT;
    int64_t seconds;

    if (!file_read(path, 32, &text, &ignored) || !quantity_parse(buf_cstr(&text), QUANTITY_ONE, &seconds, &ignored) ||
        seconds < 0 || seconds > INT32_MAX)
        return AGENT_TERM_GRACE_MS;
    return seconds * 1000;
}

static void agent_on_term(void *arg, const struct signalfd_siginfo *info)
{
    struct agent_program *p = arg;
    int64_t now = clock_mono_ms();
    bool again = p->exit_code == AGENT_EXIT_TERMINATED && now - p->terminated_ms >= AGENT_TERM_AGAIN_MS;

    /* A container that shares the pod's PID namespace sees us as its PID 1 and may, as root, signal us: its word does not
     * count. Senders outside of the namespace have no number in it. */
    if (p->isolation.pid && info->ssi_pid != 0)
        return;
    /* A batch system signals all processes of a job, and the one in front of us passes it on: the same word twice. */
    if (p->exit_code == AGENT_EXIT_TERMINATED && !again)
        return;
    p->terminated_ms = now;
    int64_t grace_ms = again ? 0 : agent_grace_ms(&p->agent);
    log_info("signal %u: the pod is being stopped, %" PRId64 " s are left", info->ssi_signo, grace_ms / 1000);
    p->exit_code = AGENT_EXIT_TERMINATED;
    if (p->podrun != NULL)
        podrun_stop(p->podrun, again, "the pod was stopped");
    else
        agent_ending_start(&p->agent, grace_ms, NULL);
}

static bool agent_start_loop(struct agent_program *p, struct status *err)
{
    struct agent *agent = &p->agent;

    signal(SIGPIPE, SIG_IGN);
    agent->loop = loop_new(err);
    agent_events_init(&agent->events);
    agent_ports_init(&agent->ports);
    list_init(&agent->intakes);
    agent_stats_init(&agent->stats);
    return agent->loop != NULL && child_reaper_start(agent->loop, agent_on_orphan, p, err) &&
           loop_signal(agent->loop, SIGTERM, agent_on_term, p, err) && loop_signal(agent->loop, SIGINT, agent_on_term, p, err);
}

static bool agent_sweep(void *arg, struct buf *output, struct status *err)
{
    (void)output;
    return scratch_sweep(arg, err);
}

static void agent_on_swept(void *arg, const struct status *err, struct buf *output)
{
    (void)arg;
    (void)output;
    if (err != NULL)
        log_warn("what other jobs left is not wholly removed: %s", err->message);
}

static void agent_open_scratch(struct agent_program *p)
{
    char owners[UNPACK_OWNERS_SIZE];
    struct scratch_options options;
    struct status err = STATUS_INIT;

    unpack_owners_here(owners);
    cleanup_free char *kind = xasprintf("%s-%s", owners, p->isolation.user ? "userns" : "plain");
    agent_scratch_options(&options, p->isolation.uid, kind);
    scratch_open(&options, &p->agent.scratch);
    if (p->agent.scratch.why[0] != '\0')
        log_info("pod %.13s: %s", p->agent.sandbox_id, p->agent.scratch.why);
    if (p->agent.scratch.base != NULL && !worker_start(p->agent.loop, &p->sweeper, agent_sweep, &p->agent.scratch, agent_on_swept, NULL, &err))
        log_warn("what other jobs left cannot be removed: %s", err.message);
}

/* Without an engine the agent still answers: so the node learns why no container can be made. */
static void agent_pick_engine(struct agent_program *p)
{
    struct agent *agent = &p->agent;
    char name[256] = "";
    struct engine_options options = {
        .wanted = p->set.engine,
        .apptainer = p->set.apptainer,
        .job_dir = agent->job_dir,
        .work_dir = agent_work_dir(agent),
        .sandbox_id = agent->sandbox_id,
        .cgroup_parent = p->set.cgroup_parent,
        .cdi_dirs = p->set.cdi_dirs,
        .isolation = p->isolation,
    };

    gethostname(name, sizeof name - 1);
    agent->machine_name = xstrdup(name);
    agent->own_mounts = p->isolation.mount;
    agent->engine = engine_new(&options, agent->engine_reason, &agent->engine_error);
    if (agent->engine == NULL)
        log_error("no container can be started here: %s", agent->engine_error.message);
    else
        log_info("pod %.13s: engine %s (%s), cgroups %s", agent->sandbox_id, engine_name(agent->engine), agent->engine_reason,
                 engine_cgroups(agent->engine));
}

/* ---- the connection ---- */

static void agent_dial(void *arg);

/* Not all agents of a node at once: half of the pause is left to chance. */
static void agent_redial(struct agent_program *p)
{
    uint32_t chance;

    if (p->leaving)
        return;
    random_bytes(&chance, sizeof chance);
    timer_start(p->agent.loop, &p->redial, p->pause_ms / 2 + (int64_t)(chance % (uint32_t)(p->pause_ms / 2 + 1)), agent_dial, p);
    p->pause_ms = p->pause_ms * 2 < p->pause_max_ms ? p->pause_ms * 2 : p->pause_max_ms;
}

static void agent_on_close(void *arg, const struct status *err)
{
    struct agent_program *p = arg;

    rpc_conn_free(p->conn);
    p->conn = NULL;
    if (p->leaving || p->set.manifest != NULL) {
        loop_stop(p->agent.loop);
        return;
    }
    log_info("the connection to %s is closed: %s", p->way, err->message);
    if (p->agent.greeted)
        p->pause_ms = AGENT_REDIAL_MIN_MS;
    agent_redial(p);
}

/* Whoever reads the job's log should know why nothing comes of the pod, and not have to read it again every second. */
static void agent_tell_fault(struct agent_program *p, const struct status *err)
{
    int64_t now = clock_mono_ms();

    if (p->dial_fault_ms != 0 && now - p->dial_fault_ms < AGENT_FAULT_AGAIN_MS &&
        strcmp(p->dial_fault.message, err->message) == 0)
        return;
    p->dial_fault = *err;
    p->dial_fault_ms = now;
    log_warn(AGENT_FAULT_WORDS "%s", err->message);
}

/* A connection that came in is newer than one that we hold: the node knows of none. */
static void agent_take(struct agent_program *p, struct stream *stream, struct str early)
{
    struct rpc_conn_options options = {
        .services = &p->services,
        .keepalive_ms = p->set.relay_is_unix ? 0 : p->set.keepalive_ms,
        .keepalive_timeout_ms = p->set.keepalive_ms / AGENT_KEEPALIVE_PART,
        .on_close = agent_on_close,
        .arg = p,
    };

    log_info("connected to %s", p->way);
    p->dial_fault_ms = 0;
    timer_stop(&p->redial);
    rpc_conn_free(p->conn);
    p->agent.greeted = false;
    p->conn = rpc_conn_new(p->agent.loop, stream, &options, early);
    agent_settle(&p->agent.settle, p->agent.loop);
}

static bool agent_dismissed(struct agent_program *p, const struct status *err, bool refused)
{
    if (!refused)
        return false;
    log_info("the node does not know this pod any more: %s", err->message);
    agent_ending_start(&p->agent, 0, NULL);
    return true;
}

static void agent_on_dialled(void *arg, struct stream *stream, struct str early, const struct status *err, bool refused)
{
    struct agent_program *p = arg;

    p->dial = NULL;
    if (err == NULL) {
        dial_cancel(p->joined);
        p->joined = NULL;
        snprintf(p->way, sizeof p->way, "the node at %s", p->set.relay.current);
        agent_take(p, stream, early);
    } else if (!agent_dismissed(p, err, refused)) {
        agent_tell_fault(p, err);
        agent_redial(p);
    }
}

static void agent_on_joined(void *arg, struct stream *stream, struct str early, const struct status *err, bool refused)
{
    struct agent_program *p = arg;

    p->joined = NULL;
    if (err == NULL) {
        dial_cancel(p->dial);
        p->dial = NULL;
        snprintf(p->way, sizeof p->way, "the node, by its command");
        agent_take(p, stream, early);
    } else if (!agent_dismissed(p, err, refused)) {
        agent_tell_fault(p, err);
    }
}

/* A file is read anew for each dial, since it may have been replaced. */
static bool agent_read_token(const struct agent_program *p, struct buf *token, struct status *err)
{
    cleanup_free char *path = *p->set.token_file != '\0' ? xstrdup(p->set.token_file)
                                                     : xasprintf("%s/volumes/interlink/token", p->agent.job_dir);

    if (*p->set.token != '\0')
        buf_append_str(token, p->set.token);
    else if (!file_read(path, AGENT_TOKEN_MAX, token, err))
        return false;
    while (token->n > 0 && (token->p[token->n - 1] == '\n' || token->p[token->n - 1] == ' '))
        token->n--;
    return token->n > 0 || status_set(err, STATUS_UNAUTHENTICATED, "%s is empty", path);
}

static void agent_dial(void *arg)
{
    struct agent_program *p = arg;
    struct status err = STATUS_INIT;
    cleanup_buf struct buf token = BUF_INIT;

    if (!agent_read_token(p, &token, &err)) {
        log_warn("no token to show to the relay: %s", err.message);
        agent_redial(p);
        return;
    }
    struct dial_options options = {
        .address = agent_relay_next(&p->set.relay),
        .pin = p->set.relay_pin,
        .sandbox_id = p->agent.sandbox_id,
        .token = buf_cstr(&token),
        .on_done = agent_on_dialled,
        .arg = p,
    };
    if (*options.address != '\0') /* else the node comes to us */
        p->dial = dial_start(p->agent.loop, &options);
}

/* The node has opened a way: the newest counts. */
static void agent_on_join(void *arg, struct stream *stream)
{
    struct agent_program *p = arg;
    struct status err = STATUS_INIT;
    cleanup_buf struct buf token = BUF_INIT;

    if (p->leaving || !agent_read_token(p, &token, &err)) {
        if (!p->leaving)
            log_warn("no token to show to the node: %s", err.message);
        stream_free(stream);
        return;
    }
    struct dial_options options = {
        .address = "by the node's command",
        .pin = p->set.relay_pin,
        .sandbox_id = p->agent.sandbox_id,
        .token = buf_cstr(&token),
        .on_done = agent_on_joined,
        .arg = p,
    };
    dial_cancel(p->joined);
    p->joined = dial_start_on(p->agent.loop, stream, &options);
}

/* ---- without a node ---- */

static void agent_on_pod_done(void *arg, int exit_code)
{
    struct agent_program *p = arg;

    if (p->exit_code == AGENT_EXIT_OK)
        p->exit_code = exit_code;
}

/* A connection between the service and the one who plays the node's part. */
static bool agent_run_manifest(struct agent_program *p, struct status *err)
{
    struct agent *agent = &p->agent;
    struct rpc_conn_options options = { .services = &p->services, .on_close = agent_on_close, .arg = p };
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return status_errno(err, "no socket pair");
    struct stream *ours = stream_of_fd(agent->loop, pair[0], err), *theirs = stream_of_fd(agent->loop, pair[1], err);
    if (ours == NULL || theirs == NULL) {
        stream_free(ours);
        stream_free(theirs);
        return false;
    }
    p->conn = rpc_conn_new(agent->loop, ours, &options, STR(""));
    p->podrun = podrun_start(&(struct podrun_options){ .loop = agent->loop, .job_dir = agent->job_dir, .images_dir = agent->images_dir,
                                                       .manifest = p->set.manifest, .stream = theirs, .on_done = agent_on_pod_done, .arg = p },
                             err);
    return p->podrun != NULL || status_prefix(err, "%s", p->set.manifest);
}

static bool agent_serve(struct agent_program *p, struct status *err)
{
    struct status join = STATUS_INIT;

    agent_service(&p->agent, &p->service);
    p->service_list[0] = &p->service;
    p->services = (struct rpc_services){ .services = p->service_list, .count = 1 };
    if (p->set.manifest != NULL)
        return agent_run_manifest(p, err);
    if (p->set.join_wanted && !agent_join_open(&p->join, p->agent.loop, p->agent.job_dir, p->agent.sandbox_id, agent_on_join, p, &join))
        log_error("the node cannot come to this agent: %s", join.message);
    agent_dial(p);
    return true;
}

/* ---- the end ---- */

static void agent_on_farewell(void *arg)
{
    struct agent_program *p = arg;

    loop_stop(p->agent.loop);
}

static void agent_remove_own_dir(const struct agent_program *p)
{
    struct status err;

    if (*p->set.own_dir != '\0' && !tree_remove(p->set.own_dir, &err))
        log_warn("%s", err.message);
}

/* Everything is gone and the calls are answered; what is queued goes out before the connection is closed. */
static void agent_on_ended(void *arg)
{
    struct agent_program *p = arg;

    p->leaving = true;
    agent_remove_own_dir(p); /* with the connection the node may have the job killed */
    timer_stop(&p->redial);
    agent_join_close(&p->join);
    dial_cancel(p->dial);
    dial_cancel(p->joined);
    p->dial = p->joined = NULL;
    timer_start(p->agent.loop, &p->farewell, p->conn != NULL ? AGENT_FAREWELL_MS : 0, agent_on_farewell, p);
    if (p->conn != NULL)
        rpc_conn_shutdown(p->conn);
}

static void agent_free(struct agent_program *p)
{
    struct agent *agent = &p->agent;

    timer_stop(&p->redial);
    timer_stop(&p->farewell);
    timer_stop(&agent->settle);
    agent_join_close(&p->join);
    dial_cancel(p->dial);
    dial_cancel(p->joined);
    podrun_free(p->podrun);
    rpc_conn_free(p->conn);
    agent_ending_cancel(agent);
    agent_stats_free(agent);
    engine_free(agent->engine);
    agent_events_free(&agent->events);
    agent_ports_free(agent);
    agent_files_free(agent);
    strmap_free(&agent->containers);
    if (agent->sandbox != NULL)
        protobuf_c_message_free_unpacked(&agent->sandbox->base, NULL);
    worker_cancel(&p->sweeper);
    loop_free(agent->loop);
    scratch_close(&agent->scratch);
    agent_remove_own_dir(p);
    agent_settings_free(&p->set);
    free(agent->machine_name);
}

/* ---- only asked what it could do ---- */

static int agent_show_features(char **argv)
{
    cleanup_free char *wanted = agent_settings_get("INTERLINK_ENGINE"), *images = agent_settings_get("INTERLINK_IMAGES");
    cleanup_free char *apptainer = agent_settings_get("INTERLINK_APPTAINER");
    struct agent_program p = {
        .set = { .netns = (char *)(uintptr_t)"", .own_ipc = true, .own_uts = true, .own_pid = true, .engine = wanted },
    };
    Interlink__Agent__V1__HelloResponse answer = INTERLINK__AGENT__V1__HELLO_RESPONSE__INIT;
    Interlink__Agent__V1__Features features;
    struct status err = STATUS_INIT;
    cleanup_buf struct buf json = BUF_INIT;
    struct json_writer w;
    char reason[ENGINE_REASON_SIZE] = "";

    if (!agent_enter_isolation(&p, argv, &err)) {
        log_error("%s", err.message);
        return AGENT_EXIT_MACHINE;
    }
    struct engine_options options = { .wanted = wanted, .apptainer = apptainer, .isolation = p.isolation, .images = images };
    const char *engine = engine_probe(&options, &features, reason, &err);
    answer.version = (char *)(uintptr_t)INTERLINK_CRI_VERSION;
    answer.engine = (char *)(uintptr_t)(engine != NULL ? engine : "none");
    answer.engine_reason = engine != NULL ? reason : err.message;
    answer.rootless = p.isolation.user || p.isolation.uid != 0;
    answer.features = &features;
    json_writer_init(&w, &json, 0);
    protojson_write(&w, &answer.base, 0);
    buf_append_byte(&json, '\n');
    return write_all(STDOUT_FILENO, json.p, json.n, &err) ? AGENT_EXIT_OK : AGENT_EXIT_MACHINE;
}

static const char agent_usage[] =
    "Usage: interlink-cri agent [--manifest FILE | features]\n\n"
    "Runs the containers of one pod, inside its job. `plugin` starts it, and the batch script of other plugins; not a user.\n"
    "Its settings are variables of its environment, INTERLINK_... (see interlink-cri(1)).\n\n"
    "  --manifest FILE   run the pod of this file, without a node\n"
    "  --probe           say what this machine allows, as JSON (for doctor --site)\n"
    "  features          say which engine an agent would take here and what containers could have, as JSON\n";

int agent_main(int argc, char **argv)
{
    struct agent_program p = { .exit_code = AGENT_EXIT_OK };
    struct status err = STATUS_INIT;

    if (argc == 3 && strcmp(argv[2], "features") == 0)
        return agent_show_features(argv);
    if (argc == 3 && strcmp(argv[2], "idle") == 0)
        return AGENT_EXIT_OK;
    if (argc > 3 && strcmp(argv[2], "enter") == 0)
        return engine_apptainer_enter(argc, argv);
    if (argc == 3 && strcmp(argv[2], "--help") == 0)
        return printf("%s", agent_usage) < 0 ? AGENT_EXIT_MACHINE : AGENT_EXIT_OK;
    umask(0077);
    if (argc == 3 && strcmp(argv[2], "--probe") == 0)
        return probe_main();
    if (argc == 4 && strcmp(argv[2], "--manifest") == 0)
        p.set.manifest = argv[3];
    if (argc > 2 && p.set.manifest == NULL) {
        log_error("agent: %s is no argument of it, or not one by itself: see interlink-cri agent --help", argv[2]);
        return AGENT_EXIT_ENVIRONMENT;
    }
    p.agent.ending.on_done = agent_on_ended;
    p.agent.ending.arg = &p;
    if (!agent_settings_read(&p.set, &err)) {
        log_error("%s", err.message);
        agent_settings_free(&p.set);
        return AGENT_EXIT_ENVIRONMENT;
    }
    agent_take_settings(&p);
    if (!agent_enter_isolation(&p, argv, &err) || !agent_start_loop(&p, &err)) {
        log_error("%s", err.message);
        agent_settings_free(&p.set);
        return AGENT_EXIT_MACHINE;
    }
    agent_open_scratch(&p);
    agent_settings_hide();
    agent_pick_engine(&p);
    if (agent_serve(&p, &err)) {
        loop_run(p.agent.loop);
    } else {
        log_error("%s", err.message);
        p.exit_code = AGENT_EXIT_ENVIRONMENT;
    }
    agent_free(&p);
    return p.exit_code;
}
