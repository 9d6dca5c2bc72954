/* SPDX-License-Identifier: Apache-2.0 */
/* An image's /etc/passwd and /etc/group and its User, all hostile. Input: user, NUL, passwd, NUL, group. */
#include "agent/user.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int64_t groups[] = { 5, 6 };
    struct str parts[3] = { { "", 0 }, { "", 0 }, { "", 0 } };
    const char *p = (const char *)data;
    struct status err = STATUS_INIT;
    struct user user;

    for (size_t i = 0; i < 3 && size > 0; i++) {
        const char *end = memchr(p, '\0', size);
        size_t n = end == NULL || i == 2 ? size : (size_t)(end - p);
        parts[i] = (struct str){ p, n };
        size_t used = n + (n < size);
        p += used;
        size -= used;
    }
    cleanup_free char *name = xstrndup(parts[0].p, parts[0].n);
    struct user_request request = { .username = "", .image_user = name, .groups = groups, .group_count = 2 };
    if (user_resolve(&request, parts[1], parts[2], &user, &err)) {
        if (user.uid == UINT32_MAX || user.gid == UINT32_MAX || user.group_count < user.asked_count ||
            user.group_count > USER_GROUPS_MAX || user.home[0] != '/')
            abort();
    } else if (err.message[0] == '\0') {
        abort();
    }
    request.image_user = "";
    request.username = name;
    user_resolve(&request, parts[1], parts[2], &user, &err);
    return 0;
}
