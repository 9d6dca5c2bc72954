/* SPDX-License-Identifier: Apache-2.0 */
/* nearest.h: "did you mean": the known word that is nearest to one that is not known. */
#ifndef TEXT_NEAREST_H
#define TEXT_NEAREST_H

#include "base/base.h"

struct nearest {
    const char *word, *best; /* borrowed; best: NULL while nothing near was offered */
    size_t distance;
};
static inline struct nearest nearest_start(const char *word)
{
    return (struct nearest){ word, NULL, SIZE_MAX };
}
/* Offers a candidate. Counted are letters added, left out, changed, and neighbours exchanged; the case does not matter; what
 * is further away than a third of the word (but at least one, at most three) is not near. */
void nearest_offer(struct nearest *n, const char *candidate);
/* Appends ", did you mean X?" to a text when something near was offered: at most as snprintf. */
const char *nearest_hint(const struct nearest *n, char *out, size_t room);

#endif
