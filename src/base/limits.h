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
/* Out of descriptors or memory, a listener rests: the connection that it cannot take would wake it all the time. */
#define LISTENER_REST_MS 100
/* How far back a long turn is remembered: about two scrapes of a monitoring system. */
#define LOOP_LAG_WINDOW_MS 30000
/* Output a worker process may hand back through its pipe. */
#define WORKER_OUTPUT_MAX (1u << 20)
/* A service manager whose socket is full is tried again after this; it has many services and reads within milliseconds. */
#define NOTIFY_AGAIN_MS 100
/* What is kept for it meanwhile: some messages. */
#define NOTIFY_KEPT_MAX 4096
/* Ranges of a user namespace's map: a user has one or two in /etc/subuid, a pod one. */
#define USERNS_RANGES_MAX 16

/* For one address to answer: within one machine that is at once, and kubelet waits for 30 s. */
#define TCP_DIAL_CONNECT_MS 10000
#define TCP_DIAL_ADDRESSES_MAX 8
/* One read from such a connection. */
#define TCP_DIAL_READ_SIZE (64u << 10)

/* ---- http/2 ---- */
/* Streams a peer may have open at once: kubelet has one call a pod worker, some hundreds on a big node; a pod's agent serves
 * all the streams of the next section but one and has room for calls besides. */
#define H2_STREAMS_MAX 1200
/* Flow control: what one stream may have under way, and what it costs us when a receiver is paused: this from the start and
 * whatever others do, ... */
#define H2_STREAM_WINDOW_FIRST (32 << 10)
/* ... and more as it is made use of, up to this: 1 MiB carries 50 MB/s over 20 ms of network; ... */
#define H2_STREAM_WINDOW (1 << 20)
/* ... but what all streams have beyond their first windows comes out of this. */
#define H2_WINDOWS_MAX (32 << 20)
/* The connection's own window is given back as bytes come in: it bounds what is on the way, and no stream can use it up. */
#define H2_CONNECTION_WINDOW (4 << 20)
/* Largest frame taken in: bulk streams need few of them. */
#define H2_FRAME_MAX (256 << 10)
/* One header block, counted as RFC 9113 section 6.5.2 does: tokens and trace headers fit many times over. */
#define H2_HEADERS_MAX (64 << 10)
/* Bytes taken from the socket at once, on the stack. */
#define H2_READ_SIZE (64 << 10)
/* Reads in one event before others get their turn. */
#define H2_READS_PER_EVENT 8
/* How much is written in one turn before others get theirs. */
#define H2_WRITE_PER_TURN (2 << 20)
/* A stream's queue of body bytes above which its producer is asked to wait; with many queues, or long ones, less: they share
 * what is beyond the least of it. */
#define H2_SEND_HIGH_WATER (256 << 10)
#define H2_SEND_HIGH_WATER_LEAST (16 << 10)
#define H2_QUEUES_MAX (16 << 20)
/* Frames that cost us work and carry nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, resets): how many at
 * once, and how many a second for ever. Requests and body bytes earn some more. */
#define H2_IDLE_FRAMES_BURST 1000
#define H2_IDLE_FRAMES_PER_SECOND 100
/* A connection that was quiet for so long (twice at most) gives back what it keeps for speed. */
#define H2_TRIM_MS 1000
/* After the notice that a server goes away, how long to wait for the client's answer before closing. */
#define H2_SHUTDOWN_GRACE_MS 1000

/* ---- rpc ---- */
/* Largest gRPC message taken in: what kubelet's client allows itself (16 MiB). */
#define RPC_MESSAGE_MAX (16u << 20)
/* Memory of one decoded message: repeated fields can take far more room decoded than encoded. */
#define RPC_DECODED_MAX (64u << 20)
/* Messages within messages: ours and CRI's are at most 8 deep; protobuf's own limit is 100. */
#define RPC_NESTING_MAX 64
/* Parts of messages that wait for the rest, on one connection, where they are longer than a stream's first window. */
#define RPC_CONN_UNFINISHED_MAX (64u << 20)
/* Calls that the peer gave up and whose handlers have not ended yet, on one connection. */
#define RPC_ABANDONED_MAX 1000
/* Metadata fields kept of one call. */
#define RPC_METADATA_MAX 64
/* Calls kept for the next ones, until the connection falls quiet. */
#define RPC_POOL_MAX 64

