/* SPDX-License-Identifier: Apache-2.0 */
/* manifest.h: what a registry says an image is made of. Source: OCI image-spec v1.1 (manifest.md, image-index.md), Docker's
 * "Image Manifest V 2, Schema 2". Schema 1 is refused. */
#ifndef IMAGE_MANIFEST_H
#define IMAGE_MANIFEST_H

#include "base/base.h"
#include "image/digest.h"

/* For the Accept header: every manifest we understand. */
#define MANIFEST_ACCEPT                                                                                                \
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "           \
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"

struct platform {
    char os[32], architecture[32], variant[16]; /* "linux", "arm64", "v8"; variant may be "" */
};
/* This machine's. */
void platform_host(struct platform *out);
/* "linux/amd64", "linux/arm/v7". */
bool platform_parse(const char *text, struct platform *out, struct status *err);

/* Strings live on the manifest's arena; "" when absent. */
struct descriptor {
    const char *media_type;
    struct digest digest;
    uint64_t size;
    bool has_platform;
    struct platform platform;
    const char *ref_name; /* annotations org.opencontainers.image.ref.name */
    const char *name;     /* annotations io.containerd.image.name */
};

struct manifest {
    struct arena arena;
    bool is_index;
    struct descriptor config;     /* of an image */
    struct descriptor *layers;    /* of an image, bottom first */
    size_t layer_count;
    struct descriptor *manifests; /* of an index */
    size_t manifest_count;
};

/* `content_type`: what came with it; "" when unknown. INVALID_ARGUMENT for what is malformed or ambiguous,
 * FAILED_PRECONDITION for what is no Linux container image (artifacts, schema 1, encrypted layers). */
bool manifest_parse(struct str json, const char *content_type, struct manifest *out, struct status *err);
void manifest_free(struct manifest *m);
#define cleanup_manifest __attribute__((cleanup(manifest_free)))

/* The entry of an index that suits a platform best. NULL: NOT_FOUND lists what there is. */
const struct descriptor *manifest_choose(const struct manifest *index, const struct platform *platform, struct status *err);

#endif
