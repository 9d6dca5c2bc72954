/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/site.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "agent/probe.h"
#include "interlink/slurm_flags.h"
#include "io/child.h"
#include "io/file.h"
#include "node/call_in.h"
#include "text/json.h"

/* The log is read this often: the report is its one line that counts. */
#define SITE_LOG_MS 1000
#define SITE_LOG_MAX (4u << 20)
/* For the site to say that the job is gone: a plugin may hold a delete that long. */
#define SITE_CANCEL_MS 60000
/* The job's own limit, should nobody delete it. The probe takes some seconds. */
#define SITE_WALLTIME_SECONDS 300
/* For the command that leads into a job (`join` waits some seconds for an agent), and how long the job stays for that. */
#define SITE_DIAL_MS 30000
#define SITE_LINGER_SECONDS 60

struct site_job {
    struct site *site;
    struct interlink_target *target;
    struct interlink_job *job;
    struct interlink_logs *logs;
    struct timer timer;
    struct buf log;
    char uid[UUID_LENGTH + 1], name[32];
    const char *said;    /* last word on its state; on the arena */
    bool submitted, over, log_after_end, rejected, deleted;
    int64_t submitted_ns, absent_ns; /* the report was not in the log when it was asked for then */
    int64_t seen_ns;                 /* it was read */
    struct status err;
};

static void site_job_progress(struct site_job *j, const char *text)
{
    if (strcmp(j->said, text) == 0)
        return;
    j->said = arena_strdup(&j->site->arena, text);
    fprintf(stderr, "doctor: %s\n", text);
}

/* ---- the log ---- */

static bool site_job_on_log(void *arg, const void *p, size_t n)
{
    struct site_job *j = arg;

    if (j->log.n + n <= SITE_LOG_MAX)
        buf_append(&j->log, p, n);
    return true;
}

/* The last whole line that is a report. */
static void site_job_read_log(struct site_job *j)
{
    struct str text = { buf_cstr(&j->log), j->log.n };
    struct status err = STATUS_INIT;

    for (const char *p = text.p; p != NULL && (p = strstr(p, PROBE_MARK)) != NULL;) {
        p += strlen(PROBE_MARK);
        const char *end = strchr(p, '\n');
        const struct json *report = end != NULL ? json_parse(&j->site->arena, (struct str){ p, (size_t)(end - p) }, &err) : NULL;
        if (json_is(json_member(report, "findings"), JSON_ARRAY) && json_is(json_member(report, "timeNs"), JSON_NUMBER))
            j->site->report = report;
    }
    if (j->site->report != NULL)
        j->seen_ns = clock_real_ns();
}

static void site_job_ask_log(void *arg);

static void site_job_on_log_end(void *arg, const struct status *err)
{
    struct site_job *j = arg;
    (void)err; /* a stock plugin has no log before the job runs */

    j->logs = NULL;
    site_job_read_log(j);
    j->log_after_end = j->over;
    timer_start(j->site->loop, &j->timer, SITE_LOG_MS, site_job_ask_log, j);
}

static void site_job_ask_log(void *arg)
{
    static const struct interlink_logs_events events = { .on_data = site_job_on_log, .on_end = site_job_on_log_end };
    struct site_job *j = arg;
    const struct interlink_log_request request = { .namespace_ = "default", .pod_uid = j->uid, .pod_name = j->name, .container = "agent" };

    buf_clear(&j->log);
    j->absent_ns = clock_real_ns();
    j->logs = interlink_logs_start(j->target, &request, &events, j);
}

/* ---- the job ---- */

static void site_job_on_submitted(void *arg, const char *jid)
{
    struct site_job *j = arg;
    cleanup_free char *text = xasprintf("job %s is submitted", *jid != '\0' ? jid : j->name);

    j->submitted = true;
    j->submitted_ns = clock_real_ns();
    site_job_progress(j, text);
    timer_start(j->site->loop, &j->timer, 0, site_job_ask_log, j);
}

static void site_job_on_rejected(void *arg, const struct status *err)
{
    struct site_job *j = arg;

    j->rejected = true;
    j->err = *err;
}

