/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/site.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/child.h"
#include "io/file.h"
#include "io/tls.h"
#include "node/relay.h"

#define SITE_HERE "this node"

/* ---- what is to be looked at ---- */

/* The one that was named, or the only one on other machines. */
static const struct node_handler_options *site_find_handler(const struct doctor *d, struct status *err)
{
    const struct node_handler_options *found = NULL;
    cleanup_buf struct buf names = BUF_INIT;
    size_t count = 0;

    for (size_t i = 0; i < d->config.node.handler_count; i++) {
        const struct node_handler_options *o = &d->config.node.handlers[i];
        if (*o->url == '\0' || (*d->handler != '\0' && strcmp(o->name, d->handler) != 0))
            continue;
        found = o;
        buf_printf(&names, "%s%s", count++ > 0 ? ", " : "", o->name);
    }
    if (count == 1)
        return found;
    if (count > 1)
        status_set(err, STATUS_INVALID_ARGUMENT, "there are several sites: name one with --handler (%s)", buf_cstr(&names));
    else if (*d->handler != '\0')
        status_set(err, STATUS_INVALID_ARGUMENT, "--handler %s: no handler of this name is on another machine", d->handler);
    else
        status_set(err, STATUS_INVALID_ARGUMENT,
                   "the configuration has no handler on another machine: add one to Handlers, or name a plugin's configuration with --plugin");
    return NULL;
}

static bool site_choose(struct site *site, struct status *err)
{
    struct doctor *d = site->doctor;

    d->configured = config_load(d->config_path, NULL, 0, &d->config, err);
    if (!d->configured)
        return false;
    if (*d->plugin != '\0') {
        if (!plugin_read_config(&site->settings, d->plugin, err))
            return false;
        plugin_fill_defaults(&site->settings);
        return true;
    }
    site->handler = site_find_handler(d, err);
    return site->handler != NULL;
}

/* ---- the relay ---- */

static bool site_refuse(void *arg, const char *sandbox_id, const char *token, struct status *err)
{
    (void)arg;
    (void)token;
    return status_set(err, STATUS_NOT_FOUND, "%s is no pod: this is doctor", sandbox_id);
}

static void site_on_agent(void *arg, const char *sandbox_id, struct stream *stream, struct str early)
{
    (void)arg;
    (void)sandbox_id;
    (void)early;
    stream_free(stream);
}

/* Where agents are to call in: serve's, or while it is not up, one of ours in its place. NULL: none of ours is needed or possible. */
static struct relay *site_relay(struct site *site, char pin[TLS_PIN_SIZE])
{
    const struct node_options *o = &site->doctor->config.node;
    cleanup_free char *dir = xasprintf("%s/relay", o->state_dir);
    struct status err = STATUS_INIT;
    struct relay *relay = NULL;

    pin[0] = '\0';
    if (*o->relay_listen == '\0') {
        site_say(site, SITE_HERE, site->handler != NULL ? FINDING_WARN : FINDING_OK, "relay",
                 site->handler != NULL ? "set Relay.Listen (and Relay.Advertise) to an address that compute nodes can reach" : "",
                 "none is configured: the way from compute nodes to this node is not tried");
        return NULL;
    }
    struct tls_identity *identity = tls_identity_load_or_create(dir, "interlink-cri-relay", &err);
    if (identity == NULL) {
        site_say(site, SITE_HERE, FINDING_WARN, "relay", "run doctor as the user that serve runs as", "its key cannot be read: %s", err.message);
        return NULL;
    }
    tls_identity_pin(identity, pin);
    relay = relay_start(site->loop, &(struct relay_options){ .listen = o->relay_listen, .identity = identity, .authorise = site_refuse,
                                                             .on_agent = site_on_agent, .arg = site }, &err);
    site_say(site, SITE_HERE, FINDING_OK, "relay", "", relay != NULL ? "%s: serve is not up, doctor listens in its place" : "%s: serve is up, or %s",
             o->relay_listen, err.message);
    tls_identity_free(identity);
    return relay;
}

/* ---- a plugin of our own ---- */

static struct plugin *site_start_plugin(struct site *site, char **listen, struct status *err)
{
    const struct plugin_settings *s = &site->settings;
    cleanup_free char *socket_dir = xasprintf("/tmp/interlink-cri-doctor-%.16s", site->nonce);

