/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_settings.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/random.h"
#include "io/socket.h"

/* Says that the job's folder is ours, to the process that does the agent's work. */
#define AGENT_MADE_VARIABLE "INTERLINK_JOB_DIR_MADE"

char *agent_settings_get(const char *name)
{
    const char *value = getenv(name);

    return xstrdup(value != NULL ? value : "");
}

static bool agent_settings_listed(const char *list, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = list; p != NULL; p = strchr(p, ',')) {
        p += *p == ',';
        if (strncmp(p, word, n) == 0 && (p[n] == ',' || p[n] == '\0'))
            return true;
    }
    return false;
}

static bool agent_settings_check_relay(struct agent_settings *s, struct status *err)
{
    struct address address = { .is_unix = false };

    if ((*s->relay.given == '\0' && !s->join_wanted) || !agent_relay_check(s->relay.given, err))
        return status_prefix(err, "INTERLINK_RELAY");
    if (strchr(s->relay.given, ',') == NULL && *s->relay.given != '\0')
        address_parse(s->relay.given, &address, err);
    s->relay_is_unix = address.is_unix;
    return true;
}

/* With a manifest its folder will do, and any id. */
static void agent_settings_default(const struct agent_settings *s, char **job_dir, char **sandbox)
{
    if (s->manifest != NULL && **job_dir == '\0' && strrchr(s->manifest, '/') != NULL) {
        free(*job_dir);
        *job_dir = xstrndup(s->manifest, (size_t)(strrchr(s->manifest, '/') - s->manifest));
    }
    if (s->manifest != NULL && **sandbox == '\0') {
        free(*sandbox);
        *sandbox = xcalloc(1, ID_LENGTH + 1);
        random_id(*sandbox);
    }
}

bool agent_settings_inside(const struct agent_settings *s)
{
    return strcmp(s->engine, "inside") == 0;
}

/* The plugin that started us there has no folder for us. The process that does the agent's work finds it in its environment. */
static bool agent_settings_make_job_dir(struct agent_settings *s, struct status *err)
{
    const char *base = getenv("TMPDIR");
    cleanup_free char *path = xasprintf("%s/interlink-cri.XXXXXX", base != NULL && *base == '/' ? base : "/tmp");

    if (mkdtemp(path) == NULL)
        return status_errno(err, "no folder can be made for the agent: %s", path);
    setenv("INTERLINK_JOB_DIR", path, 1);
    setenv(AGENT_MADE_VARIABLE, path, 1);
    free(s->job_dir);
    s->job_dir = steal_ptr(&path);
    return true;
}

bool agent_settings_read(struct agent_settings *s, struct status *err)
{
    cleanup_free char *sandbox = agent_settings_get("INTERLINK_SANDBOX");
    cleanup_free char *namespaces = agent_settings_get("INTERLINK_NAMESPACES");
    cleanup_free char *level = agent_settings_get("INTERLINK_LOG_LEVEL");
    cleanup_free char *keepalive = agent_settings_get("INTERLINK_KEEPALIVE"), *join = agent_settings_get("INTERLINK_JOIN");
    enum log_level log_level = LOG_INFO;
    uint64_t seconds = AGENT_KEEPALIVE_MS / 1000;

    s->token = agent_settings_get("INTERLINK_TOKEN");
    s->token_file = agent_settings_get("INTERLINK_TOKEN_FILE");
    s->relay.given = agent_settings_get("INTERLINK_RELAY");
    s->join_wanted = strcmp(join, "1") == 0;
    s->relay_pin = agent_settings_get("INTERLINK_RELAY_PIN");
    s->engine = agent_settings_get("INTERLINK_ENGINE");
    s->apptainer = agent_settings_get("INTERLINK_APPTAINER");
    s->cgroup_parent = agent_settings_get("INTERLINK_CGROUP_PARENT");
    s->netns = agent_settings_get("INTERLINK_NETNS");
    s->cdi_dirs = agent_settings_get("INTERLINK_CDI_DIRS");
    s->own_ipc = agent_settings_listed(namespaces, "ipc");
    s->own_uts = agent_settings_listed(namespaces, "uts");
    s->own_pid = agent_settings_listed(namespaces, "pid");
    s->job_dir = agent_settings_get("INTERLINK_JOB_DIR");
    s->images_dir = agent_settings_get("INTERLINK_IMAGES");
    agent_settings_default(s, &s->job_dir, &sandbox);
    if (*level != '\0' && !log_level_parse(level, &log_level))
        return status_set(err, STATUS_INVALID_ARGUMENT, "INTERLINK_LOG_LEVEL: \"%s\" is none of error, warn, info, debug", level);
    log_setup(log_level, "agent");
    if (strlen(sandbox) != ID_LENGTH || strspn(sandbox, "0123456789abcdef") != ID_LENGTH)
        return status_set(err, STATUS_INVALID_ARGUMENT, "INTERLINK_SANDBOX: \"%.80s\" is not %d lower-case hex digits", sandbox,
                          ID_LENGTH);
    memcpy(s->sandbox_id, sandbox, sizeof s->sandbox_id);
    s->own_dir = agent_settings_get(AGENT_MADE_VARIABLE);
    if (agent_settings_inside(s) && s->job_dir[0] == '\0' && !agent_settings_make_job_dir(s, err))
        return false;
    if (s->job_dir[0] != '/' || access(s->job_dir, R_OK | W_OK | X_OK) < 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "INTERLINK_JOB_DIR: \"%s\" is not the absolute path of a folder of ours",
                          s->job_dir);
    s->relay.job_dir = s->job_dir;
    if (*keepalive != '\0' && (!parse_u64(keepalive, 86400, &seconds) || seconds == 0))
        return status_set(err, STATUS_INVALID_ARGUMENT, "INTERLINK_KEEPALIVE: \"%.40s\" is no number of seconds up to a day", keepalive);
    s->keepalive_ms = (int64_t)seconds * 1000;
    return s->manifest != NULL || agent_settings_check_relay(s, err);
}

void agent_settings_hide(void)
{
    static const char *const names[] = {
        "INTERLINK_RELAY",  "INTERLINK_RELAY_PIN", "INTERLINK_SANDBOX",       "INTERLINK_JOB_DIR",   "INTERLINK_NAMESPACES",
        "INTERLINK_IMAGES", "INTERLINK_ENGINE",    "INTERLINK_CGROUP_PARENT", "INTERLINK_LOG_LEVEL", "INTERLINK_NETNS",
        "INTERLINK_CDI_DIRS", "INTERLINK_TOKEN",     "INTERLINK_APPTAINER",     "INTERLINK_JOIN",      "INTERLINK_KEEPALIVE",
        "INTERLINK_SCRATCH",  "INTERLINK_TOKEN_FILE", AGENT_MADE_VARIABLE,
    };

    for (size_t i = 0; i < COUNT_OF(names); i++)
        unsetenv(names[i]);
}

void agent_settings_free(struct agent_settings *s)
{
    free(s->own_dir);
    free(s->token_file);
    free(s->job_dir);
    free(s->images_dir);
    free(s->token);
    agent_relay_free(&s->relay);
    free(s->relay_pin);
    free(s->engine);
    free(s->apptainer);
    free(s->cgroup_parent);
    free(s->netns);
    free(s->cdi_dirs);
}

#undef AGENT_MADE_VARIABLE
