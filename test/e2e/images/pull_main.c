/* SPDX-License-Identifier: Apache-2.0 */
/* pull_main.c: the image store as a program of its own, driven by the end-to-end tests: commands on standard input, one a line,
 * fields divided by tabs; one JSON line on standard output for each.
 *
 *   pull_main ROOT
 *     start                          all holds are given
 *     set NAME VALUE                 for pulls to come: user, password, auth, server, identity, token, timeout (ms), platform,
 *                                    certs (folder), ca, mirror (REGISTRY=URL), base (name), annotation (NAME=VALUE)
 *     unset                          all of that
 *     pull TAG REFERENCE             answered when it ends: {"tag":...,"id":...} or {"tag":...,"code":...,"error":...}
 *     cancel TAG
 *     load TAG PATH
 *     list | find TEXT | config TEXT | remove TEXT | hold ID OWNER | release OWNER | usage | rss
 */
#include "image/image.h"
#include "io/child.h"
#include "text/json.h"

#include <fcntl.h>
#include <unistd.h>

struct driver_task {
    struct list link;
    char tag[64];
    struct image_pull *pull;
    struct image_load *load;
    unsigned progress;
};

static struct {
    struct loop *loop;
    struct image_store *store;
    struct watch input;
    struct buf in;
    struct list tasks;
    struct image_auth auth;
    bool has_auth;
    int64_t timeout_ms;
    char *platform, *base, *annotations[2];
    const char *certs_dirs[2];
    const char *endpoints[2];
    struct registry_mirror mirror;
    struct registry_options registries;
    struct arena settings; /* what was set, until the end: pulls borrow it */
} driver;

static void say(struct buf *out)
{
    buf_append_byte(out, '\n');
    ssize_t ignored UNUSED = write(STDOUT_FILENO, out->p, out->n);
    buf_clear(out);
}

static void say_error(const char *tag, const struct status *err)
{
    struct buf out = BUF_INIT;
    struct json_writer w;

    json_writer_init(&w, &out, 0);
    json_write_object(&w);
    json_write_member_string(&w, "tag", tag);
    json_write_member_string(&w, "code", status_code_name(err->code));
    json_write_member_string(&w, "error", err->message);
    json_write_end(&w);
    say(&out);
    buf_free(&out);
}

static void say_ok(const char *tag, const char *id, unsigned progress)
{
    struct buf out = BUF_INIT;
    struct json_writer w;

    json_writer_init(&w, &out, 0);
    json_write_object(&w);
    json_write_member_string(&w, "tag", tag);
    json_write_member_string(&w, "id", id);
    json_write_member_i64(&w, "progress", progress);
    json_write_end(&w);
    say(&out);
    buf_free(&out);
}

static void write_image(struct json_writer *w, const struct image *i)
{
    json_write_object(w);
    json_write_member_string(w, "id", i->id);
    json_write_member_array(w, "tags");
    for (size_t k = 0; k < i->tag_count; k++)
        json_write_string(w, i->tags[k]);
    json_write_end(w);
    json_write_member_array(w, "digests");
    for (size_t k = 0; k < i->digest_count; k++)
        json_write_string(w, i->digests[k]);
    json_write_end(w);
    json_write_member_i64(w, "size", (int64_t)i->size);
    json_write_member_i64(w, "uid", i->user.has_uid ? i->user.uid : -1);
    json_write_member_string(w, "username", i->user.name);
    json_write_member_bool(w, "pinned", i->pinned);
    json_write_member_array(w, "layers");
    for (size_t k = 0; k < i->layer_count; k++) {
        char text[DIGEST_TEXT_SIZE];
        digest_text(&i->layers[k].diff_id, text);
        json_write_string(w, text);
    }
    json_write_end(w);
    json_write_member_array(w, "annotations");
    for (size_t k = 0; k < 2 * i->annotation_count; k++)
        json_write_string(w, i->annotations[k]);
    json_write_end(w);
    json_write_end(w);
}

static void end_task(struct driver_task *task)
{
    list_remove(&task->link);
    free(task);
}

static void on_progress(void *arg, const struct image_progress *blobs, size_t count)
{
    struct driver_task *task = arg;

    (void)blobs;
    task->progress += count > 0;
}

static void on_pulled(void *arg, const char *id, const struct status *err)
{
    struct driver_task *task = arg;

    if (err != NULL)
        say_error(task->tag, err);
    else
        say_ok(task->tag, id, task->progress);
    end_task(task);
}

