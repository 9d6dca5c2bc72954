/* SPDX-License-Identifier: Apache-2.0 */
#include "image/manifest.h"

#include <sys/utsname.h>

#include "text/json.h"

/* ---- platforms ---- */

void platform_host(struct platform *out)
{
    /* uname's word, Go's word, variant: OCI uses Go's. */
    static const char *const machines[][3] = {
        { "x86_64", "amd64", "" },  { "aarch64", "arm64", "v8" },     { "armv7l", "arm", "v7" },
        { "armv6l", "arm", "v6" },  { "armv8l", "arm", "v7" },        { "i686", "386", "" },
        { "i386", "386", "" },      { "ppc64le", "ppc64le", "" },     { "s390x", "s390x", "" },
        { "riscv64", "riscv64", "" }, { "loongarch64", "loong64", "" },
    };
    struct utsname name;

    memset(out, 0, sizeof *out);
    memcpy(out->os, "linux", sizeof "linux");
    uname(&name);
    snprintf(out->architecture, sizeof out->architecture, "%.31s", name.machine);
    for (size_t i = 0; i < COUNT_OF(machines); i++) {
        if (strcmp(name.machine, machines[i][0]) != 0)
            continue;
        snprintf(out->architecture, sizeof out->architecture, "%s", machines[i][1]);
        snprintf(out->variant, sizeof out->variant, "%s", machines[i][2]);
    }
}

bool platform_parse(const char *text, struct platform *out, struct status *err)
{
    char *const parts[] = { out->os, out->architecture, out->variant };
    const size_t sizes[] = { sizeof out->os, sizeof out->architecture, sizeof out->variant };
    size_t part = 0;
    const char *p = text;

    memset(out, 0, sizeof *out);
    while (part < COUNT_OF(parts)) {
        size_t n = strcspn(p, "/");
        if (n == 0 || n >= sizes[part])
            break;
        memcpy(parts[part++], p, n);
        p += n;
        if (*p == '\0')
            break;
        p++;
    }
    if (*p != '\0' || part < 2)
        return status_set(err, STATUS_INVALID_ARGUMENT, "platform '%.80s' is not of the form linux/amd64 or linux/arm/v7", text);
    return true;
}

/* How well an entry suits: 0 not at all, larger is better. Variants of one architecture are ordered, and an older one runs
 * on a newer machine (v6 code on a v7 processor). An entry without a variant runs anywhere. */
static unsigned platform_rank(const struct platform *have, const struct platform *want)
{
    const char *variant = have->variant;

    if (strcmp(have->os, want->os) != 0 || strcmp(have->architecture, want->architecture) != 0)
        return 0;
    if (strcmp(variant, want->variant) == 0)
        return 100;
    if (strcmp(want->architecture, "arm64") == 0 && (variant[0] == '\0' || strcmp(variant, "v8") == 0))
        return 99;
    if (variant[0] == '\0')
        return 50;
    if (strcmp(want->architecture, "amd64") == 0 && want->variant[0] == '\0')
        return strcmp(variant, "v1") == 0 ? 99 : 0;
    if (variant[0] != 'v' || want->variant[0] != 'v' || strlen(variant) != 2 || strlen(want->variant) != 2)
        return 0;
    return variant[1] < want->variant[1] ? (unsigned)(50 + variant[1] - '0') : 0;
}

/* ---- media types ---- */

enum manifest_type { MANIFEST_UNKNOWN, MANIFEST_IMAGE, MANIFEST_INDEX, MANIFEST_SCHEMA1 };

static enum manifest_type manifest_type_of(const char *media_type)
{
    static const struct {
        const char *name;
        enum manifest_type type;
    } types[] = {
        { "application/vnd.oci.image.index.v1+json", MANIFEST_INDEX },
        { "application/vnd.docker.distribution.manifest.list.v2+json", MANIFEST_INDEX },
        { "application/vnd.oci.image.manifest.v1+json", MANIFEST_IMAGE },
        { "application/vnd.docker.distribution.manifest.v2+json", MANIFEST_IMAGE },
        { "application/vnd.docker.distribution.manifest.v1+json", MANIFEST_SCHEMA1 },
        { "application/vnd.docker.distribution.manifest.v1+prettyjws", MANIFEST_SCHEMA1 },
    };
    size_t n = strcspn(media_type, "; ");

    for (size_t i = 0; i < COUNT_OF(types); i++)
        if (strlen(types[i].name) == n && strncasecmp(media_type, types[i].name, n) == 0)
            return types[i].type;
    return MANIFEST_UNKNOWN;
}

