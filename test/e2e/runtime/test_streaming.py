# SPDX-License-Identifier: Apache-2.0
"""Exec, Attach and PortForward over every protocol of the streaming server, with clients of our own."""
import concurrent.futures
import contextlib
import hashlib
import http.client
import os
import pathlib
import signal
import socket
import threading
import time
import urllib.parse

import pytest
import spdy
import streams
from cri import pb, refused
from serving import Pod
from streams import STDERR, STDOUT

# The everyday run; INTERLINK_CRI_STREAMING_FULL=1 for the whole numbers.
FULL = bool(os.environ.get("INTERLINK_CRI_STREAMING_FULL"))
BULK = (100 if FULL else 12) << 20
EXECS = 1000 if FULL else 60
BYTES_4K = bytes(range(256)) * 16


class Box:
    """One pod with a container that does nothing, for all tests of the module."""

    def __init__(self, serve):
        self.serve, self.cri = serve, serve.client
        self.pod = Pod(serve, serve.client, "streams")
        self.container = self.pod.run("sleep", "100000", env={"GREETING": "hello"})

    def exec(self, *words, **more):
        return streams.run(self.cri, self.container, *words, **more)

    def sh(self, script, **more):
        return self.exec("sh", "-c", script, **more)

    def out(self, script):
        return self.cri.exec_sync(self.container, "sh", "-c", script).stdout

    def runs(self, text):
        """Whether such a process runs in the container; what was killed may wait there for a parent that never looks."""
        return any(text in line and b" [" not in line for line in self.out("ps").splitlines())


@pytest.fixture(scope="module")
def box(serve):
    box = Box(serve)
    yield box
    serve.client.remove_everything()


def eventually(condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.02)


# ---- exec ----

@pytest.mark.parametrize("how", streams.SPDY + streams.WEBSOCKET)
def test_both_outputs_and_the_code(box, how):
    with box.sh("echo out; echo err >&2; exit 5", how=how) as c:
        assert c.finish() == (b"out\n", b"err\n", 5)
    with box.sh("echo $GREETING", how=how, stderr=False) as c:
        assert c.finish() == (b"hello\n", b"", 0)


@pytest.mark.parametrize("how", ["spdy-v4", "spdy-v3", "spdy-v2", "v5"])
def test_input_until_its_end(box, how):
    with box.exec("cat", how=how, stdin=True) as c:
        c.write(BYTES_4K)
        c.write(BYTES_4K)
        c.close_stdin()
        assert c.finish() == (2 * BYTES_4K, b"", 0)


@pytest.mark.parametrize("how", ["v4", "v4.base64", "v1", "v1.base64", "none", "spdy-v1"])
def test_input_without_half_close(box, how):
    with box.exec("head", "-c", str(len(BYTES_4K)), how=how, stdin=True) as c:
        c.write(BYTES_4K)
        assert c.finish() == (BYTES_4K, b"", 0)


@pytest.mark.parametrize("how", ["spdy-v4", "spdy-v3", "v5", "v4.base64"])
def test_terminal(box, how):
    with box.exec("sh", how=how, stdin=True, tty=True) as c:
        c.resize(91, 33)
        c.write(b"until stty size | grep '33 91'; do sleep 0.02; done; tty; echo mark$((1+1))\n")
        c.wait_output(b"mark2\r\n")
        c.resize(120, 40)
        c.write(b"until stty size | grep -q '40 120'; do sleep 0.02; done; echo mark$((2+2)); exit 3\n")
        c.wait_output(b"mark4\r\n")
        out, err, code = c.finish()
        assert (err, code) == (b"", 3) and b"33 91\r\n" in out and b"/dev/pts/" in out


def test_terminal_sizes_come_in_any_pieces(box):
    with box.exec("sh", stdin=True, tty=True) as c:
        resize = c.streams[streams.RESIZE]
        resize.write(b'{"Width":10,"Height":20}{"Width":77,')
        resize.write(b'"Height":')
        resize.write(b'22}\n {"Width":0,"Height":5}')
        c.write(b"until stty size | grep '22 77'; do sleep 0.02; done; exit\n")
        assert b"22 77\r\n" in c.finish()[0]
    with box.exec("sh", stdin=True, tty=True) as c:
        c.streams[streams.RESIZE].write(b"nonsense " * 2000 + b'}{"Width":1e9,"Height":"x"}' + b"}" * 60000 + b"{}" * 30000)
        c.write(b"exit 4\n")
        assert c.finish()[2] == 4


