/* SPDX-License-Identifier: Apache-2.0 */
/* What Slurm's programs print, as Slurm 22.05 prints it, and what no Slurm would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "plugin/slurm_parse.c"

static void test_states(void **state)
{
    (void)state;
    assert_int_equal(slurm_class_of("PENDING"), SLURM_CLASS_PENDING);
    assert_int_equal(slurm_class_of("REQUEUE_HOLD"), SLURM_CLASS_PENDING);
    assert_int_equal(slurm_class_of("CONFIGURING"), SLURM_CLASS_CONFIGURING);
    assert_int_equal(slurm_class_of("SUSPENDED"), SLURM_CLASS_RUNNING);
    assert_int_equal(slurm_class_of("COMPLETING"), SLURM_CLASS_COMPLETING);
    assert_int_equal(slurm_class_of("CANCELLED by 1000"), SLURM_CLASS_ENDED);
    assert_int_equal(slurm_class_of("CANCELLED+"), SLURM_CLASS_ENDED);
    assert_int_equal(slurm_class_of("OUT_OF_MEMORY"), SLURM_CLASS_ENDED);
    assert_int_equal(slurm_class_of("RUNNINGS"), SLURM_CLASS_UNKNOWN);
    assert_int_equal(slurm_class_of(""), SLURM_CLASS_UNKNOWN);
}

static void test_squeue(void **state)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct slurm_info info;
    (void)state;

    assert_true(slurm_squeue_line(&arena, STR("2|FAILED|1792|2026-11-24T14:25:06|2026-11-24T14:25:07|2026-11-24T14:25:05|1:00|3|4294901758|main|n1|"
                                              "NonZeroExitCode|web.1234|"),
                                  &info));
    assert_int_equal(info.job_id, 2);
    assert_int_equal(info.state_class, SLURM_CLASS_ENDED);
    assert_string_equal(info.state, "FAILED");
    assert_int_equal(info.exit_code, 7);
    assert_int_equal(info.signal, 0);
    assert_int_equal(info.start_ns, INT64_C(1795530306) * 1000000000);
    assert_int_equal(info.end_ns - info.start_ns, 1000000000);
    assert_int_equal(info.limit_seconds, 60);
    assert_int_equal(info.restarts, 3);
    assert_int_equal(info.priority, 4294901758);
    assert_string_equal(info.nodes, "n1");
    assert_string_equal(info.name, "web.1234");
    /* A signal, no times, no nodes; a name with the separator in it. */
    assert_true(slurm_squeue_line(&arena, STR("7|PENDING|9|N/A|NONE|Unknown|UNLIMITED|0|0|main||(Nodes, DOWN)|a|b|"), &info));
    assert_int_equal(info.signal, 9);
    assert_int_equal(info.start_ns, 0);
    assert_int_equal(info.end_ns, 0);
    assert_int_equal(info.limit_seconds, 0);
    assert_string_equal(info.nodes, "");
    assert_string_equal(info.reason, "(Nodes, DOWN)");
    assert_string_equal(info.name, "a|b");
    assert_true(slurm_squeue_line(&arena, STR("7|A STATE OF THE FUTURE|x|||||-1|99999999999999999999999|p|n|None|"), &info));
    assert_int_equal(info.state_class, SLURM_CLASS_UNKNOWN);
    assert_int_equal(info.priority, 0);
    static const char *const bad[] = { "", "|", "squeue: error", "x|RUNNING|0|||||||||||", "0|RUNNING|0||||||||||", "-1|RUNNING|0||||||||||",
                                       "4294967296|RUNNING|0||||||||||", "1|RUNNING|0|a|b|c|d|e|f|g|h|i" };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(slurm_squeue_line(&arena, str_of(bad[i]), &info));
}

static void test_scontrol(void **state)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct slurm_info info;
    (void)state;

    assert_true(slurm_scontrol_line(
        &arena,
        STR("JobId=5 JobName=x JobState=COMPLETED UserId=root(0) y UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=12 Nice=0 "
            "JobState=FAILED Reason=JobLaunchFailure Dependency=(null) Requeue=1 Restarts=2 ExitCode=0:12 RunTime=00:01:28 "
            "TimeLimit=1-00:00:00 SubmitTime=2026-11-24T14:25:06 StartTime=2026-11-24T14:26:14 EndTime=2026-11-24T14:27:42 "
            "Partition=main ReqNodeList=(null) NodeList=n[1-2] BatchHost=n1"),
        &info));
    assert_int_equal(info.job_id, 5);
    assert_string_equal(info.state, "FAILED");
    assert_int_equal(info.signal, 12);
    assert_int_equal(info.limit_seconds, 86400);
    assert_int_equal(info.restarts, 2);
    assert_string_equal(info.nodes, "n[1-2]");
    assert_string_equal(info.reason, "JobLaunchFailure");
    assert_string_equal(info.name, "x JobState=COMPLETED UserId=root(0) y");
    assert_false(slurm_scontrol_line(&arena, STR("JobId=5 JobName=x"), &info));
    assert_false(slurm_scontrol_line(&arena, STR("JobId=5 UserId=a JobState=WHAT"), &info));
    assert_false(slurm_scontrol_line(&arena, STR("No jobs in the system"), &info));
}

