/* SPDX-License-Identifier: Apache-2.0 */
/* Records, names, holds and garbage of the image store, without a registry: images are put in as a job's child would report them. */
#include "image/store_internal.h"
#include "io/file.h"

#include <dirent.h>
#include <setjmp.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char top[64];
static struct loop *loop;
static struct image_store *store;

static void open_store(void)
{
    struct status err = STATUS_INIT;

    store = image_store_open(loop, &(struct image_store_options){ .root = top }, &err);
    if (store == NULL)
        fail_msg("%s", err.message);
}

static int setup(void **state)
{
    struct status err = STATUS_INIT;

    (void)state;
    snprintf(top, sizeof top, "/tmp/test-image-store-XXXXXX");
    assert_non_null(mkdtemp(top));
    loop = loop_new(&err);
    assert_non_null(loop);
    assert_true(child_reaper_start(loop, NULL, NULL, &err));
    open_store();
    return 0;
}

static int teardown(void **state)
{
    struct status err = STATUS_INIT;

    (void)state;
    image_store_free(store);
    store = NULL;
    loop_free(loop);
    return tree_remove(top, &err) ? 0 : 1;
}

/* Runs the loop until no sweep is under way or wanted. */
static void settle(void)
{
    int64_t until = clock_mono_ms() + 10000;

    do
        loop_turn(loop, 10);
    while ((sweep_running(store) || store->sweep_soon.loop != NULL || worker_running(&store->emptier)) && clock_mono_ms() < until);
}

static struct digest make(const char *kind, int n)
{
    char text[32];

    snprintf(text, sizeof text, "%s-%d", kind, n);
    return digest_of(text, strlen(text));
}

static void touch(char *path, size_t size)
{
    struct status err = STATUS_INIT;
    char *content = xcalloc(1, size + 1);

    assert_true(file_replace(path, content, size, 0600, &err));
    free(content);
    free(path);
}

/* Image n: configuration n, layers n and n + 1 (shared with its neighbours). */
static struct record *propose(int n, const char *tag, const char *digest)
{
    struct record *r = xcalloc(1, sizeof *r);

    r->image.config = make("config", n);
    digest_text(&r->image.config, r->image.id);
    r->image.config_size = 10;
    r->image.size = 1000;
    r->image.layers = xcalloc(2, sizeof *r->image.layers);
    r->costs = xcalloc(2, sizeof *r->costs);
    touch(image_store_blob_path(store, &r->image.config), 10);
    for (int i = 0; i < 2; i++) {
        struct image_layer *l = &r->image.layers[r->image.layer_count];
        l->blob = make("blob", n + i);
        l->diff_id = make("layer", n + i);
        l->size = 100;
        l->media_type = xstrdup("x");
        r->costs[r->image.layer_count++] = (struct record_cost){ 4096, 8192, 3 };
        touch(image_store_blob_path(store, &l->blob), 100);
        char *path = image_store_layer_path(store, &l->diff_id);
        mkdir(path, 0700);
        touch(xasprintf("%s.info", path), 1);
        free(path);
    }
    if (tag != NULL)
        record_add(&r->image.tags, &r->image.tag_count, tag);
    if (digest != NULL)
        record_add(&r->image.digests, &r->image.digest_count, digest);
    return r;
}

static const struct image *put(int n, const char *tag, const char *digest)
{
    struct status err = STATUS_INIT;
    const struct record *r = store_commit(store, propose(n, tag, digest), &err);

    if (r == NULL)
        fail_msg("%s", err.message);
    return &r->image;
}

static size_t count(const char *folder)
{
    char *path = store_path(store, folder, "");
    DIR *dir = opendir(path);
    size_t n = 0;

    assert_non_null(dir);
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir))
        n += e->d_name[0] != '.';
    closedir(dir);
    free(path);
    return n;
}

static void test_names_move(void **state)
{
    struct status err = STATUS_INIT;

    (void)state;
    image_store_start(store);
    put(1, "a/x:1", "a/x@sha256:1");
    put(1, "a/y:1", NULL);
    assert_int_equal(image_store_count(store), 1);
    uint64_t generation = image_store_generation(store);
    const struct image *two = put(2, "a/x:1", "a/x@sha256:2");
    assert_true(image_store_generation(store) > generation);
    assert_int_equal(two->tag_count, 1);
    const struct image *one = image_store_next(store, NULL);
    assert_int_equal(one->tag_count, 1);
    assert_string_equal(one->tags[0], "a/y:1");
    assert_int_equal(one->digest_count, 1);
    assert_ptr_equal(image_store_find(store, "a/x:1"), NULL); /* "a/x" is docker.io/a/x */
    put(3, "docker.io/library/z:latest", NULL);
    assert_non_null(image_store_find(store, "z"));
    assert_true(image_store_remove(store, "z", &err));
    assert_null(image_store_find(store, "z"));
    settle();
    assert_int_equal(count("layers"), 2 * 3);
    assert_int_equal(count("blobs/sha256"), 2 + 3);
    assert_int_equal(count("trash"), 0);
}

