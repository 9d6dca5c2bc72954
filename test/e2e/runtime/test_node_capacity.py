# SPDX-License-Identifier: Apache-2.0
"""The Node object in the cluster says what the sites behind the node have: annotations, taints, a Node that comes and goes."""
import json
import os
import shutil
import tempfile
import time

import pytest
from cri import pb, pod_config, refused
from kube import KubeApi
from serving import Serve
from site_queue import Site

GPU = "nvidia.com/gpu"


def told(cpu="64", memory="512Gi", pods="500", gpus=None, taints=None):
    resources = {"cpu": cpu, "memory": memory, "pods": pods}
    if gpus is not None:
        resources["accelerators"] = [{"resourceType": GPU, "available": gpus}]
    ping = {"status": "ok", "resources": resources}
    if taints is not None:
        ping["taints"] = [{"key": k, "value": v, "effect": e} for k, v, e in taints]
    return ping


class World:
    def __init__(self):
        root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
        os.chmod(root, 0o755)
        self.api = KubeApi(root + "/kube")
        self.sites = [Site(), Site()]
        self.certificate = self.api.pki.make("kubelet", "/O=system:nodes/CN=system:node:edge1")
        self.conf = self.api.kubeconfig(cert=self.certificate)
        self.serve = Serve(root, config=f"""
Kubeconfig: {self.conf}
QueueHold: 100ms
Handlers:
  - Name: one
    Target: {self.sites[0].url}
  - Name: two
    Target: {self.sites[1].url}
  - Name: local
    Target: local
DefaultHandler: local
""")
        self.text = self.serve.config.read_text()

    def begin(self):
        """A new serve on a new Node."""
        self.serve.config.write_text(self.text)
        shutil.rmtree(self.serve.root / "state", ignore_errors=True)
        self.api.kubeconfig(cert=self.certificate)
        self.api.policy = True
        self.api.register_node(theirs="x")
        for site in self.sites:
            site.ping, site.broken = told(), False
        self.serve.log.write_text("")
        self.serve.start()

    def restart(self):
        """Sites are asked at the start, else every 30 s."""
        self.serve.kill()
        self.serve.start()

    def cluster(self):
        return json.loads(self.serve.ctl("info").stdout)["config"]["cluster"]

    def carries(self, seconds=20, **wanted):
        """Waits until the Node's annotations interlink.eu/capacity-* are these."""
        wanted = {k.replace("gpu", "nvidia.com_gpu"): v for k, v in wanted.items()}
        end = time.monotonic() + seconds
        while (found := self.capacity()) != wanted:
            assert time.monotonic() < end, f"{found}\n{self.serve.tail()}"
            time.sleep(0.05)

    def capacity(self):
        return {k[len("interlink.eu/capacity-"):]: v for k, v in self.api.annotations().items()
                if k.startswith("interlink.eu/capacity-")}

    def until(self, condition, seconds=20):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.serve.tail()
            time.sleep(0.05)


@pytest.fixture(scope="module")
def made():
    w = World()
    yield w
    w.serve.start()
    w.serve.finish()
    for site in w.sites:
        site.close()
    w.api.close()


@pytest.fixture
def world(made):
    made.begin()
    yield made
    made.serve.kill()


def test_the_node_carries_the_sum_of_its_sites(world):
    world.carries(cpu="128", memory="1Ti", pods="1000")
    assert world.api.node["status"]["capacity"] == {"cpu": "128", "memory": "1Ti", "pods": "1000"}
    assert world.api.annotations()["theirs"] == "x"
    world.until(lambda: world.cluster()["policyInForce"])
    assert world.cluster() == {"server": f"https://127.0.0.1:{world.api.port}", "healthy": True, "message": "", "node": "edge1",
                               "capacity": "cpu=128, memory=1Ti, pods=1000", "policyInForce": True}
    patches = [r for r in world.api.requests if r[1] == "PATCH"]
    assert patches == [("system:node:edge1", "PATCH", "/api/v1/nodes/edge1/status")] * len(patches)
    # Accelerators come and go; what others have annotated stays.
    world.sites[1].ping = told(gpus="8")
    world.restart()
    world.carries(cpu="128", memory="1Ti", pods="1000", gpu="8")
    world.sites[1].ping = "pong"
    world.api.node["metadata"]["annotations"]["interlink.eu/capacity-example.com_x"] = "3"
    world.restart()
    world.carries(cpu="64", memory="512Gi", pods="500", gpu="0", **{"example.com_x": "3"})


