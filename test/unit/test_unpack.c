/* SPDX-License-Identifier: Apache-2.0 */
#include "image/layer_path.h"
#include "image/unpack.h"
#include "io/file.h"
#include "io/userns.h"
#include "tar_maker.h"

#include <fcntl.h>
#include <setjmp.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

static const struct digest any; /* zero: not checked */
static char top[64];           /* the test's folder */
static char outside[96];       /* what nothing may reach */
static unsigned counter;

static int setup(void **state)
{
    (void)state;
    snprintf(top, sizeof top, "/tmp/test-unpack-XXXXXX");
    assert_non_null(mkdtemp(top));
    snprintf(outside, sizeof outside, "%s/outside", top);
    assert_int_equal(mkdir(outside, 0755), 0);
    return 0;
}

static int teardown(void **state)
{
    struct status err = STATUS_INIT;

    (void)state;
    if (!tree_remove(top, &err))
        fail_msg("%s", err.message);
    return 0;
}

static void write_blob(const char *path, const struct buf *blob)
{
    struct status err = STATUS_INIT;

    assert_true(file_replace(path, blob->p, blob->n, 0600, &err));
}

/* The name of a layer that does not exist yet. */
static char *fresh(void)
{
    return xasprintf("%s/layer%u", top, counter++);
}

static bool unpack_limited(struct buf *tar, const char *dest, const struct unpack_limits *limits, struct unpacked *out,
                           struct status *err)
{
    char *blob = xasprintf("%s/blob", top);

    write_blob(blob, tar);
    bool ok = unpack_layer(blob, &any, &any, dest, limits, out, err);
    free(blob);
    return ok;
}

static char *unpack_ok(struct buf *tar, struct unpacked *out)
{
    struct status err = STATUS_INIT;
    struct unpacked ignored;
    char *dest = fresh();

    tar_end(tar);
    if (!unpack_limited(tar, dest, NULL, out != NULL ? out : &ignored, &err))
        fail_msg("%s", err.message);
    buf_free(tar);
    return dest;
}

static size_t count_entries(const char *dir)
{
    char *command = xasprintf("find %s -mindepth 1 | wc -l", dir);
    char line[32] = "";
    FILE *f = popen(command, "r");

    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f));
    pclose(f);
    free(command);
    return (size_t)atol(line);
}

static void unpack_refused(struct buf *tar, enum status_code code, const char *why)
{
    struct status err = STATUS_INIT;
    struct unpacked out;
    char *dest = fresh();
    size_t before;

    tar_end(tar);
    char *blob = xasprintf("%s/blob", top);
    write_blob(blob, tar);
    free(blob);
    before = count_entries(top);
    if (unpack_limited(tar, dest, NULL, &out, &err))
        fail_msg("it was taken; wanted: %s", why);
    if (strstr(err.message, why) == NULL)
        fail_msg("'%s' does not say '%s'", err.message, why);
    assert_int_equal(err.code, code);
    assert_int_equal(access(dest, F_OK), -1);
    assert_int_equal(count_entries(top), before); /* nothing is left behind */
    assert_int_equal(count_entries(outside), 0);
    buf_free(tar);
    free(dest);
}

static struct stat stat_of(const char *layer, const char *name)
{
    char *path = xasprintf("%s/%s", layer, name);
    struct stat st;

    if (lstat(path, &st) < 0)
        fail_msg("%s is missing", path);
    free(path);
    return st;
}

static bool exists(const char *layer, const char *name)
{
    char *path = xasprintf("%s/%s", layer, name);
    struct stat st;
    bool there = lstat(path, &st) == 0;

    free(path);
    return there;
}

static void assert_content(const char *layer, const char *name, const char *content)
{
    char *path = xasprintf("%s/%s", layer, name);
    struct buf b = BUF_INIT;
    struct status err = STATUS_INIT;

    if (!file_read(path, 1 << 20, &b, &err))
        fail_msg("%s", err.message);
    assert_string_equal(buf_cstr(&b), content);
    buf_free(&b);
    free(path);
}

static bool is_whiteout(const char *layer, const char *name)
{
    struct stat st = stat_of(layer, name);

    return S_ISCHR(st.st_mode) && st.st_rdev == 0;
}

static bool is_opaque(const char *layer, const char *name)
{
    char *path = xasprintf("%s/%s", layer, name);
    char value[8];
    bool opaque = lgetxattr(path, geteuid() == 0 ? "trusted.overlay.opaque" : "user.overlay.opaque", value, sizeof value) == 1 &&
                  value[0] == 'y';

    free(path);
    return opaque;
}

/* ---- what honest archives hold ---- */

