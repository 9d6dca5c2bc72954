/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes as kubelet would have written them, sent by PutFiles. A whole volume is one that can change at once; what a subPath names
 * is a volume of its own, since a mount of it shows what was there when it was made. */
#include "agent/podrun_internal.h"

#include <sys/stat.h>

#include "agent/files_writer.h"

struct podrun_files {
    struct podrun *run;
    void (*done)(struct podrun *run, const struct status *err);
    struct rpc_request *request;
    struct strmap sent; /* names of volumes */
};

struct podrun_file {
    const char *path; /* within the volume */
    struct str data;
    int mode; /* < 0: the volume's */
};

/* ---- which files ---- */

static int podrun_file_mode(const struct interlink_volume *v, int mode)
{
    return mode >= 0 ? mode : v->default_mode >= 0 ? v->default_mode : INTERLINK_DEFAULT_MODE;
}

/* The volume's files: its object's keys, or those that `items` names, under their paths there. */
static size_t podrun_files_list(struct arena *arena, const struct podspec *spec, const struct interlink_volume *v, struct podrun_file **out)
{
    const struct interlink_object *object = podspec_object(spec, v);
    size_t count = 0, max = object == NULL ? 0 : v->item_count > 0 ? v->item_count : object->file_count;

    *out = ARENA_ARRAY(arena, struct podrun_file, max + 1);
    for (size_t i = 0; i < max && v->item_count == 0; i++)
        (*out)[count++] = (struct podrun_file){ object->files[i].key, object->files[i].data, podrun_file_mode(v, -1) };
    for (size_t i = 0; i < max && v->item_count > 0; i++)
        for (size_t k = 0; k < object->file_count; k++)
            if (strcmp(object->files[k].key, v->items[i].key) == 0)
                (*out)[count++] = (struct podrun_file){ v->items[i].path, object->files[k].data, podrun_file_mode(v, v->items[i].mode) };
    return count;
}

const char *podrun_files_name(struct arena *arena, const struct podspec *spec, size_t container, size_t mount)
{
    const struct interlink_mount *m = &spec->containers[container].base->mounts[mount];

    return m->sub_path[0] == '\0' ? m->name : arena_printf(arena, "%s/%zu-%zu", m->name, container, mount);
}

/* ---- sending ---- */

static void podrun_files_entry(struct podrun_files *f, const struct podspec *spec, Interlink__Agent__V1__PutFilesStart *start,
                               const char *path, uint32_t mode, struct str data)
{
    Interlink__Agent__V1__PutFilesRequest request = INTERLINK__AGENT__V1__PUT_FILES_REQUEST__INIT;
    Interlink__Agent__V1__FileEntry entry = INTERLINK__AGENT__V1__FILE_ENTRY__INIT, *entries[1] = { &entry };

    entry.path = (ProtobufCBinaryData){ strlen(path), (uint8_t *)(uintptr_t)path };
    entry.mode = mode;
    if (spec->fs_group >= 0) {
        entry.gid = (uint32_t)spec->fs_group;
        entry.mode |= S_ISDIR(mode) ? 02070 : 0040;
    }
    entry.size = data.n;
    entry.data = (ProtobufCBinaryData){ data.n, (uint8_t *)(uintptr_t)data.p };
    request.start = start;
    request.n_entries = 1;
    request.entries = entries;
    rpc_request_send(f->request, &request.base);
}

/* The folders that a path lies in, each once. */
static void podrun_files_parents(struct podrun_files *f, const struct podspec *spec, struct strmap *made, const char *path)
{
    for (const char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        cleanup_free char *folder = xstrndup(path, (size_t)(slash - path));
        if (strmap_put(made, folder, f) == NULL)
            podrun_files_entry(f, spec, NULL, folder, S_IFDIR | 0755, STR(""));
    }
}

/* `sub`: "" for all of it. */
static void podrun_files_send(struct podrun_files *f, const char *name, const struct interlink_volume *v, const char *sub)
{
    const struct podspec *spec = &f->run->spec;
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_strmap struct strmap made = STRMAP_INIT;
    Interlink__Agent__V1__PutFilesStart start = INTERLINK__AGENT__V1__PUT_FILES_START__INIT;
    const char *root = sub[0] == '\0' ? "..data/" : "";
    size_t n = strlen(sub), count;
    struct podrun_file *files;

    if (strmap_put(&f->sent, name, f) != NULL)
        return;
    count = podrun_files_list(&arena, spec, v, &files);
    start.volume = (char *)(uintptr_t)name;
    start.version = (char *)(uintptr_t)"1";
    for (size_t i = 0; i < count; i++)
        if (strcmp(files[i].path, sub) == 0) {
            start.kind = INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_FILE;
            podrun_files_entry(f, spec, &start, "", S_IFREG | (uint32_t)files[i].mode, files[i].data);
            return;
        }
    start.kind = sub[0] == '\0' ? INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_PROJECTED : INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_FOLDER;
    podrun_files_entry(f, spec, &start, "", S_IFDIR | 0755, STR(""));
    if (sub[0] == '\0')
        podrun_files_entry(f, spec, NULL, "..data", S_IFDIR | 0755, STR(""));
    strmap_put(&made, "..data", f);
    for (size_t i = 0; i < count; i++) {
        const char *path = files[i].path;
        if (n > 0 && (strncmp(path, sub, n) != 0 || path[n] != '/'))
            continue;
        path = arena_printf(&arena, "%s%s", root, n > 0 ? path + n + 1 : path);
        podrun_files_parents(f, spec, &made, path);
        podrun_files_entry(f, spec, NULL, path, S_IFREG | (uint32_t)files[i].mode, files[i].data);
    }
}

static void podrun_files_on_finish(void *arg, const struct status *status)
{
    struct podrun_files *f = arg;
    struct podrun *run = f->run;
    void (*done)(struct podrun *, const struct status *) = f->done;

    strmap_free(&f->sent);
    free(f);
    done(run, status->code == STATUS_OK ? NULL : status);
}

void podrun_files_put(struct podrun *run, void (*done)(struct podrun *run, const struct status *err))
{
    struct podrun_files *f = xcalloc(1, sizeof *f);
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/PutFiles",
        .output = &interlink__agent__v1__put_files_response__descriptor,
        .on_finish = podrun_files_on_finish,
        .arg = f,
    };
    bool any = false;

    f->run = run;
    f->done = done;
    for (size_t i = 0; i < run->spec.count; i++) {
        const struct interlink_container *c = run->spec.containers[i].base;
        for (size_t k = 0; k < c->mount_count; k++) {
            const struct interlink_volume *v = podspec_volume(&run->spec, c->mounts[k].name);
            cleanup_arena struct arena arena = ARENA_INIT;
            if (v->kind == INTERLINK_VOLUME_EMPTY_DIR || v->kind == INTERLINK_VOLUME_HOST_PATH)
                continue;
            if (!any)
                f->request = rpc_request_start(run->conn, &options);
            any = true;
            podrun_files_send(f, podrun_files_name(&arena, &run->spec, i, k), v, c->mounts[k].sub_path);
        }
    }
    if (any)
        rpc_request_half_close(f->request);
    else
        podrun_files_on_finish(f, &(struct status)STATUS_INIT);
}
