/* SPDX-License-Identifier: Apache-2.0 */
/* System call filters: what they answer, by running them, compared with libseccomp's own compiler. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/seccomp.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/socket.h>

/* Classic BPF, the part of it that seccomp filters may use. */
static uint32_t run(const struct sock_filter *program, size_t n, const struct seccomp_data *data)
{
    uint32_t a = 0, x = 0, mem[16] = { 0 };

    for (size_t pc = 0; pc < n; pc++) {
        const struct sock_filter *i = &program[pc];
        switch (i->code) {
        case BPF_LD | BPF_W | BPF_ABS:
            assert_true(i->k + 4 <= sizeof *data);
            memcpy(&a, (const char *)data + i->k, 4);
            break;
        case BPF_JMP | BPF_JA:
            pc += i->k;
            break;
        case BPF_JMP | BPF_JEQ | BPF_K:
            pc += a == i->k ? i->jt : i->jf;
            break;
        case BPF_JMP | BPF_JGT | BPF_K:
            pc += a > i->k ? i->jt : i->jf;
            break;
        case BPF_JMP | BPF_JGE | BPF_K:
            pc += a >= i->k ? i->jt : i->jf;
            break;
        case BPF_ALU | BPF_AND | BPF_K:
            a &= i->k;
            break;
        case BPF_ST:
            mem[i->k & 15] = a;
            break;
        case BPF_LD | BPF_MEM:
            a = mem[i->k & 15];
            break;
        case BPF_RET | BPF_K:
            return i->k;
        default:
            fail_msg("unknown instruction %#x at %zu (x %u)", i->code, pc, x);
        }
    }
    fail_msg("the program ran off its end");
    return 0;
}

static uint32_t ask(const struct seccomp_filter *f, uint32_t arch, uint32_t nr, uint64_t a0)
{
    struct seccomp_data data = { .nr = (int)nr, .arch = arch, .args = { a0, 0x1234, 0, 0, 0, 0 } };

    return run((const struct sock_filter *)(const void *)f->program.p, f->program.n / sizeof(struct sock_filter), &data);
}

static uint32_t ask_name(const struct seccomp_filter *f, const char *name, uint64_t a0)
{
    int nr = seccomp_syscall_resolve_name(name);

    assert_true(nr >= 0);
    return ask(f, seccomp_arch_native(), (uint32_t)nr, a0);
}

#define DEFAULT_CAPS 0xa80425fbull /* those of an ordinary container */

static void test_default(void **state)
{
    struct seccomp_filter f cleanup_seccomp_filter = SECCOMP_FILTER_INIT, admin cleanup_seccomp_filter = SECCOMP_FILTER_INIT;
    struct status err = STATUS_INIT;
    const uint32_t eperm = SECCOMP_RET_ERRNO | EPERM, enosys = SECCOMP_RET_ERRNO | ENOSYS;

    (void)state;
    assert_true(seccomp_default(DEFAULT_CAPS, &f, &err));
    assert_true(seccomp_default(DEFAULT_CAPS | 1ull << 21, &admin, &err));
    assert_int_equal(ask_name(&f, "read", 0), SECCOMP_RET_ALLOW);
    assert_int_equal(ask_name(&f, "openat2", 0), SECCOMP_RET_ALLOW);
    assert_int_equal(ask_name(&f, "mount", 0), eperm);
    assert_int_equal(ask_name(&f, "unshare", 0), eperm);
    assert_int_equal(ask_name(&f, "keyctl", 0), eperm);
    assert_int_equal(ask_name(&f, "bpf", 0), eperm);
    assert_int_equal(ask_name(&f, "io_uring_setup", 0), eperm);
    assert_int_equal(ask_name(&f, "clone3", 0), enosys);
    assert_int_equal(ask_name(&f, "clone", CLONE_VM | CLONE_THREAD), SECCOMP_RET_ALLOW);
    assert_int_equal(ask_name(&f, "clone", CLONE_NEWUSER | SCMP_ARCH_X86), eperm);
    assert_int_equal(ask_name(&f, "clone", CLONE_NEWNET), eperm);
    assert_int_equal(ask_name(&f, "socket", AF_INET), SECCOMP_RET_ALLOW);
    assert_int_equal(ask_name(&f, "socket", AF_ALG), eperm);
    assert_int_equal(ask_name(&f, "socket", AF_VSOCK), eperm);
    assert_int_equal(ask_name(&f, "socket", AF_ALG + 1), SECCOMP_RET_ALLOW);
    assert_int_equal(ask_name(&f, "socket", AF_XDP), SECCOMP_RET_ALLOW);
    assert_int_equal(ask_name(&f, "socket", 1ull << 32 | AF_INET), SECCOMP_RET_ALLOW);
    assert_int_equal(ask_name(&f, "socket", 1ull << 32 | AF_ALG), eperm); /* the kernel takes an int */
    assert_int_equal(ask_name(&f, "personality", 0), SECCOMP_RET_ALLOW);
    assert_int_equal(ask_name(&f, "personality", 0xffffffff), SECCOMP_RET_ALLOW);
    assert_int_equal(ask_name(&f, "personality", 0x40000), eperm);
    assert_int_equal(ask_name(&f, "personality", 0x1ffffffff), eperm);
    assert_int_equal(ask(&f, seccomp_arch_native(), 100000, 0), enosys);
    assert_int_equal(ask_name(&admin, "mount", 0), SECCOMP_RET_ALLOW);
    assert_int_equal(ask_name(&admin, "clone3", 0), SECCOMP_RET_ALLOW);
    assert_int_equal(ask_name(&admin, "clone", CLONE_NEWUSER), SECCOMP_RET_ALLOW);
    assert_int_equal(ask(&f, 0xc00000f3u, 1, 0), 0x80000000u); /* a RISC-V call: no ABI of this machine */
#ifdef __x86_64__
    assert_int_equal(ask(&f, SCMP_ARCH_X86, 3, 0), SECCOMP_RET_ALLOW);   /* read */
    assert_int_equal(ask(&f, SCMP_ARCH_X86, 359, 2), SECCOMP_RET_ALLOW); /* socket, direct */
    assert_int_equal(ask(&f, SCMP_ARCH_X86, 359, 38), eperm);
    assert_int_equal(ask(&f, SCMP_ARCH_X86, 361, 0), SECCOMP_RET_ALLOW); /* bind, direct */
    assert_int_equal(ask(&f, SCMP_ARCH_X86, 102, 1), SECCOMP_RET_ALLOW); /* socketcall */
    assert_int_equal(ask(&f, SCMP_ARCH_X86, 395, 0), SECCOMP_RET_ALLOW); /* shmget, direct */
    assert_int_equal(ask(&f, SCMP_ARCH_X86, 21, 0), eperm);              /* mount */
    assert_int_equal(ask(&f, SCMP_ARCH_X86_64, 0x40000000u, 0), SECCOMP_RET_ALLOW); /* read by x32 */
    assert_int_equal(ask(&f, SCMP_ARCH_X86_64, 0x40000000u | 165, 0), eperm);       /* mount by x32 */
#endif
}

