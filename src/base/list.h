/* SPDX-License-Identifier: Apache-2.0 */
/* list.h: intrusive doubly linked lists. A head and a link are the same struct; an unlinked link points at itself. */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include "base/base.h"

struct list {
    struct list *next, *prev;
};

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}

/* Appends before `head`, that is, at the end. */
static inline void list_append(struct list *head, struct list *link)
{
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

/* Unlinks; harmless on a link that is in no list. */
static inline void list_remove(struct list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

/* for (LIST_EACH(struct thing, t, &head, link)) — t must not be removed inside. */
#define LIST_EACH(type, item, head, member)                                                                            \
    type *item = CONTAINER_OF((head)->next, type, member);                                                             \
    &item->member != (head);                                                                                           \
    item = CONTAINER_OF(item->member.next, type, member)
/* Same, and `item` may be removed and freed inside. */
#define LIST_EACH_SAFE(type, item, head, member)                                                                       \
    type *item = CONTAINER_OF((head)->next, type, member),                                                             \
    *item##_next = CONTAINER_OF(item->member.next, type, member);                                                      \
    &item->member != (head);                                                                                           \
    item = item##_next, item##_next = CONTAINER_OF(item##_next->member.next, type, member)

#endif
