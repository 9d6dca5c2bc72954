/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/seccomp.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>

/* Kernels before 4.14 lack it, their headers too. */
#ifndef SECCOMP_RET_KILL_PROCESS
#define SECCOMP_RET_KILL_PROCESS 0x80000000u
#endif
#define SECCOMP_X32_BIT 0x40000000u

/* One rule for one call of one ABI. */
struct seccomp_rule {
    uint32_t arch, number, action;
    uint32_t order; /* as they came */
    uint8_t condition_count;
    struct seccomp_condition conditions[SECCOMP_CONDITIONS_MAX];
};

void seccomp_filter_free(struct seccomp_filter *f)
{
    buf_free(&f->program);
}

void seccomp_rules_init(struct seccomp_rules *r, uint32_t default_action)
{
    *r = (struct seccomp_rules){ .default_action = default_action, .arches = { seccomp_arch_native() }, .arch_count = 1 };
}

void seccomp_rules_free(struct seccomp_rules *r)
{
    free(r->rules);
    r->rules = NULL;
    r->count = r->room = 0;
}

void seccomp_rules_add_arch(struct seccomp_rules *r, uint32_t arch)
{
    static const uint32_t families[][2] = {
        { SCMP_ARCH_X86_64, SCMP_ARCH_X86 },
        { SCMP_ARCH_X86_64, SCMP_ARCH_X32 },
        { SCMP_ARCH_AARCH64, SCMP_ARCH_ARM },
    };

    for (size_t i = 0; i < r->arch_count; i++)
        if (r->arches[i] == arch)
            return;
    for (size_t i = 0; i < COUNT_OF(families); i++)
        if (families[i][0] == r->arches[0] && families[i][1] == arch && r->arch_count < COUNT_OF(r->arches))
            r->arches[r->arch_count++] = arch;
}

static bool seccomp_rules_append(struct seccomp_rules *r, const struct seccomp_rule *rule, struct status *err)
{
    if (r->count == SECCOMP_RULES_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "more than %d seccomp rules", SECCOMP_RULES_MAX);
    if (r->count == r->room) {
        r->room = r->room > 0 ? r->room * 2 : 512;
        r->rules = xrealloc(r->rules, r->room * sizeof *r->rules);
    }
    r->rules[r->count] = *rule;
    r->rules[r->count].order = (uint32_t)r->count;
    r->count++;
    return true;
}

/* 32-bit x86 has its socket and System V IPC calls twice: by the number libseccomp does not give (since Linux 4.3 and
 * 5.1), and through socketcall(2) and ipc(2), whose first argument says which. libseccomp's pseudo number holds it. */
static bool seccomp_add_multiplexed(struct seccomp_rules *r, struct seccomp_rule *rule, int pseudo, struct status *err)
{
    static const struct {
        int16_t pseudo, direct;
    } numbers[] = {
        { -101, 359 }, { -102, 361 }, { -103, 362 }, { -104, 363 }, { -106, 367 }, { -107, 368 }, { -108, 360 },
        { -111, 369 }, { -112, 371 }, { -113, 373 }, { -114, 366 }, { -115, 365 }, { -116, 370 }, { -117, 372 },
        { -118, 364 }, { -119, 337 }, { -120, 345 }, { -202, 393 }, { -203, 394 }, { -211, 400 }, { -212, 401 },
        { -213, 399 }, { -214, 402 }, { -221, 397 }, { -222, 398 }, { -223, 395 }, { -224, 396 },
    };

    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        if (numbers[i].pseudo != pseudo)
            continue;
        rule->number = (uint32_t)numbers[i].direct;
        if (!seccomp_rules_append(r, rule, err))
            return false;
    }
    /* The other arguments are in memory there, where a filter cannot look. */
    bool is_socket = pseudo <= -101 && pseudo >= -120, is_ipc = pseudo <= -201 && pseudo >= -224;
    if (rule->condition_count > 0 || (!is_socket && !is_ipc))
        return true;
    rule->number = is_socket ? 102 : 117;
    rule->condition_count = 1;
    rule->conditions[0] = (struct seccomp_condition){ .argument = 0,
                                                      .op = SECCOMP_EQ,
                                                      .value = (uint64_t)(-pseudo - (is_socket ? 100 : 200)) };
    return seccomp_rules_append(r, rule, err);
}

