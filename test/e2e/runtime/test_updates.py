# SPDX-License-Identifier: Apache-2.0
"""New limits for what runs, the node's own configuration, and what kills for want of memory."""
import json
import pathlib
import time

import pytest
from cri import pb, refused

MIB = 1 << 20
needs_cgroup = pytest.mark.root_only("limits need a cgroup")


def resources(**fields):
    return pb.LinuxContainerResources(**fields)


def limits(container):
    """What the kernel holds, by the names of cgroup v1: {"memory": bytes, "quota": us, "shares": n}."""
    found = {}
    for root in pathlib.Path("/sys/fs/cgroup").iterdir():
        for name, key in (("memory.limit_in_bytes", "memory"), ("memory.max", "memory"), ("cpu.cfs_quota_us", "quota"),
                          ("cpu.max", "quota"), ("cpu.shares", "shares")):
            for path in root.glob(f"interlink-cri/*/{container}/{name}"):
                found[key] = path.read_text().split()[0]
    return found


def update(cri, container, **fields):
    request = pb.UpdateContainerResourcesRequest(container_id=container, linux=resources(**fields))
    cri.runtime.UpdateContainerResources(request)


@needs_cgroup
def test_a_running_container_gets_new_limits(pod, cri, serve):
    container = pod.run("sleep", "1000", linux=pb.LinuxContainerConfig(
        resources=resources(memory_limit_in_bytes=64 * MIB, cpu_quota=50000, cpu_period=100000, cpu_shares=204)))
    update(cri, container, memory_limit_in_bytes=96 * MIB, cpu_quota=80000)
    assert limits(container)["memory"] == str(96 * MIB)
    assert limits(container)["quota"] == "80000"
    told = cri.status(container).resources.linux
    assert (told.memory_limit_in_bytes, told.cpu_quota) == (96 * MIB, 80000)
    assert (told.cpu_period, told.cpu_shares) == (100000, 204)  # what was not named stays
    update(cri, container, memory_limit_in_bytes=48 * MIB)
    assert limits(container)["memory"] == str(48 * MIB)
    serve.kill()
    serve.start()
    assert cri.status(container).resources.linux.memory_limit_in_bytes == 48 * MIB
    assert cri.status(container).resources.linux.cpu_quota == 80000


@needs_cgroup
def test_a_container_that_was_not_started_yet(pod, cri):
    container = pod.create("sleep", "1000")
    assert not cri.status(container).resources.linux.memory_limit_in_bytes
    update(cri, container, memory_limit_in_bytes=80 * MIB)
    assert cri.status(container).resources.linux.memory_limit_in_bytes == 80 * MIB
    cri.runtime.StartContainer(pb.StartContainerRequest(container_id=container))
    assert limits(container)["memory"] == str(80 * MIB)


@needs_cgroup
def test_what_the_kernel_refuses_changes_nothing(pod, cri):
    container = pod.run("sh", "-c", "x=$(head -c 30000000 /dev/zero | tr '\\0' x); echo ready; sleep 1000; echo $x",
                        linux=pb.LinuxContainerConfig(resources=resources(memory_limit_in_bytes=128 * MIB)))
    wait_for_output(pod, container, b"ready\n")
    with refused("FAILED_PRECONDITION", "linux.memory_limit_in_bytes"):
        update(cri, container, cpu_quota=70000, cpu_period=100000, memory_limit_in_bytes=8 * MIB)
    assert limits(container)["memory"] == str(128 * MIB)
    assert limits(container).get("quota") != "70000"
    assert cri.status(container).state == pb.CONTAINER_RUNNING
    told = cri.status(container).resources.linux
    assert (told.memory_limit_in_bytes, told.cpu_quota) == (128 * MIB, 0)


def wait_for_output(pod, container, wanted, seconds=20):
    end = time.monotonic() + seconds
    while pod.output(container)[0] != wanted:
        assert time.monotonic() < end
        time.sleep(0.02)


@needs_cgroup
def test_a_pod_gets_new_limits(pod, cri, serve):
    request = pb.UpdatePodSandboxResourcesRequest(pod_sandbox_id=pod.id,
                                                  resources=resources(memory_limit_in_bytes=256 * MIB, cpu_quota=90000, cpu_period=100000),
                                                  overhead=resources(memory_limit_in_bytes=16 * MIB))
    cri.runtime.UpdatePodSandboxResources(request)

    def config():
        info = cri.runtime.PodSandboxStatus(pb.PodSandboxStatusRequest(pod_sandbox_id=pod.id, verbose=True)).info
        return json.loads(info["info"])["config"]["linux"]
    assert int(config()["resources"]["memoryLimitInBytes"]) == 256 * MIB
    serve.kill()
    serve.start()
    assert int(config()["resources"]["cpuQuota"]) == 90000
    assert int(config()["overhead"]["memoryLimitInBytes"]) == 16 * MIB


