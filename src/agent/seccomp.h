/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seccomp.h: system call filters: rules by name -> a BPF program (seccomp(2)).
 *
 * libseccomp only translates names to numbers here: its own generator takes 16 ms for the default profile and makes
 * a linear search; this one takes a fraction of one and makes a binary search.
 *
 * A filter covers the machine's own ABI and those of the same family that run on it (x86_64: x86 and x32; aarch64: arm).
 * Calls by any other ABI kill the process. For one call number the rules with conditions count first, in their order, then
 * the one without; then the default. Numbers above every one that the profile knows give ENOSYS instead of a default
 * EPERM, so that programs fall back from calls that are newer than the profile, as runc does it.
 */
#ifndef AGENT_SECCOMP_H
#define AGENT_SECCOMP_H

#include "base/base.h"

/* A compiled filter. */
struct seccomp_filter {
    struct buf program; /* owned; an array of struct sock_filter */
    uint32_t flags;     /* SECCOMP_FILTER_FLAG_* wanted by the profile */
};
#define SECCOMP_FILTER_INIT { BUF_INIT, 0 }
void seccomp_filter_free(struct seccomp_filter *f);
#define cleanup_seccomp_filter __attribute__((cleanup(seccomp_filter_free)))

/* The default profile that containerd applies (RuntimeDefault). `bounding`: the container's bounding set, as bits by
 * capability number: some calls depend on it. */
bool seccomp_default(uint64_t bounding, struct seccomp_filter *out, struct status *err);
/* A profile as in the OCI runtime-spec, config-linux.md, "Seccomp" (Localhost). INVALID_ARGUMENT says what and where. */
bool seccomp_from_json(struct str json, struct seccomp_filter *out, struct status *err);

/* ---- seccomp.c: the compiler; for seccomp_profile.c and the tests ---- */
enum seccomp_op { SECCOMP_NE, SECCOMP_LT, SECCOMP_LE, SECCOMP_EQ, SECCOMP_GE, SECCOMP_GT, SECCOMP_MASKED_EQ };
struct seccomp_condition {
    uint8_t argument; /* 0..5 */
    uint8_t op;       /* enum seccomp_op */
    uint64_t value;   /* SECCOMP_MASKED_EQ: the mask */
    uint64_t value_two; /* SECCOMP_MASKED_EQ: what must be left */
};
#define SECCOMP_CONDITIONS_MAX 6
/* A profile has a few hundred; a hostile file must not make us build for ever. */
#define SECCOMP_RULES_MAX 8192

struct seccomp_rules {
    struct seccomp_rule *rules; /* owned */
    size_t count, room;
    uint32_t default_action; /* SECCOMP_RET_* with its data */
    bool enosys_above;       /* numbers above all known ones give ENOSYS */
    uint32_t arches[4];      /* libseccomp's tokens; the first is the machine's own */
    size_t arch_count;
};
void seccomp_rules_init(struct seccomp_rules *r, uint32_t default_action);
/* Adds another ABI when it belongs to this machine's family; others are ignored. */
void seccomp_rules_add_arch(struct seccomp_rules *r, uint32_t arch);
void seccomp_rules_free(struct seccomp_rules *r);
/* `name`: n bytes; one that no ABI has is ignored. The conditions are all to hold. False: too many rules. */
bool seccomp_rules_add(struct seccomp_rules *r, struct str name, uint32_t action, const struct seccomp_condition *conditions,
                       size_t condition_count, struct status *err);
bool seccomp_compile(struct seccomp_rules *r, struct buf *out, struct status *err);

#endif
