# SPDX-License-Identifier: Apache-2.0
"""Pods of anybody's as Slurm jobs, from their manifest, over a real Slurm."""
import json
import pathlib
import sys

import pytest
from slurm_site import NOBODY, kit, until

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "interlink")]

from images.registry import Registry  # noqa: E402
from manifest_kit import busybox_image, container, ended, pod, running, wait_status  # noqa: E402


@pytest.fixture(scope="module")
def image():
    with Registry() as r:
        r.put("tests/busybox", "1", busybox_image())
        yield f"{r.name}/tests/busybox:1"


@pytest.fixture
def real(site, plugins, folder, request):
    """The plugin with its own program as the agent."""
    from slurm_site import Plugin

    plugin = Plugin(site, folder, "", user=getattr(request, "param", None))
    plugin.start()
    yield plugin
    for job in (plugin.dir / "jobs").iterdir():
        plugin.delete({"metadata": {"uid": job.name, "name": "x", "namespace": "default"}}, grace=0)
    plugin.close()


SHARED = [{"name": "s", "mountPath": "/s"}]


@pytest.mark.parametrize("real", [None, NOBODY], indirect=True, ids=["root", "user"])
def test_a_pod_of_many_containers(site, real, image):
    p = pod([container("a", "cat /s/f /sec/pw; exit 7", image, resources={"limits": {"cpu": "500m", "memory": "32Mi"}},
                       volumeMounts=SHARED + [{"name": "sec", "mountPath": "/sec"}]),
             container("b", "echo b", image, resources={"limits": {"cpu": "1", "memory": "32Mi"}})],
            inits=[container("init", "echo made >/s/f", image, volumeMounts=SHARED)],
            volumes=[{"name": "s", "emptyDir": {}}, {"name": "sec", "secret": {"secretName": "sec", "defaultMode": 0o444}}])
    secrets = [{"metadata": {"name": "sec"}, "data": {"pw": "aHVudGVyMg=="}}]
    jid = real.created(p, secrets=secrets)
    assert real.created(p, secrets=secrets) == jid and len(site.jobs(p["metadata"]["uid"])) == 1
    shown = site.scontrol("-o", "show", "job", jid)
    assert "CPUs/Task=2" in shown and "MinMemoryNode=96M" in shown, shown
    assert "hunter2" not in shown and "aHVudGVyMg" not in shown
    s = wait_status(real, p, ended(), 60)
    assert s["a"]["state"]["terminated"]["exitCode"] == 7 and s["b"]["state"]["terminated"]["exitCode"] == 0
    assert real.logs(p, "a") == (200, "made\nhunter2")
    # The job's end is the pod's; what Slurm forgets we do not.
    until(lambda: site.job(jid)["State"] in ("FAILED", "COMPLETED"))
    real.kill()
    real.start()
    assert wait_status(real, p, ended())["a"]["state"] == s["a"]["state"]
    assert json.loads(real.raw("GET", "/status", [p])[1])[0]["JID"] == jid
    assert real.delete(p)[0] == 200


def test_stopped_by_slurm_and_killed(site, real, image):
    """scancel by another: TERM reaches the containers, and the reason is Slurm's; a job that is killed outright ends its containers too."""
    told = container("main", "trap 'echo told; exit 5' TERM; echo up; while :; do sleep 0.1; done", image)
    p = pod([told])
    jid = real.created(p)
    wait_status(real, p, running("main"), 60)
    until(lambda: real.logs(p, "main") == (200, "up\n"), 30, "its first word")
    site.run("scancel", jid)
    s = wait_status(real, p, lambda s: s["main"]["state"].get("terminated", {}).get("reason") == "CANCELLED", 60)
    assert s["main"]["state"]["terminated"]["exitCode"] == 5, s
    assert real.logs(p, "main") == (200, "up\ntold\n")
    q = pod([told])
    jid = real.created(q)
    wait_status(real, q, running("main"), 60)
    site.run("scancel", "--full", "--signal=KILL", jid)
    s = wait_status(real, q, ended("main"), 60)
    assert s["main"]["state"]["terminated"]["exitCode"] != 0 and s["main"]["state"]["terminated"]["startedAt"]
    for one in (p, q):
        assert real.delete(one)[0] == 200


def test_queued_and_deleted(site, real, image):
    p = pod([container("main", "true", image)], annotations={"interlink.eu/flags": "--begin=now+1hour"})
    jid = real.created(p)
    s = wait_status(real, p, lambda s: s["main"]["state"].get("waiting", {}).get("reason") == "BeginTime")
    assert not s["main"]["ready"]
    assert real.delete(p)[0] == 200
    assert site.job(jid)["State"] == "CANCELLED"


def test_ping_has_what_the_site_has(real):
    answer = kit.wait_for(lambda: (lambda a: a if a["resources"].get("cpu") else None)(json.loads(real.raw("GET", "/status", [])[1])))
    assert int(answer["resources"]["cpu"]) >= 2 and answer["resources"]["accelerators"], answer
