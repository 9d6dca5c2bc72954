/* SPDX-License-Identifier: Apache-2.0 */
#include "text/timefmt.h"

#define TIMEFMT_SECOND INT64_C(1000000000)
#define TIMEFMT_MINUTE (60 * TIMEFMT_SECOND)
#define TIMEFMT_HOUR (60 * TIMEFMT_MINUTE)
#define TIMEFMT_DAY_SECONDS INT64_C(86400)

/* Days since 1970-01-01 of a date of the proleptic Gregorian calendar, and back: Howard Hinnant's algorithms
 * ("chrono-compatible low-level date algorithms"); years begin in March there, so that leap days come last. */
static int64_t timefmt_days_of_date(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

static void timefmt_date_of_days(int64_t days, int *year, int *month, int *day)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t day_of_era = days - era * 146097;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted = (5 * day_of_year + 2) / 153;
    *day = (int)(day_of_year - (153 * shifted + 2) / 5 + 1);
    *month = (int)(shifted < 10 ? shifted + 3 : shifted - 9);
    *year = (int)(year_of_era + era * 400 + (*month <= 2));
}

/* Seconds and the rest, which is never negative. */
static int64_t timefmt_split(int64_t ns, int *rest)
{
    int64_t seconds = ns / TIMEFMT_SECOND, left = ns % TIMEFMT_SECOND;

    if (left < 0) {
        left += TIMEFMT_SECOND;
        seconds--;
    }
    *rest = (int)left;
    return seconds;
}

static int timefmt_date_time(int64_t seconds, char *out)
{
    int year, month, day;
    int64_t days = seconds / TIMEFMT_DAY_SECONDS, left = seconds % TIMEFMT_DAY_SECONDS;

    if (left < 0) {
        left += TIMEFMT_DAY_SECONDS;
        days--;
    }
    timefmt_date_of_days(days, &year, &month, &day);
    return snprintf(out, TIMEFMT_SIZE, "%04d-%02d-%02dT%02d:%02d:%02d", year, month, day, (int)(left / 3600),
                    (int)(left / 60 % 60), (int)(left % 60));
}

void timefmt_nano(int64_t ns, char out[TIMEFMT_SIZE])
{
    int rest;
    int64_t seconds = timefmt_split(ns, &rest);
    int n = timefmt_date_time(seconds, out);

    snprintf(out + n, (size_t)(TIMEFMT_SIZE - n), ".%09dZ", rest);
}

void timefmt_seconds(int64_t ns, char out[TIMEFMT_SIZE])
{
    int rest;
    int n = timefmt_date_time(timefmt_split(ns, &rest), out);

    snprintf(out + n, (size_t)(TIMEFMT_SIZE - n), "Z");
}

/* `count` digits at *at, and then the byte `end` (0: none). */
static bool timefmt_field(struct str s, size_t *at, size_t count, char end, int min, int max, int *out)
{
    int value = 0;

    if (s.n - *at < count + (end != 0))
        return false;
    for (size_t i = 0; i < count; i++) {
        char c = s.p[*at + i];
        if (c < '0' || c > '9')
            return false;
        value = value * 10 + (c - '0');
    }
    *at += count;
    if (end != 0 && (s.p[*at] | 0x20) != (end | 0x20))
        return false;
    *at += end != 0;
    *out = value;
    return value >= min && value <= max;
}

static bool timefmt_fraction(struct str s, size_t *at, int64_t *ns)
{
    size_t start = ++*at;
    int64_t unit = TIMEFMT_SECOND / 10;

    for (; *at < s.n && s.p[*at] >= '0' && s.p[*at] <= '9'; ++*at) {
        *ns += unit * (s.p[*at] - '0');
        unit /= 10;
    }
    return *at > start;
}

