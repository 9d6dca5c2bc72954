/* SPDX-License-Identifier: Apache-2.0 */
/* AppArmor profiles and SELinux labels, on a machine made of files. */
#include "spec_world.h"

#include "agent/lsm.h"

#include <sys/xattr.h>

#define ATTR "proc/self/attr/exec"

static void make_folders(const char *const *names)
{
    struct status err;

    for (; *names != NULL; names++) {
        cleanup_free char *path = xasprintf("%s/%s", fixture.dir, *names);
        if (!dir_make(path, 0755, &err))
            abort();
    }
}

/* What was written last for an exec; "" when nothing was. */
static const char *written(struct world *w, const char *name)
{
    struct buf text cleanup_buf = BUF_INIT;
    struct status err;
    cleanup_free char *path = xasprintf("%s/%s", fixture.dir, name);

    return file_read(path, 4096, &text, &err) ? arena_strdup(&w->kept, buf_cstr(&text)) : "";
}

static struct world *lsm_world(bool root, bool apparmor, bool selinux)
{
    static const char *const folders[] = { "proc/self/attr", "sys/module/apparmor/parameters", "sbin", "etc/selinux/targeted/contexts", NULL };
    static const char *const apparmor_folders[] = { "sys/kernel/security/apparmor", NULL };
    static const char *const selinux_folders[] = { "sys/fs/selinux", NULL };
    struct world *w = world_new(root);

    make_folders(folders);
    set_command(w, const_argv, 1);
    put("sys/module/apparmor/parameters/enabled", apparmor ? "Y\n" : "N\n");
    if (apparmor)
        make_folders(apparmor_folders);
    if (selinux) {
        make_folders(selinux_folders);
        put("sys/fs/selinux/enforce", "1");
    }
    put("etc/selinux/config", "# comment\nSELINUX=enforcing\nSELINUXTYPE=targeted\n");
    put("etc/selinux/targeted/contexts/lxc_contexts", "process = \"system_u:system_r:container_t:s0\"\n"
                                                     "content = \"system_u:object_r:virt_var_lib_t:s0\"\n"
                                                     "file = \"system_u:object_r:container_file_t:s0\"\n");
    put(ATTR, "");
    lsm_open(&w->lsm, fixture.dir);
    return w;
}

static Runtime__V1__SecurityProfile profile;

static void set_profile(struct world *w, Runtime__V1__SecurityProfile__ProfileType type, const char *name)
{
    runtime__v1__security_profile__init(&profile);
    profile.profile_type = type;
    profile.localhost_ref = (char *)(uintptr_t)name;
    w->security.apparmor = &profile;
}
#define LOCALHOST RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__Localhost
#define DEFAULT RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__RuntimeDefault
#define UNCONFINED RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__Unconfined

static void test_apparmor_off(void **state)
{
    struct world *w = lsm_world(true, false, false);

    (void)state;
    assert_non_null(convert(w));
    assert_string_equal(w->spec.process.apparmor, "");
    assert_int_equal(w->note.n, 0);
    set_profile(w, DEFAULT, "");
    assert_non_null(convert(w));
    assert_non_null(strstr(buf_cstr(&w->note), "AppArmor is off"));
    set_profile(w, UNCONFINED, "");
    assert_non_null(convert(w));
    assert_int_equal(w->note.n, 0);
    set_profile(w, LOCALHOST, "localhost/mine");
    refused(w, STATUS_FAILED_PRECONDITION, "linux.security_context.apparmor: AppArmor is off");
    w->security.privileged = true; /* is never confined; but this pod does not allow it */
    refused(w, STATUS_INVALID_ARGUMENT, "privileged");
    world_free(w);
}