def test_end_of_input_on_a_terminal_without_a_program_that_reads(box):
    with box.exec("sleep", "0.1", stdin=True, tty=True, how="v5") as c:
        c.close_stdin()
        assert c.finish()[2] == 0


@pytest.mark.parametrize("how", ["spdy-v4", "spdy-v3", "v5", "v1"])
def test_a_command_that_is_not_there(box, how):
    with box.exec("/no/such", how=how) as c:
        out, err, told = c.finish()
        assert (out, err) == (b"", b"") and "error executing command in container" in told and "/no/such" in told


def test_a_signal_counts_from_128(box):
    with box.sh("kill -9 $$") as c:
        assert c.finish()[2] == 137


def test_only_input(box):
    with box.exec("sh", "-c", "cat > /tmp/taken", stdin=True, stdout=False, stderr=False, how="v5") as c:
        c.write(b"abc")
        c.close_stdin()
        assert c.finish() == (b"", b"", 0)
    assert box.out("cat /tmp/taken") == b"abc"


def test_output_that_was_not_asked_for_holds_nothing_up(box):
    with box.sh("dd if=/dev/zero bs=1k count=3000 2>/dev/null; echo done >&2", stdout=False) as c:
        assert c.finish() == (b"", b"done\n", 0)


@pytest.mark.parametrize("how", ["spdy-v4", "v5"])
def test_bulk_out(box, how):
    digest = hashlib.md5()
    with box.sh(f"head -c {BULK} /dev/urandom | tee /tmp/bulk; md5sum /tmp/bulk >&2; rm /tmp/bulk", how=how) as c:
        c.sink(STDOUT, digest.update)
        _, err, code = c.finish(120)
    assert (digest.hexdigest(), 0) == (err.decode().split()[0], code)


@pytest.mark.parametrize("how", ["spdy-v4", "v5"])
def test_bulk_in(box, how):
    data = os.urandom(1 << 20)
    digest = hashlib.md5()
    with box.exec("md5sum", how=how, stdin=True) as c:
        for _ in range(BULK >> 20):
            c.write(data)
            digest.update(data)
        c.close_stdin()
        out, _, code = c.finish(120)
    assert (out.decode().split()[0], code) == (digest.hexdigest(), 0)


def test_bulk_with_windows(box):
    with box.sh("head -c 3000000 /dev/zero; cat", stdin=True, windows=True) as c:
        c.write(bytes(2000000))
        c.close_stdin()
        out, _, code = c.finish()
        assert (len(out), code) == (5000000, 0)


