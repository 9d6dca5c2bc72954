/* SPDX-License-Identifier: Apache-2.0 */
/* config.h: an image's configuration. Source: OCI image-spec v1.1, config.md; Docker's image.json v1.2 is the same text. */
#ifndef IMAGE_CONFIG_H
#define IMAGE_CONFIG_H

#include "base/base.h"
#include "image/digest.h"

struct image_config {
    struct arena arena; /* everything below lives here */
    char *architecture, *os, *variant; /* "" when absent */
    char *created;                     /* RFC 3339, as written; "" when absent */
    char **env;                        /* "NAME=value" */
    size_t env_count;
    char **entrypoint;
    size_t entrypoint_count;
    char **cmd;
    size_t cmd_count;
    char *working_dir, *user, *stop_signal; /* "" when absent */
    char **volumes;                         /* absolute paths */
    size_t volume_count;
    char **labels; /* name, value, name, value... */
    size_t label_count; /* pairs */
    struct digest *diff_ids; /* bottom layer first */
    size_t diff_id_count;
};

/* INVALID_ARGUMENT says what is wrong and where. On failure there is nothing to free. */
bool image_config_parse(struct str json, struct image_config *out, struct status *err);
void image_config_free(struct image_config *c);
#define cleanup_image_config __attribute__((cleanup(image_config_free)))

/* What a container runs: `command` replaces ENTRYPOINT, and then CMD is not used; `args` replace CMD (Kubernetes' rule). `image` may be
 * NULL. The words, ended by NULL, are copies in `arena`. INVALID_ARGUMENT when there is none. */
bool image_config_argv(const struct image_config *image, char *const *command, size_t command_count, char *const *args,
                       size_t args_count, struct arena *arena, char ***argv, size_t *count, struct status *err);

/* The `User` of a configuration: "1002", "1003:group", "name:group", "" -> a number, or a name, or neither. */
struct image_user {
    bool has_uid;
    int64_t uid;
    char name[256]; /* "" unless it is a name */
};
void image_user_parse(const char *user, struct image_user *out);

#endif