/* ---- image ---- */
/* What registries themselves allow for a manifest; a configuration with a long history is about 100 KiB. */
#define IMAGE_MANIFEST_SIZE_MAX (4 << 20)
#define IMAGE_CONFIG_SIZE_MAX (4 << 20)
/* Docker allows 127 layers, overlayfs 500. */
#define IMAGE_LAYERS_MAX 256
/* Entries of an index (one a platform, twice that with attestations) and how deep indexes may nest. */
#define IMAGE_INDEX_ENTRIES_MAX 1024
#define IMAGE_INDEX_DEPTH_MAX 3
#define IMAGE_BLOB_SIZE_MAX (1ull << 40)
/* One unpacked layer: frameworks for machine learning come in layers of tens of GiB; conda trees have half a million files. */
#define IMAGE_LAYER_BYTES_MAX (256ull << 30)
#define IMAGE_LAYER_ENTRIES_MAX (4ull << 20)
/* Plain to compressed: honest layers stay below 20; files full of zeros reach 1,030 with gzip, so smaller ones may be of any. */
#define IMAGE_LAYER_RATIO_MAX 200
#define IMAGE_RATIO_FREE_BYTES (1ull << 30)
/* Folders in folders: two descriptors each while a tree is copied or removed, of the 1,024 that a process has. */
#define IMAGE_DEPTH_MAX 200
/* Folders' times are set last; until then their names are kept in memory. */
#define IMAGE_FOLDERS_BYTES_MAX (256u << 20)
/* Memory of a child that unpacks: zstd's largest window is 128 MiB. */
#define IMAGE_UNPACK_MEMORY_MAX (1ull << 30)
/* Links followed on one path: the kernel's own bound. */
#define IMAGE_LINKS_MAX 40
/* Pulls and loads at a time, more wait; downloads and unpackings of one of them. Registries slow a client down that opens more. */
#define IMAGE_JOBS_MAX 4
#define IMAGE_FETCHES_MAX 3
#define IMAGE_UNPACKS_MAX 2
/* What a child may tell us in one message: the digests of an image, twice over. */
#define IMAGE_JOB_MESSAGE_MAX (1u << 20)
/* Blobs of a failed pull wait this long for the next try; kubelet's longest back-off is 5 minutes. */
#define IMAGE_GARBAGE_KEEP_MS 600000
/* Digits that stand for an image's id: what Docker shows. */
#define IMAGE_ID_DIGITS_MIN 12
#define IMAGE_RECORD_SIZE_MAX (1 << 20)
#define IMAGE_LOAD_ENTRIES_MAX 65536 /* of an archive with images: three a layer */
#define IMAGE_NAMES_MAX 1024 /* of one image */
#define IMAGE_PROGRESS_MS 100
/* Asking a registry: tries of one server before the next is asked, the wait between them, and the longest that a server may
 * ask for with Retry-After. */
#define REGISTRY_TRIES_MAX 5
#define REGISTRY_MIRROR_TRIES_MAX 2
#define REGISTRY_BACKOFF_MS 500
#define REGISTRY_BACKOFF_MAX_MS 30000
#define REGISTRY_RETRY_AFTER_MAX_MS 300000
#define REGISTRY_MANIFEST_TIMEOUT_MS 60000
#define REGISTRY_LOW_SPEED_MS 60000 /* a blob of which nothing came for so long is asked for again */
#define REGISTRY_REDIRECTS_MAX 5
/* A broken download starts anew with its count of tries when it has come forward by this much. */
#define REGISTRY_PROGRESS_BYTES (64u << 10)
#define REGISTRY_TOKEN_MAX (64u << 10)
#define REGISTRY_HOSTS_MAX 32 /* servers for one registry */
#define HOSTS_TOML_SIZE_MAX (256 << 10)
#define HOSTS_TOML_DEPTH_MAX 16
#define HOSTS_TOML_NODES_MAX 2048 /* keys are searched one after the other */

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
/* Output of a connection with many streams made ready for one writev. */
#define HTTP_OUTPUT_STAGED_MAX (256 << 10)
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

/* ---- channels: SPDY and WebSocket ---- */
/* What a stream may have under way, and what it costs us when it is paused; kubelet's peer is on the same machine. */
#define SPDY_STREAM_WINDOW (64 << 10)
/* The connection's own window is given back as bytes come in: it bounds what is on the way, and no stream can use it up. */
#define SPDY_SESSION_WINDOW (4 << 20)
/* A peer that keeps to no windows is not read any more once a paused channel holds so much; with many of them less, but never
 * less than a window: they share what is beyond that. */
