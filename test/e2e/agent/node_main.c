/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small node for a real agent: a relay, and the client of proto/agent.proto. Says what it saw, a line a check.
 *
 *   node_main WORK_DIR LAYER_DIR SCENARIO...      (no scenario: all but two; see the table at the end)
 *
 * LAYER_DIR is an unpacked layer with a busybox in /bin. WORK_DIR is emptied. Environment: AGENT (the program whose role `agent`
 * is tried; default: this one), ENGINE, RELAY=tls (over TCP with a pinned key), VERBOSE=1.
 * Exit status 0: every check passed.
 */
#include "node.h"
#include "node_streams.h"

/* ---- scenarios ---- */

static void scenario_life(void)
{
    struct watcher w;
    struct reader r = { .keep = true };

    begin();
    watch_events(&w);
    create(1, "echo hello; hostname; echo oops >&2; exit 3");
    start(1);
    read_logs(&r, 1);
    turn_until(&w.exited, "exit");
    turn_until(&r.finished, "log");
    check(w.exit_code == 3 && strcmp(w.reason, "Error") == 0, "exit code 3, reason Error (%d, %s)", w.exit_code, w.reason);
    check(r.end && r.position == w.log_end, "the log ends where the event says");
    buf_append_byte(&r.text, 0);
    check(strstr((char *)r.text.p, " stdout F hello\n") != NULL && strstr((char *)r.text.p, " stdout F pod\n") != NULL &&
              strstr((char *)r.text.p, " stderr F oops\n") != NULL,
          "its lines");
    remove_container(1);
    create(2, "trap 'exit 4' TERM; while :; do sleep 0.02; done");
    start(2);
    turn_ms(100);
    w.exited = false;
    signal_container(2, SIGTERM);
    turn_until(&w.exited, "exit after TERM");
    check(w.exit_code == 4, "TERM reaches the process (%d)", w.exit_code);
    create(3, "sleep 1000");
    start(3);
    w.exited = false;
    signal_container(3, SIGKILL);
    turn_until(&w.exited, "exit after KILL");
    check(w.exit_code == 137, "KILL (%d)", w.exit_code);
    buf_free(&r.text);
    shutdown_agent(0);
}

static void scenario_oom(void)
{
    struct watcher w;

    if (getuid() != 0) /* an ordinary user's cgroups are seldom his */
        return;
    begin();
    watch_events(&w);
    struct answer a = create_from(1, image(), 32 << 20, "x=a; while :; do x=$x$x; done");
    check(a.status.code == STATUS_OK, "create with a memory limit: %s", a.status.message);
    start(1);
    turn_until(&w.exited, "exit");
    check(w.exit_code == 137 && strcmp(w.reason, "OOMKilled") == 0, "killed by its memory limit (%d, %s)", w.exit_code,
          w.reason);
    shutdown_agent(0);
}

static void scenario_start_error(void)
{
    char *words[] = { (char *)(uintptr_t)"/no/such/program" };
    Runtime__V1__ContainerConfig config = RUNTIME__V1__CONTAINER_CONFIG__INIT;
    PB(CreateContainerRequest) request = INTERLINK__AGENT__V1__CREATE_CONTAINER_REQUEST__INIT;
    PB(StartContainerRequest) start_request = INTERLINK__AGENT__V1__START_CONTAINER_REQUEST__INIT;
    struct watcher w;

    begin();
    watch_events(&w);
    config.command = words;
    config.n_command = 1;
    request.id = start_request.id = id_of(1);
    request.config = &config;
    request.image = image();
    call_ok("CreateContainer", &request.base, &interlink__agent__v1__create_container_response__descriptor);
    struct answer a = call("StartContainer", &start_request.base, &interlink__agent__v1__start_container_response__descriptor);
    check(a.status.code == STATUS_NOT_FOUND, "start says NOT_FOUND: %s", a.status.message);
    turn_until(&w.exited, "StartError");
    check(w.exit_code == 128 && strcmp(w.reason, "StartError") == 0, "128, StartError");
    remove_container(1);
    shutdown_agent(0);
}

