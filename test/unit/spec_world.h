/* SPDX-License-Identifier: Apache-2.0 */
/* spec_world.h: for tests of what is made of a container's configuration: an image's root, an engine and its facts, all made up. */
#ifndef UNIT_SPEC_WORLD_H
#define UNIT_SPEC_WORLD_H

#include "agent/spec.h"

#include "agent/rootfs.h"
#include "image/config.h"
#include "io/file.h"
#include "text/protojson.h"

#include <fcntl.h>
#include <setjmp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
    char dir[64];
    int root_fd;
} fixture;

static UNUSED void put(const char *name, const char *text)
{
    struct status err;
    cleanup_free char *path = xasprintf("%s/%s", fixture.dir, name);

    if (!file_replace(path, text, strlen(text), 0644, &err))
        abort();
}

static int set_up(void **state)
{
    struct status err;

    (void)state;
    snprintf(fixture.dir, sizeof fixture.dir, "/tmp/test_spec.XXXXXX");
    if (mkdtemp(fixture.dir) == NULL)
        return -1;
    cleanup_free char *etc = xasprintf("%s/etc", fixture.dir);
    if (!dir_make(etc, 0755, &err))
        return -1;
    put("etc/passwd", "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n");
    put("etc/group", "root:x:0:root\nbin:x:1:root\nextra:x:2000:web\n");
    put("hosts", "");
    put("profile.json", "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"flags\":[\"SECCOMP_FILTER_FLAG_LOG\"],\"syscalls\":[]}");
    fixture.root_fd = open(fixture.dir, O_PATH | O_DIRECTORY);
    return fixture.root_fd >= 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    struct status err;

    (void)state;
    close(fixture.root_fd);
    return tree_remove(fixture.dir, &err) ? 0 : -1;
}

/* Everything a conversion needs, as root with all that this program knows. */
struct world {
    struct engine engine;
    struct security_facts facts;
    struct engine_create create;
    struct spec_input in;
    struct image_config image;
    Runtime__V1__ContainerConfig config;
    Runtime__V1__LinuxContainerConfig linux;
    Runtime__V1__LinuxContainerSecurityContext security;
    Runtime__V1__NamespaceOption namespaces;
    Runtime__V1__PodSandboxConfig sandbox;
    struct spec spec;
    struct buf note, json;
    struct arena arena;
    struct status err;
    const char *stage_error;
    struct cdi_edits cdi;
    struct lsm lsm;
    struct lsm_choice labels;
    const char *cdi_dirs[2]; /* NULL: none */
    struct arena kept;       /* what lives as long as the world */
};

static bool stage(void *arg, size_t index, const struct engine_source *source, Runtime__V1__MountPropagation propagation,
                  struct buf *out, struct status *err)
{
    struct world *w = arg;

    if (w->stage_error != NULL)
        return status_set(err, STATUS_NOT_FOUND, "%s", w->stage_error);
    buf_printf(out, "/staged/%zu%s%s%s", index, source->path, source->create ? "" : "#given", propagation != 0 ? "#propagates" : "");
    return true;
}

static struct world *world_new(bool root)
{
    struct world *w = xcalloc(1, sizeof *w);

