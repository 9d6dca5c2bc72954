/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/probe.h"

#include "agent/agent.h"
#include "agent/apptainer.h"
#include "agent/machine.h"
#include "agent/scratch.h"
#include "http/proxy.h"
#include "io/child.h"
#include "io/file.h"
#include "io/socket.h"
#include "rpc/dial.h"
#include "text/json.h"
#include "version.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

/* For another program to say something about itself. */
#define PROBE_PROGRAM_SECONDS 10
#define PROBE_OUTPUT_MAX 65536
/* For the relay to answer: a firewall that drops says nothing at all. */
#define PROBE_DIAL_MS 8000
/* Less than this holds no image. */
#define PROBE_SCRATCH_MIN (2ull << 30)
/* At most, for the way from the node into a job that runs. */
#define PROBE_LINGER_SECONDS 120
/* A site has a handful. */
#define PROBE_SHARED_MAX 64

struct probe {
    struct arena arena;
    const struct json *request; /* INTERLINK_PROBE; NULL: nothing special is asked */
    const char *nonce;
    struct buf out;
    struct json_writer w;
    const char *engine, *relay, *proxy, *scratch; /* facts; "" when there is none */
    const char *shared[PROBE_SHARED_MAX];
    size_t shared_count;
};

static void probe_put(void *arg, const struct finding *f)
{
    struct probe *p = arg;

    json_write_object(&p->w);
    json_write_member_string(&p->w, "what", f->what);
    json_write_member_string(&p->w, "result", finding_result_name(f->result));
    json_write_member_string(&p->w, "found", f->found);
    json_write_member_string(&p->w, "mend", f->mend);
    json_write_end(&p->w);
}

#define probe_say(p, ...)                                                                                              \
    do {                                                                                                               \
        struct finding probe_finding;                                                                                  \
        finding_set(&probe_finding, __VA_ARGS__);                                                                      \
        probe_put(p, &probe_finding);                                                                                  \
    } while (0)

/* ---- other programs ---- */

