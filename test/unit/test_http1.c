/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP/1.1 engine, fed whole and byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "http/http1.h"

/* Everything that an engine told, as text: one line an event. */
static char *told(const char *input, size_t n, size_t step, bool requests, void (*prepare)(struct http1 *h))
{
    struct http1 h;
    struct buf out = BUF_INIT;
    struct status err = STATUS_INIT;
    bool stop = false;

    http1_init(&h, requests, 1024);
    if (prepare != NULL)
        prepare(&h);
    for (size_t at = 0; at < n && !stop; at += step) {
        struct str in = { input + at, n - at < step ? n - at : step }, body;
        for (bool more = false; !more && !stop;) {
            switch (http1_next(&h, &in, &body, &err)) {
            case HTTP1_MORE: more = true; break;
            case HTTP1_HEAD:
                if (requests)
                    buf_printf(&out, "%s %s %d.%d", h.head.method, h.head.target, h.head.major, h.head.minor);
                else
                    buf_printf(&out, "%d", h.head.status);
                buf_printf(&out, "%s%s%s len=%lld", h.head.keep_alive ? " keep" : "", h.head.chunked ? " chunked" : "",
                           h.head.upgrade ? " upgrade" : "", (long long)h.head.content_length);
                for (size_t i = 0; i < h.head.headers.count; i++)
                    if (str_starts(h.head.headers.items[i].name, "X"))
                        buf_printf(&out, " %s=[%s]", h.head.headers.items[i].name, h.head.headers.items[i].value);
                buf_append_str(&out, "\n");
                break;
            case HTTP1_BODY:
                /* Pieces depend on how the input was cut: joined. */
                if (out.n > 0 && out.p[out.n - 1] == '\n')
                    buf_append_str(&out, "body ");
                buf_append(&out, body.p, body.n);
                break;
            case HTTP1_END: buf_append_str(&out, out.p[out.n - 1] == '\n' ? "end\n" : "\nend\n"); break;
            case HTTP1_UPGRADE:
                buf_printf(&out, "upgrade left=%zu\n", in.n + (n - at - (n - at < step ? n - at : step)));
                stop = true;
                break;
            case HTTP1_ERROR:
                buf_printf(&out, "error %s\n", status_code_name(err.code));
                stop = true;
                break;
            }
        }
    }
    if (!stop && !requests) {
        enum http1_event event = http1_finish(&h);
        if (event == HTTP1_END)
            buf_append_str(&out, out.p[out.n - 1] == '\n' ? "end\n" : "\nend\n");
        else if (event == HTTP1_ERROR)
            buf_append_str(&out, "\ncut\n");
    }
    http1_free(&h);
    return buf_steal(&out);
}

static void check(const char *input, bool requests, void (*prepare)(struct http1 *h), const char *expected)
{
    static const size_t steps[] = { 1, 2, 3, 7, 100000 };

    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        char *got = told(input, strlen(input), steps[i], requests, prepare);
        if (strcmp(got, expected) != 0)
            print_message("step %zu of %s\n", steps[i], input);
        assert_string_equal(got, expected);
        free(got);
    }
}

static void test_requests(void **state)
{
    (void)state;
    check("GET /a?b=%20 HTTP/1.1\r\nHost: x\r\nX-One:  two words \t\r\nX-Empty:\r\n\r\n", true, NULL,
          "GET /a?b=%20 1.1 keep len=-1 X-One=[two words] X-Empty=[]\nend\n");
    check("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloGET /2 HTTP/1.0\r\n\r\n", true, NULL,
          "POST / 1.1 keep len=5\nbody hello\nend\nGET /2 1.0 len=-1\nend\n");
    check("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;e=1\r\nde\r\n0\r\nX-T: 1\r\n\r\n"
          "DELETE /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", true, NULL,
          "POST / 1.1 keep chunked len=-1\nbody abcde\nend\nDELETE /x 1.1 len=-1\nend\n");
    check("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", true, NULL, "GET / 1.1 keep len=0\nend\n");
    check("GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: a/1\r\n\r\nRAW", true, NULL,
          "GET / 1.1 keep upgrade len=-1\nupgrade left=3\n");
    check("CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\nRAW", true, NULL, "CONNECT a:1 1.1 keep upgrade len=-1\nupgrade left=3\n");
}

static void test_refused_requests(void **state)
{
    static const char *const bad[] = {
        "GET / HTTP/1.1\r\n\r\n",                                                         /* no Host */
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET / HTTP/0.9\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", /* smuggling */
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\001b\r\n\r\n",
        "BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\026\003\001\002\000\001\000\001\374\003\003 a TLS hello",
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        char *got = told(bad[i], strlen(bad[i]), 1, true, NULL);
        if (strstr(got, "error INVALID_ARGUMENT\n") == NULL)
            print_message("accepted: %s -> %s\n", bad[i], got);
        assert_non_null(strstr(got, "error INVALID_ARGUMENT\n"));
        free(got);
    }
}

