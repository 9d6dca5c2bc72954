/* SPDX-License-Identifier: Apache-2.0 */
/*
 * files_writer.h: volumes as they come from the node, onto the job's disk or into its memory. For workers.
 *
 *   <root>/KEY/lock      held while one is written; KEY is the volume's name with "+" for "/"
 *   <root>/KEY/tree      what containers mount: a folder, or a file
 *   <root>/KEY/incoming  the next one of a folder that is replaced as a whole
 *
 * A projected volume changes as kubelet's AtomicWriter has it (pkg/volume/util/atomic_writer.go): the new files are written to
 * tree/..TIMESTAMP.RANDOM, a new link takes the place of tree/..data by rename(2), links for new names are made and those for
 * old names removed, and the folder that ..data meant before goes last. Whoever reads NAME -> ..data/NAME finds old or new.
 *
 * Nothing here follows a link, and no name leaves the volume. A writer that was killed leaves behind what the next one removes.
 */
#ifndef AGENT_FILES_WRITER_H
#define AGENT_FILES_WRITER_H

#include "base/base.h"

#include "agent.pb-c.h"

struct files_writer {
    char *root;    /* owned; a folder that is there, 0700 */
    char *volume;  /* owned; the name of the one being written; NULL: none */
    Interlink__Agent__V1__VolumeKind kind;
    int dir_fd;    /* <root>/KEY */
    int lock_fd;
    int tree_fd;   /* what entries are made in; of VOLUME_PROJECTED the whole volume */
    int data_fd;   /* of VOLUME_PROJECTED: the new folder */
    char data_name[64]; /* its name */
    int file_fd;   /* the file being written; -1: none */
    uint64_t file_left;  /* bytes that are still to come */
    struct buf folders; /* their paths and modes, set last: a folder may be read-only */
    size_t entries;
    uint64_t bytes;
};

void files_writer_open(struct files_writer *w, const char *root); /* copies root */
/* The messages of one PutFiles call, in order, and their end. After a failure the writer is only good to be closed. */
bool files_writer_take(struct files_writer *w, const Interlink__Agent__V1__PutFilesRequest *message, struct status *err);
bool files_writer_end(struct files_writer *w, struct status *err);
void files_writer_close(struct files_writer *w);

/* Checks what begins a volume. INVALID_ARGUMENT. No I/O. */
bool files_writer_check(const Interlink__Agent__V1__PutFilesStart *start, struct status *err);
/* <root>/KEY/tree for a volume's name, or NULL for a bad name; the caller frees. No I/O. */
char *files_writer_path(const char *root, const char *volume);

#endif
