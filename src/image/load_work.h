/* SPDX-License-Identifier: Apache-2.0 */
/* load_work.h: what a load's child does. */
#ifndef IMAGE_LOAD_WORK_H
#define IMAGE_LOAD_WORK_H

#include "base/base.h"
#include "image/job.h"
#include "image/manifest.h"

/* Everything in it stays as it is while the job lives. */
struct load_request {
    const char *path, *base_name;
    struct platform platform;
};

/* A job's work (job.h); work_arg is a struct load_request. */
bool load_work(struct job_channel *channel, void *work_arg, struct status *err);

#endif
