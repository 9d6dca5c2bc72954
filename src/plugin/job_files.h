/* SPDX-License-Identifier: Apache-2.0 */
/* job_files.h: what backends have in common: which pods they run, and the files that come with one. */
#ifndef PLUGIN_JOB_FILES_H
#define PLUGIN_JOB_FILES_H

#include "base/base.h"
#include "interlink/pod.h"

#define JOB_FILES_MANIFEST "manifest.json" /* in a job's folder */

/* FAILED_PRECONDITION when the pod's single container is not our agent: the message names the field. */
bool job_files_check(const struct interlink_create *create, struct status *err);
/* The files of configMaps, secrets and projected volumes that the container mounts, as DIR/volumes/NAME/KEY, folders 0700 and
 * files 0600; an emptyDir is an empty folder. With a manifest that alone is written: the agent makes the volumes. */
bool job_files_write_volumes(const char *dir, const struct interlink_create *create, struct status *err);

#endif
