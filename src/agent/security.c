/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/security.h"

#include "agent/image_volume.h"

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SECURITY_CONTEXT "linux.security_context."

/* linux/capability.h, by number. */
static const char *const security_names[] = {
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
};

#define SECURITY_BIT(number) (1ull << (number))
/* Docker's and containerd's default set. */
#define SECURITY_DEFAULT                                                                                               \
    (SECURITY_BIT(CAP_CHOWN) | SECURITY_BIT(CAP_DAC_OVERRIDE) | SECURITY_BIT(CAP_FSETID) | SECURITY_BIT(CAP_FOWNER) |  \
     SECURITY_BIT(CAP_MKNOD) | SECURITY_BIT(CAP_NET_RAW) | SECURITY_BIT(CAP_SETGID) | SECURITY_BIT(CAP_SETUID) |       \
     SECURITY_BIT(CAP_SETFCAP) | SECURITY_BIT(CAP_SETPCAP) | SECURITY_BIT(CAP_NET_BIND_SERVICE) |                      \
     SECURITY_BIT(CAP_SYS_CHROOT) | SECURITY_BIT(CAP_KILL) | SECURITY_BIT(CAP_AUDIT_WRITE))
/* Those that mean something in a user namespace that owns neither the network nor the machine (capabilities(7)). */
#define SECURITY_NAMESPACED                                                                                            \
    (SECURITY_BIT(CAP_CHOWN) | SECURITY_BIT(CAP_DAC_OVERRIDE) | SECURITY_BIT(CAP_DAC_READ_SEARCH) |                    \
     SECURITY_BIT(CAP_FOWNER) | SECURITY_BIT(CAP_FSETID) | SECURITY_BIT(CAP_KILL) | SECURITY_BIT(CAP_SETGID) |         \
     SECURITY_BIT(CAP_SETUID) | SECURITY_BIT(CAP_SETPCAP) | SECURITY_BIT(CAP_IPC_OWNER) |                              \
     SECURITY_BIT(CAP_SYS_CHROOT) | SECURITY_BIT(CAP_SYS_PTRACE) | SECURITY_BIT(CAP_SYS_ADMIN) |                       \
     SECURITY_BIT(CAP_LEASE) | SECURITY_BIT(CAP_SETFCAP))

const char *security_capability_name(unsigned number)
{
    return number < COUNT_OF(security_names) ? security_names[number] : NULL;
}

/* "NET_ADMIN", "cap_net_admin" -> its number; -1. */
static int security_capability_number(const char *name)
{
    if (strncasecmp(name, "CAP_", 4) == 0)
        name += 4;
    for (size_t i = 0; i < COUNT_OF(security_names); i++)
        if (strcasecmp(name, security_names[i] + 4) == 0)
            return (int)i;
    return -1;
}

/* Whether this process has supplementary groups. */
static bool security_has_groups(void)
{
    gid_t own = getegid();
    int count = getgroups(0, NULL);
    cleanup_free gid_t *groups = xcalloc(count > 0 ? (size_t)count : 1, sizeof *groups);

    count = count > 0 ? getgroups(count, groups) : 0;
    for (int i = 0; i < count; i++)
        if (groups[i] != own)
            return true;
    return false;
}

void security_facts_fill(struct security_facts *f, const struct isolation *isolation, const char *engine, bool root,
                         bool device_rules)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2] = { { 0, 0, 0 }, { 0, 0, 0 } };

    syscall(SYS_capget, &header, data);
    *f = (struct security_facts){ .isolation = isolation,
                                  .root = root,
                                  .engine = engine,
                                  .containers = strcmp(engine, "crun") == 0,
                                  .own_root = strcmp(engine, "host") != 0,
                                  .device_rules = device_rules,
                                  /* With one id only, and as an ordinary user, setgroups(2) is forbidden. */
                                  .kept_groups = !root && (isolation->gids <= 1 || !isolation->user) && security_has_groups(),
                                  .available = data[0].permitted | (uint64_t)data[1].permitted << 32 };
}

