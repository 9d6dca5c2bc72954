/* SPDX-License-Identifier: Apache-2.0 */
#include "io/tls_keys.h"

/* A stream that was freed with bytes still on their way lives on for so long to deliver them and its close_notify. */
#define TLS_LINGER_MS 5000

/* BearSSL's engine is a box with four doors: records in and out on the side of `lower`, plain bytes in and out on ours. It
 * holds one record for each direction; a door that is shut is back-pressure. */
struct tls_stream {
    struct stream base;
    struct loop *loop;
    struct stream *lower; /* owned */
    br_ssl_engine_context *engine; /* inside `context` */
    union {
        br_ssl_client_context client;
        br_ssl_server_context server;
    } context;
    struct tls_identity *identity; /* a reference; NULL: none */
    struct tls_verifier *verifier; /* owned; until the handshake is done; clients */
    struct timer timer;            /* the handshake's, later the linger's */
    struct deferred poke;
    unsigned want;
    bool established, lower_end, write_blocked, closing, hangup_told;
    bool ended; /* the peer said farewell, and is not there any more to hear ours */
    bool lingering; /* freed by its owner */
    bool *freed;    /* set while the owner is called: tells that it freed us */
    bool failed;
    struct status error; /* when failed */
    unsigned char buffer[BR_SSL_BUFSIZE_BIDI];
};

/* ---- set-up ---- */

static const uint16_t tls_suites_aes_first[] = {
    BR_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,       BR_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    BR_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,       BR_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    BR_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, BR_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
};
static const uint16_t tls_suites_chacha_first[] = {
    BR_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, BR_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    BR_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,       BR_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    BR_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,       BR_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
};

/* RFC 9325: TLS 1.2, forward secrecy, AEAD. AES first where the processor computes it. */
static void tls_engine_profile(br_ssl_engine_context *engine)
{
    static const br_hash_class *const hashes[] = { &br_sha224_vtable, &br_sha256_vtable, &br_sha384_vtable, &br_sha512_vtable };
    bool aes = br_aes_x86ni_ctr_get_vtable() != NULL || br_aes_pwr8_ctr_get_vtable() != NULL;

    br_ssl_engine_set_versions(engine, BR_TLS12, BR_TLS12);
    br_ssl_engine_set_suites(engine, aes ? tls_suites_aes_first : tls_suites_chacha_first, COUNT_OF(tls_suites_aes_first));
    br_ssl_engine_set_hash(engine, br_md5_ID, NULL);
    br_ssl_engine_set_hash(engine, br_sha1_ID, NULL);
    for (size_t i = 0; i < COUNT_OF(hashes); i++)
        br_ssl_engine_set_hash(engine, br_sha224_ID + (int)i, hashes[i]);
    br_ssl_engine_set_prf_sha256(engine, &br_tls12_sha256_prf);
    br_ssl_engine_set_prf_sha384(engine, &br_tls12_sha384_prf);
    br_ssl_engine_set_default_ec(engine);
    br_ssl_engine_set_default_rsavrfy(engine);
    br_ssl_engine_set_default_ecdsa(engine);
    br_ssl_engine_set_default_aes_gcm(engine);
    br_ssl_engine_set_default_chapol(engine);
    br_ssl_engine_add_flags(engine, BR_OPT_NO_RENEGOTIATION);
}

void tls_client_profile(br_ssl_client_context *client)
{
    tls_engine_profile(&client->eng);
    br_ssl_client_set_default_rsapub(client);
}

void tls_identity_offer(const struct tls_identity *identity, br_ssl_client_context *client)
{
    if (identity->key_type == BR_KEYTYPE_RSA)
        br_ssl_client_set_single_rsa(client, identity->chain, identity->chain_length,
                                     br_skey_decoder_get_rsa(&identity->key), br_rsa_pkcs1_sign_get_default());
    else
        br_ssl_client_set_single_ec(client, identity->chain, identity->chain_length, br_skey_decoder_get_ec(&identity->key),
                                    BR_KEYTYPE_SIGN, BR_KEYTYPE_EC, br_ec_get_default(), br_ecdsa_sign_asn1_get_default());
}

static void tls_identity_serve(const struct tls_identity *identity, br_ssl_server_context *server)
{
    if (identity->key_type == BR_KEYTYPE_RSA)
        br_ssl_server_set_single_rsa(server, identity->chain, identity->chain_length,
                                     br_skey_decoder_get_rsa(&identity->key), BR_KEYTYPE_SIGN, br_rsa_private_get_default(),
                                     br_rsa_pkcs1_sign_get_default());
    else
        br_ssl_server_set_single_ec(server, identity->chain, identity->chain_length, br_skey_decoder_get_ec(&identity->key),
                                    BR_KEYTYPE_SIGN, BR_KEYTYPE_EC, br_ec_get_default(), br_ecdsa_sign_asn1_get_default());
}

