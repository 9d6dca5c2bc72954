/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/doctor.h"

#include "cli/options.h"

#include <unistd.h>

/* Width of the column that says what was looked at. */
#define DOCTOR_WHAT_WIDTH 16

void doctor_say(struct doctor *d, enum doctor_result result, const char *what, const char *mend, const char *format, ...)
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
    doctor_check_gate, doctor_check_volumes, doctor_check_cluster, doctor_check_kubelet, doctor_check_hugepages, doctor_check_kernel,
    doctor_check_namespaces, doctor_check_ids, doctor_check_overlay, doctor_check_cgroups, doctor_check_seccomp,
    doctor_check_clock,
};

static const struct option_spec doctor_options[] = {
    { "config", 'c', OPTION_STRING, offsetof(struct doctor, config_path), "FILE", "Configuration of serve (YAML)", NULL },
    { "kubelet-dir", 0, OPTION_STRING, offsetof(struct doctor, kubelet_dir), "DIR", "kubelet's --root-dir (/var/lib/kubelet)", NULL },
};

static const struct command doctor_command = {
    "doctor", "", "", "Check this machine's set-up and say how to mend it",
    "Run it as the user that serve runs as, on the machine where pods are to run. It changes nothing.\n"
    "The exit status is 1 when something fails, else 0.",
    doctor_options, COUNT_OF(doctor_options), 0, 0, false, NULL,
};

static int doctor_run(struct doctor *d)
{
    for (size_t i = 0; i < COUNT_OF(doctor_checks); i++)
        doctor_checks[i](d);
    printf("\n%u ok, %u to look at, %u failed\n", d->counts[DOCTOR_OK], d->counts[DOCTOR_WARN], d->counts[DOCTOR_FAIL]);
    return d->counts[DOCTOR_FAIL] > 0 ? 1 : 0;
}

int doctor_main(int argc, char **argv)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct doctor d = { .config_path = "", .kubelet_dir = "/var/lib/kubelet" };
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
    int status = doctor_run(&d);
    if (d.configured)
        config_free(&d.config);
    return status;
}

#undef DOCTOR_WHAT_WIDTH
