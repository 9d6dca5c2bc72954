# SPDX-License-Identifier: Apache-2.0
"""Volumes of pods whose jobs run where nothing of kubelet's folders is to be seen (RuntimeClass remote)."""
import base64
import hashlib
import json
import os

import pytest
from cluster import IMAGE, wait

BINARY = os.urandom(700_000)


@pytest.fixture(scope="module", autouse=True)
def objects(cluster, remote):
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rcm"}, "data": {"greeting": "hello", "other": "x"},
              "binaryData": {"binary": base64.b64encode(BINARY).decode()}}
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(config))  # too large for what `apply` remembers
    cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "rsec"}, "stringData": {"password": "hunter2"}})
    yield
    cluster.kubectl("delete", "configmap/rcm", "secret/rsec")


def sh(cluster, pod, script, container="main"):
    return cluster.kubectl("exec", pod, "-c", container, "--", "sh", "-c", script).stdout


def test_every_kind(cluster):
    projected = {"name": "proj", "projected": {"defaultMode": 0o440, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"configMap": {"name": "rcm", "items": [{"key": "greeting", "path": "deep/greeting", "mode": 0o400}]}}]}}
    mounts = [{"name": "cm", "mountPath": "/cm"}, {"name": "sec", "mountPath": "/sec"}, {"name": "proj", "mountPath": "/proj"},
              {"name": "down", "mountPath": "/down"}, {"name": "scratch", "mountPath": "/scratch"}, {"name": "ram", "mountPath": "/ram"},
              {"name": "cm", "mountPath": "/etc/one.conf", "subPath": "greeting"},
              {"name": "scratch", "mountPath": "/part", "subPath": "in/deep"},
              {"name": "scratch", "mountPath": "/named", "subPathExpr": "$(POD)"},
              {"name": "scratch", "mountPath": "/cm/nested"}]
    env = [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    cluster.pod("every", "sleep", "1000000", runtimeClassName="remote", metadata={"labels": {"color": "blue"}},
                securityContext={"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000},
                main={"volumeMounts": mounts, "env": env},
                initContainers=[{"name": "init", "image": IMAGE, "command": ["sh", "-c", "echo made > /scratch/by-init"],
                                 "volumeMounts": mounts[4:5]}],
                volumes=[{"name": "cm", "configMap": {"name": "rcm"}}, {"name": "sec", "secret": {"secretName": "rsec", "defaultMode": 0o400}},
                         projected, {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                         {"name": "scratch", "emptyDir": {}}, {"name": "ram", "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}}])
    assert sh(cluster, "every", "cat /cm/greeting /sec/password /proj/deep/greeting /proj/name /etc/one.conf /scratch/by-init") == \
        "hellohunter2helloeveryhellomade\n"
    assert 'color="blue"' in sh(cluster, "every", "cat /down/labels")
    assert sh(cluster, "every", "sha256sum < /cm/binary").split()[0] == hashlib.sha256(BINARY).hexdigest()
    assert sh(cluster, "every", "cut -d. -f1 /proj/token")[:4] == "eyJh"
    # As kubelet has them on the node, fsGroup and all.
    uid = cluster.get("pod", "every")["metadata"]["uid"]
    volumes = cluster.root / "k8s" / "kubelet" / "pods" / uid / "volumes"
    for here, there in [("kubernetes.io~secret/sec/..data/password", "/sec/..data/password"),
                        ("kubernetes.io~projected/proj/..data/token", "/proj/..data/token"),
                        ("kubernetes.io~projected/proj/..data/deep/greeting", "/proj/..data/deep/greeting"),
                        ("kubernetes.io~configmap/cm", "/cm"), ("kubernetes.io~empty-dir/scratch", "/scratch"),
                        ("kubernetes.io~empty-dir/scratch/in/deep", "/part"), ("kubernetes.io~empty-dir/ram", "/ram")]:
        st = (volumes / here).stat()
        assert sh(cluster, "every", f"stat -c '%a %u %g' {there}").split() == [f"{st.st_mode & 0o7777:o}", str(st.st_uid), str(st.st_gid)], there
    sh(cluster, "every", "echo a > /part/a; echo b > /named/b; cat /scratch/in/deep/a /scratch/every/b /cm/nested/by-init")
    assert sh(cluster, "every", "df -k /ram | tail -1").split()[1] == "4096"
    assert "every" in sh(cluster, "every", "grep every /etc/hosts")
    assert not (volumes / "kubernetes.io~empty-dir/scratch/by-init").exists(), "the emptyDir is the job's"
    cluster.delete("pod", "every")


def test_changes_reach_running_containers(cluster):
    volumes = [{"name": "cm", "configMap": {"name": "rcm"}},
               {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]
    mounts = [{"name": "cm", "mountPath": "/cm"}, {"name": "down", "mountPath": "/down"},
              {"name": "cm", "mountPath": "/etc/one.conf", "subPath": "greeting"}]
    cluster.pod("changes", "sleep", "1000000", runtimeClassName="remote", main={"volumeMounts": mounts}, volumes=volumes)
    uid = cluster.get("pod", "changes")["metadata"]["uid"]
    on_node = cluster.root / "k8s" / "kubelet" / "pods" / uid / "volumes"

    def change(text):
        cluster.kubectl("patch", "configmap", "rcm", "--type=merge", "-p", f'{{"data": {{"greeting": "{text}"}}}}')
        # kubelet looks at a pod when it changes, else once a minute.
        cluster.kubectl("label", "pod", "changes", "--overwrite", f"color={text}")
        written = on_node / "kubernetes.io~configmap" / "cm" / "greeting"

        def nudged():
            cluster.kubectl("annotate", "pod", "changes", "--overwrite", f"nudge={os.urandom(4).hex()}")
            return written.read_text() == text
        wait(nudged, 60, "kubelet did not write the change")
    change("bonjour")
    wait(lambda: sh(cluster, "changes", "cat /cm/greeting") == "bonjour", 5, "the change is on the node and not in the container")
    wait(lambda: "bonjour" in sh(cluster, "changes", "cat /down/labels"), 5)
    assert sh(cluster, "changes", "cat /etc/one.conf") == "hello"
    change("servus")
    cluster.kill_serve()  # as it is about to send it
    cluster.start_serve()
    wait(lambda: cluster.kubectl("exec", "changes", "--", "cat", "/cm/greeting", check=False).stdout == "servus", 30)
    assert cluster.get("pod", "changes")["status"]["containerStatuses"][0]["restartCount"] == 0
    cluster.delete("pod", "changes")


def test_termination_messages(cluster):
    container = {"name": "main", "image": IMAGE, "terminationMessagePath": "/tmp/words"}
    cluster.pod("words", wait_for="Failed", runtimeClassName="remote", restartPolicy="Never", containers=[
        {**container, "command": ["sh", "-c", "echo -n famous last words > /tmp/words; exit 1"]},
        {**container, "name": "logs", "terminationMessagePolicy": "FallbackToLogsOnError", "command": ["sh", "-c", "echo from the log; exit 2"]}])
    states = {s["name"]: s["state"]["terminated"] for s in cluster.get("pod", "words")["status"]["containerStatuses"]}
    assert states["main"]["message"] == "famous last words" and states["main"]["exitCode"] == 1
    assert states["logs"]["message"] == "from the log\n" and states["logs"]["exitCode"] == 2
    cluster.delete("pod", "words")


def test_host_paths_and_claims(cluster):
    shared = cluster.root / "shared"
    shared.joinpath("input").write_text("from the node")
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "claim"},
             "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": "pv", "resources": {"requests": {"storage": "1Mi"}}}}
    volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"},
              "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Mi"}, "local": {"path": str(shared)},
                       "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                           {"key": "kubernetes.io/hostname", "operator": "Exists"}]}]}}}}
    cluster.apply(volume, claim)
    cluster.pod("paths", "sleep", "1000000", runtimeClassName="remote",
                main={"volumeMounts": [{"name": "host", "mountPath": "/host"}, {"name": "claim", "mountPath": "/claim"},
                                       {"name": "claim", "mountPath": "/part", "subPath": "made"}]},
                volumes=[{"name": "host", "hostPath": {"path": f"{shared}/input", "type": "File"}},
                         {"name": "claim", "persistentVolumeClaim": {"claimName": "claim"}}])
    assert sh(cluster, "paths", "cat /host /claim/input; echo back > /claim/output; echo part > /part/x") == "from the nodefrom the node"
    assert shared.joinpath("output").read_text() == "back\n" and shared.joinpath("made", "x").read_text() == "part\n"
    cluster.pod("nowhere", "sleep", "1000000", wait_for=None, runtimeClassName="remote",
                main={"volumeMounts": [{"name": "host", "mountPath": "/host"}]}, volumes=[{"name": "host", "hostPath": {"path": "/etc/ssl"}}])
    wait(lambda: "host_path: /etc/ssl is on this node only" in cluster.describe("nowhere"), 30, lambda: cluster.describe("nowhere"))
    def waiting():
        return cluster.get("pod", "nowhere")["status"]["containerStatuses"][0]["state"]["waiting"]
    wait(lambda: waiting()["reason"] == "CreateContainerError", 30, lambda: str(waiting()))
    assert "SharedPaths" in waiting()["message"]
    cluster.delete("pod", "paths")
    cluster.delete("pod", "nowhere")
    cluster.kubectl("delete", "pvc/claim", "pv/pv", "--timeout=60s")
