/* SPDX-License-Identifier: Apache-2.0 */
/* Looking things up in a tree, and the errors that name the place. */
#include "text/json.h"

#include <math.h>

const struct json *json_member(const struct json *j, const char *name)
{
    if (!json_is(j, JSON_OBJECT))
        return NULL;
    for (const struct json *c = j->child; c != NULL; c = c->next)
        if (strcmp(c->key, name) == 0)
            return c;
    return NULL;
}

const struct json *json_at(const struct json *array, size_t index)
{
    if (!json_is(array, JSON_ARRAY))
        return NULL;
    const struct json *c = array->child;
    while (c != NULL && index-- > 0)
        c = c->next;
    return c;
}

const struct json *json_get_names(const struct json *j, const char *const *names)
{
    for (; *names != NULL && j != NULL; names++) {
        uint64_t index;
        if (j->type == JSON_ARRAY)
            j = parse_u64(*names, SIZE_MAX, &index) ? json_at(j, (size_t)index) : NULL;
        else
            j = json_member(j, *names);
    }
    return j;
}

const char *json_string(const struct json *j, const char *fallback)
{
    return json_is(j, JSON_STRING) && strlen(j->text) == j->length ? j->text : fallback;
}

struct str json_bytes(const struct json *j)
{
    return json_is(j, JSON_STRING) ? (struct str){ j->text, j->length } : STR("");
}

bool json_bool(const struct json *j, bool fallback)
{
    return json_is(j, JSON_BOOL) ? j->boolean : fallback;
}

const char *json_type_name(enum json_type type)
{
    static const char *const names[] = { "null", "a boolean", "a number", "a string", "an array", "an object" };

    return names[type];
}

