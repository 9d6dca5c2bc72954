# SPDX-License-Identifier: Apache-2.0
"""A real `interlink-cri serve` in a folder of its own, as root or as an ordinary user."""
import contextlib
import fcntl
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time
import uuid

import grpc

from cri import Client, container_config, pb, pod_config

TOP = pathlib.Path(__file__).resolve().parents[3]
BINARY = pathlib.Path(os.environ.get("INTERLINK_CRI_BINARY") or TOP / "build" / "san" / "interlink-cri")
IMAGES = pathlib.Path(os.environ.get("INTERLINK_CRI_TEST_IMAGES") or TOP / "build" / "e2e" / "images")
BUSYBOX = "registry.k8s.io/e2e-test-images/busybox:1.29-2"
USER = 54321  # an ordinary user's id without an entry in /etc/passwd


def make_images():
    """An OCI layout with small real images; made once, whichever of several test processes comes first."""
    IMAGES.parent.mkdir(parents=True, exist_ok=True)
    with (IMAGES.parent / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (IMAGES / "index.json").exists():
            subprocess.run([TOP / "test" / "fixtures" / "images" / "make-images.sh", "build", IMAGES], check=True)
            subprocess.run(["chmod", "-R", "a+rX", IMAGES], check=True)
    return IMAGES


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Serve:
    """serve with its embedded default. `user`: an ordinary user's id, when the tests run as root; None: who runs the tests.
    `groups`: that the user is in. `ranges`: (first, count) of the ids that /etc/subuid and /etc/subgid give it, as only this
    serve sees them."""

    def __init__(self, root, user=None, config="", env=None, ranges=None, groups=""):
        self.root = pathlib.Path(root)
        self.user = user
        self.env = {**os.environ, **(env or {})}
        # A sanitizer's finding ends the process and stays in a file, wherever its standard error went.
        self.findings = self.root / "findings"
        options = f"log_path={self.findings}/report:detect_leaks=0:abort_on_error=0:handle_abort=1"
        self.env.setdefault("ASAN_OPTIONS", options)
        self.env.setdefault("UBSAN_OPTIONS", f"log_path={self.findings}/report:print_stacktrace=1:halt_on_error=1")
        self.socket = self.root / "cri.sock"
        self.logs = self.root / "pod-logs"
        for folder in (self.root, self.findings, self.logs):
            folder.mkdir(exist_ok=True, parents=True)
            if user is not None:
                os.chown(folder, user, user)
        self.config = self.root / "config.yaml"
        self.config.write_text(f"Socket: {self.socket}\nStateDir: {self.root}/state\n{config}")
        self.groups = groups
        self.ranges = ranges
        if ranges:
            self.write_ranges(*ranges)
        self.log = self.root / "serve.log"
        self.process = None
        self.client = None

    def write_ranges(self, first, count):
        etc = self.root / "etc"
        etc.mkdir(exist_ok=True)
        for name in ("passwd", "group"):  # newuidmap(1) wants to know its caller's name
            entry = {"passwd": f"icri:x:{self.user}:{self.user}::/nonexistent:/bin/sh\n", "group": f"icri:x:{self.user}:\n"}[name]
            (etc / name).write_text(pathlib.Path("/etc", name).read_text() + entry)
        for name in ("subuid", "subgid"):
            (etc / name).write_text(f"somebody:1000:5\nicri:{first}:{count}\n")

    def command(self, *arguments):
        """The command line that runs our program as the user."""
        as_user = []
        if self.user is not None:
            as_user = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}",
                       f"--groups={self.groups}" if self.groups else "--clear-groups"]
        if self.ranges:  # files over those of /etc, in a mount namespace of its own
            script = 'for f in passwd group subuid subgid; do mount --bind "$0/$f" "/etc/$f" || exit 1; done; exec "$@"'
            as_user = ["unshare", "--mount", "sh", "-c", script, str(self.root / "etc"), *as_user]
        return [*as_user, str(BINARY), *arguments]

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command("serve", "--config", str(self.config)), stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env=self.env, start_new_session=True)
        if self.client is None:
            self.client = Client(self.socket)
        end = time.monotonic() + 20
        while True:
            try:
                self.client.wait_ready()
                return self
            except grpc.RpcError:  # also what is left of the connection to a server that was killed
                if self.process.poll() is not None or time.monotonic() > end:
                    self.stop()
                    raise AssertionError("serve did not come up:\n" + self.tail()) from None

    def ctl(self, *arguments, **more):
        """Runs `ctl`; returns the finished process."""
        return subprocess.run(self.command("ctl", "--runtime-endpoint", f"unix://{self.socket}", *arguments),
                              capture_output=True, text=True, env=self.env, timeout=60, check=False, **more)

    def kill(self):
        """kill -9, as a crash."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("serve did not end within 10 s of SIGTERM:\n" + self.tail()) from None

    def tail(self, lines=40):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def finish(self):
        """Removes all pods, stops, and checks that nothing was found or left."""
        problems = []
        try:
            if self.process is not None and self.process.poll() is None:
                self.client.remove_everything()
        except Exception as error:  # noqa: BLE001 - told below, with the log
            problems.append(f"pods could not be removed: {error}")
        self.stop()
        self.client.close()
        for report in sorted(self.findings.iterdir()):
            problems.append(report.read_text(errors="replace")[:6000])
        problems += [f"left behind: {line}" for line in self.leftovers()]
        for process in self.processes():
            os.kill(process, signal.SIGKILL)
        for folder in self.cgroups():
            with contextlib.suppress(OSError):
                folder.rmdir()
        shutil.rmtree(self.root, ignore_errors=True)
        assert not problems, "\n".join(problems) + "\n" + "serve.log:\n"

    def processes(self):
        """Processes that work in our folder."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                line = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(self.root).encode() in line:
                found.append(int(entry.name))
        return found

    def cgroups(self):
        """Cgroups of our pods and of their containers, the innermost first."""
        pods = set(re.findall(r"pod ([0-9a-f]{13})", self.log.read_text(errors="replace")))
        found = []
        for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
            _, where, kind = line.split(" ")[:3]
            for common in pathlib.Path(where).glob("interlink-cri/*/") if kind in ("cgroup", "cgroup2") else ():
                if common.name[:13] in pods:
                    found += [pathlib.Path(folder) for folder, _, _ in os.walk(common, topdown=False)]
        return found

    def leftovers(self):
        time.sleep(0.2)
        found = [f"process {p}: {pathlib.Path(f'/proc/{p}/cmdline').read_bytes()!r}" for p in self.processes()]
        for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
            if str(self.root) in line:
                found.append("mount: " + line)
        found += [f"cgroup: {c}" for c in self.cgroups()]
        jobs = self.root / "state" / "plugin" / "jobs"
        if jobs.is_dir():
            found += [f"job folder: {j}" for j in jobs.iterdir()]
        return found


