# SPDX-License-Identifier: Apache-2.0
"""Networking of pods whose jobs run elsewhere: addresses, Services, probes, DNS and environment. Three sites with one pod each, as a
cluster's machines would have them."""
import json
import pathlib
import shutil
import socket
import subprocess
import time

import pytest
from cluster import FIXTURE, IMAGE, TOP, wait
from conftest import restart_serve
from remote_site import Site

CLIENT = TOP / "test" / "e2e" / "runtime" / "gate_client.py"
ECHO = TOP / "test" / "fixtures" / "echo.c"
NODE = "10.199.0.1"
CLASSES = ("remote", "second", "third")


@pytest.fixture(scope="module", autouse=True)
def sites(cluster, remote):
    compiler = shutil.which("musl-gcc") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("a C compiler is missing")
    subprocess.run([compiler, "-O2", "-static", "-o", str(cluster.root / "shared" / "echo"), str(ECHO)], check=True)
    more = [Site(cluster, name) for name in CLASSES[1:]]
    before = cluster.config.read_text()
    lines = "".join(f"  - {{Name: {s.name}, Target: '{s.url}'}}\n" for s in more)
    cluster.config.write_text(before.replace("SharedPaths:", lines + "SharedPaths:"))
    restart_serve(cluster)
    for name in CLASSES[1:]:
        cluster.apply({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": name})
    yield [remote, *more]
    cluster.clear()
    for line in cluster.ctl("pods", "-q").stdout.split():
        cluster.ctl("rmp", "-f", line)
    cluster.config.write_text(before)
    restart_serve(cluster)
    for site in more:
        site.stop()


def container(cluster, *command, **more):
    """With the folder that all machines have."""
    return {"name": "main", "image": IMAGE, "command": [str(c) for c in command],
            "volumeMounts": [{"name": "shared", "mountPath": "/shared"}, {"name": "programs", "mountPath": "/programs"}], **more}


def run(cluster, name, *command, where="remote", main=None, **spec):
    volumes = [{"name": "shared", "hostPath": {"path": f"{cluster.root}/shared"}},
               {"name": "programs", "hostPath": {"path": str(cluster.programs)}}]
    return cluster.pod(name, runtimeClassName=where, containers=[container(cluster, *command, **(main or {}))], volumes=volumes, **spec)


def ips(cluster, name):
    return [ip["ip"] for ip in cluster.get("pod", name)["status"]["podIPs"]]


def client(cluster, function, *arguments):
    """From the node's network."""
    done = subprocess.run(cluster.inside("python3", CLIENT, json.dumps([function, *arguments])), capture_output=True, text=True,
                          timeout=150, check=False)
    assert done.returncode == 0, done.stderr + cluster.tail()
    return json.loads(done.stdout)


def is_ready(cluster, name):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in cluster.get("pod", name)["status"]["conditions"])


@pytest.fixture(scope="module")
def web(cluster, sites):
    """Three pods behind a Service; each says its name."""
    names = [f"web-{where}" for where in CLASSES]
    for name, where in zip(names, CLASSES, strict=True):
        run(cluster, name, "/shared/echo", "8080", where=where, wait_for=None, metadata={"labels": {"app": "web"}},
            main={"env": [{"name": "LAST_WORD", "value": f" from {name}"}], "ports": [{"name": "http", "containerPort": 8080}],
                  "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1}})
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
                   "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}})
    for name in names:
        cluster.ready(name)
    yield names
    cluster.delete("service", "web")
    for name in names:
        cluster.delete("pod", name, gone=False)


def endpoints(cluster, service):
    """The addresses that are ready."""
    found = cluster.get("endpointslice", "-l", f"kubernetes.io/service-name={service}")["items"]
    return sorted(e["addresses"][0] for s in found for e in s.get("endpoints") or [] if e["conditions"].get("ready"))


def test_a_service(cluster, web):
    wait(lambda: len(endpoints(cluster, "web")) == 3, 20, lambda: endpoints(cluster, "web"))
    addresses = endpoints(cluster, "web")
    assert addresses == sorted(ips(cluster, name)[0] for name in web)
    assert all(a.startswith("10.199.1.") for a in addresses)
    assert sorted(client(cluster, "echo", a, 8080, "hi") for a in addresses) == sorted(f"hi from {name}" for name in web)
    # By the other family, too; and what does not listen is refused.
    second = ips(cluster, web[0])[1]
    assert second.startswith("fd00:199:1:") and client(cluster, "echo", second, 8080) == f"hello from {web[0]}"
    assert client(cluster, "outcome", addresses[0], 8081) == "refused"


@pytest.fixture
def kube_proxy(cluster):
    if shutil.which("iptables-restore") is None or shutil.which("iptables-save") is None:
        pytest.skip("iptables is missing")
    if subprocess.run(cluster.inside("iptables", "-t", "nat", "-L", "-n"), capture_output=True, check=False).returncode != 0:
        pytest.skip("this kernel has no NAT")
    built = subprocess.run([str(FIXTURE / "build.sh"), "kube-proxy"], stdout=subprocess.PIPE, text=True, check=True)
    program = pathlib.Path(built.stdout.split()[-1]) / "kube-proxy"
    # As a default route would: packets to Services have to be on their way somewhere to be turned round.
    subprocess.run(cluster.inside("ip", "route", "add", "10.198.0.0/24", "dev", "lo"), check=True)
    with (cluster.root / "kube-proxy.log").open("wb") as log:
        process = subprocess.Popen(cluster.inside(
            program, "--kubeconfig", cluster.root / "k8s" / "pki" / "admin.kubeconfig", "--proxy-mode=iptables", "--hostname-override=node1",
            "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
            "--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249"),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    yield process
    process.terminate()
    process.wait(20)
    subprocess.run(cluster.inside(program, "--cleanup"), capture_output=True, timeout=30, check=False)
    subprocess.run(cluster.inside("ip", "route", "del", "10.198.0.0/24", "dev", "lo"), check=True)


def test_a_cluster_ip(cluster, web, kube_proxy):
    ip = cluster.get("service", "web")["spec"]["clusterIP"]
    wait(lambda: client(cluster, "outcome", ip, 80) == "ok", 30, lambda: (cluster.root / "kube-proxy.log").read_text()[-3000:])
    answers = {client(cluster, "echo", ip, 80) for _ in range(24)}
    assert answers == {f"hello from {name}" for name in web}, "connections are balanced over all pods"
    # What kubelet sends for the environment of Services.
    run(cluster, "finds", "sleep", "1000")
    env = cluster.kubectl("exec", "finds", "--", "env").stdout
    assert f"WEB_SERVICE_HOST={ip}\n" in env and "WEB_SERVICE_PORT=80\n" in env and "KUBERNETES_SERVICE_HOST=10.198.0.1\n" in env
    cluster.delete("pod", "finds", gone=False)


def test_what_a_pod_knows_of_itself(cluster):
    fields = {"IP": "status.podIP", "IPS": "status.podIPs", "HOST": "status.hostIP"}
    run(cluster, "knows", "sleep", "1000", main={"env": [{"name": n, "valueFrom": {"fieldRef": {"fieldPath": p}}} for n, p in fields.items()]})
    ip4, ip6 = ips(cluster, "knows")
    env = dict(line.split("=", 1) for line in cluster.kubectl("exec", "knows", "--", "env").stdout.splitlines())
    assert (env["IP"], env["IPS"], env["HOST"]) == (ip4, f"{ip4},{ip6}", NODE)
    hosts = cluster.kubectl("exec", "knows", "--", "cat", "/etc/hosts").stdout
    assert f"{ip4}\tknows\n" in hosts and f"{ip6}\tknows\n" in hosts
    resolv = cluster.kubectl("exec", "knows", "--", "cat", "/etc/resolv.conf").stdout
    assert "nameserver 10.198.0.1\n" in resolv and "search default.svc.cluster.local svc.cluster.local cluster.local" in resolv
    shown = cluster.ctl("info").stdout
    assert "10.199.1.0/24,fd00:199:1::/64" in shown and "RelayCIDRs" in shown
    cluster.delete("pod", "knows", gone=False)


def test_host_network(cluster):
    run(cluster, "host", "sleep", "1000", hostNetwork=True)
    assert ips(cluster, "host") == [NODE]
    cluster.delete("pod", "host", gone=False)


def test_probes(cluster):
    """By http, tcp and grpc; ready when they succeed, not ready when they fail, restarted when they say so. One pod a machine, for
    the pods of one share its ports."""
    quick = {"periodSeconds": 1, "failureThreshold": 1}
    run(cluster, "http", "sh", "-c", "sleep 2; mkdir /tmp/w; echo ok > /tmp/w/ok; exec httpd -f -p 8081 -h /tmp/w", wait_for=None,
        main={"readinessProbe": {"httpGet": {"port": 8081, "path": "/ok"}, **quick}, "ports": [{"containerPort": 8081}],
              "livenessProbe": {"httpGet": {"port": 8081, "path": "/ok"}, "initialDelaySeconds": 20}})
    etcd = ["/programs/etcd", "--data-dir", "/tmp/etcd", "--listen-client-urls", "http://0.0.0.0:2379", "--advertise-client-urls",
            "http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380", "--unsafe-no-fsync", "--log-level", "error"]
    run(cluster, "grpc", *etcd, where="second", wait_for=None,
        main={"readinessProbe": {"grpc": {"port": 2379}, **quick}, "livenessProbe": {"grpc": {"port": 2379}, "initialDelaySeconds": 10}})
    run(cluster, "tcp", "/shared/echo", "8082", where="third", wait_for=None,
        main={"startupProbe": {"tcpSocket": {"port": 8082}, "periodSeconds": 1}, "readinessProbe": {"tcpSocket": {"port": 8082}, **quick}})
    # Nothing listens there, and on the loopback alone does not count.
    run(cluster, "never", "/shared/echo", "127.0.0.1:8083", wait_for=None,
        main={"readinessProbe": {"tcpSocket": {"port": 8083}, **quick}})
    run(cluster, "dies", "sleep", "1000", where="second", wait_for=None,
        main={"livenessProbe": {"tcpSocket": {"port": 8084}, **quick}})
    for name in ("http", "grpc", "tcp"):
        cluster.ready(name)
    wait(lambda: cluster.status("dies").get("restartCount", 0) > 0, 60, lambda: cluster.describe("dies"))
    assert not is_ready(cluster, "never")
    assert cluster.says("never", "Readiness probe failed", "connection refused")
    assert cluster.status("http")["restartCount"] == cluster.status("grpc")["restartCount"] == 0
    cluster.kubectl("exec", "http", "--", "rm", "/tmp/w/ok")
    wait(lambda: not is_ready(cluster, "http"), 30, lambda: cluster.describe("http"))
    for name in ("http", "grpc", "tcp", "never", "dies"):
        cluster.delete("pod", name, gone=False)


def test_connections(cluster, web):
    """Many at once, much each way, ends and resets."""
    ip = ips(cluster, web[0])[0]
    assert client(cluster, "hold_many", ip, 8080, 100) == 100
    assert client(cluster, "echo_many", ip, 8080, 100) == 0, "each has a last word"
    run(cluster, "plain", "/shared/echo", "8090", where="second")
    ip4, ip6 = ips(cluster, "plain")
    wait(lambda: client(cluster, "outcome", ip4, 8090) == "ok", 20)
    assert client(cluster, "echo_many", ip4, 8090, 100) == 100
    for address in (ip4, ip6):
        assert client(cluster, "both_ways", address, 8090, 100)["same"]
    assert client(cluster, "reset", ip4, 8090)
    cluster.delete("pod", "plain")
    assert client(cluster, "outcome", ip4, 8090) == "refused"


def test_port_forward_to_a_service(cluster, web):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    forward = cluster.kubectl_start("port-forward", "service/web", f"{port}:80", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait(lambda: client(cluster, "outcome", "127.0.0.1", port) == "ok", 20)
        assert client(cluster, "echo", "127.0.0.1", port).startswith("hello from web-")
    finally:
        forward.terminate()
        forward.wait()


def test_restarts_keep_addresses(cluster, web):
    before = {name: ips(cluster, name) for name in web}
    restart_serve(cluster)
    wait(lambda: all(client(cluster, "outcome", a[0], 8080) == "ok" for a in before.values()), 30, cluster.tail)
    cluster.restart_kubelet()
    time.sleep(3)
    wait(lambda: len(endpoints(cluster, "web")) == 3, 30, lambda: endpoints(cluster, "web"))
    assert {name: ips(cluster, name) for name in web} == before
    assert all(cluster.status(name)["restartCount"] == 0 for name in web)
