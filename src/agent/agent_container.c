/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_container.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent_attach.h"
#include "agent/agent_container_work.h"
#include "agent/agent_context.h"
#include "agent/agent_exec.h"
#include "agent/agent_settle.h"
#include "agent/agent_sources.h"

/* One thing asked of a container. */
struct agent_operation {
    struct list link;
    void (*run)(struct agent_container *c, struct agent_operation *op);
    const Interlink__Agent__V1__CreateContainerRequest *request; /* create; borrowed */
    const Runtime__V1__LinuxContainerResources *resources;       /* update; borrowed */
    int signal;
    bool all;
    agent_container_done *done;
    void *arg;
};

static void agent_container_next(struct agent_container *c);

/* ---- states ---- */

bool agent_container_may_move(enum agent_container_state from, enum agent_container_state to)
{
    switch (from) {
    case AGENT_CONTAINER_NEW:
        return to == AGENT_CONTAINER_CREATED;
    case AGENT_CONTAINER_CREATED:
        return to == AGENT_CONTAINER_RUNNING || to == AGENT_CONTAINER_EXITED || to == AGENT_CONTAINER_NEW;
    case AGENT_CONTAINER_RUNNING:
        return to == AGENT_CONTAINER_DRAINING;
    case AGENT_CONTAINER_DRAINING:
        return to == AGENT_CONTAINER_EXITED;
    case AGENT_CONTAINER_EXITED:
        return to == AGENT_CONTAINER_NEW;
    }
    return false;
}

static void agent_container_move(struct agent_container *c, enum agent_container_state to)
{
    Interlink__Agent__V1__ContainerState state;

    if (!agent_container_may_move(c->state, to)) {
        log_error("container %.13s: no way from state %d to %d", c->id, (int)c->state, (int)to);
        return;
    }
    c->state = to;
    c->ended_with_job = to == AGENT_CONTAINER_EXITED && agent_ending_unasked(c->agent);
    if (to == AGENT_CONTAINER_CREATED || to == AGENT_CONTAINER_RUNNING || to == AGENT_CONTAINER_EXITED) {
        agent_container_report(c, &state);
        agent_events_add(&c->agent->events, &state);
        agent_ports_expect(c->agent);
    }
    agent_settle(&c->agent->settle, c->agent->loop);
    agent_ending_check(c->agent);
}

void agent_container_report(const struct agent_container *c, Interlink__Agent__V1__ContainerState *out)
{
    *out = (Interlink__Agent__V1__ContainerState)INTERLINK__AGENT__V1__CONTAINER_STATE__INIT;
    out->id = (char *)(uintptr_t)c->id;
    out->phase = agent_container_runs(c) ? INTERLINK__AGENT__V1__CONTAINER_PHASE__RUNNING
                 : c->state == AGENT_CONTAINER_EXITED ? INTERLINK__AGENT__V1__CONTAINER_PHASE__EXITED
                                                      : INTERLINK__AGENT__V1__CONTAINER_PHASE__CREATED;
    out->pid = c->state == AGENT_CONTAINER_RUNNING ? c->pid : 0;
    out->started_at = c->started_ns;
    out->finished_at = c->state == AGENT_CONTAINER_EXITED ? c->finished_ns : 0;
    out->exit_code = c->state == AGENT_CONTAINER_EXITED ? c->exit_code : 0;
    out->signal = c->state == AGENT_CONTAINER_EXITED ? c->signal : 0;
    out->reason = (char *)(uintptr_t)(c->state == AGENT_CONTAINER_EXITED ? c->reason : "");
    out->message = c->message;
    out->with_job = c->state == AGENT_CONTAINER_EXITED && c->ended_with_job;
    out->log_end = c->output.log.head;
    out->termination_log = (ProtobufCBinaryData){ c->termination_log.n, c->termination_log.p };
}

/* ---- objects ---- */

static void agent_container_reset(struct agent_container *c)
{
    agent_stats_forget(c);
    free(c->message);
    c->message = xstrdup("");
    c->reason = "";
    c->start_error = (struct status)STATUS_INIT;
    buf_free(&c->termination_log);
    c->started_ns = c->finished_ns = 0;
    c->exit_code = c->signal = 0;
    c->stdin_over = false;
    agent_output_init(&c->output, c->agent->loop);
}

static struct agent_container *agent_container_new(struct agent *agent, const char *id)
{
    struct agent_container *c = xcalloc(1, sizeof *c);

