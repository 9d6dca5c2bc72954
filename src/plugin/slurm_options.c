/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/slurm_options.h"

#include "text/nearest.h"

/* ---- words ---- */

static bool slurm_words_control(const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++)
        if ((*p < ' ' && *p != '\t' && *p != '\n' && *p != '\r') || *p == 0x7f)
            return true;
    return false;
}

/* One word from *at on, without its quotes. False at a quote without an end. */
static bool slurm_words_one(const char **at, struct buf *word)
{
    const char *p = *at;
    char quote = '\0';

    for (; *p != '\0' && (quote != '\0' || strchr(" \t\r\n", *p) == NULL); p++) {
        if (quote == '\0' && (*p == '\'' || *p == '"')) {
            quote = *p;
        } else if (*p == quote && quote != '\0') {
            quote = '\0';
        } else if (*p == '\\' && quote != '\'') {
            /* Within "..." a backslash quotes itself and " only, as in sh (where $ and ` mean nothing). */
            if (quote == '"' && p[1] != '"' && p[1] != '\\')
                buf_append_byte(word, '\\');
            if (p[1] == '\0')
                return false;
            buf_append_byte(word, (uint8_t)*++p);
        } else {
            buf_append_byte(word, (uint8_t)*p);
        }
    }
    *at = p;
    return quote == '\0';
}

bool slurm_words_split(struct arena *arena, const char *text, struct interlink_strings *out, struct status *err)
{
    *out = (struct interlink_strings){ NULL, 0 };
    if (slurm_words_control(text))
        return status_set(err, STATUS_INVALID_ARGUMENT, "there is a control character in it");
    for (const char *at = text;;) {
        cleanup_buf struct buf word = BUF_INIT;
        at += strspn(at, " \t\r\n");
        if (*at == '\0')
            return true;
        if (!slurm_words_one(&at, &word))
            return status_set(err, STATUS_INVALID_ARGUMENT, "a quote has no end");
        slurm_options_add(arena, out, buf_cstr(&word));
    }
}

void slurm_options_add(struct arena *arena, struct interlink_strings *out, const char *word)
{
    /* Room is doubled at powers of two. */
    if ((out->count & (out->count - 1)) == 0) {
        const char **items = ARENA_ARRAY(arena, const char *, out->count == 0 ? 1 : out->count * 2);
        for (size_t i = 0; i < out->count; i++)
            items[i] = out->items[i];
        out->items = items;
    }
    out->items[out->count++] = arena_strdup(arena, word);
}

/* ---- options ---- */

enum slurm_option_value { SLURM_OPTION_NONE, SLURM_OPTION_MAYBE, SLURM_OPTION_NEEDED };

/* What sizes and places a job. Not among them: what says whose job it is, where its output goes, what it runs, how it is
 * found again (--job-name, --array, --clusters), and files of the login node. */
