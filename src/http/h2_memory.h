/* SPDX-License-Identifier: Apache-2.0 */
/* h2_memory.h: the memory of one nghttp2 session. A call makes and frees half a dozen small objects; they are kept here for
 * the next call, since the C library's allocator may give pages back to the kernel each time. Used by h2.c alone. */
#ifndef HTTP_H2_MEMORY_H
#define HTTP_H2_MEMORY_H

#include "base/base.h"

#include <nghttp2/nghttp2.h>

struct h2_memory;

struct h2_memory *h2_memory_new(void);
/* Hooks for nghttp2. */
nghttp2_mem h2_memory_hooks(struct h2_memory *memory);
/* Gives back what is not in use. */
void h2_memory_trim(struct h2_memory *memory);
/* The session is gone; header fields somebody holds a reference to stay, and with the last one this goes. */
void h2_memory_release(struct h2_memory *memory);

#endif
