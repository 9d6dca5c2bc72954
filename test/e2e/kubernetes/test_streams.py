# SPDX-License-Identifier: Apache-2.0
"""kubectl exec, attach, cp and port-forward."""
import hashlib
import os
import pty
import subprocess
import threading
import time

import pytest
from cluster import wait


@pytest.fixture(scope="module")
def shell(cluster):
    yield cluster.pod("shell", "sh", "-c", "mkdir -p /work; while read -r line; do echo \"read $line\"; done; sleep 1000000",
                      main={"stdin": True})
    cluster.delete("pod", "shell")


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


def test_exec_with_a_terminal(cluster, shell, carrier):
    master, slave = pty.openpty()
    process = cluster.kubectl_start("exec", "-it", shell, "--", "sh", stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    os.write(master, b"tty; exit 5\n")
    seen = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    assert process.wait(20) == 5 and b"/dev/pts/" in seen


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
    data = os.urandom(20_000_000)
    (tmp_path / "there").write_bytes(data)
    cluster.kubectl("cp", str(tmp_path / "there"), f"{shell}:/work/{carrier}")
    cluster.kubectl("cp", f"{shell}:/work/{carrier}", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data


def test_port_forward(cluster, carrier):
    cluster.pod("web", "httpd", "-f", "-p", "127.0.0.1:8473", "-h", "/etc")
    process = cluster.kubectl_start("port-forward", "web", "18473:8473", stdout=subprocess.PIPE, text=True)
    try:
        assert "Forwarding" in process.stdout.readline()
        answers = []

        def ask():
            done = subprocess.run(["nsenter", f"--net=/run/netns/{cluster.netns}", "curl", "-s", "--noproxy", "*",
                                   "http://127.0.0.1:18473/passwd"], capture_output=True, text=True, check=False)
            answers.append(done.stdout)
        threads = [threading.Thread(target=ask) for _ in range(10)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(answers) == 10 and all("root:x:0:0" in a for a in answers)
    finally:
        process.kill()
        process.wait()
        cluster.delete("pod", "web")
