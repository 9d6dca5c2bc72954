/* SPDX-License-Identifier: Apache-2.0 */
/* YAML from libyaml's events. */
#include "text/yaml.h"

#include <yaml.h>

/* Mappings with more members than this are searched for equal keys with a map instead of each with each. */
#define YAML_FEW_MEMBERS 16u

struct yaml_reader {
    yaml_parser_t parser;
    struct arena *arena;
    struct status *err;
    struct json *open[JSON_DEPTH_MAX + 2]; /* the containers being read; [0] is the list of documents */
    size_t depth;                          /* of them */
    const char *key;                       /* the key whose value comes next; NULL: none */
    yaml_mark_t key_mark;
    struct strmap anchors; /* of this document; name to node */
    size_t nodes;
};

static bool yaml_fail(const struct yaml_reader *r, yaml_mark_t mark, const char *what)
{
    return status_set(r->err, STATUS_INVALID_ARGUMENT, "line %zu, column %zu: %s", mark.line + 1, mark.column + 1,
                      what);
}

/* What a plain scalar is (YAML 1.2.2 section 10.3.2). Numbers that JSON would write in another way are rewritten into `number`. */
static bool yaml_word(struct str s, const char *a, const char *b, const char *c)
{
    return str_eq(s, a) || str_eq(s, b) || str_eq(s, c);
}

static size_t yaml_span(struct str s, size_t at, const char *set)
{
    while (at < s.n && s.p[at] != '\0' && strchr(set, s.p[at]) != NULL)
        at++;
    return at;
}

static bool yaml_is_based(struct str s)
{
    if (s.n < 3 || s.p[0] != '0' || (s.p[1] != 'x' && s.p[1] != 'o'))
        return false;
    return yaml_span(s, 2, s.p[1] == 'x' ? "0123456789abcdefABCDEF" : "01234567") == s.n;
}

static bool yaml_is_decimal(struct str s)
{
    static const char digits[] = "0123456789";
    size_t start = s.n > 0 && (s.p[0] == '-' || s.p[0] == '+') ? 1 : 0;
    size_t at = yaml_span(s, start, digits), count = at - start;

    if (at < s.n && s.p[at] == '.') {
        start = ++at;
        at = yaml_span(s, at, digits);
        count += at - start;
    }
    if (count == 0)
        return false;
    if (at < s.n && (s.p[at] == 'e' || s.p[at] == 'E')) {
        at++;
        if (at < s.n && (s.p[at] == '-' || s.p[at] == '+'))
            at++;
        start = at;
        at = yaml_span(s, at, digits);
        if (at == start)
            return false;
    }
    return at == s.n;
}

/* Rewrites a decimal number into JSON's grammar; false when it has leading zeros, which some readers take as octal. */
static bool yaml_put_decimal(struct str s, struct buf *out)
{
    size_t at = 0;

    if (s.p[0] == '-')
        buf_append_byte(out, '-');
    at += s.p[0] == '-' || s.p[0] == '+';
    size_t end = yaml_span(s, at, "0123456789");
    if (end - at > 1 && s.p[at] == '0')
        return false;
    if (end == at)
        buf_append_byte(out, '0');
    buf_append(out, s.p + at, end - at);
    at = end;
    if (at < s.n && s.p[at] == '.') {
        end = yaml_span(s, at + 1, "0123456789");
        if (end > at + 1)
            buf_append(out, s.p + at, end - at);
        at = end;
    }
    buf_append(out, s.p + at, s.n - at);
    return true;
}

static struct json *yaml_number(struct yaml_reader *r, struct str s, yaml_mark_t mark)
{
    cleanup_buf struct buf text = BUF_INIT;

    if (yaml_is_based(s)) {
        cleanup_free char *copy = xstrndup(s.p + 2, s.n - 2);
        errno = 0;
        unsigned long long value = strtoull(copy, NULL, s.p[1] == 'x' ? 16 : 8);
        if (errno != 0) {
            yaml_fail(r, mark, "the number is too large");
            return NULL;
        }
        buf_printf(&text, "%llu", value);
    } else if (!yaml_put_decimal(s, &text)) {
        yaml_fail(r, mark, "a number with a leading zero means different things to different readers: write 0o17 for "
                           "octal, or quote it for a string");
        return NULL;
    }
    return json_new(r->arena, JSON_NUMBER, (const char *)text.p, text.n);
}

static struct json *yaml_plain(struct yaml_reader *r, struct str s, yaml_mark_t mark)
{
    if (s.n == 0 || str_eq(s, "~") || yaml_word(s, "null", "Null", "NULL"))
        return json_new(r->arena, JSON_NULL, "", 0);
    if (yaml_word(s, "true", "True", "TRUE") || yaml_word(s, "false", "False", "FALSE")) {
        struct json *j = json_new(r->arena, JSON_BOOL, "", 0);
        j->boolean = s.p[0] == 't' || s.p[0] == 'T';
        return j;
    }
    if (yaml_is_based(s) || yaml_is_decimal(s))
        return yaml_number(r, s, mark);
    return json_new(r->arena, JSON_STRING, s.p, s.n);
}

