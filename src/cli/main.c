/* SPDX-License-Identifier: Apache-2.0 */
/* The entrance: which of the program's roles is wanted. */
#include "agent/agent.h"
#include "agent/agent_join.h"
#include "cli/ctl.h"
#include "cli/doctor.h"
#include "cli/serve.h"
#include "plugin/plugin.h"
#include "text/nearest.h"

#include "version.h"

static int main_help(int argc, char **argv);
static int main_version(int argc, char **argv);

static const struct main_role {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the role's name */
    const char *help;
} main_roles[] = {
    { "serve", serve_main, "the CRI server on a node, which kubelet talks to (the default)" },
    { "plugin", plugin_main, "an interLink plugin: runs pods where the batch system is" },
    { "agent", NULL, "inside a job: makes the pod's containers (started by `plugin`, not by hand)" },
    { "join", agent_join_main, "beside an agent: its way to the node, where compute nodes cannot dial out (run by `serve`)" },
    { "ctl", ctl_main, "the command line client: crictl's verbs" },
    { "doctor", doctor_main, "checks this machine's set-up and says how to mend it" },
    { "version", main_version, "the version of this program" },
    { "help", main_help, "this text" },
};

static int main_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    printf("interlink-cri %s\n", INTERLINK_CRI_VERSION);
    return 0;
}

static int main_help(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    printf("interlink-cri: a Kubernetes container runtime whose containers run on other computers.\n\n"
           "Usage: interlink-cri [ROLE] [OPTION...]\n\n");
    for (size_t i = 0; i < COUNT_OF(main_roles); i++)
        printf("  %-9s %s\n", main_roles[i].name, main_roles[i].help);
    printf("\n`interlink-cri ROLE --help` tells a role's options. To try it on this machine, with nothing configured:\n\n"
           "  interlink-cri serve &\n"
           "  interlink-cri ctl pull busybox\n"
           "  interlink-cri ctl run container-config.json pod-config.json\n"
           "  interlink-cri ctl ps\n\n"
           "kubelet is pointed at it with --container-runtime-endpoint; `interlink-cri doctor` tells what is missing.\n");
    return 0;
}

static const struct main_role *main_find(const char *name)
{
    struct nearest nearest = nearest_start(name);
    char hint[96];

    for (size_t i = 0; i < COUNT_OF(main_roles); i++) {
        if (strcmp(main_roles[i].name, name) == 0)
            return &main_roles[i];
        nearest_offer(&nearest, main_roles[i].name);
    }
    fprintf(stderr, "interlink-cri: unknown role %.64s%s\n`interlink-cri help` lists them.\n", name,
            nearest_hint(&nearest, hint, sizeof hint));
    return NULL;
}

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";

    if (strcmp(word, "--version") == 0 || strcmp(word, "-version") == 0 || strcmp(word, "-v") == 0)
        return main_version(argc, argv);
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        return main_help(argc, argv);
    /* Options without a role are serve's: `interlink-cri --config FILE --socket PATH`. */
    if (*word == '\0' || *word == '-')
        return serve_main(argc, argv);
    const struct main_role *role = main_find(word);
    if (role == NULL)
        return 2;
    return role->run != NULL ? role->run(argc - 1, argv + 1) : agent_main(argc, argv);
}
