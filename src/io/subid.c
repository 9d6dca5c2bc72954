/* SPDX-License-Identifier: Apache-2.0 */
#include "io/userns.h"

#include "io/child.h"
#include "io/file.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of a machine with very many users. */
#define SUBID_FILE_MAX (4u << 20)
/* What a program has to say: an error, or some ranges. */
#define SUBID_SAID_MAX 4096u
/* Where these programs are when PATH does not say. */
#define SUBID_DEFAULT_DIR "/usr/bin"

#define SUBID_HOW "give this user a range in /etc/subuid and in /etc/subgid and install newuidmap (Debian: uidmap)"

/* ---- ranges ---- */

/* Whether a line's first field is the user: by number, or by one of its names. */
static bool subid_is_user(const char *field, size_t n, const char *const names[], size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (names[i] != NULL && strlen(names[i]) == n && memcmp(field, names[i], n) == 0)
            return true;
    return false;
}

/* Inside it begins behind those that are there. Nonsense is left out. */
static void subid_add(struct userns_ids *out, uint32_t first, uint32_t count)
{
    uint32_t inside = userns_ids_count(out);

    if (out->count < USERNS_RANGES_MAX && count > 0 && first > 0 && count <= UINT32_MAX - first && count <= UINT32_MAX - 1 - inside)
        out->ranges[out->count++] = (struct userns_range){ inside, first, count };
}

/* Lines are "user:first:count" (subuid(5)). */
static void subid_parse(const char *text, const char *const names[], size_t count, struct userns_ids *out)
{
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n"), line += *line == '\n') {
        uint32_t first, length;
        size_t n = strcspn(line, ":\n");
        if (line[n] == ':' && subid_is_user(line, n, names, count) &&
            sscanf(line + n, ":%" SCNu32 ":%" SCNu32, &first, &length) == 2)
            subid_add(out, first, length);
    }
}

/* Where a program is: in PATH, as execvp(3) would look. NULL: nowhere. The caller frees. */
static char *subid_program(const char *name)
{
    const char *path = getenv("PATH");

    for (const char *p = path != NULL ? path : ""; *p != '\0';) {
        size_t n = strcspn(p, ":");
        char *full = xasprintf("%.*s/%s", (int)n, p, name);
        if (n > 0 && access(full, X_OK) == 0)
            return full;
        free(full);
        p += n + (p[n] == ':');
    }
    char *full = xasprintf(SUBID_DEFAULT_DIR "/%s", name);
    if (access(full, X_OK) == 0)
        return full;
    free(full);
    return NULL;
}

/* ---- programs ---- */

/* Runs a program to its end. What it says is appended to `said`, and is the error's text when it fails. */
static bool subid_wait(const char *path, char *const argv[], struct buf *said, struct status *err)
{
    int wait_status = 0;

    if (!child_capture(path, argv, true, SUBID_SAID_MAX, said, &wait_status, err))
        return false;
    if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0)
        return true;
    while (said->n > 0 && said->p[said->n - 1] == '\n')
        said->n--;
    return status_set(err, STATUS_FAILED_PRECONDITION, "%s refused: %.300s", path, said->n > 0 ? buf_cstr(said) : "it gave no reason");
}

/* ---- where ranges are said ---- */

/* Lines are "0: user first count". */
static void subid_parse_answer(const char *text, struct userns_ids *out)
{
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n"), line += *line == '\n') {
        uint32_t first, count;
        size_t n = strcspn(line, " \n");
        if (line[n] == ' ' && sscanf(line + n, " %*[^ \n] %" SCNu32 " %" SCNu32, &first, &count) == 2)
            subid_add(out, first, count);
    }
}

/* Sites keep ranges in a directory service, too (nsswitch.conf(5), "subid"): then a program asks it. */
static void subid_ask(bool groups, const char *name, struct userns_ids *out)
{
    struct buf text cleanup_buf = BUF_INIT, switches cleanup_buf = BUF_INIT;
    struct status ignored;
    cleanup_free char *program = NULL;

    if (!file_read("/etc/nsswitch.conf", SUBID_FILE_MAX, &switches, &ignored) || strstr(buf_cstr(&switches), "subid:") == NULL ||
        (program = subid_program("getsubids")) == NULL)
        return;
    char *const argv[] = { program, (char *)(uintptr_t)(groups ? "-g" : name), (char *)(uintptr_t)(groups ? name : NULL), NULL };
    if (subid_wait(program, argv, &text, &ignored))
        subid_parse_answer(buf_cstr(&text), out);
}

