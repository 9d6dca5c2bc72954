/* SPDX-License-Identifier: Apache-2.0 */
/* assemble.h: one image out of a configuration and blobs, in a job's child: checks that they belong together, tells the store's
 * owner what is needed, unpacks the layers as their blobs come (a few at a time, each in a process of its own), and reports
 * the finished image. Where the blobs come from is the caller's business. */
#ifndef IMAGE_ASSEMBLE_H
#define IMAGE_ASSEMBLE_H

#include "base/base.h"
#include "image/job.h"
#include "image/manifest.h"

struct assembly;

struct assembly_options {
    struct loop *loop;
    struct job_channel *channel;
    struct str config;                /* the text; borrowed until assembly_new returns */
    const struct descriptor *layers;  /* bottom first; copied */
    size_t layer_count;
    uint64_t manifests_size;          /* bytes of manifests and indexes, for the image's size */
    /* Once, from the loop: every layer is unpacked, or one could not be. */
    void (*on_done)(void *arg, const struct status *err);
    void *arg;
};

/* Blocks until the owner says go: from then on what is in the store stays there. Writes the configuration's blob. NULL on
 * failure. */
struct assembly *assembly_new(const struct assembly_options *options, struct status *err);
void assembly_free(struct assembly *a); /* NULL is fine; kills what is unpacking */
/* That layer's blob is in the store. */
void assembly_blob_ready(struct assembly *a, size_t layer);
/* After on_done said so: names the image and reports it. All are full names; `digest` may be "". */
struct assembly_names {
    const char *const *tags;
    size_t tag_count;
    const char *digest;
    const char *const *annotations; /* name, value... */
    size_t annotation_count;        /* pairs */
};
bool assembly_report(struct assembly *a, const struct assembly_names *names, struct status *err);

#endif
