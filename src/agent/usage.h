/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage.h: what a container, or the pod, uses: the figures, wherever they come from. One that is not known says so and is
 * never 0 instead.
 *
 *   cgroup_stats.c  from control groups, v1 and v2
 *   proc_stats.c    from its processes, where there are no groups; open files
 *   layer_stats.c   from the folder that it writes to
 *   net_stats.c     the pod's network interfaces
 */
#ifndef AGENT_USAGE_H
#define AGENT_USAGE_H

#include "base/base.h"

#define USAGE_UNKNOWN UINT64_MAX

/* One line of pressure stall information (Documentation/accounting/psi.rst). */
struct usage_pressure {
    uint64_t total_ns; /* USAGE_UNKNOWN: the kernel gives none, and the averages say nothing */
    double avg10, avg60, avg300; /* percent */
};
struct usage_psi {
    struct usage_pressure some, full;
};

/* Block devices of which one container's traffic is told, and sizes of huge pages; more are left out. */
#define USAGE_DEVICES_MAX 16
#define USAGE_PAGE_SIZES_MAX 4

struct usage_device {
    unsigned major, minor;
    uint64_t read_bytes, reads, written_bytes, writes;
};

struct usage_hugetlb {
    char size[16]; /* "2MB" */
    uint64_t used, used_max;
};

/* Times in ns, sizes in bytes. Plain data: workers hand it over as it is. */
struct usage {
    int64_t taken_ns; /* real time */
    uint64_t cpu, cpu_user, cpu_system;
    uint64_t cfs_periods, cfs_throttled_periods, cfs_throttled;
    uint64_t memory, memory_max;     /* all of it; the most there ever was */
    uint64_t memory_limit;           /* unknown also when there is none */
    uint64_t working_set, rss, cache, kernel, mapped_file;
    uint64_t swap, swap_limit;       /* the limit as for memory_limit */
    uint64_t limit_hits, oom_kills;
    uint64_t faults, major_faults;
    uint64_t processes, threads, threads_max; /* threads_max 0: no limit */
    uint64_t files, sockets, files_limit; /* open ones of all processes; the first process's soft limit */
    struct usage_psi cpu_psi, memory_psi, io_psi;
    struct usage_device devices[USAGE_DEVICES_MAX];
    size_t device_count;
    struct usage_hugetlb hugetlb[USAGE_PAGE_SIZES_MAX];
    size_t hugetlb_count;
};

/* Taken now; nothing known. */
void usage_init(struct usage *u);
/* Adds what containers have: a sum with an unknown part is unknown. What cannot be added (maxima, limits, pressure) is unknown. */
void usage_add(struct usage *sum, const struct usage *part);

/* ---- reading the kernel's texts; none of them trusts what it reads ---- */
/* A number at the beginning of the text; "max" and anything else is unknown. */
uint64_t usage_number(const char *text);
/* The lines "name number..." of a text: the numbers go to where `names` says. */
struct usage_name {
    const char *name;
    uint64_t *to;
};
void usage_read_names(const char *text, const struct usage_name *names, size_t count);
/* A *.pressure file. */
void usage_read_pressure(const char *text, struct usage_psi *psi);
/* value - less, not below 0; unknown when either is. */
uint64_t usage_less(uint64_t value, uint64_t less);
uint64_t usage_scaled(uint64_t value, uint64_t factor); /* an unknown one stays it */

/* ---- nanoseconds of CPU a second ---- */
/* The two last samples that are at least USAGE_WINDOW_MIN_MS apart. All zero: none yet. */
struct usage_rate {
    struct usage_sample {
        int64_t when_ns; /* monotonic */
        uint64_t cpu;
    } samples[2]; /* the older one first */
    size_t count;
};
/* A first sample that is known without measuring: nothing was used when it began. */
void usage_rate_start(struct usage_rate *rate, int64_t when_ns);
/* Takes a sample and gives the usage over the window that ends with it; unknown without an earlier sample that is old
 * enough and not too old. */
uint64_t usage_rate_add(struct usage_rate *rate, int64_t when_ns, uint64_t cpu);

#endif