class Pod:
    """A ready pod. .config and .id are its own; its containers' logs are below .logs."""

    def __init__(self, serve, cri, name, handler="", **more):
        self.cri = cri
        self.logs = serve.logs / f"{name}-{uuid.uuid4()}"
        more.setdefault("log_directory", str(self.logs))
        self.config = pod_config(name, **more)
        self.id = cri.run_pod(self.config, handler)
        self.count = 0

    def create(self, *command, name=None, image=BUSYBOX, **more):
        self.count += 1
        config = container_config(name or f"c{self.count}", image, *command, **more)
        return self.cri.create(self.id, config, self.config)

    def run(self, *command, **more):
        container = self.create(*command, **more)
        self.cri.runtime.StartContainer(pb.StartContainerRequest(container_id=container))
        return container

    def wait_for_agent(self, seconds=20):
        """After a restart of serve: until the pod's agent has called in again."""
        end = time.monotonic() + seconds
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=self.id, verbose=True)
        while '"agentConnected":true' not in self.cri.runtime.PodSandboxStatus(request).info["info"]:
            assert time.monotonic() < end, "the agent did not call in"
            time.sleep(0.02)

    def output(self, container):
        """What the container's log holds: (stdout, stderr)."""
        status = self.cri.status(container)
        streams = {"stdout": b"", "stderr": b""}
        for line in pathlib.Path(status.log_path).read_bytes().splitlines():
            _, stream, tag, text = line.split(b" ", 3)
            streams[stream.decode()] += text + (b"\n" if tag == b"F" else b"")
        return streams["stdout"], streams["stderr"]
