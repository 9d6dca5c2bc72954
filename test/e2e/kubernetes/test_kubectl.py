# SPDX-License-Identifier: Apache-2.0
"""kubectl's commands on running pods: logs, describe, debug, top, delete. Streams have a file of their own."""
import json
import re
import threading
import time

import metrics_api
from cluster import IMAGE, wait


def test_logs(cluster, place):
    name = place.pod("talks", containers=[
        {"name": "main", "image": IMAGE, "command": ["sh", "-c", "echo first; sleep 4; for i in $(seq 10); do echo line $i; done; "
                                                     "echo error >&2; sleep 1000000"]},
        {"name": "other", "image": IMAGE, "command": ["sh", "-c", "echo of another; sleep 1000000"]}])
    wait(lambda: "error" in cluster.logs(name, "-c", "main"), 30)
    every = cluster.logs(name, "-c", "main")
    assert sorted(every.splitlines()) == sorted(["first", *(f"line {i}" for i in range(1, 11)), "error"])
    assert cluster.logs(name, "-c", "other") == "of another\n"
    assert "of another" in cluster.logs(name, "--all-containers", "--prefix")
    assert cluster.logs(name, "-c", "main", "--tail=2") == "".join(every.splitlines(keepends=True)[-2:])
    assert len(cluster.logs(name, "-c", "main", "--limit-bytes=7")) == 7
    stamped = cluster.logs(name, "-c", "main", "--timestamps").splitlines()
    times = [line.split(" ")[0] for line in stamped]
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", t) for t in times) and times == sorted(times)
    late = cluster.logs(name, "-c", "main", f"--since-time={times[1]}").splitlines()
    assert "first" not in late and len(late) == 11
    assert cluster.logs(name, "-c", "main", "--since=1h") == every


def test_logs_are_followed(cluster, place):
    """To the end, without a line lost, while they are written faster than they are read."""
    name = place.pod("counts", "sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.1; done; i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done",
                     restartPolicy="Never")
    follow = cluster.kubectl_start("logs", "-f", name, stdout=-1, text=True)
    cluster.kubectl("exec", name, "--", "touch", "/tmp/go")
    out, _ = follow.communicate(timeout=60)
    assert follow.returncode == 0
    assert [int(line) for line in out.split()] == list(range(20000))


def test_logs_of_the_run_before(cluster, place):
    name = place.pod("again", "sh", "-c", "echo run of $(cat /shared/n 2>/dev/null); echo x >>/shared/n; [ $(wc -l </shared/n) = 1 ] && exit 1; sleep 1000000",
                     volumes=[{"name": "s", "emptyDir": {}}], main={"volumeMounts": [{"name": "s", "mountPath": "/shared"}]})
    wait(lambda: (s := cluster.status(name)).get("restartCount") == 1 and "running" in s["state"], 40)
    assert cluster.logs(name, "--previous") == "run of\n"
    wait(lambda: cluster.logs(name) == "run of x\n", 10)


def test_describe(cluster, place):
    name = place.pod("described", "sh", "-c", "sleep 1000000")
    for words in ("Successfully assigned", "Container created", "Container started", "already present on machine"):
        cluster.says(name, words)
    text = cluster.kubectl("describe", "pod", name).stdout
    for words in ("Status: +Running", "Container ID: +interlink-cri://", "Image ID: +fixture.local/busybox@sha256:", "Ready: +True",
                  "Node: +node1/10.199.0.1"):
        assert re.search(words, text), (words, text)
    assert "interlink-cri://" in cluster.kubectl("describe", "node", "node1").stdout


def test_debug(cluster, place):
    """An ephemeral container, with the processes of the one that it is for; a copy of the pod; a shell on the node."""
    name = place.pod("debugged", "sleep", "987654")
    cluster.kubectl("debug", name, f"--image={IMAGE}", "--target=main", "-c", "dbg", "--profile=general", "--",
                    "sh", "-c", "ps -o args; ls /proc/1/root/bin/sh; sleep 1000000")
    wait(lambda: "running" in cluster.status(name, "dbg", "ephemeralContainerStatuses").get("state", {}), 30)
    wait(lambda: "sleep 987654" in cluster.logs(name, "-c", "dbg"), 10, lambda: cluster.logs(name, "-c", "dbg"))
    assert cluster.kubectl("exec", name, "-c", "dbg", "--", "echo", "here").stdout == "here\n"
    cluster.kubectl("debug", name, f"--image={IMAGE}", "-c", "plain", "--profile=general", "--", "sh", "-c", "ps -o args; exit 4")
    assert cluster.ended(name, "plain", "ephemeralContainerStatuses")["exitCode"] == 4
    assert "sleep 987654" not in cluster.logs(name, "-c", "plain")
    assert cluster.status(name)["restartCount"] == 0
    copy = f"copy-{place.name}"
    place.made.append(copy)
    cluster.kubectl("debug", name, f"--copy-to={copy}", "--container=main", "--profile=general", "--", "sh", "-c", "echo a copy; sleep 1000000")
    wait(lambda: cluster.kubectl("logs", copy, "-c", "main", check=False).stdout == "a copy\n", 30)