#define CHANNEL_HELD_MAX (512 << 10)
#define CHANNELS_HELD_MAX (32 << 20)
/* One header block, as it comes and inflated, and its headers: Kubernetes' have about five, of 100 bytes. */
#define SPDY_CONTROL_MAX (16 << 10)
#define SPDY_HEADERS_MAX (16 << 10)
#define SPDY_HEADER_COUNT_MAX 64
/* Channels that a peer may have open at once: two for each connection of a port forward. */
#define CHANNELS_MAX 1000
/* A channel's queue above which its sender is told to wait; with many queues, or long ones, less: they share what is beyond
 * the least of it. */
#define CHANNEL_SEND_HIGH_WATER (256 << 10)
#define CHANNEL_SEND_HIGH_WATER_LEAST (16 << 10)
#define CHANNELS_QUEUED_MAX (32 << 20)
/* Payload of one frame: another channel waits for no more than this. */
#define CHANNEL_FRAME_MAX (64 << 10)
/* Taken from the socket at once, on the stack; how often in one event; and written in one turn before others get theirs. */
#define CHANNEL_READ_SIZE (64 << 10)
#define CHANNEL_READS_PER_EVENT 8
#define CHANNEL_WRITE_PER_TURN (2 << 20)
/* Answers (pongs, resets, replies) to a peer that does not read them: then it is not read either. */
#define CHANNEL_ANSWERS_MAX (64 << 10)
/* A peer that ended while one of its channels is paused: what it sent is still to be heard, unless so long none of it is. */
#define CHANNEL_GONE_MS 3000
/* From our last word to the peer's end: a proxy or two pass it on, and a slow reader has some time. */
#define CHANNEL_CLOSE_MS 30000
/* A connection that was quiet for so long gives back what it keeps for speed. */
#define CHANNEL_TRIM_MS 1000

/* ---- relay ---- */
/* A dial: name, proxy, TLS and upgrade; a login node under load may need some seconds for each. */
#define DIAL_TIMEOUT_MS 45000
/* Connections that have not proved who they are: many agents redial at once when the node comes back, each for a moment. With
 * TLS each takes 37 KiB. */
#define RELAY_PENDING_MAX 256
#define RELAY_HEAD_TIMEOUT_MS 15000

/* ---- calls of agents that do not come ---- */
/* An agent calls within a second of its job's start: after this much silence there is something to say. Then again, when attempts
 * that got no answer have had their time, and from time to time. */
#define CALL_IN_SILENCE_MS 5000
#define CALL_IN_SECOND_MS 15000
#define CALL_IN_AGAIN_MS 60000
/* For agents that can call by themselves, before a command is run. */
#define CALL_IN_PATIENCE_MS 2000
/* Between commands that led nowhere; a command that led nowhere by then (ssh through several machines takes some seconds). */
#define CALL_IN_PAUSE_MIN_MS 1000
#define CALL_IN_PAUSE_MAX_MS 30000
#define CALL_IN_COMMAND_MS 45000
/* At a time; each is a process for as long as its pod lives. */
#define CALL_IN_COMMANDS_MAX 1024
/* Of what a command and an agent say: a line, and lines of a command that are logged. */
#define CALL_IN_WORDS_MAX 300
#define CALL_IN_LINES_MAX 20

/* ---- interlink ---- */
/* Plugins keep one answer to a status query for 10 s, whichever pods are asked for: asking sooner tells nothing. */
#define INTERLINK_POLL_REMOTE_MS 10500
/* After a job was submitted, when nothing was asked lately: a batch system has looked at it by then. */
#define INTERLINK_POLL_FIRST_MS 2000
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
/* The stock Slurm plugin reports a job whose nodes are being booted as ended with 0. That lasts up to Slurm's ResumeTimeout, by
 * default 60 s. */
#define INTERLINK_END_DOUBT_MS 70000
/* Creates and deletes under way at one target; more wait here, where their time does not run and nothing else waits behind them: a
 * site takes some creates at a time, and a delete may last as long as a pod's grace period. */
#define INTERLINK_CREATES_MAX 8
#define INTERLINK_DELETES_MAX 64
#define INTERLINK_CONNECTIONS_MAX (INTERLINK_CREATES_MAX + INTERLINK_DELETES_MAX + 8)
#define INTERLINK_ANSWER_MAX (16u << 20)
/* The longest time that a Retry-After of a target is heeded for: a pod whose deletion waits for it keeps its job so long. */
#define INTERLINK_HOLD_MAX_MS 300000
#define INTERLINK_PING_TEXT_MAX 256
#define INTERLINK_TOKEN_MAX (16u << 10) /* JWTs run to a few KiB */
#define INTERLINK_LOG_STREAMS_MAX 256   /* each holds a connection */
/* What a batch script writes before its containers: what a site's profile and modules have to say, at most. */
#define LOG_STRIP_HEAD_MAX (64u << 10)
/* bash's `time`: three lines of some 15 bytes. */
#define LOG_STRIP_TAIL_MAX 128u