/* Every number of every ABI, against libseccomp's compiler given the same names. */
static void test_same_as_libseccomp(void **state)
{
    static const char profile[] =
        "{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"defaultErrnoRet\":1,"
        "\"architectures\":[\"SCMP_ARCH_X86_64\",\"SCMP_ARCH_X86\",\"SCMP_ARCH_X32\"],\"syscalls\":["
        "{\"names\":[\"read\",\"write\",\"openat\",\"exit_group\",\"mmap\",\"bind\",\"semget\",\"no_such_call\"],"
        "\"action\":\"SCMP_ACT_ALLOW\"},"
        "{\"names\":[\"ioctl\"],\"action\":\"SCMP_ACT_ALLOW\",\"args\":[{\"index\":0,\"value\":7,\"op\":\"SCMP_CMP_GT\"}]},"
        "{\"names\":[\"fcntl\"],\"action\":\"SCMP_ACT_KILL_PROCESS\",\"args\":["
        "{\"index\":0,\"value\":240,\"valueTwo\":16,\"op\":\"SCMP_CMP_MASKED_EQ\"},"
        "{\"index\":1,\"value\":4660,\"op\":\"SCMP_CMP_EQ\"}]},"
        "{\"names\":[\"kill\"],\"action\":\"SCMP_ACT_TRAP\",\"args\":[{\"index\":0,\"value\":4294967297,\"op\":\"SCMP_CMP_LE\"}]},"
        "{\"names\":[\"lseek\"],\"action\":\"SCMP_ACT_ALLOW\",\"args\":[{\"index\":0,\"value\":3,\"op\":\"SCMP_CMP_NE\"}]},"
        "{\"names\":[\"dup2\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":38}]}";
    static const uint64_t values[] = { 0, 1, 3, 7, 8, 16, 0x1f, 0x20, 0xffffffff, 0x100000000, 0x100000001, 0x100000002, UINT64_MAX };
    struct seccomp_filter f cleanup_seccomp_filter = SECCOMP_FILTER_INIT, theirs cleanup_seccomp_filter = SECCOMP_FILTER_INIT;
    struct status err = STATUS_INIT;

    (void)state;
    assert_true(seccomp_from_json(STR(profile), &f, &err));
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (seccomp_arch_native() == SCMP_ARCH_X86_64) {
        seccomp_arch_add(ctx, SCMP_ARCH_X86);
        seccomp_arch_add(ctx, SCMP_ARCH_X32);
    }
    static const char *const plain[] = { "read", "write", "openat", "exit_group", "mmap", "bind", "semget" };
    for (size_t i = 0; i < COUNT_OF(plain); i++)
        assert_int_equal(seccomp_rule_add(ctx, SCMP_ACT_ALLOW, seccomp_syscall_resolve_name(plain[i]), 0), 0);
    seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A0(SCMP_CMP_GT, 7));
    seccomp_rule_add(ctx, SCMP_ACT_KILL_PROCESS, SCMP_SYS(fcntl), 2, SCMP_A0(SCMP_CMP_MASKED_EQ, 240, 16), SCMP_A1(SCMP_CMP_EQ, 4660));
    seccomp_rule_add(ctx, SCMP_ACT_TRAP, SCMP_SYS(kill), 1, SCMP_A0(SCMP_CMP_LE, 4294967297));
    seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(lseek), 1, SCMP_A0(SCMP_CMP_NE, 3));
    seccomp_rule_add(ctx, SCMP_ACT_ERRNO(38), SCMP_SYS(dup2), 0);
    size_t length = 0;
    seccomp_export_bpf_mem(ctx, NULL, &length);
    assert_int_equal(seccomp_export_bpf_mem(ctx, buf_reserve(&theirs.program, length), &length), 0);
    theirs.program.n = length;
    seccomp_release(ctx);
    uint32_t arches[] = { seccomp_arch_native(), SCMP_ARCH_X86, SCMP_ARCH_X86_64 };
    for (size_t a = 0; a < COUNT_OF(arches); a++)
        for (uint32_t nr = 0; nr < 1200; nr++)
            for (size_t v = 0; v < COUNT_OF(values); v++) {
                uint32_t number = a == 2 ? nr | 0x40000000u : nr;
                /* A 32-bit program has no upper halves. */
                uint64_t value = a == 1 ? (uint32_t)values[v] : values[v];
                uint32_t want = ask(&theirs, arches[a], number, value), got = ask(&f, arches[a], number, value);
                if (want != got)
                    fail_msg("arch %#x call %#x argument %#llx: %#x, libseccomp says %#x", arches[a], number,
                             (unsigned long long)value, got, want);
            }
}

