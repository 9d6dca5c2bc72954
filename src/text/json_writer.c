/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON writer. */
#include "text/json.h"

#include <math.h>

void json_writer_init(struct json_writer *w, struct buf *out, unsigned indent)
{
    memset(w, 0, sizeof *w);
    w->out = out;
    w->indent = indent;
}

static bool json_writer_in_array(const struct json_writer *w)
{
    return (w->is_array[w->depth / 8] >> w->depth % 8 & 1) != 0;
}

static void json_writer_new_line(struct json_writer *w)
{
    if (w->indent == 0)
        return;
    size_t n = 1 + (size_t)w->indent * w->depth;
    uint8_t *p = buf_reserve(w->out, n);
    memset(p, ' ', n);
    *p = '\n';
    w->out->n += n;
}

/* What goes before a value, or before a key. */
static void json_writer_before(struct json_writer *w, bool key)
{
    if (w->after_key) {
        w->after_key = false;
        return;
    }
    if (w->depth > 0 && json_writer_in_array(w) == key)
        abort(); /* a key in an array or a value without a key: a fault of the caller */
    if (w->started)
        buf_append_byte(w->out, ',');
    if (w->depth > 0)
        json_writer_new_line(w);
    w->started = true;
}

static void json_writer_open(struct json_writer *w, bool array)
{
    json_writer_before(w, false);
    if (w->depth == JSON_DEPTH_MAX)
        abort();
    w->depth++;
    uint8_t bit = (uint8_t)(1u << w->depth % 8);
    w->is_array[w->depth / 8] = (uint8_t)((w->is_array[w->depth / 8] & ~bit) | (array ? bit : 0));
    w->started = false;
    buf_append_byte(w->out, array ? '[' : '{');
}

void json_write_object(struct json_writer *w)
{
    json_writer_open(w, false);
}

void json_write_array(struct json_writer *w)
{
    json_writer_open(w, true);
}

void json_write_end(struct json_writer *w)
{
    if (w->depth == 0 || w->after_key)
        abort();
    bool array = json_writer_in_array(w), filled = w->started;
    w->depth--;
    if (filled)
        json_writer_new_line(w);
    buf_append_byte(w->out, array ? ']' : '}');
    w->started = true;
}

static void json_write_escaped(struct buf *out, struct str s)
{
    static const char named[] = "\b\f\n\r\t\"\\", letter[] = "bfnrt\"\\";
    size_t done = 0, at = 0;

    buf_append_byte(out, '"');
    while (at < s.n) {
        uint8_t c = (uint8_t)s.p[at];
        size_t sequence = c < 0x80 ? 1 : utf8_sequence(s.p + at, s.n - at);
        if (c >= 0x20 && c != '"' && c != '\\' && sequence > 0) {
            at += sequence;
            continue;
        }
        buf_append(out, s.p + done, at - done);
        const char *known = c != 0 && c < 0x80 ? strchr(named, c) : NULL;
        if (known != NULL) {
            buf_append_byte(out, '\\');
            buf_append_byte(out, (uint8_t)letter[known - named]);
        } else if (c < 0x20) {
            buf_printf(out, "\\u%04x", c);
        } else {
            buf_append_str(out, "\xef\xbf\xbd");
        }
        done = ++at;
    }
    buf_append(out, s.p + done, at - done);
    buf_append_byte(out, '"');
}

void json_write_key(struct json_writer *w, const char *key)
{
    json_writer_before(w, true);
    json_write_escaped(w->out, str_of(key));
    buf_append_byte(w->out, ':');
    if (w->indent > 0)
        buf_append_byte(w->out, ' ');
    w->after_key = true;
}

void json_write_raw(struct json_writer *w, struct str json)
{
    json_writer_before(w, false);
    buf_append(w->out, json.p, json.n);
}

void json_write_bytes(struct json_writer *w, struct str s)
{
    json_writer_before(w, false);
    json_write_escaped(w->out, s);
}

void json_write_string(struct json_writer *w, const char *s)
{
    json_write_bytes(w, str_of(s));
}

void json_write_i64(struct json_writer *w, int64_t value)
{
    json_writer_before(w, false);
    buf_printf(w->out, "%" PRId64, value);
}

void json_write_u64(struct json_writer *w, uint64_t value)
{
    json_writer_before(w, false);
    buf_printf(w->out, "%" PRIu64, value);
}

void json_write_double(struct json_writer *w, double value)
{
    char text[40];

    if (!isfinite(value)) {
        json_write_null(w);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) { /* the fewest that read back as the same number */
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (!(strtod(text, NULL) < value) && !(strtod(text, NULL) > value))
            break;
    }
    json_write_raw(w, str_of(text));
}

void json_write_bool(struct json_writer *w, bool value)
{
    json_write_raw(w, value ? STR("true") : STR("false"));
}

void json_write_null(struct json_writer *w)
{
    json_write_raw(w, STR("null"));
}

void json_write_tree(struct json_writer *w, const struct json *j)
{
    switch (j == NULL ? JSON_NULL : j->type) {
    case JSON_NULL:
        json_write_null(w);
        return;
    case JSON_BOOL:
        json_write_bool(w, j->boolean);
        return;
    case JSON_NUMBER:
        json_write_raw(w, (struct str){ j->text, j->length });
        return;
    case JSON_STRING:
        json_write_bytes(w, (struct str){ j->text, j->length });
        return;
    case JSON_ARRAY:
    case JSON_OBJECT:
        break;
    }
    json_writer_open(w, j->type == JSON_ARRAY);
    for (JSON_EACH(child, j)) {
        if (j->type == JSON_OBJECT)
            json_write_key(w, child->key);
        json_write_tree(w, child);
    }
    json_write_end(w);
}

void json_write_member_string(struct json_writer *w, const char *key, const char *value)
{
    json_write_key(w, key);
    json_write_string(w, value);
}

void json_write_member_i64(struct json_writer *w, const char *key, int64_t value)
{
    json_write_key(w, key);
    json_write_i64(w, value);
}

void json_write_member_bool(struct json_writer *w, const char *key, bool value)
{
    json_write_key(w, key);
    json_write_bool(w, value);
}

void json_write_member_object(struct json_writer *w, const char *key)
{
    json_write_key(w, key);
    json_write_object(w);
}

void json_write_member_array(struct json_writer *w, const char *key)
{
    json_write_key(w, key);
    json_write_array(w);
}
