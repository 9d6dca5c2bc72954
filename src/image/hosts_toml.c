/* SPDX-License-Identifier: Apache-2.0 */
/* A reader in two steps: tokens and values of TOML become a small tree, then the tree's keys become hosts. */
#include "image/hosts_toml.h"

/* ---- the tree ---- */

enum toml_type { TOML_OTHER, TOML_STRING, TOML_BOOL, TOML_ARRAY, TOML_TABLE };

struct toml_node {
    enum toml_type type;
    unsigned line;
    const char *key;    /* within its table */
    const char *string; /* TOML_STRING */
    bool boolean;       /* TOML_BOOL */
    bool defined;       /* TOML_TABLE: by a header or a value of its own; a second time is an error */
    struct toml_node *first, *last, *next;
    size_t count;
};

struct toml {
    const char *file;
    struct str text;
    size_t at;
    unsigned line, depth;
    size_t nodes;
    struct arena *arena;
    struct toml_node *root;
    struct status *err;
};

static bool toml_fail(struct toml *t, unsigned line, const char *what)
{
    return status_set(t->err, STATUS_INVALID_ARGUMENT, "%s:%u: %s", t->file, line, what);
}

static struct toml_node *toml_add(struct toml *t, struct toml_node *parent, const char *key, enum toml_type type)
{
    struct toml_node *n = ARENA_NEW(t->arena, struct toml_node);

    n->type = type;
    n->line = t->line;
    n->key = key;
    n->string = "";
    if (parent->last != NULL)
        parent->last->next = n;
    else
        parent->first = n;
    parent->last = n;
    parent->count++;
    t->nodes++;
    return n;
}

static struct toml_node *toml_find(const struct toml_node *table, const char *key)
{
    for (struct toml_node *n = table->first; n != NULL; n = n->next)
        if (strcmp(n->key, key) == 0)
            return n;
    return NULL;
}

/* ---- tokens ---- */

static int toml_peek(const struct toml *t)
{
    return t->at < t->text.n ? (unsigned char)t->text.p[t->at] : -1;
}

static void toml_skip_blanks(struct toml *t)
{
    while (toml_peek(t) == ' ' || toml_peek(t) == '\t')
        t->at++;
}

/* Blanks, a comment, the end of the line. False when something else is there. */
static bool toml_end_of_line(struct toml *t)
{
    toml_skip_blanks(t);
    if (toml_peek(t) == '#')
        while (toml_peek(t) != '\n' && toml_peek(t) >= 0)
            t->at++;
    if (toml_peek(t) == '\r' && t->at + 1 < t->text.n && t->text.p[t->at + 1] == '\n')
        t->at++;
    if (toml_peek(t) < 0)
        return true;
    if (toml_peek(t) != '\n')
        return false;
    t->at++;
    t->line++;
    return true;
}

/* Inside arrays lines may end anywhere. */
static void toml_skip_lines(struct toml *t)
{
    for (;;) {
        toml_skip_blanks(t);
        if (toml_peek(t) != '#' && toml_peek(t) != '\n' && toml_peek(t) != '\r')
            return;
        size_t before = t->at;
        if (!toml_end_of_line(t) || t->at == before)
            return;
    }
}

static bool toml_take(struct toml *t, char c)
{
    if (toml_peek(t) != c)
        return false;
    t->at++;
    return true;
}

static void toml_utf8(struct buf *out, uint32_t c)
{
    if (c < 0x80) {
        buf_append_byte(out, (uint8_t)c);
    } else if (c < 0x800) {
        buf_append_byte(out, (uint8_t)(0xc0 | c >> 6));
        buf_append_byte(out, (uint8_t)(0x80 | (c & 0x3f)));
    } else if (c < 0x10000) {
        buf_append_byte(out, (uint8_t)(0xe0 | c >> 12));
        buf_append_byte(out, (uint8_t)(0x80 | (c >> 6 & 0x3f)));
        buf_append_byte(out, (uint8_t)(0x80 | (c & 0x3f)));
    } else {
        buf_append_byte(out, (uint8_t)(0xf0 | c >> 18));
        buf_append_byte(out, (uint8_t)(0x80 | (c >> 12 & 0x3f)));
        buf_append_byte(out, (uint8_t)(0x80 | (c >> 6 & 0x3f)));
        buf_append_byte(out, (uint8_t)(0x80 | (c & 0x3f)));
    }
}