static void scenario_exec(void)
{
    static const char *const true_words[] = { "true" };
    static const char *const echo_words[] = { "/bin/sh", "-c", "echo $PATH; exit 6" };
    static const char *const hang_words[] = { "/bin/sh", "-c", "sleep 7777 & setsid sleep 7777 & (setsid sleep 7777 &) ; sleep 7777" };
    static const char *const zero_words[] = { "/bin/sh", "-c", "head -c 500000000 /dev/zero" };
    static const char *const none_words[] = { "/no/such/program" };
    enum { RUNS = 200 };
    int64_t us[RUNS];
    struct exec e;

    begin();
    create(1, "sleep 1000");
    start(1);
    exec_run(&e, 1, 0, echo_words, 3);
    check(e.exit_code == 6 && e.out.n == 5 && memcmp(e.out.p, "/bin\n", 5) == 0, "output and exit code of an exec (%s)", e.status.message);
    buf_free(&e.out);
    exec_run(&e, 1, 0, none_words, 1);
    check(e.status.code == STATUS_NOT_FOUND, "no such program: %s", e.status.message);
    for (int i = 0; i < RUNS; i++) {
        us[i] = now_us();
        exec_run(&e, 1, 0, true_words, 1);
        us[i] = now_us() - us[i];
        if (!e.exited || e.exit_code != 0)
            check(false, "exec true: %d %s", e.exit_code, e.status.message);
    }
    print_times("exec true", us, RUNS);
    int64_t begin_us = now_us();
    exec_run(&e, 1, 500, hang_words, 3);
    check(e.timed_out && e.exit_code == 137, "an exec over its time is killed");
    printf("     took %.1f ms over its time-out of 500 ms\n", (double)(now_us() - begin_us) / 1000 - 500);
    check(count_processes("sleep 7777") == 0, "and leaves no process");
    begin_us = now_us();
    exec_run(&e, 1, 0, zero_words, 3);
    check(e.bytes == 500000000, "500 MB come out of an exec");
    printf("     at %.0f MB/s\n", 500e6 / (double)(now_us() - begin_us));
    buf_free(&e.out);
    shutdown_agent(0);
}

static void scenario_cut(void)
{
    struct reader r = { .keep = true };
    unsigned cuts = 0;

    begin();
    create(1, "i=0; while [ $i -lt 60 ]; do seq $((i*5000+1)) $((i*5000+5000)); i=$((i+1)); done");
    start(1);
    srand(7);
    read_logs(&r, 1);
    while (!r.finished || !r.end) {
        loop_turn(t.loop, 50);
        if ((r.finished && !r.end) || (!r.finished && rand() % 60 == 0)) {
            drop_connection();
            cuts++;
            wait_connection();
            read_logs(&r, 1);
        }
    }
    check(r.jumps == 0, "no offset was skipped over %u cut connections", cuts);
    unsigned expected = 1;
    char *save = NULL;
    buf_append_byte(&r.text, 0);
    for (char *line = strtok_r((char *)r.text.p, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save))
        expected += strlen(line) > 40 && (unsigned)atoi(line + 40) == expected;
    check(expected == 300001, "every line came once and in order (%u)", expected - 1);
    check(cuts > 0 && t.connections == cuts + 1, "one connection at a time (%u)", t.connections);
    buf_free(&r.text);
    shutdown_agent(0);
}

static void scenario_refused(void)
{
    begin();
    create(1, "trap '' TERM; sleep 8888");
    start(1);
    t.refuse = true;
    drop_connection();
    turn_until(&t.agent_ended, "the agent's end");
    t.refuse = false;
    check(t.agent_status == 0, "an agent whose pod is unknown ends by itself with 0 (%d)", t.agent_status);
    check(count_processes("sleep 8888") == 0, "and its containers with it");
}

