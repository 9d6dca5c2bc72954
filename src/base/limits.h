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

/* ---- tls ---- */
/* From the first byte to the end of a handshake: two round trips and one signature, on a slow link. */
#define TLS_HANDSHAKE_TIMEOUT_MS 15000
/* A CA bundle, certificate chain or key file: distributions' bundles are about 220 KiB. */
#define TLS_PEM_MAX (4u << 20)
/* Certificates in a chain of ours, and in one that a peer sends. */
#define TLS_CHAIN_MAX 16
/* One certificate; RSA-4096 with many names is about 8 KiB. */
#define TLS_CERTIFICATE_MAX (64u << 10)

/* ---- http ---- */
/* Request or status line and headers: tokens and registry redirects run to several KiB; browsers and nginx take 8-32. */
#define HTTP_HEAD_MAX (32u << 10)
#define HTTP_HEADERS_MAX 128
/* Connections of one server at a time. */
#define HTTP_CONNECTIONS_MAX 512
/* A peer that sends its head by drips (slow loris) is closed after this; an honest one needs one packet. */
#define HTTP_HEAD_TIMEOUT_MS 10000
#define HTTP_IDLE_TIMEOUT_MS 90000 /* Go's client keeps idle connections as long */
#define HTTP_BODY_TIMEOUT_MS 30000
#define HTTP_WRITE_TIMEOUT_MS 60000
/* Queue of a streamed reply above which its sender is told to stop: two TLS records. */
#define HTTP_SEND_HIGH_WATER (32u << 10)
/* Client: connections at a time; a registry serves blobs well with a few. */
#define HTTP_CLIENT_CONNECTIONS_MAX 32
#define HTTP_CLIENT_HOST_CONNECTIONS_MAX 8
#define HTTP_CLIENT_IDLE_MS 30000 /* then kept connections and libcurl's memory go */
#define HTTP_CONNECT_TIMEOUT_MS 15000
#define HTTP_CLIENT_BODY_MAX (16u << 20)
/* The body of an answer that is an error, kept for its text. */
#define HTTP_ERROR_BODY_MAX (16u << 10)
#define HTTP_URL_MAX 8192

/* ---- relay ---- */
/* A dial: name, proxy, TLS and upgrade; a login node under load may need some seconds for each. */
#define DIAL_TIMEOUT_MS 45000
/* Connections that have not proved who they are: many agents redial at once when the node comes back. */
#define RELAY_PENDING_MAX 1024
#define RELAY_HEAD_TIMEOUT_MS 15000

#endif