static bool manifest_check_config_type(const char *type, struct status *err)
{
    /* Some tools leave it out, or say what it is made of rather than what it is. */
    if (strcmp(type, "application/vnd.oci.image.config.v1+json") == 0 ||
        strcmp(type, "application/vnd.docker.container.image.v1+json") == 0 || strcmp(type, "application/json") == 0 ||
        strcmp(type, "application/octet-stream") == 0 || type[0] == '\0')
        return true;
    return status_set(err, STATUS_FAILED_PRECONDITION, "it is no container image but an artifact of type %.150s", type);
}

static bool manifest_check_layer_type(const char *type, struct status *err)
{
    static const char *const stems[] = {
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    };
    /* How it is compressed is seen from the archive itself. */
    static const char *const endings[] = { "", "+gzip", ".gzip", "+zstd", ".zstd" };

    for (size_t i = 0; i < COUNT_OF(stems); i++) {
        if (!str_starts(type, stems[i]))
            continue;
        const char *ending = type + strlen(stems[i]);
        for (size_t k = 0; k < COUNT_OF(endings); k++)
            if (strcmp(ending, endings[k]) == 0)
                return true;
        if (str_ends(ending, "+encrypted"))
            return status_set(err, STATUS_FAILED_PRECONDITION, "its layers are encrypted, which cannot be read here");
    }
    return status_set(err, STATUS_FAILED_PRECONDITION, "it has a layer of type %.150s, which is no layer of a Linux image", type);
}

/* ---- reading ---- */

static bool manifest_read_platform(const struct json *j, struct descriptor *d, struct status *err)
{
    const struct json *platform = NULL;
    const char *os = "", *architecture = "", *variant = "";

    if (!json_read_node(j, "platform", JSON_OBJECT, &platform, err) || !json_read_string(platform, "os", &os, err) ||
        !json_read_string(platform, "architecture", &architecture, err) ||
        !json_read_string(platform, "variant", &variant, err))
        return false;
    d->has_platform = platform != NULL;
    snprintf(d->platform.os, sizeof d->platform.os, "%.31s", os);
    snprintf(d->platform.architecture, sizeof d->platform.architecture, "%.31s", architecture);
    snprintf(d->platform.variant, sizeof d->platform.variant, "%.15s", variant);
    return true;
}

static bool manifest_read_descriptor(struct arena *arena, const struct json *j, struct descriptor *d, struct status *err)
{
    const char *type = "", *digest = NULL;
    uint64_t size = UINT64_MAX;

    if (!json_want(j, JSON_OBJECT, err) || !json_read_string(j, "mediaType", &type, err) ||
        !json_read_string(j, "digest", &digest, err) || !json_read_u64(j, "size", IMAGE_BLOB_SIZE_MAX, &size, err) ||
        !manifest_read_platform(j, d, err))
        return false;
    if (digest == NULL || size == UINT64_MAX)
        return json_fail(j, err, "it has no %s", digest == NULL ? "digest" : "size");
    if (!digest_parse(digest, &d->digest, err))
        return false;
    const struct json *annotations = json_member(j, "annotations");
    d->media_type = arena_strdup(arena, type);
    d->size = size;
    d->ref_name = arena_strdup(arena, json_string(json_member(annotations, "org.opencontainers.image.ref.name"), ""));
    d->name = arena_strdup(arena, json_string(json_member(annotations, "io.containerd.image.name"), ""));
    return true;
}

static bool manifest_read_list(struct arena *arena, const struct json *root, const char *name, size_t max,
                               struct descriptor **out, size_t *count, struct status *err)
{
    const struct json *list = NULL;

    if (!json_read_node(root, name, JSON_ARRAY, &list, err))
        return false;
    *count = list == NULL ? 0 : list->count;
    if (*count > max)
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "%zu entries in '%s' are more than the %zu allowed", *count, name, max);
    *out = ARENA_ARRAY(arena, struct descriptor, *count + 1);
    struct descriptor *next = *out;
    for (JSON_EACH(item, list))
        if (!manifest_read_descriptor(arena, item, next++, err))
            return false;
    return true;
}

static bool manifest_read_image(const struct json *root, struct manifest *m, struct status *err)
{
    const struct json *config = json_member(root, "config");

    if (config == NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "it has no 'config'");
    if (!manifest_read_descriptor(&m->arena, config, &m->config, err) ||
        !manifest_check_config_type(m->config.media_type, err) ||
        !manifest_read_list(&m->arena, root, "layers", IMAGE_LAYERS_MAX, &m->layers, &m->layer_count, err))
        return false;
    if (m->config.size > IMAGE_CONFIG_SIZE_MAX)
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "its configuration of %" PRIu64 " bytes is larger than the %d allowed",
                          m->config.size, IMAGE_CONFIG_SIZE_MAX);
    for (size_t i = 0; i < m->layer_count; i++)
        if (!manifest_check_layer_type(m->layers[i].media_type, err))
            return false;
    return true;
}

