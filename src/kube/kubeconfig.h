/* SPDX-License-Identifier: Apache-2.0 */
/* kubeconfig.h: a kubeconfig file (client-go's clientcmd v1 Config): which API server, whom to believe, who we are.
 *
 * Of the file's contexts the current one counts. Inline data goes before a file of the same kind and a token file before a
 * token, as in client-go; names of files are taken from the kubeconfig's own folder on. What would make the connection unsafe or
 * needs other programs is refused by its key's name: exec and auth-provider, insecure-skip-tls-verify, http servers,
 * user names with passwords, impersonation. Keys that are not known are passed over, as kubectl does.
 *
 * Nothing is read here but the text: files that it names are for who connects. */
#ifndef KUBE_KUBECONFIG_H
#define KUBE_KUBECONFIG_H

#include "base/base.h"

/* All on the arena; "" when not given. */
struct kubeconfig {
    struct arena arena;
    const char *server;             /* "https://host:port/path", without a slash at the end */
    const char *ca_path, *ca_pem;   /* at most one; neither: the machine's own authorities */
    const char *cert_path, *cert_pem, *key_path, *key_pem;
    const char *token, *token_path; /* at most one */
    const char *proxy;              /* "http://host:port" */
};

/* `path`: where the text stands; for names of files and for messages. On failure *out holds nothing: INVALID_ARGUMENT with the
 * place in the file, FAILED_PRECONDITION for what is not offered. */
bool kubeconfig_parse(const char *path, struct str text, struct kubeconfig *out, struct status *err);
void kubeconfig_free(struct kubeconfig *k);

#endif
