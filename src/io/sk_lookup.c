/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sk_lookup.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Open ports of all pods together. */
#define SK_LOOKUP_PORTS_MAX 65536
#define SK_LOOKUP_RANGES_MAX 64

struct sk_lookup {
    int ranges_fd;  /* struct sk_lookup_range -> anything; the longest prefix */
    int ports_fd;   /* struct sk_lookup_port -> which of the sockets, uint32_t */
    int sockets_fd; /* 0: IPv4, 1: IPv6 */
    int program_fd, link_fd;
};

struct sk_lookup_range_key { /* struct bpf_lpm_trie_key */
    uint32_t length;
    uint8_t ip[16];
};
struct sk_lookup_port_key {
    uint8_t ip[16];
    uint32_t port;
};

/* ---- the program ---- */

/* Where things are below the frame pointer. */
enum {
    SK_LOOKUP_AT_RANGE = -24,                /* struct sk_lookup_range_key */
    SK_LOOKUP_AT_RANGE_IP = -20,
    SK_LOOKUP_AT_PORT = -48,                 /* struct sk_lookup_port_key */
    SK_LOOKUP_AT_PORT_PORT = -32,
    SK_LOOKUP_AT_SOCKET = -56,               /* uint32_t */
};
/* Where a jump leads to; filled in at the end. */
enum { SK_LOOKUP_TO_PASS = 1000, SK_LOOKUP_TO_DROP, SK_LOOKUP_TO_V4, SK_LOOKUP_TO_LOOK };

struct sk_lookup_code {
    struct bpf_insn *out;
    size_t n;
    size_t labels[4];
};

static void sk_lookup_emit(struct sk_lookup_code *c, uint8_t code, uint8_t dst, uint8_t src, int16_t offset, int32_t value)
{
    c->out[c->n++] = (struct bpf_insn){ .code = code, .dst_reg = dst & 15u, .src_reg = src & 15u, .off = offset, .imm = value };
}

static void sk_lookup_label(struct sk_lookup_code *c, int label)
{
    c->labels[label - SK_LOOKUP_TO_PASS] = c->n;
}

static void sk_lookup_jump(struct sk_lookup_code *c, uint8_t operation, uint8_t reg, int32_t value, int label)
{
    sk_lookup_emit(c, BPF_JMP | operation | BPF_K, reg, 0, (int16_t)label, value);
}

static void sk_lookup_move(struct sk_lookup_code *c, uint8_t dst, uint8_t src)
{
    sk_lookup_emit(c, BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0);
}

static void sk_lookup_set(struct sk_lookup_code *c, uint8_t dst, int32_t value)
{
    sk_lookup_emit(c, BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, value);
}

static void sk_lookup_load(struct sk_lookup_code *c, uint8_t dst, size_t field)
{
    sk_lookup_emit(c, BPF_LDX | BPF_MEM | BPF_W, dst, BPF_REG_6, (int16_t)field, 0);
}

static void sk_lookup_store(struct sk_lookup_code *c, int16_t at, uint8_t src)
{
    sk_lookup_emit(c, BPF_STX | BPF_MEM | BPF_W, BPF_REG_10, src, at, 0);
}

/* One word of the address, into both keys. */
static void sk_lookup_store_ip(struct sk_lookup_code *c, int16_t word)
{
    sk_lookup_store(c, (int16_t)(SK_LOOKUP_AT_RANGE_IP + 4 * word), BPF_REG_2);
    sk_lookup_store(c, (int16_t)(SK_LOOKUP_AT_PORT + 4 * word), BPF_REG_2);
}

/* R0: what the map has under the key. */
static void sk_lookup_find(struct sk_lookup_code *c, int map_fd, int32_t key_at)
{
    sk_lookup_emit(c, BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map_fd);
    sk_lookup_emit(c, 0, 0, 0, 0, 0); /* the other half of the number */
    sk_lookup_move(c, BPF_REG_2, BPF_REG_10);
    sk_lookup_emit(c, BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, key_at);
    sk_lookup_emit(c, BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem);
}

