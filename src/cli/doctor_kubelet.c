/* SPDX-License-Identifier: Apache-2.0 */
/* kubelet's settings on this machine, and the service manager's for us. */
#include "cli/doctor.h"

#include <dirent.h>
#include <unistd.h>

#include "io/file.h"
#include "io/socket.h"
#include "text/yaml.h"

/* kubelet's files, and units, are small. */
#define DOCTOR_FILE_MAX (1u << 20)
#define DOCTOR_HUGEPAGES "/sys/kernel/mm/hugepages"
#define DOCTOR_ENDPOINT_OPTION "--container-runtime-endpoint="

/* ---- kubelet ---- */

/* One of kubelet's files, YAML or JSON; NULL when there is none that can be read. */
static const struct json *doctor_kubelet_file(struct arena *arena, const char *dir, const char *file)
{
    cleanup_free char *path = xasprintf("%s/%s", dir, file);
    cleanup_buf struct buf text = BUF_INIT;
    struct status ignored = STATUS_INIT;

    if (!file_read(path, DOCTOR_FILE_MAX, &text, &ignored))
        return NULL;
    const char *copy = arena_strndup(arena, (const char *)text.p, text.n);
    return yaml_parse(arena, (struct str){ copy, text.n }, &ignored);
}

static void doctor_kubelet_managers(struct doctor *d, struct arena *arena)
{
    static const struct {
        const char *what, *file, *key, *policy;
    } table[] = {
        { "cpuManagerPolicy", "cpu_manager_state", "policyName", "static" },
        { "cpuManagerPolicy", "config.yaml", "cpuManagerPolicy", "static" },
        { "memoryManagerPolicy", "memory_manager_state", "policyName", "Static" },
        { "memoryManagerPolicy", "config.yaml", "memoryManagerPolicy", "Static" },
    };

    for (size_t i = 0; i < COUNT_OF(table); i++) {
        const struct json *file = doctor_kubelet_file(arena, d->kubelet_dir, table[i].file);
        if (strcmp(json_string(json_member(file, table[i].key), ""), table[i].policy) != 0)
            continue;
        cleanup_free char *mend = xasprintf("set %s to none (None) in kubelet's configuration, remove %s/*_manager_state, and start it anew",
                                            table[i].what, d->kubelet_dir);
        doctor_say(d, FINDING_WARN, "kubelet", mend, "%s/%s: %s is %s: kubelet refuses pods that need more than this machine has",
                   d->kubelet_dir, table[i].file, table[i].what, table[i].policy);
        return;
    }
    doctor_say(d, FINDING_OK, "kubelet", "", "its CPU and memory managers keep out of the way, as far as %s tells", d->kubelet_dir);
}

/* Where kubelet looks for its runtime; "" when neither its file nor kubeadm's options say it. */
static const char *doctor_kubelet_endpoint(struct arena *arena, const char *dir, const struct json *file)
{
    const char *endpoint = json_string(json_member(file, "containerRuntimeEndpoint"), "");
    cleanup_free char *path = xasprintf("%s/kubeadm-flags.env", dir);
    cleanup_buf struct buf text = BUF_INIT;
    struct status ignored = STATUS_INIT;

    if (file_read(path, DOCTOR_FILE_MAX, &text, &ignored)) { /* options go before the file */
        const char *option = strstr(buf_cstr(&text), DOCTOR_ENDPOINT_OPTION);
        if (option != NULL) {
            option += strlen(DOCTOR_ENDPOINT_OPTION);
            return arena_strndup(arena, option, strcspn(option, " \"\n"));
        }
    }
    return arena_strdup(arena, endpoint);
}

static void doctor_kubelet_runtime(struct doctor *d, struct arena *arena, const struct json *file)
{
    const char *endpoint = doctor_kubelet_endpoint(arena, d->kubelet_dir, file), *socket = d->config.node.socket;
    cleanup_free char *mend = xasprintf("set `containerRuntimeEndpoint: unix://%s` in %s/config.yaml and restart kubelet", socket, d->kubelet_dir);
    struct address address;
    struct status ignored = STATUS_INIT;

    if (*endpoint == '\0')
        doctor_say(d, FINDING_WARN, "kubelet endpoint", mend, "%s/config.yaml names no containerRuntimeEndpoint: unless an option does, "
                   "kubelet looks for containerd", d->kubelet_dir);
    else if (!address_parse(endpoint, &address, &ignored) || !address.is_unix || strcmp(address.path, socket) != 0)
        doctor_say(d, FINDING_FAIL, "kubelet endpoint", mend, "kubelet connects to %s, and serve listens on unix://%s", endpoint, socket);
    else
        doctor_say(d, FINDING_OK, "kubelet endpoint", "", "kubelet connects to %s", endpoint);
}

static void doctor_kubelet_statistics(struct doctor *d, const struct json *file)
{
    if (json_bool(json_get(file, "featureGates", "PodAndContainerStatsFromCRI"), false))
        doctor_say(d, FINDING_OK, "kubelet stats", "", "kubelet asks us for its pods' statistics");
    else
        doctor_say(d, FINDING_WARN, "kubelet stats", "set `featureGates: {PodAndContainerStatsFromCRI: true}` in kubelet's configuration",
                   "kubelet reads cgroups of this machine: pods elsewhere are idle for `kubectl top` and for autoscalers");
}

