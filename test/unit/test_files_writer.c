/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes as they come from the node: links, modes, what a reader sees, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/files_writer.h"
#include "base/base.h"
#include "io/beneath.h"
#include "io/file.h"

#define PB(name) Interlink__Agent__V1__##name
#define VOLUME "volumes/kubernetes.io~configmap/cm"
#define KEY "volumes+kubernetes.io~configmap+cm"

static char root[64];
static struct files_writer w;
static struct status err;

static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/files-writer-XXXXXX");
    assert_non_null(mkdtemp(root));
    files_writer_open(&w, root);
    err = (struct status)STATUS_INIT;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    files_writer_close(&w);
    assert_true(tree_remove(root, &err));
    return 0;
}

static bool start(PB(VolumeKind) kind)
{
    PB(PutFilesStart) s = INTERLINK__AGENT__V1__PUT_FILES_START__INIT;
    PB(PutFilesRequest) m = INTERLINK__AGENT__V1__PUT_FILES_REQUEST__INIT;

    s.volume = (char *)(uintptr_t)VOLUME;
    s.version = (char *)(uintptr_t) "1";
    s.kind = kind;
    m.start = &s;
    return files_writer_take(&w, &m, &err);
}

static bool put(const char *path, size_t path_length, uint32_t mode, const char *content, size_t size)
{
    PB(FileEntry) e = INTERLINK__AGENT__V1__FILE_ENTRY__INIT, *entries[] = { &e };
    PB(PutFilesRequest) m = INTERLINK__AGENT__V1__PUT_FILES_REQUEST__INIT;

    e.path = (ProtobufCBinaryData){ path_length, (uint8_t *)(uintptr_t)path };
    e.mode = mode;
    e.uid = getuid();
    e.gid = getgid();
    if (S_ISLNK(mode))
        e.target = (ProtobufCBinaryData){ strlen(content), (uint8_t *)(uintptr_t)content };
    else
        e.data = (ProtobufCBinaryData){ strlen(content), (uint8_t *)(uintptr_t)content };
    e.size = size;
    m.entries = entries;
    m.n_entries = 1;
    return files_writer_take(&w, &m, &err);
}

static bool folder(const char *path)
{
    return put(path, strlen(path), S_IFDIR | 0755, "", 0);
}

static bool file(const char *path, const char *content)
{
    return put(path, strlen(path), S_IFREG | 0644, content, strlen(content));
}

static bool more(const char *data)
{
    PB(PutFilesRequest) m = INTERLINK__AGENT__V1__PUT_FILES_REQUEST__INIT;

    m.data = (ProtobufCBinaryData){ strlen(data), (uint8_t *)(uintptr_t)data };
    return files_writer_take(&w, &m, &err);
}

static char *tree(const char *path)
{
    return xasprintf("%s/" KEY "/tree%s%s", root, *path != '\0' ? "/" : "", path);
}

static void expect(const char *path, const char *content)
{
    cleanup_free char *at = tree(path);
    cleanup_buf struct buf text = BUF_INIT;

    if (!file_read(at, 1 << 20, &text, &err))
        fail_msg("%s", err.message);
    assert_string_equal(buf_cstr(&text), content);
}

static void expect_link(const char *path, const char *wanted)
{
    cleanup_free char *at = tree(path);
    char target[256] = "";

    assert_true(readlink(at, target, sizeof target - 1) > 0);
    if (*wanted != '\0')
        assert_string_equal(target, wanted);
}

static bool there(const char *path)
{
    cleanup_free char *at = tree(path);
    struct stat st;

    return lstat(at, &st) == 0;
}

static size_t count(const char *path)
{
    cleanup_free char *at = tree(path);
    DIR *dir = opendir(at);
    size_t n = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n - 2;
}

/* Two files that say the same. */
static void write_pair(const char *text)
{
    assert_true(start(INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_PROJECTED));
    assert_true(folder("") && folder("..data") && file("..data/one", text) && file("..data/two", text));
    assert_true(files_writer_end(&w, &err));
}

