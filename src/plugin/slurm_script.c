/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/slurm_script.h"

#include "interlink/slurm_flags.h"
#include "plugin/slurm_options.h"
#include "text/quantity.h"

/* ---- size ---- */

/* The limit, else the request; "" when there is neither. Slurm gives what is asked for and not more: the limit is what a
 * container may come to use. */
static const char *slurm_script_amount(const struct interlink_container *c, const char *resource)
{
    const char *limit = interlink_pair_get(&c->limits, resource);

    return *limit != '\0' && strcmp(limit, "0") != 0 ? limit : interlink_pair_get(&c->requests, resource);
}

static bool slurm_script_quantity(const struct interlink_container *c, const char *resource, enum quantity_scale scale,
                                  int64_t *out, struct status *err)
{
    const char *text = slurm_script_amount(c, resource);

    *out = 0;
    if (*text == '\0')
        return true;
    if (!quantity_parse(text, scale, out, err))
        return status_prefix(err, "pod.spec.containers[0].resources: %.80s", resource);
    return *out >= 0 || status_set(err, STATUS_INVALID_ARGUMENT, "pod.spec.containers[0].resources: %.80s is negative", resource);
}

static bool slurm_script_gres_of(struct arena *arena, const struct slurm_config *config, const struct interlink_container *c,
                                 const char *resource, const char **gres, struct status *err)
{
    const char *name = interlink_pair_get(&config->gres, resource);
    int64_t count;

    if (!slurm_script_quantity(c, resource, QUANTITY_ONE, &count, err))
        return false;
    if (count == 0)
        return true;
    if (*name == '\0')
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "pod.spec.containers[0].resources: the site has no gres for %.80s (Slurm.Gres in the plugin's "
                          "configuration)",
                          resource);
    *gres = arena_printf(arena, "%s%s%s:%" PRId64, *gres, **gres != '\0' ? "," : "", name, count);
    return true;
}

/* Extended resources have a slash in their names. */
static bool slurm_script_gres(struct arena *arena, const struct slurm_config *config, const struct interlink_container *c,
                              const char **gres, struct status *err)
{
    const struct interlink_pairs *lists[] = { &c->limits, &c->requests };

    *gres = "";
    for (size_t l = 0; l < COUNT_OF(lists); l++)
        for (size_t i = 0; i < lists[l]->count; i++) {
            const char *resource = lists[l]->items[i].name;
            /* Of what has a limit the request says nothing more. */
            bool again = l == 1 && *interlink_pair_get(&c->limits, resource) != '\0';
            if (strchr(resource, '/') != NULL && !again && !slurm_script_gres_of(arena, config, c, resource, gres, err))
                return false;
        }
    return true;
}

static bool slurm_script_size(struct arena *arena, const struct slurm_config *config, const struct interlink_pod *pod,
                              struct interlink_strings *out, struct status *err)
{
    const struct interlink_container *c = &pod->containers[0];
    int64_t milli, bytes;
    const char *gres;

    if (!slurm_script_quantity(c, "cpu", QUANTITY_MILLI, &milli, err) ||
        !slurm_script_quantity(c, "memory", QUANTITY_ONE, &bytes, err) || !slurm_script_gres(arena, config, c, &gres, err))
        return false;
    if (milli > 0)
        slurm_options_add(arena, out, arena_printf(arena, "--cpus-per-task=%" PRId64, (milli - 1) / 1000 + 1));
    if (bytes > 0 && bytes < INT64_MAX / 2) {
        int64_t kib = (bytes + config->memory_overhead + 1023) / 1024;
        slurm_options_add(arena, out, arena_printf(arena, "--mem=%" PRId64 "K", kib));
    }
    if (*gres != '\0')
        slurm_options_add(arena, out, arena_printf(arena, "--gres=%s", gres));
    /* Slurm counts in minutes. */
    if (pod->active_deadline_seconds > 0)
        slurm_options_add(arena, out, arena_printf(arena, "--time=%" PRId64, (pod->active_deadline_seconds - 1) / 60 + 1));
    return true;
}

/* ---- annotations ---- */

static const char *slurm_script_annotation(const struct interlink_pod *pod, const char *noun)
{
    char name[64];

    snprintf(name, sizeof name, SLURM_ANNOTATION "%s", noun);
    return interlink_pair_get(&pod->annotations, name);
}

