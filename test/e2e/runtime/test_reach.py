# SPDX-License-Identifier: Apache-2.0
"""Agents on machines that a network lies between: directly, through a proxy, by a command of the node's, and not at all; links that
are lost without a word; a node that moves. Nothing of a container and no line of its log is lost or doubled."""
import os
import pathlib
import signal
import subprocess
import tempfile
import time

import grpc
import pytest
from cri import pb, pod_config, refused
from serving import BINARY, Pod, Serve
from site_network import Network, Proxy, may_make_networks

pytestmark = pytest.mark.skipif(not may_make_networks(), reason="needs root and network namespaces")
PORT = 10443
LINES = "i=0; while [ $i -lt 1000000 ] && [ ! -e /stop ]; do echo line $i; i=$((i+1)); sleep 0.02; done; echo end"


def until(condition, seconds=30, what="it"):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not come about in {seconds} s"
        time.sleep(0.05)
    return found


class World(Serve):
    """serve at one of two places; plugins at the site, one of which has a proxy in its jobs' environment."""

    def __init__(self, root):
        self.network = Network("home", "away", "site")
        self.place = "home"
        self.plugins = []
        site = self.network.ends["site"]
        self.proxy = Proxy(self.network.router, "10.198.3.1")
        self.proxy.login = "bWU6YSBi"  # me:a b
        targets = {name: f"unix://{root}/{name}.sock" for name in ("plain", "proxied")}
        join = ["nsenter", f"--net=/proc/{site.holder.pid}/ns/net", str(BINARY), "join", "{pod}"]
        super().__init__(root)
        self.base = f"Socket: {self.socket}\nStateDir: {self.root}/state\nQueueHold: 3s\n" + f"""
Handlers:
  - Name: direct
    Target: {targets["plain"]}
  - Name: proxied
    Target: {targets["proxied"]}
  - Name: dialled
    Target: {targets["plain"]}
    Dial: {join}
"""
        self.advertise()
        for name, env in (("plain", {}), ("proxied", {"https_proxy": f"http://me:a%20b@10.198.3.1:{self.proxy.server_port}"})):
            with (self.root / f"{name}.log").open("ab") as log:
                self.plugins.append(subprocess.Popen(
                    site.enter(BINARY, "plugin", "--dir", self.root / name, "--listen", targets[name]),
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**self.env, **env}, start_new_session=True))
        until(lambda: all((self.root / f"{n}.sock").exists() for n in targets), what="the plugins' sockets")

    def advertise(self, *places):
        addresses = ", ".join(f"{self.network.addresses[p]}:{PORT}" for p in places or (self.place,))
        self.config.write_text(self.base + f'Relay:\n  Listen: 0.0.0.0:{PORT}\n  Advertise: "{addresses}"\n  Keepalive: 2s\n')

    def command(self, *arguments):
        return self.network.ends[self.place].enter(BINARY, *arguments)

    def away(self):
        """The site cannot reach the node, nor the node the site, and is told at once."""
        self.network.ends["site"].run("ip", "route", "add", "unreachable", "10.198.1.0/24")

    def back(self):
        self.network.ends["site"].run("ip", "route", "del", "unreachable", "10.198.1.0/24")

    def connected(self, pod):
        status = self.client.runtime.PodSandboxStatus(pb.PodSandboxStatusRequest(pod_sandbox_id=pod.id, verbose=True))
        return '"agentConnected":true' in status.info["info"]

    def commands(self):
        """Pids of those of our join commands that run."""
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if b"\0join\0" in entry.read_bytes() and str(self.root).encode() in (entry.parent / "environ").read_bytes():
                    found.append(int(entry.parent.name))
            except OSError:
                continue
        return found

    def finish(self):
        try:
            self.client.remove_everything()
            for plugin in self.plugins:
                plugin.terminate()
                plugin.wait(10)
            super().finish()
        finally:
            self.proxy.shutdown()
            self.network.close()


class Patient:
    """A client that asks again for a pod that is not ready, as kubelet does."""

    def __init__(self, client):
        self.client = client

    def __getattr__(self, name):
        return getattr(self.client, name)

    def run_pod(self, config, handler):
        end = time.monotonic() + 30
        while True:
            try:
                return self.client.run_pod(config, handler)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                    raise


@pytest.fixture(scope="module")
def world(images):
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    world = World(root)
    world.start()
    assert world.ctl("load", str(images)).returncode == 0
    yield world
    world.finish()


@pytest.fixture
def cri(world):
    yield world.client
    world.client.remove_everything()
    until(lambda: not world.commands(), what="the end of the commands of pods that are gone")


@pytest.fixture(scope="class")
def cut(world):
    """While nothing gets through directly; a pod that has no other way waits from the beginning, since there is nothing to say at once."""
    world.away()
    world.lost = pod_config("lost")
    with pytest.raises(grpc.RpcError):
        world.client.runtime.RunPodSandbox(pb.RunPodSandboxRequest(config=world.lost, runtime_handler="direct"), timeout=1)
    yield
    world.back()


def log_lines(cri, container):
    path = pathlib.Path(cri.status(container).log_path)
    return [line.split(b" ", 3)[3].decode() for line in path.read_bytes().splitlines()] if path.exists() else []


