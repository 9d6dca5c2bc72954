/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_signal.h"

#include <signal.h>
#include <strings.h>

/* Real-time signals as images mean them: Docker counts from 34, where glibc's begin, whatever libc counts them here. */
#define AGENT_SIGNAL_RTMIN 34
#define AGENT_SIGNAL_RTMAX 64

static const struct {
    const char *name;
    int number;
} agent_signal_names[] = {
    { "ABRT", SIGABRT }, { "ALRM", SIGALRM }, { "BUS", SIGBUS },       { "CHLD", SIGCHLD },     { "CLD", SIGCHLD },
    { "CONT", SIGCONT }, { "FPE", SIGFPE },   { "HUP", SIGHUP },       { "ILL", SIGILL },       { "INT", SIGINT },
    { "IO", SIGIO },     { "IOT", SIGABRT },  { "KILL", SIGKILL },     { "PIPE", SIGPIPE },     { "POLL", SIGPOLL },
    { "PROF", SIGPROF }, { "PWR", SIGPWR },   { "QUIT", SIGQUIT },     { "SEGV", SIGSEGV },     { "STKFLT", SIGSTKFLT },
    { "STOP", SIGSTOP }, { "SYS", SIGSYS },   { "TERM", SIGTERM },     { "TRAP", SIGTRAP },     { "TSTP", SIGTSTP },
    { "TTIN", SIGTTIN }, { "TTOU", SIGTTOU }, { "URG", SIGURG },       { "USR1", SIGUSR1 },     { "USR2", SIGUSR2 },
    { "VTALRM", SIGVTALRM }, { "WINCH", SIGWINCH }, { "XCPU", SIGXCPU }, { "XFSZ", SIGXFSZ },
};

/* What follows RTMIN or RTMAX: nothing, or a distance with its sign as a character or as a word. */
static int agent_signal_real_time(const char *rest, int base, const char *sign, const char *word, int direction)
{
    uint64_t distance = 0;

    if (*rest != '\0') {
        if (strncasecmp(rest, word, strlen(word)) == 0)
            rest += strlen(word);
        else if (*rest == *sign)
            rest++;
        else
            return 0;
        if (!parse_u64(rest, AGENT_SIGNAL_RTMAX - AGENT_SIGNAL_RTMIN, &distance))
            return 0;
    }
    return base + direction * (int)distance;
}

int agent_signal_number(const char *name)
{
    uint64_t number;

    if (parse_u64(name, AGENT_SIGNAL_RTMAX, &number))
        return (int)number;
    if (strncasecmp(name, "SIG", 3) == 0)
        name += 3;
    if (strncasecmp(name, "RTMIN", 5) == 0)
        return agent_signal_real_time(name + 5, AGENT_SIGNAL_RTMIN, "+", "PLUS", 1);
    if (strncasecmp(name, "RTMAX", 5) == 0)
        return agent_signal_real_time(name + 5, AGENT_SIGNAL_RTMAX, "-", "MINUS", -1);
    for (size_t i = 0; i < COUNT_OF(agent_signal_names); i++)
        if (strcasecmp(name, agent_signal_names[i].name) == 0)
            return agent_signal_names[i].number;
    return 0;
}

int agent_signal_stop(Runtime__V1__Signal wanted, const char *image_signal)
{
    const ProtobufCEnumValue *value =
        protobuf_c_enum_descriptor_get_value(&runtime__v1__signal__descriptor, (int)wanted);
    int number = 0;

    /* The contract's names are SIGNAL_SIGTERM and so on; the first value means "the image's". */
    if (value != NULL && str_starts(value->name, "SIGNAL_SIG"))
        number = agent_signal_number(value->name + strlen("SIGNAL_"));
    if (number == 0)
        number = agent_signal_number(image_signal);
    return number > 0 ? number : SIGTERM;
}

Runtime__V1__Signal agent_signal_cri(int number)
{
    const ProtobufCEnumDescriptor *all = &runtime__v1__signal__descriptor;

    for (unsigned i = 0; i < all->n_values; i++) {
        const char *name = all->values[i].name;
        if (number > 0 && str_starts(name, "SIGNAL_SIG") && agent_signal_number(name + strlen("SIGNAL_")) == number)
            return (Runtime__V1__Signal)all->values[i].value;
    }
    return RUNTIME__V1__SIGNAL__SIGNAL_RUNTIME_DEFAULT;
}

#undef AGENT_SIGNAL_RTMIN
#undef AGENT_SIGNAL_RTMAX
