/* SPDX-License-Identifier: Apache-2.0 */
/* pull_work.h: what a pull's child does. */
#ifndef IMAGE_PULL_WORK_H
#define IMAGE_PULL_WORK_H

#include "base/base.h"
#include "image/job.h"
#include "image/manifest.h"
#include "image/pull.h"
#include "image/reference.h"

/* Everything in it stays as it is while the job lives. */
struct pull_request {
    struct reference reference;
    struct image_auth auth;
    struct platform platform;
    bool platform_given;
    const struct registry_options *registries;
    const char *const *annotations;
    size_t annotation_count;
};

/* A job's work (job.h); work_arg is a struct pull_request. */
bool pull_work(struct job_channel *channel, void *work_arg, struct status *err);

#endif
