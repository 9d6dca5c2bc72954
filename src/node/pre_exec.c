/* SPDX-License-Identifier: Apache-2.0 */
#include "node/pre_exec.h"

#include "plugin/slurm_options.h"
#include "plugin/slurm_script.h"
#include "rpc/pb.h"
#include "text/quantity.h"

/* ---- the script ---- */

/* The plugin's folder of this pod is where it sends the job's output. `end` must say how it went before the job is over: without
 * its file the plugin makes up an exit code, and log streams never end. */
static const char pre_exec_begin[] =
    "# interlink-cri: the pod's agent, in place of its container.\n"
    "set +eu\n"
    "umask 077\n"
    "work=$(dirname \"$(readlink \"/proc/$$/fd/1\")\")\n"
    "agent= job= new= told=\n"
    "end() {\n"
    "  trap '' TERM USR1 USR2\n" /* which Slurm may send to rm as well */
    "  for old in \"$job\" \"$new\"; do [ -z \"$old\" ] || rm -rf --one-file-system \"$old\" 2>/dev/null; done\n"
    "  { printf '%s\\n' \"$1\" >\"$work/run-$name.status\"; } 2>/dev/null\n"
    /* A plugin that deletes the job removes the folder meanwhile, and cannot when this file comes in between. */
    "  [ -z \"$told\" ] || sleep 1\n"
    "  [ -f \"$work/job.sh\" ] || { rm -f \"$work/run-$name.status\"; rmdir \"$work\"; } 2>/dev/null\n"
    "  exit \"$1\"\n"
    "}\n"
    /* Not to both: who asks for the log gets the job's output and this file. */
    "fail() { echo \"interlink-cri: $2\" >>\"$work/run-$name.out\" || echo \"interlink-cri: $2\"; end \"$1\"; }\n"
    "pass() { told=1; [ -n \"$agent\" ] || end 143; kill -s TERM \"$agent\" 2>/dev/null; }\n"
    "trap pass TERM USR2\n"
    /* The agent takes a second TERM for an order to kill. */
    "trap 'pass; sleep 1; pass' USR1\n"
    "if ! [ -f \"$work/job.sh\" ]; then\n"
    "  echo \"interlink-cri: $work is not this pod's folder: the job's output must go where the plugin sends it\"\n"
    "  exit 125\n"
    "fi\n"
    "rm -f \"$work/run-$name.status\"\n";

/* Only our user may read the file from now on. It stays: a requeued job needs it again. */
static const char pre_exec_environment[] =
    "chmod 600 \"$work/${name}_envfile.properties\" 2>/dev/null\n"
    "[ -r \"$work/${name}_envfile.properties\" ] || fail 125 \"$work/${name}_envfile.properties cannot be read on $(hostname):"
    " DataRootFolder must be the same on compute nodes\"\n"
    "set -a; . \"$work/${name}_envfile.properties\"; set +a\n"
    "token=$" PRE_EXEC_TOKEN "; unset " PRE_EXEC_TOKEN "\n";

/* A folder on the machine itself, since shared file systems cannot carry root file systems. Who lives holds its lock; what a job
 * that was killed could not remove, the next one does. It has the name that is looked for only when its lock is held. */
static const char pre_exec_folder[] =
    "me=$(id -u)\n"
    "for scratch in \"$SLURM_TMPDIR\" \"$TMPDIR\" /tmp /var/tmp \"$work\"; do\n"
    "  [ -d \"$scratch\" ] && [ -w \"$scratch\" ] || continue\n"
    "  new=$(mktemp -d \"$scratch/.interlink-cri.XXXXXXXX\" 2>/dev/null) || continue\n"
    "  exec 9>\"$new/lock\"\n"
    "  flock -n 9 2>/dev/null\n"
    "  job=$scratch/interlink-cri.$me.${new##*.}\n"
    "  mv \"$new\" \"$job\" && break\n"
    "  job=\n"
    "done\n"
    "[ -n \"$job\" ] || fail 125 \"there is no folder to work in on $(hostname): SLURM_TMPDIR, TMPDIR, /tmp and /var/tmp were tried\"\n"
    "for old in \"$scratch/interlink-cri.$me.\"*; do\n"
    "  [ -f \"$old/lock\" ] && [ -O \"$old/lock\" ] && flock -n \"$old/lock\" rm -rf --one-file-system \"$old\"\n"
    "done 9>&- >/dev/null 2>&1 &\n"
    "mkdir -p \"$job/volumes/interlink\" && printf '%s' \"$token\" >\"$job/volumes/interlink/token\" ||"
    " fail 125 \"$job cannot be written to\"\n"
    "unset token\n"
    "export INTERLINK_JOB_DIR=\"$job\"\n";

static const char pre_exec_run[] =
    "[ -x \"$program\" ] || fail 127 \"$program is not there on $(hostname), or cannot be run: see the handler's Program in the"
    " node's configuration\"\n"
    "echo \"interlink-cri: Slurm job $SLURM_JOB_ID begins on $(hostname), in $job\"\n"
    "\"$program\" agent >>\"$work/run-$name.out\" 2>&1 9>&- &\n";