/* One option by an annotation of its own. */
static bool slurm_script_named(struct arena *arena, const struct interlink_pod *pod, struct interlink_strings *out,
                               struct status *err)
{
    static const char *const nouns[] = { SLURM_ANNOTATION_OPTIONS };

    for (size_t i = 0; i < COUNT_OF(nouns); i++) {
        const char *value = slurm_script_annotation(pod, nouns[i]);
        if (*value == '\0')
            continue;
        for (const unsigned char *p = (const unsigned char *)value; *p != '\0'; p++)
            if (*p < ' ' || *p == 0x7f)
                return status_set(err, STATUS_INVALID_ARGUMENT, "annotation " SLURM_ANNOTATION "%s: there is a control character in it",
                                  nouns[i]);
        slurm_options_add(arena, out, arena_printf(arena, "--%s=%s", nouns[i], value));
    }
    return true;
}

static bool slurm_script_raw(struct arena *arena, const struct slurm_config *config, const struct interlink_pod *pod,
                             struct interlink_strings *out, struct status *err)
{
    static const char *const names[] = { SLURM_FLAGS_ANNOTATION, SLURM_ANNOTATION "flags" };

    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (!slurm_options_read(arena, interlink_pair_get(&pod->annotations, names[i]), SLURM_POD, &config->allowed, out, err))
            return status_prefix(err, "annotation %s", names[i]);
    return true;
}

static bool slurm_script_flavor(struct arena *arena, const struct slurm_config *config, const struct interlink_pod *pod,
                                struct interlink_strings *out, struct status *err)
{
    const char *name = slurm_script_annotation(pod, "flavor");
    const char *annotation = SLURM_ANNOTATION "flavor";

    if (*name == '\0') {
        annotation = SLURM_ANNOTATION_FLAVOR;
        name = interlink_pair_get(&pod->annotations, annotation);
    }
    if (*name == '\0')
        name = config->default_flavor;
    if (*name == '\0')
        return true;
    const struct slurm_flavor *flavor = slurm_config_flavor(config, name);
    if (flavor == NULL)
        return status_set(err, STATUS_FAILED_PRECONDITION, "annotation %s: the site has no flavor \"%.60s\" (it has %zu)", annotation,
                          name, config->flavor_count);
    for (size_t i = 0; i < flavor->options.count; i++)
        slurm_options_add(arena, out, flavor->options.items[i]);
    return true;
}

/* ---- options ---- */

/* Those of which sbatch takes one. What was said later, and more plainly, stays. */
static void slurm_script_settle(struct interlink_strings *out, size_t computed)
{
    static const char *const memory[] = { "mem-per-cpu", "mem-per-gpu" };
    static const char *const gpus[] = { "gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket" };
    struct interlink_strings later = { out->items + computed, out->count - computed };
    struct interlink_strings before = { out->items, computed };
    bool drop_mem = false, drop_gres = false;

    for (size_t i = 0; i < COUNT_OF(memory); i++)
        drop_mem = drop_mem || slurm_options_get(&later, memory[i]) != NULL;
    for (size_t i = 0; i < COUNT_OF(gpus); i++)
        drop_gres = drop_gres || slurm_options_get(&later, gpus[i]) != NULL;
    if (drop_mem)
        slurm_options_drop(&before, "mem");
    else if (slurm_options_get(&before, "mem") != NULL)
        for (size_t i = 0; i < COUNT_OF(memory); i++)
            slurm_options_drop(&before, memory[i]);
    if (drop_gres)
        slurm_options_drop(&before, "gres");
    for (size_t i = 0; i < later.count; i++)
        out->items[before.count + i] = later.items[i];
    out->count = before.count + later.count;
}

/* sbatch replaces %j and the like in the names of files. */
static const char *slurm_script_pattern(struct arena *arena, const char *path)
{
    char *out = arena_alloc(arena, strlen(path) * 2 + 1), *to = out;

    for (const char *p = path; *p != '\0'; p++) {
        if (*p == '%')
            *to++ = '%';
        *to++ = *p;
    }
    return out;
}

const char *slurm_script_job_name(struct arena *arena, const struct interlink_pod *pod)
{
    char *name = arena_printf(arena, "%.64s.%s", *pod->name != '\0' ? pod->name : "pod", pod->uid);

    /* Names of pods have only these; what else a client may send is no reason to refuse it. */
    for (char *p = name; *p != '\0'; p++)
        if (strchr("abcdefghijklmnopqrstuvwxyz0123456789-.", *p) == NULL)
            *p = '-';
    return name;
}

