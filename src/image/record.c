/* SPDX-License-Identifier: Apache-2.0 */
#include "image/record.h"

#include "text/json.h"

#define RECORD_MAGIC "interlink-cri image 1 sha256:"

/* ---- lists of strings ---- */

bool record_has(char *const *list, size_t count, const char *text)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i], text) == 0)
            return true;
    return false;
}

void record_add(char ***list, size_t *count, const char *text)
{
    if (record_has(*list, *count, text))
        return;
    *list = xrealloc(*list, (*count + 1) * sizeof **list);
    (*list)[(*count)++] = xstrdup(text);
}

bool record_drop(char **list, size_t *count, const char *text)
{
    for (size_t i = 0; i < *count; i++) {
        if (strcmp(list[i], text) != 0)
            continue;
        free(list[i]);
        memmove(list + i, list + i + 1, (*count - i - 1) * sizeof *list);
        (*count)--;
        return true;
    }
    return false;
}

static void record_free_list(char **list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(list[i]);
    free(list);
}

void record_free(struct record *r)
{
    if (r == NULL)
        return;
    for (size_t i = 0; i < r->image.layer_count; i++)
        free(r->image.layers[i].media_type);
    free(r->image.layers);
    free(r->costs);
    record_free_list(r->image.tags, r->image.tag_count);
    record_free_list(r->image.digests, r->image.digest_count);
    record_free_list(r->image.annotations, 2 * r->image.annotation_count);
    free(r);
}

/* ---- writing ---- */

static void record_member_digest(struct json_writer *w, const char *key, const struct digest *d)
{
    char text[DIGEST_TEXT_SIZE];

    digest_text(d, text);
    json_write_member_string(w, key, text);
}

static void record_member_u64(struct json_writer *w, const char *key, uint64_t value)
{
    json_write_key(w, key);
    json_write_u64(w, value);
}

static void record_member_list(struct json_writer *w, const char *key, char *const *list, size_t count)
{
    json_write_member_array(w, key);
    for (size_t i = 0; i < count; i++)
        json_write_string(w, list[i]);
    json_write_end(w);
}

void record_encode(const struct record *r, struct buf *out)
{
    const struct image *i = &r->image;
    struct json_writer w;

    json_writer_init(&w, out, 0);
    json_write_object(&w);
    json_write_member_string(&w, "id", i->id);
    record_member_u64(&w, "sequence", r->sequence);
    json_write_member_i64(&w, "created", r->created_ns);
    json_write_member_bool(&w, "listed", r->listed);
    record_member_list(&w, "tags", i->tags, i->tag_count);
    record_member_list(&w, "digests", i->digests, i->digest_count);
    record_member_u64(&w, "size", i->size);
    record_member_u64(&w, "config_size", i->config_size);
    if (i->user.has_uid)
        json_write_member_i64(&w, "uid", i->user.uid);
    json_write_member_string(&w, "username", i->user.name);
    json_write_member_array(&w, "layers");
    for (size_t k = 0; k < i->layer_count; k++) {
        json_write_object(&w);
        record_member_digest(&w, "diff_id", &i->layers[k].diff_id);
        record_member_digest(&w, "blob", &i->layers[k].blob);
        json_write_member_string(&w, "media_type", i->layers[k].media_type);
        record_member_u64(&w, "size", i->layers[k].size);
        record_member_u64(&w, "blob_bytes", r->costs[k].blob_bytes);
        record_member_u64(&w, "bytes", r->costs[k].bytes);
        record_member_u64(&w, "inodes", r->costs[k].inodes);
        json_write_end(&w);
    }
    json_write_end(&w);
    record_member_list(&w, "annotations", i->annotations, 2 * i->annotation_count);
    json_write_end(&w);
}

void record_seal(const struct record *r, struct buf *out)
{
    struct buf cleanup_buf body = BUF_INIT;
    char hex[DIGEST_HEX_SIZE];

    record_encode(r, &body);
    struct digest d = digest_of(body.p, body.n);
    digest_hex(&d, hex);
    buf_printf(out, RECORD_MAGIC "%s\n", hex);
    buf_append(out, body.p, body.n);
}

/* ---- reading ---- */

static bool record_read_digest(const struct json *j, const char *name, struct digest *out, struct status *err)
{
    const char *text = "";

    return json_read_string(j, name, &text, err) && digest_parse(text, out, err);
}

static bool record_read_list(const struct json *j, const char *name, char ***list, size_t *count, struct status *err)
{
    const struct json *array = NULL;

    if (!json_read_node(j, name, JSON_ARRAY, &array, err))
        return false;
    if (array != NULL && array->count > IMAGE_NAMES_MAX)
        return json_fail(array, err, "more than %d entries", IMAGE_NAMES_MAX);
    *list = array == NULL ? NULL : xcalloc(array->count + 1u, sizeof **list);
    for (JSON_EACH(item, array)) {
        const char *text;
        if (!json_as_string(item, &text, err))
            return false;
        (*list)[(*count)++] = xstrdup(text);
    }
    return true;
}

