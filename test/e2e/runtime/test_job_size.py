# SPDX-License-Identifier: Apache-2.0
"""How large a pod's job is: what the API server, annotations, kubelet and the configuration say; credentials that change."""
import json
import os
import shutil
import tempfile
import time

import grpc
import pytest
from cri import pb, pod_config, refused
from kube import KubeApi
from serving import Serve
from site_queue import Site

NODE_USER = "system:node:edge1"


@pytest.fixture(scope="module")
def world():
    """serve with one site that only records, and an API server that knows kubelet by a certificate with an EC key."""
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    site = Site()
    api = KubeApi(root + "/kube")
    api.kubeconfig(cert=api.pki.make("kubelet", f"/O=system:nodes/CN={NODE_USER}"))
    server = Serve(root, config=f"""
Kubeconfig: {root}/kube/kubelet.conf
Node: {{Capacity: false}}
QueueHold: 100ms
Defaults: {{CPU: 500m, Memory: 2Gi, Walltime: 1h}}
Handlers:
  - Name: site
    Target: {site.url}
  - Name: local
    Target: local
""")
    server.kind = "root"
    server.site, server.api = site, api
    server.start()
    yield server
    server.finish()
    site.close()
    api.close()


@pytest.fixture
def submit(world):
    """Gives a pod to serve and waits for its job at the site: its container's resources and the pod."""
    made = []

    def run(name="pod", uid=None, wait=10, **more):
        config = pod_config(name, namespace="default", **more)
        if uid:
            config.metadata.uid = uid
        before = set(world.site.pods)
        with refused("UNAVAILABLE"):
            world.client.run_pod(config)
        end = time.monotonic() + wait
        while not (new := set(world.site.pods) - before):
            assert time.monotonic() < end, world.tail()
            time.sleep(0.02)
        pod = world.site.pods[new.pop()]
        container = pod["spec"]["containers"][0]
        made.append(next(e["value"] for e in container["env"] if e["name"] == "INTERLINK_SANDBOX"))
        pod["sandbox"] = made[-1]
        return container.get("resources", {}), pod

    yield run
    world.api.fault = None
    for sandbox in made:
        world.client.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox))


def info(world, sandbox):
    answer = world.client.runtime.PodSandboxStatus(pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox, verbose=True))
    return json.loads(answer.info["info"])["jobSize"]


BIG = {"containers": [{"name": "main", "resources": {"requests": {"cpu": "128", "memory": "500Gi", "nvidia.com/gpu": "8"},
                                                     "limits": {"cpu": "128", "memory": "500Gi", "nvidia.com/gpu": "8"}}}],
       "activeDeadlineSeconds": 600}


def test_the_pod_of_the_api_server_decides(world, submit):
    world.api.add_pod("big", "uid-big", BIG)
    resources, pod = submit("big", "uid-big", annotations={"interlink.eu/size-cpu": "1"})
    wanted = {"cpu": "128", "memory": "500Gi", "nvidia.com/gpu": "8"}
    assert resources == {"limits": wanted, "requests": wanted}
    assert pod["spec"]["activeDeadlineSeconds"] == 600
    annotations = pod["metadata"]["annotations"]
    assert annotations["interlink.eu/job-size"] == \
        "cpu=128 (pod), memory=500Gi (pod), nvidia.com/gpu=8 (pod), walltime=10m0s (pod)"
    assert annotations["slurm-job.vk.io/flags"] == "--time=10"
    said = info(world, pod["sandbox"])
    assert {r["name"]: (r["limit"], r["source"]) for r in said["resources"]} == {k: (v, "pod") for k, v in wanted.items()}
    assert (said["walltimeSeconds"], said["walltimeSource"], said["note"]) == (600, "pod", "")
    assert (NODE_USER, "GET", "/api/v1/namespaces/default/pods/big") in world.api.requests


