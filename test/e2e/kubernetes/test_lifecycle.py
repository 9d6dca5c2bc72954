# SPDX-License-Identifier: Apache-2.0
"""What Kubernetes promises about a pod's life."""
import json

from cluster import IMAGE, pod, wait


def statuses(cluster, name, kind="containerStatuses"):
    return {c["name"]: c for c in cluster.get("pod", name)["status"].get(kind, [])}


def test_sidecar_runs_before_and_beside(cluster):
    sidecar = {"name": "side", "image": IMAGE, "restartPolicy": "Always",
               "command": ["sh", "-c", "touch /shared/up; trap 'echo side ends; exit 0' TERM; while :; do sleep 0.1; done"],
               "startupProbe": {"exec": {"command": ["test", "-e", "/shared/up"]}, "periodSeconds": 1},
               "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    cluster.pod("sidecar", "sh", "-c", "ls /shared/up && echo main saw it", wait_for="Succeeded", restartPolicy="Never",
                initContainers=[sidecar], main={"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]},
                volumes=[{"name": "shared", "emptyDir": {}}])
    assert "main saw it" in cluster.kubectl("logs", "sidecar", "-c", "main").stdout
    assert "side ends" in cluster.kubectl("logs", "sidecar", "-c", "side").stdout
    cluster.delete("pod", "sidecar")


def test_hooks_and_termination_message(cluster):
    cluster.pod("hooks", "sh", "-c", "while [ ! -e /tmp/started ]; do sleep 0.1; done; echo saw start; "
                "trap 'echo bye >/dev/termination-log; exit 4' TERM; while :; do sleep 0.1; done",
                terminationGracePeriodSeconds=20, restartPolicy="Never",
                main={"lifecycle": {"postStart": {"exec": {"command": ["touch", "/tmp/started"]}},
                                    "preStop": {"exec": {"command": ["sh", "-c", "echo hook >/proc/1/fd/1"]}}}})
    wait(lambda: "saw start" in cluster.kubectl("logs", "hooks").stdout, 20)
    watch = cluster.kubectl_start("get", "pod", "hooks", "-w", "-o", "json", stdout=-1, text=True)
    follow = cluster.kubectl_start("logs", "-f", "hooks", stdout=-1, text=True)
    cluster.kubectl("delete", "pod", "hooks", "--timeout=40s")
    out, _ = follow.communicate(timeout=20)
    assert "hook" in out.split()
    watch.kill()
    seen, _ = watch.communicate()
    assert '"message": "bye\\n"' in seen and '"exitCode": 4' in seen


def test_message_falls_back_to_the_log(cluster):
    cluster.pod("fallback", "sh", "-c", "echo the last words; exit 1", wait_for="Failed", restartPolicy="Never",
                main={"terminationMessagePolicy": "FallbackToLogsOnError"})
    assert "the last words" in statuses(cluster, "fallback")["main"]["state"]["terminated"]["message"]
    cluster.delete("pod", "fallback")


def test_ephemeral_container_with_a_target(cluster):
    cluster.pod("debugged", "sleep", "987654")
    cluster.kubectl("debug", "debugged", f"--image={IMAGE}", "--target=main", "-c", "dbg", "--profile=general", "--",
                    "sh", "-c", "ps -o args; sleep 1000000")
    wait(lambda: "running" in statuses(cluster, "debugged", "ephemeralContainerStatuses").get("dbg", {}).get("state", {}), 30)
    wait(lambda: "sleep 987654" in cluster.kubectl("logs", "debugged", "-c", "dbg").stdout, 10)
    cluster.delete("pod", "debugged")


def test_stats_summary_and_metrics(cluster):
    cluster.pod("busy", "sh", "-c", "while :; do :; done", main={"resources": {"limits": {"cpu": "200m", "memory": "64Mi"}}})
    node = cluster.get("nodes")["items"][0]["metadata"]["name"]

    def measured():
        summary = json.loads(cluster.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary").stdout)
        found = [p for p in summary["pods"] if p["podRef"]["name"] == "busy"]
        cpu = found and found[0].get("containers", [{}])[0].get("cpu", {}).get("usageNanoCores", 0)
        return cpu and 50_000_000 < cpu < 400_000_000 and found[0]["containers"][0]["memory"]["workingSetBytes"] > 0
    wait(measured, 60)
    cluster.delete("pod", "busy")


def test_resize_in_place(cluster):
    cluster.pod("resized", main={"resources": {"requests": {"cpu": "100m", "memory": "32Mi"},
                                               "limits": {"cpu": "200m", "memory": "64Mi"}}})
    before = statuses(cluster, "resized")["main"]
    patch = {"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "300m", "memory": "32Mi"},
                                                                    "limits": {"cpu": "500m", "memory": "64Mi"}}}]}}
    cluster.kubectl("patch", "pod", "resized", "--subresource", "resize", "--patch", json.dumps(patch))
    wait(lambda: statuses(cluster, "resized")["main"].get("resources", {}).get("limits", {}).get("cpu") == "500m", 60,
         lambda: json.dumps(cluster.get("pod", "resized")["status"]))
    assert statuses(cluster, "resized")["main"]["containerID"] == before["containerID"]
    read = cluster.kubectl("exec", "resized", "--", "sh", "-c",
                           "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max")
    assert read.stdout.strip() == "50000"
    cluster.delete("pod", "resized")


