/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/track.h"

#include "io/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* One line for each exec of a container without a mount namespace; far more than probes make in a job's life is cut. */
#define TRACK_FILE_MAX (4u << 20)
/* Larger environments are cut by the read and do not count. */
#define TRACK_ENVIRON_MAX (2u << 20)
#define TRACK_PIN "ns-"
/* linux/nsfs.h, NS_GET_MNTNS_ID; headers older than the kernel lack it. */
#define TRACK_NS_GET_MNTNS_ID _IOR(0xb7, 0x5, uint64_t)

/* Inode number of /proc/PID/ns/mnt; 0 when it cannot be read. */
static uint64_t track_namespace(const char *pid)
{
    char path[64];
    struct stat st;

    snprintf(path, sizeof path, "/proc/%.20s/ns/mnt", pid);
    return stat(path, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

/* Inode numbers of namespaces are used again; this number is not. 0 before Linux 6.11, and when it cannot be had. */
static uint64_t track_namespace_id(const char *pid)
{
    char path[64];
    uint64_t id = 0;

    snprintf(path, sizeof path, "/proc/%.20s/ns/mnt", pid);
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    /* C libraries do not agree on the type of ioctl's request. */
    return fd >= 0 && syscall(SYS_ioctl, fd, TRACK_NS_GET_MNTNS_ID, &id) == 0 ? id : 0;
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

/* Before Linux 6.11 only the inode number tells a namespace, so one that is remembered must not go, or its number would
 * come to stand for another container. Newer kernels may refuse this mount (their numbers are not in order of birth). */
void track_pin(const char *bundle, pid_t pid)
{
    char number[24], source[64];

    snprintf(number, sizeof number, pid > 0 ? "%d" : "self", (int)pid);
    uint64_t namespace = track_namespace(number);
    cleanup_free char *pin = xasprintf("%s/" TRACK_PIN "%" PRIu64, bundle, namespace);
    int fd = namespace != 0 ? open(pin, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400) : -1;
    if (fd < 0)
        return;
    close(fd);
    snprintf(source, sizeof source, "/proc/%s/ns/mnt", number);
    if (mount(source, pin, NULL, MS_BIND, NULL) < 0)
        unlink(pin);
}

void track_unpin(const char *bundle)
{
    DIR *dir = opendir(bundle);
    struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        cleanup_free char *pin = xasprintf("%s/%s", bundle, entry->d_name);
        if (!str_starts(entry->d_name, TRACK_PIN))
            continue;
        umount2(pin, MNT_DETACH);
        unlink(pin);
    }
    if (dir != NULL)
        closedir(dir);
}

/* Whether the process has our variable with this value; the strings of an environment end in zeros. */
static bool track_has_variable(const char *pid, const char *id)
{
    char path[64], wanted[sizeof TRACK_VARIABLE + 80];
    struct buf text cleanup_buf = BUF_INIT;
    struct status ignored;

    snprintf(path, sizeof path, "/proc/%.20s/environ", pid);
    int n = snprintf(wanted, sizeof wanted, TRACK_VARIABLE "=%.64s", id);
    return file_read(path, TRACK_ENVIRON_MAX, &text, &ignored) && text.n > 0 &&
           memmem(text.p, text.n, wanted, (size_t)n + 1) != NULL;
}

bool track_add(const char *bundle, pid_t pid, bool by_mount)
{
    cleanup_free char *path = xasprintf("%s/track", bundle);
    char line[64], number[24];
    struct status ignored;

    if (by_mount) {
        snprintf(number, sizeof number, pid > 0 ? "%d" : "self", (int)pid);
        uint64_t namespace = track_namespace(number);
        if (namespace == 0)
            return false;
        track_pin(bundle, pid);
        snprintf(line, sizeof line, "mount %" PRIu64 " %" PRIu64 "\n", namespace, track_namespace_id(number));
    } else {
        snprintf(line, sizeof line, "session %d 0\n", (int)(pid > 0 ? pid : getpid()));
    }
    cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd >= 0 && write_all(fd, line, strlen(line), &ignored);
}

static bool track_belongs(const char *text, const char *id, const char *pid)
{
    uint64_t namespace = track_namespace(pid), session = 0;

    while (*text != '\0') {
        char kind[16];
        uint64_t value, unique;
        if (sscanf(text, "%15s %" SCNu64 " %" SCNu64, kind, &value, &unique) != 3)
            return false;
        if (strcmp(kind, "mount") == 0 && namespace == value && (unique == 0 || track_namespace_id(pid) == unique))
            return true;
        if (strcmp(kind, "session") == 0 && session == 0) {
            session = track_session(pid);
            if (session != 0 && track_has_variable(pid, id))
                return true;
        }
        if (strcmp(kind, "session") == 0 && session == value)
            return true;
        text += strcspn(text, "\n");
        text += *text == '\n';
    }
    return false;
}

size_t track_each(const char *bundle, void (*visit)(void *arg, pid_t pid), void *arg)
{
    cleanup_free char *path = xasprintf("%s/track", bundle);
    struct buf text cleanup_buf = BUF_INIT;
    struct status ignored;
    const char *slash = strrchr(bundle, '/'), *id = slash != NULL ? slash + 1 : bundle;
    size_t count = 0;
    uint64_t pid;

    if (!file_read(path, TRACK_FILE_MAX, &text, &ignored))
        return 0;
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (!parse_u64(entry->d_name, INT32_MAX, &pid) || pid <= 1 || pid == (uint64_t)getpid() ||
            !track_belongs(buf_cstr(&text), id, entry->d_name))
            continue;
        count++;
        visit(arg, (pid_t)pid);
    }
    if (dir != NULL)
        closedir(dir);
    return count;
}

static void track_signal_one(void *arg, pid_t pid)
{
    const int *signal = arg;

    if (*signal != 0)
        kill(pid, *signal);
}

size_t track_signal(const char *bundle, int signal)
{
    return track_each(bundle, track_signal_one, &signal);
}

#undef TRACK_FILE_MAX
#undef TRACK_ENVIRON_MAX
#undef TRACK_ENVIRON_MAX
#undef TRACK_PIN
#undef TRACK_NS_GET_MNTNS_ID
