# SPDX-License-Identifier: Apache-2.0
"""What a kubelet does with its node: rotates logs, collects dead pods and images, restarts, is switched off and on again."""
import contextlib
import gzip
import os
import signal
import time

import pytest
from cluster import IMAGE, wait

SHARED = {"main": {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}, "volumes": [{"name": "shared", "emptyDir": {}}]}


@pytest.fixture(scope="module", autouse=True)
def ended(cluster, remote):
    """Pods that end at once; kubelet's garbage collection comes once a minute, and is looked at last."""
    names = []
    for place, more in (("local", {}), ("remote", {"runtimeClassName": "remote"})):
        names.append(cluster.pod(f"gone-{place}", "sh", "-c", "echo gone", wait_for="Succeeded", restartPolicy="Never", **more))
        cluster.delete("pod", names[-1])
    return names


def test_node_is_ready(cluster):
    node = cluster.get("node", "node1")
    conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
    assert conditions["Ready"] == "True"
    assert node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("interlink-cri://")
    wait(lambda: {h.get("name", "") for h in cluster.get("node", "node1")["status"]["runtimeHandlers"]} >= {"local", "elsewhere"}, 60)


def written(folder):
    """All lines of a container's log files, the rotated and the packed ones first."""
    lines = []
    for path in sorted(folder.glob("0.log.*")) + [folder / "0.log"]:
        text = gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
        lines += [int(line.split()[3]) for line in text.decode().splitlines()]
    return lines


def test_log_rotation(cluster, place):
    """kubelet renames the file and calls ReopenContainerLog: no line is lost or doubled, in the files and for a follower."""
    name = place.pod("rotated", "sh", "-c", "i=0; while [ ! -e /tmp/stop ]; do echo $i; i=$((i+1)); usleep 500; done; sleep 1000000")
    follow = cluster.kubectl_start("logs", "-f", name, stdout=-1, text=True)
    uid = cluster.get("pod", name)["metadata"]["uid"]
    folder = cluster.root / "k8s" / "pods-log" / f"default_{name}_{uid}" / "main"
    wait(lambda: len(list(folder.glob("0.log.*"))) >= 2, 60, lambda: str(list(folder.iterdir())))
    cluster.kubectl("exec", name, "--", "touch", "/tmp/stop")
    time.sleep(1)
    for _ in range(3):  # kubelet may be packing one
        with contextlib.suppress(FileNotFoundError, EOFError):
            lines = written(folder)
            break
    assert lines == list(range(len(lines))) and len(lines) > 1000
    follow_lines = []
    cluster.delete("pod", name)
    out, _ = follow.communicate(timeout=30)
    follow_lines = [int(line) for line in out.split()]
    assert follow_lines == lines