#define SK_LOOKUP_FIELD(name) offsetof(struct bpf_sk_lookup, name)

static void sk_lookup_write_keys(struct sk_lookup_code *c)
{
    sk_lookup_load(c, BPF_REG_2, SK_LOOKUP_FIELD(family));
    sk_lookup_jump(c, BPF_JEQ, BPF_REG_2, AF_INET, SK_LOOKUP_TO_V4);
    sk_lookup_jump(c, BPF_JNE, BPF_REG_2, AF_INET6, SK_LOOKUP_TO_PASS);
    for (int16_t word = 0; word < 4; word++) {
        sk_lookup_load(c, BPF_REG_2, SK_LOOKUP_FIELD(local_ip6) + 4 * (size_t)word);
        sk_lookup_store_ip(c, word);
    }
    sk_lookup_jump(c, BPF_JA, 0, 0, SK_LOOKUP_TO_LOOK);
    sk_lookup_label(c, SK_LOOKUP_TO_V4);
    sk_lookup_set(c, BPF_REG_2, 0);
    sk_lookup_store_ip(c, 0);
    sk_lookup_store_ip(c, 1);
    sk_lookup_set(c, BPF_REG_2, (int32_t)htonl(0xffff));
    sk_lookup_store_ip(c, 2);
    sk_lookup_load(c, BPF_REG_2, SK_LOOKUP_FIELD(local_ip4));
    sk_lookup_store_ip(c, 3);
    sk_lookup_label(c, SK_LOOKUP_TO_LOOK);
}

static void sk_lookup_patch(struct sk_lookup_code *c)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->out[i].off >= SK_LOOKUP_TO_PASS)
            c->out[i].off = (int16_t)(c->labels[c->out[i].off - SK_LOOKUP_TO_PASS] - i - 1);
}