/* A crash after the new owner of a name was written and before the old one was: the later record has the name. */
static void test_crash_between_writes(void **state)
{
    struct status err = STATUS_INIT;
    struct buf old = BUF_INIT;

    (void)state;
    const struct image *one = put(1, "a/x:1", "a/x@sha256:1");
    char *path = store_path(store, "images", one->id + 7);
    assert_true(file_read(path, 1 << 20, &old, &err));
    put(2, "a/x:1", "a/x@sha256:1");
    assert_true(file_replace(path, old.p, old.n, 0600, &err));
    image_store_free(store);
    open_store();
    one = image_store_next(store, NULL);
    const struct image *two = image_store_next(store, one);
    assert_int_equal(one->tag_count + one->digest_count, 0);
    assert_int_equal(two->tag_count + two->digest_count, 2);
    buf_free(&old);
    free(path);
}

/* Every cut and every flipped bit of a record is found, and does not stop the start. */
static void test_damaged_records(void **state)
{
    struct status err = STATUS_INIT;
    struct buf good = BUF_INIT;

    (void)state;
    const struct image *one = put(1, "a/x:1", NULL);
    char *path = store_path(store, "images", one->id + 7);
    assert_true(file_read(path, 1 << 20, &good, &err));
    for (size_t cut = 0; cut < good.n; cut++) {
        struct record *r = record_open((struct str){ (const char *)good.p, cut }, &err);
        assert_null(r);
        assert_int_equal(err.code, STATUS_DATA_LOSS);
        good.p[cut] ^= 4;
        assert_null(record_open((struct str){ (const char *)good.p, good.n }, &err));
        good.p[cut] ^= 4;
    }
    assert_true(file_replace(path, good.p, good.n / 2, 0600, &err));
    image_store_free(store);
    open_store();
    assert_int_equal(image_store_count(store), 0);
    assert_int_equal(count("set-aside"), 1);
    buf_free(&good);
    free(path);
}

static void test_usage(void **state)
{
    struct image_usage u;
    struct status err = STATUS_INIT;

    (void)state;
    image_store_usage(store, &u);
    assert_int_equal(u.bytes, 0);
    put(1, "a/x:1", NULL);
    image_store_usage(store, &u);
    uint64_t one = u.bytes, inodes = u.inodes;
    assert_int_equal(one, 2 * 4096 + 2 * (4096 + 8192));
    assert_int_equal(inodes, 2 + 2 * (1 + 4));
    put(2, "a/x:2", NULL); /* shares a layer */
    image_store_usage(store, &u);
    assert_int_equal(u.bytes, 2 * one - 4096 - 8192);
    assert_true(u.timestamp_ns > 0);
    assert_true(image_store_remove(store, image_store_next(store, NULL)->id, &err));
    image_store_usage(store, &u);
    assert_int_equal(u.bytes, one);
    assert_int_equal(u.inodes, inodes);
    struct stat a, b;
    assert_int_equal(stat(u.mountpoint, &a), 0);
    assert_int_equal(stat(top, &b), 0);
    assert_true(a.st_dev == b.st_dev);
}

/* ---- against a model ---- */

#define MODEL_IMAGES 6
#define MODEL_NAMES 5
#define MODEL_OWNERS 3

static struct {
    bool listed[MODEL_IMAGES], tag[MODEL_IMAGES][MODEL_NAMES], held[MODEL_IMAGES][MODEL_OWNERS];
} model;

static bool model_held(int n)
{
    for (int o = 0; o < MODEL_OWNERS; o++)
        if (model.held[n][o])
            return true;
    return false;
}

static void id_of(int n, char id[DIGEST_TEXT_SIZE])
{
    struct digest d = make("config", n);

    digest_text(&d, id);
}

static void compare(bool files)
{
    bool blobs[MODEL_IMAGES + 1] = { false };
    size_t listed = 0, kept = 0, blob_count = 0;

    for (int n = 0; n < MODEL_IMAGES; n++) {
        char id[DIGEST_TEXT_SIZE];
        id_of(n, id);
        const struct image *i = image_store_find(store, id);
        assert_int_equal(i != NULL, model.listed[n]);
        bool on_disk = model.listed[n] || model_held(n);
        assert_int_equal(image_store_held(store, id) != NULL, on_disk);
        for (int t = 0; i != NULL && t < MODEL_NAMES; t++) {
            char tag[32];
            snprintf(tag, sizeof tag, "docker.io/t/x:%d", t);
            assert_int_equal(record_has(i->tags, i->tag_count, tag), model.tag[n][t]);
            if (model.tag[n][t])
                assert_ptr_equal(image_store_find(store, tag), i);
        }
        listed += model.listed[n];
        kept += on_disk;
        if (on_disk)
            blobs[n] = blobs[n + 1] = true;
    }
    assert_int_equal(image_store_count(store), listed);
    if (!files)
        return;
    for (int n = 0; n <= MODEL_IMAGES; n++)
        blob_count += blobs[n];
    assert_int_equal(count("images"), kept);
    assert_int_equal(count("blobs/sha256"), kept + blob_count);
    assert_int_equal(count("layers"), 2 * blob_count);
    assert_int_equal(count("trash"), 0);
    assert_int_equal(count("set-aside"), 0);
}