    c->agent = agent;
    memcpy(c->id, id, sizeof c->id);
    c->bundle = xasprintf("%s/containers/%s", agent_work_dir(agent), id);
    for (size_t i = 0; i < COUNT_OF(c->worker_fds); i++)
        c->worker_fds[i] = -1;
    agent_input_init(&c->input, agent->loop);
    list_init(&c->operations);
    list_init(&c->execs);
    list_init(&c->attaches);
    agent_container_reset(c);
    strmap_put(&agent->containers, c->id, c);
    return c;
}

static void agent_container_free(struct agent_container *c)
{
    struct agent *agent = c->agent;

    agent_exec_detach_all(c);
    strmap_remove(&agent->containers, c->id);
    free(c->bundle);
    free(c->message);
    buf_free(&c->termination_log);
    free(c);
    agent_ending_check(agent);
}

struct agent_container *agent_container_find(struct agent *agent, const char *id)
{
    struct agent_container *c = strmap_get(&agent->containers, id);

    return c != NULL && c->state != AGENT_CONTAINER_NEW ? c : NULL;
}

/* ---- operations ---- */

static struct agent_operation *agent_operation_first(struct agent_container *c)
{
    return CONTAINER_OF(c->operations.next, struct agent_operation, link);
}

/* Answers the first operation. */
static void agent_operation_end(struct agent_container *c, const struct status *err)
{
    struct agent_operation *op = agent_operation_first(c);

    c->busy = false;
    list_remove(&op->link);
    op->done(op->arg, err, c);
    free(op);
}

/* Runs what waits, until something takes time; an object that stands for nothing goes. */
static void agent_container_next(struct agent_container *c)
{
    while (!c->busy && !list_empty(&c->operations)) {
        struct agent_operation *op = agent_operation_first(c);
        op->run(c, op);
    }
    if (!c->busy && c->state == AGENT_CONTAINER_NEW)
        agent_container_free(c);
}

static void agent_operation_add(struct agent_container *c, const struct agent_operation *template)
{
    struct agent_operation *op = xmemdup(template, sizeof *template);

    list_append(&c->operations, &op->link);
    agent_container_next(c);
}

/* ---- create ---- */

static void agent_container_on_created(void *arg, const struct status *err, struct buf *output)
{
    struct agent_container *c = arg;
    struct agent_created created;

    if (err == NULL) {
        memset(&created, 0, sizeof created);
        memcpy(&created, output->p, output->n < sizeof created ? output->n : sizeof created);
        c->stop_signal = created.stop_signal;
        c->made = created.made;
        if (c->made.note[0] != '\0')
            log_warn("container %.13s: %s", c->id, c->made.note);
        free(c->message);
        c->message = xstrdup(c->made.note);
        agent_container_move(c, AGENT_CONTAINER_CREATED);
    }
    agent_operation_end(c, err);
    agent_container_next(c);
}

static const Runtime__V1__NamespaceOption *agent_container_namespaces(const Runtime__V1__ContainerConfig *config)
{
    static const Runtime__V1__NamespaceOption none = RUNTIME__V1__NAMESPACE_OPTION__INIT;

    return config->linux != NULL && config->linux->security_context != NULL &&
                   config->linux->security_context->namespace_options != NULL
               ? config->linux->security_context->namespace_options
               : &none;
}

/* The process whose PID namespace is to be shared; 0: none. */
static bool agent_container_target(struct agent *agent, const Runtime__V1__ContainerConfig *config, pid_t *pid,
                                   struct status *err)
{
    const Runtime__V1__NamespaceOption *options = agent_container_namespaces(config);

    *pid = 0;
    if (options->pid != RUNTIME__V1__NAMESPACE_MODE__TARGET)
        return true;
    const struct agent_container *target = agent_container_find(agent, options->target_id);
    if (target == NULL || target->state != AGENT_CONTAINER_RUNNING)
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "linux.security_context.namespace_options.target_id: container \"%.64s\" is not running in this pod",
                          options->target_id);
    *pid = target->pid;
    return true;
}

