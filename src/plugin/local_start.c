/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/local.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"
#include "io/userns.h"

extern char **environ;

/* ---- what is run ---- */

/* The first word of the command is only the program's name here; what follows goes to our own binary. */
static bool local_check_command(const struct interlink_container *c, struct status *err)
{
    const struct interlink_strings *command = &c->command;

    if (command->count >= 2 && strcmp(command->items[0], "interlink-cri") == 0 &&
        strcmp(command->items[1], "agent") == 0)
        return true;
    return status_set(err, STATUS_FAILED_PRECONDITION,
                      "pod.spec.containers[0].command: a pod annotated %s: %s runs [\"interlink-cri\", \"agent\", ...]",
                      INTERLINK_JOB_ANNOTATION, INTERLINK_JOB_AGENT);
}

bool local_check(const struct interlink_create *create, struct status *err)
{
    const struct interlink_pod *pod = &create->pod;

    if (strcmp(interlink_pair_get(&pod->annotations, INTERLINK_JOB_ANNOTATION), INTERLINK_JOB_AGENT) != 0)
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "pod %s/%s: the local backend runs only pods whose annotation %s is \"%s\"", pod->namespace_,
                          pod->name, INTERLINK_JOB_ANNOTATION, INTERLINK_JOB_AGENT);
    if (pod->container_count != 1 || pod->init_container_count != 0)
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "pod.spec.containers: a pod annotated %s: %s has one container and no init containers",
                          INTERLINK_JOB_ANNOTATION, INTERLINK_JOB_AGENT);
    if (pod->containers[0].env_from[0] != '\0')
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "pod.spec.containers[0].env: %s refers to another object; only values are taken",
                          pod->containers[0].env_from);
    return local_check_command(&pod->containers[0], err);
}

/* ---- volumes: files of configMaps, secrets and projected maps ---- */

/* A relative path of plain names: nothing in it leads out of its folder. */
static bool local_path_safe(const char *path)
{
    if (path[0] == '\0' || strlen(path) > 1024)
        return false;
    for (const char *p = path;; p++) {
        size_t n = strcspn(p, "/");
        if (n == 0 || n > 255 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return false;
        p += n;
        if (*p == '\0')
            return true;
    }
}

static const struct interlink_object *local_find_object(const struct interlink_object *objects, size_t count,
                                                        const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(objects[i].name, name) == 0)
            return &objects[i];
    return NULL;
}

static const struct interlink_object *local_volume_object(const struct interlink_create *create,
                                                          const struct interlink_volume *v)
{
    switch (v->kind) {
    case INTERLINK_VOLUME_CONFIG_MAP:
        return local_find_object(create->config_maps, create->config_map_count, v->source);
    case INTERLINK_VOLUME_SECRET:
        return local_find_object(create->secrets, create->secret_count, v->source);
    case INTERLINK_VOLUME_PROJECTED:
        return local_find_object(create->projected, create->projected_count, v->name);
    case INTERLINK_VOLUME_EMPTY_DIR:
    case INTERLINK_VOLUME_HOST_PATH:
    case INTERLINK_VOLUME_OTHER:
        break;
    }
    return NULL;
}

static bool local_write_file(const char *folder, const char *path, struct str data, struct status *err)
{
    if (!local_path_safe(path))
        return status_set(err, STATUS_INVALID_ARGUMENT, "\"%s\" is no path within a volume", path);
    cleanup_free char *file = xasprintf("%s/%s", folder, path);
    char *slash = strrchr(file, '/');
    *slash = '\0';
    if (!dir_make(file, 0700, err))
        return false;
    *slash = '/';
    cleanup_close int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return status_errno(err, "cannot create %s", file);
    return write_all(fd, data.p, data.n, err) || status_prefix(err, "cannot write %s", file);
}

static const struct interlink_file *local_find_file(const struct interlink_object *object, const char *key)
{
    for (size_t i = 0; i < object->file_count; i++)
        if (strcmp(object->files[i].key, key) == 0)
            return &object->files[i];
    return NULL;
}

static bool local_write_files(const char *folder, const struct interlink_volume *v,
                              const struct interlink_object *object, struct status *err)
{
    if (v->item_count == 0) {
        for (size_t i = 0; i < object->file_count; i++)
            if (!local_write_file(folder, object->files[i].key, object->files[i].data, err))
                return false;
        return true;
    }
    for (size_t i = 0; i < v->item_count; i++) {
        const struct interlink_file *file = local_find_file(object, v->items[i].key);
        if (file == NULL && v->optional)
            continue;
        if (file == NULL)
            return status_set(err, STATUS_FAILED_PRECONDITION, "%s has no key \"%s\"", v->source, v->items[i].key);
        if (!local_write_file(folder, v->items[i].path, file->data, err))
            return false;
    }
    return true;
}

static bool local_write_volume(const struct local_job *job, const struct interlink_create *create,
                               const struct interlink_volume *v, struct status *err)
{
    const struct interlink_object *object = local_volume_object(create, v);
    cleanup_free char *folder = xasprintf("%s/volumes/%s", job->dir, v->name);

    if (v->kind == INTERLINK_VOLUME_OTHER)
        return status_set(err, STATUS_FAILED_PRECONDITION, "a volume of the kind \"%s\" cannot be had here", v->other);
    if (v->kind == INTERLINK_VOLUME_HOST_PATH)
        return true; /* the agent sees this machine's files as they are */
    if (!local_path_safe(v->name) || strchr(v->name, '/') != NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "it is no name of a volume");
    if (!dir_make(folder, 0700, err))
        return false;
    if (object != NULL)
        return local_write_files(folder, v, object, err);
    if (v->kind == INTERLINK_VOLUME_EMPTY_DIR || v->optional)
        return true;
    return status_set(err, STATUS_FAILED_PRECONDITION, "\"%s\" did not come with the create request",
                      v->kind == INTERLINK_VOLUME_PROJECTED ? v->name : v->source);
}

/* An API server sends along only what a container mounts. */
static bool local_mounted(const struct interlink_pod *pod, const struct interlink_volume *v)
{
    const struct interlink_container *c = &pod->containers[0];

    for (size_t i = 0; i < c->mount_count; i++)
        if (strcmp(c->mounts[i].name, v->name) == 0)
            return true;
    return false;
}

static bool local_write_volumes(const struct local_job *job, const struct interlink_create *create, struct status *err)
{
    for (size_t i = 0; i < create->pod.volume_count; i++) {
        const struct interlink_volume *v = &create->pod.volumes[i];
        if (local_mounted(&create->pod, v) && !local_write_volume(job, create, v, err))
            return status_prefix(err, "pod.spec.volumes[%zu] (%s)", i, v->name);
    }
    return true;
}

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
    if (local_write_volumes(job, create, err) && local_record_write(job, err) &&
        local_exec(job, &create->pod.containers[0], on_exit, err))
        return true;
    tree_remove(job->dir, &ignored);
    local_record_remove(job->local, job->uid);
    return false;
}
