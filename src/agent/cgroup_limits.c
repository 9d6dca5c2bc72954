/* SPDX-License-Identifier: Apache-2.0 */
/* Limits and device rules of one container's cgroup. Sources: the kernel's admin-guide/cgroup-v1, admin-guide/cgroup-v2.rst;
 * the conversions are those of the OCI runtimes. */
#include "agent/cgroup.h"

#include <ctype.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

bool cgroup_write(int dir_fd, const char *name, const char *text)
{
    cleanup_close int fd = openat(dir_fd, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    size_t n = strlen(text);

    return fd >= 0 && write(fd, text, n) == (ssize_t)n;
}

static bool cgroup_write_i64(int dir_fd, const char *name, int64_t value)
{
    char text[32];

    snprintf(text, sizeof text, "%" PRId64, value);
    return cgroup_write(dir_fd, name, text);
}

static void cgroup_note(struct buf *note, const char *field)
{
    /* The same field may fail in several hierarchies. */
    size_t n = strlen(field);
    const char *text = buf_cstr(note);
    for (const char *at = strstr(text, field); at != NULL; at = strstr(at + 1, field))
        if ((at == text || at[-1] == ' ') && (at[n] == '\0' || at[n] == ','))
            return;
    buf_printf(note, "%s%s", note->n > 0 ? ", " : "", field);
}

int64_t cgroup_weight(int64_t shares)
{
    if (shares < 2)
        shares = 2;
    if (shares > 262144)
        shares = 262144;
    return 1 + (shares - 2) * 9999 / 262142;
}

bool cgroup_page_size_ok(const char *size)
{
    size_t n = strspn(size, "0123456789");

    return n > 0 && n <= 6 && (strcmp(size + n, "KB") == 0 || strcmp(size + n, "MB") == 0 || strcmp(size + n, "GB") == 0);
}

static void cgroup_limit_memory_v1(int dir, const Runtime__V1__LinuxContainerResources *r, struct buf *note)
{
    if (r->memory_limit_in_bytes > 0 && !cgroup_write_i64(dir, "memory.limit_in_bytes", r->memory_limit_in_bytes))
        cgroup_note(note, "memory_limit_in_bytes");
    if (r->memory_swap_limit_in_bytes > 0 &&
        !cgroup_write_i64(dir, "memory.memsw.limit_in_bytes", r->memory_swap_limit_in_bytes) &&
        /* Without swap accounting there is no such file; a swap limit equal to the memory limit only forbids swap. */
        r->memory_swap_limit_in_bytes != r->memory_limit_in_bytes)
        cgroup_note(note, "memory_swap_limit_in_bytes");
}

static void cgroup_limit_memory_v2(int dir, const Runtime__V1__LinuxContainerResources *r, struct buf *note)
{
    if (r->memory_limit_in_bytes > 0 && !cgroup_write_i64(dir, "memory.max", r->memory_limit_in_bytes))
        cgroup_note(note, "memory_limit_in_bytes");
    if (r->memory_swap_limit_in_bytes > 0 && r->memory_limit_in_bytes > 0) {
        /* CRI counts memory and swap together, v2 swap alone. */
        int64_t swap = r->memory_swap_limit_in_bytes - r->memory_limit_in_bytes;
        if (!cgroup_write_i64(dir, "memory.swap.max", swap > 0 ? swap : 0) && swap > 0)
            cgroup_note(note, "memory_swap_limit_in_bytes");
    }
}

static void cgroup_limit_cpu_v1(int dir, const Runtime__V1__LinuxContainerResources *r, struct buf *note)
{
    if (r->cpu_shares > 0 && !cgroup_write_i64(dir, "cpu.shares", r->cpu_shares))
        cgroup_note(note, "cpu_shares");
    if (r->cpu_period > 0 && !cgroup_write_i64(dir, "cpu.cfs_period_us", r->cpu_period))
        cgroup_note(note, "cpu_period");
    if (r->cpu_quota != 0 && !cgroup_write_i64(dir, "cpu.cfs_quota_us", r->cpu_quota))
        cgroup_note(note, "cpu_quota");
}

static void cgroup_limit_cpu_v2(int dir, const Runtime__V1__LinuxContainerResources *r, struct buf *note)
{
    char text[64];

    if (r->cpu_shares > 0 && !cgroup_write_i64(dir, "cpu.weight", cgroup_weight(r->cpu_shares)))
        cgroup_note(note, "cpu_shares");
    if (r->cpu_quota == 0 && r->cpu_period <= 0)
        return;
    int64_t period = r->cpu_period > 0 ? r->cpu_period : 100000;
    if (r->cpu_quota > 0)
        snprintf(text, sizeof text, "%" PRId64 " %" PRId64, r->cpu_quota, period);
    else
        snprintf(text, sizeof text, "max %" PRId64, period);
    if (!cgroup_write(dir, "cpu.max", text) && r->cpu_quota > 0)
        cgroup_note(note, "cpu_quota");
}

static void cgroup_limit_hugetlb(int dir, const Runtime__V1__LinuxContainerResources *r, bool unified, struct buf *note)
{
    for (size_t i = 0; i < r->n_hugepage_limits; i++) {
        const Runtime__V1__HugepageLimit *l = r->hugepage_limits[i];
        char name[64];
        if (!cgroup_page_size_ok(l->page_size)) {
            cgroup_note(note, "hugepage_limits");
            continue;
        }
        snprintf(name, sizeof name, unified ? "hugetlb.%s.max" : "hugetlb.%s.limit_in_bytes", l->page_size);
        if (!cgroup_write_i64(dir, name, (int64_t)l->limit) && l->limit > 0)
            cgroup_note(note, "hugepage_limits");
    }
}

bool cgroup_unified_ok(const char *name)
{
    return strchr(name, '/') == NULL && !str_starts(name, "cgroup.") && name[0] != '.' && name[0] != '\0';
}

static void cgroup_limit_unified(int dir, const Runtime__V1__LinuxContainerResources *r, bool unified, struct buf *note)
{
    for (size_t i = 0; i < r->n_unified; i++) {
        const char *name = r->unified[i]->key;
        if (!unified && strcmp(name, CGROUP_PIDS_MAX) != 0)
            continue; /* noted once, by cgroup_create */
        if (!cgroup_unified_ok(name) || !cgroup_write(dir, name, r->unified[i]->value)) {
            char field[96];
            snprintf(field, sizeof field, "unified[%.64s]", name);
            cgroup_note(note, field);
        }
    }
}

void cgroup_write_limits(const struct cgroup_hierarchy *h, int dir_fd, const char *path UNUSED,
                         const Runtime__V1__LinuxContainerResources *r, struct buf *note)
{
    if (h->controllers & CGROUP_MEMORY)
        (h->unified ? cgroup_limit_memory_v2 : cgroup_limit_memory_v1)(dir_fd, r, note);
    if (h->controllers & CGROUP_CPU)
        (h->unified ? cgroup_limit_cpu_v2 : cgroup_limit_cpu_v1)(dir_fd, r, note);
    if (h->controllers & CGROUP_CPUSET) {
        if (*r->cpuset_cpus != '\0' && !cgroup_write(dir_fd, "cpuset.cpus", r->cpuset_cpus))
            cgroup_note(note, "cpuset_cpus");
        if (*r->cpuset_mems != '\0' && !cgroup_write(dir_fd, "cpuset.mems", r->cpuset_mems))
            cgroup_note(note, "cpuset_mems");
    }
    if (h->controllers & CGROUP_HUGETLB)
        cgroup_limit_hugetlb(dir_fd, r, h->unified, note);
    if (h->unified || (h->controllers & CGROUP_PIDS) != 0)
        cgroup_limit_unified(dir_fd, r, h->unified, note);
}

/* ---- device nodes ---- */

static bool cgroup_restrict_devices_v1(int dir_fd, const struct cgroup_device *devices, size_t count, struct status *err)
{
    if (!cgroup_write(dir_fd, "devices.deny", "a"))
        return status_errno(err, "cannot write devices.deny");
    for (size_t i = 0; i < count; i++) {
        const struct cgroup_device *d = &devices[i];
        char major[24] = "*", minor[24] = "*", rule[80];
        if (d->major >= 0)
            snprintf(major, sizeof major, "%" PRId64, d->major);
        if (d->minor >= 0)
            snprintf(minor, sizeof minor, "%" PRId64, d->minor);
        snprintf(rule, sizeof rule, "%c %s:%s %s%s%s", d->type, major, minor, d->read ? "r" : "", d->write ? "w" : "",
                 d->mknod ? "m" : "");
        if (!cgroup_write(dir_fd, "devices.allow", rule))
            return status_errno(err, "cannot write \"%s\" to devices.allow", rule);
    }
    return true;
}

#define CGROUP_INSN(c, d, s, o, i) ((struct bpf_insn){ .code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i) })
/* Instructions before the rules, the most for one rule, and after them. */
#define CGROUP_PROGRAM_HEAD 6
#define CGROUP_PROGRAM_RULE 7
#define CGROUP_PROGRAM_TAIL 2
#define CGROUP_PROGRAM_RULES_MAX 256

/* A BPF_PROG_TYPE_CGROUP_DEVICE program: 1 allows, 0 refuses. The context (struct bpf_cgroup_dev_ctx) has the access in
 * the upper and the type in the lower half of its first word, then major and minor. */
size_t cgroup_device_program(const struct cgroup_device *devices, size_t count, struct bpf_insn *out, size_t max)
{
    size_t n = 0;

    if (count > CGROUP_PROGRAM_RULES_MAX ||
        max < CGROUP_PROGRAM_HEAD + CGROUP_PROGRAM_TAIL + count * CGROUP_PROGRAM_RULE)
        return 0;
    out[n++] = CGROUP_INSN(BPF_LDX | BPF_W | BPF_MEM, BPF_REG_2, BPF_REG_1, 0, 0);
    out[n++] = CGROUP_INSN(BPF_ALU | BPF_MOV | BPF_X, BPF_REG_3, BPF_REG_2, 0, 0);
    out[n++] = CGROUP_INSN(BPF_ALU | BPF_AND | BPF_K, BPF_REG_2, 0, 0, 0xffff);
    out[n++] = CGROUP_INSN(BPF_ALU | BPF_RSH | BPF_K, BPF_REG_3, 0, 0, 16);
    out[n++] = CGROUP_INSN(BPF_LDX | BPF_W | BPF_MEM, BPF_REG_4, BPF_REG_1, 4, 0);
    out[n++] = CGROUP_INSN(BPF_LDX | BPF_W | BPF_MEM, BPF_REG_5, BPF_REG_1, 8, 0);
    for (size_t i = 0; i < count; i++) {
        const struct cgroup_device *d = &devices[i];
        int refused = 0;
        size_t jumps[4], jump_count = 0;
        if (!d->mknod)
            refused |= BPF_DEVCG_ACC_MKNOD;
        if (!d->read)
            refused |= BPF_DEVCG_ACC_READ;
        if (!d->write)
            refused |= BPF_DEVCG_ACC_WRITE;
        jumps[jump_count++] = n;
        out[n++] = CGROUP_INSN(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_2, 0, 0,
                               d->type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR);
        if (refused != 0) {
            jumps[jump_count++] = n;
            out[n++] = CGROUP_INSN(BPF_JMP | BPF_JSET | BPF_K, BPF_REG_3, 0, 0, refused);
        }
        if (d->major >= 0) {
            jumps[jump_count++] = n;
            out[n++] = CGROUP_INSN(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_4, 0, 0, (int)d->major);
        }
        if (d->minor >= 0) {
            jumps[jump_count++] = n;
            out[n++] = CGROUP_INSN(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_5, 0, 0, (int)d->minor);
        }
        out[n++] = CGROUP_INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 1);
        out[n++] = CGROUP_INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
        for (size_t k = 0; k < jump_count; k++)
            out[jumps[k]].off = (int16_t)(n - jumps[k] - 1);
    }
    out[n++] = CGROUP_INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 0);
    out[n++] = CGROUP_INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    return n;
}

