# SPDX-License-Identifier: Apache-2.0
"""Stats and metrics: what is measured is true, what is not measured is absent."""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from cri import pb, refused
from serving import Pod, Serve

MB = 1_000_000


def container_stats(cri, **filters):
    request = pb.ListContainerStatsRequest(filter=pb.ContainerStatsFilter(**filters) if filters else None)
    return {s.attributes.id: s for s in cri.runtime.ListContainerStats(request).stats}


def pod_stats(cri, pod):
    return cri.runtime.PodSandboxStats(pb.PodSandboxStatsRequest(pod_sandbox_id=pod)).stats


def until(condition, seconds=15):
    """Polls until it is true of fresh figures; its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.2)
    return value


def metrics_of(cri, pod):
    """A pod's metrics: {(container's id or "", name, own labels...): value}."""
    keys = {d.name: list(d.label_keys) for d in cri.runtime.ListMetricDescriptors(pb.ListMetricDescriptorsRequest()).descriptors}
    found = {}
    for of_pod in cri.runtime.ListPodSandboxMetrics(pb.ListPodSandboxMetricsRequest()).pod_metrics:
        if of_pod.pod_sandbox_id != pod:
            continue
        for owner, metrics in [("", of_pod.metrics), *((c.container_id, c.metrics) for c in of_pod.container_metrics)]:
            for m in metrics:
                labels = dict(zip(keys[m.name], m.label_values, strict=True))
                assert labels["pod"] == "pod" and labels["namespace"] == "default" and m.timestamp > 0
                assert labels["id"] == labels["name"] == (owner or pod)
                key = (owner, m.name, *m.label_values[6:])
                assert key not in found
                found[key] = m.value.value
    return found


def ticks(word):
    """CPU time in nanoseconds of the machine's process that has this word among its arguments."""
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and word.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                fields = (entry / "stat").read_text().rsplit(") ", 1)[1].split()
                return (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        except OSError:
            continue
    raise AssertionError(f"no process with {word}")


def test_a_busy_loop_and_an_idle_container(pod, cri):
    busy, idle = pod.run("sh", "-c", "while :; do :; done", f"busy-{pod.id}"), pod.run("sleep", "1000")
    first = until(lambda: (s := container_stats(cri))[busy].cpu.usage_core_nano_seconds.value > 0 and s)
    time.sleep(1.2)
    stats = container_stats(cri)
    cpu, before = stats[busy].cpu, first[busy].cpu
    # The kernel's own word of the process; a container's cgroup has a little more, from the container's start.
    assert abs(cpu.usage_core_nano_seconds.value - ticks(f"busy-{pod.id}")) < 400 * MB
    rate = (cpu.usage_core_nano_seconds.value - before.usage_core_nano_seconds.value) / (cpu.timestamp - before.timestamp) * 1e9
    assert 0.6 * rate < cpu.usage_nano_cores.value < 1.5 * rate
    assert 20 * MB < cpu.usage_nano_cores.value < 1150 * MB  # the machine may have better things to do
    assert stats[idle].cpu.usage_nano_cores.value < 100 * MB
    whole = pod_stats(cri, pod.id)
    assert whole.linux.cpu.usage_core_nano_seconds.value >= cpu.usage_core_nano_seconds.value
    assert whole.linux.cpu.usage_nano_cores.value > 20 * MB


def test_memory_that_is_known(pod, cri, serve):
    hoard = "x=$(head -c 32000000 /dev/zero | tr '\\0' x); exec 3>/tmp/done; sleep 1000; :"
    limits = {"linux": pb.LinuxContainerConfig(resources=pb.LinuxContainerResources(memory_limit_in_bytes=200 * MB))}
    hoarder = pod.run("sh", "-c", hoard, **limits)
    until(lambda: cri.exec_sync(hoarder, "test", "-e", "/tmp/done").exit_code == 0)
    memory = cri.runtime.ContainerStats(pb.ContainerStatsRequest(container_id=hoarder)).stats.memory
    assert 32 * MB <= memory.rss_bytes.value <= 150 * MB
    assert 32 * MB <= memory.working_set_bytes.value <= memory.usage_bytes.value <= 150 * MB
    assert memory.page_faults.value > 1000 and memory.timestamp > 0
    if serve.kind == "root":  # a job without cgroups has no limit to be near to
        assert abs(memory.available_bytes.value + memory.working_set_bytes.value - 200 * MB) < 4096
    else:
        assert not memory.HasField("available_bytes")
    whole = pod_stats(cri, pod.id).linux
    assert whole.memory.working_set_bytes.value >= 32 * MB and whole.process.process_count.value == 2


def test_what_a_container_writes(pod, cri):
    before = cri.image.ImageFsInfo(pb.ImageFsInfoRequest())
    idle = pod.run("sleep", "1000")
    writer = pod.run("sh", "-c", "mkdir /data; for i in 1 2 3 4 5; do head -c 2000000 /dev/zero >/data/$i; done; sleep 1000")
    until(lambda: cri.exec_sync(writer, "sh", "-c", "test $(stat -c %s /data/5) = 2000000").exit_code == 0)
    stats = until(lambda: (s := container_stats(cri)) and all(c.HasField("writable_layer") for c in s.values()) and s)
    layer, other = stats[writer].writable_layer, stats[idle].writable_layer
    assert 10 * MB <= layer.used_bytes.value - other.used_bytes.value < 11 * MB
    assert layer.inodes_used.value == other.inodes_used.value + 6
    assert os.path.ismount(layer.fs_id.mountpoint) and layer.timestamp > 0
    info = cri.image.ImageFsInfo(pb.ImageFsInfoRequest())
    images, containers = info.image_filesystems[0], info.container_filesystems[0]
    assert containers.used_bytes.value - before.container_filesystems[0].used_bytes.value >= 10 * MB
    assert containers.fs_id.mountpoint == layer.fs_id.mountpoint and os.path.ismount(images.fs_id.mountpoint)
    assert images.used_bytes.value == before.image_filesystems[0].used_bytes.value > MB and images.inodes_used.value > 10


def test_containers_that_do_not_run(pod, cri):
    created, ended = pod.create("true"), pod.run("true")
    cri.wait_exit(ended)
    stats = until(lambda: (s := container_stats(cri)) and all(c.HasField("writable_layer") for c in s.values()) and s)
    for container in (created, ended):
        one = stats[container]
        assert one.attributes.metadata.name == cri.status(container).metadata.name
        assert not (one.HasField("cpu") or one.HasField("memory") or one.HasField("swap") or one.HasField("io"))
    assert pod_stats(cri, pod.id).linux.process.process_count.value == 0
    assert all(name == "container_oom_events_total" for owner, name, *_ in metrics_of(cri, pod.id) if owner)


def test_attributes_and_filters(pod, cri, serve):
    other = Pod(serve, cri, "other", labels={"tier": "back"})
    one = pod.run("sleep", "1000", labels={"color": "blue"}, annotations={"note": "yes"})
    two = pod.run("sleep", "1000", labels={"color": "red"})
    three = other.run("sleep", "1000", labels={"color": "blue"})
    assert set(container_stats(cri)) == {one, two, three}
    assert set(container_stats(cri, pod_sandbox_id=pod.id)) == {one, two}
    assert set(container_stats(cri, label_selector={"color": "blue"})) == {one, three}
    assert set(container_stats(cri, pod_sandbox_id=other.id, label_selector={"color": "red"})) == set()
    attributes = container_stats(cri, id=one[:20])[one].attributes
    assert (attributes.metadata.name, dict(attributes.labels), dict(attributes.annotations)) == ("c1", {"color": "blue"}, {"note": "yes"})
    pods = cri.runtime.ListPodSandboxStats(pb.ListPodSandboxStatsRequest(
        filter=pb.PodSandboxStatsFilter(label_selector={"tier": "back"}))).stats
    assert [p.attributes.id for p in pods] == [other.id]
    assert pods[0].attributes.metadata.name == "other" and [c.attributes.id for c in pods[0].linux.containers] == [three]
    streamed = [s.attributes.id for part in cri.runtime.StreamContainerStats(pb.StreamContainerStatsRequest())
                for s in part.container_stats]
    assert sorted(streamed) == sorted([one, two, three])
    streamed = [s.attributes.id for part in cri.runtime.StreamPodSandboxStats(pb.StreamPodSandboxStatsRequest())
                for s in part.pod_sandbox_stats]
    assert sorted(streamed) == sorted([pod.id, other.id])
    with refused("NOT_FOUND"):
        cri.runtime.ContainerStats(pb.ContainerStatsRequest(container_id="f" * 64))
    with refused("NOT_FOUND"):
        cri.runtime.PodSandboxStats(pb.PodSandboxStatsRequest(pod_sandbox_id="f" * 64))
    cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=other.id))
    assert set(container_stats(cri)) == {one, two}
    with refused("FAILED_PRECONDITION", "not ready"):
        cri.runtime.ContainerStats(pb.ContainerStatsRequest(container_id=three))


