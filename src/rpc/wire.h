/* SPDX-License-Identifier: Apache-2.0 */
/* wire.h: the texts of gRPC's headers (grpc/doc/PROTOCOL-HTTP2.md), without I/O. */
#ifndef RPC_WIRE_H
#define RPC_WIRE_H

#include "base/base.h"

/* "100m", "8S"...: at most 8 digits and a unit. In milliseconds, rounded up; false when malformed. */
bool rpc_timeout_parse(struct str text, int64_t *ms);
/* out has room for RPC_TIMEOUT_MAX; never longer than the time given would allow: rounded up to the next unit that fits. */
#define RPC_TIMEOUT_MAX 12
void rpc_timeout_format(int64_t ms, char out[RPC_TIMEOUT_MAX]);
/* grpc-message: bytes outside of printable ASCII and '%' become %XX. Appends; at most three times as long. */
void rpc_message_encode(const char *text, struct buf *out);
/* The reverse, tolerant as the protocol asks: what is no escape stays as it is. out has room for max bytes, NUL included. */
void rpc_message_decode(struct str text, char *out, size_t max);
/* "application/grpc", "+proto", and parameters. */
bool rpc_content_type_ok(struct str text);
/* The code of a number in grpc-status; UNKNOWN for what is no code. */
enum status_code rpc_status_parse(struct str text);
/* What an answer without a grpc-status means (doc/http-grpc-status-mapping.md). */
enum status_code rpc_status_of_http(unsigned http_status);
/* What a RST_STREAM means (PROTOCOL-HTTP2.md, "HTTP2 Transport Mapping", "Errors"). */
enum status_code rpc_status_of_reset(uint32_t http2_error);
bool rpc_key_is_binary(const char *key); /* "...-bin" */

#endif