def test_pods_go_to_the_site_of_their_handler(world):
    for handler in ("two", "one", "two"):
        with refused("UNAVAILABLE"):
            world.serve.client.run_pod(pod_config(handler), handler)
    world.until(lambda: [len(site.pods) for site in world.sites] == [1, 2])
    assert all(p["metadata"]["name"].startswith("two-") for p in world.sites[1].pods.values())
    with refused("NOT_FOUND", "three"):
        world.serve.client.run_pod(pod_config("x"), "three")
    # The default is configured, and may be any of them.
    world.serve.config.write_text(world.serve.config.read_text().replace("DefaultHandler: local", "DefaultHandler: one"))
    world.restart()
    with refused("UNAVAILABLE"):
        world.serve.client.run_pod(pod_config("plain"))
    world.until(lambda: [len(site.pods) for site in world.sites] == [2, 2])
    for site in world.sites:
        for pod in list(site.pods.values()):
            env = pod["spec"]["containers"][0]["env"]
            sandbox = next(e["value"] for e in env if e["name"] == "INTERLINK_SANDBOX")
            world.serve.client.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox))


def test_a_node_that_is_made_anew_gets_it_again(world):
    world.carries(cpu="128", memory="1Ti", pods="1000")
    world.api.update_node(None)
    world.until(lambda: "is in the cluster no more" in world.serve.tail())
    world.api.register_node()
    world.carries(5, cpu="128", memory="1Ti", pods="1000")
    # Somebody meddles: the watch tells.
    world.api.node["metadata"]["annotations"]["interlink.eu/capacity-cpu"] = "1"
    world.api.update_node(world.api.node)
    world.carries(5, cpu="128", memory="1Ti", pods="1000")


def test_a_watch_that_talks_nonsense(world):
    node = {"metadata": {"name": "edge1", "annotations": 7}, "spec": [], "status": {"capacity": "x"}}
    junk = (b"\n{\n[]\nnull\n" + b'{"type":"ADDED"}\n{"type":7,"object":{}}\n{"type":"BOOKMARK","object":{}}\n'
            + b'{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}\n'
            + json.dumps({"type": "MODIFIED", "object": node}).encode() + b"\n" + b"\0" * 100 + b"\n")
    for first in (junk, b'{"type":"ADDED","object":{"x":"' + b"y" * (9 << 20)):
        world.api.junk = first
        world.restart()
        world.until(lambda: not world.api.junk)
        world.api.node["metadata"]["annotations"]["interlink.eu/capacity-cpu"] = "1"
        world.api.update_node(world.api.node)
        world.carries(cpu="128", memory="1Ti", pods="1000")
    assert "on one line of a watch" in world.serve.tail()


def test_a_site_that_is_away_keeps_its_last_values(world):
    world.carries(cpu="128", memory="1Ti", pods="1000")
    world.sites[1].broken = True
    world.sites[0].ping = told(cpu="100")
    world.api.update_node(None)
    world.restart()
    world.api.register_node()
    world.carries(cpu="164", memory="1Ti", pods="1000")


def test_an_api_server_that_is_away_is_told_later(world):
    world.carries(cpu="128", memory="1Ti", pods="1000")
    world.api.stop()
    world.sites[0].ping = told(cpu="100")
    world.restart()
    world.until(lambda: "Connection refused" in world.cluster()["message"] and not world.cluster()["healthy"])
    time.sleep(0.5)
    world.api.start()
    world.carries(cpu="164", memory="1Ti", pods="1000")
    world.until(lambda: world.cluster()["healthy"])
    assert "well again" in world.serve.tail()


