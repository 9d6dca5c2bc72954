/* SPDX-License-Identifier: Apache-2.0 */
/* pull.h: from a registry into the store.
 *
 *   WAITING -> RESOLVING -> FETCHING -> COMMITTED      (any of them -> FAILED)
 *
 * WAITING: other jobs are at work, or garbage is being swept. RESOLVING: the child asks the registry what the name
 * stands for. FETCHING: it gets the blobs that are not there and unpacks them. Then this process writes the record, and
 * on_done hears the image's id. Jobs that need the same blob or layer at the same time get it once (registry.h). */
#ifndef IMAGE_PULL_H
#define IMAGE_PULL_H

#include "base/base.h"
#include "image/hosts.h"
#include "image/store.h"

/* Credentials as CRI's AuthConfig has them; "" where there is none. Borrowed; never logged. */
struct image_auth {
    const char *username, *password;
    const char *auth; /* base64 of "username:password" */
    const char *server_address;
    const char *identity_token; /* a refresh token, exchanged for an access token */
    const char *registry_token; /* sent as a bearer token */
};

struct image_progress {
    struct digest blob;
    uint64_t done, total; /* bytes; done == total: it is there */
};

struct image_pull_options {
    const char *reference;            /* as the user wrote it */
    const struct image_auth *auth;    /* NULL: none */
    const char *platform;             /* "linux/arm64", "linux/arm/v7"; NULL or "": this machine's */
    int64_t timeout_ms;               /* until on_done hears DEADLINE_EXCEEDED; 0 or less fails at once; INT64_MAX: none */
    const char *const *annotations;   /* of the ImageSpec: name, value...; copied */
    size_t annotation_count;          /* pairs */
    const struct registry_options *registries; /* borrowed until on_done: mirrors, proxies, authorities */
    /* At most ten times a second while blobs come; may be NULL. */
    void (*on_progress)(void *arg, const struct image_progress *blobs, size_t count);
    /* Once, from the loop, never from inside image_pull_start; not after image_pull_cancel. image_id is NULL on failure. */
    void (*on_done)(void *arg, const char *image_id, const struct status *err);
    void *arg;
};

struct image_pull;
/* Never fails at once. */
struct image_pull *image_pull_start(struct image_store *store, const struct image_pull_options *options);
/* Ends it; on_done is not called. NULL is fine. Must not be called after on_done. */
void image_pull_cancel(struct image_pull *pull);

#endif
