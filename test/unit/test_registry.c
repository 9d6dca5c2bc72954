/* SPDX-License-Identifier: Apache-2.0 */
/* What a registry wants before it gives anything, and what it says when it does not. The talk itself is tested from outside, in
 * test/e2e/test_images.py. */
#include "image/auth.h"
#include "image/registry_internal.h"

#include <setjmp.h>

#include <cmocka.h>

static struct arena arena;

static struct challenge read_challenge(const char *first, const char *second)
{
    struct http_headers headers = { 0 };
    struct challenge c;

    http_headers_add(&headers, "Date", "today");
    http_headers_add(&headers, "WWW-Authenticate", first);
    if (second != NULL)
        http_headers_add(&headers, "www-authenticate", second);
    challenge_read(&headers, &arena, &c);
    http_headers_free(&headers);
    return c;
}

static void test_challenges(void **state)
{
    (void)state;
    struct challenge c = read_challenge("Bearer realm=\"https://auth.example/token\",service=\"registry\",scope=\"repository:a/b:pull\"", NULL);
    assert_int_equal(c.kind, CHALLENGE_BEARER);
    assert_string_equal(c.realm, "https://auth.example/token");
    assert_string_equal(c.service, "registry");
    assert_string_equal(c.scope, "repository:a/b:pull");
    c = read_challenge("bearer REALM = \"https://a/\\\"b\\\"\" , error=\"invalid_token\"", NULL);
    assert_int_equal(c.kind, CHALLENGE_BEARER);
    assert_string_equal(c.realm, "https://a/\"b\"");
    c = read_challenge("Basic realm=\"with, comma=and Bearer realm\"", NULL);
    assert_int_equal(c.kind, CHALLENGE_BASIC);
    c = read_challenge("Basic", NULL);
    assert_int_equal(c.kind, CHALLENGE_BASIC);
    /* The better of several, in one line or in two. */
    c = read_challenge("Basic realm=x, Bearer realm=\"https://t\"", NULL);
    assert_int_equal(c.kind, CHALLENGE_BEARER);
    assert_string_equal(c.realm, "https://t");
    c = read_challenge("Bearer realm=\"https://t\", Basic realm=x", NULL);
    assert_string_equal(c.realm, "https://t");
    c = read_challenge("Basic realm=x", "Bearer realm=\"https://t\"");
    assert_int_equal(c.kind, CHALLENGE_BEARER);
    /* Bearer without a realm is of no use; other schemes are not known. */
    c = read_challenge("Bearer service=x, Basic realm=y", NULL);
    assert_int_equal(c.kind, CHALLENGE_BASIC);
    assert_int_equal(read_challenge("Negotiate dG9rZW4=, Digest realm=x", NULL).kind, CHALLENGE_NONE);
    assert_int_equal(read_challenge("", NULL).kind, CHALLENGE_NONE);
    assert_int_equal(read_challenge(", ,=\"", NULL).kind, CHALLENGE_NONE);
    c = read_challenge("Bearer realm=\"https://unterminated", NULL);
    assert_string_equal(c.realm, "https://unterminated");
}

static void test_token_queries(void **state)
{
    struct challenge c = { CHALLENGE_BEARER, "https://auth.example/token", "reg istry", "repository:a:pull repository:b:pull" };
    const struct credentials nobody = { "", "", "", "", "" }, user = { "us&er", "p:w", "", "", "" }, refresh = { "", "", "r+f", "", "" };
    struct token_query q;
    struct status err = STATUS_INIT;

    (void)state;
    assert_true(token_query_make(&c, &nobody, false, true, "x", &arena, &q, &err));
    assert_string_equal(q.url, "https://auth.example/token?service=reg%20istry&scope=repository%3Aa%3Apull&scope=repository%3Ab%3Apull");
    assert_null(q.authorization);
    assert_null(q.body);
    assert_true(token_query_make(&c, &user, false, true, "x", &arena, &q, &err));
    assert_true(str_ends(q.url, "&account=us%26er"));
    assert_string_equal(q.authorization, "Basic dXMmZXI6cDp3");
    assert_true(token_query_make(&c, &refresh, true, true, "x", &arena, &q, &err));
    assert_string_equal(q.url, "https://auth.example/token");
    assert_string_equal(q.body, "grant_type=refresh_token&service=reg%20istry&client_id=interlink-cri&"
                                "scope=repository%3Aa%3Apull%20repository%3Ab%3Apull&refresh_token=r%2Bf");
    c.scope = "";
    c.realm = "https://a/t?x=1";
    assert_true(token_query_make(&c, &nobody, false, true, "repository:mine:pull", &arena, &q, &err));
    assert_string_equal(q.url, "https://a/t?x=1&service=reg%20istry&scope=repository%3Amine%3Apull");
    /* What was asked by https does not get its token over plain http. */
    c.realm = "http://a/t";
    assert_false(token_query_make(&c, &user, false, true, "x", &arena, &q, &err));
    assert_int_equal(err.code, STATUS_FAILED_PRECONDITION);
    assert_true(token_query_make(&c, &user, false, false, "x", &arena, &q, &err));
    c.realm = "file:///etc/passwd";
    assert_false(token_query_make(&c, &user, false, false, "x", &arena, &q, &err));
    assert_int_equal(err.code, STATUS_INVALID_ARGUMENT);
}