bool security_host_network(const Runtime__V1__PodSandboxConfig *sandbox)
{
    const Runtime__V1__LinuxSandboxSecurityContext *s =
        sandbox == NULL || sandbox->linux == NULL ? NULL : sandbox->linux->security_context;

    return s != NULL && s->namespace_options != NULL && s->namespace_options->network == RUNTIME__V1__NAMESPACE_MODE__NODE;
}

static void security_note(struct buf *note, const char *text)
{
    buf_printf(note, "%s%s", note->n > 0 ? "; " : "", text);
}

static bool security_refuse(struct status *err, const char *field, const char *why)
{
    return status_set(err, STATUS_FAILED_PRECONDITION, "%s: %s", field, why);
}

/* ---- capabilities ---- */

static bool security_has_all(char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcasecmp(names[i], "ALL") == 0)
            return true;
    return false;
}

/* The bits of a list; "ALL" counts as none. `added`: they must be available. */
static bool security_bits(const struct security_facts *f, const char *field, char *const *names, size_t count, bool added,
                          uint64_t *out, struct status *err)
{
    *out = 0;
    for (size_t i = 0; i < count; i++) {
        int number = security_capability_number(names[i]);
        if (strcasecmp(names[i], "ALL") == 0)
            continue;
        if (number < 0)
            return status_set(err, STATUS_INVALID_ARGUMENT, SECURITY_CONTEXT "capabilities.%s: there is no capability \"%.40s\"",
                              field, names[i]);
        uint64_t bit = SECURITY_BIT(number);
        if (added && (f->available & bit) == 0)
            return status_set(err, STATUS_FAILED_PRECONDITION,
                              SECURITY_CONTEXT "capabilities.%s: %s is not available to this job", field, security_names[number]);
        if (added && !f->root && (SECURITY_NAMESPACED & bit) == 0)
            return status_set(err, STATUS_FAILED_PRECONDITION,
                              SECURITY_CONTEXT "capabilities.%s: %s would have no effect, for this job runs without root", field,
                              security_names[number]);
        if (added && f->foreign_network && number == CAP_NET_ADMIN)
            return status_set(err, STATUS_FAILED_PRECONDITION,
                              SECURITY_CONTEXT "capabilities.%s: CAP_NET_ADMIN would be over the machine's own network, for this pod "
                              "has none of its own (there is no CNI configuration); a pod on the host's network may have it", field);
        *out |= bit;
    }
    return true;
}

bool security_capabilities(const struct security_facts *f, const Runtime__V1__LinuxContainerSecurityContext *security,
                           struct security_capabilities *out, struct buf *note, struct status *err)
{
    const Runtime__V1__Capability *c = security == NULL ? NULL : security->capabilities;
    uint64_t add = 0, drop = 0, ambient = 0, set = SECURITY_DEFAULT;

    if (security != NULL && security->privileged)
        set = f->available;
    else if (c != NULL) {
        if (!security_bits(f, "add_capabilities", c->add_capabilities, c->n_add_capabilities, true, &add, err) ||
            !security_bits(f, "drop_capabilities", c->drop_capabilities, c->n_drop_capabilities, false, &drop, err) ||
            !security_bits(f, "add_ambient_capabilities", c->add_ambient_capabilities, c->n_add_ambient_capabilities, true,
                           &ambient, err))
            return false;
        if (security_has_all(c->add_capabilities, c->n_add_capabilities))
            set = f->available;
        if (security_has_all(c->drop_capabilities, c->n_drop_capabilities))
            set = 0;
        if (f->foreign_network && (set & SECURITY_BIT(CAP_NET_ADMIN)) != 0) {
            set &= ~SECURITY_BIT(CAP_NET_ADMIN);
            security_note(note, "CAP_NET_ADMIN is withheld, for it would be over the machine's own network");
        }
    }
    /* A device node that may be made but not restricted would be the machine's disk. */
    if (f->root && f->containers && !f->device_rules && (set & SECURITY_BIT(CAP_MKNOD)) != 0 &&
        (security == NULL || !security->privileged)) {
        set &= ~SECURITY_BIT(CAP_MKNOD);
        security_note(note, "CAP_MKNOD is withheld, for cgroups cannot restrict devices here");
    }
    if (c != NULL && security_has_all(c->add_ambient_capabilities, c->n_add_ambient_capabilities))
        ambient = set | add;
    set = ((set | add | ambient) & ~drop) & f->available;
    *out = (struct security_capabilities){ .bounding = set, .permitted = set, .inheritable = ambient & set, .ambient = ambient & set };
    return true;
}

