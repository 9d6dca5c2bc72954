/* SPDX-License-Identifier: Apache-2.0 */
/* registry.h: one repository of one registry, by the distribution API (OCI distribution-spec v1.1).
 *
 * A call asks the registry's servers (hosts.h) one after the other until one gives what was wanted. On each it logs in when it
 * is asked to, follows redirects (without showing its credentials to others), and tries again with growing pauses when the
 * server is overloaded or the connection breaks; a download goes on where it broke off. */
#ifndef IMAGE_REGISTRY_H
#define IMAGE_REGISTRY_H

#include "base/base.h"
#include "http/client.h"
#include "image/digest.h"
#include "image/hosts.h"
#include "image/pull.h"
#include "image/reference.h"

struct registry;
struct registry_call;

/* Everything but `loop` is copied or read. Reads hosts.toml files (blocks: in a child). NULL on failure. */
struct registry *registry_new(struct loop *loop, const struct registry_options *options, const struct reference *reference,
                              const struct image_auth *auth, struct status *err);
/* Cancels what is under way. NULL is fine. */
void registry_free(struct registry *r);

struct registry_answer {
    struct str body;          /* without on_body; borrowed */
    const char *content_type; /* "" when absent; borrowed */
    struct digest digest;     /* of a manifest; zero when a HEAD did not tell */
    uint64_t size;            /* of a manifest; 0 when not known */
    const char *server;       /* who gave it; borrowed */
};

struct registry_get {
    bool head;          /* of a manifest: only its digest, size and type */
    const char *kind;   /* "manifests" or "blobs"; must outlive the call */
    const char *name;   /* a tag or a digest; copied */
    uint64_t size_max;  /* a longer body is an error */
    /* For a body that is to be taken as it comes. Where it stands: asked before each try. */
    uint64_t (*offset)(void *arg);
    /* The pieces that follow begin at `offset`: where it stands, or 0 when the server cannot continue. False: give up. */
    bool (*on_start)(void *arg, uint64_t offset, struct status *err);
    /* False: give up. */
    bool (*on_body)(void *arg, struct str piece, struct status *err);
    /* The body is complete. False: it is not what was wanted; another server may have it. offset() gives 0 afterwards. */
    bool (*verify)(void *arg, struct status *err);
    /* Once, from the loop, unless cancelled. One of both is NULL. Without on_body manifests are checked against their
     * digest before. */
    void (*on_done)(void *arg, const struct registry_answer *answer, const struct status *err);
    void *arg;
};
struct registry_call *registry_call(struct registry *r, const struct registry_get *get);
/* NULL is fine. Not after on_done. */
void registry_cancel(struct registry_call *call);

#endif