static void test_kinds(void **state)
{
    struct buf tar = BUF_INIT;
    struct unpacked out;
    bool root = geteuid() == 0;
    char target[32] = "";

    (void)state;
    tar_add(&tar, &(struct tar_entry){ .name = "./", .type = '5', .mode = 0750, .mtime = 1234567890 });
    tar_add(&tar, &(struct tar_entry){ .name = "etc/", .type = '5', .mode = 0700, .uid = 5, .gid = 6, .mtime = 42 });
    tar_add(&tar, &(struct tar_entry){ .name = "etc/shadow", .type = '0', .mode = 0, .uid = 7, .gid = 8, .data = "x", .n = 1 });
    tar_add(&tar, &(struct tar_entry){ .name = "bin/su", .type = '0', .mode = 04755, .uid = 3, .data = "su", .n = 2, .mtime = 77 });
    tar_link(&tar, '1', "bin/su2", "bin/su");
    tar_link(&tar, '1', "bin/su3", "/./bin//su2");
    tar_link(&tar, '2', "bin/abs", "/bin/su");
    tar_link(&tar, '2', "dangling", "../../../nowhere");
    tar_add(&tar, &(struct tar_entry){ .name = "tmp", .type = '5', .mode = 01777 });
    tar_add(&tar, &(struct tar_entry){ .name = "pipe", .type = '6', .mode = 0622 });
    tar_add(&tar, &(struct tar_entry){ .name = "null", .type = '3', .mode = 0666, .major = 1, .minor = 3 });
    tar_file(&tar, "/absolute/./name", "inside");
    tar_file(&tar, "empty", "");
    char *layer = unpack_ok(&tar, &out);
    struct stat st = stat_of(layer, ".");
    assert_int_equal(st.st_mode & 07777, 0750);
    assert_int_equal(st.st_mtime, 1234567890);
    st = stat_of(layer, "etc");
    assert_int_equal(st.st_mtime, 42);
    assert_int_equal(st.st_uid, root ? 5 : geteuid());
    st = stat_of(layer, "etc/shadow");
    assert_int_equal(st.st_mode & 07777, root ? 0 : 0400);
    assert_int_equal(st.st_gid, root ? 8 : getegid());
    st = stat_of(layer, "bin/su");
    assert_int_equal(st.st_mode & 07777, 04755);
    assert_int_equal(st.st_nlink, 3);
    assert_int_equal(st.st_mtime, 77);
    assert_int_equal(stat_of(layer, "bin/su3").st_ino, st.st_ino);
    char *path = xasprintf("%s/bin/abs", layer);
    assert_int_equal(readlink(path, target, sizeof target - 1), 7);
    assert_string_equal(target, "/bin/su");
    free(path);
    assert_true(S_ISLNK(stat_of(layer, "dangling").st_mode));
    assert_int_equal(stat_of(layer, "tmp").st_mode & 07777, 01777);
    assert_true(S_ISFIFO(stat_of(layer, "pipe").st_mode));
    assert_content(layer, "absolute/name", "inside");
    assert_int_equal(stat_of(layer, "empty").st_size, 0);
    if (root && out.devices_skipped == 0) {
        st = stat_of(layer, "null");
        assert_true(S_ISCHR(st.st_mode));
        assert_int_equal(st.st_rdev, makedev(1, 3));
    } else {
        assert_int_equal(out.devices_skipped, 1);
    }
    /* root, etc, bin, tmp, absolute; shadow, su, abs, dangling, pipe, null, name, empty */
    assert_int_equal(out.inodes, 13 - out.devices_skipped);
    assert_int_equal(out.form, UNPACK_ANY);
    struct unpacked again;
    struct status err = STATUS_INIT;
    assert_true(unpack_layer_info(layer, &again, &err));
    assert_memory_equal(&again, &out, sizeof out);
    free(layer);
}

static void test_whiteouts(void **state)
{
    struct buf tar = BUF_INIT;
    struct unpacked out;

    (void)state;
    tar_file(&tar, "a/.wh.gone", "");
    tar_dir(&tar, "b");
    tar_file(&tar, "b/.wh..wh..opq", "");
    tar_file(&tar, "c/.wh..wh..opq", "");   /* its folder comes by itself */
    tar_file(&tar, "d/.wh.sub", "");        /* hidden, then made anew as a folder */
    tar_dir(&tar, "d/sub");
    tar_file(&tar, "d/sub/x", "1");
    tar_dir(&tar, "e/sub");                 /* the other way round */
    tar_file(&tar, "e/.wh.sub", "");
    tar_file(&tar, "f/.wh.file", "");       /* hidden, then made anew as a file */
    tar_file(&tar, "f/file", "2");
    tar_file(&tar, "g/file", "3");          /* a layer hides nothing of its own */
    tar_file(&tar, "g/.wh.file", "");
    tar_file(&tar, "h/.wh.deep", "");       /* hidden, then needed on the way */
    tar_file(&tar, "h/deep/er/x", "4");
    tar_file(&tar, ".wh..wh.aufs", "");
    tar_file(&tar, ".wh..wh.plnk/1.2", "x");
    tar_add(&tar, &(struct tar_entry){ .name = "i", .type = '3', .mode = 0 }); /* a whiteout in overlayfs' own form */
    char *layer = unpack_ok(&tar, &out);
    assert_true(is_whiteout(layer, "a/gone"));
    assert_true(is_opaque(layer, "b"));
    assert_true(is_opaque(layer, "c"));
    assert_true(is_opaque(layer, "d/sub"));
    assert_content(layer, "d/sub/x", "1");
    assert_true(is_opaque(layer, "e/sub"));
    assert_content(layer, "f/file", "2");
    assert_content(layer, "g/file", "3");
    assert_true(is_opaque(layer, "h/deep"));
    assert_false(is_opaque(layer, "h/deep/er"));
    assert_content(layer, "h/deep/er/x", "4");
    assert_false(exists(layer, ".wh..wh.aufs"));
    assert_false(exists(layer, ".wh..wh.plnk"));
    assert_true(is_whiteout(layer, "i"));
    assert_int_equal(out.form, geteuid() == 0 ? UNPACK_TRUSTED : UNPACK_USER);
    free(layer);
    tar_file(&tar, "x/.wh.", "");
    unpack_refused(&tar, STATUS_INVALID_ARGUMENT, "names nothing");
    tar_file(&tar, "x/.wh..", "");
    unpack_refused(&tar, STATUS_INVALID_ARGUMENT, "names nothing");
}

