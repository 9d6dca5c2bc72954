/* SPDX-License-Identifier: Apache-2.0 */
/* load.h: from disk into the store: an OCI layout folder, the same as a tar archive, or what `docker save` writes
 * (plain, gzip or zstd). Nothing is trusted more than from a registry: digests and layers are verified. */
#ifndef IMAGE_LOAD_H
#define IMAGE_LOAD_H

#include "base/base.h"
#include "image/store.h"

struct image_load_options {
    const char *path;
    /* Name for images that carry only a tag, or no name at all (then tag "latest"): "registry.example/app". NULL or "":
     * such images get no name. */
    const char *base_name;
    const char *platform; /* NULL or "": this machine's */
    /* Once, from the loop: the ids of the images loaded, in the order of the archive (borrowed), or an error with
     * count 0. Images loaded before an error stay. */
    void (*on_done)(void *arg, const char *const *image_ids, size_t count, const struct status *err);
    void *arg;
};

struct image_load;
struct image_load *image_load_start(struct image_store *store, const struct image_load_options *options);
void image_load_cancel(struct image_load *load); /* NULL is fine; not after on_done */

#endif