/* The end of the log of a job that ended before its agent called in, as it is told in an event of at most 1 KiB. */
#define LAST_WORDS_SHOWN 400
#define LAST_WORDS_READ_MAX (1u << 20)
#define LAST_WORDS_TIMEOUT_MS 3000

/* ---- kube ---- */
/* A kubeconfig with its certificates inline; kubectl's with many clusters run to some hundred KiB. */
#define KUBECONFIG_MAX (1u << 20)
#define KUBE_TOKEN_MAX (16u << 10) /* JWTs run to a few KiB */
/* One call: a healthy API server answers within some ms, and gives up itself after 60 s. */
#define KUBE_CALL_TIMEOUT_MS 15000
/* One object: etcd takes 1.5 MiB, and JSON is longer than what it stores. */
#define KUBE_ANSWER_MAX (8u << 20)
/* How long RunPodSandbox waits to hear how large the pod is. */
#define KUBE_POD_WAIT_MS 2000
/* How often each site is asked what it has: interLink's own virtual kubelet does so every 30 s. */
#define NODE_OBJECT_PING_MS 30000
/* A watch of the Node: the API server ends it after so many seconds; a connection that died in silence is noticed then. */
#define NODE_OBJECT_WATCH_SECONDS 120
/* Longest pause between attempts at an API server that fails (or a kubeconfig that is not there yet), and before taints that were forbidden are tried again. */
#define NODE_OBJECT_BACKOFF_MAX_MS 30000
#define NODE_OBJECT_FORBIDDEN_MS 600000
/* Taints of one site. */
#define SITE_TAINTS_MAX 32
/* Kinds of resources of one pod: cpu, memory, ephemeral-storage, two or three sizes of huge pages, devices. */
#define POD_SIZE_RESOURCES_MAX 64

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
/* Images of pods from manifests that stay although no pod uses them: the next pod of the same kind starts without a pull. */
#define PLUGIN_IMAGES_KEPT 32
/* Kubelet's own default for a node. */
#define PLUGIN_PODS_DEFAULT 110

/* ---- plugin: the slurm backend ---- */
/* squeue while something changes; doubled after each answer without news, up to the other: sites ask for no more than one query
 * a minute. */
#define SLURM_POLL_MIN_MS 1000
#define SLURM_POLL_MAX_MS 60000
/* A status request makes an answer older than this be asked for anew, as long as something changed lately. */
#define SLURM_POLL_DEMAND_MS 5000
#define SLURM_POLL_LATELY_MS 300000
/* The order of the queue and the nodes are larger answers, and change less. */
#define SLURM_PLACES_MS 60000
/* Whether a job has begun or ended is seen by one stat(2), at most this often however many ask. */
#define SLURM_CHANGED_MS 200
#define SLURM_NODES_MS 60000
/* Before its time limit a job is told; Slurm counts this to within 60 s. */
#define SLURM_NOTICE_SECONDS 30
/* The agent's own memory, beside the containers'. */
#define SLURM_AGENT_MEMORY (32 << 20)
/* Of a pod of which nothing is known, where the stock Slurm plugin would ask for 1 MB. */
#define PRE_EXEC_MEMORY (INT64_C(1) << 30)
/* Slurm's programs at a time: more would only queue in the controller. */
#define SLURM_COMMANDS_MAX 4
/* Slurm's own retries take up to 100 s (MessageTimeout times its attempts). */
#define SLURM_COMMAND_TIMEOUT_MS 120000
/* squeue of 4096 jobs has 1 MiB; a whole cluster's queue for the order of it, some more. */
#define SLURM_OUTPUT_MAX (16u << 20)
#define SLURM_ERRORS_MAX (16u << 10)
/* A submission of which nobody knows whether it was taken shows up within this time, or never. */
#define SLURM_GHOST_MS 60000
/* The same when nothing speaks for a time-out: only that this program died meanwhile. */
#define SLURM_GHOST_RESTART_MS 5000
/* After the grace period the agent is told to kill what is left; then the job goes without asking. */
#define SLURM_ORDERLY_KILL_MS 5000
/* Between attempts to get rid of a job. */
#define SLURM_CANCEL_RETRY_MS 10000
/* A job may hang in COMPLETING when its node is gone; a pod's removal does not wait for that. */
#define SLURM_COMPLETING_MS 60000
/* Who cancelled a job is known to the accounting database a moment later than that it was. */
#define SLURM_ACCOUNTING_MS 2000

