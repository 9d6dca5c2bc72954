/* SPDX-License-Identifier: Apache-2.0 */
#include "node/container_job_pod.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/store.h"
#include "interlink/slurm_flags.h"
#include "node/pre_exec.h"
#include "node/sandbox.h"
#include "node/sandbox_job.h"
#include "node/volume_plan.h"
#include "rpc/pb.h"
#include "text/json.h"

/* Where the program and its token are in a container. */
#define CONTAINER_JOB_PROGRAM_DIR "/opt/interlink-cri"
#define CONTAINER_JOB_PROGRAM "interlink-program"
#define CONTAINER_JOB_SECRET_DIR "/var/run/interlink"
/* In bash, `cd` says itself what is wrong; the container then ends with 1. */
#define CONTAINER_JOB_CD "cd \"$0\" && exec \"$@\""

/* ---- checks ---- */

bool container_job_check_sandbox(const Runtime__V1__PodSandboxConfig *config, struct status *err)
{
    const Runtime__V1__LinuxPodSandboxConfig *l = config->linux;
    const Runtime__V1__LinuxSandboxSecurityContext *s = l != NULL ? l->security_context : NULL;
    const Runtime__V1__NamespaceOption *n = s != NULL ? s->namespace_options : NULL;
    static const char why[] = "cannot be had where each container is a job of its own (JobPer: container)";

    if (l != NULL && l->n_sysctls > 0)
        return status_set(err, STATUS_FAILED_PRECONDITION, "config.linux.sysctls: %.100s %s", l->sysctls[0]->key, why);
    if (s != NULL && s->privileged)
        return status_set(err, STATUS_FAILED_PRECONDITION, "config.linux.security_context.privileged: %s", why);
    if (n != NULL && n->userns_options != NULL && n->userns_options->mode == RUNTIME__V1__NAMESPACE_MODE__POD)
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "config.linux.security_context.namespace_options.userns_options: a user namespace %s", why);
    return true;
}

static void container_job_note(struct buf *note, const char *field, const char *why)
{
    buf_printf(note, "%s%s: %s", note->n > 0 ? "; " : "", field, why);
}

static bool container_job_check_security(const Runtime__V1__LinuxContainerSecurityContext *s, struct buf *note,
                                         struct status *err)
{
    static const char site[] = "the site's plugin decides that";

    if (s == NULL)
        return true;
    if (s->privileged)
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "config.linux.security_context.privileged: no plugin gives that to a job");
    if (s->capabilities != NULL && s->capabilities->n_add_capabilities > 0)
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "config.linux.security_context.capabilities.add_capabilities: %.40s: no plugin gives that to a job",
                          s->capabilities->add_capabilities[0]);
    if (s->run_as_user != NULL || *s->run_as_username != '\0')
        container_job_note(note, "config.linux.security_context.run_as_user", site);
    if (s->n_supplemental_groups > 0)
        container_job_note(note, "config.linux.security_context.supplemental_groups", site);
    if (s->readonly_rootfs)
        container_job_note(note, "config.linux.security_context.readonly_rootfs", site);
    if (s->seccomp != NULL && s->seccomp->profile_type != RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__Unconfined)
        container_job_note(note, "config.linux.security_context.seccomp", site);
    return true;
}

/* execve(2) takes no longer string, and neither does sbatch. */
static bool container_job_check_text(const char *field, size_t index, const void *p, size_t n, struct status *err)
{
    if (n > CONTAINER_JOB_STRING_MAX)
        return status_set(err, STATUS_FAILED_PRECONDITION, "config.%s[%zu]: longer than the %u bytes that a job script can hold",
                          field, index, CONTAINER_JOB_STRING_MAX);
    for (size_t i = 0, step; i < n; i += step) {
        step = utf8_sequence((const char *)p + i, n - i);
        if (step == 0 || ((const char *)p)[i] == '\0')
            return status_set(err, STATUS_FAILED_PRECONDITION, "config.%s[%zu]: is no UTF-8 text, which is all that JSON carries",
                              field, index);
    }
    return true;
}

