/* SPDX-License-Identifier: Apache-2.0 */
#include "interlink/slurm_flags.h"

/* Longer words are none of those that are looked for. */
#define SLURM_FLAGS_WORD_MAX 128

/* ---- values ---- */

static bool slurm_flags_number(const char **at, int64_t max, int64_t *out)
{
    char *end;

    if (**at < '0' || **at > '9')
        return false;
    errno = 0;
    *out = strtoll(*at, &end, 10); /* at an overflow INT64_MAX */
    *at = end;
    return errno == 0 && *out <= max;
}

bool slurm_flags_time(const char *text, int64_t *seconds)
{
    int64_t days = 0, parts[3] = { 0, 0, 0 };
    size_t count = 0;
    const char *dash = strchr(text, '-');

    if (dash != NULL && (!slurm_flags_number(&text, 100000, &days) || text != dash))
        return false;
    text += dash != NULL;
    for (;;) {
        if (!slurm_flags_number(&text, 100000000, &parts[count++]))
            return false;
        if (*text != ':' || count == COUNT_OF(parts))
            break;
        text++;
    }
    if (*text != '\0')
        return false;
    if (dash != NULL)
        *seconds = days * 86400 + parts[0] * 3600 + parts[1] * 60 + parts[2];
    else if (count == 3)
        *seconds = parts[0] * 3600 + parts[1] * 60 + parts[2];
    else
        *seconds = parts[0] * 60 + parts[1];
    return *seconds > 0;
}

/* "16G": sbatch counts in binary units, without a suffix in MiB. */
static bool slurm_flags_memory(const char *text, int64_t *bytes)
{
    static const char units[] = "KMGT";
    int64_t value;

    if (!slurm_flags_number(&text, INT64_C(1) << 40, &value))
        return false;
    const char *unit = *text != '\0' ? strchr(units, *text >= 'a' ? *text - 'a' + 'A' : *text) : units + 1;
    if (unit == NULL || (*text != '\0' && text[1] != '\0' && strcasecmp(text + 1, "B") != 0))
        return false;
    return !__builtin_mul_overflow(value, INT64_C(1) << (10 * (unit - units + 1)), bytes) && *bytes > 0;
}

/* ---- words ---- */

static void slurm_flags_take(struct slurm_flags *out, const char *name, const char *value)
{
    const char *at = value;
    int64_t number;

    if (strcmp(name, "--cpus-per-task") == 0 || strcmp(name, "-c") == 0) {
        if (slurm_flags_number(&at, 1000000, &number) && *at == '\0')
            out->cpus_per_task = number;
    } else if (strcmp(name, "--mem") == 0) {
        if (slurm_flags_memory(value, &number))
            out->memory = number;
    } else if (strcmp(name, "--time") == 0 || strcmp(name, "-t") == 0) {
        if (slurm_flags_time(value, &number))
            out->seconds = number;
    }
}

/* The next word at *at; false at the end. Cut when it is long. */
static bool slurm_flags_word(const char **at, char out[SLURM_FLAGS_WORD_MAX])
{
    static const char blanks[] = " \t\r\n";

    *at += strspn(*at, blanks);
    size_t n = strcspn(*at, blanks);
    snprintf(out, SLURM_FLAGS_WORD_MAX, "%.*s", (int)(n < SLURM_FLAGS_WORD_MAX ? n : SLURM_FLAGS_WORD_MAX - 1), *at);
    *at += n;
    return n > 0;
}

struct slurm_flags slurm_flags_read(const char *text)
{
    struct slurm_flags out = { 0 };
    char word[SLURM_FLAGS_WORD_MAX], value[SLURM_FLAGS_WORD_MAX];

    while (slurm_flags_word(&text, word)) {
        const char *rest = text;
        char *equals = strchr(word, '=');
        if (word[0] != '-') {
            continue;
        } else if (word[1] == '-' && equals != NULL) { /* --name=value */
            *equals = '\0';
            slurm_flags_take(&out, word, equals + 1);
        } else if (word[1] != '-' && word[1] != '\0' && word[2] != '\0') { /* -nVALUE */
            snprintf(value, sizeof value, "%s", word + 2);
            word[2] = '\0';
            slurm_flags_take(&out, word, value);
        } else if (slurm_flags_word(&rest, value) && value[0] != '-') { /* --name value, -n value */
            slurm_flags_take(&out, word, value);
            text = rest;
        }
    }
    return out;
}

#undef SLURM_FLAGS_WORD_MAX
