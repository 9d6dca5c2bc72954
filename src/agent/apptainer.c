/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/apptainer.h"

#include "agent/spec.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/child.h"

/* What `--version` and `buildcfg` print is a few lines. */
#define APPTAINER_OUTPUT_MAX 16384u
#define APPTAINER_MOUNTS_OFF "home,tmp,cwd"

/* ---- where it is ---- */

static bool apptainer_is_program(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

static bool apptainer_in_path(const char *name, char *out, size_t size)
{
    const char *path = getenv("PATH");

    for (const char *p = path != NULL ? path : "/usr/local/bin:/usr/bin:/bin"; *p != '\0';) {
        size_t n = strcspn(p, ":");
        int length = snprintf(out, size, "%.*s/%s", (int)n, p, name);
        if (n > 0 && *p == '/' && length > 0 && (size_t)length < size && apptainer_is_program(out))
            return true;
        p += n + (p[n] == ':');
    }
    return false;
}

static bool apptainer_locate(const char *configured, struct apptainer *out, struct status *err)
{
    static const char *const names[] = { "apptainer", "singularity" };

    if (configured != NULL && *configured == '/') {
        snprintf(out->path, sizeof out->path, "%s", configured);
        return apptainer_is_program(configured) || status_set(err, STATUS_NOT_FOUND, "%.200s is not a program that can be run", configured);
    }
    if (configured != NULL && *configured != '\0')
        return apptainer_in_path(configured, out->path, sizeof out->path) ||
               status_set(err, STATUS_NOT_FOUND, "there is no program %.100s in $PATH", configured);
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (apptainer_in_path(names[i], out->path, sizeof out->path))
            return true;
    return status_set(err, STATUS_NOT_FOUND, "there is neither apptainer nor singularity in $PATH");
}

/* ---- whether it works ---- */

/* What the program prints with one argument; blocks for a few milliseconds. */
static bool apptainer_ask(const char *path, const char *word, struct buf *out, struct status *err)
{
    const char *argv[] = { path, word, NULL };
    int wait_status = 0;

    if (!child_capture(path, (char *const *)(uintptr_t)argv, false, APPTAINER_OUTPUT_MAX, out, &wait_status, err))
        return false;
    return wait_status == 0 ||
           status_set(err, STATUS_FAILED_PRECONDITION, "%.200s %s ended with wait status %#x", path, word, (unsigned)wait_status);
}

/* LIBEXECDIR=/usr/libexec: there its setuid starter is, if it has one. */
static bool apptainer_has_setuid(const char *path)
{
    static const char *const names[] = { "apptainer", "singularity" };
    struct buf text cleanup_buf = BUF_INIT;
    struct status ignored;
    struct stat st;

    if (!apptainer_ask(path, "buildcfg", &text, &ignored))
        return false;
    const char *at = strstr(buf_cstr(&text), "LIBEXECDIR=");
    if (at == NULL)
        return false;
    at += strlen("LIBEXECDIR=");
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        cleanup_free char *starter = xasprintf("%.*s/%s/bin/starter-suid", (int)strcspn(at, "\n"), at, names[i]);
        if (stat(starter, &st) == 0 && st.st_uid == 0 && (st.st_mode & S_ISUID) != 0)
            return true;
    }
    return false;
}

/* What its other starter does, as root or not: tried in a process that ends at once. */
static bool apptainer_can_make(int namespaces)
{
    int wait_status = 1;
    pid_t pid = fork();

    if (pid == 0)
        _exit(unshare(namespaces) == 0 ? 0 : 1);
    while (pid > 0 && waitpid(pid, &wait_status, 0) < 0 && errno == EINTR)
        ;
    return pid > 0 && wait_status == 0;
}

bool apptainer_find(const char *configured, struct apptainer *out, struct status *err)
{
    struct buf text cleanup_buf = BUF_INIT;

    memset(out, 0, sizeof *out);
    if (!apptainer_locate(configured, out, err) || !apptainer_ask(out->path, "--version", &text, err))
        return false;
    snprintf(out->version, sizeof out->version, "%.*s", (int)strcspn(buf_cstr(&text), "\n"), buf_cstr(&text));
    out->setuid = apptainer_has_setuid(out->path);
    return out->setuid || apptainer_can_make(CLONE_NEWNS) || apptainer_can_make(CLONE_NEWUSER | CLONE_NEWNS) ||
           status_set(err, STATUS_FAILED_PRECONDITION, "%.200s (%.60s) has no setuid starter, and user namespaces are off in this job",
                      out->path, out->version);
}

/* ---- its words ---- */

void apptainer_name(const char *id, char out[APPTAINER_NAME_SIZE])
{
    snprintf(out, APPTAINER_NAME_SIZE, "interlink-%.64s", id);
}

bool apptainer_mount_wanted(const struct spec_mount *m)
{
    static const char *const kernel[] = { "/proc", "/sys", "/dev/mqueue" };

    if (strcmp(m->type, "bind") != 0)
        return false;
    for (size_t i = 0; i < COUNT_OF(kernel); i++)
        if (strcmp(m->source, kernel[i]) == 0 && strcmp(m->destination, kernel[i]) == 0)
            return false;
    return true;
}

