/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_join.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "io/file.h"

#define AGENT_JOIN_SOCKET "join.sock"
#define AGENT_JOIN_LINK ".interlink-"

/* Of this machine alone, whatever file system the job's folder is on. */
static char *agent_join_link(const char *sandbox_id)
{
    return xasprintf("/tmp/" AGENT_JOIN_LINK "%s", sandbox_id);
}

/* Agents that were killed leave their links: those of this user that lead to no job's folder any more go. */
static void agent_join_sweep(void)
{
    DIR *dir = opendir("/tmp");
    const struct dirent *entry;
    struct stat st, target;

    while (dir != NULL && (entry = readdir(dir)) != NULL)
        if (str_starts(entry->d_name, AGENT_JOIN_LINK) && fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISLNK(st.st_mode) && st.st_uid == geteuid() && fstatat(dirfd(dir), entry->d_name, &target, 0) < 0 && errno == ENOENT)
            unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir != NULL)
        closedir(dir);
}

/* The socket by way of the folder's descriptor. */
static void agent_join_address(int dir_fd, char *path, size_t n)
{
    snprintf(path, n, "/proc/self/fd/%d/" AGENT_JOIN_SOCKET, dir_fd);
}

/* ---- the agent's side ---- */

static void agent_join_on_accept(void *arg, int fd)
{
    struct agent_join *join = arg;
    struct status err = STATUS_INIT;
    struct stream *stream = stream_of_fd(join->loop, fd, &err);

    if (stream != NULL)
        join->on_stream(join->arg, stream);
    else
        log_warn("a connection of the node's command cannot be taken: %s", err.message);
}

bool agent_join_open(struct agent_join *join, struct loop *loop, const char *job_dir, const char *sandbox_id,
                     void (*on_stream)(void *arg, struct stream *stream), void *arg, struct status *err)
{
    struct address address = { .is_unix = true };

    *join = (struct agent_join){ .loop = loop, .on_stream = on_stream, .arg = arg };
    join->dir_fd = open(job_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (join->dir_fd < 0)
        return status_errno(err, "cannot open %s", job_dir);
    agent_join_address(join->dir_fd, address.path, sizeof address.path);
    if (!listener_open(loop, &join->listener, &address, 0600, agent_join_on_accept, join, NULL, err)) {
        close(join->dir_fd);
        join->dir_fd = -1;
        return status_prefix(err, "%s", job_dir);
    }
    agent_join_sweep();
    join->link = agent_join_link(sandbox_id);
    unlink(join->link);
    if (symlink(job_dir, join->link) < 0) {
        log_warn("`interlink-cri join` needs the job's folder on its command line, since there is no %s: %s", join->link, strerror(errno));
        free(join->link);
        join->link = NULL;
    }
    return true;
}

void agent_join_close(struct agent_join *join)
{
    listener_close(&join->listener);
    if (join->link != NULL)
        unlink(join->link);
    free(join->link);
    join->link = NULL;
    if (join->loop != NULL && join->dir_fd >= 0)
        close(join->dir_fd);
    join->loop = NULL;
}

/* ---- the command ---- */

/* The job's folder. A link of somebody else's leads nowhere. */
static bool agent_join_find(const char *pod, char folder[PATH_MAX], struct status *err)
{
    struct stat st;

    if (*pod == '/' && strlen(pod) < PATH_MAX) {
        strcpy(folder, pod);
        return true;
    }
    if (strlen(pod) != ID_LENGTH || strspn(pod, "0123456789abcdef") != ID_LENGTH)
        return status_set(err, STATUS_INVALID_ARGUMENT, "\"%.80s\" is neither a pod's id (%d lower-case hex digits) nor the absolute path "
                          "of its job's folder", pod, ID_LENGTH);
    cleanup_free char *link = agent_join_link(pod);
    ssize_t n = readlink(link, folder, PATH_MAX - 1);
    if (n < 0)
        return errno == ENOENT ? status_set(err, STATUS_NOT_FOUND, "there is no agent of this pod on this machine (no %s)", link)
                               : status_errno(err, "%s", link);
    folder[n] = '\0';
    if (lstat(link, &st) < 0 || st.st_uid != geteuid())
        return status_set(err, STATUS_PERMISSION_DENIED, "%s is not this user's", link);
    return true;
}

static int agent_join_connect(const char *pod, struct status *err)
{
    char folder[PATH_MAX], path[64];

    if (!agent_join_find(pod, folder, err))
        return -1;
    cleanup_close int dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        status_errno(err, "cannot open %s", folder);
        return -1;
    }
    agent_join_address(dir, path, sizeof path);
    int fd = socket_connect_unix(path, err);
    if (fd < 0) {
        struct status why = *err;
        status_set(err, STATUS_UNAVAILABLE, "no agent listens in %.300s: %.200s", folder, why.message);
    }
    return fd;
}

