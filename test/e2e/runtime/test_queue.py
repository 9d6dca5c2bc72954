# SPDX-License-Identifier: Apache-2.0
"""A job in a queue without a kubelet: its lease, and what is told of a job that failed when nobody was waiting."""
import contextlib
import os
import tempfile
import threading
import time

import pytest
from cri import pb, pod_config, refused
from serving import Serve
from site_queue import Site

LEASE = 6  # counted in steps of 5 s: over after 10


@pytest.fixture(scope="module")
def world():
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    site = Site()
    serve = Serve(root, config=f"QueueHold: 500ms\nQueueLease: {LEASE}s\nHandlers: [{{Name: a, Target: '{site.url}'}}]\nDefaultHandler: a\n")
    serve.kind = "root"
    serve.site = site
    serve.start()
    yield serve
    serve.finish()
    site.close()


@contextlib.contextmanager
def polling(serve):
    """As kubelet does."""
    over = threading.Event()

    def poll():
        while not over.wait(0.5):
            assert not serve.client.runtime.ListPodSandbox(pb.ListPodSandboxRequest()).items
    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def run(serve, config, *words):
    with refused("UNAVAILABLE", *words):
        serve.client.run_pod(config, timeout=20)


def waits(site, seconds):
    end = time.monotonic() + seconds
    while site.pods:
        assert time.monotonic() < end, "the job is still there"
        time.sleep(0.1)


def remove(serve, pod):
    env = pod["spec"]["containers"][0]["env"]
    sandbox = next(e["value"] for e in env if e["name"] == "INTERLINK_SANDBOX")
    serve.client.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox))


def test_the_lease_runs_only_while_kubelet_polls(world):
    config = pod_config("leased")
    run(world, config, "job 4711")
    time.sleep(LEASE + 6)
    assert len(world.site.pods) == 1  # nobody polled
    with polling(world):
        for _ in range(3):
            time.sleep(3.5)
            run(world, config, "job 4711")  # each call renews it
        assert len(world.site.pods) == 1
    world.kill()
    world.start()
    with polling(world):
        assert len(world.site.pods) == 1
        waits(world.site, 25)
    assert "nobody has asked for it" in world.log.read_text()


def test_who_comes_late_hears_why_the_job_failed(world):
    site = world.site
    config = pod_config("failing")
    run(world, config, "job 4711")
    first = set(site.pods)
    site.state = {"terminated": {"exitCode": 3, "reason": "NodeFail", "message": "node c7 is gone"}}
    waits(site, 30)  # it has been seen, and what was left of it deleted
    site.state = None
    run(world, config, "the pod's job ended with exit code 3, NodeFail: node c7 is gone", "failure 1 in a row")
    assert not site.pods
    end = time.monotonic() + 30
    while not site.pods:  # the next one, after a pause
        assert time.monotonic() < end
        with refused("UNAVAILABLE"):
            world.client.run_pod(config, timeout=20)
        time.sleep(0.5)
    assert not first & set(site.pods)
    remove(world, *site.pods.values())
