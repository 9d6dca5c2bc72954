/* SPDX-License-Identifier: Apache-2.0 */
/* json.h: JSON (RFC 8259) read into a tree that is never changed afterwards, and a writer. yaml.h gives the same tree.
 *
 * The tree lives on the arena it was parsed onto; it borrows nothing from the text. Every look-up takes NULL and wrong
 * types without harm, so that a chain of look-ups needs one check at its end. Two families:
 *   json_member, json_get, json_string...   lenient: what is not there, null or of another type gives the fallback;
 *   json_read_*, json_as_*                  strict: absent or null keeps the caller's default, a wrong type is an
 *                                           error that names the place: "spec.containers[0].name: wanted a string,
 *                                           found a number". */
#ifndef TEXT_JSON_H
#define TEXT_JSON_H

#include "base/base.h"

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
    enum json_type type;
    bool boolean;        /* JSON_BOOL */
    uint32_t count;      /* children of an array or object */
    uint32_t line, column; /* where it begins, from 1; 0: not known (all but YAML) */
    size_t length;       /* bytes of text: a string may hold NULs (json_bytes) */
    const char *text;    /* string: decoded, valid UTF-8; number: as written; else ""; always NUL-terminated */
    const char *key;     /* name within the parent object, else "" */
    const struct json *parent, *next, *child, *last; /* child, last: the first and the last of an array or object */
};

/* for (JSON_EACH(item, array_or_object)): harmless on NULL and on other types. */
#define JSON_EACH(item, container)                                                                                     \
    const struct json *item = json_first(container);                                                                   \
    item != NULL;                                                                                                      \
    item = item->next

/* ---- reading ---- */
/* One JSON text with nothing but white space round it. Of equal keys in one object the last wins. Bounds: JSON_SIZE_MAX,
 * JSON_DEPTH_MAX, JSON_NODES_MAX (limits.h). NULL: INVALID_ARGUMENT (with line and column) or RESOURCE_EXHAUSTED. */
const struct json *json_parse(struct arena *arena, struct str text, struct status *err);

static inline const struct json *json_first(const struct json *j)
{
    return j != NULL ? j->child : NULL;
}
/* NULL when j is NULL, no object, or has no such member. */
const struct json *json_member(const struct json *j, const char *name);
const struct json *json_at(const struct json *array, size_t index);
/* Follows names downwards; a name of digits picks an element of an array: json_get(pod, "containers", "0", "name"). */
#define json_get(j, ...) json_get_names((j), (const char *const[]){ __VA_ARGS__, NULL })
const struct json *json_get_names(const struct json *j, const char *const *names);

/* Lenient values. A string with a NUL inside is no C string: json_string gives the fallback, json_bytes the bytes. */
const char *json_string(const struct json *j, const char *fallback);
struct str json_bytes(const struct json *j); /* empty unless a string */
int64_t json_i64(const struct json *j, int64_t fallback);
bool json_bool(const struct json *j, bool fallback);
static inline bool json_is(const struct json *j, enum json_type type)
{
    return j != NULL && j->type == type;
}

/* Strict values of one node (not NULL). Numbers must be whole ("1.0" and "1e3" count as whole) and in range. */
bool json_as_string(const struct json *j, const char **out, struct status *err);
bool json_as_i64(const struct json *j, int64_t min, int64_t max, int64_t *out, struct status *err);
bool json_as_u64(const struct json *j, uint64_t max, uint64_t *out, struct status *err);
bool json_as_double(const struct json *j, double *out, struct status *err);
bool json_as_bool(const struct json *j, bool *out, struct status *err);
bool json_want(const struct json *j, enum json_type type, struct status *err);

/* Strict members of j. Absent or null (or j NULL or null): true and *out stays as it was. */
bool json_read_string(const struct json *j, const char *name, const char **out, struct status *err);
bool json_read_i64(const struct json *j, const char *name, int64_t min, int64_t max, int64_t *out, struct status *err);
bool json_read_u64(const struct json *j, const char *name, uint64_t max, uint64_t *out, struct status *err);
bool json_read_bool(const struct json *j, const char *name, bool *out, struct status *err);
/* type: JSON_ARRAY or JSON_OBJECT; *out is fit for JSON_EACH. */
bool json_read_node(const struct json *j, const char *name, enum json_type type, const struct json **out,
                    struct status *err);

/* "a string", "an object"... */
const char *json_type_name(enum json_type type);
/* Appends "spec.containers[0].name"; nothing for the root. Keys that are not plain words come as ["a/b"]. */
void json_path(const struct json *j, struct buf *out);
/* INVALID_ARGUMENT with "line 3, column 7: path: message" (what is known of it). Returns false. */
bool json_fail(const struct json *j, struct status *err, const char *format, ...) PRINTF_LIKE(3, 4);

/* ---- making trees (yaml.h, and code that composes documents) ---- */
/* text: copied; n bytes. */
struct json *json_new(struct arena *arena, enum json_type type, const char *text, size_t n);
/* Appends to an array or object made with json_new; key: borrowed, must live as long as the tree; "" in arrays. */
void json_append(struct json *parent, const char *key, struct json *child);
/* True when s is a number by JSON's grammar. */
bool json_is_number(struct str s);
/* Length of the UTF-8 sequence at p (1 to 4), 0 when it is not valid (overlong forms and surrogates are not). */
size_t utf8_sequence(const char *p, size_t n);

/* ---- writing ---- */
/* Appends to a buffer; commas, line ends and indentation come by themselves. Strings are escaped as RFC 8259 wants and
 * no further; bytes that are not UTF-8 become U+FFFD, so the output is always JSON. Nesting is bounded by
 * JSON_DEPTH_MAX: deeper is a fault of the caller and aborts. */
struct json_writer {
    struct buf *out; /* borrowed */
    unsigned indent; /* spaces a level; 0: compact, on one line */
    unsigned depth;
    bool after_key;
    bool started; /* something was written on this level */
    uint8_t is_array[(JSON_DEPTH_MAX + 8) / 8];
};
void json_writer_init(struct json_writer *w, struct buf *out, unsigned indent);
void json_write_object(struct json_writer *w); /* opens */
void json_write_array(struct json_writer *w);  /* opens */
void json_write_end(struct json_writer *w);    /* closes what was opened last */
void json_write_key(struct json_writer *w, const char *key);
void json_write_string(struct json_writer *w, const char *s);
void json_write_bytes(struct json_writer *w, struct str s);
void json_write_i64(struct json_writer *w, int64_t value);
void json_write_u64(struct json_writer *w, uint64_t value);
void json_write_double(struct json_writer *w, double value); /* infinities and NaN: null */
void json_write_bool(struct json_writer *w, bool value);
void json_write_null(struct json_writer *w);
/* A finished JSON value, put in as it is. */
void json_write_raw(struct json_writer *w, struct str json);
void json_write_tree(struct json_writer *w, const struct json *j); /* NULL: null */
/* Key and value in one. */
void json_write_member_string(struct json_writer *w, const char *key, const char *value);
void json_write_member_i64(struct json_writer *w, const char *key, int64_t value);
void json_write_member_bool(struct json_writer *w, const char *key, bool value);
void json_write_member_object(struct json_writer *w, const char *key);
void json_write_member_array(struct json_writer *w, const char *key);

#endif
