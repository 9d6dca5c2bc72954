# SPDX-License-Identifier: Apache-2.0
"""What is measured: a CRI socket and the processes behind it; and how ours and a private containerd are started for it."""
import dataclasses
import hashlib
import os
import pathlib
import shutil
import subprocess
import time

import machine

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[1]
FIXTURES = TOP / "test" / "fixtures"
IMAGE = "registry.k8s.io/e2e-test-images/busybox:1.29-2"


class Failed(Exception):
    """A tool or a runtime did not do what it should; the text says which, and what it said."""


def run(*command, timeout=300, **more):
    """Runs a command; its standard output."""
    command = [str(c) for c in command]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False, **more)
    except FileNotFoundError:
        raise Failed(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command)}: not done after {timeout} s") from None
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: exit status {done.returncode}\n{(done.stderr or done.stdout)[-2000:].strip()}")
    return done.stdout


def cribench():
    """The Go client, built once for each state of its sources and of Go."""
    source = HERE / "cribench"
    key = hashlib.sha256(run("go", "version").encode())
    for file in sorted(source.glob("*.go")) + [source / "go.mod", source / "go.sum"]:
        key.update(file.read_bytes())
    cache = os.environ.get("INTERLINK_CRI_CACHE") or pathlib.Path(
        os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "interlink-cri"
    program = pathlib.Path(cache) / f"cribench-{key.hexdigest()[:16]}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        made = program.with_name(f"{program.name}.{os.getpid()}")
        run("go", "build", "-mod=readonly", "-trimpath", "-o", made, ".", cwd=source, timeout=600,
            env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"})
        os.replace(made, program)
    return program


def lines(folder):
    """The static program that writes lines."""
    compiler = shutil.which("musl-gcc") or shutil.which("gcc") or "cc"
    run(compiler, "-O2", "-static", "-o", folder / "lines", HERE / "lines.c")
    return folder / "lines"


def images():
    """The images of the tests, as an OCI layout and with the mirrors of a registry that serves it."""
    folder = TOP / "build" / "bench" / "images"
    if not (folder / "index.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        run(FIXTURES / "images" / "make-images.sh", "build", folder)
    return folder


@dataclasses.dataclass
class Target:
    """A CRI socket. Without pid nothing is known of its CPU time and memory, without root nothing of its pods' processes."""
    name: str
    socket: pathlib.Path = None
    pid: int = 0
    root: pathlib.Path = None
    logs: pathlib.Path = None
    group: machine.Group = None
    binaries: tuple = ()
    log: pathlib.Path = None  # what it said
    version: str = ""
    ours: bool = False
    url: str = ""  # what is got from a server that does not speak CRI
    process: subprocess.Popen = None  # when it is our child

    def join_group(self, name):
        """A cgroup of its own, where they can be made."""
        try:
            self.group = machine.Group(name)
            self.group.add(machine.with_helpers(self.pid))
        except OSError:
            self.leave_group()

    def leave_group(self):
        if self.group:
            self.group.remove()
            self.group = None

    def tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:]) if self.log and self.log.exists() else ""

    def remains(self):
        """Ends what is left when its pods could not be removed."""
        if self.root:
            machine.end(machine.of_root(self.root, self.pid or os.getpid()))


class Peer:
    """A private containerd in its own network and mount namespaces, and the registry from which both runtimes pull."""

    def __init__(self, folder, layout, netns=""):
        """netns: a network namespace below /run/netns to be in, instead of one of its own."""
        self.folder, self.layout = folder / "peer", layout
        self.script = FIXTURES / "containerd" / "containerd.sh"
        self.env = {**os.environ, "NETNS": netns}

    @staticmethod
    def missing():
        """Why there can be none here, or None."""
        if os.getuid() != 0:
            return "only root can run it"
        absent = [p for p in ("containerd", "containerd-shim-runc-v2", "runc") if not shutil.which(p)]
        return f"{', '.join(absent)} not installed (Debian: containerd, runc)" if absent else None

    def start(self):
        # Not through pipes, which the daemons would keep open.
        with (self.folder.parent / "peer.up").open("wb") as said:
            done = subprocess.run([self.script, "up", self.folder, self.layout], env=self.env, stdin=subprocess.DEVNULL,
                                  stdout=said, stderr=said, timeout=60, check=False)
        if done.returncode != 0:
            raise Failed("containerd did not start:\n" + (self.folder.parent / "peer.up").read_text()[-2000:])
        pid = int((self.folder / "containerd.pid").read_text())
        return Target("containerd", self.folder / "containerd.sock", pid, self.folder, self.folder / "logs",
                      binaries=tuple(shutil.which(p) for p in ("containerd", "containerd-shim-runc-v2", "runc")),
                      log=self.folder / "log" / "containerd")

    def inside(self):
        """The beginning of a command line that runs in the same namespaces."""
        return ["nsenter", "-t", (self.folder / "ns.pid").read_text().strip(), "-n", "-m", "--"]

    def stop(self):
        pids = [int(p.read_text()) for p in self.folder.glob("*.pid") if p.read_text().strip()]
        if (self.folder / "ns.pid").exists():
            subprocess.run([self.script, "down", self.folder], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, timeout=60, check=False)
        machine.end(pids)


class Ours:
    """`interlink-cri serve` with its embedded default, in a folder of its own."""

    def __init__(self, folder, binary, layout, inside=()):
        self.folder, self.binary, self.layout, self.inside = folder / "ours", binary, layout, list(inside)
        self.process = None

    def start(self):
        self.folder.mkdir()
        config = self.folder / "config.yaml"
        config.write_text(f"Socket: {self.folder}/cri.sock\nStateDir: {self.folder}/state\nImages:\n"
                          f"  HostsDirs: [{self.layout}/certs.d]\n")
        target = Target("interlink-cri", self.folder / "cri.sock", 0, self.folder, self.folder / "logs",
                        binaries=(str(self.binary),), log=self.folder / "serve.log", ours=True)
        self.spawn(target)
        deadline = time.monotonic() + 10
        while not target.socket.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failed("serve did not start:\n" + target.tail())
            time.sleep(0.02)
        return target

    def spawn(self, target):
        with target.log.open("ab") as said:
            self.process = subprocess.Popen([*self.inside, str(self.binary), "serve", "--config", str(self.folder / "config.yaml")],
                                            cwd="/", stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
        target.pid = self.process.pid

    def load(self):
        """The images from the disk, where there is no registry to pull from."""
        run(self.binary, "ctl", "--runtime-endpoint", f"unix://{self.folder}/cri.sock", "load", self.layout)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