/* After the backslash. */
static bool toml_escape(struct toml *t, struct buf *out)
{
    static const char from[] = "btnfr\"\\", to[] = "\b\t\n\f\r\"\\";
    int c = toml_peek(t);
    const char *simple = c > 0 ? strchr(from, c) : NULL;

    t->at++;
    if (simple != NULL) {
        buf_append_byte(out, (uint8_t)to[simple - from]);
        return true;
    }
    size_t digits = c == 'u' ? 4 : c == 'U' ? 8 : 0;
    uint32_t value = 0;
    for (size_t i = 0; i < digits; i++, t->at++) {
        int d = toml_peek(t);
        const char *all = "0123456789abcdefABCDEF", *found = d > 0 ? strchr(all, d) : NULL;
        if (found == NULL)
            return toml_fail(t, t->line, "an escape in a string is broken");
        value = value << 4 | (uint32_t)(found - all < 16 ? found - all : found - all - 6);
    }
    if (digits == 0 || value == 0 || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
        return toml_fail(t, t->line, "an escape in a string is not known");
    toml_utf8(out, value);
    return true;
}

/* "basic" or 'literal'. */
static bool toml_string(struct toml *t, const char **out)
{
    struct buf cleanup_buf text = BUF_INIT;
    int quote = toml_peek(t);

    if (t->at + 2 < t->text.n && t->text.p[t->at + 1] == quote && t->text.p[t->at + 2] == quote)
        return toml_fail(t, t->line, "strings of several lines are not read here");
    t->at++;
    for (;;) {
        int c = toml_peek(t);
        if (c < 0 || c == '\n')
            return toml_fail(t, t->line, "a string has no end");
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return toml_fail(t, t->line, "a string holds a control character");
        t->at++;
        if (c == quote)
            break;
        if (c == '\\' && quote == '"') {
            if (!toml_escape(t, &text))
                return false;
        } else {
            buf_append_byte(&text, (uint8_t)c);
        }
    }
    *out = arena_strdup(t->arena, buf_cstr(&text));
    return true;
}

/* What a key may hold without quotes. */
static bool toml_is_bare(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

static bool toml_key_part(struct toml *t, const char **out)
{
    size_t start = t->at;

    if (toml_peek(t) == '"' || toml_peek(t) == '\'')
        return toml_string(t, out);
    while (toml_is_bare(toml_peek(t)))
        t->at++;
    if (t->at == start)
        return toml_fail(t, t->line, "a key is missing: a name, or a name in quotes");
    *out = arena_strndup(t->arena, t->text.p + start, t->at - start);
    return true;
}

/* a."b".c: goes down from `table` to the last but one, making tables on the way; *key is the last. */
static bool toml_key(struct toml *t, struct toml_node *table, struct toml_node **parent, const char **key)
{
    for (unsigned depth = 0;; depth++) {
        if (depth >= HOSTS_TOML_DEPTH_MAX)
            return toml_fail(t, t->line, "keys are nested too deeply");
        if (t->nodes > HOSTS_TOML_NODES_MAX)
            return toml_fail(t, t->line, "there are too many keys and values");
        toml_skip_blanks(t);
        if (!toml_key_part(t, key))
            return false;
        toml_skip_blanks(t);
        if (!toml_take(t, '.')) {
            *parent = table;
            return true;
        }
        struct toml_node *next = toml_find(table, *key);
        if (next == NULL)
            next = toml_add(t, table, *key, TOML_TABLE);
        if (next->type != TOML_TABLE)
            return toml_fail(t, t->line, "a key leads through something that is no table");
        table = next;
    }
}

/* ---- values ---- */

static bool toml_value(struct toml *t, struct toml_node *n);

static bool toml_array(struct toml *t, struct toml_node *n)
{
    n->type = TOML_ARRAY;
    t->at++;
    for (;;) {
        toml_skip_lines(t);
        if (toml_take(t, ']'))
            return true;
        if (!toml_value(t, toml_add(t, n, "", TOML_OTHER)))
            return false;
        toml_skip_lines(t);
        if (toml_take(t, ','))
            continue;
        if (!toml_take(t, ']'))
            return toml_fail(t, t->line, "an array has no end: wanted ',' or ']'");
        return true;
    }
}

static bool toml_pair(struct toml *t, struct toml_node *table)
{
    struct toml_node *parent;
    const char *key;

    if (!toml_key(t, table, &parent, &key))
        return false;
    if (!toml_take(t, '='))
        return toml_fail(t, t->line, "wanted '=' after a key");
    if (toml_find(parent, key) != NULL)
        return toml_fail(t, t->line, "a key is there twice");
    toml_skip_blanks(t);
    return toml_value(t, toml_add(t, parent, key, TOML_OTHER));
}

static bool toml_inline_table(struct toml *t, struct toml_node *n)
{
    n->type = TOML_TABLE;
    n->defined = true;
    t->at++;
    toml_skip_blanks(t);
    if (toml_take(t, '}'))
        return true;
    for (;;) {
        if (!toml_pair(t, n))
            return false;
        toml_skip_blanks(t);
        if (toml_take(t, '}'))
            return true;
        if (!toml_take(t, ','))
            return toml_fail(t, t->line, "an inline table has no end: wanted ',' or '}'");
    }
}

/* Numbers, dates: nothing here needs them. */
static bool toml_other(struct toml *t)
{
    size_t start = t->at;

    while (toml_peek(t) > 0 && (toml_is_bare(toml_peek(t)) || strchr("+.:", toml_peek(t)) != NULL))
        t->at++;
    return t->at > start || toml_fail(t, t->line, "a value is missing");
}

static bool toml_is_word(struct toml *t, const char *word)
{
    size_t n = strlen(word);

    if (t->text.n - t->at < n || memcmp(t->text.p + t->at, word, n) != 0)
        return false;
    t->at += n;
    return true;
}

static bool toml_value(struct toml *t, struct toml_node *n)
{
    bool ok;

    n->line = t->line;
    if (++t->depth > HOSTS_TOML_DEPTH_MAX)
        return toml_fail(t, t->line, "values are nested too deeply");
    if (t->nodes > HOSTS_TOML_NODES_MAX)
        return toml_fail(t, t->line, "there are too many keys and values");
    if (toml_peek(t) == '"' || toml_peek(t) == '\'') {
        n->type = TOML_STRING;
        ok = toml_string(t, &n->string);
    } else if (toml_peek(t) == '[') {
        ok = toml_array(t, n);
    } else if (toml_peek(t) == '{') {
        ok = toml_inline_table(t, n);
    } else if (toml_is_word(t, "true") || toml_is_word(t, "false")) {
        n->type = TOML_BOOL;
        n->boolean = t->text.p[t->at - 2] == 'u';
        ok = true;
    } else {
        ok = toml_other(t);
    }
    t->depth--;
    return ok;
}

/* ---- the file ---- */

static bool toml_header(struct toml *t, struct toml_node **table)
{
    struct toml_node *parent;
    const char *key;

    t->at++;
    if (toml_peek(t) == '[')
        return toml_fail(t, t->line, "arrays of tables are not used in such a file");
    if (!toml_key(t, t->root, &parent, &key))
        return false;
    if (!toml_take(t, ']'))
        return toml_fail(t, t->line, "wanted ']' at the end of a table's name");
    struct toml_node *n = toml_find(parent, key);
    if (n == NULL)
        n = toml_add(t, parent, key, TOML_TABLE);
    if (n->type != TOML_TABLE || n->defined)
        return toml_fail(t, t->line, "a table is there twice, or as a value before");
    n->defined = true;
    n->line = t->line;
    *table = n;
    return true;
}

static bool toml_read(struct toml *t)
{
    struct toml_node *table = t->root;

    while (toml_peek(t) >= 0) {
        if (toml_end_of_line(t))
            continue;
        if (toml_peek(t) == '\0')
            return toml_fail(t, t->line, "this is no text file");
        if (!(toml_peek(t) == '[' ? toml_header(t, &table) : toml_pair(t, table)))
            return false;
        unsigned line = t->line;
        if (!toml_end_of_line(t))
            return toml_fail(t, line, "there is something behind the end of a value or table's name");
    }
    return true;
}

/* ---- from the tree to hosts ---- */

static void hosts_toml_unknown(struct toml *t, struct hosts_toml *out, const struct toml_node *n)
{
    if (out->unknown[0] == '\0')
        snprintf(out->unknown, sizeof out->unknown, "%.150s:%u: '%.60s' is not known here", t->file, n->line, n->key);
}

static bool hosts_toml_wrong(struct toml *t, const struct toml_node *n, const char *wanted)
{
    return status_set(t->err, STATUS_INVALID_ARGUMENT, "%s:%u: '%.60s' must be %s", t->file, n->line, n->key, wanted);
}

static bool hosts_toml_bool(struct toml *t, const struct toml_node *n, bool *out)
{
    *out = n->boolean;
    return n->type == TOML_BOOL || hosts_toml_wrong(t, n, "true or false");
}

/* A string, or an array of strings. */
static bool hosts_toml_strings(struct toml *t, const struct toml_node *n, const char ***out, size_t *count)
{
    if (n->type == TOML_STRING) {
        *out = ARENA_ARRAY(t->arena, const char *, 1);
        (*out)[0] = n->string;
        *count = 1;
        return true;
    }
    if (n->type != TOML_ARRAY)
        return hosts_toml_wrong(t, n, "a string or an array of strings");
    *out = ARENA_ARRAY(t->arena, const char *, n->count + 1);
    for (const struct toml_node *item = n->first; item != NULL; item = item->next) {
        if (item->type != TOML_STRING)
            return hosts_toml_wrong(t, n, "a string or an array of strings");
        (*out)[(*count)++] = item->string;
    }
    return true;
}

static bool hosts_toml_capabilities(struct toml *t, const struct toml_node *n, struct hosts_toml_host *h)
{
    const char **words = NULL;
    size_t count = 0;

    if (!hosts_toml_strings(t, n, &words, &count))
        return false;
    h->has_capabilities = true;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(words[i], "pull") == 0)
            h->pull = true;
        else if (strcmp(words[i], "resolve") == 0)
            h->resolve = true;
        else if (strcmp(words[i], "push") != 0 && strcmp(words[i], "referrers") != 0)
            return hosts_toml_wrong(t, n, "some of \"pull\", \"resolve\" and \"push\"");
    }
    return true;
}

