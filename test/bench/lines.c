/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lines COUNT [SECONDS]: after SECONDS, writes COUNT lines of 100 bytes, each beginning with its number in ten digits, as fast
 * as standard output takes them; then "the end". The lines are put together before the first write, 64 KiB at a time, and
 * only their numbers change, so that this program is not the slowest part of what it measures.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 100, DIGITS = 10, LINES = 655 };

static int write_all(const char *p, size_t n)
{
    while (n > 0) {
        ssize_t done = write(STDOUT_FILENO, p, n);
        if (done < 0)
            return -1;
        p += done;
        n -= (size_t)done;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static char block[LINE * LINES];
    long count = argc > 1 ? atol(argv[1]) : 0;

    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (char)('a' + i % LINE % 26);
    for (int i = 0; i < LINES; i++)
        block[i * LINE + LINE - 1] = '\n';
    if (argc > 2)
        sleep((unsigned)atoi(argv[2]));
    for (long line = 0; line < count;) {
        int lines = 0;
        for (; lines < LINES && line < count; lines++, line++) {
            char *digit = block + lines * LINE + DIGITS;
            for (long n = line; digit > block + lines * LINE; n /= 10)
                *--digit = (char)('0' + n % 10);
        }
        if (write_all(block, (size_t)lines * LINE) < 0)
            return 1;
    }
    return write_all("the end\n", 8) < 0;
}
