/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON reader: jsmn finds the tokens; what it lets pass (missing commas, bad numbers, bad UTF-8, trailing text) is
 * checked while the tree is built from them. */
#include "text/json.h"

#define JSMN_STATIC
#define JSMN_STRICT
#define JSMN_PARENT_LINKS /* without them jsmn's time grows with the square of the number of tokens */
#include <jsmn.h>
#undef JSMN_STATIC
#undef JSMN_STRICT
#undef JSMN_PARENT_LINKS

/* Tokens given to jsmn at a time. Closing a bracket costs jsmn the depth it is at, so the depth is looked at each time. */
#define JSON_TOKEN_SLICE 1024u
/* Objects with more members than this are searched for equal keys with a map instead of each with each. */
#define JSON_FEW_MEMBERS 16u

struct json_reader {
    struct arena *arena;
    struct str text;
    jsmntok_t *tokens; /* owned */
    size_t token_count, next;
    struct status *err;
};

static bool json_syntax(const struct json_reader *r, size_t at, const char *what)
{
    unsigned line = 1, column = 1;

    for (size_t i = 0; i < at && i < r->text.n; i++) {
        column = r->text.p[i] == '\n' ? 1 : column + 1;
        line += r->text.p[i] == '\n';
    }
    return status_set(r->err, STATUS_INVALID_ARGUMENT, "line %u, column %u: no valid JSON: %s", line, column, what);
}

static bool json_is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static size_t json_skip_space(struct str text, size_t at)
{
    while (at < text.n && json_is_space(text.p[at]))
        at++;
    return at;
}

static size_t json_depth(const jsmn_parser *parser, const jsmntok_t *tokens)
{
    size_t depth = 0;

    for (int i = parser->toksuper; i >= 0; i = tokens[i].parent)
        depth += tokens[i].type == JSMN_OBJECT || tokens[i].type == JSMN_ARRAY;
    return depth;
}

static bool json_tokenise(struct json_reader *r)
{
    jsmn_parser parser;
    size_t room = 0;

    jsmn_init(&parser);
    for (;;) {
        size_t limit = parser.toknext + JSON_TOKEN_SLICE;
        if (limit > JSON_NODES_MAX)
            limit = JSON_NODES_MAX;
        if (limit > room) {
            room = room == 0 ? limit : 2 * room;
            r->tokens = xrealloc(r->tokens, room * sizeof *r->tokens);
        }
        int count = jsmn_parse(&parser, r->text.p, r->text.n, r->tokens, (unsigned)limit);
        if (count >= 0)
            break;
        if (json_depth(&parser, r->tokens) > JSON_DEPTH_MAX)
            return status_set(r->err, STATUS_RESOURCE_EXHAUSTED, "JSON is nested deeper than %d levels", JSON_DEPTH_MAX);
        if (count == JSMN_ERROR_PART)
            return json_syntax(r, parser.pos, "it ends too early");
        if (count != JSMN_ERROR_NOMEM)
            return json_syntax(r, parser.pos, "unexpected character");
        if (limit == JSON_NODES_MAX)
            return status_set(r->err, STATUS_RESOURCE_EXHAUSTED, "JSON has more than %u values", JSON_NODES_MAX);
    }
    r->token_count = parser.toknext;
    return true;
}

size_t utf8_sequence(const char *p, size_t n)
{
    const uint8_t *s = (const uint8_t *)p;

    if (n == 0)
        return 0;
    if (s[0] < 0x80)
        return 1;
    size_t length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || n < length)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
        (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return length;
}

static size_t json_put_utf8(char *out, uint32_t code)
{
    uint8_t *o = (uint8_t *)out;

    if (code < 0x80) {
        o[0] = (uint8_t)code;
        return 1;
    }
    if (code < 0x800) {
        o[0] = (uint8_t)(0xc0 | code >> 6);
        o[1] = (uint8_t)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        o[0] = (uint8_t)(0xe0 | code >> 12);
        o[1] = (uint8_t)(0x80 | (code >> 6 & 0x3f));
        o[2] = (uint8_t)(0x80 | (code & 0x3f));
        return 3;
    }
    o[0] = (uint8_t)(0xf0 | code >> 18);
    o[1] = (uint8_t)(0x80 | (code >> 12 & 0x3f));
    o[2] = (uint8_t)(0x80 | (code >> 6 & 0x3f));
    o[3] = (uint8_t)(0x80 | (code & 0x3f));
    return 4;
}

/* The four digits behind "\u"; false when there are not four. */
static bool json_hex4(const char *p, size_t n, uint32_t *code)
{
    uint8_t bytes[2];

    if (n < 4 || !hex_decode(p, bytes, 2))
        return false;
    *code = (uint32_t)bytes[0] << 8 | bytes[1];
    return true;
}

