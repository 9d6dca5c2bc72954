/* SPDX-License-Identifier: Apache-2.0 */
/* images, inspecti, rmi, imagefsinfo. */
#include "cli/ctl.h"

#include "text/protojson.h"

/* ---- listing ---- */

bool ctl_image_status(struct ctl *ctl, const char *image, bool verbose, Runtime__V1__ImageStatusResponse **out,
                      struct status *err)
{
    Runtime__V1__ImageSpec spec = RUNTIME__V1__IMAGE_SPEC__INIT;
    Runtime__V1__ImageStatusRequest request = RUNTIME__V1__IMAGE_STATUS_REQUEST__INIT;

    spec.image = (char *)(uintptr_t)image;
    request.image = &spec;
    request.verbose = verbose;
    Runtime__V1__ImageStatusResponse *r = ctl_call(ctl, CTL_IMAGE, "ImageStatus", &request,
                                                   &runtime__v1__image_status_response__descriptor, CTL_CALL_TIMEOUT_MS, err);
    if (r == NULL)
        return status_prefix(err, "the status of the image %.256s", image);
    *out = r->image != NULL ? r : NULL;
    return true;
}

/* What an image is sorted by: its first tag, else its first digest, else its id. */
static const char *ctl_image_key(const Runtime__V1__Image *image)
{
    return image->n_repo_tags > 0 ? image->repo_tags[0] : image->n_repo_digests > 0 ? image->repo_digests[0] : image->id;
}

static int ctl_compare_images(const void *a, const void *b)
{
    return strcmp(ctl_image_key(*(Runtime__V1__Image *const *)a), ctl_image_key(*(Runtime__V1__Image *const *)b));
}

/* "docker.io/library/busybox" and "sha256:...". */
static void ctl_split_digest(struct ctl *ctl, const Runtime__V1__Image *image, const char **name, const char **digest)
{
    *name = *digest = "<none>";
    if (image->n_repo_digests == 0)
        return;
    const char *at = strchr(image->repo_digests[0], '@');
    if (at == NULL)
        return;
    *name = arena_strndup(&ctl->arena, image->repo_digests[0], (size_t)(at - image->repo_digests[0]));
    *digest = at + 1;
}

/* The tag is what follows the last colon; an image without tags has the name of its digest. */
static void ctl_split_tag(struct ctl *ctl, const Runtime__V1__Image *image, size_t i, const char **name, const char **tag)
{
    const char *digest, *colon = i < image->n_repo_tags ? strrchr(image->repo_tags[i], ':') : NULL;

    if (colon != NULL) {
        *name = arena_strndup(&ctl->arena, image->repo_tags[i], (size_t)(colon - image->repo_tags[i]));
        *tag = colon + 1;
    } else {
        ctl_split_digest(ctl, image, name, &digest);
        *tag = "<none>";
    }
}

/* ---- --filter ---- */

/* Is this the image that before= or since= names: NAME:TAG, NAME@DIGEST, or the beginning of an id? */
static bool ctl_is_named(struct ctl *ctl, const Runtime__V1__Image *image, const char *text)
{
    const char *name, *tag;

    if (strchr(text, '@') != NULL)
        return image->n_repo_digests > 0 && str_starts(image->repo_digests[0], text);
    if (strchr(text, ':') == NULL)
        return str_starts(image->id, text) || (str_starts(image->id, "sha256:") && str_starts(image->id + 7, text));
    ctl_split_tag(ctl, image, 0, &name, &tag);
    return strcmp(arena_printf(&ctl->arena, "%s:%s", name, tag), text) == 0;
}

/* crictl's meaning: `since` keeps what is listed before the image, `before` what is listed behind it. */
static void ctl_cut_images(struct ctl *ctl, const char *text, bool since, Runtime__V1__Image **images, size_t *count)
{
    size_t at = 0;

    while (at < *count && !ctl_is_named(ctl, images[at], text))
        at++;
    if (since) {
        *count = at;
    } else if (at < *count) {
        *count -= at + 1;
        memmove(images, images + at + 1, *count * sizeof *images);
    }
}

static bool ctl_filter_images(struct ctl *ctl, const char *filter, Runtime__V1__Image **images, size_t *count,
                              struct status *err)
{
    const char *value = strchr(filter, '=');
    size_t n = 0;

