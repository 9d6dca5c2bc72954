# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes node to measure: control plane and kubelet of test/fixtures/k8s, with one runtime after the other."""
import ctypes
import datetime
import os
import pathlib
import re
import shutil
import subprocess
import time

import machine
import runtimes
from kubeapi import Api
from runtimes import FIXTURES, Failed

SCRIPTS = FIXTURES / "k8s"
NAME = "node1"
CLONE_NEWNET = 0x40000000
# Of kubelet's log: when it begins to make a pod's sandbox. The rest of the log stays as it is everywhere.
EXTRA = "logging: {vmodule: [{filePattern: kuberuntime_manager, verbosity: 4}]}\n"
CREATING = re.compile(r'^I(\d\d)(\d\d) (\d\d):(\d\d):(\d\d\.\d{6}) .*"Creating PodSandbox for pod".* pod="default/([^"]+)"', re.M)


class Node:
    """The control plane, in a network namespace that the caller joins, and its kubelet."""

    def __init__(self, folder, programs):
        self.state = folder / "k8s"
        self.state.mkdir()
        self.netns = f"kubebench-{os.getpid()}"
        self.cgroup = f"/kubebench-{os.getpid()}"
        (folder / "kubelet-extra.yaml").write_text(EXTRA)
        self.env = {**os.environ, "K8S_BIN": str(programs), "K8S_STATE": str(self.state), "K8S_NETNS": self.netns, "TZ": "UTC",
                    "K8S_CGROUP": self.cgroup, "K8S_KUBELET_EXTRA": str(folder / "kubelet-extra.yaml"), "NICE": "nice -n 0"}
        self.api = None
        self.log_begin = 0  # of the kubelet that runs

    def run(self, script, *arguments):
        # Not through pipes, which what is started would keep open.
        with (self.state / "said").open("w+") as said:
            done = subprocess.run([str(SCRIPTS / script), *map(str, arguments)], env=self.env, stdin=subprocess.DEVNULL, stdout=said,
                                  stderr=said, timeout=300, check=False)
            said.seek(0)
            if done.returncode != 0:
                raise Failed(f"{script} {arguments[0]}: {said.read()[-2000:]}")

    def up(self):
        self.run("netns.sh", "up")
        with open(f"/run/netns/{self.netns}", "rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise Failed(f"setns: {os.strerror(ctypes.get_errno())}")
        self.run("control-plane.sh", "start")
        self.api = Api(self.state / "pki")
        wait(lambda: self.api.call("GET", "/api/v1/namespaces/default/serviceaccounts/default", missing_ok=True), 60,
             "the default service account")

    def down(self):
        self.run("fixture.sh", "wipe")

    def start_kubelet(self, socket):
        self.log_begin = self.log().stat().st_size if self.log().exists() else 0
        self.run("kubelet.sh", "start", socket)

    def kubelet(self):
        return int((self.state / "run" / "kubelet.pid").read_text())

    def stop_kubelet(self):
        """With all that it knew of its pods, and its Node, so that the next one begins anew."""
        self.run("kubelet.sh", "stop")
        folder = self.state / "kubelet"
        for line in reversed(machine.read("/proc/self/mounts").decode().splitlines()):
            if line.split()[1].startswith(f"{folder}"):
                subprocess.run(["umount", "-l", line.split()[1]], check=False)
        shutil.rmtree(folder, ignore_errors=True)
        self.api.call("DELETE", f"/api/v1/nodes/{NAME}", missing_ok=True)

    def log(self):
        return self.state / "log" / "kubelet.log"

    def sandboxes_begun(self):
        """When kubelet called RunPodSandbox for the first time, by the pod's name, in seconds since the epoch."""
        found, year = {}, datetime.datetime.now(datetime.timezone.utc).year
        text = self.log().read_bytes()[self.log_begin:].decode(errors="replace")
        for month, day, hour, minute, second, name in CREATING.findall(text):
            when = datetime.datetime(year, int(month), int(day), int(hour), int(minute), tzinfo=datetime.timezone.utc)
            found.setdefault(name, when.timestamp() + float(second))
        return found


def again(runtime, target):
    """Ends a daemon and starts it anew, without waiting for it."""
    machine.end([target.pid])
    target.socket.unlink(missing_ok=True)
    if target.ours:
        runtime.process.wait()
        runtime.spawn(target)
        return
    if target.process:
        target.process.wait()
    with target.log.open("ab") as said:
        target.process = subprocess.Popen([*runtime.inside(), "containerd", "-c", str(runtime.folder / "config.toml")],
                                          stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
    target.pid = target.process.pid
    (runtime.folder / "containerd.pid").write_text(str(target.pid))


def wait(condition, seconds, what, pause=0.05):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not there after {seconds} s")
        time.sleep(pause)
    return found


class Remains:
    """What a runtime and its pods have on the machine: taken before the pods came and after they went, and compared."""

    def __init__(self, target, cgroup):
        self.found = {
            "processes": {str(pid) for pid in machine.of_root(target.root, target.pid)},
            "mounts": {line.split()[4] for line in machine.read(f"/proc/{target.pid}/mountinfo").decode().splitlines()},
            # Those of pods; what is above them is the node's.
            "cgroups": {folder for top in machine.hierarchies() for folder, _, _ in os.walk(top / cgroup.lstrip("/")) if "/pod" in folder},
            "files": {os.path.join(folder, name) for folder, folders, files in os.walk(target.root) for name in folders + files},
            "namespaces": {str(p) for base in ("run/netns", "var/run/netns")
                           for p in pathlib.Path(f"/proc/{target.pid}/root", base).glob("cni-*")},
        }

    def more_than(self, before):
        return {what: sorted(found - before.found[what]) for what, found in self.found.items()}