static void site_job_on_state(void *arg, const struct interlink_job_state *state)
{
    static const char *const words[] = { "unknown", "waits", "runs", "has ended", "is gone" };
    struct site_job *j = arg;
    size_t phase = state->phase == INTERLINK_WAITING      ? 1
                   : state->phase == INTERLINK_RUNNING    ? 2
                   : state->phase == INTERLINK_TERMINATED ? 3
                   : state->phase == INTERLINK_GONE       ? 4
                                                          : 0;
    cleanup_free char *text = xasprintf("job %s %s%s%s%s%s", *state->jid != '\0' ? state->jid : j->name, words[phase],
                                        *state->reason != '\0' ? ": " : "", state->reason, *state->message != '\0' ? ": " : "",
                                        state->message);

    j->over = phase >= 3;
    site_job_progress(j, text);
    if (phase == 3 && state->exit_code != 0)
        status_set(&j->err, STATUS_UNAVAILABLE, "it ended with %d (%s) %s", state->exit_code, state->reason, state->message);
}

static const struct interlink_job_events site_job_events = {
    .on_submitted = site_job_on_submitted, .on_rejected = site_job_on_rejected, .on_state = site_job_on_state,
};

static const char *site_job_request(struct site *site)
{
    cleanup_buf struct buf text = BUF_INIT;
    struct json_writer w;

    json_writer_init(&w, &text, 0);
    json_write_object(&w);
    json_write_member_string(&w, "nonce", site->nonce);
    json_write_member_array(&w, "shared");
    for (size_t i = 0; i < site->folder_count; i++)
        if (site->folders[i].asked)
            json_write_string(&w, site->folders[i].path);
    json_write_end(&w);
    if (site->handler != NULL && site->handler->dial != NULL) {
        json_write_key(&w, "linger");
        json_write_i64(&w, SITE_LINGER_SECONDS);
    }
    json_write_end(&w);
    return arena_strdup(&site->arena, buf_cstr(&text));
}

/* A pod as serve makes one, small and short. Plugins look at limits. */
static void site_job_make(struct site_job *j, const char *relay, const char *pin)
{
    static const char *command[] = { "interlink-cri", "agent", "--probe" };
    static struct interlink_pair amounts[] = { { "cpu", "1" }, { "memory", "256Mi" } };
    static struct interlink_pair annotations[] = { { INTERLINK_JOB_ANNOTATION, INTERLINK_JOB_AGENT }, { SLURM_FLAGS_ANNOTATION, "--time=5" } };
    const char *engine = j->site->handler != NULL && *j->site->handler->engine != '\0' ? j->site->handler->engine : "auto";
    struct interlink_pair env[] = {
        { "INTERLINK_RELAY", relay }, { "INTERLINK_RELAY_PIN", pin }, { "INTERLINK_ENGINE", engine }, { "INTERLINK_PROBE", site_job_request(j->site) },
    };
    struct interlink_container agent = { .name = "agent", .image = "interlink-cri", .working_dir = "", .env_from = "" };
    struct interlink_create create = INTERLINK_CREATE_INIT;

    agent.command = (struct interlink_strings){ command, COUNT_OF(command) };
    agent.env = (struct interlink_pairs){ env, COUNT_OF(env) };
    agent.limits = agent.requests = (struct interlink_pairs){ amounts, COUNT_OF(amounts) };
    create.pod.name = j->name;
    create.pod.namespace_ = "default";
    create.pod.uid = j->uid;
    create.pod.restart_policy = "Never";
    create.pod.annotations = (struct interlink_pairs){ annotations, COUNT_OF(annotations) };
    create.pod.containers = &agent;
    create.pod.container_count = 1;
    create.pod.active_deadline_seconds = SITE_WALLTIME_SECONDS;
    j->job = interlink_job_new(j->target, &create, &site_job_events, j);
}

/* ---- its end ---- */

static void site_job_on_deleted(void *arg)
{
    struct site_job *j = arg;

    j->deleted = true;
}

