/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/options.h"

#include <setjmp.h>
#include <cmocka.h>

struct values {
    bool all, interactive, tty;
    const char *output;
    int64_t last, timeout;
    struct option_list labels;
};

static const struct option_spec options[] = {
    { "all", 'a', OPTION_SWITCH, offsetof(struct values, all), NULL, "Show all", NULL },
    { "interactive", 'i', OPTION_SWITCH, offsetof(struct values, interactive), NULL, "Keep standard input open", NULL },
    { "tty", 't', OPTION_SWITCH, offsetof(struct values, tty), NULL, "Allocate a terminal", NULL },
    { "output", 'o', OPTION_STRING, offsetof(struct values, output), "FORMAT", "json, yaml or table", "TEST_OUTPUT" },
    { "last", 'n', OPTION_NUMBER, offsetof(struct values, last), "N", "Show the last N", NULL },
    { "label", 0, OPTION_LIST, offsetof(struct values, labels), "KEY=VALUE", "Filter by label", NULL },
    { "pull-timeout", 0, OPTION_DURATION, offsetof(struct values, timeout), "TIME", "Longest time", NULL },
    { "pt", 0, OPTION_DURATION, offsetof(struct values, timeout), "TIME", NULL, NULL },
};

static const struct command list = { "ps", "list ls", "[ID...]", "List things", "", options, COUNT_OF(options), 0, 3, false, NULL };
static const struct command exec = { "exec", "", "ID COMMAND [ARG...]", "Run", "", options, COUNT_OF(options), 2, SIZE_MAX, true, NULL };

static bool parse(struct arena *a, const struct command *c, struct values *v, struct option_result *r, struct status *err, const char *line)
{
    char *argv[32];
    int argc = 0;

    *v = (struct values){ .output = "table", .last = -1 };
    argv[argc++] = arena_strdup(a, "x");
    char *copy = arena_strdup(a, line), *save = NULL;
    for (char *word = strtok_r(copy, " ", &save); word != NULL; word = strtok_r(NULL, " ", &save))
        argv[argc++] = word;
    argv[argc] = NULL;
    return options_parse(a, c, argc, argv, v, r, err);
}

static void test_good(void **state)
{
    cleanup_arena struct arena a = ARENA_INIT;
    struct status err = STATUS_INIT;
    struct option_result r;
    struct values v;
    (void)state;

    assert_true(parse(&a, &list, &v, &r, &err, "-a x --output=json y -n 5 --label a=b --label=c=d"));
    assert_true(v.all && v.last == 5 && v.labels.count == 2 && r.count == 2);
    assert_string_equal(v.output, "json");
    assert_string_equal(v.labels.items[1], "c=d");
    assert_string_equal(r.arguments[1], "y");
    assert_true(parse(&a, &list, &v, &r, &err, "-ain7 -ojson"));
    assert_true(v.all && v.interactive && v.last == 7);
    assert_true(parse(&a, &list, &v, &r, &err, "-last -5 -all=false -tty=true -pt 2m --pull-timeout 90 -- -a -"));
    assert_true(v.last == -5 && !v.all && v.tty && v.timeout == INT64_C(90000000000) && r.count == 2);
    assert_true(parse(&a, &list, &v, &r, &err, "-pt=2m -n=3"));
    assert_true(v.timeout == INT64_C(120000000000) && v.last == 3);
    assert_true(parse(&a, &exec, &v, &r, &err, "-it id ls -a --help --nonsense"));
    assert_true(v.interactive && v.tty && !v.all && r.count == 5 && !r.help);
    assert_true(parse(&a, &list, &v, &r, &err, "--nonsense=never") == false);
    assert_true(parse(&a, &list, &v, &r, &err, "-a --help --nonsense"));
    assert_true(r.help);
    assert_true(parse(&a, &exec, &v, &r, &err, "-h"));
    assert_true(r.help);
    setenv("TEST_OUTPUT", "yaml", 1);
    assert_true(parse(&a, &list, &v, &r, &err, ""));
    assert_string_equal(v.output, "yaml");
    assert_true(parse(&a, &list, &v, &r, &err, "-o json"));
    assert_string_equal(v.output, "json");
    unsetenv("TEST_OUTPUT");
}

