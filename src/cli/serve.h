/* SPDX-License-Identifier: Apache-2.0 */
/* serve.h: `interlink-cri serve`: the CRI server. */
#ifndef CLI_SERVE_H
#define CLI_SERVE_H

#include "base/base.h"

/* argv[0] is the verb. Returns the exit status. */
int serve_main(int argc, char **argv);

#endif
