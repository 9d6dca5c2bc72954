/* SPDX-License-Identifier: Apache-2.0 */
/* kube.h: calls to the cluster's API server, as whom a kubeconfig names.
 *
 *   kubeconfig.[ch]  the file
 *   kube.[ch]        the client: connections, credentials that change, errors in Kubernetes' own words
 *   node_name.[ch]   what this node is called there
 *   pod_find.[ch]    one pod of this node, in bounded time
 *   pod_size.[ch]    how much a pod asks for, as the scheduler counts
 *
 * The kubeconfig and the files it names are looked at before each call and read again when one of them is another one than
 * before: kubelet's certificate and a service account's token are renewed by replacing files. The kubeconfig need not be there
 * yet (kubelet's appears when the node has joined): what is wrong with it is the error of a call, not of the start.
 *
 * Callbacks run from the loop, never from inside the call that caused them. */
#ifndef KUBE_KUBE_H
#define KUBE_KUBE_H

#include "base/base.h"
#include "io/loop.h"

struct kube;
struct kube_call;

/* Never fails; reads nothing yet. `kubeconfig`: a path, copied. */
struct kube *kube_new(struct loop *loop, const char *kubeconfig);
/* Calls under way are dropped. Not from inside a callback of one. NULL is fine. */
void kube_free(struct kube *kube);
/* The server's URL, "" until it is known. */
const char *kube_server(const struct kube *kube);
/* OK while the last call was answered, whatever the answer; else why not. */
const struct status *kube_health(const struct kube *kube);

struct kube_answer {
    const struct status *err; /* NULL: 2xx. Else with the server's own words: NOT_FOUND, PERMISSION_DENIED (403)... */
    int http_status;          /* 0: no answer came */
    struct str body;          /* borrowed; empty with on_piece */
};

struct kube_call_options {
    const char *method;       /* NULL: GET */
    const char *path;         /* "/api/v1/..." with its query; names in it must be safe (kube_name_valid) or encoded */
    const char *content_type; /* NULL: application/json */
    struct str body;          /* copied */
    int64_t timeout_ms;       /* all of it; 0: KUBE_CALL_TIMEOUT_MS */
    void (*on_answer)(void *arg, const struct kube_answer *answer); /* once; the call is gone when it returns */
    void (*on_piece)(void *arg, struct str piece); /* the body of a 2xx answer as it comes: a watch. NULL: collected */
    void *arg;
};
/* Never NULL. */
struct kube_call *kube_call_start(struct kube *kube, const struct kube_call_options *options);
/* Nothing is called any more. Not from inside on_piece. NULL is fine. */
void kube_call_cancel(struct kube_call *call);

/* What names of pods, namespaces and nodes are made of (RFC 1123 subdomains): nothing that means something in a URL. */
bool kube_name_valid(const char *name);

#endif