/* ---- the engine and its lower side ---- */

static void tls_fail(struct tls_stream *t, enum status_code code, const char *text)
{
    if (t->failed)
        return;
    t->failed = true;
    if (t->verifier == NULL || !tls_verifier_failed(t->verifier, &t->error))
        status_set(&t->error, code, "TLS: %s", text);
}

/* Moves bytes of a record in. False when nothing more can be moved now. */
static bool tls_pull(struct tls_stream *t)
{
    size_t n;
    unsigned char *p = br_ssl_engine_recvrec_buf(t->engine, &n);

    if (p == NULL || t->lower_end || t->ended)
        return false;
    ssize_t got = stream_read(t->lower, p, n);
    if (got == -EAGAIN)
        return false;
    if (got > 0) {
        br_ssl_engine_recvrec_ack(t->engine, (size_t)got);
        return true;
    }
    t->lower_end = true;
    if (got < 0)
        tls_fail(t, STATUS_UNAVAILABLE, "the connection was lost");
    else if (!t->established)
        tls_fail(t, STATUS_UNAVAILABLE, "the peer closed the connection during the handshake");
    else
        tls_fail(t, STATUS_UNAVAILABLE, "the connection ended without a farewell: it may have been cut");
    return false;
}

/* The end of the engine, on purpose or not. */
static void tls_check_closed(struct tls_stream *t)
{
    int code = br_ssl_engine_last_error(t->engine);

    if ((br_ssl_engine_current_state(t->engine) & BR_SSL_CLOSED) == 0)
        return;
    if (code != BR_ERR_OK)
        tls_fail(t, STATUS_UNAVAILABLE, tls_error_text(code));
    else if (!t->established)
        tls_fail(t, STATUS_UNAVAILABLE, "the peer closed the connection during the handshake");
}

/* The peer may have said why before it closed. The kernel keeps that for us to read, whatever it makes of our bytes. */
static void tls_write_lost(struct tls_stream *t)
{
    while (!t->failed && !t->engine->shutdown_recv && tls_pull(t))
        continue;
    tls_check_closed(t);
    if (t->engine->shutdown_recv)
        t->ended = true;
    else
        tls_fail(t, STATUS_UNAVAILABLE, "the connection was lost");
}

/* Moves records out. False when nothing more can be moved now. */
static bool tls_push(struct tls_stream *t)
{
    size_t n;
    unsigned char *p = br_ssl_engine_sendrec_buf(t->engine, &n);

    if (p == NULL || t->write_blocked || t->ended)
        return false;
    ssize_t put = stream_write(t->lower, p, n);
    if (put == -EAGAIN) {
        t->write_blocked = true;
        return false;
    }
    if (put <= 0) {
        tls_write_lost(t);
        return false;
    }
    br_ssl_engine_sendrec_ack(t->engine, (size_t)put);
    return true;
}

static void tls_check_established(struct tls_stream *t)
{
    if (t->established || (br_ssl_engine_current_state(t->engine) & (BR_SSL_SENDAPP | BR_SSL_RECVAPP)) == 0)
        return;
    t->established = true;
    timer_stop(&t->timer);
    br_ssl_engine_set_x509(t->engine, NULL); /* there is no second handshake */
    tls_verifier_free(t->verifier);
    t->verifier = NULL;
}

/* Does what can be done now. Records come in only while the engine has room, which it has not before the plain bytes of the
 * last one were taken. `pull`: whether to take any. */
static void tls_run(struct tls_stream *t, bool pull)
{
    while (!t->failed && (tls_push(t) || (pull && tls_pull(t))))
        tls_check_established(t);
    tls_check_established(t);
    tls_check_closed(t);
}

static bool tls_closed(const struct tls_stream *t)
{
    return t->failed || t->ended || (br_ssl_engine_current_state(t->engine) & BR_SSL_CLOSED) != 0;
}

static bool tls_readable(const struct tls_stream *t)
{
    return tls_closed(t) || (br_ssl_engine_current_state(t->engine) & BR_SSL_RECVAPP) != 0;
}

static bool tls_writable(const struct tls_stream *t)
{
    return tls_closed(t) || (br_ssl_engine_current_state(t->engine) & BR_SSL_SENDAPP) != 0;
}

static void tls_destroy(struct tls_stream *t)
{
    timer_stop(&t->timer);
    deferred_stop(&t->poke);
    stream_free(t->lower);
    tls_verifier_free(t->verifier);
    tls_identity_free(t->identity);
    explicit_bzero(&t->context, sizeof t->context);
    free(t);
}

static void tls_on_poke(void *arg);

