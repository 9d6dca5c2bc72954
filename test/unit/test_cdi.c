/* SPDX-License-Identifier: Apache-2.0 */
/* CDI: files to devices, devices to what a container is given. */
#include "spec_world.h"

static Runtime__V1__CDIDevice devices[3], *device_list[3] = { &devices[0], &devices[1], &devices[2] };

/* The container's CDI devices. */
static void want(struct world *w, size_t n, const char *first, const char *second, const char *third)
{
    const char *names[] = { first, second, third };

    for (size_t i = 0; i < n; i++) {
        runtime__v1__cdidevice__init(&devices[i]);
        devices[i].name = (char *)(uintptr_t)names[i];
    }
    w->config.cdi_devices = device_list;
    w->config.n_cdi_devices = n;
}

static const char gpu_yaml[] = "cdiVersion: \"0.7.0\"\n"
                               "kind: vendor.com/gpu\n"
                               "annotations: {any: thing}\n"
                               "containerEdits:\n"
                               "  env: [GPU=yes, PATH=/gpu/bin]\n"
                               "  additionalGids: [0, 44]\n"
                               "devices:\n"
                               "  - name: zero\n"
                               "    containerEdits:\n"
                               "      deviceNodes:\n"
                               "        - {path: /dev/gpu0, hostPath: /dev/zero, permissions: rw, fileMode: 0o640}\n"
                               "        - {path: /dev/made, type: c, major: 195, minor: 7, uid: 5, gid: 6}\n"
                               "      mounts:\n"
                               "        - {hostPath: /lib/gpu, containerPath: /usr/lib/gpu, options: [ro, nosuid, bind]}\n"
                               "        - {hostPath: none, containerPath: /scratch/, type: tmpfs, options: [size=1m]}\n"
                               "      hooks:\n"
                               "        - hookName: createContainer\n"
                               "          path: /usr/bin/hook\n"
                               "          args: [hook, update]\n"
                               "          env: [A=b]\n"
                               "          timeout: 5\n"
                               "  - name: all\n"
                               "    containerEdits:\n"
                               "      env: [ALL=1]\n";

static struct world *gpu_world(bool root)
{
    struct world *w = world_new(root);

    put("cdi/gpu.yaml", gpu_yaml);
    w->cdi_dirs[0] = arena_printf(&w->kept, "%s/cdi", fixture.dir);
    w->cdi_dirs[1] = arena_printf(&w->kept, "%s/cdi2", fixture.dir);
    set_command(w, const_argv, 1);
    return w;
}

static void test_applied(void **state)
{
    struct world *w = gpu_world(true);

    (void)state;
    want(w, 3, "vendor.com/gpu=zero", "vendor.com/gpu=all", "vendor.com/gpu=zero");
    const struct json *j = convert(w);
    if (j == NULL)
        fail_msg("%s", w->err.message);
    assert_string_equal(process_env(&w->spec.process, "GPU"), "yes");
    assert_string_equal(process_env(&w->spec.process, "ALL"), "1");
    assert_string_equal(process_env(&w->spec.process, "PATH"), "/gpu/bin");
    const struct json *gids = json_get(j, "process", "user", "additionalGids");
    assert_int_equal(json_i64(json_at(gids, gids->count - 1), -1), 44);
    const struct json *nodes = json_get(j, "linux", "devices");
    assert_int_equal(nodes->count, 2);
    assert_string_equal(json_string(json_get(nodes, "0", "path"), ""), "/dev/gpu0");
    assert_int_equal(json_i64(json_get(nodes, "0", "major"), -1), 1); /* /dev/zero */
    assert_int_equal(json_i64(json_get(nodes, "0", "fileMode"), -1), 0640);
    assert_int_equal(json_i64(json_get(nodes, "1", "major"), -1), 195);
    assert_int_equal(json_i64(json_get(nodes, "1", "uid"), -1), 5);
    const struct cgroup_device *rule = &w->spec.rules[w->spec.rule_count - 2];
    assert_true(rule->major == 1 && rule->minor == 5 && rule->read && rule->write && !rule->mknod);
    const struct json *lib = mount_at(j, "/usr/lib/gpu");
    assert_string_equal(json_string(json_member(lib, "source"), ""), "/staged/0/lib/gpu#given");
    assert_true(has_string(json_member(lib, "options"), "ro") && !has_string(json_member(lib, "options"), "rbind"));
    assert_string_equal(json_string(json_member(mount_at(j, "/scratch"), "type"), ""), "tmpfs");
    const struct json *hook = json_get(j, "hooks", "createContainer", "0");
    assert_string_equal(json_string(json_member(hook, "path"), ""), "/usr/bin/hook");
    assert_true(has_string(json_member(hook, "env"), "A=b"));
    assert_int_equal(json_i64(json_member(hook, "timeout"), -1), 5);
    assert_int_equal(json_get(j, "hooks", "createContainer")->count, 1);
    world_free(w);
}