def test_disk_pressure(cluster, remote):
    """Little room on the node's disk: unused images go, what pods use stays, then ordinary pods go and critical ones stay."""
    places = {"local": {}, "remote": {"runtimeClassName": "remote"}}
    for n in [*(f"used-{p}" for p in places), "unused"]:
        cluster.load(f"fixture.local/{n}:1", "--cmd", f'["echo", "{n}"]')
    for p, more in places.items():
        cluster.pod(f"critical-{p}", main={"image": f"fixture.local/used-{p}:1"}, priorityClassName="system-node-critical", **more)
    disk = os.statvfs(cluster.root)
    cluster.env["K8S_EVICTION"] = f"nodefs.available: {100 * disk.f_bavail / disk.f_blocks - 1.5:.1f}%"
    full = cluster.root / "full"
    try:
        cluster.restart_kubelet()
        for p, more in places.items():
            cluster.pod(f"ordinary-{p}", **more)  # the new kubelet has looked at all pods then
        with full.open("wb") as f:
            os.posix_fallocate(f.fileno(), 0, disk.f_blocks * disk.f_frsize * 3 // 100)
        for p in places:
            cluster.phase(f"ordinary-{p}", "Failed", seconds=90)
            cluster.says(f"ordinary-{p}", "The node was low on resource: ephemeral-storage", reason="Evicted")
        wait(lambda: "unused" not in cluster.ctl("images").stdout, 60, lambda: cluster.ctl("images").stdout)
    finally:
        full.unlink(missing_ok=True)
        del cluster.env["K8S_EVICTION"]
        cluster.restart_kubelet()
        if IMAGE.split(":", maxsplit=1)[0] not in cluster.ctl("images").stdout:
            cluster.load(IMAGE)
    images = cluster.ctl("images").stdout
    for p in places:
        assert f"used-{p}" in images, images
        wait(lambda p=p: cluster.kubectl("exec", f"critical-{p}", "--", "echo", "runs", check=False).stdout == "runs\n", 30)
        assert cluster.status(f"critical-{p}")["restartCount"] == 0
        for n in (f"critical-{p}", f"ordinary-{p}"):
            cluster.delete("pod", n, gone=False)
    wait(lambda: not cluster.get("node", "node1")["spec"].get("taints"), 60, lambda: str(cluster.get("node", "node1")["spec"]))


def test_kubelet_and_serve_restart(cluster, place):
    """Nothing restarts, no line is lost or doubled, whichever of the two ends first."""
    name = place.pod("survivor", "sh", "-c", "n=0; while :; do echo line $n; n=$((n+1)); sleep 0.02; done")
    before = cluster.status(name)
    cluster.kill_serve()
    cluster.start_serve()
    cluster.restart_kubelet()
    cluster.kill_serve()
    cluster.start_serve()
    wait(lambda: len(cluster.kubectl("logs", name, check=False).stdout.split()) > 400, 60)
    numbers = [int(line.split()[1]) for line in cluster.logs(name).splitlines()]
    assert numbers == list(range(len(numbers))), "a line was lost or doubled"
    after = cluster.status(name)
    assert after["containerID"] == before["containerID"] and after["restartCount"] == 0
    cluster.kubectl("wait", "--for=condition=Ready", "node/node1", "--timeout=30s")


def test_machine_restarts(cluster, remote):
    """Everything is killed at once, as when the power goes: pods come back with new sandboxes, and are counted."""
    names = {}
    for place, more in (("local", {}), ("remote", {"runtimeClassName": "remote"})):
        names[place] = [cluster.pod(f"back-{place}", "sh", "-c", "echo x >>/shared/n; cat /shared/n; sleep 1000000", **more, **SHARED),
                        cluster.pod(f"over-{place}", "sleep", "1000000", restartPolicy="Never", **more)]
    before = {n: cluster.get("pod", n) for pair in names.values() for n in pair}
    cluster.run("kubelet.sh", "stop")
    cluster.kill_serve()
    agents = cluster.agents()
    assert len(agents) >= 4, agents
    for pid in agents:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    cluster.start_serve()
    cluster.run("kubelet.sh", "start", str(cluster.socket))
    for back, over in names.values():
        wait(lambda n=back: (s := cluster.status(n)).get("restartCount") == 1 and "running" in s["state"], 60, lambda n=back: cluster.describe(n))
        assert cluster.get("pod", back)["metadata"]["uid"] == before[back]["metadata"]["uid"]
        assert cluster.status(back)["containerID"] != before[back]["status"]["containerStatuses"][0]["containerID"]
        cluster.phase(over, "Failed")
        assert cluster.ended(over)["exitCode"] in (137, 255)
        wait(lambda n=back: cluster.kubectl("exec", n, "--", "echo", "in", check=False).stdout == "in\n", 30)
    for n in before:
        cluster.delete("pod", n, gone=False)


def test_nothing_remains_of_pods(cluster, ended):
    """Sandboxes, containers and logs of pods that ended a while ago."""
    def left():
        listed = cluster.ctl("pods").stdout + cluster.ctl("ps", "-a").stdout + " ".join(
            p.name for p in (cluster.root / "k8s" / "pods-log").iterdir())
        return [n for n in ended if n in listed]
    wait(lambda: not left(), 90, left)