static void test_projected(void **state)
{
    struct stat st;

    (void)state;
    assert_true(start(INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_PROJECTED));
    assert_true(put("", 0, S_IFDIR | S_ISGID | 0777, "", 0) && folder("..data") && folder("..data/in") && folder("nested"));
    assert_true(file("..data/in/deep", "deep"));
    assert_true(put("..data/key", 10, S_IFREG | 0440, "val", 6) && more("u") && more("es"));
    assert_true(files_writer_end(&w, &err));
    expect_link("key", "..data/key");
    expect_link("in", "..data/in");
    expect_link("..data", "");
    expect("key", "values");
    expect("in/deep", "deep");
    assert_true(there("nested"));
    assert_int_equal(count(""), 5); /* ..data, its folder, two links, the folder for a mount */
    cleanup_free char *top = tree(""), *key = tree("..data/key");
    assert_int_equal(stat(top, &st), 0);
    assert_int_equal(st.st_mode & 07777, 02777);
    assert_int_equal(stat(key, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0440);
    /* One name goes, one comes, one stays. */
    char before[256] = "", after[256] = "";
    cleanup_free char *data = tree("..data");
    assert_true(readlink(data, before, sizeof before - 1) > 0 && str_starts(before, "..20"));
    assert_true(start(INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_PROJECTED));
    assert_true(folder("") && folder("..data") && file("..data/key", "short") && file("..data/new", ""));
    assert_true(there("in"));
    assert_true(files_writer_end(&w, &err));
    assert_true(readlink(data, after, sizeof after - 1) > 0);
    assert_string_not_equal(before, after);
    expect("key", "short");
    expect("new", "");
    assert_false(there("in"));
    assert_false(there(before));
    assert_true(there("nested"));
    assert_int_equal(count(""), 5);
}

/* A writer may be killed anywhere. */
static void test_leftovers(void **state)
{
    (void)state;
    write_pair("first");
    cleanup_free char *half = tree("..2020_01_01_00_00_00.1"), *inside = tree("..2020_01_01_00_00_00.1/x"), *link = tree("..data_tmp");
    assert_int_equal(mkdir(half, 0700) + mkdir(inside, 0) + symlink("..2020_01_01_00_00_00.1", link), 0);
    assert_true(start(INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_PROJECTED));
    assert_true(folder("") && folder("..data") && file("..data/one", "given up"));
    files_writer_close(&w);
    expect("one", "first");
    files_writer_open(&w, root);
    write_pair("second");
    expect("one", "second");
    expect("two", "second");
    assert_int_equal(count(""), 4);
}

static bool read_at(int dir_fd, const char *name, char out[16])
{
    cleanup_close int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);

    memset(out, 0, 16);
    return fd >= 0 && read(fd, out, 15) > 0;
}

/* Reads until it is killed; ends by itself with 1 when it has seen some of each version. */
static void read_for_ever(const char *at)
{
    char one[16], two[16];

    for (;;) {
        cleanup_close int fd = open(at, O_PATH | O_DIRECTORY | O_CLOEXEC);
        /* A version that has gone on the way, after the link to it was read, is no mixture. kubelet's volumes have that moment, too. */
        if (fd >= 0 && read_at(fd, "one", one) && read_at(fd, "two", two) && strcmp(one, two) != 0)
            _exit(1);
    }
}