static bool container_job_check_strings(const Runtime__V1__ContainerConfig *config, struct status *err)
{
    for (size_t i = 0; i < config->n_envs; i++) {
        const Runtime__V1__KeyValue *e = config->envs[i];
        if (*e->key == '\0' || strchr(e->key, '=') != NULL)
            return status_set(err, STATUS_INVALID_ARGUMENT, "config.envs[%zu].key: \"%.60s\" is not a variable's name", i, e->key);
        if (!container_job_check_text("envs", i, e->value.data, e->value.len, err))
            return false;
    }
    for (size_t i = 0; i < config->n_command; i++)
        if (!container_job_check_text("command", i, config->command[i], strlen(config->command[i]), err))
            return false;
    for (size_t i = 0; i < config->n_args; i++)
        if (!container_job_check_text("args", i, config->args[i], strlen(config->args[i]), err))
            return false;
    return *config->working_dir == '\0' || *config->working_dir == '/' ||
           status_set(err, STATUS_INVALID_ARGUMENT, "config.working_dir: \"%.200s\" is not an absolute path", config->working_dir);
}

/* An emptyDir is a folder of one job: two containers cannot share it. The same container may have it anew. */
static bool container_job_check_empty_dir(const struct sandbox *sandbox, const Runtime__V1__ContainerConfig *config, size_t index,
                                          struct status *err)
{
    const char *path = config->mounts[index]->host_path;
    struct volume_place place = volume_place(path, sandbox->record->config->metadata->uid, NULL);

    if (place.kind != VOLUME_EMPTY_DIR)
        return true;
    for (LIST_EACH(struct container, c, &sandbox->containers, link)) {
        const Runtime__V1__ContainerConfig *other = c->record->config;
        for (size_t i = 0; i < other->n_mounts; i++)
            if (strcmp(other->mounts[i]->host_path, path) == 0 && strcmp(other->metadata->name, config->metadata->name) != 0)
                return status_set(err, STATUS_FAILED_PRECONDITION,
                                  "config.mounts[%zu].host_path: container %.63s uses the emptyDir %.*s, too, and each of them is a "
                                  "job of its own: share a folder below SharedPaths, or use JobPer: pod",
                                  index, other->metadata->name, (int)place.name_length, place.name);
    }
    return true;
}

bool container_job_check(const struct sandbox *sandbox, const Runtime__V1__ContainerConfig *config, struct buf *note,
                         struct status *err)
{
    if (config->n_devices > 0)
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "config.devices[0].host_path: %.200s: a job gets devices from its batch system: ask by annotation "
                          "(slurm-job.vk.io/flags: --gres=..., interlink.eu/size-RESOURCE)", config->devices[0]->host_path);
    if (config->n_cdi_devices > 0)
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "config.CDI_devices[0]: %.100s: a job gets devices from its batch system: ask by annotation "
                          "(slurm-job.vk.io/flags: --gres=..., interlink.eu/size-RESOURCE)", config->cdi_devices[0]->name);
    for (size_t i = 0; i < config->n_mounts; i++) {
        if (config->mounts[i]->image != NULL && *config->mounts[i]->image->image != '\0')
            return status_set(err, STATUS_FAILED_PRECONDITION,
                              "config.mounts[%zu].image: no plugin mounts images: use JobPer: pod", i);
        if (!container_job_check_empty_dir(sandbox, config, i, err))
            return false;
    }
    if ((config->stdin || config->tty) && !sandbox->handler->inside)
        container_job_note(note, config->tty ? "config.tty" : "config.stdin", "a batch job has no input and no terminal");
    return container_job_check_strings(config, err) &&
           container_job_check_security(config->linux != NULL ? config->linux->security_context : NULL, note, err);
}

/* ---- the pod ---- */

/* The command and its folder as plugins know them: with what the image adds. */
static bool container_job_resolve(struct arena *arena, const Runtime__V1__ContainerConfig *config,
                                  const struct image_config *image, struct interlink_container *c, struct status *err)
{
    char **argv;
    size_t count;

    if (!image_config_argv(image, config->command, config->n_command, config->args, config->n_args, arena, &argv, &count, err))
        return status_prefix(err, "config");
    c->command = (struct interlink_strings){ (const char **)argv, count };
    c->working_dir = arena_strdup(arena, *config->working_dir != '\0' ? config->working_dir : image->working_dir);
    return true;
}