/* The process is gone and comes back; `holds`: its containers are still there. */
static void restart(bool holds)
{
    struct status err = STATUS_INIT;

    image_store_free(store);
    open_store();
    for (int n = 0; n < MODEL_IMAGES; n++)
        for (int o = 0; o < MODEL_OWNERS; o++) {
            char id[DIGEST_TEXT_SIZE], owner[16];
            id_of(n, id);
            snprintf(owner, sizeof owner, "o%d", o);
            if (!holds)
                model.held[n][o] = false;
            else if (model.held[n][o])
                assert_true(image_store_hold(store, id, owner, &err));
        }
    image_store_start(store);
}

static void step(unsigned dice)
{
    int n = (int)(dice % MODEL_IMAGES), t = (int)(dice / 8 % MODEL_NAMES), o = (int)(dice / 64 % MODEL_OWNERS);
    char id[DIGEST_TEXT_SIZE], tag[32], owner[16];
    struct status err = STATUS_INIT;

    id_of(n, id);
    snprintf(tag, sizeof tag, "docker.io/t/x:%d", t);
    snprintf(owner, sizeof owner, "o%d", o);
    unsigned what = dice / 256 % 16;
    if (what < 7) {
        while (sweep_running(store)) /* a job would wait here, too */
            loop_turn(loop, 10);
        put(n, tag, NULL);
        for (int k = 0; k < MODEL_IMAGES; k++)
            model.tag[k][t] = k == n;
        model.listed[n] = true;
    } else if (what < 10) {
        assert_true(image_store_remove(store, dice & 1 ? id : tag, &err));
        for (int k = 0; k < MODEL_IMAGES; k++)
            if (dice & 1 ? k == n : model.listed[k] && model.tag[k][t]) {
                model.listed[k] = false;
                memset(model.tag[k], 0, sizeof model.tag[k]);
            }
    } else if (what < 12) {
        assert_int_equal(image_store_hold(store, id, owner, &err), model.listed[n] || model_held(n));
        if (model.listed[n] || model_held(n))
            model.held[n][o] = true;
    } else if (what < 14) {
        image_store_release(store, owner);
        for (int k = 0; k < MODEL_IMAGES; k++)
            model.held[k][o] = false;
    } else if (what == 14) {
        loop_turn(loop, 0);
    } else {
        restart(dice % 3 != 0);
    }
}

static void test_model(void **state)
{
    uint32_t dice = 12345;

    (void)state;
    memset(&model, 0, sizeof model);
    image_store_start(store);
    for (int i = 0; i < 1500; i++) {
        dice = dice * 1664525u + 1013904223u;
        step(dice >> 8);
        compare(false);
        if (i % 50 == 0) {
            settle();
            compare(true);
        }
    }
    restart(true);
    settle();
    compare(true);
}

/* Garbage: what no record names, torn layers, trash of an earlier life. */
static void test_garbage(void **state)
{
    (void)state;
    put(1, "a/x:1", NULL);
    record_free(propose(5, NULL, NULL)); /* files without a record */
    char *path = store_path(store, "layers", "0123.tmpabcd");
    mkdir(path, 0700);
    free(path);
    touch(store_path(store, "ingest", "whatever"), 5);
    touch(store_path(store, "trash", "old"), 5);
    image_store_start(store);
    settle();
    assert_int_equal(count("layers"), 4);
    assert_int_equal(count("blobs/sha256"), 3);
    assert_int_equal(count("ingest") + count("trash"), 0);
}

static void test_second_owner(void **state)
{
    int wait_status;

    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        struct status err = STATUS_INIT;
        struct loop *other = loop_new(&err);
        bool refused = image_store_open(other, &(struct image_store_options){ .root = top }, &err) == NULL &&
                       err.code == STATUS_FAILED_PRECONDITION;
        _exit(refused ? 0 : 1);
    }
    waitpid(pid, &wait_status, 0);
    assert_int_equal(wait_status, 0);
}

int main(void)
{
#define ONE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        ONE(test_names_move), ONE(test_crash_between_writes), ONE(test_damaged_records), ONE(test_usage), ONE(test_model),
        ONE(test_garbage), ONE(test_second_owner),
    };
#undef ONE
    return cmocka_run_group_tests(tests, NULL, NULL);
}