static void test_reader_never_sees_a_mixture(void **state)
{
    cleanup_free char *data = tree("..data");
    char text[16];
    int status;

    (void)state;
    write_pair("0");
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        read_for_ever(data);
    for (int i = 1; i < 500; i++) {
        snprintf(text, sizeof text, "%d", i);
        write_pair(text);
    }
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

static void test_folder_and_file(void **state)
{
    struct stat before, after;

    (void)state;
    assert_true(start(INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_FOLDER));
    assert_true(put("", 0, S_IFDIR | 0555, "", 0) && put("a", 1, S_IFDIR | 0500, "", 0) && file("a/b", "c"));
    assert_true(put("l", 1, S_IFLNK | 0777, "a/b", 0));
    assert_true(files_writer_end(&w, &err));
    expect("l", "c");
    assert_true(start(INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_FOLDER));
    assert_true(folder("") && file("other", ""));
    assert_true(there("a/b"));
    assert_true(files_writer_end(&w, &err));
    assert_false(there("a"));
    assert_true(there("other"));
    /* The same place may have become a file. It is mounted: its content changes, not the file. */
    assert_true(start(INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_FILE) && file("", "a long line"));
    assert_true(files_writer_end(&w, &err));
    cleanup_free char *at = tree("");
    expect("", "a long line");
    assert_int_equal(stat(at, &before), 0);
    assert_true(start(INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_FILE) && put("", 0, S_IFREG | 0600, "short", 5));
    assert_true(files_writer_end(&w, &err));
    expect("", "short");
    assert_int_equal(stat(at, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_int_equal(after.st_mode & 07777, 0600);
}

/* Each in a volume of its own, after an honest beginning. */
static void refuse(bool (*bad)(void), enum status_code code)
{
    assert_true(start(INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_PROJECTED) && folder("") && folder("..data"));
    assert_false(bad() && files_writer_end(&w, &err));
    if (err.code != code)
        fail_msg("%s", err.message);
    files_writer_close(&w);
    files_writer_open(&w, root);
}

static bool bad_up(void) { return file("../x", ""); }
static bool bad_up_inside(void) { return file("..data/a/../../x", ""); }
static bool bad_absolute(void) { return file("/tmp/x", ""); }
static bool bad_reserved(void) { return file("..x", ""); }
static bool bad_data_itself(void) { return file("..data", ""); }
static bool bad_empty_part(void) { return folder("..data/a") && file("..data/a//b", ""); }
static bool bad_nul(void) { return put("..data/a\0b", 10, S_IFREG | 0644, "", 0); }
static bool bad_device(void) { return put("..data/d", 8, S_IFCHR | 0644, "", 0); }
static bool bad_second_root(void) { return folder(""); }
static bool bad_long(void) { return put("..data/x", 8, S_IFREG | 0644, "12345", 4); }
static bool bad_short(void) { return put("..data/x", 8, S_IFREG | 0644, "12345", 6); }
static bool bad_data(void) { return more("x"); }
static bool bad_huge(void) { return put("..data/x", 8, S_IFREG | 0644, "", FILES_VOLUME_BYTES_MAX + 1ull); }
static bool bad_twice(void) { return file("..data/x", "1") && file("..data/x", "2"); }
static bool bad_no_parent(void) { return file("..data/a/b", ""); }
static bool bad_through_link(void)
{
    return put("..data/l", 8, S_IFLNK | 0777, "/tmp", 0) && file("..data/l/files-writer-escaped", "");
}
static bool bad_deep(void)
{
    cleanup_buf struct buf path = BUF_INIT;

    buf_append_str(&path, "..data");
    for (int i = 0; i < FILES_DEPTH_MAX; i++) {
        buf_append_str(&path, "/a");
        if (!folder(buf_cstr(&path)))
            return false;
    }
    return true;
}

static void test_refused(void **state)
{
    (void)state;
    refuse(bad_up, STATUS_INVALID_ARGUMENT);
    refuse(bad_up_inside, STATUS_INVALID_ARGUMENT);
    refuse(bad_absolute, STATUS_INVALID_ARGUMENT);
    refuse(bad_reserved, STATUS_INVALID_ARGUMENT);
    refuse(bad_data_itself, STATUS_INVALID_ARGUMENT);
    refuse(bad_empty_part, STATUS_INVALID_ARGUMENT);
    refuse(bad_nul, STATUS_INVALID_ARGUMENT);
    refuse(bad_device, STATUS_INVALID_ARGUMENT);
    refuse(bad_second_root, STATUS_INVALID_ARGUMENT);
    refuse(bad_long, STATUS_INVALID_ARGUMENT);
    refuse(bad_short, STATUS_INVALID_ARGUMENT);
    refuse(bad_data, STATUS_INVALID_ARGUMENT);
    refuse(bad_huge, STATUS_RESOURCE_EXHAUSTED);
    refuse(bad_twice, STATUS_ALREADY_EXISTS);
    refuse(bad_no_parent, STATUS_NOT_FOUND);
    refuse(bad_through_link, STATUS_INTERNAL);
    refuse(bad_deep, STATUS_RESOURCE_EXHAUSTED);
    assert_int_not_equal(access("/tmp/files-writer-escaped", F_OK), 0);
    assert_false(there("..data"));
    /* What was made on the way goes with the first good one. */
    write_pair("good");
    assert_int_equal(count(""), 4);
    assert_false(more("x"));
    assert_true(start(INTERLINK__AGENT__V1__VOLUME_KIND__VOLUME_FILE));
    assert_false(folder(""));
}

static void test_names(void **state)
{
    PB(PutFilesStart) s = INTERLINK__AGENT__V1__PUT_FILES_START__INIT;
    static const char *const bad[] = { "", "/a", "a/", "a//b", "..", "a/../b", ".", "a+b", "a b", "a\nb" };

    (void)state;
    s.version = (char *)(uintptr_t) "1";
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        s.volume = (char *)(uintptr_t)bad[i];
        assert_false(files_writer_check(&s, &err));
        assert_null(files_writer_path(root, bad[i]));
    }
    s.volume = (char *)(uintptr_t) "volume-subpaths/cm/web/6";
    assert_true(files_writer_check(&s, &err));
    cleanup_free char *path = files_writer_path("/r/x", s.volume);
    assert_string_equal(path, "/r/x/volume-subpaths+cm+web+6/tree");
    s.version = (char *)(uintptr_t) "";
    assert_false(files_writer_check(&s, &err));
    s.version = (char *)(uintptr_t) "1";
    s.kind = (PB(VolumeKind))99;
    assert_false(files_writer_check(&s, &err));
}

/* ---- io/beneath.h ---- */

static void test_beneath(void **state)
{
    cleanup_close int at = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    const char *name;

    (void)state;
    assert_int_equal(mkdirat(at, "d", 0755) + symlinkat("d", at, "l") + symlinkat("/etc", at, "out") + symlinkat("../..", at, "up"), 0);
    assert_int_equal(close(beneath_open(at, "d/f", O_WRONLY | O_CREAT, 0600)), 0);
    assert_int_equal(close(beneath_open(at, "", O_RDONLY | O_DIRECTORY, 0)), 0);
    assert_int_equal(beneath_open(at, "l/f", O_RDONLY, 0), -1);
    assert_int_equal(beneath_open(at, "../etc", O_RDONLY, 0), -1);
    assert_int_equal(beneath_open_links(at, "out/passwd", O_RDONLY), -1);
    assert_int_equal(beneath_open_links(at, "up/etc", O_RDONLY), -1);
    int link = beneath_open(at, "l", O_PATH | O_NOFOLLOW, 0);
    assert_int_equal(close(link), 0);
    int parent = beneath_parent(at, "d/f", &name);
    assert_string_equal(name, "f");
    assert_int_equal(close(parent), 0);
    assert_int_equal(beneath_parent(at, "d/", &name), -1);
    assert_int_equal(beneath_parent(at, "l/f", &name), -1);
    assert_true(beneath_is_plain("a/b.c/...") && !beneath_is_plain("a/./b") && !beneath_is_plain("") && !beneath_is_plain("/"));
}

#define WRITER_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WRITER_TEST(test_projected),
        WRITER_TEST(test_leftovers),
        WRITER_TEST(test_reader_never_sees_a_mixture),
        WRITER_TEST(test_folder_and_file),
        WRITER_TEST(test_refused),
        WRITER_TEST(test_names),
        WRITER_TEST(test_beneath),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
