/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of PutFiles, each with its length (two bytes, the lower one first) before it: whatever they say, nothing is written
 * outside of the folder that they may write to. */
#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/files_writer.h"
#include "io/file.h"
#include "rpc/decode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char around[64];

static void fuzz_clear(void)
{
    struct status err;

    if (*around != '\0')
        (void)tree_remove(around, &err);
}

static void fuzz_start(void)
{
    snprintf(around, sizeof around, "/tmp/fuzz-files-XXXXXX");
    if (mkdtemp(around) == NULL)
        abort();
    atexit(fuzz_clear);
}

/* The one folder, and nothing beside it. */
static void fuzz_check(void)
{
    DIR *dir = opendir(around);
    struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL)
        assert(entry->d_name[0] == '.' || strcmp(entry->d_name, "root") == 0);
    closedir(dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct files_writer w;
    struct status err = STATUS_INIT;
    cleanup_arena struct arena arena = ARENA_INIT;
    bool ok = true;

    if (*around == '\0')
        fuzz_start();
    cleanup_free char *root = xasprintf("%s/root", around);
    if (!dir_make(root, 0700, &err))
        abort();
    files_writer_open(&w, root);
    while (ok && size >= 2) {
        size_t n = (size_t)data[0] | (size_t)data[1] << 8;
        data += 2;
        size -= 2;
        n = n < size ? n : size;
        const ProtobufCMessage *m =
            rpc_decode(&interlink__agent__v1__put_files_request__descriptor, data, n, true, &arena, &err);
        ok = m != NULL && files_writer_take(&w, (const void *)m, &err);
        data += n;
        size -= n;
        arena_reset(&arena);
    }
    if (ok)
        (void)files_writer_end(&w, &err);
    files_writer_close(&w);
    fuzz_check();
    if (!tree_remove(root, &err))
        abort();
    return 0;
}