static void test_bounds(void **state)
{
    (void)state;
    struct buf in = BUF_INIT;
    static const char *const starts[] = {
        "GET /", "GET / HTTP/1.1\r\nX: ", "GET / HTTP/1.1\r\nX",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: ",
    };

    /* What goes on for ever, in each place where it can. */
    for (size_t i = 0; i < COUNT_OF(starts); i++) {
        for (size_t step = 1; step <= 100000; step *= 10) {
            buf_clear(&in);
            buf_append_str(&in, starts[i]);
            for (size_t j = 0; j < 3000; j++)
                buf_append_byte(&in, 'a');
            char *got = told((const char *)in.p, in.n, step, true, NULL);
            assert_non_null(strstr(got, "error RESOURCE_EXHAUSTED\n"));
            free(got);
        }
    }
    /* Blanks before a value are not stored, and count all the same. */
    buf_clear(&in);
    buf_append_str(&in, "GET / HTTP/1.1\r\nX:");
    for (size_t j = 0; j < 3000; j++)
        buf_append_byte(&in, ' ');
    char *got = told((const char *)in.p, in.n, 100000, true, NULL);
    assert_non_null(strstr(got, "error RESOURCE_EXHAUSTED\n"));
    free(got);
    /* Many small headers. */
    buf_clear(&in);
    buf_append_str(&in, "GET / HTTP/1.1\r\nHost: x\r\n");
    for (size_t j = 0; j < HTTP_HEADERS_MAX; j++)
        buf_append_str(&in, "a:b\r\n");
    buf_append_str(&in, "\r\n");
    got = told((const char *)in.p, in.n, 100000, true, NULL);
    assert_string_equal(got, "error RESOURCE_EXHAUSTED\n");
    free(got);
    /* A body does not count. */
    buf_clear(&in);
    buf_append_str(&in, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
    for (size_t j = 0; j < 100000; j++)
        buf_append_byte(&in, 'a');
    got = told((const char *)in.p, in.n, 512, true, NULL);
    assert_null(strstr(got, "error"));
    assert_non_null(strstr(got, "\nend\n"));
    free(got);
    buf_free(&in);
}

static void prepare_connect(struct http1 *h)
{
    h->connect = true;
}

static void prepare_head(struct http1 *h)
{
    h->no_body = true;
}

static void test_answers(void **state)
{
    (void)state;
    check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, NULL, "200 keep len=2\nbody ok\nend\n");
    check("HTTP/1.1 200 OK\r\n\r\nuntil the end", false, NULL, "200 len=-1\nbody until the end\nend\n");
    check("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", false, NULL, "200 keep len=9\nbody cut\ncut\n");
    check("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", false, NULL,
          "100 keep len=-1\nend\n204 keep len=-1\nend\n");
    check("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: a/1\r\n\r\nRAW", false, NULL,
          "101 keep upgrade len=-1\nupgrade left=3\n");
    check("HTTP/1.1 101 Switching Protocols\r\n\r\nRAW", false, NULL, "error INVALID_ARGUMENT\n");
    check("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nRAW", false, prepare_connect, "200 keep upgrade len=7\nupgrade left=3\n");
    check("HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nno", false, prepare_connect, "407 keep len=2\nbody no\nend\n");
    check("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", false, prepare_head, "200 keep len=7\nend\n");
    check("HTTP/1.1 999 Huh\r\n\r\n", false, NULL, "error INVALID_ARGUMENT\n");
    check("SSH-2.0-OpenSSH_9.2\r\n", false, NULL, "error INVALID_ARGUMENT\n");
}

static void test_refused_upgrade(void **state)
{
    static const char input[] = "GET /1 HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
                                "GET /2 HTTP/1.1\r\nHost: x\r\n\r\n";
    struct str in = STR(input), body;
    struct http1 h;
    struct status err = STATUS_INIT;

    (void)state;
    http1_init(&h, true, 1024);
    assert_int_equal(http1_next(&h, &in, &body, &err), HTTP1_HEAD);
    assert_int_equal(http1_next(&h, &in, &body, &err), HTTP1_UPGRADE);
    http1_refuse_upgrade(&h);
    assert_int_equal(http1_next(&h, &in, &body, &err), HTTP1_HEAD);
    assert_string_equal(h.head.target, "/2");
    assert_int_equal(http1_next(&h, &in, &body, &err), HTTP1_END);
    assert_int_equal(http1_next(&h, &in, &body, &err), HTTP1_MORE);
    http1_free(&h);
}

