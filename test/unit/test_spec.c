/* SPDX-License-Identifier: Apache-2.0 */
/* CRI configurations, as a kubelet sends them, to what the engines start. Needs no privilege: host paths are not mounted. */
#include "spec_world.h"

static void test_kubelet_sample(void **state)
{
    struct world *w = world_new(true);
    struct arena kept;

    (void)state;
    load_sample(w, "test/fixtures/cri/CreateContainer.web.json");
    kept = w->arena; /* convert() clears its own */
    w->arena = (struct arena)ARENA_INIT;
    const struct json *j = convert(w);
    if (j == NULL)
        fail_msg("%s", w->err.message);
    assert_string_equal(json_string(json_get(j, "process", "args", "0"), ""), "httpd");
    assert_int_equal(json_get(j, "process", "args")->count, 6);
    assert_int_equal(json_i64(json_get(j, "process", "user", "uid"), -1), 1000);
    assert_int_equal(json_i64(json_get(j, "process", "user", "additionalGids", "1"), -1), 2000);
    assert_int_equal(json_i64(json_get(j, "process", "oomScoreAdj"), -1), 998);
    assert_null(json_get(j, "process", "env")); /* secrets stay out of the document */
    assert_string_equal(process_env(&w->spec.process, "FROM_SECRET"), "hunter2");
    assert_string_equal(process_env(&w->spec.process, "HOME"), "/home/web");
    assert_string_equal(process_env(&w->spec.process, "HOSTNAME"), "pod-name");
    assert_string_equal(json_string(json_get(j, "linux", "namespaces", "0", "type"), ""), "mount");
    assert_string_equal(json_string(json_get(j, "linux", "namespaces", "1", "type"), ""), "pid");
    assert_int_equal(json_get(j, "linux", "namespaces")->count, 2); /* ipc, uts and network are the agent's */
    assert_true(has_string(json_get(j, "linux", "maskedPaths"), "/proc/kcore"));
    assert_true(has_string(json_get(j, "linux", "readonlyPaths"), "/proc/sys"));
    assert_non_null(json_get(j, "annotations", "run.oci.seccomp_bpf_data"));
    const struct json *secret = mount_at(j, "/etc/sec");
    assert_true(has_string(json_member(secret, "options"), "ro"));
    assert_true(has_string(json_member(secret, "options"), "rprivate"));
    assert_true(str_starts(json_string(json_member(secret, "source"), ""), "/staged/2/var/lib/kubelet/pods/"));
    /* kubelet's /etc/hosts takes the place of the pod's. */
    assert_true(str_starts(json_string(json_member(mount_at(j, "/etc/hosts"), "source"), ""), "/staged/"));
    arena_free(&kept);
    world_free(w);
}

