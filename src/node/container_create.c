/* SPDX-License-Identifier: Apache-2.0 */
/* Making a container: our record and the agent's preparation side by side, and all or nothing. */
#include "node/container.h"

#include "agent/agent_image.h"
#include "agent/agent_signal.h"
#include "agent/image_volume.h"
#include "agent/security.h"
#include "image/store.h"
#include "io/file.h"
#include "node/blob_push.h"
#include "node/container_job.h"
#include "node/link.h"
#include "node/sandbox.h"
#include "node/volumes.h"
#include "node/waiter.h"
#include "rpc/pb.h"

/* One CreateContainer under way. It owns the container until it is confirmed. */
struct container_creation {
    struct node *node;
    char id[ID_LENGTH + 1];
    struct rpc_call *call; /* NULL: its client has gone */
    unsigned pending;      /* parts not yet done: record, agent */
    Interlink__Agent__V1__CreateContainerRequest *request; /* owned: waits while files and images are being sent; NULL: sent */
    size_t pushed;         /* images sent: the container's own, then its volumes */
    struct status err;     /* of the first part that failed */
};

static void creation_on_undone(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    (void)arg;
    (void)status; /* an agent that did not hear it is told when it calls again */
    (void)response;
}

static void creation_undo(struct container *container)
{
    struct link *link = container->sandbox->link;
    Interlink__Agent__V1__RemoveContainerRequest request = INTERLINK__AGENT__V1__REMOVE_CONTAINER_REQUEST__INIT;

    if (link != NULL && link_ready(link)) {
        request.id = container->record->id;
        rpc_unary(link_conn(link), "/interlink.agent.v1.Agent/RemoveContainer", &request.base,
                  &interlink__agent__v1__remove_container_response__descriptor, 0, creation_on_undone, NULL);
    }
    container_drop(container);
}

static void creation_part_done(struct container_creation *creation, const struct status *err)
{
    struct container *container = strmap_get(&creation->node->containers, creation->id);
    Runtime__V1__CreateContainerResponse response = RUNTIME__V1__CREATE_CONTAINER_RESPONSE__INIT;

    if (err != NULL && err->code != STATUS_OK && creation->err.code == STATUS_OK)
        creation->err = *err;
    if (--creation->pending > 0)
        return;
    if (container == NULL && creation->err.code == STATUS_OK)
        status_set(&creation->err, STATUS_ABORTED, "the pod was stopped while the container was being created");
    if (creation->err.code == STATUS_OK && creation->call != NULL) {
        container->creating = false;
        container_changed(container);
        volumes_follow(container->sandbox);
        announce_container(container, announced_container_phase((int)container->record->phase));
        response.container_id = container->record->id;
        rpc_reply(creation->call, &response.base);
    } else {
        if (container != NULL)
            creation_undo(container);
        if (creation->call != NULL)
            rpc_fail(creation->call, &creation->err);
    }
    free(creation);
}

static void creation_on_recorded(void *arg, const struct status *err)
{
    creation_part_done(arg, err);
}

static void creation_on_agent(void *arg, const struct status *status, const ProtobufCMessage *response)
{
    struct container_creation *creation = arg;
    struct container *container = strmap_get(&creation->node->containers, creation->id);
    const Interlink__Agent__V1__CreateContainerResponse *created = (const void *)response;

    if (status->code == STATUS_OK && container != NULL) {
        container_set_created(container, created);
    }
    creation_part_done(arg, status);
}

static bool creation_agent_is_there(const struct container *container, struct status *err)
{
    return (container != NULL && container->sandbox->link != NULL && link_ready(container->sandbox->link)) ||
           status_set(err, STATUS_UNAVAILABLE, "the agent went away while it was being sent what the container needs");
}

/* The agent has an image: now the next one, or the container. */
static void creation_on_pushed(void *arg, const struct status *err)
{
    struct container_creation *creation = arg;
    struct container *container = strmap_get(&creation->node->containers, creation->id);
    Interlink__Agent__V1__CreateContainerRequest *request = creation->request;
    struct status gone = STATUS_INIT;

    if (err == NULL && !creation_agent_is_there(container, &gone))
        err = &gone;
    if (err == NULL && creation->pushed < request->n_image_volumes) {
        blob_push_start(creation->node, link_conn(container->sandbox->link),
                        request->image_volumes[creation->pushed++]->image, creation_on_pushed, creation);
        return;
    }
    creation->request = NULL;
    if (err == NULL)
        rpc_unary(link_conn(container->sandbox->link), "/interlink.agent.v1.Agent/CreateContainer", &request->base,
                  &interlink__agent__v1__create_container_response__descriptor, 0, creation_on_agent, creation);
    else
        creation_part_done(creation, err);
    protobuf_c_message_free_unpacked(&request->base, NULL);
}

