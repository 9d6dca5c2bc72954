/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/kubeconfig.h"

#include <setjmp.h>
#include <cmocka.h>

#define PLACE "/etc/kubernetes/kubelet.conf"

static void good(const char *text, struct kubeconfig *k)
{
    struct status err = STATUS_INIT;

    if (!kubeconfig_parse(PLACE, str_of(text), k, &err))
        fail_msg("%s\n%s", text, err.message);
}

static void refused(const char *text, enum status_code code, const char *message)
{
    struct kubeconfig k;
    struct status err = STATUS_INIT;

    if (kubeconfig_parse(PLACE, str_of(text), &k, &err))
        fail_msg("taken: %s", text);
    if (strstr(err.message, message) == NULL)
        fail_msg("wanted \"%s\", found \"%s\"", message, err.message);
    assert_true(str_starts(err.message, "kubeconfig " PLACE ": "));
    assert_int_equal(err.code, code);
    assert_null(k.arena.chunks);
}

/* As kubeadm and a kubelet with rotated certificates leave it. */
static void test_kubelet(void **state)
{
    struct kubeconfig k;
    (void)state;

    good("apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    certificate-authority-data: Y2E=\n    server: https://10.0.0.1:6443/\n"
         "  name: kubernetes\ncontexts:\n- context:\n    cluster: kubernetes\n    user: system:node:n1\n"
         "  name: system:node:n1@kubernetes\ncurrent-context: system:node:n1@kubernetes\npreferences: {}\nusers:\n"
         "- name: system:node:n1\n  user:\n    client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem\n"
         "    client-key: /var/lib/kubelet/pki/kubelet-client-current.pem\n", &k);
    assert_string_equal(k.server, "https://10.0.0.1:6443");
    assert_string_equal(k.ca_pem, "ca");
    assert_string_equal(k.ca_path, "");
    assert_string_equal(k.cert_path, "/var/lib/kubelet/pki/kubelet-client-current.pem");
    assert_string_equal(k.key_path, k.cert_path);
    assert_string_equal(k.token, "");
    kubeconfig_free(&k);
}

#define HEAD(cluster) "{current-context: c, contexts: [{name: c, context: {cluster: k, user: u}}], clusters: [{name: other, " \
                      "cluster: {}}, {name: k, cluster: " cluster "}], users: "
#define USER(user) HEAD("{server: 'https://h'}") "[{name: u, user: " user "}]}"

static void test_forms(void **state)
{
    struct kubeconfig k;
    (void)state;

    /* JSON; paths beside the file; the token file before the token; data before files; data folded. */
    good("{\"current-context\": \"c\", \"contexts\": [{\"name\": \"c\", \"context\": {\"cluster\": \"k\", \"user\": \"u\"}}], "
         "\"clusters\": [{\"name\": \"k\", \"cluster\": {\"server\": \"https://[fd00::1]:6443/k8s/c-1\", \"certificate-authority\": "
         "\"pki/ca.crt\", \"proxy-url\": \"http://proxy:3128\", \"extensions\": [{\"name\": \"x\"}]}}], "
         "\"users\": [{\"name\": \"u\", \"user\": {\"token\": \"abc\", \"tokenFile\": \"t\", \"exec\": null, \"username\": \"\"}}]}", &k);
    assert_string_equal(k.server, "https://[fd00::1]:6443/k8s/c-1");
    assert_string_equal(k.ca_path, "/etc/kubernetes/pki/ca.crt");
    assert_string_equal(k.token, "");
    assert_string_equal(k.token_path, "/etc/kubernetes/t");
    assert_string_equal(k.proxy, "http://proxy:3128");
    kubeconfig_free(&k);
    good(USER("{token: abc}"), &k);
    assert_string_equal(k.server, "https://h");
    assert_string_equal(k.token, "abc");
    kubeconfig_free(&k);
    good(USER("{client-certificate: /c, client-certificate-data: 'Y2Vy\n  dA==', client-key: /k, client-key-data: a2V5, token: x}"), &k);
    assert_string_equal(k.cert_path, "");
    assert_string_equal(k.cert_pem, "cert");
    assert_string_equal(k.key_path, "");
    assert_string_equal(k.key_pem, "key");
    assert_string_equal(k.token, "x");
    kubeconfig_free(&k);
}