static void test_mounts(void **state)
{
    struct world *w = world_new(true);
    Runtime__V1__Mount m[3], *mounts[] = { &m[0], &m[1], &m[2] };
    static char *options[] = { (char *)(uintptr_t) "noexec", (char *)(uintptr_t) "nosuid" };
    const struct engine_source sources[] = { { .path = "/given", .fd = -1 }, { .path = "", .fd = -1, .create = true },
                                             { .path = "", .fd = -1, .create = true } };

    (void)state;
    set_command(w, const_argv, 2);
    for (size_t i = 0; i < 3; i++)
        runtime__v1__mount__init(&m[i]);
    m[0].container_path = (char *)(uintptr_t) "/a//b/c/";
    m[0].host_path = (char *)(uintptr_t) "/h0";
    m[1].container_path = (char *)(uintptr_t) "/a";
    m[1].host_path = (char *)(uintptr_t) "/h1";
    m[1].propagation = RUNTIME__V1__MOUNT_PROPAGATION__PROPAGATION_HOST_TO_CONTAINER;
    m[1].mount_options = options;
    m[1].n_mount_options = 2;
    m[2].container_path = (char *)(uintptr_t) "/dev/shm";
    m[2].host_path = (char *)(uintptr_t) "/h2";
    w->config.mounts = mounts;
    w->config.n_mounts = 3;
    w->create.sources = sources;
    const struct json *j = convert(w);
    assert_non_null(j);
    /* The one nearer to the root comes first. */
    const struct json *a = mount_at(j, "/a"), *b = mount_at(j, "/a/b/c");
    assert_non_null(a);
    assert_non_null(b);
    bool a_first = false;
    for (const struct json *i = a; i != NULL; i = i->next)
        a_first = a_first || i == b;
    assert_true(a_first);
    assert_string_equal(json_string(json_member(b, "source"), ""), "/staged/0/given#given");
    assert_string_equal(json_string(json_member(a, "source"), ""), "/staged/1/h1#propagates");
    assert_true(has_string(json_member(a, "options"), "rslave"));
    assert_true(has_string(json_member(a, "options"), "noexec"));
    assert_string_equal(json_string(json_get(j, "linux", "rootfsPropagation"), ""), "rslave");
    assert_string_equal(json_string(json_member(mount_at(j, "/dev/shm"), "source"), ""), "/staged/2/h2");
    assert_string_equal(json_string(json_member(mount_at(j, "/dev/pts"), "type"), ""), "devpts");
    assert_true(has_string(json_member(mount_at(j, "/sys"), "options"), "ro"));
    m[0].propagation = RUNTIME__V1__MOUNT_PROPAGATION__PROPAGATION_BIDIRECTIONAL;
    assert_string_equal(json_string(json_get(convert(w), "linux", "rootfsPropagation"), ""), "rshared");
    /* A /dev of the container's own: nothing of ours below it. */
    m[2].container_path = (char *)(uintptr_t) "/dev/";
    j = convert(w);
    assert_null(mount_at(j, "/dev/pts"));
    assert_null(mount_at(j, "/dev/shm"));
    m[1].recursive_read_only = true;
    refused(w, STATUS_INVALID_ARGUMENT, "mounts[1].recursive_read_only");
    m[1].recursive_read_only = false;
    options[0] = (char *)(uintptr_t) "suid";
    refused(w, STATUS_INVALID_ARGUMENT, "mounts[1].mount_options");
    options[0] = (char *)(uintptr_t) "noexec";
    m[0].container_path = (char *)(uintptr_t) "relative";
    refused(w, STATUS_INVALID_ARGUMENT, "mounts[0].container_path");
    m[0].container_path = (char *)(uintptr_t) "/x";
    w->stage_error = "host_path /h0 does not exist on this machine";
    refused(w, STATUS_NOT_FOUND, "mounts[0]: host_path /h0");
    world_free(w);
}

static void test_environment(void **state)
{
    struct world *w = world_new(true);
    static char *image_env[] = { (char *)(uintptr_t) "PATH=/image", (char *)(uintptr_t) "A=1", (char *)(uintptr_t) "nonsense" };
    Runtime__V1__KeyValue e[3], *envs[] = { &e[0], &e[1], &e[2] };

    (void)state;
    set_command(w, const_argv, 1);
    w->image.env = image_env;
    w->image.env_count = 3;
    for (size_t i = 0; i < 3; i++)
        runtime__v1__key_value__init(&e[i]);
    e[0].key = (char *)(uintptr_t) "A";
    e[0].value = (ProtobufCBinaryData){ 1, (uint8_t *)(uintptr_t) "2" };
    e[1].key = (char *)(uintptr_t) "EMPTY";
    e[2].key = (char *)(uintptr_t) "RAW";
    e[2].value = (ProtobufCBinaryData){ 2, (uint8_t *)(uintptr_t) "\xff=" };
    w->config.envs = envs;
    w->config.n_envs = 3;
    w->config.tty = true;
    const struct json *j = convert(w);
    assert_non_null(j);
    assert_true(json_bool(json_get(j, "process", "terminal"), false));
    assert_string_equal(process_env(&w->spec.process, "PATH"), "/image");
    assert_string_equal(process_env(&w->spec.process, "A"), "2");
    assert_string_equal(process_env(&w->spec.process, "EMPTY"), "");
    assert_string_equal(process_env(&w->spec.process, "RAW"), "\xff=");
    assert_string_equal(process_env(&w->spec.process, "TERM"), "xterm");
    assert_string_equal(process_env(&w->spec.process, "HOME"), "/root");
    /* Through the bundle and back. */
    struct process back;
    assert_true(process_write(&w->spec.process, fixture.dir, &w->err));
    assert_true(process_read(&back, fixture.dir, &w->err));
    assert_string_equal(process_env(&back, "RAW"), "\xff=");
    assert_string_equal(back.argv[0], "prog");
    assert_null(back.argv[1]);
    assert_string_equal(back.cwd, "/");
    process_free(&back);
    e[1].key = (char *)(uintptr_t) "A=B";
    refused(w, STATUS_INVALID_ARGUMENT, "envs[1].key");
    e[1].key = (char *)(uintptr_t) "ZERO";
    e[1].value = (ProtobufCBinaryData){ 3, (uint8_t *)(uintptr_t) "a\0b" };
    refused(w, STATUS_INVALID_ARGUMENT, "envs[1].value");
    world_free(w);
}