static struct json *yaml_scalar(struct yaml_reader *r, const yaml_event_t *event)
{
    static const char *const typed[] = { YAML_NULL_TAG, YAML_BOOL_TAG, YAML_INT_TAG, YAML_FLOAT_TAG };
    struct str s = { (const char *)event->data.scalar.value, event->data.scalar.length };
    const char *tag = (const char *)event->data.scalar.tag;
    bool plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;

    if (tag != NULL) {
        plain = false;
        for (size_t i = 0; i < COUNT_OF(typed); i++)
            plain = plain || strcmp(tag, typed[i]) == 0;
        if (!plain && strcmp(tag, YAML_STR_TAG) != 0 && strcmp(tag, "!") != 0) {
            yaml_fail(r, event->start_mark, "this tag is not known here");
            return NULL;
        }
    }
    return plain ? yaml_plain(r, s, event->start_mark) : json_new(r->arena, JSON_STRING, s.p, s.n);
}

/* Counts one more node: also those that aliases multiply. */
static bool yaml_count(struct yaml_reader *r, yaml_mark_t mark)
{
    if (++r->nodes <= JSON_NODES_MAX)
        return true;
    yaml_fail(r, mark, "too many values (aliases count in full)");
    r->err->code = STATUS_RESOURCE_EXHAUSTED;
    return false;
}

static bool yaml_check_depth(const struct yaml_reader *r, size_t depth, yaml_mark_t mark)
{
    if (depth <= JSON_DEPTH_MAX)
        return true;
    yaml_fail(r, mark, "nested too deep");
    r->err->code = STATUS_RESOURCE_EXHAUSTED;
    return false;
}

static struct json *yaml_copy(struct yaml_reader *r, const struct json *from, size_t depth, yaml_mark_t mark)
{
    struct json *copy = ARENA_NEW(r->arena, struct json);

    if (!yaml_check_depth(r, depth, mark))
        return NULL;
    copy->type = from->type;
    copy->boolean = from->boolean;
    copy->text = from->text;
    copy->length = from->length;
    copy->line = from->line;
    copy->column = from->column;
    copy->key = "";
    for (JSON_EACH(child, from)) {
        if (!yaml_count(r, mark))
            return NULL;
        struct json *c = yaml_copy(r, child, depth + 1, mark);
        if (c == NULL)
            return NULL;
        json_append(copy, child->key, c);
    }
    return copy;
}

static struct json *yaml_alias(struct yaml_reader *r, const yaml_event_t *event)
{
    struct json *node = strmap_get(&r->anchors, (const char *)event->data.alias.anchor);

    for (size_t i = 0; i < r->depth && node != NULL; i++)
        if (r->open[i] == node)
            node = NULL; /* inside itself */
    if (node == NULL) {
        yaml_fail(r, event->start_mark, "this alias stands for nothing yet");
        return NULL;
    }
    return yaml_copy(r, node, r->depth, event->start_mark);
}

static bool yaml_is_mapping_open(const struct yaml_reader *r)
{
    return r->open[r->depth - 1]->type == JSON_OBJECT;
}

/* Takes a scalar as the next key. */
static bool yaml_take_key(struct yaml_reader *r, const yaml_event_t *event)
{
    struct str key = { (const char *)event->data.scalar.value, event->data.scalar.length };

    if (event->type != YAML_SCALAR_EVENT)
        return yaml_fail(r, event->start_mark, "a key must be plain text");
    if (event->data.scalar.anchor != NULL)
        return yaml_fail(r, event->start_mark, "a key cannot have an anchor");
    if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && str_eq(key, "<<"))
        return yaml_fail(r, event->start_mark, "merge keys (<<) are not taken");
    if (memchr(key.p, '\0', key.n) != NULL)
        return yaml_fail(r, event->start_mark, "a key holds a NUL character");
    r->key = arena_strndup(r->arena, key.p, key.n);
    r->key_mark = event->start_mark;
    return true;
}

/* Puts a node where it belongs. A member's place is its key's: that is what errors are about. */
static bool yaml_put(struct yaml_reader *r, struct json *node, yaml_mark_t mark, const yaml_char_t *anchor)
{
    struct json *parent = r->open[r->depth - 1];

    if (!yaml_count(r, mark))
        return false;
    if (r->key != NULL)
        mark = r->key_mark;
    node->line = (uint32_t)mark.line + 1;
    node->column = (uint32_t)mark.column + 1;
    json_append(parent, r->key != NULL ? r->key : "", node);
    r->key = NULL;
    if (anchor != NULL)
        strmap_put(&r->anchors, (const char *)anchor, node);
    return true;
}

