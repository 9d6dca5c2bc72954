/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interlink-cri: a Kubernetes container runtime whose containers run on other computers.
 *
 * This file is the map of the program and its only translation unit: it includes every module in reading order. A folder
 * uses only folders above it; test/layout.py holds that, and that nothing under src/ is missing here. `make amalgamation`
 * writes the same program as one flat file.
 *
 * Start with base/base.h, the vocabulary; then cli/main.c and the role that interests you.
 */

/* Generated from proto/: the messages of CRI, of our agent and of our state records. */
#include "cri.pb-c.c"
#include "agent.pb-c.c"
#include "state.pb-c.c"
#include "health.pb-c.c"
#include "reflection.pb-c.c"
#include "reflection_v1alpha.pb-c.c"

/* base: strings, arenas, lists, time, log, and `struct status`, the one error type. */
#include "base/base.h"
#include "base/status.c"
#include "base/bytes.c"
#include "base/arena.c"
#include "base/strmap.c"
#include "base/clock.c"
#include "base/random.c"
#include "base/log.c"

/* text: JSON, YAML, Kubernetes quantities, CRI log lines. */
#include "text/json.c"
#include "text/json_value.c"
#include "text/json_writer.c"
#include "text/yaml.c"
#include "text/yaml_writer.c"
#include "text/quantity.c"
#include "text/timefmt.c"
#include "text/crilog.c"
#include "text/nearest.c"
#include "text/protojson.c"

/* io: the event loop, child processes, files written atomically, sockets, TLS. */
#include "io/loop.c"
#include "io/child.c"
#include "io/file.c"
#include "io/stream.c"
#include "io/socket.c"

/* http: HTTP/1.1, HTTP/2, WebSocket and SPDY engines; the HTTP client and server on our loop. */
#include "http/h2_memory.c"
#include "http/h2_output.c"
#include "http/h2_session.c"
#include "http/h2.c"

/* rpc: gRPC, whichever end dialled. */
#include "rpc/wire.c"
#include "rpc/decode.c"
#include "rpc/methods.c"
#include "rpc/inbound.c"
#include "rpc/conn.c"
#include "rpc/call.c"
#include "rpc/request.c"
#include "rpc/server.c"
#include "rpc/health.c"
#include "rpc/reflection.c"

/* image: references, registries, blobs, layers. */

/* interlink: the REST contract, both ways. */

/* agent: the pod's pause process inside the job: engines, logs, exec, files. */

/* plugin: the interLink plugin server and its backends. */

/* node: the CRI side: sandboxes, containers, state, relay, services. */

/* cli: options, configuration, ctl, doctor, main. */