static void test_damaged_process(void **state)
{
    struct process p;
    struct status err = STATUS_INIT;

    (void)state;
    put("process", "short");
    assert_false(process_read(&p, fixture.dir, &err));
    assert_int_equal(err.code, STATUS_DATA_LOSS);
}

static void test_capabilities(void **state)
{
    struct world *w = world_new(true);
    Runtime__V1__Capability c;
    static char *add[] = { (char *)(uintptr_t) "net_admin", (char *)(uintptr_t) "CAP_SYS_TIME" };
    static char *drop[] = { (char *)(uintptr_t) "KILL", (char *)(uintptr_t) "CHOWN" };
    static char *all[] = { (char *)(uintptr_t) "ALL" };

    (void)state;
    set_command(w, const_argv, 1);
    runtime__v1__capability__init(&c);
    w->security.capabilities = &c;
    assert_non_null(convert(w));
    assert_int_equal(w->spec.process.bounding, 0xa80425fb);
    c.add_capabilities = add;
    c.n_add_capabilities = 2;
    c.drop_capabilities = drop;
    c.n_drop_capabilities = 2;
    const struct json *j = convert(w);
    const struct json *bounding = json_get(j, "process", "capabilities", "bounding");
    assert_true(has_string(bounding, "CAP_NET_ADMIN"));
    assert_true(has_string(bounding, "CAP_SYS_TIME"));
    assert_false(has_string(bounding, "CAP_KILL"));
    assert_false(has_string(bounding, "CAP_CHOWN"));
    assert_int_equal(json_get(j, "process", "capabilities", "ambient")->count, 0);
    c.drop_capabilities = all;
    c.n_drop_capabilities = 1;
    assert_int_equal(json_get(convert(w), "process", "capabilities", "bounding")->count, 2);
    c.add_capabilities = all;
    c.n_add_capabilities = 1;
    c.n_drop_capabilities = 0;
    assert_non_null(convert(w));
    assert_int_equal(w->spec.process.bounding, (1ull << 41) - 1);
    c.n_add_capabilities = 0;
    c.add_ambient_capabilities = add;
    c.n_add_ambient_capabilities = 1;
    assert_non_null(convert(w));
    assert_int_equal(w->spec.process.ambient, 1ull << 12);
    assert_int_equal(w->spec.process.inheritable, 1ull << 12);
    c.add_ambient_capabilities = all;
    assert_non_null(convert(w));
    assert_int_equal(w->spec.process.ambient, 0xa80425fb);
    c.n_drop_capabilities = 0;
    c.add_ambient_capabilities = add;
    /* Not over a network that is not the pod's. */
    w->facts.foreign_network = true;
    refused(w, STATUS_FAILED_PRECONDITION, "capabilities.add_ambient_capabilities: CAP_NET_ADMIN would be over the machine's own network");
    c.n_add_ambient_capabilities = 0;
    c.add_capabilities = all;
    c.n_add_capabilities = 1;
    assert_non_null(convert(w));
    assert_int_equal(w->spec.process.bounding, ((1ull << 41) - 1) & ~(1ull << 12));
    assert_non_null(strstr(buf_cstr(&w->note), "CAP_NET_ADMIN is withheld"));
    c.n_add_capabilities = 0;
    c.n_add_ambient_capabilities = 1;
    w->facts.foreign_network = false;
    add[0] = (char *)(uintptr_t) "FLY";
    refused(w, STATUS_INVALID_ARGUMENT, "capabilities.add_ambient_capabilities: there is no capability \"FLY\"");
    add[0] = (char *)(uintptr_t) "SYS_RESOURCE";
    w->facts.available &= ~(1ull << 24);
    refused(w, STATUS_FAILED_PRECONDITION, "CAP_SYS_RESOURCE is not available to this job");
    /* Without a way to restrict devices none may be made. */
    c.n_add_ambient_capabilities = 0;
    w->facts.device_rules = false;
    assert_non_null(convert(w));
    assert_int_equal(w->spec.process.bounding, 0xa80425fbu & ~(1u << 27));
    assert_non_null(strstr(buf_cstr(&w->note), "CAP_MKNOD"));
    world_free(w);
}