static void agent_operation_create(struct agent_container *c, struct agent_operation *op)
{
    struct status err = STATUS_INIT;
    struct agent_create_work work = { .container = c, .request = op->request };
    const Runtime__V1__ContainerConfig *config = op->request->config;

    if (c->state != AGENT_CONTAINER_NEW) {
        agent_operation_end(c, NULL);
        return;
    }
    c->tty = config->tty;
    c->with_stdin = config->stdin;
    c->stdin_once = config->stdin_once;
    c->has_termination_log = agent_sources_has_termination_log(op->request);
    c->own_pid = agent_container_namespaces(config)->pid == RUNTIME__V1__NAMESPACE_MODE__CONTAINER &&
                 c->agent->engine != NULL && strcmp(engine_name(c->agent->engine), "crun") == 0;
    c->busy = agent_usable(c->agent, &err) && agent_container_target(c->agent, config, &work.target_pid, &err) &&
              worker_start(c->agent->loop, &c->worker, agent_create_worker, &work, agent_container_on_created, c, &err);
    if (!c->busy)
        agent_operation_end(c, &err);
}

/* ---- the first process ---- */

static void agent_operation_remove(struct agent_container *c, struct agent_operation *op);

/* A remove waits for the process to end. */
static bool agent_container_removing(struct agent_container *c)
{
    return c->busy && agent_operation_first(c)->run == agent_operation_remove;
}

static void agent_container_on_drained(void *arg)
{
    struct agent_container *c = arg;

    agent_attach_end_all(c);
    if (c->has_termination_log)
        agent_sources_read_termination_log(c->agent, c->id, &c->termination_log);
    agent_container_move(c, AGENT_CONTAINER_EXITED);
    if (agent_container_removing(c)) /* it begins anew */
        c->busy = false;
    agent_container_next(c);
}

static void agent_container_on_exit(void *arg, int wait_status)
{
    struct agent_container *c = arg;
    struct status err = STATUS_INIT;

    c->pid = 0;
    c->finished_ns = clock_real_ns();
    c->exit_code = WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
    c->signal = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0;
    c->reason = c->exit_code == 0                                              ? "Completed"
                : engine_oom_killed(c->agent->engine, c->id, c->bundle) ? "OOMKilled"
                                                                               : "Error";
    /* What is left of it without its first process must not live on, nor hold its pipes. (A PID 1 takes all with it.) */
    if (!c->own_pid && !engine_signal(c->agent->engine, c->id, c->bundle, 0, SIGKILL, true, &err))
        log_warn("container %.13s: what its first process left behind cannot be killed: %s", c->id, err.message);
    agent_exec_kill_all(c);
    agent_input_close(&c->input);
    agent_container_move(c, AGENT_CONTAINER_DRAINING);
    agent_output_drain(&c->output, agent_container_on_drained, c);
    if (agent_container_removing(c)) /* nobody waits for its last words */
        agent_output_cut(&c->output);
}

static void agent_container_fail_start(struct agent_container *c, const struct status *err)
{
    c->start_error = *err;
    c->exit_code = 128;
    c->reason = "StartError";
    c->finished_ns = clock_real_ns();
    free(c->message);
    c->message = xstrdup(err->message);
    agent_output_cut(&c->output);
    c->output.log.ended = true;
    agent_container_move(c, AGENT_CONTAINER_EXITED);
}

/* Takes the process and its streams over from the worker. */
static bool agent_container_take(struct agent_container *c, pid_t pid, struct status *err)
{
    int *fds = c->worker_fds;

    c->started_ns = clock_real_ns();
    c->pid = pid;
    if (c->tty) {
        int terminal = engine_terminal(fds[0], err);
        close(fds[0]);
        fds[0] = -1;
        if (terminal < 0)
            return false;
        agent_input_open(&c->input, fcntl(terminal, F_DUPFD_CLOEXEC, 3));
        fds[1] = terminal;
    } else {
        agent_input_open(&c->input, fds[0]);
    }
    bool ok = agent_output_start(&c->output, fds[1], fds[2], err);
    fds[0] = fds[1] = fds[2] = -1;
    return ok;
}

