/* SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"

#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

void random_bytes(void *p, size_t n)
{
    uint8_t *out = p;
    int fd = -1;

    while (n > 0) {
        ssize_t got = fd < 0 ? getrandom(out, n, 0) : read(fd, out, n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == ENOSYS && fd < 0) {
            fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
            if (fd >= 0)
                continue;
        }
        if (got <= 0)
            abort();
        out += got;
        n -= (size_t)got;
    }
    if (fd >= 0)
        close(fd);
}

void random_id(char out[ID_LENGTH + 1])
{
    uint8_t bytes[ID_LENGTH / 2];

    random_bytes(bytes, sizeof bytes);
    hex_encode(bytes, sizeof bytes, out);
}

void uuid_of_id(const char *id, char out[UUID_LENGTH + 1])
{
    static const char variant[] = "89ab";
    size_t from = 0;

    for (size_t to = 0; to < UUID_LENGTH; to++) {
        if (to == 8 || to == 13 || to == 18 || to == 23) {
            out[to] = '-';
            continue;
        }
        char c = id[from++];
        if (to == 14)
            c = '4';
        else if (to == 19)
            c = variant[(c <= '9' ? c - '0' : c - 'a' + 10) & 3];
        out[to] = c;
    }
    out[UUID_LENGTH] = '\0';
}