/* What to hear from below, and whether there is something to tell above. */
static void tls_update(struct tls_stream *t)
{
    unsigned want = t->write_blocked ? WATCH_WRITE : 0;

    if (t->lingering) {
        if (tls_closed(t) || !t->write_blocked)
            tls_destroy(t);
        else
            stream_want(t->lower, want);
        return;
    }
    if (!t->lower_end && (!t->established || (t->want & WATCH_READ)) && !tls_readable(t))
        want |= WATCH_READ;
    stream_want(t->lower, tls_closed(t) ? 0 : want | (t->want & WATCH_END));
    if ((t->failed && !t->hangup_told) || ((t->want & WATCH_READ) && tls_readable(t)) ||
        ((t->want & WATCH_WRITE) && tls_writable(t)))
        deferred_start(t->loop, &t->poke, tls_on_poke, t);
}

/* Tells the owner, who may free us in it. */
static void tls_tell(struct tls_stream *t, unsigned events)
{
    bool freed = false;

    if (events != 0 && t->base.on_event != NULL) {
        t->freed = &freed;
        t->base.on_event(t->base.arg, events);
        if (freed)
            return;
        t->freed = NULL;
    }
    tls_update(t);
}

static unsigned tls_ready(struct tls_stream *t)
{
    unsigned events = 0;

    if ((t->want & WATCH_READ) && tls_readable(t))
        events |= WATCH_READ;
    if ((t->want & WATCH_WRITE) && tls_writable(t))
        events |= WATCH_WRITE;
    if (t->failed && !t->hangup_told && t->base.on_event != NULL) {
        t->hangup_told = true;
        events |= WATCH_HANGUP;
    }
    return events;
}

static void tls_on_poke(void *arg)
{
    struct tls_stream *t = arg;

    tls_tell(t, tls_ready(t));
}

static void tls_on_lower(void *arg, unsigned events)
{
    struct tls_stream *t = arg;

    if (events & WATCH_WRITE)
        t->write_blocked = false;
    tls_run(t, !t->lingering && (!t->established || (t->want & WATCH_READ) || (events & WATCH_HANGUP)));
    if (events & WATCH_HANGUP && !t->established)
        tls_fail(t, STATUS_UNAVAILABLE, "the connection was lost during the handshake");
    if (t->lingering) {
        if (events & WATCH_HANGUP)
            t->failed = true;
        tls_update(t);
        return;
    }
    unsigned told = tls_ready(t);
    /* What is still inside must be readable before the owner hears that the connection is gone. */
    if (events & WATCH_HANGUP && t->established)
        told |= WATCH_HANGUP;
    tls_tell(t, told | (events & t->want & WATCH_END));
}

static void tls_on_timeout(void *arg)
{
    struct tls_stream *t = arg;

    if (t->lingering) {
        tls_destroy(t);
        return;
    }
    tls_fail(t, STATUS_DEADLINE_EXCEEDED, "the handshake was not finished in time");
    tls_tell(t, tls_ready(t));
}

/* ---- the stream ---- */

static ssize_t tls_read(struct stream *s, void *p, size_t n)
{
    struct tls_stream *t = (struct tls_stream *)(void *)s;
    size_t have;

    tls_run(t, !tls_readable(t));
    unsigned char *data = br_ssl_engine_recvapp_buf(t->engine, &have);
    if (data != NULL && n > 0) {
        size_t take = have < n ? have : n;
        memcpy(p, data, take);
        br_ssl_engine_recvapp_ack(t->engine, take);
        tls_update(t);
        return (ssize_t)take;
    }
    tls_update(t);
    if (t->failed)
        return t->established && t->lower_end ? -ECONNRESET : -EPROTO;
    return tls_closed(t) ? 0 : -EAGAIN;
}

static ssize_t tls_write(struct stream *s, const struct iovec *iov, int count)
{
    struct tls_stream *t = (struct tls_stream *)(void *)s;
    size_t total = 0, offset = 0;

    tls_run(t, false);
    for (int i = 0; i < count && !tls_closed(t);) {
        size_t room;
        unsigned char *p = br_ssl_engine_sendapp_buf(t->engine, &room);
        if (p == NULL)
            break;
        /* Small pieces share a record. */
        size_t filled = 0;
        while (i < count && filled < room) {
            size_t left = iov[i].iov_len - offset, take = left < room - filled ? left : room - filled;
            memcpy(p + filled, (const char *)iov[i].iov_base + offset, take);
            filled += take;
            offset += take;
            if (offset == iov[i].iov_len) {
                i++;
                offset = 0;
            }
        }
        if (filled == 0)
            break;
        br_ssl_engine_sendapp_ack(t->engine, filled);
        br_ssl_engine_flush(t->engine, 0);
        total += filled;
        tls_run(t, false);
    }
    tls_update(t);
    if (total > 0)
        return (ssize_t)total;
    if (tls_closed(t))
        return t->established ? -EPIPE : -EPROTO;
    return -EAGAIN;
}

