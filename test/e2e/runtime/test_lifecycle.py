# SPDX-License-Identifier: Apache-2.0
"""Pods and containers, from the first call to the last."""
import signal
import time

import pytest
from serving import BUSYBOX, Pod
from cri import container_config, pb, pod_config, refused


def test_a_container_runs_and_its_end_is_exact(pod, cri):
    container = pod.run("sh", "-c", "echo out; echo err >&2; exit 7")
    status = cri.wait_exit(container)
    assert (status.exit_code, status.reason) == (7, "Error")
    assert status.created_at <= status.started_at <= status.finished_at
    assert pod.output(container) == (b"out\n", b"err\n")


def test_a_clean_end_is_called_completed(pod, cri):
    status = cri.wait_exit(pod.run("true"))
    assert (status.exit_code, status.reason) == (0, "Completed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1, signal.SIGSEGV])
def test_a_signal_is_told_as_128_and_its_number(pod, cri, number):
    # The first process of a PID namespace ignores what it does not handle, except from outside: so its child dies.
    container = pod.run("sh", "-c", f"sh -c 'kill -{int(number)} $$'; exit $?")
    assert cri.wait_exit(container).exit_code == 128 + number


def test_stop_sends_term_first_and_kill_after_the_grace(pod, cri):
    polite = pod.run("sh", "-c", "trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done")
    stubborn = pod.run("sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    time.sleep(0.3)
    cri.runtime.StopContainer(pb.StopContainerRequest(container_id=polite, timeout=10))
    assert cri.status(polite).exit_code == 3
    assert pod.output(polite)[0] == b"bye\n"
    start = time.monotonic()
    cri.runtime.StopContainer(pb.StopContainerRequest(container_id=stubborn, timeout=1))
    assert time.monotonic() - start > 0.9
    assert cri.status(stubborn).exit_code == 137


def test_stop_with_no_grace_kills_at_once(pod, cri):
    container = pod.run("sleep", "1000")
    cri.runtime.StopContainer(pb.StopContainerRequest(container_id=container, timeout=0))
    assert cri.status(container).exit_code == 137


def test_stop_and_remove_are_idempotent(pod, cri):
    container = pod.run("sleep", "1000")
    for _ in range(2):
        cri.runtime.StopContainer(pb.StopContainerRequest(container_id=container, timeout=0))
    for _ in range(2):
        cri.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=container))
    with refused("NOT_FOUND", container[:12]):
        cri.status(container)
    for _ in range(2):
        cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.id))
    for _ in range(2):
        cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod.id))
    with refused("NOT_FOUND"):
        cri.sandbox_status(pod.id)
    cri.runtime.StopContainer(pb.StopContainerRequest(container_id="f" * 64))
    cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id="f" * 64))


def test_stopping_a_pod_ends_its_containers(pod, cri):
    containers = [pod.run("sleep", "1000") for _ in range(3)]
    cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.id))
    assert cri.sandbox_status(pod.id).state == pb.SANDBOX_NOTREADY
    assert {cri.status(c).state for c in containers} == {pb.CONTAINER_EXITED}
    with refused("FAILED_PRECONDITION", "not ready"):
        pod.create("true")
    assert cri.sandbox_status(pod.id).metadata.name == "pod"


def test_removing_a_running_pod_removes_everything(pod, cri):
    container = pod.run("sleep", "1000")
    cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod.id))
    assert not cri.runtime.ListPodSandbox(pb.ListPodSandboxRequest()).items
    assert not cri.runtime.ListContainers(pb.ListContainersRequest()).containers
    with refused("NOT_FOUND"):
        cri.status(container)


def test_a_repeated_run_joins_the_same_pod(pod, cri):
    assert cri.run_pod(pod.config) == pod.id
    cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.id))
    with refused("ALREADY_EXISTS", "remove it first"):
        cri.run_pod(pod.config)
    again = pb.PodSandboxConfig()
    again.CopyFrom(pod.config)
    again.metadata.attempt = 1
    assert cri.run_pod(again) != pod.id


def test_a_program_that_is_not_there_cannot_be_started(pod, cri):
    container = pod.create("/no/such/program")
    with refused("NOT_FOUND", "/no/such/program"):
        cri.runtime.StartContainer(pb.StartContainerRequest(container_id=container))
    status = cri.wait_exit(container)
    assert (status.exit_code, status.reason) == (128, "StartError")
    with refused("FAILED_PRECONDITION", "exited"):
        cri.runtime.StartContainer(pb.StartContainerRequest(container_id=container))


