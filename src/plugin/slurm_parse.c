/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/slurm_parse.h"

#include "interlink/slurm_flags.h"
#include "text/timefmt.h"


/* ---- pieces ---- */

bool slurm_next_line(struct str *rest, struct str *line)
{
    while (rest->n > 0) {
        const char *end = memchr(rest->p, '\n', rest->n);
        size_t n = end != NULL ? (size_t)(end - rest->p) : rest->n;
        *line = (struct str){ rest->p, n };
        size_t used = n + (end != NULL);
        *rest = (struct str){ rest->p + used, rest->n - used };
        if (line->n > 0 && line->p[line->n - 1] == '\r')
            line->n--;
        if (line->n > 0)
            return true;
    }
    return false;
}

int64_t slurm_time(const char *text)
{
    char stamp[TIMEFMT_SIZE];
    int64_t ns;

    if (strlen(text) != strlen("2026-11-24T14:25:06"))
        return 0;
    snprintf(stamp, sizeof stamp, "%sZ", text);
    return timefmt_parse(str_of(stamp), &ns) && ns > 0 ? ns : 0;
}

int64_t slurm_limit(const char *text)
{
    int64_t seconds;

    return slurm_flags_time(text, &seconds) ? seconds : 0;
}

void slurm_wait_status(uint32_t status, int *exit_code, int *signal)
{
    *signal = (int)(status & 0x7f);
    *exit_code = (int)((status >> 8) & 0xff);
}

static uint64_t slurm_parse_u64(const char *text, uint64_t max)
{
    uint64_t value;

    return parse_u64(text, max, &value) ? value : 0;
}

/* Splits at `separator` into at most `max` fields, the last of which takes the rest. NUL bytes end no field: they become
 * blanks. Returns how many there are. */
static size_t slurm_parse_split(struct arena *arena, struct str line, char separator, const char **fields, size_t max)
{
    char *copy = arena_strndup(arena, line.p, line.n);
    size_t count = 0;

    for (size_t i = 0; i < line.n; i++)
        if (copy[i] == '\0')
            copy[i] = ' ';
    while (count < max) {
        fields[count++] = copy;
        char *end = count < max ? strchr(copy, separator) : NULL;
        if (end == NULL)
            break;
        *end = '\0';
        copy = end + 1;
    }
    return count;
}

/* "(null)" and "None" are nothing. */
static const char *slurm_parse_text(const char *text)
{
    return strcmp(text, "(null)") == 0 || strcmp(text, "None") == 0 || strcmp(text, "N/A") == 0 ? "" : text;
}

static bool slurm_parse_id(const char *text, uint32_t *out)
{
    uint64_t value;

    if (!parse_u64(text, UINT32_MAX, &value) || value == 0)
        return false;
    *out = (uint32_t)value;
    return true;
}

/* ---- states ---- */

