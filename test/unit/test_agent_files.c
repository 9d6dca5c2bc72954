/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's PutFiles, and where a container's mounts come from. */
#include "agent_kit.h"

#include "agent/agent_files.h"
#include "agent/agent_sources.h"

static const ProtobufCMessageDescriptor *const put_response = &interlink__agent__v1__put_files_response__descriptor;

/* ---- PutFiles ---- */

struct put {
    bool finished;
    struct status status;
    struct rpc_request *request;
};

static void on_put_finish(void *arg, const struct status *status)
{
    struct put *p = arg;

    p->finished = true;
    p->status = *status;
}

static void put_begin(struct put *p)
{
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/PutFiles", .output = put_response, .on_finish = on_put_finish, .arg = p,
    };

    *p = (struct put){ 0 };
    p->request = rpc_request_start(kit->client, &options);
}

/* A projected volume with one file, in two messages. */
static void put_send(struct put *p, const char *volume, const char *version, const char *content)
{
    PB(PutFilesStart) s = INTERLINK__AGENT__V1__PUT_FILES_START__INIT;
    PB(FileEntry) e[3], *entries[] = { &e[0], &e[1], &e[2] };
    PB(PutFilesRequest) m = INTERLINK__AGENT__V1__PUT_FILES_REQUEST__INIT;
    static const char *const paths[] = { "", "..data", "..data/key" };

    s.volume = (char *)(uintptr_t)volume;
    s.version = (char *)(uintptr_t)version;
    m.start = &s;
    for (size_t i = 0; i < 3; i++) {
        interlink__agent__v1__file_entry__init(&e[i]);
        e[i].path = (ProtobufCBinaryData){ strlen(paths[i]), (uint8_t *)(uintptr_t)paths[i] };
        e[i].mode = i < 2 ? S_IFDIR | 0755 : S_IFREG | 0644;
        e[i].uid = getuid();
        e[i].gid = getgid();
    }
    e[2].size = strlen(content);
    m.entries = entries;
    m.n_entries = 3;
    rpc_request_send(p->request, &m.base);
    m = (PB(PutFilesRequest))INTERLINK__AGENT__V1__PUT_FILES_REQUEST__INIT;
    m.data = (ProtobufCBinaryData){ strlen(content), (uint8_t *)(uintptr_t)content };
    if (*content != '\0')
        rpc_request_send(p->request, &m.base);
}

static enum status_code put_end(struct put *p)
{
    rpc_request_half_close(p->request);
    kit_turn_until(&p->finished);
    return p->status.code;
}

static enum status_code put_one(const char *volume, const char *version, const char *content)
{
    struct put p;

    put_begin(&p);
    put_send(&p, volume, version, content);
    return put_end(&p);
}

static void expect(const char *volume, const char *content)
{
    struct status err;
    cleanup_free char *path = agent_files_path(&kit->agent, volume);
    cleanup_buf struct buf text = BUF_INIT;

    assert_non_null(path);
    cleanup_free char *file = xasprintf("%s/key", path);
    if (!file_read(file, 16 << 20, &text, &err))
        fail_msg("%s", err.message);
    assert_string_equal(buf_cstr(&text), content);
}

/* What Hello says of a volume; "" when nothing. The caller frees. */
static char *version_of(const char *volume)
{
    PB(HelloRequest) request = INTERLINK__AGENT__V1__HELLO_REQUEST__INIT;
    struct kit_answer a = kit_call("Hello", &request.base, &interlink__agent__v1__hello_response__descriptor);
    const PB(HelloResponse) *hello = (const void *)a.response;
    char *version = NULL;

    for (size_t i = 0; i < hello->n_volumes; i++)
        if (strcmp(hello->volumes[i]->name, volume) == 0)
            version = xstrdup(hello->volumes[i]->version);
    kit_answer_free(&a);
    return version != NULL ? version : xstrdup("");
}

static void expect_version(const char *volume, const char *version)
{
    cleanup_free char *got = version_of(volume);

    assert_string_equal(got, version);
}