static void test_names(void **state)
{
    struct buf tar = BUF_INIT, records = BUF_INIT, content = BUF_INIT;
    char path[301], gnu[301];

    (void)state;
    for (size_t i = 0; i < 300; i++) {
        path[i] = i % 100 == 99 ? '/' : (char)('a' + i % 26);
        gnu[i] = i % 100 == 99 ? '/' : (char)('A' + i % 26);
    }
    path[299] = gnu[299] = 'z';
    path[300] = gnu[300] = '\0';
    tar_pax_record(&records, "path", path, 300);
    tar_pax_record(&records, "mtime", "1500000000.25", 13);
    tar_pax_record(&records, "uid", "3000000", 7);
    tar_pax(&tar, &records);
    tar_file(&tar, "short", "pax");
    tar_add(&tar, &(struct tar_entry){ .name = "././@LongLink", .type = 'L', .data = gnu, .n = 301 });
    tar_file(&tar, "short", "gnu");
    tar_add(&tar, &(struct tar_entry){ .name = "name", .prefix = "prefix", .type = '0', .mode = 0600, .data = "ustar", .n = 5 });
    buf_clear(&records);
    tar_pax_record(&records, "path", "gr\xc3\xbc\xc3\x9f/\xe6\x97\xa5", 10);
    tar_pax_record(&records, "linkpath", "\xe6\x97\xa5\xe6\x9c\xac", 6);
    tar_pax(&tar, &records);
    tar_link(&tar, '2', "u", "v");
    tar_file(&tar, "latin\xfc", "raw bytes");
    buf_clear(&records);
    tar_pax_record(&records, "path", "bad\xff\xfe", 5);
    tar_pax(&tar, &records);
    tar_file(&tar, "x", "bad utf-8");
    char *layer = unpack_ok(&tar, NULL);
    assert_content(layer, path, "pax");
    struct stat st = stat_of(layer, path);
    assert_int_equal(st.st_mtim.tv_sec, 1500000000);
    assert_int_equal(st.st_mtim.tv_nsec, 250000000);
    assert_int_equal(st.st_uid, geteuid() == 0 ? 3000000 : geteuid());
    assert_content(layer, gnu, "gnu");
    assert_content(layer, "prefix/name", "ustar");
    assert_true(S_ISLNK(stat_of(layer, "gr\xc3\xbc\xc3\x9f/\xe6\x97\xa5").st_mode));
    assert_int_equal(stat_of(layer, "gr\xc3\xbc\xc3\x9f/\xe6\x97\xa5").st_size, 6);
    assert_content(layer, "latin\xfc", "raw bytes");
    assert_content(layer, "bad\xff\xfe", "bad utf-8");
    free(layer);
    buf_free(&records);
    buf_free(&content);
}

static void test_xattrs(void **state)
{
    struct buf tar = BUF_INIT, records = BUF_INIT;
    /* cap_net_raw=ep, VFS_CAP_REVISION_2 */
    static const char capability[20] = { 1, 0, 0, 2, 0, 0x20, 0, 0 };
    struct unpacked out;
    char value[64];

    (void)state;
    tar_pax_record(&records, "SCHILY.xattr.user.note", "hello\0world", 11);
    tar_pax_record(&records, "SCHILY.xattr.security.capability", capability, sizeof capability);
    tar_pax_record(&records, "SCHILY.xattr.trusted.overlay.redirect", "/etc", 4);
    tar_pax_record(&records, "SCHILY.xattr.user.overlay.opaque", "y", 1);
    tar_pax(&tar, &records);
    tar_add(&tar, &(struct tar_entry){ .name = "ping", .type = '0', .mode = 0755, .uid = 9, .data = "p", .n = 1 });
    char *layer = unpack_ok(&tar, &out);
    char *path = xasprintf("%s/ping", layer);
    assert_int_equal(getxattr(path, "user.note", value, sizeof value), 11);
    assert_memory_equal(value, "hello\0world", 11);
    if (geteuid() == 0)
        assert_int_equal(getxattr(path, "security.capability", value, sizeof value), 20);
    assert_int_equal(getxattr(path, "trusted.overlay.redirect", value, sizeof value), -1);
    assert_int_equal(getxattr(path, "user.overlay.opaque", value, sizeof value), -1);
    assert_int_equal(out.xattrs_skipped, geteuid() == 0 ? 2 : 3);
    free(path);
    free(layer);
    buf_free(&records);
}

static void test_sparse(void **state)
{
    struct buf tar = BUF_INIT, records = BUF_INIT, data = BUF_INIT;
    static const char map[] = "1\n104857600\n3\n"; /* one piece of 3 bytes at 100 MiB */
    char block[512] = { 0 };
    struct unpacked out;

    (void)state;
    tar_pax_record(&records, "GNU.sparse.major", "1", 1);
    tar_pax_record(&records, "GNU.sparse.minor", "0", 1);
    tar_pax_record(&records, "GNU.sparse.name", "holes", 5);
    tar_pax_record(&records, "GNU.sparse.realsize", "209715200", 9);
    tar_pax(&tar, &records);
    memcpy(block, map, sizeof map - 1);
    buf_append(&data, block, sizeof block);
    buf_append(&data, "end", 3);
    tar_add(&tar, &(struct tar_entry){ .name = "GNUSparseFile.0/holes", .type = '0', .mode = 0644, .data = data.p, .n = data.n });
    char *layer = unpack_ok(&tar, &out);
    struct stat st = stat_of(layer, "holes");
    assert_int_equal(st.st_size, 209715200);
    assert_true(st.st_blocks < 1000);
    char *path = xasprintf("%s/holes", layer);
    int fd = open(path, O_RDONLY);
    assert_int_equal(pread(fd, block, 3, 104857600), 3);
    assert_memory_equal(block, "end", 3);
    close(fd);
    free(path);
    free(layer);
    buf_free(&records);
    buf_free(&data);
}

static void test_later_entries_win(void **state)
{
    struct buf tar = BUF_INIT;

    (void)state;
    tar_file(&tar, "a", "old");
    tar_file(&tar, "a", "new");
    tar_dir(&tar, "b");
    tar_file(&tar, "b/c/d", "x");
    tar_file(&tar, "b", "a file now");
    tar_file(&tar, "e", "x");
    tar_dir(&tar, "e");
    tar_file(&tar, "e/f", "a folder now");
    tar_dir(&tar, "g");
    tar_add(&tar, &(struct tar_entry){ .name = "g", .type = '5', .mode = 0711 });
    tar_file(&tar, "h", "x");
    tar_link(&tar, '1', "h", "h"); /* itself */
    char *layer = unpack_ok(&tar, NULL);
    assert_content(layer, "a", "new");
    assert_content(layer, "b", "a file now");
    assert_content(layer, "e/f", "a folder now");
    assert_int_equal(stat_of(layer, "g").st_mode & 0777, 0711);
    assert_content(layer, "h", "x");
    free(layer);
}

/* ---- compression and digests ---- */

