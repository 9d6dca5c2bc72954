/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/job_files.h"

#include <fcntl.h>
#include <unistd.h>

#include "io/file.h"

/* ---- what is run ---- */

/* The first word of the command is only the program's name here; what follows goes to our own binary. */
static bool job_files_check_command(const struct interlink_container *c, struct status *err)
{
    const struct interlink_strings *command = &c->command;

    if (command->count >= 2 && strcmp(command->items[0], "interlink-cri") == 0 &&
        strcmp(command->items[1], "agent") == 0)
        return true;
    return status_set(err, STATUS_FAILED_PRECONDITION,
                      "pod.spec.containers[0].command: a pod annotated %s: %s runs [\"interlink-cri\", \"agent\", ...]",
                      INTERLINK_JOB_ANNOTATION, INTERLINK_JOB_AGENT);
}

bool job_files_check(const struct interlink_create *create, struct status *err)
{
    const struct interlink_pod *pod = &create->pod;

    if (create->manifest.n > 0)
        return true;
    if (strcmp(interlink_pair_get(&pod->annotations, INTERLINK_JOB_ANNOTATION), INTERLINK_JOB_AGENT) != 0)
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "pod %s/%s: this backend runs only pods whose annotation %s is \"%s\"", pod->namespace_, pod->name,
                          INTERLINK_JOB_ANNOTATION, INTERLINK_JOB_AGENT);
    if (pod->container_count != 1 || pod->init_container_count != 0)
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "pod.spec.containers: a pod annotated %s: %s has one container and no init containers",
                          INTERLINK_JOB_ANNOTATION, INTERLINK_JOB_AGENT);
    if (pod->containers[0].env_from[0] != '\0')
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "pod.spec.containers[0].env: %s refers to another object; only values are taken",
                          pod->containers[0].env_from);
    return job_files_check_command(&pod->containers[0], err);
}

/* ---- volumes: files of configMaps, secrets and projected maps ---- */

/* A relative path of plain names: nothing in it leads out of its folder. */
static bool job_files_path_safe(const char *path)
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

static const struct interlink_object *job_files_find_object(const struct interlink_object *objects, size_t count,
                                                        const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(objects[i].name, name) == 0)
            return &objects[i];
    return NULL;
}

static const struct interlink_object *job_files_volume_object(const struct interlink_create *create,
                                                          const struct interlink_volume *v)
{
    switch (v->kind) {
    case INTERLINK_VOLUME_CONFIG_MAP:
        return job_files_find_object(create->config_maps, create->config_map_count, v->source);
    case INTERLINK_VOLUME_SECRET:
        return job_files_find_object(create->secrets, create->secret_count, v->source);
    case INTERLINK_VOLUME_PROJECTED:
        return job_files_find_object(create->projected, create->projected_count, v->name);
    case INTERLINK_VOLUME_EMPTY_DIR:
    case INTERLINK_VOLUME_HOST_PATH:
    case INTERLINK_VOLUME_OTHER:
        break;
    }
    return NULL;
}

static bool job_files_write_file(const char *folder, const char *path, struct str data, struct status *err)
{
    if (!job_files_path_safe(path))
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

static const struct interlink_file *job_files_find_file(const struct interlink_object *object, const char *key)
{
    for (size_t i = 0; i < object->file_count; i++)
        if (strcmp(object->files[i].key, key) == 0)
            return &object->files[i];
    return NULL;
}

static bool job_files_write_files(const char *folder, const struct interlink_volume *v,
                              const struct interlink_object *object, struct status *err)
{
    if (v->item_count == 0) {
        for (size_t i = 0; i < object->file_count; i++)
            if (!job_files_write_file(folder, object->files[i].key, object->files[i].data, err))
                return false;
        return true;
    }
    for (size_t i = 0; i < v->item_count; i++) {
        const struct interlink_file *file = job_files_find_file(object, v->items[i].key);
        if (file == NULL && v->optional)
            continue;
        if (file == NULL)
            return status_set(err, STATUS_FAILED_PRECONDITION, "%s has no key \"%s\"", v->source, v->items[i].key);
        if (!job_files_write_file(folder, v->items[i].path, file->data, err))
            return false;
    }
    return true;
}

static bool job_files_write_volume(const char *dir, const struct interlink_create *create,
                               const struct interlink_volume *v, struct status *err)
{
    const struct interlink_object *object = job_files_volume_object(create, v);
    cleanup_free char *folder = xasprintf("%s/volumes/%s", dir, v->name);

    if (v->kind == INTERLINK_VOLUME_OTHER)
        return status_set(err, STATUS_FAILED_PRECONDITION, "a volume of the kind \"%s\" cannot be had here", v->other);
    if (v->kind == INTERLINK_VOLUME_HOST_PATH)
        return true; /* the agent sees its machine's files as they are */
    if (!job_files_path_safe(v->name) || strchr(v->name, '/') != NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "it is no name of a volume");
    if (!dir_make(folder, 0700, err))
        return false;
    if (object != NULL)
        return job_files_write_files(folder, v, object, err);
    if (v->kind == INTERLINK_VOLUME_EMPTY_DIR || v->optional)
        return true;
    return status_set(err, STATUS_FAILED_PRECONDITION, "\"%s\" did not come with the create request",
                      v->kind == INTERLINK_VOLUME_PROJECTED ? v->name : v->source);
}

/* An API server sends along only what a container mounts. */
static bool job_files_mounted(const struct interlink_pod *pod, const struct interlink_volume *v)
{
    const struct interlink_container *c = &pod->containers[0];

    for (size_t i = 0; i < c->mount_count; i++)
        if (strcmp(c->mounts[i].name, v->name) == 0)
            return true;
    return false;
}

bool job_files_write_volumes(const char *dir, const struct interlink_create *create, struct status *err)
{
    if (create->manifest.n > 0) {
        cleanup_free char *path = xasprintf("%s/" JOB_FILES_MANIFEST, dir);
        return file_write_atomic(path, create->manifest.p, create->manifest.n, 0600, err);
    }
    for (size_t i = 0; i < create->pod.volume_count; i++) {
        const struct interlink_volume *v = &create->pod.volumes[i];
        if (job_files_mounted(&create->pod, v) && !job_files_write_volume(dir, create, v, err))
            return status_prefix(err, "pod.spec.volumes[%zu] (%s)", i, v->name);
    }
    return true;
}
