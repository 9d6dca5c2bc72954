/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_output.h: a container's standard output and error: pipe -> buffer -> log (agent_log.h) -> Logs stream.
 *
 * Back-pressure goes the whole way: a reader that does not acknowledge leaves the log full, a full log leaves the pipe
 * full, and a full pipe stops the container. Only a node that is away longer than LOG_STALL_GRACE_MS costs lines.
 *
 * Output that comes in many small pieces is gathered for AGENT_LOG_GATHER_MS, so that neither we nor the node are woken for
 * each line.
 *
 * Whoever is attached gets the same bytes as the log, when they are read, and is waited for as the log is: so it must go
 * away when it does not take them for long. After the process's end it is not waited for: what is left then is no more
 * than the pipes hold.
 *
 * Buffers are made at the first output and given back when it has fallen quiet.
 */
#ifndef AGENT_AGENT_OUTPUT_H
#define AGENT_AGENT_OUTPUT_H

#include "agent/agent_log.h"
#include "io/loop.h"
#include "rpc/rpc.h"

struct agent_output;

/* Somebody else who is to see the output, as it is read: an attached client. */
struct agent_output_tap {
    struct list link;
    struct agent_output *output; /* NULL: none */
    bool full;                   /* the output waits for it */
    /* A piece of output, borrowed for the call. False: no more until agent_output_tap_ready. */
    bool (*take)(void *arg, enum crilog_stream kind, struct str piece);
    void *arg;
};

struct agent_output_stream {
    struct agent_output *output;
    enum crilog_stream kind;
    int fd;         /* owned; -1 when there is none, or it has ended */
    struct watch watch;
    uint8_t *in;    /* owned (mmap, AGENT_LOG_READ_SIZE); read, not in the log yet; NULL when nothing is */
    size_t in_n;
    bool over;      /* no more to read; what is in `in` is all */
    bool asked, enlarged; /* a busy pipe is made larger: that was tried; it worked */
    int64_t read_ms;      /* when output came last; monotonic */
    struct timer gather;  /* running: not watched, so that the next read finds more */
    size_t left;    /* after the process's end: bytes to read, then it is over; SIZE_MAX: until the pipe's end */
};

/* Call agent_output_init. */
struct agent_output {
    struct loop *loop;
    struct agent_log log;
    struct agent_output_stream streams[2]; /* by enum crilog_stream */
    struct rpc_call *reader;   /* a Logs call under way */
    bool blocked;              /* until the reader is writable again */
    bool end_sent;
    bool draining;             /* the process has ended */
    bool last;                 /* ... and what is left is counted (streams[].left) */
    struct list taps;          /* struct agent_output_tap */
    struct timer stall, drain, trim;
    struct deferred push, drained;
    void (*on_drained)(void *arg);
    void *arg;
};

void agent_output_init(struct agent_output *o, struct loop *loop);
/* Takes the descriptors, makes them non-blocking. With a terminal: its master alone, and -1. */
bool agent_output_start(struct agent_output *o, int stdout_fd, int stderr_fd, struct status *err);
/* The process has ended: on_drained (from the loop) when the log has all of its output and will not grow any more. */
void agent_output_drain(struct agent_output *o, void (*on_drained)(void *arg), void *arg);
/* Ends the log now, whatever is still in the pipes; on_drained is called if it was waited for. */
void agent_output_cut(struct agent_output *o);
/* A Logs call whose first message has come; ends it itself. A reader that was there before is ended. */
void agent_output_read(struct agent_output *o, struct rpc_call *call, uint64_t from);
/* From now on, to the end or to agent_output_untap. Set take and arg. */
void agent_output_tap(struct agent_output *o, struct agent_output_tap *t);
void agent_output_tap_ready(struct agent_output_tap *t);
void agent_output_untap(struct agent_output_tap *t); /* harmless when it is at none */
/* The process was told something: what it says next may be the answer, which is not gathered with what comes later. */
void agent_output_expect(struct agent_output *o);
/* Whether a reader is there that has not acknowledged everything yet. */
bool agent_output_unread(const struct agent_output *o);
/* Ends the reader's call with `why`. */
void agent_output_free(struct agent_output *o, const struct status *why);

#endif
