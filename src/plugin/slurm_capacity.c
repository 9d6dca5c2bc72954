/* SPDX-License-Identifier: Apache-2.0 */
/* What the site has: the nodes that can be used, whoever uses them now. Asked for when somebody wants to know, and not often. */
#include "plugin/slurm.h"

#include "text/quantity.h"

static void slurm_capacity_count(struct slurm *slurm, const struct slurm_node *node)
{
    if (!node->usable)
        return;
    slurm->cpus += node->cpus;
    slurm->memory_mib += node->memory_mib;
    for (size_t i = 0; i < slurm->config.gres.count; i++)
        slurm->gres_counts[i] += slurm_gres_count(node->gres, slurm->config.gres.items[i].value);
}

static void slurm_capacity_on_answer(void *arg, const struct slurm_answer *answer)
{
    struct slurm *slurm = arg;
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_strmap struct strmap seen = STRMAP_INIT;
    struct str rest = answer->output, line;
    struct slurm_node node;

    if (answer->err != NULL) {
        log_warn("what the site has is not known: %s", answer->err->message);
        return;
    }
    slurm->cpus = slurm->memory_mib = 0;
    memset(slurm->gres_counts, 0, slurm->config.gres.count * sizeof *slurm->gres_counts);
    slurm->nodes_known = true;
    /* A node is listed once for each of its partitions. */
    while (slurm_next_line(&rest, &line))
        if (slurm_sinfo_line(&arena, line, &node) && strmap_put(&seen, node.name, slurm) == NULL)
            slurm_capacity_count(slurm, &node);
}

void slurm_capacity_refresh(struct slurm *slurm)
{
    static const char *const arguments[] = { "--noheader", "--Node", SLURM_SINFO_FORMAT, NULL };
    int64_t now = clock_mono_ms();

    if (*slurm->config.tools[SLURM_SINFO] == '\0' || slurm_command_busy(&slurm->sinfo) ||
        (slurm->nodes_ms != 0 && now - slurm->nodes_ms < SLURM_NODES_MS))
        return;
    slurm->nodes_ms = now;
    slurm_command_start(&slurm->commands, &slurm->sinfo, SLURM_SINFO, arguments, -1, slurm_capacity_on_answer, slurm);
}

/* Resources that stand for the same gres: it is told of once, under the name that comes first. */
static bool slurm_capacity_told(const struct interlink_pairs *gres, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (strcmp(gres->items[k].value, gres->items[i].value) == 0)
            return true;
    return false;
}

/* A site that can take no job now says so; once it has, it says too that this is over. Else it leaves the node's taints to others. */
static void slurm_capacity_taints(struct slurm *slurm, struct arena *arena, struct interlink_ping *out)
{
    bool silent = slurm->trouble_since_ms != 0, empty = slurm->nodes_known && slurm->cpus == 0;

    out->has_taints = silent || empty || slurm->taint_told;
    slurm->taint_told = out->has_taints;
    if (!silent && !empty)
        return;
    out->taints = ARENA_NEW(arena, struct interlink_taint);
    out->taints[0] = (struct interlink_taint){ "interlink.eu/slurm", silent ? "does-not-answer" : "no-node-up", "NoSchedule" };
    out->taint_count = 1;
}

void slurm_capacity_fill(struct slurm *slurm, struct arena *arena, struct interlink_ping *out)
{
    const struct interlink_pairs *gres = &slurm->config.gres;
    char memory[QUANTITY_TEXT_MAX];

    *out = (struct interlink_ping){ .status = "ok", .cpu = "", .memory = "", .pods = "" };
    if (slurm->trouble_since_ms != 0)
        out->status = arena_printf(arena, "Slurm does not answer: %s", slurm->trouble.message);
    slurm_capacity_refresh(slurm);
    slurm_capacity_taints(slurm, arena, out);
    if (!slurm->nodes_known)
        return;
    quantity_format(slurm->memory_mib << 20, QUANTITY_ONE, true, memory);
    out->cpu = arena_printf(arena, "%" PRId64, slurm->cpus);
    out->memory = arena_strdup(arena, memory);
    out->pods = arena_printf(arena, "%d", PLUGIN_JOBS_MAX);
    out->accelerators = ARENA_ARRAY(arena, struct interlink_accelerator, gres->count + 1);
    for (size_t i = 0; i < gres->count; i++)
        if (slurm->gres_counts[i] > 0 && !slurm_capacity_told(gres, i))
            out->accelerators[out->accelerator_count++] = (struct interlink_accelerator){
                .resource = gres->items[i].name, .available = arena_printf(arena, "%" PRId64, slurm->gres_counts[i])
            };
}
