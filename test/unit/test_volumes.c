/* SPDX-License-Identifier: Apache-2.0 */
/* What host paths are to a pod elsewhere, where mounts come from, and reading volumes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"
#include "io/file.h"
#include "node/volume_origin.h"
#include "node/volume_place.h"
#include "node/volume_plan.h"
#include "node/volume_read.h"

#define UID "d2d0d6b1-ac4a-42e8-95ce-ff4728e2e0c4"
#define POD "/var/lib/kubelet/pods/" UID

/* ---- places ---- */

static void expect_place(const char *path, enum volume_kind kind, const char *name, const char *sub_path)
{
    static const char *const shared[] = { "/shared/", "/home", NULL };
    struct volume_place place = volume_place(path, UID, shared);

    if (place.kind != kind)
        fail_msg("%s is kind %d", path, (int)place.kind);
    cleanup_free char *got = xstrndup(place.name, place.name_length);
    assert_string_equal(got, name);
    assert_string_equal(place.sub_path, sub_path);
}

static void test_places(void **state)
{
    (void)state;
    expect_place(POD "/volumes/kubernetes.io~configmap/cm", VOLUME_PROJECTED, "volumes/kubernetes.io~configmap/cm", "");
    expect_place(POD "/volumes/kubernetes.io~secret/s", VOLUME_PROJECTED, "volumes/kubernetes.io~secret/s", "");
    expect_place(POD "/volumes/kubernetes.io~projected/kube-api-access-x", VOLUME_PROJECTED,
                 "volumes/kubernetes.io~projected/kube-api-access-x", "");
    expect_place(POD "/volumes/kubernetes.io~downward-api/d", VOLUME_PROJECTED, "volumes/kubernetes.io~downward-api/d", "");
    expect_place(POD "/volumes/kubernetes.io~configmap/cm/key", VOLUME_COPIED, "volumes/kubernetes.io~configmap/cm/key", "");
    expect_place(POD "/etc-hosts", VOLUME_COPIED, "etc-hosts", "");
    expect_place(POD "/containers/web/ad9b32c3", VOLUME_TERMINATION_LOG, "containers/web/ad9b32c3", "");
    expect_place(POD "/volumes/kubernetes.io~empty-dir/scratch", VOLUME_EMPTY_DIR, "scratch", "");
    expect_place(POD "/volumes/kubernetes.io~empty-dir/scratch/a/b", VOLUME_EMPTY_DIR, "scratch", "a/b");
    expect_place(POD "/volume-subpaths/cm/web/6", VOLUME_MOUNTED, "volume-subpaths/cm/web/6", "");
    expect_place(POD "/volumes/kubernetes.io~csi/pvc-1/mount", VOLUME_MOUNTED, "volumes/kubernetes.io~csi/pvc-1/mount", "");
    expect_place("/data/kubelet/pods/" UID "/etc-hosts", VOLUME_COPIED, "etc-hosts", "");
    /* Not what it seems. */
    expect_place(POD "/volumes/kubernetes.io~configmap", VOLUME_ELSEWHERE, "volumes/kubernetes.io~configmap", "");
    expect_place(POD "/containers/web", VOLUME_ELSEWHERE, "containers/web", "");
    expect_place(POD "/containers/web/x/y", VOLUME_ELSEWHERE, "containers/web/x/y", "");
    expect_place(POD "/plugins/x", VOLUME_ELSEWHERE, "plugins/x", "");
    expect_place(POD "/volumes/kubernetes.io~secret//s", VOLUME_ELSEWHERE, "volumes/kubernetes.io~secret//s", "");
    expect_place(POD, VOLUME_ELSEWHERE, "", "");
    expect_place("/var/lib/kubelet/pods/another/etc-hosts", VOLUME_ELSEWHERE, "", "");
    expect_place(POD "/volumes/kubernetes.io~secret/../../../../../../etc/shadow", VOLUME_ELSEWHERE, "", "");
    expect_place("/etc/passwd", VOLUME_ELSEWHERE, "", "");
    expect_place("relative", VOLUME_ELSEWHERE, "", "");
    expect_place("", VOLUME_ELSEWHERE, "", "");
    /* Shared ones go first, whatever they look like. */
    expect_place("/shared", VOLUME_SHARED, "", "");
    expect_place("/shared/a", VOLUME_SHARED, "", "");
    expect_place("/sharedx", VOLUME_ELSEWHERE, "", "");
    expect_place("/home/kubelet/pods/" UID "/etc-hosts", VOLUME_SHARED, "", "");
    expect_place("/home/../etc", VOLUME_ELSEWHERE, "", "");
    static const char *const all[] = { "/", NULL };
    assert_int_equal(volume_place(POD "/etc-hosts", UID, all).kind, VOLUME_SHARED);
    assert_int_equal(volume_place("/", UID, all).kind, VOLUME_SHARED);
    /* A pod without a uid has no folder. */
    assert_int_equal(volume_place("/pods//etc-hosts", "", NULL).kind, VOLUME_ELSEWHERE);
    assert_int_equal(volume_place("/pods/a/b/etc-hosts", "a/b", NULL).kind, VOLUME_ELSEWHERE);
}