def ends_whole(cri, container):
    """Ends it, and expects every line once."""
    assert cri.exec_sync(container, "touch", "/stop").exit_code == 0
    assert cri.wait_exit(container, 30).exit_code == 0
    until(lambda: log_lines(cri, container)[-1:] == ["end"], what="the log's end")
    lines = log_lines(cri, container)[:-1]
    assert lines == [f"line {i}" for i in range(len(lines))]
    return len(lines)


def count(cri, container):
    return len(log_lines(cri, container))


@pytest.mark.usefixtures("cut")
class TestNotDirectly:
    def test_through_a_proxy(self, world, cri):
        asked = len(world.proxy.asked)
        pod = Pod(world, cri, "proxied", handler="proxied")
        container = pod.run("sh", "-c", LINES)
        assert cri.exec_sync(container, "echo", "hello").stdout == b"hello\n"
        assert world.proxy.asked[asked] == (f"10.198.1.2:{PORT}", "Basic bWU6YSBi")
        ends_whole(cri, container)

    def test_by_a_command(self, world, cri):
        stale = pathlib.Path(f"/tmp/.interlink-{os.getpid():064x}")
        stale.symlink_to("/nonexistent/job")  # of an agent that was killed
        pod = Pod(world, Patient(cri), "dialled", handler="dialled")
        assert not os.path.lexists(stale) and os.path.lexists(f"/tmp/.interlink-{pod.id}")
        container = pod.run("sh", "-c", LINES)
        assert cri.exec_sync(container, "echo", "hello").stdout == b"hello\n"
        big = cri.exec_sync(container, "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x")
        assert big.stdout == b"x" * 3000000
        (command,) = world.commands()
        os.kill(command, signal.SIGKILL)
        until(lambda: world.commands() not in ([], [command]) and world.connected(pod), what="another command")
        assert len(world.commands()) == 1  # for as long as it lasts
        ends_whole(cri, container)

    def test_by_no_way_at_all(self, world, cri):
        """The pod's event says what was tried, and what to set; when the way is free the same job becomes the pod."""
        config = world.lost
        words = ("has started", "its agent has not called in for", "cannot reach the node: relay 10.198.1.2:10443 (no proxy): cannot connect: ",
                 "Relay.Advertise (10.198.1.2:10443)", "https_proxy", "Dial")
        said = ""

        def told():
            nonlocal said
            with pytest.raises(grpc.RpcError) as caught:
                cri.run_pod(config, "direct")
            said = caught.value.details()
            # EHOSTUNREACH in glibc's words, and in musl's.
            return all(word in said for word in words) and ("No route to host" in said or "Host is unreachable" in said)

        try:
            until(told, 30, "the words")
        except AssertionError:
            raise AssertionError(said) from None
        world.back()
        try:
            assert Patient(cri).run_pod(config, "direct")
        finally:
            world.away()


def test_join_leads_to_agents_alone(tmp_path):
    foreign = pathlib.Path(f"/tmp/.interlink-{os.getpid():064x}")
    foreign.symlink_to(tmp_path)
    os.lchown(foreign, 54321, 54321)
    try:
        for pod, status, words in ((foreign.name.removeprefix(".interlink-"), 1, "is not this user's"), ("../etc", 1, "is neither a pod's id"),
                                   ("", 1, "is neither a pod's id")):
            done = subprocess.run([BINARY, "join", pod], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
            assert done.returncode == status and words in done.stderr, done.stderr
            assert not done.stdout
    finally:
        foreign.unlink()
    assert subprocess.run([BINARY, "join"], capture_output=True, timeout=20, check=False).returncode == 2


def test_a_link_that_is_lost_without_a_word(world, cri):
    """For longer than it takes both ends to notice; the container does not."""
    pods = [Pod(world, cri, f"link-{h}", handler=h) for h in ("direct", "proxied")]
    containers = [pod.run("sh", "-c", LINES) for pod in pods]
    until(lambda: all(count(cri, c) > 5 for c in containers))
    world.network.forward(False)
    try:
        until(lambda: not world.connected(pods[0]), 20, "the node's notice")
        with refused("UNAVAILABLE", "not connected at the moment", "its agent has not called in"):
            cri.exec_sync(containers[0], "true")
    finally:
        world.network.forward(True)
    seen = [count(cri, c) for c in containers]
    until(lambda: all(world.connected(p) for p in pods), 30, "the connections")
    until(lambda: all(count(cri, c) > n for c, n in zip(containers, seen)), 20)
    for container in containers:
        ends_whole(cri, container)


def test_serve_moves_to_another_machine(world, cri):
    """With its state folder, to another address: first one that agents were told of before, then one that an operator tells them."""
    pods = {h: Pod(world, Patient(cri), f"move-{h}", handler=h) for h in ("direct", "dialled")}
    containers = [pod.run("sh", "-c", LINES) for pod in pods.values()]
    until(lambda: all(count(cri, c) > 5 for c in containers))
    world.stop()
    world.advertise("home", "away")  # agents that run already learn of both when they call in
    world.start()
    until(lambda: all(world.connected(p) for p in pods.values()), 30, "the connections")
    world.kill()
    world.place = "away"
    world.advertise()
    world.start()
    until(lambda: all(world.connected(p) for p in pods.values()), 40, "the connections to the other place")
    world.stop()
    world.place = "home"
    world.advertise()
    for job in (world.root / "plain" / "jobs").iterdir():
        (job / "relay").write_text(f"10.198.1.2:{PORT}\n")
    world.start()
    until(lambda: all(world.connected(p) for p in pods.values()), 40, "the connections at home")
    for container in containers:
        ends_whole(cri, container)
