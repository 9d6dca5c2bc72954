/* SPDX-License-Identifier: Apache-2.0 */
/* random.h: random bytes from the kernel, ids and tokens. */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include "base/base.h"

/* getrandom(2), /dev/urandom before Linux 3.17; aborts if neither gives bytes: an id that can be guessed is worse. */
void random_bytes(void *p, size_t n);
/* 64 hex digits and a NUL: the form of a sandbox or container id. */
#define ID_LENGTH 64
void random_id(char out[ID_LENGTH + 1]);
/* "xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx" made of the first 16 bytes of a hex id (RFC 9562 version 4 form). */
#define UUID_LENGTH 36
void uuid_of_id(const char *id, char out[UUID_LENGTH + 1]);

#endif
