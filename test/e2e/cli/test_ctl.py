# SPDX-License-Identifier: Apache-2.0
"""`interlink-cri ctl` against a fake runtime: verbs, flags, columns and files as crictl has them."""
import contextlib
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time

import pytest
from cri import pb
from fake import IMAGE, Fake

TOP = pathlib.Path(__file__).resolve().parents[3]
BINARY = pathlib.Path(os.environ.get("INTERLINK_CRI_BINARY") or TOP / "build" / "san" / "interlink-cri")
FULL_ID = re.compile(r"^c[0-9a-f]{63}$")

POD = {"metadata": {"name": "web", "namespace": "default", "uid": "u1", "attempt": 1}, "log_directory": "/tmp/x",
       "labels": {"app": "web"}, "linux": {"security_context": {"namespace_options": {"network": 2}}}}
CONTAINER = {"metadata": {"name": "main"}, "image": {"image": "busybox"}, "command": ["top"], "log_path": "main.log",
             "labels": {"app": "web", "io.kubernetes.pod.name": "web", "io.kubernetes.pod.namespace": "default"},
             "envs": [{"key": "A", "value": "plain text"}], "linux": {}}


class Ctl:
    def __init__(self, root, fake):
        self.root, self.fake = root, fake
        self.socket = root / "cri.sock"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("CONTAINER_", "CRI", "INTERLINK_CRI_C"))}
        self.env["CONTAINER_RUNTIME_ENDPOINT"] = f"unix://{self.socket}"

    def run(self, *words, **more):
        return subprocess.run([BINARY, "ctl", *map(str, words)], env=self.env, capture_output=True, text=True, timeout=60, **more)

    def __call__(self, *words):
        result = self.run(*words)
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        return result.stdout

    def fails(self, *words):
        result = self.run(*words)
        assert result.returncode == 1, result.stdout + result.stderr
        return result.stderr

    def file(self, name, content):
        path = self.root / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def runp(self, *flags, **more):
        return self("runp", *flags, self.file("pod.json", {**POD, **more})).strip()

    def create(self, pod, **more):
        return self("create", pod, self.file("container.json", {**CONTAINER, **more}), self.root / "pod.json").strip()

    def started(self, **more):
        container = self.create(self.runp(), **more)
        self("start", container)
        return container


@pytest.fixture
def root():
    # Short, because a unix socket's path is limited.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="icri-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def ctl(root):
    fake = Fake(root / "cri.sock")
    fake.runtime.log_folder = root
    yield Ctl(root, fake)
    fake.stop()


def rows(text):
    """A table's rows, as lists of cells: columns are three blanks or more apart."""
    return [re.split(r" {3,}", line.rstrip()) for line in text.splitlines()]


# --- runtime ---

def test_version(ctl):
    assert ctl("version") == "Version:  0.1.0\nRuntimeName:  fake\nRuntimeVersion:  1.2.3\nRuntimeApiVersion:  v1\n"


def test_info(ctl):
    info = json.loads(ctl("info"))
    assert info["config"] == {"a": {"b": "c"}, "z": 1} and info["word"] == "quoted"
    assert info["runtimeHandlers"] == [{"name": "local", "features": {"user_namespaces": True}}]
    assert info["features"] == {"supplemental_groups_policy": True}
    assert info["status"]["conditions"][0] == {"message": "", "reason": "", "status": True, "type": "RuntimeReady"}
    assert list(info) == sorted(info)
    assert "config" not in json.loads(ctl("info", "-q"))
    assert "runtimeHandlers:\n- features:\n    user_namespaces: true\n  name: local\n" in ctl("info", "-o", "yaml")


# --- pods ---

def test_pods(ctl):
    one = ctl.runp()
    two = ctl.runp("--runtime", "cluster", metadata={"name": "batch", "namespace": "jobs", "uid": "u2"}, labels={})
    assert len(one) == 64 and one != two
    sent = ctl.fake.runtime.seen(pb.RunPodSandboxRequest)[1]
    assert sent.runtime_handler == "cluster" and sent.config.metadata.uid == "u2"
    table = rows(ctl("pods"))
    assert table[0] == ["POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME"]
    assert table[1] == [two[:13], "2 minutes ago", "Ready", "batch", "jobs", "0", "cluster"]
    assert table[2] == [one[:13], "2 minutes ago", "Ready", "web", "default", "1", "(default)"]
    assert ctl("pods").splitlines()[0].startswith("POD ID              CREATED             STATE ")
    assert ctl("pods", "-q") == f"{two}\n{one}\n"
    assert ctl("pods", "-q", "--name", "^we") == f"{one}\n"
    assert ctl("pods", "-q", "--namespace", "jobs|x") == f"{two}\n"
    assert ctl("pods", "-q", "--label", "app=web") == f"{one}\n"
    assert ctl("pods", "-q", "--latest") == ctl("pods", "-ql") == ctl("pods", "-q", "-n", 1) == f"{two}\n"
    assert ctl("pods", "-q", "--id", one[:10]) == f"{one}\n"
    assert ctl("stopp", one[:12]) == f"Stopped sandbox {one[:12]}\n"
    assert ctl("pods", "-q", "-s", "NotReady") == f"{one}\n"
    assert one in ctl("pods", "--no-trunc")
    listed = json.loads(ctl("pods", "-o", "json"))
    assert listed["items"][0]["metadata"] == {"name": "batch", "uid": "u2", "namespace": "jobs", "attempt": 0}
    assert listed["items"][1]["state"] == "SANDBOX_NOTREADY" and listed["items"][1]["createdAt"].isdigit()
    assert f"id: {two}\n" in ctl("pods", "-o", "yaml").replace('"', "")
    verbose = ctl("pods", "-v", "--id", one)
    assert f"ID: {one}\nName: web\nUID: u1\nNamespace: default\nAttempt: 1\nStatus: NotReady\n" in verbose
    assert "Labels:\n\tapp -> web\nRuntime: (default)\n" in verbose


