/* SPDX-License-Identifier: Apache-2.0 */
/* strmap.h: a map from strings to pointers. Keys are copied, values are borrowed. */
#ifndef BASE_STRMAP_H
#define BASE_STRMAP_H

#include "base/base.h"

/* All zero is an empty map. */
struct strmap {
    struct strmap_entry **buckets; /* owned */
    size_t bucket_count, count;
};
#define STRMAP_INIT { NULL, 0, 0 }
void *strmap_get(const struct strmap *m, const char *key); /* NULL when absent */
/* Sets or replaces; value must not be NULL. Returns the value replaced, or NULL. */
void *strmap_put(struct strmap *m, const char *key, void *value);
/* Returns the value removed, or NULL. */
void *strmap_remove(struct strmap *m, const char *key);
/* The one entry whose key starts with prefix: NULL when there is none, and when there are several (*ambiguous = true). */
void *strmap_prefix(const struct strmap *m, const char *prefix, bool *ambiguous);
/* Iteration in no order: struct strmap_iter it = {0}; while (strmap_next(&m, &it)) use it.key, it.value.
 * The entry just returned may be removed; nothing else may change meanwhile. */
struct strmap_iter {
    const char *key;
    void *value;
    size_t bucket;
    struct strmap_entry *next;
};
bool strmap_next(const struct strmap *m, struct strmap_iter *it);
void strmap_free(struct strmap *m);
#define cleanup_strmap __attribute__((cleanup(strmap_free)))

#endif
