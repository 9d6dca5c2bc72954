/* SPDX-License-Identifier: Apache-2.0 */
/* sweep.c: garbage. Two workers: one moves what nobody needs into trash/ (quick; jobs that want to rely on something wait for
 * it), the other empties trash/ (slow; nobody waits). A worker is a forked copy of this process, so that it sees the records, holds
 * and pins as they were when it began; what is pinned later must wait until it has ended. */
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/store_internal.h"
#include "io/file.h"
#include "io/userns.h"

/* What is needed, by kind and hex digits: 'b' blobs, 'l' layers. A pin does not know its kind: it counts as both. */
static void sweep_keep(struct strmap *keep, char kind, const struct digest *d)
{
    char key[DIGEST_HEX_SIZE + 1];

    key[0] = kind;
    digest_hex(d, key + 1);
    strmap_put(keep, key, keep);
}

static void sweep_collect(const struct image_store *store, struct strmap *keep)
{
    for (LIST_EACH(struct image, i, &store->records, link)) {
        sweep_keep(keep, 'b', &i->config);
        for (size_t k = 0; k < i->layer_count; k++) {
            sweep_keep(keep, 'b', &i->layers[k].blob);
            sweep_keep(keep, 'l', &i->layers[k].diff_id);
        }
    }
    for (LIST_EACH(struct job, job, &store->jobs, link))
        for (size_t k = 0; k < job->pin_count; k++) {
            sweep_keep(keep, 'b', &job->pins[k]);
            sweep_keep(keep, 'l', &job->pins[k]);
        }
}

static bool sweep_jobs_run(const struct image_store *store)
{
    for (LIST_EACH(struct job, job, &store->jobs, link))
        if (job->state != JOB_WAITING)
            return true;
    return false;
}

struct sweep_work {
    const struct image_store *store;
    struct strmap keep, doomed;
    bool all, torn;
    unsigned moved;
};

static void sweep_move(struct sweep_work *w, const char *folder, const char *name)
{
    uint8_t dice[8];
    char suffix[2 * sizeof dice + 1];
    struct status ignored;

    random_bytes(dice, sizeof dice);
    hex_encode(dice, sizeof dice, suffix);
    cleanup_free char *from = store_path(w->store, folder, name);
    cleanup_free char *to = store_path(w->store, "trash", suffix);
    bool moved = rename(from, to) == 0;
    /* A layer whose own folder is another id's: as root of a namespace that has it. This process is a worker. */
    if (!moved && errno == EACCES && geteuid() != 0 && subid_enter(&ignored))
        moved = rename(from, to) == 0;
    if (moved)
        w->moved++;
    else if (errno != ENOENT)
        log_warn("cannot move garbage %s away: %s", from, strerror(errno));
}

/* HEX, or in layers also HEX.info; what else is there (HEX.tmpXXXX) was being unpacked. */
static bool sweep_goes(const struct sweep_work *w, char kind, const char *name)
{
    char key[DIGEST_HEX_SIZE + 1] = { kind };

    if (strspn(name, "0123456789abcdef") != 64 || (name[64] != '\0' && strcmp(name + 64, ".info") != 0))
        return w->torn;
    memcpy(key + 1, name, 64);
    key[65] = '\0';
    if (strmap_get(&w->keep, key) != NULL)
        return false;
    return w->all || strmap_get(&w->doomed, key) != NULL;
}

static void sweep_folder(struct sweep_work *w, char kind, const char *folder)
{
    cleanup_free char *path = store_path(w->store, folder, "");
    DIR *dir = opendir(path);
    struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.' && (kind == 0 || sweep_goes(w, kind, entry->d_name)))
            sweep_move(w, folder, entry->d_name);
    if (dir != NULL)
        closedir(dir);
}

static bool sweep_do(void *arg, struct buf *output, struct status *err)
{
    struct image_store *store = arg;
    struct sweep_work w = { .store = store, .all = store->sweep_all };

    (void)err;
    w.torn = (store->sweep_torn || w.all) && !sweep_jobs_run(store);
    sweep_collect(store, &w.keep);
    for (size_t i = 0; i < store->doomed_count; i++) {
        sweep_keep(&w.doomed, 'b', &store->doomed[i]);
        sweep_keep(&w.doomed, 'l', &store->doomed[i]);
    }
    sweep_folder(&w, 'b', "blobs/sha256");
    sweep_folder(&w, 'l', "layers");
    if (w.all && w.torn)
        sweep_folder(&w, 0, "ingest");
    buf_printf(output, "%u", w.moved);
    return true;
}

