/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/ctl.h"

#include "io/file.h"
#include "text/protojson.h"
#include "text/yaml.h"

#include <poll.h>
#include <regex.h>
#include <termios.h>
#include <unistd.h>

/* ---- files ---- */

const struct json *ctl_read_file(struct ctl *ctl, const char *path, struct status *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    const struct json *j;

    if (!file_read(path, CONFIG_FILE_MAX, &text, err))
        return NULL;
    struct str s = { (const char *)text.p, text.n };
    size_t at = 0;
    while (at < s.n && strchr(" \t\r\n", s.p[at]) != NULL && s.p[at] != '\0')
        at++;
    /* JSON is YAML, but its own reader's messages are better. */
    j = at < s.n && s.p[at] == '{' ? json_parse(&ctl->arena, s, err) : yaml_parse(&ctl->arena, s, err);
    if (j == NULL)
        status_prefix(err, "%s", path);
    return j;
}

/* crictl skips names that it does not know; so do we, but not in silence. Values of variables are plain text. */
static void *ctl_read_message(struct ctl *ctl, const char *path, const ProtobufCMessageDescriptor *descriptor,
                              struct status *err)
{
    const struct json *j = ctl_read_file(ctl, path, err);
    struct status strict = STATUS_INIT;

    if (j == NULL)
        return NULL;
    void *message = protojson_read(&ctl->arena, descriptor, j, PROTOJSON_BYTES_AS_TEXT, &strict);
    if (message != NULL)
        return message;
    message = protojson_read(&ctl->arena, descriptor, j, PROTOJSON_BYTES_AS_TEXT | PROTOJSON_IGNORE_UNKNOWN, err);
    if (message != NULL)
        ctl_warn(ctl, "%s: left out: %s", path, strict.message);
    else
        status_prefix(err, "%s", path);
    return message;
}

Runtime__V1__PodSandboxConfig *ctl_read_pod(struct ctl *ctl, const char *path, struct status *err)
{
    Runtime__V1__PodSandboxConfig *config = ctl_read_message(ctl, path, &runtime__v1__pod_sandbox_config__descriptor, err);
    char id[ID_LENGTH + 1], uid[UUID_LENGTH + 1];

    if (config == NULL)
        return NULL;
    if (config->metadata == NULL || *config->metadata->name == '\0' || *config->metadata->namespace_ == '\0') {
        status_set(err, STATUS_INVALID_ARGUMENT, "%s: a pod needs metadata with name and namespace", path);
        return NULL;
    }
    if (*config->metadata->uid == '\0') {
        random_id(id);
        uuid_of_id(id, uid);
        config->metadata->uid = arena_strdup(&ctl->arena, uid);
    }
    return config;
}

Runtime__V1__ContainerConfig *ctl_read_container(struct ctl *ctl, const char *path, struct status *err)
{
    Runtime__V1__ContainerConfig *config = ctl_read_message(ctl, path, &runtime__v1__container_config__descriptor, err);

    if (config == NULL)
        return NULL;
    if (config->metadata == NULL || *config->metadata->name == '\0') {
        status_set(err, STATUS_INVALID_ARGUMENT, "%s: a container needs metadata with a name", path);
        return NULL;
    }
    if (config->image == NULL || *config->image->image == '\0') {
        status_set(err, STATUS_INVALID_ARGUMENT, "%s: a container needs an image: \"image\": {\"image\": \"busybox\"}", path);
        return NULL;
    }
    if (*config->image->user_specified_image == '\0')
        config->image->user_specified_image = config->image->image;
    return config;
}

/* ---- credentials ---- */

/* A line is there (a terminal gives whole ones), or false: interrupted. */
static bool ctl_wait_input(struct ctl *ctl, struct status *err)
{
    struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };

    while (poll(&input, 1, 100) == 0)
        if (!ctl_turn(ctl, 0, err))
            return false;
    return true;
}