static void test_sacct(void **state)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct slurm_info info;
    (void)state;

    assert_true(slurm_sacct_line(
        &arena, STR("17|CANCELLED by 1000|0:15|2026-11-24T14:25:06|2026-11-24T14:26:14|2026-11-24T14:27:42|90|main|n1|web.u|d"), &info));
    assert_string_equal(info.state, "CANCELLED");
    assert_string_equal(info.cancelled_by, "1000");
    assert_int_equal(info.signal, 15);
    assert_int_equal(info.limit_seconds, 5400);
    assert_string_equal(info.name, "web.u|d");
    assert_true(slurm_sacct_line(&arena, STR("17|COMPLETED|3:0||Unknown|Unknown|UNLIMITED|main|None assigned|n"), &info));
    assert_int_equal(info.exit_code, 3);
    assert_string_equal(info.nodes, "");
    assert_false(slurm_sacct_line(&arena, STR("17.batch|COMPLETED|0:0|||||||"), &info));
    assert_false(slurm_sacct_line(&arena, STR("17|"), &info));
}

static void test_sbatch(void **state)
{
    uint32_t id = 0;
    (void)state;

    assert_true(slurm_sbatch_output(STR("4711\n"), &id));
    assert_int_equal(id, 4711);
    assert_true(slurm_sbatch_output(STR("Welcome to the site\n4712;cluster\r\n"), &id));
    assert_int_equal(id, 4712);
    assert_false(slurm_sbatch_output(STR("Submitted batch job 17\n"), &id));
    assert_false(slurm_sbatch_output(STR(""), &id));
    assert_false(slurm_sbatch_output(STR("0\n"), &id));
    assert_false(slurm_sbatch_output(STR("99999999999999999999\n"), &id));
}

static void test_places(void **state)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct slurm_place places[4];
    struct slurm_info job = { .job_id = 10, .priority = 50, .partition = "main" };
    (void)state;

    assert_true(slurm_place_line(&arena, STR("8|50|main|"), &places[0]));
    assert_true(slurm_place_line(&arena, STR("9|51|main|"), &places[1]));
    assert_true(slurm_place_line(&arena, STR("7|99|gpu|"), &places[2]));
    assert_true(slurm_place_line(&arena, STR("11|50|main|"), &places[3]));
    slurm_places_sort(places, 4);
    assert_int_equal(slurm_places_ahead(places, 4, &job), 2);
    assert_int_equal(slurm_places_ahead(NULL, 0, &job), 0);
    /* As counted one by one. */
    struct slurm_place many[300];
    for (uint32_t i = 0; i < COUNT_OF(many); i++)
        many[i] = (struct slurm_place){ .job_id = i + 1, .priority = i * 7 % 40, .partition = i % 3 == 0 ? "gpu" : i % 3 == 1 ? "long" : "main" };
    slurm_places_sort(many, COUNT_OF(many));
    for (size_t i = 0; i < COUNT_OF(many); i++) {
        const struct slurm_info one = { .job_id = many[i].job_id, .priority = many[i].priority, .partition = many[i].partition };
        size_t ahead = 0;
        for (size_t k = 0; k < COUNT_OF(many); k++)
            ahead += strcmp(many[k].partition, one.partition) == 0 && (many[k].priority > one.priority || (many[k].priority == one.priority && many[k].job_id < one.job_id));
        assert_int_equal(slurm_places_ahead(many, COUNT_OF(many), &one), ahead);
    }
    assert_false(slurm_place_line(&arena, STR("8|50"), &places[0]));
}

