# SPDX-License-Identifier: Apache-2.0
"""kubectl exec, attach, cp and port-forward."""
import contextlib
import fcntl
import hashlib
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from concurrent import futures

import pytest
from cluster import Place, wait

PORTS = {"local": 8473, "remote": 8474}


@pytest.fixture(scope="module", params=["local", "remote"])
def shell(request, cluster, remote):
    place = Place(cluster, request.param)
    yield place.pod("shell", "sh", "-c", "mkdir -p /work; while read -r line; do echo \"read $line\"; done; sleep 1000000",
                    main={"stdin": True})
    place.close()


@pytest.fixture(params=["websocket", "spdy"])
def carrier(request, cluster, monkeypatch):
    """kubectl speaks WebSocket to the API server unless told otherwise; the API server speaks SPDY to the node."""
    value = "true" if request.param == "websocket" else "false"
    for name in ("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS"):
        monkeypatch.setitem(cluster.env, name, value)
    return request.param


def test_exec(cluster, shell, carrier):
    assert cluster.kubectl("exec", shell, "--", "echo", "hello").stdout == "hello\n"
    done = cluster.kubectl("exec", shell, "--", "sh", "-c", "echo out; echo err >&2; exit 42", check=False)
    assert (done.returncode, done.stdout) == (42, "out\n") and done.stderr.startswith("err\n")
    data = os.urandom(3_000_000)
    done = cluster.kubectl("exec", "-i", shell, "--", "sha256sum", stdin=data, text=False)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    done = cluster.kubectl("exec", shell, "--", "/no/such", check=False)
    assert done.returncode != 0 and "no such file" in done.stderr.lower()


def until(master, *words, seconds=20):
    """What a terminal shows, until it shows all the words."""
    seen, end = b"", time.monotonic() + seconds
    while not all(w in seen for w in words):
        assert time.monotonic() < end and select.select([master], [], [], seconds)[0], seen
        seen += os.read(master, 4096)
    return seen


def test_exec_with_a_terminal(cluster, shell, carrier):
    """Its size, a change of it, ^C, the exit code."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    process = cluster.kubectl_start("exec", "-it", shell, "--", "sh", stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    os.write(master, b"tty; while [ \"$(stty size)\" != '33 99' ]; do sleep 0.1; done; echo sized-$((1+1))\n")
    until(master, b"/dev/pts/", b"sized-2")
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 111, 0, 0))
    process.send_signal(signal.SIGWINCH)
    os.write(master, b"while [ \"$(stty size)\" != '44 111' ]; do sleep 0.1; done; echo sized-$((2+2))\n")
    until(master, b"sized-4")
    os.write(master, b"echo sleeps-$((1+2)); sleep 1000\n")
    until(master, b"sleeps-3")
    time.sleep(0.5)
    os.write(master, b"\x03")
    os.write(master, b"echo after-$((3+3)); exit 5\n")
    until(master, b"after-6")
    assert process.wait(20) == 5
    os.close(master)


def test_attach(cluster, shell, carrier):
    process = cluster.kubectl_start("attach", "-i", shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    time.sleep(1)
    process.stdin.write(f"by {carrier}\n".encode())
    process.stdin.flush()
    assert process.stdout.readline() == f"read by {carrier}\n".encode()
    process.kill()
    process.wait()
    wait(lambda: f"read by {carrier}" in cluster.kubectl("logs", shell).stdout, 10)


def test_cp(cluster, shell, carrier, tmp_path):
    """A large file both ways, and a folder with what may be in one."""
    data = os.urandom((100 if carrier == "websocket" else 10) * 1_000_000)
    (tmp_path / "there").write_bytes(data)
    cluster.kubectl("cp", str(tmp_path / "there"), f"{shell}:/work/{carrier}")
    cluster.kubectl("cp", f"{shell}:/work/{carrier}", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "with blank").write_text("x")
    (folder / "run").write_text("#!/bin/sh\necho ran\n")
    (folder / "run").chmod(0o755)
    cluster.kubectl("cp", str(folder), f"{shell}:/work/folder-{carrier}")
    assert cluster.kubectl("exec", shell, "--", "sh", "-c", f"/work/folder-{carrier}/run; cat '/work/folder-{carrier}/deep/with blank'").stdout == "ran\nx"


@contextlib.contextmanager
def forwarding(cluster, what, ports):
    process = cluster.kubectl_start("port-forward", what, ports, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        line = process.stdout.readline()
        assert "Forwarding" in line, line
        yield
    finally:
        process.kill()
        process.wait()


FETCH = """import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 18473, timeout=30)
connection.request("GET", "/" + sys.argv[1])
sys.stdout.buffer.write(connection.getresponse().read())"""


def fetched(cluster, path):
    return subprocess.run(cluster.inside(sys.executable, "-c", FETCH, path), capture_output=True, check=False).stdout


@pytest.fixture(scope="module", params=["local", "remote"])
def web(request, cluster, remote):
    """Serves 20 MB on its loopback alone; with a Service."""
    place = Place(cluster, request.param)
    app = f"web-{place.name}"
    name = place.pod("web", "sh", "-c", "mkdir /www; head -c 20000000 /dev/urandom >/www/large; sha256sum /www/large; echo hello >/www/small; "
                     f"exec httpd -f -p 127.0.0.1:{PORTS[place.name]} -h /www", metadata={"labels": {"app": app}})
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": app},
                   "spec": {"selector": {"app": app}, "ports": [{"port": 80, "targetPort": PORTS[place.name]}]}})
    cluster.ready(name)
    wait(lambda: len(cluster.logs(name).split()) == 2, 20)
    yield place.name, name
    cluster.delete("service", app)
    place.close()


def test_port_forward(cluster, web, carrier):
    """To a pod and to a Service, many connections at once, bulk, and a port on which nobody listens."""
    place, name = web
    digest = cluster.logs(name).split()[0]
    with forwarding(cluster, f"pod/{name}", f"18473:{PORTS[place]}"):
        with futures.ThreadPoolExecutor(10) as pool:
            assert list(pool.map(lambda _: fetched(cluster, "small"), range(20))) == [b"hello\n"] * 20
        assert hashlib.sha256(fetched(cluster, "large")).hexdigest() == digest
    with forwarding(cluster, f"service/web-{place}", "18473:80"):
        assert fetched(cluster, "small") == b"hello\n"
    with forwarding(cluster, f"pod/{name}", "18473:9"):
        assert fetched(cluster, "small") == b""
