/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/job_images.h"

#include <unistd.h>

#include "image/load.h"
#include "image/pull.h"
#include "image/store.h"
#include "io/file.h"
#include "plugin/backend_common.h"
#include "plugin/job_files.h"
#include "text/json.h"

/* A name that some pod wants. */
struct job_image {
    struct list link;
    struct job_images *all;
    char *name; /* owned */
    struct image_pull *pull;
    struct image_load *load;
    struct timer retry;
    int64_t pause_ms;
};

/* One of a pod's images. Its id stays what it was, whatever the name means later. */
struct job_image_want {
    struct job_image *image;
    char id[DIGEST_TEXT_SIZE];
    char reason[32];
    char message[512];
};

struct job_images_pod {
    struct list link;
    char uid[INTERLINK_UID_MAX + 1];
    struct job_image_want *wants; /* owned */
    size_t count;
};

struct job_images {
    struct loop *loop;
    char *dir, *root; /* owned; the plugin's folder, the store's */
    struct image_store *store; /* NULL until some pod needs it */
    struct registry_options registries;
    struct list images, pods;
    struct strmap by_uid;
};

static void job_image_fetch(struct job_image *image);

/* ---- telling the agents ---- */

static void job_images_write(const struct job_images *ji, const struct job_images_pod *pod)
{
    cleanup_free char *path = xasprintf("%s/jobs/%s/images.json", ji->dir, pod->uid);
    cleanup_buf struct buf text = BUF_INIT;
    struct json_writer w;
    struct status err = STATUS_INIT;

    json_writer_init(&w, &text, 0);
    json_write_object(&w);
    for (size_t i = 0; i < pod->count; i++) {
        const struct job_image_want *want = &pod->wants[i];
        if (want->id[0] == '\0' && want->reason[0] == '\0')
            continue;
        json_write_member_object(&w, want->image->name);
        json_write_member_string(&w, want->id[0] != '\0' ? "id" : "reason", want->id[0] != '\0' ? want->id : want->reason);
        if (want->id[0] == '\0')
            json_write_member_string(&w, "message", want->message);
        json_write_end(&w);
    }
    json_write_end(&w);
    /* A folder that is not there yet, or not any more: the pod is being submitted or removed. */
    if (!file_write_atomic(path, text.p, text.n, 0600, &err))
        log_debug("%s", err.message);
}

/* Held under the pod's uid. */
static bool job_images_give(struct job_images *ji, struct job_images_pod *pod, struct job_image_want *want, const char *id)
{
    struct status err = STATUS_INIT;

    if (!image_store_hold(ji->store, id, pod->uid, &err)) {
        snprintf(want->reason, sizeof want->reason, "ErrImagePull");
        snprintf(want->message, sizeof want->message, "%.511s", err.message);
        return false;
    }
    snprintf(want->id, sizeof want->id, "%s", id);
    return true;
}

/* Everybody who waits for the image. */
static void job_image_result(struct job_image *image, const char *id, const char *reason, const char *message)
{
    struct job_images *ji = image->all;

    for (LIST_EACH(struct job_images_pod, pod, &ji->pods, link)) {
        bool changed = false;
        for (size_t i = 0; i < pod->count; i++) {
            struct job_image_want *want = &pod->wants[i];
            if (want->image != image || want->id[0] != '\0')
                continue;
            snprintf(want->reason, sizeof want->reason, "%s", reason);
            snprintf(want->message, sizeof want->message, "%.511s", message);
            if (id != NULL)
                job_images_give(ji, pod, want, id);
            changed = true;
        }
        if (changed)
            job_images_write(ji, pod);
    }
}

static bool job_image_wanted(const struct job_image *image)
{
    for (LIST_EACH(struct job_images_pod, pod, &image->all->pods, link))
        for (size_t i = 0; i < pod->count; i++)
            if (pod->wants[i].image == image && pod->wants[i].id[0] == '\0')
                return true;
    return false;
}

/* ---- fetching ---- */

static void job_image_retry(void *arg)
{
    struct job_image *image = arg;

    if (job_image_wanted(image))
        job_image_fetch(image);
}

static void job_image_done(struct job_image *image, const char *id, const struct status *err)
{
    char message[512];

    image->pull = NULL;
    image->load = NULL;
    if (err == NULL) {
        image->pause_ms = 0;
        job_image_result(image, id, "", "");
        return;
    }
    log_warn("image %s: %s", image->name, err->message);
    bool again = image->pause_ms > 0;
    image->pause_ms = again ? image->pause_ms * 2 : PODRUN_BACKOFF_MIN_MS;
    image->pause_ms = image->pause_ms < PODRUN_BACKOFF_MAX_MS ? image->pause_ms : PODRUN_BACKOFF_MAX_MS;
    snprintf(message, sizeof message, "image %.120s: %.360s", image->name, err->message);
    job_image_result(image, NULL, again ? "ImagePullBackOff" : "ErrImagePull", message);
    timer_start(image->all->loop, &image->retry, image->pause_ms, job_image_retry, image);
}