static void test_tokens(void **state)
{
    struct status err = STATUS_INIT;
    const char *token;

    (void)state;
    assert_true(token_read(STR("{\"token\":\"a\",\"access_token\":\"b\"}"), &arena, &token, &err));
    assert_string_equal(token, "a");
    assert_true(token_read(STR("{\"access_token\":\"b\"}"), &arena, &token, &err));
    assert_string_equal(token, "b");
    assert_false(token_read(STR("{}"), &arena, &token, &err));
    assert_false(token_read(STR("{\"token\":5}"), &arena, &token, &err));
    assert_false(token_read(STR("{\"token\":\"a\\r\\nX: y\"}"), &arena, &token, &err));
    assert_false(token_read(STR("<html>"), &arena, &token, &err));
}

static void test_credentials(void **state)
{
    struct credentials c;
    struct status err = STATUS_INIT;

    (void)state;
    assert_true(credentials_read(NULL, &arena, &c, &err));
    assert_false(credentials_any(&c));
    assert_true(credentials_read(&(struct image_auth){ .auth = "dXNlcjpwYTpzcw==" }, &arena, &c, &err));
    assert_string_equal(c.username, "user");
    assert_string_equal(c.password, "pa:ss");
    assert_true(credentials_any(&c));
    /* A user name in clear goes before. */
    assert_true(credentials_read(&(struct image_auth){ .auth = "dXNlcjpwYTpzcw==", .username = "x", .password = "y" }, &arena, &c, &err));
    assert_string_equal(c.username, "x");
    assert_true(credentials_read(&(struct image_auth){ .password = "refresh" }, &arena, &c, &err));
    assert_string_equal(c.refresh_token, "refresh");
    assert_string_equal(c.password, "");
    assert_false(credentials_read(&(struct image_auth){ .auth = "?" }, &arena, &c, &err));
    assert_false(credentials_read(&(struct image_auth){ .registry_token = "a\nb" }, &arena, &c, &err));
    assert_true(credentials_read(&(struct image_auth){ .username = "u", .server_address = "https://index.docker.io/v1/" }, &arena, &c, &err));
    assert_string_equal(c.host, "index.docker.io");
    assert_true(credentials_fit(&c, "registry-1.docker.io", "docker.io"));
    assert_false(credentials_fit(&c, "quay.io", "quay.io"));
    assert_true(credentials_read(&(struct image_auth){ .username = "u", .server_address = "quay.io:8443" }, &arena, &c, &err));
    assert_true(credentials_fit(&c, "quay.io:8443", "quay.io:8443"));
    assert_true(credentials_fit(&c, "mirror.example", "quay.io:8443"));
    assert_false(credentials_fit(&c, "quay.io", "quay.io"));
}

static void test_retry_after(void **state)
{
    (void)state;
    assert_int_equal(http_retry_after_ms("5", 0), 5000);
    assert_int_equal(http_retry_after_ms("0", 0), 0);
    assert_int_equal(http_retry_after_ms("-5", 0), 0);
    assert_int_equal(http_retry_after_ms("soon", 0), 0);
    assert_int_equal(http_retry_after_ms("Thu, 01 Jan 1970 00:01:00 GMT", 50), 10000);
    assert_int_equal(http_retry_after_ms("Thu, 01 Jan 1970 00:01:00 GMT", 70), 0);
    assert_int_equal(http_retry_after_ms("Thu, 01 Jan 1970 00:01:00 GMT and more", 50), 0);
    assert_int_equal(http_retry_after_ms("99999999999999999999", 0), 0);
}

static void test_errors(void **state)
{
    struct http_headers none = { 0 };
    struct http_result r = { .http_status = 404, .headers = &none, .body = STR("{\"errors\":[{\"code\":\"X\",\"message\":\"no such thing\"}]}") };
    struct status err = STATUS_INIT;

    (void)state;
    registry_http_error(&r, &err);
    assert_int_equal(err.code, STATUS_NOT_FOUND);
    assert_string_equal(err.message, "404 Not Found (no such thing)");
    r.body = STR("{\"errors\":[{\"code\":\"DENIED\"}]}");
    r.http_status = 403;
    registry_http_error(&r, &err);
    assert_int_equal(err.code, STATUS_PERMISSION_DENIED);
    assert_string_equal(err.message, "403 Forbidden (DENIED)");
    r.body = STR("<html>");
    r.http_status = 401;
    registry_http_error(&r, &err);
    assert_int_equal(err.code, STATUS_UNAUTHENTICATED);
    assert_false(registry_may_retry(&r));
    r.http_status = 503;
    registry_http_error(&r, &err);
    assert_int_equal(err.code, STATUS_UNAVAILABLE);
    assert_true(registry_may_retry(&r));
    r.http_status = 429;
    assert_true(registry_may_retry(&r));
    r.http_status = 501;
    assert_false(registry_may_retry(&r));
    struct status tls = { STATUS_UNAUTHENTICATED, "certificate" };
    r.err = &tls;
    assert_false(registry_may_retry(&r));
    registry_http_error(&r, &err);
    assert_string_equal(err.message, "certificate");
}

static int finish(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_challenges),  cmocka_unit_test(test_token_queries), cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_credentials), cmocka_unit_test(test_retry_after),   cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, finish);
}
