/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_input.h: the agent's end of a process's standard input, a pipe or a terminal's master: fed by one caller or by
 * several, whose pieces follow each other whole.
 *
 * Back-pressure: what does not fit is kept, one piece a writer, and the writer waits until it is told. When the process
 * does not read any more, input goes nowhere, as it would on any machine.
 */
#ifndef AGENT_AGENT_INPUT_H
#define AGENT_AGENT_INPUT_H

#include "io/loop.h"

struct agent_input {
    struct loop *loop;
    int fd;              /* owned; -1: none, or closed */
    struct watch watch;  /* runs while somebody waits */
    struct list waiting; /* struct agent_input_writer, first come first served */
};

/* Call agent_input_writer_init. */
struct agent_input_writer {
    struct list link;
    struct buf rest; /* what did not fit yet */
    void (*on_room)(void *arg);
    void *arg;
};

void agent_input_init(struct agent_input *in, struct loop *loop);
/* Takes fd and makes it non-blocking. */
void agent_input_open(struct agent_input *in, int fd);
/* Those who wait are told that there is room: their input goes nowhere now. Harmless when it is closed. */
void agent_input_close(struct agent_input *in);

/* `on_room`: all of the last piece is written, after agent_input_write was false. */
void agent_input_writer_init(struct agent_input_writer *w, void (*on_room)(void *arg), void *arg);
/* True: done with it. False: a copy of the rest waits, and the writer must too. */
bool agent_input_write(struct agent_input *in, struct agent_input_writer *w, const void *p, size_t n);
static inline bool agent_input_waits(const struct agent_input_writer *w)
{
    return !list_empty(&w->link);
}
/* The writer goes, and what it has waiting with it. */
void agent_input_drop(struct agent_input *in, struct agent_input_writer *w);

#endif