bool slurm_script_options(struct arena *arena, const struct slurm_config *config, const struct interlink_pod *pod,
                          const char *job_dir, struct interlink_strings *out, struct status *err)
{
    *out = (struct interlink_strings){ NULL, 0 };
    slurm_options_add(arena, out, "--nodes=1");
    slurm_options_add(arena, out, "--ntasks-per-node=1");
    for (size_t i = 0; i < config->options.count; i++)
        slurm_options_add(arena, out, config->options.items[i]);
    if (!slurm_script_size(arena, config, pod, out, err))
        return false;
    size_t computed = out->count;
    if (!slurm_script_flavor(arena, config, pod, out, err) || !slurm_script_named(arena, pod, out, err) ||
        !slurm_script_raw(arena, config, pod, out, err))
        return false;
    slurm_script_settle(out, computed);
    if (slurm_options_get(out, "ntasks") != NULL)
        slurm_options_drop(out, "ntasks-per-node");
    if (config->notice_seconds > 0 && slurm_options_get(out, "signal") == NULL)
        slurm_options_add(arena, out, arena_printf(arena, "--signal=B:USR2@%" PRId64, config->notice_seconds));
    slurm_options_add(arena, out, "--parsable");
    slurm_options_add(arena, out, "--open-mode=append"); /* a requeued job goes on in the same log */
    slurm_options_add(arena, out, arena_printf(arena, "--job-name=%s", slurm_script_job_name(arena, pod)));
    slurm_options_add(arena, out, arena_printf(arena, "--comment=interlink-cri %.64s/%.64s", pod->namespace_, pod->name));
    slurm_options_add(arena, out, arena_printf(arena, "--chdir=%s", job_dir));
    slurm_options_add(arena, out, arena_printf(arena, "--output=%s/agent.log", slurm_script_pattern(arena, job_dir)));
    return true;
}

/* ---- environment ---- */

