/* SPDX-License-Identifier: Apache-2.0 */
#include "text/quantity.h"

/* Significant digits that are computed with; further ones only matter for rounding up. 10^28 times 2^60 would not fit, so
 * the product is checked. */
#define QUANTITY_DIGITS 28

struct quantity_suffix {
    const char *text;
    int decimal; /* power of ten */
    int binary;  /* power of two */
};

static const struct quantity_suffix quantity_suffixes[] = {
    { "", 0, 0 },    { "n", -9, 0 },  { "u", -6, 0 },  { "m", -3, 0 },  { "k", 3, 0 },   { "M", 6, 0 },   { "G", 9, 0 },
    { "T", 12, 0 },  { "P", 15, 0 },  { "E", 18, 0 },  { "Ki", 0, 10 }, { "Mi", 0, 20 }, { "Gi", 0, 30 }, { "Ti", 0, 40 },
    { "Pi", 0, 50 }, { "Ei", 0, 60 },
};

typedef unsigned __int128 quantity_wide;

static const struct quantity_suffix *quantity_suffix_find(const char *text)
{
    for (size_t i = 0; i < COUNT_OF(quantity_suffixes); i++)
        if (strcmp(text, quantity_suffixes[i].text) == 0)
            return &quantity_suffixes[i];
    return NULL;
}

/* "e3", "E-2": the exponent; false when it is none. A lone "E" is the suffix. */
static bool quantity_exponent(const char *text, int *exponent)
{
    uint64_t value;
    bool negative = text[0] != '\0' && text[1] == '-';

    if (text[0] != 'e' && text[0] != 'E')
        return false;
    text += 1 + (text[1] == '-' || text[1] == '+');
    if (!parse_u64(text, 1000, &value))
        return false;
    *exponent = negative ? -(int)value : (int)value;
    return true;
}

/* The digits as a number times 10^*exponent; *inexact when more digits followed. NULL when there is no digit. */
static const char *quantity_digits(const char *text, quantity_wide *mantissa, int *exponent, bool *inexact)
{
    int taken = 0;
    bool point = false, any = false;

    for (;; text++) {
        if (*text == '.' && !point) {
            point = true;
            continue;
        }
        if (*text < '0' || *text > '9')
            return any ? text : NULL;
        any = true;
        if (taken < QUANTITY_DIGITS) {
            *mantissa = *mantissa * 10 + (unsigned)(*text - '0');
            taken += *mantissa != 0;
            *exponent -= point;
        } else {
            *inexact = *inexact || *text != '0';
            *exponent += !point && *exponent < 1000; /* more zeros than that cannot fit anyway */
        }
    }
}

static const int quantity_powers[] = { [QUANTITY_ONE] = 0, [QUANTITY_MILLI] = 3, [QUANTITY_NANO] = 9 };

bool quantity_parse(const char *text, enum quantity_scale scale, int64_t *out, struct status *err)
{
    const char *start = text;
    bool negative = *text == '-', inexact = false;
    quantity_wide value = 0;
    int exponent = 0, written = 0, binary = 0;

    text += *text == '-' || *text == '+';
    const char *rest = quantity_digits(text, &value, &exponent, &inexact);
    const struct quantity_suffix *suffix = rest != NULL ? quantity_suffix_find(rest) : NULL;
    if (suffix != NULL) {
        written = suffix->decimal;
        binary = suffix->binary;
    } else if (rest == NULL || !quantity_exponent(rest, &written)) {
        return status_set(err, STATUS_INVALID_ARGUMENT,
                          "\"%.64s\" is no quantity: wanted a number like 500m, 1.5, 128Mi or 2e3", start);
    }
    exponent += written + quantity_powers[scale];
    bool overflow = __builtin_mul_overflow(value, (quantity_wide)1 << binary, &value);
    for (; exponent > 0 && value != 0 && !overflow; exponent--)
        overflow = __builtin_mul_overflow(value, (quantity_wide)10, &value);
    for (; exponent < 0 && value != 0; exponent++) {
        inexact = inexact || value % 10 != 0;
        value /= 10;
    }
    overflow = overflow || __builtin_add_overflow(value, (quantity_wide)inexact, &value);
    if (overflow || value > (quantity_wide)INT64_MAX)
        return status_set(err, STATUS_OUT_OF_RANGE, "the quantity %.64s is too large", start);
    *out = negative ? -(int64_t)value : (int64_t)value;
    return true;
}

void quantity_format(int64_t value, enum quantity_scale scale, bool binary, char out[QUANTITY_TEXT_MAX])
{
    uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value, unit = 1;
    int power = -quantity_powers[scale];
    size_t best = 0;

    for (int i = 0; i < quantity_powers[scale]; i++)
        unit *= 10;
    if (binary && left % unit == 0) {
        left /= unit;
        for (size_t i = 0; i < COUNT_OF(quantity_suffixes); i++) {
            int bits = quantity_suffixes[i].binary;
            if (bits > 0 && left != 0 && left % ((uint64_t)1 << bits) == 0)
                best = i;
        }
        left >>= quantity_suffixes[best].binary;
    } else {
        while (left != 0 && left % 1000 == 0 && power < 18) {
            left /= 1000;
            power += 3;
        }
        for (size_t i = 0; i < COUNT_OF(quantity_suffixes); i++)
            if (left != 0 && quantity_suffixes[i].binary == 0 && quantity_suffixes[i].decimal == power)
                best = i;
    }
    snprintf(out, QUANTITY_TEXT_MAX, "%s%" PRIu64 "%s", value < 0 ? "-" : "", left, quantity_suffixes[best].text);
}

#undef QUANTITY_DIGITS