static void test_annotations(void **state)
{
    struct world *w = gpu_world(true);
    Runtime__V1__ContainerConfig__AnnotationsEntry entry, *entries[] = { &entry };

    (void)state;
    runtime__v1__container_config__annotations_entry__init(&entry);
    entry.key = (char *)(uintptr_t) "cdi.k8s.io/plugin_claim";
    entry.value = (char *)(uintptr_t) "vendor.com/gpu=all,vendor.com/gpu=all";
    w->config.annotations = entries;
    w->config.n_annotations = 1;
    assert_true(cdi_wanted(&w->config));
    assert_non_null(convert(w));
    assert_string_equal(process_env(&w->spec.process, "ALL"), "1");
    entry.value = (char *)(uintptr_t) "vendor.com/gpu=all,nonsense";
    refused(w, STATUS_INVALID_ARGUMENT, "annotations[cdi.k8s.io/plugin_claim]: \"nonsense\"");
    entry.key = (char *)(uintptr_t) "other/key";
    assert_false(cdi_wanted(&w->config));
    world_free(w);
}

static void test_which_file(void **state)
{
    struct world *w = gpu_world(true);

    (void)state;
    want(w, 1, "vendor.com/gpu=one", NULL, NULL);
    refused(w, STATUS_FAILED_PRECONDITION, "CDI_devices[0]: no file in");
    put("cdi/other.json", "{\"cdiVersion\":\"0.5.0\",\"kind\":\"vendor.com/gpu\",\"devices\":[{\"name\":\"one\",\"containerEdits\":{\"env\":[\"W=first\"]}}]}");
    put("cdi/broken.json", "{\"cdiVersion\":\"0.5.0\",");
    put("cdi/ignored.txt", "no");
    assert_non_null(convert(w));
    assert_string_equal(process_env(&w->spec.process, "W"), "first");
    put("cdi/same.yaml", "cdiVersion: 0.5.0\nkind: vendor.com/gpu\ndevices: [{name: one, containerEdits: {env: [W=same]}}]\n");
    refused(w, STATUS_FAILED_PRECONDITION, "is in two files: ");
    put("cdi2/later.yaml", "cdiVersion: 0.5.0\nkind: vendor.com/gpu\ndevices: [{name: one, containerEdits: {env: [W=later]}}]\n");
    assert_non_null(convert(w));
    assert_string_equal(process_env(&w->spec.process, "W"), "later");
    want(w, 1, "vendor.com/gpu=none", NULL, NULL);
    refused(w, STATUS_FAILED_PRECONDITION, "broken.json cannot be used");
    world_free(w);
}

/* Edits of one device. */
static void edit(struct world *w, const char *edits)
{
    cleanup_free char *text = xasprintf("cdiVersion: 1.1.0\nkind: t.com/x\ndevices: [{name: d, containerEdits: %s}]\n", edits);

    put("cdi/edit.yaml", text);
    want(w, 1, "t.com/x=d", NULL, NULL);
}

