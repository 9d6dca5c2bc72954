/* SPDX-License-Identifier: Apache-2.0 */
/* What `doctor --site` prints of what a job told, and of what it may tell. */
#include "cli/site.h"

#include <setjmp.h>
#include <cmocka.h>
#include <unistd.h>

#include "io/file.h"
#include "text/json.h"
#include "text/yaml.h"

struct fixture {
    struct doctor doctor;
    struct site site;
    struct node_handler_options handler;
    char out[64];
};

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);

    f->handler = (struct node_handler_options){ .name = "hpc", .url = "https://api:3000", .engine = "" };
    f->doctor.config.node = (struct node_options){ .relay_listen = "0.0.0.0:10443", .relay_address = "edge:10443", .image_dir = "/shared/images" };
    f->site = (struct site){ .doctor = &f->doctor, .handler = &f->handler };
    plugin_settings_init(&f->site.settings);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    plugin_settings_free(&f->site.settings);
    free(f->site.findings);
    arena_free(&f->site.arena);
    free(f);
    return 0;
}

static void tell(struct fixture *f, const char *report)
{
    struct status err = STATUS_INIT;

    f->site.report = json_parse(&f->site.arena, str_of(report), &err);
    assert_non_null(f->site.report);
    site_add_report(&f->site);
}

/* Standard output goes to a file meanwhile. */
static const char *printed(struct fixture *f, const char *format, struct buf *text)
{
    struct status err = STATUS_INIT;
    int kept = dup(STDOUT_FILENO);

    fflush(stdout);
    snprintf(f->out, sizeof f->out, "/tmp/test-site-report-XXXXXX");
    int fd = mkstemp(f->out);
    dup2(fd, STDOUT_FILENO);
    close(fd);
    bool ok = site_print(&f->site, format);
    dup2(kept, STDOUT_FILENO);
    close(kept);
    assert_true(ok);
    buf_clear(text);
    assert_true(file_read(f->out, 1 << 20, text, &err));
    unlink(f->out);
    return buf_cstr(text);
}

static const char report[] = "{\"host\":\"n1\",\"timeNs\":1,\"findings\":["
                             "{\"what\":\"namespaces\",\"result\":\"fail\",\"found\":\"refused\",\"mend\":\"allow them\"},"
                             "{\"what\":\"shared /home/u\",\"result\":\"fail\",\"found\":\"is not there\",\"mend\":\"mount it\"},"
                             "{\"what\":\"shared /data\",\"result\":\"fail\",\"found\":\"is not there\",\"mend\":\"mount it\"}],"
                             "\"facts\":{\"engine\":\"apptainer\",\"relay\":\"proxy\",\"proxy\":\"px:3128\",\"scratch\":\"/local\","
                             "\"shared\":[\"/shared/images\",\"/work\"]}}";

static void test_table(void **state)
{
    struct fixture *f = *state;
    cleanup_buf struct buf text = BUF_INIT;

    f->site.folders[f->site.folder_count++] = (struct site_folder){ .path = "/home/u" };
    f->site.folders[f->site.folder_count++] = (struct site_folder){ .path = "/data", .configured = true };
    site_say(&f->site, "this node", FINDING_OK, "REST API", "", "%s", "answers");
    tell(f, report);
    const char *out = printed(f, "table", &text);
    assert_non_null(strstr(out, "ok    this node  REST API        answers\n"));
    assert_non_null(strstr(out, "FAIL  n1         namespaces      refused\n"));
    assert_non_null(strstr(out, "                                 -> allow them\n"));
    /* A folder that was only asked about does no harm; one that is configured does. */
    assert_non_null(strstr(out, "ok    n1         shared /home/u  is not there\n"));
    assert_non_null(strstr(out, "FAIL  n1         shared /data    is not there\n"));
    assert_non_null(strstr(out, "2 ok, 0 to look at, 2 failed\n"));
    assert_int_equal(site_exit_status(&f->site), 1);
}

/* What is to be pasted is YAML that says what was found. */
static void test_configuration(void **state)
{
    struct fixture *f = *state;
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_arena struct arena arena = ARENA_INIT;
    struct status err = STATUS_INIT;

    tell(f, report);
    const struct json *j = json_parse(&arena, str_of(printed(f, "json", &text)), &err);
    assert_non_null(j);
    const struct json *advice = yaml_parse(&arena, str_of(json_string(json_member(j, "configuration"), "")), &err);
    assert_non_null(advice);
    assert_string_equal(json_string(json_get(advice, "Handlers", "0", "Name"), ""), "hpc");
    assert_string_equal(json_string(json_get(advice, "Handlers", "0", "Engine"), ""), "apptainer");
    assert_string_equal(json_string(json_get(advice, "Handlers", "0", "SharedPaths", "1"), ""), "/work");
    assert_string_equal(json_string(json_get(advice, "Relay", "Advertise"), ""), "edge:10443");
    assert_true(json_bool(json_get(advice, "Images", "Shared"), false));
    assert_non_null(strstr(json_string(json_member(j, "configuration"), ""), "px:3128"));
    /* The same as YAML. */
    cleanup_arena struct arena other = ARENA_INIT;
    const struct json *y = yaml_parse(&other, str_of(printed(f, "yaml", &text)), &err);
    assert_string_equal(json_string(json_get(y, "facts", "engine"), ""), "apptainer");
    assert_int_equal((int)json_member(y, "findings")->count, 3);
}

static void test_reports_that_are_none(void **state)
{
    static const char *const reports[] = {
        "{}", "{\"findings\":7,\"facts\":[]}", "{\"host\":{},\"findings\":[1,null,\"x\",{}],\"facts\":{\"shared\":\"/x\",\"engine\":3}}",
        "{\"findings\":[],\"facts\":{\"engine\":\"\\u001bx\\nSocket: /evil\",\"shared\":[\"/a\\n/b\"],\"relay\":\"proxy\",\"proxy\":\"\\u0007\"}}",
        "{\"host\":\"\\u001b[2J\",\"findings\":[{\"what\":\"a\\nb\",\"found\":\"\\u0007\",\"mend\":\"\\u007f\",\"result\":\"good\"}]}",
    };
    struct fixture *f = *state;
    cleanup_buf struct buf text = BUF_INIT;

    for (size_t i = 0; i < COUNT_OF(reports); i++) {
        tell(f, reports[i]);
        const char *out = printed(f, "table", &text);
        for (const char *p = out; *p != '\0'; p++)
            assert_true((unsigned char)*p >= ' ' || *p == '\n');
        assert_null(strchr(out, 0x7f));
        assert_null(strstr(out, "a\nb"));
        assert_null(strstr(out, "\nSocket:"));
        printed(f, "json", &text);
        printed(f, "yaml", &text);
    }
    assert_int_equal(site_exit_status(&f->site), 1); /* a result that is not known is no good one */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = { TEST(test_table), TEST(test_configuration), TEST(test_reports_that_are_none) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