def test_updates_that_cannot_be(pod, cri):
    running, done = pod.run("sleep", "1000"), pod.run("true")
    cri.wait_exit(done)
    with refused("FAILED_PRECONDITION", "exited"):
        update(cri, done, cpu_shares=100)
    with refused("NOT_FOUND", "container"):
        update(cri, "0" * 64, cpu_shares=100)
    with refused("INVALID_ARGUMENT", "linux"):
        cri.runtime.UpdateContainerResources(pb.UpdateContainerResourcesRequest(container_id=running))
    with refused("INVALID_ARGUMENT", "windows"):
        cri.runtime.UpdateContainerResources(pb.UpdateContainerResourcesRequest(
            container_id=running, linux=resources(), windows=pb.WindowsContainerResources(cpu_shares=1)))
    with refused("NOT_FOUND", "sandbox"):
        cri.runtime.UpdatePodSandboxResources(pb.UpdatePodSandboxResourcesRequest(pod_sandbox_id="f" * 64, resources=resources()))
    with refused("INVALID_ARGUMENT", "resources"):
        cri.runtime.UpdatePodSandboxResources(pb.UpdatePodSandboxResourcesRequest(pod_sandbox_id=pod.id))
    cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.id))
    with refused("FAILED_PRECONDITION", "not ready"):
        cri.runtime.UpdatePodSandboxResources(pb.UpdatePodSandboxResourcesRequest(pod_sandbox_id=pod.id, resources=resources(cpu_shares=9)))


@needs_cgroup
@pytest.mark.parametrize("field, value", [
    ("oom_score_adj", 1001), ("cpuset_cpus", "0-"), ("cpuset_cpus", "none"), ("hugepage_limits", [pb.HugepageLimit(page_size="3XB", limit=1)]),
    ("unified", {"../../cgroup.procs": "1"}), ("unified", {"cgroup.procs": "1"})])
def test_a_value_that_means_nothing_is_refused_by_its_name(pod, cri, field, value):
    container = pod.run("sleep", "1000")
    before = cri.status(container)
    request = pb.UpdateContainerResourcesRequest(container_id=container, linux=resources(**{field: value}))
    try:
        cri.runtime.UpdateContainerResources(request)
        raise AssertionError("it was taken")
    except Exception as error:  # noqa: BLE001
        assert error.code().name in ("INVALID_ARGUMENT", "FAILED_PRECONDITION"), error
        assert f"linux.{field}" in error.details(), error.details()
    assert cri.status(container) == before


# ---- who is killed for want of memory ----

@needs_cgroup
@pytest.mark.parametrize("end, reason", [(3, "OOMKilled"), (0, "Completed")])
def test_a_child_that_was_oom_killed(pod, cri, end, reason):
    """As with containerd, a container one of whose processes was killed for want of memory is OOMKilled, with the exit code that
    its first process had; unlike there not when that says that all is well."""
    limit = resources(memory_limit_in_bytes=24 * MIB, memory_swap_limit_in_bytes=24 * MIB)
    container = pod.run("sh", "-c", f"sh -c 'tail /dev/zero'; exit {end}", linux=pb.LinuxContainerConfig(
        resources=limit, security_context=pb.LinuxContainerSecurityContext(namespace_options=pb.NamespaceOption(pid=pb.CONTAINER))))
    status = cri.wait_exit(container, 60)
    assert (status.reason, status.exit_code) == (reason, end)


# ---- the node ----

def cidr(text):
    return pb.UpdateRuntimeConfigRequest(runtime_config=pb.RuntimeConfig(network_config=pb.NetworkConfig(pod_cidr=text)))


def kept_cidr(cri):
    info = cri.runtime.Status(pb.StatusRequest(verbose=True)).info
    return json.loads(info["config"])["podCIDR"]


def test_the_pod_cidr_is_kept(serve, cri):
    cri.runtime.UpdateRuntimeConfig(cidr("10.7.0.0/24,fd00:7::/64"))
    assert kept_cidr(cri) == "10.7.0.0/24,fd00:7::/64"
    cri.runtime.UpdateRuntimeConfig(cidr("10.8.0.0/24"))
    serve.kill()
    serve.start()
    assert kept_cidr(cri) == "10.8.0.0/24"
    cri.runtime.UpdateRuntimeConfig(pb.UpdateRuntimeConfigRequest())  # says nothing
    assert kept_cidr(cri) == "10.8.0.0/24"


@pytest.mark.parametrize("text", ["10.0.0.0", "10.0.0.0/33", "10.0.0/24", "x/24", "fd00::/129", "10.0.0.0/24,", ",", "10.0.0.0/",
                                  "10.0.0.0/24,10.1.0.0/24,10.2.0.0/24", "10.0.0.0/-1", "1" * 100 + "/8", " 10.0.0.0/24"])
def test_a_pod_cidr_that_is_none(cri, text):
    before = kept_cidr(cri)
    with refused("INVALID_ARGUMENT", "runtime_config.network_config.pod_cidr"):
        cri.runtime.UpdateRuntimeConfig(cidr(text))
    assert kept_cidr(cri) == before


def test_kubelet_learns_the_cgroup_driver(cri):
    assert cri.runtime.RuntimeConfig(pb.RuntimeConfigRequest()).linux.cgroup_driver == pb.CGROUPFS


@pytest.mark.parametrize("method, message", [
    ("CheckpointContainer", pb.CheckpointContainerRequest(container_id="x", location="/tmp/x")),
    ("CheckpointPod", pb.CheckpointPodRequest()), ("RestorePod", pb.RestorePodRequest())])
def test_checkpoints_are_refused_with_the_reason(cri, method, message):
    with refused("UNIMPLEMENTED", "checkpoint"):
        getattr(cri.runtime, method)(message)