    if (str_starts(filter, "since=") || str_starts(filter, "before=")) {
        ctl_cut_images(ctl, value + 1, *filter == 's', images, count);
        return true;
    }
    if (!str_starts(filter, "dangling=") && !str_starts(filter, "reference="))
        return status_set(err, STATUS_INVALID_ARGUMENT,
                          "--filter \"%.128s\": wanted dangling=, reference=, before= or since=", filter);
    for (size_t i = 0; i < *count; i++) {
        const char *name, *digest;
        bool keep = images[i]->n_repo_tags > 0 ? strcmp(value + 1, "false") == 0 : strcmp(value + 1, "true") == 0;
        ctl_split_digest(ctl, images[i], &name, &digest);
        if (*filter == 'r' && !ctl_match(value + 1, name, &keep, err))
            return false;
        if (keep)
            images[n++] = images[i];
    }
    *count = n;
    return true;
}

static Runtime__V1__ListImagesResponse *ctl_list_images(struct ctl *ctl, const char *name, struct status *err)
{
    Runtime__V1__ImageSpec spec = RUNTIME__V1__IMAGE_SPEC__INIT;
    Runtime__V1__ImageFilter filter = RUNTIME__V1__IMAGE_FILTER__INIT;
    Runtime__V1__ListImagesRequest request = RUNTIME__V1__LIST_IMAGES_REQUEST__INIT;

    spec.image = (char *)(uintptr_t)name;
    filter.image = &spec;
    request.filter = &filter;
    Runtime__V1__ListImagesResponse *r = ctl_call(ctl, CTL_IMAGE, "ListImages", &request,
                                                  &runtime__v1__list_images_response__descriptor, CTL_CALL_TIMEOUT_MS, err);
    if (r == NULL) {
        status_prefix(err, "listing images");
        return NULL;
    }
    if (r->n_images > 0)
        qsort(r->images, r->n_images, sizeof(Runtime__V1__Image *), ctl_compare_images);
    for (size_t i = 0; i < ctl->flags.filters.count; i++)
        if (!ctl_filter_images(ctl, ctl->flags.filters.items[i], r->images, &r->n_images, err))
            return NULL;
    return r;
}

/* ---- images ---- */

static void ctl_print_image(struct ctl *ctl, const Runtime__V1__Image *image)
{
    struct buf *out = &ctl->out;

    buf_printf(out, "ID: %s\n", image->id);
    for (size_t i = 0; i < image->n_repo_tags; i++)
        buf_printf(out, "RepoTags: %s\n", image->repo_tags[i]);
    for (size_t i = 0; i < image->n_repo_digests; i++)
        buf_printf(out, "RepoDigests: %s\n", image->repo_digests[i]);
    if (image->size != 0)
        buf_printf(out, "Size: %" PRIu64 "\n", image->size);
    if (image->uid != NULL)
        buf_printf(out, "Uid: %" PRId64 "\n", image->uid->value);
    if (*image->username != '\0')
        buf_printf(out, "Username: %s\n", image->username);
    if (image->pinned)
        buf_append_str(out, "Pinned: true\n");
    buf_append_byte(out, '\n');
}

static void ctl_print_image_table(struct ctl *ctl, const Runtime__V1__ListImagesResponse *r)
{
    const struct ctl_flags *f = &ctl->flags;
    const char *titles[6] = { "IMAGE", "TAG" };
    size_t columns = 2;

    if (f->digests)
        titles[columns++] = "DIGEST";
    titles[columns++] = "IMAGE ID";
    titles[columns++] = "SIZE";
    if (f->pinned)
        titles[columns++] = "PINNED";
    struct ctl_table table = ctl_table_new(ctl, titles, columns);
    for (size_t i = 0; i < r->n_images; i++) {
        const Runtime__V1__Image *image = r->images[i];
        const char *name, *digest, *cells[6];
        for (size_t k = 0; k == 0 || k < image->n_repo_tags; k++) {
            size_t n = 2;
            ctl_split_digest(ctl, image, &name, &digest);
            ctl_split_tag(ctl, image, k, &cells[0], &cells[1]);
            if (f->digests)
                cells[n++] = ctl_short_id(ctl, digest);
            cells[n++] = ctl_short_id(ctl, image->id);
            cells[n++] = ctl_size(ctl, (double)image->size, 3);
            if (f->pinned)
                cells[n++] = image->pinned ? "true" : "false";
            ctl_table_row(&table, cells);
        }
    }
    ctl_table_print(&table);
}

