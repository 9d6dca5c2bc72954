/* SPDX-License-Identifier: Apache-2.0 */
#include "node/setbacks.h"

struct setback {
    struct list link;     /* oldest first */
    char *key;            /* owned */
    struct status why;
    bool told;
    unsigned count;       /* jobs that failed in a row */
    int64_t allowed_ms;
};

struct setbacks {
    struct strmap by_pod; /* "uid/attempt" -> struct setback, owned */
    struct list all;
};

struct setbacks *setbacks_new(void)
{
    struct setbacks *setbacks = xcalloc(1, sizeof *setbacks);

    list_init(&setbacks->all);
    return setbacks;
}

static void setback_free(struct setbacks *setbacks, struct setback *s)
{
    strmap_remove(&setbacks->by_pod, s->key);
    list_remove(&s->link);
    free(s->key);
    free(s);
}

void setbacks_free(struct setbacks *setbacks)
{
    if (setbacks == NULL)
        return;
    while (!list_empty(&setbacks->all))
        setback_free(setbacks, CONTAINER_OF(setbacks->all.next, struct setback, link));
    strmap_free(&setbacks->by_pod);
    free(setbacks);
}

static char *setback_key(const Runtime__V1__PodSandboxMetadata *m)
{
    return xasprintf("%s/%u/%s/%s", m->uid, m->attempt, m->namespace_, m->name);
}

static int64_t setback_pause_ms(unsigned count)
{
    int64_t pause = SETBACK_PAUSE_MS;

    for (unsigned i = 1; i < count && pause < SETBACK_PAUSE_MAX_MS; i++)
        pause *= 2;
    return pause < SETBACK_PAUSE_MAX_MS ? pause : SETBACK_PAUSE_MAX_MS;
}

void setbacks_note(struct setbacks *setbacks, const Runtime__V1__PodSandboxMetadata *metadata, const struct status *why,
                   bool told, bool had_job, int64_t now_ms)
{
    cleanup_free char *key = setback_key(metadata);
    struct setback *s = strmap_get(&setbacks->by_pod, key);

    if (s == NULL) {
        /* The oldest are of pods that were deleted, or that run: neither comes again. */
        if (setbacks->by_pod.count >= SETBACKS_MAX)
            setback_free(setbacks, CONTAINER_OF(setbacks->all.next, struct setback, link));
        s = xcalloc(1, sizeof *s);
        s->key = xstrdup(key);
        strmap_put(&setbacks->by_pod, key, s);
    } else {
        list_remove(&s->link);
    }
    list_append(&setbacks->all, &s->link);
    /* One that came after a long wait in the queue is no sign of a job that fails at once. */
    if (s->count > 0 && now_ms - s->allowed_ms > SETBACK_PAUSE_MAX_MS)
        s->count = 0;
    s->why = *why;
    s->told = told;
    s->count += had_job;
    s->allowed_ms = had_job ? now_ms + setback_pause_ms(s->count) : now_ms;
}

bool setbacks_allow(struct setbacks *setbacks, const Runtime__V1__PodSandboxMetadata *metadata, int64_t now_ms, struct status *err)
{
    cleanup_free char *key = setback_key(metadata);
    struct setback *s = strmap_get(&setbacks->by_pod, key);

    if (s == NULL || (s->told && now_ms >= s->allowed_ms))
        return true;
    s->told = true;
    *err = s->why;
    if (now_ms >= s->allowed_ms)
        return false;
    /* Without the seconds left: kubelet counts repeated events as one. */
    return status_set(err, s->why.code, "%s (failure %u in a row; the next job is submitted after a pause)", s->why.message,
                      s->count);
}

void setbacks_forget(struct setbacks *setbacks, const Runtime__V1__PodSandboxMetadata *metadata)
{
    cleanup_free char *key = setback_key(metadata);
    struct setback *s = strmap_get(&setbacks->by_pod, key);

    if (s != NULL)
        setback_free(setbacks, s);
}
