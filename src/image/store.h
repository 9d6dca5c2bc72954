/* SPDX-License-Identifier: Apache-2.0 */
/* store.h: the images on this machine. One process owns a store (a lock says so); image.h draws what is on disk.
 *
 * Life of an image: it is put in by a pull or a load (pull.h, load.h), which may give one image several names; it is
 * listed until it is removed; it stays on disk, unlisted, while somebody holds it; then its files go.
 * All questions are answered from memory. Only what is said to block does. */
#ifndef IMAGE_STORE_H
#define IMAGE_STORE_H

#include "base/base.h"
#include "image/config.h"
#include "image/digest.h"
#include "image/reference.h"
#include "io/loop.h"

struct image_store;

struct image_store_options {
    const char *root; /* made (0700) when it is not there */
    /* Full references ("registry.k8s.io/pause:3.10") that are shown as pinned; NULL-terminated or NULL; borrowed. */
    const char *const *pinned;
    uint64_t layer_bytes_max;   /* an unpacked layer; 0: IMAGE_LAYER_BYTES_MAX */
    uint64_t layer_entries_max; /* 0: IMAGE_LAYER_ENTRIES_MAX */
    size_t pulls_max;           /* jobs at once; more of them wait; 0: IMAGE_JOBS_MAX */
};

/* Reads the records (blocks: at start only). FAILED_PRECONDITION when another process owns the store. Images whose
 * blobs or layers are gone are dropped with a log line, so that they are pulled again. NULL on failure. */
struct image_store *image_store_open(struct loop *loop, const struct image_store_options *options, struct status *err);
/* To be called once the containers found at start have called image_store_hold: what nobody holds or names goes now,
 * and pulls may begin. */
void image_store_start(struct image_store *store);
/* Forgets everything; what is on the disk stays. Pulls and loads must have ended or been cancelled. NULL is fine. */
void image_store_free(struct image_store *store);

/* ---- what is there ---- */
struct image_layer {
    struct digest diff_id; /* of the plain tar archive; names the folder */
    struct digest blob;    /* of the archive as it came */
    uint64_t size;         /* of the blob */
    char *media_type;
};

/* Owned by the store; valid until the next turn of the loop unless held. */
struct image {
    struct list link;
    char id[DIGEST_TEXT_SIZE]; /* the configuration's digest */
    char **tags;               /* full names, "docker.io/library/busybox:1.36"; in the order they came */
    size_t tag_count;
    char **digests; /* full names, "docker.io/library/busybox@sha256:..." */
    size_t digest_count;
    uint64_t size; /* manifests, configuration and layers as they came: what was transferred */
    struct image_user user;
    uint64_t config_size;
    struct digest config;
    struct image_layer *layers; /* bottom first */
    size_t layer_count;
    char **annotations; /* of the ImageSpec it was pulled with: name, value... */
    size_t annotation_count; /* pairs */
    bool pinned;
};

/* By id ("sha256:HEX", "HEX", or the first 12 or more digits of HEX when they fit one image only), or by reference: with a tag,
 * or with a digest under that name. NULL when there is none. Removed images are not found. */
const struct image *image_store_find(struct image_store *store, const char *text);
/* The listed images, oldest first: image_store_next(s, NULL) is the first, NULL after the last. */
const struct image *image_store_next(struct image_store *store, const struct image *previous);
size_t image_store_count(const struct image_store *store);
/* Grows with each change of what is listed: for those who keep an encoded list. */
uint64_t image_store_generation(const struct image_store *store);

/* The configuration's text (config.h parses it), read from its blob (blocks for one small file) and verified; appended. */
bool image_store_read_config_text(struct image_store *store, const struct image *image, struct buf *out,
                                  struct status *err);
/* Paths of a blob's file and of a layer's folder; the caller frees. They need not exist. */
char *image_store_blob_path(const struct image_store *store, const struct digest *blob);
char *image_store_layer_path(const struct image_store *store, const struct digest *diff_id);
const char *image_store_root(const struct image_store *store);

/* ---- removing ---- */
/* Drops the image and all its names; its files go when nobody else needs them. `text` as for image_store_find, but
 * an id must be whole. True as well when there is no such image. Blocks for the record's fsync. */
bool image_store_remove(struct image_store *store, const char *text, struct status *err);

/* ---- using ---- */
/* While `owner` (a sandbox's or container's id) holds it, the image's files stay, even when it is removed or its name
 * moves. An owner may hold several. `image_id` as in struct image; NOT_FOUND when it is neither listed nor on disk. */
bool image_store_hold(struct image_store *store, const char *image_id, const char *owner, struct status *err);
/* Lets go of all that owner holds. */
void image_store_release(struct image_store *store, const char *owner);
/* An image that may have been removed but is held. NULL when it is not on disk. */
const struct image *image_store_held(struct image_store *store, const char *image_id);

/* ---- space ---- */
struct image_usage {
    int64_t timestamp_ns;    /* real time */
    uint64_t bytes, inodes;  /* that the images take on the disk */
    const char *mountpoint;  /* of the file system they are on; borrowed from the store */
};
void image_store_usage(struct image_store *store, struct image_usage *out);

#endif