static void on_loaded(void *arg, const char *const *ids, size_t count, const struct status *err)
{
    struct driver_task *task = arg;
    struct buf all = BUF_INIT;

    for (size_t i = 0; i < count; i++)
        buf_printf(&all, "%s%s", i > 0 ? " " : "", ids[i]);
    if (err != NULL)
        say_error(task->tag, err);
    else
        say_ok(task->tag, buf_cstr(&all), 0);
    buf_free(&all);
    end_task(task);
}

static struct driver_task *new_task(const char *tag)
{
    struct driver_task *task = xcalloc(1, sizeof *task);

    snprintf(task->tag, sizeof task->tag, "%.63s", tag);
    list_append(&driver.tasks, &task->link);
    return task;
}

static void set(const char *name, char *value)
{
    char *equals = strchr(value, '=');

    driver.has_auth = true;
    if (strcmp(name, "user") == 0)
        driver.auth.username = value;
    else if (strcmp(name, "password") == 0)
        driver.auth.password = value;
    else if (strcmp(name, "auth") == 0)
        driver.auth.auth = value;
    else if (strcmp(name, "server") == 0)
        driver.auth.server_address = value;
    else if (strcmp(name, "identity") == 0)
        driver.auth.identity_token = value;
    else if (strcmp(name, "token") == 0)
        driver.auth.registry_token = value;
    else if (strcmp(name, "timeout") == 0)
        driver.timeout_ms = atol(value);
    else if (strcmp(name, "platform") == 0)
        driver.platform = value;
    else if (strcmp(name, "base") == 0)
        driver.base = value;
    else if (strcmp(name, "certs") == 0)
        driver.certs_dirs[0] = value;
    else if (strcmp(name, "ca") == 0)
        driver.registries.ca_path = value;
    else if (equals != NULL) {
        *equals = '\0';
        if (strcmp(name, "annotation") == 0) {
            driver.annotations[0] = value;
            driver.annotations[1] = equals + 1;
        } else {
            driver.endpoints[0] = equals + 1;
            driver.mirror = (struct registry_mirror){ .registry = value, .endpoints = driver.endpoints };
            driver.registries.mirrors = &driver.mirror;
            driver.registries.mirror_count = 1;
        }
    }
}

static void unset(void)
{
    driver.auth = (struct image_auth){ "", "", "", "", "", "" };
    driver.has_auth = false;
    driver.timeout_ms = INT64_MAX;
    driver.platform = driver.base = driver.annotations[0] = NULL;
    driver.certs_dirs[0] = NULL;
    driver.registries = (struct registry_options){ .certs_dirs = driver.certs_dirs };
}

static void pull(const char *tag, const char *reference)
{
    struct driver_task *task = new_task(tag);

    task->pull = image_pull_start(driver.store, &(struct image_pull_options){
        .reference = reference,
        .auth = driver.has_auth ? &driver.auth : NULL,
        .platform = driver.platform,
        .timeout_ms = driver.timeout_ms,
        .annotations = (const char *const *)driver.annotations,
        .annotation_count = driver.annotations[0] != NULL,
        .registries = &driver.registries,
        .on_progress = on_progress,
        .on_done = on_pulled,
        .arg = task,
    });
}

static void load(const char *tag, const char *path)
{
    struct driver_task *task = new_task(tag);

    task->load = image_load_start(driver.store, &(struct image_load_options){
        .path = path, .base_name = driver.base, .platform = driver.platform, .on_done = on_loaded, .arg = task });
}

static void cancel(const char *tag)
{
    for (LIST_EACH_SAFE(struct driver_task, task, &driver.tasks, link)) {
        if (strcmp(task->tag, tag) != 0)
            continue;
        if (task->pull != NULL)
            image_pull_cancel(task->pull);
        if (task->load != NULL)
            image_load_cancel(task->load);
        end_task(task);
    }
    say_ok("cancel", "", 0);
}

static void list_images(void)
{
    struct buf out = BUF_INIT;
    struct json_writer w;

    json_writer_init(&w, &out, 0);
    json_write_array(&w);
    for (const struct image *i = image_store_next(driver.store, NULL); i != NULL; i = image_store_next(driver.store, i))
        write_image(&w, i);
    json_write_end(&w);
    say(&out);
    buf_free(&out);
}

