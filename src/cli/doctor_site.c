/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration and what it names. */
#include "cli/ctl.h"
#include "cli/doctor.h"
#include "interlink/interlink.h"
#include "node/cni.h"
#include "node/gate.h"

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* How long a server may take to answer. */
#define DOCTOR_ANSWER_MS 10000
/* Less free space than this is an error, or worth a word: one image of moderate size, and some. */
#define DOCTOR_SPACE_FAIL (1ull << 30)
#define DOCTOR_SPACE_WARN (10ull << 30)
#define DOCTOR_INODES_WARN 100000u
/* Where kubelet has its pods' logs (podLogsDir). */
#define DOCTOR_LOG_DIR "/var/log/pods"

void doctor_check_config(struct doctor *d)
{
    struct status err = STATUS_INIT;

    d->configured = config_load(d->config_path, NULL, 0, &d->config, &err);
    if (!d->configured)
        doctor_say(d, FINDING_FAIL, "configuration", "docs/config.example.yaml says what is known", "%s", err.message);
    else
        doctor_say(d, FINDING_OK, "configuration", "", "%s: %zu handler%s, default %s",
                   *d->config.path != '\0' ? d->config.path : "no file, built-in defaults", d->config.node.handler_count,
                   d->config.node.handler_count == 1 ? "" : "s", d->config.node.default_handler);
}

/* ---- folders ---- */

void doctor_check_state_dir(struct doctor *d)
{
    struct stat st;

    if (!d->configured)
        return;
    const char *dir = d->config.node.state_dir;
    cleanup_free char *existing = doctor_existing(dir);
    cleanup_free char *mend = xasprintf("chown it to this user and chmod 700 %s", existing);
    if (strcmp(existing, dir) != 0) {
        bool writable = access(existing, W_OK | X_OK) == 0;
        doctor_say(d, writable ? FINDING_OK : FINDING_FAIL, "state folder",
                   writable ? "" : "make it, owned by this user with mode 0700, or set StateDir", "%s %s", dir,
                   writable ? "will be made" : "is not there and cannot be made");
        return;
    }
    if (stat(dir, &st) < 0 || !S_ISDIR(st.st_mode))
        doctor_say(d, FINDING_FAIL, "state folder", "set StateDir", "%s is no folder", dir);
    else if (st.st_uid != geteuid() || (st.st_mode & 077) != 0)
        doctor_say(d, FINDING_FAIL, "state folder", mend, "%s has owner %u and mode %04o: others could read tokens", dir,
                   (unsigned)st.st_uid, (unsigned)(st.st_mode & 07777));
    else if (access(dir, R_OK | W_OK | X_OK) != 0)
        doctor_say(d, FINDING_FAIL, "state folder", mend, "%s: %s", dir, strerror(errno));
    else
        doctor_say(d, FINDING_OK, "state folder", "", "%s, mode %04o", dir, (unsigned)(st.st_mode & 07777));
}

void doctor_check_space(struct doctor *d)
{
    struct statvfs fs;

    if (!d->configured)
        return;
    const char *dir = d->config.node.image_dir;
    cleanup_free char *existing = doctor_existing(dir);
    if (statvfs(existing, &fs) < 0) {
        doctor_say(d, FINDING_FAIL, "disk space", "set Images.Dir", "%s: %s", existing, strerror(errno));
        return;
    }
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    double gib = (double)free_bytes / (double)(1ull << 30);
    bool inodes = fs.f_files == 0 || fs.f_favail > DOCTOR_INODES_WARN; /* some file systems do not count them */
    enum finding_result result = free_bytes < DOCTOR_SPACE_FAIL               ? FINDING_FAIL
                                : free_bytes < DOCTOR_SPACE_WARN || !inodes ? FINDING_WARN
                                                                             : FINDING_OK;
    doctor_say(d, result, "disk space", result == FINDING_OK ? "" : "free some, or set Images.Dir to a larger file system",
               "%.1f GiB free for images in %s%s", gib, dir, inodes ? "" : ", but few inodes");
}

void doctor_check_logs(struct doctor *d)
{
    cleanup_free char *existing = doctor_existing(DOCTOR_LOG_DIR);

    if (access(existing, W_OK | X_OK) == 0)
        doctor_say(d, FINDING_OK, "log folder", "", "%s %s", DOCTOR_LOG_DIR,
                   strcmp(existing, DOCTOR_LOG_DIR) == 0 ? "is writable" : "can be made");
    else
        doctor_say(d, FINDING_WARN, "log folder", "run serve as root for kubelet's pods; pods made with ctl may log anywhere",
                   "kubelet's %s is not writable for this user", DOCTOR_LOG_DIR);
}

/* ---- the socket ---- */

