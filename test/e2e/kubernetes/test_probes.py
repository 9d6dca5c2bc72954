# SPDX-License-Identifier: Apache-2.0
"""Probes of every kind by every means, and hooks over HTTP."""
import itertools

import pytest
from cluster import IMAGE, wait

PORTS = itertools.count(8500)  # pods of this machine share its network


def probe(period=1, **what):
    return {"periodSeconds": period, **what}


def test_exec(cluster, place):
    """startup holds the others back, readiness opens and closes, liveness restarts; what a probe says is in the events."""
    name = place.pod("execs", "sh", "-c", "sleep 2; touch /tmp/up; sleep 1000000", main={
        "startupProbe": probe(failureThreshold=60, exec={"command": ["test", "-e", "/tmp/up"]}),
        "readinessProbe": probe(exec={"command": ["sh", "-c", "echo not yet; test -e /tmp/ready"]}),
        "livenessProbe": probe(failureThreshold=1, exec={"command": ["sh", "-c", "test -e /tmp/up && test ! -e /tmp/dead"]})})
    assert not cluster.status(name)["started"]
    wait(lambda: cluster.status(name)["started"], 30)
    cluster.says(name, "Readiness probe failed: not yet", reason="Unhealthy")
    assert not cluster.status(name)["ready"]
    cluster.kubectl("exec", name, "--", "touch", "/tmp/ready")
    cluster.ready(name)
    cluster.kubectl("exec", name, "--", "rm", "/tmp/ready")
    wait(lambda: not cluster.status(name)["ready"], 30)
    assert cluster.status(name)["restartCount"] == 0
    cluster.kubectl("exec", name, "--", "touch", "/tmp/dead")
    wait(lambda: cluster.status(name)["restartCount"] == 1, 30)
    cluster.says(name, "failed liveness probe, will be restarted", reason="Killing")


def test_a_probe_that_takes_too_long(cluster, place):
    name = place.pod("slowprobe", main={"livenessProbe": probe(timeoutSeconds=1, failureThreshold=1,
                                                               exec={"command": ["sleep", "987"]})})
    wait(lambda: cluster.status(name).get("restartCount", 0) >= 1, 40)
    cluster.says(name, "timed out", reason="Unhealthy")


def test_http_tcp_grpc(cluster, place):
    """etcd answers gRPC's health protocol; busybox serves HTTP."""
    web, rpc, peer = next(PORTS), next(PORTS), next(PORTS)
    good, bad = {"httpGet": {"port": web, "path": "/passwd"}}, {"httpGet": {"port": web, "path": "/missing"}}
    etcd = {"name": "rpc", "image": IMAGE, "ports": [{"containerPort": rpc}],
            "command": ["/programs/etcd", "--data-dir=/tmp/etcd", f"--listen-client-urls=http://0.0.0.0:{rpc}",
                        f"--advertise-client-urls=http://127.0.0.1:{rpc}", f"--listen-peer-urls=http://127.0.0.1:{peer}",
                        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}", f"--initial-cluster=default=http://127.0.0.1:{peer}"],
            "volumeMounts": [{"name": "programs", "mountPath": "/programs", "readOnly": True}],
            "startupProbe": probe(failureThreshold=60, grpc={"port": rpc}), "livenessProbe": probe(grpc={"port": rpc})}
    httpd = {"name": "main", "image": IMAGE, "command": ["httpd", "-f", "-p", str(web), "-h", "/etc"], "ports": [{"containerPort": web}]}
    volumes = [{"name": "programs", "hostPath": {"path": str(cluster.programs)}}]
    name = place.pod("networked", volumes=volumes, containers=[
        {**httpd, "livenessProbe": probe(**good), "readinessProbe": probe(**good),
         "startupProbe": probe(failureThreshold=60, tcpSocket={"port": web})}, {**etcd, "readinessProbe": probe(grpc={"port": rpc})}])
    cluster.ready(name)
    web, other = next(PORTS), next(PORTS)
    httpd = {**httpd, "command": ["httpd", "-f", "-p", str(web), "-h", "/etc"], "ports": [{"containerPort": web}]}
    bad["httpGet"]["port"] = web
    unready = place.pod("unready", containers=[{**httpd, "readinessProbe": probe(**bad), "livenessProbe": probe(
        failureThreshold=1, initialDelaySeconds=2, tcpSocket={"port": other})}])
    cluster.says(unready, "HTTP probe failed with statuscode: 404", reason="Unhealthy")
    cluster.says(unready, "Liveness probe failed", str(other), reason="Unhealthy")
    wait(lambda: cluster.status(unready)["restartCount"] >= 1, 30)
    assert cluster.status(name)["restartCount"] == 0 and cluster.status(name, "rpc")["restartCount"] == 0


def test_hooks_over_http(cluster, place):
    """A sidecar serves what the hooks ask for, and its log says what was asked."""
    port = next(PORTS)
    side = {"name": "web", "image": IMAGE, "command": ["httpd", "-f", "-vv", "-p", str(port), "-h", "/etc"], "restartPolicy": "Always",
            "ports": [{"containerPort": port}],
            "startupProbe": probe(failureThreshold=60, tcpSocket={"port": port})}
    name = place.pod("httphooks", wait_for=None, terminationGracePeriodSeconds=4, metadata={"finalizers": ["interlink.test/hold"]},
                     initContainers=[side], main={
                         "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"],
                         "lifecycle": {"postStart": {"httpGet": {"port": port, "path": "/passwd"}},
                                       "preStop": {"httpGet": {"port": port, "path": "/group"}}}})
    status = wait(lambda: (s := cluster.get("pod", name)["status"]).get("podIP") and s, 30)
    if place.name == "remote" and status["podIP"] == status["hostIP"]:
        pytest.skip("pods elsewhere have no addresses of their own here, and kubelet tells a runtime no ports of init containers")
    cluster.phase(name, "Running")
    cluster.delete("pod", name, grace=4, gone=False)
    wait(lambda: cluster.status(name)["state"].get("terminated"), 30)
    wait(lambda: "/group" in cluster.logs(name, "-c", "web"), 10, lambda: cluster.logs(name, "-c", "web"))
    assert "/passwd" in cluster.logs(name, "-c", "web")
    cluster.let_go(name)
