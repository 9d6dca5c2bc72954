/* SPDX-License-Identifier: Apache-2.0 */
/* YAML in block style, laid out as Kubernetes' tools do it. */
#include "text/yaml.h"

#include <strings.h>

/* Words that some reader takes for a boolean or null (YAML 1.1). */
static const char *const yaml_words[] = { "null", "true", "false", "yes", "no", "on", "off", "y", "n" };

/* May the string stand without quotes? Errs on the side of quoting: what looks like a number, a time or a base-60 value
 * to an older reader is quoted too. */
static bool yaml_plain_string(struct str s)
{
    static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/.";
    static const char inner[] = " ,@+=:()<>;-";
    static const char numeric[] = "0123456789abcdefABCDEFxoXO_.:+-TZ";
    bool could_be_number = true;

    if (s.n == 0 || s.p[s.n - 1] == ' ' || s.p[s.n - 1] == ':' || strchr(first, s.p[0]) == NULL || s.p[0] == '\0')
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\0' || (strchr(first, s.p[i]) == NULL && strchr(inner, s.p[i]) == NULL))
            return false;
        if (s.p[i] == ':' && s.p[i + 1] == ' ')
            return false;
        could_be_number = could_be_number && strchr(numeric, s.p[i]) != NULL;
    }
    if (could_be_number && ((s.p[0] >= '0' && s.p[0] <= '9') || s.p[0] == '.'))
        return false;
    for (size_t i = 0; i < COUNT_OF(yaml_words); i++)
        if (strlen(yaml_words[i]) == s.n && strncasecmp(s.p, yaml_words[i], s.n) == 0)
            return false;
    return true;
}

/* A JSON string is a YAML string but for a few characters that YAML folds or forbids: those are escaped. */
static void yaml_write_quoted(struct buf *out, struct str s)
{
    cleanup_buf struct buf json = BUF_INIT;
    struct json_writer w;

    json_writer_init(&w, &json, 0);
    json_write_bytes(&w, s);
    for (size_t i = 0; i < json.n; i++) {
        const uint8_t *p = json.p + i; /* valid UTF-8 by now, and a quote at the end: two more bytes may be looked at after a lead byte */
        unsigned code = 0;
        size_t length = 1;
        if (p[0] == 0x7f) {
            code = 0x7f;
        } else if (p[0] == 0xc2 && p[1] < 0xa0) {
            code = p[1];
            length = 2;
        } else if (p[0] == 0xe2 && p[1] == 0x80 && (p[2] == 0xa8 || p[2] == 0xa9)) {
            code = 0x2000u + (p[2] & 0x3fu);
            length = 3;
        } else if (p[0] == 0xef && ((p[1] == 0xbb && p[2] == 0xbf) || (p[1] == 0xbf && p[2] >= 0xbe))) {
            code = 0xf000u | (unsigned)(p[1] & 0x3f) << 6 | (p[2] & 0x3fu);
            length = 3;
        }
        if (code == 0)
            buf_append_byte(out, p[0]);
        else
            buf_printf(out, "\\u%04x", code);
        i += length - 1;
    }
}

static void yaml_write_string(struct buf *out, struct str s)
{
    if (yaml_plain_string(s))
        buf_append(out, s.p, s.n);
    else
        yaml_write_quoted(out, s);
}

static void yaml_indent(struct buf *out, unsigned depth)
{
    for (unsigned i = 0; i < depth; i++)
        buf_append_str(out, "  ");
}

static void yaml_write_node(struct buf *out, const struct json *j, unsigned depth, bool indented);

/* A key written as usual may be 1,024 characters long at most (YAML 1.2.2 section 7.4.2); longer ones take the form "? key". */
static void yaml_write_key(struct buf *out, const char *key, unsigned depth)
{
    cleanup_buf struct buf text = BUF_INIT;
    bool long_key;

    yaml_write_string(&text, str_of(key));
    long_key = text.n > 1000;
    buf_append_str(out, long_key ? "? " : "");
    buf_append(out, text.p, text.n);
    if (long_key) {
        buf_append_byte(out, '\n');
        yaml_indent(out, depth);
    }
}

static void yaml_write_members(struct buf *out, const struct json *j, unsigned depth, bool indented)
{
    for (JSON_EACH(child, j)) {
        if (!indented)
            yaml_indent(out, depth);
        indented = false;
        yaml_write_key(out, child->key, depth);
        buf_append_byte(out, ':');
        bool nested = child->child != NULL;
        buf_append_byte(out, nested ? '\n' : ' ');
        /* A list under a key is not indented further. */
        yaml_write_node(out, child, depth + (child->type == JSON_OBJECT), false);
    }
}

/* indented: the first line has its indentation already (behind "- "). Scalars and empty containers end their line. */
static void yaml_write_node(struct buf *out, const struct json *j, unsigned depth, bool indented)
{
    struct json_writer w;

    if (j->child == NULL) {
        json_writer_init(&w, out, 0);
        if (j->type == JSON_STRING)
            yaml_write_string(out, (struct str){ j->text, j->length });
        else
            json_write_tree(&w, j);
        buf_append_byte(out, '\n');
        return;
    }
    if (j->type == JSON_OBJECT) {
        yaml_write_members(out, j, depth, indented);
        return;
    }
    for (JSON_EACH(child, j)) {
        if (!indented)
            yaml_indent(out, depth);
        indented = false;
        buf_append_str(out, "- ");
        yaml_write_node(out, child, depth + 1, true);
    }
}

void yaml_write(struct buf *out, const struct json *j)
{
    yaml_write_node(out, j, 0, false);
}
