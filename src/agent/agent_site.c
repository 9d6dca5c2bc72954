/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_site.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/pb.h"

/* Of one machine: the largest have 16 GPUs. */
#define AGENT_SITE_DEVICES_MAX 64

/* ---- the container's lists ---- */

static void agent_site_env(Runtime__V1__ContainerConfig *config, struct arena *arena, const char *entry)
{
    size_t name = strcspn(entry, "=");

    for (size_t i = 0; i < config->n_envs; i++)
        if (strlen(config->envs[i]->key) == name && strncmp(config->envs[i]->key, entry, name) == 0)
            return;
    Runtime__V1__KeyValue **envs = ARENA_ARRAY(arena, Runtime__V1__KeyValue *, config->n_envs + 1);
    Runtime__V1__KeyValue *e = ARENA_ARRAY(arena, Runtime__V1__KeyValue, 1);
    runtime__v1__key_value__init(e);
    e->key = arena_strndup(arena, entry, name);
    const char *value = entry[name] == '=' ? entry + name + 1 : "";
    e->value = (ProtobufCBinaryData){ strlen(value), (uint8_t *)arena_strdup(arena, value) };
    if (config->n_envs > 0)
        memcpy(envs, config->envs, config->n_envs * sizeof *envs);
    envs[config->n_envs++] = e;
    config->envs = envs;
}

/* A path of this machine, read-only under its own name; what the container has there itself counts more. */
static void agent_site_mount(Runtime__V1__ContainerConfig *config, struct arena *arena, const char *path)
{
    for (size_t i = 0; i < config->n_mounts; i++)
        if (strcmp(config->mounts[i]->container_path, path) == 0)
            return;
    Runtime__V1__Mount **mounts = ARENA_ARRAY(arena, Runtime__V1__Mount *, config->n_mounts + 1);
    Runtime__V1__Mount *m = ARENA_ARRAY(arena, Runtime__V1__Mount, 1);
    runtime__v1__mount__init(m);
    m->host_path = m->container_path = arena_strdup(arena, path);
    m->readonly = true;
    if (config->n_mounts > 0)
        memcpy(mounts, config->mounts, config->n_mounts * sizeof *mounts);
    mounts[config->n_mounts++] = m;
    config->mounts = mounts;
}

static void agent_site_device(Runtime__V1__ContainerConfig *config, struct arena *arena, const char *host_path, const char *container_path)
{
    for (size_t i = 0; i < config->n_devices; i++)
        if (strcmp(config->devices[i]->container_path, container_path) == 0)
            return;
    Runtime__V1__Device **devices = ARENA_ARRAY(arena, Runtime__V1__Device *, config->n_devices + 1);
    Runtime__V1__Device *d = ARENA_ARRAY(arena, Runtime__V1__Device, 1);
    runtime__v1__device__init(d);
    d->host_path = arena_strdup(arena, host_path);
    d->container_path = arena_strdup(arena, container_path);
    d->permissions = arena_strdup(arena, "rw");
    if (config->n_devices > 0)
        memcpy(devices, config->devices, config->n_devices * sizeof *devices);
    devices[config->n_devices++] = d;
    config->devices = devices;
}

static const char *agent_site_variable(const struct agent_site_input *in, const char *name)
{
    size_t n = strlen(name);

    for (char *const *e = in->environment; *e != NULL; e++)
        if (strncmp(*e, name, n) == 0 && (*e)[n] == '=')
            return *e + n + 1;
    return NULL;
}

static const char *agent_site_annotation(const Runtime__V1__PodSandboxConfig *sandbox, const char *name)
{
    const char *value = sandbox == NULL ? NULL : pb_label(sandbox->n_annotations, (void *)sandbox->annotations, name);

    return value != NULL ? value : "";
}

/* ---- Slurm ---- */

