/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/site.h"

#include <unistd.h>

#include "io/file.h"
#include "text/json.h"
#include "text/yaml.h"

/* ---- collecting ---- */

/* One line each, without what could disturb a terminal. */
static char *site_plain(char *text)
{
    for (char *p = text; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = ' ';
    return text;
}

void site_add(struct site *site, const char *where, const struct finding *f)
{
    if ((site->count & (site->count - 1)) == 0)
        site->findings = xrealloc(site->findings, (site->count > 0 ? site->count * 2 : 1) * sizeof *site->findings);
    struct site_finding *own = &site->findings[site->count++];
    own->finding = *f;
    own->finding.what = site_plain(arena_strdup(&site->arena, f->what));
    own->finding.mend = site_plain(arena_strdup(&site->arena, f->mend));
    own->where = site_plain(arena_strdup(&site->arena, where));
    site_plain(own->finding.found);
}

void site_say(struct site *site, const char *where, enum finding_result result, const char *what, const char *mend,
              const char *format, ...)
{
    struct finding f;
    char text[sizeof f.found];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    finding_set(&f, result, what, mend, "%s", text);
    site_add(site, where, &f);
}

static enum finding_result site_result(const char *name)
{
    for (int r = FINDING_OK; r < FINDING_FAIL; r++)
        if (strcmp(name, finding_result_name((enum finding_result)r)) == 0)
            return (enum finding_result)r;
    return FINDING_FAIL;
}

/* A folder that nobody says is shared: no harm when it is not. */
static bool site_only_asked(const struct site *site, const char *what)
{
    for (size_t i = 0; str_starts(what, "shared ") && i < site->folder_count; i++)
        if (strcmp(what + strlen("shared "), site->folders[i].path) == 0)
            return !site->folders[i].configured;
    return false;
}

void site_add_report(struct site *site)
{
    const char *host = json_string(json_member(site->report, "host"), "compute node");

    for (JSON_EACH(j, json_member(site->report, "findings"))) {
        struct finding f;
        const char *what = json_string(json_member(j, "what"), "?"), *mend = json_string(json_member(j, "mend"), "");
        enum finding_result result = site_result(json_string(json_member(j, "result"), ""));
        if (result != FINDING_OK && site_only_asked(site, what)) {
            result = FINDING_OK;
            mend = "";
        }
        finding_set(&f, result, what, mend, "%s", json_string(json_member(j, "found"), ""));
        site_add(site, host, &f);
    }
}

int site_exit_status(const struct site *site)
{
    for (size_t i = 0; i < site->count; i++)
        if (site->findings[i].finding.result == FINDING_FAIL)
            return 1;
    return 0;
}

/* ---- what to put into the configuration ---- */

static const char *site_fact_of(struct site *site, const struct json *j)
{
    return site_plain(arena_strdup(&site->arena, json_string(j, "")));
}

static const char *site_fact(struct site *site, const char *name)
{
    return site_fact_of(site, json_get(site->report, "facts", name));
}

static void site_advise_paths(struct site *site, const char *indent, struct buf *out)
{
    size_t count = 0;

    for (JSON_EACH(path, json_get(site->report, "facts", "shared")))
        buf_printf(out, "%s%s", count++ == 0 ? "" : ", ", site_fact_of(site, path));
    if (count == 0)
        return;
    cleanup_free char *paths = xstrdup(buf_cstr(out));
    buf_clear(out);
    buf_printf(out, "%sSharedPaths: [%s]\n", indent, paths);
}

static void site_advise_handler(struct site *site, struct buf *out)
{
    const struct node_options *o = &site->doctor->config.node;
    const struct node_handler_options *h = site->handler;
    const char *engine = site_fact(site, "engine");
    cleanup_buf struct buf paths = BUF_INIT;

    buf_append_str(out, "# serve (config.yaml)\n");
    if (*o->relay_listen == '\0')
        buf_append_str(out, "Relay:\n  Listen: 0.0.0.0:10443\n  Advertise: THIS-NODE:10443 # a name that compute nodes can reach\n");
    else
        buf_printf(out, "Relay:\n  Listen: %s\n  Advertise: %s\n", o->relay_listen, o->relay_address);
    buf_printf(out, "Handlers:\n  - Name: %s\n    Target: %s\n", h->name, h->url);
    if (strcmp(engine, "none") != 0)
        buf_printf(out, "    Engine: %s\n", engine);
    site_advise_paths(site, "    ", &paths);
    buf_append(out, paths.p, paths.n);
    for (JSON_EACH(path, json_get(site->report, "facts", "shared")))
        if (strcmp(json_string(path, ""), o->image_dir) == 0)
            buf_printf(out, "Images:\n  Dir: %s\n  Shared: true\n", o->image_dir);
}

static void site_advise_plugin(struct site *site, struct buf *out)
{
    const char *relay = site_fact(site, "relay"), *proxy = site_fact(site, "proxy");

    static const char head[] = "# interlink-cri plugin (plugin.yaml)\n";

    if (site->handler == NULL)
        buf_printf(out, "%sDir: %s\nBackend: %s\n", head, site->settings.dir,
                   *site->settings.backend != '\0' ? site->settings.backend : "local");
    else if (strcmp(relay, "proxy") == 0 || (strcmp(relay, "direct") == 0 && *proxy != '\0') || strcmp(relay, "none") == 0)
        buf_append_str(out, head);
    if (strcmp(relay, "direct") == 0 && *proxy != '\0')
        buf_append_str(out, "Slurm:\n  Setup: |\n    export no_proxy=RELAY-HOST # the proxy does not lead to it\n");
    else if (strcmp(relay, "proxy") == 0)
        buf_printf(out, "# agents take the proxy %s, which the jobs' environment names\n", proxy);
    else if (strcmp(relay, "none") == 0 && site->handler != NULL && *site->doctor->config.node.relay_address != '\0')
        buf_append_str(out, "Slurm:\n  Setup: |\n    export https_proxy=http://PROXY:3128 # if the site has one\n");
}

/* "" when there was no report. */
static void site_advise(struct site *site, struct buf *out)
{
    if (site->report == NULL)
        return;
    if (site->handler != NULL)
        site_advise_handler(site, out);
    site_advise_plugin(site, out);
}

/* ---- printing ---- */

static void site_table(struct site *site, struct buf *out)
{
    static const char *const words[] = { "ok", "warn", "FAIL" };
    static const char *const colours[] = { "\033[32m", "\033[33m", "\033[31m" };
    unsigned counts[FINDING_FAIL + 1] = { 0 };
    int where = 5, what = 4;
    cleanup_buf struct buf advice = BUF_INIT;

    for (size_t i = 0; i < site->count; i++) {
        int a = (int)strlen(site->findings[i].where), b = (int)strlen(site->findings[i].finding.what);
        where = a > where ? a : where;
        what = b > what ? b : what;
    }
    buf_printf(out, "%-4s  %-*s  %-*s  %s\n", "", where, "WHERE", what, "WHAT", "FOUND");
    for (size_t i = 0; i < site->count; i++) {
        const struct finding *f = &site->findings[i].finding;
        bool colour = site->doctor->colour;
        counts[f->result]++;
        buf_printf(out, "%s%-4s%s  %-*s  %-*s  %s\n", colour ? colours[f->result] : "", words[f->result], colour ? "\033[0m" : "", where,
                   site->findings[i].where, what, f->what, f->found);
        if (*f->mend != '\0')
            buf_printf(out, "%*s-> %s\n", 4 + 2 + where + 2 + what + 2, "", f->mend);
    }
    site_advise(site, &advice);
    if (advice.n > 0)
        buf_printf(out, "\nTo put into the configuration:\n\n%s", buf_cstr(&advice));
    buf_printf(out, "\n%u ok, %u to look at, %u failed\n", counts[FINDING_OK], counts[FINDING_WARN], counts[FINDING_FAIL]);
}

static void site_json(struct site *site, struct buf *out)
{
    struct json_writer w;
    cleanup_buf struct buf advice = BUF_INIT;

    json_writer_init(&w, out, 2);
    json_write_object(&w);
    json_write_member_string(&w, "handler", site->handler != NULL ? site->handler->name : "");
    json_write_member_array(&w, "findings");
    for (size_t i = 0; i < site->count; i++) {
        const struct finding *f = &site->findings[i].finding;
        json_write_object(&w);
        json_write_member_string(&w, "result", finding_result_name(f->result));
        json_write_member_string(&w, "where", site->findings[i].where);
        json_write_member_string(&w, "what", f->what);
        json_write_member_string(&w, "found", f->found);
        json_write_member_string(&w, "mend", f->mend);
        json_write_end(&w);
    }
    json_write_end(&w);
    json_write_key(&w, "facts");
    json_write_tree(&w, json_member(site->report, "facts"));
    site_advise(site, &advice);
    json_write_member_string(&w, "configuration", buf_cstr(&advice));
    json_write_end(&w);
    buf_append_byte(out, '\n');
}

bool site_print(struct site *site, const char *format)
{
    cleanup_buf struct buf out = BUF_INIT;
    struct status err = STATUS_INIT;

    if (strcmp(format, "table") == 0) {
        site_table(site, &out);
    } else {
        site_json(site, &out);
        if (strcmp(format, "yaml") == 0) {
            const struct json *j = json_parse(&site->arena, (struct str){ buf_cstr(&out), out.n }, &err);
            buf_clear(&out);
            yaml_write(&out, j);
        }
    }
    return write_all(STDOUT_FILENO, out.p, out.n, &err);
}