def memory_kib(serve):
    line = next(x for x in pathlib.Path(f"/proc/{serve.process.pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1])


@pytest.mark.parametrize("how", ["spdy-v4", "v5"])
def test_a_slow_reader_stops_the_process_and_loses_nothing(box, serve, how):
    size = 64 << 20
    with box.sh(f"head -c {size} /dev/zero; date +%s%N > /tmp/finished", how=how) as c:
        count = [0]
        c.sink(STDOUT, lambda piece: count.__setitem__(0, count[0] + len(piece)))
        reader = c.connection if how.startswith("spdy") else c
        reader.may_read.clear()
        time.sleep(0.7)
        assert box.out("cat /tmp/finished 2>/dev/null") == b""
        if "san" not in str(serve.command("x")):
            assert memory_kib(serve) < 60000
        reader.may_read.set()
        assert c.finish(60)[2] == 0 and count[0] == size
    box.out("rm /tmp/finished")


def test_a_slow_reader_gets_what_came_before_the_end(box):
    with box.sh("head -c 300000 /dev/zero; echo the end") as c:
        c.connection.may_read.clear()
        time.sleep(1)
        c.connection.may_read.set()
        out, _, code = c.finish()
        assert len(out) == 300008 and out.endswith(b"the end\n") and code == 0


@pytest.mark.parametrize("how", ["spdy-v4", "v5"])
def test_a_client_that_vanishes_takes_its_command_along(box, how):
    with box.sh("(sleep 4711 & sleep 4711)", how=how, stdin=True):
        eventually(lambda: box.runs(b"sleep 4711"))
    eventually(lambda: not box.runs(b"sleep 4711"))


def test_a_client_that_vanishes_in_the_middle_of_a_transfer(box):
    with box.sh("cat /dev/zero; sleep 4712") as c:
        c.streams[STDOUT].wait(lambda s: len(s.data) > 1000000)
    with box.sh("cat > /dev/null; sleep 4712", stdin=True) as c:
        c.write(bytes(1000000))
    eventually(lambda: not box.runs(b"sleep 4712") and not box.runs(b"cat"))


def test_streams_that_were_not_asked_for_are_refused(box):
    url = streams.exec_url(box.cri, box.container, "cat", stdin=False)
    with spdy.Connection(url, ["v4.channel.k8s.io"]) as c:
        assert c.open(streamType="stdin").reset
        assert c.open(streamType="nonsense").reset
        assert c.open().reset
        error = c.open(streamType="error")
        assert c.open(streamType="error").reset
        out = c.open(streamType="stdout")
        c.open(streamType="stderr")
        assert out.read_all() == b"" and streams.code_of(error.read_all(), 4) == 0


def test_many_at_a_time(box):
    def one(i):
        how = (streams.SPDY + streams.WEBSOCKET)[i % 10]
        with box.sh(f"echo {i}; exit {i}", how=how) as c:
            return c.finish()
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        assert list(pool.map(one, range(50))) == [(f"{i}\n".encode(), b"", i) for i in range(50)]


def test_many_in_a_row_leave_nothing(box, serve):
    def one(i):
        how = ["spdy-v4", "v5"][i % 2]
        with box.exec("true" if i % 3 else "cat", how=how, stdin=i % 3 == 0) as c:
            if i % 3 == 0:
                c.close_stdin()
            assert c.finish()[2] == 0

    def state():
        pids = [p for p in serve.processes() if b"\0agent\0" in pathlib.Path(f"/proc/{p}/cmdline").read_bytes() + b"\0"]
        return (len(os.listdir(f"/proc/{serve.process.pid}/fd")), [len(os.listdir(f"/proc/{p}/fd")) for p in pids],
                len(serve.processes()))

    for i in range(6):
        one(i)
    eventually(lambda: state() == state())
    before, memory = state(), memory_kib(serve)
    for i in range(EXECS):
        one(i)
    eventually(lambda: state() == before)
    if "san" not in str(serve.command("x")):
        assert memory_kib(serve) < memory + 1024


# ---- attach ----

@pytest.mark.parametrize("how", ["spdy-v4", "v5", "v1.base64"])
def test_attach_sees_what_the_log_gets(box, how):
    container = box.pod.create("sh", "-c", "while read line; do echo err $line >&2; echo got $line; done; echo over; exit 6",
                               stdin=True)
    box.cri.runtime.StartContainer(pb.StartContainerRequest(container_id=container))
    with streams.attach(box.cri, container, how=how, stdin=True) as first, \
            streams.attach(box.cri, container, how=how) as second:
        time.sleep(0.1)
        first.write(b"one\n")
        first.wait_output(b"got one\n")
        second.wait_output(b"got one\n")
    with streams.attach(box.cri, container, how="spdy-v4", stdin=True) as third:
        third.write(b"two\n")
        third.wait_output(b"got two\n")
        assert b"one" not in third.output()
        third.write(b"three\n")
        third.wait_output(b"got three\n")
        box.cri.runtime.StopContainer(pb.StopContainerRequest(container_id=container, timeout=0))
        assert third.finish()[2] == 0
    out, err = box.pod.output(container)
    assert out == b"got one\ngot two\ngot three\n" and err == b"err one\nerr two\nerr three\n"


@pytest.mark.parametrize("how", ["spdy-v4", "v5"])
def test_attach_to_a_container_with_stdin_once(box, how):
    container = box.pod.create("cat", stdin=True, stdin_once=True)
    box.cri.runtime.StartContainer(pb.StartContainerRequest(container_id=container))
    with streams.attach(box.cri, container, how=how, stdin=True) as c:
        c.write(b"hello\n")
        c.wait_output(b"hello\n")
        c.close_stdin()
        assert c.finish() == (b"hello\n", b"", 0)
    assert box.cri.wait_exit(container).exit_code == 0
    other = box.pod.create("cat", stdin=True, stdin_once=True)
    box.cri.runtime.StartContainer(pb.StartContainerRequest(container_id=other))
    with streams.attach(box.cri, other, how=how, stdin=True) as c:
        c.write(b"hello\n")
        c.wait_output(b"hello\n")
    assert box.cri.wait_exit(other).exit_code == 0  # its client went, and its input with it


def test_attach_to_a_terminal(box):
    container = box.pod.create("sh", stdin=True, tty=True)
    box.cri.runtime.StartContainer(pb.StartContainerRequest(container_id=container))
    for _ in range(2):
        with streams.attach(box.cri, container, how="spdy-v4", stdin=True, tty=True) as c:
            c.resize(66, 22)
            c.write(b"until stty size | grep '22 66'; do sleep 0.02; done; echo a$((2+3))z\n")
            c.wait_output(b"a5z\r\n")
    box.cri.runtime.StopContainer(pb.StopContainerRequest(container_id=container, timeout=0))


def test_a_process_outlives_its_attached_clients(box):
    container = box.pod.run("sh", "-c", "while true; do echo tick; sleep 0.02; done")
    with streams.attach(box.cri, container) as c:
        c.wait_output(b"tick\n")
    assert box.cri.status(container).state == pb.CONTAINER_RUNNING
    box.cri.runtime.StopContainer(pb.StopContainerRequest(container_id=container, timeout=0))


# ---- the RPCs ----

def test_requests_are_checked(box):
    runtime, container = box.cri.runtime, box.container
    ended = box.pod.run("true")
    box.cri.wait_exit(ended)
    created = box.pod.create("true")
    for call, request in ((runtime.Exec, lambda **more: pb.ExecRequest(cmd=["true"], **more)),
                          (runtime.Attach, pb.AttachRequest)):
        with refused("INVALID_ARGUMENT", "tty", "stderr"):
            call(request(container_id=container, tty=True, stdout=True, stderr=True))
        with refused("INVALID_ARGUMENT", "stdin", "stdout"):
            call(request(container_id=container))
        with refused("INVALID_ARGUMENT", "empty"):
            call(request(stdout=True))
        with refused("NOT_FOUND", "not known"):
            call(request(container_id="beef", stdout=True))
        for not_running in (ended, created):
            with refused("FAILED_PRECONDITION", "not running"):
                call(request(container_id=not_running, stdout=True))
    with refused("INVALID_ARGUMENT", "cmd"):
        runtime.Exec(pb.ExecRequest(container_id=container, stdout=True))
    with refused("INVALID_ARGUMENT", "empty"):
        runtime.PortForward(pb.PortForwardRequest(port=[80]))
    with refused("NOT_FOUND", "not known"):
        runtime.PortForward(pb.PortForwardRequest(pod_sandbox_id="beef", port=[80]))
    for port in (0, -1, 65536):
        with refused("INVALID_ARGUMENT", "port"):
            runtime.PortForward(pb.PortForwardRequest(pod_sandbox_id=box.pod.id, port=[port]))


def test_urls_are_absolute_and_never_the_same(box):
    urls = {streams.exec_url(box.cri, box.container[:12], "true") for _ in range(3)}
    urls |= {streams.attach_url(box.cri, box.container), streams.forward_url(box.cri, box.pod.id, 80)}
    assert len(urls) == 5
    for url in urls:
        where = urllib.parse.urlsplit(url)
        assert where.scheme == "http" and where.hostname == "127.0.0.1" and where.port
        assert where.path.split("/")[1] in ("exec", "attach", "portforward") and len(where.path.split("/")[2]) == 64


# ---- tokens and upgrades ----

SPDY_HEADERS = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v4.channel.k8s.io"}
WS_HEADERS = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
              "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "v5.channel.k8s.io"}


def ask(url, headers=None, method="GET", path=None):
    where = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=20)
    connection.request(method, path or where.path, headers=headers or {})
    answer = connection.getresponse()
    text = answer.read(2000).decode() if answer.status != 101 else ""
    connection.close()
    return answer.status, text, answer.headers


def test_a_token_is_good_once_and_for_its_kind(box):
    url = streams.exec_url(box.cri, box.container, "true")
    status, text, _ = ask(url, SPDY_HEADERS, path=urllib.parse.urlsplit(url).path.replace("exec", "attach"))
    assert status == 404
    # A failed upgrade has not used it.
    assert ask(url)[0] == 426
    with streams.command(url, "spdy-v4") as c:
        assert c.finish()[2] == 0
    status, text, _ = ask(url, SPDY_HEADERS, "POST")
    assert status == 404 and "once" in text


def test_unknown_tokens_and_paths(box, serve):
    url = streams.exec_url(box.cri, box.container, "true")
    base = urllib.parse.urlsplit(url).path
    for path in (base[:-1] + ("0" if base[-1] != "0" else "1"), base[:-1], base + "0", base + "/", "/exec/", "/exec/x",
                 "/exec", "/", "/metrics", "/exec/%2e%2e/" + base[6:]):
        assert ask(url, SPDY_HEADERS, path=path)[0] == 404, path
    assert base.rsplit("/", 1)[1] not in serve.log.read_text()


def test_upgrades_that_cannot_be(box):
    url = streams.exec_url(box.cri, box.container, "true")
    status, text, headers = ask(url)
    assert status == 426 and "SPDY/3.1" in headers["Upgrade"] and "websocket" in headers["Upgrade"]
    assert ask(url, {**SPDY_HEADERS, "Upgrade": "h2c"})[0] == 426
    assert ask(url, {**SPDY_HEADERS, "Connection": "close"})[0] == 426
    assert ask(url, {k: v for k, v in SPDY_HEADERS.items() if k[0] != "X"})[0] == 400
    status, text, headers = ask(url, {**SPDY_HEADERS, "X-Stream-Protocol-Version": "v9.channel.k8s.io"})
    assert status == 403 and "v4.channel.k8s.io" in headers["X-Accepted-Stream-Protocol-Versions"]
    assert ask(url, {**WS_HEADERS, "Sec-WebSocket-Protocol": "v2.channel.k8s.io"})[0] == 403
    assert ask(url, {**WS_HEADERS, "Sec-WebSocket-Version": "8"})[0] == 426
    assert ask(url, {**WS_HEADERS, "Sec-WebSocket-Key": "short"})[0] == 400
    assert ask(url, WS_HEADERS, "POST")[0] == 400
    assert ask(url, SPDY_HEADERS, "DELETE")[0] == 405
    assert ask(url, SPDY_HEADERS, "HEAD")[0] == 400
    # RFC 6455 has this key and its answer as the example; the best of several protocols is taken.
    status, _, headers = ask(url, {**WS_HEADERS, "Sec-WebSocket-Protocol": "channel.k8s.io, v5.channel.k8s.io"})
    assert status == 101 and headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert headers["Sec-WebSocket-Protocol"] == "v5.channel.k8s.io"


# ---- the agent ----

def test_an_agent_that_dies(serve, box):
    pod = Pod(serve, box.cri, "mortal")
    container = pod.run("sleep", "100000")
    agents = [p for p in serve.processes() if b"\0agent\0" in pathlib.Path(f"/proc/{p}/cmdline").read_bytes() + b"\0" and
              pod.id.encode() in pathlib.Path(f"/proc/{p}/environ").read_bytes()]
    assert agents
    with streams.run(box.cri, container, "sh", "-c", "echo up; sleep 4713", how="spdy-v4") as c, \
            streams.run(box.cri, container, "sh", "-c", "echo up; sleep 4713", how="v5") as d, \
            streams.attach(box.cri, container, how="spdy-v4") as e:
        c.wait_output(b"up")
        d.wait_output(b"up")
        for agent in agents:
            os.kill(agent, signal.SIGKILL)
        assert "connection" in c.finish()[2] and "connection" in d.finish()[2] and "connection" in e.finish()[2]
    assert STDERR == 2


def test_a_container_that_ends_under_an_exec(box):
    container = box.pod.run("sleep", "100000")
    with streams.run(box.cri, container, "sh", "-c", "echo up; sleep 4714") as c:
        c.wait_output(b"up")
        box.cri.runtime.StopContainer(pb.StopContainerRequest(container_id=container, timeout=0))
        assert c.finish()[2] == 137


# ---- port-forward; the pod uses this machine's network, and the servers are ours ----

class Server:
    """A TCP server: serve(socket) for each connection, in a thread."""

    def __init__(self, serve, address="127.0.0.1"):
        self.serve = serve
        self.socket = socket.create_server((address, 0), backlog=200,
                                           family=socket.AF_INET6 if ":" in address else socket.AF_INET)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection):
        with connection, contextlib.suppress(ConnectionError):
            self.serve(connection)

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # for the thread in accept()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def echo(connection):
    while data := connection.recv(1 << 16):
        connection.sendall(data)