static void doctor_kubelet_cgroups(struct doctor *d, const struct json *file)
{
    if (access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0 || !json_bool(json_member(file, "failCgroupV1"), true))
        return;
    doctor_say(d, FINDING_WARN, "kubelet cgroups", "boot with systemd.unified_cgroup_hierarchy=1, or set `failCgroupV1: false` in kubelet's configuration",
               "this machine has cgroup v1, where kubelet 1.35 and newer do not start");
}

void doctor_check_kubelet(struct doctor *d)
{
    cleanup_arena struct arena arena = ARENA_INIT;

    if (!d->configured)
        return;
    const struct json *file = doctor_kubelet_file(&arena, d->kubelet_dir, "config.yaml");
    if (file != NULL) {
        doctor_kubelet_runtime(d, &arena, file);
        doctor_kubelet_cgroups(d, file);
    }
    if (file != NULL && doctor_is_remote(d))
        doctor_kubelet_statistics(d, file);
    if (doctor_is_remote(d))
        doctor_kubelet_managers(d, &arena);
}

void doctor_check_hugepages(struct doctor *d)
{
    cleanup_buf struct buf found = BUF_INIT;
    struct status ignored = STATUS_INIT;
    const struct dirent *entry;

    if (!doctor_is_remote(d))
        return;
    DIR *dir = opendir(DOCTOR_HUGEPAGES);
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        cleanup_free char *path = xasprintf(DOCTOR_HUGEPAGES "/%s/nr_hugepages", entry->d_name);
        cleanup_buf struct buf text = BUF_INIT;
        if (str_starts(entry->d_name, "hugepages-") && file_read(path, 64, &text, &ignored) && strtoll(buf_cstr(&text), NULL, 10) > 0)
            buf_printf(&found, "%s%lld of %s", found.n > 0 ? ", " : "", strtoll(buf_cstr(&text), NULL, 10),
                       entry->d_name + strlen("hugepages-"));
    }
    if (dir != NULL)
        closedir(dir);
    if (found.n > 0)
        doctor_say(d, FINDING_WARN, "huge pages", "set vm.nr_hugepages to 0, unless pods on this machine itself need them",
                   "%s: kubelet counts this machine's, whatever sites have, and takes them off the memory that it sees", buf_cstr(&found));
    else
        doctor_say(d, FINDING_OK, "huge pages", "", "none are set aside on this machine");
}

/* ---- the service manager ---- */

/* The last value of a setting in a unit; "" when it is not set. The caller frees. */
static char *doctor_unit_value(struct buf *unit, const char *name)
{
    size_t n = strlen(name);
    char *value = xstrdup("");

    for (const char *line = buf_cstr(unit); line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, n) != 0 || line[n] != '=')
            continue;
        free(value);
        value = xasprintf("%.*s", (int)strcspn(line + n + 1, "\r\n"), line + n + 1);
    }
    return value;
}

/* Where systemd runs: is there a unit, and does it let pods live? */
void doctor_check_service(struct doctor *d)
{
    static const char *const places[] = { "/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system",
                                          "/usr/lib/systemd/system", "/lib/systemd/system" };
    cleanup_buf struct buf unit = BUF_INIT;
    cleanup_free char *path = NULL;
    struct status ignored = STATUS_INIT;

    if (access("/run/systemd/system", F_OK) < 0 || geteuid() != 0)
        return;
    for (size_t i = 0; i < COUNT_OF(places) && path == NULL; i++) {
        path = xasprintf("%s/interlink-cri.service", places[i]);
        if (!file_read(path, DOCTOR_FILE_MAX, &unit, &ignored)) {
            free(path);
            path = NULL;
        }
    }
    if (path == NULL) {
        doctor_say(d, FINDING_WARN, "service", "install deploy/interlink-cri.service", "systemd has no unit interlink-cri.service");
        return;
    }
    cleanup_free char *kill_mode = doctor_unit_value(&unit, "KillMode"), *type = doctor_unit_value(&unit, "Type"),
                      *restart = doctor_unit_value(&unit, "Restart");
    if (strcmp(kill_mode, "process") != 0)
        doctor_say(d, FINDING_FAIL, "service", "see deploy/interlink-cri.service", "%s: without KillMode=process a restart kills every pod on this machine",
                   path);
    else if (strcmp(type, "notify") != 0 || strcmp(restart, "always") != 0)
        doctor_say(d, FINDING_WARN, "service", "see deploy/interlink-cri.service", "%s: Type is \"%s\" and Restart \"%s\", where notify and always belong",
                   path, type, restart);
    else
        doctor_say(d, FINDING_OK, "service", "", "%s", path);
}

#undef DOCTOR_FILE_MAX
#undef DOCTOR_HUGEPAGES
#undef DOCTOR_ENDPOINT_OPTION