static void site_job_on_retry(void *arg, const struct status *err)
{
    struct site_job *j = arg;

    j->err = *err;
}

static void site_job_delete(struct site_job *j)
{
    int64_t until = clock_mono_ms() + SITE_CANCEL_MS;
    const char *jid = arena_strdup(&j->site->arena, interlink_job_state(j->job)->jid);

    timer_stop(&j->timer);
    interlink_logs_cancel(j->logs);
    j->logs = NULL;
    j->site->interrupted = false;
    interlink_job_cancel(j->job, 0, site_job_on_deleted, site_job_on_retry, j);
    /* A second Ctrl-C does not wait. */
    while (!j->deleted && !j->site->interrupted && clock_mono_ms() < until)
        loop_turn(j->site->loop, (int)(until - clock_mono_ms()));
    if (!j->deleted)
        site_say(j->site, "this node", FINDING_FAIL, "job deleted", "delete it at the site", "job %s (pod default/%s) may be left: %s", jid,
                 j->name, j->err.message);
    else if (j->submitted)
        site_say(j->site, "this node", FINDING_OK, "job deleted", "", "nothing of job %s is left", *jid != '\0' ? jid : j->name);
}

/* ---- the way from this node into the job ---- */

struct site_dial {
    struct site *site;
    struct child child;
    struct buf said;
    bool exited;
    int wait_status;
};

static void site_dial_on_exit(void *arg, int wait_status)
{
    struct site_dial *d = arg;

    d->exited = true;
    d->wait_status = wait_status;
}

/* What it says is small: it fits the pipe. */
static void site_dial_read(struct site_dial *d, int fd)
{
    ssize_t n = read(fd, buf_reserve(&d->said, 4096), 4096);

    d->said.n += n > 0 ? (size_t)n : 0;
    while (d->said.n > 0 && d->said.p[d->said.n - 1] == '\n')
        d->said.n--;
}

static bool site_dial_run(struct site_dial *d, const char *const *argv, struct status *err)
{
    int64_t until = clock_mono_ms() + SITE_DIAL_MS;
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return status_errno(err, "no pipe");
    fd_set_nonblocking(ends[0], true);
    bool ok = child_spawn(d->site->loop, &d->child, &(struct child_options){ .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = ends[1],
                                                                             .new_session = true, .die_with_parent = true }, site_dial_on_exit, d, err);
    close(ends[1]);
    while (ok && !d->exited && !d->site->interrupted && clock_mono_ms() < until)
        loop_turn(d->site->loop, (int)(until - clock_mono_ms()));
    if (ok && !d->exited) {
        kill(-d->child.pid, SIGKILL);
        child_forget(&d->child);
    }
    site_dial_read(d, ends[0]);
    close(ends[0]);
    return ok;
}

/* The command leads to `join`, which knows no pod of this name: when it says so, the way is there. */
static void site_job_dial(struct site_job *j)
{
    static const char mend[] = "see docs/reach.md: the command has to run `interlink-cri join` beside the agent, without asking anything";
    struct site *site = j->site;
    struct site_dial d = { .site = site };
    struct status err = STATUS_INIT;
    const struct interlink_job_state *state = interlink_job_state(j->job);
    const struct call_in_places places = { site->nonce, j->uid, state->jid, state->nodes };
    const char *const *dial = site->handler != NULL ? site->handler->dial : NULL;

    if (dial == NULL || site->report == NULL)
        return;
    const char *const *argv = call_in_fill(&site->arena, dial, &places, &err);
    if (argv == NULL || !site_dial_run(&d, argv, &err))
        site_say(site, "this node", FINDING_FAIL, "dial", mend, "%s: %s", dial[0], err.message);
    else if (strstr(buf_cstr(&d.said), "interlink-cri join:") != NULL)
        site_say(site, "this node", FINDING_OK, "dial", "", "%s leads to `interlink-cri join` on the compute node", dial[0]);
    else
        site_say(site, "this node", FINDING_FAIL, "dial", mend, "%s %s: %.300s", dial[0], d.exited ? "ended" : "did not end in time",
                 d.said.n > 0 ? buf_cstr(&d.said) : "nothing was said");
    buf_free(&d.said);
}