/* Plugins, the stock one among them, pass over workingDir. The first word alone is the command: which of two lists a plugin takes
 * for what is then no question. */
static void container_job_command(struct arena *arena, struct interlink_container *c)
{
    bool moves = *c->working_dir != '\0' && strcmp(c->working_dir, "/") != 0;
    const char **argv = ARENA_ARRAY(arena, const char *, c->command.count + 4);
    size_t n = 0;

    if (moves) {
        argv[n++] = "/bin/sh";
        argv[n++] = "-c";
        argv[n++] = CONTAINER_JOB_CD;
        argv[n++] = c->working_dir;
    }
    memcpy(argv + n, c->command.items, c->command.count * sizeof *argv);
    n += c->command.count;
    c->command = (struct interlink_strings){ argv, 1 };
    c->args = (struct interlink_strings){ argv + 1, n - 1 };
}

static void container_job_set(struct interlink_container *c, const char *name, const char *value)
{
    c->env.items[c->env.count++] = (struct interlink_pair){ name, value };
}

/* Our agent as the command; the container's own words reach it over its connection. */
static void container_job_agent(struct arena *arena, const struct container *container, struct interlink_container *c)
{
    const struct node_options *o = container->node->options;
    const char *program = container->sandbox->handler->options->program;
    const char **argv = ARENA_ARRAY(arena, const char *, 2);

    argv[0] = arena_printf(arena, CONTAINER_JOB_PROGRAM_DIR "/%s", strrchr(program, '/') + 1);
    argv[1] = "agent";
    c->command = (struct interlink_strings){ argv, 1 };
    c->args = (struct interlink_strings){ argv + 1, 1 };
    c->env.items = ARENA_ARRAY(arena, struct interlink_pair, 5);
    container_job_set(c, "INTERLINK_RELAY", o->relay_address);
    container_job_set(c, "INTERLINK_RELAY_PIN", container->node->relay_pin);
    container_job_set(c, "INTERLINK_SANDBOX", container->record->id);
    container_job_set(c, "INTERLINK_ENGINE", "inside");
    container_job_set(c, "INTERLINK_TOKEN_FILE", CONTAINER_JOB_SECRET_DIR "/token");
}

/* What the user wrote, or a name under which the image was pulled: its id means nothing elsewhere. */
static const char *container_job_image(struct arena *arena, const struct container *container)
{
    const Runtime__V1__ImageSpec *spec = container->record->config->image;
    const struct image *image = image_store_held(container->node->images, container->record->image_id);

    if (*spec->user_specified_image != '\0' && !str_starts(spec->user_specified_image, "sha256:"))
        return spec->user_specified_image;
    if (!str_starts(spec->image, "sha256:"))
        return spec->image;
    if (image != NULL && image->tag_count > 0)
        return arena_strdup(arena, image->tags[0]);
    return container->record->image_ref;
}

static void container_job_env(struct arena *arena, const Runtime__V1__ContainerConfig *config, struct interlink_container *c)
{
    c->env.items = ARENA_ARRAY(arena, struct interlink_pair, config->n_envs + 1);
    for (size_t i = 0; i < config->n_envs; i++) {
        const ProtobufCBinaryData *value = &config->envs[i]->value;
        c->env.items[c->env.count++] = (struct interlink_pair){
            config->envs[i]->key, value->len > 0 ? arena_strndup(arena, (const char *)value->data, value->len) : ""
        };
    }
}

bool container_job_fill(struct arena *arena, const struct container *container, const struct image_config *image,
                        struct interlink_create *out, struct status *err)
{
    const Interlink__State__V1__Container *record = container->record;
    const Runtime__V1__PodSandboxConfig *sandbox = container->sandbox->record->config;
    struct interlink_container *c = ARENA_NEW(arena, struct interlink_container);
    const char *flags = pb_label(sandbox->n_annotations, (void *)sandbox->annotations, SLURM_FLAGS_ANNOTATION);
    struct interlink_pair item = { SLURM_FLAGS_ANNOTATION, "" };
    struct interlink_pairs own = { &item, 0 };

