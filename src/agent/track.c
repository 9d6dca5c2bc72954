/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/track.h"

#include "io/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

/* One line for each exec of a container without a mount namespace; far more than probes make in a job's life is cut. */
#define TRACK_FILE_MAX (4u << 20)

/* Inode number of /proc/PID/ns/mnt; 0 when it cannot be read. */
static uint64_t track_namespace(const char *pid)
{
    char path[64];
    struct stat st;

    snprintf(path, sizeof path, "/proc/%.20s/ns/mnt", pid);
    return stat(path, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

/* The sixth field of /proc/PID/stat, behind the command's name, which may hold anything; 0 when it cannot be read or the
 * process is dead already. */
static uint64_t track_session(const char *pid)
{
    char path[64];
    struct buf text cleanup_buf = BUF_INIT;
    struct status ignored;
    long session = 0;
    char state = 'X';

    snprintf(path, sizeof path, "/proc/%.20s/stat", pid);
    if (!file_read(path, 4096, &text, &ignored))
        return 0;
    const char *end = strrchr(buf_cstr(&text), ')');
    if (end == NULL || sscanf(end + 1, " %c %*d %*d %ld", &state, &session) != 2 || state == 'Z' || state == 'X')
        return 0;
    return session > 0 ? (uint64_t)session : 0;
}

bool track_add(const char *bundle, pid_t pid, bool by_mount)
{
    cleanup_free char *path = xasprintf("%s/track", bundle);
    char line[48], number[24];
    struct status ignored;

    if (by_mount) {
        snprintf(number, sizeof number, pid > 0 ? "%d" : "self", (int)pid);
        uint64_t namespace = track_namespace(number);
        if (namespace == 0)
            return false;
        snprintf(line, sizeof line, "mount %" PRIu64 "\n", namespace);
    } else {
        snprintf(line, sizeof line, "session %d\n", (int)(pid > 0 ? pid : getpid()));
    }
    cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd >= 0 && write_all(fd, line, strlen(line), &ignored);
}

static bool track_belongs(const char *text, const char *pid)
{
    uint64_t namespace = track_namespace(pid), session = 0;

    while (*text != '\0') {
        char kind[16];
        uint64_t value;
        if (sscanf(text, "%15s %" SCNu64, kind, &value) != 2)
            return false;
        if (strcmp(kind, "mount") == 0 && namespace == value)
            return true;
        if (strcmp(kind, "session") == 0) {
            session = session != 0 ? session : track_session(pid);
            if (session == value)
                return true;
        }
        text += strcspn(text, "\n");
        text += *text == '\n';
    }
    return false;
}

size_t track_signal(const char *bundle, int signal)
{
    cleanup_free char *path = xasprintf("%s/track", bundle);
    struct buf text cleanup_buf = BUF_INIT;
    struct status ignored;
    size_t count = 0;
    uint64_t pid;

    if (!file_read(path, TRACK_FILE_MAX, &text, &ignored))
        return 0;
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (!parse_u64(entry->d_name, INT32_MAX, &pid) || pid <= 1 || pid == (uint64_t)getpid() ||
            !track_belongs(buf_cstr(&text), entry->d_name))
            continue;
        count++;
        if (signal != 0)
            kill((pid_t)pid, signal);
    }
    if (dir != NULL)
        closedir(dir);
    return count;
}

#undef TRACK_FILE_MAX
