/* SPDX-License-Identifier: Apache-2.0 */
#include "node/cni_call.h"

#include <arpa/inet.h>
#include <sys/wait.h>

/* Where system programs are (iptables, nft), should our own PATH not say. */
#define CNI_CALL_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
/* The specification's error codes that say more than that it failed. */
#define CNI_CALL_VERSION 1
#define CNI_CALL_LATER 11
#define CNI_CALL_UNAVAILABLE 50
#define CNI_CALL_LIMITED 51

const char *cni_command_name(enum cni_command command)
{
    static const char *const names[] = { "ADD", "DEL", "CHECK", "STATUS", "GC" };

    return names[command];
}

/* ---- what it gets ---- */

static bool cni_call_is_ours(const char *key)
{
    static const char *const keys[] = { "name", "cniVersion", "prevResult", "runtimeConfig" };

    for (size_t i = 0; i < COUNT_OF(keys); i++)
        if (strcmp(keys[i], key) == 0)
            return true;
    return str_starts(key, "cni.dev/");
}

static void cni_call_write_runtime_config(struct json_writer *w, const struct cni_plugin *plugin, const struct json *capabilities)
{
    bool any = false;

    for (JSON_EACH(c, capabilities)) {
        if (!cni_plugin_can(plugin, c->key))
            continue;
        if (!any)
            json_write_member_object(w, "runtimeConfig");
        any = true;
        json_write_key(w, c->key);
        json_write_tree(w, c);
    }
    if (any)
        json_write_end(w);
}

/* "capabilities" stays in, against the letter of the specification: libcni, which the others use, leaves it, too. */
void cni_request(const struct cni_network *network, const struct cni_plugin *plugin, const struct cni_attachment *attachment,
                 const struct json *previous, const struct json *valid, struct buf *out)
{
    struct json_writer w;

    json_writer_init(&w, out, 0);
    json_write_object(&w);
    json_write_member_string(&w, "cniVersion", network->version);
    json_write_member_string(&w, "name", network->name);
    for (JSON_EACH(member, plugin->config)) {
        if (cni_call_is_ours(member->key))
            continue;
        json_write_key(&w, member->key);
        json_write_tree(&w, member);
    }
    if (attachment != NULL)
        cni_call_write_runtime_config(&w, plugin, attachment->capabilities);
    if (previous != NULL) {
        json_write_key(&w, "prevResult");
        json_write_tree(&w, previous);
    }
    if (valid != NULL) {
        json_write_key(&w, "cni.dev/valid-attachments");
        json_write_tree(&w, valid);
    }
    json_write_end(&w);
}

const char **cni_environment(struct arena *arena, enum cni_command command, const struct cni_attachment *attachment,
                             const char *path)
{
    const char **env = ARENA_ARRAY(arena, const char *, 9);
    const char *home = getenv("HOME"), *programs = getenv("PATH");
    size_t n = 0;

    env[n++] = programs != NULL && *programs != '\0' ? arena_printf(arena, "PATH=%s:" CNI_CALL_PATH, programs) : "PATH=" CNI_CALL_PATH;
    if (home != NULL)
        env[n++] = arena_printf(arena, "HOME=%s", home);
    env[n++] = arena_printf(arena, "CNI_COMMAND=%s", cni_command_name(command));
    env[n++] = arena_printf(arena, "CNI_PATH=%s", path);
    if (attachment == NULL)
        return env;
    env[n++] = arena_printf(arena, "CNI_CONTAINERID=%s", attachment->container_id);
    env[n++] = arena_printf(arena, "CNI_NETNS=%s", attachment->netns);
    env[n++] = arena_printf(arena, "CNI_IFNAME=%s", attachment->interface);
    env[n++] = arena_printf(arena, "CNI_ARGS=%s", attachment->arguments);
    return env;
}

/* ---- what it says ---- */

/* "10.1.2.3/16" as the kernel writes it, without the prefix; NULL: it is none. */
static const char *cni_call_address(struct arena *arena, const char *text)
{
    const char *slash = strchr(text, '/');
    char address[INET6_ADDRSTRLEN], out[INET6_ADDRSTRLEN];
    uint8_t bytes[16];
    uint64_t prefix;
    int family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET;

    if (slash == NULL || (size_t)(slash - text) >= sizeof address)
        return NULL;
    snprintf(address, sizeof address, "%.*s", (int)(slash - text), text);
    if (!parse_u64(slash + 1, family == AF_INET6 ? 128 : 32, &prefix) || inet_pton(family, address, bytes) != 1)
        return NULL;
    return arena_strdup(arena, inet_ntop(family, bytes, out, sizeof out));
}

/* An address says which interface it belongs to by a number; without one it is the pod's. */
static bool cni_call_is_pods(const struct json *ip, const struct json *interfaces, const char *interface, bool *out,
                             struct status *err)
{
    const struct json *index = json_member(ip, "interface");
    int64_t number = -1;

    *out = true;
    if (!json_read_i64(ip, "interface", -1, INT32_MAX, &number, err))
        return false;
    if (number < 0)
        return true;
    const struct json *found = json_at(interfaces, (size_t)number);
    if (found == NULL)
        return json_fail(index, err, "there is no such interface");
    *out = strcmp(json_string(json_member(found, "name"), ""), interface) == 0;
    return true;
}

