# SPDX-License-Identifier: Apache-2.0
"""serve is killed, again and again; pods are not."""
import os
import random
import time

import grpc
import pytest
from serving import BUSYBOX
from cri import container_config, pb, pod_config

ROUNDS = int(os.environ.get("INTERLINK_CRI_KILLS") or 40)


def test_running_pods_live_through_a_crash(pod, cri, serve):
    container = pod.run("sleep", "1000")
    before = cri.status(container)
    pid = cri.exec_sync(container, "sh", "-c", "echo $$; cat /proc/sys/kernel/random/uuid > /tmp/mark; cat /tmp/mark").stdout.split()[1]
    serve.kill()
    serve.start()
    assert cri.status(container) == before
    assert cri.sandbox_status(pod.id).state == pb.SANDBOX_READY
    end = time.monotonic() + 10
    while True:
        try:
            assert cri.exec_sync(container, "cat", "/tmp/mark").stdout.strip() == pid
            break
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE and time.monotonic() < end
            time.sleep(0.05)


def test_what_ends_while_serve_is_away_is_known_afterwards(pod, cri, serve):
    container = pod.run("sh", "-c", "sleep 0.5; echo last words; exit 9")
    serve.kill()
    time.sleep(1)
    serve.start()
    assert cri.wait_exit(container).exit_code == 9
    assert pod.output(container)[0] == b"last words\n"


def test_a_pod_whose_agent_died_is_not_ready(pod, cri, serve):
    container = pod.run("sleep", "1000")
    agents = [p for p in serve.processes()
              if b"agent" in open(f"/proc/{p}/cmdline", "rb").read().split(b"\0")[1:2]]
    assert agents
    for agent in agents:
        try:
            os.kill(agent, 9)
        except ProcessLookupError:
            pass
    assert cri.wait_exit(container).exit_code == 137
    end = time.monotonic() + 10
    while cri.sandbox_status(pod.id).state != pb.SANDBOX_NOTREADY:
        assert time.monotonic() < end
        time.sleep(0.05)


class Model:
    """What must be true: answered operations happened; unanswered ones happened or did not."""

    def __init__(self, cri):
        self.cri = cri
        self.pods = {}        # id -> state
        self.containers = {}  # id -> (pod, state)
        self.maybe_gone = set()
        self.serial = 0

    def step(self, random_source):
        actions = [self.run_pod]
        if self.pods:
            actions += [self.create, self.create, self.remove_pod]
        if self.containers:
            actions += [self.start, self.start, self.stop, self.remove]
        random_source.choice(actions)(random_source)

    def run_pod(self, r):
        self.serial += 1
        sandbox = self.cri.run_pod(pod_config(f"m{self.serial}"), timeout=10)
        self.pods[sandbox] = "READY"

    def create(self, r):
        pod = r.choice(list(self.pods))
        self.serial += 1
        config = container_config(f"c{self.serial}", BUSYBOX, "sleep", "1000", log_path="")
        self.containers[self.cri.create(pod, config, pod_config("ignored"))] = (pod, "CREATED")

    def start(self, r):
        container = r.choice(list(self.containers))
        pod, state = self.containers[container]
        if state != "CREATED":
            return
        self.containers[container] = (pod, "CREATED or RUNNING")
        self.cri.runtime.StartContainer(pb.StartContainerRequest(container_id=container))
        self.containers[container] = (pod, "RUNNING")

    def stop(self, r):
        container = r.choice(list(self.containers))
        pod, state = self.containers[container]
        if state != "RUNNING":
            return
        self.containers[container] = (pod, "RUNNING or EXITED")
        self.cri.runtime.StopContainer(pb.StopContainerRequest(container_id=container, timeout=0))
        self.containers[container] = (pod, "EXITED")

    def remove(self, r):
        container = r.choice(list(self.containers))
        self.maybe_gone.add(container)
        self.cri.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=container))
        del self.containers[container]
        self.maybe_gone.discard(container)

    def remove_pod(self, r):
        if r.random() < 0.6:
            return
        pod = r.choice(list(self.pods))
        inside = {c for c, (p, _) in self.containers.items() if p == pod}
        self.maybe_gone |= {pod, *inside}
        self.cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod))
        del self.pods[pod]
        for container in inside:
            del self.containers[container]
        self.maybe_gone -= {pod, *inside}

    def compare(self):
        """The server's lists against the model; then the model takes over what was open."""
        pods = {s.id: s for s in self.cri.runtime.ListPodSandbox(pb.ListPodSandboxRequest()).items}
        containers = {c.id: c for c in self.cri.runtime.ListContainers(pb.ListContainersRequest()).containers}
        for pod in self.pods:
            assert pod in pods or pod in self.maybe_gone, f"pod {pod} is lost"
            if pod in pods and pod not in self.maybe_gone:
                assert pods[pod].state == pb.SANDBOX_READY, f"pod {pod} is not ready any more"
        for container, (_, state) in self.containers.items():
            assert container in containers or container in self.maybe_gone, f"container {container} is lost"
            if container in containers and container not in self.maybe_gone:
                got = pb.ContainerState.Name(containers[container].state).removeprefix("CONTAINER_")
                assert got in state.split(" or "), f"{got}, not {state}: {self.cri.status(container)}"
        # Operations under way at the crash: anything they left is tidied up and forgotten.
        for container in set(containers) - set(self.containers) | (self.maybe_gone & set(containers)):
            self.cri.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=container))
        for pod in set(pods) - set(self.pods) | (self.maybe_gone & set(pods)):
            self.cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod))
        for gone in self.maybe_gone:
            self.pods.pop(gone, None)
            self.containers.pop(gone, None)
        self.containers = {c: v for c, v in self.containers.items() if v[0] in self.pods}
        self.maybe_gone = set()
        # What was under way may still be: an answered removal settles it.
        for container in [c for c, (_, state) in self.containers.items() if " or " in state]:
            self.cri.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=container))
            del self.containers[container]


def settle(model):
    """Repeats while agents are still calling in."""
    end = time.monotonic() + 20
    while True:
        try:
            model.compare()
            return
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                raise
            time.sleep(0.05)


def test_killed_in_the_middle_of_everything(cri, serve):
    """A loop of operations and kill -9 at random moments, compared with a model each time."""
    seed = int(os.environ.get("INTERLINK_CRI_SEED") or time.time())
    r = random.Random(seed)
    model = Model(cri)
    print("seed", seed)
    import threading
    for _ in range(ROUNDS):
        timer = threading.Timer(r.random() * 0.4, serve.kill)
        timer.start()
        try:
            while timer.is_alive():
                try:
                    model.step(r)
                except grpc.RpcError as error:
                    # Before the kill only a link that is coming up may refuse; afterwards anything is cut off.
                    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                        raise
        finally:
            timer.join()
            serve.start()
        settle(model)
        if len(model.pods) > 6:
            for pod in list(model.pods)[:4]:
                cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod))
                del model.pods[pod]
            model.containers = {c: v for c, v in model.containers.items() if v[0] in model.pods}


@pytest.mark.parametrize("what", ["sandboxes", "containers"])
def test_a_torn_record_does_not_stop_the_start(pod, cri, serve, what):
    pod.run("sleep", "1000")
    serve.kill()
    foreign = serve.root / "state" / what / ("e" * 64)
    foreign.write_bytes(b"ILCR\x01\0\0\0 not a record")
    os.chmod(foreign, 0o644)
    serve.start()
    assert not foreign.exists()
    assert any((serve.root / "state" / "set-aside").iterdir())
    assert cri.sandbox_status(pod.id).state == pb.SANDBOX_READY