static const struct slurm_option {
    const char *name;
    char letter;
    enum slurm_option_value value;
    bool pods;
} slurm_options_known[] = {
    { "account", 'A', SLURM_OPTION_NEEDED, true },
    { "acctg-freq", 0, SLURM_OPTION_NEEDED, true },
    { "array", 'a', SLURM_OPTION_NEEDED, false },
    { "bb", 0, SLURM_OPTION_NEEDED, true },
    { "begin", 'b', SLURM_OPTION_NEEDED, true },
    { "chdir", 'D', SLURM_OPTION_NEEDED, false },
    { "clusters", 'M', SLURM_OPTION_NEEDED, false },
    { "constraint", 'C', SLURM_OPTION_NEEDED, true },
    { "contiguous", 0, SLURM_OPTION_NONE, true },
    { "core-spec", 'S', SLURM_OPTION_NEEDED, true },
    { "cores-per-socket", 0, SLURM_OPTION_NEEDED, true },
    { "cpu-freq", 0, SLURM_OPTION_NEEDED, true },
    { "cpus-per-gpu", 0, SLURM_OPTION_NEEDED, true },
    { "cpus-per-task", 'c', SLURM_OPTION_NEEDED, true },
    { "deadline", 0, SLURM_OPTION_NEEDED, true },
    { "delay-boot", 0, SLURM_OPTION_NEEDED, true },
    { "dependency", 'd', SLURM_OPTION_NEEDED, true },
    { "distribution", 'm', SLURM_OPTION_NEEDED, true },
    { "error", 'e', SLURM_OPTION_NEEDED, false },
    { "exclude", 'x', SLURM_OPTION_NEEDED, true },
    { "exclusive", 0, SLURM_OPTION_MAYBE, true },
    { "extra-node-info", 'B', SLURM_OPTION_NEEDED, true },
    { "gpu-bind", 0, SLURM_OPTION_NEEDED, true },
    { "gpu-freq", 0, SLURM_OPTION_NEEDED, true },
    { "gpus", 'G', SLURM_OPTION_NEEDED, true },
    { "gpus-per-node", 0, SLURM_OPTION_NEEDED, true },
    { "gpus-per-socket", 0, SLURM_OPTION_NEEDED, true },
    { "gpus-per-task", 0, SLURM_OPTION_NEEDED, true },
    { "gres", 0, SLURM_OPTION_NEEDED, true },
    { "gres-flags", 0, SLURM_OPTION_NEEDED, true },
    { "hint", 0, SLURM_OPTION_NEEDED, true },
    { "hold", 'H', SLURM_OPTION_NONE, true },
    { "input", 'i', SLURM_OPTION_NEEDED, false },
    { "job-name", 'J', SLURM_OPTION_NEEDED, false },
    { "licenses", 'L', SLURM_OPTION_NEEDED, true },
    { "mail-type", 0, SLURM_OPTION_NEEDED, true },
    { "mail-user", 0, SLURM_OPTION_NEEDED, true },
    { "mcs-label", 0, SLURM_OPTION_NEEDED, true },
    { "mem", 0, SLURM_OPTION_NEEDED, true },
    { "mem-bind", 0, SLURM_OPTION_NEEDED, true },
    { "mem-per-cpu", 0, SLURM_OPTION_NEEDED, true },
    { "mem-per-gpu", 0, SLURM_OPTION_NEEDED, true },
    { "mincpus", 0, SLURM_OPTION_NEEDED, true },
    { "network", 0, SLURM_OPTION_NEEDED, true },
    { "nice", 0, SLURM_OPTION_MAYBE, true },
    { "no-kill", 'k', SLURM_OPTION_MAYBE, true },
    { "no-requeue", 0, SLURM_OPTION_NONE, true },
    { "nodefile", 'F', SLURM_OPTION_NEEDED, false },
    { "nodelist", 'w', SLURM_OPTION_NEEDED, true },
    { "nodes", 'N', SLURM_OPTION_NEEDED, true },
    { "ntasks", 'n', SLURM_OPTION_NEEDED, true },
    { "ntasks-per-core", 0, SLURM_OPTION_NEEDED, true },
    { "ntasks-per-gpu", 0, SLURM_OPTION_NEEDED, true },
    { "ntasks-per-node", 0, SLURM_OPTION_NEEDED, true },
    { "ntasks-per-socket", 0, SLURM_OPTION_NEEDED, true },
    { "output", 'o', SLURM_OPTION_NEEDED, false },
    { "overcommit", 'O', SLURM_OPTION_NONE, true },
    { "oversubscribe", 's', SLURM_OPTION_NONE, true },
    { "partition", 'p', SLURM_OPTION_NEEDED, true },
    { "power", 0, SLURM_OPTION_NEEDED, true },
    { "prefer", 0, SLURM_OPTION_NEEDED, true },
    { "priority", 0, SLURM_OPTION_NEEDED, true },
    { "profile", 0, SLURM_OPTION_NEEDED, true },
    { "qos", 'q', SLURM_OPTION_NEEDED, true },
    { "reboot", 0, SLURM_OPTION_NONE, true },
    { "requeue", 0, SLURM_OPTION_NONE, true },
    { "reservation", 0, SLURM_OPTION_NEEDED, true },
    { "signal", 0, SLURM_OPTION_NEEDED, false },
    { "sockets-per-node", 0, SLURM_OPTION_NEEDED, true },
    { "spread-job", 0, SLURM_OPTION_NONE, true },
    { "switches", 0, SLURM_OPTION_NEEDED, true },
    { "thread-spec", 0, SLURM_OPTION_NEEDED, true },
    { "threads-per-core", 0, SLURM_OPTION_NEEDED, true },
    { "time", 't', SLURM_OPTION_NEEDED, true },
    { "time-min", 0, SLURM_OPTION_NEEDED, true },
    { "tmp", 0, SLURM_OPTION_NEEDED, true },
    { "tres-bind", 0, SLURM_OPTION_NEEDED, true },
    { "tres-per-task", 0, SLURM_OPTION_NEEDED, true },
    { "uid", 0, SLURM_OPTION_NEEDED, false },
    { "gid", 0, SLURM_OPTION_NEEDED, false },
    { "use-min-nodes", 0, SLURM_OPTION_NONE, true },
    { "wait", 'W', SLURM_OPTION_NONE, false },
    { "wait-all-nodes", 0, SLURM_OPTION_NEEDED, true },
    { "wckey", 0, SLURM_OPTION_NEEDED, true },
    { "wrap", 0, SLURM_OPTION_NEEDED, false },
};

static const struct slurm_option *slurm_options_find(const char *name, char letter)
{
    for (size_t i = 0; i < COUNT_OF(slurm_options_known); i++) {
        const struct slurm_option *o = &slurm_options_known[i];
        if (letter != '\0' ? o->letter == letter : strcmp(o->name, name) == 0)
            return o;
    }
    return NULL;
}

static bool slurm_options_listed(const struct interlink_strings *list, const char *name)
{
    for (size_t i = 0; list != NULL && i < list->count; i++)
        if (strcmp(str_starts(list->items[i], "--") ? list->items[i] + 2 : list->items[i], name) == 0)
            return true;
    return false;
}