def hash_then_answer(connection):
    """Reads until the other side's half-close; only then answers."""
    digest = hashlib.md5()
    while data := connection.recv(1 << 16):
        digest.update(data)
    connection.sendall(digest.hexdigest().encode())


FORWARDS = ["spdy", "v2.portforward.k8s.io", "SPDY/3.1+portforward.k8s.io"]


@pytest.mark.parametrize("how", FORWARDS)
def test_forward(box, how):
    with Server(echo) as server, streams.Forward(streams.forward_url(box.cri, box.pod.id), how) as f:
        for _ in range(3):
            data, error = f.open(server.port)
            data.write(BYTES_4K)
            assert data.wait(lambda s: len(s.data) == len(BYTES_4K))
            data.close()
            assert data.read_all() == BYTES_4K and not data.reset
            assert error.read_all() == b"" and not error.reset


@pytest.mark.parametrize("how", FORWARDS)
def test_forward_keeps_half_closes(box, how):
    def greet(connection):
        connection.sendall(b"bye")
        connection.shutdown(socket.SHUT_WR)
        taken.append(connection.recv(100, socket.MSG_WAITALL))
    taken = []
    with Server(hash_then_answer) as server, Server(greet) as greeter, \
            streams.Forward(streams.forward_url(box.cri, box.pod.id), how) as f:
        data, _ = f.open(server.port)
        data.write(b"abc")
        data.close()
        assert data.read_all() == hashlib.md5(b"abc").hexdigest().encode()
        data, _ = f.open(greeter.port)
        assert data.read_all() == b"bye"
        time.sleep(0.1)
        data.write(b"x" * 99)
        data.write(b"y")
        eventually(lambda: taken == [b"x" * 99 + b"y"])
        data.close()


