/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_image.h"

void agent_image_fill(struct arena *arena, const struct image *image, const struct buf *config_text, Interlink__Agent__V1__Image *out)
{
    interlink__agent__v1__image__init(out);
    out->id = arena_strdup(arena, image->id);
    out->config = (ProtobufCBinaryData){ config_text->n, config_text->p };
    out->n_layers = image->layer_count;
    out->layers = ARENA_ARRAY(arena, Interlink__Agent__V1__Layer *, image->layer_count);
    for (size_t i = 0; i < image->layer_count; i++) {
        Interlink__Agent__V1__Layer *layer = ARENA_NEW(arena, Interlink__Agent__V1__Layer);
        char text[DIGEST_TEXT_SIZE];
        interlink__agent__v1__layer__init(layer);
        digest_text(&image->layers[i].blob, text);
        layer->digest = arena_strdup(arena, text);
        digest_text(&image->layers[i].diff_id, text);
        layer->diff_id = arena_strdup(arena, text);
        layer->size = (int64_t)image->layers[i].size;
        layer->media_type = arena_strdup(arena, image->layers[i].media_type);
        out->layers[i] = layer;
    }
}