bool seccomp_rules_add(struct seccomp_rules *r, struct str name, uint32_t action, const struct seccomp_condition *conditions,
                       size_t condition_count, struct status *err)
{
    char text[64];

    if (name.n == 0 || name.n >= sizeof text || condition_count > SECCOMP_CONDITIONS_MAX)
        return true;
    memcpy(text, name.p, name.n);
    text[name.n] = '\0';
    for (size_t i = 0; i < r->arch_count; i++) {
        struct seccomp_rule rule = { .arch = r->arches[i], .action = action, .condition_count = (uint8_t)condition_count };
        int number = seccomp_syscall_resolve_name_arch(r->arches[i], text);
        if (condition_count > 0)
            memcpy(rule.conditions, conditions, condition_count * sizeof *conditions);
        if (number == __NR_SCMP_ERROR)
            continue;
        if (number < 0) {
            if (r->arches[i] == SCMP_ARCH_X86 && !seccomp_add_multiplexed(r, &rule, number, err))
                return false;
            continue;
        }
        rule.number = (uint32_t)number | (r->arches[i] == SCMP_ARCH_X32 ? SECCOMP_X32_BIT : 0);
        if (!seccomp_rules_append(r, &rule, err))
            return false;
    }
    return true;
}

/* ---- the program ---- */

struct seccomp_code {
    struct sock_filter *at; /* owned */
    size_t n, room;
};

static size_t seccomp_emit(struct seccomp_code *c, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
    if (c->n == c->room) {
        c->room = c->room > 0 ? c->room * 2 : 1024;
        c->at = xrealloc(c->at, c->room * sizeof *c->at);
    }
    c->at[c->n] = (struct sock_filter){ .code = code, .jt = jt, .jf = jf, .k = k };
    return c->n++;
}