def test_forward_many_at_a_time(box):
    with Server(echo) as server, streams.Forward(streams.forward_url(box.cri, box.pod.id)) as f:
        pairs = [f.open(server.port) for _ in range(100)]
        for i, (data, _) in enumerate(pairs):
            data.write(f"{i} ".encode() * 1000)
        for i, (data, _) in enumerate(pairs):
            data.close()
        for i, (data, error) in enumerate(pairs):
            assert data.read_all() == f"{i} ".encode() * 1000 and error.read_all() == b""


def test_forward_bulk(box):
    data, want = os.urandom(1 << 20), hashlib.md5()

    def pour(connection):
        for _ in range(BULK >> 20):
            connection.sendall(data)
    for _ in range(BULK >> 20):
        want.update(data)
    with Server(hash_then_answer) as taker, Server(pour) as giver, \
            streams.Forward(streams.forward_url(box.cri, box.pod.id)) as f:
        up, _ = f.open(taker.port)
        down, _ = f.open(giver.port)
        for _ in range(BULK >> 20):
            up.write(data)
        up.close()
        assert up.read_all(120).decode() == want.hexdigest()
        assert hashlib.md5(down.read_all(120)).hexdigest() == want.hexdigest()


def test_a_slow_forward_does_not_stop_the_others(box):
    def pour(connection):
        connection.sendall(bytes(64 << 20))
        poured.append(True)
    poured = []
    with Server(pour) as giver, Server(echo) as server, \
            streams.Forward(streams.forward_url(box.cri, box.pod.id), windows=True) as f:
        f.connection.no_window_for = 7  # the second data stream's number: its reader sleeps
        other, _ = f.open(server.port)
        other.write(bytes(300000))
        assert other.wait(lambda s: len(s.data) == 300000)
        slow, _ = f.open(giver.port)
        assert slow.number == 7
        other.write(bytes(300000))
        assert other.wait(lambda s: len(s.data) == 600000)
        assert not poured and len(slow.data) < 1 << 20