static void scenario_term(void)
{
    begin();
    create(1, "trap 'exit 0' TERM; while :; do sleep 0.02; done");
    start(1);
    create(2, "sleep 8889");
    turn_ms(100);
    int64_t began = now_us();
    kill(t.agent.pid, SIGTERM);
    turn_until(&t.agent_ended, "the agent's end");
    printf("     took %.1f ms\n", (double)(now_us() - began) / 1000);
    check(WIFEXITED(t.agent_status) && WEXITSTATUS(t.agent_status) == 143, "SIGTERM: containers stop, exit status 143 (%d)", t.agent_status);
    drop_connection();
}

static void scenario_killed(void)
{
    begin();
    create(1, "sleep 8890");
    start(1);
    check(count_processes("sleep 8890") > 0, "a container runs");
    kill(t.agent.pid, SIGKILL);
    turn_until(&t.agent_ended, "the agent's end");
    int64_t deadline = clock_mono_ms() + 3000;
    while (count_processes("sleep 8890") > 0 && clock_mono_ms() < deadline)
        turn_ms(20);
    check(count_processes("sleep 8890") == 0, "kill -9 of the agent takes its containers with it");
    drop_connection();
}

/* Layers sent over the connection, to a machine that sees no store. */
static void scenario_blobs(void)
{
    struct status err;
    cleanup_free char *tar = xasprintf("%s/layer.tar", t.work);
    cleanup_free char *command = xasprintf("tar -C %s -cf %s .", t.layer, tar);
    struct buf blob cleanup_buf = BUF_INIT;
    PB(MissingBlobsRequest) missing = INTERLINK__AGENT__V1__MISSING_BLOBS_REQUEST__INIT;
    PB(PutBlobRequest) put = INTERLINK__AGENT__V1__PUT_BLOB_REQUEST__INIT;
    char digest_text[72], config[512];
    struct exec e = { 0 };
    struct watcher w;

    if (system(command) != 0 || !file_read(tar, 1u << 30, &blob, &err))
        fatal("layer.tar", &err);
    br_sha256_context sha;
    uint8_t sum[32];
    br_sha256_init(&sha);
    br_sha256_update(&sha, blob.p, blob.n);
    br_sha256_out(&sha, sum);
    memcpy(digest_text, "sha256:", 7);
    hex_encode(sum, sizeof sum, digest_text + 7);
    PB(Image) from = *image();
    PB(Layer) layer = INTERLINK__AGENT__V1__LAYER__INIT, *layers[1] = { &layer };
    layer.digest = layer.diff_id = digest_text;
    from.layers = layers;
    from.config.data = (uint8_t *)config;
    from.config.len = (size_t)snprintf(config, sizeof config,
                                       "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Env\":[\"PATH=/bin\"]},\"rootfs\":"
                                       "{\"type\":\"layers\",\"diff_ids\":[\"%s\"]}}", digest_text);
    t.full_image = true;
    begin();
    t.full_image = false;
    missing.image = &from;
    struct answer a = call("MissingBlobs", &missing.base, &interlink__agent__v1__missing_blobs_response__descriptor);
    check(a.number == 1, "the layer is missing");
    a = create_from(1, &from, 0, "echo sent");
    check(a.status.code == STATUS_FAILED_PRECONDITION, "create without it: %s", a.status.message);
    struct rpc_request_options options = {
        .method = "/interlink.agent.v1.Agent/PutBlob", .output = &interlink__agent__v1__put_blob_response__descriptor,
        .on_finish = on_exec_finish, .arg = &e,
    };
    int64_t began = now_us();
    struct rpc_request *r = rpc_request_start(t.conn, &options);
    put.digest = digest_text;
    for (size_t at = 0; at < blob.n; at += put.data.len) {
        put.data.data = blob.p + at;
        put.data.len = blob.n - at < 100000 ? blob.n - at : 100000;
        rpc_request_send(r, &put.base);
        put.digest = (char *)(uintptr_t)"";
    }
    rpc_request_half_close(r);
    turn_until(&e.finished, "PutBlob");
    check(e.status.code == STATUS_OK, "PutBlob (%s)", e.status.message);
    printf("     %.1f MB at %.0f MB/s\n", (double)blob.n / 1e6, (double)blob.n / (double)(now_us() - began));
    watch_events(&w);
    a = create_from(1, &from, 0, "exit 5");
    check(a.status.code == STATUS_OK, "create with it (%s)", a.status.message);
    start(1);
    turn_until(&w.exited, "exit");
    check(w.exit_code == 5, "and it runs");
    shutdown_agent(0);
}