def test_daemonset_and_statefulset(cluster):
    template = {"metadata": {"labels": {"app": "set"}}, "spec": pod("x")["spec"]}
    for kind, more in (("DaemonSet", {}), ("StatefulSet", {"replicas": 2, "serviceName": "set"})):
        cluster.apply({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "set"},
                       "spec": {"selector": {"matchLabels": {"app": "set"}}, "template": template, **more}})
        cluster.kubectl("rollout", "status", f"{kind.lower()}/set", "--timeout=60s")
        cluster.kubectl("delete", kind.lower(), "set", "--timeout=60s")
        wait(lambda: not cluster.get("pods", "-l", "app=set")["items"], 60)


def test_active_deadline_and_oom(cluster):
    cluster.pod("late", wait_for="Failed", activeDeadlineSeconds=3)
    assert cluster.get("pod", "late")["status"]["reason"] == "DeadlineExceeded"
    cluster.pod("greedy", "sh", "-c", "head -c 200m /dev/zero | tail", wait_for="Failed", restartPolicy="Never",
                main={"resources": {"limits": {"memory": "32Mi"}}})
    ended = statuses(cluster, "greedy")["main"]["state"]["terminated"]
    assert ended["reason"] == "OOMKilled" and ended["exitCode"] == 137, ended
    cluster.delete("pod", "late")
    cluster.delete("pod", "greedy")


def test_security_context(cluster):
    cluster.pod("limited", "sh", "-c", "id; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; touch /no 2>&1; sleep 1000000",
                securityContext={"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000, "supplementalGroups": [3000]},
                main={"securityContext": {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False,
                                          "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}})
    wait(lambda: "Read-only" in cluster.kubectl("logs", "limited").stdout, 20)
    text = cluster.kubectl("logs", "limited").stdout
    for part in ("uid=1000", "gid=1000", "2000", "3000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert part in text, (part, text)
    user = statuses(cluster, "limited")["main"]["user"]["linux"]
    assert user["uid"] == 1000 and user["gid"] == 1000 and set(user["supplementalGroups"]) == {1000, 2000, 3000}
    cluster.delete("pod", "limited")


def test_host_users_false(cluster):
    cluster.pod("mapped", "sh", "-c", "cat /proc/self/uid_map; sleep 1000000", hostUsers=False)
    wait(lambda: cluster.kubectl("logs", "mapped").stdout.split(), 20)
    inside, outside, count = map(int, cluster.kubectl("logs", "mapped").stdout.split()[:3])
    assert inside == 0 and outside >= 65536 and count >= 65536
    cluster.delete("pod", "mapped")


def test_image_volume(cluster):
    cluster.pod("withimage", "ls", "/image/bin/busybox", wait_for="Succeeded", restartPolicy="Never",
                main={"volumeMounts": [{"name": "image", "mountPath": "/image"}]},
                volumes=[{"name": "image", "image": {"reference": IMAGE, "pullPolicy": "IfNotPresent"}}])
    assert "/image/bin/busybox" in cluster.kubectl("logs", "withimage").stdout
    cluster.delete("pod", "withimage")
