/* SPDX-License-Identifier: Apache-2.0 */
/*
 * apptainer.h: the site's own apptainer, or singularity as it was called before: where it is, whether it can work here, and what
 * its command line looks like for a container of ours. Nothing here starts a container (engine_apptainer.c does).
 *
 * A container is an `instance`: apptainer makes its namespaces and mounts, and keeps them with a first process of its own. All
 * processes of the container, its program too, are brought in by `exec instance://NAME`, which works alike for a setuid
 * installation, for one with user namespaces and for root. What is run there is this program, by a file that the instance has
 * mounted at APPTAINER_ENTER: it takes command, environment, working directory and filter over a socket, so that none of them is
 * in an argument, and becomes the container's process.
 */
#ifndef AGENT_APPTAINER_H
#define AGENT_APPTAINER_H

#include "base/base.h"

struct spec;
struct spec_mount;

/* Where apptainer looks for what an instance runs first; ours ends at once. */
#define APPTAINER_ENTER "/.singularity.d/actions/start"
/* Apptainer makes a /dev of its own, in which it mounts nothing but devices under their own names: what a pod wants there is mounted
 * here, and a link leads to it. */
#define APPTAINER_DEV "/.singularity.d/dev"
#define APPTAINER_NAME_SIZE 80

struct apptainer {
    char path[256];   /* absolute */
    char version[64]; /* "apptainer version 1.4.5" */
    bool setuid;      /* its starter works without user namespaces */
};

/* `configured`: a path or a name for $PATH; NULL or "": apptainer, then singularity, from $PATH. Runs it twice (a few ms). NOT_FOUND when
 * there is none; FAILED_PRECONDITION when it is there and cannot make containers in this job. */
bool apptainer_find(const char *configured, struct apptainer *out, struct status *err);

/* The instance's name, for a container id. */
void apptainer_name(const char *id, char out[APPTAINER_NAME_SIZE]);

struct apptainer_instance {
    const struct apptainer *program;
    const char *id, *root;     /* container, its root folder */
    const char *enter;         /* the file that is mounted at APPTAINER_ENTER */
    const char *pid_file;
    const struct spec *spec;   /* mounts and devices */
    bool own_ipc, root_user;
    bool nvidia, rocm;         /* the machine's driver libraries come along */
};
/* The command that starts it, NULL-terminated, on the arena. FAILED_PRECONDITION for a path that the command line cannot hold. */
bool apptainer_start_argv(const struct apptainer_instance *i, struct arena *arena, const char *const **argv, struct status *err);
/* Whether a mount of the spec is one that the instance is to have from us: what the kernel shows is apptainer's to mount. */
bool apptainer_mount_wanted(const struct spec_mount *m);
/* Where the spec's mount is really mounted. On the arena, or the mount's own. */
const char *apptainer_place(const struct spec *s, size_t index, struct arena *arena);
/* The command that runs a process in it: APPTAINER_ENTER with these words. */
const char *const *apptainer_exec_argv(const struct apptainer *program, const char *id, const char *const *words, struct arena *arena);
/* Its environment: ours, with its own state kept in `folder`. */
char **apptainer_env(const char *folder, struct arena *arena);

#endif
