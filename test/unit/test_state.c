/* SPDX-License-Identifier: Apache-2.0 */
#include "node/state.h"

#include "io/child.h"
#include "io/file.h"
#include "state.pb-c.h"

#include <dirent.h>
#include <setjmp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop *loop;
static char dir[] = "/tmp/test_store.XXXXXX";
static const char id[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

static int setup(void **state)
{
    struct status err = STATUS_INIT;
    (void)state;
    log_setup((enum log_level)-1, "test"); /* hundreds of set-aside records are announced otherwise */
    loop = loop_new(&err);
    return loop != NULL && child_reaper_start(loop, NULL, NULL, &err) && mkdtemp(dir) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    struct status err = STATUS_INIT;
    (void)state;
    loop_free(loop);
    return tree_remove(dir, &err) ? 0 : -1;
}

static unsigned confirmed, loaded;
static int64_t last_created;

static void on_done(void *arg, const struct status *err)
{
    (void)arg;
    assert_null(err);
    confirmed++;
}

static void on_record(void *arg, ProtobufCMessage *message)
{
    (void)arg;
    loaded++;
    last_created = ((Interlink__State__V1__Sandbox *)(void *)message)->created_at;
    protobuf_c_message_free_unpacked(message, NULL);
}

static void turn_until_confirmed(unsigned count)
{
    int64_t limit = clock_mono_ms() + 10000;

    while (confirmed < count && clock_mono_ms() < limit)
        loop_turn(loop, 100);
    assert_int_equal(confirmed, count);
}

static void put(struct state *store, const char *record_id, int64_t created)
{
    Interlink__State__V1__Sandbox record = INTERLINK__STATE__V1__SANDBOX__INIT;

    record.id = (char *)(uintptr_t)record_id;
    record.created_at = created;
    state_put(store, STATE_SANDBOX, record_id, &record.base, on_done, NULL);
}

static void load(struct state *store)
{
    struct status err = STATUS_INIT;

    loaded = 0;
    assert_true(state_load(store, STATE_SANDBOX, &interlink__state__v1__sandbox__descriptor, on_record, NULL, &err));
}

static void records_survive_and_the_last_counts(void **state)
{
    struct status err = STATUS_INIT;
    struct state *store = state_open(loop, dir, &err);
    char other[] = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    (void)state;

    assert_non_null(store);
    confirmed = 0;
    for (int i = 1; i <= 300; i++)
        put(store, id, i);
    put(store, other, 1);
    state_delete(store, STATE_SANDBOX, other, on_done, NULL);
    state_delete(store, STATE_SANDBOX, other, on_done, NULL); /* what is not there is deleted */
    turn_until_confirmed(303);
    load(store);
    assert_int_equal(loaded, 1);
    assert_int_equal(last_created, 300);
    /* What was given to the writer is carried out by the end, confirmed or not. */
    put(store, id, 301);
    state_close(store);
    store = state_open(loop, dir, &err);
    load(store);
    assert_int_equal(last_created, 301);
    assert_null(state_open(loop, dir, &err));
    assert_int_equal(err.code, STATUS_FAILED_PRECONDITION);
    state_close(store);
}

static void a_killed_writer_is_replaced_and_nothing_is_lost(void **state)
{
    struct status err = STATUS_INIT;
    struct state *store = state_open(loop, dir, &err);
    char command[64];
    (void)state;

    confirmed = 0;
    put(store, id, 400);
    turn_until_confirmed(1);
    snprintf(command, sizeof command, "pkill -9 -P %d -x state", getpid());
    assert_int_equal(system(command), 0);
    for (int i = 0; i < 100; i++)
        put(store, id, 401 + i);
    turn_until_confirmed(101);
    load(store);
    assert_int_equal(last_created, 500);
    state_close(store);
}

static unsigned set_aside_count(void)
{
    char *path = xasprintf("%s/set-aside", dir);
    DIR *d = opendir(path);
    unsigned n = 0;

    while (d != NULL && readdir(d) != NULL)
        n++;
    if (d != NULL)
        closedir(d);
    free(path);
    return n > 2 ? n - 2 : 0;
}

static void damaged_records_are_set_aside(void **state)
{
    struct status err = STATUS_INIT;
    struct state *store = state_open(loop, dir, &err);
    char *path = xasprintf("%s/sandboxes/%s", dir, id);
    struct buf good = BUF_INIT;
    (void)state;

    assert_true(file_read(path, 1 << 20, &good, &err));
    for (size_t cut = 0; cut < good.n; cut++) {
        assert_true(file_replace(path, good.p, cut, 0600, &err));
        load(store);
        assert_int_equal(loaded, 0);
    }
    for (size_t i = 0; i < good.n; i++) {
        if (i >= 12 && i < 16)
            continue; /* reserved, not covered */
        good.p[i] ^= 0x41;
        assert_true(file_replace(path, good.p, good.n, 0600, &err));
        good.p[i] ^= 0x41;
        load(store);
        assert_int_equal(loaded, 0);
    }
    assert_int_equal(set_aside_count(), 2 * good.n - 4);
    assert_true(file_replace(path, good.p, good.n, 0600, &err));
    load(store);
    assert_int_equal(loaded, 1);
    state_close(store);
    buf_free(&good);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_survive_and_the_last_counts),
        cmocka_unit_test(a_killed_writer_is_replaced_and_nothing_is_lost),
        cmocka_unit_test(damaged_records_are_set_aside),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