static void test_compression(void **state)
{
    struct buf tar = BUF_INIT, gzip = BUF_INIT, zstd = BUF_INIT, twice = BUF_INIT;
    struct status err = STATUS_INIT;
    struct unpacked out;
    struct digest plain, packed;

    (void)state;
    tar_file(&tar, "a", "content");
    tar_end(&tar);
    plain = digest_of(tar.p, tar.n);
    tar_gzip(&tar, &gzip);
    tar_zstd(&tar, &zstd);
    const struct buf *forms[] = { &tar, &gzip, &zstd };
    for (size_t i = 0; i < COUNT_OF(forms); i++) {
        char *layer = fresh(), *blob = xasprintf("%s/blob", top);
        write_blob(blob, forms[i]);
        packed = digest_of(forms[i]->p, forms[i]->n);
        if (!unpack_layer(blob, &packed, &plain, layer, NULL, &out, &err))
            fail_msg("%zu: %s", i, err.message);
        assert_content(layer, "a", "content");
        free(layer);
        /* One bit more. */
        layer = fresh();
        packed.sha256[0] ^= 1;
        assert_false(unpack_layer(blob, &packed, &plain, layer, NULL, &out, &err));
        assert_int_equal(err.code, STATUS_DATA_LOSS);
        assert_non_null(strstr(err.message, "damaged"));
        packed.sha256[0] ^= 1;
        plain.sha256[0] ^= 1;
        assert_false(unpack_layer(blob, &packed, &plain, layer, NULL, &out, &err));
        assert_int_equal(err.code, STATUS_DATA_LOSS);
        assert_non_null(strstr(err.message, "configuration names"));
        plain.sha256[0] ^= 1;
        assert_int_equal(access(layer, F_OK), -1);
        free(layer);
        free(blob);
    }
    /* Two gzip members are one stream (RFC 1952). */
    struct buf first = { tar.p, 700, 0 }, second = { tar.p + 700, tar.n - 700, 0 };
    tar_gzip(&first, &twice);
    tar_gzip(&second, &twice);
    char *layer = fresh();
    assert_true(unpack_limited(&twice, layer, NULL, &out, &err));
    assert_content(layer, "a", "content");
    free(layer);
    /* Compressed twice is no layer. */
    buf_clear(&twice);
    tar_gzip(&gzip, &twice);
    layer = fresh();
    assert_false(unpack_limited(&twice, layer, NULL, &out, &err));
    assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
    free(layer);
    buf_free(&tar);
    buf_free(&gzip);
    buf_free(&zstd);
    buf_free(&twice);
}

static void test_damaged(void **state)
{
    struct buf tar = BUF_INIT, gzip = BUF_INIT;
    struct status err = STATUS_INIT;
    struct unpacked out;
    struct digest plain;

    (void)state;
    for (int i = 0; i < 50; i++) {
        char name[16];
        snprintf(name, sizeof name, "f%d", i);
        tar_file(&tar, name, "some content to be compressed");
    }
    tar_end(&tar);
    plain = digest_of(tar.p, tar.n);
    tar_gzip(&tar, &gzip);
    char *blob = xasprintf("%s/blob", top), *layer = fresh();
    /* Cut anywhere, flipped anywhere: an error, and nothing left. */
    for (size_t cut = 0; cut < gzip.n; cut += 7) {
        struct buf part = { gzip.p, cut, 0 };
        write_blob(blob, &part);
        assert_false(unpack_layer(blob, &any, &plain, layer, NULL, &out, &err));
    }
    for (size_t cut = 0; cut < tar.n; cut += 511) {
        struct buf part = { tar.p, cut, 0 };
        write_blob(blob, &part);
        assert_false(unpack_layer(blob, &any, &plain, layer, NULL, &out, &err));
    }
    for (size_t at = 20; at + 8 < gzip.n; at += 5) {
        gzip.p[at] ^= 0x55;
        write_blob(blob, &gzip);
        assert_false(unpack_layer(blob, &any, &plain, layer, NULL, &out, &err));
        gzip.p[at] ^= 0x55;
    }
    assert_int_equal(count_entries(top), 2 + (size_t)0); /* "outside" and "blob" */
    buf_clear(&gzip);
    buf_append_str(&gzip, "this is no archive at all, but long enough to be looked at");
    write_blob(blob, &gzip);
    assert_false(unpack_layer(blob, &any, &any, layer, NULL, &out, &err));
    assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
    free(blob);
    free(layer);
    buf_free(&tar);
    buf_free(&gzip);
}

/* ---- hostile archives ---- */

static void test_leaving(void **state)
{
    struct buf tar = BUF_INIT;
    char deep[2 * 250 + 1], *link;

    (void)state;
    tar_file(&tar, "../x", "x");
    unpack_refused(&tar, STATUS_INVALID_ARGUMENT, "'..'");
    tar_file(&tar, "a/../../x", "x");
    unpack_refused(&tar, STATUS_INVALID_ARGUMENT, "'..'");
    tar_file(&tar, "/../x", "x");
    unpack_refused(&tar, STATUS_INVALID_ARGUMENT, "'..'");
    tar_link(&tar, '1', "x", "../outside");
    unpack_refused(&tar, STATUS_INVALID_ARGUMENT, "'..'");
    tar_link(&tar, '1', "x", "/etc/passwd"); /* the layer's own, which is not there */
    unpack_refused(&tar, STATUS_INVALID_ARGUMENT, "not in the layer");
    tar_link(&tar, '2', "etc", "/etc");
    tar_link(&tar, '1', "x", "etc/passwd");
    unpack_refused(&tar, STATUS_INVALID_ARGUMENT, "not in the layer");
    tar_dir(&tar, "d");
    tar_link(&tar, '1', "x", "d");
    unpack_refused(&tar, STATUS_INVALID_ARGUMENT, "folder");
    tar_link(&tar, '1', "x", ".");
    unpack_refused(&tar, STATUS_INVALID_ARGUMENT, "own folder");
    tar_file(&tar, ".", "x");
    unpack_refused(&tar, STATUS_INVALID_ARGUMENT, "own folder");
    tar_file(&tar, "f", "x");
    tar_file(&tar, "f/g", "x");
    unpack_refused(&tar, STATUS_INVALID_ARGUMENT, "no folder");
    tar_link(&tar, '2', "l", "l");
    tar_file(&tar, "l/x", "x");
    unpack_refused(&tar, STATUS_INVALID_ARGUMENT, "circle");
    tar_link(&tar, '2', "a", "b/x");
    tar_link(&tar, '2', "b", "a/x");
    tar_file(&tar, "a/x", "x");
    unpack_refused(&tar, STATUS_INVALID_ARGUMENT, "circle");
    for (size_t i = 0; i < 250; i++)
        memcpy(deep + 2 * i, "d/", 2);
    deep[sizeof deep - 1] = '\0';
    struct buf records = BUF_INIT;
    tar_pax_record(&records, "path", deep, sizeof deep - 1);
    tar_pax(&tar, &records);
    tar_file(&tar, "x", "x");
    unpack_refused(&tar, STATUS_INVALID_ARGUMENT, "deep");
    /* Deeper by links than any one path is. */
    buf_clear(&records);
    deep[2 * 150] = '\0';
    tar_pax_record(&records, "path", deep, strlen(deep));
    tar_pax(&tar, &records);
    tar_dir(&tar, "x");
    buf_clear(&records);
    tar_pax_record(&records, "linkpath", deep, strlen(deep));
    tar_pax(&tar, &records);
    tar_link(&tar, '2', "l", "x");
    link = xasprintf("l/%s", deep);
    buf_clear(&records);
    tar_pax_record(&records, "path", link, strlen(link));
    tar_pax(&tar, &records);
    tar_dir(&tar, "x");
    unpack_refused(&tar, STATUS_INVALID_ARGUMENT, "deep");
    free(link);
    buf_free(&records);
}

