# SPDX-License-Identifier: Apache-2.0
"""What dies or goes away beside pods that run: serve, kubelet, the way to the agents, the API server, the program's own file. Two
pods, here and elsewhere, write a numbered line every 10 ms all the time, and kubelet rotates their logs; afterwards no container was
restarted and no line is missing, doubled or out of order."""
import contextlib
import gzip
import os
import random
import re
import signal
import subprocess
import time

import pytest
from cluster import BINARY, wait

ROUNDS = int(os.environ.get("INTERLINK_CRI_RESTART_ROUNDS") or 6)  # of each loop
CUT = int(os.environ.get("INTERLINK_CRI_CUT_SECONDS") or 6)        # how long something is away
# Seconds until the node is Ready again. serve answers at once, but kubelet asks every 5 s and tells the API server every 10 s.
READY = 10
READY_TOLD = READY + 6
LINE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(?:Z|[+-]\d\d:\d\d) stdout F line (\d+)$")
WRITER = 'i=0; while :; do echo "line $i"; i=$((i + 1)); usleep 10000; done'


class Writer:
    """A pod that writes, and is asked by kubelet every second whether it lives."""

    def __init__(self, cluster, name, **spec):
        self.cluster = cluster
        self.name = name
        probe = {"exec": {"command": ["true"]}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 2}
        cluster.pod(name, "sh", "-c", WRITER, main={"livenessProbe": probe}, **spec)
        found = cluster.get("pod", name)
        self.container = cluster.status(name)["containerID"]
        self.folder = cluster.root / "k8s" / "pods-log" / f"default_{name}_{found['metadata']['uid']}" / "main"
        self.rotated = {}  # file -> its text; kubelet keeps ten of them only
        self.seen = 0

    def gather(self):
        """The whole log: what was rotated away, and what is written now."""
        def names():
            return sorted(p.name for p in self.folder.iterdir() if not p.name.endswith(".tmp"))
        while True:
            with contextlib.suppress(FileNotFoundError):
                before = names()
                for name in before:
                    if name == "0.log" or name.endswith(".gz") and self.rotated.get(name):
                        continue
                    path = self.folder / name
                    text = (gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()).decode()
                    self.rotated[name.removesuffix(".gz")] = text
                text = (self.folder / "0.log").read_text()
                if names() == before:
                    return "".join(self.rotated[n] for n in sorted(self.rotated)) + text
            time.sleep(0.05)

    def check(self):
        """Not restarted, and each line is there once."""
        status = self.cluster.status(self.name)
        assert status["restartCount"] == 0 and status["containerID"] == self.container, self.cluster.describe(self.name)
        assert "running" in status["state"], self.cluster.describe(self.name)
        lines = self.gather().split("\n")
        numbers = [LINE.match(line) for line in lines[:-1]]  # the last may still be in the making
        assert all(numbers), next(line for line, number in zip(lines, numbers) if not number)
        numbers = [int(n.group(1)) for n in numbers]
        wrong = next((i for i, n in enumerate(numbers) if n != i), None)
        assert wrong is None, f"{self.name}: {numbers[wrong - 3:wrong + 3]} {self.cluster.tail()}"
        assert len(numbers) > self.seen
        self.seen = len(numbers)

    def goes_on(self, seconds=30):
        """Lines come again, kubectl shows them without gaps, and commands work."""
        before = len(self.gather())
        wait(lambda: len(self.gather()) > before, seconds, lambda: f"{self.name} writes no more: {self.cluster.tail()}")
        wait(lambda: self.cluster.kubectl("exec", self.name, "--", "echo", "hello", check=False).stdout == "hello\n", seconds,
             lambda: f"no command runs in {self.name}: {self.cluster.tail()}")
        shown = [int(x.split()[1]) for x in self.cluster.logs(self.name, "--tail=50").splitlines()]
        assert shown == list(range(shown[0], shown[0] + len(shown))), shown


