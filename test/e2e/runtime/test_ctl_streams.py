# SPDX-License-Identifier: Apache-2.0
"""`ctl exec`, `attach` and `port-forward` against the real server: pipes, files, terminals, signals, both transports."""
import fcntl
import hashlib
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time

import pytest
from cri import pb
from serving import BINARY

TRANSPORTS = ["spdy", "websocket"]


@pytest.fixture
def container(pod):
    return pod.run("sleep", "1000")


class Run:
    """`ctl` as a child of ours."""

    def __init__(self, serve, *words, **more):
        self.process = subprocess.Popen(serve.command("ctl", "-r", f"unix://{serve.socket}", *map(str, words)), env=serve.env, **more)

    def wait(self, seconds=30):
        return self.process.wait(seconds)


class Terminal(Run):
    """`ctl` in a terminal of its own, as a shell's foreground job."""

    def __init__(self, serve, *words, size=(24, 80), **more):
        self.master, self.slave = pty.openpty()
        self.resize(*size)
        self.before = termios.tcgetattr(self.slave)
        self.text = b""

        def take():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        more.setdefault("stdout", self.slave)
        more.setdefault("stderr", self.slave)
        super().__init__(serve, *words, stdin=self.slave, preexec_fn=take, **more)

    def resize(self, rows, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.master, text)

    def expect(self, pattern, seconds=20):
        """Waits until it is shown; what was shown up to its end is used up."""
        end = time.monotonic() + seconds
        while True:
            match = re.search(pattern, self.text)
            if match:
                self.text = self.text[match.end():]
                return match
            if not select.select([self.master], [], [], max(0, end - time.monotonic()))[0]:
                raise AssertionError(f"no {pattern!r} in {self.text!r}")
            self.text += os.read(self.master, 65536)

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def is_restored(self):
        return termios.tcgetattr(self.slave) == self.before

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(serve):
    made = []

    def make(*words, **more):
        made.append(Terminal(serve, *words, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


def run(serve, *words, input=b"", **more):
    return subprocess.run(serve.command("ctl", "-r", f"unix://{serve.socket}", *map(str, words)), env=serve.env, input=input,
                          capture_output=True, timeout=60, check=False, **more)


# --- exec without a terminal ---

@pytest.mark.parametrize("transport", TRANSPORTS)
def test_streams_and_the_exit_status(serve, container, transport):
    result = run(serve, "exec", "-r", transport, container, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.returncode, result.stdout, result.stderr) == (7, b"out\n", b"err\n")
    assert run(serve, "exec", "-r", transport, container, "true").returncode == 0
    assert run(serve, "exec", "-r", transport, container, "sh", "-c", "kill -9 $$").returncode == 137
    # Without -i it has no input.
    assert run(serve, "exec", "-r", transport, container, "cat", input=b"lost").stdout == b""
    assert run(serve, "exec", "-e", container, "false").returncode == 0


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_input_comes_back_unchanged(serve, container, transport, tmp_path):
    data = os.urandom(5_000_000)
    result = run(serve, "exec", "-i", "-r", transport, container, "cat", input=data)
    assert result.returncode == 0 and hashlib.sha256(result.stdout).digest() == hashlib.sha256(data).digest()
    # From a file and into one.
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(data)
    with source.open("rb") as stdin, target.open("wb") as stdout:
        assert Run(serve, "exec", "-i", "-r", transport, container, "md5sum", stdin=stdin, stdout=stdout).wait() == 0
    assert target.read_bytes().split()[0].decode() == hashlib.md5(data).hexdigest()
    # Both ways through sockets.
    ours, theirs = socket.socketpair()
    process = Run(serve, "exec", "-i", "-r", transport, container, "cat", stdin=theirs, stdout=theirs)
    theirs.close()
    writer = threading.Thread(target=lambda: (ours.sendall(data[:1_000_000]), ours.shutdown(socket.SHUT_WR)))
    writer.start()
    back = b"".join(iter(lambda: ours.recv(65536), b""))
    writer.join(20)
    assert process.wait() == 0 and back == data[:1_000_000]
    ours.close()


def test_a_reader_that_is_slow_or_goes(serve, container):
    process = Run(serve, "exec", container, "head", "-c", "20000000", "/dev/zero", stdout=subprocess.PIPE)
    time.sleep(0.5)
    assert len(process.process.stdout.read()) == 20_000_000 and process.wait() == 0
    process = Run(serve, "exec", container, "cat", "/dev/zero", stdout=subprocess.PIPE)
    assert process.process.stdout.read(10) == b"\0" * 10
    process.process.stdout.close()
    assert process.wait() == 1
    # Nothing of ours made the pipe non-blocking for those we share it with.
    reader, writer = os.pipe()
    process = Run(serve, "exec", container, "echo", "x", stdout=writer)
    assert process.wait() == 0 and os.read(reader, 10) == b"x\n"
    assert not fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK
    os.close(reader)
    os.close(writer)


def test_errors(serve, container, pod, cri):
    result = run(serve, "exec", container, "/no/such")
    assert result.returncode == 1 and b"/no/such" in result.stderr and b"no such file" in result.stderr
    result = run(serve, "exec", "f" * 64, "true")
    assert result.returncode == 1 and b"NOT_FOUND" in result.stderr
    result = run(serve, "exec", "-t", container, "true")
    assert result.returncode == 1 and b"-t needs -i" in result.stderr
    result = run(serve, "exec", "-it", container, "true")
    assert result.returncode == 1 and b"standard input is no terminal" in result.stderr
    result = run(serve, "exec", "-r", "pigeon", container, "true")
    assert result.returncode == 1 and b"wanted spdy or websocket" in result.stderr
    result = run(serve, "attach", "-i", container)
    assert result.returncode == 1 and b"created without a standard input" in result.stderr
    ended = pod.run("true")
    cri.wait_exit(ended)
    assert b"not running" in run(serve, "attach", ended).stderr


def test_limits_in_time(serve, container, cri):
    start = time.monotonic()
    result = run(serve, "exec", "--timeout", 1, container, "sleep", "999")
    assert result.returncode == 1 and b"did not end within 1 s" in result.stderr and time.monotonic() - start < 10
    for number in (signal.SIGINT, signal.SIGTERM):
        process = Run(serve, "exec", container, "sh", "-c", "echo go; sleep 999", stdout=subprocess.PIPE)
        assert process.process.stdout.read(3) == b"go\n"
        process.process.send_signal(number)
        assert process.wait() == 128 + number
    end = time.monotonic() + 10
    while b"999" in cri.exec_sync(container, "ps").stdout:
        assert time.monotonic() < end, "the command lives on without its client"
        time.sleep(0.1)


def test_in_every_container_that_fits(serve, pod):
    one, two = pod.run("sleep", "1000", name="one"), pod.run("sleep", "1000", name="two")
    result = run(serve, "exec", "--name", "^(one|two)$", "sh", "-c", "echo hi; exit 3")
    assert result.returncode == 3 and sorted(result.stdout.split()) == sorted([f"{one}:".encode(), f"{two}:".encode(), b"hi", b"hi"])


# --- exec in a terminal ---

@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_session(serve, container, terminal, transport):
    t = terminal("exec", "-it", "-r", transport, container, "sh", size=(30, 90))
    t.expect(rb"# |\$ ")
    assert t.is_raw()
    t.type(b"stty size\n")
    t.expect(rb"\r\n30 90\r\n")
    t.resize(40, 120)
    t.process.send_signal(signal.SIGWINCH)
    time.sleep(0.3)
    t.type(b"stty size; tty\n")
    t.expect(rb"\r\n40 120\r\n/dev/pts/\d+\r\n")
    # Keys are the command's: an interrupt does not end us.
    t.type(b"sh -c 'echo begun; sleep 1000'\n")
    t.expect(rb"\r\nbegun\r\n")
    t.type(b"\x03")
    t.expect(rb"# |\$ ")
    t.type(b"\x10a\x10\x10b\n")  # a lone ctrl-p is a key like others
    t.expect(rb"\^P|not found|\$ |# ")
    t.type(b"exit 5\n")
    assert t.wait() == 5
    assert t.is_restored()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGABRT])
