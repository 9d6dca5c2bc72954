/* SPDX-License-Identifier: Apache-2.0 */
/* crilog.h: CRI log lines, made and read; no I/O and no allocation in the making.
 *
 *   2026-11-24T05:36:00.123456789Z stdout F a whole line
 *   2026-11-24T05:36:00.123456789Z stderr P the first part of a long line
 *
 * Source: the "CRI Log" design of Kubernetes (kubelet's pkg/kubelet/kuberuntime/logs and cri-client's logs). P: the
 * line goes on in the next line of the same stream; F: it ends here. */
#ifndef TEXT_CRILOG_H
#define TEXT_CRILOG_H

#include "base/base.h"

enum crilog_stream { CRILOG_STDOUT, CRILOG_STDERR };

/* ---- making (the agent) ---- */
/* All zero at first; one serves both streams. */
struct crilog_writer {
    int64_t second;    /* what `prefix` was made for, when made */
    bool made;
    char prefix[32];   /* "2026-11-24T05:36:00." and nine digits, "Z " */
};
/* Bytes before the text of each line: time, stream, tag, three blanks. */
#define CRILOG_PREFIX_LENGTH 40
/* Longest line made: prefix, CRILOG_TEXT_MAX bytes of text (limits.h), new line. */
#define CRILOG_LINE_MAX (CRILOG_PREFIX_LENGTH + CRILOG_TEXT_MAX + 1)

struct crilog_span {
    uint8_t *p;
    size_t n;
};
/* Turns raw output into log lines stamped `now_ns`. Takes whole lines from `in` and puts them into out[0] and, when that is
 * full, out[1] (the two free parts of a ring; the second may be empty); a line is written whole or not at all.
 * What stays in `in` is the beginning of a line: the caller keeps it and calls again with more behind it, so its
 * buffer must hold more than CRILOG_TEXT_MAX bytes. Longer lines are cut there and tagged P. With `flush` the beginning is given out
 * too, tagged P: at the end of the stream.
 * Returns the bytes of `in` used up; *produced: the bytes put out. Both 0 with more than CRILOG_TEXT_MAX bytes (or a new line, or flush) in
 * `in`: there is no room (CRILOG_LINE_MAX bytes always suffice). */
size_t crilog_write(struct crilog_writer *w, enum crilog_stream stream, int64_t now_ns, struct str in, bool flush,
                    const struct crilog_span out[2], size_t *produced);

/* ---- reading (`logs`) ---- */
struct crilog_line {
    int64_t time_ns;
    enum crilog_stream stream;
    bool partial;
    struct str time; /* as written */
    struct str text; /* without the new line */
};
/* One line, without its new line. False when it is no CRI log line. */
bool crilog_parse(struct str line, struct crilog_line *out);

/* Reads a log from any point at a line's start, whatever the pieces it comes in. */
struct crilog_reader {
    /* Set by the caller; all zero: everything, as it was written. */
    bool timestamps;     /* each line after its time stamp */
    int64_t since_ns;    /* lines older than this are left out; 0: none */
    int64_t until_ns;    /* lines younger than this are left out; 0: none */
    bool only_stdout, only_stderr;
    size_t limit_bytes;  /* ends after this much output; 0: none */
    /* The reader's own. */
    struct buf rest;     /* owned; the beginning of a line; at most CRILOG_READ_LINE_MAX */
    bool continued[2];   /* the stream's last line was partial */
    bool skipping;       /* inside a line that is too long */
    size_t written, malformed;
    bool done;           /* limit_bytes reached */
};
/* Lines go to `out` (stdout and stderr by their stream; may be the same buffer; borrowed). */
void crilog_read(struct crilog_reader *r, struct str in, struct buf *out_stdout, struct buf *out_stderr);
void crilog_reader_free(struct crilog_reader *r);

/* Where do the last `lines` lines begin? Set `lines`, the rest zero; give the blocks of the file from its end backwards; true: the
 * wanted line begins at *offset within this block. When the file's beginning is reached without true, it is 0. */
struct crilog_tail {
    uint64_t lines;
    bool seen_end; /* the file's last byte was seen */
};
bool crilog_tail_step(struct crilog_tail *t, struct str block, size_t *offset);

#endif