/* ---- emptying trash ---- */

static bool sweep_empty(void *arg, struct buf *output, struct status *err)
{
    struct image_store *store = arg;
    cleanup_free char *path = store_path(store, "trash", "");
    DIR *dir = opendir(path);
    struct dirent *entry;
    bool ok = true;

    (void)output;
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        cleanup_free char *one = store_path(store, "trash", entry->d_name);
        ok &= subid_tree_remove(one, err);
    }
    if (dir != NULL)
        closedir(dir);
    return ok;
}

static void sweep_empty_trash(struct image_store *store);

static void sweep_on_emptied(void *arg, const struct status *err, struct buf *output)
{
    struct image_store *store = arg;

    (void)output;
    if (err != NULL)
        log_warn("the image store's trash could not be emptied: %s", err->message);
    else if (store->empty_again)
        sweep_empty_trash(store);
}

static void sweep_empty_trash(struct image_store *store)
{
    struct status err;

    store->empty_again = worker_running(&store->emptier);
    if (!store->empty_again &&
        !worker_start(store->loop, &store->emptier, sweep_empty, store, sweep_on_emptied, store, &err))
        log_warn("the image store's trash could not be emptied: %s", err.message);
}

/* ---- when ---- */

static void sweep_go(struct image_store *store);

static void sweep_on_done(void *arg, const struct status *err, struct buf *output)
{
    struct image_store *store = arg;

    if (err != NULL)
        log_warn("the image store could not be swept: %s", err->message);
    else if (output->n > 0 && strcmp(buf_cstr(output), "0") != 0)
        log_debug("image store: %s pieces of garbage removed", buf_cstr(output));
    sweep_empty_trash(store);
    job_sweep_ended(store);
    sweep_go(store);
}

bool sweep_running(const struct image_store *store)
{
    return worker_running(&store->sweeper);
}

static void sweep_go(struct image_store *store)
{
    struct status err;

    if (!store->started || sweep_running(store) || (!store->sweep_all && !store->sweep_torn && store->doomed_count == 0))
        return;
    if (!worker_start(store->loop, &store->sweeper, sweep_do, store, sweep_on_done, store, &err))
        log_warn("the image store could not be swept: %s", err.message);
    /* The worker has its own copy of what was wanted. */
    store->sweep_all = store->sweep_torn = false;
    free(store->doomed);
    store->doomed = NULL;
    store->doomed_count = 0;
}

void sweep_doom(struct image_store *store, const struct record *record)
{
    size_t more = 1 + 2 * record->image.layer_count;

    store->doomed = xrealloc(store->doomed, (store->doomed_count + more) * sizeof *store->doomed);
    store->doomed[store->doomed_count++] = record->image.config;
    for (size_t i = 0; i < record->image.layer_count; i++) {
        store->doomed[store->doomed_count++] = record->image.layers[i].blob;
        store->doomed[store->doomed_count++] = record->image.layers[i].diff_id;
    }
    sweep_want(store, false);
}

static void sweep_deferred(void *arg)
{
    sweep_go(arg);
}

void sweep_want(struct image_store *store, bool all)
{
    store->sweep_all |= all;
    /* Not at once: the caller may be about to change the records. */
    deferred_start(store->loop, &store->sweep_soon, sweep_deferred, store);
}

static void sweep_on_timer(void *arg)
{
    sweep_want(arg, true);
}

void sweep_after_job(struct image_store *store, bool failed, enum status_code code)
{
    if (!failed)
        return;
    /* Half a layer is of no use to anybody. Whole blobs, and the beginnings of others, are: for the next try. Unless the
     * disk is full. */
    store->sweep_torn = true;
    if (code == STATUS_RESOURCE_EXHAUSTED)
        store->sweep_all = true;
    else
        timer_start(store->loop, &store->garbage, IMAGE_GARBAGE_KEEP_MS, sweep_on_timer, store);
    deferred_start(store->loop, &store->sweep_soon, sweep_deferred, store);
}

void sweep_stop(struct image_store *store)
{
    worker_cancel(&store->sweeper);
    worker_cancel(&store->emptier);
    timer_stop(&store->garbage);
    deferred_stop(&store->sweep_soon);
}