/* Decodes the escape at p (behind the backslash); returns the bytes used, 0 when it is none. */
static size_t json_escape(const char *p, size_t n, char *out, size_t *out_n)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    uint32_t code, low;
    const char *plain = n > 0 && p[0] != '\0' ? strchr(from, p[0]) : NULL;

    if (plain != NULL) {
        *out = to[plain - from];
        *out_n = 1;
        return 1;
    }
    if (n < 5 || p[0] != 'u' || !json_hex4(p + 1, n - 1, &code))
        return 0;
    size_t used = 5;
    if (code >= 0xdc00 && code <= 0xdfff)
        return 0;
    if (code >= 0xd800 && code <= 0xdbff) { /* a pair: RFC 8259 section 7 */
        if (n < 11 || p[5] != '\\' || p[6] != 'u' || !json_hex4(p + 7, n - 7, &low) || low < 0xdc00 || low > 0xdfff)
            return 0;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        used = 11;
    }
    *out_n = json_put_utf8(out, code);
    return used;
}

static bool json_decode(const struct json_reader *r, const jsmntok_t *token, const char **text, size_t *length)
{
    size_t start = (size_t)token->start, end = (size_t)token->end, n = 0;
    char *out = arena_alloc_raw(r->arena, end - start + 1); /* an escape is never shorter than what it stands for */

    for (size_t at = start; at < end;) {
        const char *p = r->text.p + at;
        if (*p == '\\') {
            size_t written = 0, used = json_escape(p + 1, end - at - 1, out + n, &written);
            if (used == 0)
                return json_syntax(r, at, "invalid escape in a string");
            at += 1 + used;
            n += written;
            continue;
        }
        size_t sequence = (uint8_t)*p < 0x20 ? 0 : utf8_sequence(p, end - at);
        if (sequence == 0)
            return json_syntax(r, at, (uint8_t)*p < 0x20 ? "control character in a string" : "a string is not UTF-8");
        memcpy(out + n, p, sequence);
        at += sequence;
        n += sequence;
    }
    out[n] = '\0';
    *text = out;
    *length = n;
    return true;
}

bool json_is_number(struct str s)
{
    size_t at = 0;

    if (at < s.n && s.p[at] == '-')
        at++;
    size_t digits = at;
    while (at < s.n && s.p[at] >= '0' && s.p[at] <= '9')
        at++;
    if (at == digits || (s.p[digits] == '0' && at - digits > 1))
        return false;
    if (at < s.n && s.p[at] == '.') {
        digits = ++at;
        while (at < s.n && s.p[at] >= '0' && s.p[at] <= '9')
            at++;
        if (at == digits)
            return false;
    }
    if (at < s.n && (s.p[at] == 'e' || s.p[at] == 'E')) {
        at++;
        if (at < s.n && (s.p[at] == '+' || s.p[at] == '-'))
            at++;
        digits = at;
        while (at < s.n && s.p[at] >= '0' && s.p[at] <= '9')
            at++;
        if (at == digits)
            return false;
    }
    return at == s.n;
}

static struct json *json_node(struct arena *arena, enum json_type type)
{
    struct json *j = ARENA_NEW(arena, struct json);

    j->type = type;
    j->text = j->key = "";
    return j;
}

struct json *json_new(struct arena *arena, enum json_type type, const char *text, size_t n)
{
    struct json *j = json_node(arena, type);

    if (n > 0)
        j->text = arena_strndup(arena, text, n);
    j->length = n;
    return j;
}

/* The tree is made here and nowhere else changed: these casts take away the const that its readers see. */
void json_append(struct json *parent, const char *key, struct json *child)
{
    child->key = key;
    child->parent = parent;
    child->next = NULL;
    if (parent->last != NULL)
        ((struct json *)(uintptr_t)parent->last)->next = child;
    else
        parent->child = child;
    parent->last = child;
    parent->count++;
}

/* Keeps the last of equal keys, as most readers do (RFC 8259 section 4 leaves it open). */
static void json_drop_equal_keys(struct json *object)
{
    cleanup_strmap struct strmap map = STRMAP_INIT;
    struct json *child = (struct json *)(uintptr_t)object->child;
    uint32_t count = object->count;

    if (count > JSON_FEW_MEMBERS)
        for (struct json *c = child; c != NULL; c = (struct json *)(uintptr_t)c->next)
            strmap_put(&map, c->key, c);
    object->child = object->last = NULL;
    object->count = 0;
    while (child != NULL) {
        struct json *next = (struct json *)(uintptr_t)child->next;
        bool again = false;
        if (count > JSON_FEW_MEMBERS)
            again = strmap_get(&map, child->key) != child;
        else
            for (const struct json *later = next; later != NULL && !again; later = later->next)
                again = strcmp(later->key, child->key) == 0;
        if (!again)
            json_append(object, child->key, child);
        child = next;
    }
}

static struct json *json_primitive(struct json_reader *r, size_t start, size_t end)
{
    struct str text = { r->text.p + start, end - start };

