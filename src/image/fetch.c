/* SPDX-License-Identifier: Apache-2.0 */
#include "image/fetch.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Another job's progress is looked at this often. */
#define FETCH_WAIT_MS 50
/* Hashed in one go of what an earlier try has left. */
#define FETCH_SLICE (1u << 20)

static void fetch_on_timer(void *arg);

int fetch_lock(const char *path, bool *none)
{
    struct stat there, ours;

    *none = false;
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
            return -1;
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
            int number = errno;
            close(fd);
            *none = number == ENOSYS || number == EOPNOTSUPP || number == ENOLCK || number == EINVAL;
            errno = number;
            return -1;
        }
        if (stat(path, &there) == 0 && fstat(fd, &ours) == 0 && there.st_ino == ours.st_ino && there.st_dev == ours.st_dev)
            return fd;
        close(fd); /* it was moved away while we waited */
    }
}

static void fetch_close(struct fetch *f)
{
    if (f->fd < 0)
        return;
    /* A child of ours may still hold a copy of the descriptor. */
    flock(f->fd, LOCK_UN);
    close(f->fd);
    f->fd = -1;
}

void fetch_stop(struct fetch *f)
{
    if (f->loop == NULL)
        return;
    registry_cancel(f->call);
    f->call = NULL;
    timer_stop(&f->timer);
    fetch_close(f);
    free(f->blob_path);
    free(f->part_path);
    f->blob_path = f->part_path = NULL;
    f->loop = NULL;
}

static void fetch_finish(struct fetch *f, const struct status *err)
{
    void (*on_done)(void *arg, const struct status *err) = f->on_done;

    fetch_close(f);
    on_done(f->arg, err);
}