enum slurm_class slurm_class_of(const char *state)
{
    static const struct {
        const char *word;
        enum slurm_class state_class;
    } words[] = {
        { "PENDING", SLURM_CLASS_PENDING },          { "REQUEUED", SLURM_CLASS_PENDING },
        { "REQUEUE_HOLD", SLURM_CLASS_PENDING },     { "REQUEUE_FED", SLURM_CLASS_PENDING },
        { "SPECIAL_EXIT", SLURM_CLASS_PENDING },     { "RESV_DEL_HOLD", SLURM_CLASS_PENDING },
        { "CONFIGURING", SLURM_CLASS_CONFIGURING },  { "POWER_UP_NODE", SLURM_CLASS_CONFIGURING },
        { "RUNNING", SLURM_CLASS_RUNNING },          { "SUSPENDED", SLURM_CLASS_RUNNING },
        { "STOPPED", SLURM_CLASS_RUNNING },          { "RESIZING", SLURM_CLASS_RUNNING },
        { "SIGNALING", SLURM_CLASS_RUNNING },        { "STAGE_OUT", SLURM_CLASS_COMPLETING },
        { "COMPLETING", SLURM_CLASS_COMPLETING },    { "COMPLETED", SLURM_CLASS_ENDED },
        { "FAILED", SLURM_CLASS_ENDED },             { "TIMEOUT", SLURM_CLASS_ENDED },
        { "OUT_OF_MEMORY", SLURM_CLASS_ENDED },      { "NODE_FAIL", SLURM_CLASS_ENDED },
        { "PREEMPTED", SLURM_CLASS_ENDED },          { "CANCELLED", SLURM_CLASS_ENDED },
        { "BOOT_FAIL", SLURM_CLASS_ENDED },          { "DEADLINE", SLURM_CLASS_ENDED },
        { "REVOKED", SLURM_CLASS_ENDED },            { "LAUNCH_FAILED", SLURM_CLASS_ENDED },
        { "RECONFIG_FAIL", SLURM_CLASS_ENDED },
    };
    size_t n = strspn(state, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_");

    for (size_t i = 0; i < COUNT_OF(words); i++)
        if (strlen(words[i].word) == n && strncmp(words[i].word, state, n) == 0)
            return words[i].state_class;
    return SLURM_CLASS_UNKNOWN;
}

static void slurm_parse_state(struct arena *arena, const char *text, struct slurm_info *out)
{
    out->state_class = slurm_class_of(text);
    out->state = arena_strndup(arena, text, strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_"));
}

static const struct slurm_info slurm_info_nothing = {
    .state = "", .partition = "", .nodes = "", .reason = "", .name = "", .cancelled_by = "",
};

/* ---- squeue ---- */

bool slurm_squeue_line(struct arena *arena, struct str line, struct slurm_info *out)
{
    const char *f[13];

    *out = slurm_info_nothing;
    if (slurm_parse_split(arena, line, '|', f, COUNT_OF(f)) < COUNT_OF(f) || !slurm_parse_id(f[0], &out->job_id))
        return false;
    slurm_parse_state(arena, f[1], out);
    slurm_wait_status((uint32_t)slurm_parse_u64(f[2], UINT32_MAX), &out->exit_code, &out->signal);
    out->start_ns = slurm_time(f[3]);
    out->end_ns = slurm_time(f[4]);
    out->submit_ns = slurm_time(f[5]);
    out->limit_seconds = slurm_limit(f[6]);
    out->restarts = (uint32_t)slurm_parse_u64(f[7], UINT32_MAX);
    out->priority = slurm_parse_u64(f[8], UINT64_MAX);
    out->partition = slurm_parse_text(f[9]);
    out->nodes = slurm_parse_text(f[10]);
    out->reason = slurm_parse_text(f[11]);
    size_t n = strlen(f[12]);
    out->name = arena_strndup(arena, f[12], n > 0 && f[12][n - 1] == '|' ? n - 1 : n);
    return true;
}

/* ---- scontrol: "JobId=5 JobName=a b State=..." ---- */

/* The value behind " KEY=", up to the next blank: values that matter here have none. */
static const char *slurm_parse_value(struct arena *arena, const char *line, const char *key)
{
    size_t n = strlen(key);

    for (const char *at = line; (at = strstr(at, key)) != NULL; at += n)
        if ((at == line || at[-1] == ' ') && at[n] == '=')
            return arena_strndup(arena, at + n + 1, strcspn(at + n + 1, " "));
    return "";
}

/* "7:15": exit code and signal. */
static void slurm_parse_exit(const char *text, struct slurm_info *out)
{
    int code = 0, sig = 0;

    if (sscanf(text, "%3d:%3d", &code, &sig) == 2 && code >= 0 && sig >= 0) {
        out->exit_code = code;
        out->signal = sig;
    }
}

bool slurm_scontrol_line(struct arena *arena, struct str text, struct slurm_info *out)
{
    const char *f[1];

    *out = slurm_info_nothing;
    slurm_parse_split(arena, text, '\n', f, 1);
    const char *line = f[0];
    if (!str_starts(line, "JobId=") || !slurm_parse_id(slurm_parse_value(arena, line, "JobId"), &out->job_id))
        return false;
    /* A job's name may say anything, also "JobState=": what is looked for comes behind the user that it belongs to. */
    const char *rest = strstr(line, " UserId=");
    for (const char *later = rest; later != NULL && (later = strstr(later + 1, " UserId=")) != NULL;)
        rest = later;
    if (rest == NULL)
        return false;
    const char *name = strstr(line, " JobName=");
    if (name != NULL && name < rest)
        out->name = arena_strndup(arena, name + strlen(" JobName="), (size_t)(rest - name) - strlen(" JobName="));
    slurm_parse_state(arena, slurm_parse_value(arena, rest, "JobState"), out);
    slurm_parse_exit(slurm_parse_value(arena, rest, "ExitCode"), out);
    out->submit_ns = slurm_time(slurm_parse_value(arena, rest, "SubmitTime"));
    out->start_ns = slurm_time(slurm_parse_value(arena, rest, "StartTime"));
    out->end_ns = slurm_time(slurm_parse_value(arena, rest, "EndTime"));
    out->limit_seconds = slurm_limit(slurm_parse_value(arena, rest, "TimeLimit"));
    out->restarts = (uint32_t)slurm_parse_u64(slurm_parse_value(arena, rest, "Restarts"), UINT32_MAX);
    out->priority = slurm_parse_u64(slurm_parse_value(arena, rest, "Priority"), UINT64_MAX);
    out->partition = slurm_parse_text(slurm_parse_value(arena, rest, "Partition"));
    out->nodes = slurm_parse_text(slurm_parse_value(arena, rest, "NodeList"));
    out->reason = slurm_parse_text(slurm_parse_value(arena, rest, "Reason"));
    return out->state_class != SLURM_CLASS_UNKNOWN;
}

/* ---- sacct ---- */

bool slurm_sacct_line(struct arena *arena, struct str line, struct slurm_info *out)
{
    static const char by[] = "CANCELLED by ";
    const char *f[10];

    *out = slurm_info_nothing;
    if (slurm_parse_split(arena, line, '|', f, COUNT_OF(f)) < COUNT_OF(f) || !slurm_parse_id(f[0], &out->job_id))
        return false;
    slurm_parse_state(arena, f[1], out);
    if (str_starts(f[1], by))
        out->cancelled_by = arena_strdup(arena, f[1] + strlen(by));
    slurm_parse_exit(f[2], out);
    out->submit_ns = slurm_time(f[3]);
    out->start_ns = slurm_time(f[4]);
    out->end_ns = slurm_time(f[5]);
    out->limit_seconds = (int64_t)slurm_parse_u64(f[6], INT32_MAX) * 60;
    out->partition = slurm_parse_text(f[7]);
    out->nodes = strcmp(f[8], "None assigned") == 0 ? "" : slurm_parse_text(f[8]);
    out->name = f[9];
    return out->state_class != SLURM_CLASS_UNKNOWN;
}

/* ---- sbatch ---- */

bool slurm_sbatch_output(struct str text, uint32_t *job_id)
{
    struct str line;
    bool found = false;

    while (slurm_next_line(&text, &line)) {
        size_t n = 0;
        char digits[16];
        while (n < line.n && n < sizeof digits - 1 && line.p[n] >= '0' && line.p[n] <= '9')
            n++;
        if (n == 0 || (n < line.n && line.p[n] != ';'))
            continue;
        memcpy(digits, line.p, n);
        digits[n] = '\0';
        found = slurm_parse_id(digits, job_id) || found;
    }
    return found;
}

/* ---- the queue's order ---- */

bool slurm_place_line(struct arena *arena, struct str line, struct slurm_place *out)
{
    const char *f[4];

    *out = (struct slurm_place){ .partition = "" };
    if (slurm_parse_split(arena, line, '|', f, COUNT_OF(f)) < 3 || !slurm_parse_id(f[0], &out->job_id))
        return false;
    out->priority = slurm_parse_u64(f[1], UINT64_MAX);
    out->partition = f[2];
    return true;
}

/* By partition; what comes first in it, first. */
static int slurm_places_compare(const void *a, const void *b)
{
    const struct slurm_place *x = a, *y = b;
    int order = strcmp(x->partition, y->partition);

    if (order != 0)
        return order;
    if (x->priority != y->priority)
        return x->priority > y->priority ? -1 : 1;
    return x->job_id < y->job_id ? -1 : x->job_id > y->job_id;
}

void slurm_places_sort(struct slurm_place *places, size_t count)
{
    if (count > 0)
        qsort(places, count, sizeof *places, slurm_places_compare);
}

/* How many come before it. */
static size_t slurm_places_before(const struct slurm_place *places, size_t count, const struct slurm_place *place)
{
    size_t low = 0, high = count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (slurm_places_compare(&places[middle], place) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

size_t slurm_places_ahead(const struct slurm_place *places, size_t count, const struct slurm_info *job)
{
    const struct slurm_place first = { .job_id = 0, .priority = UINT64_MAX, .partition = job->partition };
    const struct slurm_place own = { .job_id = job->job_id, .priority = job->priority, .partition = job->partition };

    return slurm_places_before(places, count, &own) - slurm_places_before(places, count, &first);
}

/* ---- nodes ---- */

bool slurm_sinfo_line(struct arena *arena, struct str line, struct slurm_node *out)
{
    static const char *const unusable[] = { "down", "drain", "fail", "unknown", "maint", "inval", "future", "reboot", "powering_down" };
    const char *f[6];

    *out = (struct slurm_node){ .name = "", .state = "", .gres = "" };
    if (slurm_parse_split(arena, line, '|', f, COUNT_OF(f)) < 5 || f[0][0] == '\0')
        return false;
    out->name = f[0];
    out->state = f[1];
    /* With "+" behind a number there are nodes with more: sinfo counts the least. */
    out->cpus = strtoll(f[2], NULL, 10);
    out->memory_mib = strtoll(f[3], NULL, 10);
    out->gres = slurm_parse_text(f[4]);
    out->usable = out->cpus > 0 && out->cpus < INT32_MAX && out->memory_mib >= 0 && out->memory_mib < INT64_C(1) << 40;
    for (size_t i = 0; i < COUNT_OF(unusable); i++)
        if (strstr(out->state, unusable[i]) != NULL)
            out->usable = false;
    /* "*" behind a state: the node does not answer. */
    if (strchr(out->state, '*') != NULL)
        out->usable = false;
    return true;
}

int64_t slurm_gres_count(const char *list, const char *gres)
{
    size_t n = strlen(gres);
    int64_t total = 0;

    while (*list != '\0') {
        size_t length = strcspn(list, ",(");
        /* "gpu:4", "gpu:a100:4" and "gpu" (one of it) are all of "gpu". */
        if (length >= n && strncmp(list, gres, n) == 0 && (length == n || list[n] == ':')) {
            const char *digits = list + length;
            while (digits > list && digits[-1] >= '0' && digits[-1] <= '9')
                digits--;
            bool counted = digits < list + length && digits > list && digits[-1] == ':' && (size_t)(digits - list) > n;
            int64_t number = counted ? strtoll(digits, NULL, 10) : 1;
            if (number > 0 && number < 1000000)
                total += number;
        }
        list += length;
        /* Commas within parentheses belong to the entry: "gpu:4(S:0,2)". */
        if (*list == '(')
            list += strcspn(list, ")");
        list += strcspn(list, ",");
        list += *list == ',';
    }
    return total;
}

/* ---- errors ---- */

static bool slurm_error_has(const char *text, const char *const *phrases, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcasestr(text, phrases[i]) != NULL)
            return true;
    return false;
}

void slurm_error_text(struct str text, struct buf *out)
{
    struct str line;
    size_t start = out->n;

    while (slurm_next_line(&text, &line) && out->n - start < STATUS_MESSAGE_MAX) {
        static const char *const noise[] = { "sbatch: ", "squeue: ", "scancel: ", "scontrol: ", "sacct: ", "sinfo: ", "error: ",
                                             "fatal: " };
        for (size_t i = 0; i < COUNT_OF(noise); i++) {
            size_t n = strlen(noise[i]);
            if (line.n >= n && memcmp(line.p, noise[i], n) == 0)
                line = (struct str){ line.p + n, line.n - n };
        }
        size_t used = out->n - start;
        if (line.n == 0 || (used >= line.n && memmem(out->p + start, used, line.p, line.n) != NULL))
            continue;
        if (used > 0)
            buf_append_str(out, "; ");
        size_t room = STATUS_MESSAGE_MAX - 1 - used;
        for (size_t i = 0; i < line.n && i < room; i++)
            buf_append_byte(out, (unsigned char)line.p[i] < ' ' || line.p[i] == 0x7f ? ' ' : (uint8_t)line.p[i]);
    }
}

const char *slurm_step_verdict(struct str log)
{
    static const struct {
        const char *phrase, *state;
    } verdicts[] = {
        { "DUE TO TIME LIMIT", "TIMEOUT" },           { "DUE TO PREEMPTION", "PREEMPTED" },
        { "DUE TO NODE FAILURE", "NODE_FAIL" },       { "Exceeded job memory limit", "OUT_OF_MEMORY" },
        { "oom-kill event", "OUT_OF_MEMORY" },        { "oom_kill event", "OUT_OF_MEMORY" },
        { "CANCELLED AT", "CANCELLED" },
    };
    struct str line;

    while (slurm_next_line(&log, &line)) {
        if (line.n < strlen("slurmstepd") || memcmp(line.p, "slurmstepd", strlen("slurmstepd")) != 0)
            continue;
        for (size_t i = 0; i < COUNT_OF(verdicts); i++)
            if (memmem(line.p, line.n, verdicts[i].phrase, strlen(verdicts[i].phrase)) != NULL)
                return verdicts[i].state;
    }
    return "";
}

bool slurm_error_no_job(const char *text)
{
    static const char *const phrases[] = { "Invalid job id", "Job has already finished", "already completing or completed" };

    return slurm_error_has(text, phrases, COUNT_OF(phrases));
}

bool slurm_error_ambiguous(const char *text)
{
    static const char *const phrases[] = { "timed out", "Zero Bytes were transmitted", "Unexpected message",
                                           "Connection reset", "Broken pipe", "closed by remote host" };

    return slurm_error_has(text, phrases, COUNT_OF(phrases)) && strcasestr(text, "connect to host") == NULL;
}

bool slurm_error_passing(const char *text)
{
    static const char *const phrases[] = { "Unable to contact slurm controller", "Connection refused", "connect failure",
                                           "temporarily", "try again", "in standby mode", "No route to host",
                                           "Protocol authentication error", "MUNGE", "Could not resolve hostname",
                                           "connect to host", "Rate limit", "QOSMaxSubmitJob", "AssocMaxSubmitJob",
                                           "Job violates accounting/QOS policy (job submit limit" };

    return slurm_error_ambiguous(text) || slurm_error_has(text, phrases, COUNT_OF(phrases));
}

bool slurm_error_no_accounting(const char *text)
{
    return strcasestr(text, "accounting storage is disabled") != NULL || strcasestr(text, "SlurmDBD") != NULL;
}