def test_signals_put_the_terminal_back(serve, container, terminal, number):
    t = terminal("exec", "-it", container, "sh", "-c", "echo ready; sleep 1000")
    t.expect(rb"ready")
    assert t.is_raw()
    t.process.send_signal(number)
    assert t.wait() in (128 + number, -number)
    assert t.is_restored()


def test_stopped_and_continued(serve, container, terminal):
    t = terminal("exec", "-it", container, "sh")
    t.expect(rb"# |\$ ")
    t.process.send_signal(signal.SIGTSTP)
    assert os.WIFSTOPPED(os.waitpid(t.process.pid, os.WUNTRACED)[1])
    assert t.is_restored()
    t.resize(50, 100)
    t.process.send_signal(signal.SIGCONT)
    end = time.monotonic() + 10
    while not t.is_raw():
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(0.3)
    t.type(b"stty size; exit 0\n")
    t.expect(rb"50 100\r\n")
    assert t.wait() == 0 and t.is_restored()


def test_the_other_side_goes(serve, pod, terminal, cri):
    """The container is killed; the terminal's reader goes."""
    container = pod.run("sleep", "1000")
    t = terminal("exec", "-it", container, "sh")
    t.expect(rb"# |\$ ")
    cri.runtime.StopContainer(pb.StopContainerRequest(container_id=container, timeout=0))
    assert t.wait() != 0
    assert t.is_restored()
    container = pod.run("sleep", "1000")
    reader, writer = os.pipe()
    t = terminal("exec", "-it", container, "sh", "-c", "echo ready; sleep 0.5; cat /dev/zero", stdout=writer)
    os.close(writer)
    assert os.read(reader, 5) == b"ready"
    os.close(reader)
    assert t.wait() == 1 and t.is_restored()


