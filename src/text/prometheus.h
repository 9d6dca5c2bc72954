/* SPDX-License-Identifier: Apache-2.0 */
/* prometheus.h: numbers in Prometheus' text format, version 0.0.4
 * (https://prometheus.io/docs/instrumenting/exposition_formats/). */
#ifndef TEXT_PROMETHEUS_H
#define TEXT_PROMETHEUS_H

#include "base/base.h"

#define PROMETHEUS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* Before the samples of a family, once. name: letters, digits, _ and :; type: counter, gauge, histogram. */
void prometheus_family(struct buf *out, const char *name, const char *type, const char *help);

/* Labels: names and values in turn, then NULL. Values may hold anything. */
#define PROMETHEUS_LABELS(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define PROMETHEUS_NONE ((const char *const[]){ NULL })
void prometheus_u64(struct buf *out, const char *name, const char *const *labels, uint64_t value);
void prometheus_double(struct buf *out, const char *name, const char *const *labels, double value);

/* How values are spread: counts by upper bounds, in rising order. */
#define PROMETHEUS_BUCKETS_MAX 16
struct prometheus_histogram {
    uint64_t counts[PROMETHEUS_BUCKETS_MAX + 1]; /* one by one, not summed up; the last: above all bounds */
    double sum;
};
void prometheus_observe(struct prometheus_histogram *h, const double *bounds, size_t bound_count, double value);
/* The _bucket, _sum and _count samples of one set of labels (at most 8 of them). */
void prometheus_histogram(struct buf *out, const char *name, const char *const *labels,
                          const struct prometheus_histogram *h, const double *bounds, size_t bound_count);

#endif
