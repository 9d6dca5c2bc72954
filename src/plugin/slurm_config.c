/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/slurm_config.h"

#include "plugin/slurm_options.h"
#include "text/nearest.h"
#include "text/quantity.h"
#include "text/timefmt.h"

const char *const slurm_tool_names[SLURM_TOOLS] = { "sbatch", "squeue", "scancel", "sacct", "scontrol", "sinfo" };

static const char *slurm_config_text(struct slurm_config *c, const struct json *j, bool *ok, struct status *err)
{
    const char *text = "";

    *ok = json_as_string(j, &text, err);
    return arena_strdup(&c->arena, text);
}

/* ---- values; each takes a node that is there and is not null ---- */

static bool slurm_config_duration(struct slurm_config *c, const struct json *j, int64_t min_ns, int64_t unit_ns, int64_t *out,
                                  struct status *err)
{
    int64_t ns, seconds;
    (void)c;

    if (j->type == JSON_NUMBER) {
        if (!json_as_i64(j, 0, 86400, &seconds, err))
            return false;
        ns = seconds * INT64_C(1000000000);
    } else {
        const char *text = "";
        if (!json_as_string(j, &text, err))
            return false;
        if (!timefmt_parse_duration(text, &ns))
            return json_fail(j, err, "\"%.40s\" is no duration (10s, 1m30s, or a number of seconds)", text);
    }
    if (ns < min_ns || ns > INT64_C(86400) * 1000000000)
        return json_fail(j, err, "a duration of at least %" PRId64 " ms and at most a day is wanted", min_ns / 1000000);
    *out = ns / unit_ns;
    return true;
}

static bool slurm_config_notice(struct slurm_config *c, const struct json *j, struct status *err)
{
    /* sbatch takes at most 65535 s. */
    return slurm_config_duration(c, j, 0, INT64_C(1000000000), &c->notice_seconds, err) &&
           (c->notice_seconds <= 65535 || json_fail(j, err, "sbatch takes at most 65535 s"));
}

static bool slurm_config_poll_min(struct slurm_config *c, const struct json *j, struct status *err)
{
    return slurm_config_duration(c, j, 100000000, 1000000, &c->poll_min_ms, err);
}

static bool slurm_config_poll_max(struct slurm_config *c, const struct json *j, struct status *err)
{
    return slurm_config_duration(c, j, 1000000000, 1000000, &c->poll_max_ms, err);
}

static bool slurm_config_overhead(struct slurm_config *c, const struct json *j, struct status *err)
{
    const char *text = j->type == JSON_NUMBER ? j->text : json_string(j, "");

    if ((j->type != JSON_NUMBER && !json_want(j, JSON_STRING, err)) ||
        !quantity_parse(text, QUANTITY_ONE, &c->memory_overhead, err))
        return false;
    return (c->memory_overhead >= 0 && c->memory_overhead <= INT64_C(1) << 40) || json_fail(j, err, "wanted 0 to 1Ti");
}

/* A list of words, or a text that is split as a shell would. */
static bool slurm_config_words(struct slurm_config *c, const struct json *j, struct interlink_strings *out, struct status *err)
{
    bool ok;

    *out = (struct interlink_strings){ NULL, 0 };
    if (j->type != JSON_ARRAY) {
        const char *text = slurm_config_text(c, j, &ok, err);
        struct status reason = STATUS_INIT;
        return ok && (slurm_words_split(&c->arena, text, out, &reason) || json_fail(j, err, "%s", reason.message));
    }
    for (JSON_EACH(item, j)) {
        const char *text = slurm_config_text(c, item, &ok, err);
        if (!ok)
            return false;
        slurm_options_add(&c->arena, out, text);
    }
    return true;
}

static bool slurm_config_options(struct slurm_config *c, const struct json *j, struct interlink_strings *out, struct status *err)
{
    bool ok;
    const char *text = slurm_config_text(c, j, &ok, err);
    struct status reason = STATUS_INIT;

    return ok && (slurm_options_read(&c->arena, text, SLURM_OPERATOR, NULL, out, &reason) ||
                  json_fail(j, err, "%s", reason.message));
}