void doctor_check_socket(struct doctor *d)
{
    struct ctl ctl = { .flags = { .runtime = "" } };
    struct status err = STATUS_INIT;
    Runtime__V1__VersionRequest request = RUNTIME__V1__VERSION_REQUEST__INIT;
    const Runtime__V1__VersionResponse *r = NULL;

    if (!d->configured)
        return;
    ctl.runtime.path = ctl.image.path = d->config.node.socket;
    ctl.loop = loop_new(&err);
    bool connected = ctl.loop != NULL && ctl_connect(&ctl, &ctl.runtime, &err) != NULL;
    if (connected)
        r = ctl_call(&ctl, CTL_RUNTIME, "Version", &request, &runtime__v1__version_response__descriptor, DOCTOR_ANSWER_MS, &err);
    err.message[strcspn(err.message, "\n")] = '\0';
    if (r != NULL)
        doctor_say(d, FINDING_OK, "socket", "", "%s: %s %s answers", ctl.runtime.path, r->runtime_name, r->runtime_version);
    else if (connected)
        doctor_say(d, FINDING_FAIL, "socket", "something else listens there, or it is stuck: look at its log", "%s: %s",
                   ctl.runtime.path, err.message);
    else
        doctor_say(d, FINDING_WARN, "socket", "start it: interlink-cri serve", "nothing answers: %s", err.message);
    rpc_conn_free(ctl.runtime.conn);
    if (ctl.loop != NULL)
        loop_free(ctl.loop);
    arena_free(&ctl.arena);
}

/* ---- handlers ---- */

static void doctor_on_ping(void *arg, const struct interlink_ping *ping, const struct status *err)
{
    struct doctor_ping *p = arg;

    p->done = true;
    p->ok = ping != NULL;
    if (err != NULL)
        snprintf(p->text, sizeof p->text, "%s", err->message);
}

struct interlink_target_options doctor_target_options(const struct node_handler_options *o)
{
    return (struct interlink_target_options){
        .name = o->name,
        .url = o->url,
        .bearer_token_file = o->bearer_token_file,
        .ca_file = o->ca_file,
        .client_cert_file = o->client_cert_file,
        .client_key_file = o->client_key_file,
        .proxy = o->proxy,
        .remote = true,
    };
}

bool doctor_ping(struct loop *loop, const struct interlink_target_options *options, struct doctor_ping *out)
{
    struct status err = STATUS_INIT;
    struct interlink_target *target = interlink_target_new(loop, options, &err);
    int64_t until = clock_mono_ms() + DOCTOR_ANSWER_MS;

    *out = (struct doctor_ping){ .text = "" };
    if (target == NULL) {
        snprintf(out->text, sizeof out->text, "%s", err.message);
        return false;
    }
    interlink_target_ping(target, doctor_on_ping, out);
    while (!out->done && clock_mono_ms() < until)
        loop_turn(loop, (int)(until - clock_mono_ms()));
    if (!out->done)
        snprintf(out->text, sizeof out->text, "no answer in %d s", DOCTOR_ANSWER_MS / 1000);
    interlink_target_free(target);
    return out->ok;
}

static void doctor_ping_target(struct doctor *d, struct loop *loop, const struct node_handler_options *o, const char *what)
{
    struct interlink_target_options options = doctor_target_options(o);
    struct doctor_ping ping;

    if (doctor_ping(loop, &options, &ping))
        doctor_say(d, FINDING_OK, what, "", "%s answers", o->url);
    else
        doctor_say(d, FINDING_FAIL, what, "is the API server up, and its plugin behind it? Is a proxy, a token or a certificate needed?",
                   "%s %s", o->url, ping.text);
}

void doctor_check_handlers(struct doctor *d)
{
    struct status err = STATUS_INIT;

    if (!d->configured)
        return;
    struct loop *loop = loop_new(&err);
    for (size_t i = 0; loop != NULL && i < d->config.node.handler_count; i++) {
        const struct node_handler_options *o = &d->config.node.handlers[i];
        cleanup_free char *what = xasprintf("handler %s", o->name);
        if (*o->url == '\0')
            doctor_say(d, FINDING_OK, what, "", "this machine, engine %s", *o->engine != '\0' ? o->engine : "auto");
        else
            doctor_ping_target(d, loop, o, what);
    }
    if (loop != NULL)
        loop_free(loop);
    else
        doctor_say(d, FINDING_FAIL, "handlers", "", "%s", err.message);
}

