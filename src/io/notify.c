/* SPDX-License-Identifier: Apache-2.0 */
#include "io/notify.h"

#include <unistd.h>

static const char *const notify_variables[] = { "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID" };

/* A path, or "@name" for the abstract namespace, where the first byte is 0 and the length counts (unix(7)). */
static bool notify_set_address(struct notify *n, const char *text)
{
    size_t length = strlen(text);

    if ((*text != '/' && *text != '@') || length < 2) {
        log_warn("NOTIFY_SOCKET \"%.128s\" is neither a path nor @NAME: the service manager is told nothing", text);
        return false;
    }
    if (length >= sizeof n->address.sun_path) {
        log_warn("NOTIFY_SOCKET is longer than the %zu bytes that the kernel takes: the service manager is told nothing",
                 sizeof n->address.sun_path - 1);
        return false;
    }
    n->address = (struct sockaddr_un){ .sun_family = AF_UNIX };
    memcpy(n->address.sun_path, text, length);
    n->address_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (*text == '/'));
    if (*text == '@')
        n->address.sun_path[0] = '\0';
    return true;
}

/* Half of what the manager waits for, as sd_watchdog_enabled(3) advises. */
static int64_t notify_watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    uint64_t value, whom;

    if (usec == NULL)
        return 0;
    if (!parse_u64(usec, INT64_MAX, &value) || value == 0 || (pid != NULL && !parse_u64(pid, INT32_MAX, &whom))) {
        log_warn("WATCHDOG_USEC \"%.32s\" or WATCHDOG_PID \"%.32s\" is no number: the service manager hears no sign of life", usec,
                 pid != NULL ? pid : "");
        return 0;
    }
    if (pid != NULL && whom != (uint64_t)getpid())
        return 0;
    return value >= 2000 ? (int64_t)(value / 2000) : 1;
}

void notify_open(struct notify *n, struct loop *loop)
{
    const char *text = getenv("NOTIFY_SOCKET");

    *n = (struct notify){ .loop = loop, .fd = -1 };
    if (loop != NULL && text != NULL && *text != '\0' && notify_set_address(n, text)) {
        n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (n->fd < 0)
            log_warn("no socket for the service manager: %s", strerror(errno));
        n->watchdog_ms = notify_watchdog_ms();
    }
    for (size_t i = 0; i < COUNT_OF(notify_variables); i++)
        unsetenv(notify_variables[i]);
}

/* 0, or errno. */
static int notify_send(const struct notify *n, const void *bytes, size_t count)
{
    return sendto(n->fd, bytes, count, MSG_NOSIGNAL, (const struct sockaddr *)(const void *)&n->address, n->address_length) < 0
               ? errno
               : 0;
}

static void notify_send_kept(void *arg)
{
    struct notify *n = arg;
    int error = notify_send(n, n->kept.p, n->kept.n);

    if (error == EAGAIN || error == ENOBUFS || error == EINTR) {
        timer_start(n->loop, &n->again, NOTIFY_AGAIN_MS, notify_send_kept, n);
        return;
    }
    if (error != 0)
        log_warn("the service manager could not be told \"%s\": %s", buf_cstr(&n->kept), strerror(error));
    buf_free(&n->kept);
}

static void notify_live(void *arg)
{
    static const char sign[] = "WATCHDOG=1";
    struct notify *n = arg;
    int error = notify_send(n, sign, sizeof sign - 1);

    if (error != 0)
        log_debug("the service manager did not take a sign of life: %s", strerror(error));
    timer_start(n->loop, &n->watchdog, n->watchdog_ms, notify_live, n);
}

void notify_say(struct notify *n, const char *lines)
{
    if (n->fd < 0)
        return;
    if (n->kept.n + strlen(lines) > NOTIFY_KEPT_MAX) {
        log_warn("the service manager takes nothing: it is not told \"%s\"", lines);
        return;
    }
    buf_printf(&n->kept, "%s%s", n->kept.n > 0 ? "\n" : "", lines);
    notify_send_kept(n);
    if (n->watchdog_ms > 0 && !timer_running(&n->watchdog) && str_starts(lines, "READY=1"))
        notify_live(n);
}

void notify_status(struct notify *n, const char *format, ...)
{
    char text[STATUS_MESSAGE_MAX + sizeof "STATUS="] = "STATUS=";
    va_list args;

    va_start(args, format);
    vsnprintf(text + strlen(text), sizeof text - strlen(text), format, args);
    va_end(args);
    text[strcspn(text, "\n")] = '\0';
    notify_say(n, text);
}

void notify_close(struct notify *n)
{
    timer_stop(&n->watchdog);
    timer_stop(&n->again);
    buf_free(&n->kept);
    if (n->fd >= 0)
        close(n->fd);
    n->fd = -1;
}
