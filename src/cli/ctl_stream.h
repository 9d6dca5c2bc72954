/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl_stream.h: what exec, attach and port-forward of `ctl` are made of. They ask CRI for a URL and open their streams there.
 *
 *   ctl_upgrade.c    HTTP/1.1 (or HTTPS) to SPDY/3.1 or WebSocket
 *   ctl_terminal.c   the terminal we run in: raw and back, whatever happens
 *   ctl_session.c    a command's standard streams, here and there
 *   ctl_exec.c       exec, attach
 *   ctl_forward.c    port-forward
 */
#ifndef CLI_CTL_STREAM_H
#define CLI_CTL_STREAM_H

#include "cli/ctl.h"
#include "http/channel.h"

/* ---- ctl_upgrade.c ---- */
struct ctl_upgrade {
    const char *url;
    const char *const *protocols; /* wanted, best first */
    size_t protocol_count;
};
struct ctl_upgraded {
    struct stream *stream; /* owned */
    struct buf early;      /* owned; what came behind the answer */
    const char *protocol;  /* one of those wanted */
};
/* --transport: whether it is WebSocket and not SPDY. */
bool ctl_wants_websocket(const struct ctl *ctl, bool *websocket, struct status *err);
/* Waits until the server has agreed. */
bool ctl_upgrade(struct ctl *ctl, const struct ctl_upgrade *wanted, struct ctl_upgraded *out, struct status *err);

/* ---- ctl_terminal.c ---- */
/* Every key as it is, to the other side; again after SIGCONT. From here on the terminal is put back by ctl_terminal_restore, by
 * exit(3), and by each signal that ends the process but SIGINT, SIGTERM (which struct ctl's loop takes) and SIGKILL. */
bool ctl_terminal_raw(int fd, struct status *err);
void ctl_terminal_restore(void); /* harmless when it is as it was */
/* False when fd is no terminal, or has no size. */
bool ctl_terminal_size(int fd, unsigned *width, unsigned *height);

/* ---- ctl_session.c ---- */
struct ctl_session_options {
    const char *url;
    bool tty, with_stdin;
    int64_t timeout_ms; /* 0: none */
};
/* Runs it to its end, in this process's standard streams. False: it could not be run, or broke. *exit_code: the command's; 128 + n
 * when signal n ended us. */
bool ctl_session_run(struct ctl *ctl, const struct ctl_session_options *options, int *exit_code, struct status *err);

#endif