/* ---- what it told ---- */

/* When the report was written lies between two moments of ours; outside of them the clocks differ. */
static void site_job_clock(struct site_job *j)
{
    int64_t there = json_i64(json_member(j->site->report, "timeNs"), 0);
    double behind = (double)(j->submitted_ns - there) / 1e9, ahead = (double)(there - j->seen_ns) / 1e9;
    const char *host = json_string(json_member(j->site->report, "host"), "compute node");

    if (behind > 1 || ahead > 1)
        site_say(j->site, host, FINDING_WARN, "clock skew", "run an NTP client on both: tokens, certificates and time stamps depend on it",
                 "its clock is at least %.0f s %s this node's", behind > 1 ? behind : ahead, behind > 1 ? "behind" : "ahead of");
    else
        site_say(j->site, host, FINDING_OK, "clock skew", "", "none that can be seen (less than %.0f s)",
                 (double)(j->seen_ns - j->submitted_ns) / 1e9 + 1);
}

static void site_job_tell(struct site_job *j)
{
    static const char no_program[] = "does the site's plugin run this program? Ours does when its Dir is on a file system that compute nodes "
                                     "share; see its log";
    struct site *site = j->site;
    const char *last = j->log.n > 0 ? buf_cstr(&j->log) : "";

    /* The last lines say why. */
    if (j->log.n > 300)
        last += j->log.n - 300;
    if (site->report != NULL) {
        site_say(site, "this node", FINDING_OK, "job", "", "%s ran on %s and told", *j->said != '\0' ? interlink_job_state(j->job)->jid : "it",
                 json_string(json_member(site->report, "host"), "?"));
        site_add_report(site);
        site_job_clock(j);
    } else if (j->rejected) {
        site_say(site, "this node", FINDING_FAIL, "job", "ask the site, or correct the plugin's configuration", "not taken: %s", j->err.message);
    } else if (j->over) {
        site_say(site, "this node", FINDING_FAIL, "job", no_program, "it ended without a report; %s; its log ends: %s", j->err.message, last);
    } else if (site->interrupted) {
        site_say(site, "this node", FINDING_FAIL, "job", "", "interrupted; %s", j->said);
    } else {
        site_say(site, "this node", FINDING_FAIL, "job", "give it more time (--timeout), or ask why jobs do not start", "no report in time; %s%s%s",
                 j->said, *last != '\0' ? "; its log ends: " : "", last);
    }
}

void site_run_job(struct site *site, const struct interlink_target_options *target, const char *relay, const char *pin)
{
    struct site_job j = { .site = site, .said = "", .err = STATUS_INIT };
    struct status err = STATUS_INIT;
    int64_t until = clock_mono_ms() + site->doctor->timeout_ns / 1000000;

    uuid_of_id(site->nonce, j.uid);
    snprintf(j.name, sizeof j.name, "doctor-%.8s", site->nonce);
    j.target = interlink_target_new(site->loop, target, &err);
    if (j.target == NULL) {
        site_say(site, "this node", FINDING_FAIL, "job", "see Handlers in docs/config.example.yaml", "%s", err.message);
        return;
    }
    site_job_make(&j, relay, pin);
    interlink_job_submit(j.job);
    while (site->report == NULL && !j.rejected && !j.log_after_end && !site->interrupted && clock_mono_ms() < until)
        loop_turn(site->loop, (int)(until - clock_mono_ms()));
    site_job_dial(&j);
    site_job_tell(&j);
    site_job_delete(&j);
    interlink_job_free(j.job);
    interlink_target_free(j.target);
    buf_free(&j.log);
}

#undef SITE_LOG_MS
#undef SITE_LOG_MAX
#undef SITE_CANCEL_MS
#undef SITE_WALLTIME_SECONDS
#undef SITE_DIAL_MS
#undef SITE_LINGER_SECONDS