static bool slurm_options_refuse(const char *name, struct status *err)
{
    struct nearest nearest = nearest_start(name);
    char hint[128];

    if (slurm_options_find(name, 0) != NULL)
        return status_set(err, STATUS_FAILED_PRECONDITION,
                          "--%.60s is not for pods to set; the operator can allow it (Slurm.AllowFlags)", name);
    for (size_t i = 0; i < COUNT_OF(slurm_options_known); i++)
        if (slurm_options_known[i].pods)
            nearest_offer(&nearest, slurm_options_known[i].name);
    return status_set(err, STATUS_FAILED_PRECONDITION,
                      "--%.60s is no option of sbatch that pods may set%s (the operator can allow it: Slurm.AllowFlags)", name,
                      nearest_hint(&nearest, hint, sizeof hint));
}

/* A long name has small letters, digits and hyphens. */
static bool slurm_options_name_valid(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");

    return n > 1 && name[n] == '\0' && n < 64 && name[0] != '-';
}

/* One option: its name and what is attached to it (NULL: nothing), or else the next word. */
static bool slurm_options_one(struct arena *arena, const struct interlink_strings *words, size_t *i,
                              enum slurm_trust trust, const struct interlink_strings *allowed,
                              struct interlink_strings *out, struct status *err)
{
    const char *word = words->items[*i];
    const char *name = word + 2, *value = NULL;
    const struct slurm_option *o = NULL;

    if (word[0] != '-' || word[1] == '\0' || strcmp(word, "--") == 0)
        return status_set(err, STATUS_FAILED_PRECONDITION, "\"%.60s\" is no option, and belongs to none", word);
    if (word[1] != '-') {
        o = slurm_options_find(NULL, word[1]);
        if (o == NULL)
            return status_set(err, STATUS_FAILED_PRECONDITION, "-%c is no option that is known here: use its long name", word[1]);
        name = o->name;
        value = word[2] != '\0' ? word + 2 + (word[2] == '=') : NULL;
    } else {
        const char *equals = strchr(word, '=');
        name = equals != NULL ? arena_printf(arena, "%.*s", (int)(equals - name), name) : name;
        value = equals != NULL ? equals + 1 : NULL;
        o = slurm_options_find(name, 0);
    }
    if (!slurm_options_name_valid(name))
        return status_set(err, STATUS_FAILED_PRECONDITION, "\"%.60s\" is no name of an option", word);
    if (trust == SLURM_POD && !(o != NULL && o->pods) && !slurm_options_listed(allowed, name))
        return slurm_options_refuse(name, err);
    if (o != NULL && o->value == SLURM_OPTION_NONE && value != NULL)
        return status_set(err, STATUS_FAILED_PRECONDITION, "--%s takes no value", name);
    /* Of an option that is not known here, a next word that is none itself is taken for its value. */
    if (value == NULL && (o == NULL || o->value == SLURM_OPTION_NEEDED) && *i + 1 < words->count &&
        words->items[*i + 1][0] != '-')
        value = words->items[++*i];
    if (value == NULL && o != NULL && o->value == SLURM_OPTION_NEEDED)
        return status_set(err, STATUS_FAILED_PRECONDITION, "--%s wants a value", name);
    slurm_options_add(arena, out, value != NULL ? arena_printf(arena, "--%s=%s", name, value) : arena_printf(arena, "--%s", name));
    return true;
}

bool slurm_options_read(struct arena *arena, const char *text, enum slurm_trust trust,
                        const struct interlink_strings *allowed, struct interlink_strings *out, struct status *err)
{
    struct interlink_strings words;

    if (!slurm_words_split(arena, text, &words, err))
        return false;
    for (size_t i = 0; i < words.count; i++)
        if (!slurm_options_one(arena, &words, &i, trust, allowed, out, err))
            return false;
    return true;
}

static bool slurm_options_is(const char *word, const char *name)
{
    size_t n = strlen(name);

    return str_starts(word, "--") && strncmp(word + 2, name, n) == 0 && (word[2 + n] == '=' || word[2 + n] == '\0');
}

const char *slurm_options_get(const struct interlink_strings *options, const char *name)
{
    for (size_t i = options->count; i > 0; i--) {
        const char *word = options->items[i - 1];
        if (slurm_options_is(word, name))
            return word[2 + strlen(name)] == '=' ? word + 3 + strlen(name) : "";
    }
    return NULL;
}

void slurm_options_drop(struct interlink_strings *options, const char *name)
{
    size_t kept = 0;

    for (size_t i = 0; i < options->count; i++)
        if (!slurm_options_is(options->items[i], name))
            options->items[kept++] = options->items[i];
    options->count = kept;
}

/* ---- for a shell ---- */

void slurm_shell_word(struct buf *out, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,+@%";

    if (*word != '\0' && word[strspn(word, plain)] == '\0') {
        buf_append_str(out, word);
        return;
    }
    buf_append_byte(out, '\'');
    for (const char *p = word; *p != '\0'; p++) {
        if (*p == '\'')
            buf_append_str(out, "'\\''");
        else
            buf_append_byte(out, (uint8_t)*p);
    }
    buf_append_byte(out, '\'');
}