static void test_apparmor_on(void **state)
{
    struct world *w = lsm_world(true, true, false);

    (void)state;
    put(ATTR, "");
    set_profile(w, LOCALHOST, "localhost/mine");
    const struct json *j = convert(w);
    assert_string_equal(written(w, ATTR), "exec mine"); /* tried */
    assert_string_equal(json_string(json_get(j, "process", "apparmorProfile"), ""), "mine");
    assert_string_equal(w->spec.process.apparmor, "mine");
    set_profile(w, LOCALHOST, "plain");
    assert_non_null(convert(w));
    assert_string_equal(w->spec.process.apparmor, "plain");
    static const char *const bad[] = { "", "localhost/", "two words", "line\nfeed" };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        set_profile(w, LOCALHOST, bad[i]);
        refused(w, STATUS_INVALID_ARGUMENT, "localhost_ref");
    }
    set_profile(w, (Runtime__V1__SecurityProfile__ProfileType)9, "");
    refused(w, STATUS_INVALID_ARGUMENT, "apparmor.profile_type: 9");
    set_profile(w, UNCONFINED, "");
    assert_non_null(convert(w));
    assert_string_equal(w->spec.process.apparmor, "");
    set_profile(w, DEFAULT, "");
    assert_non_null(convert(w));
    assert_string_equal(w->spec.process.apparmor, "interlink-cri-default");
    w->security.apparmor = NULL;
    assert_non_null(convert(w));
    assert_string_equal(w->spec.process.apparmor, "interlink-cri-default");
    world_free(w);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
static void test_apparmor_words(void **state)
{
    struct world *w = lsm_world(true, true, false);

    (void)state;
    w->security.apparmor_profile = (char *)(uintptr_t) "localhost/mine";
    assert_non_null(convert(w));
    assert_string_equal(w->spec.process.apparmor, "mine");
    w->security.apparmor_profile = (char *)(uintptr_t) "runtime/default";
    assert_non_null(convert(w));
    assert_string_equal(w->spec.process.apparmor, "interlink-cri-default");
    w->security.apparmor_profile = (char *)(uintptr_t) "unconfined";
    assert_non_null(convert(w));
    assert_string_equal(w->spec.process.apparmor, "");
    w->security.apparmor_profile = (char *)(uintptr_t) "nonsense";
    refused(w, STATUS_INVALID_ARGUMENT, "apparmor_profile");
    set_profile(w, UNCONFINED, ""); /* the new field counts */
    assert_non_null(convert(w));
    world_free(w);
}
#pragma GCC diagnostic pop

static void test_apparmor_loading(void **state)
{
    struct world *w = lsm_world(true, true, false);
    cleanup_free char *attr = xasprintf("%s/" ATTR, fixture.dir), *parser = xasprintf("%s/sbin/apparmor_parser", fixture.dir);
    cleanup_free char *script = xasprintf("#!/bin/sh\necho \"$@\" >%s/arguments\ncat >%s/loaded\n: >%s\n", fixture.dir, fixture.dir, attr);

    (void)state;
    unlink(attr); /* no profile is known, and there is no parser */
    set_profile(w, LOCALHOST, "localhost/mine");
    refused(w, STATUS_FAILED_PRECONDITION, "the profile \"mine\" is not loaded");
    set_profile(w, DEFAULT, "");
    assert_non_null(convert(w));
    assert_string_equal(w->spec.process.apparmor, "");
    assert_non_null(strstr(buf_cstr(&w->note), "RuntimeDefault is not applied"));
    w->security.apparmor = NULL;
    assert_non_null(convert(w));
    assert_int_equal(w->note.n, 0);
    put("sbin/apparmor_parser", script);
    assert_int_equal(chmod(parser, 0755), 0);
    w->engine.root = false; /* only root loads */
    assert_non_null(convert(w));
    assert_string_equal(w->spec.process.apparmor, "");
    w->engine.root = true;
    assert_non_null(convert(w));
    assert_string_equal(w->spec.process.apparmor, "interlink-cri-default");
    assert_string_equal(written(w, "arguments"), "-K -r\n");
    assert_true(str_starts(written(w, "loaded"), "profile interlink-cri-default "));
    put("sbin/apparmor_parser", "#!/bin/sh\nexit 1\n");
    assert_int_equal(chmod(parser, 0755), 0);
    unlink(attr);
    assert_non_null(convert(w));
    assert_string_equal(w->spec.process.apparmor, "");
    world_free(w);
}