static void test_many_labels(void **state)
{
    cleanup_arena struct arena a = ARENA_INIT;
    struct status err = STATUS_INIT;
    struct option_result r;
    struct values v;
    (void)state;

    assert_true(parse(&a, &list, &v, &r, &err, "--label a --label b --label c --label d --label e --label f --label g --label h --label i"));
    for (size_t i = 0; i < 9; i++)
        assert_int_equal(v.labels.items[i][0], 'a' + (int)i);
}

static void test_bad(void **state)
{
    static const char *const bad[][2] = {
        { "--outptu x", "unknown option --outptu, did you mean --output?" },
        { "--zzz", "unknown option --zzz" },
        { "-z", "unknown option -z" },
        { "-az", "unknown option -z" },
        { "--output", "--output needs a value (FORMAT)" },
        { "-n", "-n needs a value (N)" },
        { "-n five", "-n: wanted a number, got \"five\"" },
        { "--pull-timeout 5x", "--pull-timeout: wanted a duration like 10s or 2m, got \"5x\"" },
        { "--all=maybe", "--all: wanted true or false, got \"maybe\"" },
        { "a b c d", "ps wants: [ID...]" },
    };
    (void)state;

    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        cleanup_arena struct arena a = ARENA_INIT;
        struct status err = STATUS_INIT;
        struct option_result r;
        struct values v;
        if (parse(&a, &list, &v, &r, &err, bad[i][0]))
            fail_msg("taken: %s", bad[i][0]);
        assert_string_equal(err.message, bad[i][1]);
    }
    cleanup_arena struct arena a = ARENA_INIT;
    struct status err = STATUS_INIT;
    struct option_result r;
    struct values v;
    assert_false(parse(&a, &exec, &v, &r, &err, "id"));
    assert_string_equal(err.message, "exec wants: ID COMMAND [ARG...]");
}

static void test_commands(void **state)
{
    static const struct command commands[] = {
        { "inspect", "", "", "Look", "", NULL, 0, 0, 0, false, NULL },
        { "ps", "list ls", "", "List", "", NULL, 0, 0, 0, false, NULL },
    };
    struct status err = STATUS_INIT;
    (void)state;

    assert_ptr_equal(command_find(commands, 2, "ls", &err), &commands[1]);
    assert_ptr_equal(command_find(commands, 2, "inspect", &err), &commands[0]);
    assert_null(command_find(commands, 2, "l", &err));
    assert_null(command_find(commands, 2, "inpsect", &err));
    assert_string_equal(err.message, "unknown command inpsect, did you mean inspect?");
}

static void test_usage(void **state)
{
    cleanup_buf struct buf out = BUF_INIT;
    (void)state;

    options_usage(&out, "interlink-cri ctl", &list);
    assert_string_equal(buf_cstr(&out),
                        "Usage: interlink-cri ctl ps [OPTION...] [ID...]\n\nList things.\nAlso called: list ls\n\nOptions:\n"
                        "  -a, --all                   Show all\n"
                        "  -i, --interactive           Keep standard input open\n"
                        "  -t, --tty                   Allocate a terminal\n"
                        "  -o, --output FORMAT         json, yaml or table [TEST_OUTPUT]\n"
                        "  -n, --last N                Show the last N\n"
                        "      --label KEY=VALUE       Filter by label\n"
                        "      --pull-timeout TIME     Longest time\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good), cmocka_unit_test(test_many_labels), cmocka_unit_test(test_bad), cmocka_unit_test(test_commands),
        cmocka_unit_test(test_usage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