static void test_put(void **state)
{
    struct put p;

    (void)state;
    expect_version("a/b", "");
    assert_null(agent_files_path(&kit->agent, "a/b"));
    assert_int_equal(put_one("a/b", "1", "hello"), STATUS_OK);
    expect("a/b", "hello");
    expect_version("a/b", "1");
    /* The version says what is in it: this is not even looked at. */
    assert_int_equal(put_one("a/b", "1", "other"), STATUS_OK);
    expect("a/b", "hello");
    /* Several in one call, one of which is known. */
    put_begin(&p);
    put_send(&p, "c", "x", "see");
    put_send(&p, "a/b", "1", "other");
    put_send(&p, "d", "y", "");
    assert_int_equal(put_end(&p), STATUS_OK);
    expect("a/b", "hello");
    expect("c", "see");
    expect("d", "");
    assert_int_equal(put_one("a/b", "2", "changed"), STATUS_OK);
    expect("a/b", "changed");
    expect_version("a/b", "2");
    expect_version("d", "y");
}

static void test_put_broken_off(void **state)
{
    struct put p;

    (void)state;
    assert_int_equal(put_one("v", "1", "old"), STATUS_OK);
    put_begin(&p);
    put_send(&p, "v", "2", "new");
    put_send(&p, "w", "1", "never");
    kit_turn_ms(200);
    rpc_request_cancel(p.request);
    kit_turn_ms(50);
    assert_int_equal(kit->agent.intake_count, 0);
    /* The files are old or new; their version is not known, so they come again. */
    expect_version("v", "");
    cleanup_free char *still = agent_files_path(&kit->agent, "v");
    assert_non_null(still);
    assert_null(agent_files_path(&kit->agent, "w"));
    assert_int_equal(put_one("v", "1", "old again"), STATUS_OK);
    expect("v", "old again");
    expect_version("v", "1");
}

static void test_bad_puts(void **state)
{
    struct put p;
    PB(PutFilesRequest) m = INTERLINK__AGENT__V1__PUT_FILES_REQUEST__INIT;

    (void)state;
    put_begin(&p);
    assert_int_equal(put_end(&p), STATUS_INVALID_ARGUMENT);
    put_begin(&p);
    rpc_request_send(p.request, &m.base);
    assert_int_equal(put_end(&p), STATUS_INVALID_ARGUMENT);
    assert_int_equal(put_one("../v", "1", ""), STATUS_INVALID_ARGUMENT);
    assert_int_equal(put_one("v", "", ""), STATUS_INVALID_ARGUMENT);
    put_begin(&p);
    put_send(&p, "good", "1", "good");
    put_send(&p, "/bad", "1", "bad");
    assert_int_equal(put_end(&p), STATUS_INVALID_ARGUMENT);
    assert_null(agent_files_path(&kit->agent, "good"));
    /* More than one message's worth, then more than is taken. */
    cleanup_free char *large = xmalloc(3000001);
    memset(large, 'x', 3000000);
    large[3000000] = '\0';
    assert_int_equal(put_one("large", "1", large), STATUS_OK);
    expect("large", large);
    /* All places taken. */
    struct put many[AGENT_INTAKES_MAX];
    for (size_t i = 0; i < AGENT_INTAKES_MAX; i++) {
        cleanup_free char *name = xasprintf("v%zu", i);
        put_begin(&many[i]);
        put_send(&many[i], name, "1", "text");
    }
    put_begin(&p);
    kit_turn_until(&p.finished);
    assert_int_equal(p.status.code, STATUS_RESOURCE_EXHAUSTED);
    for (size_t i = 0; i < AGENT_INTAKES_MAX; i++)
        assert_int_equal(put_end(&many[i]), STATUS_OK);
}

/* ---- sources ---- */

static struct status last; /* of the last create */

static enum status_code create(unsigned number, const char *command, PB(MountSource) **sources, size_t count)
{
    char *words[] = { (char *)(uintptr_t) "/bin/sh", (char *)(uintptr_t) "-c", (char *)(uintptr_t)command };
    Runtime__V1__ContainerConfig config = RUNTIME__V1__CONTAINER_CONFIG__INIT;
    Runtime__V1__Mount m = RUNTIME__V1__MOUNT__INIT, *mounts[] = { &m, &m };
    PB(CreateContainerRequest) request = INTERLINK__AGENT__V1__CREATE_CONTAINER_REQUEST__INIT;

    m.host_path = (char *)(uintptr_t) "/elsewhere";
    m.container_path = (char *)(uintptr_t) "/here";
    config.mounts = mounts;
    config.n_mounts = 2;
    config.command = words;
    config.n_command = 3;
    request.id = kit_id(number);
    request.config = &config;
    request.sources = sources;
    request.n_sources = count;
    struct kit_answer a = kit_call("CreateContainer", &request.base, &interlink__agent__v1__create_container_response__descriptor);
    kit_answer_free(&a);
    last = a.status;
    return a.status.code;
}

