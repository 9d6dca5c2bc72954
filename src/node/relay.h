/* SPDX-License-Identifier: Apache-2.0 */
/* relay.h: where agents call in (rpc/dial.h describes the request). A connection that proves itself is handed over; everything
 * before that is bounded in number and time. Also answers GET /healthz. */
#ifndef NODE_RELAY_H
#define NODE_RELAY_H

#include "io/stream.h"
#include "io/tls.h"

struct relay;

struct relay_options {
    const char *unix_path; /* in a folder that is made 0700; NULL or "": none */
    const char *listen;    /* "host:port" (a literal address; port 0: any), with TLS; NULL or "": none */
    struct tls_identity *identity; /* for `listen` and relay_accept(); a reference is held */
    /* Whether the token is that sandbox's. On false the reply follows the error's code: UNAUTHENTICATED 401,
     * NOT_FOUND 404, FAILED_PRECONDITION 410 (known and over). Must compare in constant time. */
    bool (*authorise)(void *arg, const char *sandbox_id, const char *token, struct status *err);
    /* Takes the stream. `early` is borrowed for the call. */
    void (*on_agent)(void *arg, const char *sandbox_id, struct stream *stream, struct str early);
    void *arg;
};

struct relay *relay_start(struct loop *loop, const struct relay_options *options, struct status *err); /* NULL on failure */
/* Takes the other end of a command that was run to reach an agent: what comes over it is as what comes over `listen`. */
void relay_accept(struct relay *relay, struct stream *stream);
uint16_t relay_port(const struct relay *relay); /* of `listen`; 0 without it */
void relay_free(struct relay *relay);           /* connections handed over live on; NULL is fine; not
                                                   from inside authorise or on_agent */

#endif