/* Many containers one after the other leave nothing. */
static void scenario_soak(void)
{
    enum { RUNS = 200 };
    int64_t created[RUNS], started[RUNS], removed[RUNS];
    cleanup_free char *containers = xasprintf("%s/job/containers", t.work);
    struct watcher w;

    begin();
    watch_events(&w);
    long before = 0;
    for (int i = 0; i < RUNS; i++) {
        created[i] = now_us();
        create((unsigned)i, "exit 0");
        created[i] = now_us() - created[i];
        w.exited = false;
        started[i] = now_us();
        start((unsigned)i);
        started[i] = now_us() - started[i];
        turn_until(&w.exited, "exit");
        removed[i] = now_us();
        remove_container((unsigned)i);
        removed[i] = now_us() - removed[i];
        if (i == 20)
            before = memory_of(child_of(t.agent.pid), false);
    }
    check(w.exits == RUNS, "%d containers have ended", RUNS);
    print_times("create", created, RUNS);
    print_times("start", started, RUNS);
    print_times("remove", removed, RUNS);
    long after = memory_of(child_of(t.agent.pid), false);
    check(after <= before + 256, "memory: %ld KiB after 20, %ld KiB after %d", before, after, RUNS);
    cleanup_free char *command = xasprintf("exit $(ls %s | wc -l)", containers);
    check(system(command) == 0, "no bundle is left");
    cleanup_free char *fds = xasprintf("exit $(ls /proc/%d/fd | wc -l)", child_of(t.agent.pid));
    int status = system(fds);
    check(WEXITSTATUS(status) < 20, "%d descriptors are open", WEXITSTATUS(status));
    shutdown_agent(0);
}

static void scenario_memory(void)
{
    begin();
    create(1, "trap 'exit 0' TERM; sleep 8891 & wait");
    start(1);
    turn_ms(2500);
    pid_t inner = child_of(t.agent.pid);
    long outer_kib = memory_of(t.agent.pid, false), inner_kib = memory_of(inner, false), cpu = cpu_of(inner);
    printf("     idle, one container: outer %ld KiB + agent %ld KiB = %ld KiB\n", outer_kib, inner_kib, outer_kib + inner_kib);
#ifndef __SANITIZE_ADDRESS__
    check(outer_kib + inner_kib <= 2048, "an idle agent with one container takes at most 2 MiB");
#endif
    turn_ms(3000);
    check(cpu_of(inner) == cpu, "an idle agent uses no CPU");
    shutdown_agent(5000);
}