static void test_what_cannot_be(void **state)
{
    static const struct {
        const char *edits, *message;
    } table[] = {
        { "{intelRdt: {closID: a}}", "intelRdt of" },
        { "{netDevices: [{hostInterfaceName: a, name: b}]}", "netDevices of" },
        { "{hooks: [{hookName: poststop, path: /bin/true}]}", "hook poststop" },
        { "{hooks: [{hookName: poststart, path: /bin/true}]}", "hook poststart" },
        { "{deviceNodes: [{path: /dev/not-there}]}", "/dev/not-there: No such file" },
        { "{deviceNodes: [{path: /dev/x, hostPath: /etc/passwd}]}", "/etc/passwd is not a" },
        { "{deviceNodes: [{path: /dev/null, type: b}]}", "not a block device" },
        { "{deviceNodes: [{path: /dev/p, type: p}]}", "named pipes" },
        { "{mounts: [{hostPath: /a, containerPath: /b, type: nfs}]}", "type \"nfs\"" },
        { "{mounts: [{hostPath: /a, containerPath: /b, options: [loud]}]}", "option \"loud\"" },
        { "{mounts: [{hostPath: /a, containerPath: /b, options: [size=1m]}]}", "option \"size=1m\"" },
        { "{mounts: [{hostPath: /a, containerPath: /b, options: [ro,ro,ro,ro,ro,ro,ro,ro,ro,ro,ro,ro,ro]}]}", "options" },
    };
    struct world *w = gpu_world(true);

    (void)state;
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        edit(w, table[i].edits);
        refused(w, STATUS_FAILED_PRECONDITION, table[i].message);
    }
    edit(w, "{deviceNodes: [{path: /dev/null, permissions: r}]}");
    assert_non_null(convert(w));
    edit(w, "{deviceNodes: [{path: /dev/null, permissions: none}]}");
    assert_non_null(convert(w));
    w->facts.device_rules = false;
    refused(w, STATUS_FAILED_PRECONDITION, "cannot be enforced");
    want(w, 1, "vendor.com=x", NULL, NULL);
    refused(w, STATUS_INVALID_ARGUMENT, "CDI_devices[0]: \"vendor.com=x\"");
    world_free(w);
}

static void test_without_root(void **state)
{
    struct world *w = gpu_world(false);

    (void)state;
    edit(w, "{deviceNodes: [{path: /dev/gpu, hostPath: /dev/zero}], mounts: [{hostPath: /a, containerPath: /dev/shm}]}");
    const struct json *j = convert(w);
    assert_non_null(j);
    assert_string_equal(json_string(json_member(mount_at(j, "/dev/gpu"), "source"), ""), "/dev/zero");
    assert_string_equal(json_string(json_member(mount_at(j, "/dev/shm"), "source"), ""), "/staged/0/a#given");
    edit(w, "{additionalGids: [44]}");
    refused(w, STATUS_FAILED_PRECONDITION, "additionalGids: gid 44 cannot be mapped");
    edit(w, "{deviceNodes: [{path: /dev/none, type: c, major: 1, minor: 99}]}"); /* cannot be made, and there is none */
    refused(w, STATUS_FAILED_PRECONDITION, "/dev/none: No such file");
    edit(w, "{deviceNodes: [{path: /dev/null, permissions: r}]}");
    refused(w, STATUS_FAILED_PRECONDITION, "cannot be enforced");
    world_free(w);
}

static void test_host_engine(void **state)
{
    struct world *w = gpu_world(true);

    (void)state;
    w->facts.containers = false;
    w->facts.engine = "host";
    w->facts.own_root = false;
    edit(w, "{env: [A=1]}");
    assert_non_null(convert(w));
    edit(w, "{hooks: [{hookName: prestart, path: /bin/true}]}");
    refused(w, STATUS_FAILED_PRECONDITION, "the host engine runs no hooks");
    world_free(w);
}

/* ---- files ---- */