    *out = (struct interlink_create)INTERLINK_CREATE_INIT;
    *c = (struct interlink_container){ .name = record->config->metadata->name, .working_dir = "", .env_from = "" };
    c->image = container_job_image(arena, container);
    out->pod.name = sandbox_job_name(arena, sandbox->metadata->name, record->id);
    out->pod.namespace_ = sandbox->metadata->namespace_;
    out->pod.uid = record->job_uid;
    out->pod.restart_policy = "Never"; /* kubelet restarts it, by a new container */
    out->pod.containers = c;
    out->pod.container_count = 1;
    /* GPUs among the limits alone are no flag to the stock plugin. */
    item.value = pre_exec_flags(arena, record->id, sandbox, record->size,
                                sandbox_job_flags(arena, record->size, flags != NULL ? flags : ""));
    own.count = *item.value != '\0' ? 1 : 0;
    sandbox_job_annotations(arena, sandbox, record->size, &own, &out->pod.annotations);
    sandbox_job_size(arena, record->size, c);
    if (container->sandbox->handler->inside)
        pre_exec_limits(arena, sandbox, &c->limits);
    else if (*interlink_pair_get(&c->limits, "memory") == '\0' &&
             pb_label(sandbox->n_annotations, (void *)sandbox->annotations, "slurm-job.vk.io/flavor") == NULL)
        c->limits.items[c->limits.count++] =
            (struct interlink_pair){ "memory", arena_printf(arena, "%" PRId64, PRE_EXEC_MEMORY) };
    if (record->size != NULL && record->size->walltime_seconds > 0)
        out->pod.active_deadline_seconds = record->size->walltime_seconds;
    if (image == NULL)
        return true;
    if (container->sandbox->handler->inside) {
        container_job_agent(arena, container, c);
        return true;
    }
    container_job_env(arena, record->config, c);
    if (!container_job_resolve(arena, record->config, image, c, err))
        return false;
    container_job_command(arena, c);
    return true;
}

bool container_job_inside(struct arena *arena, const struct container *container, const struct image_config *image,
                          Runtime__V1__ContainerConfig *out, struct status *err)
{
    const Runtime__V1__ContainerConfig *config = container->record->config;
    struct interlink_container c = { .working_dir = "" };

    if (!container_job_resolve(arena, config, image, &c, err))
        return false;
    *out = *config;
    out->n_command = c.command.count;
    out->command = (char **)(uintptr_t)c.command.items;
    out->n_args = 0;
    out->working_dir = (char *)(uintptr_t)c.working_dir;
    /* What the plugin made, or what container_job_check() has spoken about. */
    out->n_mounts = out->n_devices = out->n_cdi_devices = 0;
    out->linux = NULL;
    return true;
}

/* ---- volumes ---- */

struct container_job_volumes {
    struct arena *arena;
    const struct container *container;
    const struct volume_plan *plan;
    struct interlink_create *create;
    struct interlink_container *c;
    int fd;
    size_t bytes; /* of files so far */
};

/* A volume under a name that is a DNS label; one that is there already is used again. False: `out` is new. */
static bool container_job_volume(struct container_job_volumes *v, const char *name, struct interlink_volume **out)
{
    for (size_t i = 0; i < v->create->pod.volume_count; i++)
        if (strcmp(v->create->pod.volumes[i].name, name) == 0) {
            *out = &v->create->pod.volumes[i];
            return true;
        }
    *out = &v->create->pod.volumes[v->create->pod.volume_count++];
    **out = (struct interlink_volume){ .name = name, .source = name, .host_path_type = "", .medium = "", .size_limit = "",
                                       .other = "", .default_mode = -1 };
    return false;
}

/* Bytes of a piece, from the reader's file; on the arena. */
static bool container_job_read_piece(struct container_job_volumes *v, const struct volume_piece *piece, struct str *out,
                                     struct status *err)
{
    char *p = arena_alloc_raw(v->arena, (size_t)piece->length + 1);

