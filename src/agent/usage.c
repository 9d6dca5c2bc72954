/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/usage.h"

#define USAGE_PSI_UNKNOWN { { USAGE_UNKNOWN, 0, 0, 0 }, { USAGE_UNKNOWN, 0, 0, 0 } }

void usage_init(struct usage *u)
{
    static const struct usage nothing = {
        .cpu = USAGE_UNKNOWN, .cpu_user = USAGE_UNKNOWN, .cpu_system = USAGE_UNKNOWN, .cfs_periods = USAGE_UNKNOWN,
        .cfs_throttled_periods = USAGE_UNKNOWN, .cfs_throttled = USAGE_UNKNOWN, .memory = USAGE_UNKNOWN,
        .memory_max = USAGE_UNKNOWN, .memory_limit = USAGE_UNKNOWN, .working_set = USAGE_UNKNOWN, .rss = USAGE_UNKNOWN,
        .cache = USAGE_UNKNOWN, .kernel = USAGE_UNKNOWN, .mapped_file = USAGE_UNKNOWN, .swap = USAGE_UNKNOWN,
        .swap_limit = USAGE_UNKNOWN, .limit_hits = USAGE_UNKNOWN, .oom_kills = USAGE_UNKNOWN, .faults = USAGE_UNKNOWN,
        .major_faults = USAGE_UNKNOWN, .processes = USAGE_UNKNOWN, .threads = USAGE_UNKNOWN, .threads_max = USAGE_UNKNOWN,
        .files = USAGE_UNKNOWN, .sockets = USAGE_UNKNOWN, .files_limit = USAGE_UNKNOWN, .cpu_psi = USAGE_PSI_UNKNOWN,
        .memory_psi = USAGE_PSI_UNKNOWN, .io_psi = USAGE_PSI_UNKNOWN,
    };

    *u = nothing;
    u->taken_ns = clock_real_ns();
}

static void usage_add_value(uint64_t *sum, uint64_t part)
{
    *sum = *sum == USAGE_UNKNOWN || part == USAGE_UNKNOWN ? USAGE_UNKNOWN : *sum + part;
}

void usage_add(struct usage *sum, const struct usage *part)
{
    usage_add_value(&sum->cpu, part->cpu);
    usage_add_value(&sum->memory, part->memory);
    usage_add_value(&sum->working_set, part->working_set);
    usage_add_value(&sum->rss, part->rss);
    usage_add_value(&sum->swap, part->swap);
    usage_add_value(&sum->faults, part->faults);
    usage_add_value(&sum->major_faults, part->major_faults);
    usage_add_value(&sum->processes, part->processes);
}

/* ---- texts ---- */

uint64_t usage_number(const char *text)
{
    uint64_t value = 0;

    if (*text < '0' || *text > '9')
        return USAGE_UNKNOWN;
    for (; *text >= '0' && *text <= '9'; text++) {
        uint64_t digit = (uint64_t)(*text - '0');
        if (value > (USAGE_UNKNOWN - 1 - digit) / 10)
            return USAGE_UNKNOWN;
        value = value * 10 + digit;
    }
    return *text == '\0' || strchr(" \t\n", *text) != NULL ? value : USAGE_UNKNOWN;
}

void usage_read_names(const char *text, const struct usage_name *names, size_t count)
{
    while (*text != '\0') {
        size_t n = strcspn(text, " \n");
        for (size_t i = 0; text[n] == ' ' && i < count; i++)
            if (strncmp(text, names[i].name, n) == 0 && names[i].name[n] == '\0')
                *names[i].to = usage_number(text + n + strspn(text + n, " "));
        text += strcspn(text, "\n");
        text += *text == '\n';
    }
}

static void usage_read_pressure_line(const char *line, struct usage_pressure *out)
{
    struct usage_pressure p = { USAGE_UNKNOWN, 0, 0, 0 };
    const char *total = strstr(line, " total=");

    if (total == NULL || sscanf(line, " avg10=%lf avg60=%lf avg300=%lf", &p.avg10, &p.avg60, &p.avg300) != 3)
        return;
    p.total_ns = usage_scaled(usage_number(total + strlen(" total=")), 1000); /* microseconds */
    *out = p;
}

void usage_read_pressure(const char *text, struct usage_psi *psi)
{
    char line[256];

    while (*text != '\0') {
        size_t n = strcspn(text, "\n");
        snprintf(line, sizeof line, "%.*s", n < sizeof line ? (int)n : (int)sizeof line - 1, text);
        if (str_starts(line, "some "))
            usage_read_pressure_line(line + strlen("some"), &psi->some);
        else if (str_starts(line, "full "))
            usage_read_pressure_line(line + strlen("full"), &psi->full);
        text += n;
        text += *text == '\n';
    }
}

uint64_t usage_less(uint64_t value, uint64_t less)
{
    if (value == USAGE_UNKNOWN || less == USAGE_UNKNOWN)
        return USAGE_UNKNOWN;
    return value > less ? value - less : 0;
}

uint64_t usage_scaled(uint64_t value, uint64_t factor)
{
    return value > (USAGE_UNKNOWN - 1) / factor ? USAGE_UNKNOWN : value * factor;
}

/* ---- rates ---- */

void usage_rate_start(struct usage_rate *rate, int64_t when_ns)
{
    rate->samples[0] = (struct usage_sample){ .when_ns = when_ns };
    rate->count = 1;
}

uint64_t usage_rate_add(struct usage_rate *rate, int64_t when_ns, uint64_t cpu)
{
    const struct usage_sample now = { when_ns, cpu }, *last = rate->count > 0 ? &rate->samples[rate->count - 1] : NULL;

    if (cpu == USAGE_UNKNOWN)
        return USAGE_UNKNOWN;
    if (last != NULL && (cpu < last->cpu || when_ns < last->when_ns || when_ns - last->when_ns > USAGE_WINDOW_MAX_MS * 1000000ll))
        rate->count = 0; /* it was counted anew, the clock was set after its start, or nobody asked for long */
    if (rate->count == 0) {
        rate->samples[rate->count++] = now;
        return USAGE_UNKNOWN;
    }
    /* Asked again at once: the window of the time before, made longer. */
    struct usage_sample base = *last;
    bool soon = when_ns - base.when_ns < USAGE_WINDOW_MIN_MS * 1000000ll;
    if (soon && rate->count == 1)
        return USAGE_UNKNOWN;
    if (soon) {
        base = rate->samples[0];
    } else {
        rate->samples[0] = base;
        rate->samples[1] = now;
        rate->count = 2;
    }
    return (uint64_t)((double)(cpu - base.cpu) * 1e9 / (double)(when_ns - base.when_ns));
}

#undef USAGE_PSI_UNKNOWN
