/* SPDX-License-Identifier: Apache-2.0 */
/* terminal.h: a container's pseudo-terminal: made inside the container, its master handed to the agent over a socket. */
#ifndef AGENT_TERMINAL_H
#define AGENT_TERMINAL_H

#include "base/base.h"

/* In the process that is to use it, a session leader without terminal: opens /dev/ptmx, makes the other side the
 * controlling terminal and descriptors 0 to 2, and sends the master through socket_fd. False with errno. */
bool terminal_take(int socket_fd, uint32_t width, uint32_t height, uid_t owner);
/* SCM_RIGHTS with one byte. False with errno. */
bool terminal_send(int socket_fd, int master_fd);
/* Blocks until the byte is there, unless the socket is non-blocking. Close-on-exec. -1 with errno. */
int terminal_receive(int socket_fd);
bool terminal_resize(int master_fd, uint32_t width, uint32_t height);

#endif