def test_leaving(serve, pod, terminal, cri):
    container = pod.run("sh", tty=True, stdin=True)
    t = terminal("attach", "-it", container)
    t.type(b"echo a$((1 + 1))z\n")
    t.expect(rb"a2z")
    t.type(b"\x10\x11")
    assert t.wait() == 0 and t.is_restored()
    t = terminal("attach", "-it", "-r", "websocket", container)
    t.type(b"stty size; exit 3\n")
    t.expect(rb"24 80")
    assert t.wait() == 0 and t.is_restored()
    assert cri.wait_exit(container).exit_code == 3


# --- attach ---

@pytest.mark.parametrize("transport", TRANSPORTS)
def test_attach(serve, pod, transport):
    container = pod.run("sh", stdin=True, stdin_once=True)
    watcher = Run(serve, "attach", "-r", transport, container, stdout=subprocess.PIPE)
    time.sleep(0.3)
    result = run(serve, "attach", "-i", "-r", transport, container, input=b"echo hello\nexit 4\n")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"hello\n", b"")
    assert watcher.process.communicate(timeout=20)[0] == b"hello\n" and watcher.wait() == 0
    assert pod.output(container)[0] == b"hello\n"


# --- port-forward ---

class Forward(Run):
    def __init__(self, serve, pod, *ports, transport="spdy"):
        super().__init__(serve, "port-forward", "-r", transport, pod.id, *ports, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.ports = []
        for _ in ports:
            line = self.process.stdout.readline()
            self.ports.append(int(re.match(r"Forwarding from 127\.0\.0\.1:(\d+) -> \d+$", line).group(1)))
            if socket.has_ipv6 and os.path.exists("/proc/net/if_inet6"):
                assert re.match(r"Forwarding from \[::1\]:\d+ -> \d+$", self.process.stdout.readline())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_port_forward(serve, pod, transport):
    with socket.create_server(("127.0.0.1", 0)) as server:
        def answer():
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:
                    return
                threading.Thread(target=echo, args=(connection,)).start()

        def echo(connection):
            with connection:
                data = b"".join(iter(lambda: connection.recv(65536), b""))
                connection.sendall(data[::-1])

        threading.Thread(target=answer, daemon=True).start()
        unused = socket.create_server(("127.0.0.1", 0))
        nobody = unused.getsockname()[1]
        unused.close()
        forward = Forward(serve, pod, f":{server.getsockname()[1]}", f"0:{nobody}", transport=transport)
        data = os.urandom(500_000)
        connections = [socket.create_connection(("127.0.0.1", forward.ports[0])) for _ in range(5)]
        for connection in connections:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        for connection in connections:
            assert b"".join(iter(lambda: connection.recv(65536), b"")) == data[::-1]
            connection.close()
        with socket.create_connection(("127.0.0.1", forward.ports[1])) as refused:
            assert refused.recv(1) == b""
        assert "connection refused on 127.0.0.1" in forward.process.stderr.readline()
        # The others are not disturbed by that.
        with socket.create_connection(("127.0.0.1", forward.ports[0])) as connection:
            connection.sendall(b"abc")
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(10) == b"cba"
        forward.process.send_signal(signal.SIGINT)
        out, _ = forward.process.communicate(timeout=20)
        assert forward.wait() == 0 and out.count("Handling connection for") == 7
    assert b"wanted [LOCAL_PORT:]REMOTE_PORT" in run(serve, "port-forward", pod.id, "80x").stderr
    assert run(serve, "port-forward", pod.id, "0").returncode == 1


def test_the_pod_of_a_port_forward_goes(serve, pod, cri):
    with socket.create_server(("127.0.0.1", 0)) as server:
        forward = Forward(serve, pod, f":{server.getsockname()[1]}")
        connection = socket.create_connection(("127.0.0.1", forward.ports[0]))
        server.accept()[0].close()
        assert connection.recv(1) == b""
        connection.close()
        cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.id))
        _, errors = forward.process.communicate(timeout=20)  # the session ends with the pod, and says so
        assert forward.process.returncode == 1 and errors.strip(), errors
