/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/ctl.h"

int ctl_inspect_each(struct ctl *ctl, const struct ctl_inspection *kind, const char *const *ids, size_t count)
{
    struct status err = STATUS_INIT;
    enum ctl_format format;

    if (!ctl_format(ctl, CTL_JSON, &format, &err) || (count == 0 && !kind->list(ctl, &ids, &count, &err)))
        return ctl_fail(ctl, &err);
    if (count == 0) {
        status_set(&err, STATUS_INVALID_ARGUMENT, "no %s is named, and none fits the filters", kind->noun);
        return ctl_fail(ctl, &err);
    }
    struct json **trees = ARENA_ARRAY(&ctl->arena, struct json *, count);
    for (size_t i = 0; i < count; i++)
        if (!kind->show(ctl, ids[i], format == CTL_TABLE, &trees[i], &err))
            return ctl_fail(ctl, &err);
    if (format != CTL_TABLE)
        ctl_print_trees(ctl, trees, count, format);
    return 0;
}