static void test_nodes(void **state)
{
    cleanup_arena struct arena arena = ARENA_INIT;
    struct slurm_node node;
    (void)state;

    assert_true(slurm_sinfo_line(&arena, STR("n1|idle|64|257000|gpu:a100:4(S:0-1),shard:8|"), &node));
    assert_true(node.usable);
    assert_int_equal(node.cpus, 64);
    assert_true(slurm_sinfo_line(&arena, STR("n1|drained|64|257000|(null)|"), &node));
    assert_false(node.usable);
    assert_true(slurm_sinfo_line(&arena, STR("n1|idle*|64|257000|(null)|"), &node));
    assert_false(node.usable);
    assert_true(slurm_sinfo_line(&arena, STR("n1|idle|-5|999999999999999999|(null)|"), &node));
    assert_false(node.usable);
    assert_false(slurm_sinfo_line(&arena, STR("n1|idle"), &node));
    assert_int_equal(slurm_gres_count("gpu:a100:4(S:0,1),gpu:h100:2,shard:8", "gpu"), 6);
    assert_int_equal(slurm_gres_count("gpu:a100:4(S:0,1),gpu:h100:2,shard:8", "gpu:h100"), 2);
    assert_int_equal(slurm_gres_count("gpu:a100:4(S:0,1),gpu:h100:2,shard:8", "shard"), 8);
    assert_int_equal(slurm_gres_count("gpu", "gpu"), 1);
    assert_int_equal(slurm_gres_count("gpus:4", "gpu"), 0);
    assert_int_equal(slurm_gres_count("", "gpu"), 0);
    assert_int_equal(slurm_gres_count("gpu:4(", "gpu"), 4);
}

static void test_errors(void **state)
{
    cleanup_buf struct buf text = BUF_INIT;
    (void)state;

    slurm_error_text(STR("sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid partition name\n"), &text);
    assert_string_equal(buf_cstr(&text), "invalid partition specified: x; Batch job submission failed: Invalid partition name");
    assert_true(slurm_error_no_job("scontrol: slurm_load_jobs error: Invalid job id specified"));
    assert_true(slurm_error_ambiguous("Batch job submission failed: Socket timed out on send/recv operation"));
    assert_false(slurm_error_ambiguous("ssh: connect to host x port 22: Connection timed out"));
    assert_false(slurm_error_ambiguous("Invalid partition name specified"));
    assert_true(slurm_error_passing("Unable to contact slurm controller (connect failure)"));
    assert_false(slurm_error_passing("Invalid account or account/partition combination specified"));
    assert_true(slurm_error_no_accounting("Slurm accounting storage is disabled"));
    /* However much a program says: it is cut. */
    cleanup_buf struct buf flood = BUF_INIT, cut = BUF_INIT;
    for (int i = 0; i < 5000; i++)
        buf_printf(&flood, "error %d\x01\n", i);
    slurm_error_text((struct str){ (const char *)flood.p, flood.n }, &cut);
    assert_true(cut.n < STATUS_MESSAGE_MAX + 4);
    assert_null(memchr(cut.p, 1, cut.n));
}

static void test_verdicts(void **state)
{
    (void)state;
    assert_string_equal(slurm_step_verdict(STR("x\nslurmstepd-n1: error: *** JOB 5 ON n1 CANCELLED AT 2026-11-24T15:01:14 DUE TO TIME LIMIT ***\n")),
                        "TIMEOUT");
    assert_string_equal(slurm_step_verdict(STR("slurmstepd: error: *** JOB 5 ON n1 CANCELLED AT 2026-11-24T15:01:14 ***")), "CANCELLED");
    assert_string_equal(slurm_step_verdict(STR("slurmstepd-n1: error: Detected 1 oom-kill event(s) in StepId=2.batch.")), "OUT_OF_MEMORY");
    assert_string_equal(slurm_step_verdict(STR("agent: slurmstepd: DUE TO TIME LIMIT\n")), "");
    assert_string_equal(slurm_step_verdict(STR("")), "");
}

static void test_pieces(void **state)
{
    struct str rest = STR("a\n\r\n\nb"), line;
    int code, sig;
    (void)state;

    assert_true(slurm_next_line(&rest, &line) && str_eq(line, "a"));
    assert_true(slurm_next_line(&rest, &line) && str_eq(line, "b"));
    assert_false(slurm_next_line(&rest, &line));
    slurm_wait_status(9, &code, &sig);
    assert_true(code == 0 && sig == 9);
    slurm_wait_status(256 * 143, &code, &sig);
    assert_true(code == 143 && sig == 0);
    assert_int_equal(slurm_time("2026-11-24T14:25:06"), INT64_C(1795530306) * 1000000000);
    assert_int_equal(slurm_time("2026-13-24T14:25:06"), 0);
    assert_int_equal(slurm_time("14:25:06"), 0);
    assert_int_equal(slurm_limit("UNLIMITED"), 0);
    assert_int_equal(slurm_limit("1-00:00:00"), 86400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states), cmocka_unit_test(test_squeue), cmocka_unit_test(test_scontrol),
        cmocka_unit_test(test_sacct),  cmocka_unit_test(test_sbatch), cmocka_unit_test(test_places),
        cmocka_unit_test(test_nodes),  cmocka_unit_test(test_errors), cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_verdicts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