/* Links that point outside mean the same path inside, as they will in the container. */
static void test_links_stay_inside(void **state)
{
    struct buf tar = BUF_INIT;
    char *up = xasprintf("../../../../../../../../../..%s", outside);

    (void)state;
    tar_link(&tar, '2', "abs", outside);
    tar_file(&tar, "abs/x", "1");
    tar_link(&tar, '2', "rel", up);
    tar_file(&tar, "rel/y", "2");
    tar_file(&tar, "abs/.wh.z", "");
    tar_dir(&tar, "lib64");
    tar_link(&tar, '2', "lib", "lib64");
    tar_file(&tar, "lib/so", "3");
    tar_link(&tar, '2', "file", "/etc/passwd");
    tar_file(&tar, "file", "4"); /* replaces the link, does not follow it */
    tar_link(&tar, '2', "dir", outside);
    tar_dir(&tar, "dir"); /* the same for a folder */
    tar_link(&tar, '1', "hard", "abs/x");
    char *layer = unpack_ok(&tar, NULL);
    assert_int_equal(count_entries(outside), 0);
    char *inside = xasprintf("%s%s", layer, outside);
    assert_content(inside, "x", "1");
    assert_content(inside, "y", "2");
    assert_true(is_whiteout(inside, "z"));
    assert_content(layer, "lib64/so", "3");
    assert_true(S_ISREG(stat_of(layer, "file").st_mode));
    assert_true(S_ISDIR(stat_of(layer, "dir").st_mode));
    assert_int_equal(stat_of(layer, "hard").st_ino, stat_of(inside, "x").st_ino);
    free(inside);
    free(layer);
    free(up);
}

static void test_limits(void **state)
{
    struct buf tar = BUF_INIT, gzip = BUF_INIT, records = BUF_INIT;
    struct status err = STATUS_INIT;
    struct unpacked out;
    char *layer = fresh(), *big = xcalloc(1, 1 << 20);

    (void)state;
    tar_add(&tar, &(struct tar_entry){ .name = "big", .type = '0', .mode = 0644, .data = big, .n = 1 << 20 });
    tar_end(&tar);
    tar_gzip(&tar, &gzip);
    struct unpack_limits bytes = { 1 << 19, 1000, 200 };
    assert_false(unpack_limited(&gzip, layer, &bytes, &out, &err));
    assert_int_equal(err.code, STATUS_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(err.message, "524288 bytes"));
    bytes.bytes = 2 << 20;
    assert_true(unpack_limited(&gzip, layer, &bytes, &out, &err));
    free(layer);
    free(big);

    buf_clear(&tar);
    for (int i = 0; i < 10; i++)
        tar_file(&tar, "same", "x");
    tar_end(&tar);
    struct unpack_limits entries = { 1 << 20, 9, 200 };
    layer = fresh();
    assert_false(unpack_limited(&tar, layer, &entries, &out, &err));
    assert_int_equal(err.code, STATUS_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(err.message, "9 entries"));
    free(layer);

    /* A hole that is larger than anything. */
    buf_clear(&tar);
    tar_pax_record(&records, "GNU.sparse.major", "1", 1);
    tar_pax_record(&records, "GNU.sparse.minor", "0", 1);
    tar_pax_record(&records, "GNU.sparse.name", "holes", 5);
    tar_pax_record(&records, "GNU.sparse.realsize", "9223372036854775807", 19);
    tar_pax(&tar, &records);
    char block[512] = "1\n0\n0\n";
    tar_add(&tar, &(struct tar_entry){ .name = "x", .type = '0', .mode = 0644, .data = block, .n = sizeof block });
    unpack_refused(&tar, STATUS_RESOURCE_EXHAUSTED, "files of the layer are larger");

    /* A size that the archive does not have. */
    buf_clear(&tar);
    tar_add(&tar, &(struct tar_entry){ .name = "x", .type = '0', .mode = 0644, .size = 077777777777, .data = "x", .n = 1 });
    unpack_refused(&tar, STATUS_INVALID_ARGUMENT, "runcated");
    buf_free(&gzip);
    buf_free(&tar);
    buf_free(&records);
}