/* ---- agent ---- */
/* A container's output that the node has not stored yet: two seconds of a chatty job, and enough in flight for a slow link. */
#define AGENT_LOG_SIZE (2u << 20)
/* One message of it: large enough to cost little, small enough to interleave with an exec on the same connection. */
#define AGENT_LOG_CHUNK_MAX (256u << 10)
/* One read from a container's pipe, and the pipe itself once it was found full (1 MiB is what any user may ask for). */
#define AGENT_LOG_READ_SIZE (256u << 10)
#define AGENT_PIPE_SIZE (1 << 20)
/* Taken from one pipe before others get their turn. */
#define AGENT_LOG_TURN_MAX (1u << 20)
/* A writer that is that busy and whose pieces are smaller than this is read every so often only: its enlarged pipe holds what
 * 500 MB/s make meanwhile. */
#define AGENT_LOG_GATHER_SIZE (32u << 10)
#define AGENT_LOG_GATHER_MS 2
/* How long a container with a full log waits for a node that is away, before its oldest lines are dropped. */
#define LOG_STALL_GRACE_MS 30000
/* Buffers of a log that fell quiet are given back. */
#define AGENT_LOG_TRIM_MS 1000
/* After a process has ended, its descendants may hold its pipes open: then this much time for the rest of the output. */
#define AGENT_DRAIN_MS 1000
/* At the end of the pod, for the node to take the last of the logs. */
#define AGENT_HANDOVER_MS 2000
/* ... and then for its containers to be unmounted and removed. */
#define AGENT_REMOVE_MS 10000
/* Between TERM and KILL when the job is ended by a signal and nobody says more: Slurm's KillWait is 30 s. */
#define AGENT_TERM_GRACE_MS 25000
/* A second TERM within this time is an echo of the first; later, an order to kill. */
#define AGENT_TERM_AGAIN_MS 500
/* How long an attached client may take nothing while its output queue is full, before it is sent away: the container and its
 * log wait for it meanwhile. */
#define AGENT_ATTACH_STALL_MS 30000
/* Containers of a pod, ended ones included, and processes in them by exec. */
#define AGENT_CONTAINERS_MAX 256
#define AGENT_EXECS_MAX 128
/* Connections to a pod's ports at a time: each is a descriptor, of which a job often has 1,024 only. */
#define AGENT_FORWARDS_MAX 512
/* How often the kernel is asked which ports are listened on: a container that has just started listens soon, and a probe or a
 * client that came too early is refused meanwhile. What is not the pod's own is looked at again after a while: a socket may
 * change hands. */
#define AGENT_PORTS_QUICK_MS 200
#define AGENT_PORTS_QUICK_FOR_MS 15000
#define AGENT_PORTS_MS 1000
#define AGENT_PORTS_FOREIGN_MS 30000
/* Ports of a pod that are told, and sockets of the whole machine that are looked at. */
#define AGENT_PORTS_MAX 1024
#define AGENT_PORTS_SOCKETS_MAX 8192
/* Open files of one process among which they are looked for. */
#define AGENT_PORTS_FILES_MAX 65536
/* Clients attached to a pod's containers at a time. */
#define AGENT_ATTACHES_MAX 128
/* One read of an exec's output; its input comes in messages, one of which is kept while the process does not read. */
#define AGENT_EXEC_READ_SIZE (64u << 10)
/* So many pieces smaller than this, one soon after another: then the writer is looked at every so often only. */
#define AGENT_EXEC_GATHER_SIZE (32u << 10)
#define AGENT_EXEC_GATHER_AFTER 32
#define AGENT_EXEC_GATHER_MS 1
/* Words of a command and their bytes: Linux allows 2 MiB with the environment. */
#define AGENT_COMMAND_BYTES_MAX (1u << 20)
/* Killing a process and all its descendants: rounds of looking for new ones end here. */
#define AGENT_KILL_MS 2000
/* Events that a subscriber may ask for again; Hello's snapshot stands for older ones. */
#define AGENT_EVENTS_MAX 256
#define AGENT_SUBSCRIBERS_MAX 8
/* Calls that bring blobs or files at a time, each with a child process that writes. */
#define AGENT_INTAKES_MAX 8
/* Statuses of unknown orphans, kept while a start or exec is under way. */
#define AGENT_ORPHANS_MAX 4096
/* Redialling: first pause, and the longest: the node's machine itself, and a relay elsewhere. */
#define AGENT_REDIAL_MIN_MS 50
#define AGENT_REDIAL_UNIX_MAX_MS 500
#define AGENT_REDIAL_MAX_MS 5000
/* The same fault is told again after this. */
#define AGENT_FAULT_AGAIN_MS 60000
/* After a connection or a container's change: the code that these need is not needed any more. */
#define AGENT_SETTLE_MS 1000
/* A relay elsewhere: to keep state in firewalls, and to notice a machine that fell over. */
#define AGENT_KEEPALIVE_MS 60000
/* Of that time, for the answer. */
#define AGENT_KEEPALIVE_PART 3
/* Of an address of the node's in a list, and of the file with such a list. */
#define AGENT_RELAY_ADDRESS_MAX 300
#define AGENT_RELAY_FILE_MAX 4096
/* `join` may come a little before its agent; what it carries at a time. */
#define AGENT_JOIN_WAIT_MS 5000
#define AGENT_JOIN_BLOCK (64 << 10)
/* The last reply and GOAWAY; then the agent exits. */
#define AGENT_FAREWELL_MS 1000
#define AGENT_TOKEN_MAX 4096
/* A disk of the node with less free space is no help to a pod. */
#define SCRATCH_FREE_MIN (1ull << 30)
/* Unpacked layers that a user's jobs keep on one node, once none of them runs: as many bytes, and unused for as long. */
#define SCRATCH_IMAGES_MAX (20ull << 30)
#define SCRATCH_UNUSED_MAX_S (14 * 24 * 3600)
/* Those that are looked at: the others are next. */
#define SCRATCH_LAYERS_MAX 1024