/* ---- single fields ---- */

/* Two fields are deprecated in CRI, and still what older kubelets send. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

bool security_seccomp(const Runtime__V1__LinuxContainerSecurityContext *s, enum security_seccomp *kind, const char **path,
                      struct status *err)
{
    *kind = SECURITY_SECCOMP_NONE;
    *path = "";
    if (s == NULL || s->privileged)
        return true;
    if (s->seccomp != NULL) {
        switch (s->seccomp->profile_type) {
        case RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__Unconfined:
            return true;
        case RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__RuntimeDefault:
            *kind = SECURITY_SECCOMP_DEFAULT;
            return true;
        case RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__Localhost:
            *path = s->seccomp->localhost_ref;
            break;
        default:
            return status_set(err, STATUS_INVALID_ARGUMENT, SECURITY_CONTEXT "seccomp.profile_type: %d is unknown",
                              (int)s->seccomp->profile_type);
        }
    } else {
        /* Kubernetes before 1.24 sends a word. */
        const char *word = s->seccomp_profile_path;
        if (*word == '\0' || strcmp(word, "unconfined") == 0)
            return true;
        if (strcmp(word, "runtime/default") == 0 || strcmp(word, "docker/default") == 0) {
            *kind = SECURITY_SECCOMP_DEFAULT;
            return true;
        }
        if (!str_starts(word, "localhost/"))
            return status_set(err, STATUS_INVALID_ARGUMENT, SECURITY_CONTEXT "seccomp_profile_path: \"%.100s\" is unknown", word);
        *path = word + strlen("localhost/");
    }
    if (**path != '/')
        return status_set(err, STATUS_INVALID_ARGUMENT, SECURITY_CONTEXT "seccomp.localhost_ref: \"%.100s\" is not an absolute path",
                          *path);
    *kind = SECURITY_SECCOMP_FILE;
    return true;
}

static bool security_check_pid(const struct security_facts *f, const Runtime__V1__NamespaceOption *n, struct status *err)
{
    const char *field = SECURITY_CONTEXT "namespace_options.pid";
    const struct isolation *is = f->isolation;

    if (!f->containers && f->own_root && n->pid != RUNTIME__V1__NAMESPACE_MODE__CONTAINER)
        return status_set(err, STATUS_FAILED_PRECONDITION, "%s: only CONTAINER is possible: the %s engine gives each container a PID "
                          "namespace of its own", field, f->engine);
    if (!f->containers) /* the host engine has no PID namespaces; that it is used is the operator's choice */
        return true;
    switch (n->pid) {
    case RUNTIME__V1__NAMESPACE_MODE__NODE:
        if (!is->host_pid)
            return security_refuse(err, field, "NODE, but the pod was started with a PID namespace of its own");
        return true;
    case RUNTIME__V1__NAMESPACE_MODE__POD:
    case RUNTIME__V1__NAMESPACE_MODE__CONTAINER:
    case RUNTIME__V1__NAMESPACE_MODE__TARGET:
        if (!is->pid && !is->host_pid)
            return status_set(err, STATUS_FAILED_PRECONDITION, "%s: %.400s", field, is->missing);
        if (n->pid == RUNTIME__V1__NAMESPACE_MODE__POD && is->host_pid)
            return security_refuse(err, field, "POD, but the pod was started with the machine's PID namespace");
        return true;
    default:
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s: %d is unknown", field, (int)n->pid);
    }
}