/* "Z" or "+01:30" at the end: seconds east of UTC. */
static bool timefmt_zone(struct str s, size_t at, int *offset)
{
    int hours, minutes;

    *offset = 0;
    if (at + 1 == s.n && (s.p[at] == 'Z' || s.p[at] == 'z'))
        return true;
    if (at + 6 != s.n || (s.p[at] != '+' && s.p[at] != '-'))
        return false;
    int sign = s.p[at] == '-' ? -1 : 1;
    at++;
    if (!timefmt_field(s, &at, 2, ':', 0, 23, &hours) || !timefmt_field(s, &at, 2, 0, 0, 59, &minutes))
        return false;
    *offset = sign * (hours * 3600 + minutes * 60);
    return true;
}

bool timefmt_parse(struct str text, int64_t *ns)
{
    static const int month_days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    int year, month, day, hour, minute, second, offset;
    int64_t fraction = 0, total;
    size_t at = 0;

    if (!timefmt_field(text, &at, 4, '-', 0, 9999, &year) || !timefmt_field(text, &at, 2, '-', 1, 12, &month) ||
        !timefmt_field(text, &at, 2, 'T', 1, 31, &day) || !timefmt_field(text, &at, 2, ':', 0, 23, &hour) ||
        !timefmt_field(text, &at, 2, ':', 0, 59, &minute) || !timefmt_field(text, &at, 2, 0, 0, 60, &second))
        return false;
    bool leap_day = month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (day > month_days[month - 1] + leap_day)
        return false;
    if (at < text.n && text.p[at] == '.' && !timefmt_fraction(text, &at, &fraction))
        return false;
    if (!timefmt_zone(text, at, &offset))
        return false;
    int64_t seconds = timefmt_days_of_date(year, month, day) * TIMEFMT_DAY_SECONDS + hour * 3600 + minute * 60 +
                      second - offset;
    if (__builtin_mul_overflow(seconds, TIMEFMT_SECOND, &total) || __builtin_add_overflow(total, fraction, &total))
        return false;
    *ns = total;
    return true;
}

/* The steps of github.com/docker/go-units HumanDuration, which crictl prints. */
void timefmt_age(int64_t elapsed_ns, char out[TIMEFMT_SIZE])
{
    int64_t seconds = elapsed_ns / TIMEFMT_SECOND, minutes = seconds / 60;
    int64_t hours = (elapsed_ns + TIMEFMT_HOUR / 2) / TIMEFMT_HOUR; /* rounded, as there */

    if (seconds < 1)
        snprintf(out, TIMEFMT_SIZE, "Less than a second");
    else if (seconds == 1)
        snprintf(out, TIMEFMT_SIZE, "1 second");
    else if (seconds < 60)
        snprintf(out, TIMEFMT_SIZE, "%d seconds", (int)seconds);
    else if (minutes == 1)
        snprintf(out, TIMEFMT_SIZE, "About a minute");
    else if (minutes < 60)
        snprintf(out, TIMEFMT_SIZE, "%d minutes", (int)minutes);
    else if (hours == 1)
        snprintf(out, TIMEFMT_SIZE, "About an hour");
    else if (hours < 48)
        snprintf(out, TIMEFMT_SIZE, "%d hours", (int)hours);
    else if (hours < 24 * 7 * 2)
        snprintf(out, TIMEFMT_SIZE, "%" PRId64 " days", hours / 24);
    else if (hours < 24 * 30 * 2)
        snprintf(out, TIMEFMT_SIZE, "%" PRId64 " weeks", hours / 24 / 7);
    else if (hours < 24 * 365 * 2)
        snprintf(out, TIMEFMT_SIZE, "%" PRId64 " months", hours / 24 / 30);
    else
        snprintf(out, TIMEFMT_SIZE, "%" PRId64 " years", hours / 24 / 365);
}

