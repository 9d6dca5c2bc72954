# SPDX-License-Identifier: Apache-2.0
"""Limits, resize in place, resources of pods, running out of memory and of disk."""
import json

from cluster import IMAGE, wait

READ_QUOTA = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max"
READ_MEMORY = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"


def inside(cluster, name, script):
    return cluster.kubectl("exec", name, "--", "sh", "-c", script).stdout.strip()


def resize(cluster, name, **resources):
    cluster.kubectl("patch", "pod", name, "--subresource", "resize", "--patch",
                    json.dumps({"spec": {"containers": [{"name": "main", "resources": resources}]}}))


def limits_of(cluster, name):
    return cluster.status(name).get("resources", {}).get("limits", {})


def test_resize(cluster, place):
    """CPU in the running container, memory as well, and by a restart where the pod wants one."""
    small = {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
    name = place.pod("resized", main={"resources": small})
    other = place.pod("resized-anew", main={"resources": small, "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]})
    before = cluster.status(name)["containerID"]
    large = {"requests": {"cpu": "300m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "96Mi"}}
    for n in (name, other):
        resize(cluster, n, **large)
    for n in (name, other):
        wait(lambda n=n: limits_of(cluster, n) == {"cpu": "500m", "memory": "96Mi"}, 60, lambda n=n: cluster.describe(n))
        wait(lambda n=n: inside(cluster, n, READ_QUOTA) == "50000" and inside(cluster, n, READ_MEMORY) == str(96 << 20), 20)
    assert cluster.status(name)["containerID"] == before and cluster.status(name)["restartCount"] == 0
    assert cluster.status(other)["restartCount"] == 1
    resize(cluster, name, requests={"cpu": "100m", "memory": "32Mi"}, limits={"cpu": "200m", "memory": "64Mi"})
    wait(lambda: inside(cluster, name, READ_QUOTA) == "20000" and inside(cluster, name, READ_MEMORY) == str(64 << 20), 60)
    assert cluster.status(name)["containerID"] == before


def test_resources_of_the_pod(cluster, place):
    """spec.resources: its containers share what the pod has, and the pod may not take more."""
    greedy = {"name": "main", "image": IMAGE, "command": ["sh", "-c", "sleep 1; head -c 200m /dev/zero | tail"]}
    name = place.pod("pod-level", wait_for=None, restartPolicy="Never", resources={"limits": {"cpu": "500m", "memory": "48Mi"}},
                     containers=[greedy, {"name": "other", "image": IMAGE, "command": ["sleep", "5"]}])
    ended = cluster.ended(name)
    assert ended["exitCode"] == 137, ended
    assert cluster.get("pod", name)["status"]["qosClass"] == "Guaranteed"


def test_out_of_memory(cluster, place):
    name = place.pod("greedy", "sh", "-c", "head -c 200m /dev/zero | tail", wait_for="Failed", restartPolicy="Never",
                     main={"resources": {"limits": {"memory": "32Mi"}}})
    ended = cluster.ended(name)
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137), ended


def test_out_of_disk(cluster, place):
    """More in the container's own files than its limit: evicted, with words that say what and how much."""
    fill = "dd if=/dev/zero of=/filled bs=1M count=20 2>/dev/null; sleep 1000000"
    name = place.pod("filler", "sh", "-c", fill, main={"resources": {"limits": {"ephemeral-storage": "5Mi"}}})
    scratch = place.pod("scratch", "sh", "-c", fill.replace("/filled", "/scratch/filled"), volumes=[{"name": "s", "emptyDir": {"sizeLimit": "5Mi"}}],
                        main={"volumeMounts": [{"name": "s", "mountPath": "/scratch"}]}) if place.name == "local" else None
    said = {name: "ephemeral local storage usage exceeds the total limit of containers 5Mi", scratch: "Usage of EmptyDir volume \"s\" exceeds the limit \"5Mi\""}
    for n in filter(None, (name, scratch)):
        cluster.phase(n, "Failed", seconds=90)
        status = cluster.get("pod", n)["status"]
        assert status["reason"] == "Evicted" and said[n] in status["message"], status
        cluster.says(n, said[n], reason="Evicted")