/* "cert.pem", ["cert.pem", ...], or [["cert.pem", "key.pem"], ...] */
static bool hosts_toml_client(struct toml *t, const struct toml_node *n, struct hosts_toml_host *h)
{
    static const char wanted[] = "a file, an array of files, or an array of [certificate, key] pairs";
    size_t max = n->type == TOML_ARRAY ? n->count : 1;

    h->client_cert = ARENA_ARRAY(t->arena, const char *, max + 1);
    h->client_key = ARENA_ARRAY(t->arena, const char *, max + 1);
    if (n->type != TOML_STRING && n->type != TOML_ARRAY)
        return hosts_toml_wrong(t, n, wanted);
    const struct toml_node *item = n->type == TOML_ARRAY ? n->first : n;
    for (; item != NULL; item = n->type == TOML_ARRAY ? item->next : NULL) {
        const char *key = "";
        const struct toml_node *cert = item;
        if (item->type == TOML_ARRAY) {
            cert = item->first;
            if (item->count < 1 || item->count > 2 || item->last->type != TOML_STRING)
                return hosts_toml_wrong(t, n, wanted);
            key = item->count == 2 ? item->last->string : "";
        }
        if (cert->type != TOML_STRING)
            return hosts_toml_wrong(t, n, wanted);
        h->client_cert[h->client_count] = cert->string;
        h->client_key[h->client_count++] = key;
    }
    return true;
}

