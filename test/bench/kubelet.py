#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures CRI runtimes under the same kubelet, one after the other, and prints a table. See docs/benchmarks.md.

    kubelet.py [--binary PROGRAM] [--no-peer] [--pods 100] [--scale 1]

Control plane and kubelet are those of test/fixtures/k8s (built with Go once, then cached), in a network and mount namespace of
our own; as root only. Pods are in the node's network and run busybox. What it starts it ends. Needs what bench.py needs, but h2load.
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import machine
import node
import report
import runtimes
from bench import show
from kubeapi import Watch
from measures import Bench, at, say
from report import Row

INSIDE = "KUBEBENCH_INSIDE"
SINGLES = 20
IDLE_SECONDS = 60
SETTLE_SECONDS = 15  # after the last pod is ready: kubelet still writes statuses
GONE_SECONDS = 180  # kubelet removes sandboxes of deleted pods within 60 s
FIRST_PORT = 20000


def rows():
    yield "Node"
    yield Row("ready", "daemon and kubelet started together, until the Node is Ready", "s", most=10)
    yield "One pod after another (host network, one container, image there)"
    yield Row("one_running_p50", "made in the API server until seen Running: p50", "s")
    yield Row("one_running_p99", "  p99", "s")
    yield Row("one_started_p50", "kubelet calls RunPodSandbox until the container runs: p50", "ms", times=2)
    yield Row("one_started_p99", "  p99", "ms", most=1000)
    yield Row("one_cpu", "  CPU of all its processes, a pod", "ms", times=2)
    yield "All pods at once; of ten three have an exec, two an http and one a tcp probe"
    yield Row("running_p50", "made until seen Running: p50", "s")
    yield Row("running_p99", "  p99", "s")
    yield Row("started_p50", "RunPodSandbox until the container runs: p50", "ms")
    yield Row("started_p99", "  p99", "ms")
    yield Row("all_ready", "until all are Ready", "s")
    yield Row("up_daemon", "  CPU of the daemon", "s")
    yield Row("up_all", "  CPU of all its processes", "s", times=2)
    yield Row("up_kubelet", "  CPU of kubelet", "s")
    yield Row("all_gone", "deleted until none is left in the API server", "s")
    yield Row("all_removed", "  and none in the runtime", "s")
    yield Row("down_daemon", "  CPU of the daemon", "s")
    yield Row("down_all", "  CPU of all its processes", "s", times=2)
    yield Row("down_kubelet", "  CPU of kubelet", "s")
    for key, words in (("probed", "with the probes"), ("plain", "without probes")):
        yield f"All pods idle, {words}"
        yield Row(f"{key}_daemon", "CPU of the daemon, of one processor", "%", most=1 if key == "plain" else 0, times=5)
        yield Row(f"{key}_runtime", "  and of agents or shims", "%")
        yield Row(f"{key}_all", "  and of the containers and probes", "%")
        yield Row(f"{key}_kubelet", "CPU of kubelet", "%")
        yield Row(f"{key}_wakeups", "wakeups of the daemon a minute", "")
        yield Row(f"{key}_pod_wakeups", "wakeups of a pod's agent or shim a minute", "")
    yield "Memory with all pods"
    yield Row("rss", "daemon, RSS", "MiB", times=4)
    yield Row("pss", "  PSS", "MiB")
    yield Row("pod_rss", "a pod's agent or shim, RSS", "MiB", most=2 * report.MIB)
    yield Row("pod_pss", "  PSS", "MiB")
    yield "Left behind when all pods are gone"
    for what in ("processes", "mounts", "cgroups", "files", "namespaces"):
        yield Row(f"left_{what}", what, "", none=True)


