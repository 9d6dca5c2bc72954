/* SPDX-License-Identifier: Apache-2.0 */
#include "text/nearest.h"

/* Longer words are not compared: no key or option of ours is longer. */
#define NEAREST_WORD_MAX 64

static char nearest_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static size_t nearest_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Optimal string alignment distance. */
static size_t nearest_distance(const char *a, size_t a_n, const char *b, size_t b_n)
{
    size_t rows[3][NEAREST_WORD_MAX + 1];
    size_t *before = rows[0], *last = rows[1], *row = rows[2];

    for (size_t j = 0; j <= b_n; j++)
        last[j] = j;
    for (size_t i = 1; i <= a_n; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b_n; j++) {
            char x = nearest_lower(a[i - 1]), y = nearest_lower(b[j - 1]);
            row[j] = nearest_min(nearest_min(last[j], row[j - 1]) + 1, last[j - 1] + (x != y));
            if (i > 1 && j > 1 && x == nearest_lower(b[j - 2]) && y == nearest_lower(a[i - 2]))
                row[j] = nearest_min(row[j], before[j - 2] + 1);
        }
        size_t *spare = before;
        before = last;
        last = row;
        row = spare;
    }
    return last[b_n];
}

void nearest_offer(struct nearest *n, const char *candidate)
{
    size_t a = strlen(n->word), b = strlen(candidate);

    if (a == 0 || a > NEAREST_WORD_MAX || b > NEAREST_WORD_MAX)
        return;
    size_t limit = a < 6 ? 1 : a < 9 ? 2 : 3;
    size_t distance = nearest_distance(n->word, a, candidate, b);
    if (distance <= limit && distance < n->distance) {
        n->distance = distance;
        n->best = candidate;
    }
}

const char *nearest_hint(const struct nearest *n, char *out, size_t room)
{
    if (n->best == NULL)
        *out = '\0';
    else
        snprintf(out, room, ", did you mean %s?", n->best);
    return out;
}

#undef NEAREST_WORD_MAX
