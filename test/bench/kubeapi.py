# SPDX-License-Identifier: Apache-2.0
"""A small client of a Kubernetes API server, and a watch that remembers when each pod was seen to be what."""
import contextlib
import http.client
import json
import socket
import ssl
import threading
import time

from runtimes import Failed

PODS = "/api/v1/namespaces/default/pods"


class Api:
    """Calls with the administrator's certificate."""

    def __init__(self, pki, port=6443):
        self.port = port
        self.context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self.context.load_cert_chain(str(pki / "admin.crt"), str(pki / "admin.key"))

    def connect(self, timeout=60):
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context, timeout=timeout)

    def call(self, method, path, body=None, missing_ok=False):
        connection = self.connect()  # one that is kept is closed while we measure, when the server has waited long enough
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{method} {path}: {error}") from error
        finally:
            connection.close()
        if answer.status == 404 and missing_ok:
            return None
        if answer.status >= 300:
            raise Failed(f"{method} {path}: {answer.status} {text[:500].decode(errors='replace')}")
        return json.loads(text)

    def node_ready(self, name):
        node = self.call("GET", f"/api/v1/nodes/{name}", missing_ok=True)
        conditions = node["status"].get("conditions", []) if node else []
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def create(self, pod):
        self.call("POST", PODS, pod)

    def delete(self, name):
        self.call("DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 1}, missing_ok=True)


class Watch(threading.Thread):
    """The pods of the default namespace: .seen[name][what] is the monotonic time at which it was first seen to be so; what is
    "Running", "Ready" or "gone"."""

    def __init__(self, api):
        super().__init__(daemon=True)
        self.api, self.seen, self.news, self.failed = api, {}, threading.Condition(), None
        self.version = api.call("GET", PODS)["metadata"]["resourceVersion"]
        self.connection = api.connect(timeout=3600)
        self.connection.connect()

    def run(self):
        try:
            self.connection.request("GET", f"{PODS}?watch=1&resourceVersion={self.version}&timeoutSeconds=3600")
            answer = self.connection.getresponse()
            while line := answer.readline():
                self.learn(json.loads(line))
            self.failed = "the watch of the pods ended"
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.failed = f"the watch of the pods: {error}"
        with self.news:
            self.news.notify_all()

    def learn(self, event):
        now, pod = time.monotonic(), event["object"]
        with self.news:
            of_pod = self.seen.setdefault(pod["metadata"]["name"], {})
            status = pod.get("status", {})
            if status.get("phase") == "Running":
                of_pod.setdefault("Running", now)
            if any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", [])):
                of_pod.setdefault("Ready", now)
            if status.get("phase") == "Failed" and not pod["metadata"].get("deletionTimestamp"):
                self.failed = f"pod {pod['metadata']['name']} failed: {json.dumps(status)[:1500]}"
            if event["type"] == "DELETED":
                of_pod.setdefault("gone", now)
            self.news.notify_all()

    def until(self, names, what, seconds):
        """Waits until all are; their times, in order."""
        deadline = time.monotonic() + seconds
        with self.news:
            while missing := [n for n in names if what not in self.seen.get(n, {})]:
                left = deadline - time.monotonic()
                if self.failed or left <= 0:
                    raise Failed(self.failed or f"{len(missing)} of {len(names)} pods are not {what} after {seconds} s, "
                                 f"as {missing[0]}")
                self.news.wait(left)
            return [self.seen[n][what] for n in names]

    def stop(self):
        """Not close, which waits for who reads."""
        with contextlib.suppress(OSError):
            self.connection.sock.shutdown(socket.SHUT_RDWR)
        self.join()
        self.connection.close()
