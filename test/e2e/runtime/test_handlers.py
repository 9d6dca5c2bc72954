# SPDX-License-Identifier: Apache-2.0
"""Which handler a pod goes to: its RuntimeClass, the node's own pods, the default; and that it stays there."""
import json
import os
import tempfile
import time

import grpc
import pytest
from cri import pb, pod_config, refused
from serving import Serve
from site_queue import Site

SOURCE = "kubernetes.io/config.source"  # kubelet's own word


class World:
    def __init__(self):
        root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
        os.chmod(root, 0o755)
        self.sites = {"a": Site(), "b": Site()}
        self.serve = Serve(root)
        self.head = self.serve.config.read_text()

    def start(self, default="a", more="", local=True):
        handlers = [f"  - {{Name: {name}, Target: '{site.url}'}}" for name, site in self.sites.items()]
        if local:
            handlers.append("  - {Name: here, Target: local}")
        self.serve.config.write_text(self.head + "QueueHold: 100ms\nHandlers:\n" + "\n".join(handlers) +
                                     f"\nDefaultHandler: {default}\n{more}\n")
        if self.serve.process is not None and self.serve.process.poll() is None:
            self.serve.kill()
        self.serve.start()

    def queued(self, config, handler=""):
        """Runs a pod that must wait in the queue of a site; the site's name."""
        before = {name: len(site.pods) for name, site in self.sites.items()}
        with refused("UNAVAILABLE", "job"):
            self.serve.client.run_pod(config, handler)
        end = time.monotonic() + 10  # the answer may come before the site has heard of it
        while not (found := [name for name, site in self.sites.items() if len(site.pods) > before[name]]):
            assert time.monotonic() < end, "no site has heard of the pod"
            time.sleep(0.01)
        assert len(found) == 1, found
        return found[0]

    def here(self, config, handler=""):
        """Runs a pod that must run on this machine."""
        end = time.monotonic() + 20
        while True:
            try:
                sandbox = self.serve.client.run_pod(config, handler)
                break
            except grpc.RpcError as error:  # QueueHold is short
                assert error.code().name == "UNAVAILABLE" and time.monotonic() < end, error
        answer = self.serve.client.runtime.PodSandboxStatus(pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox, verbose=True))
        assert json.loads(answer.info["info"])["handler"] == "here"
        assert answer.status.runtime_handler == handler
        return sandbox


@pytest.fixture(scope="module")
def world():
    w = World()
    yield w
    for site in w.sites.values():
        for pod in list(site.pods.values()):
            env = pod["spec"]["containers"][0]["env"]
            sandbox = next(e["value"] for e in env if e["name"] == "INTERLINK_SANDBOX")
            w.serve.client.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
    w.serve.finish()
    for site in w.sites.values():
        site.close()


def test_the_nodes_own_pods_stay(world):
    world.start(default="a")
    assert world.queued(pod_config("work")) == "a"
    world.here(pod_config("kube-proxy-x", namespace="kube-system"))
    for source in ("file", "http"):
        world.here(pod_config("static-" + source, annotations={SOURCE: source}))
    assert world.queued(pod_config("api", annotations={SOURCE: "api"})) == "a"
    # A RuntimeClass says more than the rule.
    assert world.queued(pod_config("away", namespace="kube-system"), "b") == "b"
    world.here(pod_config("chosen"), "here")
    info = json.loads(world.serve.ctl("info").stdout)["config"]
    assert (info["defaultHandler"], info["nodePods"]) == ("a", {"handler": "here", "namespaces": ["kube-system"]})
    world.serve.client.remove_everything()


def test_other_namespaces_and_another_handler(world):
    world.start(default="here", more="NodePods: {Handler: b, Namespaces: [monitoring]}")
    assert world.queued(pod_config("exporter", namespace="monitoring")) == "b"
    assert world.queued(pod_config("static", annotations={SOURCE: "file"})) == "b"
    world.here(pod_config("kube-proxy-x", namespace="kube-system"))
    world.start(default="a", more="NodePods: {Namespaces: []}")
    assert world.queued(pod_config("kube-proxy-y", namespace="kube-system")) == "a"
    # Without any local handler there is no place but the default.
    world.serve.client.remove_everything()
    world.start(default="b", local=False)
    assert world.queued(pod_config("kube-proxy-z", namespace="kube-system")) == "b"


def test_a_pod_stays_where_it_was_sent(world):
    """The configuration changes, the pod's job does not move."""
    world.start(default="a")
    config = pod_config("stays")
    own = pod_config("own", namespace="kube-system")
    assert world.queued(config) == "a"
    sandbox = world.here(own)
    world.start(default="b", more="NodePods: {Handler: b}")
    before = len(world.sites["b"].pods)
    with refused("UNAVAILABLE", "job"):
        world.serve.client.run_pod(config)
    time.sleep(0.5)
    assert len(world.sites["b"].pods) == before
    assert world.serve.client.sandbox_status(sandbox).state == pb.SANDBOX_READY
    world.serve.client.remove_everything()


def test_unknown_handlers_and_targets_that_are_away(world):
    world.start(default="a")
    with refused("NOT_FOUND", 'no handler "gpu" is configured on this node, only a, b, here'):
        world.serve.client.run_pod(pod_config("x"), "gpu")
    world.sites["b"].broken = True
    with refused("UNAVAILABLE", "handler b", "the site is out of order"):
        world.serve.client.run_pod(pod_config("broken"), "b")
    assert world.queued(pod_config("others")) == "a"
    sandbox = world.here(pod_config("here"), "here")
    assert world.serve.client.sandbox_status(sandbox).state == pb.SANDBOX_READY
    world.sites["b"].broken = False
    world.serve.client.remove_everything()


def test_a_pod_outlives_that_its_handler_is_not_configured(world):
    """Its agent is not told that the pod is unknown, which would be its end."""
    world.start()
    sandbox = world.here(pod_config("kept"), "here")
    before = set(world.serve.processes())
    world.start(local=False)
    with refused("NOT_FOUND"):
        world.serve.client.sandbox_status(sandbox)
    time.sleep(4)  # agents on this machine call in at least every 2 s
    world.start()
    assert world.serve.client.sandbox_status(sandbox).state == pb.SANDBOX_READY
    agents = [p for p in before & set(world.serve.processes()) if b"agent" in open(f"/proc/{p}/cmdline", "rb").read().split(b"\0")]
    assert agents
    world.serve.client.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