static bool cgroup_restrict_devices_v2(int dir_fd, const struct cgroup_device *devices, size_t count, struct status *err)
{
    size_t max = CGROUP_PROGRAM_HEAD + CGROUP_PROGRAM_TAIL + count * CGROUP_PROGRAM_RULE;
    cleanup_free struct bpf_insn *program = xcalloc(max, sizeof *program);
    size_t n = cgroup_device_program(devices, count, program, max);
    /* BPF_PROG_ATTACH wants a descriptor that can be read, not O_PATH. */
    cleanup_close int group_fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (n == 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "devices: %zu are more than the %d that can be allowed", count,
                          CGROUP_PROGRAM_RULES_MAX);
    union bpf_attr load;
    memset(&load, 0, sizeof load);
    load.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    load.insns = (uint64_t)(uintptr_t)program;
    load.insn_cnt = (uint32_t)n;
    load.license = (uint64_t)(uintptr_t)"Apache-2.0";
    cleanup_close int program_fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
    if (program_fd < 0)
        return status_errno(err, "cannot load the program that restricts devices");
    union bpf_attr attach;
    memset(&attach, 0, sizeof attach);
    attach.target_fd = (uint32_t)group_fd;
    attach.attach_bpf_fd = (uint32_t)program_fd;
    attach.attach_type = BPF_CGROUP_DEVICE;
    attach.attach_flags = BPF_F_ALLOW_MULTI;
    if (group_fd < 0 || syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach) < 0)
        return status_errno(err, "cannot attach the program that restricts devices");
    return true;
}

bool cgroup_restrict_devices(const struct cgroup_hierarchy *h, int dir_fd, const struct cgroup_device *devices, size_t count,
                             struct status *err)
{
    return (h->unified ? cgroup_restrict_devices_v2 : cgroup_restrict_devices_v1)(dir_fd, devices, count, err);
}

#undef CGROUP_INSN
#undef CGROUP_PROGRAM_HEAD
#undef CGROUP_PROGRAM_RULE
#undef CGROUP_PROGRAM_TAIL
#undef CGROUP_PROGRAM_RULES_MAX