static bool slurm_config_prefix(struct slurm_config *c, const struct json *j, struct status *err)
{
    if (!slurm_config_words(c, j, &c->prefix, err))
        return false;
    if (c->prefix.count == 0)
        return true;
    const char *slash = strrchr(c->prefix.items[0], '/');
    c->prefix_is_shell = strcmp(slash != NULL ? slash + 1 : c->prefix.items[0], "ssh") == 0;
    return true;
}

static bool slurm_config_flags(struct slurm_config *c, const struct json *j, struct status *err)
{
    return slurm_config_options(c, j, &c->options, err);
}

static bool slurm_config_allow(struct slurm_config *c, const struct json *j, struct status *err)
{
    return slurm_config_words(c, j, &c->allowed, err);
}

static bool slurm_config_flavors(struct slurm_config *c, const struct json *j, struct status *err)
{
    if (!json_want(j, JSON_OBJECT, err))
        return false;
    c->flavors = ARENA_ARRAY(&c->arena, struct slurm_flavor, j->count + 1);
    for (JSON_EACH(item, j)) {
        struct slurm_flavor *flavor = &c->flavors[c->flavor_count++];
        flavor->name = arena_strdup(&c->arena, item->key);
        if (!slurm_config_options(c, item, &flavor->options, err))
            return false;
    }
    return true;
}

static bool slurm_config_default_flavor(struct slurm_config *c, const struct json *j, struct status *err)
{
    bool ok;

    c->default_flavor = slurm_config_text(c, j, &ok, err);
    return ok;
}