static void find(const char *text, bool config)
{
    const struct image *i = image_store_find(driver.store, text);
    struct buf out = BUF_INIT;
    struct json_writer w;
    struct status err = STATUS_INIT;

    json_writer_init(&w, &out, 0);
    if (i == NULL)
        json_write_null(&w);
    else if (!config)
        write_image(&w, i);
    else if (!image_store_read_config_text(driver.store, i, &out, &err)) {
        say_error("config", &err);
        buf_free(&out);
        return;
    }
    say(&out);
    buf_free(&out);
}

static void say_usage(void)
{
    struct image_usage u;
    struct buf out = BUF_INIT;

    image_store_usage(driver.store, &u);
    buf_printf(&out, "{\"bytes\":%" PRIu64 ",\"inodes\":%" PRIu64 ",\"mountpoint\":\"%s\"}", u.bytes, u.inodes, u.mountpoint);
    say(&out);
    buf_free(&out);
}

static void command(char *line)
{
    char *fields[4] = { NULL }, *save = NULL;
    struct status err = STATUS_INIT;
    size_t n = 0;
    bool ok = true;

    for (char *f = strtok_r(line, "\t", &save); f != NULL && n < COUNT_OF(fields); f = strtok_r(NULL, "\t", &save))
        fields[n++] = f;
    for (; n < COUNT_OF(fields); n++)
        fields[n] = (char[]){ "" };
    const char *word = fields[0];
    if (strcmp(word, "pull") == 0)
        pull(fields[1], fields[2]);
    else if (strcmp(word, "load") == 0)
        load(fields[1], fields[2]);
    else if (strcmp(word, "cancel") == 0)
        cancel(fields[1]);
    else if (strcmp(word, "list") == 0)
        list_images();
    else if (strcmp(word, "find") == 0 || strcmp(word, "config") == 0)
        find(fields[1], word[0] == 'c');
    else if (strcmp(word, "usage") == 0)
        say_usage();
    else {
        if (strcmp(word, "start") == 0)
            image_store_start(driver.store);
        else if (strcmp(word, "set") == 0)
            set(fields[1], arena_strdup(&driver.settings, fields[2]));
        else if (strcmp(word, "unset") == 0)
            unset();
        else if (strcmp(word, "remove") == 0)
            ok = image_store_remove(driver.store, fields[1], &err);
        else if (strcmp(word, "hold") == 0)
            ok = image_store_hold(driver.store, fields[1], fields[2], &err);
        else if (strcmp(word, "release") == 0)
            image_store_release(driver.store, fields[1]);
        else
            ok = status_set(&err, STATUS_INVALID_ARGUMENT, "no such command");
        if (ok)
            say_ok(word, "", 0);
        else
            say_error(word, &err);
    }
}

static void on_input(void *arg, unsigned events)
{
    char piece[4096];
    ssize_t n = read(STDIN_FILENO, piece, sizeof piece);

    (void)arg;
    (void)events;
    if (n <= 0) {
        loop_stop(driver.loop);
        return;
    }
    buf_append(&driver.in, piece, (size_t)n);
    for (;;) {
        const uint8_t *end = driver.in.n == 0 ? NULL : memchr(driver.in.p, '\n', driver.in.n);
        if (end == NULL)
            return;
        size_t length = (size_t)(end - driver.in.p);
        char *line = xstrndup((const char *)driver.in.p, length);
        buf_consume(&driver.in, length + 1);
        command(line);
        free(line);
    }
}

int main(int argc, char **argv)
{
    struct status err = STATUS_INIT;

    if (argc != 2) {
        fprintf(stderr, "usage: pull_main ROOT\n");
        return 2;
    }
    log_setup(LOG_DEBUG, "pull_main");
    list_init(&driver.tasks);
    unset();
    driver.loop = loop_new(&err);
    if (driver.loop != NULL && child_reaper_start(driver.loop, NULL, NULL, &err))
        driver.store = image_store_open(driver.loop, &(struct image_store_options){ .root = argv[1] }, &err);
    if (driver.store == NULL || !watch_start(driver.loop, &driver.input, STDIN_FILENO, WATCH_READ, on_input, NULL, &err)) {
        say_error("open", &err);
        return 1;
    }
    say_ok("open", "", 0);
    loop_run(driver.loop);
    while (!list_empty(&driver.tasks)) {
        struct driver_task *task = CONTAINER_OF(driver.tasks.next, struct driver_task, link);
        image_pull_cancel(task->pull);
        image_load_cancel(task->load);
        end_task(task);
    }
    image_store_free(driver.store);
    buf_free(&driver.in);
    arena_free(&driver.settings);
    watch_stop(&driver.input);
    loop_free(driver.loop);
    return 0;
}