    for (uint64_t done = 0; done < piece->length;) {
        ssize_t got = pread(v->fd, p + done, (size_t)(piece->length - done), (off_t)(piece->offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return status_set(err, STATUS_INTERNAL, "the files of %s cannot be read again", piece->name);
        done += (uint64_t)got;
    }
    *out = (struct str){ p, (size_t)piece->length };
    return true;
}

/* Appends bytes to the file that came last. */
static bool container_job_add_data(struct container_job_volumes *v, struct interlink_file *file, const ProtobufCBinaryData *data,
                                   struct status *err)
{
    v->bytes += data->len;
    if (v->bytes > CONTAINER_JOB_FILES_MAX)
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "the configMaps, secrets and projected volumes of this container hold more than the %u bytes that a "
                          "request to interLink carries: put large files below SharedPaths", CONTAINER_JOB_FILES_MAX);
    if (data->len == 0)
        return true;
    char *p = arena_alloc_raw(v->arena, file->data.n + data->len);
    if (file->data.n > 0)
        memcpy(p, file->data.p, file->data.n);
    memcpy(p + file->data.n, data->data, data->len);
    file->data = (struct str){ p, file->data.n + data->len };
    return true;
}

/* Files of a projected volume are in its ..data. `mode`: of the first one. */
static bool container_job_add_entry(struct container_job_volumes *v, const Interlink__Agent__V1__FileEntry *e,
                                    struct interlink_object *object, int *mode, struct status *err)
{
    static const char data[] = "..data/";

    if (!S_ISREG(e->mode) || e->path.len == 0)
        return true;
    const char *path = arena_strndup(v->arena, (const char *)e->path.data, e->path.len);
    if (!str_starts(path, data) || strchr(path + sizeof data - 1, '/') != NULL)
        return status_set(err, STATUS_FAILED_PRECONDITION, "file %.200s is in a folder, and interLink carries files without folders",
                          path);
    if ((object->file_count & (object->file_count - 1)) == 0) { /* the array is full: twice as large */
        size_t room = object->file_count > 0 ? object->file_count * 2 : 1;
        struct interlink_file *files = ARENA_ARRAY(v->arena, struct interlink_file, room);
        if (object->file_count > 0)
            memcpy(files, object->files, object->file_count * sizeof *files);
        object->files = files;
    }
    if (*mode < 0)
        *mode = (int)(e->mode & 0777);
    struct interlink_file *file = &object->files[object->file_count++];
    *file = (struct interlink_file){ .key = path + sizeof data - 1, .data = { "", 0 } };
    return container_job_add_data(v, file, &e->data, err);
}

static bool container_job_read_files(struct container_job_volumes *v, const struct volume_piece *piece,
                                     struct interlink_object *object, int *mode, struct status *err)
{
    struct str bytes = { NULL, 0 };