static bool slurm_config_gres(struct slurm_config *c, const struct json *j, struct status *err)
{
    bool ok = true;

    if (!json_want(j, JSON_OBJECT, err))
        return false;
    c->gres = (struct interlink_pairs){ ARENA_ARRAY(&c->arena, struct interlink_pair, j->count + 1), 0 };
    for (JSON_EACH(item, j)) {
        const char *text = slurm_config_text(c, item, &ok, err);
        if (!ok)
            return false;
        if (*text == '\0' || text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:-")] != '\0')
            return json_fail(item, err, "\"%.60s\" is no gres (wanted: NAME or NAME:TYPE)", text);
        c->gres.items[c->gres.count++] = (struct interlink_pair){ arena_strdup(&c->arena, item->key), text };
    }
    return true;
}

static bool slurm_config_setup(struct slurm_config *c, const struct json *j, struct status *err)
{
    bool ok;

    c->setup = slurm_config_text(c, j, &ok, err);
    return ok;
}

static bool slurm_config_position(struct slurm_config *c, const struct json *j, struct status *err)
{
    return json_as_bool(j, &c->position, err);
}

static bool slurm_config_prefix_shell(struct slurm_config *c, const struct json *j, struct status *err)
{
    return json_as_bool(j, &c->prefix_is_shell, err);
}

static bool slurm_config_bin_dir(struct slurm_config *c, const struct json *j, struct status *err)
{
    bool ok;
    const char *dir = slurm_config_text(c, j, &ok, err);

    if (!ok || (*dir != '/' && !json_fail(j, err, "wanted an absolute path")))
        return false;
    for (size_t i = 0; i < SLURM_TOOLS; i++)
        c->tools[i] = arena_printf(&c->arena, "%s/%s", dir, slurm_tool_names[i]);
    return true;
}

static bool slurm_config_commands(struct slurm_config *c, const struct json *j, struct status *err)
{
    bool ok;

    if (!json_want(j, JSON_OBJECT, err))
        return false;
    for (JSON_EACH(item, j)) {
        struct nearest nearest = nearest_start(item->key);
        char hint[128];
        size_t i = 0;
        while (i < SLURM_TOOLS && strcmp(slurm_tool_names[i], item->key) != 0)
            nearest_offer(&nearest, slurm_tool_names[i++]);
        if (i == SLURM_TOOLS)
            return json_fail(item, err, "no such command%s", nearest_hint(&nearest, hint, sizeof hint));
        c->tools[i] = slurm_config_text(c, item, &ok, err);
        if (!ok)
            return false;
        if (*c->tools[i] == '\0' && i != SLURM_SACCT && i != SLURM_SINFO)
            return json_fail(item, err, "only sacct and sinfo can be left out");
    }
    return true;
}

/* ---- all of it ---- */

/* In this order: what comes later refines what came before. */
static const struct {
    const char *key;
    bool (*read)(struct slurm_config *c, const struct json *j, struct status *err);
} slurm_config_keys[] = {
    { "BinDir", slurm_config_bin_dir },
    { "Commands", slurm_config_commands },
    { "Prefix", slurm_config_prefix },
    { "PrefixShell", slurm_config_prefix_shell },
    { "Flags", slurm_config_flags },
    { "Flavors", slurm_config_flavors },
    { "DefaultFlavor", slurm_config_default_flavor },
    { "Gres", slurm_config_gres },
    { "AllowFlags", slurm_config_allow },
    { "Notice", slurm_config_notice },
    { "MemoryOverhead", slurm_config_overhead },
    { "Setup", slurm_config_setup },
    { "PollMin", slurm_config_poll_min },
    { "PollMax", slurm_config_poll_max },
    { "Position", slurm_config_position },
};

static void slurm_config_defaults(struct slurm_config *c)
{
    static struct interlink_pair gres[] = { { "nvidia.com/gpu", "gpu" }, { "amd.com/gpu", "gpu" } };

    *c = (struct slurm_config){ .default_flavor = "", .setup = "", .position = true };
    for (size_t i = 0; i < SLURM_TOOLS; i++)
        c->tools[i] = slurm_tool_names[i];
    c->gres = (struct interlink_pairs){ gres, COUNT_OF(gres) };
    c->notice_seconds = SLURM_NOTICE_SECONDS;
    c->memory_overhead = SLURM_AGENT_MEMORY;
    c->poll_min_ms = SLURM_POLL_MIN_MS;
    c->poll_max_ms = SLURM_POLL_MAX_MS;
}

static bool slurm_config_known(const struct json *j, struct status *err)
{
    for (JSON_EACH(item, j)) {
        struct nearest nearest = nearest_start(item->key);
        char hint[128];
        size_t i = 0;
        while (i < COUNT_OF(slurm_config_keys) && strcmp(slurm_config_keys[i].key, item->key) != 0)
            nearest_offer(&nearest, slurm_config_keys[i++].key);
        if (i == COUNT_OF(slurm_config_keys))
            return json_fail(item, err, "there is no such setting%s", nearest_hint(&nearest, hint, sizeof hint));
    }
    return true;
}

bool slurm_config_read(struct slurm_config *c, const struct json *j, struct status *err)
{
    slurm_config_defaults(c);
    if (j == NULL || j->type == JSON_NULL)
        return true;
    if (!json_want(j, JSON_OBJECT, err) || !slurm_config_known(j, err))
        return false;
    for (size_t i = 0; i < COUNT_OF(slurm_config_keys); i++) {
        const struct json *value = json_member(j, slurm_config_keys[i].key);
        if (value != NULL && value->type != JSON_NULL && !slurm_config_keys[i].read(c, value, err))
            return false;
    }
    if (c->poll_max_ms < c->poll_min_ms)
        return json_fail(j, err, "PollMax is shorter than PollMin");
    if (*c->default_flavor != '\0' && slurm_config_flavor(c, c->default_flavor) == NULL)
        return json_fail(j, err, "DefaultFlavor: there is no flavor \"%.60s\"", c->default_flavor);
    return true;
}

const struct slurm_flavor *slurm_config_flavor(const struct slurm_config *c, const char *name)
{
    for (size_t i = 0; i < c->flavor_count; i++)
        if (strcmp(c->flavors[i].name, name) == 0)
            return &c->flavors[i];
    return NULL;
}

void slurm_config_free(struct slurm_config *c)
{
    arena_free(&c->arena);
}