def test_metrics(pod, cri, serve):
    descriptors = cri.runtime.ListMetricDescriptors(pb.ListMetricDescriptorsRequest()).descriptors
    assert len({d.name for d in descriptors}) == len(descriptors) > 50
    assert all(d.help and list(d.label_keys[:6]) == ["id", "name", "image", "container", "pod", "namespace"] for d in descriptors)
    resources = pb.LinuxContainerResources(cpu_period=100000, cpu_quota=50000, cpu_shares=512,
                                           memory_limit_in_bytes=64 << 20, memory_swap_limit_in_bytes=64 << 20)
    busy = pod.run("sh", "-c", "while :; do :; done", linux=pb.LinuxContainerConfig(resources=resources))
    found = until(lambda: (m := metrics_of(cri, pod.id)).get((busy, "container_cpu_usage_seconds_total", "total"), 0) >= 1
                  and any(k[1] == "container_fs_usage_bytes" for k in m) and m, 30)
    assert found[busy, "container_spec_memory_limit_bytes"] == 64 << 20 and found[busy, "container_spec_cpu_shares"] == 512
    assert found[busy, "container_spec_cpu_quota"] == 50000
    assert found[busy, "container_processes"] == 1 and found[busy, "container_file_descriptors"] == 3
    assert found[busy, "container_memory_working_set_bytes"] > 0
    assert abs(found[busy, "container_start_time_seconds"] - time.time()) < 60
    assert any(name == "container_network_receive_bytes_total" for owner, name, *_ in found if not owner)
    streamed = [p for part in cri.runtime.StreamPodSandboxMetrics(pb.StreamPodSandboxMetricsRequest())
                for p in part.pod_sandbox_metrics]
    assert [p.pod_sandbox_id for p in streamed] == [pod.id]
    names = {name for _, name, *_ in found}
    if serve.kind == "root":
        assert found[busy, "container_cpu_cfs_periods_total"] > 0 and found[busy, "container_oom_events_total"] == 0
        assert {"container_cpu_cfs_throttled_seconds_total", "container_memory_cache", "container_threads_max"} <= names
    else:  # nobody counts these without cgroups
        assert not names & {"container_cpu_cfs_periods_total", "container_oom_events_total", "container_memory_cache"}