class World:
    def __init__(self, cluster, site):
        self.cluster = cluster
        self.site = site
        self.writers = [Writer(cluster, "writer-local"), Writer(cluster, "writer-remote", runtimeClassName="remote")]

    def check(self):
        for writer in self.writers:
            writer.goes_on()
            writer.check()

    def pause(self, seconds):
        """Logs are gathered before kubelet deletes them."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 20))
            for writer in self.writers:
                writer.gather()

    def ready(self):
        """Whether the API says so; it is not there at times."""
        with contextlib.suppress(OSError, AssertionError):
            conditions = self.cluster.get("nodes")["items"][0]["status"]["conditions"]
            return next(c["status"] for c in conditions if c["type"] == "Ready") == "True"
        return False

    def becomes_ready(self, what):
        start = time.monotonic()
        wait(self.ready, 60, lambda: f"the node is not Ready: {self.cluster.tail()}")
        took = time.monotonic() - start
        print(f"node Ready {took:.1f} s after {what}")
        assert took <= READY_TOLD, what

    def signal(self, program, number):
        os.kill(int((self.cluster.root / "k8s" / "run" / f"{program}.pid").read_text()), number)

    def link(self, up):
        """The way between the site and the node: what is sent while it is down vanishes without a word."""
        subprocess.run(self.cluster.inside("ip", "link", "set", self.site.link, "up" if up else "down"), check=True, timeout=20)


@pytest.fixture(scope="module")
def world(cluster, remote):
    made = World(cluster, remote)
    yield made
    for writer in made.writers:
        cluster.delete("pod", writer.name, gone=False)


@pytest.fixture(autouse=True)
def nothing_lost(world):
    yield
    world.check()


def test_serve_is_killed_in_a_loop(world):
    for _ in range(ROUNDS):
        world.pause(random.random() * 1.5)
        world.cluster.kill_serve()
        time.sleep(random.random())
        world.cluster.start_serve()


def test_serve_is_away_until_the_node_is_not_ready(world):
    world.cluster.kill_serve()
    wait(lambda: not world.ready(), 60)
    world.cluster.start_serve()
    world.becomes_ready("serve is back")


def test_kubelet_is_restarted_in_a_loop(world):
    for _ in range(max(ROUNDS // 3, 1)):
        world.cluster.run("kubelet.sh", "stop")
        time.sleep(random.random() * 3)
        world.cluster.run("kubelet.sh", "start", str(world.cluster.socket))
        start = time.monotonic()
        exec_works = lambda: world.cluster.kubectl("exec", "writer-local", "--", "true", check=False).returncode == 0  # noqa: E731
        wait(lambda: world.ready() and exec_works(), 60)
        took = time.monotonic() - start
        print(f"node Ready and commands run {took:.1f} s after kubelet's start")
        assert took <= READY


def test_the_way_to_the_agent_is_cut(world):
    """Also for a pod that ends meanwhile."""
    world.cluster.pod("in-the-dark", "sh", "-c", f"sleep {CUT / 2}; echo last words; exit 7", restartPolicy="Never",
                      runtimeClassName="remote")
    world.link(up=False)
    world.pause(CUT)
    world.link(up=True)
    assert world.cluster.ended("in-the-dark", seconds=120)["exitCode"] == 7
    assert world.cluster.logs("in-the-dark") == "last words\n"
    world.cluster.delete("pod", "in-the-dark", gone=False)


def test_the_way_is_cut_while_serve_is_killed(world):
    world.link(up=False)
    world.cluster.kill_serve()
    world.cluster.start_serve()
    world.pause(CUT / 2)
    world.link(up=True)


def test_the_api_server_is_away(world):
    world.signal("kube-apiserver", signal.SIGSTOP)
    try:
        world.pause(CUT / 2)
        world.cluster.kill_serve()
        world.cluster.start_serve()
        world.pause(CUT / 2)
    finally:
        world.signal("kube-apiserver", signal.SIGCONT)
    world.becomes_ready("the API server is back")


def test_everything_at_once(world):
    world.signal("kube-apiserver", signal.SIGSTOP)
    world.link(up=False)
    try:
        world.cluster.kill_serve()
        world.cluster.run("kubelet.sh", "stop")
        world.pause(CUT / 3)
        world.cluster.start_serve()
        world.cluster.run("kubelet.sh", "start", str(world.cluster.socket))
        world.pause(CUT / 3)
    finally:
        world.signal("kube-apiserver", signal.SIGCONT)
        world.link(up=True)
    wait(world.ready, 60)


def test_upgrade_to_another_build_and_back(world):
    """Another version takes over the state and the agents of this one, whose file is replaced meanwhile."""
    cluster = world.cluster
    said = subprocess.run([BINARY, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    version = re.search(r"\d+\.\d+\.\d+\S*", said).group().encode()
    other = version[:-1] + (b"8" if version[-1:] != b"8" else b"9")
    path = cluster.root / "interlink-cri"

    def install(data):
        new = path.with_suffix(".new")
        new.write_bytes(data)
        new.chmod(0o755)
        new.rename(path)

    data = BINARY.read_bytes()
    assert version + b"\0" in data
    install(data)
    cluster.kill_serve()
    cluster.binary = path
    try:
        cluster.start_serve()
        cluster.pod("before-the-upgrade")
        install(data.replace(version + b"\0", other + b"\0"))
        # The agent's file is gone; it makes containers and runs commands all the same.
        assert cluster.kubectl("exec", "before-the-upgrade", "--", "echo", "hello").stdout == "hello\n"
        cluster.kill_serve()
        cluster.start_serve()
        assert other.decode() in cluster.ctl("version").stdout
        wait(lambda: cluster.kubectl("exec", "before-the-upgrade", "--", "echo", "hello", check=False).stdout == "hello\n", 20)
        cluster.kubectl("debug", "before-the-upgrade", "--image=fixture.local/busybox:1", "-c", "later", "--", "sleep", "1000000")
        wait(lambda: "running" in cluster.status("before-the-upgrade", "later", "ephemeralContainerStatuses").get("state", {}), 30,
             lambda: cluster.describe("before-the-upgrade"))
        world.check()
        cluster.pod("after-the-upgrade")
        cluster.kill_serve()
    finally:
        cluster.binary = BINARY
        with contextlib.suppress(ProcessLookupError):
            cluster.kill_serve()
        cluster.start_serve()
    for name in ("before-the-upgrade", "after-the-upgrade"):
        assert cluster.status(name)["restartCount"] == 0
        cluster.delete("pod", name, gone=False)
    path.unlink()