static bool security_check_namespaces(const struct security_facts *f, const Runtime__V1__NamespaceOption *n, struct status *err)
{
    const struct isolation *is = f->isolation;

    if (n->network != RUNTIME__V1__NAMESPACE_MODE__POD && n->network != RUNTIME__V1__NAMESPACE_MODE__NODE)
        return security_refuse(err, SECURITY_CONTEXT "namespace_options.network", "only POD and NODE are possible");
    if (n->network == RUNTIME__V1__NAMESPACE_MODE__NODE && is->network)
        return security_refuse(err, SECURITY_CONTEXT "namespace_options.network",
                               "NODE, but the pod was started with a network namespace of its own");
    if (n->ipc != RUNTIME__V1__NAMESPACE_MODE__POD && n->ipc != RUNTIME__V1__NAMESPACE_MODE__NODE)
        return security_refuse(err, SECURITY_CONTEXT "namespace_options.ipc", "only POD and NODE are possible");
    if (f->containers && n->ipc == RUNTIME__V1__NAMESPACE_MODE__NODE && !is->host_ipc)
        return security_refuse(err, SECURITY_CONTEXT "namespace_options.ipc",
                               "NODE, but the pod was started with an IPC namespace of its own");
    if (f->containers && n->ipc == RUNTIME__V1__NAMESPACE_MODE__POD && is->host_ipc)
        return security_refuse(err, SECURITY_CONTEXT "namespace_options.ipc",
                               "POD, but the pod was started with the machine's IPC namespace");
    return security_check_pid(f, n, err);
}

#pragma GCC diagnostic pop

static bool security_check_image_mount(const struct security_facts *f, const Runtime__V1__Mount *m, size_t index,
                                       struct status *err)
{
    if (!image_volume_wanted(m))
        return *m->image_sub_path == '\0' ||
               status_set(err, STATUS_INVALID_ARGUMENT, "mounts[%zu].image_sub_path: without an image", index);
    if (!f->containers)
        return status_set(err, STATUS_FAILED_PRECONDITION, "mounts[%zu].image: the %s engine mounts no images", index, f->engine);
    if (*m->host_path != '\0')
        return status_set(err, STATUS_INVALID_ARGUMENT, "mounts[%zu].host_path: not together with an image", index);
    if (!m->readonly)
        return status_set(err, STATUS_INVALID_ARGUMENT, "mounts[%zu].readonly: an image can only be mounted read-only", index);
    if (m->propagation != RUNTIME__V1__MOUNT_PROPAGATION__PROPAGATION_PRIVATE)
        return status_set(err, STATUS_INVALID_ARGUMENT, "mounts[%zu].propagation: an image has nothing to propagate", index);
    return true;
}

static bool security_check_mount(const struct security_facts *f, const Runtime__V1__Mount *m, size_t index, struct status *err)
{
    static const char *const allowed[] = { "noexec", "nodev", "nosuid" };
    struct userns_map map;
    bool mapped;

    if (m->container_path[0] != '/')
        return status_set(err, STATUS_INVALID_ARGUMENT, "mounts[%zu].container_path: \"%.200s\" is not an absolute path", index,
                          m->container_path);
    if (!security_check_image_mount(f, m, index, err))
        return false;
    if (!podns_parse_mount(m, index, &map, &mapped, err))
        return false;
    if (mapped && (!f->root || !f->containers))
        return status_set(err, STATUS_FAILED_PRECONDITION, "mounts[%zu].uidMappings: only root can map the owners of a mount, and %s%s",
                          index, f->containers ? "this job runs without" : f->engine,
                          f->containers ? "" : " is an engine that makes plain ones only");
    if (mapped && m->image != NULL && *m->image->image != '\0' && (f->pod == NULL || !userns_maps_equal(&map, &f->pod->map)))
        return status_set(err, STATUS_FAILED_PRECONDITION, "mounts[%zu].uidMappings: of an image they must be those of the pod", index);
    if (m->recursive_read_only && (!m->readonly || m->propagation != RUNTIME__V1__MOUNT_PROPAGATION__PROPAGATION_PRIVATE))
        return status_set(err, STATUS_INVALID_ARGUMENT,
                          "mounts[%zu].recursive_read_only: needs readonly and PROPAGATION_PRIVATE", index);
    if (!f->containers && (m->recursive_read_only || m->n_mount_options > 0 || m->propagation != 0))
        return status_set(err, STATUS_FAILED_PRECONDITION, "mounts[%zu]: the %s engine only makes plain mounts", index, f->engine);
    for (size_t i = 0; i < m->n_mount_options; i++) {
        bool known = false;
        for (size_t k = 0; k < COUNT_OF(allowed); k++)
            known = known || strcmp(m->mount_options[i], allowed[k]) == 0;
        if (!known)
            return status_set(err, STATUS_INVALID_ARGUMENT, "mounts[%zu].mount_options: \"%.40s\" is not one of noexec, nodev, nosuid",
                              index, m->mount_options[i]);
    }
    return true;
}