def test_forward_to_a_port_where_nothing_listens(box):
    with Server(echo) as server:
        port = server.port
    with Server(echo) as server, streams.Forward(streams.forward_url(box.cri, box.pod.id)) as f:
        data, error = f.open(port)
        told = error.read_all().decode()
        assert f"error forwarding port {port} to pod {box.pod.id[:13]}" in told and "refused" in told.lower()
        data.wait(lambda s: s.reset)
        data, error = f.open(server.port)  # the connection goes on
        data.write(b"x")
        assert data.wait(lambda s: s.data == b"x")
        data.cancel()


def test_forward_to_ipv6(box):
    try:
        server = Server(echo, "::1")
    except OSError:
        pytest.skip("no ::1 on this machine")
    with server, streams.Forward(streams.forward_url(box.cri, box.pod.id)) as f:
        data, _ = f.open(server.port)
        data.write(b"six")
        assert data.wait(lambda s: s.data == b"six")


def test_forward_refuses_bad_streams(box):
    with Server(echo) as server, streams.Forward(streams.forward_url(box.cri, box.pod.id, server.port)) as f:
        for headers in ({"streamType": "data"}, {"streamType": "data", "port": 0}, {"streamType": "data", "port": 65536},
                        {"streamType": "data", "port": "x"}, {"port": server.port}, {"streamType": "other", "port": server.port},
                        {"streamType": "data", "port": server.port, "requestID": "x" * 300},
                        {"streamType": "data", "port": server.port ^ 1}):  # not one of those asked for
            assert f.connection.open(**headers).reset, headers
        # Without a requestID: one pair after another, the error stream first.
        for _ in range(2):
            error = f.connection.open(streamType="error", port=server.port)
            data = f.connection.open(streamType="data", port=server.port)
            data.write(b"old")
            data.close()
            assert data.read_all() == b"old" and error.read_all() == b""