def test_requests_and_limits_both_travel(world, submit):
    world.api.add_pod("range", "uid-range", {"containers": [
        {"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "2"}}}]})
    resources, _ = submit("range", "uid-range")
    assert resources == {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}


def test_a_static_pod_is_found_by_its_mirror(world, submit):
    world.api.add_pod("static-edge1", "another-uid", BIG, annotations={"kubernetes.io/config.mirror": "uid-static"})
    resources, _ = submit("static-edge1", "uid-static")
    assert resources["limits"]["nvidia.com/gpu"] == "8"


def test_another_pod_of_the_same_name_does_not_count(world, submit):
    world.api.add_pod("again", "uid-old", BIG)
    resources, pod = submit("again", "uid-new")
    assert resources["limits"] == {"cpu": "500m", "memory": "2Gi"}
    assert "uid-old, not uid-new" in info(world, pod["sandbox"])["note"]


def test_annotations_kubelet_and_defaults(world, submit):
    resources, pod = submit("noted", annotations={"interlink.eu/size-nvidia.com_gpu": "2", "interlink.eu/walltime": "90m",
                                                  "slurm-job.vk.io/flags": "-p gpu --mem=8G"})
    assert resources["limits"] == {"nvidia.com/gpu": "2", "memory": "8Gi", "cpu": "500m"}
    assert pod["spec"]["activeDeadlineSeconds"] == 5400
    assert pod["metadata"]["annotations"]["slurm-job.vk.io/flags"] == "-p gpu --mem=8G --time=90"
    linux = pb.LinuxPodSandboxConfig(resources=pb.LinuxContainerResources(
        cpu_shares=1024, cpu_quota=400000, cpu_period=100000, memory_limit_in_bytes=1 << 30))
    resources, pod = submit("cri", linux=linux)
    assert resources == {"limits": {"cpu": "4", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}
    assert pod["spec"]["activeDeadlineSeconds"] == 3600
    assert pod["metadata"]["annotations"]["interlink.eu/job-size"] == \
        "cpu=1..4 (cri), memory=1Gi (cri), walltime=1h0m0s (Defaults)"


def test_an_annotation_that_cannot_be_read_is_refused(world):
    for name, value in (("interlink.eu/size-cpu", "lots"), ("interlink.eu/size-gpu", "1"), ("interlink.eu/walltime", "soon")):
        with refused("INVALID_ARGUMENT", name):
            world.client.run_pod(pod_config("bad", annotations={name: value}))


@pytest.mark.parametrize("fault, words", [(403, "answers GET /api/v1/namespaces/default/pods/late with 403: out of order"),
                                          (500, "with 500: out of order"), ("garbage", "JSON"), ("close", "the connection was lost"),
                                          ("hang", "no complete answer in time")])
def test_an_api_server_in_trouble_holds_nobody_up(world, submit, fault, words):
    world.api.add_pod("late", "uid-late", BIG)
    world.api.fault = fault
    start = time.monotonic()
    resources, pod = submit("late", "uid-late")
    assert time.monotonic() - start < 6  # two seconds, and a slow machine
    assert resources["limits"] == {"cpu": "500m", "memory": "2Gi"}
    assert words in info(world, pod["sandbox"])["note"]
    assert words in world.tail()


def test_an_api_server_that_is_away(world, submit):
    world.api.stop()
    try:
        resources, pod = submit("away")
        assert resources["limits"] == {"cpu": "500m", "memory": "2Gi"}
        assert "Connection refused" in info(world, pod["sandbox"])["note"]
    finally:
        world.api.start()


def test_files_that_are_renewed_are_read_again(world, submit):
    """As kubelet does it: a new file, and current.pem a link to it; then a kubeconfig of another kind."""
    api = world.api
    current = api.folder / "current.pem"
    for n, kind in enumerate(("ec", "rsa")):
        fresh = api.pki.make(f"rotated-{n}", f"/O=system:nodes/CN={NODE_USER}-{n}", kind)
        (api.folder / "new.pem").symlink_to(fresh)
        (api.folder / "new.pem").rename(current)
        if n == 0:
            api.kubeconfig(cert=current)
        submit(f"rotated-{n}")
        assert api.requests[-1][0] == f"{NODE_USER}-{n}"
    api.tokens["one"], api.tokens["two"] = "first", "second"
    token = api.folder / "token"
    for word, user in (("one", "first"), ("two", "second")):
        token.write_text(word + "\n")
        if user == "first":
            api.kubeconfig(tokenFile="token")
        submit(user)
        assert api.requests[-1][0] == user
    token.unlink()
    _, pod = submit("no-token")
    assert "kube/token" in info(world, pod["sandbox"])["note"]
    api.kubeconfig(exec={"command": "aws"})
    _, pod = submit("exec")
    assert "exec: not offered" in info(world, pod["sandbox"])["note"]
    (api.folder / "kubelet.conf").unlink()
    _, pod = submit("no-kubeconfig")
    assert "kubelet.conf" in info(world, pod["sandbox"])["note"]
    api.kubeconfig(cert=current)
    submit("well")
    assert api.requests[-1][0] == f"{NODE_USER}-1"


def test_the_size_survives_a_restart(world, submit):
    world.api.add_pod("kept", "uid-kept", BIG)
    _, pod = submit("kept", "uid-kept")
    before = info(world, pod["sandbox"])
    world.kill()
    del world.api.pods["default", "kept"]
    world.start()
    assert info(world, pod["sandbox"]) == before
    with refused("UNAVAILABLE"):
        config = pod_config("kept", namespace="default")
        config.metadata.uid = "uid-kept"
        world.client.run_pod(config, timeout=15)
    assert list(world.site.pods).count(pod["metadata"]["uid"]) == 1


def test_a_pod_that_is_stopped_while_the_api_server_is_asked(world):
    world.api.fault = "hang"
    world.api.add_pod("stopped", "uid-stopped", BIG)
    before = set(world.site.pods)
    config = pod_config("stopped", namespace="default")
    config.metadata.uid = "uid-stopped"
    with refused("UNAVAILABLE", "is being asked"):
        world.client.run_pod(config)
    records = world.root / "state" / "sandboxes"
    assert not list(records.iterdir())  # nothing is remembered, and nothing submitted
    world.kill()
    world.api.fault = None
    world.start()
    assert set(world.site.pods) == before


def test_pods_on_this_machine_do_not_ask(world, images):
    asked = len(world.api.requests)
    assert world.ctl("load", str(images)).returncode == 0
    config, end = pod_config("here"), time.monotonic() + 20
    while True:  # it is held for 100 ms only
        try:
            pod = world.client.run_pod(config, "local")
            break
        except grpc.RpcError as error:
            assert error.code().name == "UNAVAILABLE" and time.monotonic() < end, error.details()
    assert len(world.api.requests) == asked
    world.client.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod))
