# SPDX-License-Identifier: Apache-2.0
"""Pods and their owners on a real kubelet."""
import json

from cluster import IMAGE, pod, wait


def test_node_is_ready(cluster):
    node = cluster.get("nodes")["items"][0]
    conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
    assert conditions["Ready"] == "True"
    assert node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("interlink-cri://")


def test_pod_runs_logs_and_goes(cluster):
    cluster.pod("hello", "sh", "-c", "echo one; echo two >&2; sleep 1000000")
    wait(lambda: "two" in cluster.kubectl("logs", "hello").stdout, 20)
    assert sorted(cluster.kubectl("logs", "hello").stdout.split()) == ["one", "two"]
    assert cluster.kubectl("logs", "hello", "--tail=1").stdout.strip() in ("one", "two")
    stamped = cluster.kubectl("logs", "hello", "--timestamps").stdout.splitlines()
    assert len(stamped) == 2 and all(line[:2] == "20" for line in stamped)
    assert cluster.get("pod", "hello")["status"]["podIP"]
    cluster.delete("pod", "hello")
    wait(lambda: "hello" not in cluster.ctl("pods").stdout, 90, "the sandbox was not removed")


def test_exit_codes_and_restarts(cluster):
    cluster.pod("fails", "sh", "-c", "exit 7", wait_for="Failed", restartPolicy="Never")
    state = cluster.get("pod", "fails")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert state["exitCode"] == 7 and state["reason"] == "Error"
    # kubelet keeps one dead container only, so --previous needs a running one after it.
    cluster.pod("restarts", "sh", "-c", "echo run; sleep 5; exit 1", wait_for=None)
    wait(lambda: (status := cluster.get("pod", "restarts")["status"].get("containerStatuses", [{}])[0]).get("restartCount") == 1
         and "running" in status["state"], 60)
    assert cluster.kubectl("logs", "restarts", "--previous").stdout == "run\n"
    cluster.delete("pod", "fails")
    cluster.delete("pod", "restarts")


def test_init_containers_and_volumes(cluster):
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": {"greeting": "hello"}},
                  {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sec"}, "stringData": {"password": "hunter2"}})
    mounts = [{"name": "scratch", "mountPath": "/scratch"}, {"name": "cm", "mountPath": "/etc/cm"},
              {"name": "sec", "mountPath": "/etc/sec"}]
    cluster.pod(
        "volumes", "sh", "-c", "cat /scratch/made /etc/sec/password; echo; cat /etc/one; echo; sleep 1000000",
        main={"volumeMounts": mounts + [{"name": "cm", "mountPath": "/etc/one", "subPath": "greeting"}]},
        initContainers=[{"name": "init", "image": IMAGE, "command": ["sh", "-c", "cat /etc/cm/greeting >/scratch/made"],
                         "volumeMounts": mounts}],
        volumes=[{"name": "scratch", "emptyDir": {}}, {"name": "cm", "configMap": {"name": "cm"}},
                 {"name": "sec", "secret": {"secretName": "sec"}}])
    wait(lambda: cluster.kubectl("logs", "volumes").stdout.split() == ["hellohunter2", "hello"], 20,
         lambda: cluster.kubectl("logs", "volumes").stdout)
    cluster.delete("pod", "volumes")


def test_probes(cluster):
    cluster.pod("probed", "httpd", "-f", "-p", "8471", "-h", "/etc", main={
        "ports": [{"containerPort": 8471}],
        "livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1},
        "readinessProbe": {"httpGet": {"port": 8471, "path": "/passwd"}, "periodSeconds": 1},
        "startupProbe": {"tcpSocket": {"port": 8471}, "periodSeconds": 1}})
    cluster.kubectl("wait", "--for=condition=Ready", "pod/probed", "--timeout=60s")
    cluster.delete("pod", "probed")
    cluster.pod("unlive", main={"livenessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}})
    wait(lambda: cluster.get("pod", "unlive")["status"]["containerStatuses"][0]["restartCount"] >= 1, 60)
    cluster.delete("pod", "unlive")


def test_deployment_and_job(cluster):
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod("x")["spec"]}
    cluster.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
                   "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template}})
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    job = pod("x", "sh", "-c", "echo done")["spec"]
    job["restartPolicy"] = "Never"
    cluster.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work"},
                   "spec": {"completions": 2, "parallelism": 2, "template": {"spec": job}}})
    cluster.kubectl("wait", "--for=condition=complete", "job/work", "--timeout=60s")
    cluster.kubectl("delete", "deployment/web", "job/work", "--timeout=60s")
    wait(lambda: not cluster.get("pods")["items"], 60)


def test_grace_and_stop_signal(cluster):
    script = 'trap "echo got-term; exit 3" TERM; while :; do sleep 0.1; done'
    cluster.pod("graceful", "sh", "-c", script, terminationGracePeriodSeconds=20)
    follow = cluster.kubectl_start("logs", "-f", "graceful", stdout=-1, text=True)
    cluster.kubectl("delete", "pod", "graceful", "--timeout=30s")
    out, _ = follow.communicate(timeout=30)
    assert "got-term" in out


def test_impossible_image_and_command(cluster):
    cluster.pod("noimage", wait_for=None, main={"image": "fixture.invalid/none:1"})
    cluster.pod("nocommand", "/no/such/program", wait_for=None)
    wait(lambda: "ErrImagePull" in (e := json.dumps(cluster.get("pod", "noimage"))) or "ImagePullBackOff" in e, 60)
    wait(lambda: "/no/such/program" in cluster.describe("nocommand"), 60)
    cluster.delete("pod", "noimage")
    cluster.delete("pod", "nocommand")


def test_serve_killed(cluster):
    cluster.pod("survivor", "sh", "-c", "n=0; while :; do echo line $n; n=$((n+1)); sleep 0.05; done")
    before = cluster.get("pod", "survivor")["status"]["containerStatuses"][0]
    for _ in range(2):
        cluster.kill_serve()
        cluster.start_serve()
    wait(lambda: int((cluster.kubectl("logs", "survivor").stdout.split() or ["", "0"])[-1]) > 100, 60)
    numbers = [int(line.split()[1]) for line in cluster.kubectl("logs", "survivor").stdout.splitlines()]
    assert numbers == list(range(len(numbers))), "a line was lost or doubled"
    after = cluster.get("pod", "survivor")["status"]["containerStatuses"][0]
    assert after["containerID"] == before["containerID"] and after["restartCount"] == 0
    cluster.delete("pod", "survivor")