/* A program that the job's PATH has. */
static void agent_site_program(const struct agent_site_input *in, Runtime__V1__ContainerConfig *config, struct arena *arena,
                               const char *name)
{
    const char *path = agent_site_variable(in, "PATH");

    for (const char *p = path != NULL ? path : "/usr/bin:/bin"; *p != '\0';) {
        size_t n = strcspn(p, ":");
        const char *full = arena_printf(arena, "%.*s/%s", (int)n, p, name);
        if (*p == '/' && access(full, X_OK) == 0) {
            agent_site_mount(config, arena, full);
            return;
        }
        p += n + (p[n] == ':');
    }
}

static void agent_site_usual(const struct agent_site_input *in, Runtime__V1__ContainerConfig *config, struct arena *arena)
{
    static const char *const programs[] = { "srun", "scontrol", "squeue", "sinfo", "sbatch", "scancel", "sbcast", "sattach" };
    static const char *const paths[] = { "/etc/slurm", "/etc/slurm-llnl", "/run/munge", "/usr/lib64/slurm", "/usr/lib/slurm",
                                         "/usr/lib/x86_64-linux-gnu/slurm", "/usr/lib/x86_64-linux-gnu/slurm-wlm",
                                         "/usr/lib/aarch64-linux-gnu/slurm", "/usr/lib/aarch64-linux-gnu/slurm-wlm",
                                         "/usr/lib64/libmunge.so.2", "/usr/lib/x86_64-linux-gnu/libmunge.so.2",
                                         "/usr/lib/aarch64-linux-gnu/libmunge.so.2" };
    const char *conf = agent_site_variable(in, "SLURM_CONF");

    for (size_t i = 0; i < COUNT_OF(programs); i++)
        agent_site_program(in, config, arena, programs[i]);
    for (size_t i = 0; i < COUNT_OF(paths); i++)
        if (access(paths[i], F_OK) == 0)
            agent_site_mount(config, arena, paths[i]);
    if (conf != NULL && *conf == '/' && access(conf, F_OK) == 0)
        agent_site_mount(config, arena, conf);
}

static bool agent_site_slurm(const struct agent_site_input *in, Runtime__V1__ContainerConfig *config, struct arena *arena, struct buf *note,
                             struct status *err)
{
    const char *wanted = agent_site_annotation(in->sandbox, AGENT_SITE_SLURM);
    const char *paths = agent_site_variable(in, "INTERLINK_SLURM_PATHS");
    char *save = NULL;

    if (*wanted == '\0' || strcmp(wanted, "false") == 0)
        return true;
    if (strcmp(wanted, "true") != 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "annotation " AGENT_SITE_SLURM ": \"%.40s\" is neither true nor false", wanted);
    if (agent_site_variable(in, "SLURM_JOB_ID") == NULL)
        return status_set(err, STATUS_FAILED_PRECONDITION, "annotation " AGENT_SITE_SLURM ": this pod is no job of Slurm's");
    if (in->renamed_user)
        buf_printf(note, "%sannotation " AGENT_SITE_SLURM ": Slurm may refuse srun here, for the job's user is 0 in this container and somebody "
                   "else to munge; Engine: apptainer leaves it as it is", note->n > 0 ? "; " : "");
    for (char *const *e = in->environment; *e != NULL; e++)
        if (str_starts(*e, "SLURM_"))
            agent_site_env(config, arena, *e);
    if (paths == NULL) {
        agent_site_usual(in, config, arena);
        return true;
    }
    for (char *path = strtok_r(arena_strdup(arena, paths), ":", &save); path != NULL; path = strtok_r(NULL, ":", &save)) {
        if (*path != '/' || access(path, F_OK) < 0)
            return status_set(err, STATUS_FAILED_PRECONDITION, "annotation " AGENT_SITE_SLURM ": INTERLINK_SLURM_PATHS names \"%.200s\", which "
                              "this machine does not have", path);
        agent_site_mount(config, arena, path);
    }
    return true;
}

/* ---- GPUs ---- */