/* Without echo; from a pipe as it comes. */
static bool ctl_ask_password(struct ctl *ctl, char **out, struct status *err)
{
    struct termios before, silent;
    bool terminal = tcgetattr(STDIN_FILENO, &before) == 0;
    char line[1024];

    fputs("Enter Password:", stderr);
    if (terminal) {
        silent = before;
        silent.c_lflag &= ~(tcflag_t)ECHO;
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
    }
    bool waited = ctl_wait_input(ctl, err);
    bool ok = waited && fgets(line, sizeof line, stdin) != NULL;
    if (terminal)
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
    fputs("\n", stderr);
    if (!waited)
        return false;
    if (!ok)
        return status_set(err, STATUS_INVALID_ARGUMENT, "no password came on standard input");
    line[strcspn(line, "\r\n")] = '\0';
    *out = arena_strdup(&ctl->arena, line);
    return true;
}

bool ctl_read_auth(struct ctl *ctl, Runtime__V1__AuthConfig **out, struct status *err)
{
    const struct ctl_flags *f = &ctl->flags;
    Runtime__V1__AuthConfig *auth = ARENA_NEW(&ctl->arena, Runtime__V1__AuthConfig);

    *out = NULL;
    runtime__v1__auth_config__init(auth);
    if (*f->username != '\0') {
        auth->username = arena_strdup(&ctl->arena, f->username);
        *out = auth;
        return ctl_ask_password(ctl, &auth->password, err);
    }
    if (*f->creds != '\0' && *f->auth != '\0')
        return status_set(err, STATUS_INVALID_ARGUMENT, "--creds and --auth are both given: one is enough");
    if (*f->creds != '\0') {
        size_t n = strcspn(f->creds, ":");
        if (n == 0)
            return status_set(err, STATUS_INVALID_ARGUMENT, "--creds: the user name is empty: wanted USERNAME[:PASSWORD]");
        auth->username = arena_strndup(&ctl->arena, f->creds, n);
        auth->password = arena_strdup(&ctl->arena, f->creds + n + (f->creds[n] == ':'));
        *out = auth;
    }
    if (*f->auth != '\0') {
        auth->auth = arena_strdup(&ctl->arena, f->auth);
        *out = auth;
    }
    return true;
}

/* ---- labels and patterns ---- */

bool ctl_read_pairs(struct ctl *ctl, const struct option_list *words, const ProtobufCMessageDescriptor *entry,
                    size_t *count, void *entries, struct status *err)
{
    struct ctl_entry **list = ARENA_ARRAY(&ctl->arena, struct ctl_entry *, words->count + 1);

    for (size_t i = 0; i < words->count; i++) {
        const char *equals = strchr(words->items[i], '=');
        if (equals == NULL || strchr(equals + 1, '=') != NULL)
            return status_set(err, STATUS_INVALID_ARGUMENT, "\"%.128s\": wanted KEY=VALUE", words->items[i]);
        list[i] = arena_alloc(&ctl->arena, entry->sizeof_message);
        protobuf_c_message_init(entry, list[i]);
        list[i]->key = arena_strndup(&ctl->arena, words->items[i], (size_t)(equals - words->items[i]));
        list[i]->value = arena_strdup(&ctl->arena, equals + 1);
    }
    *count = words->count;
    memcpy(entries, &list, sizeof list);
    return true;
}

const char *ctl_pair(const void *entries, size_t count, const char *key, const char *fallback)
{
    const struct ctl_entry *const *list = entries;

    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i]->key, key) == 0)
            return list[i]->value;
    return fallback;
}

bool ctl_match(const char *pattern, const char *text, bool *matches, struct status *err)
{
    regex_t compiled;
    char why[128];

    *matches = true;
    if (*pattern == '\0')
        return true;
    int fault = regcomp(&compiled, pattern, REG_EXTENDED | REG_NOSUB);
    if (fault != 0) {
        regerror(fault, &compiled, why, sizeof why);
        return status_set(err, STATUS_INVALID_ARGUMENT, "\"%.128s\" is no regular expression: %s", pattern, why);
    }
    *matches = regexec(&compiled, text, 0, NULL, 0) == 0;
    regfree(&compiled);
    return true;
}