/* `groups`: of /etc/subgid. */
static bool subid_read(bool groups, uid_t uid, struct userns_ids *out)
{
    struct buf text cleanup_buf = BUF_INIT;
    struct status ignored;
    char number[16];
    const struct passwd *entry = getpwuid(uid);
    /* A static program knows no users but those of /etc/passwd, and sites keep them elsewhere. A wrong name does no harm:
     * newuidmap has the last word. */
    const char *const names[] = { number, entry != NULL ? entry->pw_name : NULL, getenv("LOGNAME"), getenv("USER") };

    snprintf(number, sizeof number, "%u", (unsigned)uid);
    if (file_read(groups ? "/etc/subgid" : "/etc/subuid", SUBID_FILE_MAX, &text, &ignored))
        subid_parse(buf_cstr(&text), names, COUNT_OF(names), out);
    for (size_t i = 1; i < COUNT_OF(names) && out->count == 1; i++)
        if (names[i] != NULL && *names[i] != '\0') {
            subid_ask(groups, names[i], out);
            break;
        }
    return out->count > 1;
}

bool subid_map(uid_t uid, gid_t gid, struct userns_map *out, struct status *err)
{
    cleanup_free char *newuidmap = subid_program("newuidmap"), *newgidmap = subid_program("newgidmap");

    out->uids = (struct userns_ids){ .ranges = { { 0, uid, 1 } }, .count = 1 };
    out->gids = (struct userns_ids){ .ranges = { { 0, gid, 1 } }, .count = 1 };
    if (!subid_read(false, uid, &out->uids))
        return status_set(err, STATUS_FAILED_PRECONDITION, "user %u has no range in /etc/subuid: " SUBID_HOW, (unsigned)uid);
    if (!subid_read(true, uid, &out->gids))
        return status_set(err, STATUS_FAILED_PRECONDITION, "user %u has no range in /etc/subgid: " SUBID_HOW, (unsigned)uid);
    if (newuidmap == NULL || newgidmap == NULL)
        return status_set(err, STATUS_FAILED_PRECONDITION, "%s is missing: " SUBID_HOW, newuidmap == NULL ? "newuidmap" : "newgidmap");
    return true;
}

/* ---- maps ---- */

bool subid_run(const char *program, pid_t pid, const struct userns_ids *ids, struct status *err)
{
    struct arena arena cleanup_arena = ARENA_INIT;
    cleanup_free char *path = subid_program(program);
    struct buf said cleanup_buf = BUF_INIT;
    char *argv[3 + 3 * USERNS_RANGES_MAX];
    size_t n = 0;

    if (path == NULL)
        return status_set(err, STATUS_FAILED_PRECONDITION, "%s is missing", program);
    argv[n++] = path;
    argv[n++] = arena_printf(&arena, "%d", (int)pid);
    for (size_t i = 0; i < ids->count; i++) {
        argv[n++] = arena_printf(&arena, "%u", ids->ranges[i].inside);
        argv[n++] = arena_printf(&arena, "%u", ids->ranges[i].outside);
        argv[n++] = arena_printf(&arena, "%u", ids->ranges[i].count);
    }
    argv[n] = NULL;
    return subid_wait(path, argv, &said, err);
}

/* ---- in such a namespace ---- */

bool subid_enter(struct status *err)
{
    struct userns_map map;

    if (!subid_map(geteuid(), getegid(), &map, err))
        return false;
    cleanup_close int fd = userns_new(&map, err);
    return fd >= 0 && userns_join(fd, err);
}

bool subid_tree_remove(const char *path, struct status *err)
{
    struct status result;
    int fds[2];

    if (tree_remove(path, err))
        return true;
    if (geteuid() == 0 || err->code != STATUS_PERMISSION_DENIED || pipe2(fds, O_CLOEXEC) < 0)
        return false;
    pid_t pid = fork();
    if (pid == 0) {
        struct status ignored;
        child_reset_signals();
        memset(&result, 0, sizeof result);
        if (subid_enter(&result))
            tree_remove(path, &result);
        _exit(write_all(fds[1], &result, sizeof result, &ignored) ? 0 : 1);
    }
    close(fds[1]);
    bool told = pid > 0 && read(fds[0], &result, sizeof result) == (ssize_t)sizeof result;
    close(fds[0]);
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    if (told && result.code == STATUS_OK)
        return true;
    /* The first failure names the file; that of a namespace which cannot be had is no news. */
    if (told && result.code != STATUS_FAILED_PRECONDITION)
        *err = result;
    return false;
}

#undef SUBID_FILE_MAX
#undef SUBID_SAID_MAX
#undef SUBID_DEFAULT_DIR
#undef SUBID_HOW