/* value/unit with its fraction, no zeros at its end: "1.5". */
static int timefmt_decimal(uint64_t value, uint64_t unit, char *out, size_t room)
{
    uint64_t rest = value % unit;
    int n = snprintf(out, room, "%" PRIu64, value / unit);

    if (rest == 0)
        return n;
    int digits = 0;
    for (uint64_t u = unit; u > 1; u /= 10)
        digits++;
    n += snprintf(out + n, room - (size_t)n, ".%0*" PRIu64, digits, rest);
    while (out[n - 1] == '0')
        n--;
    out[n] = '\0';
    return n;
}

void timefmt_duration(int64_t ns, char out[TIMEFMT_SIZE])
{
    uint64_t left = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns, second = (uint64_t)TIMEFMT_SECOND;
    size_t n = 0;

    if (ns < 0)
        out[n++] = '-';
    if (left < second) {
        uint64_t unit = left < 1000 ? 1 : left < 1000000 ? 1000 : 1000000;
        const char *name = left == 0 ? "s" : unit == 1 ? "ns" : unit == 1000 ? "us" : "ms";
        n += (size_t)timefmt_decimal(left, unit, out + n, TIMEFMT_SIZE - n);
        snprintf(out + n, TIMEFMT_SIZE - n, "%s", name);
        return;
    }
    uint64_t minutes = left / second / 60;
    if (minutes >= 60)
        n += (size_t)snprintf(out + n, TIMEFMT_SIZE - n, "%" PRIu64 "h", minutes / 60);
    if (minutes > 0)
        n += (size_t)snprintf(out + n, TIMEFMT_SIZE - n, "%" PRIu64 "m", minutes % 60);
    n += (size_t)timefmt_decimal(left % (60 * second), second, out + n, TIMEFMT_SIZE - n);
    snprintf(out + n, TIMEFMT_SIZE - n, "s");
}

static int64_t timefmt_unit(const char **text)
{
    static const struct {
        const char *name;
        int64_t ns;
    } units[] = { /* the longer of two that begin alike first */
        { "ns", 1 }, { "us", 1000 }, { "\xc2\xb5s", 1000 }, { "ms", 1000000 }, { "s", TIMEFMT_SECOND },
        { "m", TIMEFMT_MINUTE }, { "h", TIMEFMT_HOUR },
    };

    for (size_t i = 0; i < COUNT_OF(units); i++)
        if (str_starts(*text, units[i].name)) {
            *text += strlen(units[i].name);
            return units[i].ns;
        }
    return 0;
}

/* One "1.5h" of a duration. */
static bool timefmt_duration_part(const char **text, int64_t *ns)
{
    const char *start = *text, *p = start;
    int64_t whole = 0, scale = 1, fraction = 0;

    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(whole, 10, &whole) || __builtin_add_overflow(whole, *p - '0', &whole))
            return false;
    size_t digits = (size_t)(p - start);
    if (*p == '.')
        for (p++; *p >= '0' && *p <= '9'; p++, digits++)
            if (scale < 1000000000) { /* nine digits tell nanoseconds of an hour well enough */
                fraction = fraction * 10 + (*p - '0');
                scale *= 10;
            }
    int64_t unit = digits > 0 ? timefmt_unit(&p) : 0;
    if (unit == 0 || __builtin_mul_overflow(whole, unit, &whole))
        return false;
    *text = p;
    return !__builtin_add_overflow(whole, (int64_t)((__int128)fraction * unit / scale), &whole) &&
           !__builtin_add_overflow(*ns, whole, ns);
}

bool timefmt_parse_duration(const char *text, int64_t *ns)
{
    bool negative = *text == '-';
    int64_t total = 0;

    text += *text == '-' || *text == '+';
    if (strcmp(text, "0") == 0) {
        *ns = 0;
        return true;
    }
    if (*text == '\0')
        return false;
    while (*text != '\0')
        if (!timefmt_duration_part(&text, &total))
            return false;
    *ns = negative ? -total : total;
    return true;
}

#undef TIMEFMT_SECOND
#undef TIMEFMT_MINUTE
#undef TIMEFMT_HOUR
#undef TIMEFMT_DAY_SECONDS