def test_debug_a_node(cluster, remote):
    done = cluster.kubectl("debug", "node/node1", f"--image={IMAGE}", "--profile=general", "--", "cat", "/host/etc/hostname")
    name = done.stdout.split("pod ")[1].split()[0]
    cluster.phase(name, "Succeeded")
    assert cluster.logs(name).strip() == open("/etc/hostname", encoding="ascii").read().strip()
    cluster.delete("pod", name, gone=False)


def test_top_and_summary(cluster, place):
    """kubelet's own figures, which come from the runtime alone (PodAndContainerStatsFromCRI), and kubectl top with a stand-in for
    metrics-server that reads /metrics/resource as that does."""
    name = place.pod("busy", "sh", "-c", "dd if=/dev/zero of=/data bs=1M count=5; while :; do :; done",
                     main={"resources": {"limits": {"cpu": "200m", "memory": "64Mi"}}})

    def summary():
        status, got = cluster.ask("GET", "/api/v1/nodes/node1/proxy/stats/summary")
        assert status == 200, got
        return next((p for p in got["pods"] if p["podRef"]["name"] == name), {})

    def measured():
        found = summary()
        box = next(iter(found.get("containers", [])), {})
        cpu = box.get("cpu", {}).get("usageNanoCores", 0)
        return 50_000_000 < cpu < 400_000_000 and box["memory"]["workingSetBytes"] > 0 and \
            box.get("rootfs", {}).get("usedBytes", 0) >= 5 << 20 and found.get("memory", {}).get("workingSetBytes", 0) > 0
    wait(measured, 60, lambda: json.dumps(summary()))
    with metrics_api.serving(cluster):
        def top():
            done = cluster.kubectl("top", "pod", name, "--containers", "--no-headers", check=False)
            words = done.stdout.split()
            return done.returncode == 0 and words[:2] == [name, "main"] and 50 <= int(words[2].rstrip("m")) <= 400 and words[3].endswith("Mi")
        wait(top, 60, lambda: str(cluster.kubectl("top", "pod", name, "--containers", check=False)))
        assert cluster.kubectl("top", "node", "node1", "--no-headers").stdout.split()[0] == "node1"


def test_delete(cluster, place):
    """With grace, --now, --force, and many at once."""
    names = [place.pod(f"many{i}", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.2; done", wait_for=None,
                       terminationGracePeriodSeconds=30) for i in range(5)]
    for name in names:
        cluster.phase(name, "Running")
    began = time.monotonic()
    cluster.kubectl("delete", "pods", *names[:3], "--timeout=60s")
    cluster.kubectl("delete", "pod", names[3], "--now", "--timeout=60s")
    cluster.kubectl("delete", "pod", names[4], "--force", "--timeout=60s")
    assert time.monotonic() - began < 30
    wait(lambda: not any(cluster.ctl("ps", "-q", "--label", f"io.kubernetes.pod.name={n}").stdout.split() for n in names), 30)


def test_events_come_in_time(cluster, place):
    """What a watch of a pod sees: the phases in their order, each once."""
    name = f"watched-{place.name}"
    watch = cluster.kubectl_start("get", "pods", "-w", "--output-watch-events", f"--field-selector=metadata.name={name}", "-o",
                                  "jsonpath={.type} {.object.status.phase}{\"\\n\"}", stdout=-1, text=True)
    lines = []
    thread = threading.Thread(target=lambda: lines.extend(watch.stdout))
    thread.start()
    time.sleep(1)
    place.pod("watched", "true", wait_for="Succeeded", restartPolicy="Never")
    cluster.delete("pod", name)
    wait(lambda: any("DELETED" in line for line in lines), 20)
    watch.kill()
    thread.join()
    phases = [line.split()[1] for line in lines if len(line.split()) > 1]
    order = [p for i, p in enumerate(phases) if i == 0 or phases[i - 1] != p]
    assert order in (["Pending", "Running", "Succeeded"], ["Pending", "Succeeded"]), lines


def test_run_and_remove(cluster, place):
    """kubectl run: what comes in goes to the container, what it says comes back with its exit code, and the pod goes."""
    name = f"run-{place.name}"
    place.made.append(name)
    overrides = json.dumps({"apiVersion": "v1", "spec": place.spec})
    done = cluster.kubectl("run", name, "-i", "--rm", "--quiet", "--restart=Never", f"--image={IMAGE}", f"--overrides={overrides}",
                           "--", "sh", "-c", "tr a-z A-Z; exit 3", stdin="some words\n", check=False)
    assert (done.returncode, done.stdout) == (3, "SOME WORDS\n"), done
    wait(lambda: cluster.ask("GET", cluster.path("pod", name))[0] == 404, 30)