/* ---- mounts ---- */

static const char mountinfo[] =
    "21 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
    "22 21 0:45 / /shared rw shared:2 - nfs4 server:/export rw,vers=4.2\n"
    "23 21 0:46 / /var/lib/kubelet/pods/U/volumes/kubernetes.io~nfs/pv rw - nfs4 server:/export/users/ann rw,vers=4.2\n"
    "24 21 254:1 /srv/my\\040disk /var/lib/kubelet/pods/U/volumes/kubernetes.io~local-volume/pv rw - ext4 /dev/vda1 rw\n"
    "25 21 0:50 / /var/lib/kubelet/pods/U/volumes/kubernetes.io~empty-dir/ram rw - tmpfs tmpfs rw,size=65536k,noswap\n"
    "26 21 0:50 /in/deep /var/lib/kubelet/pods/U/volume-subpaths/ram/c/0 rw - tmpfs tmpfs rw,size=65536k,noswap\n"
    "27 21 254:1 /var/lib/kubelet/pods/U/volumes/kubernetes.io~configmap/cm/..1/key /var/lib/kubelet/pods/U/volume-subpaths/cm/c/1 rw "
    "- ext4 /dev/vda1 rw\n"
    "28 21 0:60 / /over rw - tmpfs tmpfs rw\n"
    "29 21 254:1 /over/hidden /elsewhere rw - ext4 /dev/vda1 rw\n"
    "30 21 0:70 / /huge rw - hugetlbfs nodev rw,pagesize=2M\n"
    "31 21 8:1 / /only rw - ext4 /dev/sda1\n"
    "nonsense\n32 21 bad / /x rw - a b c\n33 21 1:2 / /y rw\n";

struct origins {
    char text[1024];
    const char *stop_at;
};

static bool on_origin(void *arg, const char *origin)
{
    struct origins *o = arg;

    strcat(strcat(o->text, origin), ";");
    return o->stop_at != NULL && strcmp(origin, o->stop_at) == 0;
}

static void expect_origins(const struct mount_table *t, const char *path, const char *wanted)
{
    struct origins o = { .text = "" };

    assert_false(volume_origin_each(t, path, on_origin, &o));
    assert_string_equal(o.text, wanted);
}

static void test_origins(void **state)
{
    struct mount_table t;
    struct arena arena = ARENA_INIT;
    struct origins o = { .text = "", .stop_at = "/srv/my disk/x" };

    (void)state;
    mount_table_parse((struct str){ mountinfo, sizeof mountinfo - 1 }, &t);
    assert_int_equal(t.count, 11);
#define PODU "/var/lib/kubelet/pods/U"
    expect_origins(&t, PODU "/volumes/kubernetes.io~local-volume/pv", "/srv/my disk;");
    assert_true(volume_origin_each(&t, PODU "/volumes/kubernetes.io~local-volume/pv/x", on_origin, &o));
    /* Two mounts of one server: the same files. */
    expect_origins(&t, PODU "/volumes/kubernetes.io~nfs/pv", "/shared/users/ann;");
    expect_origins(&t, PODU "/volumes/kubernetes.io~nfs/pv/a b", "/shared/users/ann/a b;");
    expect_origins(&t, PODU "/volume-subpaths/ram/c/0", PODU "/volumes/kubernetes.io~empty-dir/ram/in/deep;");
    expect_origins(&t, PODU "/volume-subpaths/cm/c/1", PODU "/volumes/kubernetes.io~configmap/cm/..1/key;");
    /* What something else is mounted over is not to be seen. */
    expect_origins(&t, "/elsewhere", "");
    expect_origins(&t, "/only", "");
    expect_origins(&t, "/etc", "");
    const struct mount_entry *ram = mount_table_find(&t, PODU "/volumes/kubernetes.io~empty-dir/ram/x");
    assert_string_equal(mount_entry_option(ram, "size", &arena), "65536k");
    assert_string_equal(mount_entry_option(ram, "siz", &arena), "");
    assert_string_equal(mount_entry_option(mount_table_find(&t, "/huge"), "pagesize", &arena), "2M");
    assert_string_equal(mount_table_find(&t, "/y/z")->point, "/");
    arena_free(&arena);
    mount_table_free(&t);
    mount_table_parse(STR(""), &t);
    assert_null(mount_table_find(&t, "/"));
    expect_origins(&t, "/", "");
    mount_table_free(&t);
}

