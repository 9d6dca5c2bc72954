/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/podrun_internal.h"

#include "agent/agent_image.h"
#include "agent/agent_signal.h"
#include "image/config.h"
#include "image/digest.h"
#include "image/record.h"
#include "io/file.h"
#include "text/json.h"

/* ---- what the plugin says ---- */

static const struct json *podrun_image_entry(const struct podrun *run, const char *name, struct arena *arena)
{
    cleanup_free char *path = xasprintf("%s/images.json", run->job_dir);
    cleanup_buf struct buf text = BUF_INIT;
    struct status ignored = STATUS_INIT;

    if (!file_read(path, PODRUN_IMAGES_MAX, &text, &ignored))
        return NULL;
    return json_member(json_parse(arena, (struct str){ (const char *)text.p, text.n }, &ignored), name);
}

/* ---- what its store says ---- */

static bool podrun_image_load(const struct podrun *run, const char *id, struct arena *arena, Interlink__Agent__V1__Image *out,
                              int *stop_signal, struct status *err)
{
    struct digest digest;
    char hex[DIGEST_HEX_SIZE];
    cleanup_buf struct buf text = BUF_INIT, config_text = BUF_INIT;
    cleanup_image_config struct image_config config = { .arena = ARENA_INIT };

    if (!digest_parse(id, &digest, err))
        return false;
    digest_hex(&digest, hex);
    if (!file_read(arena_printf(arena, "%s/images/%s", run->images_dir, hex), IMAGE_RECORD_SIZE_MAX, &text, err) ||
        !file_read(arena_printf(arena, "%s/blobs/sha256/%s", run->images_dir, hex), IMAGE_CONFIG_SIZE_MAX, &config_text, err) ||
        !image_config_parse((struct str){ (const char *)config_text.p, config_text.n }, &config, err))
        return false;
    struct record *record = record_open((struct str){ (const char *)text.p, text.n }, err);
    if (record == NULL)
        return false;
    agent_image_fill(arena, &record->image, &config_text, out);
    out->id = arena_strdup(arena, id);
    out->config.data = arena_memdup(arena, config_text.p, config_text.n);
    *stop_signal = agent_signal_stop(RUNTIME__V1__SIGNAL__SIGNAL_RUNTIME_DEFAULT, config.stop_signal);
    record_free(record);
    return true;
}

bool podrun_image_find(const struct podrun *run, const char *name, struct arena *arena, Interlink__Agent__V1__Image *out,
                       int *stop_signal, char reason[64], char message[512])
{
    const struct json *entry = podrun_image_entry(run, name, arena);
    const char *id = json_string(json_member(entry, "id"), "");
    struct status err = STATUS_INIT;

    snprintf(reason, 64, "%.63s", json_string(json_member(entry, "reason"), "ContainerCreating"));
    snprintf(message, 512, "%.511s", json_string(json_member(entry, "message"), ""));
    if (*id == '\0')
        return false;
    if (podrun_image_load(run, id, arena, out, stop_signal, &err))
        return true;
    snprintf(reason, 64, "ErrImagePull");
    snprintf(message, 512, "image %.80s: %.400s", name, err.message);
    return false;
}