static bool fetch_is_there(const struct fetch *f)
{
    struct stat st;

    return stat(f->blob_path, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == f->size;
}

static bool fetch_restart(struct fetch *f, struct status *err)
{
    f->position = 0;
    digester_init(&f->digester);
    if (ftruncate(f->fd, 0) == 0 && lseek(f->fd, 0, SEEK_SET) == 0)
        return true;
    return status_errno(err, "cannot empty %s", f->part_path);
}

/* ---- the registry's calls ---- */

static uint64_t fetch_offset(void *arg)
{
    const struct fetch *f = arg;

    return f->position;
}

static bool fetch_on_start(void *arg, uint64_t offset, struct status *err)
{
    struct fetch *f = arg;

    return offset == f->position || fetch_restart(f, err);
}

static bool fetch_on_body(void *arg, struct str piece, struct status *err)
{
    struct fetch *f = arg;
    const char *p = piece.p;
    size_t n = piece.n;

    if (n > f->size - f->position)
        return status_set(err, STATUS_DATA_LOSS, "a blob is longer than the %" PRIu64 " bytes that the manifest says", f->size);
    while (n > 0) {
        ssize_t done = pwrite(f->fd, p, n, (off_t)f->position);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return status_errno(err, "cannot write %s", f->part_path);
        digester_update(&f->digester, p, (size_t)done);
        f->position += (uint64_t)done;
        p += done;
        n -= (size_t)done;
    }
    return true;
}

static bool fetch_verify(void *arg, struct status *err)
{
    struct fetch *f = arg;
    struct digest got = digester_value(&f->digester);
    char want[DIGEST_TEXT_SIZE], text[DIGEST_TEXT_SIZE];
    uint64_t position = f->position;
    struct status ignored;

    if (position == f->size && digest_equal(&got, &f->digest))
        return true;
    digest_text(&f->digest, want);
    digest_text(&got, text);
    fetch_restart(f, &ignored);
    if (position != f->size)
        return status_set(err, STATUS_DATA_LOSS, "the blob %s that it sent has %" PRIu64 " bytes instead of %" PRIu64, want,
                          position, f->size);
    return status_set(err, STATUS_DATA_LOSS, "the blob %s that it sent is damaged: its digest is %s", want, text);
}

static void fetch_place(struct fetch *f)
{
    struct status err = STATUS_INIT;

    /* What an earlier try left may have been longer. */
    if (ftruncate(f->fd, (off_t)f->size) == 0 && rename(f->part_path, f->blob_path) == 0) {
        fetch_finish(f, NULL);
        return;
    }
    status_errno(&err, "cannot put the blob %s in place", f->blob_path);
    fetch_finish(f, &err);
}

static void fetch_on_done(void *arg, const struct registry_answer *answer, const struct status *err)
{
    struct fetch *f = arg;

    f->call = NULL;
    if (answer == NULL)
        fetch_finish(f, err);
    else
        fetch_place(f);
}

static void fetch_load(struct fetch *f)
{
    char name[DIGEST_TEXT_SIZE];
    struct status err;

    /* All of it may have come before the try ended. */
    if (f->position == f->size && fetch_verify(f, &err)) {
        fetch_place(f);
        return;
    }
    digest_text(&f->digest, name);
    f->call = registry_call(f->registry, &(struct registry_get){
        .kind = "blobs",
        .name = name,
        .size_max = f->size > 0 ? f->size : 1,
        .offset = fetch_offset,
        .on_start = fetch_on_start,
        .on_body = fetch_on_body,
        .verify = fetch_verify,
        .on_done = fetch_on_done,
        .arg = f,
    });
}

/* ---- what is there already ---- */

/* What an earlier try has left is hashed piece by piece, with turns of the loop between. */
static void fetch_hash(void *arg)
{
    struct fetch *f = arg;
    cleanup_free uint8_t *piece = xmalloc(FETCH_SLICE);
    uint64_t left = f->size - f->position;
    ssize_t n = left == 0 ? 0 : pread(f->fd, piece, left < FETCH_SLICE ? (size_t)left : FETCH_SLICE, (off_t)f->position);

    if (n <= 0) {
        fetch_load(f);
        return;
    }
    digester_update(&f->digester, piece, (size_t)n);
    f->position += (uint64_t)n;
    timer_start(f->loop, &f->timer, 0, fetch_hash, f);
}

/* Takes the lock, or looks how far the one who has it is. */
static void fetch_on_timer(void *arg)
{
    struct fetch *f = arg;
    struct status err = STATUS_INIT;
    struct stat st;
    bool none;

    if (fetch_is_there(f)) {
        f->position = f->size;
        fetch_finish(f, NULL);
        return;
    }
    f->fd = fetch_lock(f->part_path, &none);
    if (f->fd < 0 && none && !f->alone) {
        uint8_t dice[4];
        char suffix[2 * sizeof dice + 1];
        random_bytes(dice, sizeof dice);
        hex_encode(dice, sizeof dice, suffix);
        char *own = xasprintf("%s.%s", f->part_path, suffix);
        free(f->part_path);
        f->part_path = own;
        f->alone = true;
    }
    if (f->fd < 0 && f->alone)
        f->fd = open(f->part_path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (f->fd < 0 && errno == EWOULDBLOCK) {
        if (stat(f->part_path, &st) == 0)
            f->position = (uint64_t)st.st_size < f->size ? (uint64_t)st.st_size : f->size;
        timer_start(f->loop, &f->timer, FETCH_WAIT_MS, fetch_on_timer, f);
        return;
    }
    if (f->fd < 0) {
        status_errno(&err, "cannot open %s", f->part_path);
        fetch_finish(f, &err);
        return;
    }
    if (fetch_is_there(f)) { /* it came while we asked for the lock */
        unlink(f->part_path);
        f->position = f->size;
        fetch_finish(f, NULL);
        return;
    }
    f->position = 0;
    digester_init(&f->digester);
    fetch_hash(f);
}

void fetch_start(struct fetch *f, struct loop *loop, const char *root, struct registry *registry, const struct digest *digest,
                 uint64_t size, void (*on_done)(void *arg, const struct status *err), void *arg)
{
    char hex[DIGEST_HEX_SIZE];

    *f = (struct fetch){ .loop = loop, .root = root, .registry = registry, .digest = *digest, .size = size, .fd = -1,
                         .on_done = on_done, .arg = arg };
    digest_hex(digest, hex);
    f->blob_path = xasprintf("%s/blobs/sha256/%s", root, hex);
    f->part_path = xasprintf("%s/ingest/%s", root, hex);
    timer_start(loop, &f->timer, 0, fetch_on_timer, f);
}

#undef FETCH_WAIT_MS
#undef FETCH_SLICE