int ctl_images(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    enum ctl_format format;
    const Runtime__V1__ListImagesResponse *r = NULL;

    if (ctl_format(ctl, CTL_TABLE, &format, &err))
        r = ctl_list_images(ctl, count > 0 ? arguments[0] : "", &err);
    if (r == NULL)
        return ctl_fail(ctl, &err);
    if (format != CTL_TABLE) {
        ctl_print_message(ctl, &r->base, format);
    } else if (ctl->flags.quiet || ctl->flags.verbose) {
        for (size_t i = 0; i < r->n_images; i++)
            if (ctl->flags.quiet)
                buf_printf(&ctl->out, "%s\n", r->images[i]->id);
            else
                ctl_print_image(ctl, r->images[i]);
    } else {
        ctl_print_image_table(ctl, r);
    }
    return 0;
}

/* ---- inspecti ---- */

static void ctl_print_image_status(struct ctl *ctl, const Runtime__V1__ImageStatusResponse *r)
{
    const Runtime__V1__Image *image = r->image;
    struct buf *out = &ctl->out;

    buf_printf(out, "ID: %s\n", image->id);
    for (size_t i = 0; i < image->n_repo_tags; i++)
        buf_printf(out, "Tag: %s\n", image->repo_tags[i]);
    for (size_t i = 0; i < image->n_repo_digests; i++)
        buf_printf(out, "Digest: %s\n", image->repo_digests[i]);
    buf_printf(out, "Size: %s\n", ctl_size(ctl, (double)image->size, 3));
    ctl_print_pairs(ctl, "Info", r->info, r->n_info);
}

static bool ctl_inspecti_ids(struct ctl *ctl, const char *const **ids, size_t *count, struct status *err)
{
    const Runtime__V1__ListImagesResponse *all = ctl_list_images(ctl, ctl->flags.name, err);

    if (all == NULL)
        return false;
    const char **list = ARENA_ARRAY(&ctl->arena, const char *, all->n_images + 1);
    for (size_t i = 0; i < all->n_images; i++)
        list[i] = all->images[i]->id;
    *ids = list;
    *count = all->n_images;
    return true;
}

static bool ctl_inspecti_show(struct ctl *ctl, const char *id, bool text, struct json **tree, struct status *err)
{
    Runtime__V1__ImageStatusResponse *r = NULL;

    if (!ctl_image_status(ctl, id, !ctl->flags.quiet, &r, err))
        return false;
    if (r == NULL)
        return status_set(err, STATUS_NOT_FOUND, "no image %.256s is here: `ctl images` lists those that are", id);
    if (text)
        ctl_print_image_status(ctl, r);
    else
        *tree = ctl_status_tree(ctl, ctl_tree(ctl, r->image, PROTOJSON_EMIT_DEFAULTS), r->info, r->n_info);
    return true;
}

int ctl_inspecti(void *context, const char *const *arguments, size_t count)
{
    static const struct ctl_inspection kind = { "image", ctl_inspecti_ids, ctl_inspecti_show };

    return ctl_inspect_each(context, &kind, arguments, count);
}

/* ---- rmi ---- */

static bool ctl_remove_image(struct ctl *ctl, const char *text, struct status *err)
{
    Runtime__V1__ImageSpec spec = RUNTIME__V1__IMAGE_SPEC__INIT;
    Runtime__V1__RemoveImageRequest request = RUNTIME__V1__REMOVE_IMAGE_REQUEST__INIT;
    Runtime__V1__ImageStatusResponse *r = NULL;

    if (!ctl_image_status(ctl, text, false, &r, err))
        return false;
    if (r == NULL)
        return status_set(err, STATUS_NOT_FOUND, "no image %.256s is here: `ctl images` lists those that are", text);
    const Runtime__V1__Image *image = r->image;
    if (image->n_repo_tags > 1 && !str_starts(text, "sha256:") && strpbrk(text, ":/") != NULL)
        ctl_warn(ctl, "%s has %zu tags: all of them go", text, image->n_repo_tags);
    spec.image = (char *)(uintptr_t)text;
    request.image = &spec;
    if (ctl_call(ctl, CTL_IMAGE, "RemoveImage", &request, &runtime__v1__remove_image_response__descriptor,
                 CTL_CALL_TIMEOUT_MS, err) == NULL)
        return status_prefix(err, "removing the image %.256s", text);
    for (size_t i = 0; i < image->n_repo_tags; i++)
        buf_printf(&ctl->out, "Deleted: %s\n", image->repo_tags[i]);
    for (size_t i = 0; i < image->n_repo_digests && image->n_repo_tags == 0; i++)
        buf_printf(&ctl->out, "Deleted: %s\n", image->repo_digests[i]);
    return true;
}

