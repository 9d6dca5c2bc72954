/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/process.h"

#include "io/file.h"

/* Written and read by the same program within one job, so the format has neither version nor byte order. */
#define PROCESS_FILE_MAX (8u << 20)

void process_free(struct process *p)
{
    arena_free(&p->arena);
}

const char *process_env(const struct process *p, const char *name)
{
    size_t n = strlen(name);

    for (char **e = p->env; e != NULL && *e != NULL; e++)
        if (strncmp(*e, name, n) == 0 && (*e)[n] == '=')
            return *e + n + 1;
    return NULL;
}

/* ---- writing ---- */

static void process_put_bytes(struct buf *b, const void *p, size_t n)
{
    uint64_t length = n;

    buf_append(b, &length, sizeof length);
    buf_append(b, p, n);
}

static void process_put_strings(struct buf *b, char *const *strings)
{
    uint64_t count = 0;

    while (strings[count] != NULL)
        count++;
    buf_append(b, &count, sizeof count);
    for (size_t i = 0; i < count; i++)
        process_put_bytes(b, strings[i], strlen(strings[i]));
}

void process_encode(const struct process *p, struct buf *out)
{
    /* The plain fields first; pointers in them are meaningless to the reader and replaced. */
    buf_append(out, p, sizeof *p);
    process_put_strings(out, p->argv);
    process_put_strings(out, p->env);
    process_put_bytes(out, p->cwd, strlen(p->cwd));
    process_put_bytes(out, p->seccomp, p->seccomp_size);
    process_put_bytes(out, p->apparmor, strlen(p->apparmor));
    process_put_bytes(out, p->selinux, strlen(p->selinux));
    for (size_t i = 0; i < p->bind_count; i++) {
        process_put_bytes(out, p->binds[i].source, strlen(p->binds[i].source));
        process_put_bytes(out, p->binds[i].target, strlen(p->binds[i].target));
        buf_append_byte(out, p->binds[i].read_only);
    }
}

bool process_write(const struct process *p, const char *bundle, struct status *err)
{
    struct buf b cleanup_buf = BUF_INIT;
    cleanup_free char *path = xasprintf("%s/process", bundle);

    process_encode(p, &b);
    return file_replace(path, b.p, b.n, 0600, err);
}

/* ---- reading ---- */

struct process_reader {
    struct str rest;
    struct arena *arena;
    bool bad;
};

static void process_get_raw(struct process_reader *r, void *out, size_t n)
{
    if (r->bad || r->rest.n < n) {
        r->bad = true;
        memset(out, 0, n);
        return;
    }
    memcpy(out, r->rest.p, n);
    r->rest.p += n;
    r->rest.n -= n;
}

/* NUL-terminated, so that it serves as a string as well. */
static char *process_get_bytes(struct process_reader *r, size_t *n)
{
    uint64_t length;

    process_get_raw(r, &length, sizeof length);
    r->bad = r->bad || length > r->rest.n;
    if (r->bad)
        length = 0;
    char *p = arena_strndup(r->arena, r->rest.p, (size_t)length);
    r->rest.p += length;
    r->rest.n -= (size_t)length;
    if (n != NULL)
        *n = (size_t)length;
    return p;
}

static char **process_get_strings(struct process_reader *r)
{
    uint64_t count;

    process_get_raw(r, &count, sizeof count);
    r->bad = r->bad || count > r->rest.n / sizeof count;
    if (r->bad)
        count = 0;
    char **strings = ARENA_ARRAY(r->arena, char *, (size_t)count + 1);
    for (size_t i = 0; i < count; i++)
        strings[i] = process_get_bytes(r, NULL);
    return strings;
}

bool process_decode(struct process *p, struct str bytes, struct status *err)
{
    struct process_reader r = { .arena = &p->arena, .rest = bytes };

    process_get_raw(&r, p, sizeof *p);
    p->arena = (struct arena)ARENA_INIT;
    p->argv = process_get_strings(&r);
    p->env = process_get_strings(&r);
    p->cwd = process_get_bytes(&r, NULL);
    char *filter = process_get_bytes(&r, &p->seccomp_size);
    /* The arena aligns for any type, which struct sock_filter needs. */
    p->seccomp = p->seccomp_size > 0 ? (uint8_t *)filter : NULL;
    p->apparmor = process_get_bytes(&r, NULL);
    p->selinux = process_get_bytes(&r, NULL);
    if (r.bad || p->bind_count > r.rest.n)
        p->bind_count = 0;
    p->binds = ARENA_ARRAY(&p->arena, struct process_bind, p->bind_count);
    for (size_t i = 0; i < p->bind_count; i++) {
        uint8_t read_only;
        p->binds[i].source = process_get_bytes(&r, NULL);
        p->binds[i].target = process_get_bytes(&r, NULL);
        process_get_raw(&r, &read_only, sizeof read_only);
        p->binds[i].read_only = read_only != 0;
    }
    if (r.bad || r.rest.n > 0) {
        process_free(p);
        return status_set(err, STATUS_DATA_LOSS, "a process's description is damaged");
    }
    return true;
}

bool process_read(struct process *p, const char *bundle, struct status *err)
{
    struct buf text cleanup_buf = BUF_INIT;
    cleanup_free char *path = xasprintf("%s/process", bundle);

    if (!file_read(path, PROCESS_FILE_MAX, &text, err))
        return status_prefix(err, "the container has not been created");
    return process_decode(p, (struct str){ (const char *)text.p, text.n }, err) || status_prefix(err, "%s", path);
}

#undef PROCESS_FILE_MAX
