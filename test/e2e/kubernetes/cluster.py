# SPDX-License-Identifier: Apache-2.0
"""A real Kubernetes node on our program: API server, scheduler, controllers and kubelet in one network namespace."""
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse

import pytest

TOP = pathlib.Path(__file__).resolve().parents[3]
BINARY = pathlib.Path(os.environ.get("INTERLINK_CRI_BINARY") or TOP / "interlink-cri")
FIXTURE = TOP / "test" / "fixtures" / "k8s"
IMAGE = "fixture.local/busybox:1"

# Short waits, so that tests are short: restarts after 2 s instead of 10 s to 5 min, rotation of logs at 64 KiB instead of 10 MiB.
KUBELET = """
syncFrequency: 10s
fileCheckFrequency: 2s
imageMinimumGCAge: 1s
serializeImagePulls: false
crashLoopBackOff: {maxContainerRestartPeriod: 2s}
containerLogMaxSize: 64Ki
containerLogMaxFiles: 10
containerLogMonitorInterval: 3s
featureGates: {PodAndContainerStatsFromCRI: true, ContainerStopSignals: true}
"""

# What tests name, and where the API has it. A "%s" is the namespace.
PATHS = {
    "pod": "/api/v1/namespaces/%s/pods", "configmap": "/api/v1/namespaces/%s/configmaps", "secret": "/api/v1/namespaces/%s/secrets",
    "service": "/api/v1/namespaces/%s/services", "persistentvolumeclaim": "/api/v1/namespaces/%s/persistentvolumeclaims",
    "serviceaccount": "/api/v1/namespaces/%s/serviceaccounts", "event": "/api/v1/namespaces/%s/events",
    "persistentvolume": "/api/v1/persistentvolumes", "node": "/api/v1/nodes", "namespace": "/api/v1/namespaces",
    "deployment": "/apis/apps/v1/namespaces/%s/deployments", "daemonset": "/apis/apps/v1/namespaces/%s/daemonsets",
    "statefulset": "/apis/apps/v1/namespaces/%s/statefulsets", "job": "/apis/batch/v1/namespaces/%s/jobs",
    "runtimeclass": "/apis/node.k8s.io/v1/runtimeclasses",
    "endpointslice": "/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices",
    "apiservice": "/apis/apiregistration.k8s.io/v1/apiservices",
}