static void agent_container_on_started(void *arg, const struct status *err, struct buf *output)
{
    struct agent_container *c = arg;
    struct agent_orphans *orphans = &c->agent->orphans;
    struct status lost = STATUS_INIT;
    pid_t pid = 0;
    int wait_status;

    if (err == NULL && output->n == sizeof pid)
        memcpy(&pid, output->p, sizeof pid);
    bool ended = pid > 0 && agent_orphans_take(orphans, pid, &wait_status);
    agent_orphans_expected(orphans);
    if (err == NULL && !agent_container_take(c, pid, &lost)) {
        engine_signal(c->agent->engine, c->id, c->bundle, pid, SIGKILL, true, &(struct status)STATUS_INIT);
        err = &lost;
    }
    if (err != NULL) {
        agent_start_close(c);
        agent_container_fail_start(c, err);
        agent_operation_end(c, err);
        agent_container_next(c);
        return;
    }
    agent_container_move(c, AGENT_CONTAINER_RUNNING);
    agent_operation_end(c, NULL);
    if (ended)
        agent_container_on_exit(c, wait_status);
    else
        child_adopt(c->agent->loop, &c->child, pid, agent_container_on_exit, c);
    agent_container_next(c);
}

static void agent_operation_start(struct agent_container *c, struct agent_operation *op)
{
    struct status err = STATUS_INIT;

    (void)op;
    if (c->state == AGENT_CONTAINER_NEW)
        status_set(&err, STATUS_NOT_FOUND, "container %s is not in this pod", c->id);
    else if (c->start_error.code != STATUS_OK)
        err = c->start_error;
    if (err.code != STATUS_OK || c->state != AGENT_CONTAINER_CREATED) {
        agent_operation_end(c, err.code != STATUS_OK ? &err : NULL);
        return;
    }
    c->busy = agent_usable(c->agent, &err) && agent_start_worker(c, agent_container_on_started, &err);
    if (c->busy)
        agent_orphans_expect(&c->agent->orphans);
    else
        agent_operation_end(c, &err);
}

/* ---- signal ---- */

static void agent_operation_signal(struct agent_container *c, struct agent_operation *op)
{
    struct status err = STATUS_INIT;
    bool ok = true;

    if (c->state == AGENT_CONTAINER_NEW)
        ok = status_set(&err, STATUS_NOT_FOUND, "container %s is not in this pod", c->id);
    else if (c->state == AGENT_CONTAINER_RUNNING)
        ok = engine_signal(c->agent->engine, c->id, c->bundle, c->pid, op->signal, op->all, &err);
    agent_operation_end(c, ok ? NULL : &err);
}

/* ---- update ---- */

static void agent_container_on_updated(void *arg, const struct status *err, struct buf *output)
{
    struct agent_container *c = arg;

    (void)output;
    agent_operation_end(c, err);
    agent_container_next(c);
}

static void agent_operation_update(struct agent_container *c, struct agent_operation *op)
{
    struct status err = STATUS_INIT;
    struct agent_update_work work = { .container = c, .resources = op->resources };

    if (c->state == AGENT_CONTAINER_NEW)
        status_set(&err, STATUS_NOT_FOUND, "container %s is not in this pod", c->id);
    else if (c->state != AGENT_CONTAINER_CREATED && c->state != AGENT_CONTAINER_RUNNING)
        status_set(&err, STATUS_FAILED_PRECONDITION, "container %s has ended", c->id);
    c->busy = err.code == STATUS_OK && agent_usable(c->agent, &err) &&
              worker_start(c->agent->loop, &c->worker, agent_update_worker, &work, agent_container_on_updated, c, &err);
    if (!c->busy)
        agent_operation_end(c, &err);
}

/* ---- remove ---- */

static void agent_container_on_removed(void *arg, const struct status *err, struct buf *output)
{
    struct agent_container *c = arg;
    struct status gone = STATUS_INIT;

    (void)output;
    if (err == NULL) {
        status_set(&gone, STATUS_NOT_FOUND, "container %s has been removed", c->id);
        agent_output_free(&c->output, &gone);
        agent_input_close(&c->input);
        if (c->has_termination_log)
            agent_sources_remove_termination_log(c->agent, c->id);
        agent_container_reset(c);
        if (c->state != AGENT_CONTAINER_NEW)
            agent_container_move(c, AGENT_CONTAINER_NEW);
    }
    agent_operation_end(c, err);
    agent_container_next(c);
}