static void tls_want(struct stream *s, unsigned events)
{
    struct tls_stream *t = (struct tls_stream *)(void *)s;

    t->want = events;
    tls_update(t);
}

static void tls_shutdown_write(struct stream *s)
{
    struct tls_stream *t = (struct tls_stream *)(void *)s;

    if (tls_closed(t) || t->closing || !t->established)
        return;
    t->closing = true;
    br_ssl_engine_close(t->engine);
    tls_run(t, false);
    tls_update(t);
}

static void tls_free(struct stream *s)
{
    struct tls_stream *t = (struct tls_stream *)(void *)s;

    if (t->freed != NULL)
        *t->freed = true;
    t->freed = NULL;
    deferred_stop(&t->poke);
    t->base.on_event = NULL;
    if (!t->failed && t->established) {
        if (!t->closing)
            br_ssl_engine_close(t->engine);
        while (tls_push(t))
            continue;
    }
    if (tls_closed(t) || !t->established || !t->write_blocked) {
        tls_destroy(t);
        return;
    }
    t->lingering = true;
    timer_start(t->loop, &t->timer, TLS_LINGER_MS, tls_on_timeout, t);
    tls_update(t);
}

static const struct stream_ops tls_ops = { tls_read, tls_write, tls_want, tls_shutdown_write, tls_free };

static struct tls_stream *tls_new(struct loop *loop, struct stream *lower, struct tls_identity *identity, int64_t timeout_ms)
{
    struct tls_stream *t = xcalloc(1, sizeof *t);

    t->base.ops = &tls_ops;
    memcpy(t->base.peer, lower->peer, sizeof t->base.peer);
    t->loop = loop;
    t->lower = lower;
    t->identity = identity != NULL ? tls_identity_ref(identity) : NULL;
    timer_start(loop, &t->timer, timeout_ms > 0 ? timeout_ms : TLS_HANDSHAKE_TIMEOUT_MS, tls_on_timeout, t);
    return t;
}

/* Begins the handshake; `ready`: what BearSSL said to the reset. */
static struct stream *tls_start(struct tls_stream *t, int ready, struct status *err)
{
    if (!ready) {
        status_set(err, STATUS_INTERNAL, "TLS cannot start: %s", tls_error_text(br_ssl_engine_last_error(t->engine)));
        tls_destroy(t);
        return NULL;
    }
    stream_listen(t->lower, tls_on_lower, t);
    tls_run(t, false);
    tls_update(t);
    return &t->base;
}

struct stream *tls_server(struct loop *loop, struct stream *lower, struct tls_identity *identity,
                          int64_t handshake_timeout_ms, struct status *err)
{
    struct tls_stream *t = tls_new(loop, lower, identity, handshake_timeout_ms);
    br_ssl_server_context *server = &t->context.server;

    br_ssl_server_zero(server);
    t->engine = &server->eng;
    tls_engine_profile(t->engine);
    br_ssl_engine_add_flags(t->engine, BR_OPT_ENFORCE_SERVER_PREFERENCES);
    tls_identity_serve(identity, server);
    br_ssl_engine_set_buffer(t->engine, t->buffer, sizeof t->buffer, 1);
    return tls_start(t, br_ssl_server_reset(server), err);
}

struct stream *tls_client(struct loop *loop, struct stream *lower, struct tls_trust *trust, const char *host,
                          struct tls_identity *identity, int64_t handshake_timeout_ms, struct status *err)
{
    struct tls_stream *t = tls_new(loop, lower, identity, handshake_timeout_ms);
    br_ssl_client_context *client = &t->context.client;

    br_ssl_client_zero(client);
    t->engine = &client->eng;
    tls_client_profile(client);
    t->verifier = tls_verifier_new(trust, host);
    br_ssl_engine_set_x509(t->engine, tls_verifier_class(t->verifier));
    if (identity != NULL)
        tls_identity_offer(identity, client);
    br_ssl_engine_set_buffer(t->engine, t->buffer, sizeof t->buffer, 1);
    return tls_start(t, br_ssl_client_reset(client, tls_verifier_server_name(t->verifier), 0), err);
}

bool tls_stream_error(const struct stream *s, struct status *err)
{
    const struct tls_stream *t = (const struct tls_stream *)(const void *)s;

    if (t->failed)
        *err = t->error;
    return t->failed;
}

bool tls_stream_established(const struct stream *s)
{
    return ((const struct tls_stream *)(const void *)s)->established;
}
