/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cdi.h"

#include "io/file.h"

#include <dirent.h>

const char *const cdi_default_dirs[] = { "/etc/cdi", "/var/run/cdi", NULL };

#define CDI_ANNOTATION "cdi.k8s.io/"
/* A file of a machine with many devices has some hundred KiB; more files than these are no configuration any more. */
#define CDI_FILE_MAX (1u << 20)
#define CDI_FILES_MAX 256
/* Devices of one container. */
#define CDI_DEVICES_MAX 512

/* ---- which devices ---- */

struct cdi_wish {
    const char *name, *field;
};

struct cdi_wishes {
    struct cdi_wish *wishes;
    size_t count;
};

/* One that was named before counts once. */
static bool cdi_wish_add(struct cdi_wishes *w, const char *name, const char *field, struct status *err)
{
    size_t ignored;

    for (size_t i = 0; i < w->count; i++)
        if (strcmp(w->wishes[i].name, name) == 0)
            return true;
    if (!cdi_name_split(name, &ignored))
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s: \"%.100s\" is not a name like vendor.com/class=device", field, name);
    if (w->count == CDI_DEVICES_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s: more than %d devices", field, CDI_DEVICES_MAX);
    w->wishes[w->count++] = (struct cdi_wish){ name, field };
    return true;
}

static bool cdi_wishes_of(const Runtime__V1__ContainerConfig *config, struct arena *arena, struct cdi_wishes *out,
                          struct status *err)
{
    *out = (struct cdi_wishes){ .wishes = ARENA_ARRAY(arena, struct cdi_wish, CDI_DEVICES_MAX) };
    for (size_t i = 0; i < config->n_cdi_devices; i++)
        if (!cdi_wish_add(out, config->cdi_devices[i]->name, arena_printf(arena, "CDI_devices[%zu]", i), err))
            return false;
    for (size_t i = 0; i < config->n_annotations; i++) {
        const char *key = config->annotations[i]->key;
        if (!str_starts(key, CDI_ANNOTATION))
            continue;
        char *list = arena_strdup(arena, config->annotations[i]->value), *save = NULL;
        const char *field = arena_printf(arena, "annotations[%.100s]", key);
        for (char *name = strtok_r(list, ",", &save); name != NULL; name = strtok_r(NULL, ",", &save))
            if (!cdi_wish_add(out, name, field, err))
                return false;
    }
    return true;
}

bool cdi_wanted(const Runtime__V1__ContainerConfig *config)
{
    bool wanted = config->n_cdi_devices > 0;

    for (size_t i = 0; i < config->n_annotations && !wanted; i++)
        wanted = str_starts(config->annotations[i]->key, CDI_ANNOTATION);
    return wanted;
}

/* ---- the files ---- */

struct cdi_file {
    const char *path;
    size_t folder; /* the later one counts */
    struct cdi_spec spec;
    bool used; /* its own edits are in */
};

struct cdi_files {
    struct cdi_file *files;
    size_t count;
    struct buf broken; /* what cannot be used, and why; for the message about a device that is not found */
};

static void cdi_file_load(struct cdi_files *f, struct arena *arena, const char *path, size_t folder)
{
    struct buf text cleanup_buf = BUF_INIT;
    struct status err = STATUS_INIT;
    struct cdi_file file = { .path = path, .folder = folder };

    if (file_read(path, CDI_FILE_MAX, &text, &err) &&
        cdi_spec_read(arena, (struct str){ (const char *)text.p, text.n }, str_ends(path, ".json"), &file.spec, &err)) {
        f->files[f->count++] = file;
        return;
    }
    log_warn("CDI: %s cannot be used: %s", path, err.message);
    buf_printf(&f->broken, "; %s cannot be used: %s", path, err.message);
}

static int cdi_filter(const struct dirent *entry)
{
    return entry->d_name[0] != '.' && (str_ends(entry->d_name, ".json") || str_ends(entry->d_name, ".yaml"));
}