/* ---- http.h ---- */

static void test_headers(void **state)
{
    struct http_headers h = { 0 };

    (void)state;
    http_headers_add(&h, "Connection", "keep-alive , Upgrade");
    http_headers_add(&h, "connection", "x");
    assert_string_equal(http_headers_get(&h, "CONNECTION"), "keep-alive , Upgrade");
    assert_null(http_headers_get(&h, "Connectio"));
    assert_int_equal(http_headers_count(&h, "connection"), 2);
    assert_true(http_headers_has_token(&h, "Connection", "upgrade"));
    assert_true(http_headers_has_token(&h, "Connection", "X"));
    assert_false(http_headers_has_token(&h, "Connection", "keep"));
    http_headers_free(&h);
    assert_true(http_name_valid("X-a_b"));
    assert_false(http_name_valid(""));
    assert_false(http_name_valid("a b"));
    assert_false(http_name_valid("a:"));
    assert_true(http_value_valid("a\tb \xc3\xa9"));
    assert_false(http_value_valid("a\r\nb"));
}

static void test_urls(void **state)
{
    static const struct {
        const char *text, *scheme, *host, *target;
        uint16_t port;
    } good[] = {
        { "http://a.b-c", "http", "a.b-c", "", 80 },
        { "HTTPS://a:5000/v2/?x=1", "https", "a", "/v2/?x=1", 5000 },
        { "https://[fe80::1]:1/x", "https", "fe80::1", "/x", 1 },
        { "http://[::1]?q", "http", "::1", "?q", 80 },
    };
    static const char *const bad[] = {
        "", "a", "ftp://a", "http://", "http:///x", "http://a:0/", "http://a:65536/", "http://a:/", "http://a:x/",
        "http://u:p@a/", "http://a b/", "http://[::1/", "http://[::1]x/", "http://a/ b", "http://a/\n", "http://a/#f",
        "http://a\\b/", "http://[]/", "http://a%41/",
    };
    struct http_url url;
    struct status err = STATUS_INIT;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        assert_true(http_url_parse(good[i].text, &url, &err));
        assert_string_equal(url.scheme, good[i].scheme);
        assert_string_equal(url.host, good[i].host);
        assert_string_equal(url.target, good[i].target);
        assert_int_equal(url.port, good[i].port);
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        if (http_url_parse(bad[i], &url, &err))
            print_message("accepted: %s\n", bad[i]);
        assert_false(http_url_parse(bad[i], &url, &err));
    }
    /* A password in a URL must not come back in the message. */
    http_url_parse("http://user:secret@host/", &url, &err);
    assert_null(strstr(err.message, "secret"));
}

static void test_percent(void **state)
{
    struct buf out = BUF_INIT;
    struct arena arena = ARENA_INIT;

    (void)state;
    http_percent_encode(&out, "a b/\xc3\xa9~", "/");
    assert_string_equal(buf_cstr(&out), "a%20b/%C3%A9~");
    buf_clear(&out);
    assert_true(http_percent_decode(STR("a%20b+c"), true, &out));
    assert_string_equal(buf_cstr(&out), "a b c");
    buf_clear(&out);
    assert_false(http_percent_decode(STR("%00"), false, &out));
    assert_false(http_percent_decode(STR("%4"), false, &out));
    assert_false(http_percent_decode(STR("%zz"), false, &out));
    buf_free(&out);
    assert_string_equal(http_query_get(&arena, "a=1&b=x%20y&c&b=2", "b"), "x y");
    assert_string_equal(http_query_get(&arena, "a=1&b=x%20y&c&b=2", "c"), "");
    assert_null(http_query_get(&arena, "a=1&b=x", "d"));
    assert_null(http_query_get(&arena, "a=%zz", "a"));
    assert_null(http_query_get(&arena, "", "a"));
    arena_free(&arena);
}

static void test_status_numbers(void **state)
{
    (void)state;
    for (int code = STATUS_OK; code <= STATUS_UNAUTHENTICATED; code++)
        assert_true((http_from_status_code((enum status_code)code) == 200) == (code == STATUS_OK));
    assert_int_equal(http_to_status_code(404), STATUS_NOT_FOUND);
    assert_int_equal(http_to_status_code(599), STATUS_UNAVAILABLE);
    assert_int_equal(http_to_status_code(299), STATUS_OK);
    assert_string_equal(http_reason(418), "Unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),      cmocka_unit_test(test_refused_requests), cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_answers),       cmocka_unit_test(test_refused_upgrade),  cmocka_unit_test(test_headers),
        cmocka_unit_test(test_urls),          cmocka_unit_test(test_percent),          cmocka_unit_test(test_status_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