/* What the engine was told of a mount, as the kit writes it down. */
static void expect_source(unsigned number, const char *text)
{
    struct status err;
    cleanup_free char *path = xasprintf("%s/containers/%s/sources", kit->dir, kit_id(number));
    cleanup_buf struct buf got = BUF_INIT;

    assert_true(file_read(path, 65536, &got, &err));
    if (strstr(buf_cstr(&got), text) == NULL)
        fail_msg("%s is not in %s", text, buf_cstr(&got));
}

static void test_sources(void **state)
{
    PB(MountSource) s = INTERLINK__AGENT__V1__MOUNT_SOURCE__INIT, *sources[] = { &s };

    (void)state;
    kit_configure();
    s.mount = 1;
    s.path = (char *)(uintptr_t) "/shared/x";
    assert_int_equal(create(1, "true", sources, 1), STATUS_OK);
    expect_source(1, "0: '' create\n1: '/shared/x'\n");
    s.path = (char *)(uintptr_t) "shared";
    assert_int_equal(create(2, "true", sources, 1), STATUS_INVALID_ARGUMENT);
    assert_true(str_starts(last.message, "mounts[1]: path"));
    s.mount = 2;
    assert_int_equal(create(2, "true", sources, 1), STATUS_INVALID_ARGUMENT);
    s.mount = 0;
    s.kind = INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_VOLUME;
    s.volume = (char *)(uintptr_t) "a/b";
    assert_int_equal(create(2, "true", sources, 1), STATUS_FAILED_PRECONDITION);
    assert_int_equal(put_one("a/b", "1", "text"), STATUS_OK);
    assert_int_equal(create(2, "true", sources, 1), STATUS_OK);
    expect_source(2, "/files/a+b/tree' job\n1: '' create\n");
    s.volume = (char *)(uintptr_t) "../b";
    assert_int_equal(create(3, "true", sources, 1), STATUS_FAILED_PRECONDITION);
}

static void expect_mode(const char *path, mode_t mode)
{
    struct stat st;
    cleanup_free char *whole = xasprintf("%s/%s", kit->dir, path);

    assert_int_equal(stat(whole, &st), 0);
    assert_int_equal(st.st_mode & 07777, mode);
}

static void test_empty_dirs(void **state)
{
    PB(MountSource) s = INTERLINK__AGENT__V1__MOUNT_SOURCE__INIT, *sources[] = { &s };
    PB(EmptyDir) e = INTERLINK__AGENT__V1__EMPTY_DIR__INIT;

    (void)state;
    kit_configure();
    s.kind = INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_EMPTY_DIR;
    s.volume = (char *)(uintptr_t) "scratch";
    s.empty_dir = &e;
    e.mode = 02777;
    e.uid = getuid();
    e.gid = getgid();
    e.sub_mode = 0750;
    e.sub_uid = getuid();
    e.sub_gid = getgid();
    assert_int_equal(create(1, "true", sources, 1), STATUS_OK);
    expect_source(1, "/empty/scratch/dir' job\n");
    expect_mode("empty/scratch/dir", 02777);
    /* It is there now: what another container says of it does not change it. */
    e.mode = 0700;
    e.sub_path = (char *)(uintptr_t) "in/deep";
    assert_int_equal(create(2, "true", sources, 1), STATUS_OK);
    expect_source(2, "/empty/scratch/dir/in/deep' job fd\n");
    expect_mode("empty/scratch/dir", 02777);
    expect_mode("empty/scratch/dir/in/deep", 0750);
    /* Links inside are followed, and lead nowhere else; a file is as good as a folder. */
    cleanup_free char *inside = xasprintf("%s/empty/scratch/dir/inside", kit->dir), *out = xasprintf("%s/empty/scratch/dir/out", kit->dir);
    cleanup_free char *file = xasprintf("%s/empty/scratch/dir/in/file", kit->dir);
    assert_int_equal(symlink("in", inside) + symlink("/tmp", out) + creat(file, 0600) >= 0, 1);
    e.sub_path = (char *)(uintptr_t) "inside/file";
    assert_int_equal(create(3, "true", sources, 1), STATUS_OK);
    expect_source(3, "/empty/scratch/dir/in/file' job fd\n");
    e.sub_path = (char *)(uintptr_t) "out";
    assert_int_not_equal(create(4, "true", sources, 1), STATUS_OK);
    e.sub_path = (char *)(uintptr_t) "in/file/x";
    assert_int_not_equal(create(4, "true", sources, 1), STATUS_OK);
    e.sub_path = (char *)(uintptr_t) "../x";
    assert_int_equal(create(4, "true", sources, 1), STATUS_INVALID_ARGUMENT);
    e.sub_path = (char *)(uintptr_t) "";
    s.volume = (char *)(uintptr_t) "../x";
    assert_int_equal(create(4, "true", sources, 1), STATUS_INVALID_ARGUMENT);
    /* Memory needs a mount namespace, which this agent does not have. */
    s.volume = (char *)(uintptr_t) "ram";
    e.memory = true;
    assert_int_equal(create(4, "true", sources, 1), STATUS_FAILED_PRECONDITION);
    assert_non_null(strstr(last.message, "mounts[0]: its medium is memory"));
}