const char *apptainer_place(const struct spec *s, size_t index, struct arena *arena)
{
    const char *destination = s->mounts[index].destination;

    return !str_starts(destination, "/dev/") || strcmp(destination, "/dev/shm") == 0
               ? destination
               : arena_printf(arena, APPTAINER_DEV "/%zu", index);
}

static bool apptainer_has_option(const struct spec_mount *m, const char *option)
{
    for (size_t i = 0; m->options[i] != NULL; i++)
        if (strcmp(m->options[i], option) == 0)
            return true;
    return false;
}

/* --bind SOURCE:DESTINATION[:ro], where colons and commas separate, and nothing quotes them in all versions. */
static bool apptainer_bind(struct arena *arena, const char *source, const char *destination, bool read_only, const char **words,
                           size_t *n, struct status *err)
{
    const char *bad = strpbrk(source, ":,") != NULL ? source : strpbrk(destination, ":,") != NULL ? destination : NULL;

    if (bad != NULL)
        return status_set(err, STATUS_FAILED_PRECONDITION, "mounts: the apptainer engine cannot mount \"%.200s\": its command line has no "
                          "way to write a path with a colon or a comma", bad);
    words[(*n)++] = "--bind";
    words[(*n)++] = arena_printf(arena, "%s:%s%s", source, destination, read_only ? ":ro" : "");
    return true;
}

bool apptainer_start_argv(const struct apptainer_instance *i, struct arena *arena, const char *const **argv, struct status *err)
{
    const struct spec *s = i->spec;
    const char **words = ARENA_ARRAY(arena, const char *, 32 + 2 * (s->mount_count + s->device_count));
    char name[APPTAINER_NAME_SIZE];
    size_t n = 0;

    apptainer_name(i->id, name);
    const char *const first[] = { i->program->path, "--silent", "instance", "start", "--cleanenv", "--contain", "--no-home",
                                  "--no-mount", APPTAINER_MOUNTS_OFF, "--pid-file", i->pid_file };
    for (; n < COUNT_OF(first); n++)
        words[n] = first[n];
    if (i->own_ipc)
        words[n++] = "--ipc";
    if (!s->readonly_root)
        words[n++] = "--writable";
    if (i->root_user)
        words[n++] = "--no-privs";
    if (i->nvidia)
        words[n++] = "--nv";
    if (i->rocm)
        words[n++] = "--rocm";
    for (size_t k = 0; k < s->mount_count; k++) {
        const struct spec_mount *m = &s->mounts[k];
        if (apptainer_mount_wanted(m) &&
            !apptainer_bind(arena, m->source, apptainer_place(s, k, arena), apptainer_has_option(m, "ro") || apptainer_has_option(m, "rro"), words, &n, err))
            return false;
    }
    for (size_t k = 0; k < s->device_count; k++)
        if (!apptainer_bind(arena, s->devices[k].source, s->devices[k].source, false, words, &n, err))
            return false;
    if (!apptainer_bind(arena, i->enter, APPTAINER_ENTER, true, words, &n, err))
        return false;
    words[n++] = i->root;
    words[n++] = arena_strdup(arena, name);
    /* What our program is to do as the instance's first: nothing (agent.h). */
    words[n++] = "agent";
    words[n++] = "idle";
    words[n] = NULL;
    *argv = words;
    return true;
}

const char *const *apptainer_exec_argv(const struct apptainer *program, const char *id, const char *const *more, struct arena *arena)
{
    size_t count = 0, n = 0;
    char name[APPTAINER_NAME_SIZE];

    while (more[count] != NULL)
        count++;
    apptainer_name(id, name);
    const char **words = ARENA_ARRAY(arena, const char *, count + 8);
    words[n++] = program->path;
    words[n++] = "--silent";
    words[n++] = "exec";
    words[n++] = "--cleanenv";
    words[n++] = arena_printf(arena, "instance://%s", name);
    words[n++] = APPTAINER_ENTER;
    for (size_t i = 0; i < count; i++)
        words[n++] = more[i];
    words[n] = NULL;
    return words;
}

char **apptainer_env(const char *folder, struct arena *arena)
{
    static const char *const names[] = { "APPTAINER_CONFIGDIR", "APPTAINER_TMPDIR", "APPTAINER_CACHEDIR", "SINGULARITY_CONFIGDIR",
                                         "SINGULARITY_TMPDIR", "SINGULARITY_CACHEDIR", "HOME" };
    size_t count = 0;

    while (environ[count] != NULL)
        count++;
    char **env = ARENA_ARRAY(arena, char *, count + COUNT_OF(names) + 1);
    count = 0;
    for (size_t i = 0; environ[i] != NULL; i++)
        if (strchr(environ[i], '=') != NULL)
            spec_env_set(env, &count, environ[i]);
    for (size_t i = 0; i < COUNT_OF(names); i++)
        spec_env_set(env, &count, arena_printf(arena, "%s=%s", names[i], folder));
    return env;
}

#undef APPTAINER_OUTPUT_MAX
#undef APPTAINER_MOUNTS_OFF
