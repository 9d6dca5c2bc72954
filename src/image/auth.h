/* SPDX-License-Identifier: Apache-2.0 */
/* auth.h: how a registry wants to be convinced. No I/O. Sources: distribution's docs/spec/auth/token.md, oauth.md; RFC 9110
 * section 11, RFC 6750, RFC 7617. */
#ifndef IMAGE_AUTH_H
#define IMAGE_AUTH_H

#include "base/base.h"
#include "http/http.h"
#include "image/pull.h"

/* ---- what we know ---- */
/* Strings are on the caller's arena; "" where there is none. */
struct credentials {
    const char *username, *password;
    const char *refresh_token; /* to be exchanged for access tokens */
    const char *bearer;        /* an access token that the user gave */
    const char *host;          /* the only server they are for; "": whoever serves the image */
};
/* From CRI's AuthConfig (NULL: none). As elsewhere, a password without a username is a refresh token. INVALID_ARGUMENT
 * when `auth` is no base64 of "user:password", or something could not be sent in a header. */
bool credentials_read(const struct image_auth *auth, struct arena *arena, struct credentials *out, struct status *err);
/* Whether they may be shown to a server ("mirror.example:5000") that is asked for an image of `domain`. */
bool credentials_fit(const struct credentials *c, const char *server, const char *domain);
bool credentials_any(const struct credentials *c);

/* ---- what is asked for ---- */
enum challenge_kind { CHALLENGE_NONE, CHALLENGE_BASIC, CHALLENGE_BEARER };

struct challenge {
    enum challenge_kind kind;
    const char *realm, *service, *scope; /* on the arena; "" when absent */
};
/* The best of all challenges in the WWW-Authenticate headers; CHALLENGE_NONE when there is none that we understand. */
void challenge_read(const struct http_headers *headers, struct arena *arena, struct challenge *out);

/* ---- the request for a token ---- */
struct token_query {
    const char *url;
    const char *body;          /* form for a POST; NULL: GET */
    const char *authorization; /* header value; NULL: none */
};
/* `post`: exchange the refresh token, or the password, by OAuth 2; else the older GET with basic authentication.
 * `scope`: what we want when the challenge does not say. INVALID_ARGUMENT when the realm is no URL that may be asked: for a
 * registry asked by https it must be https too. */
bool token_query_make(const struct challenge *c, const struct credentials *creds, bool post, bool secure, const char *scope,
                      struct arena *arena, struct token_query *out, struct status *err);
/* The token in the answer, on the arena. */
bool token_read(struct str json, struct arena *arena, const char **token, struct status *err);
/* "Basic dXNlcjpwYXNz" */
const char *basic_authorization(const struct credentials *creds, struct arena *arena);

#endif