/* ---- containers that are jobs of their own ---- */
/* One word of a command or of the environment: execve(2)'s MAX_ARG_STRLEN, which sbatch runs into, too. */
#define CONTAINER_JOB_STRING_MAX (128u << 10)
/* Files of configMaps, secrets and projected volumes in one request; as base64 they fit a worker's answer. */
#define CONTAINER_JOB_FILES_MAX (512u << 10)
/* From the end of a container to that of its output: one request, tried again some times. */
#define CONTAINER_JOB_DRAIN_MS 20000
/* A container that is being stopped is waited for that long to have its output until then. */
#define CONTAINER_JOB_STOP_LOG_MS 5000
/* An agent whose container has ended waits for the next attempt: kubelet's first two come within that time. */
#define CONTAINER_JOB_LINGER_MS 15000
/* A log stream that broke or could not be had is asked for again. */
#define CONTAINER_JOB_LOG_RETRY_MS 3000
#define CONTAINER_JOB_LOG_TRIES 5

/* ---- agent: pods from a manifest ---- */
/* Containers of a pod, init containers among them: many times what pods have, and below AGENT_CONTAINERS_MAX with room for those that
 * are being replaced. */
#define PODSPEC_CONTAINERS_MAX 100
#define PODSPEC_MOUNTS_MAX 256
#define PODSPEC_VARIABLES_MAX 4096
#define PODSPEC_GRACE_SECONDS 30 /* Kubernetes' own */
/* Kubelet's: between restarts of a container that fails, doubled each time; forgotten when it has run for so long. */
#define PODRUN_BACKOFF_MIN_MS 10000
#define PODRUN_BACKOFF_MAX_MS 300000
#define PODRUN_BACKOFF_RESET_MS 600000
/* Looking whether the plugin has brought an image: at first, and when that takes long (the folder may be on a file system of others). */
#define PODRUN_IMAGE_LOOK_MS 50
#define PODRUN_IMAGE_LOOK_MAX_MS 2000
#define PODRUN_IMAGES_MAX (1u << 20) /* the file that says so */
/* Kubelet's: a log file, and how many of one container's run. */
#define PODRUN_LOG_BYTES (10u << 20)
#define PODRUN_LOG_FILES 5
/* Changes that come together are written together: each writing syncs the disk. */
#define PODRUN_STATUS_GATHER_MS 20
#define PODRUN_MESSAGE_MAX 1024
/* Kubelet's least grace period of a container in a pod that ends. */
#define PODRUN_SIDECAR_GRACE_MS 2000

/* ---- volumes that are copied to where a pod runs ---- */
/* One of them: a ConfigMap or Secret has 1 MiB at most, a projected volume may gather some of them. Their files and folders: each
 * key is at least one byte of that. */
