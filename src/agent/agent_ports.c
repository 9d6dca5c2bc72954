/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_ports.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent_container.h"
#include "agent/agent_container_work.h"
#include "agent/agent_context.h"
#include "rpc/pb.h"

struct agent_ports_subscriber {
    struct list link;
    struct agent *agent;
    struct rpc_call *call;
    bool blocked, behind; /* until the call is writable again; and then there is something to say */
};

static void agent_ports_on_look(void *arg);

void agent_ports_init(struct agent_ports *p)
{
    *p = (struct agent_ports){ 0 };
    list_init(&p->subscribers);
}

void agent_ports_free(struct agent *agent)
{
    struct agent_ports *p = &agent->ports;

    timer_stop(&p->look);
    worker_cancel(&p->search);
    buf_free(&p->told);
    free(p->sockets);
}

/* ---- what is told ---- */

/* Where to connect to, to reach this socket by that family; NULL: it takes none. */
static const char *agent_ports_address(struct arena *arena, const struct sock_listener *l, bool ipv6)
{
    static const uint8_t any[16];
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
    char text[INET6_ADDRSTRLEN];
    bool is_any = memcmp(l->address, any, sizeof any) == 0;
    bool is_mapped = l->ipv6 && !is_any && memcmp(l->address, mapped, sizeof mapped) == 0;

    if (ipv6 ? !l->ipv6 || is_mapped : l->ipv6 && !is_mapped && (!is_any || l->ipv6_only))
        return NULL;
    if (is_any)
        return ipv6 ? "::1" : "127.0.0.1";
    inet_ntop(ipv6 ? AF_INET6 : AF_INET, is_mapped ? l->address + 12 : l->address, text, sizeof text);
    return arena_strdup(arena, text);
}

/* Of several sockets the one for any address counts: it is reached at the loopback's, whatever addresses there are. */
static void agent_ports_merge(char **slot, const char *address)
{
    if (address != NULL && (**slot == '\0' || strcmp(address, "127.0.0.1") == 0 || strcmp(address, "::1") == 0))
        *slot = (char *)(uintptr_t)address;
}

static int agent_ports_compare(const void *a, const void *b)
{
    const Interlink__Agent__V1__ListeningPort *const *x = a, *const *y = b;

    return (*x)->port < (*y)->port ? -1 : (*x)->port > (*y)->port;
}

Interlink__Agent__V1__PortsResponse *agent_ports_message(struct arena *arena, const struct agent_ports_socket *sockets, size_t count)
{
    Interlink__Agent__V1__PortsResponse *m = ARENA_NEW(arena, Interlink__Agent__V1__PortsResponse);

    interlink__agent__v1__ports_response__init(m);
    m->ports = ARENA_ARRAY(arena, Interlink__Agent__V1__ListeningPort *, AGENT_PORTS_MAX);
    for (size_t i = 0; i < count; i++) {
        const struct sock_listener *l = &sockets[i].listener;
        Interlink__Agent__V1__ListeningPort *port = NULL;
        if (!sockets[i].ours || sock_listener_is_loopback(l))
            continue;
        for (size_t k = 0; k < m->n_ports && port == NULL; k++)
            if (m->ports[k]->port == l->port)
                port = m->ports[k];
        if (port == NULL && m->n_ports == AGENT_PORTS_MAX)
            continue;
        if (port == NULL) {
            port = m->ports[m->n_ports++] = ARENA_NEW(arena, Interlink__Agent__V1__ListeningPort);
            interlink__agent__v1__listening_port__init(port);
            port->port = l->port;
        }
        agent_ports_merge(&port->ipv4, agent_ports_address(arena, l, false));
        agent_ports_merge(&port->ipv6, agent_ports_address(arena, l, true));
    }
    qsort(m->ports, m->n_ports, sizeof *m->ports, agent_ports_compare);
    return m;
}

static void agent_ports_send(struct agent_ports_subscriber *s)
{
    s->behind = s->blocked;
    if (!s->blocked)
        s->blocked = !rpc_send_packed(s->call, s->agent->ports.told.p, s->agent->ports.told.n);
}

