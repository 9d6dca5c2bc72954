/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/doctor.h"

#include "cli/options.h"
#include "cli/site.h"

#include <unistd.h>

/* Width of the column that says what was looked at. */
#define DOCTOR_WHAT_WIDTH 16
/* For a job to wait its turn and to tell. */
#define DOCTOR_SITE_NS (INT64_C(600) * 1000000000)

void doctor_say(struct doctor *d, enum finding_result result, const char *what, const char *mend, const char *format, ...)
{
    static const char *const words[] = { "ok", "warn", "FAIL" };
    static const char *const colours[] = { "\033[32m", "\033[33m", "\033[31m" };
    va_list args;

    d->counts[result]++;
    printf("%s%-4s%s  %-*s  ", d->colour ? colours[result] : "", words[result], d->colour ? "\033[0m" : "",
           DOCTOR_WHAT_WIDTH, what);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    if (*mend != '\0')
        printf("      %-*s  -> %s\n", DOCTOR_WHAT_WIDTH, "", mend);
    fflush(stdout);
}

static void (*const doctor_checks[])(struct doctor *d) = {
    doctor_check_config, doctor_check_state_dir, doctor_check_space, doctor_check_logs, doctor_check_service,
    doctor_check_socket, doctor_check_handlers, doctor_check_own_pods, doctor_check_relay, doctor_check_network,
    doctor_check_gate, doctor_check_volumes, doctor_check_cluster, doctor_check_kubelet, doctor_check_hugepages, doctor_check_machine,
};

static const struct option_spec doctor_options[] = {
    { "config", 'c', OPTION_STRING, offsetof(struct doctor, config_path), "FILE", "Configuration of serve (YAML)", NULL },
    { "kubelet-dir", 0, OPTION_STRING, offsetof(struct doctor, kubelet_dir), "DIR", "kubelet's --root-dir (/var/lib/kubelet)", NULL },
    { "site", 0, OPTION_SWITCH, offsetof(struct doctor, site), NULL, "Look at a site instead, from here and by a short job there", NULL },
    { "handler", 0, OPTION_STRING, offsetof(struct doctor, handler), "NAME", "--site: the handler that leads to it (the only one elsewhere)", NULL },
    { "plugin", 0, OPTION_STRING, offsetof(struct doctor, plugin), "FILE", "--site: a plugin's configuration instead of a handler", NULL },
    { "timeout", 0, OPTION_DURATION, offsetof(struct doctor, timeout_ns), "TIME", "--site: how long the job may queue and run (10m)", NULL },
    { "output", 'o', OPTION_STRING, offsetof(struct doctor, output), "FORMAT", "--site: table, json or yaml (table)", NULL },
};

static const struct command doctor_command = {
    "doctor", "", "", "Check this machine's set-up and say how to mend it",
    "Run it as the user that serve runs as, on the machine where pods are to run. It changes nothing.\n"
    "The exit status is 1 when something fails, else 0.\n\n"
    "With --site it submits a short job as a pod would be submitted: through a handler of serve's configuration, or on a login node\n"
    "by a plugin's configuration (--plugin). The job looks at its compute node and is deleted, also on Ctrl-C. At the end stands what to\n"
    "put into the configuration. The exit status is 1 when something fails, 2 for a wrong option or configuration, 130 after Ctrl-C.",
    doctor_options, COUNT_OF(doctor_options), 0, 0, false, NULL,
};

static int doctor_run(struct doctor *d)
{
    for (size_t i = 0; i < COUNT_OF(doctor_checks); i++)
        doctor_checks[i](d);
    printf("\n%u ok, %u to look at, %u failed\n", d->counts[FINDING_OK], d->counts[FINDING_WARN], d->counts[FINDING_FAIL]);
    return d->counts[FINDING_FAIL] > 0 ? 1 : 0;
}

int doctor_main(int argc, char **argv)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct doctor d = { .config_path = "", .kubelet_dir = "/var/lib/kubelet", .handler = "", .plugin = "", .output = "table",
                        .timeout_ns = DOCTOR_SITE_NS };
    struct option_result result;
    struct status err = STATUS_INIT;
    const char *no_colour = getenv("NO_COLOR");

    if (!options_parse(&arena, &doctor_command, argc, argv, &d, &result, &err)) {
        fprintf(stderr, "interlink-cri doctor: %s\n", err.message);
        return 2;
    }
    if (result.help) {
        cleanup_buf struct buf usage = BUF_INIT;
        options_usage(&usage, "interlink-cri", &doctor_command);
        fputs(buf_cstr(&usage), stdout);
        return 0;
    }
    log_setup(LOG_ERROR, "doctor");
    d.colour = isatty(STDOUT_FILENO) == 1 && (no_colour == NULL || *no_colour == '\0');
    if (strcmp(d.output, "table") != 0 && strcmp(d.output, "json") != 0 && strcmp(d.output, "yaml") != 0) {
        fprintf(stderr, "interlink-cri doctor: --output %.40s: wanted table, json or yaml\n", d.output);
        return 2;
    }
    int status = d.site ? site_main(&d) : doctor_run(&d);
    if (d.configured)
        config_free(&d.config);
    return status;
}

#undef DOCTOR_WHAT_WIDTH
#undef DOCTOR_SITE_NS