/* A gzip stream of zeros, which grows a thousandfold. */
static void test_bomb(void **state)
{
    struct buf tar = BUF_INIT, gzip = BUF_INIT, record = BUF_INIT;
    struct status err = STATUS_INIT;
    struct unpacked out;
    struct unpack_limits limits = UNPACK_LIMITS_DEFAULT;
    char *layer = fresh();
    static char zeros[1 << 20];

    (void)state;
    /* A header for 3 GiB; its content is never written as a whole: the same MiB is compressed again and again as members. */
    tar_add(&tar, &(struct tar_entry){ .name = "big", .type = '0', .mode = 0644, .size = 3ull << 30 });
    tar_gzip(&tar, &gzip);
    struct buf mib = { (uint8_t *)zeros, sizeof zeros, 0 };
    tar_gzip(&mib, &record);
    for (int i = 0; i < 3072; i++)
        buf_append(&gzip, record.p, record.n);
    assert_false(unpack_limited(&gzip, layer, &limits, &out, &err));
    assert_int_equal(err.code, STATUS_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(err.message, "200 times"));
    assert_int_equal(access(layer, F_OK), -1);
    free(layer);
    buf_free(&tar);
    buf_free(&gzip);
    buf_free(&record);
}

/* ---- paths, with and without openat2 ---- */

static void walk(bool no_openat2)
{
    struct layer_root r;
    struct status err = STATUS_INIT;
    char *dir = fresh(), clean[LAYER_PATH_SIZE];
    const char *resolved;
    static const struct {
        const char *path, *resolved; /* NULL: refused */
    } cases[] = {
        { "", "" },           { "a/b", "a/b" },      { "to-b", "a/b" },      { "to-b/c", "a/b/c" },  { "abs/b", "a/b" },
        { "up", "" },         { "up/a", "a" },       { "over", "a" },        { "a/back", "" },       { "a/back/a/b", "a/b" },
        { "chain3", "a/b" },  { "circle", NULL },    { "file", NULL },       { "file/x", NULL },     { "to-file", NULL },
        { "missing", NULL },  { "to-etc", NULL },    { "to-proc", NULL },    { "dot", "a" },
    };

    assert_int_equal(mkdir(dir, 0700), 0);
    assert_true(layer_root_open(&r, dir, &err));
    r.no_openat2 = no_openat2;
    assert_true(layer_dir(&r, "a/b/c", true, &resolved, &err) >= 0);
    assert_string_equal(resolved, "a/b/c");
    assert_int_equal(r.made, 3);
    assert_int_equal(symlinkat("a/b", r.fd, "to-b"), 0);
    assert_int_equal(symlinkat("/a", r.fd, "abs"), 0);
    assert_int_equal(symlinkat("../../..", r.fd, "up"), 0);
    assert_int_equal(symlinkat("../../a/b/../../../../../a", r.fd, "over"), 0);
    assert_int_equal(symlinkat("..", r.fd, "a/back"), 0);
    assert_int_equal(symlinkat("to-b", r.fd, "chain1"), 0);
    assert_int_equal(symlinkat("chain1/.", r.fd, "chain2"), 0);
    assert_int_equal(symlinkat("/chain2", r.fd, "chain3"), 0);
    assert_int_equal(symlinkat("circle", r.fd, "circle"), 0);
    assert_int_equal(symlinkat("file", r.fd, "to-file"), 0);
    assert_int_equal(symlinkat("/etc", r.fd, "to-etc"), 0);
    assert_int_equal(symlinkat("/proc/self/root", r.fd, "to-proc"), 0);
    assert_int_equal(symlinkat("./a/./.", r.fd, "dot"), 0);
    close(openat(r.fd, "file", O_CREAT | O_WRONLY, 0600));
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        assert_true(layer_path_clean(cases[i].path, clean, &err));
        int fd = layer_dir(&r, clean, false, &resolved, &err);
        if (cases[i].resolved == NULL) {
            if (fd >= 0)
                fail_msg("'%s' was opened as '%s'", cases[i].path, resolved);
            continue;
        }
        if (fd < 0)
            fail_msg("'%s': %s", cases[i].path, err.message);
        struct stat got, want;
        char *real = xasprintf("%s/%s", dir, cases[i].resolved);
        assert_int_equal(fstat(fd, &got), 0);
        assert_int_equal(stat(real, &want), 0);
        assert_int_equal(got.st_ino, want.st_ino);
        free(real);
    }
    /* Made on the way through links, and only inside. */
    assert_true(layer_dir(&r, "to-etc/new/er", true, &resolved, &err) >= 0);
    assert_string_equal(resolved, "etc/new/er");
    assert_true(layer_dir(&r, "up/x", true, &resolved, &err) >= 0);
    assert_string_equal(resolved, "x");
    layer_root_close(&r);
    free(dir);
}

static void test_walk(void **state)
{
    (void)state;
    walk(false);
    walk(true);
}

static void test_clean(void **state)
{
    char out[LAYER_PATH_SIZE], dir[LAYER_PATH_SIZE], long_name[5000];
    const char *leaf;
    struct status err = STATUS_INIT;

    (void)state;
    assert_true(layer_path_clean("./a//b/./c/", out, &err));
    assert_string_equal(out, "a/b/c");
    assert_true(layer_path_clean("///", out, &err));
    assert_string_equal(out, "");
    assert_true(layer_path_clean("...", out, &err));
    assert_true(layer_path_clean("..a/b..", out, &err));
    assert_false(layer_path_clean("a/..", out, &err));
    layer_path_split("a/b/c", dir, &leaf);
    assert_string_equal(dir, "a/b");
    assert_string_equal(leaf, "c");
    layer_path_split("a", dir, &leaf);
    assert_string_equal(dir, "");
    memset(long_name, 'x', sizeof long_name);
    long_name[256] = '\0';
    assert_false(layer_path_clean(long_name, out, &err));
    long_name[255] = '\0';
    assert_true(layer_path_clean(long_name, out, &err));
    for (size_t i = 0; i < sizeof long_name; i++)
        long_name[i] = i % 100 == 99 ? '/' : 'y';
    long_name[sizeof long_name - 1] = '\0';
    assert_false(layer_path_clean(long_name, out, &err));
    assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
}

/* ---- flat copies ---- */