    if (str_eq(text, "null"))
        return json_node(r->arena, JSON_NULL);
    if (str_eq(text, "true") || str_eq(text, "false")) {
        struct json *j = json_node(r->arena, JSON_BOOL);
        j->boolean = text.p[0] == 't';
        return j;
    }
    if (json_is_number(text))
        return json_new(r->arena, JSON_NUMBER, text.p, text.n);
    json_syntax(r, start, "neither a value nor a number");
    return NULL;
}

static struct json *json_build(struct json_reader *r, size_t *at, unsigned depth);

static size_t json_token_start(const jsmntok_t *token)
{
    return (size_t)token->start - (token->type == JSMN_STRING); /* jsmn leaves the quote out */
}

/* A key and its colon. */
static bool json_build_key(struct json_reader *r, size_t *at, const char **key)
{
    size_t length;
    const jsmntok_t *token = &r->tokens[r->next];

    if (r->next == r->token_count || token->type != JSMN_STRING || json_token_start(token) != *at)
        return json_syntax(r, *at, "wanted a name in quotes");
    r->next++;
    if (!json_decode(r, token, key, &length))
        return false;
    if (strlen(*key) != length)
        return json_syntax(r, *at, "a name holds a NUL character");
    *at = json_skip_space(r->text, (size_t)token->end + 1);
    if (*at == r->text.n || r->text.p[*at] != ':')
        return json_syntax(r, *at, "wanted a colon");
    *at = json_skip_space(r->text, *at + 1);
    return true;
}

static struct json *json_build_container(struct json_reader *r, const jsmntok_t *token, size_t *at, unsigned depth)
{
    bool object = token->type == JSMN_OBJECT;
    size_t end = (size_t)token->end - 1; /* of the closing bracket */
    struct json *j = json_node(r->arena, object ? JSON_OBJECT : JSON_ARRAY);

    if (depth == JSON_DEPTH_MAX) {
        status_set(r->err, STATUS_RESOURCE_EXHAUSTED, "JSON is nested deeper than %d levels", JSON_DEPTH_MAX);
        return NULL;
    }
    *at = json_skip_space(r->text, (size_t)token->start + 1);
    for (bool first = true; *at != end || !first; first = false) {
        const char *key = "";
        if (!first) {
            *at = json_skip_space(r->text, *at);
            if (*at == end)
                break;
            if (r->text.p[*at] != ',') {
                json_syntax(r, *at, "wanted a comma");
                return NULL;
            }
            *at = json_skip_space(r->text, *at + 1);
        }
        if (object && !json_build_key(r, at, &key))
            return NULL;
        struct json *child = json_build(r, at, depth + 1);
        if (child == NULL)
            return NULL;
        json_append(j, key, child);
    }
    *at = end + 1;
    if (object && j->count > 1)
        json_drop_equal_keys(j);
    return j;
}

/* The value that must begin at *at; leaves *at behind it. */
static struct json *json_build(struct json_reader *r, size_t *at, unsigned depth)
{
    const jsmntok_t *token = &r->tokens[r->next];

    if (r->next == r->token_count || json_token_start(token) != *at) {
        json_syntax(r, *at, "wanted a value");
        return NULL;
    }
    r->next++;
    if (token->type == JSMN_OBJECT || token->type == JSMN_ARRAY)
        return json_build_container(r, token, at, depth);
    if (token->type == JSMN_STRING) {
        struct json *j = json_node(r->arena, JSON_STRING);
        *at = (size_t)token->end + 1;
        return json_decode(r, token, &j->text, &j->length) ? j : NULL;
    }
    *at = (size_t)token->end;
    return json_primitive(r, (size_t)token->start, (size_t)token->end);
}

const struct json *json_parse(struct arena *arena, struct str text, struct status *err)
{
    struct json_reader r = { .arena = arena, .text = text, .err = err };

    if (text.n > JSON_SIZE_MAX) {
        status_set(err, STATUS_RESOURCE_EXHAUSTED, "JSON of %zu bytes is larger than the limit of %u", text.n,
                   JSON_SIZE_MAX);
        return NULL;
    }
    size_t at = json_skip_space(text, 0);
    if (at == text.n) {
        json_syntax(&r, at, "it is empty");
        return NULL;
    }
    if (strchr("{[\"", text.p[at]) == NULL || text.p[at] == '\0') {
        /* A bare number or word: jsmn's strict mode wants something behind it. */
        size_t end = text.n;
        while (json_is_space(text.p[end - 1]))
            end--;
        return json_primitive(&r, at, end);
    }
    struct json *j = NULL;
    if (json_tokenise(&r)) {
        j = json_build(&r, &at, 0);
        at = json_skip_space(text, at);
        if (j != NULL && at != text.n) {
            json_syntax(&r, at, "more text behind the value");
            j = NULL;
        }
    }
    free(r.tokens);
    return j;
}

#undef JSON_TOKEN_SLICE
#undef JSON_FEW_MEMBERS
