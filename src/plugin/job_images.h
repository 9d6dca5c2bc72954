/* SPDX-License-Identifier: Apache-2.0 */
/*
 * job_images.h: images of pods from manifests: pulled here, where there is a network, into a store (image/store.h) that the jobs see
 * under the same path, DIR/images. What becomes of it is written to each job's images.json (agent/podrun.h), for which its agent waits.
 *
 * An image is the name of one in a registry, or the absolute path of an archive or OCI layout on this machine's disk. Names are looked
 * up as imagePullPolicy says; what fails is tried again after 10 s, 20 s... 300 s. A pod holds its images until it is forgotten.
 */
#ifndef PLUGIN_JOB_IMAGES_H
#define PLUGIN_JOB_IMAGES_H

#include "agent/podspec.h"

struct job_images;
struct loop;

/* `dir`: the plugin's folder, absolute. The pods of an earlier life are found there. NULL on failure. */
struct job_images *job_images_new(struct loop *loop, const char *dir, struct status *err);
void job_images_free(struct job_images *ji); /* NULL is fine */

const char *job_images_dir(const struct job_images *ji);
/* Whether the pod is one from a manifest. */
bool job_images_known(const struct job_images *ji, const char *uid);
/* Begins to bring its images; done already for a pod that is known. */
bool job_images_add(struct job_images *ji, const struct podspec *spec, struct status *err);
/* Its job's folder is there now: what is known so far is written to it. Nothing for a pod that is not known. */
void job_images_tell(struct job_images *ji, const char *uid);
/* Forgets those that are not `there` any more: their removal took longer than its caller waited. */
void job_images_sweep(struct job_images *ji, bool (*there)(void *arg, const char *uid), void *arg);
/* The pod is gone, or was refused. */
void job_images_forget(struct job_images *ji, const char *uid);

#endif
