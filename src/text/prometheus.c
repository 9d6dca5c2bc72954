/* SPDX-License-Identifier: Apache-2.0 */
#include "text/prometheus.h"

#include <math.h>

#define PROMETHEUS_LABELS_MAX 8

void prometheus_family(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s ", name);
    for (const char *p = help; *p != '\0'; p++) {
        if (*p == '\\' || *p == '\n')
            buf_append_byte(out, '\\');
        buf_append_byte(out, *p == '\n' ? 'n' : (uint8_t)*p);
    }
    buf_printf(out, "\n# TYPE %s %s\n", name, type);
}

static void prometheus_value(struct buf *out, const char *text)
{
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '\\' || *p == '"' || *p == '\n')
            buf_append_byte(out, '\\');
        buf_append_byte(out, *p == '\n' ? 'n' : (uint8_t)*p);
    }
}

static void prometheus_name(struct buf *out, const char *name, const char *suffix, const char *const *labels)
{
    buf_append_str(out, name);
    buf_append_str(out, suffix);
    for (size_t i = 0; labels[i] != NULL; i += 2) {
        buf_append_byte(out, i == 0 ? '{' : ',');
        buf_append_str(out, labels[i]);
        buf_append_str(out, "=\"");
        prometheus_value(out, labels[i + 1]);
        buf_append_byte(out, '"');
    }
    if (labels[0] != NULL)
        buf_append_byte(out, '}');
    buf_append_byte(out, ' ');
}

static void prometheus_number(struct buf *out, double value)
{
    if (isnan(value))
        buf_append_str(out, "NaN");
    else if (isinf(value))
        buf_append_str(out, value > 0 ? "+Inf" : "-Inf");
    else
        buf_printf(out, "%.15g", value);
    buf_append_byte(out, '\n');
}

void prometheus_u64(struct buf *out, const char *name, const char *const *labels, uint64_t value)
{
    prometheus_name(out, name, "", labels);
    buf_printf(out, "%" PRIu64 "\n", value);
}

void prometheus_double(struct buf *out, const char *name, const char *const *labels, double value)
{
    prometheus_name(out, name, "", labels);
    prometheus_number(out, value);
}

void prometheus_observe(struct prometheus_histogram *h, const double *bounds, size_t bound_count, double value)
{
    size_t i = 0;

    while (i < bound_count && value > bounds[i])
        i++;
    h->counts[i]++;
    h->sum += value;
}

void prometheus_histogram(struct buf *out, const char *name, const char *const *labels,
                          const struct prometheus_histogram *h, const double *bounds, size_t bound_count)
{
    const char *all[2 * PROMETHEUS_LABELS_MAX + 3];
    size_t n = 0;
    uint64_t count = 0;

    for (; labels[n] != NULL && n < 2 * PROMETHEUS_LABELS_MAX; n++)
        all[n] = labels[n];
    all[n] = "le";
    all[n + 2] = NULL;
    for (size_t i = 0; i <= bound_count; i++) {
        char bound[32] = "+Inf";
        if (i < bound_count)
            snprintf(bound, sizeof bound, "%.15g", bounds[i]);
        all[n + 1] = bound;
        count += h->counts[i];
        prometheus_name(out, name, "_bucket", all);
        buf_printf(out, "%" PRIu64 "\n", count);
    }
    prometheus_name(out, name, "_sum", labels);
    prometheus_number(out, h->sum);
    prometheus_name(out, name, "_count", labels);
    buf_printf(out, "%" PRIu64 "\n", count);
}

#undef PROMETHEUS_LABELS_MAX
