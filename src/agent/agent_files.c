/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent_context.h"
#include "agent/agent_intake.h"
#include "agent/files_writer.h"
#include "io/file.h"
#include "rpc/decode.h"

/* A PutFiles call. The worker reads messages, each with its length before it. */
struct agent_files_put {
    struct agent_intake in;
    struct strmap written; /* volume -> version, owned: those of this call */
    bool skipping; /* the volume under way is there in this version */
};

char *agent_files_path(const struct agent *agent, const char *volume)
{
    cleanup_free char *root = xasprintf("%s/files", agent_work_dir(agent));

    return strmap_get(&agent->files.versions, volume) != NULL ? files_writer_path(root, volume) : NULL;
}

/* ---- in the worker ---- */

static bool agent_files_is_mounted(const char *path, const char *parent)
{
    struct stat st, up;

    return stat(path, &st) == 0 && stat(parent, &up) == 0 && st.st_dev != up.st_dev;
}

/* <job>/files, a file system in memory of our own mount namespace, with which it goes. */
static bool agent_files_make_root(const struct agent *agent, const char *root, struct status *err)
{
    cleanup_free char *lock_path = xasprintf("%s/files.lock", agent_work_dir(agent));
    cleanup_free char *options = xasprintf("mode=0700,size=%u", FILES_MEMORY_MAX);

    if (!dir_make(root, 0700, err))
        return false;
    cleanup_close int lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0 || flock(lock, LOCK_EX) < 0)
        return status_errno(err, "cannot lock %s", lock_path);
    if (!agent->own_mounts || agent_files_is_mounted(root, agent_work_dir(agent)))
        return true;
    if (mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, options) < 0)
        log_warn("files of volumes, secrets among them, lie on the job's disk: no file system in memory at %s: %s", root, strerror(errno));
    return true;
}

static bool agent_files_read(int fd, void *p, size_t n, bool *end, struct status *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = read(fd, (uint8_t *)p + done, n - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            *end = got == 0 && done == 0;
            return *end || status_set(err, STATUS_INTERNAL, "the files that arrive are cut short");
        }
        done += (size_t)got;
    }
    return true;
}

static bool agent_files_copy(struct agent_files_put *put, struct files_writer *w, struct status *err)
{
    cleanup_buf struct buf message = BUF_INIT;
    cleanup_arena struct arena arena = ARENA_INIT;
    uint32_t length;
    bool end = false;

    for (;;) {
        if (!agent_files_read(put->in.read_fd, &length, sizeof length, &end, err))
            return false;
        if (end)
            return files_writer_end(w, err);
        buf_clear(&message);
        if (!agent_files_read(put->in.read_fd, buf_reserve(&message, length), length, &end, err))
            return false;
        arena_reset(&arena);
        const ProtobufCMessage *request = rpc_decode(&interlink__agent__v1__put_files_request__descriptor, message.p, length, true,
                                                     &arena, err);
        if (request == NULL || !files_writer_take(w, (const void *)request, err))
            return false;
    }
}

static bool agent_files_work(struct agent_intake *in, struct buf *output, struct status *err)
{
    struct agent_files_put *put = (struct agent_files_put *)in;
    cleanup_free char *root = xasprintf("%s/files", agent_work_dir(in->agent));
    struct files_writer w;

    (void)output;
    if (!agent_files_make_root(in->agent, root, err))
        return false;
    files_writer_open(&w, root);
    bool ok = agent_files_copy(put, &w, err);
    files_writer_close(&w);
    return ok;
}

/* ---- on the loop ---- */

/* What is being written has no version until all is: "" when there is an older one. */
static bool agent_files_begin(struct agent_files_put *put, const Interlink__Agent__V1__PutFilesStart *start, struct status *err)
{
    struct agent *agent = put->in.agent;

    if (!files_writer_check(start, err))
        return false;
    const char *known = strmap_get(&agent->files.versions, start->volume);
    put->skipping = known != NULL && strcmp(known, start->version) == 0;
    if (put->skipping)
        return true;
    if (known == NULL && agent->files.versions.count + put->written.count >= AGENT_VOLUMES_MAX)
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "the pod has %d volumes already", AGENT_VOLUMES_MAX);
    if (known != NULL)
        free(strmap_put(&agent->files.versions, start->volume, xstrdup("")));
    free(strmap_put(&put->written, start->volume, xstrdup(start->version)));
    return true;
}