/* What a program prints on standard output; it is killed when it takes too long. False: it cannot be run, or fails. */
static bool probe_output(const char *const *argv, struct buf *out)
{
    int ends[2], wait_status = 0;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return false;
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        dup2(null, STDIN_FILENO);
        dup2(ends[1], STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        child_reset_signals();
        alarm(PROBE_PROGRAM_SECONDS); /* stays when the program takes over */
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(ends[1]);
    while (pid > 0 && out->n < PROBE_OUTPUT_MAX) {
        ssize_t n = read(ends[0], buf_reserve(out, 4096), 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        out->n += (size_t)n;
    }
    close(ends[0]);
    if (pid > 0)
        waitpid(pid, &wait_status, 0);
    return pid > 0 && WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0;
}

static void probe_apptainer(struct probe *p)
{
    struct apptainer found;
    struct status err = STATUS_INIT;

    if (apptainer_find(getenv("INTERLINK_APPTAINER"), &found, &err))
        probe_say(p, FINDING_OK, "apptainer", "", "%s (%s, %s)", found.version, found.path, found.setuid ? "setuid" : "without setuid");
    else
        probe_say(p, err.code == STATUS_NOT_FOUND ? FINDING_OK : FINDING_WARN, "apptainer",
                  err.code == STATUS_NOT_FOUND ? "" : "ask the site, or load its module in the plugin's Setup", "%s", err.message);
}

/* Asked of an agent as it would start here. */
static void probe_engine(struct probe *p)
{
    cleanup_buf struct buf text = BUF_INIT;
    struct status err = STATUS_INIT;
    bool answered = probe_output((const char *const[]){ "/proc/self/exe", "agent", "features", NULL }, &text);
    const struct json *j = answered ? json_parse(&p->arena, (struct str){ buf_cstr(&text), text.n }, &err) : NULL;
    const char *reason = json_string(json_member(j, "engineReason"), "an agent cannot start here");

    p->engine = json_string(json_member(j, "engine"), "none");
    if (strcmp(p->engine, "none") == 0)
        probe_say(p, FINDING_FAIL, "engine", "containers of pods cannot run: see namespaces and apptainer", "none: %s", reason);
    else
        probe_say(p, FINDING_OK, "engine", "", "%s: %s", p->engine, reason);
}

/* ---- scratch ---- */

/* The first that is this node's own, on a disk and large enough is taken; else the first that can be written at all. */
static void probe_scratch_candidate(struct probe *p, const char *path, struct buf *found, const char **second)
{
    struct statfs fs;

    if (path == NULL || path[0] != '/' || access(path, W_OK | X_OK) < 0 || statfs(path, &fs) < 0)
        return;
    const struct scratch_filesystem *type = scratch_filesystem_of(&fs);
    unsigned long long bytes = (unsigned long long)fs.f_bavail * (unsigned long long)fs.f_bsize;
    cleanup_free char *entry = xasprintf("%s (%s, %.1f GiB free)", path, type->name, (double)bytes / (double)(1ull << 30));
    if (strstr(buf_cstr(found), entry) != NULL)
        return;
    buf_printf(found, "%s%s", found->n > 0 ? ", " : "", entry);
    if (*p->scratch == '\0' && !type->shared && !type->memory && bytes >= PROBE_SCRATCH_MIN)
        p->scratch = arena_strdup(&p->arena, path);
    else if (**second == '\0')
        *second = arena_strdup(&p->arena, path);
}

static void probe_scratch(struct probe *p)
{
    cleanup_buf struct buf found = BUF_INIT;
    const char *second = "";

    for (JSON_EACH(path, json_member(p->request, "scratch")))
        probe_scratch_candidate(p, json_string(path, ""), &found, &second);
    probe_scratch_candidate(p, getenv("SLURM_TMPDIR"), &found, &second);
    probe_scratch_candidate(p, getenv("TMPDIR"), &found, &second);
    for (size_t i = 0; scratch_usual[i] != NULL; i++)
        probe_scratch_candidate(p, scratch_usual[i], &found, &second);
    if (*p->scratch != '\0')
        probe_say(p, FINDING_OK, "scratch", "", "%s: of %s", p->scratch, buf_cstr(&found));
    else if (found.n > 0)
        probe_say(p, FINDING_WARN, "scratch", "name a disk of the node's own, or keep images small: these are shared, in memory or nearly full",
                  "%s", buf_cstr(&found));
    else
        probe_say(p, FINDING_FAIL, "scratch", "have the site give jobs a folder, in TMPDIR", "no folder of this node can be written");
    if (*p->scratch == '\0')
        p->scratch = second;
}

/* ---- shared folders ---- */

static void probe_shared_one(struct probe *p, const char *path)
{
    cleanup_free char *ask = xasprintf("%s/" PROBE_ASK_FILE "%s", path, p->nonce);
    cleanup_free char *answer = xasprintf("%s/" PROBE_ANSWER_FILE "%s", path, p->nonce);
    cleanup_buf struct buf text = BUF_INIT;
    struct status err = STATUS_INIT;
    struct statfs fs;
    const char *what = arena_printf(&p->arena, "shared %s", path);

    if (access(path, F_OK) < 0 || statfs(path, &fs) < 0) {
        probe_say(p, FINDING_FAIL, what, "take it out of SharedPaths, or have it mounted on the compute nodes", "is not there");
        return;
    }
    const char *type = scratch_filesystem_of(&fs)->name;
    if (!file_read(ask, 256, &text, &err) || strcmp(buf_cstr(&text), p->nonce) != 0) {
        probe_say(p, FINDING_FAIL, what, "take it out of SharedPaths: it is another folder of the same name",
                  "does not have the file that doctor made in it (%s)", type);
        return;
    }
    bool writable = file_replace(answer, p->nonce, strlen(p->nonce), 0644, &err);
    probe_say(p, writable ? FINDING_OK : FINDING_WARN, what, writable ? "" : "pods can only read there", "the same folder%s (%s)",
              writable ? ", and writable" : ", not writable", type);
    if (p->shared_count < PROBE_SHARED_MAX)
        p->shared[p->shared_count++] = arena_strdup(&p->arena, path);
}

static void probe_shared(struct probe *p)
{
    for (JSON_EACH(path, json_member(p->request, "shared")))
        if (json_string(path, "")[0] == '/' && *p->nonce != '\0')
            probe_shared_one(p, json_string(path, ""));
}

/* ---- the way to the relay ---- */

struct probe_dialled {
    bool done, reached;
    char text[STATUS_MESSAGE_MAX];
};

/* A relay that is there refuses, since this is no pod of its. */
static void probe_on_dialled(void *arg, struct stream *stream, struct str early, const struct status *err, bool refused)
{
    struct probe_dialled *d = arg;
    (void)early;

    d->done = true;
    d->reached = err == NULL || refused;
    snprintf(d->text, sizeof d->text, "%s", err != NULL ? err->message : "");
    stream_free(stream);
}

static struct probe_dialled probe_dial(struct loop *loop, const char *address, const char *pin, const char *proxy)
{
    struct probe_dialled d = { .text = "" };

    dial_start(loop, &(struct dial_options){ .address = address, .pin = pin, .sandbox_id = "doctor", .token = "doctor", .proxy = proxy,
                                             .timeout_ms = PROBE_DIAL_MS, .on_done = probe_on_dialled, .arg = &d });
    while (!d.done)
        loop_turn(loop, -1);
    return d;
}

/* host:port only: its URL may hold a password. */
static const char *probe_proxy_of(struct probe *p, const char *host)
{
    struct http_proxy proxy = { .host = "" };
    struct status ignored = STATUS_INIT;
    const char *text = "";

    if (http_proxy_choose(NULL, host, &proxy, &ignored) && proxy.host[0] != '\0')
        text = arena_printf(&p->arena, "%s:%u", proxy.host, (unsigned)proxy.port);
    http_proxy_free(&proxy);
    return text;
}

/* Agents take the proxy whenever their environment names one. */
static void probe_ways(struct probe *p, struct loop *loop, const char *address, const char *pin)
{
    struct probe_dialled direct = probe_dial(loop, address, pin, ""), by = { .text = "" };
    struct address parsed = { .host = "" };
    struct status err = STATUS_INIT;

    p->proxy = address_parse(address, &parsed, &err) ? probe_proxy_of(p, parsed.host) : "";
    if (*p->proxy != '\0')
        by = probe_dial(loop, address, pin, NULL);
    if (strcmp(p->relay, "none") == 0) /* the first of several addresses that leads there */
        p->relay = by.reached ? "proxy" : direct.reached ? "direct" : "none";
    bool any = direct.reached || by.reached;
    probe_say(p, direct.reached ? FINDING_OK : any ? FINDING_WARN : FINDING_FAIL, "relay direct",
              any ? "" : "let compute nodes connect to it, or export https_proxy in the plugin's Setup", "%s %s", address,
              direct.reached ? "answers" : direct.text);
    if (*p->proxy == '\0')
        probe_say(p, FINDING_OK, "relay by proxy", "", "the job's environment names no proxy for it");
    else
        probe_say(p, by.reached ? FINDING_OK : FINDING_FAIL, "relay by proxy",
                  by.reached ? "" : "export no_proxy with the relay's host, or another https_proxy, in the plugin's Setup",
                  "%s through %s: %s", address, p->proxy, by.reached ? "answers" : by.text);
}

/* Agents try one address after the other. */
static void probe_addresses(struct probe *p, struct loop *loop, const char *addresses, const char *pin)
{
    for (const char *at = addresses; *at != '\0'; at += strspn(at, ", ")) {
        size_t n = strcspn(at, ", ");
        const char *one = arena_strndup(&p->arena, at, n);
        if (*one != '/' && strncmp(one, "unix:", 5) != 0)
            probe_ways(p, loop, one, pin);
        at += n;
    }
}

static void probe_relay(struct probe *p)
{
    const char *addresses = getenv("INTERLINK_RELAY"), *pin = getenv("INTERLINK_RELAY_PIN");
    struct status err = STATUS_INIT;

    p->proxy = probe_proxy_of(p, "relay.invalid");
    probe_say(p, FINDING_OK, "proxy", "", "%s%s", *p->proxy != '\0' ? "the job's environment names " : "none in the job's environment",
              p->proxy);
    if (addresses == NULL || *addresses == '\0')
        return;
    struct loop *loop = loop_new(&err);
    if (loop != NULL && child_reaper_start(loop, NULL, NULL, &err))
        probe_addresses(p, loop, addresses, pin);
    else
        probe_say(p, FINDING_WARN, "relay direct", "", "not tried: %s", err.message);
    loop_free(loop);
}

/* Who asked may want to come here while the job runs; it is deleted then. */
static void probe_linger(const struct probe *p)
{
    int64_t seconds = json_i64(json_member(p->request, "linger"), 0);

    for (int64_t i = 0; i < seconds && i < PROBE_LINGER_SECONDS; i++)
        sleep(1);
}

/* ---- the report ---- */

static void probe_facts(struct probe *p)
{
    json_write_member_object(&p->w, "facts");
    json_write_member_string(&p->w, "engine", p->engine);
    json_write_member_string(&p->w, "scratch", p->scratch);
    json_write_member_string(&p->w, "relay", p->relay);
    json_write_member_string(&p->w, "proxy", p->proxy);
    json_write_member_array(&p->w, "shared");
    for (size_t i = 0; i < p->shared_count; i++)
        json_write_string(&p->w, p->shared[i]);
    json_write_end(&p->w);
    json_write_end(&p->w);
}

static void probe_all(struct probe *p)
{
    char host[256] = "";

    gethostname(host, sizeof host - 1);
    json_write_object(&p->w);
    json_write_member_string(&p->w, "version", INTERLINK_CRI_VERSION);
    json_write_member_string(&p->w, "host", host);
    json_write_member_i64(&p->w, "uid", geteuid());
    json_write_member_array(&p->w, "findings");
    machine_check(access("/tmp", W_OK) == 0 ? "/tmp" : getenv("INTERLINK_JOB_DIR"), probe_put, p);
    probe_apptainer(p);
    probe_engine(p);
    probe_scratch(p);
    probe_shared(p);
    probe_relay(p); /* last: from here on children are reaped by a loop */
    json_write_end(&p->w);
    probe_facts(p);
    json_write_member_i64(&p->w, "timeNs", clock_real_ns()); /* last, so that it is as young as can be */
    json_write_end(&p->w);
}

int probe_main(void)
{
    struct probe p = { .nonce = "", .engine = "none", .relay = "none", .proxy = "", .scratch = "" };
    const char *request = getenv("INTERLINK_PROBE");
    struct status err = STATUS_INIT;

    log_setup(LOG_ERROR, "agent");
    if (request != NULL && *request != '\0') {
        p.request = json_parse(&p.arena, str_of(request), &err);
        if (p.request == NULL) {
            log_error("INTERLINK_PROBE: %s", err.message);
            arena_free(&p.arena);
            return AGENT_EXIT_ENVIRONMENT;
        }
    }
    const char *nonce = json_string(json_member(p.request, "nonce"), "");
    p.nonce = strspn(nonce, "0123456789abcdef") == strlen(nonce) ? nonce : "";
    json_writer_init(&p.w, &p.out, 0);
    buf_append_str(&p.out, PROBE_MARK);
    probe_all(&p);
    buf_append_byte(&p.out, '\n');
    bool ok = write_all(STDOUT_FILENO, p.out.p, p.out.n, &err);
    if (!ok)
        log_error("%s", err.message);
    probe_linger(&p);
    buf_free(&p.out);
    arena_free(&p.arena);
    return ok ? AGENT_EXIT_OK : AGENT_EXIT_MACHINE;
}

#undef PROBE_PROGRAM_SECONDS
#undef PROBE_OUTPUT_MAX
#undef PROBE_DIAL_MS
#undef PROBE_SCRATCH_MIN
#undef PROBE_SHARED_MAX
#undef PROBE_LINGER_SECONDS
#undef probe_say
