/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/site.h"

#include <unistd.h>

#include "agent/probe.h"
#include "http/proxy.h"
#include "io/file.h"
#include "plugin/slurm_command.h"
#include "text/json.h"

#define SITE_HERE "this node"
/* sbatch takes scripts up to this when the site says nothing else (slurm.conf, max_script_size). */
#define SITE_SCRIPT_DEFAULT (4 << 20)
/* Our scripts have some KiB; a manifest with its ConfigMaps may have more. */
#define SITE_SCRIPT_LOW (256 << 10)
/* Jobs that Slurm forgets sooner may be missed by a squeue now and then. */
#define SITE_JOB_AGE_LOW 60

/* ---- shared folders ---- */

static void site_add_folder(struct site *site, const char *path, bool configured)
{
    if (path == NULL || path[0] != '/' || path[1] == '\0' || site->folder_count == SITE_FOLDERS_MAX)
        return;
    for (size_t i = 0; i < site->folder_count; i++)
        if (strcmp(site->folders[i].path, path) == 0)
            return;
    site->folders[site->folder_count++] = (struct site_folder){ .path = path, .configured = configured };
}

/* What is said to be shared, and what often is: then it can be said. */
void site_choose_folders(struct site *site)
{
    const struct doctor *d = site->doctor;
    const char *const *path = site->handler != NULL ? site->handler->shared_paths : d->configured ? d->config.shared_paths : NULL;

    for (; path != NULL && *path != NULL; path++)
        site_add_folder(site, *path, true);
    site_add_folder(site, getenv("HOME"), false);
    if (d->configured)
        site_add_folder(site, d->config.node.image_dir, false);
}

void site_leave_files(struct site *site)
{
    for (size_t i = 0; i < site->folder_count; i++) {
        struct site_folder *f = &site->folders[i];
        struct status err = STATUS_INIT;
        cleanup_free char *ask = xasprintf("%s/" PROBE_ASK_FILE "%s", f->path, site->nonce);
        const char *what = arena_printf(&site->arena, "shared %s", f->path);
        if (access(f->path, F_OK) < 0) {
            if (f->configured)
                site_say(site, SITE_HERE, FINDING_FAIL, what, "mount it here, too, or take it out of SharedPaths", "is not there");
            continue;
        }
        f->asked = file_replace(ask, site->nonce, strlen(site->nonce), 0644, &err);
        if (!f->asked && f->configured)
            site_say(site, SITE_HERE, FINDING_WARN, what, "run doctor as somebody who may write there", "not compared: %s", err.message);
    }
}

static bool site_told_shared(const struct site *site, const char *path)
{
    for (JSON_EACH(j, json_get(site->report, "facts", "shared")))
        if (strcmp(json_string(j, ""), path) == 0)
            return true;
    return false;
}

void site_collect_files(struct site *site)
{
    for (size_t i = 0; i < site->folder_count; i++) {
        const struct site_folder *f = &site->folders[i];
        cleanup_free char *ask = xasprintf("%s/" PROBE_ASK_FILE "%s", f->path, site->nonce);
        cleanup_free char *answer = xasprintf("%s/" PROBE_ANSWER_FILE "%s", f->path, site->nonce);
        const char *what = arena_printf(&site->arena, "shared %s", f->path);
        if (!f->asked)
            continue;
        if (site_told_shared(site, f->path)) {
            bool seen = access(answer, F_OK) == 0;
            site_say(site, SITE_HERE, seen ? FINDING_OK : FINDING_WARN, what, seen ? "" : "files of pods come late, or cannot be written there",
                     seen ? "what a compute node wrote there is here" : "nothing of the compute node's is here yet");
        }
        unlink(ask);
        unlink(answer);
    }
}

/* ---- Slurm ---- */

struct site_slurm {
    bool done;
    struct str text; /* on the arena */
    struct status err;
    struct arena *arena;
};

static void site_on_slurm(void *arg, const struct slurm_answer *answer)
{
    struct site_slurm *s = arg;

    s->done = true;
    if (answer->err != NULL)
        s->err = *answer->err;
    s->text = (struct str){ arena_strndup(s->arena, answer->output.p, answer->output.n), answer->output.n };
}

/* "Key   = value" of `scontrol show config`; "" when it is not there. On the arena. */
static const char *site_slurm_value(struct site *site, struct str text, const char *key)
{
    size_t n = strlen(key);

    for (const char *line = text.p; line != NULL && *line != '\0';) {
        size_t length = strcspn(line, "\n");
        if (strncmp(line, key, n) == 0 && line[n + strspn(line + n, " ")] == '=') {
            const char *value = strchr(line, '=') + 1;
            value += strspn(value, " ");
            return arena_strndup(&site->arena, value, length - (size_t)(value - line));
        }
        line += length + (line[length] == '\n');
    }
    return "";
}