static void agent_ports_tell(struct agent *agent)
{
    struct agent_ports *p = &agent->ports;
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf said = BUF_INIT;
    const Interlink__Agent__V1__PortsResponse *m = agent_ports_message(&arena, p->sockets, p->count);

    size_t n = protobuf_c_message_get_packed_size(&m->base);
    cleanup_free uint8_t *bytes = xmalloc(n + 1);
    protobuf_c_message_pack(&m->base, bytes);
    buf_append(&said, bytes, n);
    if (p->any_told && said.n == p->told.n && (n == 0 || memcmp(said.p, p->told.p, n) == 0))
        return;
    p->any_told = true;
    buf_clear(&p->told);
    buf_append(&p->told, bytes, n);
    for (LIST_EACH_SAFE(struct agent_ports_subscriber, s, &p->subscribers, link))
        agent_ports_send(s);
}

/* ---- whose sockets they are ---- */

/* Marks the sockets among the open files of a process. Not every process lets itself be looked at: then who runs it must do. */
static void agent_ports_search_process(pid_t pid, struct agent_ports_socket *sockets, size_t count)
{
    cleanup_free char *path = xasprintf("/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    struct dirent *entry;
    struct stat st;

    if (dir == NULL) {
        for (size_t i = 0; errno == EACCES && stat(path, &st) == 0 && i < count; i++)
            sockets[i].ours = sockets[i].ours || sockets[i].listener.uid == st.st_uid;
        return;
    }
    for (size_t seen = 0; (entry = readdir(dir)) != NULL && seen < AGENT_PORTS_FILES_MAX; seen++) {
        char target[64];
        uint32_t inode;
        ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1);
        target[n > 0 ? n : 0] = '\0';
        if (sscanf(target, "socket:[%" SCNu32 "]", &inode) != 1)
            continue;
        for (size_t i = 0; i < count; i++)
            sockets[i].ours = sockets[i].ours || sockets[i].listener.inode == inode;
    }
    closedir(dir);
}

/* In a worker: the inodes that are the pod's, of those that are not known. */
static bool agent_ports_search(void *arg, struct buf *output, struct status *err)
{
    struct agent *agent = arg;
    struct agent_ports *p = &agent->ports;
    struct strmap_iter it = { 0 };
    size_t room = USAGE_PROCESSES_MAX, count = 0;
    cleanup_free pid_t *pids = xcalloc(room, sizeof *pids);
    cleanup_free struct agent_ports_socket *unknown = xcalloc(p->count + 1, sizeof *unknown);

    (void)err;
    agent_worker_enter(agent);
    for (size_t i = 0; i < p->count; i++)
        if (!p->sockets[i].known)
            unknown[count++].listener = p->sockets[i].listener;
    while (strmap_next(&agent->containers, &it)) {
        struct agent_container *c = it.value;
        if (c->state != AGENT_CONTAINER_RUNNING)
            continue;
        size_t n = engine_pids(agent->engine, c->id, c->bundle, pids, room);
        for (size_t i = 0; i < n; i++)
            agent_ports_search_process(pids[i], unknown, count);
    }
    for (size_t i = 0; i < count; i++)
        if (unknown[i].ours)
            buf_append(output, &unknown[i].listener.inode, sizeof unknown[i].listener.inode);
    return true;
}

static void agent_ports_on_searched(void *arg, const struct status *err, struct buf *output)
{
    struct agent *agent = arg;
    struct agent_ports *p = &agent->ports;

    if (err != NULL) {
        log_warn("whose ports are listened on could not be found out: %s", err->message);
        return;
    }
    /* Nothing was changed in between: no look is taken while a search is under way. */
    for (size_t i = 0; i < p->count; i++) {
        struct agent_ports_socket *s = &p->sockets[i];
        if (s->known)
            continue;
        s->known = true;
        s->looked_ms = clock_mono_ms();
        for (size_t at = 0; at + sizeof s->listener.inode <= output->n; at += sizeof s->listener.inode)
            s->ours = s->ours || memcmp(output->p + at, &s->listener.inode, sizeof s->listener.inode) == 0;
    }
    agent_ports_tell(agent);
}

/* ---- looking ---- */

/* What was found out about a socket stays true of it, but that it is nobody's here is looked at again after a while. */
static bool agent_ports_carry(const struct agent_ports *p, struct agent_ports_socket *s)
{
    for (size_t i = 0; i < p->count; i++) {
        const struct agent_ports_socket *old = &p->sockets[i];
        if (old->listener.inode != s->listener.inode || old->listener.port != s->listener.port || !old->known)
            continue;
        s->ours = old->ours;
        s->looked_ms = old->looked_ms;
        s->known = old->ours || clock_mono_ms() - old->looked_ms < AGENT_PORTS_FOREIGN_MS;
        return s->known;
    }
    return false;
}