static void test_bad_profiles(void **state)
{
    static const struct {
        const char *json, *says;
    } bad[] = {
        { "", "" },
        { "[]", "object" },
        { "{}", "defaultAction" },
        { "{\"defaultAction\":\"SCMP_ACT_NOTIFY\"}", "SCMP_ACT_NOTIFY" },
        { "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"read\"]}]}", "no action" },
        { "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"read\"],\"action\":\"SCMP_ACT_ALLOW\","
          "\"args\":[{\"index\":6,\"value\":1,\"op\":\"SCMP_CMP_EQ\"}]}]}", "index" },
        { "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"read\"],\"action\":\"SCMP_ACT_ALLOW\","
          "\"args\":[{\"index\":0,\"value\":1,\"op\":\"EQ\"}]}]}", "comparison" },
        { "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"flags\":[\"SECCOMP_FILTER_FLAG_NEW_LISTENER\"]}", "flag" },
        { "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"listenerPath\":\"/x\"}", "listenerPath" },
        { "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"read\"],\"action\":\"SCMP_ACT_ALLOW\","
          "\"includes\":{\"caps\":[\"CAP_SYS_ADMIN\"]}}]}", "includes" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct seccomp_filter f cleanup_seccomp_filter = SECCOMP_FILTER_INIT;
        struct status err = STATUS_INIT;
        assert_false(seccomp_from_json(str_of(bad[i].json), &f, &err));
        /* Valid, but not for us. */
        bool notify = strstr(bad[i].json, "NOTIFY") != NULL || strstr(bad[i].json, "listener") != NULL;
        assert_int_equal(err.code, notify ? STATUS_FAILED_PRECONDITION : STATUS_INVALID_ARGUMENT);
        assert_non_null(strstr(err.message, bad[i].says));
    }
}

static void test_default_allow(void **state)
{
    static const char profile[] = "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"flags\":[\"SECCOMP_FILTER_FLAG_LOG\"],\"syscalls\":["
                                  "{\"names\":[\"mkdir\",\"mkdirat\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":13,"
                                  "\"includes\":{},\"excludes\":{}}]}";
    struct seccomp_filter f cleanup_seccomp_filter = SECCOMP_FILTER_INIT;
    struct status err = STATUS_INIT;

    (void)state;
    assert_true(seccomp_from_json(STR(profile), &f, &err));
    assert_int_equal(f.flags, 2);
    assert_int_equal(ask_name(&f, "mkdirat", 0), SECCOMP_RET_ERRNO | EACCES);
    assert_int_equal(ask_name(&f, "mount", 0), SECCOMP_RET_ALLOW);
    assert_int_equal(ask(&f, seccomp_arch_native(), 100000, 0), SECCOMP_RET_ALLOW);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default),
        cmocka_unit_test(test_same_as_libseccomp),
        cmocka_unit_test(test_bad_profiles),
        cmocka_unit_test(test_default_allow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