static void test_termination_log(void **state)
{
    PB(MountSource) s = INTERLINK__AGENT__V1__MOUNT_SOURCE__INIT, *sources[] = { &s };
    PB(HelloRequest) request = INTERLINK__AGENT__V1__HELLO_REQUEST__INIT;
    cleanup_free char *path = xasprintf("%s/termination/%s", kit->dir, kit_id(1));
    cleanup_free char *command = xasprintf("head -c 5000 /dev/zero | tr '\\0' x >%s; echo -n last words >>%s", path, path);
    bool exited = false;

    (void)state;
    kit_configure();
    s.kind = INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_TERMINATION_LOG;
    assert_int_equal(create(1, command, sources, 1), STATUS_OK);
    expect_source(1, "/termination/0000");
    struct kit_answer a = kit_start(1);
    kit_answer_free(&a);
    for (int i = 0; i < 200 && !exited; i++) {
        a = kit_call("Hello", &request.base, &interlink__agent__v1__hello_response__descriptor);
        const PB(HelloResponse) *hello = (const void *)a.response;
        const PB(ContainerState) *c = hello->containers[0];
        exited = c->phase == INTERLINK__AGENT__V1__CONTAINER_PHASE__EXITED;
        assert_int_equal(c->termination_log.len, exited ? TERMINATION_LOG_MAX : 0);
        if (exited)
            assert_memory_equal(c->termination_log.data + TERMINATION_LOG_MAX - 11, "xlast words", 11);
        kit_answer_free(&a);
        kit_turn_ms(20);
    }
    assert_true(exited);
    assert_int_equal(kit_remove(1), STATUS_OK);
    assert_int_not_equal(access(path, F_OK), 0);
}

/* The pod's end leaves nothing of it. */
static void test_clear(void **state)
{
    static const char *const folders[] = { "files", "empty", "termination" };
    PB(MountSource) s[2], *sources[] = { &s[0], &s[1] };

    (void)state;
    kit_configure();
    interlink__agent__v1__mount_source__init(&s[0]);
    s[1] = s[0];
    s[0].kind = INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_TERMINATION_LOG;
    s[1].kind = INTERLINK__AGENT__V1__SOURCE_KIND__SOURCE_EMPTY_DIR;
    s[1].volume = (char *)(uintptr_t) "scratch";
    s[1].mount = 1;
    assert_int_equal(put_one("v", "1", "secret"), STATUS_OK);
    assert_int_equal(create(1, "true", sources, 2), STATUS_OK);
    assert_true(agent_files_any(&kit->agent));
    agent_ending_start(&kit->agent, 0, NULL);
    kit_turn_until(&kit->ended);
    for (size_t i = 0; i < COUNT_OF(folders); i++) {
        cleanup_free char *path = xasprintf("%s/%s", kit->dir, folders[i]);
        assert_int_not_equal(access(path, F_OK), 0);
    }
}

#define KIT_TEST(fn) cmocka_unit_test_setup_teardown(fn, kit_setup, kit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        KIT_TEST(test_put),         KIT_TEST(test_put_broken_off), KIT_TEST(test_bad_puts), KIT_TEST(test_sources),
        KIT_TEST(test_empty_dirs),  KIT_TEST(test_termination_log), KIT_TEST(test_clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