static void test_seccomp(void **state)
{
    struct world *w = world_new(true);
    Runtime__V1__SecurityProfile p;
    cleanup_free char *profile = xasprintf("%s/profile.json", fixture.dir);

    (void)state;
    set_command(w, const_argv, 1);
    assert_null(json_get(convert(w), "annotations")); /* nothing said: as containerd, none */
    runtime__v1__security_profile__init(&p);
    w->security.seccomp = &p;
    assert_non_null(json_get(convert(w), "annotations", "run.oci.seccomp_bpf_data"));
    assert_true(w->spec.process.seccomp_size > 800);
    p.profile_type = RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__Unconfined;
    assert_null(json_get(convert(w), "annotations"));
    p.profile_type = RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__Localhost;
    p.localhost_ref = profile;
    const struct json *j = convert(w);
    assert_non_null(json_get(j, "annotations", "run.oci.seccomp_bpf_data"));
    assert_string_equal(json_string(json_get(j, "linux", "seccomp", "flags", "0"), ""), "SECCOMP_FILTER_FLAG_LOG");
    p.localhost_ref = (char *)(uintptr_t) "/no/such/profile";
    refused(w, STATUS_NOT_FOUND, "linux.security_context.seccomp: /no/such/profile");
    p.localhost_ref = (char *)(uintptr_t) "relative";
    refused(w, STATUS_INVALID_ARGUMENT, "seccomp.localhost_ref");
    world_free(w);
}

static void test_refusals(void **state)
{
    struct world *w = world_new(true);
    Runtime__V1__UserNamespace u;
    Runtime__V1__SELinuxOption se;
    Runtime__V1__SecurityProfile apparmor;
    Runtime__V1__CDIDevice cdi, *cdis[] = { &cdi };

    (void)state;
    refused(w, STATUS_INVALID_ARGUMENT, "command:");
    set_command(w, const_argv, 1);
    w->config.working_dir = (char *)(uintptr_t) "relative";
    refused(w, STATUS_INVALID_ARGUMENT, "working_dir");
    w->config.working_dir = (char *)(uintptr_t) "/made/../deep/er";
    assert_non_null(convert(w));
    assert_int_equal(faccessat(fixture.root_fd, "deep/er", F_OK, 0), 0);
    w->config.working_dir = (char *)(uintptr_t) "/etc/passwd/x";
    refused(w, STATUS_INTERNAL, "working_dir");
    w->config.working_dir = (char *)(uintptr_t) "";
    w->security.privileged = true;
    refused(w, STATUS_INVALID_ARGUMENT, "linux.security_context.privileged");
    w->security.privileged = false;
    w->namespaces.pid = RUNTIME__V1__NAMESPACE_MODE__NODE;
    refused(w, STATUS_FAILED_PRECONDITION, "namespace_options.pid: NODE");
    w->namespaces.pid = RUNTIME__V1__NAMESPACE_MODE__TARGET;
    w->namespaces.target_id = (char *)(uintptr_t) "other";
    refused(w, STATUS_INVALID_ARGUMENT, "namespace_options.target_id: container \"other\"");
    w->create.target_pid = 77;
    assert_string_equal(json_string(json_get(convert(w), "linux", "namespaces", "1", "path"), ""), "/proc/77/ns/pid");
    w->engine.isolation.pid = false;
    snprintf(w->engine.isolation.missing, sizeof w->engine.isolation.missing, "PID namespace: mount /proc: denied");
    refused(w, STATUS_FAILED_PRECONDITION, "namespace_options.pid: PID namespace: mount /proc: denied");
    w->engine.isolation.pid = true;
    w->namespaces.pid = 0;
    w->namespaces.ipc = RUNTIME__V1__NAMESPACE_MODE__NODE;
    refused(w, STATUS_FAILED_PRECONDITION, "namespace_options.ipc");
    w->namespaces.ipc = 0;
    runtime__v1__user_namespace__init(&u);
    w->namespaces.userns_options = &u;
    refused(w, STATUS_INVALID_ARGUMENT, "userns_options");
    u.mode = RUNTIME__V1__NAMESPACE_MODE__NODE;
    assert_non_null(convert(w));
    runtime__v1__selinux_option__init(&se);
    se.level = (char *)(uintptr_t) "s0:c1,c2";
    w->security.selinux_options = &se;
    assert_non_null(convert(w));
    assert_non_null(strstr(buf_cstr(&w->note), "selinux_options"));
    runtime__v1__security_profile__init(&apparmor);
    apparmor.profile_type = RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__Localhost;
    apparmor.localhost_ref = (char *)(uintptr_t) "localhost/mine";
    w->security.apparmor = &apparmor;
    refused(w, STATUS_FAILED_PRECONDITION, "linux.security_context.apparmor");
    w->security.apparmor = NULL;
    runtime__v1__cdidevice__init(&cdi);
    cdi.name = (char *)(uintptr_t) "vendor.com/gpu=0";
    w->config.cdi_devices = cdis;
    w->config.n_cdi_devices = 1;
    refused(w, STATUS_FAILED_PRECONDITION, "CDI_devices[0]: no file");
    world_free(w);
}