/* The folder of its own that newer kernels have comes first. */
static void test_set_exec(void **state)
{
    static const char *const folders[] = { "proc/self/attr/apparmor", NULL };
    struct world *w = lsm_world(true, true, true);

    (void)state;
    assert_true(lsm_set_exec(&w->lsm, "a", "b:c:d:s0"));
    assert_string_equal(written(w, ATTR), "b:c:d:s0");
    make_folders(folders);
    assert_true(lsm_set_exec(&w->lsm, "a", "")); /* but it may be without the file */
    put("proc/self/attr/apparmor/exec", "");
    assert_true(lsm_set_exec(&w->lsm, "a", "b:c:d:s0:c1"));
    assert_string_equal(written(w, "proc/self/attr/apparmor/exec"), "exec a");
    assert_string_equal(written(w, ATTR), "b:c:d:s0:c1");
    assert_true(lsm_set_exec(&w->lsm, "", ""));
    w->lsm.root = "/nowhere";
    assert_false(lsm_set_exec(&w->lsm, "a", ""));
    assert_false(lsm_set_exec(&w->lsm, "", "a"));
    world_free(w);
}

/* ---- SELinux ---- */

static Runtime__V1__SELinuxOption option;

static void set_selinux(struct world *w, const char *user, const char *role, const char *type, const char *level)
{
    runtime__v1__selinux_option__init(&option);
    option.user = (char *)(uintptr_t)user;
    option.role = (char *)(uintptr_t)role;
    option.type = (char *)(uintptr_t)type;
    option.level = (char *)(uintptr_t)level;
    w->security.selinux_options = &option;
}

static void test_selinux_off(void **state)
{
    struct world *w = lsm_world(true, false, false);

    (void)state;
    set_selinux(w, "", "", "", "s0:c1,c2");
    assert_non_null(convert(w));
    assert_string_equal(w->spec.process.selinux, "");
    assert_non_null(strstr(buf_cstr(&w->note), "SELinux is off"));
    world_free(w);
}

static void test_selinux_labels(void **state)
{
    struct world *w = lsm_world(true, false, true);
    Runtime__V1__PodSandboxMetadata metadata;

    (void)state;
    runtime__v1__pod_sandbox_metadata__init(&metadata);
    metadata.uid = (char *)(uintptr_t) "uid-one";
    w->sandbox.metadata = &metadata;
    const struct json *j = convert(w);
    unsigned a, b, c, d;
    assert_int_equal(sscanf(w->spec.process.selinux, "system_u:system_r:container_t:s0:c%u,c%u", &a, &b), 2);
    assert_true(a < b && b < 1024);
    assert_string_equal(json_string(json_get(j, "process", "selinuxLabel"), ""), w->spec.process.selinux);
    assert_int_equal(sscanf(json_string(json_get(j, "linux", "mountLabel"), ""), "system_u:object_r:container_file_t:s0:c%u,c%u", &c, &d), 2);
    assert_true(a == c && b == d);
    metadata.uid = (char *)(uintptr_t) "uid-two";
    assert_non_null(convert(w));
    assert_int_equal(sscanf(w->spec.process.selinux, "system_u:system_r:container_t:s0:c%u,c%u", &c, &d), 2);
    assert_true(a != c || b != d);

    put(ATTR, ""); /* a plain file keeps what is longer */
    set_selinux(w, "", "", "", "s0:c4,c5");
    assert_non_null(convert(w));
    assert_string_equal(w->spec.process.selinux, "system_u:system_r:container_t:s0:c4,c5");
    assert_string_equal(written(w, ATTR), "system_u:system_r:container_t:s0:c4,c5");
    set_selinux(w, "staff_u", "staff_r", "mine_t", "s0");
    assert_non_null(convert(w));
    assert_string_equal(w->spec.process.selinux, "staff_u:staff_r:mine_t:s0");
    assert_string_equal(w->spec.mount_label, "staff_u:object_r:container_file_t:s0");
    w->security.selinux_options = NULL;
    w->engine.isolation.host_ipc = true;
    w->namespaces.ipc = RUNTIME__V1__NAMESPACE_MODE__NODE;
    assert_non_null(convert(w));
    assert_string_equal(w->spec.process.selinux, "system_u:system_r:spc_t:s0");
    world_free(w);
}

