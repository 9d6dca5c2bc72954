/* SPDX-License-Identifier: Apache-2.0 */
/* agent_image.h: an image of the store as agents are told of it. */
#ifndef AGENT_AGENT_IMAGE_H
#define AGENT_AGENT_IMAGE_H

#include "agent.pb-c.h"
#include "image/image.h"

/* Makes `out` of the image: its id and layers are copied into `arena`, the text of its configuration is borrowed. */
void agent_image_fill(struct arena *arena, const struct image *image, const struct buf *config_text, Interlink__Agent__V1__Image *out);

#endif