static void test_rootless(void **state)
{
    struct world *w = world_new(false);
    Runtime__V1__Device d, *devices[] = { &d };
    Runtime__V1__Int64Value uid;
    struct arena kept;

    (void)state;
    load_sample(w, "test/fixtures/cri/CreateContainer.init.json");
    kept = w->arena;
    w->arena = (struct arena)ARENA_INIT;
    refused(w, STATUS_FAILED_PRECONDITION, "linux.security_context.run_as_user: uid 1000 cannot be mapped");
    w->create.config = &w->config;
    set_command(w, const_argv, 1);
    w->image.user = (char *)(uintptr_t) "web";
    refused(w, STATUS_FAILED_PRECONDITION, "image config: User: uid 1000 cannot be mapped");
    runtime__v1__int64_value__init(&uid);
    w->security.run_as_user = &uid;
    runtime__v1__device__init(&d);
    d.host_path = (char *)(uintptr_t) "/dev/null";
    d.container_path = (char *)(uintptr_t) "/dev/gpu0";
    w->config.devices = devices;
    w->config.n_devices = 1;
    const struct json *j = convert(w);
    if (j == NULL)
        fail_msg("%s", w->err.message);
    assert_non_null(strstr(buf_cstr(&w->note), "/etc/group")); /* root's membership of bin cannot be had */
    assert_int_equal(json_get(j, "process", "user", "additionalGids")->count, 1);
    assert_null(json_get(j, "linux", "devices"));
    assert_string_equal(json_string(json_member(mount_at(j, "/dev/gpu0"), "source"), ""), "/dev/null");
    assert_string_equal(json_string(json_member(mount_at(j, "/sys"), "type"), ""), "bind");
    assert_false(has_string(json_member(mount_at(j, "/dev/pts"), "options"), "gid=5"));
    assert_null(mount_at(j, "/sys/fs/cgroup"));
    /* Groups of the job's user that nobody can give up are more than Strict allows. */
    w->facts.kept_groups = true;
    assert_non_null(convert(w));
    w->security.supplemental_groups_policy = RUNTIME__V1__SUPPLEMENTAL_GROUPS_POLICY__Strict;
    refused(w, STATUS_FAILED_PRECONDITION, "supplemental_groups_policy: Strict");
    w->facts.kept_groups = false;
    assert_non_null(convert(w));
    w->security.supplemental_groups_policy = (Runtime__V1__SupplementalGroupsPolicy)7;
    refused(w, STATUS_INVALID_ARGUMENT, "supplemental_groups_policy: 7");
    world_free(w);
    arena_free(&kept);
}

