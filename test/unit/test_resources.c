/* SPDX-License-Identifier: Apache-2.0 */
/* node/resources: what is in force after an update. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/resources.h"
#include "rpc/pb.h"

typedef Runtime__V1__LinuxContainerResources resources;

static void test_what_is_not_named_stays(void **unused)
{
    resources from = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT, *into = NULL;
    Runtime__V1__HugepageLimit small = RUNTIME__V1__HUGEPAGE_LIMIT__INIT, large = RUNTIME__V1__HUGEPAGE_LIMIT__INIT;
    Runtime__V1__HugepageLimit *both[] = { &small, &large };
    Runtime__V1__LinuxContainerResources__UnifiedEntry file = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__UNIFIED_ENTRY__INIT;
    Runtime__V1__LinuxContainerResources__UnifiedEntry *files[] = { &file };

    (void)unused;
    resources_merge(&into, NULL);
    assert_null(into);
    from.cpu_period = 100000;
    from.cpuset_cpus = (char[]){ "0-1" };
    small.page_size = (char[]){ "2MB" };
    small.limit = 5;
    from.hugepage_limits = both;
    from.n_hugepage_limits = 1;
    resources_merge(&into, &from);
    assert_int_equal(into->cpu_period, 100000);

    from = (resources)RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    from.cpu_quota = -1;
    from.oom_score_adj = -5;
    small.limit = 0;
    large.page_size = (char[]){ "1GB" };
    large.limit = 7;
    from.hugepage_limits = both;
    from.n_hugepage_limits = 2;
    file.key = (char[]){ "memory.high" };
    file.value = (char[]){ "1000" };
    from.unified = files;
    from.n_unified = 1;
    resources_merge(&into, &from);
    file.value = (char[]){ "max" };
    resources_merge(&into, &from);
    assert_int_equal(into->cpu_period, 100000);
    assert_int_equal(into->cpu_quota, -1);
    assert_int_equal(into->oom_score_adj, -5);
    assert_string_equal(into->cpuset_cpus, "0-1");
    assert_int_equal(into->n_hugepage_limits, 2);
    assert_int_equal(into->hugepage_limits[0]->limit, 0);
    assert_string_equal(into->hugepage_limits[1]->page_size, "1GB");
    assert_int_equal(into->hugepage_limits[1]->limit, 7);
    assert_int_equal(into->n_unified, 1);
    assert_string_equal(into->unified[0]->value, "max");
    protobuf_c_message_free_unpacked(&into->base, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_what_is_not_named_stays) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
