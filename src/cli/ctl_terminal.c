/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/ctl_stream.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* The one terminal of the process. Read by handlers of fatal signals, too, which is why it is here and not in struct ctl. */
static struct {
    struct termios saved;
    int fd;
    volatile sig_atomic_t raw;
} ctl_terminal;

void ctl_terminal_restore(void)
{
    if (!ctl_terminal.raw)
        return;
    ctl_terminal.raw = 0;
    tcsetattr(ctl_terminal.fd, TCSANOW, &ctl_terminal.saved);
}

/* tcsetattr(3) is async-signal-safe. The handler is gone by now (SA_RESETHAND), so that the signal does what it would. */
static void ctl_terminal_on_fatal(int signal)
{
    ctl_terminal_restore();
    raise(signal);
}

bool ctl_terminal_raw(int fd, struct status *err)
{
    /* Those that end a program. SIGINT and SIGTERM come here only while somebody waits outside of the loop. */
    static const int fatal[] = { SIGABRT, SIGALRM, SIGBUS,  SIGFPE,  SIGHUP,  SIGILL,  SIGINT,    SIGIO,   SIGPROF, SIGQUIT,
                                 SIGSEGV, SIGSYS,  SIGTERM, SIGTRAP, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ };
    static bool prepared;
    struct sigaction action = { .sa_handler = ctl_terminal_on_fatal, .sa_flags = (int)SA_RESETHAND };
    struct termios raw;

    if (tcgetattr(fd, &raw) < 0)
        return status_errno(err, "cannot read the terminal's settings");
    ctl_terminal.saved = raw;
    ctl_terminal.fd = fd;
    for (size_t i = 0; !prepared && i < COUNT_OF(fatal); i++)
        sigaction(fatal[i], &action, NULL);
    if (!prepared)
        atexit(ctl_terminal_restore);
    prepared = true;
    cfmakeraw(&raw);
    ctl_terminal.raw = 1;
    if (tcsetattr(fd, TCSANOW, &raw) == 0)
        return true;
    ctl_terminal.raw = 0;
    return status_errno(err, "cannot change the terminal's settings");
}

bool ctl_terminal_size(int fd, unsigned *width, unsigned *height)
{
    struct winsize size;

    if (ioctl(fd, TIOCGWINSZ, &size) < 0 || size.ws_col == 0 || size.ws_row == 0)
        return false;
    *width = size.ws_col;
    *height = size.ws_row;
    return true;
}
