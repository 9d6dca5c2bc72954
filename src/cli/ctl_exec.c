/* SPDX-License-Identifier: Apache-2.0 */
/* exec, attach. */
#include "cli/ctl_stream.h"

#include <unistd.h>

/* As crictl: a terminal is for somebody who types. */
static bool ctl_check_terminal(const struct ctl *ctl, struct status *err)
{
    if (!ctl->flags.tty)
        return true;
    if (!ctl->flags.interactive)
        return status_set(err, STATUS_INVALID_ARGUMENT, "-t needs -i as well");
    return isatty(STDIN_FILENO) == 1 || status_set(err, STATUS_INVALID_ARGUMENT, "-t: standard input is no terminal");
}

/* ---- exec ---- */

/* --sync. False when the command ended with another code than 0, which ends the verb with 1 as crictl's. */
static bool ctl_exec_sync(struct ctl *ctl, const char *id, char **command, size_t words, struct status *err)
{
    Runtime__V1__ExecSyncRequest request = RUNTIME__V1__EXEC_SYNC_REQUEST__INIT;

    request.container_id = (char *)(uintptr_t)id;
    request.cmd = command;
    request.n_cmd = words;
    request.timeout = ctl->flags.timeout_seconds;
    /* Without a limit the command may run for ever. */
    int64_t timeout_ms = request.timeout > 0 ? CTL_CALL_TIMEOUT_MS + request.timeout * 1000 : 0;
    const Runtime__V1__ExecSyncResponse *r = ctl_call(ctl, CTL_RUNTIME, "ExecSync", &request,
                                                      &runtime__v1__exec_sync_response__descriptor, timeout_ms, err);
    if (r == NULL)
        return status_prefix(err, "running %s in the container %s", command[0], id);
    buf_append(&ctl->out, r->stdout.data, r->stdout.len);
    ctl_flush(ctl);
    ctl_write_error(r->stderr.data, r->stderr.len);
    return r->exit_code == 0 || status_set(err, STATUS_UNKNOWN, "the command %s in the container %s exited with %" PRId32,
                                           command[0], id, r->exit_code);
}

static bool ctl_exec_stream(struct ctl *ctl, const char *id, char **command, size_t words, int *exit_code, struct status *err)
{
    Runtime__V1__ExecRequest request = RUNTIME__V1__EXEC_REQUEST__INIT;
    struct ctl_session_options options = { .tty = ctl->flags.tty, .with_stdin = ctl->flags.interactive,
                                           .timeout_ms = ctl->flags.timeout_seconds * 1000 };

    request.container_id = (char *)(uintptr_t)id;
    request.cmd = command;
    request.n_cmd = words;
    request.tty = options.tty;
    request.stdin = options.with_stdin;
    request.stdout = true;
    request.stderr = !options.tty;
    const Runtime__V1__ExecResponse *r =
        ctl_call(ctl, CTL_RUNTIME, "Exec", &request, &runtime__v1__exec_response__descriptor, CTL_CALL_TIMEOUT_MS, err);
    if (r == NULL)
        return status_prefix(err, "running %s in the container %s", command[0], id);
    options.url = r->url;
    return ctl_session_run(ctl, &options, exit_code, err) || status_prefix(err, "running %s in the container %s", command[0], id);
}

/* The exit status of the verb; what went wrong is told. */
static int ctl_exec_in(struct ctl *ctl, const char *id, char **command, size_t words)
{
    struct status err = STATUS_INIT;
    int exit_code = 0;
    bool ok = ctl->flags.sync ? ctl_exec_sync(ctl, id, command, words, &err)
                              : ctl_exec_stream(ctl, id, command, words, &exit_code, &err);

    if (ctl->flags.ignore_errors && !ctl->interrupted)
        return 0;
    return ok ? exit_code : ctl_fail(ctl, &err);
}

static bool ctl_has_filter(const struct ctl_flags *f)
{
    return *f->name != '\0' || *f->pod != '\0' || *f->image != '\0' || *f->state != '\0' || f->labels.count > 0 ||
           f->latest || f->last > 0;
}

/* In each container that fits the filters. */
static int ctl_exec_filtered(struct ctl *ctl, char **command, size_t words)
{
    struct status err = STATUS_INIT;
    const char *const *ids;
    size_t count;
    int result = 0;

    if (!ctl_all_containers(ctl, &ids, &count, &err))
        return ctl_fail(ctl, &err);
    if (count == 0) {
        status_set(&err, STATUS_NOT_FOUND, "no container fits the filters");
        return ctl_fail(ctl, &err);
    }
    for (size_t i = 0; i < count && !ctl->interrupted; i++) {
        if (!ctl->flags.quiet)
            buf_printf(&ctl->out, "%s:\n", ids[i]);
        int status = ctl_exec_in(ctl, ids[i], command, words);
        result = result != 0 ? result : status;
    }
    return result;
}

int ctl_exec(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    char **words = (char **)(uintptr_t)arguments;
    bool websocket;

    if (ctl->flags.timeout_seconds < 0 || ctl->flags.timeout_seconds > INT32_MAX)
        status_set(&err, STATUS_INVALID_ARGUMENT, "--timeout: wanted a number of seconds");
    else if (ctl->flags.sync && (ctl->flags.tty || ctl->flags.interactive))
        status_set(&err, STATUS_INVALID_ARGUMENT, "-s runs the command without a terminal or input: leave -i and -t out");
    else if (!ctl_wants_websocket(ctl, &websocket, &err) || !ctl_check_terminal(ctl, &err))
        return ctl_fail(ctl, &err);
    else if (ctl_has_filter(&ctl->flags))
        return ctl_exec_filtered(ctl, words, count);
    else if (count < 2)
        status_set(&err, STATUS_INVALID_ARGUMENT, "which command? exec CONTAINER-ID COMMAND [ARG...]");
    else
        return ctl_exec_in(ctl, words[0], words + 1, count - 1);
    return ctl_fail(ctl, &err);
}

/* ---- attach ---- */

int ctl_attach(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    Runtime__V1__AttachRequest request = RUNTIME__V1__ATTACH_REQUEST__INIT;
    struct ctl_session_options options = { .tty = ctl->flags.tty, .with_stdin = ctl->flags.interactive };
    const Runtime__V1__AttachResponse *r = NULL;
    bool websocket;
    int exit_code = 0;
    (void)count;

    request.container_id = (char *)(uintptr_t)arguments[0];
    request.tty = options.tty;
    request.stdin = options.with_stdin;
    request.stdout = true;
    request.stderr = !options.tty;
    if (ctl_wants_websocket(ctl, &websocket, &err) && ctl_check_terminal(ctl, &err))
        r = ctl_call(ctl, CTL_RUNTIME, "Attach", &request, &runtime__v1__attach_response__descriptor, CTL_CALL_TIMEOUT_MS, &err);
    if (r == NULL)
        return ctl_fail(ctl, &err);
    options.url = r->url;
    return ctl_session_run(ctl, &options, &exit_code, &err) ? exit_code : ctl_fail(ctl, &err);
}