    if (!container_job_read_piece(v, piece, &bytes, err))
        return false;
    while (bytes.n > sizeof(uint32_t)) {
        uint32_t n;
        memcpy(&n, bytes.p, sizeof n);
        bytes = (struct str){ bytes.p + sizeof n, bytes.n - sizeof n };
        Interlink__Agent__V1__PutFilesRequest *m =
            n <= bytes.n ? interlink__agent__v1__put_files_request__unpack(NULL, n, (const uint8_t *)bytes.p) : NULL;
        if (m == NULL)
            return status_set(err, STATUS_INTERNAL, "the files of %s cannot be read again", piece->name);
        bytes = (struct str){ bytes.p + n, bytes.n - n };
        bool ok = m->data.len == 0 || object->file_count == 0 ||
                  container_job_add_data(v, &object->files[object->file_count - 1], &m->data, err);
        for (size_t i = 0; ok && i < m->n_entries; i++)
            ok = container_job_add_entry(v, m->entries[i], object, mode, err);
        protobuf_c_message_free_unpacked(&m->base, NULL);
        if (!ok)
            return false;
    }
    return true;
}

static const struct volume_piece *container_job_find_piece(const struct container_job_volumes *v, const char *name)
{
    for (size_t i = 0; i < v->plan->piece_count; i++)
        if (strcmp(v->plan->pieces[i].name, name) == 0)
            return &v->plan->pieces[i];
    return NULL;
}

/* "volumes/kubernetes.io~secret/NAME" as a volume of its kind. NULL with err OK: it is not needed there. */
static const char *container_job_copied(struct container_job_volumes *v, const char *name, struct status *err)
{
    struct interlink_create *create = v->create;
    const struct volume_piece *piece = container_job_find_piece(v, name);
    const char *last = strrchr(name, '/');
    struct interlink_volume *volume;

    if (strcmp(name, "etc-hosts") == 0)
        return NULL; /* the job has its machine's network, and so its names */
    if (str_starts(name, "volume-subpaths/")) {
        status_set(err, STATUS_FAILED_PRECONDITION, "a subPath: the stock plugin puts every file of the volume there: mount the "
                                                    "whole volume, or use JobPer: pod");
        return NULL;
    }
    if (piece == NULL || last == NULL || piece->kind != INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_PROJECTED) {
        status_set(err, STATUS_FAILED_PRECONDITION, "a single file cannot be mounted: interLink carries whole volumes");
        return NULL;
    }
    if (container_job_volume(v, arena_strdup(v->arena, last + 1), &volume))
        return volume->name;
    struct interlink_object object = { .name = volume->name,
                                       .namespace_ = create->pod.namespace_,
                                       .type = "Opaque" };
    if (!container_job_read_files(v, piece, &object, &volume->default_mode, err))
        return NULL;
    if (strstr(name, "~configmap/") != NULL) {
        volume->kind = INTERLINK_VOLUME_CONFIG_MAP;
        create->config_maps[create->config_map_count++] = object;
    } else if (strstr(name, "~secret/") != NULL) {
        volume->kind = INTERLINK_VOLUME_SECRET;
        create->secrets[create->secret_count++] = object;
    } else {
        volume->kind = INTERLINK_VOLUME_PROJECTED;
        create->projected[create->projected_count++] = object;
    }
    return volume->name;
}

/* A folder that is there under the same path; plugins mount nothing else. */
static const char *container_job_host_path(struct container_job_volumes *v, size_t mount, const char *path, struct status *err)
{
    struct interlink_volume *volume;
    struct stat st;
    bool there = stat(path, &st) == 0;

    if (there && !S_ISDIR(st.st_mode)) {
        status_set(err, STATUS_FAILED_PRECONDITION, "%.300s is no folder, and plugins mount only folders", path);
        return NULL;
    }
    container_job_volume(v, arena_printf(v->arena, "host-%zu", mount), &volume);
    volume->kind = INTERLINK_VOLUME_HOST_PATH;
    volume->source = arena_strdup(v->arena, path);
    volume->host_path_type = there ? "Directory" : "DirectoryOrCreate";
    return volume->name;
}

static const char *container_job_empty_dir(struct container_job_volumes *v, const Interlink__Agent__V1__MountSource *s,
                                           struct status *err)
{
    struct interlink_volume *volume;

