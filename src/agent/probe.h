/* SPDX-License-Identifier: Apache-2.0 */
/* probe.h: `interlink-cri agent --probe`: a short job that looks at the compute node it runs on and prints one line, the report
 * that `interlink-cri doctor --site` reads out of the job's log.
 *
 * What to look at comes in INTERLINK_RELAY, INTERLINK_RELAY_PIN and INTERLINK_ENGINE as for an agent, and in INTERLINK_PROBE:
 *   {"nonce": "0123abcd", "shared": ["/home", ...], "scratch": ["/local", ...], "linger": 60}
 * The report is PROBE_MARK and behind it, on the same line:
 *   {"version": "1.2", "host": "n1", "uid": 1000, "timeNs": 1, "findings": [{"what", "result", "found", "mend"}...],
 *    "facts": {"engine", "scratch", "relay": "direct"|"proxy"|"none", "proxy": "host:port", "shared": ["/home"...]}} */
#ifndef AGENT_PROBE_H
#define AGENT_PROBE_H

#define PROBE_MARK "interlink-cri-probe: "
/* In each shared folder, followed by the nonce: made by who asks, and holds the nonce; and our answer to it. */
#define PROBE_ASK_FILE ".interlink-cri-doctor-ask-"
#define PROBE_ANSWER_FILE ".interlink-cri-doctor-answer-"

/* Returns the exit status: 0 when the report could be written, whatever it says. */
int probe_main(void);

#endif