static bool record_read_layers(const struct json *j, struct record *r, struct status *err)
{
    const struct json *array = NULL;

    if (!json_read_node(j, "layers", JSON_ARRAY, &array, err))
        return false;
    size_t count = array == NULL ? 0 : array->count;
    if (count > IMAGE_LAYERS_MAX)
        return json_fail(array, err, "more than %d layers", IMAGE_LAYERS_MAX);
    r->image.layers = xcalloc(count + 1, sizeof *r->image.layers);
    r->costs = xcalloc(count + 1, sizeof *r->costs);
    for (JSON_EACH(item, array)) {
        struct image_layer *layer = &r->image.layers[r->image.layer_count];
        struct record_cost *cost = &r->costs[r->image.layer_count];
        const char *type = "";
        if (!record_read_digest(item, "diff_id", &layer->diff_id, err) || !record_read_digest(item, "blob", &layer->blob, err) ||
            !json_read_string(item, "media_type", &type, err) || !json_read_u64(item, "size", UINT64_MAX, &layer->size, err) ||
            !json_read_u64(item, "blob_bytes", UINT64_MAX, &cost->blob_bytes, err) ||
            !json_read_u64(item, "bytes", UINT64_MAX, &cost->bytes, err) ||
            !json_read_u64(item, "inodes", UINT64_MAX, &cost->inodes, err))
            return false;
        layer->media_type = xstrdup(type);
        r->image.layer_count++;
    }
    return true;
}

static bool record_read(const struct json *j, struct record *r, struct status *err)
{
    struct image *i = &r->image;
    const char *id = "", *username = "";
    size_t annotations = 0;

    i->user.uid = -1;
    if (!json_want(j, JSON_OBJECT, err) || !json_read_string(j, "id", &id, err) || !digest_parse(id, &i->config, err) ||
        !json_read_u64(j, "sequence", UINT64_MAX, &r->sequence, err) ||
        !json_read_i64(j, "created", 0, INT64_MAX, &r->created_ns, err) || !json_read_bool(j, "listed", &r->listed, err) ||
        !record_read_list(j, "tags", &i->tags, &i->tag_count, err) ||
        !record_read_list(j, "digests", &i->digests, &i->digest_count, err) ||
        !json_read_u64(j, "size", UINT64_MAX, &i->size, err) ||
        !json_read_u64(j, "config_size", UINT64_MAX, &i->config_size, err) ||
        !json_read_i64(j, "uid", 0, INT64_MAX, &i->user.uid, err) || !json_read_string(j, "username", &username, err) ||
        !record_read_layers(j, r, err))
        return false;
    bool ok = record_read_list(j, "annotations", &i->annotations, &annotations, err);
    i->annotation_count = annotations / 2;
    if (annotations % 2 != 0)
        free(i->annotations[annotations - 1]);
    if (!ok)
        return false;
    digest_text(&i->config, i->id);
    snprintf(i->user.name, sizeof i->user.name, "%.255s", username);
    i->user.has_uid = i->user.uid >= 0;
    i->user.uid = i->user.has_uid ? i->user.uid : 0;
    return true;
}

struct record *record_decode(struct str json, struct status *err)
{
    struct arena cleanup_arena scratch = ARENA_INIT;
    struct record *r = xcalloc(1, sizeof *r);
    const struct json *root = json_parse(&scratch, json, err);

    list_init(&r->image.link);
    if (root != NULL && record_read(root, r, err))
        return r;
    err->code = STATUS_DATA_LOSS;
    record_free(r);
    return NULL;
}

struct record *record_open(struct str file, struct status *err)
{
    size_t head = strlen(RECORD_MAGIC) + 64 + 1;
    char hex[DIGEST_HEX_SIZE];

    if (file.n < head || memcmp(file.p, RECORD_MAGIC, strlen(RECORD_MAGIC)) != 0 || file.p[head - 1] != '\n') {
        status_set(err, STATUS_DATA_LOSS, "it is no image record of this program");
        return NULL;
    }
    struct digest d = digest_of(file.p + head, file.n - head);
    digest_hex(&d, hex);
    if (memcmp(hex, file.p + strlen(RECORD_MAGIC), 64) != 0) {
        status_set(err, STATUS_DATA_LOSS, "its checksum is wrong");
        return NULL;
    }
    return record_decode((struct str){ file.p + head, file.n - head }, err);
}

#undef RECORD_MAGIC
