# SPDX-License-Identifier: Apache-2.0
"""Metrics, health and state over HTTP, as Prometheus and an operator read them."""
import http.client
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import time

import pytest
from cri import Client, pb, pod_config, refused  # makes state_pb2, too
import state_pb2
from prometheus_client.parser import text_string_to_metric_families
from serving import BINARY, Pod, Serve
from site_queue import Site


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self.path)


def get(server, path, method="GET"):
    """(status, headers, body)"""
    connection = UnixConnection(server.operator)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


def metrics(server):
    """{(name, labels...): value}; the text is what Prometheus takes."""
    status, headers, body = get(server, "/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found, families = {}, set()
    for family in text_string_to_metric_families(body):
        assert family.name not in families and family.documentation and family.type != "unknown", family
        families.add(family.name)
        for sample in family.samples:
            key = (sample.name, *sorted(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def value(found, name, **labels):
    return found.get((name, *sorted(labels.items())))


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while True:
        got = condition()
        if got:
            return got
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def server(images):
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    site = Site("Priority")
    server = Serve(root, config=f"""
QueueHold: 1s
Metrics:
  Address: unix://{root}/operator.sock
Handlers:
  - Name: local
    Target: local
  - Name: cluster
    Target: {site.url}
""")
    server.operator = f"{root}/operator.sock"
    server.site = site
    server.start()
    assert server.ctl("load", str(images)).returncode == 0
    yield server
    server.finish()
    site.close()


@pytest.fixture
def cri(server):
    yield server.client
    server.client.remove_everything()


def test_calls_and_pods_are_counted(server, cri):
    before = metrics(server)
    pod = Pod(server, cri, "pod")
    container = pod.run("sh", "-c", "echo 0123456789; sleep 1000")
    pod.create("true")
    with refused("NOT_FOUND"):
        cri.status("nobody")
    wait_for(lambda: pod.output(container)[0])
    with Client(server.socket) as other:
        events = other.runtime.GetContainerEvents(pb.GetEventsRequest(), timeout=None)
        events.initial_metadata()
        now = metrics(server)
        assert value(now, "interlink_cri_event_subscribers") == 1
        events.cancel()

    def handled(found, method, code, kind="unary", service="runtime.v1.RuntimeService"):
        return value(found, "grpc_server_handled_total", grpc_type=kind, grpc_service=service, grpc_method=method, grpc_code=code) or 0

    assert handled(now, "RunPodSandbox", "OK") - handled(before, "RunPodSandbox", "OK") == 1
    assert handled(now, "ContainerStatus", "NotFound") - handled(before, "ContainerStatus", "NotFound") == 1
    labels = {"grpc_type": "unary", "grpc_service": "runtime.v1.RuntimeService", "grpc_method": "CreateContainer"}
    assert value(now, "grpc_server_handling_seconds_count", **labels) == handled(now, "CreateContainer", "OK")
    assert value(now, "grpc_server_handling_seconds_bucket", le="+Inf", **labels) == handled(now, "CreateContainer", "OK")
    assert value(now, "grpc_server_handling_seconds_sum", **labels) > 0
    assert value(now, "interlink_cri_pods", handler="local", state="ready") == 1
    assert value(now, "interlink_cri_pods", handler="cluster", state="ready") == 0
    assert value(now, "interlink_cri_containers", handler="local", state="running") == 1
    assert value(now, "interlink_cri_containers", handler="local", state="created") == 1
    assert value(now, "interlink_cri_agents_connected", handler="local") == 1
    assert value(now, "interlink_cri_agent_bytes_total", handler="local", direction="received") > 100
    assert value(now, "interlink_cri_agent_bytes_total", handler="local", direction="sent") > 100
    assert value(now, "interlink_cri_queue_wait_seconds_count", handler="local") >= 1
    assert value(now, "interlink_cri_container_log_bytes_total") > 10
    assert value(now, "interlink_cri_rest_requests_total", handler="local", call="create", result="ok") >= 1
    assert value(now, "interlink_cri_images") > 3
    cri.remove_everything()
    then = metrics(server)
    assert value(then, "interlink_cri_pods", handler="local", state="ready") == 0
    # What an agent carried stays counted when it has gone.
    assert value(then, "interlink_cri_agent_bytes_total", handler="local", direction="received") >= \
        value(now, "interlink_cri_agent_bytes_total", handler="local", direction="received")


def test_the_process_is_described(server):
    found = metrics(server)
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    rss = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024
    assert 0.5 < value(found, "process_resident_memory_bytes") / rss < 2
    fds = len(list(pathlib.Path(f"/proc/{server.process.pid}/fd").iterdir()))
    assert abs(value(found, "process_open_fds") - fds) <= 3
    assert value(found, "process_cpu_seconds_total") > 0
    assert abs(value(found, "process_start_time_seconds") - time.time()) < 600
    assert value(found, "interlink_cri_state_up") == 1


def test_a_queue_and_an_api_in_trouble_can_be_seen(server, cri):
    config = pod_config("waits")
    with refused("UNAVAILABLE", "4711"):
        cri.runtime.RunPodSandbox(pb.RunPodSandboxRequest(config=config, runtime_handler="cluster"))
    found = metrics(server)
    assert sum(value(found, "interlink_cri_pods", handler="cluster", state=s) for s in ("submitted", "queued")) == 1
    assert value(found, "interlink_cri_queue_oldest_seconds", handler="cluster") > 0.9
    assert value(found, "interlink_cri_jobs", handler="cluster") == 1
    assert value(found, "interlink_cri_target_up", handler="cluster") == 1
    state = json.loads(get(server, "/debug/state")[2])
    sandbox = next(s for s in state["sandboxes"] if s["name"] == "waits")
    assert sandbox["state"] in ("SUBMITTED", "QUEUED") and "4711" in sandbox["message"] and sandbox["jobId"] == "4711"
    server.site.broken = True
    try:
        with refused("UNAVAILABLE"):  # another pod: the API refuses it
            cri.runtime.RunPodSandbox(pb.RunPodSandboxRequest(config=pod_config("refused"), runtime_handler="cluster"))
        found = metrics(server)
        assert value(found, "interlink_cri_rest_requests_total", handler="cluster", call="create", result="refused") >= 1
    finally:
        server.site.broken = False


def test_health(server):
    assert get(server, "/healthz?exclude=loop&exclude=target-cluster")[::2] == (200, "ok")
    status, _, body = get(server, "/healthz?verbose&exclude=loop&exclude=target-cluster")
    assert status == 200
    assert "[+]state ok\n" in body and "[+]target-local ok\n" in body and "[+]loop excluded: ok\n" in body
    assert body.endswith("healthz check passed\n")


def test_the_state_has_everything_but_secrets(server, cri):
    secret = "s3cr3t-value"
    pod = Pod(server, cri, "shown", annotations={"note": secret})
    container = pod.run("sh", "-c", f"echo {secret} >/dev/null; sleep 1000", name="web", env={"PASSWORD": secret})
    status, headers, body = get(server, "/debug/state")
    state = json.loads(body)
    assert status == 200 and headers["Content-Type"] == "application/json"
    assert secret not in body
    record = state_pb2.Sandbox.FromString((server.root / "state" / "sandboxes" / pod.id).read_bytes()[48:])
    assert len(record.token) == 64 and record.token not in body
    sandbox = next(s for s in state["sandboxes"] if s["id"] == pod.id)
    assert sandbox["state"] == "READY" and sandbox["agent"]["ready"] and sandbox["handler"] == "local"
    assert sandbox["containers"][0]["id"] == container and sandbox["containers"][0]["state"] == "RUNNING"
    assert {h["name"] for h in state["handlers"]} == {"local", "cluster"}


def test_other_requests_are_refused(server):
    assert get(server, "/")[0] == 404
    assert get(server, "/debug/pprof")[0] == 404
    assert get(server, "/metrics", "POST")[0] == 405
    assert oct(os.stat(server.operator).st_mode & 0o777) == "0o600"


def test_many_connections_are_bounded_and_do_not_hurt(server, cri):
    held = []
    for _ in range(40):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(5)
        try:
            connection.connect(server.operator)
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost:")
        except OSError:
            pass
        held.append(connection)
    assert cri.runtime.Version(pb.VersionRequest()).runtime_name == "interlink-cri"
    for connection in held:
        connection.close()
    wait_for(lambda: works(server))


def works(server):
    try:
        return get(server, "/metrics")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


@pytest.mark.parametrize("address, word", [("0.0.0.0:9464", "machine's own"), ("192.0.2.1:80", "machine's own"), ("nonsense", "Metrics.Address"),
                                           ("unix://relative", "absolute"), ("example.org:9464", "machine's own")])
def test_an_address_that_others_could_reach_is_refused(address, word, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(f"Metrics:\n  Address: {address}\n")
    done = subprocess.run([BINARY, "serve", "--config", str(config)], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode != 0 and "Metrics.Address" in done.stderr and word in done.stderr, done.stderr


def test_on_a_port(images):
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Serve(root, config=f"Metrics:\n  Address: 127.0.0.1:{port}\n").start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/healthz?exclude=loop")
        assert connection.getresponse().read() == b"ok"
        connection.close()
    finally:
        server.finish()


def test_a_disk_that_takes_nothing_more_is_seen(images):
    """The folder of the records goes: what would be written cannot be."""
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    server = Serve(root, config=f"Metrics:\n  Address: unix://{root}/operator.sock\n").start()
    server.operator = f"{root}/operator.sock"
    try:
        (server.root / "state" / "node").rmdir()
        status, _, body = get(server, "/healthz?exclude=loop")
        assert status == 503 and "[-]state failed: " in body and "[+]target-local ok\n" in body, body
        assert body.endswith("healthz check failed\n")
    finally:
        server.finish()
