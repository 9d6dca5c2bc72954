# SPDX-License-Identifier: Apache-2.0
"""What a real Slurm does to pods that run through `serve` and our plugin: how they are used, and each way in which they end."""
import json
import os
import pathlib
import signal
import subprocess
import threading

import pytest
import streams
from cri import pb
from serving import Pod
from slurm_site import until
from test_pods import LOOP, Cluster, images, state  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def cluster(site, images):  # noqa: F811
    made = Cluster(site, images, None)
    yield made
    made.close()


@pytest.fixture
def cri(cluster):
    yield cluster.serve.client
    cluster.serve.client.remove_everything()


def over(cri, pod, seconds=60):
    until(lambda: state(cri, pod).status.state == pb.SANDBOX_NOTREADY, seconds, "the pod to be over")


def agent_log(cluster):
    return "".join(p.read_text(errors="replace") for p in (cluster.plugin.dir / "jobs").glob("*/agent.log"))


# ---- in use ----


def test_attach_forward_follow_and_stats(cluster, cri):
    pod = Pod(cluster.serve, cri, "used")
    container = pod.run("sh", "-c", "nc -ll -p 7411 -e cat & while read -r line; do echo \"read $line\"; done", stdin=True)
    follow = subprocess.Popen(cluster.serve.command("ctl", "--runtime-endpoint", f"unix://{cluster.serve.socket}", "logs", "-f", container),
                              stdout=subprocess.PIPE, text=True, env=cluster.serve.env)
    with streams.attach(cri, container, stdin=True) as c:
        c.write(b"one\ntwo\n")
        c.wait_output(b"read two\n")
    assert [follow.stdout.readline() for _ in range(2)] == ["read one\n", "read two\n"]
    follow.kill()
    follow.wait()
    until(lambda: cri.exec_sync(container, "sh", "-c", "nc 127.0.0.1 7411 </dev/null").exit_code == 0)
    with streams.Forward(streams.forward_url(cri, pod.id)) as f:
        data, _ = f.open(7411)
        data.write(b"there and back")
        assert data.wait(lambda s: bytes(s.data) == b"there and back", 20)
    with streams.run(cri, container, "sh", "-c", "tty; exit 9", how="v5", stdin=True, tty=True) as c:
        out, _, code = c.finish()
        assert b"/dev/" in out and code == 9
    until(lambda: cri.runtime.ContainerStats(pb.ContainerStatsRequest(container_id=container)).stats.memory.working_set_bytes.value > 0)
    assert cri.runtime.PodSandboxStats(pb.PodSandboxStatsRequest(pod_sandbox_id=pod.id)).stats.attributes.id == pod.id


def test_several_at_once(cluster, cri):
    pods = [None] * 6

    def make(i):
        pods[i] = Pod(cluster.serve, cri, f"many{i}")
    threads = [threading.Thread(target=make, args=(i,)) for i in range(len(pods))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len({cluster.job_of(p.id) for p in pods}) == len(pods)
    containers = [p.run("sh", "-c", f"echo I am {i}; exit {i}") for i, p in enumerate(pods)]
    assert [cri.wait_exit(c).exit_code for c in containers] == list(range(len(pods)))
    assert [p.output(c)[0] for p, c in zip(pods, containers, strict=True)] == [b"I am %d\n" % i for i in range(len(pods))]


# ---- ends ----


def test_a_delete_past_serve_has_its_whole_grace_period(cluster, cri):
    """Longer than what an agent grants when Slurm ends it."""
    pod = Pod(cluster.serve, cri, "graceful")
    container = pod.run(*LOOP)
    until(lambda: pod.output(container)[0] == b"hello\n")
    job = json.loads(state(cri, pod).info["info"])["jobUid"]
    folder = next((cluster.plugin.dir / "jobs").glob(f"*{job}*"))
    log = (folder / "agent.log").open()
    body = {"metadata": {"name": "x", "namespace": "default", "uid": job, "deletionGracePeriodSeconds": 300}, "spec": {"containers": []}}
    assert cluster.plugin.raw("DELETE", "/delete", body, timeout=60)[0] == 200
    assert "the pod is being stopped, 300 s are left" in log.read()
    assert cri.wait_exit(container, 60).exit_code == 4
    over(cri, pod)


def test_out_of_memory(cluster, cri):
    if not cluster.site.cgroups:
        pytest.skip("Slurm cannot limit memory here")
    pod = Pod(cluster.serve, cri, "oom", annotations={"interlink.eu/size-memory": "64Mi"})
    jid = cluster.job_of(pod.id)
    container = pod.run("sh", "-c", "dd if=/dev/zero of=/dev/null bs=300M count=1; exit $?; sleep 1")
    ended = cri.wait_exit(container, 60)
    said = f"{ended.reason} {ended.message} {pod.output(container)}"
    assert ended.exit_code == 137 and (ended.reason in ("OOMKilled", "OUT_OF_MEMORY") or b"Killed" in pod.output(container)[1]), said
    cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.id))
    until(lambda: cluster.site.job(jid)["State"] not in ("RUNNING", "COMPLETING"))


