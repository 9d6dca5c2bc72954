/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/node_name.h"

#include <unistd.h>

#include "kube/kube.h"
#include "text/json.h"

bool node_name_read(struct str review, char out[NODE_NAME_SIZE], char user[NODE_NAME_SIZE])
{
    static const char prefix[] = "system:node:";
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status ignored = STATUS_INIT;
    const struct json *j = json_parse(&arena, review, &ignored);
    const char *name = json_string(json_get(j, "status", "userInfo", "username"), "");

    if (user != NULL)
        snprintf(user, NODE_NAME_SIZE, "%s", name);
    if (!str_starts(name, prefix) || !kube_name_valid(name + strlen(prefix)))
        return false;
    snprintf(out, NODE_NAME_SIZE, "%s", name + strlen(prefix));
    return true;
}

void node_name_of_host(char out[NODE_NAME_SIZE])
{
    memset(out, 0, NODE_NAME_SIZE);
    gethostname(out, NODE_NAME_SIZE - 1);
    for (char *p = out; *p != '\0'; p++)
        *p = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;
    if (!kube_name_valid(out))
        snprintf(out, NODE_NAME_SIZE, "localhost");
}
