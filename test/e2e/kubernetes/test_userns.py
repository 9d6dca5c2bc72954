# SPDX-License-Identifier: Apache-2.0
"""Pods with a user namespace of their own (hostUsers: false)."""
import json

import pytest
from cluster import wait


@pytest.fixture
def supported(cluster):
    node = cluster.get("nodes")["items"][0]
    handlers = {h.get("name", ""): h.get("features", {}) for h in node["status"].get("runtimeHandlers", [])}
    if not handlers.get("", {}).get("userNamespaces"):
        pytest.skip("this machine's file systems or kernel do not give pods user namespaces")


def test_a_pod_and_its_volumes(cluster, supported):
    """Root inside is nobody outside; kubelet's own files and volumes are the pod's root's, and writable by it."""
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mapped"}, "data": {"greeting": "hello"}},
                  {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mapped"}, "stringData": {"password": "hunter2"}})
    names = ("scratch", "memory", "cm", "sec", "down")
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in names]
    script = ("cat /proc/self/uid_map; for f in scratch memory cm/greeting sec/password down/name etc/hosts dev/termination-log; do "
              "stat -L -c '%u:%g' /$f; done; cat /cm/greeting /sec/password /down/name; echo; "
              "echo x >/scratch/x && echo x >/memory/x && echo line >>/etc/hosts && echo bye >/dev/termination-log && echo written")
    cluster.pod("mapped", "sh", "-c", script, wait_for="Succeeded", restartPolicy="Never", hostUsers=False, main={"volumeMounts": mounts}, volumes=[
        {"name": "scratch", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "cm", "configMap": {"name": "mapped"}}, {"name": "sec", "secret": {"secretName": "mapped"}},
        {"name": "down", "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}])
    said = cluster.kubectl("logs", "mapped").stdout.split()
    inside, outside, count = (int(word) for word in said[:3])
    assert inside == 0 and outside >= 65536 and count >= 65536, said
    assert said[3:] == ["0:0"] * 7 + ["hellohunter2mapped", "written"], said
    ended = cluster.get("pod", "mapped")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert ended["message"] == "bye\n"
    cluster.delete("pod", "mapped")


def test_another_user_and_exec(cluster, supported):
    cluster.pod("user", hostUsers=False, securityContext={"runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000},
                main={"volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}, volumes=[{"name": "scratch", "emptyDir": {}}])
    said = cluster.kubectl("exec", "user", "--", "sh", "-c", "id -u; id -G; touch /scratch/x && stat -c %u:%g /scratch/x").stdout
    assert said.split() == ["1000", "2000", "3000", "1000:3000"], said
    cluster.delete("pod", "user")
    wait(lambda: "user" not in json.dumps(cluster.get("pods")), 30)