/* ---- reading ---- */

static char root[64];
static struct status err;
static int memory;
static uint64_t end;

static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/test-volumes-XXXXXX");
    assert_non_null(mkdtemp(root));
    memory = memfd_create("test", MFD_CLOEXEC);
    end = 0;
    err = (struct status)STATUS_INIT;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close(memory);
    assert_true(tree_remove(root, &err));
    return 0;
}

static char *at(const char *path)
{
    return xasprintf("%s/%s", root, path);
}

static void make_folder(const char *path)
{
    cleanup_free char *whole = at(path);

    assert_true(dir_make(whole, 0755, &err));
}

static void make_file(const char *path, const char *content)
{
    cleanup_free char *whole = at(path);

    assert_true(file_replace(whole, content, strlen(content), 0644, &err));
}

static void make_link(const char *path, const char *target)
{
    cleanup_free char *whole = at(path);

    unlink(whole);
    assert_int_equal(symlink(target, whole), 0);
}

static void make_volume(void)
{
    make_folder("v/..1/in");
    make_file("v/..1/key", "value");
    make_file("v/..1/in/deep", "");
    make_link("v/..data", "..1");
    make_link("v/key", "..data/key");
    make_link("v/in", "..data/in");
    make_folder("v/nested/more");
}

/* What was read, as text: "path mode size content" a line. */
static char *read_back(const struct volume_piece *piece)
{
    cleanup_buf struct buf text = BUF_INIT, packed = BUF_INIT;

    for (uint64_t from = piece->offset; from < piece->offset + piece->length;) {
        uint32_t length;
        assert_int_equal(pread(memory, &length, sizeof length, (off_t)from), sizeof length);
        buf_clear(&packed);
        assert_int_equal(pread(memory, buf_reserve(&packed, length), length, (off_t)(from + sizeof length)), length);
        Interlink__Agent__V1__PutFilesRequest *m = interlink__agent__v1__put_files_request__unpack(NULL, length, packed.p);
        assert_non_null(m);
        for (size_t i = 0; i < m->n_entries; i++) {
            const Interlink__Agent__V1__FileEntry *e = m->entries[i];
            buf_printf(&text, "%.*s %o %llu %.*s%.*s\n", (int)e->path.len, (const char *)e->path.data, e->mode,
                       (unsigned long long)e->size, (int)(e->data.len < 20 ? e->data.len : 20), (const char *)e->data.data,
                       (int)e->target.len, (const char *)e->target.data);
        }
        if (m->data.len > 0)
            buf_printf(&text, "+%zu\n", m->data.len);
        protobuf_c_message_free_unpacked(&m->base, NULL);
        from += sizeof length + length;
    }
    return buf_steal(&text);
}

static void test_reading_projected(void **state)
{
    struct volume_piece piece, again;

    (void)state;
    make_volume();
    assert_true(volume_read(root, "v", true, memory, &end, &piece, &err));
    assert_int_equal(piece.kind, INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_PROJECTED);
    assert_string_equal(piece.link, "..1");
    assert_int_equal(piece.length, end);
    cleanup_free char *text = read_back(&piece);
    assert_string_equal(text, " 40755 0 \n..data 40755 0 \n..data/in 40755 0 \n..data/in/deep 100644 0 \n"
                              "..data/key 100644 5 value\nnested 40755 0 \nnested/more 40755 0 \n");
    /* The same files under another date are the same version; another mode is another one. */
    cleanup_free char *old = at("v/..1"), *fresh = at("v/..2"), *key = at("v/..2/key");
    assert_int_equal(rename(old, fresh), 0);
    make_link("v/..data", "..2");
    assert_true(volume_read(root, "v", true, memory, &end, &again, &err));
    assert_string_equal(piece.version, again.version);
    assert_string_equal(again.link, "..2");
    assert_int_equal(again.offset, piece.length);
    assert_int_equal(chmod(key, 0600), 0);
    assert_true(volume_read(root, "v", true, memory, &end, &again, &err));
    assert_string_not_equal(piece.version, again.version);
}

