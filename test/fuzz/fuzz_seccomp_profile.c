/* SPDX-License-Identifier: Apache-2.0 */
/* A seccomp profile in JSON, to a program that must be fit for the kernel: forward jumps only, and every path returns. */
#include "agent/seccomp.h"

#include <linux/filter.h>

static void check(const struct sock_filter *program, size_t n)
{
    if (n == 0 || n > BPF_MAXINSNS || BPF_CLASS(program[n - 1].code) != BPF_RET)
        abort();
    for (size_t pc = 0; pc < n; pc++) {
        const struct sock_filter *i = &program[pc];
        if (BPF_CLASS(i->code) != BPF_JMP)
            continue;
        if (i->code == (BPF_JMP | BPF_JA) ? i->k >= n - pc - 1 : pc + 1 + i->jt >= n || pc + 1 + i->jf >= n)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seccomp_filter filter cleanup_seccomp_filter = SECCOMP_FILTER_INIT;
    struct status err = STATUS_INIT;

    if (seccomp_from_json((struct str){ (const char *)data, size }, &filter, &err))
        check((const struct sock_filter *)(const void *)filter.program.p, filter.program.n / sizeof(struct sock_filter));
    else if (err.message[0] == '\0')
        abort();
    return 0;
}