static bool agent_ports_any_running(const struct agent *agent)
{
    struct strmap_iter it = { 0 };

    while (strmap_next(&agent->containers, &it))
        if (((const struct agent_container *)it.value)->state == AGENT_CONTAINER_RUNNING)
            return true;
    return false;
}

static bool agent_ports_read(struct agent *agent, struct status *err)
{
    struct agent_ports *p = &agent->ports;
    cleanup_free struct sock_listener *found = xcalloc(AGENT_PORTS_SOCKETS_MAX, sizeof *found);
    size_t count = 0;
    bool unknown = false;

    /* A pod without a running container listens on nothing. */
    if (agent_ports_any_running(agent) && !sock_listeners_read(found, AGENT_PORTS_SOCKETS_MAX, &count, err))
        return false;
    struct agent_ports_socket *sockets = xcalloc(count + 1, sizeof *sockets);
    for (size_t i = 0; i < count; i++) {
        sockets[i].listener = found[i];
        unknown = !agent_ports_carry(p, &sockets[i]) || unknown;
    }
    free(p->sockets);
    p->sockets = sockets;
    p->count = count;
    if (!unknown)
        agent_ports_tell(agent);
    else if (!worker_start(agent->loop, &p->search, agent_ports_search, agent, agent_ports_on_searched, agent, err))
        return status_prefix(err, "whose ports are listened on cannot be found out");
    else
        p->quick_until_ms = clock_mono_ms() + AGENT_PORTS_QUICK_FOR_MS;
    return true;
}

static void agent_ports_look_again(struct agent *agent)
{
    struct agent_ports *p = &agent->ports;
    bool quick = clock_mono_ms() < p->quick_until_ms;

    if (p->subscriber_count > 0)
        timer_start(agent->loop, &p->look, quick ? AGENT_PORTS_QUICK_MS : AGENT_PORTS_MS, agent_ports_on_look, agent);
}

static void agent_ports_on_look(void *arg)
{
    struct agent *agent = arg;
    struct status err = STATUS_INIT;

    if (!worker_running(&agent->ports.search) && !agent_ports_read(agent, &err))
        log_warn("%s", err.message);
    agent_ports_look_again(agent);
}

void agent_ports_expect(struct agent *agent)
{
    agent->ports.quick_until_ms = clock_mono_ms() + AGENT_PORTS_QUICK_FOR_MS;
    if (timer_running(&agent->ports.look))
        agent_ports_look_again(agent);
}

/* ---- who wants to know ---- */

static void agent_ports_end(struct agent_ports_subscriber *s)
{
    list_remove(&s->link);
    if (--s->agent->ports.subscriber_count == 0)
        timer_stop(&s->agent->ports.look);
}

static void agent_ports_on_cancel(void *arg)
{
    agent_ports_end(arg);
}

static void agent_ports_on_writable(void *arg)
{
    struct agent_ports_subscriber *s = arg;

    s->blocked = false;
    if (s->behind)
        agent_ports_send(s);
}

void agent_ports_subscribe(struct agent *agent, struct rpc_call *call)
{
    struct agent_ports *p = &agent->ports;
    struct sock_listener first;
    struct status err = STATUS_INIT;
    size_t count;

    if (p->subscriber_count == AGENT_SUBSCRIBERS_MAX) {
        rpc_failf(call, STATUS_RESOURCE_EXHAUSTED, "%d callers want to know the ports already", AGENT_SUBSCRIBERS_MAX);
        return;
    }
    if (!sock_listeners_read(&first, 1, &count, &err)) {
        rpc_fail(call, &err);
        return;
    }
    struct agent_ports_subscriber *s = ARENA_NEW(rpc_call_arena(call), struct agent_ports_subscriber);
    *s = (struct agent_ports_subscriber){ .agent = agent, .call = call };
    list_append(&p->subscribers, &s->link);
    p->subscriber_count++;
    rpc_call_on_cancel(call, agent_ports_on_cancel, s);
    rpc_call_on_writable(call, agent_ports_on_writable, s);
    if (p->any_told)
        agent_ports_send(s);
    p->quick_until_ms = clock_mono_ms() + AGENT_PORTS_QUICK_FOR_MS;
    timer_start(agent->loop, &p->look, 0, agent_ports_on_look, agent);
}

void agent_ports_close(struct agent *agent)
{
    for (LIST_EACH_SAFE(struct agent_ports_subscriber, s, &agent->ports.subscribers, link)) {
        struct rpc_call *call = s->call;
        agent_ports_end(s);
        rpc_finish(call, NULL);
    }
}