/* With ranges in /etc/subuid and /etc/subgid. */
static void test_rootless_with_ranges(void **state)
{
    struct world *w = world_new(false);
    Runtime__V1__Int64Value uid;
    int64_t groups[] = { 1234 };

    (void)state;
    w->engine.isolation.uids = 2001;
    w->engine.isolation.gids = 1235;
    set_command(w, const_argv, 1);
    w->image.user = (char *)(uintptr_t) "web";
    w->security.supplemental_groups = groups;
    w->security.n_supplemental_groups = 1;
    assert_non_null(convert(w));
    assert_int_equal(w->spec.process.user.uid, 1000);
    assert_int_equal(w->spec.process.user.group_count, 2); /* 2000, which /etc/group adds, does not exist */
    assert_non_null(strstr(buf_cstr(&w->note), "/etc/group"));
    groups[0] = 1235;
    refused(w, STATUS_FAILED_PRECONDITION, "linux.security_context.supplemental_groups: gid 1235 cannot be mapped");
    w->security.n_supplemental_groups = 0;
    runtime__v1__int64_value__init(&uid);
    uid.value = 2001;
    w->security.run_as_user = &uid;
    refused(w, STATUS_FAILED_PRECONDITION, "end at 2000 and 1234");
    world_free(w);
}

static void test_pod_user_namespace(void **state)
{
    static const char *const kinds[] = { "user", "ipc", "uts", "mount", "pid" };
    static const char *const paths[] = { "/proc/self/fd/901", "/proc/self/fd/903", "/proc/self/fd/904", "", "/proc/self/fd/902" };
    struct world *w = world_new(true);
    Runtime__V1__IDMapping range, *ranges[] = { &range };
    Runtime__V1__UserNamespace u;
    Runtime__V1__NamespaceOption pods;
    Runtime__V1__LinuxPodSandboxConfig pod_linux;
    Runtime__V1__LinuxSandboxSecurityContext pod_security;
    Runtime__V1__Int64Value uid;

    (void)state;
    set_command(w, const_argv, 1);
    runtime__v1__idmapping__init(&range);
    range.host_id = 200000;
    range.length = 1500;
    runtime__v1__user_namespace__init(&u);
    u.uids = u.gids = ranges;
    u.n_uids = u.n_gids = 1;
    runtime__v1__namespace_option__init(&pods);
    runtime__v1__linux_pod_sandbox_config__init(&pod_linux);
    runtime__v1__linux_sandbox_security_context__init(&pod_security);
    w->sandbox.linux = &pod_linux;
    pod_linux.security_context = &pod_security;
    pod_security.namespace_options = &pods;
    w->namespaces.userns_options = &u;
    refused(w, STATUS_INVALID_ARGUMENT, "userns_options: must be those of the pod");
    pods.userns_options = &u;
    w->engine.pod = (struct podns){ .on = true, .user_fd = 901, .pid_fd = 902, .ipc_fd = 903, .uts_fd = 904 };
    w->engine.pod.map.uids = w->engine.pod.map.gids =
        (struct userns_ids){ .ranges = { { 0, 200000, 1500 } }, .count = 1 };
    w->facts.pod = &w->engine.pod;
    const struct json *j = convert(w);
    if (j == NULL)
        fail_msg("%s", w->err.message);
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        char index[4];
        snprintf(index, sizeof index, "%zu", i);
        assert_string_equal(json_string(json_get(j, "linux", "namespaces", index, "type"), ""), kinds[i]);
        assert_string_equal(json_string(json_get(j, "linux", "namespaces", index, "path"), ""), paths[i]);
    }
    assert_int_equal(json_i64(json_get(j, "linux", "gidMappings", "0", "hostID"), -1), 200000);
    assert_int_equal(json_i64(json_get(j, "linux", "uidMappings", "0", "size"), -1), 1500);
    assert_true(w->spec.process.own_pid);
    assert_string_equal(json_string(json_member(mount_at(j, "/sys"), "type"), ""), "bind");
    assert_string_equal(json_string(json_member(mount_at(j, "/sys/fs/cgroup"), "type"), ""), "cgroup");
    assert_true(has_string(json_member(mount_at(j, "/dev/pts"), "options"), "gid=5"));
    w->engine.pod.has_network = true;
    j = convert(w);
    assert_string_equal(json_string(json_member(mount_at(j, "/sys"), "type"), ""), "sysfs");
    runtime__v1__int64_value__init(&uid);
    uid.value = 1500;
    w->security.run_as_user = &uid;
    refused(w, STATUS_FAILED_PRECONDITION, "run_as_user: uid 1500 is not one of the pod's user namespace");
    w->security.run_as_user = NULL;
    w->security.privileged = true;
    refused(w, STATUS_FAILED_PRECONDITION, "linux.security_context.privileged");
    world_free(w);
}

