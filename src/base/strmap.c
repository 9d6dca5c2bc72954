/* SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"

struct strmap_entry {
    struct strmap_entry *next;
    void *value;
    uint64_t hash;
    char key[];
};

/* FNV-1a: keys are our own random ids and bounded names, so flooding is no concern. */
static uint64_t strmap_hash(const char *key)
{
    uint64_t hash = 14695981039346656037u;

    for (; *key != '\0'; key++)
        hash = (hash ^ (uint8_t)*key) * 1099511628211u;
    return hash;
}

static struct strmap_entry **strmap_slot(const struct strmap *m, const char *key, uint64_t hash)
{
    struct strmap_entry **slot = &m->buckets[hash & (m->bucket_count - 1)];

    while (*slot != NULL && ((*slot)->hash != hash || strcmp((*slot)->key, key) != 0))
        slot = &(*slot)->next;
    return slot;
}

static void strmap_grow(struct strmap *m)
{
    size_t bucket_count = m->bucket_count > 0 ? m->bucket_count * 2 : 16;
    struct strmap_entry **buckets = xcalloc(bucket_count, sizeof *buckets);

    for (size_t i = 0; i < m->bucket_count; i++) {
        while (m->buckets[i] != NULL) {
            struct strmap_entry *entry = m->buckets[i];
            m->buckets[i] = entry->next;
            entry->next = buckets[entry->hash & (bucket_count - 1)];
            buckets[entry->hash & (bucket_count - 1)] = entry;
        }
    }
    free(m->buckets);
    m->buckets = buckets;
    m->bucket_count = bucket_count;
}

void *strmap_get(const struct strmap *m, const char *key)
{
    if (m->count == 0)
        return NULL;
    struct strmap_entry *entry = *strmap_slot(m, key, strmap_hash(key));
    return entry != NULL ? entry->value : NULL;
}

void *strmap_put(struct strmap *m, const char *key, void *value)
{
    if (m->count >= m->bucket_count)
        strmap_grow(m);
    uint64_t hash = strmap_hash(key);
    struct strmap_entry **slot = strmap_slot(m, key, hash);
    if (*slot != NULL) {
        void *old = (*slot)->value;
        (*slot)->value = value;
        return old;
    }
    size_t n = strlen(key) + 1;
    struct strmap_entry *entry = xmalloc(sizeof *entry + n);
    entry->next = NULL;
    entry->value = value;
    entry->hash = hash;
    memcpy(entry->key, key, n);
    *slot = entry;
    m->count++;
    return NULL;
}

void *strmap_remove(struct strmap *m, const char *key)
{
    if (m->count == 0)
        return NULL;
    struct strmap_entry **slot = strmap_slot(m, key, strmap_hash(key));
    struct strmap_entry *entry = *slot;
    if (entry == NULL)
        return NULL;
    void *value = entry->value;
    *slot = entry->next;
    free(entry);
    m->count--;
    return value;
}

void *strmap_prefix(const struct strmap *m, const char *prefix, bool *ambiguous)
{
    struct strmap_iter it = { 0 };
    void *found = NULL;

    *ambiguous = false;
    while (strmap_next(m, &it)) {
        if (!str_starts(it.key, prefix))
            continue;
        if (found != NULL) {
            *ambiguous = true;
            return NULL;
        }
        found = it.value;
    }
    return found;
}

bool strmap_next(const struct strmap *m, struct strmap_iter *it)
{
    while (it->next == NULL) {
        if (it->bucket >= m->bucket_count)
            return false;
        it->next = m->buckets[it->bucket++];
    }
    it->key = it->next->key;
    it->value = it->next->value;
    it->next = it->next->next;
    return true;
}

void strmap_free(struct strmap *m)
{
    for (size_t i = 0; i < m->bucket_count; i++) {
        while (m->buckets[i] != NULL) {
            struct strmap_entry *next = m->buckets[i]->next;
            free(m->buckets[i]);
            m->buckets[i] = next;
        }
    }
    free(m->buckets);
    *m = (struct strmap)STRMAP_INIT;
}