/* It has the files of volumes: now the images. */
static void creation_on_volumes(void *arg, const struct status *err, const Interlink__Agent__V1__CreateContainerRequest *sources)
{
    struct container_creation *creation = arg;
    struct container *container = strmap_get(&creation->node->containers, creation->id);
    Interlink__Agent__V1__CreateContainerRequest *request = creation->request;
    struct status gone = STATUS_INIT;

    if (err == NULL && creation_agent_is_there(container, &gone)) {
        request->sources = xcalloc(sources->n_sources + 1, sizeof(Interlink__Agent__V1__MountSource *));
        for (size_t i = 0; i < sources->n_sources; i++)
            request->sources[request->n_sources++] = (void *)pb_copy(&sources->sources[i]->base);
        if (!creation->node->options->agents_share_images) {
            blob_push_start(creation->node, link_conn(container->sandbox->link), request->image, creation_on_pushed, creation);
            return;
        }
        creation->pushed = request->n_image_volumes;
    }
    creation_on_pushed(creation, err);
}

static void creation_on_cancel(void *arg)
{
    ((struct container_creation *)arg)->call = NULL;
}

/* ---- checks ---- */

static bool creation_check_log_path(const char *path, struct status *err)
{
    bool bad = *path == '/';

    for (const char *p = path; p != NULL && !bad; p = strchr(p, '/')) {
        p += *p == '/';
        bad = str_starts(p, "../") || strcmp(p, "..") == 0;
    }
    return !bad || status_set(err, STATUS_INVALID_ARGUMENT, "config.log_path: \"%s\" leaves the pod's log directory", path);
}

static bool creation_check(const Runtime__V1__ContainerConfig *config, struct status *err)
{
    if (config == NULL)
        return status_set(err, STATUS_INVALID_ARGUMENT, "config: missing");
    if (config->metadata == NULL || *config->metadata->name == '\0')
        return status_set(err, STATUS_INVALID_ARGUMENT, "config.metadata.name: missing");
    if (config->image == NULL || *config->image->image == '\0')
        return status_set(err, STATUS_INVALID_ARGUMENT, "config.image.image: missing");
    for (size_t i = 0; i < config->n_mounts; i++)
        if (image_volume_wanted(config->mounts[i]) && *config->mounts[i]->host_path != '\0')
            return status_set(err, STATUS_INVALID_ARGUMENT, "config.mounts[%zu]: either host_path or image, not both", i);
    return creation_check_log_path(config->log_path, err);
}

static struct container *creation_find(struct sandbox *sandbox, const Runtime__V1__ContainerMetadata *metadata)
{
    for (LIST_EACH(struct container, c, &sandbox->containers, link))
        if (c->record->config->metadata->attempt == metadata->attempt &&
            strcmp(c->record->config->metadata->name, metadata->name) == 0)
            return c;
    return NULL;
}

/* A name that is taken. One that was created but never started is left from a call whose answer got lost: the new
 * request replaces it. */
static bool creation_check_name(struct sandbox *sandbox, const Runtime__V1__ContainerMetadata *metadata,
                                struct status *err)
{
    struct container *other = creation_find(sandbox, metadata);

    if (other == NULL)
        return true;
    if (!other->creating && !other->removing &&
        other->record->phase == INTERLINK__STATE__V1__CONTAINER_PHASE__CREATED) {
        creation_undo(other);
        return true;
    }
    return status_set(err, STATUS_ALREADY_EXISTS, "container %s (attempt %u) exists in this pod as %.13s%s",
                      metadata->name, metadata->attempt, other->record->id,
                      other->creating ? " and is still being created" : "");
}

/* ---- the request to the agent ---- */

/* The images that are mounted, in the order of the mounts. Their ids go into the record, by which they are held. */
static bool creation_find_volumes(struct node *node, struct arena *arena, Interlink__State__V1__Container *record,
                                  Interlink__Agent__V1__CreateContainerRequest *out, struct status *err)
{
    static const struct buf no_text = BUF_INIT;
    Runtime__V1__ContainerConfig *config = record->config;

    out->image_volumes = ARENA_ARRAY(arena, Interlink__Agent__V1__ImageVolume *, config->n_mounts + 1);
    for (size_t i = 0; i < config->n_mounts; i++) {
        Runtime__V1__ImageSpec *spec = config->mounts[i]->image;
        if (!image_volume_wanted(config->mounts[i]))
            continue;
        const struct image *image = image_store_find(node->images, spec->image);
        if (image == NULL)
            return status_set(err, STATUS_NOT_FOUND, "config.mounts[%zu].image.image: \"%s\" is not on this node: pull it first",
                              i, spec->image);
        pb_set(&spec->image_ref, image->id);
        Interlink__Agent__V1__ImageVolume *volume = ARENA_NEW(arena, Interlink__Agent__V1__ImageVolume);
        interlink__agent__v1__image_volume__init(volume);
        volume->mount = (uint32_t)i;
        volume->image = ARENA_NEW(arena, Interlink__Agent__V1__Image);
        agent_image_fill(arena, image, &no_text, volume->image);
        out->image_volumes[out->n_image_volumes++] = volume;
    }
    return true;
}