/* The magnitude of a whole number written in any of JSON's ways. False: a fraction, or more than 64 bits. */
static bool json_whole(const char *text, bool *negative, uint64_t *out)
{
    uint64_t value = 0;
    long exponent = 0; /* of ten, for the digits taken so far */
    size_t zeros = 0;  /* held back: zeros at the end cost no digits until another digit follows */
    bool point = false;

    *negative = *text == '-';
    text += *negative;
    for (; *text != '\0' && *text != 'e' && *text != 'E'; text++) {
        if (*text == '.') {
            point = true;
            continue;
        }
        exponent -= point;
        if (*text == '0') {
            zeros++;
            continue;
        }
        for (zeros += value == 0 ? 0 : 1; value != 0 && zeros > 0; zeros--)
            if (__builtin_mul_overflow(value, 10u, &value))
                return false;
        zeros = 0;
        if (__builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
            return false;
    }
    if (value == 0) {
        *out = 0;
        return true;
    }
    if (*text != '\0') {
        errno = 0;
        long written = strtol(text + 1, NULL, 10);
        if (errno != 0 || written > 1000000 || written < -1000000)
            return false;
        exponent += written;
    }
    exponent += (long)zeros;
    for (; exponent > 0; exponent--)
        if (__builtin_mul_overflow(value, 10u, &value))
            return false;
    *out = value;
    return exponent == 0;
}

static bool json_whole_i64(const char *text, int64_t *out)
{
    bool negative;
    uint64_t value;

    if (!json_whole(text, &negative, &value) || value > (uint64_t)INT64_MAX + negative)
        return false;
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

int64_t json_i64(const struct json *j, int64_t fallback)
{
    int64_t value;

    return json_is(j, JSON_NUMBER) && json_whole_i64(j->text, &value) ? value : fallback;
}

static bool json_plain_key(const char *key)
{
    if (*key == '\0')
        return false;
    for (; *key != '\0'; key++)
        if (!((*key >= 'a' && *key <= 'z') || (*key >= 'A' && *key <= 'Z') || (*key >= '0' && *key <= '9') ||
              *key == '_' || *key == '-'))
            return false;
    return true;
}

void json_path(const struct json *j, struct buf *out)
{
    if (j == NULL || j->parent == NULL)
        return;
    json_path(j->parent, out); /* as deep as the tree: JSON_DEPTH_MAX */
    if (j->parent->type == JSON_ARRAY) {
        size_t index = 0;
        for (const struct json *c = j->parent->child; c != NULL && c != j; c = c->next)
            index++;
        buf_printf(out, "[%zu]", index);
    } else if (json_plain_key(j->key)) {
        buf_printf(out, "%s%s", j->parent->parent == NULL ? "" : ".", j->key);
    } else {
        buf_printf(out, "[\"%.128s\"]", j->key);
    }
}

bool json_fail(const struct json *j, struct status *err, const char *format, ...)
{
    cleanup_buf struct buf text = BUF_INIT;
    char message[512];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (j != NULL && j->line > 0)
        buf_printf(&text, "line %" PRIu32 ", column %" PRIu32 ": ", j->line, j->column);
    size_t before = text.n;
    json_path(j, &text);
    if (text.n > before)
        buf_append_str(&text, ": ");
    buf_append_str(&text, message);
    return status_set(err, STATUS_INVALID_ARGUMENT, "%s", buf_cstr(&text));
}

bool json_want(const struct json *j, enum json_type type, struct status *err)
{
    return j->type == type ||
           json_fail(j, err, "wanted %s, found %s", json_type_name(type), json_type_name(j->type));
}

bool json_as_string(const struct json *j, const char **out, struct status *err)
{
    if (!json_want(j, JSON_STRING, err))
        return false;
    if (strlen(j->text) != j->length)
        return json_fail(j, err, "the string holds a NUL character");
    *out = j->text;
    return true;
}

bool json_as_i64(const struct json *j, int64_t min, int64_t max, int64_t *out, struct status *err)
{
    int64_t value;

    if (!json_want(j, JSON_NUMBER, err))
        return false;
    if (!json_whole_i64(j->text, &value) || value < min || value > max)
        return json_fail(j, err, "wanted a whole number from %" PRId64 " to %" PRId64 ", found %.40s", min, max,
                         j->text);
    *out = value;
    return true;
}

bool json_as_u64(const struct json *j, uint64_t max, uint64_t *out, struct status *err)
{
    bool negative;
    uint64_t value;

    if (!json_want(j, JSON_NUMBER, err))
        return false;
    if (!json_whole(j->text, &negative, &value) || (negative && value > 0) || value > max)
        return json_fail(j, err, "wanted a whole number from 0 to %" PRIu64 ", found %.40s", max, j->text);
    *out = value;
    return true;
}

bool json_as_double(const struct json *j, double *out, struct status *err)
{
    if (!json_want(j, JSON_NUMBER, err))
        return false;
    double value = strtod(j->text, NULL);
    if (!isfinite(value))
        return json_fail(j, err, "the number %.40s is too large", j->text);
    *out = value;
    return true;
}

bool json_as_bool(const struct json *j, bool *out, struct status *err)
{
    if (!json_want(j, JSON_BOOL, err))
        return false;
    *out = j->boolean;
    return true;
}

/* The member, or NULL when it is absent or null; false when j itself can have none. */
static bool json_strict_member(const struct json *j, const char *name, const struct json **member, struct status *err)
{
    *member = NULL;
    if (j == NULL || j->type == JSON_NULL)
        return true;
    if (!json_want(j, JSON_OBJECT, err))
        return false;
    *member = json_member(j, name);
    if (json_is(*member, JSON_NULL))
        *member = NULL;
    return true;
}

bool json_read_string(const struct json *j, const char *name, const char **out, struct status *err)
{
    const struct json *m;

    return json_strict_member(j, name, &m, err) && (m == NULL || json_as_string(m, out, err));
}

bool json_read_i64(const struct json *j, const char *name, int64_t min, int64_t max, int64_t *out, struct status *err)
{
    const struct json *m;

    return json_strict_member(j, name, &m, err) && (m == NULL || json_as_i64(m, min, max, out, err));
}

bool json_read_u64(const struct json *j, const char *name, uint64_t max, uint64_t *out, struct status *err)
{
    const struct json *m;

    return json_strict_member(j, name, &m, err) && (m == NULL || json_as_u64(m, max, out, err));
}

bool json_read_bool(const struct json *j, const char *name, bool *out, struct status *err)
{
    const struct json *m;

    return json_strict_member(j, name, &m, err) && (m == NULL || json_as_bool(m, out, err));
}

bool json_read_node(const struct json *j, const char *name, enum json_type type, const struct json **out,
                    struct status *err)
{
    const struct json *m;

    if (!json_strict_member(j, name, &m, err) || (m != NULL && !json_want(m, type, err)))
        return false;
    if (m != NULL)
        *out = m;
    return true;
}