static bool yaml_open(struct yaml_reader *r, enum json_type type, const yaml_event_t *event, const yaml_char_t *anchor,
                      const yaml_char_t *tag)
{
    const char *wanted = type == JSON_ARRAY ? YAML_SEQ_TAG : YAML_MAP_TAG;

    if (tag != NULL && strcmp((const char *)tag, wanted) != 0 && strcmp((const char *)tag, "!") != 0)
        return yaml_fail(r, event->start_mark, "this tag is not known here");
    if (!yaml_check_depth(r, r->depth, event->start_mark))
        return false;
    struct json *node = json_new(r->arena, type, "", 0);
    if (!yaml_put(r, node, event->start_mark, anchor))
        return false;
    r->open[r->depth++] = node;
    return true;
}

static bool yaml_equal_keys(const struct yaml_reader *r, const struct json *second)
{
    return status_set(r->err, STATUS_INVALID_ARGUMENT,
                      "line %" PRIu32 ", column %" PRIu32 ": the key %.128s is given twice in one mapping",
                      second->line, second->column, second->key);
}

static bool yaml_close(struct yaml_reader *r)
{
    cleanup_strmap struct strmap map = STRMAP_INIT;
    const struct json *node = r->open[--r->depth];

    if (node->type != JSON_OBJECT)
        return true;
    for (const struct json *c = node->child; c != NULL; c = c->next) {
        if (node->count > YAML_FEW_MEMBERS) {
            if (strmap_put(&map, c->key, (void *)(uintptr_t)c) != NULL)
                return yaml_equal_keys(r, c);
            continue;
        }
        for (const struct json *before = node->child; before != c; before = before->next)
            if (strcmp(before->key, c->key) == 0)
                return yaml_equal_keys(r, c);
    }
    return true;
}

static bool yaml_take(struct yaml_reader *r, const yaml_event_t *event)
{
    struct json *node;

    switch (event->type) {
    case YAML_SCALAR_EVENT:
        node = yaml_scalar(r, event);
        return node != NULL && yaml_put(r, node, event->start_mark, event->data.scalar.anchor);
    case YAML_ALIAS_EVENT:
        node = yaml_alias(r, event);
        return node != NULL && yaml_put(r, node, event->start_mark, NULL);
    case YAML_SEQUENCE_START_EVENT:
        return yaml_open(r, JSON_ARRAY, event, event->data.sequence_start.anchor, event->data.sequence_start.tag);
    case YAML_MAPPING_START_EVENT:
        return yaml_open(r, JSON_OBJECT, event, event->data.mapping_start.anchor, event->data.mapping_start.tag);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return yaml_close(r);
    case YAML_DOCUMENT_START_EVENT:
        strmap_free(&r->anchors);
        return true;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        break;
    }
    return true;
}

static bool yaml_syntax(const struct yaml_reader *r)
{
    const yaml_parser_t *p = &r->parser;
    const char *problem = p->problem != NULL ? p->problem : "it cannot be read";

    if (p->error == YAML_READER_ERROR)
        return status_set(r->err, STATUS_INVALID_ARGUMENT, "at byte %zu: no valid YAML: %s", p->problem_offset,
                          problem);
    return status_set(r->err, STATUS_INVALID_ARGUMENT, "line %zu, column %zu: no valid YAML: %s%s%s",
                      p->problem_mark.line + 1, p->problem_mark.column + 1, problem, p->context != NULL ? " " : "",
                      p->context != NULL ? p->context : "");
}

static bool yaml_run(struct yaml_reader *r)
{
    for (bool more = true; more;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&r->parser, &event))
            return yaml_syntax(r);
        bool is_key = r->key == NULL && yaml_is_mapping_open(r) && event.type != YAML_MAPPING_END_EVENT;
        bool ok = is_key ? yaml_take_key(r, &event) : yaml_take(r, &event);
        more = event.type != YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
        if (!ok)
            return false;
    }
    return true;
}

const struct json *yaml_parse_all(struct arena *arena, struct str text, struct status *err)
{
    struct yaml_reader r = { .arena = arena, .err = err };

    if (text.n > JSON_SIZE_MAX) {
        status_set(err, STATUS_RESOURCE_EXHAUSTED, "YAML of %zu bytes is larger than the limit of %u", text.n,
                   JSON_SIZE_MAX);
        return NULL;
    }
    if (!yaml_parser_initialize(&r.parser))
        abort();
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)(text.p != NULL ? text.p : ""), text.n);
    struct json *documents = json_new(arena, JSON_ARRAY, "", 0);
    r.open[r.depth++] = documents;
    bool ok = yaml_run(&r);
    yaml_parser_delete(&r.parser);
    strmap_free(&r.anchors);
    for (const struct json *d = documents->child; d != NULL; d = d->next)
        ((struct json *)(uintptr_t)d)->parent = NULL; /* each document is a root: paths begin there */
    return ok ? documents : NULL;
}

const struct json *yaml_parse(struct arena *arena, struct str text, struct status *err)
{
    const struct json *documents = yaml_parse_all(arena, text, err);

    if (documents == NULL)
        return NULL;
    if (documents->count > 1) {
        json_fail(documents->child->next, err, "one document is wanted here, another begins");
        return NULL;
    }
    return documents->count == 1 ? documents->child : json_new(arena, JSON_NULL, "", 0);
}

#undef YAML_FEW_MEMBERS