def test_remove_pods(ctl):
    one, two = ctl.runp(), ctl.runp()
    assert "is running: stop it first, or use --force" in ctl.fails("rmp", one)
    assert ctl("rmp", "-f", one) == f"Stopped sandbox {one}\nRemoved sandbox {one}\n"
    assert "(NOT_FOUND)" in ctl.fails("rmp", one)
    assert "which pods?" in ctl.fails("rmp")
    assert ctl("rmp", "-fa") == f"Stopped sandbox {two}\nRemoved sandbox {two}\n"
    assert not ctl.fake.runtime.pods


def test_inspect_pod(ctl):
    pod = ctl.runp()
    seen = json.loads(ctl("inspectp", pod[:8]))
    assert list(seen) == ["runtime", "status"] and seen["runtime"] == {"job": "4711"}
    status = seen["status"]
    assert list(status) == sorted(status)
    assert re.match(r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$", status["createdAt"])
    assert status["network"] == {"additionalIps": [{"ip": "fd00::1"}], "ip": "10.0.0.1"}
    assert status["state"] == "SANDBOX_READY" and status["annotations"] == {}
    assert "runtime" not in json.loads(ctl("inspectp", "-q", pod))
    other = ctl.runp()
    assert [one["status"]["id"] for one in json.loads(ctl("inspectp", pod, other))] == [pod, other]
    assert json.loads(ctl("inspectp", "--name", "web", "--last", 1))["status"]["id"] == other
    table = ctl("inspectp", "-o", "table", pod)
    assert "Status: SANDBOX_READY\n" in table and "IP Addresses: 10.0.0.1\nAdditional IP: fd00::1\n" in table
    assert "name: web\n" in ctl("inspectp", "-o", "yaml", pod)
    assert "wanted json, yaml or table" in ctl.fails("inspectp", "-o", "xml", pod)
    assert "no pod is named" in ctl.fails("inspectp", "--name", "nonsense")


# --- files ---

def test_pod_files(ctl):
    pod = ctl.file("pod.yaml", "metadata:\n  name: y\n  namespace: d\nlinux:\n  securityContext:\n    namespaceOptions:\n      network: NODE\n")
    ctl("runp", pod)
    sent = ctl.fake.runtime.requests[-1].config
    assert sent.linux.security_context.namespace_options.network == pb.NODE
    assert re.match(r"^[0-9a-f]{8}-[0-9a-f]{4}-4", sent.metadata.uid)
    assert "a pod needs metadata with name and namespace" in ctl.fails("runp", ctl.file("p.json", {"metadata": {"name": "x"}}))
    assert "p.json: No such file" in ctl.fails("runp", "/nonexistent/p.json")
    assert "line 1, column 12: no valid JSON" in ctl.fails("runp", ctl.file("p.json", '{"metadata"}'))
    assert "p.json: metadata.attempt: wanted a whole number" in ctl.fails("runp", ctl.file("p.json", {"metadata": {"attempt": -1}}))
    odd = ctl.run("runp", ctl.file("p.json", {**POD, "hostnam": "x"}))
    assert odd.returncode == 0 and "left out: hostnam: no such field in PodSandboxConfig, did you mean hostname?" in odd.stderr


def test_container_files(ctl):
    pod = ctl.runp()
    ctl.create(pod)
    sent = ctl.fake.runtime.seen(pb.CreateContainerRequest)[0]
    assert sent.config.envs[0].value == b"plain text" and sent.config.image.user_specified_image == "busybox"
    assert sent.sandbox_config.metadata.name == "web" and sent.pod_sandbox_id == pod
    nothing = ctl.file("c.json", {"metadata": {"name": "x"}})
    assert "a container needs an image" in ctl.fails("create", pod, nothing, ctl.root / "pod.json")
    assert "create wants: POD-ID container-config" in ctl.fails("create", pod)


# --- containers ---

def test_run(ctl):
    assert "Image" not in ctl("run", "--no-pull", ctl.file("c.json", CONTAINER), ctl.file("p.json", POD))
    assert not ctl.fake.images.requests
    container = ctl("run", "-r", "cluster", ctl.root / "c.json", ctl.root / "p.json").strip()
    assert FULL_ID.match(container)
    assert ctl.fake.images.requests[0].image.image == "busybox"
    assert ctl.fake.runtime.containers[container].state == pb.CONTAINER_RUNNING
    broken = ctl.file("c.json", {**CONTAINER, "image": {"image": "missing"}})
    error = ctl.fails("run", broken, ctl.root / "p.json")
    assert "pulling missing: docker.io/library/missing:latest: the registry has no such image (NOT_FOUND)" in error
    assert "--no-pull and --with-pull" in ctl.fails("run", "--no-pull", "--with-pull", broken, ctl.root / "p.json")


def test_ps(ctl):
    ctl.fake.images.add("busybox:latest")
    pod = ctl.runp()
    running = ctl.create(pod)
    ctl("start", running)
    time.sleep(0.01)
    created = ctl.create(pod, metadata={"name": "side", "attempt": 2}, image={"image": IMAGE}, labels={})
    table = rows(ctl("ps"))
    assert table[0] == ["CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD", "NAMESPACE"]
    assert len(table) == 2 and table[1][0] == running[:13] and table[1][3:] == ["Running", "main", "0", pod[:13], "web", "default"]
    table = rows(ctl("ps", "-a"))
    assert table[1][:2] == [created[:13], IMAGE[7:20]] and table[1][3:] == ["Created", "side", "2", pod[:13], "unknown", "unknown"]
    assert rows(ctl("ps", "-ar"))[1][1] == "docker.io/library/busybox:latest"
    assert IMAGE in ctl("ps", "-a", "--no-trunc")
    assert ctl("ps", "-aq") == f"{created}\n{running}\n"
    assert ctl("ps", "-q", "--state", "Created") == ctl("ps", "-lq") == ctl("ps", "-q", "--last=1") == f"{created}\n"
    assert ctl("ps", "-aq", "--name", "^ma") == ctl("ps", "-aq", "--label", "app=web") == f"{running}\n"
    assert ctl("ps", "-aq", "--image", "busybox") == f"{created}\n{running}\n"
    assert ctl("ps", "-aq", "--image", "other") == ctl("ps", "-aq", "--pod", "0000") == ""
    assert ctl("ps", "-q", "-p", pod[:5], "--namespace", "def") == f"{running}\n"
    listed = json.loads(ctl("ps", "-a", "-o", "json"))["containers"]
    assert [c["id"] for c in listed] == [created, running] and listed[0]["podSandboxId"] == pod
    assert "- annotations:\n" in ctl("ps", "-o", "yaml")
    assert f"ID: {running}\nPodID: {pod}\nNamespace: default\nName: main\nAttempt: 0\nState: Running\nImage: busybox\n" in ctl("ps", "-v")
    assert 'wanted created, running, exited or unknown, got "odd"' in ctl.fails("ps", "-s", "odd")
    assert "is no regular expression" in ctl.fails("ps", "--name", "(")
    assert "wanted KEY=VALUE" in ctl.fails("ps", "--label", "x")


def test_inspect(ctl):
    container = ctl.create(ctl.runp())
    seen = json.loads(ctl("inspect", container[:20]))
    assert seen["pid"] == {"pid": 17}
    assert seen["status"]["startedAt"] == seen["status"]["finishedAt"] == "0001-01-01T00:00:00Z"
    ctl("start", container)
    assert json.loads(ctl("inspect", container))["status"]["startedAt"] == "2026-11-24T05:36:00.12Z"
    ctl("stop", "-t", 7, container)
    assert ctl.fake.runtime.requests[-1].timeout == 7
    status = json.loads(ctl("inspect", "-q", container))["status"]
    assert status["exitCode"] == 143 and status["finishedAt"] == "2026-11-24T05:36:01Z" and status["state"] == "CONTAINER_EXITED"
    assert "State: CONTAINER_EXITED\n" in ctl("inspect", "-o", "table", container)
    assert "Exit Code: 143\n" in ctl("inspect", "-o", "table", container)


def test_stop_and_remove(ctl):
    one, two = ctl.started(), ctl.started()
    pathlib.Path(ctl.root / "main.log").write_text("x")
    pathlib.Path(ctl.root / "main.log.1").write_text("x")
    assert "which containers?" in ctl.fails("stop")
    assert "one is enough" in ctl.fails("stop", "-a", one)
    assert "is running: stop it first" in ctl.fails("rm", one)
    assert ctl("rm", "-fk", one) == f"{one}\n{one}\n"
    assert (ctl.root / "main.log").exists()
    assert ctl("stop", "--all") == f"{two}\n"
    assert ctl("stop", "--all") == "No running containers found.\n"
    assert ctl("rm", "-a") == f"{two}\n"
    assert not (ctl.root / "main.log").exists() and not (ctl.root / "main.log.1").exists()
    assert "already" not in ctl.fails("start", "cafe")


def test_rm_goes_on(ctl):
    one, two = ctl.started(), ctl.started()
    result = ctl.run("rm", one, "nonsense", two, "-f")
    assert result.returncode == 1 and "nonsense" in result.stderr and not ctl.fake.runtime.containers


def test_exec(ctl):
    container = ctl.started()
    result = ctl.run("exec", "-s", "--timeout", 5, container, "ls", "-l", "--all")
    assert (result.returncode, result.stdout, result.stderr) == (0, "out\x00put\n", "error\n")
    sent = ctl.fake.runtime.requests[-1]
    assert list(sent.cmd) == ["ls", "-l", "--all"] and sent.timeout == 5
    assert f"the command exit in the container {container} exited with 7" in ctl.fails("exec", "-s", container, "exit", "7")
    assert "leave -i and -t out" in ctl.fails("exec", "-si", container, "ls")
    assert "which command?" in ctl.fails("exec", "-s", container)
    result = ctl.run("exec", "-s", "--name", "main", "ls")
    assert result.returncode == 0 and result.stdout == f"{container}:\nout\x00put\n"
    assert ctl.run("exec", "-sqe", "-l", "exit", "1").returncode == 0


# --- streams: what is asked for, and servers that do not do their part (the others: runtime/test_ctl_streams.py) ---

class Answers:
    """A streaming server that gives each request the same answer and closes."""

    def __init__(self, answer, context=None):
        self.requests, self.answer, self.context = [], answer, context
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            with contextlib.suppress(OSError):  # clients that do not like us
                self.answer_one(connection)

    def answer_one(self, connection):
        if self.context:
            connection = self.context.wrap_socket(connection, server_side=True)
        with connection:
            request = b""
            while b"\r\n\r\n" not in request:
                piece = connection.recv(4096)
                if not piece:
                    return
                request += piece
            self.requests.append(request.decode())
            connection.sendall(self.answer)
            if self.context:
                connection.unwrap()


@pytest.fixture
def answers():
    made = []

    def make(answer, context=None):
        made.append(Answers(answer, context))
        return made[-1]

    yield make
    for one in made:
        one.listener.close()


def test_stream_requests(ctl, answers):
    server = answers(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nused\x1b[31m\n")
    container = ctl.started()
    ctl.fake.runtime.url = f"http://127.0.0.1:{server.port}/exec/TOKEN?x=1"
    error = ctl.fails("exec", container, "ls", "-l")
    assert f"the streaming server 127.0.0.1:{server.port}: it answers 403 Forbidden: used [31m (PERMISSION_DENIED)" in error
    sent = ctl.fake.runtime.requests[-1]
    assert list(sent.cmd) == ["ls", "-l"] and (sent.stdin, sent.stdout, sent.stderr, sent.tty) == (False, True, True, False)
    lines = server.requests[-1].split("\r\n")
    assert lines[0] == "POST /exec/TOKEN?x=1 HTTP/1.1" and f"Host: 127.0.0.1:{server.port}" in lines
    assert {"Connection: Upgrade", "Upgrade: SPDY/3.1", "X-Stream-Protocol-Version: v4.channel.k8s.io"} <= set(lines)
    ctl.fails("exec", "-i", "--transport", "websocket", container, "ls")
    assert ctl.fake.runtime.requests[-1].stdin
    lines = server.requests[-1].split("\r\n")
    assert lines[0].startswith("GET /exec/TOKEN") and "Sec-WebSocket-Protocol: v5.channel.k8s.io" in lines
    ctl.fails("attach", "-i", container)
    sent = ctl.fake.runtime.requests[-1]
    assert isinstance(sent, pb.AttachRequest) and (sent.stdin, sent.stdout, sent.stderr, sent.tty) == (True, True, True, False)
    ctl.fails("port-forward", "pod", "80")
    assert ctl.fake.runtime.requests[-1].pod_sandbox_id == "pod" and "X-Stream-Protocol-Version: portforward.k8s.io" in server.requests[-1]
    ctl.fails("port-forward", "-r", "websocket", "pod", "80")
    assert "Sec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io" in server.requests[-1]


@pytest.mark.parametrize("answer, words", [
    (b"", "closed the connection without an answer"),
    (b"SSH-2.0-x\r\n\r\n", "does not speak HTTP"),
    (b"HTTP/1.1 200 OK\r\n\r\nhello", "it answers 200 OK: hello"),
    (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "another protocol"),
    (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n", "none of the protocols"),
    (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n",
     "the connection ended before the command"),
    (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
     b"\x80\x02\x00\x01\x00\x00\x00\x0azzzzzzzzzz", "the connection ended before the command"),
    (b"HTTP/1.1 404 Not Found\r\n" + b"x: " + b"y" * 100000 + b"\r\n\r\n", "does not speak HTTP"),
])
def test_odd_streaming_servers(ctl, answers, answer, words):
    ctl.fake.runtime.url = f"http://127.0.0.1:{answers(answer).port}/x"
    assert words in ctl.fails("exec", ctl.started(), "ls")


def test_lost_port_forward(ctl, answers):
    server = answers(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
                     b"X-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n")
    ctl.fake.runtime.url = f"http://127.0.0.1:{server.port}/x"
    assert "the connection to the pod is lost" in ctl.fails("port-forward", "pod", ":80")


def test_stream_urls(ctl):
    container = ctl.started()
    for url, words in (("ftp://x/", "ftp"), ("http://127.0.0.1:1/", "refused"), ("/exec/t", "127.0.0.1:10250"), ("", "not a URL")):
        ctl.fake.runtime.url = url
        assert re.search(words, ctl.fails("exec", container, "ls")), url


def test_streams_over_tls(ctl, answers):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=box", "-addext", "subjectAltName=DNS:box", "-keyout", ctl.root / "key.pem", "-out", ctl.root / "cert.pem"],
                   check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ctl.root / "cert.pem", ctl.root / "key.pem")
    server = answers(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", context)
    ctl.fake.runtime.url = f"https://127.0.0.1:{server.port}/x"
    container = ctl.started()
    assert "it answers 404 Not Found" in ctl.fails("exec", container, "ls")
    assert "it answers 404 Not Found" in ctl.fails("exec", "--tls-ca", ctl.root / "cert.pem", "--tls-sni", "box", container, "ls")
    assert "it answers" not in ctl.fails("exec", "--tls-ca", ctl.root / "cert.pem", container, "ls")
    assert "belong together" in ctl.fails("exec", "--tls-key", ctl.root / "key.pem", container, "ls")
    assert "it answers 404" in ctl.fails("exec", "--tls-cert", ctl.root / "cert.pem", "--tls-key", ctl.root / "key.pem", container, "ls")


# --- statistics, events, updates ---

def test_stats(ctl):
    one = ctl.started()
    two = ctl.create(ctl.runp(), metadata={"name": "asleep"})
    table = rows(ctl("stats", "-s", 0))
    assert table[0] == ["CONTAINER", "NAME", "CPU %", "MEM", "DISK", "INODES", "SWAP"]
    assert table[1:] == [[one[:13], "main", "25.00", "12.35MB", "40.96kB", "9", "512B"]]
    table = rows(ctl("stats", "-a", "--seconds=0"))
    assert table[2] == [two[:13], "asleep", "0.00", "0B", "0B", "0", "0B"]
    assert len(rows(ctl("stats", "-s0", "--id", two))) == 1
    assert len(rows(ctl("stats", "-s0", one[:20]))) == 2
    ctl("stats", "-s0", "-p", "pod", "--label", "a=b")
    sent = ctl.fake.runtime.requests[-1].filter
    assert sent.pod_sandbox_id == "pod" and sent.label_selector == {"a": "b"}
    answer = json.loads(ctl("stats", "-o", "json"))
    assert [s["attributes"]["id"] for s in answer["stats"]] == sorted([one, two])
    assert answer["stats"][0]["memory"]["workingSetBytes"] == {"value": "12345678"}
    assert ctl("stats", "-o", "yaml").startswith("stats:\n- attributes:\n")
    begin = time.monotonic()
    ctl("stats")
    assert time.monotonic() - begin >= 1
    assert "wanted json, yaml or table" in ctl.fails("stats", "-o", "xml")


def test_stats_again_and_again(ctl):
    ctl.started()
    process = subprocess.Popen([BINARY, "ctl", "stats", "-w", "-s0"], env=ctl.env, stdout=subprocess.PIPE, text=True)
    for _ in range(3):
        assert process.stdout.readline().startswith("CONTAINER ") and "25.00" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0


def test_pod_stats(ctl):
    pod = ctl.runp()
    table = rows(ctl("statsp", "-s", 0))
    assert table == [["POD", "POD ID", "CPU %", "MEM"], ["web", pod[:13], "25.00", "2kB"]]
    ctl("statsp", "-s0", pod)
    assert ctl.fake.runtime.requests[-1].filter.id == pod
    assert json.loads(ctl("statsp", "-o", "json"))["stats"][0]["attributes"]["id"] == pod


def test_metrics(ctl):
    assert json.loads(ctl("metricsp"))["podMetrics"][0]["metrics"][0]["value"] == {"value": "42"}
    assert json.loads(ctl("metricdescs"))["descriptors"] == [
        {"name": "container_cpu_usage_seconds_total", "help": "CPU time", "labelKeys": ["id", "name"]}]
    assert "labelKeys:" in ctl("metricdescs", "-o", "yaml")
    assert "wanted json or yaml" in ctl.fails("metricsp", "-o", "table")


def test_events(ctl):
    """Each as it comes; ends with the server, or with the one who looks on."""
    decoder, text, seen = json.JSONDecoder(), ctl("events"), []
    while text.strip():
        event, end = decoder.raw_decode(text.lstrip())
        text = text.lstrip()[end:]
        seen.append(event)
    assert [e["containerEventType"] for e in seen] == ["CONTAINER_CREATED_EVENT", "CONTAINER_STARTED_EVENT"]
    assert seen[0]["createdAt"] == "1795498560000000001"
    assert ctl("event", "-o", "yaml").count("containerId: c1\n") == 2
    assert "wanted json or yaml" in ctl.fails("events", "-o", "table")
    ctl.fake.runtime.events_held = True
    ctl.fake.runtime.cancelled.clear()
    process = subprocess.Popen([BINARY, "ctl", "events"], env=ctl.env, stdout=subprocess.PIPE, text=True)
    lines = [process.stdout.readline() for _ in range(4)]
    assert lines[0] == "{\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert ctl.fake.runtime.cancelled.wait(5)


def test_update(ctl):
    one, two = ctl.started(), ctl.started()
    assert ctl("update", "--cpu-period", 50000, "--cpu-quota=-1", "--cpu-share", 512, "--memory", 1 << 30, "--cpuset-cpus", "0-1",
               "--cpuset-mems", "0", "--oom-score-adj", "-5", one, two) == f"{one}\n{two}\n"
    sent = ctl.fake.runtime.requests[-1]
    assert sent.container_id == two and sent.linux == pb.LinuxContainerResources(
        cpu_period=50000, cpu_quota=-1, cpu_shares=512, memory_limit_in_bytes=1 << 30, cpuset_cpus="0-1", cpuset_mems="0", oom_score_adj=-5)
    assert "uses more than that (FAILED_PRECONDITION)" in ctl.fails("update", "--memory", 1, one)
    assert "wanted a number" in ctl.fails("update", "--memory", "1G", one)


def test_checkpoint(ctl):
    container = ctl.started()
    assert "--export=" in ctl.fails("checkpoint", container)
    assert "checkpoints are not offered (UNIMPLEMENTED)" in ctl.fails("checkpoint", "-e", "/tmp/x.tar", container)
    assert ctl.fake.runtime.requests[-1].location == "/tmp/x.tar"


def test_runtime_config(ctl):
    assert ctl("runtime-config") == "cgroup driver:   CGROUPFS\n"
    assert ctl("update-runtime-config", "-p", "10.1.0.0/16") == "Runtime config successfully updated\n"
    assert ctl.fake.runtime.requests[-1].runtime_config.network_config.pod_cidr == "10.1.0.0/16"
    ctl("update-runtime-config", "--pod-cidr", "")
    assert "--pod-cidr" in ctl.fails("update-runtime-config")


# --- images ---

def test_images(ctl):
    busybox = ctl.fake.images.add("busybox:1.36", pinned=True)
    twice = ctl.fake.images.add("app:1", repo_tags=["registry:5000/app:1", "registry:5000/app:2"])
    ctl.fake.images.add("gone:1", repo_tags=[])
    table = rows(ctl("images"))
    assert table[0] == ["IMAGE", "TAG", "IMAGE ID", "SIZE"]
    assert ["docker.io/library/busybox", "1.36", IMAGE[7:20], "4.26MB"] in table
    assert ["registry:5000/app", "2", twice.id[7:20], "8.52MB"] in table
    assert ["docker.io/library/gone", "<none>", f"{3:064x}"[:13], "12.8MB"] in table
    assert rows(ctl("img", "--digests", "--pinned"))[0] == ["IMAGE", "TAG", "DIGEST", "IMAGE ID", "SIZE", "PINNED"]
    assert rows(ctl("images", "busybox:1.36", "--pinned"))[1][-1] == "true"
    assert ctl("images", "-q", "busybox:1.36") == f"{busybox.id}\n"
    assert ctl("images", "-q", "-f", "dangling=true") == f"sha256:{3:064x}\n"
    assert ctl("images", "-q", "-f", "reference=busy") == f"{busybox.id}\n"
    assert ctl("images", "-q", "-f", "since=" + twice.id[7:]) == f"{busybox.id}\nsha256:{3:064x}\n"
    assert ctl("images", "-q", "-f", "before=docker.io/library/busybox:1.36").split() == [f"sha256:{3:064x}", twice.id]
    assert "wanted dangling=" in ctl.fails("images", "-f", "odd=1")
    assert json.loads(ctl("images", "-o", "json"))["images"][0]["size"] == "4260000"
    assert "RepoTags: docker.io/library/busybox:1.36\n" in ctl("images", "-v")


def test_inspect_image(ctl):
    ctl.fake.images.add("busybox:1.36")
    seen = json.loads(ctl("inspecti", "busybox:1.36"))
    assert seen["status"]["id"] == IMAGE and seen["imageSpec"] == {"os": "linux"}
    assert json.loads(ctl("inspecti"))["status"]["id"] == IMAGE
    assert "Size: 4.26MB\n" in ctl("inspecti", "-o", "table", IMAGE)
    assert "no image nonsense is here" in ctl.fails("inspecti", "nonsense")


def test_remove_images(ctl):
    ctl.fake.images.add("busybox:1.36")
    ctl.fake.images.add("app:1", repo_tags=["registry:5000/app:1", "registry:5000/app:2"])
    ctl.fake.images.add("pinned:1", pinned=True)
    ctl.started(image={"image": "busybox:1.36"})
    ctl.fake.images.add("unused:1")
    result = ctl.run("rmi", "registry:5000/app:1")
    assert result.stdout == "Deleted: registry:5000/app:1\nDeleted: registry:5000/app:2\n" and "has 2 tags" in result.stderr
    assert ctl("rmi", "--prune") == "Deleted: docker.io/library/unused:1\n"
    assert len(ctl.fake.images.images) == 2
    assert "which images?" in ctl.fails("rmi")
    assert "no image x is here" in ctl.fails("rmi", "x")
    ctl("rmi", "-a")
    assert not ctl.fake.images.images


def test_image_filesystem(ctl):
    assert json.loads(ctl("imagefsinfo"))["status"]["imageFilesystems"][0] == {
        "fsId": {"mountpoint": "/images"}, "inodesUsed": {"value": "42"}, "timestamp": "17", "usedBytes": {"value": "1234567"}}
    assert "Disk[0]: 1.235MB\nInodes[0]: 42\nMountpoint[0]: /images\n" in ctl("imagefsinfo", "-o", "table")


def test_pull(ctl):
    assert ctl("pull", "--creds", "me:se:cret", "-a", "x=y", "busybox") == f"Image is up to date for {IMAGE}\n"
    sent = ctl.fake.images.requests[-1]
    assert (sent.auth.username, sent.auth.password) == ("me", "se:cret") and sent.image.annotations["x"] == "y"
    ctl("pull", "--auth", "bWU6cHc=", "--pod-config", ctl.file("p.json", POD), "busybox")
    assert ctl.fake.images.requests[-1].auth.auth == "bWU6cHc=" and ctl.fake.images.requests[-1].sandbox_config.metadata.name == "web"
    asked = ctl.run("pull", "-u", "me", "busybox", input="secret\n")
    assert asked.returncode == 0 and ctl.fake.images.requests[-1].auth.password == "secret"
    assert "--creds and --auth" in ctl.fails("pull", "--creds", "a:b", "--auth", "x", "busybox")
    assert "the registry has no such image (NOT_FOUND)" in ctl.fails("pull", "missing")


def on_terminal(ctl, *words):
    """Runs with standard error and output on a terminal; returns (status, what it showed)."""
    leader, follower = pty.openpty()
    process = subprocess.Popen([BINARY, "ctl", *words], env=ctl.env, stdout=follower, stderr=follower, stdin=subprocess.DEVNULL)
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(leader)
    return process.wait(), shown.decode()


@pytest.mark.parametrize("control", [True, False])
def test_pull_on_a_terminal(root, control):
    fake = Fake(root / "cri.sock", control=control)
    status, shown = on_terminal(Ctl(root, fake), "pull", "busybox")
    fake.stop()
    assert status == 0 and shown.endswith(f"\r\x1b[KImage is up to date for {IMAGE}\r\n")
    if control:
        assert "1/2 parts" in shown and "501kB of 1MB" in shown


def test_colours(ctl):
    ctl.started()
    assert "\x1b[32mRunning\x1b[0m" in on_terminal(ctl, "ps")[1]
    ctl.env["NO_COLOR"] = "1"
    assert "\x1b[32m" not in on_terminal(ctl, "ps")[1]


def test_load(ctl):
    archive = ctl.file("image.tar", "x")
    result = subprocess.run([BINARY, "ctl", "load", "--base-name", "app", "image.tar"], env=ctl.env, cwd=ctl.root, capture_output=True, text=True)
    assert result.stdout == "Loaded image: docker.io/library/loaded:1\n", result.stderr
    assert ctl.fake.control.requests[0].path == str(archive) and ctl.fake.control.requests[0].base_name == "app"
    assert "No such file" in ctl.fails("load", "/nonexistent.tar")


# --- logs ---

LOG = ("2026-01-01T00:00:01.000000000Z stdout F one\n"
       "2026-01-01T00:00:02.000000000Z stdout P tw\n"
       "2026-01-01T00:00:02.500000000Z stdout F o\n"
       "2026-01-01T00:00:03.000000000Z stderr F three\n")


def test_logs(ctl):
    container = ctl.started()
    assert "No such file" in ctl.fails("logs", container)
    (ctl.root / "main.log").write_text(LOG)
    result = ctl.run("logs", container)
    assert (result.returncode, result.stdout, result.stderr) == (0, "one\ntwo\n", "three\n")
    both = [BINARY, "ctl", "logs", container]
    (ctl.root / "main.log").write_text("".join(reversed(LOG.splitlines(True))))
    assert subprocess.run(both, env=ctl.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout == "three\no\ntwone\n"
    (ctl.root / "main.log").write_text(LOG)
    assert ctl.run("logs", "-t", container).stdout == "2026-01-01T00:00:01.000000000Z one\n2026-01-01T00:00:02.000000000Z two\n"
    assert ctl("logs", "--tail", 0, container) == ""
    assert ctl.run("logs", "--tail=2", container).stdout == "o\n"
    assert ctl.run("logs", "--since", "2026-01-01T00:00:02.2Z", container).stdout == "o\n"
    assert ctl("logs", "--since", "10m", container) == ""
    assert ctl("logs", "-s", "stdout", container) == "one\ntwo\n"
    assert ctl("logs", "--limit-bytes", 5, container) == "one\nt"
    assert "--tail and --stream" in ctl.fails("logs", "--tail", 1, "-s", "stdout", container)
    assert "wanted a duration" in ctl.fails("logs", "--since", "yesterday", container)
    assert "has no previous instance" in ctl.fails("logs", "-p", container)
    ctl.run("logs", "-r", container)
    assert ctl.fake.runtime.seen(pb.ReopenContainerLogRequest)
    no_log = ctl.create(ctl.runp(), log_path="")
    assert "the container writes no log" in ctl.fails("logs", no_log)


def test_previous_log(ctl):
    container = ctl.create(ctl.runp(), metadata={"name": "main", "attempt": 3}, log_path="3.log")
    (ctl.root / "2.log").write_text(LOG)
    assert ctl.run("logs", "-p", container).stdout == "one\ntwo\n"


def test_follow(ctl):
    """Over a rotation, until the container ends."""
    container = ctl.started()
    log = ctl.root / "main.log"
    log.write_text("")
    process = subprocess.Popen([BINARY, "ctl", "logs", "-f", container], env=ctl.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def write(first, count):
        with log.open("a") as file:
            for i in range(first, first + count):
                file.write(f"2026-01-01T00:00:01.000000000Z stdout F {i}\n")
                file.flush()

    write(0, 500)
    assert process.stdout.readline() == "0\n"
    write(500, 10)
    log.rename(ctl.root / "main.log.1")
    time.sleep(0.3)
    write(510, 500)
    time.sleep(0.3)
    write(1010, 1)
    ctl("stop", container)
    out = process.stdout.read()
    assert (process.wait(20), process.stderr.read()) == (0, "")
    assert out.split() == [str(i) for i in range(1, 1011)]


def test_follow_ends_with_the_reader(ctl):
    container = ctl.started()
    log = ctl.root / "main.log"
    log.write_text("2026-01-01T00:00:01.000000000Z stdout F x\n" * 100000)
    assert subprocess.run(f"{BINARY} ctl logs -f {container} | head -n 1", shell=True, env=ctl.env, capture_output=True, text=True,
                          timeout=20).stdout == "x\n"
    process = subprocess.Popen([BINARY, "ctl", "logs", "-f", container], env=ctl.env, stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0


# --- trouble ---

def test_nobody_there(root):
    ctl = Ctl(root, None)
    error = ctl.fails("ps")
    assert "cannot connect" in error and "Is `interlink-cri serve` running" in error
    ctl.env["CONTAINER_RUNTIME_ENDPOINT"] = "tcp://127.0.0.1:1"
    assert "CRI runs over a unix socket" in ctl.fails("ps")


def test_not_a_runtime(root):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "cri.sock"))
        listener.listen()
        ctl = Ctl(root, None)
        assert "(DEADLINE_EXCEEDED)" in ctl.fails("--timeout", "300ms", "version")
        closer = threading.Thread(target=lambda: [listener.accept()[0].close() for _ in range(2)])
        closer.start()
        assert ctl.run("version").returncode == 1
        closer.join(10)


def test_endpoints(ctl):
    elsewhere = dict(ctl.env, CONTAINER_RUNTIME_ENDPOINT="unix:///nonexistent")
    run = lambda *words: subprocess.run([BINARY, "ctl", *map(str, words)], env=elsewhere, capture_output=True, text=True)  # noqa: E731
    assert run("-r", ctl.socket, "version").returncode == 0
    assert run("--runtime-endpoint", f"unix://{ctl.socket}", "version").returncode == 0
    assert run("-runtime-endpoint=unix://" + str(ctl.socket), "version").returncode == 0
    assert run("version").returncode == 1
    del elsewhere["CONTAINER_RUNTIME_ENDPOINT"]
    assert run("-c", ctl.file("config.yaml", f"Socket: {ctl.socket}\n"), "version").returncode == 0
    assert run("-c", ctl.file("crictl.yaml", f"runtime-endpoint: unix://{ctl.socket}\ntimeout: 2\ndebug: false\n"), "version").returncode == 0
    elsewhere["INTERLINK_CRI_SOCKET"] = str(ctl.socket)
    assert run("version").returncode == 0
    assert "bad.yaml: line 1, column 1: Sokcet: no such key, did you mean Socket?" in run("-c", ctl.file("bad.yaml", "Sokcet: x\n"), "version").stderr


def test_queue_words(ctl):
    assert "running the pod: job 4711 is queued: Priority (UNAVAILABLE)" in ctl.fails("runp", "-r", "full", ctl.file("p.json", POD))


def test_cancel(ctl):
    pod = ctl.file("p.json", POD)
    assert "(DEADLINE_EXCEEDED)" in ctl.fails("runp", "-T", "300ms", "-r", "slow", pod)
    assert ctl.fake.runtime.cancelled.wait(5)
    ctl.fake.runtime.cancelled.clear()
    process = subprocess.Popen([BINARY, "ctl", "runp", "-r", "slow", pod], env=ctl.env, stderr=subprocess.PIPE, text=True)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 1 and "interrupted" in process.stderr.read()
    assert ctl.fake.runtime.cancelled.wait(5)


def test_words(ctl):
    help = ctl("--help")
    verbs = re.findall(r"^  ([a-z-]+) {2,}[A-Z]", help, re.M)
    assert verbs == ("version info runp create start run ps pods logs exec attach port-forward stop rm stopp rmp inspect inspectp pull load images rmi "
                     "inspecti imagefsinfo stats statsp metricsp metricdescs events update checkpoint runtime-config "
                     "update-runtime-config").split()
    manual = (TOP / "docs" / "interlink-cri.1").read_text().split(".SH CTL")[1].split(".SH EXIT")[0].replace("\\fP", " ").replace("\\-", "-")
    for verb in verbs:
        assert re.search(rf"\b{verb}\b", manual), f"the manual lacks {verb}"
        assert ctl(verb, "--help").startswith(f"Usage: interlink-cri ctl {verb}")
    assert "unknown command inspekt, did you mean inspect?" in ctl.fails("inspekt")
    assert "unknown option --outptu, did you mean --output?" in ctl.fails("ps", "--outptu", "json")
    assert "version takes no arguments" in ctl.fails("version", "x")
