# SPDX-License-Identifier: Apache-2.0
"""Before a job in a queue is cancelled for which kubelet asks no more, the API server is asked whether its pod was deleted."""
import os
import tempfile
import time

import pytest
from cri import pod_config, refused
from kube import KubeApi
from serving import Serve
from site_queue import Site
from test_queue import LEASE, polling

NODE_USER = "system:node:edge1"
SPEC = {"containers": [{"name": "main", "image": "busybox"}]}


@pytest.fixture(scope="module")
def world():
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    site = Site()
    api = KubeApi(root + "/kube")
    api.kubeconfig(cert=api.pki.make("kubelet", f"/O=system:nodes/CN={NODE_USER}"))
    serve = Serve(root, config=f"""
Kubeconfig: {root}/kube/kubelet.conf
Node: {{Capacity: false}}
QueueHold: 500ms
QueueLease: {LEASE}s
Handlers: [{{Name: a, Target: '{site.url}'}}]
DefaultHandler: a
""")
    serve.kind = "root"
    serve.site, serve.api = site, api
    serve.start()
    yield serve
    serve.finish()
    site.close()
    api.close()


def becomes(condition, seconds, world=None):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, world and world.tail()
        time.sleep(0.1)


def test_what_was_not_deleted_keeps_its_place(world):
    def queued():
        return {p["metadata"]["name"].rsplit("-", 1)[0] for p in world.site.pods.values()}
    for name in ("kept", "gone"):
        world.api.add_pod(name, f"uid-{name}", SPEC)
        config = pod_config(name, namespace="default")
        config.metadata.uid = f"uid-{name}"
        with refused("UNAVAILABLE", "job 4711"):
            world.client.run_pod(config)
    world.api.fault = "close"
    with polling(world):
        becomes(lambda: world.log.read_text().count("cannot be asked whether it was deleted") == 2, 25, world)
        assert queued() == {"kept", "gone"}
        del world.api.pods["default", "gone"]
        world.api.fault = None
        becomes(lambda: queued() == {"kept"}, 15)
        becomes(lambda: "it has not been deleted: its job stays" in world.log.read_text(), 15)
        world.api.pods["default", "kept"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        becomes(lambda: not queued(), 25)