def test_preempted(cluster, cri):
    pod = Pod(cluster.serve, cri, "small", annotations={"interlink.eu/nodes": "2", "interlink.eu/size-cpu": "4"})
    container = pod.run(*LOOP)
    until(lambda: pod.output(container)[0] == b"hello\n")
    jid = cluster.job_of(pod.id)
    urgent = cluster.site.run("sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--ntasks-per-node=4", "--wrap=sleep 1000",
                              "--output=/dev/null").strip()
    try:
        over(cri, pod)
    finally:
        cluster.site.run("scancel", urgent)
    ended = cri.wait_exit(container, 60)
    assert (ended.exit_code, ended.reason) == (4, "PREEMPTED") and f"Slurm job {jid} on " in ended.message, ended
    assert pod.output(container)[0] == b"hello\nbye\n", agent_log(cluster)


def test_slurmctld_is_restarted(cluster, cri):
    pod = Pod(cluster.serve, cri, "steady")
    container = pod.run(*LOOP)
    jid = cluster.job_of(pod.id)
    cluster.site.controller(False)
    try:
        assert cri.exec_sync(container, "echo", "still").stdout == b"still\n"
        again = pod.run("sh", "-c", "exit 3")
        assert cri.wait_exit(again).exit_code == 3
    finally:
        cluster.site.controller(True)
    assert cri.exec_sync(container, "echo", "here").stdout == b"here\n"
    assert state(cri, pod).status.state == pb.SANDBOX_READY and cluster.site.job(jid)["State"] == "RUNNING"
    cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod.id), timeout=60)
    until(lambda: cluster.site.job(jid)["State"] not in ("RUNNING", "COMPLETING"))


def test_the_agent_is_killed(cluster, cri):
    """kill -9: the pod is over, and nothing of it is left on the node."""
    pod = Pod(cluster.serve, cri, "beheaded")
    container = pod.run(*LOOP)
    until(lambda: pod.output(container)[0] == b"hello\n")
    jid = cluster.job_of(pod.id)
    job = json.loads(state(cri, pod).info["info"])["jobUid"]
    folder = next((cluster.plugin.dir / "jobs").glob(f"*{job}*"))
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "cwd") == str(folder) and (entry / "cmdline").read_bytes().split(b"\0")[1:2] == [b"agent"]:
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue
    over(cri, pod)
    ended = cri.wait_exit(container, 30)
    assert ended.exit_code == 137 and f"Slurm job {jid} on " in ended.message, ended
    until(lambda: cluster.site.job(jid)["State"] not in ("RUNNING", "COMPLETING"), 60)
    try:
        until(lambda: not cgroups_of(jid), 30)
    except AssertionError:
        raise AssertionError(f"control groups of the job are left: {cgroups_of(jid)}\n{agent_log(cluster)}") from None
    cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod.id))
    assert not folder.exists()


def cgroups_of(jid):
    return subprocess.run(["find", "/sys/fs/cgroup", "-type", "d", "-path", f"*job_{jid}*"], capture_output=True, text=True,
                          check=False).stdout


def test_a_requeued_job_is_followed(cluster, cri):
    """The pod stays; its containers are made anew by kubelet, in the same job, when that has started again."""
    pod = Pod(cluster.serve, cri, "again")
    container = pod.run(*LOOP)
    until(lambda: pod.output(container)[0] == b"hello\n")
    jid = cluster.job_of(pod.id)
    cluster.site.scontrol("requeue", jid)
    until(lambda: cluster.site.job(jid)["State"] == "PENDING", 60)
    cluster.site.start_requeued(jid)
    assert cri.wait_exit(container, 90).exit_code != 0
    pod.wait_for_agent(60)
    assert state(cri, pod).status.state == pb.SANDBOX_READY
    second = pod.run("sh", "-c", "echo second; exit 5")
    assert cri.wait_exit(second, 30).exit_code == 5 and pod.output(second)[0] == b"second\n"
    assert cluster.job_of(pod.id) == jid
