/* SPDX-License-Identifier: Apache-2.0 */
/* record.h: one image as the store keeps it, and its text: JSON, which is also what a job's child reports. On disk a first line
 * with its sha256 goes before, so that a torn or foreign file is known. */
#ifndef IMAGE_RECORD_H
#define IMAGE_RECORD_H

#include "base/base.h"
#include "image/store.h"

/* What one layer takes on the disk. */
struct record_cost {
    uint64_t blob_bytes;    /* its blob */
    uint64_t bytes, inodes; /* its folder */
};

struct record {
    struct image image; /* first, so that one is the other; all of it owned */
    struct record_cost *costs; /* owned; one a layer */
    bool listed;        /* false: removed, but held */
    size_t holds;       /* in memory only */
    int64_t created_ns; /* when the image first came */
    uint64_t sequence;  /* grows with each write of any record: of two that claim one name, the later one has it */
};

void record_free(struct record *r); /* NULL is fine */
/* A list of strings as in struct image. Adding what is there already does nothing; false as well when it was not there. */
bool record_has(char *const *list, size_t count, const char *text);
void record_add(char ***list, size_t *count, const char *text);
bool record_drop(char **list, size_t *count, const char *text);

void record_encode(const struct record *r, struct buf *out);
/* NULL: DATA_LOSS with the reason. */
struct record *record_decode(struct str json, struct status *err);
/* With the first line. */
void record_seal(const struct record *r, struct buf *out);
struct record *record_open(struct str file, struct status *err);

#endif
