/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/terminal.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41) /* Linux 4.13 */
#endif

union terminal_message {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
};

bool terminal_send(int socket_fd, int master_fd)
{
    char byte = 't';
    struct iovec iov = { &byte, 1 };
    union terminal_message control;
    struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space,
                              .msg_controllen = sizeof control.space };

    memset(&control, 0, sizeof control);
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &master_fd, sizeof master_fd);
    return sendmsg(socket_fd, &message, MSG_NOSIGNAL) == 1;
}

int terminal_receive(int socket_fd)
{
    char byte;
    struct iovec iov = { &byte, 1 };
    union terminal_message control;
    struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space,
                              .msg_controllen = sizeof control.space };
    ssize_t n;
    int fd;

    do
        n = recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&message);
    if (n < 0)
        return -1;
    if (c == NULL || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int))) {
        errno = EPROTO;
        return -1;
    }
    memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
}

bool terminal_resize(int master_fd, uint32_t width, uint32_t height)
{
    struct winsize size = { .ws_col = (unsigned short)(width > UINT16_MAX ? UINT16_MAX : width),
                            .ws_row = (unsigned short)(height > UINT16_MAX ? UINT16_MAX : height) };

    return ioctl(master_fd, TIOCSWINSZ, &size) == 0;
}

bool terminal_take(int socket_fd, uint32_t width, uint32_t height, uid_t owner)
{
    struct stat st;
    int unlocked = 0;
    cleanup_close int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);

    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlocked) < 0)
        return false;
    int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        return false;
    /* The container's user must be able to open /dev/tty by name. In a user namespace it is ours already. */
    if (fstat(slave, &st) == 0 && st.st_uid != owner)
        (void)!fchown(slave, owner, (gid_t)-1);
    if (width > 0 || height > 0)
        terminal_resize(slave, width, height);
    bool ok = ioctl(slave, TIOCSCTTY, 0) == 0 && dup2(slave, 0) >= 0 && dup2(slave, 1) >= 0 && dup2(slave, 2) >= 0 &&
              terminal_send(socket_fd, master);
    if (slave > 2)
        close(slave);
    return ok;
}