    if (*s->empty_dir->sub_path != '\0') {
        status_set(err, STATUS_FAILED_PRECONDITION, "a subPath of an emptyDir: mount the whole volume, or use JobPer: pod");
        return NULL;
    }
    if (*s->empty_dir->page_size != '\0') {
        status_set(err, STATUS_FAILED_PRECONDITION, "huge pages of %.16s: no plugin gives them to a job", s->empty_dir->page_size);
        return NULL;
    }
    container_job_volume(v, arena_strdup(v->arena, s->volume), &volume);
    volume->kind = INTERLINK_VOLUME_EMPTY_DIR;
    volume->medium = s->empty_dir->memory ? "Memory" : "";
    return volume->name;
}

static bool container_job_mount(struct container_job_volumes *v, const Interlink__Agent__V1__MountSource *s, struct status *err)
{
    const Runtime__V1__Mount *m = v->container->record->config->mounts[s->mount];
    const char *name = NULL;

    switch (s->kind) {
    case INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_HOST:
        name = container_job_host_path(v, s->mount, s->path, err);
        break;
    case INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_VOLUME:
        name = container_job_copied(v, s->volume, err);
        break;
    case INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_EMPTY_DIR:
        name = container_job_empty_dir(v, s, err);
        break;
    default: /* the termination log: nobody could bring it back */
        break;
    }
    if (name != NULL)
        v->c->mounts[v->c->mount_count++] =
            (struct interlink_mount){ .name = name, .mount_path = m->container_path, .sub_path = "", .read_only = m->readonly };
    return err->code == STATUS_OK || status_prefix(err, "config.mounts[%u].host_path", (unsigned)s->mount);
}

/* The program's folder and the token, for the agent. */
static void container_job_agent_volumes(struct container_job_volumes *v)
{
    const struct handler *handler = v->container->sandbox->handler;
    const char *program = handler->options->program;
    struct interlink_create *create = v->create;
    struct interlink_volume *volume;
    struct interlink_file *token = ARENA_NEW(v->arena, struct interlink_file);

    container_job_volume(v, CONTAINER_JOB_PROGRAM, &volume);
    volume->kind = INTERLINK_VOLUME_HOST_PATH;
    volume->source = arena_strndup(v->arena, program, strrchr(program, '/') > program ? (size_t)(strrchr(program, '/') - program) : 1);
    volume->host_path_type = "Directory";
    v->c->mounts[v->c->mount_count++] = (struct interlink_mount){
        .name = CONTAINER_JOB_PROGRAM, .mount_path = CONTAINER_JOB_PROGRAM_DIR, .sub_path = "", .read_only = true };
    container_job_volume(v, SANDBOX_JOB_SECRET, &volume);
    volume->kind = INTERLINK_VOLUME_SECRET;
    volume->default_mode = 0400;
    *token = (struct interlink_file){ .key = "token", .data = str_of(v->container->record->token) };
    create->secrets[create->secret_count++] = (struct interlink_object){
        .name = SANDBOX_JOB_SECRET, .namespace_ = create->pod.namespace_, .type = "Opaque", .files = token, .file_count = 1 };
    v->c->mounts[v->c->mount_count++] = (struct interlink_mount){
        .name = SANDBOX_JOB_SECRET, .mount_path = CONTAINER_JOB_SECRET_DIR, .sub_path = "", .read_only = true };
}

static bool container_job_volumes(struct container_job_volumes *v, struct status *err)
{
    const Interlink__Agent__V1__CreateContainerRequest *sources = v->plan->request;
    size_t n = sources->n_sources + 2; /* two of the agent's */

    v->create->pod.volumes = ARENA_ARRAY(v->arena, struct interlink_volume, n);
    v->create->config_maps = ARENA_ARRAY(v->arena, struct interlink_object, n);
    v->create->secrets = ARENA_ARRAY(v->arena, struct interlink_object, n);
    v->create->projected = ARENA_ARRAY(v->arena, struct interlink_object, n);
    v->c->mounts = ARENA_ARRAY(v->arena, struct interlink_mount, n);
    for (size_t i = 0; i < sources->n_sources; i++)
        if (!container_job_mount(v, sources->sources[i], err))
            return false;
    if (v->container->sandbox->handler->inside)
        container_job_agent_volumes(v);
    return true;
}

bool container_job_write(const struct container *container, const struct image_config *image, struct buf *output,
                         struct status *err)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_close int fd = memfd_create("interlink-cri volumes", MFD_CLOEXEC);
    const struct sandbox *sandbox = container->sandbox;
    struct interlink_create create;
    struct volume_plan plan = { 0 };

    if (fd < 0)
        return status_errno(err, "no memory for the files of volumes");
    if (!container_job_fill(&arena, container, image, &create, err) ||
        !volume_plan_make(container->record->config, sandbox->record->config->metadata->uid, sandbox->handler->options->shared_paths,
                          sandbox->handler->options->name, fd, &text, err) ||
        !volume_plan_parse((struct str){ (const char *)text.p, text.n }, &plan, err))
        return false;
    struct container_job_volumes v = { .arena = &arena, .container = container, .plan = &plan, .create = &create,
                                       .c = create.pod.containers, .fd = fd };
    bool ok = container_job_volumes(&v, err);
    if (ok)
        interlink_create_write(output, &create);
    volume_plan_free(&plan);
    return ok;
}

#undef CONTAINER_JOB_CD
#undef CONTAINER_JOB_PROGRAM
#undef CONTAINER_JOB_PROGRAM_DIR
#undef CONTAINER_JOB_SECRET_DIR