static void seccomp_emit_load(struct seccomp_code *c, size_t offset)
{
    seccomp_emit(c, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void seccomp_emit_return(struct seccomp_code *c, uint32_t action)
{
    seccomp_emit(c, BPF_RET | BPF_K, action, 0, 0);
}

/* Where a half of an argument is in struct seccomp_data. */
static size_t seccomp_argument(const struct seccomp_condition *condition, bool high)
{
    bool first = high != (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);

    return offsetof(struct seccomp_data, args) + 8u * condition->argument + (first ? 0 : 4);
}

/* Jump targets inside a condition, resolved when its code is complete. */
enum { SECCOMP_NEXT = 0, SECCOMP_PASS = 253, SECCOMP_FAIL = 254 };

static void seccomp_emit_high(struct seccomp_code *c, const struct seccomp_condition *condition)
{
    uint32_t high = (uint32_t)(condition->value >> 32);
    const uint16_t jeq = BPF_JMP | BPF_JEQ | BPF_K, jgt = BPF_JMP | BPF_JGT | BPF_K;

    seccomp_emit_load(c, seccomp_argument(condition, true));
    switch (condition->op) {
    case SECCOMP_EQ:
        seccomp_emit(c, jeq, high, SECCOMP_NEXT, SECCOMP_FAIL);
        break;
    case SECCOMP_NE:
        seccomp_emit(c, jeq, high, SECCOMP_NEXT, SECCOMP_PASS);
        break;
    case SECCOMP_MASKED_EQ:
        seccomp_emit(c, BPF_ALU | BPF_AND | BPF_K, high, 0, 0);
        seccomp_emit(c, jeq, (uint32_t)((condition->value_two & condition->value) >> 32), SECCOMP_NEXT, SECCOMP_FAIL);
        break;
    case SECCOMP_GT:
    case SECCOMP_GE:
        seccomp_emit(c, jgt, high, SECCOMP_PASS, SECCOMP_NEXT);
        seccomp_emit(c, jeq, high, SECCOMP_NEXT, SECCOMP_FAIL);
        break;
    default: /* SECCOMP_LT, SECCOMP_LE */
        seccomp_emit(c, jgt, high, SECCOMP_FAIL, SECCOMP_NEXT);
        seccomp_emit(c, jeq, high, SECCOMP_NEXT, SECCOMP_PASS);
        break;
    }
}

static void seccomp_emit_low(struct seccomp_code *c, const struct seccomp_condition *condition)
{
    uint32_t low = (uint32_t)condition->value;
    const uint16_t jeq = BPF_JMP | BPF_JEQ | BPF_K, jgt = BPF_JMP | BPF_JGT | BPF_K, jge = BPF_JMP | BPF_JGE | BPF_K;

    seccomp_emit_load(c, seccomp_argument(condition, false));
    switch (condition->op) {
    case SECCOMP_EQ:
        seccomp_emit(c, jeq, low, SECCOMP_PASS, SECCOMP_FAIL);
        break;
    case SECCOMP_NE:
        seccomp_emit(c, jeq, low, SECCOMP_FAIL, SECCOMP_PASS);
        break;
    case SECCOMP_MASKED_EQ:
        seccomp_emit(c, BPF_ALU | BPF_AND | BPF_K, low, 0, 0);
        seccomp_emit(c, jeq, (uint32_t)(condition->value_two & condition->value), SECCOMP_PASS, SECCOMP_FAIL);
        break;
    case SECCOMP_GT:
        seccomp_emit(c, jgt, low, SECCOMP_PASS, SECCOMP_FAIL);
        break;
    case SECCOMP_GE:
        seccomp_emit(c, jge, low, SECCOMP_PASS, SECCOMP_FAIL);
        break;
    case SECCOMP_LT:
        seccomp_emit(c, jge, low, SECCOMP_FAIL, SECCOMP_PASS);
        break;
    default: /* SECCOMP_LE */
        seccomp_emit(c, jgt, low, SECCOMP_FAIL, SECCOMP_PASS);
        break;
    }
}

/* One rule's conditions, then its return. A failed condition goes behind the return. Six conditions of eight
 * instructions fit the eight bits of a jump. */
static void seccomp_emit_rule(struct seccomp_code *c, const struct seccomp_rule *rule)
{
    size_t start = c->n, ends[SECCOMP_CONDITIONS_MAX];

    for (size_t i = 0; i < rule->condition_count; i++) {
        /* A 32-bit ABI's arguments have no upper half; x32's may be rubbish, which the kernel ignores. */
        if (rule->arch != SCMP_ARCH_X86 && rule->arch != SCMP_ARCH_X32 && rule->arch != SCMP_ARCH_ARM)
            seccomp_emit_high(c, &rule->conditions[i]);
        seccomp_emit_low(c, &rule->conditions[i]);
        ends[i] = c->n;
    }
    seccomp_emit_return(c, rule->action);
    size_t condition = 0;
    for (size_t at = start; at + 1 < c->n; at++) {
        if (at == ends[condition])
            condition++;
        struct sock_filter *insn = &c->at[at];
        if (BPF_CLASS(insn->code) != BPF_JMP)
            continue;
        uint8_t pass = (uint8_t)(ends[condition] - at - 1), fail = (uint8_t)(c->n - at - 1);
        insn->jt = insn->jt == SECCOMP_PASS ? pass : insn->jt == SECCOMP_FAIL ? fail : insn->jt;
        insn->jf = insn->jf == SECCOMP_PASS ? pass : insn->jf == SECCOMP_FAIL ? fail : insn->jf;
    }
}

/* From `start` on, up to the next segment: these rules (count 0: only `action`). */
struct seccomp_segment {
    uint32_t start;
    const struct seccomp_rule *rules;
    size_t count;
    uint32_t action;
};

static void seccomp_emit_segment(struct seccomp_code *c, const struct seccomp_segment *s)
{
    const struct seccomp_rule *plain = NULL;

    for (size_t i = 0; i < s->count; i++) {
        if (s->rules[i].condition_count > 0)
            seccomp_emit_rule(c, &s->rules[i]);
        else if (plain == NULL)
            plain = &s->rules[i];
    }
    seccomp_emit_return(c, plain != NULL ? plain->action : s->action);
}

/* A binary search over segments [first, last]; the call's number is in the accumulator. Code is relative to itself, so it
 * may be moved. */
static void seccomp_emit_search(struct seccomp_code *c, const struct seccomp_segment *segments, size_t first, size_t last)
{
    if (first == last) {
        seccomp_emit_segment(c, &segments[first]);
        return;
    }
    size_t middle = first + (last - first + 1) / 2;
    size_t branch = seccomp_emit(c, BPF_JMP | BPF_JGE | BPF_K, segments[middle].start, 0, 0);
    seccomp_emit_search(c, segments, first, middle - 1);
    size_t length = c->n - branch - 1;
    if (length <= UINT8_MAX) {
        c->at[branch].jt = (uint8_t)length;
    } else {
        /* Too far for a conditional jump: "if not greater or equal, skip the long jump". */
        seccomp_emit(c, 0, 0, 0, 0);
        memmove(&c->at[branch + 2], &c->at[branch + 1], length * sizeof *c->at);
        c->at[branch].jf = 1;
        c->at[branch + 1] = (struct sock_filter){ .code = BPF_JMP | BPF_JA, .k = (uint32_t)length };
    }
    seccomp_emit_search(c, segments, middle, last);
}

static int seccomp_compare(const void *a, const void *b)
{
    const struct seccomp_rule *x = a, *y = b;

    if (x->arch != y->arch)
        return x->arch < y->arch ? -1 : 1;
    if (x->number != y->number)
        return x->number < y->number ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

/* The segments of one ABI. `out` has room for 2 * count + 2. */
static size_t seccomp_segments(const struct seccomp_rules *r, uint32_t arch, struct seccomp_segment *out)
{
    size_t n = 0, i = 0;
    bool any = false;
    uint32_t next = 0;
    struct seccomp_segment gap = { .action = r->default_action };

    while (i < r->count && r->rules[i].arch != arch)
        i++;
    while (i < r->count && r->rules[i].arch == arch) {
        const struct seccomp_rule *rule = &r->rules[i];
        struct seccomp_segment s = { .start = rule->number, .rules = rule };
        bool conditional = false;
        for (; i < r->count && r->rules[i].arch == arch && r->rules[i].number == rule->number; i++, s.count++)
            conditional = conditional || r->rules[i].condition_count > 0;
        s.action = conditional ? r->default_action : rule->action;
        if (!conditional)
            s.count = 0;
        if (!any || rule->number != next) {
            gap.start = any ? next : 0;
            if (rule->number != gap.start)
                out[n++] = gap;
        }
        /* Neighbours with the same simple answer are one segment. */
        if (n == 0 || conditional || out[n - 1].count > 0 || out[n - 1].action != s.action)
            out[n++] = s;
        next = rule->number + 1;
        any = true;
    }
    out[n] = gap;
    out[n].start = any ? next : 0;
    if (r->enosys_above && any)
        out[n].action = SECCOMP_RET_ERRNO | ENOSYS;
    return n + 1;
}

static void seccomp_emit_arch(struct seccomp_code *c, const struct seccomp_rules *r, uint32_t arch)
{
    cleanup_free struct seccomp_segment *segments = xcalloc(2 * r->count + 2, sizeof *segments);

    seccomp_emit_search(c, segments, 0, seccomp_segments(r, arch, segments) - 1);
}

static bool seccomp_has_arch(const struct seccomp_rules *r, uint32_t arch)
{
    for (size_t i = 0; i < r->arch_count; i++)
        if (r->arches[i] == arch)
            return true;
    return false;
}

bool seccomp_compile(struct seccomp_rules *r, struct buf *out, struct status *err)
{
    struct seccomp_code c = { NULL, 0, 0 };

    if (r->count > 0)
        qsort(r->rules, r->count, sizeof *r->rules, seccomp_compare);
    for (size_t i = 0; i < r->arch_count; i++) {
        if (r->arches[i] == SCMP_ARCH_X32) /* shares x86_64's token: below */
            continue;
        seccomp_emit_load(&c, offsetof(struct seccomp_data, arch));
        seccomp_emit(&c, BPF_JMP | BPF_JEQ | BPF_K, r->arches[i], 1, 0);
        size_t skip = seccomp_emit(&c, BPF_JMP | BPF_JA, 0, 0, 0);
        seccomp_emit_load(&c, offsetof(struct seccomp_data, nr));
        if (r->arches[i] == SCMP_ARCH_X86_64) {
            seccomp_emit(&c, BPF_JMP | BPF_JGE | BPF_K, SECCOMP_X32_BIT, 0, 1);
            size_t x32 = seccomp_emit(&c, BPF_JMP | BPF_JA, 0, 0, 0);
            seccomp_emit_arch(&c, r, SCMP_ARCH_X86_64);
            c.at[x32].k = (uint32_t)(c.n - x32 - 1);
            if (seccomp_has_arch(r, SCMP_ARCH_X32))
                seccomp_emit_arch(&c, r, SCMP_ARCH_X32);
            else
                seccomp_emit_return(&c, SECCOMP_RET_KILL_PROCESS);
        } else {
            seccomp_emit_arch(&c, r, r->arches[i]);
        }
        c.at[skip].k = (uint32_t)(c.n - skip - 1);
    }
    seccomp_emit_return(&c, SECCOMP_RET_KILL_PROCESS);
    bool fits = c.n <= BPF_MAXINSNS;
    if (fits)
        buf_append(out, c.at, c.n * sizeof *c.at);
    else
        status_set(err, STATUS_INVALID_ARGUMENT, "the seccomp profile makes %zu instructions; the kernel takes %d", c.n,
                   BPF_MAXINSNS);
    free(c.at);
    return fits;
}

#undef SECCOMP_X32_BIT
