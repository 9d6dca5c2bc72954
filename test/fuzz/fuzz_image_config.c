/* SPDX-License-Identifier: Apache-2.0 */
/* An image's configuration, and the same bytes as a record of the store. */
#include "image/config.h"
#include "image/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_record(struct str text)
{
    struct buf cleanup_buf once = BUF_INIT, cleanup_buf twice = BUF_INIT;
    struct status err = STATUS_INIT;
    struct record *r = record_decode(text, &err);

    if (r == NULL)
        return;
    /* What was understood is written as it is read. */
    record_seal(r, &once);
    record_free(r);
    r = record_open((struct str){ (const char *)once.p, once.n }, &err);
    if (r == NULL)
        abort();
    record_seal(r, &twice);
    if (once.n != twice.n || memcmp(once.p, twice.p, once.n) != 0)
        abort();
    record_free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = { (const char *)data, size };
    struct image_config c;
    struct image_user user;
    struct status err;

    if (image_config_parse(text, &c, &err)) {
        image_user_parse(c.user, &user);
        image_config_free(&c);
    }
    try_record(text);
    struct record *r = record_open(text, &err);
    record_free(r);
    return 0;
}