static void agent_operation_remove(struct agent_container *c, struct agent_operation *op)
{
    struct status err = STATUS_INIT;

    (void)op;
    if (agent_container_runs(c)) {
        /* It is run again once the container has ended. */
        c->busy = c->state == AGENT_CONTAINER_DRAINING ||
                  engine_signal(c->agent->engine, c->id, c->bundle, c->pid, SIGKILL, true, &err);
        if (c->state == AGENT_CONTAINER_DRAINING)
            agent_output_cut(&c->output);
        if (!c->busy)
            agent_operation_end(c, &err);
        return;
    }
    if (c->agent->engine == NULL || (c->state == AGENT_CONTAINER_NEW && access(c->bundle, F_OK) < 0)) {
        agent_operation_end(c, NULL);
        return;
    }
    c->busy = worker_start(c->agent->loop, &c->worker, agent_remove_worker, c, agent_container_on_removed, c, &err);
    if (!c->busy)
        agent_operation_end(c, &err);
}

/* ---- what is asked ---- */

/* An id becomes part of a path: nothing but hex digits. */
static bool agent_container_check_id(const char *id, struct status *err)
{
    size_t n = strspn(id, "0123456789abcdef");

    return (n == ID_LENGTH && id[n] == '\0') ||
           status_set(err, STATUS_INVALID_ARGUMENT, "id: \"%.80s\" is not %d lower-case hex digits", id, ID_LENGTH);
}

static void agent_container_ask(struct agent *agent, const char *id, const struct agent_operation *op)
{
    struct status err = STATUS_INIT;
    struct agent_container *c = NULL;

    if (agent_container_check_id(id, &err)) {
        c = strmap_get(&agent->containers, id);
        if (c == NULL && agent->containers.count >= AGENT_CONTAINERS_MAX)
            status_set(&err, STATUS_RESOURCE_EXHAUSTED, "the pod has %d containers already; remove ended ones first",
                       AGENT_CONTAINERS_MAX);
        else if (c == NULL)
            c = agent_container_new(agent, id);
    }
    if (c == NULL)
        op->done(op->arg, &err, NULL);
    else
        agent_operation_add(c, op);
}

void agent_container_create(struct agent *agent, const Interlink__Agent__V1__CreateContainerRequest *request,
                            agent_container_done *done, void *arg)
{
    struct status err = STATUS_INIT;

    if (request->config == NULL) {
        status_set(&err, STATUS_INVALID_ARGUMENT, "config: missing");
        done(arg, &err, NULL);
        return;
    }
    agent_container_ask(agent, request->id,
                        &(struct agent_operation){ .run = agent_operation_create, .request = request, .done = done, .arg = arg });
}

void agent_container_start(struct agent *agent, const char *id, agent_container_done *done, void *arg)
{
    agent_container_ask(agent, id, &(struct agent_operation){ .run = agent_operation_start, .done = done, .arg = arg });
}

void agent_container_signal(struct agent *agent, const char *id, int signal, bool all, agent_container_done *done, void *arg)
{
    struct status err = STATUS_INIT;

    if (signal < 1 || signal >= NSIG) {
        status_set(&err, STATUS_INVALID_ARGUMENT, "signal: %d is no signal's number", signal);
        done(arg, &err, NULL);
        return;
    }
    agent_container_ask(agent, id, &(struct agent_operation){
        .run = agent_operation_signal, .signal = signal, .all = all, .done = done, .arg = arg });
}

void agent_container_update(struct agent *agent, const char *id, const Runtime__V1__LinuxContainerResources *resources,
                            agent_container_done *done, void *arg)
{
    agent_container_ask(agent, id, &(struct agent_operation){
        .run = agent_operation_update, .resources = resources, .done = done, .arg = arg });
}

void agent_container_remove(struct agent *agent, const char *id, agent_container_done *done, void *arg)
{
    agent_container_ask(agent, id, &(struct agent_operation){ .run = agent_operation_remove, .done = done, .arg = arg });
}

void agent_container_abandon(struct agent_container *c)
{
    struct status err = STATUS_INIT;

    if (!c->busy || c->state != AGENT_CONTAINER_NEW || agent_operation_first(c)->run != agent_operation_create)
        return;
    worker_cancel(&c->worker);
    status_set(&err, STATUS_UNAVAILABLE, "the pod is being stopped");
    agent_operation_end(c, &err);
    agent_container_next(c);
}

void agent_container_close_inputs(struct agent *agent)
{
    struct strmap_iter it = { 0 };

    while (strmap_next(&agent->containers, &it)) {
        struct agent_container *c = it.value;
        if (c->input.fd >= 0)
            close(c->input.fd);
        if (c->worker_fds[0] >= 0)
            close(c->worker_fds[0]);
        agent_exec_close_inputs(c);
    }
}