#define FILES_VOLUME_BYTES_MAX (16u << 20)
#define FILES_VOLUME_ENTRIES_MAX 65536
/* Their paths (AtomicWriter's own bound), and folders in folders: each is open while they are walked. */
#define FILES_PATH_MAX 4096
#define FILES_DEPTH_MAX 64
/* kubernetes.io~TYPE/NAME: both are at most 63 bytes; of a sub path also the container's name and a number. As one file's name. */
#define FILES_VOLUME_NAME_MAX 250
/* Those of one container, in the node's memory while they are sent. */
#define VOLUMES_BYTES_MAX (64u << 20)
/* Reading them at a time: each is a process of ours. A ConfigMap of many pods changes for all of them at once. */
#define VOLUMES_READERS_MAX 4
/* From the first sign of a change: kubelet writes, turns a link and tidies up within some ms. Where the kernel gives no signs
 * (inotify's limits), links are looked at this often: kubelet's sync period and 5 s is the promise. And after a failure. */
#define VOLUMES_SETTLE_MS 100
#define VOLUMES_POLL_MS 2000
#define VOLUMES_RETRY_MS 2000
/* Sending takes as long as the link is slow; an agent that has stopped must not hold the pod's other volumes up for ever. */
#define VOLUMES_SEND_TIMEOUT_MS 120000
/* All of a pod's, in memory: some dozen of usual size. */
#define FILES_MEMORY_MAX (256u << 20)
/* Volumes that were brought to one pod: some for each of its containers. */
#define AGENT_VOLUMES_MAX 4096
/* What kubelet reads of a termination message. */
#define TERMINATION_LOG_MAX 4096

/* ---- usage ---- */
/* Nanoseconds of CPU a second are told over a window of at least this: processes are counted in ticks of 10 ms. What was not
 * asked for so long (kubelet's own memory of it) begins anew. */
#define USAGE_WINDOW_MIN_MS 500
#define USAGE_WINDOW_MAX_MS 600000
/* Processes of a pod that are looked at one by one; their account has to fit a worker's answer (WORKER_OUTPUT_MAX). */
#define USAGE_PROCESSES_MAX 16384
/* Looking at them: a process that is stuck in the kernel may hold us up. */
#define USAGE_SCAN_MS 5000
/* The size of a container's layer counts so long (containerd's and CRI-O's time); longer when counting takes long, so that
 * it is at most a twentieth of one processor, and no longer than that. */
#define USAGE_LAYER_AGE_MS 10000
#define USAGE_LAYER_SHARE 20
#define USAGE_LAYER_AGE_MAX_MS 600000
#define USAGE_LAYER_COUNT_MS 300000
/* Files and folders of all layers of a pod that are counted without a worker: as long as starting one takes. */
#define USAGE_LAYER_QUICK_MAX 500
/* How long a call waits for a new count before it takes the old one: most are there in a few milliseconds. */
#define USAGE_LAYER_WAIT_MS 150

/* ---- node ---- */
/* When serve ends: what calls under way may still take. systemd would wait for 90 s, kubelet for 30 before it gives up. */
#define NODE_SHUTDOWN_MS 3000
/* A record that has waited longer to be written means a disk in trouble; an fsync may take seconds on a busy one. */
#define NODE_STATE_PATIENCE_MS 10000
/* Between a job that failed before it was a pod and the pod's next one, doubled each time: kubelet's own for containers that
 * crash. Of so many pods they are remembered. */
#define SETBACK_PAUSE_MS 10000
#define SETBACK_PAUSE_MAX_MS 300000
#define SETBACKS_MAX 1000
/* Connections for metrics and health: some scrapers and a person. */
#define OPERATOR_CONNECTIONS_MAX 16
/* Output of one ExecSync: what fits one message of kubelet's client (16 MiB) with its frame. */
#define EXEC_SYNC_OUTPUT_MAX (RPC_MESSAGE_MAX - 65536)
/* Figures of a pod serve all who ask within this: kubelet, people and exporters poll side by side. */
#define STATS_KEEP_MS 500
/* How long a list waits for the slowest agent: crictl gives up after 2 s. An agent across a network answers in some ms. */
#define STATS_WAIT_MS 1000
/* After that the answer may still come, for the next who asks; then it is asked for anew. */
#define STATS_OVERDUE_MS 30000
/* One pod's figures: 256 containers with 80 counters each are 2 MB. */
#define STATS_ANSWER_MAX (4u << 20)
/* One message of a streamed list: few messages for a big node, and far below what a client takes (16 MiB). */
#define LISTS_PART_SIZE (128u << 10)
/* Streamed lists under way: each holds on to a list as it was, some MB on a big node. */
#define LISTS_STREAMS_MAX 64
/* Events that wait for slow subscribers: about two thousand of pods with many containers. */
#define EVENTS_KEPT_BYTES (8 << 20)
/* ... and for one to come back: it may never, as with a kubelet that lists instead. */
#define EVENTS_KEPT_IDLE_BYTES (2 << 20)
/* How long events are kept while nobody subscribes: containerd's time. kubelet comes back within seconds. */
#define EVENTS_KEEP_MS 300000
/* kubelet is one; the rest are people who look on. Each may have 256 KiB under way. */
#define EVENTS_SUBSCRIBERS_MAX 64

