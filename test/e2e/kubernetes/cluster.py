# SPDX-License-Identifier: Apache-2.0
"""A real Kubernetes node on our program: API server, scheduler, controllers and kubelet in one network namespace."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[3]
BINARY = pathlib.Path(os.environ.get("INTERLINK_CRI_BINARY") or TOP / "interlink-cri")
FIXTURE = TOP / "test" / "fixtures" / "k8s"
IMAGE = "fixture.local/busybox:1"


class Cluster:
    def __init__(self, programs):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="icri-k8s-", dir="/tmp"))
        self.netns = f"icri-k8s-{os.getpid()}"
        self.env = {**os.environ, "K8S_BIN": str(programs), "K8S_STATE": str(self.root / "k8s"), "K8S_NETNS": self.netns,
                    "NICE": "nice -n 0"}
        self.socket = self.root / "cri.sock"
        self.log = self.root / "serve.log"
        self.serve = None
        (self.root / "config.yaml").write_text(f"Socket: {self.socket}\nStateDir: {self.root}/state\n")

    # ---- the node's runtime ----
    def start_serve(self):
        with self.log.open("ab") as log:
            self.serve = subprocess.Popen(["nsenter", f"--net=/run/netns/{self.netns}", str(BINARY), "serve", "--config",
                                           str(self.root / "config.yaml")],
                                          stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        wait(lambda: self.ctl("version").returncode == 0, 20, "serve did not come up")

    def ctl(self, *arguments):
        return subprocess.run([str(BINARY), "ctl", "--runtime-endpoint", f"unix://{self.socket}", *arguments],
                              capture_output=True, text=True, timeout=60, check=False)

    def kill_serve(self):
        self.serve.send_signal(signal.SIGKILL)
        self.serve.wait()

    # ---- the cluster ----
    def up(self):
        (self.root / "k8s").mkdir()
        self.run("netns.sh", "up")
        self.start_serve()
        image = self.root / "busybox.tar"
        subprocess.run([str(FIXTURE / "mkimage.py"), str(image), IMAGE], check=True)
        loaded = self.ctl("load", str(image))
        assert loaded.returncode == 0, loaded.stderr
        self.run("fixture.sh", "up", str(self.socket))
        return self

    def run(self, script, *arguments):
        done = subprocess.run([str(FIXTURE / script), *arguments], env=self.env, capture_output=True, text=True, timeout=300,
                              check=False)
        assert done.returncode == 0, f"{script} {arguments}: {done.stdout}{done.stderr}"

    def down(self):
        problems = []
        try:
            self.kubectl("delete", "pods", "--all", "-A", "--grace-period=1", "--timeout=60s", check=False)
        finally:
            self.run("kubelet.sh", "stop")
            for line in self.ctl("pods", "-q").stdout.split():
                self.ctl("rmp", "-f", line)
            self.serve.terminate()
            self.serve.wait(20)
            self.run("fixture.sh", "wipe")
        for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
            if str(self.root) in line:
                problems.append("left behind: mount " + line)
        shutil.rmtree(self.root, ignore_errors=True)
        assert not problems, "\n".join(problems)

    # ---- kubectl ----
    def kubectl(self, *arguments, check=True, stdin=None, text=True, timeout=120):
        done = subprocess.run([str(FIXTURE / "kubectl.sh"), *arguments], env=self.env, input=stdin, capture_output=True,
                              text=text, timeout=timeout, check=False)
        if check:
            assert done.returncode == 0, f"kubectl {arguments}: {done.stdout}{done.stderr}"
        return done

    def kubectl_start(self, *arguments, **more):
        return subprocess.Popen([str(FIXTURE / "kubectl.sh"), *arguments], env=self.env, start_new_session=True, **more)

    def get(self, *arguments):
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)

    def apply(self, *objects):
        for o in objects:
            self.kubectl("apply", "-f", "-", stdin=json.dumps(o))

    def delete(self, kind, name, grace=1):
        self.kubectl("delete", kind, name, f"--grace-period={grace}", "--timeout=60s", "--ignore-not-found")

    def pod(self, name, *command, wait_for="Running", **spec):
        """Makes a pod of one container "main" and waits for its phase."""
        self.apply(pod(name, *command, **spec))
        if wait_for:
            self.phase(name, wait_for)
        return name

    def phase(self, name, *wanted, seconds=60):
        def there():
            found = self.get("pod", name)["status"].get("phase")
            assert found in (*wanted, "Pending", "Running"), f"{name} is {found}: {self.describe(name)}"
            return found in wanted
        wait(there, seconds, lambda: f"{name} is not {wanted}: {self.describe(name)}")

    def describe(self, name):
        return self.kubectl("describe", "pod", name, check=False).stdout + self.tail()

    def tail(self, lines=40):
        return "serve.log:\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


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
        time.sleep(0.3)
    return found
