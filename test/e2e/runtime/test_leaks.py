# SPDX-License-Identifier: Apache-2.0
"""Many pods, one after another, leave nothing behind."""
import os
import pathlib
import time

from serving import BUSYBOX
from cri import container_config, pb, pod_config

PODS = int(os.environ.get("INTERLINK_CRI_PODS") or 40)


def cgroups(pods):
    """Folders of these pods below every mounted cgroup hierarchy: others may use the machine, too."""
    found = set()
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind = line.split(" ")[:3]
        if kind in ("cgroup", "cgroup2"):
            for folder, folders, _ in os.walk(where):
                found |= {os.path.join(folder, f) for f in folders if f in pods}
    return found


def files(serve):
    """Everything below the state folder that pods could leave, without the image store and our own sockets."""
    found = set()
    for folder, folders, names in os.walk(serve.root / "state"):
        if "images" in folders:
            folders.remove("images")
        found |= {os.path.join(folder, n) for n in [*folders, *names]}
    return found


def descriptors(serve):
    return len(os.listdir(f"/proc/{serve.process.pid}/fd"))


def memory_kib(serve):
    for line in pathlib.Path(f"/proc/{serve.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def one(cri, serve, i):
    config = pod_config(f"leak{i}", log_directory=str(serve.logs / f"leak{i}"), host_network=i % 2 == 0)
    pod = cri.run_pod(config)
    quick = cri.run(pod, container_config("quick", BUSYBOX, "sh", "-c", "echo $$"), config)
    slow = cri.run(pod, container_config("slow", BUSYBOX, "sh", "-c", "sleep 1000 & sleep 1000"), config)
    assert cri.exec_sync(slow, "true").exit_code == 0
    assert cri.wait_exit(quick).exit_code == 0
    if i % 3 == 0:
        cri.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=slow))
    if i % 3 == 1:
        cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod))
    cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod))
    return pod


def settled(read, wanted, seconds=5):
    end = time.monotonic() + seconds
    while read() != wanted and time.monotonic() < end:
        time.sleep(0.05)
    return read()


def test_pods_leave_nothing(cri, serve):
    for i in range(5):
        one(cri, serve, i)  # folders that stay are there after these
    time.sleep(0.5)
    before = files(serve), descriptors(serve), len(serve.processes())
    memory = memory_kib(serve)
    pods = {one(cri, serve, i) for i in range(PODS)}
    assert settled(lambda: cgroups(pods), set()) == set()
    assert settled(lambda: files(serve), before[0]) == before[0]
    assert settled(lambda: descriptors(serve), before[1]) == before[1]
    assert settled(lambda: len(serve.processes()), before[2]) == before[2]
    # A sanitizer keeps what was freed for a while: only the plain program's memory says something.
    if "san" not in str(serve.command("x")):
        assert memory_kib(serve) < memory + 1024