def programs():
    """The folder of Kubernetes' programs, or a skip that says what is missing."""
    if os.getuid() != 0:
        pytest.skip("a kubelet needs root")
    for program in ("openssl", "ip", "nsenter", "unshare"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing")
    if subprocess.run(["unshare", "-n", "-m", "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        pytest.skip("network and mount namespaces are refused here")
    built = subprocess.run([str(FIXTURE / "build.sh")], stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode == 77:
        pytest.skip("Go is missing: Kubernetes cannot be built")
    assert built.returncode == 0, "Kubernetes could not be built"
    return built.stdout.split()[-1]


class Unix(http.client.HTTPConnection):
    def __init__(self, path, timeout=60):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Cluster:
    def __init__(self, programs):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="icri-k8s-", dir="/tmp"))
        self.netns = f"icri-k8s-{os.getpid()}"
        self.kubelet_config = self.root / "kubelet-extra.yaml"
        self.kubelet_config.write_text(KUBELET)
        self.env = {**os.environ, "K8S_BIN": str(programs), "K8S_STATE": str(self.root / "k8s"), "K8S_NETNS": self.netns,
                    "K8S_KUBELET_EXTRA": str(self.kubelet_config), "K8S_FEATURES": "ContainerStopSignals=true", "NICE": "nice -n 0",
                    "KUBECACHEDIR": str(self.root / "kubectl-cache")}
        self.programs = pathlib.Path(programs)
        self.socket = self.root / "cri.sock"
        self.log = self.root / "serve.log"
        self.config = self.root / "config.yaml"
        self.serve = None
        self.binary = BINARY  # of the node
        self.proxy = None
        self.site = None
        self.config.write_text(f"Socket: {self.socket}\nStateDir: {self.root}/state\n")

    def inside(self, *command):
        """The command that runs `command` in the cluster's network."""
        return ["nsenter", f"--net=/run/netns/{self.netns}", *(str(c) for c in command)]

    # ---- the node's runtime ----
    def start_serve(self):
        with self.log.open("ab") as log:
            self.serve = subprocess.Popen(self.inside(self.binary, "serve", "--config", self.config),
                                          stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        wait(lambda: self.ctl("version").returncode == 0, 20, "serve did not come up")

    def ctl(self, *arguments):
        return subprocess.run([str(BINARY), "ctl", "--runtime-endpoint", f"unix://{self.socket}", *arguments],
                              capture_output=True, text=True, timeout=60, check=False)

    def kill_serve(self):
        self.serve.send_signal(signal.SIGKILL)
        self.serve.wait()

    def load(self, name, *more):
        """Makes an image of busybox and gives it to the node."""
        image = self.root / "image.tar"
        subprocess.run([str(FIXTURE / "mkimage.py"), str(image), name, *more], check=True)
        loaded = self.ctl("load", str(image))
        assert loaded.returncode == 0, loaded.stderr
        image.unlink()

    # ---- the cluster ----
    def up(self):
        (self.root / "k8s").mkdir()
        self.run("netns.sh", "up")
        self.start_serve()
        self.load(IMAGE)
        self.run("fixture.sh", "up", str(self.socket))
        self.start_proxy()
        return self

    def start_proxy(self):
        """The API without TLS on a socket: a request costs a thousandth of what starting kubectl costs."""
        path = self.root / "api.sock"
        self.proxy = self.kubectl_start("proxy", f"--unix-socket={path}", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait(path.exists, 20, "kubectl proxy did not come up")

    def run(self, script, *arguments):
        done = subprocess.run([str(FIXTURE / script), *arguments], env=self.env, capture_output=True, text=True, timeout=300,
                              check=False)
        assert done.returncode == 0, f"{script} {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def restart_kubelet(self):
        self.run("kubelet.sh", "stop")
        self.run("kubelet.sh", "start", str(self.socket))

    def down(self):
        problems = []
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired, OSError):
            self.clear()
        self.run("kubelet.sh", "stop")
        for line in self.ctl("pods", "-q").stdout.split():
            self.ctl("rmp", "-f", line)
        self.serve.terminate()
        self.serve.wait(20)
        if self.site:
            self.site.stop()
        if self.proxy:
            self.proxy.kill()
            self.proxy.wait()
        self.run("fixture.sh", "wipe")
        for pid in self.agents():
            problems.append(f"left behind: agent {pid}")
            os.kill(pid, signal.SIGKILL)
        for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
            if str(self.root) in line:
                problems.append("left behind: mount " + line)
        shutil.rmtree(self.root, ignore_errors=True)
        assert not problems, "\n".join(problems)

    def agents(self):
        """The agents of this cluster's jobs, here and at its sites: they run in their job's folder."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.readlink(entry / "cwd").startswith(f"{self.root}/") and \
                        (entry / "cmdline").read_bytes().split(b"\0")[1:2] == [b"agent"]:
                    found.append(int(entry.name))
        return found

    def clear(self, seconds=60):
        """Deletes what tests left in the default namespace, pods last, and waits until they are gone."""
        for kind in ("deployment", "daemonset", "statefulset", "job"):
            self.ask("DELETE", PATHS[kind] % "default" + "?propagationPolicy=Background")
        end = time.monotonic() + seconds
        while pods := self.get("pods")["items"]:
            for p in pods:
                if "deletionTimestamp" not in p["metadata"]:
                    self.ask("DELETE", f"/api/v1/namespaces/default/pods/{p['metadata']['name']}?gracePeriodSeconds=1")
                if "finalizers" in p["metadata"]:
                    self.let_go(p["metadata"]["name"])
            assert time.monotonic() < end, f"left: {[p['metadata']['name'] for p in pods]}\n{self.tail()}"
            time.sleep(0.2)

    # ---- the API ----
    def ask(self, method, path, body=None, kind="application/json"):
        """One request. Gives the status and what came, as JSON where it is some."""
        connection = Unix(self.root / "api.sock")
        connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": kind})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def path(self, kind, name="", namespace="default"):
        kind = kind.lower()
        found = PATHS.get(kind) or PATHS[kind.removesuffix("s")]
        return (found % namespace if "%s" in found else found) + (f"/{name}" if name else "")

    def get(self, kind, *arguments):
        """What `kubectl get KIND [NAME] [-n NAMESPACE] [-l SELECTOR] -o json` gives."""
        arguments, name, namespace, selector = list(arguments), "", "default", ""
        while arguments:
            word = arguments.pop(0)
            if word == "-n":
                namespace = arguments.pop(0)
            elif word == "-l":
                selector = "?labelSelector=" + urllib.parse.quote(arguments.pop(0))
            else:
                name = word
        status, got = self.ask("GET", self.path(kind, name, namespace) + selector)
        assert status == 200, f"get {kind} {name}: {got}"
        return got

    def apply(self, *objects):
        for o in objects:
            path = self.path(o["kind"], o["metadata"].get("name"), o["metadata"].get("namespace", "default"))
            status, got = self.ask("PATCH", path + "?fieldManager=tests&force=true", o, "application/apply-patch+yaml")
            assert status in (200, 201), f"apply {o['kind']} {o['metadata'].get('name')}: {got}"

    def patch(self, kind, name, what, sub="", namespace="default"):
        status, got = self.ask("PATCH", self.path(kind, name, namespace) + sub, what, "application/strategic-merge-patch+json")
        assert status == 200, f"patch {kind} {name}: {got}"
        return got

    def delete(self, kind, name, grace=1, gone=True):
        """Deletes an object, and waits until it is gone."""
        path = self.path(kind, name)
        self.ask("DELETE", f"{path}?gracePeriodSeconds={grace}&propagationPolicy=Foreground")
        if gone:
            wait(lambda: self.ask("GET", path)[0] == 404, 60, lambda: f"{kind} {name} does not go: {self.ask('GET', path)[1]}")

    def let_go(self, name):
        """Takes the finalizers from a pod, which keep it after its end."""
        status, got = self.ask("PATCH", self.path("pod", name), {"metadata": {"finalizers": None}}, "application/merge-patch+json")
        assert status in (200, 404), got

    def create_pod(self, o):
        status, got = self.ask("POST", self.path("pod"), o)
        assert status == 201, f"pod {o['metadata']['name']}: {got}"

    def pod(self, name, *command, wait_for="Running", **spec):
        """Makes a pod of one container "main" and waits for its phase."""
        self.create_pod(pod(name, *command, **spec))
        if wait_for:
            self.phase(name, wait_for)
        return name

    def phase(self, name, *wanted, seconds=60):
        def there():
            found = self.get("pod", name)["status"].get("phase")
            assert found in (*wanted, "Pending", "Running"), f"{name} is {found}: {self.describe(name)}"
            return found in wanted
        wait(there, seconds, lambda: f"{name} is not {wanted}: {self.describe(name)}")

    def status(self, name, container="main", kind="containerStatuses"):
        """The status of one container, or {} while there is none."""
        found = self.get("pod", name)["status"].get(kind, [])
        return next((c for c in found if c["name"] == container), {})

    def ended(self, name, container="main", kind="containerStatuses", seconds=60):
        """How a container ended that is not started again."""
        return wait(lambda: self.status(name, container, kind).get("state", {}).get("terminated"), seconds,
                    lambda: f"{container} does not end: {self.describe(name)}")

    def ready(self, name, seconds=60):
        def there():
            conditions = self.get("pod", name)["status"].get("conditions", [])
            return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        wait(there, seconds, lambda: f"{name} is not ready: {self.describe(name)}")

    def events(self, name, reason=None):
        """The messages of the events of a pod."""
        found = self.get("events")["items"]
        return [e["message"] for e in found if e["involvedObject"].get("name") == name and reason in (None, e["reason"])]

    def says(self, name, *words, reason=None, seconds=45):
        """Waits for an event of a pod that has all the words, however written."""
        return wait(lambda: next((m for m in self.events(name, reason) if all(w.lower() in m.lower() for w in words)), None), seconds,
                    lambda: f"no event says {words}: {self.describe(name)}")

    def logs(self, name, *arguments):
        return self.kubectl("logs", name, *arguments).stdout

    # ---- kubectl ----
    def kubectl(self, *arguments, check=True, stdin=None, text=True, timeout=120):
        done = subprocess.run([str(FIXTURE / "kubectl.sh"), *arguments], env=self.env, input=stdin, capture_output=True,
                              text=text, timeout=timeout, check=False)
        if check:
            assert done.returncode == 0, f"kubectl {arguments}: {done.stdout}{done.stderr}"
        return done

    def kubectl_start(self, *arguments, **more):
        return subprocess.Popen([str(FIXTURE / "kubectl.sh"), *arguments], env=self.env, start_new_session=True, **more)

    def describe(self, name):
        return self.kubectl("describe", "pod", name, check=False).stdout + self.tail()

    def tail(self, lines=40):
        """Who runs, and the last lines of serve and kubelet: what a failed test has to say."""
        texts = [self.run("fixture.sh", "status")]
        for log in (self.log, self.root / "k8s" / "log" / "kubelet.log"):
            text = log.read_text(errors="replace") if log.exists() else "(none)"
            texts.append(f"{log.name}:\n" + "\n".join(line[:300] for line in text.splitlines()[-lines:]))
        return "\n".join(texts)


class Place:
    """Where pods run: "local" is the target that is built in, "remote" a site with a plugin of its own, by RuntimeClass. Pods
    made here are named after it and deleted after the test."""

    def __init__(self, cluster, name):
        self.cluster = cluster
        self.name = name
        self.spec = {"runtimeClassName": "remote"} if name == "remote" else {}
        self.made = []

    def pod(self, name, *command, **spec):
        name = f"{name}-{self.name}"
        self.made.append(name)
        return self.cluster.pod(name, *command, **self.spec, **spec)

    def template(self, app, *command, **spec):
        """A pod template for what makes pods."""
        return {"metadata": {"labels": {"app": app}}, "spec": pod("x", *command, **self.spec, **spec)["spec"]}

    def close(self):
        for name in self.made:
            self.cluster.delete("pod", name, gone=False)


def pod(name, *command, containers=None, **spec):
    main = {"name": "main", "image": IMAGE, "command": list(command or ("sleep", "1000000"))}
    main.update(spec.pop("main", {}))
    metadata = {"name": name, **spec.pop("metadata", {})}
    spec.setdefault("terminationGracePeriodSeconds", 1)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers or [main], **spec}}


def wait(condition, seconds, message="it did not become so in time"):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, message() if callable(message) else message
        time.sleep(0.15)
    return found