def test_a_client_of_forwards_that_vanishes(box):
    ended = []

    def wait(connection):
        connection.sendall(b"up")
        try:
            ended.append(connection.recv(1))
        except OSError:
            ended.append(b"")
    with Server(wait) as server:
        with streams.Forward(streams.forward_url(box.cri, box.pod.id)) as f:
            for _ in range(5):
                assert f.open(server.port)[0].wait(lambda s: s.data == b"up")
            data, _ = f.open(server.port)
            assert data.wait(lambda s: s.data == b"up")
            data.cancel()
            eventually(lambda: len(ended) == 1)
        eventually(lambda: ended == [b""] * 6)


@pytest.mark.parametrize("how", ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", None])
def test_forward_over_plain_websocket(box, how):
    with Server(echo) as one, Server(lambda connection: connection.sendall(b"bye")) as two, Server(echo) as three:
        nobody = three.port
        three.close()
        for url in (streams.forward_url(box.cri, box.pod.id, one.port, two.port, nobody),
                    streams.forward_url(box.cri, box.pod.id) + f"?port={one.port},{two.port}&x=y&port={nobody}"):
            with streams.Channels(url, how) as ws:
                ws.send(0, b"hello")
                ws.wait(lambda d: d[0] == one.port.to_bytes(2, "little") + b"hello")
                ws.wait(lambda d: d[1] == one.port.to_bytes(2, "little"))
                ws.wait(lambda d: d[2] == two.port.to_bytes(2, "little") + b"bye")
                ws.wait(lambda d: d[5][:2] == nobody.to_bytes(2, "little") and b"refused" in d[5].lower())
    assert ask(streams.forward_url(box.cri, box.pod.id), {**WS_HEADERS, "Sec-WebSocket-Protocol": "v4.channel.k8s.io"})[0] == 400
    for query in ("?port=0", "?port=65536", "?port=x", "?port=%zz", "?port=" + "1," * 128):
        url = streams.forward_url(box.cri, box.pod.id)
        headers = {**WS_HEADERS, "Sec-WebSocket-Protocol": "v4.channel.k8s.io"}
        assert ask(url, headers, path=urllib.parse.urlsplit(url).path + query)[0] == 400, query