@pytest.mark.root_only("an ordinary user has no cgroups here")
def test_oom_kills_are_counted(pod, cri):
    limits = {"linux": pb.LinuxContainerConfig(resources=pb.LinuxContainerResources(memory_limit_in_bytes=20 << 20))}
    victim = pod.run("sh", "-c", "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo $?", **limits)
    cri.wait_exit(victim)
    assert metrics_of(cri, pod.id)[victim, "container_oom_events_total"] >= 1


def agent_of(serve, pod):
    """The processes of a pod's agent."""
    found = []
    for process in serve.processes():
        folder = pathlib.Path(f"/proc/{process}")
        if pod.encode() in (folder / "environ").read_bytes() and b"agent" in (folder / "cmdline").read_bytes().split(b"\0"):
            found.append(process)
    assert found
    return found


def test_an_agent_that_does_not_answer(pod, cri, serve):
    silent = Pod(serve, cri, "silent")
    one, two = pod.run("sleep", "1000"), silent.run("sleep", "1000")
    assert set(container_stats(cri)) == {one, two}
    agent = agent_of(serve, silent.id)
    for process in agent:
        os.kill(process, signal.SIGSTOP)
    try:
        time.sleep(0.6)  # what was measured before is too old by then
        begin = time.monotonic()
        assert set(container_stats(cri)) == {one}
        assert time.monotonic() - begin < 5
        begin = time.monotonic()
        assert [p.attributes.id for p in cri.runtime.ListPodSandboxStats(pb.ListPodSandboxStatsRequest()).stats] == [pod.id]
        assert time.monotonic() - begin < 2
        with refused("DEADLINE_EXCEEDED", "agent"):
            cri.runtime.ContainerStats(pb.ContainerStatsRequest(container_id=two))
        assert cri.image.ImageFsInfo(pb.ImageFsInfoRequest()).container_filesystems
    finally:
        for process in agent:
            os.kill(process, signal.SIGCONT)
    until(lambda: set(container_stats(cri)) == {one, two})


def test_many_ask_at_once(pod, cri):
    containers = {pod.run("sleep", "1000") for _ in range(5)}
    calls = [cri.runtime.ListContainerStats.future(pb.ListContainerStatsRequest()) for _ in range(20)]
    calls += [cri.runtime.ListPodSandboxMetrics.future(pb.ListPodSandboxMetricsRequest()) for _ in range(20)]
    for call in calls[:20]:
        stats = call.result(20).stats
        assert {s.attributes.id for s in stats} == containers and all(s.HasField("cpu") for s in stats)
    for call in calls[20:]:
        assert {c.container_id for c in call.result(20).pod_metrics[0].container_metrics} == containers


TRAFFIC = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
one = socket.create_connection(listener.getsockname())
other = listener.accept()[0]
for _ in range(300):
    one.sendall(bytes(10000))
    other.recv(10000, socket.MSG_WAITALL)
"""


class PrivateNetwork(Serve):
    """serve in a network of its own, where nobody else makes traffic."""

    def command(self, *arguments):
        return ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *super().command(*arguments)]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a network namespace")
def test_network_counters_grow(images):
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    serve = PrivateNetwork(root).start()
    try:
        assert serve.ctl("load", str(images)).returncode == 0
        pod = Pod(serve, serve.client, "pod")
        pod.run("sleep", "1000")
        before = pod_stats(serve.client, pod.id).linux.network.default_interface
        assert before.name == "lo"
        subprocess.run(["nsenter", "-t", str(serve.process.pid), "-n", sys.executable, "-c", TRAFFIC], check=True)
        after = until(lambda: (n := pod_stats(serve.client, pod.id).linux.network.default_interface)
                      and n.rx_bytes.value > before.rx_bytes.value and n)
        assert 3 * MB <= after.rx_bytes.value - before.rx_bytes.value < 10 * MB and after.tx_bytes.value == after.rx_bytes.value
        assert metrics_of(serve.client, pod.id)["", "container_network_receive_bytes_total", "lo"] >= after.rx_bytes.value
    finally:
        serve.finish()