static void job_image_on_pulled(void *arg, const char *image_id, const struct status *err)
{
    job_image_done(arg, image_id, err);
}

static void job_image_on_loaded(void *arg, const char *const *ids, size_t count, const struct status *err)
{
    struct status none = STATUS_INIT;

    if (err == NULL && count == 0) {
        status_set(&none, STATUS_FAILED_PRECONDITION, "there is no image in it for this machine");
        err = &none;
    }
    job_image_done(arg, count > 0 ? ids[0] : NULL, err);
}

static void job_image_fetch(struct job_image *image)
{
    struct job_images *ji = image->all;

    timer_stop(&image->retry);
    if (image->pull != NULL || image->load != NULL)
        return;
    if (image->name[0] == '/')
        image->load = image_load_start(ji->store, &(struct image_load_options){ .path = image->name, .on_done = job_image_on_loaded,
                                                                                .arg = image });
    else
        image->pull = image_pull_start(ji->store, &(struct image_pull_options){ .reference = image->name, .timeout_ms = INT64_MAX,
                                                                                .registries = &ji->registries,
                                                                                .on_done = job_image_on_pulled, .arg = image });
}

/* ---- pods ---- */

static struct job_image *job_images_image(struct job_images *ji, const char *name)
{
    for (LIST_EACH(struct job_image, image, &ji->images, link))
        if (strcmp(image->name, name) == 0)
            return image;
    struct job_image *image = xcalloc(1, sizeof *image);
    image->all = ji;
    image->name = xstrdup(name);
    list_append(&ji->images, &image->link);
    return image;
}

static void job_image_free(struct job_image *image)
{
    timer_stop(&image->retry);
    image_pull_cancel(image->pull);
    image_load_cancel(image->load);
    list_remove(&image->link);
    free(image->name);
    free(image);
}

/* What an earlier life has told the agent stays true. */
static void job_images_recall(struct job_images *ji, struct job_images_pod *pod)
{
    cleanup_free char *path = xasprintf("%s/jobs/%s/images.json", ji->dir, pod->uid);
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status ignored = STATUS_INIT;

    if (!file_read(path, PODRUN_IMAGES_MAX, &text, &ignored))
        return;
    const struct json *j = json_parse(&arena, (struct str){ (const char *)text.p, text.n }, &ignored);
    for (size_t i = 0; i < pod->count; i++) {
        const char *id = json_string(json_member(json_member(j, pod->wants[i].image->name), "id"), "");
        if (id[0] != '\0' && image_store_held(ji->store, id) != NULL)
            job_images_give(ji, pod, &pod->wants[i], id);
    }
}

static void job_images_want(struct job_images *ji, struct job_images_pod *pod, struct job_image_want *want, const char *policy, bool recalled)
{
    const struct image *there = want->image->name[0] == '/' ? NULL : image_store_find(ji->store, want->image->name);
    bool always = strcmp(policy, "Always") == 0 && !recalled;

    if (want->id[0] != '\0' || (there != NULL && !always && job_images_give(ji, pod, want, there->id)))
        return;
    if (strcmp(policy, "Never") == 0) {
        snprintf(want->reason, sizeof want->reason, "ErrImageNeverPull");
        snprintf(want->message, sizeof want->message, "image %.200s is not in the store, and imagePullPolicy is Never", want->image->name);
        return;
    }
    job_image_fetch(want->image);
}

static struct job_images_pod *job_images_pod_new(struct job_images *ji, const struct podspec *spec)
{
    struct job_images_pod *pod = xcalloc(1, sizeof *pod);

    snprintf(pod->uid, sizeof pod->uid, "%s", spec->create.pod.uid);
    pod->wants = xcalloc(spec->count, sizeof *pod->wants);
    for (size_t i = 0; i < spec->count; i++) {
        struct job_image *image = job_images_image(ji, spec->containers[i].base->image);
        size_t k = 0;
        while (k < pod->count && pod->wants[k].image != image)
            k++;
        if (k == pod->count)
            pod->wants[pod->count++].image = image;
    }
    list_append(&ji->pods, &pod->link);
    strmap_put(&ji->by_uid, pod->uid, pod);
    return pod;
}

static const char *job_images_policy(const struct podspec *spec, const char *name)
{
    const char *policy = "IfNotPresent";

    for (size_t i = 0; i < spec->count; i++)
        if (strcmp(spec->containers[i].base->image, name) == 0 &&
            (strcmp(spec->containers[i].pull_policy, "Always") == 0 || strcmp(policy, "Always") != 0))
            policy = spec->containers[i].pull_policy;
    return policy;
}

static void job_images_begin(struct job_images *ji, struct job_images_pod *pod, const struct podspec *spec, bool recalled)
{
    for (size_t i = 0; i < pod->count; i++)
        job_images_want(ji, pod, &pod->wants[i], job_images_policy(spec, pod->wants[i].image->name), recalled);
    job_images_write(ji, pod);
}

static bool job_images_open(struct job_images *ji, struct status *err)
{
    if (ji->store == NULL)
        ji->store = image_store_open(ji->loop, &(struct image_store_options){ .root = ji->root }, err);
    return ji->store != NULL;
}

