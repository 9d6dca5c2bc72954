# SPDX-License-Identifier: Apache-2.0
"""JobPer: container: each container is an interLink pod of its own, behind an API server and a plugin that know nothing of us."""
import base64
import os
import sys
import tempfile
import time

import grpc
import pytest
import streams
from cri import container_config, pb, pod_config, refused
from kubelet_dir import Kubelet
from process_site import ProcessSite
from serving import BINARY, TOP, Pod, Serve, free_port

sys.path.insert(0, str(TOP / "test" / "e2e" / "interlink"))
from kit import ApiServer  # noqa: E402 - the path must be known first

# A status query is not repeated sooner than 10.5 s: what is waited for in a test ends with one of the next two.
PATIENCE = 30


@pytest.fixture(scope="module")
def serve(images):
    """Handler `site` has no agent anywhere; with `inside` one runs each container's command."""
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    site = ProcessSite(f"{root}/jobs")
    server = Serve(root, config=f"""
SharedPaths: [{root}/shared]
QueueHold: 1s
Relay:
  Listen: 127.0.0.1:{free_port()}
Handlers:
  - Name: site
    Target: unix://{root}/api.sock
    JobPer: container
  - Name: inside
    Target: unix://{root}/api.sock
    JobPer: container
    Program: {BINARY}
""")
    (site.dir.parent / "tmp").mkdir()
    site.environment["TMPDIR"] = f"{root}/tmp"
    site.environment.update({name: server.env[name] for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS")})
    server.kind = "root"
    server.site = site
    server.api = ApiServer(root, "--plugin", site.url)
    server.api.start()
    server.start()
    assert server.ctl("load", str(images)).returncode == 0
    yield server
    server.client.remove_everything()
    left = list(site.jobs)
    server.api.close()
    site.close()
    server.finish()
    assert not left, "jobs were forgotten"


@pytest.fixture
def cri(serve):
    yield serve.client
    serve.client.remove_everything()


def state(cri, container):
    return pb.ContainerState.Name(cri.status(container).state).removeprefix("CONTAINER_")


def wait(condition, what, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return value


def exited(cri, container):
    wait(lambda: state(cri, container) == "EXITED", f"the end of {container[:13]}")
    return cri.status(container)


def create_of(serve, container_name):
    return next(c for c in reversed(serve.site.creates) if c["pod"]["spec"]["containers"][0]["name"] == container_name)


COUNTING = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done"


def test_a_life(serve, cri):
    """Output, exit codes, a queue, a restart, stop, what is not offered, kill -9: side by side, for each waits for the next status
    query. In the queue a container is RUNNING, since kubelet would make another one of it if it did not start."""
    serve.api.raw("POST", "/_queue", {"hold": {"reason": "Priority", "message": "12 ahead"}})
    waiting = Pod(serve, cri, "queue")
    queued = waiting.run("sh", "-c", "echo done", name="queued")
    dropped = waiting.run("true", name="dropped")
    assert state(cri, queued) == state(cri, dropped) == "RUNNING"
    serve.api.raw("POST", "/_queue", {"hold": None})
    wait(lambda: "is queued: Priority, 12 ahead" in cri.status(queued).message, "the queue's words")
    cri.runtime.StopContainer(pb.StopContainerRequest(container_id=dropped, timeout=0))
    assert state(cri, dropped) == "EXITED"
    serve.api.raw("POST", "/_queue", {"pod": "queue", "release": True})

    pod = Pod(serve, cri, "life")
    short = pod.run("sh", "-c", "echo one; echo two >&2; printf end; exit 7", name="short")
    good = pod.run("sh", "-c", "cd /; pwd", name="good", working_dir="/tmp", env={"A": "x y'\"$z"})
    long = pod.run("sh", "-c", COUNTING, name="long")
    trap = pod.run("sh", "-c", "echo up; sleep 1000", name="trap")

    # What interLink's REST cannot do says what to set.
    for call in (lambda: cri.exec_sync(long, "true"),
                 lambda: cri.runtime.UpdateContainerResources(pb.UpdateContainerResourcesRequest(
                     container_id=long, linux=pb.LinuxContainerResources(cpu_shares=5))),
                 lambda: cri.runtime.Exec(pb.ExecRequest(container_id=long, cmd=["true"], stdout=True)),
                 lambda: cri.runtime.PortForward(pb.PortForwardRequest(pod_sandbox_id=pod.id, port=[80]))):
        with refused("UNIMPLEMENTED", "JobPer: pod"):
            call()

    wait(lambda: "line 20" in "".join(map(str, pod.output(long))), "output while it runs")
    serve.kill()
    serve.start()
    assert cri.status(long).state == pb.CONTAINER_RUNNING
    end = exited(cri, short)
    assert (end.exit_code, end.reason) == (7, "Error") and end.started_at < end.finished_at
    assert pod.output(short)[0] == b"one\ntwo\nend"
    end = exited(cri, good)
    assert (end.exit_code, end.reason) == (0, "Completed")
    assert create_of(serve, "good")["pod"]["spec"]["containers"][0]["env"] == [{"name": "A", "value": "x y'\"$z"}]

    assert exited(cri, queued).exit_code == 0 and waiting.output(queued)[0] == b"done\n"

    wait(lambda: len(pod.output(long)[0].splitlines()) > 200, "output after the restart")
    cri.runtime.StopContainer(pb.StopContainerRequest(container_id=long, timeout=5))
    assert state(cri, long) == "EXITED" and cri.status(long).exit_code == 143
    lines = pod.output(long)[0].decode().splitlines()
    assert lines == [f"line {i}" for i in range(1, len(lines) + 1)]
    assert cri.status(trap).state == pb.CONTAINER_RUNNING

    # A restart is another job.
    uids = {c["pod"]["metadata"]["uid"] for c in serve.site.creates}
    again = container_config("short", "registry.k8s.io/e2e-test-images/busybox:1.29-2", "true")
    again.metadata.attempt = 1
    again = cri.create(pod.id, again, pod.config)
    cri.runtime.StartContainer(pb.StartContainerRequest(container_id=again))
    assert create_of(serve, "short")["pod"]["metadata"]["uid"] not in uids
    cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.id))
    assert state(cri, trap) == "EXITED" and not serve.site.jobs
    assert b"up\n" in pod.output(trap)[0]


def test_what_travels(serve, cri):
    kubelet = Kubelet(serve.root / "kubelet")
    config = pod_config("travel", annotations={"slurm-job.vk.io/flags": "--gres=gpu:1", "other": "x"},
                        log_directory=str(serve.logs / "travel"))
    uid = config.metadata.uid
    (serve.root / "shared" / "data").mkdir(parents=True)
    mounts = [pb.Mount(host_path=str(kubelet.projected(uid, "configmap", "cm", {"a.txt": b"text\n", "b.bin": b"\xff\0"})),
                       container_path="/etc/cm", readonly=True),
              pb.Mount(host_path=str(kubelet.projected(uid, "secret", "sec", {"key": (b"s3cret", 0o400)})), container_path="/sec"),
              pb.Mount(host_path=str(kubelet.projected(uid, "projected", "token", {"token": b"ey", "ca.crt": b"CA"})),
                       container_path="/var/run/secrets"),
              pb.Mount(host_path=str(kubelet.projected(uid, "downward-api", "info", {"labels": b"a=b"})), container_path="/info"),
              pb.Mount(host_path=str(kubelet.empty_dir(uid, "scratch")), container_path="/scratch"),
              pb.Mount(host_path=str(serve.root / "shared" / "data"), container_path="/data"),
              pb.Mount(host_path=str(kubelet.hosts(uid, "127.0.0.1 x\n")), container_path="/etc/hosts")]
    sandbox = cri.run_pod(config)
    resources = pb.LinuxContainerConfig(resources=pb.LinuxContainerResources(
        cpu_period=100000, cpu_quota=150000, memory_limit_in_bytes=256 << 20))
    c = container_config("all", "registry.k8s.io/e2e-test-images/busybox:1.29-2", "true")
    c.mounts.extend(mounts)
    c.linux.CopyFrom(resources)
    container = cri.create(sandbox, c, config)
    cri.runtime.StartContainer(pb.StartContainerRequest(container_id=container))

    request = create_of(serve, "all")
    spec = request["pod"]["spec"]
    sent = spec["containers"][0]
    assert sent["image"].endswith("busybox:1.29-2") and sent["command"] == ["true"]
    assert sent["resources"]["limits"] == {"cpu": "1500m", "memory": "256Mi"}
    assert request["pod"]["metadata"]["annotations"]["slurm-job.vk.io/flags"] == "--gres=gpu:1"
    assert "other" not in request["pod"]["metadata"]["annotations"]
    by_path = {m["mountPath"]: next(v for v in spec["volumes"] if v["name"] == m["name"]) for m in sent["volumeMounts"]}
    assert by_path["/etc/cm"]["configMap"] == {"name": "cm", "defaultMode": 0o644}
    assert by_path["/sec"]["secret"] == {"secretName": "sec", "defaultMode": 0o400}
    assert by_path["/var/run/secrets"]["projected"]["defaultMode"] == 0o644 and "emptyDir" in by_path["/scratch"]
    assert by_path["/data"]["hostPath"] == {"path": str(serve.root / "shared" / "data"), "type": "Directory"}
    assert "/etc/hosts" not in by_path
    data = request["container"][0]
    assert data["configMaps"][0]["data"] == {"a.txt": "text\n"}
    assert data["configMaps"][0]["binaryData"] == {"b.bin": base64.b64encode(b"\xff\0").decode()}
    assert data["secrets"][0]["data"] == {"key": base64.b64encode(b"s3cret").decode()}
    assert {p["metadata"]["name"]: p["data"] for p in data["projectedvolumemaps"]} == {
        "token": {"token": "ey", "ca.crt": "CA"}, "info": {"labels": "a=b"}}


BUSYBOX = "registry.k8s.io/e2e-test-images/busybox:1.29-2"


def test_what_is_refused(serve, cri):
    """By a sentence that names the field; and nothing is submitted."""
    pod = Pod(serve, cri, "bad")
    before = len(serve.site.creates)
    uid = pod.config.metadata.uid
    kubelet = Kubelet(serve.root / "kubelet2")

    def one(*words, **fields):
        config = container_config("bad", BUSYBOX, "true")
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(config, name).extend(value)
            else:
                getattr(config, name).CopyFrom(value)
        with refused("FAILED_PRECONDITION", *words):
            cri.create(pod.id, config, pod.config)

    one("config.devices[0].host_path: /dev/null: ", "annotation", devices=[pb.Device(host_path="/dev/null", container_path="/dev/null")])
    one("config.mounts[0].host_path: /etc is on this node only", "SharedPaths",
        mounts=[pb.Mount(host_path="/etc", container_path="/x")])
    claim = kubelet.pod(uid) / "volumes" / "kubernetes.io~csi" / "pvc-1" / "mount"
    claim.mkdir(parents=True)
    one("config.mounts[0].host_path: ", "SharedPaths", mounts=[pb.Mount(host_path=str(claim), container_path="/x")])
    nested = kubelet.projected(uid, "configmap", "nested", {"a/b": b"x"})
    one("config.mounts[0].host_path: file ", "a/b is in a folder", mounts=[pb.Mount(host_path=str(nested), container_path="/x")])
    (serve.root / "shared").mkdir(exist_ok=True)
    (serve.root / "shared" / "file").write_text("x")
    one("config.mounts[0].host_path: ", " is no folder",
        mounts=[pb.Mount(host_path=str(serve.root / "shared" / "file"), container_path="/x")])
    one("privileged", linux=pb.LinuxContainerConfig(security_context=pb.LinuxContainerSecurityContext(privileged=True)))
    one("config.envs[0]: is no UTF-8", envs=[pb.KeyValue(key="A", value=b"\xff")])
    one("config.args[0]: longer than", args=["x" * 200000])
    big = kubelet.projected(uid, "configmap", "big", {"x": b"y" * 600000})
    one("more than the 524288 bytes", mounts=[pb.Mount(host_path=str(big), container_path="/x")])
    bad_pod = pod_config("sysctl")
    bad_pod.linux.sysctls["net.core.somaxconn"] = "1"
    with refused("FAILED_PRECONDITION", "config.linux.sysctls"):
        cri.run_pod(bad_pod)
    # An emptyDir would be two folders.
    shared = str(kubelet.empty_dir(uid, "both"))
    first = container_config("first", BUSYBOX, "true")
    first.mounts.append(pb.Mount(host_path=shared, container_path="/x"))
    cri.create(pod.id, first, pod.config)
    one("container first uses the emptyDir both", mounts=[pb.Mount(host_path=shared, container_path="/x")])
    assert len(serve.site.creates) == before


def test_the_site_says_no(serve, cri):
    pod = Pod(serve, cri, "no")
    container = pod.create("true", name="no")
    serve.api.faults(create="text", fail_text="sbatch: error: invalid account")
    try:
        with refused("UNAVAILABLE", "handler site did not take the container: ", "sbatch: error: invalid account"):
            cri.runtime.StartContainer(pb.StartContainerRequest(container_id=container))
    finally:
        serve.api.faults()
    assert state(cri, container) == "CREATED"
    cri.runtime.StartContainer(pb.StartContainerRequest(container_id=container))
    cri.runtime.StopContainer(pb.StopContainerRequest(container_id=container, timeout=0))
    assert state(cri, container) == "EXITED"


def test_inside(serve, cri):
    """An agent as the container's command, wherever the site has made the container: then nothing is missing."""
    pod = Pod(serve, cri, "inside", handler="inside")
    container = pod.run("sh", "-c", f"echo $A; pwd; trap 'echo bye; exit 4' TERM; {COUNTING}", name="in", env={"A": "x y'\"$z"},
                        working_dir="/tmp")
    request = create_of(serve, "in")
    sent = request["pod"]["spec"]["containers"][0]
    record = str(request["pod"])
    assert sent["args"] == ["agent"] and "x y" not in record, "what kubelet gives the container travels by the connection"
    token = base64.b64decode(request["container"][0]["secrets"][0]["data"]["token"]).decode()
    assert len(token) == 64 and token not in record
    assert cri.exec_sync(container, "sh", "-c", "echo $A; exit 3").exit_code == 3
    assert cri.exec_sync(container, "sh", "-c", "echo $A$INTERLINK_RELAY$INTERLINK_TOKEN_FILE").stdout == b"x y'\"$z\n"
    with streams.run(cri, container, "sh", "-c", "read x; echo got $x; exit 5", stdin=True) as s:
        s.write(b"it\n")
        assert s.finish() == (b"got it\n", b"", 5)
    assert cri.runtime.ContainerStats(pb.ContainerStatsRequest(container_id=container)).stats.attributes.id == container
    serve.kill()
    serve.start()
    wait(lambda: exec_works(cri, container), "the agent calls again")
    cri.runtime.StopContainer(pb.StopContainerRequest(container_id=container, timeout=10))
    assert cri.status(container).exit_code == 4
    lines = pod.output(container)[0].decode().splitlines()
    assert lines[:2] == ["x y'\"$z", "/tmp"] and lines[-1] == "bye"
    assert lines[2:-1] == [f"line {i}" for i in range(1, len(lines) - 2)]
    wait(lambda: not serve.site.jobs, "the job's end")
    assert not list((serve.root / "tmp").iterdir()), "the agent has left something"

    missing = pod.create("/no/such/program", name="missing")
    with refused("NOT_FOUND", "/no/such/program"):
        cri.runtime.StartContainer(pb.StartContainerRequest(container_id=missing))
    quick = pod.run("sh", "-c", "echo quick; exit 6", name="quick")
    assert exited(cri, quick).exit_code == 6 and pod.output(quick)[0] == b"quick\n"
    # The next attempt runs in the same job.
    jobs = len(serve.site.creates)
    again = container_config("quick", BUSYBOX, "sh", "-c", "echo again; sleep 1000")
    again.metadata.attempt = 1
    again = cri.create(pod.id, again, pod.config)
    cri.runtime.StartContainer(pb.StartContainerRequest(container_id=again))
    assert len(serve.site.creates) == jobs
    cri.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=quick))
    serve.kill()
    serve.start()
    wait(lambda: exec_works(cri, again), "the agent calls again, by the name of the first attempt")
    cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.id))
    assert cri.status(again).exit_code == 137 and not serve.site.jobs
    assert not list((serve.root / "tmp").iterdir()), "the agent has left something"


def exec_works(cri, container):
    try:
        return cri.exec_sync(container, "true").exit_code == 0
    except grpc.RpcError:
        return False
