/* SPDX-License-Identifier: Apache-2.0 */
/* container_job_log.h: the output of a container that is a job of its own, from /getLogs into the file that kubelet reads.
 *
 *   following   while it runs: one stream with Follow, from the beginning; asked for again when it breaks
 *   last        once it has ended: one request without Follow, which surely has all
 *
 * Every answer begins at the log's first byte and is made into the same lines again, stamps apart, which are of equal length; the log
 * file knows how many bytes of those it has. So each line is stored once, across broken streams and restarts of ours. */
#ifndef NODE_CONTAINER_JOB_LOG_H
#define NODE_CONTAINER_JOB_LOG_H

#include "node/container.h"

struct container_job_log;

struct container_job_log *container_job_log_new(struct container *container);
/* Starts to follow, unless it does. The container's log file is open. */
void container_job_log_follow(struct container_job_log *log);
/* Only looks whether the batch script says that the container has ended; then its job is told (interlink_job_believe). */
void container_job_log_probe(struct container_job_log *log);
/* Asks for all of it; then, whether that succeeds or not, the log file ends (logfile_take_end). */
void container_job_log_last(struct container_job_log *log);
/* The log file has room again. */
void container_job_log_resume(struct container_job_log *log);
void container_job_log_free(struct container_job_log *log); /* NULL is fine */

#endif
