/* SPDX-License-Identifier: Apache-2.0 */
#include "node/signals.h"

#include <signal.h>
#include <strings.h>

/* As moby/sys/signal has them. */
static const struct {
    const char *name;
    int number;
} signals_table[] = {
    { "ABRT", SIGABRT }, { "ALRM", SIGALRM }, { "BUS", SIGBUS },   { "CHLD", SIGCHLD }, { "CLD", SIGCHLD },
    { "CONT", SIGCONT }, { "FPE", SIGFPE },   { "HUP", SIGHUP },   { "ILL", SIGILL },   { "INT", SIGINT },
    { "IO", SIGIO },     { "IOT", SIGIOT },   { "KILL", SIGKILL }, { "PIPE", SIGPIPE }, { "POLL", SIGPOLL },
    { "PROF", SIGPROF }, { "PWR", SIGPWR },   { "QUIT", SIGQUIT }, { "SEGV", SIGSEGV }, { "STKFLT", SIGSTKFLT },
    { "STOP", SIGSTOP }, { "SYS", SIGSYS },   { "TERM", SIGTERM }, { "TRAP", SIGTRAP }, { "TSTP", SIGTSTP },
    { "TTIN", SIGTTIN }, { "TTOU", SIGTTOU }, { "URG", SIGURG },   { "USR1", SIGUSR1 }, { "USR2", SIGUSR2 },
    { "VTALRM", SIGVTALRM }, { "WINCH", SIGWINCH }, { "XCPU", SIGXCPU }, { "XFSZ", SIGXFSZ },
};

/* The kernel's real-time signals as programs see them: libc keeps the first two or three for itself. */
#define SIGNALS_RTMIN 34
#define SIGNALS_RTMAX 64

int signal_parse(const char *name)
{
    uint64_t number;

    if (parse_u64(name, SIGNALS_RTMAX, &number))
        return (int)number;
    if (strncasecmp(name, "SIG", 3) == 0)
        name += 3;
    for (size_t i = 0; i < COUNT_OF(signals_table); i++)
        if (strcasecmp(name, signals_table[i].name) == 0)
            return signals_table[i].number;
    bool from_min = strncasecmp(name, "RTMIN", 5) == 0, from_max = strncasecmp(name, "RTMAX", 5) == 0;
    if (!from_min && !from_max)
        return 0;
    if (name[5] == '\0')
        return from_min ? SIGNALS_RTMIN : SIGNALS_RTMAX;
    /* CRI's enum spells RTMIN+3 "RTMINPLUS3" and RTMAX-3 "RTMAXMINUS3". */
    const char *digits = name + 6;
    if (strncasecmp(name + 5, from_min ? "PLUS" : "MINUS", from_min ? 4 : 5) == 0)
        digits = name + 5 + (from_min ? 4 : 5);
    else if (name[5] != (from_min ? '+' : '-'))
        return 0;
    if (!parse_u64(digits, SIGNALS_RTMAX - SIGNALS_RTMIN, &number))
        return 0;
    return from_min ? SIGNALS_RTMIN + (int)number : SIGNALS_RTMAX - (int)number;
}
