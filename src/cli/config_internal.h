/* SPDX-License-Identifier: Apache-2.0 */
/* config_internal.h: what config.c and config_check.c share. */
#ifndef CLI_CONFIG_INTERNAL_H
#define CLI_CONFIG_INTERNAL_H

#include "cli/config.h"
#include "text/json.h"

/* Milliseconds from "10s" or a number of seconds. */
bool config_read_duration(const char *text, int64_t *ms);
void config_set_defaults(struct config *c);
/* One handler, one mirror: j is where it stands in the file. */
bool config_check_handler(const struct json *j, struct node_handler_options *handler, struct status *err);
bool config_check_mirror(const struct json *j, const struct registry_mirror *mirror, struct status *err);
/* Makes the handlers that are implied, fills in what follows from other keys, checks the whole. */
bool config_finish(struct config *c, struct status *err);

#endif
