# SPDX-License-Identifier: Apache-2.0
"""Pods through `serve`, our plugin and a real Slurm, with real agents and real containers."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import grpc
import pytest
from cri import pb, pod_config, refused
from serving import Pod, Serve, free_port, make_images
from slurm_site import NOBODY, Plugin, until

LOOP = ("sh", "-c", "echo hello; trap 'echo bye; exit 4' TERM; while :; do sleep 0.05; done")


@pytest.fixture(scope="session")
def images():
    return make_images()


class Cluster:
    """serve with one handler, behind which is our plugin with Slurm, in a folder that all nodes share; jobs run as `user`."""

    def __init__(self, site, images, user):
        self.site = site
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="icri-", dir="/tmp"))
        self.root.chmod(0o755)
        shared = self.root / "shared"
        shared.mkdir()
        self.plugin = Plugin(site, shared, "", user=user)
        if user is not None:
            os.chown(shared, user, user)
        self.plugin.start()
        self.serve = Serve(self.root / "serve", config=f"""
QueueHold: 5s
Relay:
  Listen: 127.0.0.1:{free_port()}
Handlers:
  - Name: slurm
    Target: unix://{self.plugin.socket}
""").start()
        loaded = self.serve.ctl("load", str(images))
        assert loaded.returncode == 0, loaded.stderr

    def job_of(self, pod_id):
        """Slurm's number of a pod's job."""
        info = self.serve.client.runtime.PodSandboxStatus(pb.PodSandboxStatusRequest(pod_sandbox_id=pod_id, verbose=True)).info["info"]
        return json.loads(info)["jobId"]

    def close(self):
        try:
            self.serve.finish()
        finally:
            self.plugin.stop()
            self.plugin.close()
            shutil.rmtree(self.root, ignore_errors=True)


@pytest.fixture(scope="module", params=["root", "user"])
def cluster(request, site, images):
    made = Cluster(site, images, NOBODY if request.param == "user" else None)
    made.kind = request.param
    yield made
    made.close()


@pytest.fixture
def cri(cluster):
    yield cluster.serve.client
    cluster.serve.client.remove_everything()


def run_pod_when_ready(cri, config):
    try:
        return cri.run_pod(config)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        return None


def state(cri, pod):
    return cri.runtime.PodSandboxStatus(pb.PodSandboxStatusRequest(pod_sandbox_id=pod.id, verbose=True))


def test_run_exec_logs_stop(cluster, cri):
    pod = Pod(cluster.serve, cri, "web")
    jid = cluster.job_of(pod.id)
    said = json.loads(state(cri, pod).info["info"])
    assert (said["jobId"], said["jobNodes"]) == (jid, cluster.site.job(jid)["NodeList"])
    assert f"job {jid} runs on {said['jobNodes']}" in cluster.serve.tail(400)
    container = pod.run(*LOOP, env={"A": "b"})
    assert cri.exec_sync(container, "sh", "-c", "echo $A").stdout == b"b\n"
    assert cri.exec_sync(container, "sh", "-c", "exit 3").exit_code == 3
    until(lambda: pod.output(container)[0] == b"hello\n")
    stats = cri.runtime.ContainerStats(pb.ContainerStatsRequest(container_id=container)).stats
    assert stats.attributes.id == container
    cri.runtime.StopContainer(pb.StopContainerRequest(container_id=container, timeout=10))
    assert cri.status(container).exit_code == 4
    assert pod.output(container)[0] == b"hello\nbye\n"
    # Restarted in place, in the same job.
    again = pod.run("sh", "-c", "exit 6")
    assert cri.wait_exit(again).exit_code == 6
    assert cluster.job_of(pod.id) == jid
    cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.id))
    cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod.id))
    until(lambda: cluster.site.job(jid)["State"] not in ("RUNNING", "COMPLETING"))
    until(lambda: not list((cluster.plugin.dir / "jobs").iterdir()))


def test_a_queued_pod_says_why_and_is_cancelled_with_it(cluster, cri):
    annotations = {"interlink.eu/flags": "--hold"}
    config = pod_config("held", log_directory=str(cluster.serve.logs / "held"), annotations=annotations)
    for _ in range(5):  # as kubelet does; serve asks a site that is not its own machine each 10 s
        with refused("UNAVAILABLE") as told:
            cri.run_pod(config)
        if "JobHeldUser" in told.error.details():
            break
    assert "JobHeldUser" in told.error.details()
    held = [j for j in cluster.site.jobs() if j["State"] == "PENDING"]
    assert len(held) == 1
    cluster.site.run("scontrol", "release", held[0]["JobID"])
    sandbox = until(lambda: run_pod_when_ready(cri, config), 60)
    cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
    until(lambda: cluster.site.job(held[0]["JobID"])["State"] not in ("PENDING", "RUNNING", "COMPLETING"))


def test_a_pod_that_cannot_be(cluster, cri):
    with refused("FAILED_PRECONDITION", "invalid partition specified: nowhere"):
        Pod(cluster.serve, cri, "nowhere", annotations={"interlink.eu/partition": "nowhere"})


def test_everything_may_be_killed_and_started_again(cluster, cri):
    pod = Pod(cluster.serve, cri, "crash")
    container = pod.run("sh", "-c", "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); sleep 0.02; done")
    cluster.plugin.kill()
    time.sleep(0.3)
    cluster.serve.kill()
    cluster.serve.start()
    cluster.plugin.start()
    assert cri.wait_exit(container, 60).exit_code == 0
    assert pod.output(container)[0] == b"".join(b"line %d\n" % i for i in range(200))


@pytest.mark.parametrize("how", ["cancelled", "node"])
def test_the_job_ends_under_the_pod(cluster, cri, how):
    node = cluster.site.nodes[0]
    pod = Pod(cluster.serve, cri, f"lost-{how}", annotations={"interlink.eu/flags": f"--no-requeue -w {node}"})
    jid = cluster.job_of(pod.id)
    container = pod.run(*LOOP)
    until(lambda: pod.output(container)[0] == b"hello\n")
    if how == "cancelled":
        cluster.site.run("scancel", jid)
    else:
        cluster.site.node_down(node)
    try:
        until(lambda: state(cri, pod).status.state == pb.SANDBOX_NOTREADY, 60, "the pod to be over")
    finally:
        if how == "node":
            cluster.site.node_up(node)
    assert cri.wait_exit(container, 20).exit_code != 0
    said = {"cancelled": "CANCELLED", "node": "NODE_FAIL"}[how]
    assert said in cri.status(container).message + state(cri, pod).info["info"] + cluster.serve.tail(400)
    if how == "cancelled":
        logs = "".join(p.read_text() for p in (cluster.plugin.dir / "jobs").glob("*/agent.log"))
        assert pod.output(container)[0] == b"hello\nbye\n", f"Slurm's TERM is the container's:\n{logs}\n{cri.status(container)}"


def test_the_notice_before_the_limit_is_the_containers_term(cluster, cri):
    pod = Pod(cluster.serve, cri, "limit", annotations={"interlink.eu/walltime": "1m"})
    jid = cluster.job_of(pod.id)
    container = pod.run(*LOOP)
    until(lambda: pod.output(container)[0] == b"hello\n")
    cluster.site.scontrol("update", f"JobId={jid}", "EndTime=now+20")
    assert cri.wait_exit(container, 90).exit_code == 4
    until(lambda: state(cri, pod).status.state == pb.SANDBOX_NOTREADY, 60)
    assert pod.output(container)[0] == b"hello\nbye\n"
    assert "TIMEOUT" in state(cri, pod).info["info"] + cluster.serve.tail(400)


def test_the_jobs_own_cgroup_holds_the_containers(cluster, cri):
    if not cluster.site.cgroups or cluster.kind != "root":
        pytest.skip("Slurm makes no control groups here, or none that this user may use")
    pod = Pod(cluster.serve, cri, "cgroup")
    jid = cluster.job_of(pod.id)
    container = pod.run(*LOOP)
    until(lambda: pod.output(container)[0] == b"hello\n")
    found = subprocess.run(["find", "/sys/fs/cgroup", "-type", "d", "-path", f"*job_{jid}/*interlink*"], capture_output=True, text=True,
                           check=True).stdout
    assert container[:12] in found, found