/* A folder that is not there has no files. */
static void cdi_folder_load(struct cdi_files *f, struct arena *arena, const char *dir, size_t folder)
{
    struct dirent **entries = NULL;
    int count = scandir(dir, &entries, cdi_filter, alphasort);

    if (count < 0 && errno != ENOENT && errno != ENOTDIR)
        buf_printf(&f->broken, "; %s cannot be read: %s", dir, strerror(errno));
    for (int i = 0; i < count; i++) {
        if (f->count < CDI_FILES_MAX)
            cdi_file_load(f, arena, arena_printf(arena, "%s/%s", dir, entries[i]->d_name), folder);
        else if (i + 1 == count)
            buf_printf(&f->broken, "; only the first %d files were read", CDI_FILES_MAX);
        free(entries[i]);
    }
    free(entries);
}

/* ---- finding ---- */

static const struct cdi_device *cdi_file_device(const struct cdi_file *file, const char *name)
{
    size_t kind;

    if (!cdi_name_split(name, &kind) || strlen(file->spec.kind) != kind || memcmp(file->spec.kind, name, kind) != 0)
        return NULL;
    for (size_t i = 0; i < file->spec.device_count; i++)
        if (strcmp(file->spec.devices[i].name, name + kind + 1) == 0)
            return &file->spec.devices[i];
    return NULL;
}

static const struct cdi_device *cdi_find(struct cdi_files *f, const struct cdi_wish *wish, const char *const *dirs,
                                         struct cdi_file **file, struct status *err)
{
    const struct cdi_device *found = NULL;
    const char *other = NULL;

    for (size_t i = 0; i < f->count; i++) {
        const struct cdi_device *device = cdi_file_device(&f->files[i], wish->name);
        if (device == NULL)
            continue;
        other = found != NULL && (*file)->folder == f->files[i].folder ? (*file)->path : NULL;
        found = device;
        *file = &f->files[i];
    }
    if (other != NULL) {
        status_set(err, STATUS_FAILED_PRECONDITION, "%s: \"%.100s\" is in two files: %s and %s", wish->field, wish->name, other,
                   (*file)->path);
        return NULL;
    }
    if (found == NULL)
        status_set(err, STATUS_FAILED_PRECONDITION, "%s: no file in %s%s%s of this machine has a device \"%.100s\"%.600s", wish->field,
                   dirs[0] != NULL ? dirs[0] : "", dirs[0] != NULL && dirs[1] != NULL ? " or " : "",
                   dirs[0] != NULL && dirs[1] != NULL ? dirs[1] : "", wish->name, buf_cstr(&f->broken));
    return found;
}

static bool cdi_collect_from(struct cdi_files *f, const struct cdi_wishes *wishes, const char *const *dirs, struct arena *arena,
                             struct cdi_edits *out, struct status *err)
{
    for (size_t i = 0; i < wishes->count; i++) {
        struct cdi_file *file = NULL;
        const struct cdi_device *device = cdi_find(f, &wishes->wishes[i], dirs, &file, err);
        if (device == NULL)
            return false;
        if (!file->used)
            cdi_edits_add(arena, out, &file->spec.edits);
        file->used = true;
        cdi_edits_add(arena, out, &device->edits);
        if (out->refused != NULL)
            return status_set(err, STATUS_FAILED_PRECONDITION, "%s: \"%.100s\": %s of %s cannot be applied by this program",
                              wishes->wishes[i].field, wishes->wishes[i].name, out->refused, file->path);
    }
    return true;
}

bool cdi_collect(const Runtime__V1__ContainerConfig *config, const char *const *dirs, struct arena *arena, struct cdi_edits *out,
                 struct status *err)
{
    struct cdi_wishes wishes;
    struct cdi_files files = { .broken = BUF_INIT };

    *out = (struct cdi_edits){ .env_count = 0 };
    if (!cdi_wanted(config))
        return true;
    if (!cdi_wishes_of(config, arena, &wishes, err))
        return false;
    files.files = ARENA_ARRAY(arena, struct cdi_file, CDI_FILES_MAX);
    for (size_t i = 0; dirs[i] != NULL; i++)
        cdi_folder_load(&files, arena, dirs[i], i);
    bool ok = cdi_collect_from(&files, &wishes, dirs, arena, out, err);
    buf_free(&files.broken);
    return ok;
}

#undef CDI_ANNOTATION
#undef CDI_FILE_MAX
#undef CDI_FILES_MAX
#undef CDI_DEVICES_MAX
