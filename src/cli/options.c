/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/options.h"

#include "text/nearest.h"
#include "text/timefmt.h"

/* Columns of the help: option, then text. */
#define OPTIONS_HELP_COLUMN 30
#define OPTIONS_HELP_WIDTH 100

struct options_parser {
    struct arena *arena;
    const struct command *command;
    int argc;
    char *const *argv;
    int next;
    char *values;
    bool *given; /* by option */
    struct status *err;
};

/* ---- values ---- */

static bool options_store(const struct options_parser *p, const struct option_spec *o, const char *shown, const char *text)
{
    void *value = p->values + o->offset;
    struct option_list *list = value;
    int64_t *number = value;
    char *end;

    switch (o->kind) {
    case OPTION_SWITCH:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0 && strcmp(text, "1") != 0 && strcmp(text, "0") != 0)
            return status_set(p->err, STATUS_INVALID_ARGUMENT, "%s: wanted true or false, got \"%.64s\"", shown, text);
        *(bool *)value = *text == 't' || *text == '1';
        return true;
    case OPTION_STRING:
        *(const char **)value = text;
        return true;
    case OPTION_LIST:
        if ((list->count & (list->count + 1)) == 0) { /* full at 0, 1, 3, 7... */
            const char **items = ARENA_ARRAY(p->arena, const char *, 2 * list->count + 1);
            if (list->count > 0)
                memcpy(items, list->items, list->count * sizeof *items);
            list->items = items;
        }
        list->items[list->count++] = text;
        return true;
    case OPTION_NUMBER:
        errno = 0;
        *number = strtoll(text, &end, 10);
        if (errno != 0 || end == text || *end != '\0')
            return status_set(p->err, STATUS_INVALID_ARGUMENT, "%s: wanted a number, got \"%.64s\"", shown, text);
        return true;
    case OPTION_DURATION:
        break;
    }
    errno = 0;
    long long seconds = strtoll(text, &end, 10);
    if (errno == 0 && end != text && *end == '\0' && seconds <= INT64_MAX / 1000000000 && seconds >= 0) {
        *number = seconds * 1000000000;
        return true;
    }
    return timefmt_parse_duration(text, number) ||
           status_set(p->err, STATUS_INVALID_ARGUMENT, "%s: wanted a duration like 10s or 2m, got \"%.64s\"", shown, text);
}

/* ---- finding ---- */

static const struct option_spec *options_by_name(const struct command *c, const char *name, size_t n)
{
    for (size_t i = 0; i < c->option_count; i++)
        if (strlen(c->options[i].name) == n && memcmp(c->options[i].name, name, n) == 0)
            return &c->options[i];
    return NULL;
}

static const struct option_spec *options_by_letter(const struct command *c, char letter)
{
    for (size_t i = 0; i < c->option_count; i++)
        if (c->options[i].letter == letter)
            return &c->options[i];
    return NULL;
}

static bool options_unknown(const struct options_parser *p, const char *shown)
{
    const char *word = shown + strspn(shown, "-");
    struct nearest nearest = nearest_start(word);
    char hint[96] = "";

    for (size_t i = 0; i < p->command->option_count; i++)
        if (p->command->options[i].help != NULL)
            nearest_offer(&nearest, p->command->options[i].name);
    if (nearest.best != NULL)
        snprintf(hint, sizeof hint, ", did you mean --%s?", nearest.best);
    return status_set(p->err, STATUS_INVALID_ARGUMENT, "unknown option %.64s%s", shown, hint);
}

/* ---- parsing ---- */

/* The value of an option that needs one: what came attached, else the next word. */
static bool options_take(struct options_parser *p, const struct option_spec *o, const char *shown, const char *attached)
{
    p->given[o - p->command->options] = true;
    if (o->kind == OPTION_SWITCH)
        return options_store(p, o, shown, attached != NULL ? attached : "true");
    if (attached == NULL) {
        if (p->next >= p->argc)
            return status_set(p->err, STATUS_INVALID_ARGUMENT, "%s needs a value (%s)", shown, o->argument);
        attached = p->argv[p->next++];
    }
    return options_store(p, o, shown, attached);
}

static bool options_take_long(struct options_parser *p, const char *word)
{
    const char *name = word + strspn(word, "-"), *equals = strchr(name, '=');
    size_t n = equals != NULL ? (size_t)(equals - name) : strlen(name);
    const char *shown = arena_printf(p->arena, "--%.*s", (int)(n < 64 ? n : 64), name);
    const struct option_spec *o = options_by_name(p->command, name, n);

    return o == NULL ? options_unknown(p, shown) : options_take(p, o, shown, equals != NULL ? equals + 1 : NULL);
}

/* "-abc": switches, the last of which may be an option with its value: "-n5", "-n 5". */
static bool options_take_letters(struct options_parser *p, const char *word)
{
    for (const char *letter = word + 1; *letter != '\0'; letter++) {
        const char *shown = arena_printf(p->arena, "-%c", *letter);
        const struct option_spec *o = options_by_letter(p->command, *letter);
        if (o == NULL)
            return options_unknown(p, letter == word + 1 ? word : shown);
        if (o->kind != OPTION_SWITCH || letter[1] == '=') {
            const char *rest = letter + 1 + (letter[1] == '=');
            return options_take(p, o, shown, letter[1] != '\0' ? rest : NULL);
        }
        if (!options_take(p, o, shown, NULL))
            return false;
    }
    return true;
}

static bool options_take_word(struct options_parser *p, const char *word)
{
    size_t n = strcspn(word + 1, "=");

    if (word[1] == '-' || (n > 1 && options_by_name(p->command, word + 1, n) != NULL))
        return options_take_long(p, word);
    return options_take_letters(p, word);
}

