/* SPDX-License-Identifier: Apache-2.0 */
#include "image/pull.h"

#include "image/job.h"
#include "image/pull_work.h"
#include "image/store_internal.h"

struct image_pull {
    struct image_store *store;
    struct image_pull_options options; /* strings are in the request */
    struct pull_request request;
    struct arena arena;
    struct job *job; /* NULL when it could not start */
    struct timer deadline;
    struct status err; /* why it could not start */
    uint64_t done, total; /* bytes, as far as known */
    int64_t started_ms;
};

static void pull_end(struct image_pull *pull, const char *id, const struct status *err)
{
    struct image_pull_options o = pull->options;
    struct status copy = STATUS_INIT;
    cleanup_free char *own_id = id == NULL ? NULL : xstrdup(id);

    if (err != NULL)
        copy = *err;
    if (own_id != NULL) {
        char name[REFERENCE_TEXT_SIZE];
        reference_text(&pull->request.reference, name);
        log_info("pulled %s: %.19s in %.1f s", name, own_id, (double)(clock_mono_ms() - pull->started_ms) / 1000);
    } else {
        log_info("%s", copy.message);
    }
    timer_stop(&pull->deadline);
    arena_free(&pull->arena);
    free(pull);
    o.on_done(o.arg, own_id, own_id == NULL ? &copy : NULL);
}

static void pull_on_job_done(void *arg, const char *const *ids, size_t count, const struct status *err)
{
    struct image_pull *pull = arg;
    struct status nothing = STATUS_INIT;

    pull->job = NULL;
    if (err == NULL && count == 0)
        status_set(&nothing, STATUS_INTERNAL, "the pull ended without an image");
    pull_end(pull, err == NULL && count > 0 ? ids[0] : NULL, err != NULL ? err : &nothing);
}

static void pull_on_job_progress(void *arg, const struct image_progress *blobs, size_t count)
{
    struct image_pull *pull = arg;

    pull->done = pull->total = 0;
    for (size_t i = 0; i < count; i++) {
        pull->done += blobs[i].done;
        pull->total += blobs[i].total;
    }
    if (pull->options.on_progress != NULL)
        pull->options.on_progress(pull->options.arg, blobs, count);
}

/* The time is over, or there was no start. */
static void pull_on_deadline(void *arg)
{
    struct image_pull *pull = arg;
    struct status err = pull->err;
    char name[REFERENCE_TEXT_SIZE];

    if (err.code == STATUS_OK) {
        reference_text(&pull->request.reference, name);
        status_set(&err, STATUS_DEADLINE_EXCEEDED, "cannot pull %.500s in the time allowed: ", name);
        size_t n = strlen(err.message);
        if (pull->job != NULL && job_waits(pull->job))
            snprintf(err.message + n, sizeof err.message - n, "other pulls are under way");
        else if (pull->total > 0)
            snprintf(err.message + n, sizeof err.message - n, "%" PRIu64 " of %" PRIu64 " bytes have come", pull->done,
                     pull->total);
        else
            snprintf(err.message + n, sizeof err.message - n, "the registry has not answered yet");
    }
    job_cancel(pull->job);
    pull->job = NULL;
    pull_end(pull, NULL, &err);
}

static const char *pull_copy(struct image_pull *pull, const char *text)
{
    return arena_strdup(&pull->arena, text == NULL ? "" : text);
}

static bool pull_prepare(struct image_pull *pull, const struct image_pull_options *o, struct status *err)
{
    static const struct registry_options no_options;
    struct pull_request *r = &pull->request;
    const char **annotations = ARENA_ARRAY(&pull->arena, const char *, 2 * o->annotation_count + 1);

    for (size_t i = 0; i < 2 * o->annotation_count; i++)
        annotations[i] = pull_copy(pull, o->annotations[i]);
    r->annotations = annotations;
    r->annotation_count = o->annotation_count;
    r->registries = o->registries != NULL ? o->registries : &no_options;
    if (o->auth != NULL)
        r->auth = (struct image_auth){ pull_copy(pull, o->auth->username),       pull_copy(pull, o->auth->password),
                                       pull_copy(pull, o->auth->auth),           pull_copy(pull, o->auth->server_address),
                                       pull_copy(pull, o->auth->identity_token), pull_copy(pull, o->auth->registry_token) };
    r->platform_given = o->platform != NULL && o->platform[0] != '\0';
    if (!r->platform_given)
        platform_host(&r->platform);
    return reference_parse(o->reference, &r->reference, err) &&
           (!r->platform_given || platform_parse(o->platform, &r->platform, err));
}

struct image_pull *image_pull_start(struct image_store *store, const struct image_pull_options *options)
{
    struct image_pull *pull = xcalloc(1, sizeof *pull);

    pull->store = store;
    pull->started_ms = clock_mono_ms();
    pull->options = *options;
    if (!pull_prepare(pull, options, &pull->err) || options->timeout_ms <= 0) {
        timer_start(store->loop, &pull->deadline, 0, pull_on_deadline, pull);
        return pull;
    }
    if (options->timeout_ms != INT64_MAX)
        timer_start(store->loop, &pull->deadline, options->timeout_ms, pull_on_deadline, pull);
    pull->job = job_start(store, &(struct job_options){
        .work = pull_work,
        .work_arg = &pull->request,
        .on_progress = pull_on_job_progress,
        .on_done = pull_on_job_done,
        .arg = pull,
    });
    return pull;
}

void image_pull_cancel(struct image_pull *pull)
{
    if (pull == NULL)
        return;
    job_cancel(pull->job);
    timer_stop(&pull->deadline);
    arena_free(&pull->arena);
    free(pull);
}
