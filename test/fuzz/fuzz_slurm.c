/* SPDX-License-Identifier: Apache-2.0 */
/* What Slurm's programs print, and options that people write. The first byte says which. */
#include "plugin/slurm_options.c"
#include "plugin/slurm_parse.c"

/* What was quoted for a shell is read back as it was. */
static void slurm_fuzz_quoting(struct arena *arena, const struct interlink_strings *words)
{
    cleanup_buf struct buf line = BUF_INIT;
    struct interlink_strings again;
    struct status err = STATUS_INIT;

    for (size_t i = 0; i < words->count; i++) {
        slurm_shell_word(&line, words->items[i]);
        buf_append_byte(&line, ' ');
    }
    if (!slurm_words_split(arena, buf_cstr(&line), &again, &err) || again.count != words->count)
        abort();
    for (size_t i = 0; i < words->count; i++)
        if (strcmp(words->items[i], again.items[i]) != 0)
            abort();
}

static void slurm_fuzz_options(struct arena *arena, const char *text)
{
    struct interlink_strings words, options = { NULL, 0 };
    struct status err = STATUS_INIT;

    if (slurm_words_split(arena, text, &words, &err))
        slurm_fuzz_quoting(arena, &words);
    if (!slurm_options_read(arena, text, SLURM_POD, NULL, &options, &err))
        return;
    for (size_t i = 0; i < options.count; i++) {
        if (!str_starts(options.items[i], "--"))
            abort();
        const struct slurm_option *o =
            slurm_options_find(arena_strndup(arena, options.items[i] + 2, strcspn(options.items[i] + 2, "=")), 0);
        if (o == NULL || !o->pods)
            abort();
    }
}

static void slurm_fuzz_lines(struct arena *arena, struct str text, int which)
{
    struct str line;
    struct slurm_info info;
    struct slurm_node node;
    struct slurm_place place;

    while (slurm_next_line(&text, &line)) {
        bool job = false;
        if (which == 0)
            job = slurm_squeue_line(arena, line, &info);
        else if (which == 1)
            job = slurm_scontrol_line(arena, line, &info);
        else if (which == 2)
            job = slurm_sacct_line(arena, line, &info);
        else if (which == 3 && slurm_sinfo_line(arena, line, &node) && slurm_gres_count(node.gres, "gpu") < 0)
            abort();
        else if (which == 4 && slurm_place_line(arena, line, &place))
            (void)slurm_places_ahead(&place, 1, &(struct slurm_info){ .partition = "main" });
        if (job && (info.job_id == 0 || info.start_ns < 0 || info.end_ns < 0 || info.exit_code < 0 || info.signal < 0 ||
                    info.limit_seconds < 0 || strlen(info.state) + strlen(info.nodes) + strlen(info.name) > line.n))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    cleanup_buf struct buf words = BUF_INIT;
    uint32_t id;

    if (size == 0)
        return 0;
    struct str text = { (const char *)data + 1, size - 1 };
    cleanup_free char *copy = xstrndup(text.p, text.n);
    switch (data[0] % 8) {
    case 5:
        (void)slurm_sbatch_output(text, &id);
        break;
    case 6:
        slurm_fuzz_options(&arena, copy);
        break;
    case 7:
        (void)slurm_step_verdict(text);
        slurm_error_text(text, &words);
        if (words.n > STATUS_MESSAGE_MAX + 4)
            abort();
        (void)slurm_error_passing(buf_cstr(&words));
        break;
    default:
        slurm_fuzz_lines(&arena, text, data[0] % 8);
        break;
    }
    return 0;
}