/* The agent may be just about to start. */
static int agent_join_wait(const char *pod, struct status *err)
{
    int64_t until = clock_mono_ms() + AGENT_JOIN_WAIT_MS;

    for (;;) {
        int fd = agent_join_connect(pod, err);
        bool later = err->code == STATUS_NOT_FOUND || err->code == STATUS_UNAVAILABLE;
        if (fd >= 0 || !later || clock_mono_ms() > until)
            return fd;
        nanosleep(&(struct timespec){ 0, 200 * 1000000L }, NULL);
    }
}

/* One way: at most one block is under way. */
struct agent_join_way {
    int from, to;
    size_t begin, end;
    bool over; /* no more comes */
    char block[AGENT_JOIN_BLOCK];
};

/* False: this way is broken. */
static bool agent_join_move(struct agent_join_way *w, short readable, short writable)
{
    if (readable && w->begin == w->end && !w->over) {
        ssize_t n = read(w->from, w->block, sizeof w->block);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        w->over = n == 0;
        w->begin = 0;
        w->end = n > 0 ? (size_t)n : 0;
        writable = 1; /* most often there is room */
    }
    if (writable && w->begin < w->end) {
        ssize_t n = write(w->to, w->block + w->begin, w->end - w->begin);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        w->begin += n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* Until the agent has ended, or the node is gone: with one way alone a connection is of no use. */
static void agent_join_carry(int socket)
{
    static struct agent_join_way in, out;
    struct agent_join_way *ways[2] = { &in, &out };

    in = (struct agent_join_way){ .from = STDIN_FILENO, .to = socket };
    out = (struct agent_join_way){ .from = socket, .to = STDOUT_FILENO };
    fd_set_nonblocking(STDIN_FILENO, true);
    fd_set_nonblocking(STDOUT_FILENO, true);
    fd_set_nonblocking(socket, true);
    for (;;) {
        struct pollfd fds[4];
        for (size_t i = 0; i < 2; i++) {
            bool full = ways[i]->begin < ways[i]->end;
            fds[2 * i] = (struct pollfd){ full ? -1 : ways[i]->from, POLLIN, 0 };
            fds[2 * i + 1] = (struct pollfd){ full ? ways[i]->to : -1, POLLOUT, 0 };
        }
        if (poll(fds, COUNT_OF(fds), -1) < 0 && errno != EINTR)
            return;
        for (size_t i = 0; i < 2; i++) {
            if (!agent_join_move(ways[i], fds[2 * i].revents, fds[2 * i + 1].revents) ||
                (ways[i]->over && ways[i]->begin == ways[i]->end))
                return;
        }
    }
}

int agent_join_main(int argc, char **argv)
{
    struct status err = STATUS_INIT;

    if (argc != 2 || strcmp(argv[1], "--help") == 0) {
        fprintf(argc == 2 ? stdout : stderr,
                "Usage: interlink-cri join POD\n\n"
                "Connects standard input and output to the agent of a pod that runs on this machine, under the same user. POD is the\n"
                "pod's id or the absolute path of its job's folder. Run by serve (Dial of a handler), not by hand.\n");
        return argc == 2 ? 0 : 2;
    }
    signal(SIGPIPE, SIG_IGN);
    int fd = agent_join_wait(argv[1], &err);
    if (fd < 0) {
        fprintf(stderr, "interlink-cri join: %s\n", err.message);
        return 1;
    }
    agent_join_carry(fd);
    close(fd);
    return 0;
}

#undef AGENT_JOIN_SOCKET
#undef AGENT_JOIN_LINK