static bool cni_call_read_address(struct arena *arena, const struct json *ip, const struct json *interfaces, const char *interface,
                                  struct cni_result *out, struct status *err)
{
    const char *text = "";
    bool is_pods;

    if (!json_want(ip, JSON_OBJECT, err) || !json_read_string(ip, "address", &text, err) ||
        !cni_call_is_pods(ip, interfaces, interface, &is_pods, err))
        return false;
    const char *address = cni_call_address(arena, text);
    if (address == NULL)
        return json_fail(ip, err, "\"%.60s\" is no address with its prefix, such as 10.1.2.3/24", text);
    if (!is_pods)
        return true;
    if (out->address_count == CNI_ADDRESSES_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "ips: more than %d addresses", CNI_ADDRESSES_MAX);
    out->addresses[out->address_count++] = address;
    return true;
}

/* The first IPv4 address to the front; the others keep their order. */
static void cni_call_sort(struct cni_result *r)
{
    for (size_t i = 0; i < r->address_count; i++) {
        const char *first = r->addresses[i];
        if (strchr(first, ':') != NULL)
            continue;
        memmove(r->addresses + 1, r->addresses, i * sizeof *r->addresses);
        r->addresses[0] = first;
        return;
    }
}

bool cni_result_parse(struct arena *arena, struct str text, const char *interface, struct cni_result *out, struct status *err)
{
    const struct json *interfaces = NULL, *ips = NULL, *j = json_parse(arena, text, err);

    *out = (struct cni_result){ .json = j };
    if (j == NULL || !json_want(j, JSON_OBJECT, err) || !cni_check_depth(j, err) ||
        !json_read_node(j, "interfaces", JSON_ARRAY, &interfaces, err) || !json_read_node(j, "ips", JSON_ARRAY, &ips, err))
        return false;
    for (JSON_EACH(ip, ips))
        if (!cni_call_read_address(arena, ip, interfaces, interface, out, err))
            return false;
    cni_call_sort(out);
    return true;
}

/* Printable, on one line, its end when it is long. */
static void cni_call_add_words(struct buf *out, struct str text)
{
    while (text.n > 0 && strchr(" \t\r\n", text.p[text.n - 1]) != NULL && text.p[text.n - 1] != '\0')
        text.n--;
    if (text.n > STATUS_MESSAGE_MAX / 2) {
        text.p += text.n - STATUS_MESSAGE_MAX / 2;
        text.n = STATUS_MESSAGE_MAX / 2;
        /* Not from the middle of a character. */
        while (text.n > 0 && ((unsigned char)text.p[0] & 0xc0) == 0x80) {
            text.p++;
            text.n--;
        }
        buf_append_str(out, "...");
    }
    for (size_t i = 0; i < text.n;) {
        size_t length = utf8_sequence(text.p + i, text.n - i);
        unsigned char c = (unsigned char)text.p[i];
        if (length == 0)
            buf_append_byte(out, '?');
        else if (length == 1 && (c < 0x20 || c == 0x7f))
            buf_append_byte(out, ' ');
        else
            buf_append(out, text.p + i, length);
        i += length > 0 ? length : 1;
    }
}

static enum status_code cni_call_code(int64_t number)
{
    switch (number) {
    case CNI_CALL_VERSION:
        return STATUS_FAILED_PRECONDITION;
    case CNI_CALL_LATER:
    case CNI_CALL_UNAVAILABLE:
    case CNI_CALL_LIMITED:
        return STATUS_UNAVAILABLE;
    default:
        return STATUS_INTERNAL;
    }
}

bool cni_failure(const char *type, enum cni_command command, int wait_status, struct str output, struct str errors,
                 struct status *err)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf words = BUF_INIT;
    struct status ignored;
    const struct json *j = json_parse(&arena, output, &ignored);
    struct str message = json_bytes(json_member(j, "msg")), details = json_bytes(json_member(j, "details"));
    int64_t code = json_i64(json_member(j, "code"), 0);

    if (json_is(j, JSON_OBJECT) && (message.n > 0 || details.n > 0)) {
        cni_call_add_words(&words, message);
        if (details.n > 0) {
            buf_append_str(&words, words.n > 0 ? "; " : "");
            cni_call_add_words(&words, details);
        }
        return status_set(err, cni_call_code(code), "CNI plugin %s failed (%s): %s", type, cni_command_name(command), buf_cstr(&words));
    }
    /* No error in due form: whatever it said last. */
    cni_call_add_words(&words, errors.n > 0 ? errors : output);
    if (WIFSIGNALED(wait_status))
        return status_set(err, STATUS_INTERNAL, "CNI plugin %s (%s) was ended by signal %d (%s)%s%s", type, cni_command_name(command),
                          WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)), words.n > 0 ? ": " : "", buf_cstr(&words));
    return status_set(err, STATUS_INTERNAL, "CNI plugin %s (%s) ended with status %d%s%s", type, cni_command_name(command),
                      WEXITSTATUS(wait_status), words.n > 0 ? ": " : " and no word", buf_cstr(&words));
}

#undef CNI_CALL_PATH
#undef CNI_CALL_VERSION
#undef CNI_CALL_LATER
#undef CNI_CALL_UNAVAILABLE
#undef CNI_CALL_LIMITED