static void test_bad_files(void **state)
{
    static const struct {
        const char *text, *message;
    } table[] = {
        { "", "" },
        { "[]", "wanted an object" },
        { "{}", "cdiVersion" },
        { "{\"cdiVersion\":\"9.0.0\"}", "9.0.0" },
        { "{\"cdiVersion\":\"1.0.0\"}", "kind" },
        { "{\"cdiVersion\":\"1.0.0\",\"kind\":\"a\"}", "kind" },
        { "{\"cdiVersion\":\"1.0.0\",\"kind\":\"a/b/c\"}", "kind" },
        { "{\"cdiVersion\":\"1.0.0\",\"kind\":\"1a/b\"}", "kind" },
        { "{\"cdiVersion\":\"1.0.0\",\"kind\":\"a/b\"}", "devices" },
        { "{\"cdiVersion\":\"1.0.0\",\"kind\":\"a/b\",\"what\":1}", "what" },
        { "{\"cdiVersion\":\"1.0.0\",\"kind\":\"a/b\",\"devices\":[{\"name\":\"-\"}]}", "name" },
        { "{\"cdiVersion\":\"1.0.0\",\"kind\":\"a/b\",\"devices\":[{\"name\":\"x\"},{\"name\":\"x\"}]}", "twice" },
        { "{\"cdiVersion\":\"1.0.0\",\"kind\":\"a/b\",\"devices\":[{\"name\":\"x\",\"containerEdits\":{\"envs\":[]}}]}", "envs" },
        { "{\"cdiVersion\":\"1.0.0\",\"kind\":\"a/b\",\"devices\":[{\"name\":\"x\",\"containerEdits\":{\"env\":[\"A\"]}}]}", "NAME=value" },
        { "{\"cdiVersion\":\"1.0.0\",\"kind\":\"a/b\",\"devices\":[{\"name\":\"x\",\"containerEdits\":{\"hooks\":[{\"hookName\":\"x\",\"path\":\"/x\"}]}}]}", "hook" },
        { "{\"cdiVersion\":\"1.0.0\",\"kind\":\"a/b\",\"devices\":[{\"name\":\"x\",\"containerEdits\":{\"mounts\":[{\"hostPath\":\"/x\"}]}}]}", "containerPath" },
        { "{\"cdiVersion\":\"1.0.0\",\"kind\":\"a/b\",\"devices\":[{\"name\":\"x\",\"containerEdits\":{\"deviceNodes\":[{\"path\":\"x\"}]}}]}", "path" },
        { "{\"cdiVersion\":\"1.0.0\",\"kind\":\"a/b\",\"devices\":[{\"name\":\"x\",\"containerEdits\":{\"deviceNodes\":[{\"path\":\"/x\",\"type\":\"q\"}]}}]}", "type" },
        { "{\"cdiVersion\":\"1.0.0\",\"kind\":\"a/b\",\"devices\":[{\"name\":\"x\",\"containerEdits\":{\"deviceNodes\":[{\"path\":\"/x\",\"major\":-1}]}}]}", "major" },
        { "{\"cdiVersion\":\"1.0.0\",\"kind\":\"a/b\",\"devices\":[{\"name\":\"x\",\"containerEdits\":{\"deviceNodes\":[{\"path\":\"/x\",\"permissions\":\"rx\"}]}}]}", "permissions" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        struct arena arena cleanup_arena = ARENA_INIT;
        struct cdi_spec spec;
        struct status err = STATUS_INIT;
        if (cdi_spec_read(&arena, str_of(table[i].text), true, &spec, &err) || err.code != STATUS_INVALID_ARGUMENT ||
            strstr(err.message, table[i].message) == NULL)
            fail_msg("%s: %s", table[i].text, err.message);
    }
}

static void test_names(void **state)
{
    static const char *const good[] = { "vendor.com/class=x", "a/b=0", "a.b_c-d/e_f-g=h:i.j_k-l", "v/c=A" };
    static const char *const bad[] = { "",        "a",      "a/b",     "a/b=",   "=x",    "a=x",     "/b=x",   "a/=x",
                                       "1a/b=x", "a/1b=x", "a./b=x", "a/b.c=x", "a/b=-x", "a/b=x:", "a b/c=x", "a/b/c=x" };
    size_t n;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++)
        if (!cdi_name_split(good[i], &n))
            fail_msg("%s", good[i]);
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        if (cdi_name_split(bad[i], &n))
            fail_msg("%s", bad[i]);
}

static int set_up_dirs(void **state)
{
    struct status err;

    if (set_up(state) != 0)
        return -1;
    cleanup_free char *one = xasprintf("%s/cdi", fixture.dir), *two = xasprintf("%s/cdi2", fixture.dir);
    return dir_make(one, 0755, &err) && dir_make(two, 0755, &err) ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_applied, set_up_dirs, tear_down),
        cmocka_unit_test_setup_teardown(test_annotations, set_up_dirs, tear_down),
        cmocka_unit_test_setup_teardown(test_which_file, set_up_dirs, tear_down),
        cmocka_unit_test_setup_teardown(test_what_cannot_be, set_up_dirs, tear_down),
        cmocka_unit_test_setup_teardown(test_without_root, set_up_dirs, tear_down),
        cmocka_unit_test_setup_teardown(test_host_engine, set_up_dirs, tear_down),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