static void test_devices(void **state)
{
    struct world *w = world_new(true);
    Runtime__V1__Device d, *devices[] = { &d };

    (void)state;
    set_command(w, const_argv, 1);
    runtime__v1__device__init(&d);
    d.host_path = (char *)(uintptr_t) "/dev/zero";
    d.container_path = (char *)(uintptr_t) "/dev/nothing";
    d.permissions = (char *)(uintptr_t) "rw";
    w->config.devices = devices;
    w->config.n_devices = 1;
    const struct json *j = convert(w);
    assert_string_equal(json_string(json_get(j, "linux", "devices", "0", "path"), ""), "/dev/nothing");
    assert_int_equal(json_i64(json_get(j, "linux", "devices", "0", "minor"), -1), 5);
    const struct cgroup_device *rule = &w->spec.rules[w->spec.rule_count - 1];
    assert_true(rule->type == 'c' && rule->major == 1 && rule->minor == 5 && rule->read && rule->write && !rule->mknod);
    d.permissions = (char *)(uintptr_t) "rx";
    refused(w, STATUS_INVALID_ARGUMENT, "devices[0].permissions");
    d.permissions = (char *)(uintptr_t) "r";
    d.host_path = (char *)(uintptr_t) "/etc/passwd";
    refused(w, STATUS_FAILED_PRECONDITION, "devices[0].host_path: /etc/passwd is not a device");
    world_free(w);
}

/* Paths inside a root never leave it, also on kernels without openat2(2). */
static void test_rootfs_paths(void **state)
{
    struct status err = STATUS_INIT;
    struct buf b = BUF_INIT;

    (void)state;
    assert_int_equal(symlinkat("/etc", fixture.root_fd, "absolute"), 0);
    assert_int_equal(symlinkat("../../../etc/passwd", fixture.root_fd, "up"), 0);
    assert_int_equal(symlinkat("loop", fixture.root_fd, "loop"), 0);
    assert_true(rootfs_read(fixture.root_fd, "/absolute/passwd", 4096, &b, &err));
    assert_true(str_starts(buf_cstr(&b), "root:x:0:0::/root"));
    buf_clear(&b);
    assert_true(rootfs_read(fixture.root_fd, "up", 4096, &b, &err));
    assert_non_null(strstr(buf_cstr(&b), "web:x:1000"));
    buf_clear(&b);
    assert_true(rootfs_read(fixture.root_fd, "/not/there", 4096, &b, &err));
    assert_int_equal(b.n, 0);
    assert_false(rootfs_read(fixture.root_fd, "loop", 4096, &b, &err));
    assert_false(rootfs_read(fixture.root_fd, "/etc", 4096, &b, &err));
    assert_false(rootfs_read(fixture.root_fd, "/etc/passwd", 10, &b, &err));
    assert_true(rootfs_mkdir(fixture.root_fd, "/absolute/new/er", &err));
    assert_int_equal(faccessat(fixture.root_fd, "etc/new/er", F_OK, 0), 0);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kubelet_sample), cmocka_unit_test(test_mounts),       cmocka_unit_test(test_environment),
        cmocka_unit_test(test_damaged_process), cmocka_unit_test(test_capabilities), cmocka_unit_test(test_seccomp),
        cmocka_unit_test(test_refusals),       cmocka_unit_test(test_rootless),     cmocka_unit_test(test_devices),
        cmocka_unit_test(test_rootfs_paths),   cmocka_unit_test(test_pod_user_namespace),
        cmocka_unit_test(test_rootless_with_ranges),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