def test_a_cluster_without_the_policy_is_said_so(world):
    world.carries(cpu="128", memory="1Ti", pods="1000")
    world.api.policy = False
    world.api.update_node(None)
    world.api.register_node()
    world.carries(cpu="128", memory="1Ti", pods="1000")
    world.until(lambda: "the admission policy interlink-node-capacity (deploy/capacity-policy.yaml) is not in force"
                in world.serve.tail())
    assert not world.cluster()["policyInForce"]
    # Once it is there, it must see a write of the status.
    world.api.policy = True
    world.restart()
    world.until(lambda: world.cluster()["policyInForce"])
    assert world.api.node["status"]["capacity"]["cpu"] == "128"


def test_taints_need_other_credentials_than_kubelets(world):
    world.sites[0].ping = told(taints=[("site.example/busy", "yes", "NoSchedule"), ("odd", "", "Sometimes")])
    world.api.node["spec"]["taints"] = [{"key": "theirs", "effect": "NoExecute"}]
    world.api.update_node(world.api.node)
    world.restart()
    world.until(lambda: "not allowed to modify taints" in world.serve.tail())
    assert 'taint "odd": no such effect' in world.serve.tail()
    assert "taints cannot be set with these credentials" in world.cluster()["message"]
    assert world.capacity()["cpu"] == "128"
    assert world.api.node["spec"]["taints"] == [{"key": "theirs", "effect": "NoExecute"}]
    # A service account may; the host's name is then nobody's business: it is in the configuration.
    world.api.kubeconfig(token="secret")
    world.serve.config.write_text(world.serve.config.read_text() + "Node: {Name: edge1}\n")
    world.restart()
    busy = {"key": "site.example/busy", "value": "yes", "effect": "NoSchedule"}
    world.until(lambda: world.api.node["spec"]["taints"] == [{"key": "theirs", "effect": "NoExecute"}, busy])
    assert world.api.annotations()["interlink.eu/managed-taints"] == "site.example/busy=yes:NoSchedule"
    world.sites[0].ping = told()  # no word of taints: they stay
    world.restart()
    world.until(lambda: world.cluster()["policyInForce"])
    assert busy in world.api.node["spec"]["taints"]
    world.sites[0].ping = told(taints=[])
    world.restart()
    world.until(lambda: world.api.node["spec"]["taints"] == [{"key": "theirs", "effect": "NoExecute"}])
    assert "secret" not in world.serve.log.read_text()


def test_sites_that_are_configured_no_more_are_taken_back(world):
    world.sites[1].ping = told(gpus="8")
    world.restart()
    world.carries(cpu="128", memory="1Ti", pods="1000", gpu="8")
    text = world.serve.config.read_text()
    world.serve.config.write_text(text.replace(f"  - Name: two\n    Target: {world.sites[1].url}\n", ""))
    world.restart()
    world.carries(cpu="64", memory="512Gi", pods="500", gpu="0")
    world.serve.config.write_text(text[:text.index("Handlers")])
    world.restart()
    world.carries(gpu="0")
    world.serve.config.write_text(text + "Node: {Capacity: false}\n")
    world.restart()
    time.sleep(0.5)
    assert world.capacity() == {"nvidia.com_gpu": "0"}


def test_a_kubeconfig_that_comes_later(world):
    world.carries(cpu="128", memory="1Ti", pods="1000")
    text = world.conf.read_text()
    world.conf.unlink()
    world.api.update_node(None)
    world.restart()
    world.until(lambda: "kubelet.conf" in world.cluster()["message"])
    world.conf.write_text(text)
    world.api.register_node()
    world.carries(cpu="128", memory="1Ti", pods="1000")


def test_an_api_server_that_has_just_started(world):
    """It refuses to say who we are, for its roles are not there yet: the host's name is a guess, and not for ever."""
    world.carries(cpu="128", memory="1Ti", pods="1000")
    world.api.starting = True
    world.sites[0].ping = told(cpu="100")
    world.restart()
    world.until(lambda: "this machine's host name" in world.serve.tail())
    world.until(lambda: "their own Node only" in world.cluster()["message"])
    world.api.starting = False
    world.carries(cpu="164", memory="1Ti", pods="1000")
    world.until(lambda: world.cluster()["node"] == "edge1" and world.cluster()["healthy"])