static bool hosts_toml_header(struct toml *t, const struct toml_node *n, struct hosts_toml_host *h)
{
    size_t total = 0, used = 0;

    if (n->type != TOML_TABLE)
        return hosts_toml_wrong(t, n, "a table of strings");
    for (const struct toml_node *item = n->first; item != NULL; item = item->next)
        total += item->type == TOML_ARRAY ? item->count : 1;
    h->headers = ARENA_ARRAY(t->arena, const char *, 2 * total + 1);
    for (const struct toml_node *item = n->first; item != NULL; item = item->next) {
        const char **values = NULL;
        size_t count = 0;
        if (!hosts_toml_strings(t, item, &values, &count))
            return false;
        for (size_t i = 0; i < count; i++) {
            h->headers[used++] = item->key;
            h->headers[used++] = values[i];
        }
    }
    h->header_count = used / 2;
    return true;
}

/* Go's way of writing a time span: "10s", "1m30s", "500ms". */
static bool hosts_toml_duration(struct toml *t, const struct toml_node *n, int64_t *out)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = { { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 } };
    const char *p = n->string;
    int64_t total = 0;

    while (n->type == TOML_STRING && *p != '\0') {
        size_t digits = strspn(p, "0123456789"), i;
        uint64_t value;
        char number[8];
        if (digits == 0 || digits >= sizeof number)
            break;
        memcpy(number, p, digits);
        number[digits] = '\0';
        p += digits;
        for (i = 0; i < COUNT_OF(units); i++) {
            size_t length = strlen(units[i].unit);
            if (strncmp(p, units[i].unit, length) == 0 && (p[length] == '\0' || (p[length] >= '0' && p[length] <= '9')))
                break;
        }
        if (i == COUNT_OF(units) || !parse_u64(number, 9999999, &value))
            break;
        total += (int64_t)value * units[i].ms;
        p += strlen(units[i].unit);
    }
    if (n->type != TOML_STRING || *p != '\0' || total <= 0)
        return hosts_toml_wrong(t, n, "a time like \"10s\" or \"500ms\"");
    *out = total;
    return true;
}