bool agent_site_gpus_of(const Runtime__V1__PodSandboxConfig *sandbox, enum agent_site_gpus *out, struct status *err)
{
    static const char *const words[] = { [AGENT_GPUS_NONE] = "", [AGENT_GPUS_NVIDIA] = "nvidia", [AGENT_GPUS_AMD] = "amd",
                                         [AGENT_GPUS_INTEL] = "intel" };
    const char *word = agent_site_annotation(sandbox, AGENT_SITE_GPUS), *job = getenv("INTERLINK_GPUS");

    if (*word == '\0' && job != NULL)
        word = job;
    for (size_t i = 0; i < COUNT_OF(words); i++)
        if (strcmp(word, words[i]) == 0) {
            *out = (enum agent_site_gpus)i;
            return true;
        }
    return status_set(err, STATUS_INVALID_ARGUMENT, "annotation " AGENT_SITE_GPUS ": \"%.40s\" is none of nvidia, amd, intel", word);
}

/* Nodes of `dev` whose names begin so, and what is in such a folder. */
static size_t agent_site_devices(const struct agent_site_input *in, Runtime__V1__ContainerConfig *config, struct arena *arena,
                                 const char *below, const char *prefix)
{
    const char *dir_path = arena_printf(arena, "%s%s", in->dev, below);
    DIR *dir = opendir(dir_path);
    struct dirent *entry;
    size_t found = 0;

    while (dir != NULL && found < AGENT_SITE_DEVICES_MAX && (entry = readdir(dir)) != NULL) {
        const char *path = arena_printf(arena, "%s/%s", dir_path, entry->d_name);
        const char *inside = arena_printf(arena, "%s/%s", below, entry->d_name);
        struct stat st;
        if (entry->d_name[0] == '.' || !str_starts(entry->d_name, prefix) || lstat(path, &st) < 0)
            continue;
        if (S_ISDIR(st.st_mode) && *below == '\0')
            found += agent_site_devices(in, config, arena, inside, "");
        if (!S_ISCHR(st.st_mode))
            continue;
        agent_site_device(config, arena, path, arena_printf(arena, "/dev%s", inside));
        found++;
    }
    if (dir != NULL)
        closedir(dir);
    return found;
}

static bool agent_site_gpus(const struct agent_site_input *in, Runtime__V1__ContainerConfig *config, struct arena *arena, struct buf *note,
                            struct status *err)
{
    static const char *const variables[] = { "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
                                             "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS",
                                             "SLURM_GPUS_ON_NODE" };
    static const char *const prefixes[][2] = { [AGENT_GPUS_NVIDIA] = { "nvidia", NULL }, [AGENT_GPUS_AMD] = { "kfd", "dri" },
                                               [AGENT_GPUS_INTEL] = { "dri", NULL } };
    enum agent_site_gpus kind;
    size_t found = 0;

    if (!agent_site_gpus_of(in->sandbox, &kind, err))
        return false;
    if (kind == AGENT_GPUS_NONE)
        return true;
    for (size_t i = 0; i < COUNT_OF(variables); i++) {
        const char *value = agent_site_variable(in, variables[i]);
        if (value != NULL)
            agent_site_env(config, arena, arena_printf(arena, "%s=%s", variables[i], value));
    }
    if (!in->with_devices)
        return true;
    for (size_t i = 0; i < 2 && prefixes[kind][i] != NULL; i++)
        found += agent_site_devices(in, config, arena, "", prefixes[kind][i]);
    if (found == 0)
        buf_printf(note, "%sthe pod has GPUs, and this machine has no device node of theirs in %s", note->n > 0 ? "; " : "", in->dev);
    return true;
}

bool agent_site_add(const struct agent_site_input *in, Runtime__V1__ContainerConfig *config, struct arena *arena, struct buf *note,
                    struct status *err)
{
    return agent_site_slurm(in, config, arena, note, err) && agent_site_gpus(in, config, arena, note, err);
}

#undef AGENT_SITE_DEVICES_MAX