static void test_rootfs_copy(void **state)
{
    struct buf tar = BUF_INIT, records = BUF_INIT;
    struct status err = STATUS_INIT;
    struct unpacked out;
    const char *layers[3];
    bool root = geteuid() == 0;
    char value[32];

    (void)state;
    tar_dir(&tar, "keep");
    tar_file(&tar, "keep/a", "1");
    tar_file(&tar, "keep/gone", "1");
    tar_dir(&tar, "opaque");
    tar_file(&tar, "opaque/old", "1");
    tar_file(&tar, "file-to-dir", "1");
    tar_file(&tar, "dir-to-file/x", "1");
    tar_file(&tar, "dir-gone/x/y", "1");
    tar_link(&tar, '2', "link", "keep");
    tar_file(&tar, "hard1", "linked");
    tar_link(&tar, '1', "hard2", "hard1");
    tar_link(&tar, '1', "keep/hard3", "hard1");
    layers[0] = unpack_ok(&tar, NULL);
    tar_file(&tar, "keep/.wh.gone", "");
    tar_file(&tar, "opaque/.wh..wh..opq", "");
    tar_file(&tar, "opaque/new", "2");
    tar_file(&tar, "file-to-dir/x", "2");
    tar_file(&tar, "dir-to-file", "2");
    tar_file(&tar, ".wh.dir-gone", "");
    tar_add(&tar, &(struct tar_entry){ .name = "keep/", .type = '5', .mode = 02711, .uid = 12, .mtime = 99 });
    tar_pax_record(&records, "SCHILY.xattr.user.note", "hi", 2);
    tar_pax(&tar, &records);
    tar_add(&tar, &(struct tar_entry){ .name = "keep/a", .type = '0', .mode = 04711, .uid = 13, .data = "two", .n = 3, .mtime = 98 });
    layers[1] = unpack_ok(&tar, NULL);
    tar_file(&tar, "link/.wh.none", "");     /* a folder named like the link below it */
    tar_link(&tar, '2', "hard1", "/etc/passwd");
    tar_add(&tar, &(struct tar_entry){ .name = "pipe", .type = '6', .mode = 0600 });
    layers[2] = unpack_ok(&tar, NULL);
    char *dest = fresh();
    if (!unpack_rootfs_copy(layers, 3, dest, &out, &err))
        fail_msg("%s", err.message);
    assert_content(dest, "keep/a", "two");
    assert_int_equal(stat_of(dest, "keep/a").st_mode & 07777, 04711);
    assert_int_equal(stat_of(dest, "keep/a").st_mtime, 98);
    assert_int_equal(stat_of(dest, "keep/a").st_uid, root ? 13 : geteuid());
    assert_int_equal(stat_of(dest, "keep").st_mode & 07777, root ? 02711 : 02711);
    assert_int_equal(stat_of(dest, "keep").st_mtime, 99);
    char *path = xasprintf("%s/keep/a", dest);
    assert_int_equal(getxattr(path, "user.note", value, sizeof value), 2);
    free(path);
    assert_false(exists(dest, "keep/gone"));
    assert_false(exists(dest, "opaque/old"));
    assert_content(dest, "opaque/new", "2");
    assert_false(is_opaque(dest, "opaque"));
    assert_content(dest, "file-to-dir/x", "2");
    assert_content(dest, "dir-to-file", "2");
    assert_false(exists(dest, "dir-gone"));
    assert_true(S_ISDIR(stat_of(dest, "link").st_mode));
    assert_false(exists(dest, "link/none"));
    assert_true(S_ISLNK(stat_of(dest, "hard1").st_mode));
    assert_content(dest, "hard2", "linked");
    assert_int_equal(stat_of(dest, "hard2").st_ino, stat_of(dest, "keep/hard3").st_ino);
    assert_true(S_ISFIFO(stat_of(dest, "pipe").st_mode));
    assert_true(out.inodes > 10);
    for (size_t i = 0; i < 3; i++)
        free((char *)(uintptr_t)layers[i]);
    free(dest);
    buf_free(&records);
}

/* Layers whose whiteouts are the archive's own `.wh.` files: what unpacking makes where nothing better is allowed. */
static void test_rootfs_copy_flat_whiteouts(void **state)
{
    struct buf tar = BUF_INIT;
    struct status err = STATUS_INIT;
    struct unpacked out;
    static const char *const names[] = { ".wh.gone", "opaque/.wh..wh..opq", "opaque/new", ".wh.swap", "swap/new", ".wh.never" };

    (void)state;
    tar_file(&tar, "gone/x", "1");
    tar_file(&tar, "opaque/old", "1");
    tar_file(&tar, "swap/old", "1");
    char *lower = unpack_ok(&tar, NULL), *upper = fresh(), *dest = fresh();
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char *path = xasprintf("%s/%s", upper, names[i]), *slash = strrchr(path, '/');
        *slash = '\0';
        assert_true(dir_make(path, 0755, &err));
        *slash = '/';
        assert_true(file_replace(path, "", 0, 0644, &err));
        free(path);
    }
    const char *layers[] = { lower, upper };
    if (!unpack_rootfs_copy(layers, 2, dest, &out, &err))
        fail_msg("%s", err.message);
    assert_int_equal(count_entries(dest), 4);
    assert_true(exists(dest, "opaque/new"));
    assert_true(exists(dest, "swap/new"));
    free(lower);
    free(upper);
    free(dest);
}

static void test_rootfs_copy_holes(void **state)
{
    struct status err = STATUS_INIT;
    struct unpacked out;
    char *layer = fresh(), *dest = fresh(), *path;
    char data[3];

    (void)state;
    assert_int_equal(mkdir(layer, 0755), 0);
    path = xasprintf("%s/holes", layer);
    int fd = open(path, O_CREAT | O_WRONLY, 0644);
    assert_int_equal(ftruncate(fd, 1ll << 40), 0);
    assert_int_equal(pwrite(fd, "mid", 3, 1ll << 39), 3);
    close(fd);
    free(path);
    const char *layers[] = { layer };
    if (!unpack_rootfs_copy(layers, 1, dest, &out, &err))
        fail_msg("%s", err.message);
    struct stat st = stat_of(dest, "holes");
    assert_int_equal(st.st_size, 1ll << 40);
    assert_true(st.st_blocks < 1000);
    path = xasprintf("%s/holes", dest);
    fd = open(path, O_RDONLY);
    assert_int_equal(pread(fd, data, 3, 1ll << 39), 3);
    assert_memory_equal(data, "mid", 3);
    close(fd);
    free(path);
    /* Not into a folder that holds something. */
    assert_false(unpack_rootfs_copy(layers, 1, dest, &out, &err));
    assert_true(exists(dest, "holes"));
    /* A layer that is missing. */
    char *other = fresh();
    const char *missing[] = { layer, "/nonexistent/layer" };
    assert_false(unpack_rootfs_copy(missing, 2, other, &out, &err));
    assert_int_equal(err.code, STATUS_NOT_FOUND);
    assert_int_equal(access(other, F_OK), -1);
    free(other);
    free(layer);
    free(dest);
}

