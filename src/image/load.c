/* SPDX-License-Identifier: Apache-2.0 */
#include "image/load.h"

#include "image/job.h"
#include "image/load_work.h"
#include "image/manifest.h"
#include "image/store_internal.h"

struct image_load {
    struct image_load_options options; /* strings are in the request */
    struct load_request request;
    struct arena arena;
    struct job *job;     /* NULL when it could not start */
    struct timer failed; /* it could not start */
    struct status err;
};

static void load_end(struct image_load *load, const char *const *ids, size_t count, const struct status *err)
{
    struct image_load_options o = load->options;
    struct status copy = STATUS_INIT;

    if (err != NULL)
        copy = *err;
    arena_free(&load->arena);
    free(load);
    o.on_done(o.arg, ids, err == NULL ? count : 0, err == NULL ? NULL : &copy);
}

static void load_on_job_done(void *arg, const char *const *ids, size_t count, const struct status *err)
{
    load_end(arg, ids, count, err);
}

static void load_on_failed(void *arg)
{
    struct image_load *load = arg;

    load_end(load, NULL, 0, &load->err);
}

struct image_load *image_load_start(struct image_store *store, const struct image_load_options *options)
{
    struct image_load *load = xcalloc(1, sizeof *load);
    bool given = options->platform != NULL && options->platform[0] != '\0';

    load->options = *options;
    load->request.path = arena_strdup(&load->arena, options->path);
    load->request.base_name = arena_strdup(&load->arena, options->base_name == NULL ? "" : options->base_name);
    if (!given)
        platform_host(&load->request.platform);
    else if (!platform_parse(options->platform, &load->request.platform, &load->err)) {
        timer_start(store->loop, &load->failed, 0, load_on_failed, load);
        return load;
    }
    load->job = job_start(store, &(struct job_options){
        .work = load_work, .work_arg = &load->request, .on_done = load_on_job_done, .arg = load });
    return load;
}

void image_load_cancel(struct image_load *load)
{
    if (load == NULL)
        return;
    job_cancel(load->job);
    timer_stop(&load->failed);
    arena_free(&load->arena);
    free(load);
}
