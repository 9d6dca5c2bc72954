/* SPDX-License-Identifier: Apache-2.0 */
/* yaml.h: YAML (libyaml's events) into the tree of json.h, with line and column on each node, and back.
 *
 * Plain scalars are typed by the core schema of YAML 1.2 (section 10.3): null ~, true false, numbers (also 0x and 0o,
 * which are given in decimal); all else, and whatever is quoted, is a string. Not taken: yes/no/on/off as booleans,
 * .inf and .nan, tags of one's own, keys that are not scalars, merge keys. Keys keep their text whatever they look like. */
#ifndef TEXT_YAML_H
#define TEXT_YAML_H

#include "text/json.h"

/* One document; an empty text gives a null node. JSON is YAML and is read too. Equal keys in one mapping are an error.
 * Bounds as for JSON, counted after aliases are expanded. NULL: an error that names the line. */
const struct json *yaml_parse(struct arena *arena, struct str text, struct status *err);
/* Every document of a stream, as the children of one array. */
const struct json *yaml_parse_all(struct arena *arena, struct str text, struct status *err);
/* Appends one document in block style, ending in a new line; strings are quoted where they could be misread. */
void yaml_write(struct buf *out, const struct json *j);

#endif