/* kube-proxy as a job would serve a machine of the cluster behind. */
void doctor_check_own_pods(struct doctor *d)
{
    cleanup_buf struct buf names = BUF_INIT;

    if (!doctor_is_remote(d))
        return;
    const struct node_options *o = &d->config.node;
    for (const char *const *name = o->node_pods_namespaces; *name != NULL; name++)
        buf_printf(&names, "%s%s", names.n > 0 ? ", " : "", *name);
    if (names.n == 0)
        buf_append_str(&names, "no namespace");
    for (size_t i = 0; i < o->handler_count; i++) {
        if (strcmp(o->handlers[i].name, o->node_pods_handler) != 0)
            continue;
        bool local = *o->handlers[i].url == '\0';
        doctor_say(d, local ? FINDING_OK : FINDING_WARN, "node's own pods",
                   local ? "" : "give Handlers one with `Target: local`, or kube-proxy and network plugins run elsewhere and serve no pod here",
                   "static pods and those of %s without a RuntimeClass go to handler %s, %s", buf_cstr(&names), o->node_pods_handler,
                   local ? "this machine" : "on another machine");
    }
}

void doctor_check_relay(struct doctor *d)
{
    bool needed = false;

    if (!d->configured)
        return;
    for (size_t i = 0; i < d->config.node.handler_count; i++)
        needed = needed || (str_starts(d->config.node.handlers[i].url, "http") && d->config.node.handlers[i].dial == NULL &&
                            strcmp(d->config.node.handlers[i].job_per, "container") != 0);
    if (*d->config.node.relay_listen != '\0')
        doctor_say(d, FINDING_OK, "relay", "", "agents elsewhere dial %s", d->config.node.relay_address);
    else if (needed)
        doctor_say(d, FINDING_WARN, "relay", "set Relay.Listen (and Relay.Advertise) to an address that compute nodes can reach, or the handler's Dial",
                   "a handler is on another machine, but agents there have nowhere to call in");
}

void doctor_check_network(struct doctor *d)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct cni_network network;
    const char *reason, *message;
    bool found;

    if (!d->configured)
        return;
    if (cni_describe(&d->config.node, &arena, &network, &found, &reason, &message))
        doctor_say(d, FINDING_OK, "pod network", "", "%s", message);
    else
        doctor_say(d, FINDING_FAIL, "pod network", "until then only pods with host network run (docs/networks.md)", "%s: %s", reason,
                   message);
}

/* Addresses of pods on other machines. */
void doctor_check_gate(struct doctor *d)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    const struct node_options *o = &d->config.node;
    const char *const *ranges = o->relay_cidrs;
    bool own = ranges != NULL && *ranges != NULL, all, found = false;
    struct cni_network network;
    struct status err = STATUS_INIT;
    const char *reason, *message;

    if (!d->configured || !doctor_is_remote(d))
        return;
    if (!own && (!cni_describe(o, &arena, &network, &found, &reason, &message) || found))
        doctor_say(d, FINDING_WARN, "pods elsewhere", "give them a range of their own: Network.RelayCIDRs (docs/networks.md)",
                   "have this node's address: CNI gives the pod CIDR to pods on this machine");
    else if (!gate_try(ranges, o->state_dir, &all, &err))
        doctor_say(d, FINDING_WARN, "pods elsewhere",
                   err.code == STATUS_PERMISSION_DENIED ? "run serve with CAP_NET_ADMIN, and CAP_BPF (docs/networks.md)"
                                                        : "choose a range that nobody else has: Network.RelayCIDRs",
                   "have this node's address, where only ports that they declare are open: %s", err.message);
    else if (!all)
        doctor_say(d, FINDING_OK, "pods elsewhere", "", "get addresses of %s; each open port has a socket of its own, since sk_lookup is not allowed here",
                   own ? *ranges : "the node's pod CIDR");
    else
        doctor_say(d, FINDING_OK, "pods elsewhere", "", "get addresses of %s", own ? *ranges : "the node's pod CIDR");
}

/* Volumes of pods on other machines. */
void doctor_check_volumes(struct doctor *d)
{
    cleanup_buf struct buf missing = BUF_INIT;
    bool remote = false, any = false;

    for (size_t i = 0; d->configured && i < d->config.node.handler_count; i++) {
        const struct node_handler_options *o = &d->config.node.handlers[i];
        remote = remote || *o->url != '\0';
        for (const char *const *path = o->shared_paths; path != NULL && *path != NULL; path++) {
            any = true;
            if (access(*path, F_OK) < 0)
                buf_printf(&missing, "%s%s", missing.n > 0 ? ", " : "", *path);
        }
    }
    if (!remote)
        return;
    if (missing.n > 0)
        doctor_say(d, FINDING_WARN, "volumes", "mount it here, too, or take it out of SharedPaths (docs/volumes.md)",
                   "SharedPaths that this machine does not have: %s", buf_cstr(&missing));
    else
        doctor_say(d, FINDING_OK, "volumes", "", "on other machines ConfigMaps, Secrets and the like are copied; %s",
                   any ? "the shared paths are all here" : "hostPaths and PersistentVolumes are refused, for SharedPaths is empty");
}

#undef DOCTOR_ANSWER_MS
#undef DOCTOR_SPACE_FAIL
#undef DOCTOR_SPACE_WARN
#undef DOCTOR_INODES_WARN
#undef DOCTOR_LOG_DIR