static bool security_check_privileged(const struct security_facts *f, const Runtime__V1__PodSandboxConfig *sandbox,
                                      struct status *err)
{
    const Runtime__V1__LinuxPodSandboxConfig *l = sandbox == NULL ? NULL : sandbox->linux;

    if (l == NULL || l->security_context == NULL || !l->security_context->privileged)
        return status_set(err, STATUS_INVALID_ARGUMENT, SECURITY_CONTEXT "privileged: the pod does not allow privileged containers");
    if (!f->root)
        return security_refuse(err, SECURITY_CONTEXT "privileged", "this job runs without root");
    return true;
}

bool security_check(const struct security_facts *f, const Runtime__V1__ContainerConfig *config,
                    const Runtime__V1__PodSandboxConfig *sandbox, struct status *err)
{
    const Runtime__V1__LinuxContainerSecurityContext *s = config->linux == NULL ? NULL : config->linux->security_context;

    if (config->windows != NULL)
        return security_refuse(err, "windows", "this is Linux");
    for (size_t i = 0; i < config->n_mounts; i++)
        if (!security_check_mount(f, config->mounts[i], i, err))
            return false;
    if (!podns_check_container(sandbox, s == NULL ? NULL : s->namespace_options, err))
        return false;
    if (s == NULL)
        return true;
    if (s->privileged && f->pod != NULL)
        return security_refuse(err, SECURITY_CONTEXT "privileged", "the pod has a user namespace of its own");
    if (s->privileged && !security_check_privileged(f, sandbox, err))
        return false;
    if (s->readonly_rootfs && !f->own_root)
        return security_refuse(err, SECURITY_CONTEXT "readonly_rootfs", "the host engine has no root file system of its own");
    if (s->supplemental_groups_policy != RUNTIME__V1__SUPPLEMENTAL_GROUPS_POLICY__Merge &&
        s->supplemental_groups_policy != RUNTIME__V1__SUPPLEMENTAL_GROUPS_POLICY__Strict)
        return status_set(err, STATUS_INVALID_ARGUMENT, SECURITY_CONTEXT "supplemental_groups_policy: %d is unknown",
                          (int)s->supplemental_groups_policy);
    if (s->namespace_options != NULL && !security_check_namespaces(f, s->namespace_options, err))
        return false;
    return true;
}

/* ---- users ---- */

static bool security_has_uid(const struct security_facts *f, uint32_t uid)
{
    if (f->pod != NULL)
        return uid < userns_ids_count(&f->pod->map.uids);
    /* Without a user namespace an ordinary user has its own id. */
    return f->root || (f->isolation->user ? uid < f->isolation->uids : uid == f->isolation->uid);
}

bool security_has_gid(const struct security_facts *f, uint32_t gid)
{
    if (f->pod != NULL)
        return gid < userns_ids_count(&f->pod->map.gids);
    return f->root || (f->isolation->user ? gid < f->isolation->gids : gid == f->isolation->gid);
}

