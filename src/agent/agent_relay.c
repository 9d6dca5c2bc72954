/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_relay.h"

#include <unistd.h>

#include "io/file.h"
#include "io/socket.h"

#define AGENT_RELAY_SEPARATORS ", \t\r\n"

/* The list's item at *at, moving on; false at the end. */
static bool agent_relay_item(const char **at, char item[AGENT_RELAY_ADDRESS_MAX + 1])
{
    *at += strspn(*at, AGENT_RELAY_SEPARATORS);
    size_t n = strcspn(*at, AGENT_RELAY_SEPARATORS);
    snprintf(item, AGENT_RELAY_ADDRESS_MAX + 1, "%.*s", (int)(n < AGENT_RELAY_ADDRESS_MAX ? n : AGENT_RELAY_ADDRESS_MAX), *at);
    *at += n;
    return n > 0;
}

bool agent_relay_check(const char *addresses, struct status *err)
{
    char item[AGENT_RELAY_ADDRESS_MAX + 1];
    struct address address;

    while (agent_relay_item(&addresses, item))
        if (!address_parse(item, &address, err))
            return false;
    return true;
}

static char *agent_relay_path(const char *job_dir)
{
    return xasprintf("%s/relay", job_dir);
}

/* The file's list; false: there is none that can be used. */
static bool agent_relay_read(const struct agent_relay *relay, struct buf *out)
{
    cleanup_free char *path = agent_relay_path(relay->job_dir);
    char item[AGENT_RELAY_ADDRESS_MAX + 1];
    struct status err = STATUS_INIT;

    if (access(path, F_OK) < 0)
        return false;
    if (!file_read(path, AGENT_RELAY_FILE_MAX, out, &err) || !agent_relay_check(buf_cstr(out), &err)) {
        log_warn("%s: %s", path, err.message);
        return false;
    }
    const char *at = buf_cstr(out);
    return agent_relay_item(&at, item);
}

const char *agent_relay_next(struct agent_relay *relay)
{
    cleanup_buf struct buf text = BUF_INIT;
    const char *list = agent_relay_read(relay, &text) ? buf_cstr(&text) : relay->given;
    char item[AGENT_RELAY_ADDRESS_MAX + 1], first[AGENT_RELAY_ADDRESS_MAX + 1] = "";
    const char *at = list;
    size_t count = 0;

    free(relay->current);
    relay->current = NULL;
    while (relay->current == NULL && agent_relay_item(&at, item)) {
        if (count == 0)
            strcpy(first, item);
        if (count++ == relay->turn)
            relay->current = xstrdup(item);
    }
    if (relay->current == NULL) { /* the turn is over, or the list has become shorter */
        relay->turn = 0;
        relay->current = xstrdup(first);
    }
    relay->turn++;
    return relay->current;
}

void agent_relay_learn(const struct agent_relay *relay, const char *addresses)
{
    cleanup_free char *path = agent_relay_path(relay->job_dir);
    cleanup_buf struct buf had = BUF_INIT;
    struct status err = STATUS_INIT, ignored = STATUS_INIT;

    bool kept = access(path, F_OK) == 0 && file_read(path, AGENT_RELAY_FILE_MAX, &had, &ignored);
    if (*addresses == '\0' || strcmp(kept ? buf_cstr(&had) : relay->given, addresses) == 0)
        return;
    if (!agent_relay_check(addresses, &err) || !file_replace(path, addresses, strlen(addresses), 0600, &err))
        log_warn("the node says that it is at %.200s from now on, which is not kept: %s", addresses, err.message);
}

void agent_relay_free(struct agent_relay *relay)
{
    free(relay->given);
    free(relay->current);
}

#undef AGENT_RELAY_SEPARATORS