/* A Localhost profile is a file of the node: agents elsewhere get its content. One that is not here may be there. */
static void creation_read_profile(const struct sandbox *sandbox, const Runtime__V1__ContainerConfig *config,
                                  struct buf *out, Interlink__Agent__V1__CreateContainerRequest *request)
{
    const Runtime__V1__LinuxContainerSecurityContext *security =
        config->linux != NULL ? config->linux->security_context : NULL;
    enum security_seccomp kind;
    const char *path;
    struct status ignored;

    if (sandbox->handler->local || !security_seccomp(security, &kind, &path, &ignored) || kind != SECURITY_SECCOMP_FILE)
        return;
    if (!file_read(path, SECURITY_SECCOMP_PROFILE_MAX, out, &ignored)) {
        log_debug("seccomp profile %s: not on this node: %s", path, ignored.message);
        return;
    }
    request->seccomp_profile = (ProtobufCBinaryData){ out->n, out->p };
}

static Interlink__State__V1__Container *creation_record(const struct sandbox *sandbox, const struct image *image,
                                                        const struct image_config *image_config,
                                                        const Runtime__V1__ContainerConfig *config)
{
    Interlink__State__V1__Container *record = xmalloc(sizeof *record);
    char id[ID_LENGTH + 1];

    interlink__state__v1__container__init(record);
    random_id(id);
    record->config = (void *)pb_copy(&config->base);
    pb_set(&record->id, id);
    pb_set(&record->sandbox_id, sandbox->record->id);
    pb_set(&record->image_id, image->id);
    pb_set(&record->image_ref, image->digest_count > 0 ? image->digests[0] : image->id);
    record->created_at = clock_real_ns();
    record->stop_signal = agent_signal_stop(config->stop_signal, image_config->stop_signal);
    return record;
}

static void creation_begin(struct sandbox *sandbox, struct link *link, struct rpc_call *call,
                           const struct image *image, const struct image_config *image_config,
                           const struct buf *config_text, const Runtime__V1__ContainerConfig *config)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf profile = BUF_INIT;
    Interlink__State__V1__Container *record = creation_record(sandbox, image, image_config, config);
    Interlink__Agent__V1__CreateContainerRequest request = INTERLINK__AGENT__V1__CREATE_CONTAINER_REQUEST__INIT;
    Interlink__Agent__V1__Image agent_image;
    struct status err = STATUS_INIT;

    if (!creation_find_volumes(sandbox->node, &arena, record, &request, &err)) {
        protobuf_c_message_free_unpacked(&record->base, NULL);
        rpc_fail(call, &err);
        return;
    }
    struct container *container = container_new(sandbox, record);
    struct container_creation *creation = xcalloc(1, sizeof *creation);
    container->creating = true;
    container_hold_images(container);
    creation->node = sandbox->node;
    creation->call = call;
    creation->pending = 2;
    memcpy(creation->id, container->record->id, sizeof creation->id);
    rpc_call_on_cancel(call, creation_on_cancel, creation);
    agent_image_fill(&arena, image, config_text, &agent_image);
    request.id = container->record->id;
    request.config = container->record->config;
    request.image = &agent_image;
    creation_read_profile(sandbox, config, &profile, &request);
    if (sandbox->handler->local) {
        rpc_unary(link_conn(link), "/interlink.agent.v1.Agent/CreateContainer", &request.base,
                  &interlink__agent__v1__create_container_response__descriptor, 0, creation_on_agent, creation);
    } else {
        creation->request = (void *)pb_copy(&request.base);
        volumes_bring(sandbox, config, creation_on_volumes, creation);
    }
    state_put(sandbox->node->state, STATE_CONTAINER, creation->id, &container->record->base, creation_on_recorded,
              creation);
}

void container_create(struct sandbox *sandbox, struct rpc_call *call, const Runtime__V1__CreateContainerRequest *request)
{
    struct status err = STATUS_INIT;
    struct image_store *images = sandbox->node->images;
    cleanup_buf struct buf config_text = BUF_INIT;
    struct image_config image_config = { .arena = ARENA_INIT };
    struct link *link = NULL;
    const struct image *image = NULL;
    bool own_job = sandbox->handler->per_container;

    if (!creation_check(request->config, &err) || !(own_job ? sandbox_check_ready(sandbox, &err) : (link = sandbox_link(sandbox, &err)) != NULL) ||
        !creation_check_name(sandbox, request->config->metadata, &err)) {
        rpc_fail(call, &err);
        return;
    }
    image = image_store_find(images, request->config->image->image);
    if (image == NULL) {
        rpc_failf(call, STATUS_NOT_FOUND, "config.image.image: \"%s\" is not on this node: pull it first",
                  request->config->image->image);
        return;
    }
    if (!image_store_read_config_text(images, image, &config_text, &err) ||
        !image_config_parse((struct str){ (const char *)config_text.p, config_text.n }, &image_config, &err)) {
        rpc_fail(call, &err);
        return;
    }
    if (own_job)
        container_job_create(sandbox, call, creation_record(sandbox, image, &image_config, request->config), &image_config);
    else
        creation_begin(sandbox, link, call, image, &image_config, &config_text, request->config);
    image_config_free(&image_config);
}
