# SPDX-License-Identifier: Apache-2.0
"""A stand-in for metrics-server: metrics.k8s.io/v1beta1 from two readings of kubelet's /metrics/resource."""
import contextlib
import http.server
import json
import pathlib
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time

from cluster import Cluster, wait

LINE = re.compile(r'^(\w+)(?:\{([^}]*)\})? (\S+)')


def read(ask):
    """{("pod", namespace, pod, container) or ("node",): (cpu seconds, memory bytes)}"""
    status, text = ask("GET", "/api/v1/nodes/node1/proxy/metrics/resource")
    assert status == 200, text
    found = {}
    for name, labels, value in (m.groups() for m in map(LINE.match, text.splitlines()) if m):
        which = dict(re.findall(r'(\w+)="([^"]*)"', labels or ""))
        if name.startswith("container_"):
            key = ("pod", which["namespace"], which["pod"], which["container"])
        elif name.startswith("node_"):
            key = ("node",)
        else:
            continue
        for ending, at in (("cpu_usage_seconds_total", 0), ("memory_working_set_bytes", 1)):
            if name.endswith(ending):
                found.setdefault(key, [0.0, 0.0])[at] = float(value)
    return found


def usage(before, after, seconds):
    cpu = (after[0] - before[0]) / seconds if before else 0
    return {"cpu": f"{int(cpu * 1e9)}n", "memory": f"{int(after[1] / 1024)}Ki"}


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        if not self.path.startswith("/apis/metrics.k8s.io/v1beta1"):  # /apis asks for a newer kind of discovery first
            self.send_error(404)
            return
        path = self.path.split("?")[0].rstrip("/")
        text = json.dumps(self.answer(path.removeprefix("/apis/metrics.k8s.io/v1beta1").strip("/").split("/"))).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def answer(self, words):
        version = {"apiVersion": "metrics.k8s.io/v1beta1"}
        if words == [""]:
            kinds = (("nodes", "NodeMetrics", False), ("pods", "PodMetrics", True))
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "metrics.k8s.io/v1beta1", "resources": [
                {"name": n, "singularName": "", "namespaced": ns, "kind": k, "verbs": ["get", "list"]} for n, k, ns in kinds]}
        (at, before), (now, after) = self.server.readings[-2:]
        stamp = {"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "window": f"{now - at:.3f}s"}
        if words[0] == "nodes":
            node = {**version, "kind": "NodeMetrics", "metadata": {"name": "node1"}, **stamp,
                    "usage": usage(before.get(("node",)), after[("node",)], now - at)}
            return node if len(words) > 1 else {**version, "kind": "NodeMetricsList", "metadata": {}, "items": [node]}
        pods = {}
        for key, value in after.items():
            if key[0] == "pod" and (words[0] == "pods" or key[1] == words[1]):
                pods.setdefault(key[1:3], []).append({"name": key[3], "usage": usage(before.get(key), value, now - at)})
        items = [{**version, "kind": "PodMetrics", "metadata": {"namespace": ns, "name": name}, **stamp, "containers": boxes}
                 for (ns, name), boxes in pods.items()]
        if words[0] == "namespaces" and len(words) > 3:
            return next((i for i in items if i["metadata"]["name"] == words[3]), {})
        return {**version, "kind": "PodMetricsList", "metadata": {}, "items": items}


def main(port, folder, api):
    cluster = Cluster.__new__(Cluster)
    cluster.root = pathlib.Path(api).parent
    server = http.server.ThreadingHTTPServer(("10.199.0.1", port), Handler)
    server.readings = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/kubelet-server.crt", f"{folder}/kubelet-server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    for _ in range(2):
        server.readings.append((time.monotonic(), read(cluster.ask)))
        time.sleep(1)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        server.readings = server.readings[-2:] + [(time.monotonic(), read(cluster.ask))]
        time.sleep(3)


@contextlib.contextmanager
def serving(cluster, port=4443):
    """In the cluster's network, behind an APIService."""
    process = subprocess.Popen(cluster.inside(sys.executable, __file__, port, cluster.root / "k8s" / "pki", cluster.root / "api.sock"),
                               start_new_session=True)
    named = {"namespace": "kube-system", "name": "metrics"}
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": named, "spec": {"ports": [{"port": 443, "targetPort": port}]}},
                  {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": [{"port": port}],
                   "metadata": {**named, "labels": {"kubernetes.io/service-name": "metrics"}}, "endpoints": [
                       {"addresses": ["10.199.0.1"], "conditions": {"ready": True}}]},
                  {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1beta1.metrics.k8s.io"},
                   "spec": {"group": "metrics.k8s.io", "version": "v1beta1", "insecureSkipTLSVerify": True, "groupPriorityMinimum": 100,
                            "versionPriority": 100, "service": named}})
    try:
        wait(lambda: cluster.ask("GET", "/apis/metrics.k8s.io/v1beta1/nodes")[0] == 200, 30, "the metrics API did not come up")
        shutil.rmtree(cluster.env["KUBECACHEDIR"], ignore_errors=True)  # kubectl remembers for minutes what there is
        yield
    finally:
        cluster.ask("DELETE", cluster.path("apiservice", "v1beta1.metrics.k8s.io"))
        process.kill()
        process.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
