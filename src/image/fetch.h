/* SPDX-License-Identifier: Apache-2.0 */
/* fetch.h: one blob from a registry into the store, in a job's child.
 *
 * The file in ingest/ is locked (flock) while it is filled: a second job that wants the same blob waits for it, and goes on with
 * what is there if the first one fails. When size and digest are right it is renamed into blobs/.
 *
 *   LOCKING -> (blob is there: DONE) | (locked by another: LOCKING again) | HASHING -> LOADING -> DONE
 */
#ifndef IMAGE_FETCH_H
#define IMAGE_FETCH_H

#include "base/base.h"
#include "image/digest.h"
#include "image/registry.h"
#include "io/loop.h"

struct fetch {
    struct loop *loop;
    const char *root; /* of the store; borrowed */
    struct registry *registry;
    struct digest digest;
    uint64_t size;
    uint64_t position; /* bytes that are there */
    struct digester digester; /* of those */
    char *blob_path, *part_path; /* owned */
    int fd;            /* owned; locked; -1 when closed */
    bool alone;        /* the file system has no locks: a file of our own */
    struct registry_call *call;
    struct timer timer;
    void (*on_done)(void *arg, const struct status *err); /* err NULL: it is there */
    void *arg;
};

/* Never fails at once. The struct belongs to the caller, zeroed before. */
void fetch_start(struct fetch *f, struct loop *loop, const char *root, struct registry *registry, const struct digest *digest,
                 uint64_t size, void (*on_done)(void *arg, const struct status *err), void *arg);
/* Lets go of everything; also after on_done. */
void fetch_stop(struct fetch *f);

/* A lock file shared by jobs: the descriptor when we have it; -1 with errno EWOULDBLOCK when another has it. The file at
 * `path` is the one that is locked, even if another was just removed or renamed. *none: the file system knows no locks. */
int fetch_lock(const char *path, bool *none);

#endif