static bool options_take_environment(const struct options_parser *p)
{
    for (size_t i = 0; i < p->command->option_count; i++) {
        const struct option_spec *o = &p->command->options[i];
        const char *text = o->environment != NULL && !p->given[i] ? getenv(o->environment) : NULL;
        if (text != NULL && *text != '\0' && !options_store(p, o, o->environment, text))
            return false;
    }
    return true;
}

static bool options_check_count(const struct options_parser *p, size_t count)
{
    const struct command *c = p->command;

    if (count >= c->arguments_min && count <= c->arguments_max)
        return true;
    if (*c->arguments == '\0')
        return status_set(p->err, STATUS_INVALID_ARGUMENT, "%s takes no arguments", c->name);
    return status_set(p->err, STATUS_INVALID_ARGUMENT, "%s wants: %s", c->name, c->arguments);
}

bool options_parse(struct arena *arena, const struct command *command, int argc, char *const *argv, void *values,
                   struct option_result *out, struct status *err)
{
    struct options_parser p = { arena, command, argc, argv, 1, values, NULL, err };
    const char **arguments = ARENA_ARRAY(arena, const char *, (size_t)argc + 1);
    bool only_arguments = false;

    p.given = ARENA_ARRAY(arena, bool, command->option_count + 1);
    *out = (struct option_result){ arguments, 0, false };
    while (p.next < argc) {
        const char *word = argv[p.next++];
        if (only_arguments || word[0] != '-' || word[1] == '\0') {
            arguments[out->count++] = word;
            only_arguments = only_arguments || command->stops;
        } else if (strcmp(word, "--") == 0) {
            only_arguments = true;
        } else if (strcmp(word, "--help") == 0 || (strcmp(word, "-h") == 0 && options_by_letter(command, 'h') == NULL)) {
            out->help = true;
            return true;
        } else if (!options_take_word(&p, word)) {
            return false;
        }
    }
    return options_take_environment(&p) && options_check_count(&p, out->count);
}

/* ---- help ---- */

/* Text in the right column; "\n" begins a new line there. */
static void options_put_column(struct buf *out, size_t column, const char *text)
{
    size_t width = OPTIONS_HELP_WIDTH - OPTIONS_HELP_COLUMN;

    if (column + 2 > OPTIONS_HELP_COLUMN) {
        buf_append_byte(out, '\n');
        column = 0;
    }
    while (*text != '\0') {
        size_t n = strcspn(text, "\n");
        if (n > width) {
            for (n = width; n > 0 && text[n] != ' '; n--)
                ;
            if (n == 0)
                n = width;
        }
        buf_printf(out, "%*s%.*s\n", (int)(OPTIONS_HELP_COLUMN - column), "", (int)n, text);
        text += n;
        text += *text == ' ' || *text == '\n';
        column = 0;
    }
}

static void options_put_option(struct buf *out, const struct option_spec *o)
{
    size_t before = out->n;

    if (o->letter != 0)
        buf_printf(out, "  -%c, --%s", o->letter, o->name);
    else
        buf_printf(out, "      --%s", o->name);
    if (o->kind != OPTION_SWITCH)
        buf_printf(out, " %s", o->argument);
    cleanup_free char *help = o->environment != NULL ? xasprintf("%s [%s]", o->help, o->environment) : xstrdup(o->help);
    options_put_column(out, out->n - before, help);
}

void options_usage(struct buf *out, const char *program, const struct command *command)
{
    buf_printf(out, "Usage: %s%s%s%s%s%s\n\n%s.\n", program, *program != '\0' ? " " : "", command->name,
               command->option_count > 0 ? " [OPTION...]" : "", *command->arguments != '\0' ? " " : "", command->arguments,
               command->summary);
    if (*command->aliases != '\0')
        buf_printf(out, "Also called: %s\n", command->aliases);
    if (*command->details != '\0')
        buf_printf(out, "\n%s\n", command->details);
    if (command->option_count > 0)
        buf_append_str(out, "\nOptions:\n");
    for (size_t i = 0; i < command->option_count; i++)
        if (command->options[i].help != NULL)
            options_put_option(out, &command->options[i]);
}

/* ---- commands ---- */

static bool command_has_alias(const struct command *c, const char *name)
{
    size_t n = strlen(name);

    for (const char *p = c->aliases; *p != '\0';) {
        size_t length = strcspn(p, " ");
        if (length == n && memcmp(p, name, n) == 0)
            return true;
        p += length;
        p += strspn(p, " ");
    }
    return false;
}

const struct command *command_find(const struct command *commands, size_t count, const char *name, struct status *err)
{
    struct nearest nearest = nearest_start(name);
    char hint[96];

    for (size_t i = 0; i < count; i++) {
        if (strcmp(commands[i].name, name) == 0 || command_has_alias(&commands[i], name))
            return &commands[i];
        nearest_offer(&nearest, commands[i].name);
    }
    status_set(err, STATUS_INVALID_ARGUMENT, "unknown command %.64s%s", name, nearest_hint(&nearest, hint, sizeof hint));
    return NULL;
}

void commands_list(struct buf *out, const struct command *commands, size_t count)
{
    size_t width = 12;

    for (size_t i = 0; i < count; i++)
        width = strlen(commands[i].name) > width ? strlen(commands[i].name) : width;
    for (size_t i = 0; i < count; i++)
        buf_printf(out, "  %-*s  %s\n", (int)width, commands[i].name, commands[i].summary);
}

#undef OPTIONS_HELP_COLUMN
#undef OPTIONS_HELP_WIDTH