static bool security_refuse_id(const struct security_facts *f, const char *field, const char *kind, uint32_t id, struct status *err)
{
    const struct isolation *is = f->isolation;
    struct userns_map map;
    struct status how = STATUS_INIT;

    if (!f->containers && !is->user)
        return status_set(err, STATUS_FAILED_PRECONDITION, "%s: %s %u cannot be mapped: the %s engine runs everything as the job's user, %u",
                          field, kind, id, f->engine, *kind == 'u' ? is->uid : is->gid);
    if (f->pod != NULL)
        return status_set(err, STATUS_FAILED_PRECONDITION, "%s: %s %u is not one of the pod's user namespace", field, kind, id);
    if (is->user && is->uids > 1 && is->gids > 1)
        return status_set(err, STATUS_FAILED_PRECONDITION, "%s: %s %u cannot be mapped: this job runs without root, and its ranges in "
                          "/etc/subuid and /etc/subgid end at %u and %u", field, kind, id, is->uids - 1, is->gids - 1);
    if (subid_map(is->uid, is->gid, &map, &how))
        status_set(&how, STATUS_FAILED_PRECONDITION, "newuidmap refused the user's ranges when the job started, as its log says");
    return status_set(err, STATUS_FAILED_PRECONDITION, "%s: %s %u cannot be mapped: this job runs without root and has one id only, seen "
                      "as %u; %.300s", field, kind, id, is->user ? 0 : *kind == 'u' ? is->uid : is->gid, how.message);
}

bool security_check_user(const struct security_facts *f, const Runtime__V1__ContainerConfig *config, struct user *user,
                         struct buf *note, struct status *err)
{
    const Runtime__V1__LinuxContainerSecurityContext *s = config->linux == NULL ? NULL : config->linux->security_context;
    const char *user_field = s != NULL && s->run_as_user != NULL          ? SECURITY_CONTEXT "run_as_user"
                             : s != NULL && *s->run_as_username != '\0' ? SECURITY_CONTEXT "run_as_username"
                                                                          : "image config: User";
    const char *group_field = s != NULL && s->run_as_group != NULL ? SECURITY_CONTEXT "run_as_group" : user_field;

    if (!security_has_uid(f, user->uid))
        return security_refuse_id(f, user_field, "uid", user->uid, err);
    for (size_t i = 0; i < user->asked_count; i++)
        if (!security_has_gid(f, user->groups[i]))
            return security_refuse_id(f, i == 0 ? group_field : SECURITY_CONTEXT "supplemental_groups", "gid", user->groups[i], err);
    if (f->kept_groups && s != NULL && s->supplemental_groups_policy == RUNTIME__V1__SUPPLEMENTAL_GROUPS_POLICY__Strict)
        return security_refuse(err, SECURITY_CONTEXT "supplemental_groups_policy",
                               "Strict, but this job runs without root and cannot give up its user's own supplementary groups");
    size_t kept = user->asked_count;
    for (size_t i = user->asked_count; i < user->group_count; i++)
        if (security_has_gid(f, user->groups[i]))
            user->groups[kept++] = user->groups[i];
    if (kept < user->group_count)
        security_note(note, "groups that the image's /etc/group adds are left out, for they do not exist here");
    user->group_count = kept;
    return true;
}

/* Other groups of the job's user have no number in its user namespace, and would be lost for good once others are set. */
bool security_leaves_groups(const struct security_facts *f, struct user *user, bool strict, struct buf *note)
{
    if (strict || !f->isolation->user || user->uid != 0 || user->gid != 0 || user->asked_count != 1 || !security_has_groups())
        return false;
    if (user->group_count > 1)
        security_note(note, "groups that the image's /etc/group adds are left out: the job's user keeps its own");
    user->group_count = 1;
    return true;
}

#undef SECURITY_CONTEXT
#undef SECURITY_BIT
#undef SECURITY_DEFAULT
#undef SECURITY_NAMESPACED