static void test_forms(void **state)
{
    enum unpack_form out;

    (void)state;
    assert_true(unpack_forms_agree(NULL, 0, &out));
    assert_int_equal(out, UNPACK_ANY);
    assert_true(unpack_forms_agree((enum unpack_form[]){ UNPACK_ANY, UNPACK_USER, UNPACK_ANY }, 3, &out));
    assert_int_equal(out, UNPACK_USER);
    assert_false(unpack_forms_agree((enum unpack_form[]){ UNPACK_TRUSTED, UNPACK_USER }, 2, &out));
    assert_int_equal(out, UNPACK_FLAT);
    assert_false(unpack_forms_agree((enum unpack_form[]){ UNPACK_ANY, UNPACK_FLAT }, 2, &out));
}

/* In a user namespace with ten ids: owners as far as they exist, root for others; the layer knows for whom it is. */
static void test_owners_in_a_user_namespace(void **state)
{
    const struct userns_map map = { .uids = { .ranges = { { 0, 70000, 10 } }, .count = 1 },
                                    .gids = { .ranges = { { 0, 80000, 10 } }, .count = 1 } };
    struct status err = STATUS_INIT;
    struct buf tar = BUF_INIT;
    struct unpacked out, info;
    int wait_status = 0;

    (void)state;
    if (geteuid() != 0)
        skip();
    tar_add(&tar, &(struct tar_entry){ .name = "dir", .type = '5', .mode = 0700, .uid = 4, .gid = 5 });
    tar_add(&tar, &(struct tar_entry){ .name = "dir/file", .type = '0', .mode = 04000, .uid = 9, .gid = 0 });
    tar_add(&tar, &(struct tar_entry){ .name = "far", .type = '0', .mode = 0644, .uid = 10, .gid = 3 });
    tar_add(&tar, &(struct tar_entry){ .name = "null", .type = '3', .mode = 0666, .major = 1, .minor = 3 });
    tar_add(&tar, &(struct tar_entry){ .name = "dir/.wh..wh..opq", .type = '0' });
    tar_end(&tar);
    char *blob = xasprintf("%s/blob", top), *folder = xasprintf("%s/ns", top), *layer = xasprintf("%s/layer", folder);
    write_blob(blob, &tar);
    assert_int_equal(chmod(top, 0755) | chmod(blob, 0644) | mkdir(folder, 0700) | chown(folder, 70000, 80000), 0);
    int fd = userns_new(&map, &err);
    pid_t pid = fd < 0 ? -1 : fork();
    if (pid == 0) {
        bool ok = userns_join(fd, &err) && unpack_layer(blob, &any, &any, layer, NULL, &out, &err) && out.owners_skipped == 1 &&
                  out.devices_skipped == 1 && out.form != UNPACK_TRUSTED && unpack_layer_info(layer, &info, &err) &&
                  unpack_owners_fit(&info, out.owners) && !unpack_owners_fit(&info, "all") && !unpack_owners_fit(&info, "one");
        fprintf(stderr, "%s", err.message);
        _exit(ok ? 0 : 1);
    }
    assert_true(pid > 0);
    waitpid(pid, &wait_status, 0);
    assert_int_equal(wait_status, 0);
    struct stat st = stat_of(layer, "dir");
    assert_true(st.st_uid == 70004 && st.st_gid == 80005);
    st = stat_of(layer, "dir/file");
    assert_true(st.st_uid == 70009 && st.st_gid == 80000 && (st.st_mode & 07777) == 04000);
    st = stat_of(layer, "far");
    assert_true(st.st_uid == 70000 && st.st_gid == 80003);
    assert_false(exists(layer, "null"));
    close(fd);
    buf_free(&tar);
    free(blob);
    free(folder);
    free(layer);
}

static void test_whose_layers(void **state)
{
    struct unpacked layer = { .owners = "" };
    char here[UNPACK_OWNERS_SIZE];

    (void)state;
    unpack_owners_here(here);
    assert_true(strlen(here) > 0);
    assert_true(unpack_owners_fit(&layer, here)); /* from an earlier version */
    snprintf(layer.owners, sizeof layer.owners, "none");
    assert_true(unpack_owners_fit(&layer, here));
    snprintf(layer.owners, sizeof layer.owners, "one");
    assert_true(unpack_owners_fit(&layer, "one"));
    assert_false(unpack_owners_fit(&layer, "all"));
}

static int run_all(void)
{
#define ONE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        ONE(test_clean), ONE(test_walk), ONE(test_kinds), ONE(test_whiteouts), ONE(test_names), ONE(test_xattrs),
        ONE(test_sparse), ONE(test_later_entries_win), ONE(test_compression), ONE(test_damaged), ONE(test_leaving),
        ONE(test_links_stay_inside), ONE(test_limits), ONE(test_bomb), ONE(test_rootfs_copy), ONE(test_rootfs_copy_flat_whiteouts),
        ONE(test_rootfs_copy_holes),
        ONE(test_forms), ONE(test_owners_in_a_user_namespace), ONE(test_whose_layers),
    };
#undef ONE
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* As root everything is done once more as an ordinary user. */
int main(void)
{
    int failed = run_all(), wait_status = 0;

    if (geteuid() != 0)
        return failed;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (setgid(65534) < 0 || setuid(65534) < 0)
            exit(125);
        puts("as an ordinary user:");
        exit(run_all() != 0);
    }
    waitpid(pid, &wait_status, 0);
    return failed != 0 || wait_status != 0;
}