static void site_slurm_script(struct site *site, struct str text)
{
    const char *parameters = site_slurm_value(site, text, "SchedulerParameters");
    const char *word = strstr(parameters, "max_script_size=");
    long long bytes = word != NULL ? strtoll(word + strlen("max_script_size="), NULL, 10) : SITE_SCRIPT_DEFAULT;

    site_say(site, SITE_HERE, bytes >= SITE_SCRIPT_LOW ? FINDING_OK : FINDING_WARN, "script limit",
             bytes >= SITE_SCRIPT_LOW ? "" : "pods with a long environment may be refused: ask for SchedulerParameters=max_script_size", "%lld KiB%s",
             bytes / 1024, word != NULL ? " (max_script_size)" : ", Slurm's own");
}

static void site_slurm_rest(struct site *site, struct str text)
{
    const char *tasks = site_slurm_value(site, text, "TaskPlugin"), *track = site_slurm_value(site, text, "ProctrackType");
    const char *accounting = site_slurm_value(site, text, "AccountingStorageType");
    long long age = strtoll(site_slurm_value(site, text, "MinJobAge"), NULL, 10);
    bool limits = strstr(tasks, "cgroup") != NULL, accounts = strstr(accounting, "slurmdbd") != NULL;
    bool short_lived = age > 0 && age < SITE_JOB_AGE_LOW && !accounts;

    site_say(site, SITE_HERE, limits ? FINDING_OK : FINDING_WARN, "job limits",
             limits ? "" : "jobs may use more than they asked for, and so may pods", "TaskPlugin %s, ProctrackType %s", tasks, track);
    site_say(site, SITE_HERE, short_lived ? FINDING_WARN : FINDING_OK, "ended jobs",
             short_lived ? "set PollMax in the plugin's configuration below that" : "", "kept for %lld s%s", age,
             accounts ? ", then in the accounting" : ", and no accounting");
}

static void site_slurm_ask(struct site *site, const struct slurm_config *config)
{
    static const char *const arguments[] = { "show", "config", NULL };
    struct slurm_commands commands;
    struct slurm_command command = { 0 };
    struct site_slurm s = { .arena = &site->arena };

    slurm_commands_init(&commands, site->loop, config);
    slurm_command_start(&commands, &command, SLURM_SCONTROL, arguments, -1, site_on_slurm, &s);
    while (!s.done && !site->interrupted)
        loop_turn(site->loop, -1);
    slurm_command_forget(&command);
    bool configured = site->handler == NULL;
    if (s.err.code != STATUS_OK || !s.done) {
        site_say(site, SITE_HERE, configured ? FINDING_FAIL : FINDING_OK, "Slurm",
                 configured ? "are Slurm's programs here (Slurm.BinDir, Slurm.Prefix in the plugin's configuration)?" : "",
                 configured ? "%s" : "not looked at from here: %.100s", s.err.message);
        return;
    }
    site_say(site, SITE_HERE, FINDING_OK, "Slurm", "", "version %s, cluster %s", site_slurm_value(site, s.text, "SLURM_VERSION"),
             site_slurm_value(site, s.text, "ClusterName"));
    site_slurm_script(site, s.text);
    site_slurm_rest(site, s.text);
}

void site_check_slurm(struct site *site)
{
    struct slurm_config config = { 0 };
    struct status err = STATUS_INIT;

    if (site->handler == NULL && strcmp(site->settings.backend, "slurm") != 0)
        return;
    if (slurm_config_read(&config, site->settings.slurm, &err))
        site_slurm_ask(site, &config);
    else
        site_say(site, SITE_HERE, FINDING_FAIL, "Slurm", "see docs/plugin.example.yaml", "%s", err.message);
    slurm_config_free(&config);
}

/* ---- proxy ---- */

void site_check_proxy(struct site *site)
{
    struct http_proxy proxy = { .host = "" };
    struct status err = STATUS_INIT;

    if (!http_proxy_choose(NULL, "example.org", &proxy, &err))
        site_say(site, SITE_HERE, FINDING_FAIL, "proxy", "correct https_proxy and no_proxy", "%s", err.message);
    else if (proxy.host[0] != '\0')
        site_say(site, SITE_HERE, FINDING_OK, "proxy", "", "the environment names %s:%u", proxy.host, (unsigned)proxy.port);
    else
        site_say(site, SITE_HERE, FINDING_OK, "proxy", "", "none in the environment");
    http_proxy_free(&proxy);
}

#undef SITE_HERE
#undef SITE_SCRIPT_DEFAULT
#undef SITE_SCRIPT_LOW
#undef SITE_JOB_AGE_LOW
