/* SPDX-License-Identifier: Apache-2.0 */
/* node_name.h: what the cluster calls this node: kubelets are users called system:node:NAME, and may ask who they are. */
#ifndef KUBE_NODE_NAME_H
#define KUBE_NODE_NAME_H

#include "base/base.h"

#define NODE_NAME_SIZE 254
/* To be POSTed; Kubernetes has it from 1.28 on (else 404). */
#define NODE_NAME_PATH "/apis/authentication.k8s.io/v1/selfsubjectreviews"
#define NODE_NAME_BODY "{\"apiVersion\":\"authentication.k8s.io/v1\",\"kind\":\"SelfSubjectReview\"}"

/* The answer to it: false when it names no node. `user` (may be NULL) gets who it names, cut. */
bool node_name_read(struct str review, char out[NODE_NAME_SIZE], char user[NODE_NAME_SIZE]);
/* kubelet's own default: this machine's host name in small letters. */
void node_name_of_host(char out[NODE_NAME_SIZE]);

#endif
