/* SPDX-License-Identifier: Apache-2.0 */
/* Keys, certificates and TLS streams over socket pairs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"
#include "io/tls.h"
#include "io/tls_keys.h"
#include "tls_fixtures.h"

#define TEXT(fixture) ((struct str){ fixture, sizeof fixture - 1 })

/* ---- identities ---- */

static void test_identities(void **state)
{
    static const struct {
        struct str cert, key;
        const char *complaint;
    } cases[] = {
        { TEXT(fixture_ec_crt), TEXT(fixture_ec_key), NULL },
        { TEXT(fixture_ec_crt), TEXT(fixture_ec_sec1_key), NULL },
        { TEXT(fixture_rsa_crt), TEXT(fixture_rsa_key), NULL },
        { TEXT(fixture_rsa_crt), TEXT(fixture_rsa_pkcs1_key), NULL },
        { TEXT(fixture_ec_crt), TEXT(fixture_rsa_key), "does not belong" },
        { TEXT(fixture_ec_crt), TEXT(fixture_client_ec_key), "does not belong" },
        { TEXT(fixture_rsa_crt), TEXT(fixture_client_rsa_key), "does not belong" },
        { TEXT(fixture_ec_crt), TEXT(fixture_encrypted_key), "encrypted" },
        { TEXT(fixture_ec_crt), TEXT(fixture_ec_crt), "no private key" },
        { TEXT(fixture_ec_key), TEXT(fixture_ec_key), "no certificate" },
        { STR(""), STR(""), "no certificate" },
        { STR("hello\n"), STR("hello\n"), "no certificate" },
        { STR("-----BEGIN CERTIFICATE-----\n"), TEXT(fixture_ec_key), "ends in the middle" },
        { STR("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"), TEXT(fixture_ec_key), "broken" },
        { STR("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), TEXT(fixture_ec_key), "cannot be used" },
        { TEXT(fixture_ec_crt), STR("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "not an RSA or EC key" },
    };
    char pin[TLS_PIN_SIZE];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct status err = STATUS_INIT;
        struct tls_identity *identity = tls_identity_parse(cases[i].cert, cases[i].key, &err);
        if ((identity != NULL) != (cases[i].complaint == NULL) ||
            (identity == NULL && strstr(err.message, cases[i].complaint) == NULL))
            fail_msg("case %zu: %s", i, err.message);
        tls_identity_free(identity);
    }
    struct status err = STATUS_INIT;
    /* A last line without its line feed; the chain's other certificates. */
    cleanup_free char *chain = xasprintf("%s%s", fixture_ec_crt, fixture_ca_crt);
    chain[strlen(chain) - 1] = '\0';
    struct tls_identity *identity = tls_identity_parse(str_of(chain), TEXT(fixture_ec_key), &err);
    assert_non_null(identity);
    assert_int_equal(identity->chain_length, 2);
    tls_identity_pin(identity, pin);
    assert_string_equal(pin, fixture_ec_pin);
    tls_identity_free(identity);
    identity = tls_identity_parse(TEXT(fixture_rsa_crt), TEXT(fixture_rsa_key), &err);
    tls_identity_pin(identity, pin);
    assert_string_equal(pin, fixture_rsa_pin);
    tls_identity_free(identity);
}

static void test_load_or_create(void **state)
{
    char dir[] = "/tmp/test-tls-XXXXXX", pin[TLS_PIN_SIZE], again[TLS_PIN_SIZE];
    struct status err = STATUS_INIT;
    struct stat st;

    (void)state;
    assert_non_null(mkdtemp(dir));
    cleanup_free char *sub = xasprintf("%s/a/b", dir);
    cleanup_free char *file = xasprintf("%s/relay.pem", sub);
    struct tls_identity *identity = tls_identity_load_or_create(sub, "relay", &err);
    assert_non_null(identity);
    tls_identity_pin(identity, pin);
    assert_true(tls_pin_valid(pin));
    tls_identity_free(identity);
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(sub, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    identity = tls_identity_load_or_create(sub, "relay", &err);
    tls_identity_pin(identity, again);
    assert_string_equal(pin, again);
    tls_identity_free(identity);
    /* What is there is never replaced, even when it is useless. */
    assert_true(file_replace(file, "x", 1, 0600, &err));
    assert_null(tls_identity_load_or_create(sub, "relay", &err));
    assert_non_null(strstr(err.message, file));
    /* No folder to write to. */
    assert_null(tls_identity_load_or_create("/proc/nowhere", "relay", &err));
    assert_true(tree_remove(dir, &err));
}

static void test_pins(void **state)
{
    struct status err = STATUS_INIT;

    (void)state;
    assert_true(tls_pin_valid(fixture_ec_pin));
    assert_false(tls_pin_valid(""));
    assert_false(tls_pin_valid("sha256:00"));
    assert_false(tls_pin_valid("sha256:zz0000000000000000000000000000000000000000000000000000000000000000"));
    assert_false(tls_pin_valid("sha512:000000000000000000000000000000000000000000000000000000000000000000"));
    assert_null(tls_trust_pin("nonsense", &err));
}

static void test_trust(void **state)
{
    struct status err = STATUS_INIT;

    (void)state;
    assert_null(tls_trust_parse(STR(""), &err));
    assert_null(tls_trust_parse(STR("# only a comment\n"), &err));
    assert_null(tls_trust_load("/nonexistent", &err));
    /* A certificate that makes no sense is left out. */
    cleanup_free char *mixed =
        xasprintf("comment\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n%s%s", fixture_ca_crt, fixture_other_ca_crt);
    struct tls_trust *trust = tls_trust_parse(str_of(mixed), &err);
    assert_non_null(trust);
    assert_int_equal(trust->anchor_count, 2);
    tls_trust_free(trust);
    const char *bundle = tls_find_ca_bundle();
    if (bundle != NULL && access(bundle, R_OK) == 0) {
        trust = tls_trust_load(bundle, &err);
        assert_non_null(trust);
        assert_true(trust->anchor_count > 20);
        tls_trust_free(trust);
    }
}

static void test_der(void **state)
{
    struct buf out = BUF_INIT;
    static const char *const bad[] = { "", "\x30", "\x30\x01", "\x30\x80\x00", "\x30\x81\x01x", "\x1f\x01x", "\x30\x85\x01\x01\x01\x01\x01" };
    struct str in, value, whole;
    unsigned tag;

    (void)state;
    for (size_t n = 0; n < 70000; n = n < 300 ? n + 1 : n * 3) {
        cleanup_free char *zeros = xcalloc(n, 1);
        buf_clear(&out);
        der_put(&out, DER_OCTET_STRING, zeros, n);
        in = (struct str){ (const char *)out.p, out.n };
        assert_true(der_next(&in, &tag, &value, &whole));
        assert_int_equal(value.n, n);
        assert_int_equal(whole.n, out.n);
        assert_int_equal(in.n, 0);
        in = (struct str){ (const char *)out.p, out.n - 1 };
        assert_false(der_next(&in, &tag, &value, NULL));
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        in = str_of(bad[i]);
        assert_false(der_next(&in, &tag, &value, NULL));
    }
    buf_free(&out);
}

/* A certificate's validity and its names, out of hand-made bytes. */
static void test_der_certificates(void **state)
{
    static const char validity[] = "\x17\x0d" "700101000000Z" "\x18\x0f" "20500101000000Z";
    static const char names[] = "\x30\x27\x06\x03\x55\x1d\x11\x04\x20\x30\x1e\x82\x09" "a.example" "\x82\x0b" "*.b.example" "\x87\x04\x7f\x00\x00\x01";
    const struct der_certificate c = { .validity = { validity, sizeof validity - 1 }, .extensions = { names, sizeof names - 1 } };

    (void)state;
    assert_int_equal(der_certificate_when(&c, -1), -1);
    assert_int_equal(der_certificate_when(&c, 0), 0);
    assert_int_equal(der_certificate_when(&c, 2524608000), 0);
    assert_int_equal(der_certificate_when(&c, 2524608001), 1);
    for (size_t n = 0; n < sizeof validity - 1; n++)
        assert_int_equal(der_certificate_when(&(struct der_certificate){ .validity = { validity, n } }, -1), 0);
    assert_true(der_certificate_has_dns(&c, "A.example"));
    assert_true(der_certificate_has_dns(&c, "x.b.example"));
    assert_false(der_certificate_has_dns(&c, "b.example"));
    assert_false(der_certificate_has_dns(&c, ".b.example"));
    assert_false(der_certificate_has_dns(&c, "x.y.b.example"));
    assert_false(der_certificate_has_dns(&c, "example"));
    assert_true(der_certificate_has_ip(&c, "\x7f\0\0\1", 4));
    assert_false(der_certificate_has_dns(&c, "127.0.0.1"));
    for (size_t n = 0; n < sizeof names - 1; n++)
        assert_false(der_certificate_has_dns(&(struct der_certificate){ .extensions = { names, n } }, "a.example"));
}

/* ---- streams ---- */

struct end {
    struct stream *stream;
    struct buf in;
    size_t to_send, sent, read_limit;
    ssize_t last; /* of the last read that gave no bytes */
    bool hangup, paused;
};

struct fixture {
    struct loop *loop;
    struct end client, server;
    int raw; /* a bare end of the pair; -1 */
};

static uint8_t pattern(size_t at)
{
    return (uint8_t)(at * 31 + (at >> 8));
}

static void end_on_event(void *arg, unsigned events)
{
    struct end *e = arg;

    if (events & WATCH_HANGUP)
        e->hangup = true;
    if ((events & WATCH_READ) && !e->paused) {
        uint8_t *p = buf_reserve(&e->in, 5000);
        e->last = stream_read(e->stream, p, 5000);
        if (e->last > 0)
            e->in.n += (size_t)e->last;
    }
    while ((events & WATCH_WRITE) && e->sent < e->to_send) {
        uint8_t piece[3000];
        size_t n = e->to_send - e->sent < sizeof piece ? e->to_send - e->sent : sizeof piece;
        for (size_t i = 0; i < n; i++)
            piece[i] = pattern(e->sent + i);
        struct iovec iov[3] = { { piece, n / 2 }, { piece, 0 }, { piece + n / 2, n - n / 2 } };
        ssize_t put = stream_writev(e->stream, iov, 3);
        if (put <= 0)
            break;
        e->sent += (size_t)put;
    }
    bool ended = e->last == 0 || (e->last < 0 && e->last != -EAGAIN);
    stream_want(e->stream, (e->sent < e->to_send ? WATCH_WRITE : 0) | (ended || e->paused ? 0 : WATCH_READ));
}

static void end_start(struct end *e, struct stream *stream)
{
    assert_non_null(stream);
    e->stream = stream;
    e->last = -EAGAIN;
    stream_listen(stream, end_on_event, e);
    stream_want(stream, WATCH_READ | (e->to_send > 0 ? WATCH_WRITE : 0));
}

static void turn(struct fixture *f, int64_t ms)
{
    int64_t end = clock_mono_ms() + ms;

    do
        loop_turn(f->loop, 5);
    while (clock_mono_ms() < end);
}

#define TURN_UNTIL(condition)                                                                                          \
    for (int64_t end_ = clock_mono_ms() + 10000; !(condition);) {                                                      \
        loop_turn(f->loop, 5);                                                                                         \
        if (clock_mono_ms() > end_)                                                                                    \
            fail_msg("never: " #condition);                                                                            \
    }

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    struct status err = STATUS_INIT;

    f->loop = loop_new(&err);
    f->raw = -1;
    *state = f;
    return 0;
}

static void end_stop(struct end *e)
{
    stream_free(e->stream);
    buf_free(&e->in);
    *e = (struct end){ 0 };
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    end_stop(&f->client);
    end_stop(&f->server);
    if (f->raw >= 0)
        close(f->raw);
    turn(f, 0);
    loop_free(f->loop);
    free(f);
    return 0;
}

/* Both ends over a socket pair; NULL trust or identity: that end stays bare (f->raw). */
static void connect_pair(struct fixture *f, struct tls_trust *trust, const char *host, struct tls_identity *identity, int64_t timeout)
{
    struct status err = STATUS_INIT;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    if (identity != NULL)
        end_start(&f->server, tls_server(f->loop, stream_of_fd(f->loop, pair[1], &err), identity, timeout, &err));
    else
        f->raw = pair[1];
    if (trust != NULL)
        end_start(&f->client, tls_client(f->loop, stream_of_fd(f->loop, pair[0], &err), trust, host, NULL, timeout, &err));
    else
        f->raw = pair[0];
    tls_trust_free(trust);
    tls_identity_free(identity);
}

static struct tls_identity *identity_of(struct str cert, struct str key)
{
    struct status err = STATUS_INIT;
    struct tls_identity *identity = tls_identity_parse(cert, key, &err);

    assert_non_null(identity);
    return identity;
}
#define IDENTITY(name) identity_of(TEXT(fixture_##name##_crt), TEXT(fixture_##name##_key))

static struct tls_trust *ca(void)
{
    struct status err = STATUS_INIT;

    return tls_trust_parse(TEXT(fixture_ca_crt), &err);
}

static struct tls_trust *pin(const char *text)
{
    struct status err = STATUS_INIT;

    return tls_trust_pin(text, &err);
}

static void check_received(const struct end *e, size_t n)
{
    assert_int_equal(e->in.n, n);
    for (size_t i = 0; i < n; i++)
        if (e->in.p[i] != pattern(i))
            fail_msg("byte %zu differs", i);
}

static void exchange(struct fixture *f, struct tls_trust *trust, const char *host, struct tls_identity *identity)
{
    f->client.to_send = 100;
    f->server.to_send = 70000;
    connect_pair(f, trust, host, identity, 0);
    TURN_UNTIL(f->client.in.n == 70000 && f->server.in.n == 100);
    check_received(&f->client, 70000);
    check_received(&f->server, 100);
    assert_true(tls_stream_established(f->client.stream));
    /* A farewell is an end. */
    stream_free(f->client.stream);
    f->client.stream = NULL;
    TURN_UNTIL(f->server.last == 0);
    struct status err = STATUS_INIT;
    assert_false(tls_stream_error(f->server.stream, &err));
    end_stop(&f->client);
    end_stop(&f->server);
}

static void test_exchanges(void **state)
{
    struct fixture *f = *state;

    exchange(f, ca(), "localhost", IDENTITY(ec));
    exchange(f, ca(), "LOCALHOST.", IDENTITY(ec));
    exchange(f, ca(), "a.wild.example", IDENTITY(ec));
    exchange(f, ca(), "localhost", IDENTITY(rsa));
    exchange(f, ca(), "127.0.0.1", IDENTITY(rsa));
    exchange(f, ca(), "::1", IDENTITY(rsa));
    exchange(f, pin(fixture_ec_pin), "whatever", IDENTITY(ec));
    exchange(f, pin(fixture_rsa_pin), "10.0.0.1", IDENTITY(rsa));
    exchange(f, tls_trust_anyone(), "whatever", IDENTITY(expired));
    /* Our own kind. */
    struct buf pem = BUF_INIT;
    char own[TLS_PIN_SIZE];
    tls_identity_make("interlink-cri", &pem);
    struct str text = { buf_cstr(&pem), pem.n };
    struct tls_identity *identity = identity_of(text, text);
    tls_identity_pin(identity, own);
    exchange(f, pin(own), "relay", tls_identity_ref(identity));
    /* It also passes as its own authority, for those who rather configure a certificate than a pin. */
    struct status err = STATUS_INIT;
    exchange(f, tls_trust_parse(text, &err), "interlink-cri", identity);
    buf_free(&pem);
}

static void refusal(struct fixture *f, struct tls_trust *trust, const char *host, struct tls_identity *identity, const char *expected)
{
    struct status err = STATUS_INIT;

    f->client.to_send = 10;
    f->server.to_send = 10;
    connect_pair(f, trust, host, identity, 0);
    TURN_UNTIL(f->client.hangup && f->client.last != -EAGAIN);
    assert_int_equal(f->client.last, -EPROTO);
    assert_int_equal(stream_write(f->client.stream, "x", 1), -EPROTO);
    assert_true(tls_stream_error(f->client.stream, &err));
    if (err.code != STATUS_UNAUTHENTICATED || strstr(err.message, expected) == NULL)
        fail_msg("%s: %s", status_code_name(err.code), err.message);
    assert_int_equal(f->server.in.n, 0);
    stream_free(f->client.stream);
    f->client.stream = NULL;
    TURN_UNTIL(f->server.hangup);
    assert_true(tls_stream_error(f->server.stream, &err));
    assert_int_equal(f->client.in.n, 0);
    end_stop(&f->client);
    end_stop(&f->server);
}

static void test_refusals(void **state)
{
    struct fixture *f = *state;
    struct status err = STATUS_INIT;

    refusal(f, ca(), "otherhost", IDENTITY(ec), "issued for another name");
    refusal(f, ca(), "wild.example", IDENTITY(ec), "issued for another name");
    refusal(f, ca(), "127.0.0.2", IDENTITY(ec), "does not carry this IP address");
    refusal(f, ca(), "::1", IDENTITY(ec), "does not carry this IP address");
    refusal(f, ca(), "localhost", IDENTITY(expired), "expired");
    refusal(f, ca(), "localhost", IDENTITY(weak), "2048 bits");
    refusal(f, tls_trust_parse(TEXT(fixture_other_ca_crt), &err), "localhost", IDENTITY(ec), "not issued by any of the 1 authorities");
    refusal(f, pin(fixture_ec_pin), "localhost", IDENTITY(rsa), "not the one that is pinned");
    refusal(f, pin(fixture_rsa_pin), "localhost", IDENTITY(ec), "not the one that is pinned");
}

static void test_back_pressure(void **state)
{
    struct fixture *f = *state;

    /* A peer that does not read stops the sender after a record and the socket's buffer. */
    f->client.to_send = 8 << 20;
    f->server.to_send = 3 << 20;
    f->server.paused = true;
    connect_pair(f, ca(), "localhost", IDENTITY(ec), 0);
    stream_want(f->server.stream, 0);
    turn(f, 200);
    assert_int_equal(f->client.in.n, 0);
    assert_in_range(f->client.sent, 0, 2 << 20);
    f->server.paused = false;
    stream_want(f->server.stream, WATCH_READ | WATCH_WRITE);
    TURN_UNTIL(f->client.in.n == 3 << 20 && f->server.in.n == 8 << 20);
    check_received(&f->client, 3 << 20);
    check_received(&f->server, 8 << 20);
}

static void test_freed_with_bytes_inside(void **state)
{
    struct fixture *f = *state;

    f->client.to_send = 1 << 20;
    connect_pair(f, ca(), "localhost", IDENTITY(ec), 0);
    TURN_UNTIL(tls_stream_established(f->client.stream) && tls_stream_established(f->server.stream));
    f->server.paused = true;
    turn(f, 100);
    /* What write() took must arrive, and the farewell behind it. */
    size_t taken = f->client.sent;
    assert_true(taken > 0 && taken < 1 << 20);
    stream_free(f->client.stream);
    f->client.stream = NULL;
    f->server.paused = false;
    stream_want(f->server.stream, WATCH_READ);
    TURN_UNTIL(f->server.last == 0);
    check_received(&f->server, taken);
}

static void test_cut(void **state)
{
    struct fixture *f = *state;
    struct status err = STATUS_INIT;
    int pair[2], outer[2];

    /* A wire in the middle that somebody cuts. */
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, outer), 0);
    fd_set_nonblocking(pair[1], true);
    fd_set_nonblocking(outer[1], true);
    struct tls_identity *identity = IDENTITY(ec);
    struct tls_trust *trust = ca();
    end_start(&f->server, tls_server(f->loop, stream_of_fd(f->loop, outer[0], &err), identity, 0, &err));
    f->client.to_send = 5;
    end_start(&f->client, tls_client(f->loop, stream_of_fd(f->loop, pair[0], &err), trust, "localhost", NULL, 0, &err));
    tls_identity_free(identity);
    tls_trust_free(trust);
    while (f->server.in.n < 5) {
        char bytes[4096];
        loop_turn(f->loop, 1);
        ssize_t n = read(pair[1], bytes, sizeof bytes);
        if (n > 0)
            assert_int_equal(write(outer[1], bytes, (size_t)n), n);
        n = read(outer[1], bytes, sizeof bytes);
        if (n > 0)
            assert_int_equal(write(pair[1], bytes, (size_t)n), n);
    }
    shutdown(outer[1], SHUT_WR);
    TURN_UNTIL(f->server.last != -EAGAIN && f->server.last <= 0);
    assert_int_equal(f->server.last, -ECONNRESET);
    assert_true(tls_stream_error(f->server.stream, &err));
    assert_non_null(strstr(err.message, "cut"));
    /* A changed record. */
    ssize_t ignored UNUSED = write(pair[1], "\x17\x03\x03\x00\x20" "0123456789abcdef0123456789abcdef", 37);
    TURN_UNTIL(f->client.hangup);
    assert_true(tls_stream_error(f->client.stream, &err));
    assert_non_null(strstr(err.message, "changed on the way"));
    close(pair[1]);
    close(outer[1]);
}

static void test_bad_peers(void **state)
{
    struct fixture *f = *state;
    struct status err = STATUS_INIT;

    /* A client that is not TLS. */
    connect_pair(f, NULL, "", IDENTITY(ec), 0);
    ssize_t ignored UNUSED = write(f->raw, "GET / HTTP/1.1\r\n\r\n", 18);
    TURN_UNTIL(f->server.hangup);
    assert_true(tls_stream_error(f->server.stream, &err));
    assert_non_null(strstr(err.message, "not TLS"));
    close(f->raw);
    end_stop(&f->server);
    /* A server that is not. */
    connect_pair(f, ca(), "localhost", NULL, 0);
    ignored = write(f->raw, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
    TURN_UNTIL(f->client.hangup);
    assert_true(tls_stream_error(f->client.stream, &err));
    assert_non_null(strstr(err.message, "not TLS"));
    close(f->raw);
    end_stop(&f->client);
    /* A server that goes. */
    connect_pair(f, ca(), "localhost", NULL, 0);
    close(f->raw);
    f->raw = -1;
    TURN_UNTIL(f->client.hangup);
    assert_true(tls_stream_error(f->client.stream, &err));
    assert_int_equal(err.code, STATUS_UNAVAILABLE);
    end_stop(&f->client);
    /* A server that says why, and goes without reading: what we write is lost, what it said is not. */
    int pair[2];
    struct tls_trust *trust = ca();
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(write(pair[1], "\x15\x03\x03\x00\x02\x02\x30", 7), 7);
    close(pair[1]);
    end_start(&f->client, tls_client(f->loop, stream_of_fd(f->loop, pair[0], &err), trust, "localhost", NULL, 0, &err));
    tls_trust_free(trust);
    TURN_UNTIL(f->client.hangup);
    assert_true(tls_stream_error(f->client.stream, &err));
    assert_non_null(strstr(err.message, "does not know the authority"));
    end_stop(&f->client);
    /* A client of TLS 1.0 only: a hello with that version. */
    static const char hello[] = "\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x01" "0123456789abcdef0123456789abcdef"
                                "\x00\x00\x04\x00\x2f\x00\xff\x01\x00";
    connect_pair(f, NULL, "", IDENTITY(ec), 0);
    ignored = write(f->raw, hello, sizeof hello - 1);
    TURN_UNTIL(f->server.hangup);
    assert_true(tls_stream_error(f->server.stream, &err));
    assert_non_null(strstr(err.message, "does not speak TLS 1.2"));
    close(f->raw);
    f->raw = -1;
    end_stop(&f->server);
}

static void test_timeout(void **state)
{
    struct fixture *f = *state;
    struct status err = STATUS_INIT;

    connect_pair(f, NULL, "", IDENTITY(ec), 100);
    int64_t start = clock_mono_ms();
    TURN_UNTIL(f->server.hangup);
    assert_in_range(clock_mono_ms() - start, 80, 1000);
    assert_true(tls_stream_error(f->server.stream, &err));
    assert_int_equal(err.code, STATUS_DEADLINE_EXCEEDED);
    /* An established connection has none. */
    close(f->raw);
    f->raw = -1;
    end_stop(&f->server);
    connect_pair(f, ca(), "localhost", IDENTITY(ec), 200);
    turn(f, 500);
    assert_true(tls_stream_established(f->client.stream));
    assert_false(tls_stream_error(f->client.stream, &err));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identities), cmocka_unit_test(test_load_or_create), cmocka_unit_test(test_pins),
        cmocka_unit_test(test_trust),      cmocka_unit_test(test_der),            TEST(test_exchanges),
        cmocka_unit_test(test_der_certificates),
        TEST(test_refusals),               TEST(test_back_pressure),              TEST(test_freed_with_bytes_inside),
        TEST(test_cut),                    TEST(test_bad_peers),                  TEST(test_timeout),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