/* What the text calls itself counts; then what the server calls it; then what it holds. A text that could be read as both an
 * image and an index is refused, whatever it calls itself (CVE-2021-41190). */
static bool manifest_decide(const struct json *root, const char *content_type, enum manifest_type *type, struct status *err)
{
    const char *own = "";
    int64_t version = 2;

    if (!json_want(root, JSON_OBJECT, err) || !json_read_string(root, "mediaType", &own, err) ||
        !json_read_i64(root, "schemaVersion", 0, INT64_MAX, &version, err))
        return false;
    bool image = json_member(root, "layers") != NULL || json_member(root, "config") != NULL;
    bool index = json_member(root, "manifests") != NULL;
    *type = manifest_type_of(own[0] != '\0' ? own : content_type);
    if (version == 1 || *type == MANIFEST_SCHEMA1 || json_member(root, "fsLayers") != NULL)
        return status_set(err, STATUS_FAILED_PRECONDITION, "it is in Docker's schema 1 format, which is no longer used: push it "
                                                           "again with a current client");
    if (image && index)
        return status_set(err, STATUS_INVALID_ARGUMENT, "it could be both an image and an index");
    if (*type == MANIFEST_UNKNOWN && own[0] != '\0')
        return status_set(err, STATUS_FAILED_PRECONDITION, "it is no image and no index but of type %.150s", own);
    if (*type == MANIFEST_UNKNOWN)
        *type = image ? MANIFEST_IMAGE : index ? MANIFEST_INDEX : MANIFEST_UNKNOWN;
    if (*type == MANIFEST_UNKNOWN || (*type == MANIFEST_IMAGE && index) || (*type == MANIFEST_INDEX && image))
        return status_set(err, STATUS_INVALID_ARGUMENT, "its content is not what its type says");
    return true;
}

bool manifest_parse(struct str json, const char *content_type, struct manifest *out, struct status *err)
{
    struct arena cleanup_arena scratch = ARENA_INIT;
    struct manifest m = { .arena = ARENA_INIT };
    enum manifest_type type = MANIFEST_UNKNOWN;

    if (json.n > IMAGE_MANIFEST_SIZE_MAX)
        return status_set(err, STATUS_RESOURCE_EXHAUSTED, "a manifest of %zu bytes is larger than the %d allowed", json.n,
                          IMAGE_MANIFEST_SIZE_MAX);
    const struct json *root = json_parse(&scratch, json, err);
    if (root == NULL || !manifest_decide(root, content_type, &type, err))
        return status_prefix(err, "manifest");
    m.is_index = type == MANIFEST_INDEX;
    if (m.is_index ? !manifest_read_list(&m.arena, root, "manifests", IMAGE_INDEX_ENTRIES_MAX, &m.manifests,
                                         &m.manifest_count, err)
                   : !manifest_read_image(root, &m, err)) {
        manifest_free(&m);
        return status_prefix(err, "manifest");
    }
    *out = m;
    return true;
}

void manifest_free(struct manifest *m)
{
    arena_free(&m->arena);
    memset(m, 0, sizeof *m);
}

static void manifest_list_platforms(const struct manifest *index, struct buf *out)
{
    for (size_t i = 0; i < index->manifest_count; i++) {
        const struct descriptor *d = &index->manifests[i];
        if (!d->has_platform || strcmp(d->platform.os, "unknown") == 0) /* attestations */
            continue;
        buf_printf(out, "%s%s/%s%s%s", out->n > 0 ? ", " : "", d->platform.os, d->platform.architecture,
                   d->platform.variant[0] != '\0' ? "/" : "", d->platform.variant);
    }
}

const struct descriptor *manifest_choose(const struct manifest *index, const struct platform *platform, struct status *err)
{
    const struct descriptor *best = NULL;
    unsigned best_rank = 0;

    for (size_t i = 0; i < index->manifest_count; i++) {
        const struct descriptor *d = &index->manifests[i];
        /* An index of one image need not say for which platform it is. */
        unsigned rank = d->has_platform ? platform_rank(&d->platform, platform) : index->manifest_count == 1 ? 1 : 0;
        if (rank > best_rank) {
            best = d;
            best_rank = rank;
        }
    }
    if (best == NULL) {
        struct buf cleanup_buf list = BUF_INIT;
        manifest_list_platforms(index, &list);
        status_set(err, STATUS_NOT_FOUND, "there is no image for %s/%s%s%s; there is: %.400s", platform->os,
                   platform->architecture, platform->variant[0] != '\0' ? "/" : "", platform->variant,
                   list.n > 0 ? buf_cstr(&list) : "nothing");
    }
    return best;
}