/* *known is false for a key that no host has. */
static bool hosts_toml_field(struct toml *t, const struct toml_node *n, struct hosts_toml_host *h, bool *known)
{
    *known = true;
    if (strcmp(n->key, "capabilities") == 0)
        return hosts_toml_capabilities(t, n, h);
    if (strcmp(n->key, "ca") == 0)
        return hosts_toml_strings(t, n, &h->ca, &h->ca_count);
    if (strcmp(n->key, "client") == 0)
        return hosts_toml_client(t, n, h);
    if (strcmp(n->key, "skip_verify") == 0) {
        h->has_skip_verify = true;
        return hosts_toml_bool(t, n, &h->skip_verify);
    }
    if (strcmp(n->key, "override_path") == 0)
        return hosts_toml_bool(t, n, &h->override_path);
    if (strcmp(n->key, "header") == 0)
        return hosts_toml_header(t, n, h);
    if (strcmp(n->key, "dial_timeout") == 0)
        return hosts_toml_duration(t, n, &h->dial_timeout_ms);
    *known = false;
    return true;
}

static bool hosts_toml_hosts(struct toml *t, const struct toml_node *table, struct hosts_toml *out)
{
    if (table->type != TOML_TABLE)
        return hosts_toml_wrong(t, table, "a table: [host.\"https://mirror.example\"]");
    if (table->count > REGISTRY_HOSTS_MAX)
        return hosts_toml_wrong(t, table, "shorter: there are too many servers");
    out->hosts = ARENA_ARRAY(t->arena, struct hosts_toml_host, table->count + 1);
    for (const struct toml_node *n = table->first; n != NULL; n = n->next) {
        struct hosts_toml_host *h = &out->hosts[out->count++];
        bool known;
        if (n->type != TOML_TABLE)
            return hosts_toml_wrong(t, n, "a table: [host.\"https://mirror.example\"]");
        h->url = n->key;
        h->line = n->line;
        for (const struct toml_node *field = n->first; field != NULL; field = field->next) {
            if (!hosts_toml_field(t, field, h, &known))
                return false;
            if (!known)
                hosts_toml_unknown(t, out, field);
        }
    }
    return true;
}

static bool hosts_toml_collect(struct toml *t, struct hosts_toml *out)
{
    out->server.url = "";
    for (const struct toml_node *n = t->root->first; n != NULL; n = n->next) {
        bool known;
        if (strcmp(n->key, "server") == 0) {
            if (n->type != TOML_STRING)
                return hosts_toml_wrong(t, n, "a string");
            out->server.url = n->string;
            out->server.line = n->line;
        } else if (strcmp(n->key, "host") == 0) {
            if (!hosts_toml_hosts(t, n, out))
                return false;
        } else if (!hosts_toml_field(t, n, &out->server, &known)) {
            return false;
        } else if (!known) {
            hosts_toml_unknown(t, out, n);
        }
    }
    return true;
}

bool hosts_toml_parse(const char *file, struct str text, struct hosts_toml *out, struct status *err)
{
    struct hosts_toml result = { .arena = ARENA_INIT };
    struct toml t = { .file = file, .text = text, .line = 1, .arena = &result.arena, .err = err };

    if (text.n > HOSTS_TOML_SIZE_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s: the file is larger than the %d bytes allowed", file,
                          HOSTS_TOML_SIZE_MAX);
    if (text.n >= 3 && memcmp(text.p, "\xef\xbb\xbf", 3) == 0)
        t.at = 3;
    t.root = ARENA_NEW(t.arena, struct toml_node);
    t.root->type = TOML_TABLE;
    if (!toml_read(&t) || !hosts_toml_collect(&t, &result)) {
        hosts_toml_free(&result);
        return false;
    }
    *out = result;
    return true;
}

void hosts_toml_free(struct hosts_toml *t)
{
    arena_free(&t->arena);
    memset(t, 0, sizeof *t);
}
