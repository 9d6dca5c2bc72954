/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/user.h"

/* (uid_t)-1 means "no change" to the kernel, so it is nobody's. */
#define USER_ID_MAX (UINT32_MAX - 1)
#define USER_FIELDS 7

/* One line, cut at its colons. */
struct user_line {
    struct str fields[USER_FIELDS];
    size_t count;
};

/* Takes the next line off *text; false at the end. Fields after the last wanted one stay in it. */
static bool user_next_line(struct str *text, struct user_line *line)
{
    if (text->n == 0)
        return false;
    const char *end = memchr(text->p, '\n', text->n);
    struct str rest = { text->p, end == NULL ? text->n : (size_t)(end - text->p) };
    size_t used = rest.n + (end != NULL);

    text->p += used;
    text->n -= used;
    line->count = 0;
    while (line->count < USER_FIELDS) {
        const char *colon = line->count == USER_FIELDS - 1 || rest.n == 0 ? NULL : memchr(rest.p, ':', rest.n);
        size_t n = colon == NULL ? rest.n : (size_t)(colon - rest.p);
        line->fields[line->count++] = (struct str){ rest.p, n };
        if (colon == NULL)
            break;
        rest.p += n + 1;
        rest.n -= n + 1;
    }
    return true;
}

static bool user_parse_id(struct str s, uint32_t *out)
{
    char digits[16];
    uint64_t value;

    if (s.n == 0 || s.n >= sizeof digits)
        return false;
    memcpy(digits, s.p, s.n);
    digits[s.n] = '\0';
    if (!parse_u64(digits, USER_ID_MAX, &value))
        return false;
    *out = (uint32_t)value;
    return true;
}

struct user_entry {
    struct str name, home;
    uint32_t uid, gid;
};

/* By name when `name` is not empty, else by uid. The first match counts, as for getpwnam(3). */
static bool user_find(struct str passwd, struct str name, uint32_t uid, struct user_entry *out)
{
    struct user_line line;

    while (user_next_line(&passwd, &line)) {
        struct user_entry e = { .name = line.fields[0] };
        if (line.count < 4 || e.name.n == 0 || !user_parse_id(line.fields[2], &e.uid) || !user_parse_id(line.fields[3], &e.gid))
            continue;
        if (name.n > 0 ? e.name.n != name.n || memcmp(e.name.p, name.p, name.n) != 0 : e.uid != uid)
            continue;
        if (line.count > 5)
            e.home = line.fields[5];
        *out = e;
        return true;
    }
    return false;
}

static bool user_find_group(struct str group, struct str name, uint32_t *gid)
{
    struct user_line line;

    while (user_next_line(&group, &line))
        if (line.count >= 3 && line.fields[0].n == name.n && memcmp(line.fields[0].p, name.p, name.n) == 0 &&
            user_parse_id(line.fields[2], gid))
            return true;
    return false;
}

bool user_add_group(struct user *u, uint32_t gid, struct status *err)
{
    for (size_t i = 0; i < u->group_count; i++)
        if (u->groups[i] == gid)
            return true;
    if (u->group_count == USER_GROUPS_MAX)
        return status_set(err, STATUS_INVALID_ARGUMENT,
                          "linux.security_context.supplemental_groups: more than %d groups for one process", USER_GROUPS_MAX);
    u->groups[u->group_count++] = gid;
    return true;
}

/* Adds the groups whose member list ("a,b,c") has the name. */
static bool user_add_memberships(struct user *u, struct str group, struct str name, struct status *err)
{
    struct user_line line;

    while (user_next_line(&group, &line)) {
        uint32_t gid;
        if (line.count < 4 || !user_parse_id(line.fields[2], &gid))
            continue;
        struct str members = line.fields[3];
        while (members.n > 0) {
            const char *comma = memchr(members.p, ',', members.n);
            size_t n = comma == NULL ? members.n : (size_t)(comma - members.p);
            if (n == name.n && memcmp(members.p, name.p, n) == 0) {
                if (!user_add_group(u, gid, err))
                    return false;
                break;
            }
            size_t used = n + (comma != NULL);
            members.p += used;
            members.n -= used;
        }
    }
    return true;
}