    w->engine.isolation = (struct isolation){ .mount = true, .pid = true, .ipc = true, .uts = true, .user = !root,
                                              .uid = root ? 0 : 1001, .gid = root ? 0 : 1001, .uids = root ? UINT32_MAX : 1,
                                              .gids = root ? UINT32_MAX : 1, .host_mount_fd = -1 };
    w->engine.root = root;
    w->lsm.root = "";
    w->engine.dir = fixture.dir;
    w->engine.hostname = (char *)(uintptr_t) "pod-name";
    w->engine.cgroups.mode = root ? CGROUP_V1 : CGROUP_NONE;
    w->facts = (struct security_facts){ .isolation = &w->engine.isolation, .root = root, .engine = "crun", .containers = true, .own_root = true, .device_rules = true,
                                        .available = (1ull << 41) - 1 };
    runtime__v1__container_config__init(&w->config);
    runtime__v1__linux_container_config__init(&w->linux);
    runtime__v1__linux_container_security_context__init(&w->security);
    runtime__v1__namespace_option__init(&w->namespaces);
    runtime__v1__pod_sandbox_config__init(&w->sandbox);
    w->config.linux = &w->linux;
    w->linux.security_context = &w->security;
    w->security.namespace_options = &w->namespaces;
    w->image.user = w->image.working_dir = (char *)(uintptr_t) "";
    w->create = (struct engine_create){ .id = "abc", .bundle = "/bundle", .config = &w->config, .sandbox = &w->sandbox,
                                        .image = &w->image };
    w->in = (struct spec_input){ .engine = &w->engine, .create = &w->create, .facts = &w->facts, .root_fd = fixture.root_fd,
                                 .labels = &w->labels, .cdi = &w->cdi, .stage = stage, .arg = w };
    return w;
}

static void world_clear(struct world *w)
{
    spec_free(&w->spec);
    buf_free(&w->note);
    buf_free(&w->json);
    arena_free(&w->arena);
    w->err = (struct status)STATUS_INIT;
}

static void world_free(struct world *w)
{
    world_clear(w);
    arena_free(&w->kept);
    free(w);
}

/* The document, or NULL with w->err. */
static const struct json *convert(struct world *w)
{
    const char *const dirs[] = { w->cdi_dirs[0], w->cdi_dirs[1], NULL };

    world_clear(w);
    if (!cdi_collect(w->create.config, dirs, &w->spec.arena, &w->cdi, &w->err) ||
        !security_check(&w->facts, w->create.config, w->create.sandbox, &w->err) ||
        !lsm_choose(&w->lsm, w->create.config, w->create.sandbox, w->engine.root, &w->spec.arena, &w->labels, &w->note, &w->err) ||
        !spec_process(&w->in, &w->spec, &w->note, &w->err) || !spec_mounts(&w->in, &w->spec, &w->err) ||
        !spec_devices(&w->in, &w->spec, &w->err))
        return NULL;
    spec_write(&w->spec, "/bundle/rootfs", &w->json);
    const struct json *j = json_parse(&w->arena, (struct str){ (const char *)w->json.p, w->json.n }, &w->err);
    assert_non_null(j);
    return j;
}

static UNUSED void refused(struct world *w, enum status_code code, const char *contains)
{
    assert_null(convert(w));
    if (w->err.code != code || strstr(w->err.message, contains) == NULL)
        fail_msg("%s: %s; wanted %s", status_code_name(w->err.code), w->err.message, contains);
}

static void set_command(struct world *w, char **argv, size_t n)
{
    w->config.command = argv;
    w->config.n_command = n;
}

static char *const_argv[] = { (char *)(uintptr_t) "prog", (char *)(uintptr_t) "arg" };

static UNUSED const struct json *mount_at(const struct json *spec, const char *destination)
{
    const struct json *found = NULL;

    for (JSON_EACH(m, json_member(spec, "mounts")))
        if (strcmp(json_string(json_member(m, "destination"), ""), destination) == 0)
            found = m;
    return found;
}

static UNUSED bool has_string(const struct json *array, const char *s)
{
    for (JSON_EACH(i, array))
        if (strcmp(json_string(i, ""), s) == 0)
            return true;
    return false;
}

static UNUSED void load_sample(struct world *w, const char *path)
{
    struct buf text = BUF_INIT;

    if (!file_read(path, 1 << 20, &text, &w->err))
        fail_msg("%s (tests run from the top of the source)", w->err.message);
    const struct json *j = json_parse(&w->arena, (struct str){ (const char *)text.p, text.n }, &w->err);
    ProtobufCMessage *m = protojson_read(&w->arena, &runtime__v1__container_config__descriptor, json_member(j, "config"), 0, &w->err);
    buf_free(&text);
    if (m == NULL)
        fail_msg("%s: %s", path, w->err.message);
    w->create.config = (Runtime__V1__ContainerConfig *)m;
}

#endif