static void test_refused(void **state)
{
    (void)state;

    refused(USER("{exec: {command: aws-iam-authenticator}}"), STATUS_FAILED_PRECONDITION, "exec: not offered");
    refused(USER("{auth-provider: {name: gcp}, token: a}"), STATUS_FAILED_PRECONDITION, "auth-provider: not offered");
    refused(USER("{username: a, password: b}"), STATUS_FAILED_PRECONDITION, "username: not offered");
    refused(USER("{token: a, as: root}"), STATUS_FAILED_PRECONDITION, "as: not offered");
    refused(USER("{token: a, as-groups: [x]}"), STATUS_FAILED_PRECONDITION, "as-groups: not offered");
    refused(HEAD("{server: 'https://h', insecure-skip-tls-verify: true}") "[{name: u, user: {token: a}}]}",
            STATUS_FAILED_PRECONDITION, "insecure-skip-tls-verify: not offered");
    refused(HEAD("{server: 'https://h', tls-server-name: x}") "[{name: u, user: {token: a}}]}", STATUS_FAILED_PRECONDITION,
            "tls-server-name: not offered");
    refused(HEAD("{server: 'http://h'}") "[{name: u, user: {token: a}}]}", STATUS_FAILED_PRECONDITION, "wanted https://");
    refused(HEAD("{server: 'https://h', proxy-url: 'socks5://p:1'}") "[{name: u, user: {token: a}}]}", STATUS_FAILED_PRECONDITION,
            "proxy-url: offered only as http://");
}

static void test_malformed(void **state)
{
    (void)state;

    refused("", STATUS_INVALID_ARGUMENT, "the file is empty");
    refused("[]", STATUS_INVALID_ARGUMENT, "wanted an object");
    refused("a: [", STATUS_INVALID_ARGUMENT, "line ");
    refused("{}", STATUS_INVALID_ARGUMENT, "current-context: missing");
    refused("current-context: [x]", STATUS_INVALID_ARGUMENT, "current-context: wanted a string");
    refused("current-context: c", STATUS_INVALID_ARGUMENT, "contexts: none is called \"c\"");
    refused("{current-context: c, contexts: [{name: c}]}", STATUS_INVALID_ARGUMENT, "contexts[0]: it has no context");
    refused("{current-context: c, contexts: [c]}", STATUS_INVALID_ARGUMENT, "contexts[0]: wanted an object");
    refused("{current-context: c, contexts: [{name: c, context: {}}, {name: c, context: {}}]}", STATUS_INVALID_ARGUMENT,
            "contexts[1]: a second one is called \"c\"");
    refused("{current-context: c, contexts: [{name: c, context: {cluster: k, user: u}}]}", STATUS_INVALID_ARGUMENT,
            "clusters: none is called \"k\"");
    refused(HEAD("{}") "[]}", STATUS_INVALID_ARGUMENT, "no server is named");
    refused(HEAD("{server: h}") "[]}", STATUS_INVALID_ARGUMENT, "is no URL");
    refused(HEAD("{server: 'https://a@h'}") "[]}", STATUS_INVALID_ARGUMENT, "is no URL");
    refused(HEAD("{server: 'https://h/?a=b'}") "[]}", STATUS_INVALID_ARGUMENT, "a query has no place here");
    refused(HEAD("{server: 'https://h'}") "[]}", STATUS_INVALID_ARGUMENT, "users: none is called \"u\"");
    refused(USER("{}"), STATUS_INVALID_ARGUMENT, "there are no credentials");
    refused(USER("{client-certificate: /c}"), STATUS_INVALID_ARGUMENT, "go together");
    refused(USER("{client-key-data: a2V5}"), STATUS_INVALID_ARGUMENT, "go together");
    refused(USER("{client-key-data: '!!'}"), STATUS_INVALID_ARGUMENT, "client-key-data: wanted PEM text in base64");
    refused(USER("{client-key-data: 'AAAA'}"), STATUS_INVALID_ARGUMENT, "client-key-data: wanted PEM text in base64");
    refused(USER("{token: \"a\\nb\"}"), STATUS_INVALID_ARGUMENT, "characters that a token cannot have");
    refused(USER("{token: 7}"), STATUS_INVALID_ARGUMENT, "token: wanted a string");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kubelet),
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
