/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/local.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"
#include "io/userns.h"
#include "plugin/job_files.h"

extern char **environ;

/* ---- environment ---- */

/* What the service manager told this process only. */
static bool local_env_private(const char *entry)
{
    static const char *const prefixes[] = { "LISTEN_", "NOTIFY_SOCKET=", "WATCHDOG_", "INVOCATION_ID=", "MAINPID=",
                                            "INTERLINK_" };

    for (size_t i = 0; i < COUNT_OF(prefixes); i++)
        if (str_starts(entry, prefixes[i]))
            return true;
    return false;
}

static bool local_env_has(const struct interlink_pairs *env, const char *entry)
{
    size_t n = strcspn(entry, "=");

    for (size_t i = 0; i < env->count; i++)
        if (strncmp(env->items[i].name, entry, n) == 0 && env->items[i].name[n] == '\0')
            return true;
    return false;
}

/* Ours (PATH, HOME, proxies), then the pod's, then where the job is. */
static const char **local_environment(struct arena *arena, const struct local_job *job,
                                      const struct interlink_pairs *env)
{
    size_t count = 0, ours = 0;

    while (environ[ours] != NULL)
        ours++;
    const char **envp = ARENA_ARRAY(arena, const char *, ours + env->count + 2);
    for (size_t i = 0; i < ours; i++)
        if (!local_env_private(environ[i]) && !local_env_has(env, environ[i]))
            envp[count++] = environ[i];
    for (size_t i = 0; i < env->count; i++)
        if (strcmp(env->items[i].name, "INTERLINK_JOB_DIR") != 0)
            envp[count++] = arena_printf(arena, "%s=%s", env->items[i].name, env->items[i].value);
    envp[count] = arena_printf(arena, "INTERLINK_JOB_DIR=%s", job->dir);
    return envp;
}

/* ---- exec ---- */

struct local_child {
    const char *pid_path;
    const char *boot_id;
};

/* In the child, just before exec: after a kill of the plugin at any moment, either this file says which process the job
 * is, or the agent was never started. */
static bool local_in_child(void *arg)
{
    const struct local_child *c = arg;
    struct status ignored = STATUS_INIT;
    uint64_t ticks;
    char text[128];

    if (!local_process_start_ticks(getpid(), &ticks))
        return false;
    int n = snprintf(text, sizeof text, "%d %" PRIu64 " %s\n", (int)getpid(), ticks, c->boot_id);
    return file_replace(c->pid_path, text, (size_t)n, 0600, &ignored);
}

/* The path of our binary while that is still the file we are; else, since it was replaced or removed, the descriptor that
 * holds it. */
static const char *local_program(struct arena *arena, const struct local *local)
{
    struct stat path, held;

    if (local->program_fd < 0 || fstat(local->program_fd, &held) < 0 ||
        (stat(local->program, &path) == 0 && path.st_dev == held.st_dev && path.st_ino == held.st_ino))
        return local->program;
    return arena_printf(arena, "/proc/%d/fd/%d", (int)getpid(), local->program_fd);
}

static bool local_exec(struct local_job *job, const struct interlink_container *c,
                       void (*on_exit)(void *arg, int wait_status), struct status *err)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_free char *pid_path = local_record_path(job->local, job->uid, "pid");
    cleanup_free char *log_path = xasprintf("%s/agent.log", job->dir);
    struct local_child in_child = { pid_path, job->local->boot_id };
    const char **argv = ARENA_ARRAY(&arena, const char *, c->command.count + c->args.count + 1);
    size_t count = 0;

    for (size_t i = 0; i < c->command.count; i++)
        argv[count++] = c->command.items[i];
    for (size_t i = 0; i < c->args.count; i++)
        argv[count++] = c->args.items[i];
    argv[0] = local_program(&arena, job->local);
    cleanup_close int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (log < 0)
        return status_errno(err, "cannot create %s", log_path);
    struct child_options options = {
        .argv = argv,
        .envp = local_environment(&arena, job, &c->env),
        .cwd = job->dir,
        .stdin_fd = -1,
        .stdout_fd = log,
        .stderr_fd = log,
        .new_session = true,
        .in_child = local_in_child,
        .in_child_arg = &in_child,
    };
    if (!child_spawn(job->local->loop, &job->child, &options, on_exit, job, err))
        return false;
    job->process.pid = job->child.pid;
    if (!local_process_start_ticks(job->process.pid, &job->process.start_ticks))
        job->process.start_ticks = 0; /* it has ended already and is about to be reaped */
    return true;
}

bool local_start(struct local_job *job, const struct interlink_create *create,
                 void (*on_exit)(void *arg, int wait_status), struct status *err)
{
    struct status ignored = STATUS_INIT;

    /* What an interrupted removal may have left. */
    if (!subid_tree_remove(job->dir, err))
        return false;
    if (mkdir(job->dir, 0700) < 0)
        return status_errno(err, "cannot make folder %s", job->dir);
    if (job_files_write_volumes(job->dir, create, err) && local_record_write(job, err) &&
        local_exec(job, &create->pod.containers[0], on_exit, err))
        return true;
    tree_remove(job->dir, &ignored);
    local_record_remove(job->local, job->uid);
    return false;
}
