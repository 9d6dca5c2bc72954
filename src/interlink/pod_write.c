/* SPDX-License-Identifier: Apache-2.0 */
#include "interlink/pod.h"

#include "text/json.h"

static void pod_write_string(struct json_writer *w, const char *key, const char *value)
{
    if (value != NULL && value[0] != '\0')
        json_write_member_string(w, key, value);
}

static void pod_write_pairs(struct json_writer *w, const char *key, const struct interlink_pairs *pairs)
{
    if (pairs->count == 0)
        return;
    json_write_member_object(w, key);
    for (size_t i = 0; i < pairs->count; i++)
        json_write_member_string(w, pairs->items[i].name, pairs->items[i].value);
    json_write_end(w);
}

static void pod_write_strings(struct json_writer *w, const char *key, const struct interlink_strings *strings)
{
    if (strings->count == 0)
        return;
    json_write_member_array(w, key);
    for (size_t i = 0; i < strings->count; i++)
        json_write_string(w, strings->items[i]);
    json_write_end(w);
}

static void pod_write_container(struct json_writer *w, const struct interlink_container *c)
{
    json_write_object(w);
    pod_write_string(w, "name", c->name);
    pod_write_string(w, "image", c->image);
    pod_write_strings(w, "command", &c->command);
    pod_write_strings(w, "args", &c->args);
    pod_write_string(w, "workingDir", c->working_dir);
    if (c->env.count > 0) {
        json_write_member_array(w, "env");
        for (size_t i = 0; i < c->env.count; i++) {
            json_write_object(w);
            json_write_member_string(w, "name", c->env.items[i].name);
            json_write_member_string(w, "value", c->env.items[i].value);
            json_write_end(w);
        }
        json_write_end(w);
    }
    json_write_member_object(w, "resources");
    pod_write_pairs(w, "limits", &c->limits);
    pod_write_pairs(w, "requests", &c->requests);
    json_write_end(w);
    if (c->mount_count > 0) {
        json_write_member_array(w, "volumeMounts");
        for (size_t i = 0; i < c->mount_count; i++) {
            json_write_object(w);
            json_write_member_string(w, "name", c->mounts[i].name);
            if (c->mounts[i].read_only)
                json_write_member_bool(w, "readOnly", true);
            json_write_member_string(w, "mountPath", c->mounts[i].mount_path);
            pod_write_string(w, "subPath", c->mounts[i].sub_path);
            json_write_end(w);
        }
        json_write_end(w);
    }
    if (c->tty)
        json_write_member_bool(w, "tty", true);
    json_write_end(w);
}

static void pod_write_containers(struct json_writer *w, const char *key, const struct interlink_container *containers,
                                 size_t count)
{
    json_write_member_array(w, key);
    for (size_t i = 0; i < count; i++)
        pod_write_container(w, &containers[i]);
    json_write_end(w);
}

/* defaultMode is always written: the stock Slurm plugin dies of its absence. */
static void pod_write_key_source(struct json_writer *w, const char *kind, const char *name_key,
                                 const struct interlink_volume *v)
{
    json_write_member_object(w, kind);
    json_write_member_string(w, name_key, v->source);
    json_write_member_i64(w, "defaultMode", v->default_mode >= 0 ? v->default_mode : INTERLINK_DEFAULT_MODE);
    if (v->optional)
        json_write_member_bool(w, "optional", true);
    if (v->item_count > 0) {
        json_write_member_array(w, "items");
        for (size_t i = 0; i < v->item_count; i++) {
            json_write_object(w);
            json_write_member_string(w, "key", v->items[i].key);
            json_write_member_string(w, "path", v->items[i].path);
            if (v->items[i].mode >= 0)
                json_write_member_i64(w, "mode", v->items[i].mode);
            json_write_end(w);
        }
        json_write_end(w);
    }
    json_write_end(w);
}

static void pod_write_volume(struct json_writer *w, const struct interlink_volume *v)
{
    json_write_object(w);
    json_write_member_string(w, "name", v->name);
    switch (v->kind) {
    case INTERLINK_VOLUME_CONFIG_MAP:
        pod_write_key_source(w, "configMap", "name", v);
        break;
    case INTERLINK_VOLUME_SECRET:
        pod_write_key_source(w, "secret", "secretName", v);
        break;
    case INTERLINK_VOLUME_EMPTY_DIR:
        json_write_member_object(w, "emptyDir");
        pod_write_string(w, "medium", v->medium);
        pod_write_string(w, "sizeLimit", v->size_limit);
        json_write_end(w);
        break;
    case INTERLINK_VOLUME_HOST_PATH:
        /* Likewise the type of a hostPath. */
        json_write_member_object(w, "hostPath");
        json_write_member_string(w, "path", v->source);
        json_write_member_string(w, "type",
                                 v->host_path_type != NULL && v->host_path_type[0] != '\0' ? v->host_path_type
                                                                                           : "DirectoryOrCreate");
        json_write_end(w);
        break;
    case INTERLINK_VOLUME_PROJECTED:
        json_write_member_object(w, "projected");
        json_write_member_array(w, "sources");
        json_write_end(w);
        json_write_member_i64(w, "defaultMode", v->default_mode >= 0 ? v->default_mode : INTERLINK_DEFAULT_MODE);
        json_write_end(w);
        break;
    case INTERLINK_VOLUME_OTHER:
        break;
    }
    json_write_end(w);
}

