# SPDX-License-Identifier: Apache-2.0
"""What makes pods: Deployments, Jobs, DaemonSets, StatefulSets, static pods."""
import json

from cluster import IMAGE, pod, wait


def made(cluster, app):
    return cluster.get("pods", "-l", f"app={app}")["items"]


def test_deployment(cluster, place):
    """Rolled out, scaled, changed by a rolling update, undone."""
    app = f"web-{place.name}"
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": app},
                  "spec": {"replicas": 2, "selector": {"matchLabels": {"app": app}}, "template": place.template(app)}}
    cluster.apply(deployment)
    cluster.kubectl("rollout", "status", f"deployment/{app}", "--timeout=60s")
    first = {p["metadata"]["name"] for p in made(cluster, app)}
    cluster.kubectl("scale", f"deployment/{app}", "--replicas=3")
    cluster.kubectl("set", "env", f"deployment/{app}", "CHANGED=yes")
    cluster.kubectl("rollout", "status", f"deployment/{app}", "--timeout=60s")
    wait(lambda: len(made(cluster, app)) == 3, 60)
    assert not first & {p["metadata"]["name"] for p in made(cluster, app)}
    assert cluster.kubectl("exec", f"deployment/{app}", "--", "sh", "-c", "echo $CHANGED").stdout == "yes\n"
    cluster.kubectl("delete", "pod", made(cluster, app)[0]["metadata"]["name"], "--wait=false")
    cluster.kubectl("rollout", "undo", f"deployment/{app}")
    cluster.kubectl("rollout", "status", f"deployment/{app}", "--timeout=60s")
    cluster.delete("deployment", app)
    wait(lambda: not made(cluster, app), 60)


def test_job(cluster, place):
    """Completions, a failure that is tried again, and one that is given up."""
    def job(name, script, **more):
        spec = place.template(name, "sh", "-c", script)
        spec["spec"]["restartPolicy"] = "Never"
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": spec, **more}}
    good, bad = f"good-{place.name}", f"bad-{place.name}"
    cluster.apply(job(good, "echo index $JOB_COMPLETION_INDEX", completions=3, parallelism=2, completionMode="Indexed"),
                  job(bad, "exit 3", backoffLimit=0))
    cluster.kubectl("wait", "--for=condition=complete", f"job/{good}", "--timeout=60s")
    assert sorted(cluster.logs(p["metadata"]["name"]) for p in made(cluster, good)) == ["index 0\n", "index 1\n", "index 2\n"]
    cluster.kubectl("wait", "--for=condition=failed", f"job/{bad}", "--timeout=60s")
    assert made(cluster, bad)[0]["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    for name in (good, bad):
        cluster.delete("job", name)


def test_daemonset(cluster, place):
    app = f"daemon-{place.name}"
    cluster.apply({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": app},
                   "spec": {"selector": {"matchLabels": {"app": app}}, "template": place.template(app)}})
    cluster.kubectl("rollout", "status", f"daemonset/{app}", "--timeout=60s")
    assert len(made(cluster, app)) == 1
    cluster.delete("daemonset", app)
    wait(lambda: not made(cluster, app), 60)


def test_statefulset(cluster, place):
    """In order, under names that stay, each with its host name and index."""
    app = f"set-{place.name}"
    cluster.apply({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": app},
                   "spec": {"replicas": 2, "serviceName": app, "selector": {"matchLabels": {"app": app}},
                            "template": place.template(app)}})
    cluster.kubectl("rollout", "status", f"statefulset/{app}", "--timeout=60s")
    before = {p["metadata"]["name"]: p["metadata"]["uid"] for p in made(cluster, app)}
    assert sorted(before) == [f"{app}-0", f"{app}-1"]
    assert cluster.kubectl("exec", f"{app}-1", "--", "cat", "/etc/hostname").stdout.strip() == f"{app}-1"
    cluster.kubectl("delete", "pod", f"{app}-1", "--wait=false")
    wait(lambda: {p["metadata"]["name"]: p["metadata"]["uid"] for p in made(cluster, app)}.get(f"{app}-1", before[f"{app}-1"])
         != before[f"{app}-1"], 60)
    cluster.kubectl("rollout", "status", f"statefulset/{app}", "--timeout=60s")
    cluster.delete("statefulset", app)
    wait(lambda: not made(cluster, app), 60)


def test_static_pod(cluster, place):
    """From a file in kubelet's folder, seen through the API, changed and gone with the file."""
    name = f"static-{place.name}"
    path = cluster.root / "k8s" / "manifests" / f"{name}.json"

    def write(word):
        temporary = path.with_name(".new")
        temporary.write_text(json.dumps(pod(name, "sh", "-c", f"echo {word}; sleep 1000000", **place.spec)))
        temporary.rename(path)
    write("one")
    seen = f"{name}-node1"
    wait(lambda: cluster.ask("GET", cluster.path("pod", seen))[0] == 200, 30)
    cluster.phase(seen, "Running")
    wait(lambda: cluster.logs(seen) == "one\n", 10)
    write("two")
    wait(lambda: cluster.kubectl("logs", seen, check=False).stdout == "two\n", 40, lambda: cluster.describe(seen))
    path.unlink()
    wait(lambda: cluster.ask("GET", cluster.path("pod", seen))[0] == 404, 40)
    wait(lambda: name not in cluster.ctl("pods", "--state", "Ready").stdout, 20)


def test_what_a_pod_is_told(cluster, place):
    """Environment by every source, downward API, command and arguments with references, host name and subdomain."""
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "env"}, "data": {"greeting": "hello"}},
                  {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "env"}, "stringData": {"password": "hunter2"}})
    env = [{"name": "PLAIN", "value": "a b"}, {"name": "TWICE", "value": "$(PLAIN) $(PLAIN)"},
           {"name": "CM", "valueFrom": {"configMapKeyRef": {"name": "env", "key": "greeting"}}},
           {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "env", "key": "password"}}},
           {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
           {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}}]
    name = place.pod("told", wait_for="Succeeded", restartPolicy="Never", hostname="me", subdomain="here", containers=[
        {"name": "main", "image": IMAGE, "command": ["sh", "-c"], "workingDir": "/tmp",
         "args": ["echo $(TWICE); echo $CM $SECRET $NODE $CPUS $greeting; pwd; hostname; grep -q here /etc/hosts && echo known"],
         "env": env, "envFrom": [{"configMapRef": {"name": "env"}}], "resources": {"limits": {"cpu": "250m"}}}])
    assert cluster.logs(name).splitlines() == ["a b a b", "hello hunter2 node1 250 hello", "/tmp", "me", "known"]