/* Payload of 100-byte lines that arrives here. The layer has a program /bin/lines: BYTES, BYTES a write. */
static void scenario_bench(void)
{
    static const unsigned writes[] = { 4096, 65536, 100 };
    const unsigned long long bytes = getenv("BYTES") != NULL ? strtoull(getenv("BYTES"), NULL, 10) : 1000000000;
    struct watcher w;

    begin();
    watch_events(&w);
    for (unsigned i = 0; i < COUNT_OF(writes); i++) {
        struct reader r = { 0 };
        char command[64];
        snprintf(command, sizeof command, "exec /bin/lines %llu %u", bytes, writes[i]);
        create(1 + i, command);
        w.exited = false;
        long cpu = cpu_of(child_of(t.agent.pid));
        int64_t began = now_us();
        clock_t ours = clock();
        start(1 + i);
        read_logs(&r, 1 + i);
        turn_until(&r.finished, "log");
        double seconds = (double)(now_us() - began) / 1e6;
        turn_until(&w.exited, "exit");
        check(r.position == bytes / 100 * 140 && r.jumps == 0, "%llu bytes in 100-byte lines, in writes of %u", bytes, writes[i]);
        printf("     %.0f MB/s; CPU of the agent %ld ms, of this node %ld ms; %zu messages; agent at most %ld KiB\n",
               (double)bytes / 1e6 / seconds, cpu_of(child_of(t.agent.pid)) - cpu, (long)((clock() - ours) * 1000 / CLOCKS_PER_SEC), r.chunks,
               memory_of(child_of(t.agent.pid), true));
        turn_ms(3500);
        printf("     quiet again: agent %ld KiB\n", memory_of(child_of(t.agent.pid), false));
    }
    shutdown_agent(0);
}

static const struct {
    const char *name;
    void (*run)(void);
    bool only_by_name;
} scenarios[] = {
    { "life", scenario_life, false },       { "start_error", scenario_start_error, false }, { "exec", scenario_exec, false },
    { "oom", scenario_oom, false },         { "cut", scenario_cut, false },                 { "refused", scenario_refused, false },
    { "term", scenario_term, false },       { "killed", scenario_killed, false },           { "blobs", scenario_blobs, false },
    { "attach", scenario_attach, false },   { "update", scenario_update, false },           { "forward", scenario_forward, false },
    { "streams", scenario_streams, true },
    { "soak", scenario_soak, false },       { "memory", scenario_memory, false },           { "bench", scenario_bench, true },
};

static bool wanted(int argc, char **argv, const char *name, bool only_by_name)
{
    for (int i = 3; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc == 3 && !only_by_name;
}

int main(int argc, char **argv)
{
    struct status err;

    if (argc == 2 && strcmp(argv[1], "agent") == 0)
        return agent_main(argc, argv);
    if (argc < 3) {
        fprintf(stderr, "usage: node_main WORK_DIR LAYER_DIR [SCENARIO...]\n");
        return 2;
    }
    t.work = argv[1];
    t.layer = argv[2];
    ssize_t n = readlink("/proc/self/exe", t.program, sizeof t.program - 1);
    if (getenv("AGENT") != NULL)
        snprintf(t.program, sizeof t.program, "%s", getenv("AGENT"));
    cleanup_free char *layers = xasprintf("%s/store/layers", t.work), *link_path = xasprintf("%s/" LAYER_HEX, layers);
    cleanup_free char *relay = xasprintf("%s/relay", t.work);
    signal(SIGPIPE, SIG_IGN);
    t.loop = loop_new(&err);
    if (n < 0 || t.loop == NULL || !child_reaper_start(t.loop, NULL, NULL, &err) || !tree_remove(t.work, &err) ||
        !dir_make(layers, 0700, &err) || !dir_make(relay, 0700, &err) || symlink(t.layer, link_path) < 0)
        fatal("set-up", &err);
    start_relay();
    for (size_t i = 0; i < COUNT_OF(scenarios); i++) {
        if (!wanted(argc, argv, scenarios[i].name, scenarios[i].only_by_name))
            continue;
        printf("-- %s\n", scenarios[i].name);
        scenarios[i].run();
    }
    relay_free(t.relay);
    tls_identity_free(t.identity);
    loop_free(t.loop);
    if (t.failures == 0 && !tree_remove(t.work, &err))
        fatal("something is left in the work folder", &err);
    printf("%d checks, %d failures\n", t.checks, t.failures);
    return t.failures == 0 ? 0 : 1;
}