static void test_reading_others(void **state)
{
    struct volume_piece piece;

    (void)state;
    make_folder("dir");
    make_file("dir/file", "text");
    make_link("dir/link", "/etc/passwd");
    assert_true(volume_read(root, "dir", false, memory, &end, &piece, &err));
    cleanup_free char *text = read_back(&piece);
    assert_string_equal(text, " 40755 0 \nfile 100644 4 text\nlink 120777 0 /etc/passwd\n");
    assert_int_equal(piece.kind, INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_FOLDER);
    assert_true(volume_read(root, "dir/file", false, memory, &end, &piece, &err));
    assert_int_equal(piece.kind, INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_FILE);
    cleanup_free char *file = read_back(&piece);
    assert_string_equal(file, " 100644 4 text\n");
    /* Large ones in pieces. */
    cleanup_free char *large = xmalloc(300001);
    memset(large, 'x', 300000);
    large[300000] = '\0';
    make_file("large", large);
    assert_true(volume_read(root, "large", false, memory, &end, &piece, &err));
    cleanup_free char *pieces = read_back(&piece);
    assert_string_equal(pieces, " 100644 300000 xxxxxxxxxxxxxxxxxxxx\n+131072\n+37856\n");
}

static void refuse(const char *name, bool projected, enum status_code code)
{
    struct volume_piece piece;
    uint64_t before = end;

    assert_false(volume_read(root, name, projected, memory, &end, &piece, &err));
    if (err.code != code)
        fail_msg("%s: %s", name, err.message);
    assert_int_equal(end, before);
}

static void test_reading_refused(void **state)
{
    (void)state;
    make_volume();
    refuse("none", true, STATUS_NOT_FOUND);
    refuse("../v", true, STATUS_INTERNAL); /* EXDEV: beneath.h */
    make_link("link", "v");
    refuse("link", true, STATUS_INTERNAL);
    refuse("link/nested", false, STATUS_INTERNAL);
    refuse("v/..1/key", true, STATUS_FAILED_PRECONDITION);
    make_link("v/..data", "../v/..1");
    refuse("v", true, STATUS_UNAVAILABLE);
    make_link("v/..data", "/etc");
    refuse("v", true, STATUS_UNAVAILABLE);
    make_link("v/..data", "..gone");
    refuse("v", true, STATUS_UNAVAILABLE);
    make_link("v/..data", "..1");
    cleanup_free char *pipe_path = at("v/..1/pipe"), *huge = at("v/..1/huge");
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    refuse("v", true, STATUS_FAILED_PRECONDITION);
    refuse("v/..1/pipe", false, STATUS_FAILED_PRECONDITION);
    assert_int_equal(unlink(pipe_path), 0);
    make_file("v/..1/huge", "");
    assert_int_equal(truncate(huge, FILES_VOLUME_BYTES_MAX + 1), 0);
    refuse("v", true, STATUS_RESOURCE_EXHAUSTED);
    cleanup_buf struct buf deep = BUF_INIT;
    buf_append_str(&deep, "deep");
    for (int i = 0; i < FILES_DEPTH_MAX + 1; i++)
        buf_append_str(&deep, "/d");
    make_folder(buf_cstr(&deep));
    refuse("deep", false, STATUS_RESOURCE_EXHAUSTED);
}

/* Turns the volume over as kubelet does, as fast as it can. */
static void write_for_ever(void)
{
    cleanup_free char *data = at("v/..data"), *next = at("v/..data_tmp");

    for (unsigned i = 0;; i++) {
        cleanup_free char *name = xasprintf("..%u", i + 10), *folder = xasprintf("%s/v/%s", root, name);
        cleanup_free char *one = xasprintf("%s/one", folder), *two = xasprintf("%s/two", folder), *text = xasprintf("%u", i);
        cleanup_free char *old = xasprintf("%s/v/..%u", root, i + 9);
        mkdir(folder, 0755);
        if (!file_replace(one, text, strlen(text), 0644, &err) || !file_replace(two, text, strlen(text), 0644, &err) ||
            symlink(name, next) < 0 || rename(next, data) < 0)
            _exit(1);
        (void)tree_remove(old, &err);
        usleep(500);
    }
}