static bool slurm_script_variable_valid(const char *name)
{
    static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";
    static const char rest[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";

    return *name != '\0' && strchr(first, *name) != NULL && name[strspn(name, rest)] == '\0';
}

static void slurm_script_variable(struct buf *out, const char *name, const char *value)
{
    buf_printf(out, "export %s=", name);
    slurm_shell_word(out, value);
    buf_append_byte(out, '\n');
}

bool slurm_script_environment(const struct interlink_pod *pod, const char *job_dir, struct buf *out, struct status *err)
{
    const struct interlink_pairs *env = &pod->containers[0].env;

    for (size_t i = 0; i < env->count; i++) {
        if (!slurm_script_variable_valid(env->items[i].name))
            return status_set(err, STATUS_FAILED_PRECONDITION,
                              "pod.spec.containers[0].env: \"%.80s\" cannot be the name of a variable in a job's script",
                              env->items[i].name);
        slurm_script_variable(out, env->items[i].name, env->items[i].value);
    }
    slurm_script_variable(out, "INTERLINK_JOB_DIR", job_dir);
    return true;
}

/* ---- the script ---- */

static const char slurm_script_functions[] =
    "umask 077\n"
    "agent= noticed=0 termed=0\n"
    "now() { date +%s; }\n"
    /* The last is one file for all jobs: the plugin looks at its time. */
    "note() { printf '%s\\n' \"$2\" >\"$1.new\" && mv \"$1.new\" \"$1\"; echo >../../changed; } 2>/dev/null\n"
    /* Slurm may signal the programs that write the record, too. */
    "end() { trap '' TERM USR1 USR2; note ended \"$1 $(now) $noticed $termed\"; exit \"$1\"; }\n"
    "pass() { [ -n \"$agent\" ] || end 143; kill -s TERM \"$agent\" 2>/dev/null; }\n"
    /* Asked again, by a plugin that was started again: it has been passed on. */
    "trap '[ $noticed != 0 ] || { noticed=$(now); pass; }' USR2\n"
    /* The agent takes a second TERM for an order to kill. (INT is ignored by what a shell starts in the background.) */
    "trap 'pass; sleep 1; pass' USR1\n"
    /* From Slurm: with some of its plugins to all processes, with others to this shell alone. The agent takes no notice of an echo. */
    "trap 'termed=$(now); pass' TERM\n";

/* As root the agent would make its cgroups beside Slurm's, out of reach of the job's limits: they go into the job's own. An
 * ordinary user has only what was delegated, which the agent finds by itself. */
const char slurm_script_cgroup[] =
    "if [ \"$(id -u)\" = 0 ]; then\n"
    "  cgroup=$(sed -n 's/^[0-9]*:\\([^:]*,\\)\\{0,1\\}memory\\(,[^:]*\\)\\{0,1\\}://p' /proc/self/cgroup)\n"
    "  if [ -z \"$cgroup\" ]; then cgroup=$(sed -n 's/^0:://p' /proc/self/cgroup); cgroup=${cgroup%/*}; fi\n"
    "  case $cgroup in */job_*) export INTERLINK_CGROUP_PARENT=\"$cgroup/interlink\";; esac\n"
    "fi\n"
    /* An agent that was killed has left its control groups, and with them Slurm's could not go. Their processes die with it, but not in
     * the same moment. Where Slurm has none of this controller's (this shell would be in them), those above were made for ours. */
    "clear_cgroups() {\n"
    "  [ -n \"${INTERLINK_CGROUP_PARENT:-}\" ] || return 0\n"
    "  for try in 1 2 3; do\n"
    "    left=\n"
    "    for c in /sys/fs/cgroup /sys/fs/cgroup/*; do\n"
    "      [ -d \"$c$INTERLINK_CGROUP_PARENT\" ] || continue\n"
    "      find \"$c$INTERLINK_CGROUP_PARENT\" -depth -type d -exec rmdir {} \\; 2>/dev/null\n"
    "      [ ! -d \"$c$INTERLINK_CGROUP_PARENT\" ] || left=1\n"
    "      p=${INTERLINK_CGROUP_PARENT%/*}\n"
    "      while case $p in */job_*) rmdir \"$c$p\" 2>/dev/null;; *) false;; esac; do p=${p%/*}; done\n"
    "    done\n"
    "    [ -n \"$left\" ] || return 0\n"
    "    sleep 1\n"
    "  done\n"
    "}\n";

/* wait returns early, and with the signal's code, when one was handled; what ended during that is asked for its own. */
const char slurm_script_wait[] =
    "agent=$!\n"
    "while :; do\n"
    "  wait \"$agent\"; code=$?\n"
    "  kill -0 \"$agent\" 2>/dev/null || break\n"
    "done\n"
    "if [ \"$code\" -gt 128 ]; then wait \"$agent\"; again=$?; [ \"$again\" = 127 ] || code=$again; fi\n"
    "clear_cgroups\n"
    "end \"$code\"\n";

void slurm_script_write(const struct slurm_config *config, const struct interlink_pod *pod, const char *job_dir,
                        const char *program, struct buf *out)
{
    const struct interlink_container *c = &pod->containers[0];

    buf_append_str(out, "#!/bin/sh\n# A pod of interlink-cri.\n");
    buf_append_str(out, slurm_script_functions);
    buf_append_str(out, "cd ");
    slurm_shell_word(out, job_dir);
    buf_append_str(out, " || exit 125\n"
                        "rm -f ended\n"
                        /* Requeued: what the first run made is no longer true. */
                        "[ \"${SLURM_RESTART_COUNT:-0}\" = 0 ] || find . -mindepth 1 -maxdepth 1 ! -name volumes ! -name environment ! -name manifest.json ! -name images.json"
                        " ! -name agent.log ! -name job.sh -exec rm -rf {} + 2>/dev/null\n"
                        "note started \"$SLURM_JOB_ID ${SLURM_RESTART_COUNT:-0} $(now) $(hostname)\"\n"
                        "echo \"Slurm job $SLURM_JOB_ID begins on ${SLURM_JOB_NODELIST:-?}, restart ${SLURM_RESTART_COUNT:-0}\"\n");
    buf_append_str(out, slurm_script_cgroup);
    buf_append_str(out, ". ./environment\n");
    if (*config->setup != '\0')
        buf_printf(out, "%s\n", config->setup);
    slurm_shell_word(out, program);
    for (size_t i = 1; i < c->command.count; i++) {
        buf_append_byte(out, ' ');
        slurm_shell_word(out, c->command.items[i]);
    }
    for (size_t i = 0; i < c->args.count; i++) {
        buf_append_byte(out, ' ');
        slurm_shell_word(out, c->args.items[i]);
    }
    buf_append_str(out, " &\n");
    buf_append_str(out, slurm_script_wait);
}
