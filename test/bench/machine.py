# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of processes: their CPU time, their memory, and the CPU time of everything below a cgroup."""
import os
import pathlib
import re
import signal
import threading
import time

PROC = pathlib.Path("/proc")
TICK = os.sysconf("SC_CLK_TCK")


def read(path):
    """A file of /proc; empty when its process has ended."""
    try:
        return pathlib.Path(path).read_bytes()
    except OSError:
        return b""


def processes():
    return [int(p.name) for p in PROC.iterdir() if p.name.isdigit()]


def stat(pid):
    """The fields of /proc/PID/stat behind the name, from the state on; None when there is no such process."""
    text = read(PROC / str(pid) / "stat")
    return text[text.rindex(b")") + 2:].split() if text else None


def with_helpers(pid):
    """A daemon and the processes that it forked without another program or other arguments, as our state writer."""
    line = read(PROC / str(pid) / "cmdline")
    found = [pid]
    for other in processes():
        fields = stat(other)
        if fields and int(fields[1]) == pid and read(PROC / str(other) / "cmdline") == line:
            found.append(other)
    return found


def of_root(root, daemon):
    """The processes that a runtime keeps for its pods: they name its folder in their arguments or environment. The
    containers' own processes do not, and the clients that do are our children."""
    if not root:
        return []
    name, others, found = str(root).encode(), {os.getpid(), *with_helpers(daemon)}, []
    for pid in processes():
        fields = stat(pid)
        if fields and pid not in others and int(fields[1]) != os.getpid() and any(
                name in read(PROC / str(pid) / file) for file in ("cmdline", "environ")):
            found.append(pid)
    return found


def cpu(pids):
    """Seconds of CPU time of processes, with their threads that have ended. In steps of a clock tick, mostly 10 ms."""
    return sum(int(f[11]) + int(f[12]) for f in map(stat, pids) if f) / TICK


def cpu_fine(pids):
    """The same to a nanosecond, without threads that have ended; falls back to ticks where the kernel does not count them."""
    total = 0
    for pid in pids:
        for task in (PROC / str(pid) / "task").iterdir():
            counted = read(task / "schedstat").split()
            if not counted:
                return cpu(pids)
            total += int(counted[0])
    return total / 1e9


def wakeups(pids):
    """How often threads of processes have slept and been woken."""
    total = 0
    for pid in pids:
        for task in (PROC / str(pid) / "task").glob("*"):
            found = re.search(rb"^voluntary_ctxt_switches:\s*(\d+)", read(task / "status"), re.M)
            total += int(found[1]) if found else 0
    return total


def memory(pids):
    """(RSS, PSS) of processes in KiB. PSS shares a page's size among those that map it."""
    rss = pss = 0
    for pid in pids:
        for line in read(PROC / str(pid) / "smaps_rollup").splitlines():
            if line.startswith(b"Rss:"):
                rss += int(line.split()[1])
            elif line.startswith(b"Pss:"):
                pss += int(line.split()[1])
    return rss, pss


class Sampler(threading.Thread):
    """Looks twenty times a second at the RSS of a daemon and of its pods' processes, in KiB."""

    def __init__(self, target):
        super().__init__(daemon=True)
        self.target = target
        self.over = threading.Event()
        self.began = time.monotonic()
        self.seen = {"daemon": [], "pod": []}  # (seconds, KiB)

    def run(self):
        helpers, pods, looked = with_helpers(self.target.pid), [], 0
        while not self.over.wait(0.05):
            if time.monotonic() - looked > 1:
                pods, looked = of_root(self.target.root, self.target.pid), time.monotonic()
            for what, pids in (("daemon", helpers), ("pod", pods)):
                if kib := memory(pids)[0]:
                    self.seen[what].append((time.monotonic() - self.began, kib))

    def stop(self):
        self.over.set()
        self.join()

    def between(self, what, begin, end):
        """The most that was seen in a span of time; None when nothing was."""
        return max((kib for when, kib in self.seen[what] if begin <= when <= end), default=None)


def hierarchies():
    """The roots of the cgroup hierarchies: one with version 2, more with version 1."""
    return [pathlib.Path(fields[4]) for fields in map(str.split, read("/proc/self/mountinfo").decode().splitlines())
            if fields[fields.index("-") + 1] in ("cgroup", "cgroup2") and fields[3] == "/"]


class Group:
    """A cgroup for a daemon and, below .parent, its pods: the kernel then counts what all of them use, whoever forked them and
    however short they live. Version 1 or 2; as root, where cgroups can be made."""

    def __init__(self, name):
        self.name = name
        top = pathlib.Path("/sys/fs/cgroup")
        if (top / "cgroup.controllers").exists():
            self.folder, self.counter = top / name, "cpu.stat"
        else:
            v1 = [d for d in (top / "cpuacct", top / "cpu,cpuacct") if d.is_dir()]
            if not v1:
                raise OSError("no cgroup hierarchy that counts CPU time")
            self.folder, self.counter = v1[0] / name, "cpuacct.usage"
        self.parent = f"/{name}/pods"
        (self.folder / "daemon").mkdir(parents=True)
        for hierarchy in hierarchies():  # as kubelet does: the pods' part is not for the runtime to make and remove
            try:
                (hierarchy / self.parent[1:]).mkdir(parents=True, exist_ok=True)
            except OSError:
                pass

    def add(self, pids):
        for pid in pids:
            try:
                (self.folder / "daemon" / "cgroup.procs").write_text(str(pid))
            except ProcessLookupError:  # a helper that has ended since
                pass

    def cpu(self):
        text = (self.folder / self.counter).read_text()
        return int(re.search(r"usage_usec (\d+)", text)[1]) / 1e6 if "usage_usec" in text else int(text) / 1e9

    def remove(self):
        """In every hierarchy, for the runtimes make the pods' part everywhere. Its processes have ended."""
        for hierarchy in hierarchies():
            for folder, _, _ in os.walk(hierarchy / self.name, topdown=False):
                for _ in range(50):
                    try:
                        os.rmdir(folder)
                        break
                    except OSError:  # a process of it is just ending
                        time.sleep(0.02)


def end(pids, seconds=5):
    """Ends processes that may not be our children: TERM, then KILL."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + seconds
        for pid in pids:
            try:
                os.kill(pid, sign)
            except ProcessLookupError:
                pass
        while time.monotonic() < deadline:
            pids = [p for p in pids if (fields := stat(p)) and fields[0] != b"Z"]
            if not pids:
                return
            time.sleep(0.02)


def describe():
    """The machine in a line."""
    model = re.search(r"model name\s*: (.*)", read("/proc/cpuinfo").decode(errors="replace"))
    total = int(re.search(rb"MemTotal:\s*(\d+)", read("/proc/meminfo"))[1]) // 1024
    system = os.uname()
    return f"{os.cpu_count()} x {model[1].strip() if model else system.machine}, {total} MiB, Linux {system.release}"