/* ---- connections to pods on other machines ---- */
/* At a time: of one pod a few less than its agent carries (AGENT_FORWARDS_MAX), so that people's port forwards have room; of all
 * pods as many as a process with the usual 65,536 descriptors can have beside all else. */
#define GATE_POD_CONNECTIONS_MAX 448
#define GATE_CONNECTIONS_MAX 16384
/* Connections that wait to be accepted, of all pods together where one socket takes them. */
#define GATE_BACKLOG 4096
/* Open ports of one pod where each has a socket of its own. */
#define GATE_POD_SOCKETS_MAX 64
/* Ranges in use: those of now, and older ones while pods have addresses in them. */
#define GATE_RANGES_MAX 8
/* Addresses of one range that are tried: more pods than that no node has. */
#define GATE_RANGE_TRIES_MAX 65536
/* A client that is silent for so long is asked whether it is there still. */
#define GATE_KEEPALIVE_S 300
/* How often it is said at most that connections were turned away. */
#define GATE_COMPLAINT_MS 60000

/* ---- pod networks (CNI) ---- */
/* A chain has one to five plugins; its configuration, with what a folder adds, is some KiB. It is kept with each pod. */
#define CNI_PLUGINS_MAX 16
#define CNI_CONFIG_MAX (256u << 10)
#define CNI_FILES_MAX 256
#define CNI_DEPTH_MAX 32
#define CNI_NAME_MAX 128
/* What one plugin may print: a result is some hundred bytes, with many routes some KiB. Of its errors the end is kept. */
#define CNI_OUTPUT_MAX (256u << 10)
#define CNI_ERRORS_MAX (4u << 10)
/* Addresses of one pod. */
#define CNI_ADDRESSES_MAX 16
/* Chains that run at a time, each with some processes; more wait. */
#define CNI_RUNNING_MAX 32

/* ---- streaming ---- */
/* Streams that were promised and not opened: how many (kubelet's own bound), how large their requests, and for how long. */
#define STREAM_TOKENS_MAX 1000
#define STREAM_TOKENS_BYTES_MAX (16u << 20)
#define STREAM_TOKEN_MS 60000
/* Streams open at a time, and clients that have not shown their token yet: each is a descriptor, of the 1,024 that a process has
 * where nobody gave it more. */
#define STREAM_SESSIONS_MAX 512
#define STREAM_PENDING_MAX 128
/* Ports that one port forward over plain WebSocket carries, two channels each: their number is one byte. */
#define STREAM_PORTS_MAX 127
/* One terminal size as JSON: {"Width":65535,"Height":65535} and room for white space. */
#define STREAM_RESIZE_MAX 4096
/* Connections of one port forward at a time: as many as a browser with several pages opens, two channels each. */
#define STREAM_FORWARDS_MAX 256
/* ... and of all of them together: each that stalls costs some 100 KiB. */
#define STREAM_FORWARDS_ALL_MAX 2048
/* A client of a port forward has said all and left: how long what it said may take to reach the pod. */
#define STREAM_LINGER_MS 30000
/* A request's name is the client's: kubectl counts. */
#define STREAM_REQUEST_ID_MAX 256

/* ---- cli ---- */
/* The configuration file, and crictl's input files. */
#define CONFIG_FILE_MAX (1u << 20)
/* How long RunPodSandbox waits for a queued job (a job usually starts at once), and how long such a job lives without
 * a call while kubelet is polling: kubelet comes again every 11 to 15 s. */
#define CONFIG_QUEUE_HOLD_MS 10000
#define CONFIG_QUEUE_LEASE_MS 60000
/* Through NATs and firewalls that forget idle connections, most of them after minutes; and to notice a machine that fell over. */
#define CONFIG_RELAY_KEEPALIVE_MS 60000
/* All CNI plugins of one pod: some wait for their daemons or a cloud's answer; kubelet gives a pod's start 4 minutes. */
#define CONFIG_CNI_TIMEOUT_MS 120000
/* Of streams: kubelet's own values for the first and the last. */
#define CONFIG_STREAM_IDLE_MS (4 * 3600 * 1000)
#define CONFIG_STREAM_KEEPALIVE_MS 30000
#define CONFIG_STREAM_CREATION_MS 30000

#endif