void pre_exec_write(struct buf *out, const char *container, const char *program, const char *before)
{
    if (*before != '\0')
        buf_printf(out, "%s\n", before);
    buf_append_str(out, "name=");
    slurm_shell_word(out, container);
    buf_append_str(out, " program=");
    slurm_shell_word(out, program);
    buf_append_byte(out, '\n');
    buf_append_str(out, pre_exec_begin);
    buf_append_str(out, pre_exec_environment);
    buf_append_str(out, pre_exec_folder);
    buf_append_str(out, slurm_script_cgroup);
    buf_append_str(out, pre_exec_run);
    buf_append_str(out, slurm_script_wait);
}

/* ---- flags ---- */

static const char *pre_exec_annotation(const Runtime__V1__PodSandboxConfig *config, const char *name)
{
    const char *value = pb_label(config->n_annotations, (void *)config->annotations, name);

    return value != NULL ? value : "";
}

/* One line of the batch script each: neither quotes nor blanks get through. */
static bool pre_exec_word_plain(const char *word)
{
    for (const unsigned char *p = (const unsigned char *)word; *p != '\0'; p++)
        if (*p <= ' ' || *p == 0x7f || *p == '"' || *p == '\'' || *p == '\\')
            return false;
    return true;
}

static const char *pre_exec_flag(struct arena *arena, const char *id, const char *flags, const char *word)
{
    if (pre_exec_word_plain(word))
        return arena_printf(arena, "%s%s%s", flags, *flags != '\0' ? " " : "", word);
    log_warn("pod %.13s: the Slurm option %.200s cannot be passed on by this way: there are blanks or quotes in it", id, word);
    return flags;
}

/* Whether the pod says itself which GPUs it wants. A flavor of the plugin's may say so, too. */
static bool pre_exec_names_gpus(const Runtime__V1__PodSandboxConfig *config, const char *flags)
{
    static const char *const options[] = { "--gres", "--gpus", "-G" };

    for (size_t i = 0; i < COUNT_OF(options); i++)
        if (strstr(flags, options[i]) != NULL)
            return true;
    return *pre_exec_annotation(config, SLURM_ANNOTATION_FLAVOR) != '\0';
}

static int64_t pre_exec_gpus(const char *id, const Interlink__State__V1__JobSize *size)
{
    int64_t gpus = 0, count;
    struct status err = STATUS_INIT;

    for (size_t i = 0; size != NULL && i < size->n_amounts; i++) {
        const char *resource = size->amounts[i]->resource, *slash = strchr(resource, '/');
        if (slash == NULL)
            continue;
        if (strcmp(slash, "/gpu") == 0 && quantity_parse(size->amounts[i]->limit, QUANTITY_ONE, &count, &err))
            gpus += count;
        else
            log_warn("pod %.13s: Slurm is not asked for %s, which has no name there: annotation " SLURM_ANNOTATION "gres can", id,
                     resource);
    }
    return gpus;
}

const char *pre_exec_flags(struct arena *arena, const char *id, const Runtime__V1__PodSandboxConfig *config,
                           const Interlink__State__V1__JobSize *size, const char *flags)
{
    static const char *const nouns[] = { SLURM_ANNOTATION_OPTIONS };
    struct interlink_strings words = { NULL, 0 };
    struct status err = STATUS_INIT;

    for (size_t i = 0; i < COUNT_OF(nouns); i++) {
        const char *value = pre_exec_annotation(config, arena_printf(arena, SLURM_ANNOTATION "%s", nouns[i]));
        if (*value != '\0')
            flags = pre_exec_flag(arena, id, flags, arena_printf(arena, "--%s=%s", nouns[i], value));
    }
    if (!slurm_words_split(arena, pre_exec_annotation(config, SLURM_ANNOTATION "flags"), &words, &err))
        log_warn("pod %.13s: annotation " SLURM_ANNOTATION "flags is left out: %s", id, err.message);
    for (size_t i = 0; i < words.count; i++)
        flags = pre_exec_flag(arena, id, flags, words.items[i]);
    int64_t gpus = pre_exec_names_gpus(config, flags) ? 0 : pre_exec_gpus(id, size);
    return gpus > 0 ? pre_exec_flag(arena, id, flags, arena_printf(arena, "--gres=gpu:%" PRId64, gpus)) : flags;
}

/* ---- limits ---- */

void pre_exec_limits(struct arena *arena, const Runtime__V1__PodSandboxConfig *config, struct interlink_pairs *limits)
{
    int64_t bytes = PRE_EXEC_MEMORY;
    struct status err = STATUS_INIT;
    size_t i = 0;

    while (i < limits->count && strcmp(limits->items[i].name, "memory") != 0)
        i++;
    /* What a flavor gives when there is no limit is more to the point than what we would. */
    if (i == limits->count && *pre_exec_annotation(config, SLURM_ANNOTATION_FLAVOR) != '\0')
        return;
    if (i < limits->count && !quantity_parse(limits->items[i].value, QUANTITY_ONE, &bytes, &err))
        return;
    if (bytes > INT64_MAX - SLURM_AGENT_MEMORY)
        return;
    if (i == limits->count)
        limits->count++;
    limits->items[i] = (struct interlink_pair){ "memory", arena_printf(arena, "%" PRId64, bytes + SLURM_AGENT_MEMORY) };
}
