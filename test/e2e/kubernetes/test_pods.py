# SPDX-License-Identifier: Apache-2.0
"""What a pod's containers find: addresses, volumes, users and privileges, images as volumes."""
import pytest
from cluster import IMAGE, wait


def test_addresses(cluster, place):
    name = place.pod("addressed", "sh", "-c", "cat /etc/hosts; hostname; sleep 1000000")
    status = cluster.get("pod", name)["status"]
    assert status["podIP"] and status["podIPs"][0]["ip"] == status["podIP"] and status["hostIP"] == "10.199.0.1"
    wait(lambda: name in cluster.logs(name).split(), 10)
    assert status["podIP"] in cluster.logs(name).split()


def test_volumes_and_init_containers(cluster, place):
    """All of kubelet's kinds have tests of their own for pods elsewhere (test_volumes.py)."""
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": {"greeting": "hello"}},
                  {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sec"}, "stringData": {"password": "hunter2"}})
    mounts = [{"name": "scratch", "mountPath": "/scratch"}, {"name": "cm", "mountPath": "/etc/cm"}, {"name": "sec", "mountPath": "/etc/sec"},
              {"name": "ram", "mountPath": "/ram"}]
    name = place.pod(
        "volumes", "sh", "-c", "cat /scratch/made /etc/sec/password; echo; cat /etc/one; echo; df -k /ram | tail -n 1 | cut -d' ' -f1; "
        "cut -d. -f1 /var/run/secrets/kubernetes.io/serviceaccount/token | cut -c1-4; sleep 1000000",
        main={"volumeMounts": mounts + [{"name": "cm", "mountPath": "/etc/one", "subPath": "greeting"}]},
        initContainers=[{"name": "init", "image": IMAGE, "command": ["sh", "-c", "cat /etc/cm/greeting >/scratch/made"],
                         "volumeMounts": mounts}],
        volumes=[{"name": "scratch", "emptyDir": {}}, {"name": "cm", "configMap": {"name": "cm"}},
                 {"name": "sec", "secret": {"secretName": "sec"}}, {"name": "ram", "emptyDir": {"medium": "Memory"}}])
    wait(lambda: cluster.logs(name).split() == ["hellohunter2", "hello", "tmpfs", "eyJh"], 20, lambda: cluster.logs(name))


def test_security_context(cluster, place):
    name = place.pod("limited", "sh", "-c", "id; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; touch /no 2>&1; sleep 1000000",
                     securityContext={"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000, "supplementalGroups": [3000]},
                     main={"securityContext": {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False,
                                               "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}})
    wait(lambda: "Read-only" in cluster.logs(name), 20)
    text = cluster.logs(name)
    for part in ("uid=1000", "gid=1000", "2000", "3000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert part in text, (part, text)
    user = cluster.status(name)["user"]["linux"]
    assert user["uid"] == 1000 and user["gid"] == 1000 and set(user["supplementalGroups"]) == {1000, 2000, 3000}
    privileged = place.pod("privileged", main={"securityContext": {"privileged": True}})
    assert "0000003fffffffff" <= cluster.kubectl("exec", privileged, "--", "grep", "CapEff", "/proc/self/status").stdout.split()[1]


def test_shared_namespaces(cluster, place):
    """shareProcessNamespace: one container sees and ends the other's processes; without it does not."""
    boxes = [{"name": "main", "image": IMAGE, "command": ["sleep", "987123"]}, {"name": "other", "image": IMAGE, "command": ["sleep", "1000000"]}]
    shared = place.pod("shares", shareProcessNamespace=True, containers=boxes)
    alone = place.pod("alone", containers=boxes)
    assert "sleep 987123" in cluster.kubectl("exec", shared, "-c", "other", "--", "ps", "-o", "args").stdout
    assert "sleep 987123" not in cluster.kubectl("exec", alone, "-c", "other", "--", "ps", "-o", "args").stdout


def test_image_volume(cluster, place):
    name = place.pod("withimage", "ls", "/image/bin/busybox", wait_for="Succeeded", restartPolicy="Never",
                     main={"volumeMounts": [{"name": "image", "mountPath": "/image"}]},
                     volumes=[{"name": "image", "image": {"reference": IMAGE, "pullPolicy": "IfNotPresent"}}])
    assert "/image/bin/busybox" in cluster.logs(name)


def test_host_users_false(cluster, place):
    handlers = {h.get("name", ""): h.get("features", {}) for h in cluster.get("node", "node1")["status"].get("runtimeHandlers", [])}
    if not handlers.get("", {}).get("userNamespaces"):
        pytest.skip("this machine's file systems or kernel do not give pods user namespaces")
    script = ("sh", "-c", "cat /proc/self/uid_map; sleep 1000000")
    if place.name == "remote":  # kubelet gives out ids of this machine
        name = place.pod("mapped", *script, hostUsers=False, wait_for=None)
        cluster.says(name, 'RuntimeClass handler "elsewhere" does not support user namespaces', reason="FailedCreatePodSandBox")
        return
    name = place.pod("mapped", *script, hostUsers=False)
    wait(lambda: cluster.logs(name).split(), 20)
    inside, outside, count = map(int, cluster.logs(name).split()[:3])
    assert inside == 0 and outside >= 65536 and count >= 65536