static void pod_write_metadata(struct json_writer *w, const struct interlink_pod *pod)
{
    json_write_member_object(w, "metadata");
    pod_write_string(w, "name", pod->name);
    pod_write_string(w, "namespace", pod->namespace_);
    pod_write_string(w, "uid", pod->uid);
    if (pod->deletion_grace_seconds >= 0)
        json_write_member_i64(w, "deletionGracePeriodSeconds", pod->deletion_grace_seconds);
    pod_write_pairs(w, "labels", &pod->labels);
    pod_write_pairs(w, "annotations", &pod->annotations);
    json_write_end(w);
}

static void pod_write_spec(struct json_writer *w, const struct interlink_pod *pod)
{
    json_write_member_object(w, "spec");
    if (pod->volume_count > 0) {
        json_write_member_array(w, "volumes");
        for (size_t i = 0; i < pod->volume_count; i++)
            pod_write_volume(w, &pod->volumes[i]);
        json_write_end(w);
    }
    if (pod->init_container_count > 0)
        pod_write_containers(w, "initContainers", pod->init_containers, pod->init_container_count);
    pod_write_containers(w, "containers", pod->containers, pod->container_count);
    pod_write_string(w, "restartPolicy", pod->restart_policy);
    if (pod->termination_grace_seconds >= 0)
        json_write_member_i64(w, "terminationGracePeriodSeconds", pod->termination_grace_seconds);
    if (pod->active_deadline_seconds >= 0)
        json_write_member_i64(w, "activeDeadlineSeconds", pod->active_deadline_seconds);
    pod_write_string(w, "serviceAccountName", pod->service_account);
    pod_write_string(w, "nodeName", pod->node_name);
    pod_write_string(w, "hostname", pod->hostname);
    if (pod->host_network)
        json_write_member_bool(w, "hostNetwork", true);
    json_write_end(w);
}

void interlink_pod_write_open(struct buf *out, const struct interlink_pod *pod)
{
    struct json_writer w;

    json_writer_init(&w, out, 0);
    json_write_object(&w);
    pod_write_metadata(&w, pod);
    pod_write_spec(&w, pod);
}

void interlink_pod_write_close(struct buf *out, const char *phase)
{
    buf_printf(out, ",\"status\":{\"phase\":\"%s\"}}", phase);
}

void interlink_pod_write(struct buf *out, const struct interlink_pod *pod)
{
    interlink_pod_write_open(out, pod);
    /* A word of Kubernetes' own; anything else would not be a phase. */
    interlink_pod_write_close(out, strcmp(pod->phase, "Running") == 0 ? "Running" : "Pending");
}

/* ---- create requests ---- */

static bool pod_is_text(struct str s)
{
    for (size_t i = 0; i < s.n;) {
        size_t step = utf8_sequence(s.p + i, s.n - i);
        if (step == 0 || s.p[i] == '\0')
            return false;
        i += step;
    }
    return true;
}

static void pod_write_file(struct json_writer *w, const struct interlink_file *file, bool encoded)
{
    json_write_key(w, file->key);
    if (!encoded) {
        json_write_bytes(w, file->data);
        return;
    }
    cleanup_buf struct buf text = BUF_INIT;
    base64_append(&text, file->data.p, file->data.n, false);
    json_write_bytes(w, (struct str){ (const char *)text.p, text.n });
}

static void pod_write_object(struct json_writer *w, const struct interlink_object *o, bool secret)
{
    json_write_object(w);
    json_write_member_object(w, "metadata");
    pod_write_string(w, "name", o->name);
    pod_write_string(w, "namespace", o->namespace_);
    json_write_end(w);
    json_write_member_object(w, "data");
    for (size_t i = 0; i < o->file_count; i++)
        if (secret || pod_is_text(o->files[i].data))
            pod_write_file(w, &o->files[i], secret);
    json_write_end(w);
    if (secret) {
        pod_write_string(w, "type", o->type);
    } else {
        json_write_member_object(w, "binaryData");
        for (size_t i = 0; i < o->file_count; i++)
            if (!pod_is_text(o->files[i].data))
                pod_write_file(w, &o->files[i], true);
        json_write_end(w);
    }
    json_write_end(w);
}

static void pod_write_objects(struct json_writer *w, const char *key, const struct interlink_object *objects,
                              size_t count, bool secret)
{
    json_write_member_array(w, key);
    for (size_t i = 0; i < count; i++)
        pod_write_object(w, &objects[i], secret);
    json_write_end(w);
}

void interlink_create_write(struct buf *out, const struct interlink_create *create)
{
    struct json_writer w;
    cleanup_buf struct buf pod = BUF_INIT;

    interlink_pod_write(&pod, &create->pod);
    json_writer_init(&w, out, 0);
    json_write_object(&w);
    json_write_key(&w, "pod");
    json_write_raw(&w, (struct str){ (const char *)pod.p, pod.n });
    pod_write_objects(&w, "configmaps", create->config_maps, create->config_map_count, false);
    pod_write_objects(&w, "secrets", create->secrets, create->secret_count, true);
    pod_write_objects(&w, "projectedvolumesmaps", create->projected, create->projected_count, false);
    json_write_member_string(&w, "jobscriptURL", "");
    json_write_end(&w);
}
