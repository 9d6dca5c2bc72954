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

/* ---- http/2 ---- */
/* Streams a peer may have open at once: kubelet has one call a pod worker, some hundreds on a big node. */
#define H2_STREAMS_MAX 1000
/* Flow control: what one stream may have under way, and what it costs us when a receiver is paused. 1 MiB carries
 * 50 MB/s over 20 ms of network. */
#define H2_STREAM_WINDOW (1 << 20)
#define H2_CONNECTION_WINDOW (4 << 20)
/* Largest frame taken in: bulk streams need few of them. */
#define H2_FRAME_MAX (256 << 10)
/* One header block, counted as RFC 9113 section 6.5.2 does: tokens and trace headers fit many times over. */
#define H2_HEADERS_MAX (64 << 10)
/* Bytes taken from the socket at once, on the stack. */
#define H2_READ_SIZE (64 << 10)
/* Reads in one event before others get their turn. */
#define H2_READS_PER_EVENT 8
/* Output made ready for one writev, and how much is written in one turn before others get theirs. */
#define H2_STAGED_MAX (256 << 10)
#define H2_WRITE_PER_TURN (2 << 20)
/* A stream's queue of body bytes above which its producer is asked to wait. */
#define H2_SEND_HIGH_WATER (256 << 10)
/* Frames that cost us work and carry nothing (PING, SETTINGS, PRIORITY, empty DATA, resets, unknown ones): how many at once, and how
 * many a second for ever. Requests and body bytes earn some more. */
#define H2_IDLE_FRAMES_BURST 1000
#define H2_IDLE_FRAMES_PER_SECOND 100
/* After the notice that a server goes away, how long to wait for the client's answer before closing. */
#define H2_SHUTDOWN_GRACE_MS 1000

/* ---- rpc ---- */
/* Largest gRPC message taken in: what kubelet's client allows itself (16 MiB). */
#define RPC_MESSAGE_MAX (16u << 20)
/* Memory of one decoded message: repeated fields can take far more room decoded than encoded. */
#define RPC_DECODED_MAX (64u << 20)
/* Messages within messages: ours and CRI's are at most 8 deep; protobuf's own limit is 100. */
#define RPC_NESTING_MAX 64
/* Parts of messages that wait for the rest, and messages that wait for a paused receiver, on one connection. */
#define RPC_CONN_BUFFERED_MAX (64u << 20)
/* Calls that the peer gave up and whose handlers have not ended yet, on one connection. */
#define RPC_ABANDONED_MAX 1000
/* Metadata fields kept of one call. */
#define RPC_METADATA_MAX 64
/* Calls kept for the next ones, and how soon they are given back when a connection falls quiet. */
#define RPC_POOL_MAX 64
#define RPC_TRIM_MS 1000

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

/* ---- interlink ---- */
/* Plugins keep one answer to a status query for 10 s, whichever pods are asked for: asking sooner tells nothing. */
#define INTERLINK_POLL_REMOTE_MS 10500
/* Our own plugin on this machine: while jobs start, and while all of them run. */
#define INTERLINK_POLL_LOCAL_MS 1000
#define INTERLINK_POLL_LOCAL_STEADY_MS 10000
/* Between two queries of a local target, however urgent. */
#define INTERLINK_POLL_LOCAL_GAP_MS 100
/* After a failed query, before the halves of its batch are asked: errors are not cached. */
#define INTERLINK_POLL_SPLIT_MS 500
/* Longest pause between attempts at a target that fails. */
#define INTERLINK_BACKOFF_MAX_MS 60000
/* A pod whose status query makes the plugin fail is asked for alone, this often. */
#define INTERLINK_POISON_RETRY_MS 60000
/* The API server waits 120 s for its plugin; a create that was cut off may come into effect until then. */
#define INTERLINK_CREATE_TIMEOUT_MS 130000
#define INTERLINK_STATUS_TIMEOUT_MS 60000
#define INTERLINK_PING_TIMEOUT_MS 30000 /* 18 s were seen with slurmctld down */
/* Beyond the grace period, for the plugin to tidy up. */
#define INTERLINK_DELETE_TIMEOUT_MS 130000
/* Answers in a row that do not know a job before it counts as gone: the first ones may be older than its create. */
#define INTERLINK_GONE_ANSWERS 3
#define INTERLINK_ANSWER_MAX (16u << 20)
#define INTERLINK_PING_TEXT_MAX 256
#define INTERLINK_TOKEN_MAX (16u << 10) /* JWTs run to a few KiB */
#define INTERLINK_LOG_STREAMS_MAX 256   /* each holds a connection */

/* ---- plugin ---- */
/* A create with its configMaps and secrets: Kubernetes bounds each of them to 1 MiB. */
#define PLUGIN_CREATE_MAX (16u << 20)
/* A status request: whole pods, a few KiB each. */
#define PLUGIN_STATUS_MAX (32u << 20)
#define PLUGIN_REQUEST_MAX (1u << 20)
/* A delete is answered when nothing is left, but never later than the API server waits (120 s). */
#define PLUGIN_DELETE_HOLD_MS 100000
/* Jobs of one plugin at a time: each is a process of ours and a folder. */
#define PLUGIN_JOBS_MAX 4096
#define PLUGIN_DEFAULT_GRACE_SECONDS 30 /* Kubernetes' own */
/* Re-reading a log that is followed. */
#define PLUGIN_FOLLOW_MS 250
/* Kubelet's own default for a node. */
#define PLUGIN_PODS_DEFAULT 110

#endif