static void test_selinux_of_the_pod(void **state)
{
    struct world *w = lsm_world(false, false, true);
    Runtime__V1__LinuxPodSandboxConfig linux_config;
    Runtime__V1__LinuxSandboxSecurityContext context;

    (void)state;
    assert_non_null(convert(w)); /* without root only when it is asked for */
    assert_string_equal(w->spec.process.selinux, "");
    set_selinux(w, "", "", "", "s0:c9");
    w->security.selinux_options = NULL;
    runtime__v1__linux_pod_sandbox_config__init(&linux_config);
    runtime__v1__linux_sandbox_security_context__init(&context);
    w->sandbox.linux = &linux_config;
    linux_config.security_context = &context;
    context.selinux_options = &option;
    assert_non_null(convert(w));
    assert_string_equal(w->spec.process.selinux, "system_u:system_r:container_t:s0:c9");
    world_free(w);
}

static void test_selinux_refusals(void **state)
{
    struct world *w = lsm_world(true, false, true);
    cleanup_free char *attr = xasprintf("%s/" ATTR, fixture.dir);

    (void)state;
    unlink(attr);
    assert_non_null(convert(w)); /* nobody asked */
    assert_string_equal(w->spec.process.selinux, "");
    assert_string_equal(w->spec.mount_label, "");
    set_selinux(w, "", "", "", "s0,c1");
    refused(w, STATUS_FAILED_PRECONDITION, "selinux_options: the label \"system_u:system_r:container_t:s0,c1\" cannot be set");
    put("etc/selinux/targeted/contexts/lxc_contexts", "nothing\n");
    refused(w, STATUS_FAILED_PRECONDITION, "has no labels for containers");
    put("etc/selinux/config", "SELINUXTYPE=../../x\n");
    refused(w, STATUS_FAILED_PRECONDITION, "has no labels for containers");
    w->security.selinux_options = NULL;
    assert_non_null(convert(w));
    world_free(w);
}

static void assert_label(const char *name, const char *wanted)
{
    cleanup_free char *path = xasprintf("%s/%s", fixture.dir, name);
    char label[64] = "";

    if (lgetxattr(path, "security.selinux", label, sizeof label - 1) < 0)
        label[0] = '\0';
    assert_string_equal(label, wanted);
}

static void test_relabel(void **state)
{
    static const char *const folders[] = { "volume/deep/er", NULL };
    struct world *w = lsm_world(true, false, false);
    cleanup_free char *volume = xasprintf("%s/volume", fixture.dir), *out = xasprintf("%s/outside", fixture.dir);
    struct status err = STATUS_INIT;

    (void)state;
    make_folders(folders);
    put("volume/deep/file", "");
    put("outside", "");
    assert_int_equal(symlinkat(out, fixture.root_fd, "volume/deep/link"), 0);
    assert_false(lsm_relabel("/usr", volume, "a:b:c:s0", &err));
    assert_non_null(strstr(err.message, "selinux_relabel"));
    assert_true(lsm_relabel("/not", "/not/there/at/all", "a:b:c:s0", &err)); /* gone meanwhile */
    if (setxattr(volume, "security.selinux", "x", 2, 0) == 0) { /* root, and a file system with attributes */
        assert_true(lsm_relabel("/data", volume, "a:b:c:s0", &err));
        assert_label("volume", "a:b:c:s0");
        assert_label("volume/deep/file", "a:b:c:s0");
        assert_label("volume/deep/er", "a:b:c:s0");
        assert_label("outside", "");
    }
    world_free(w);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_apparmor_off), TEST(test_apparmor_on),    TEST(test_apparmor_words),     TEST(test_apparmor_loading), TEST(test_set_exec),
        TEST(test_selinux_off),  TEST(test_selinux_labels), TEST(test_selinux_of_the_pod), TEST(test_selinux_refusals), TEST(test_relabel),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