bool job_images_add(struct job_images *ji, const struct podspec *spec, struct status *err)
{
    struct job_images_pod *pod = strmap_get(&ji->by_uid, spec->create.pod.uid);
    bool opened = ji->store != NULL;

    if (!job_images_open(ji, err))
        return false;
    if (!opened)
        image_store_start(ji->store);
    if (pod == NULL)
        job_images_begin(ji, job_images_pod_new(ji, spec), spec, false);
    return true;
}

void job_images_tell(struct job_images *ji, const char *uid)
{
    const struct job_images_pod *pod = strmap_get(&ji->by_uid, uid);

    if (pod != NULL)
        job_images_write(ji, pod);
}

static bool job_images_used(const struct job_images *ji, const char *id)
{
    for (LIST_EACH(struct job_images_pod, pod, &ji->pods, link))
        for (size_t i = 0; i < pod->count; i++)
            if (strcmp(pod->wants[i].id, id) == 0)
                return true;
    return false;
}

/* The oldest go first. */
static void job_images_trim(struct job_images *ji)
{
    const struct image *image = NULL, *next;
    size_t unused = 0;
    struct status err = STATUS_INIT;

    while ((image = image_store_next(ji->store, image)) != NULL)
        unused += !job_images_used(ji, image->id);
    for (image = image_store_next(ji->store, NULL); image != NULL && unused > PLUGIN_IMAGES_KEPT; image = next) {
        cleanup_free char *id = xstrdup(image->id);
        next = image_store_next(ji->store, image);
        if (job_images_used(ji, id))
            continue;
        unused--;
        if (!image_store_remove(ji->store, id, &err))
            log_warn("image %s: %s", id, err.message);
    }
}

void job_images_forget(struct job_images *ji, const char *uid)
{
    struct job_images_pod *pod = strmap_remove(&ji->by_uid, uid);

    if (pod == NULL)
        return;
    list_remove(&pod->link);
    image_store_release(ji->store, pod->uid);
    free(pod->wants);
    free(pod);
    job_images_trim(ji);
    for (LIST_EACH_SAFE(struct job_image, image, &ji->images, link)) {
        bool used = false;
        for (LIST_EACH(struct job_images_pod, other, &ji->pods, link))
            for (size_t i = 0; i < other->count; i++)
                used = used || other->wants[i].image == image;
        if (!used)
            job_image_free(image);
    }
}

void job_images_sweep(struct job_images *ji, bool (*there)(void *arg, const char *uid), void *arg)
{
    for (LIST_EACH_SAFE(struct job_images_pod, pod, &ji->pods, link))
        if (!there(arg, pod->uid))
            job_images_forget(ji, pod->uid);
}

/* ---- an earlier life ---- */

static void job_images_adopt(void *arg, const char *uid)
{
    struct job_images *ji = arg;
    cleanup_free char *path = xasprintf("%s/jobs/%s/" JOB_FILES_MANIFEST, ji->dir, uid);
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status err = STATUS_INIT;
    struct podspec spec;

    if (access(path, F_OK) < 0 || !job_images_open(ji, &err))
        return;
    if (!file_read(path, PLUGIN_CREATE_MAX, &text, &err) ||
        !podspec_read(&arena, (struct str){ (const char *)text.p, text.n }, "", &spec, &err) || strcmp(spec.create.pod.uid, uid) != 0) {
        log_warn("%s: %s", path, err.code != STATUS_OK ? err.message : "of another pod");
        return;
    }
    struct job_images_pod *pod = job_images_pod_new(ji, &spec);
    job_images_recall(ji, pod);
    job_images_begin(ji, pod, &spec, true);
}

struct job_images *job_images_new(struct loop *loop, const char *dir, struct status *err)
{
    struct job_images *ji = xcalloc(1, sizeof *ji);

    ji->loop = loop;
    ji->dir = xstrdup(dir);
    ji->root = xasprintf("%s/images", dir);
    list_init(&ji->images);
    list_init(&ji->pods);
    if (!backend_each(dir, "jobs", "", job_images_adopt, ji, err)) {
        job_images_free(ji);
        return NULL;
    }
    if (ji->store != NULL)
        image_store_start(ji->store);
    return ji;
}

void job_images_free(struct job_images *ji)
{
    if (ji == NULL)
        return;
    for (LIST_EACH_SAFE(struct job_image, image, &ji->images, link))
        job_image_free(image);
    for (LIST_EACH_SAFE(struct job_images_pod, pod, &ji->pods, link)) {
        list_remove(&pod->link);
        free(pod->wants);
        free(pod);
    }
    image_store_free(ji->store);
    strmap_free(&ji->by_uid);
    free(ji->dir);
    free(ji->root);
    free(ji);
}

const char *job_images_dir(const struct job_images *ji)
{
    return ji->root;
}

bool job_images_known(const struct job_images *ji, const char *uid)
{
    return strmap_get(&ji->by_uid, uid) != NULL;
}
