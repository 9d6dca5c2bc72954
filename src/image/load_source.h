/* SPDX-License-Identifier: Apache-2.0 */
/* load_source.h: the files of an image on disk, by name, whether they are in a folder or in a tar archive. Blocks.
 *
 * An archive is taken apart first, into numbered files below ingest/: no name in it ever becomes a path. */
#ifndef IMAGE_LOAD_SOURCE_H
#define IMAGE_LOAD_SOURCE_H

#include "base/base.h"
#include "image/digest.h"
#include "image/layer_path.h"

struct load_file; /* one of an archive */

struct load_source {
    struct arena arena;
    char *scratch;          /* owned: a folder below ingest/ */
    bool is_folder;
    struct layer_root root; /* is_folder */
    char *path;             /* owned; as given */
    struct strmap files;    /* else: clean name -> struct load_file on the arena */
};

/* `ingest`: the store's folder for such things; `bytes_max` bounds what comes out of an archive. */
bool load_source_open(struct load_source *s, const char *path, const char *ingest, uint64_t bytes_max, struct status *err);
/* Removes the scratch folder too. */
void load_source_close(struct load_source *s);

bool load_source_has(struct load_source *s, const char *name);
/* The whole of a small file, appended. NOT_FOUND when there is none. */
bool load_source_read(struct load_source *s, const char *name, size_t max, struct buf *out, struct status *err);
/* Its first bytes; fewer when it is shorter or not there. */
size_t load_source_peek(struct load_source *s, const char *name, uint8_t *out, size_t n);
/* What a file is: its digest (reads all of it, in a folder) and size. */
bool load_source_digest(struct load_source *s, const char *name, struct digest *digest, uint64_t *size, struct status *err);
/* Puts a file of that digest at `to`, on the same file system as `ingest`, unless there is something. DATA_LOSS when it has
 * another digest. */
bool load_source_place(struct load_source *s, const char *name, const struct digest *digest, const char *to, struct status *err);

#endif