static void test_reading_while_it_changes(void **state)
{
    struct volume_piece piece;
    unsigned good = 0;
    int status;

    (void)state;
    make_folder("v/..9");
    make_file("v/..9/one", "");
    make_file("v/..9/two", "");
    make_link("v/..data", "..9");
    pid_t pid = fork();
    if (pid == 0)
        write_for_ever();
    for (int i = 0; i < 300; i++) {
        unsigned one, two;
        if (!volume_read(root, "v", true, memory, &end, &piece, &err)) {
            assert_int_equal(err.code, STATUS_UNAVAILABLE);
            continue;
        }
        cleanup_free char *text = read_back(&piece);
        const char *first = strstr(text, "..data/one"), *second = strstr(text, "..data/two");
        assert_true(first != NULL && second != NULL);
        if (sscanf(first, "..data/one %*o %*u %u", &one) == 1 && sscanf(second, "..data/two %*o %*u %u", &two) == 1)
            assert_int_equal(one, two);
        good++;
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status));
    assert_true(good > 10);
}

/* ---- plans ---- */

static void test_plan(void **state)
{
    Runtime__V1__ContainerConfig config = RUNTIME__V1__CONTAINER_CONFIG__INIT;
    Runtime__V1__Mount m[5], *mounts[] = { &m[0], &m[1], &m[2], &m[3], &m[4] };
    static const char *const shared[] = { "/shared", NULL };
    cleanup_buf struct buf output = BUF_INIT;
    struct volume_plan plan;

    (void)state;
    make_folder("pods/u/volumes/kubernetes.io~configmap/cm/..1");
    make_file("pods/u/volumes/kubernetes.io~configmap/cm/..1/key", "value");
    make_link("pods/u/volumes/kubernetes.io~configmap/cm/..data", "..1");
    make_folder("pods/u/volumes/kubernetes.io~empty-dir/e/sub");
    cleanup_free char *cm = at("pods/u/volumes/kubernetes.io~configmap/cm");
    cleanup_free char *sub = at("pods/u/volumes/kubernetes.io~empty-dir/e/sub"), *log = at("pods/u/containers/c/0");
    for (size_t i = 0; i < COUNT_OF(m); i++)
        runtime__v1__mount__init(&m[i]);
    m[0].host_path = m[1].host_path = cm;
    m[2].host_path = (char *)(uintptr_t) "/shared/x";
    m[3].host_path = sub;
    m[4].host_path = log;
    config.mounts = mounts;
    config.n_mounts = COUNT_OF(m);
    if (!volume_plan_make(&config, "u", shared, "cluster", memory, &output, &err))
        fail_msg("%s", err.message);
    assert_true(volume_plan_parse((struct str){ (const char *)output.p, output.n }, &plan, &err));
    assert_int_equal(plan.piece_count, 1); /* read once, mounted twice */
    assert_string_equal(plan.pieces[0].name, "volumes/kubernetes.io~configmap/cm");
    assert_int_equal(plan.request->n_sources, 5);
    Interlink__Agent__V1__MountSource **s = plan.request->sources;
    assert_string_equal(s[1]->volume, "volumes/kubernetes.io~configmap/cm");
    assert_string_equal(s[2]->path, "/shared/x");
    assert_string_equal(s[3]->volume, "e");
    assert_string_equal(s[3]->empty_dir->sub_path, "sub");
    assert_int_equal(s[3]->empty_dir->mode, 0755);
    assert_int_equal(s[4]->kind, INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_TERMINATION_LOG);
    volume_plan_free(&plan);
    for (size_t n = 0; n < sizeof(uint64_t) + sizeof(struct volume_piece); n += 100) {
        assert_false(volume_plan_parse((struct str){ (const char *)output.p, n }, &plan, &err));
        volume_plan_free(&plan);
    }
    m[4].host_path = (char *)(uintptr_t) "/etc/ssl";
    buf_clear(&output);
    assert_false(volume_plan_make(&config, "u", shared, "cluster", memory, &output, &err));
    assert_int_equal(err.code, STATUS_FAILED_PRECONDITION);
    assert_non_null(strstr(err.message, "config.mounts[4].host_path: /etc/ssl is on this node only, and handler cluster"));
    /* What is refreshed. */
    const char *paths[] = { cm, "/nowhere/pods/u/volumes/kubernetes.io~secret/s", "/etc/ssl" };
    log_setup(LOG_ERROR, "test");
    volume_plan_reread(paths, COUNT_OF(paths), "u", memory, &output);
    assert_true(volume_plan_parse((struct str){ (const char *)output.p, output.n }, &plan, &err));
    assert_int_equal(plan.piece_count, 1);
    assert_int_equal(plan.request->n_sources, 0);
    volume_plan_free(&plan);
}

#define VOLUME_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_origins),
        VOLUME_TEST(test_reading_projected),
        VOLUME_TEST(test_reading_others),
        VOLUME_TEST(test_reading_refused),
        VOLUME_TEST(test_reading_while_it_changes),
        VOLUME_TEST(test_plan),
    };
    umask(0022);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
