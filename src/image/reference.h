/* SPDX-License-Identifier: Apache-2.0 */
/* reference.h: image references as users write them for Docker and Kubernetes.
 * Source: github.com/distribution/reference, its grammar and its normalisation. */
#ifndef IMAGE_REFERENCE_H
#define IMAGE_REFERENCE_H

#include "base/base.h"
#include "image/digest.h"

#define REFERENCE_NAME_MAX 255 /* of domain and path together; the registries' own limit */
#define REFERENCE_TAG_MAX 128
/* Room for any: domain, path, and a tag (a digest is shorter). */
#define REFERENCE_TEXT_SIZE (2 * (REFERENCE_NAME_MAX + 1) + REFERENCE_TAG_MAX + 2)

/* By value: nothing to free. Exactly one of tag and digest is set: a digest written beside a tag wins (the tag may have
 * moved since), and without either the tag is "latest". */
struct reference {
    char domain[REFERENCE_NAME_MAX + 1]; /* "docker.io", "localhost:5000", "[::1]:5000" */
    char path[REFERENCE_NAME_MAX + 1];   /* "library/busybox" */
    char tag[REFERENCE_TAG_MAX + 1];     /* "" with a digest */
    char digest[DIGEST_TEXT_SIZE];       /* "" with a tag */
};

/* INVALID_ARGUMENT says which part is wrong and what it may hold. */
bool reference_parse(const char *text, struct reference *out, struct status *err);
/* "docker.io/library/busybox" */
void reference_name(const struct reference *r, char out[REFERENCE_TEXT_SIZE]);
/* "docker.io/library/busybox:latest" or "docker.io/library/busybox@sha256:..." */
void reference_text(const struct reference *r, char out[REFERENCE_TEXT_SIZE]);

#endif
