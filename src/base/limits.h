/* SPDX-License-Identifier: Apache-2.0 */
/* limits.h: every bound in the program, with its reason. */
#ifndef BASE_LIMITS_H
#define BASE_LIMITS_H

/* ---- base ---- */
/* One status message: kubelet shows it in an event, which Kubernetes cuts at 1,024 bytes. */
#define STATUS_MESSAGE_MAX 1024
/* One log line; longer ones are cut and marked. */
#define LOG_LINE_MAX 2048
/* Arena chunk: most calls fit one. */
#define ARENA_CHUNK_SIZE 4096

/* ---- io ---- */
/* Events taken from epoll in one turn: small keeps timers punctual. */
#define LOOP_EVENTS_PER_TURN 64
/* Output a worker process may hand back through its pipe. */
#define WORKER_OUTPUT_MAX (1u << 20)

/* ---- rpc ---- */
/* Largest gRPC message taken in: what kubelet's client allows itself (16 MiB). */
#define RPC_MESSAGE_MAX (16u << 20)

/* ---- text ---- */
/* One JSON or YAML text: twice the largest REST body that a batch of whole pods makes. */
#define JSON_SIZE_MAX (32u << 20)
/* Nesting: a v1.Pod needs 12. */
#define JSON_DEPTH_MAX 64
/* Nodes of one tree (about 90 bytes each): a v1.Pod has about 1,000. */
#define JSON_NODES_MAX (1u << 20)
/* Text of one CRI log line; longer ones are cut into parts: containerd's value. */
#define CRILOG_TEXT_MAX (16u << 10)
/* One line of a log file being read; other runtimes may write longer ones than we do. Longer still is skipped. */
#define CRILOG_READ_LINE_MAX (1u << 20)

#endif
