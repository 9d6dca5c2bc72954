# SPDX-License-Identifier: Apache-2.0
"""Much at once and for long: streams that stall beside calls that must be answered, and nothing left behind.

The everyday run is a small one; INTERLINK_CRI_SOAK=1 for the whole numbers."""
import contextlib
import os
import pathlib
import signal
import socket
import threading
import time

import pytest
import spdy
import streams
from cri import pb
from serving import BINARY, Pod
from test_streaming import Server

FULL = bool(os.environ.get("INTERLINK_CRI_SOAK"))
SANITIZED = b"__asan_init" in BINARY.read_bytes()


def eventually(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.02)


def memory_mib(process):
    for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def agents_of(serve, pod):
    """The processes that serve the pod."""
    return [p for p in serve.processes()
            if pathlib.Path(f"/proc/{p}/cmdline").read_bytes().split(b"\0")[1:2] == [b"agent"]
            and pod.encode() in pathlib.Path(f"/proc/{p}/environ").read_bytes()]


# ---- streams that stall ----

class Spring:
    """A TCP server that pours without end, to clients that need not take it."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=600)
        self.port = self.socket.getsockname()[1]
        self.taken = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        block = bytes(1 << 16)
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                connection.setblocking(False)
                self.taken.append(connection)
                with contextlib.suppress(OSError):
                    for _ in range(200):  # more than all buffers on the way hold
                        connection.send(block)
                connection.setblocking(False)

    def pour(self):
        """Some more into each connection, as far as it takes it; bytes."""
        total = 0
        for connection in self.taken:
            with contextlib.suppress(OSError):
                while True:
                    total += connection.send(bytes(1 << 16))
        return total

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for connection in self.taken:
            connection.close()


@contextlib.contextmanager
def stalled(cri, pod, container, execs, attaches, forwards):
    """So many streams whose clients read nothing, each with as much on its way as it takes."""
    with contextlib.ExitStack() as stack:
        spring = Spring()
        stack.callback(spring.close)
        chatty = pod.run("sh", "-c", "while true; do cat /dev/zero | head -c 1000000 | tr '\\0' x; sleep 0.2; done")
        for i in range(execs):
            c = stack.enter_context(streams.run(cri, container, "cat", "/dev/zero", how="spdy-v4", stderr=False))
            c.connection.may_read.clear()
        for i in range(attaches):
            c = stack.enter_context(streams.attach(cri, chatty, how="spdy-v4", stderr=False))
            c.connection.may_read.clear()
        for at in range(0, forwards, 100):
            f = stack.enter_context(streams.Forward(streams.forward_url(cri, pod.id)))
            for i in range(at, min(at + 100, forwards)):
                f.open(spring.port)
            f.connection.may_read.clear()
        eventually(lambda: len(spring.taken) == forwards)
        while spring.pour() > 0:
            time.sleep(0.3)
        yield


def test_stalled_streams_hold_nobody_up(serve, cri):
    """Probes, figures and events come in time, whatever streams do; memory stays bounded on both sides."""
    pod = Pod(serve, cri, "stalled")
    container = pod.run("sleep", "100000")
    agents = agents_of(serve, pod.id)
    before = memory_mib(serve.process.pid), sum(map(memory_mib, agents))
    with stalled(cri, pod, container, 100 if FULL else 40, 20 if FULL else 5, 300 if FULL else 60):
        worst = 0
        for i in range(20):
            begin = time.monotonic()
            assert cri.exec_sync(container, "echo", str(i), timeout=30).stdout == b"%d\n" % i
            worst = max(worst, time.monotonic() - begin)
        assert worst < 10, worst
        # A large answer, and what goes the other way.
        assert len(cri.exec_sync(container, "head", "-c", "3000000", "/dev/zero", timeout=60).stdout) == 3000000
        with streams.run(cri, container, "wc", "-c", stdin=True) as c:
            c.write(bytes(1 << 20))
            c.close_stdin()
            assert c.finish() == (b"%d\n" % (1 << 20), b"", 0)
        begin = time.monotonic()
        quick = pod.run("true")
        cri.wait_exit(quick, 30)  # an event says so
        assert time.monotonic() - begin < 20
        stats = cri.runtime.ContainerStats(pb.ContainerStatsRequest(container_id=container)).stats
        assert stats.attributes.id == container
        grown = memory_mib(serve.process.pid) - before[0], sum(map(memory_mib, agents)) - before[1]
        print("stalled streams: serve grew by %.0f MiB, the agent by %.0f; the slowest probe took %.2f s" % (*grown, worst))
        # A sanitizer keeps what was freed for a while: only the plain program's memory says something.
        assert SANITIZED or (grown[0] < 200 and grown[1] < 100), grown


# ---- streams and the end of their pod ----

def told(errors):
    """What the error streams of a port forward say."""
    return {bytes(e.data).decode() for e in errors}


@pytest.mark.parametrize("how", ["spdy", "v2.portforward.k8s.io"])
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_forwards_end_with_their_pod(serve, cri, how, end):
    """The session itself, too: also one that has no connection at the moment, or one half of one."""
    pod = Pod(serve, cri, "ending")
    spring = Spring()
    with contextlib.closing(spring), streams.Forward(streams.forward_url(cri, pod.id), how) as f, \
            streams.Forward(streams.forward_url(cri, pod.id), how) as idle:
        pairs = [f.open(spring.port) for _ in range(3)]
        f.connection.open(streamType="error", port=spring.port, requestID="half")
        assert all(data.wait(lambda s: len(s.data) > 0) for data, _ in pairs)
        if end == "stop":
            cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.id))
        else:
            for agent in agents_of(serve, pod.id):
                os.kill(agent, signal.SIGKILL)
        for session in (f, idle):
            with session.connection.news:
                assert session.connection.news.wait_for(lambda s=session: s.connection.over, 10)
        assert f.connection.goaway is not None or how != "spdy"
        words = "was stopped" if end == "stop" else "connection"
        for error in told(error for _, error in pairs):
            assert f"error forwarding port {spring.port} to pod {pod.id[:13]}: " in error and words in error, error


def test_a_forward_is_told_at_once_when_its_pod_is_gone(serve, cri):
    pod = Pod(serve, cri, "gone")
    url = streams.forward_url(cri, pod.id)
    cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.id))
    with streams.Forward(url) as f:
        _, error = f.open(1)
        assert "is not ready" in error.read_all().decode()


def test_commands_end_with_their_agent(serve, cri):
    """At once, with an error that says why: those that run, and those whose client has not made its streams yet."""
    pod = Pod(serve, cri, "ending")
    container = pod.run("sleep", "100000")
    with streams.run(cri, container, "sh", "-c", "echo up; sleep 4715") as c, streams.attach(cri, container) as d, \
            spdy.Connection(streams.exec_url(cri, container, "true"), ["v4.channel.k8s.io"]) as half:
        c.wait_output(b"up")
        error = half.open(streamType="error")
        begin = time.monotonic()
        for agent in agents_of(serve, pod.id):
            os.kill(agent, signal.SIGKILL)
        assert "connection" in c.finish()[2] and "connection" in d.finish()[2]
        assert "out of reach" in error.read_all().decode()
        assert time.monotonic() - begin < 10


def test_what_a_leaving_client_said_arrives(serve, cri):
    """All of it was sent and the streams ended in order, then the client says goodbye: the pod still gets it, at its own pace."""
    heard = []

    def slowly(connection):
        time.sleep(1)
        count = 0
        while data := connection.recv(1 << 16):
            count += len(data)
        heard.append(count)
    pod = Pod(serve, cri, "slow")
    with Server(slowly) as server:
        with streams.Forward(streams.forward_url(cri, pod.id)) as f:
            for _ in range(3):
                data, _ = f.open(server.port)
                data.write(bytes(3 << 20))
                data.close()
            f.connection.control(spdy.GOAWAY, 0, bytes(8))
            f.connection.sock.shutdown(socket.SHUT_WR)
            eventually(lambda: heard == [3 << 20] * 3)
