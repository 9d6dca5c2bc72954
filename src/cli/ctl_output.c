/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/ctl.h"

#include "text/protojson.h"
#include "text/timefmt.h"
#include "text/yaml.h"

#include <unistd.h>

/* crictl's tables: least width of a column, blanks between two. */
#define CTL_COLUMN_MIN 20
#define CTL_COLUMN_GAP 3
#define CTL_SHORT_ID 13
#define CTL_INDENT 2

/* ---- lines ---- */

int ctl_fail(const struct ctl *ctl, const struct status *err)
{
    fprintf(stderr, "interlink-cri ctl%s%s: %s", ctl->command != NULL ? " " : "",
            ctl->command != NULL ? ctl->command->name : "", err->message);
    /* The code is worth reading where it came from the other side. */
    if (ctl->runtime.conn != NULL || ctl->image.conn != NULL)
        fprintf(stderr, " (%s)", status_code_name(err->code));
    fputs("\n", stderr);
    return 1;
}

void ctl_warn(const struct ctl *ctl, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "interlink-cri ctl %s: warning: ", ctl->command != NULL ? ctl->command->name : "");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputs("\n", stderr);
}

bool ctl_flush(struct ctl *ctl)
{
    size_t at = 0;

    while (at < ctl->out.n) {
        ssize_t n = write(STDOUT_FILENO, ctl->out.p + at, ctl->out.n - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break;
        at += (size_t)n;
    }
    bool all = at == ctl->out.n;
    buf_clear(&ctl->out);
    return all;
}

void ctl_write_error(const void *p, size_t n)
{
    if (n > 0)
        fwrite(p, 1, n, stderr);
}

/* ---- tables ---- */

struct ctl_table ctl_table_new(struct ctl *ctl, const char *const *titles, size_t columns)
{
    struct ctl_table table = { .ctl = ctl, .columns = columns };

    ctl_table_row(&table, titles);
    return table;
}

void ctl_table_row(struct ctl_table *table, const char *const *cells)
{
    if (table->count == table->room) {
        table->room = table->room == 0 ? 64 : 2 * table->room;
        const char **room = ARENA_ARRAY(&table->ctl->arena, const char *, table->room * table->columns);
        if (table->count > 0)
            memcpy(room, table->cells, table->count * table->columns * sizeof *room);
        table->cells = room;
    }
    for (size_t i = 0; i < table->columns; i++)
        table->cells[table->count * table->columns + i] = cells[i];
    table->count++;
}

/* Characters, not bytes. */
static size_t ctl_width(const char *text)
{
    size_t width = 0;

    for (; *text != '\0'; text++)
        width += ((uint8_t)*text & 0xc0) != 0x80;
    return width;
}

static const char *ctl_state_colour(const char *state)
{
    if (strcmp(state, "Running") == 0 || strcmp(state, "Ready") == 0)
        return "\033[32m"; /* green */
    if (strcmp(state, "Created") == 0)
        return "\033[33m"; /* yellow */
    return strcmp(state, "Unknown") == 0 ? "\033[31m" : "\033[2m"; /* red; ended: faint */
}

void ctl_table_print(const struct ctl_table *table)
{
    struct buf *out = &table->ctl->out;
    size_t *widths = ARENA_ARRAY(&table->ctl->arena, size_t, table->columns);

    for (size_t c = 0; c < table->columns; c++) {
        widths[c] = CTL_COLUMN_MIN;
        for (size_t r = 0; r < table->count; r++) {
            size_t width = ctl_width(table->cells[r * table->columns + c]) + CTL_COLUMN_GAP;
            widths[c] = width > widths[c] ? width : widths[c];
        }
    }
    for (size_t r = 0; r < table->count; r++)
        for (size_t c = 0; c < table->columns; c++) {
            const char *cell = table->cells[r * table->columns + c];
            bool coloured = table->ctl->colour && r > 0 && strcmp(table->cells[c], "STATE") == 0;
            buf_printf(out, "%s%s%s", coloured ? ctl_state_colour(cell) : "", cell, coloured ? "\033[0m" : "");
            if (c + 1 < table->columns)
                buf_printf(out, "%*s", (int)(widths[c] - ctl_width(cell)), "");
            else
                buf_append_byte(out, '\n');
        }
}

/* ---- words ---- */

const char *ctl_ago(struct ctl *ctl, int64_t created_ns)
{
    char age[TIMEFMT_SIZE];

    timefmt_age(clock_real_ns() - created_ns, age);
    return arena_printf(&ctl->arena, "%s ago", age);
}

const char *ctl_short_id(struct ctl *ctl, const char *id)
{
    if (ctl->flags.no_trunc)
        return id;
    if (str_starts(id, "sha256:"))
        id += strlen("sha256:");
    return arena_printf(&ctl->arena, "%.*s", CTL_SHORT_ID, id);
}

/* github.com/docker/go-units HumanSize: decimal units, so many significant digits. */
const char *ctl_size(struct ctl *ctl, double bytes, int digits)
{
    static const char *const units[] = { "B", "kB", "MB", "GB", "TB", "PB", "EB" };
    size_t i = 0;

    for (; bytes >= 1000 && i + 1 < COUNT_OF(units); i++)
        bytes /= 1000;
    return arena_printf(&ctl->arena, "%.*g%s", digits, bytes, units[i]);
}

const char *ctl_time(struct ctl *ctl, int64_t ns)
{
    char text[TIMEFMT_SIZE];

    if (ns == 0)
        return "0001-01-01T00:00:00Z";
    timefmt_nano(ns, text);
    size_t n = strlen(text) - 1; /* of the Z */
    while (text[n - 1] == '0')
        n--;
    n -= text[n - 1] == '.';
    return arena_printf(&ctl->arena, "%.*sZ", (int)n, text);
}

static int ctl_compare_entries(const void *a, const void *b)
{
    const struct ctl_entry *const *x = a, *const *y = b;

    return strcmp((*x)->key, (*y)->key);
}

void ctl_print_pairs(struct ctl *ctl, const char *title, const void *entries, size_t count)
{
    if (count == 0)
        return;
    struct ctl_entry **sorted = arena_memdup(&ctl->arena, entries, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, ctl_compare_entries);
    buf_printf(&ctl->out, "%s:\n", title);
    for (size_t i = 0; i < count; i++)
        buf_printf(&ctl->out, "\t%s -> %s\n", sorted[i]->key, sorted[i]->value);
}

/* ---- JSON and YAML ---- */

bool ctl_format(const struct ctl *ctl, enum ctl_format fallback, enum ctl_format *out, struct status *err)
{
    const char *word = ctl->flags.output;

    *out = fallback;
    if (*word == '\0')
        return true;
    if (strcmp(word, "json") != 0 && strcmp(word, "yaml") != 0 && strcmp(word, "table") != 0)
        return status_set(err, STATUS_INVALID_ARGUMENT, "--output: wanted json, yaml or table, got \"%.64s\"", word);
    *out = *word == 'j' ? CTL_JSON : *word == 'y' ? CTL_YAML : CTL_TABLE;
    return true;
}

static struct json *ctl_mutable(const struct json *j)
{
    return (struct json *)(uintptr_t)j; /* trees made here are this verb's own */
}

static int ctl_compare_members(const void *a, const void *b)
{
    const struct json *const *x = a, *const *y = b;

    return strcmp((*x)->key, (*y)->key);
}

/* Sorts the members of all objects by name, as Go's encoder of maps does. */
static void ctl_sort(struct ctl *ctl, struct json *j)
{
    size_t n = 0;

    if (j->count == 0)
        return;
    struct json **children = ARENA_ARRAY(&ctl->arena, struct json *, j->count);
    for (JSON_EACH(child, j))
        children[n++] = ctl_mutable(child);
    if (j->type == JSON_OBJECT)
        qsort(children, n, sizeof(struct json *), ctl_compare_members);
    j->child = j->last = NULL;
    j->count = 0;
    for (size_t i = 0; i < n; i++) {
        json_append(j, children[i]->key, children[i]);
        ctl_sort(ctl, children[i]);
    }
}

struct json *ctl_tree(struct ctl *ctl, const void *message, unsigned protojson_flags)
{
    cleanup_buf struct buf text = BUF_INIT;
    struct status err = STATUS_INIT;
    struct json_writer w;

    json_writer_init(&w, &text, 0);
    protojson_write(&w, message, protojson_flags);
    const struct json *j = json_parse(&ctl->arena, (struct str){ (char *)text.p, text.n }, &err);
    /* Larger than our own bounds for JSON: an empty object rather than nothing at all. */
    return j != NULL ? ctl_mutable(j) : json_new(&ctl->arena, JSON_OBJECT, "", 0);
}

void ctl_tree_set(struct ctl *ctl, struct json *object, const char *key, const char *value)
{
    struct json *member = ctl_mutable(json_member(object, key));

    if (member == NULL) {
        member = json_new(&ctl->arena, JSON_STRING, "", 0);
        json_append(object, key, member);
    }
    member->type = JSON_STRING;
    member->text = value;
    member->length = strlen(value);
}

static void ctl_print_tree(struct ctl *ctl, const struct json *j, enum ctl_format format)
{
    struct json_writer w;

    if (format == CTL_YAML) {
        yaml_write(&ctl->out, j);
        return;
    }
    json_writer_init(&w, &ctl->out, CTL_INDENT);
    json_write_tree(&w, j);
    buf_append_byte(&ctl->out, '\n');
}

void ctl_print_message(struct ctl *ctl, const ProtobufCMessage *message, enum ctl_format format)
{
    struct json_writer w;

    if (format == CTL_YAML) {
        struct json *j = ctl_tree(ctl, message, PROTOJSON_EMIT_DEFAULTS);
        ctl_sort(ctl, j);
        ctl_print_tree(ctl, j, format);
        return;
    }
    json_writer_init(&w, &ctl->out, CTL_INDENT);
    protojson_write(&w, message, PROTOJSON_EMIT_DEFAULTS);
    buf_append_byte(&ctl->out, '\n');
}

/* What a runtime puts into a response's info: a JSON object as text, else plain text. */
static struct json *ctl_info_value(struct ctl *ctl, const char *text)
{
    struct status ignored = STATUS_INIT;
    const struct json *j = *text == '{' ? json_parse(&ctl->arena, str_of(text), &ignored) : NULL;

    if (j != NULL)
        return ctl_mutable(j);
    size_t n = strlen(text), start = 0;
    while (start < n && text[start] == '"')
        start++;
    while (n > start && text[n - 1] == '"')
        n--;
    return json_new(&ctl->arena, JSON_STRING, text + start, n - start);
}

struct json *ctl_status_tree(struct ctl *ctl, struct json *status, const void *entries, size_t count)
{
    const struct ctl_entry *const *info = entries;
    struct json *tree = json_new(&ctl->arena, JSON_OBJECT, "", 0);

    json_append(tree, "status", status);
    for (size_t i = 0; i < count; i++)
        json_append(tree, info[i]->key, ctl_info_value(ctl, info[i]->value));
    return tree;
}

void ctl_print_trees(struct ctl *ctl, struct json *const *trees, size_t count, enum ctl_format format)
{
    struct json *all = trees[0];

    if (count > 1) {
        all = json_new(&ctl->arena, JSON_ARRAY, "", 0);
        for (size_t i = 0; i < count; i++)
            json_append(all, "", trees[i]);
    }
    ctl_sort(ctl, all);
    ctl_print_tree(ctl, all, format);
}

#undef CTL_COLUMN_MIN
#undef CTL_COLUMN_GAP
#undef CTL_SHORT_ID
#undef CTL_INDENT