/* --prune: true when a container uses the image. */
static bool ctl_image_used(struct ctl *ctl, const char *id, Runtime__V1__Container *const *containers, size_t count,
                           bool *used, struct status *err)
{
    *used = false;
    for (size_t i = 0; i < count && !*used; i++) {
        Runtime__V1__ImageStatusResponse *r = NULL;
        const char *image = containers[i]->image != NULL ? containers[i]->image->image : "";
        if (!ctl_image_status(ctl, image, false, &r, err))
            return false;
        *used = r != NULL && strcmp(r->image->id, id) == 0;
    }
    return true;
}

/* The images that --all or --prune stand for. */
static bool ctl_images_to_remove(struct ctl *ctl, const char *const **ids, size_t *count, struct status *err)
{
    const Runtime__V1__ListImagesResponse *all = ctl_list_images(ctl, "", err);
    bool prune = ctl->flags.prune;
    Runtime__V1__Container **containers = NULL;
    size_t container_count = 0;

    ctl->flags.all = true; /* containers of any state */
    if (all == NULL || (prune && !ctl_list_containers(ctl, &containers, &container_count, err)))
        return false;
    const char **list = ARENA_ARRAY(&ctl->arena, const char *, all->n_images + 1);
    *count = 0;
    for (size_t i = 0; i < all->n_images; i++) {
        bool used = false;
        if (prune && !ctl_image_used(ctl, all->images[i]->id, containers, container_count, &used, err))
            return false;
        if (!used && !(prune && all->images[i]->pinned))
            list[(*count)++] = all->images[i]->id;
    }
    *ids = list;
    return true;
}

int ctl_rmi(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    int result = 0;

    if (ctl->flags.all || ctl->flags.prune) {
        if (!ctl_images_to_remove(ctl, &arguments, &count, &err))
            return ctl_fail(ctl, &err);
        if (count == 0)
            fputs("No images to remove\n", stderr);
    } else if (count == 0) {
        status_set(&err, STATUS_INVALID_ARGUMENT, "which images? IMAGE-ID [IMAGE-ID...], --all or --prune");
        return ctl_fail(ctl, &err);
    }
    for (size_t i = 0; i < count; i++)
        /* A pruned image may be gone, or in use again, by now. */
        if (!ctl_remove_image(ctl, arguments[i], &err) && !ctl->flags.prune)
            result = ctl_fail(ctl, &err);
    return result;
}

/* ---- imagefsinfo ---- */

static void ctl_print_filesystems(struct ctl *ctl, const char *title, Runtime__V1__FilesystemUsage *const *list, size_t count)
{
    struct buf *out = &ctl->out;

    buf_printf(out, "%s Filesystem\n", title);
    for (size_t i = 0; i < count; i++) {
        const Runtime__V1__FilesystemUsage *u = list[i];
        buf_printf(out, "TimeStamp[%zu]: %" PRId64 "\n", i, u->timestamp);
        buf_printf(out, "Disk[%zu]: %s\n", i, ctl_size(ctl, u->used_bytes != NULL ? (double)u->used_bytes->value : 0, 4));
        buf_printf(out, "Inodes[%zu]: %" PRIu64 "\n", i, u->inodes_used != NULL ? u->inodes_used->value : 0);
        buf_printf(out, "Mountpoint[%zu]: %s\n", i, u->fs_id != NULL ? u->fs_id->mountpoint : "");
    }
}

int ctl_imagefsinfo(void *context, const char *const *arguments, size_t count)
{
    struct ctl *ctl = context;
    struct status err = STATUS_INIT;
    enum ctl_format format;
    Runtime__V1__ImageFsInfoRequest request = RUNTIME__V1__IMAGE_FS_INFO_REQUEST__INIT;
    const Runtime__V1__ImageFsInfoResponse *r = NULL;
    (void)arguments;
    (void)count;

    if (ctl_format(ctl, CTL_JSON, &format, &err))
        r = ctl_call(ctl, CTL_IMAGE, "ImageFsInfo", &request, &runtime__v1__image_fs_info_response__descriptor,
                     CTL_CALL_TIMEOUT_MS, &err);
    if (r == NULL)
        return ctl_fail(ctl, &err);
    if (format == CTL_TABLE) {
        ctl_print_filesystems(ctl, "Container", r->container_filesystems, r->n_container_filesystems);
        ctl_print_filesystems(ctl, "Image", r->image_filesystems, r->n_image_filesystems);
        return 0;
    }
    struct json *tree = ctl_status_tree(ctl, ctl_tree(ctl, r, PROTOJSON_EMIT_DEFAULTS), NULL, 0);
    ctl_print_trees(ctl, &tree, 1, format);
    return 0;
}