class NodeBench(Bench):
    """The measures of one target after the other."""

    def __init__(self, targets, tools, folder, scale, pods, the_node, group):
        super().__init__(targets, tools, folder, rounds=1, scale=scale)
        self.pods, self.node, self.group = pods, the_node, group
        self.watch = None

    def all(self, target, runtime):
        self.ready(target, runtime)
        self.watch = Watch(self.node.api)
        self.watch.start()
        try:
            self.up(target, ["warm"], lambda name, i: pod(name))
            self.down(["warm"])
            self.removed(target)
            before = node.Remains(target, self.node.cgroup)
            self.one_after_another(target)
            self.many(target, "probed", probed)
            self.many(target, "plain", lambda name, i: pod(name))
            self.remains(target, before)
        finally:
            self.watch.stop()

    def ready(self, target, runtime):
        """Both start at the same moment; the Node is new to the API server."""
        say(f"node, {target.name}")
        node.again(runtime, target)
        begin = time.monotonic()
        self.node.start_kubelet(target.socket)
        node.wait(lambda: self.node.api.node_ready(node.NAME), 120, "Node Ready")
        self.note(target, "ready", time.monotonic() - begin)
        self.group.add(machine.with_helpers(target.pid))

    def up(self, target, names, make):
        """Makes pods and waits until all are Ready: when they were made, and how long it took for all."""
        begin, made = time.monotonic(), []
        for i, name in enumerate(names):
            made.append(time.monotonic())
            self.node.api.create(make(name, i))
        self.watch.until(names, "Ready", 120 + 3 * len(names))
        return made, max(self.watch.until(names, "Ready", 0.1)) - begin

    def down(self, names):
        begin = time.monotonic()
        for name in names:
            self.node.api.delete(name)
        return max(self.watch.until(names, "gone", 120 + 3 * len(names))) - begin

    def removed(self, target):
        node.wait(lambda: not self.ctl(target, "pods", "-q").split(), GONE_SECONDS, "the end of all sandboxes", pause=0.5)

    def ctl(self, target, *arguments):
        return runtimes.run(self.tools["ours"], "ctl", "--runtime-endpoint", f"unix://{target.socket}", *arguments)

    def started(self, target, key, names):
        """From kubelet's call of RunPodSandbox to the start of the container, as the runtime says it."""
        begun, took = self.node.sandboxes_begun(), []
        for text in self.inspect(target):
            status = text["status"]
            name = status["labels"]["io.kubernetes.pod.name"]
            if name in names and name in begun and status["metadata"].get("attempt", 0) == 0:
                took.append(seconds_of(status["startedAt"]) - begun[name])
        took.sort()
        if len(took) < len(names):
            self.remark(f"{target.name}: {key} of {len(took)} of {len(names)} pods")
        if took:
            self.note(target, f"{key}_p50", at(took, 0.5) * 1000)
            self.note(target, f"{key}_p99", at(took, 0.99) * 1000)

    def inspect(self, target):
        for container in self.ctl(target, "ps", "-q").split():
            yield json.loads(self.ctl(target, "inspect", container))

    def used(self, target):
        return machine.cpu_fine(machine.with_helpers(target.pid)), self.group.cpu(), machine.cpu([self.node.kubelet()])

    def note_used(self, target, prefix, before):
        for what, then, now in zip(("daemon", "all", "kubelet"), before, self.used(target)):
            self.note(target, f"{prefix}_{what}", now - then)

    def one_after_another(self, target):
        number = self.count(SINGLES, 3)
        say(f"{number} pods one after another, {target.name}")
        names, took, before = [f"one-{i}" for i in range(number)], [], self.group.cpu()
        for name in names:
            begin = time.monotonic()
            self.node.api.create(pod(name))
            took.append(self.watch.until([name], "Running", 60)[0] - begin)
            time.sleep(0.5)
        self.note(target, "one_cpu", (self.group.cpu() - before) * 1000 / number)
        took.sort()
        self.note(target, "one_running_p50", at(took, 0.5))
        self.note(target, "one_running_p99", at(took, 0.99))
        self.started(target, "one_started", names)
        self.down(names)
        self.removed(target)

    def many(self, target, kind, make):
        """All pods, until they are Ready; idle; and their end."""
        number = self.count(self.pods, 10)
        names = [f"{kind}-{i}" for i in range(number)]
        say(f"{number} pods ({kind}), {target.name}")
        before = self.used(target)
        made, took = self.up(target, names, make)
        if kind == "probed":
            self.note_used(target, "up", before)
            self.note(target, "all_ready", took)
            running = sorted(seen - begin for seen, begin in zip(self.watch.until(names, "Running", 1), made))
            self.note(target, "running_p50", at(running, 0.5))
            self.note(target, "running_p99", at(running, 0.99))
            self.started(target, "started", names)
        time.sleep(max(2, SETTLE_SECONDS * min(self.scale, 1)))
        self.idle_node(target, kind, number)
        say(f"deleting {number} pods, {target.name}")
        before, begin = self.used(target), time.monotonic()
        took = self.down(names)
        self.removed(target)
        if kind == "probed":
            self.note(target, "all_gone", took)
            self.note(target, "all_removed", time.monotonic() - begin)
            self.note_used(target, "down", before)

    def idle_node(self, target, kind, number):
        seconds = max(5, IDLE_SECONDS * min(self.scale, 1))
        say(f"idle for {seconds:.0f} s, {target.name}")
        pods, daemon = machine.of_root(target.root, target.pid), machine.with_helpers(target.pid)

        def used():
            return [machine.cpu_fine(daemon), machine.cpu_fine(daemon + pods), self.group.cpu(), machine.cpu([self.node.kubelet()])]
        before, wakeups = used(), (machine.wakeups(daemon), machine.wakeups(pods))
        time.sleep(seconds)
        for what, then, now in zip(("daemon", "runtime", "all", "kubelet"), before, used()):
            self.note(target, f"{kind}_{what}", (now - then) * 100 / seconds)
        self.note(target, f"{kind}_wakeups", (machine.wakeups(daemon) - wakeups[0]) * 60 / seconds)
        self.note(target, f"{kind}_pod_wakeups", (machine.wakeups(pods) - wakeups[1]) * 60 / seconds / number)
        if kind == "plain":
            for key, pids, share in (("", daemon, 1), ("pod_", pods, number)):
                rss, pss = machine.memory(pids)
                self.note(target, f"{key}rss", rss / share)
                self.note(target, f"{key}pss", pss / share)

    def remains(self, target, before):
        time.sleep(2)
        for what, found in node.Remains(target, self.node.cgroup).more_than(before).items():
            self.note(target, f"left_{what}", len(found))
            if found:
                self.remark(f"{target.name} left {what}: {', '.join(found[:3])}{', ...' if len(found) > 3 else ''}")