def test_names_are_taken_until_removed_and_attempts_differ(pod, cri):
    first = pod.run("sleep", "1000", name="main")
    with refused("ALREADY_EXISTS", "main"):
        pod.create("true", name="main")
    second = pod.create("true", name="main", attempt=1)
    assert first != second
    # Created, never started: what a call whose answer got lost leaves. The same request again takes its place.
    third = pod.create("true", name="main", attempt=1)
    assert third not in (first, second)
    with refused("NOT_FOUND"):
        cri.status(second)


def test_lists_filter_by_id_state_label_and_pod(serve, cri):
    pods = [Pod(serve, cri, f"p{i}", labels={"app": f"a{i % 2}"}) for i in range(3)]
    running = [p.run("sleep", "1000", labels={"tier": "web"}) for p in pods]
    ended = pods[0].run("true", labels={"tier": "batch"})
    cri.wait_exit(ended)

    def sandboxes(**more):
        request = pb.ListPodSandboxRequest(filter=pb.PodSandboxFilter(**more))
        return {s.id for s in cri.runtime.ListPodSandbox(request).items}

    def containers(**more):
        request = pb.ListContainersRequest(filter=pb.ContainerFilter(**more))
        return {c.id for c in cri.runtime.ListContainers(request).containers}

    assert sandboxes() == {p.id for p in pods}
    assert sandboxes(id=pods[1].id[:20]) == {pods[1].id}
    assert sandboxes(label_selector={"app": "a0"}) == {pods[0].id, pods[2].id}
    assert sandboxes(label_selector={"app": "a0", "x": "y"}) == set()
    assert containers() == {*running, ended}
    assert containers(pod_sandbox_id=pods[0].id) == {running[0], ended}
    assert containers(state=pb.ContainerStateValue(state=pb.CONTAINER_EXITED)) == {ended}
    assert containers(label_selector={"tier": "web"}) == set(running)
    cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pods[2].id))
    assert sandboxes(state=pb.PodSandboxStateValue(state=pb.SANDBOX_READY)) == {pods[0].id, pods[1].id}
    items = {c.id: c for c in cri.runtime.ListContainers(pb.ListContainersRequest()).containers}
    assert items[ended].metadata.name == "c2" and items[ended].pod_sandbox_id == pods[0].id
    assert items[ended].image.image == BUSYBOX and items[ended].image_id.startswith("sha256:")


def test_bad_requests_name_the_field_and_change_nothing(pod, cri):
    with refused("INVALID_ARGUMENT", "config"):
        cri.runtime.RunPodSandbox(pb.RunPodSandboxRequest())
    with refused("INVALID_ARGUMENT", "metadata"):
        cri.run_pod(pb.PodSandboxConfig())
    with refused("INVALID_ARGUMENT", "log_directory"):
        cri.run_pod(pod_config("x", log_directory="relative"))
    with refused("NOT_FOUND", "runtime_handler", "nonsense"):
        cri.run_pod(pod_config("x"), handler="nonsense")
    with refused("NOT_FOUND", "not on this node"):
        pod.create("true", image="registry.example/not/here:1")
    with refused("INVALID_ARGUMENT", "log_path"):
        pod.create("true", log_path="../../outside.log")
    with refused("INVALID_ARGUMENT", "config.metadata.name"):
        cri.create(pod.id, container_config("", BUSYBOX), pod.config)
    with refused("INVALID_ARGUMENT", "empty"):
        cri.status("")
    assert len(cri.runtime.ListPodSandbox(pb.ListPodSandboxRequest()).items) == 1
    assert not cri.runtime.ListContainers(pb.ListContainersRequest()).containers


def test_what_is_not_offered_says_why(cri):
    calls = [("CheckpointContainer", pb.CheckpointContainerRequest()), ("CheckpointPod", pb.CheckpointPodRequest())]
    for name, request in calls:
        with refused("UNIMPLEMENTED") as caught:
            getattr(cri.runtime, name)(request)
        assert len(caught.error.details().split()) > 3


def test_status_version_and_config(cri):
    version = cri.runtime.Version(pb.VersionRequest(version="0.1.0"))
    assert (version.version, version.runtime_name, version.runtime_api_version) == ("0.1.0", "interlink-cri", "v1")
    answer = cri.runtime.Status(pb.StatusRequest(verbose=True))
    assert {c.type: c.status for c in answer.status.conditions} == {"RuntimeReady": True, "NetworkReady": True}
    assert "" in {h.name for h in answer.runtime_handlers}
    assert "local" in answer.info["config"]
    assert cri.runtime.RuntimeConfig(pb.RuntimeConfigRequest()).linux.cgroup_driver == pb.CGROUPFS