static bool agent_files_take(struct agent_intake *in, const ProtobufCMessage *message, struct buf *out, struct status *err)
{
    struct agent_files_put *put = (struct agent_files_put *)in;
    const Interlink__Agent__V1__PutFilesRequest *request = (const void *)message;

    if (request->start == NULL && !in->started)
        return status_set(err, STATUS_INVALID_ARGUMENT, "start: missing in the first message");
    if (request->start != NULL && !agent_files_begin(put, request->start, err))
        return false;
    if (put->skipping)
        return true;
    size_t n = protobuf_c_message_get_packed_size(message);
    uint32_t length = (uint32_t)n;
    buf_append(out, &length, sizeof length);
    protobuf_c_message_pack(message, buf_reserve(out, n));
    out->n += n;
    return true;
}

static void agent_files_done(struct agent_intake *in, struct rpc_call *call, struct buf *output)
{
    struct agent_files_put *put = (struct agent_files_put *)in;
    Interlink__Agent__V1__PutFilesResponse response = INTERLINK__AGENT__V1__PUT_FILES_RESPONSE__INIT;
    struct strmap_iter it = { 0 };

    (void)output;
    while (strmap_next(&put->written, &it))
        free(strmap_put(&in->agent->files.versions, it.key, xstrdup(it.value)));
    rpc_reply(call, &response.base);
}

static void agent_files_put_free(struct agent_intake *in)
{
    struct agent_files_put *put = (struct agent_files_put *)in;
    struct strmap_iter it = { 0 };

    while (strmap_next(&put->written, &it))
        free(it.value);
    strmap_free(&put->written);
}

void agent_files_put(struct agent *agent, struct rpc_call *call)
{
    static const struct agent_intake_ops ops = {
        .size = sizeof(struct agent_files_put),
        .take = agent_files_take,
        .work = agent_files_work,
        .done = agent_files_done,
        .free = agent_files_put_free,
        .first = "start",
    };

    agent_intake_start(agent, call, &ops);
}

void agent_files_report(const struct agent *agent, struct arena *arena, Interlink__Agent__V1__HelloResponse *out)
{
    struct strmap_iter it = { 0 };

    out->volumes = ARENA_ARRAY(arena, Interlink__Agent__V1__Volume *, agent->files.versions.count + 1);
    while (strmap_next(&agent->files.versions, &it)) {
        if (*(const char *)it.value == '\0')
            continue;
        Interlink__Agent__V1__Volume *volume = ARENA_NEW(arena, Interlink__Agent__V1__Volume);
        interlink__agent__v1__volume__init(volume);
        volume->name = (char *)(uintptr_t)it.key;
        volume->version = it.value;
        out->volumes[out->n_volumes++] = volume;
    }
}

void agent_files_free(struct agent *agent)
{
    struct strmap_iter it = { 0 };

    while (strmap_next(&agent->files.versions, &it))
        free(it.value);
    strmap_free(&agent->files.versions);
}

/* ---- the end ---- */

/* emptyDirs in memory are mounts: <job>/empty/NAME/dir. */
static void agent_files_unmount(const char *empty)
{
    DIR *dir = opendir(empty);
    struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        cleanup_free char *point = xasprintf("%s/%s/dir", empty, entry->d_name);
        if (entry->d_name[0] != '.')
            umount2(point, MNT_DETACH | UMOUNT_NOFOLLOW);
    }
    if (dir != NULL)
        closedir(dir);
}

bool agent_files_any(const struct agent *agent)
{
    static const char *const folders[] = { "files", "empty", "termination" };

    for (size_t i = 0; i < COUNT_OF(folders); i++) {
        cleanup_free char *path = xasprintf("%s/%s", agent_work_dir(agent), folders[i]);
        if (access(path, F_OK) == 0)
            return true;
    }
    return false;
}

bool agent_files_clear(const struct agent *agent, struct status *err)
{
    cleanup_free char *files = xasprintf("%s/files", agent_work_dir(agent)), *empty = xasprintf("%s/empty", agent_work_dir(agent));
    cleanup_free char *termination = xasprintf("%s/termination", agent_work_dir(agent)), *lock = xasprintf("%s/files.lock", agent_work_dir(agent));

    if (agent->own_mounts) {
        umount2(files, MNT_DETACH | UMOUNT_NOFOLLOW);
        agent_files_unmount(empty);
    }
    unlink(lock);
    return tree_remove(files, err) && tree_remove(termination, err) && tree_remove(empty, err);
}