def pod(name, *command, **more):
    main = {"name": "main", "image": runtimes.IMAGE, "command": list(command or ("sleep", "1000000")), **more}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"containers": [main], "hostNetwork": True, "terminationGracePeriodSeconds": 1, "nodeName": node.NAME,
                     "automountServiceAccountToken": False, "enableServiceLinks": False}}


def probed(name, i):
    port = FIRST_PORT + i
    server = ("busybox", "httpd", "-f", "-p", f"127.0.0.1:{port}", "-h", "/etc")
    if i % 10 in (0, 3, 6):
        return pod(name, readinessProbe={"exec": {"command": ["true"]}})
    if i % 10 in (1, 4):
        return pod(name, *server, readinessProbe={"httpGet": {"port": port, "host": "127.0.0.1", "path": "/passwd"}})
    if i % 10 == 2:
        return pod(name, *server, readinessProbe={"tcpSocket": {"port": port, "host": "127.0.0.1"}})
    return pod(name)


def seconds_of(stamp):
    """Seconds since the epoch of "2026-11-24T13:00:00.123456789Z"."""
    import calendar
    whole, _, part = stamp.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{part or 0}")


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=runtimes.TOP / "interlink-cri", help="ours (%(default)s)")
    parser.add_argument("--no-peer", action="store_true", help="ours alone")
    parser.add_argument("--pods", type=int, default=100, help="how many at once (%(default)s; kubelet takes 110)")
    parser.add_argument("--scale", type=float, default=1, help="part of the usual pods and seconds: 0.1 for a quick look")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    return parser.parse_args()


def kubernetes():
    built = subprocess.run([str(node.SCRIPTS / "build.sh")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode != 0:
        raise runtimes.Failed("Kubernetes could not be built")
    return built.stdout.split()[-1]


def measure(given, folder, the_node):
    """One runtime after the other, each with a kubelet that begins anew."""
    layout = runtimes.images()
    missing = "--no-peer" if given.no_peer else runtimes.Peer.missing()
    choices = [runtimes.Ours(folder, given.binary.absolute(), layout)]
    if missing:
        say(f"ours alone: {missing}")
    else:
        choices.append(runtimes.Peer(folder, layout, the_node.netns))
    tools = {"cribench": runtimes.cribench(), "inside": [], "ours": given.binary.absolute()}
    bench = NodeBench([], tools, folder, given.scale, given.pods, the_node, None)
    for runtime in choices:
        target = runtime.start()
        target.logs = folder / f"logs-{target.name}"
        bench.targets.append(target)
        try:
            if target.ours:
                runtime.load()
            info = bench.client(target, "info")["info"]  # pulls the image where it is missing
            target.version = f"{info['runtime']} {info['version']}"
            bench.group = machine.Group(the_node.cgroup[1:])
            bench.all(target, runtime)
        except runtimes.Failed as failed:
            bench.remark(f"stopped: {target.name}: {failed}\n{target.tail()}")
        finally:
            end(bench, target, runtime)
    return bench


def end(bench, target, runtime):
    """Kubelet and all of a runtime, also when something of it fails."""
    for step in (bench.node.stop_kubelet, target.remains, runtime.stop, target.remains, bench.group.remove if bench.group else None):
        try:
            if step:
                step()
        except (runtimes.Failed, OSError) as failed:
            bench.remark(f"stopped: {target.name}: {failed}")
    bench.group = None


def main():
    given = options()
    if os.getuid() != 0:
        print("kubelet.py: a kubelet needs root", file=sys.stderr)
        return 1
    if INSIDE not in os.environ:  # mounts of ours are nobody else's
        os.execvpe("unshare", ["unshare", "-m", sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kubebench-", dir="/tmp"))
    the_node = None
    try:
        runtimes.run("mount", "--make-rshared", "/")
        legacy = pathlib.Path("/var/log/containers")  # kubelet's links to logs; it asks the runtime about dead ones of others, too
        legacy.mkdir(exist_ok=True)
        runtimes.run("mount", "-t", "tmpfs", "links", legacy)
        the_node = node.Node(folder, kubernetes())
        the_node.up()
        bench = measure(given, folder, the_node)
        show(bench, given.output, rows)
        return 1 if any("stopped:" in note or " left " in note for note in bench.notes) else 0
    except (runtimes.Failed, OSError) as failed:
        print(f"kubelet.py: {failed}", file=sys.stderr)
        return 1
    finally:
        if the_node:
            the_node.down()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