size_t sk_lookup_program(struct bpf_insn out[SK_LOOKUP_INSTRUCTIONS_MAX], int ranges_fd, int ports_fd, int sockets_fd)
{
    struct sk_lookup_code c = { .out = out };

    sk_lookup_move(&c, BPF_REG_6, BPF_REG_1); /* struct bpf_sk_lookup */
    sk_lookup_write_keys(&c);
    sk_lookup_set(&c, BPF_REG_2, 128);
    sk_lookup_store(&c, SK_LOOKUP_AT_RANGE, BPF_REG_2);
    sk_lookup_find(&c, ranges_fd, SK_LOOKUP_AT_RANGE);
    sk_lookup_jump(&c, BPF_JEQ, BPF_REG_0, 0, SK_LOOKUP_TO_PASS);
    sk_lookup_load(&c, BPF_REG_2, SK_LOOKUP_FIELD(protocol));
    sk_lookup_jump(&c, BPF_JNE, BPF_REG_2, IPPROTO_TCP, SK_LOOKUP_TO_DROP);
    sk_lookup_load(&c, BPF_REG_2, SK_LOOKUP_FIELD(local_port));
    sk_lookup_store(&c, SK_LOOKUP_AT_PORT_PORT, BPF_REG_2);
    sk_lookup_find(&c, ports_fd, SK_LOOKUP_AT_PORT);
    sk_lookup_jump(&c, BPF_JEQ, BPF_REG_0, 0, SK_LOOKUP_TO_DROP);
    sk_lookup_emit(&c, BPF_LDX | BPF_MEM | BPF_W, BPF_REG_2, BPF_REG_0, 0, 0);
    sk_lookup_store(&c, SK_LOOKUP_AT_SOCKET, BPF_REG_2);
    sk_lookup_find(&c, sockets_fd, SK_LOOKUP_AT_SOCKET);
    sk_lookup_jump(&c, BPF_JEQ, BPF_REG_0, 0, SK_LOOKUP_TO_DROP);
    sk_lookup_move(&c, BPF_REG_7, BPF_REG_0);
    sk_lookup_move(&c, BPF_REG_1, BPF_REG_6);
    sk_lookup_move(&c, BPF_REG_2, BPF_REG_0);
    sk_lookup_set(&c, BPF_REG_3, 0);
    sk_lookup_emit(&c, BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_sk_assign);
    sk_lookup_move(&c, BPF_REG_8, BPF_REG_0);
    sk_lookup_move(&c, BPF_REG_1, BPF_REG_7);
    sk_lookup_emit(&c, BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_sk_release);
    sk_lookup_jump(&c, BPF_JNE, BPF_REG_8, 0, SK_LOOKUP_TO_DROP);
    sk_lookup_label(&c, SK_LOOKUP_TO_PASS);
    sk_lookup_set(&c, BPF_REG_0, SK_PASS);
    sk_lookup_emit(&c, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    sk_lookup_label(&c, SK_LOOKUP_TO_DROP);
    sk_lookup_set(&c, BPF_REG_0, SK_DROP);
    sk_lookup_emit(&c, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    sk_lookup_patch(&c);
    return c.n;
}

#undef SK_LOOKUP_FIELD

/* ---- the kernel ---- */

static int sk_lookup_call(enum bpf_cmd command, union bpf_attr *attr)
{
    return (int)syscall(SYS_bpf, command, attr, sizeof *attr);
}

static bool sk_lookup_fail(struct status *err, const char *what)
{
    enum status_code code = errno == EPERM || errno == EACCES ? STATUS_PERMISSION_DENIED : STATUS_UNIMPLEMENTED;

    return status_set(err, code, "sk_lookup: cannot %s: %s%s", what, strerror(errno),
                      code == STATUS_PERMISSION_DENIED ? " (it needs CAP_BPF and CAP_NET_ADMIN)" : "");
}

static int sk_lookup_map(enum bpf_map_type type, uint32_t key, uint32_t count, uint32_t flags, struct status *err)
{
    union bpf_attr attr;

    memset(&attr, 0, sizeof attr);
    attr.map_type = type;
    attr.key_size = key;
    attr.value_size = sizeof(uint32_t);
    attr.max_entries = count;
    attr.map_flags = flags;
    int fd = sk_lookup_call(BPF_MAP_CREATE, &attr);
    if (fd < 0)
        sk_lookup_fail(err, "make a map");
    return fd;
}

static int sk_lookup_load_program(const struct sk_lookup *s, struct status *err)
{
    struct bpf_insn code[SK_LOOKUP_INSTRUCTIONS_MAX];
    union bpf_attr attr;

    memset(code, 0, sizeof code);
    memset(&attr, 0, sizeof attr);
    attr.prog_type = BPF_PROG_TYPE_SK_LOOKUP;
    attr.expected_attach_type = BPF_SK_LOOKUP;
    attr.insn_cnt = (uint32_t)sk_lookup_program(code, s->ranges_fd, s->ports_fd, s->sockets_fd);
    attr.insns = (uintptr_t)code;
    attr.license = (uintptr_t) "Apache-2.0";
    memcpy(attr.prog_name, "interlink_pods", sizeof "interlink_pods");
    int fd = sk_lookup_call(BPF_PROG_LOAD, &attr);
    if (fd < 0)
        sk_lookup_fail(err, "load the program");
    return fd;
}

static int sk_lookup_attach(const struct sk_lookup *s, struct status *err)
{
    cleanup_close int netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    union bpf_attr attr;

    memset(&attr, 0, sizeof attr);
    attr.link_create.prog_fd = (uint32_t)s->program_fd;
    attr.link_create.target_fd = (uint32_t)netns;
    attr.link_create.attach_type = BPF_SK_LOOKUP;
    int fd = netns < 0 ? -1 : sk_lookup_call(BPF_LINK_CREATE, &attr);
    if (fd < 0)
        sk_lookup_fail(err, "attach the program to this network namespace");
    return fd;
}

static bool sk_lookup_make(struct sk_lookup *s, struct status *err)
{
    return (s->ranges_fd = sk_lookup_map(BPF_MAP_TYPE_LPM_TRIE, sizeof(struct sk_lookup_range_key), SK_LOOKUP_RANGES_MAX,
                                         BPF_F_NO_PREALLOC, err)) >= 0 &&
           (s->ports_fd = sk_lookup_map(BPF_MAP_TYPE_HASH, sizeof(struct sk_lookup_port_key), SK_LOOKUP_PORTS_MAX,
                                        BPF_F_NO_PREALLOC, err)) >= 0 &&
           (s->sockets_fd = sk_lookup_map(BPF_MAP_TYPE_SOCKMAP, sizeof(uint32_t), 2, 0, err)) >= 0 &&
           (s->program_fd = sk_lookup_load_program(s, err)) >= 0 && (s->link_fd = sk_lookup_attach(s, err)) >= 0;
}

struct sk_lookup *sk_lookup_open(struct status *err)
{
    struct sk_lookup *s = xmalloc(sizeof *s);
    struct rlimit before, none = { RLIM_INFINITY, RLIM_INFINITY };

    *s = (struct sk_lookup){ -1, -1, -1, -1, -1 };
    /* Before Linux 5.11 maps count against this limit, which is 64 KiB often. */
    bool raised = getrlimit(RLIMIT_MEMLOCK, &before) == 0 && setrlimit(RLIMIT_MEMLOCK, &none) == 0;
    bool ok = sk_lookup_make(s, err);
    if (raised)
        setrlimit(RLIMIT_MEMLOCK, &before);
    if (ok)
        return s;
    sk_lookup_free(s);
    return NULL;
}

void sk_lookup_free(struct sk_lookup *s)
{
    if (s == NULL)
        return;
    const int fds[] = { s->link_fd, s->program_fd, s->sockets_fd, s->ports_fd, s->ranges_fd };
    for (size_t i = 0; i < COUNT_OF(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(s);
}

/* value NULL: it is taken out. */
static bool sk_lookup_update(int map_fd, const void *key, const uint32_t *value, const char *what, struct status *err)
{
    union bpf_attr attr;

    memset(&attr, 0, sizeof attr);
    attr.map_fd = (uint32_t)map_fd;
    attr.key = (uintptr_t)key;
    attr.value = (uintptr_t)value;
    if (sk_lookup_call(value != NULL ? BPF_MAP_UPDATE_ELEM : BPF_MAP_DELETE_ELEM, &attr) == 0 || (value == NULL && errno == ENOENT))
        return true;
    return status_errno(err, "sk_lookup: cannot change %s", what);
}

bool sk_lookup_set_socket(struct sk_lookup *s, bool ipv6, int fd, struct status *err)
{
    uint32_t key = ipv6, value = (uint32_t)fd;

    return sk_lookup_update(s->sockets_fd, &key, &value, "the socket", err);
}

bool sk_lookup_set_range(struct sk_lookup *s, const struct prefix *range, bool ours, struct status *err)
{
    struct sk_lookup_range_key key = { .length = range->length };
    uint32_t value = 1;

    memcpy(key.ip, range->ip.bytes, sizeof key.ip);
    return sk_lookup_update(s->ranges_fd, &key, ours ? &value : NULL, "the ranges", err);
}

bool sk_lookup_set_port(struct sk_lookup *s, const struct ip *ip, uint16_t port, bool open, struct status *err)
{
    struct sk_lookup_port_key key = { .port = port };
    uint32_t value = !ip_is_v4(ip);

    memcpy(key.ip, ip->bytes, sizeof key.ip);
    return sk_lookup_update(s->ports_fd, &key, open ? &value : NULL, "the ports", err);
}

#undef SK_LOOKUP_PORTS_MAX
#undef SK_LOOKUP_RANGES_MAX