/* What is to be looked up: a user (number or name) and perhaps a group (number or name). */
struct user_wish {
    const char *field; /* where it comes from, for messages */
    struct str user, group;
};

static bool user_wish_of(const struct user_request *r, char digits[2][24], struct user_wish *out, struct status *err)
{
    *out = (struct user_wish){ .field = "image config: User" };
    if (r->has_uid && *r->username != '\0')
        return status_set(err, STATUS_INVALID_ARGUMENT,
                          "linux.security_context.run_as_username: not together with run_as_user");
    if (r->has_gid && !r->has_uid && *r->username == '\0')
        return status_set(err, STATUS_INVALID_ARGUMENT,
                          "linux.security_context.run_as_group: needs run_as_user or run_as_username");
    if (r->has_uid) {
        if (r->uid < 0 || r->uid > (int64_t)USER_ID_MAX)
            return status_set(err, STATUS_INVALID_ARGUMENT, "linux.security_context.run_as_user: %" PRId64 " is not a uid",
                              r->uid);
        snprintf(digits[0], sizeof digits[0], "%" PRId64, r->uid);
        out->user = str_of(digits[0]);
        out->field = "linux.security_context.run_as_user";
    } else if (*r->username != '\0') {
        out->user = str_of(r->username);
        out->field = "linux.security_context.run_as_username";
    } else {
        const char *colon = strchr(r->image_user, ':');
        out->user = colon == NULL ? str_of(r->image_user) : (struct str){ r->image_user, (size_t)(colon - r->image_user) };
        out->group = colon == NULL ? STR("") : str_of(colon + 1);
    }
    if (r->has_gid) {
        if (r->gid < 0 || r->gid > (int64_t)USER_ID_MAX)
            return status_set(err, STATUS_INVALID_ARGUMENT, "linux.security_context.run_as_group: %" PRId64 " is not a gid",
                              r->gid);
        snprintf(digits[1], sizeof digits[1], "%" PRId64, r->gid);
        out->group = str_of(digits[1]);
    }
    return true;
}

static void user_set_home(struct user *u, struct str home)
{
    if (home.n == 0 || home.n >= sizeof u->home || home.p[0] != '/' || memchr(home.p, '\0', home.n) != NULL)
        return;
    memcpy(u->home, home.p, home.n);
    u->home[home.n] = '\0';
}

bool user_resolve(const struct user_request *r, struct str passwd, struct str group, struct user *out, struct status *err)
{
    char digits[2][24];
    struct user_wish wish;
    struct user_entry entry = { .name = STR("") };

    *out = (struct user){ .home = "/" };
    if (!user_wish_of(r, digits, &wish, err))
        return false;
    bool known = false;
    /* Nobody named at all is uid 0, whatever the image calls it. */
    if (wish.user.n == 0 || user_parse_id(wish.user, &out->uid))
        known = user_find(passwd, STR(""), out->uid, &entry);
    else if (!(known = user_find(passwd, wish.user, 0, &entry)))
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s: the image's /etc/passwd has no user \"%.*s\"", wish.field,
                          (int)(wish.user.n < 64 ? wish.user.n : 64), wish.user.p);
    if (known) {
        out->uid = entry.uid;
        out->gid = entry.gid;
        user_set_home(out, entry.home);
    }
    if (wish.group.n > 0 && !user_parse_id(wish.group, &out->gid) && !user_find_group(group, wish.group, &out->gid))
        return status_set(err, STATUS_INVALID_ARGUMENT, "%s: the image's /etc/group has no group \"%.*s\"", wish.field,
                          (int)(wish.group.n < 64 ? wish.group.n : 64), wish.group.p);
    if (!user_add_group(out, out->gid, err))
        return false;
    for (size_t i = 0; i < r->group_count; i++) {
        if (r->groups[i] < 0 || r->groups[i] > (int64_t)USER_ID_MAX)
            return status_set(err, STATUS_INVALID_ARGUMENT,
                              "linux.security_context.supplemental_groups[%zu]: %" PRId64 " is not a gid", i, r->groups[i]);
        if (!user_add_group(out, (uint32_t)r->groups[i], err))
            return false;
    }
    out->asked_count = out->group_count;
    return !known || r->strict || user_add_memberships(out, group, entry.name, err);
}

#undef USER_ID_MAX
#undef USER_FIELDS
