/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_log.h: what a container wrote and the node has not stored yet: CRI log lines in a bounded ring. No I/O.
 *
 * Offsets count the log's bytes from its beginning and never repeat:
 *
 *     0 ........ tail ................ sent ............ head
 *     stored     kept: sent, not        kept: not sent    not made yet
 *     or lost    acknowledged
 *
 * A reader opens the log at the offset it has stored up to, takes chunks, and says what it has stored: that is freed.
 * After a cut it opens the log again, and what was under way is taken again. While nobody reads and the ring is full,
 * nothing is taken in, so the container waits; after LOG_STALL_GRACE_MS of that the oldest lines are dropped. Then
 * the reader is given, in place of the last of the bytes that it missed, one line that tells of the loss.
 */
#ifndef AGENT_AGENT_LOG_H
#define AGENT_AGENT_LOG_H

#include "base/base.h"
#include "text/crilog.h"

/* "<prefix>interlink-cri: <20 digits> bytes of output were lost: the node was away\n" */
#define AGENT_LOG_MARKER_MAX 128

/* All zero is an empty log that nobody reads; set away_since_ms. */
struct agent_log {
    uint8_t *memory;     /* owned (mmap); NULL while there is nothing to keep */
    uint64_t tail, head;
    /* The bytes kept, tail first: `old` anywhere in memory; `young`, which follows it, from memory[0] on. Each ends with
     * a whole line, so no line is ever in two pieces. */
    size_t old_at, old_n, young_n;
    bool wrapped;        /* lines are put behind `young` */
    struct crilog_writer writer;
    bool ended;          /* nothing more will come */
    bool reading;        /* a reader has the log open */
    uint64_t sent;       /* while reading */
    int64_t away_since_ms; /* while not reading; monotonic */
    /* The line that stands for what was dropped: offsets marker_at to tail; marker_n is 0 when there is none. */
    uint64_t marker_at;
    size_t marker_n;
    uint8_t marker[AGENT_LOG_MARKER_MAX];
};

void agent_log_free(struct agent_log *l);

/* ---- the container's side ---- */
/* Takes whole lines from `in` as far as there is room, and says how many bytes; with `flush` also a last line without an
 * end. What it leaves is the beginning of a line (at most CRILOG_TEXT_MAX bytes), or more when agent_log_full(). */
size_t agent_log_write(struct agent_log *l, enum crilog_stream stream, int64_t real_ns, struct str in, bool flush);
/* No further line may fit. */
bool agent_log_full(const struct agent_log *l);
/* When the log is full: milliseconds until the oldest lines may be dropped, 0 for now, -1 for "a reader is there". */
int64_t agent_log_stall_ms(const struct agent_log *l, int64_t mono_ms);
/* Drops about an eighth of the ring, oldest first. Nobody must be reading. */
void agent_log_drop(struct agent_log *l);
/* Gives the memory back when there is nothing to keep. */
void agent_log_trim(struct agent_log *l);

/* ---- the reader's side ---- */
/* OUT_OF_RANGE when `from` lies above what was ever made. What is below `from` is freed. */
bool agent_log_open(struct agent_log *l, uint64_t from, int64_t real_ns, struct status *err);
void agent_log_close(struct agent_log *l, int64_t mono_ms);
/* The next bytes to send: at most `max` (more than CRILOG_LINE_MAX), whole lines; borrowed until the log changes. *offset is
 * that of the first. Empty when all is sent. */
struct str agent_log_next(const struct agent_log *l, size_t max, uint64_t *offset);
void agent_log_sent(struct agent_log *l, size_t n);
/* The reader has stored everything below `offset`; OUT_OF_RANGE when it was never sent that far. */
bool agent_log_stored(struct agent_log *l, uint64_t offset, struct status *err);

#endif