    if (!dir_make(s->dir, 0700, err))
        return NULL;
    site->work = xasprintf("%s/doctor-%.8s", s->dir, site->nonce);
    /* A unix socket's path is short. */
    *listen = xasprintf("unix://%s/plugin.sock", socket_dir);
    if (mkdir(socket_dir, 0700) < 0) {
        status_errno(err, "cannot make folder %s", socket_dir);
        return NULL;
    }
    return plugin_start(site->loop, &(struct plugin_options){ .listen = *listen, .dir = site->work, .backend = s->backend, .program = s->program,
                                                              .settings = s->slurm }, err);
}

static void site_remove_plugin(struct site *site, struct plugin *plugin)
{
    cleanup_free char *socket_dir = xasprintf("/tmp/interlink-cri-doctor-%.16s", site->nonce);
    struct status err = STATUS_INIT;

    size_t jobs = plugin != NULL ? plugin_job_count(plugin) : 0;
    plugin_stop(plugin);
    if (jobs == 0 && site->work != NULL && !tree_remove(site->work, &err))
        site_say(site, SITE_HERE, FINDING_WARN, "folder", "remove it", "%s", err.message);
    tree_remove(socket_dir, &err);
}

static void site_run_by_plugin(struct site *site, const char *relay, const char *pin)
{
    struct status err = STATUS_INIT;
    cleanup_free char *listen = NULL;
    struct plugin *plugin = site_start_plugin(site, &listen, &err);

    if (plugin != NULL)
        site_run_job(site, &(struct interlink_target_options){ .name = "doctor", .url = listen, .bearer_token_file = "", .ca_file = "",
                                                               .client_cert_file = "", .client_key_file = "" }, relay, pin);
    else
        site_say(site, SITE_HERE, FINDING_FAIL, "plugin", "see docs/plugin.example.yaml", "%s", err.message);
    site_remove_plugin(site, plugin);
}

static void site_run_by_handler(struct site *site, const char *relay, const char *pin)
{
    const struct node_handler_options *o = site->handler;

    struct interlink_target_options target = doctor_target_options(o);
    /* Our own plugin on this machine keeps no answers back. */
    target.remote = !str_starts(o->url, "unix:");
    if (doctor_ping(site->loop, &target, &site->ping))
        site_say(site, SITE_HERE, FINDING_OK, "REST API", "", "%s answers", o->url);
    else
        site_say(site, SITE_HERE, FINDING_FAIL, "REST API",
                 "is the API server up, and its plugin behind it? Is a proxy, a token or a certificate needed?", "%s %s", o->url, site->ping.text);
    if (site->ping.ok)
        site_run_job(site, &target, relay, pin);
}

/* ---- all of it ---- */

static void site_on_interrupt(void *arg, const struct signalfd_siginfo *info)
{
    struct site *site = arg;
    (void)info;

    site->interrupted = site->stopped = true;
}

static void site_look(struct site *site)
{
    char pin[TLS_PIN_SIZE];

    site_check_proxy(site);
    site_check_slurm(site);
    site_choose_folders(site);
    site_leave_files(site);
    struct relay *relay = site_relay(site, pin);
    const char *address = pin[0] != '\0' ? site->doctor->config.node.relay_address : "";
    if (site->handler != NULL)
        site_run_by_handler(site, address, pin);
    else
        site_run_by_plugin(site, address, pin);
    relay_free(relay);
    site_collect_files(site);
}

static void site_free(struct site *site)
{
    loop_free(site->loop);
    plugin_settings_free(&site->settings);
    free(site->work);
    free(site->findings);
    arena_free(&site->arena);
}

int site_main(struct doctor *d)
{
    struct site site = { .doctor = d };
    struct status err = STATUS_INIT;

    plugin_settings_init(&site.settings);
    random_id(site.nonce);
    signal(SIGPIPE, SIG_IGN);
    umask(0022); /* files in shared folders may belong to another user there */
    site.loop = loop_new(&err);
    bool ok = site.loop != NULL && child_reaper_start(site.loop, NULL, NULL, &err) &&
              loop_signal(site.loop, SIGINT, site_on_interrupt, &site, &err) &&
              loop_signal(site.loop, SIGTERM, site_on_interrupt, &site, &err) && site_choose(&site, &err);
    if (!ok) {
        fprintf(stderr, "interlink-cri doctor: %s\n", err.message);
        site_free(&site);
        return 2;
    }
    site_look(&site);
    ok = site_print(&site, d->output);
    int status = site.stopped ? 130 : !ok ? 1 : site_exit_status(&site);
    site_free(&site);
    return status;
}

#undef SITE_HERE
