/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel and what it lets this user do (agent/machine.h). */
#include "cli/doctor.h"

#include <unistd.h>

char *doctor_existing(const char *path)
{
    char *copy = xstrdup(path);

    while (access(copy, F_OK) != 0) {
        char *slash = strrchr(copy, '/');
        if (slash == NULL || slash == copy) {
            strcpy(copy, "/");
            break;
        }
        *slash = '\0';
    }
    return copy;
}

static void doctor_say_finding(void *arg, const struct finding *f)
{
    doctor_say(arg, f->result, f->what, f->mend, "%s", f->found);
}

/* Things are tried where the state is, if that can be written. */
void doctor_check_machine(struct doctor *d)
{
    cleanup_free char *parent = doctor_existing(d->configured ? d->config.node.state_dir : "/tmp");

    machine_check(access(parent, W_OK) == 0 ? parent : "/tmp", doctor_say_finding, d);
}
