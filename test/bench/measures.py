# SPDX-License-Identifier: Apache-2.0
"""The measures. Each is taken of one target after the other, several times in turn, so that what else happens on the machine
meets all of them; a figure is the median of its rounds."""
import json
import os
import re
import statistics
import subprocess
import sys
import time

import machine
from runtimes import IMAGE, Failed, Target, run

SERVICE = "http://localhost/runtime.v1.RuntimeService/"
IN_FLIGHT = (1, 16, 64)
SIZES = (10, 100, 1000, 5000)
PODS = 10  # how many share what is measured a pod
STATS_CONTAINERS = 100
IDLE_SECONDS = 20


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Bench:
    """Targets, tools, and what was found: .found[target's name][key] is a list with a figure of each round."""

    def __init__(self, targets, tools, folder, rounds=3, scale=1.0, seconds=600, peer_most=1000):
        self.targets, self.tools, self.folder = targets, tools, folder
        self.rounds, self.scale, self.peer_most = rounds, scale, peer_most
        self.deadline = time.monotonic() + seconds
        self.found, self.notes = {}, []
        self.load = os.getloadavg()[0]
        self.empty = folder / "empty-message"
        self.empty.write_bytes(bytes(5))  # not compressed, no bytes

    def count(self, number, least=1):
        return max(least, int(number * self.scale))

    def note(self, target, key, value):
        self.found.setdefault(target.name, {}).setdefault(key, []).append(value)

    def figure(self, name, key):
        values = self.found.get(name, {}).get(key)
        return statistics.median(values) if values else None

    def remark(self, text):
        say(text)
        self.notes.append(text)

    def client(self, target, verb, *options, timeout=300, inside=False):
        """Runs cribench; its measures by name. `inside`: in the runtimes' network, where streams are served."""
        command = [*(self.tools["inside"] if inside else []), self.tools["cribench"], "-sock", target.socket, "-logs", target.logs, "-image", IMAGE]
        if target.group:
            command += ["-cgroup-parent", target.group.parent]
        try:
            answers = run(*command, *options, verb, timeout=timeout)
        except Failed as failed:
            raise Failed(f"{target.name}: {failed}\n{target.tail()}") from None
        return {answer["measure"]: answer for answer in map(json.loads, answers.splitlines())}

    def in_turn(self, what, measure, targets=None, rounds=None):
        """measure(target) for each target, in turn; until time is up."""
        for turn in range(rounds or self.rounds):
            if time.monotonic() > self.deadline:
                self.remark(f"time is up: {what} was measured {turn} times")
                return
            for target in targets or self.targets:
                say(f"{what}, {target.name}")
                measure(target)

    def h2load(self, target, url, number, in_flight=1):
        """Calls at a constant number in flight on one connection: calls a second, CPU seconds of the server for each call, and
        the latencies in ms, sorted."""
        log = self.folder / "h2load.log"
        log.unlink(missing_ok=True)
        command = ["h2load", "-n", number, "-c", 1, "-m", in_flight, f"--log-file={log}"]
        if target.socket:
            command += [f"--base-uri=unix:{target.socket}", "-d", self.empty, "-H", "content-type: application/grpc",
                        "-H", "te: trailers"]
        before = machine.cpu([target.pid]) if target.pid else 0
        said = run(*self.tools["inside"], *command, url)
        used = machine.cpu([target.pid]) - before if target.pid else None
        rate, good = re.search(r"([\d.]+) req/s", said), re.search(r"(\d+) succeeded", said)
        if not rate or not good or int(good[1]) != number:
            raise Failed(f"h2load of {url} on {target.name}: not all calls succeeded\n{said}\n{target.tail()}")
        took = sorted(int(line.split()[2]) / 1000 for line in log.read_text().splitlines())
        return float(rate[1]), used / number if target.pid else None, took

    # ---- the measures, in the order in which bench.py takes them ----

    def start(self):
        """Who they are, what they need when idle, with and without an image."""
        for target in self.targets:
            info = self.client(target, "info")["info"]
            target.version = f"{info['runtime']} {info['version']}"
            if info["containers"]:
                self.remark(f"{target.name} had {info['containers']} containers before: the lists are longer than they say")
            if not info["image"]:
                self.idle_memory(target, "started")
                self.client(target, "pull")
            self.client(target, "info")
            self.idle_memory(target, "pulled")
            if target.binaries:
                self.note(target, "binary", sum(os.stat(b).st_size for b in target.binaries) / 1024)

    def idle_memory(self, target, when):
        if target.pid:
            time.sleep(0.5)
            rss, pss = machine.memory(machine.with_helpers(target.pid))
            self.note(target, f"rss_{when}", rss)
            self.note(target, f"pss_{when}", pss)

    def rpc(self):
        """What a call costs: Version, for its answer is all but constant; beside it, nghttpd with a static file."""
        floor = self.nghttpd()
        try:
            for in_flight in IN_FLIGHT:
                number = self.count(15000 if in_flight == 1 else 60000 if in_flight == 16 else 100000, 100)

                def measure(target, in_flight=in_flight, number=number):
                    url = SERVICE + "Version" if target.socket else floor.url
                    rate, used, took = self.h2load(target, url, number, in_flight)
                    self.note(target, f"rate_{in_flight}", rate)
                    self.note(target, f"latency_{in_flight}", at(took, 0.5))
                    if used is not None:
                        self.note(target, f"rpc_{in_flight}", used * 1e6)
                self.in_turn(f"RPC, {in_flight} in flight", measure, [*self.targets, *([floor] if floor else [])])
        finally:
            if floor:
                machine.end([floor.pid])
                floor.process.wait()

    def nghttpd(self):
        root = self.folder / "htdocs"
        root.mkdir(exist_ok=True)
        (root / "file").write_bytes(b"12345")
        port = "8080" if self.tools["inside"] else free_port()
        target = Target("nghttpd")
        try:
            target.process = subprocess.Popen(
                [*self.tools["inside"], "nghttpd", "--no-tls", "-a", "127.0.0.1", "-d", str(root), port],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except FileNotFoundError:
            self.remark("nghttpd is not installed (Debian: nghttp2-server): no floor")
            return None
        target.pid, target.url = target.process.pid, f"http://127.0.0.1:{port}/file"
        for _ in range(50):
            try:
                self.h2load(target, target.url, 1)
                return target
            except Failed:
                time.sleep(0.1)
        target.process.kill()
        raise Failed("nghttpd did not start")

    def lifecycle(self):
        """A pod with one container, from RunPodSandbox to RemovePodSandbox, by step."""
        number = self.count(20)

        def measure(target):
            before = target.group.cpu() if target.group else None
            for step, answer in self.client(target, "lifecycle", "-n", number).items():
                self.note(target, f"{step}_p50", answer["p50_ms"])
                self.note(target, f"{step}_p99", answer["p99_ms"])
            if target.group:
                time.sleep(0.3)  # what it still does behind the last answer
                self.note(target, "lifecycle_cpu", (target.group.cpu() - before) * 1000 / (number + 1))
        self.in_turn("lifecycle", measure)

    def parallel(self):
        number = self.count(48)
        self.in_turn("16 lifecycles at a time",
                     lambda t: self.note(t, "parallel", self.client(t, "parallel", "-n", number)["parallel"]["per_s"]))

    def exec(self):
        number = self.count(100)

        def measure(target):
            before = target.group.cpu() if target.group else None
            answer = self.client(target, "exec", "-n", number)["ExecSync"]
            self.note(target, "exec_p50", answer["p50_ms"])
            self.note(target, "exec_p99", answer["p99_ms"])
            if target.group:  # with a pod's start and end, about a hundredth each
                self.note(target, "exec_cpu", (target.group.cpu() - before) * 1000 / number)
        self.in_turn("ExecSync", measure)

    def streams(self):
        """Exec, attach and port-forward, with client-go over SPDY; ours over WebSocket, too, which containerd refuses."""
        calls, data = self.count(50, 5), self.count(300, 10)

        def measure(target):
            self.note_times(target, "stream_exec", self.client(target, "stream-exec", "-n", calls, inside=True)["exec"])
            self.bulk(target, "stream", "stream-data", data)
            answers = self.bulk(target, "attach", "attach", data)
            self.note_times(target, "attach", answers["attach"])
            self.note_times(target, "attach_line", answers["line"])
            self.note_times(target, "attach_lean", answers["lean"])
            answers = self.bulk(target, "forward", "forward", data)
            self.note_times(target, "forward_connect", answers["connect"])
            self.note_times(target, "forward_question", answers["question"])
            self.note_times(target, "forward_lean", answers["lean"])
            self.note_times(target, "forward_direct", answers["direct"])
            if target.ours:
                answers = self.client(target, "stream-exec", "-n", calls, "-protocol", "websocket", inside=True)
                self.note_times(target, "websocket_exec", answers["exec"])
                self.bulk(target, "websocket", "stream-data", data, "-protocol", "websocket")
        self.in_turn("streams", measure)

    def note_times(self, target, key, answer):
        self.note(target, f"{key}_p50", answer["p50_ms"])
        self.note(target, f"{key}_p99", answer["p99_ms"])

    def bulk(self, target, key, verb, megabytes, *options):
        """There and back: MB a second one way, and the CPU seconds of the runtime, its pods and the command for each GB of it."""
        before = target.group.cpu() if target.group else None
        answers = self.client(target, verb, "-n", megabytes, *options, inside=True)
        self.note(target, f"{key}_mb", answers["data"]["mb_per_s"])
        if target.group:
            self.note(target, f"{key}_cpu", (target.group.cpu() - before) / megabytes * 1000)
        return answers

    def stats(self):
        """ListContainerStats of 100 running containers in 50 pods: every second and a half, when what was measured before has
        grown old, and in a row."""
        for target in self.targets:
            say(f"{STATS_CONTAINERS} running containers, {target.name}")
            self.client(target, "running", "-n", self.count(STATS_CONTAINERS, 10), "-perpod", 2)
        least = ["-c", self.count(STATS_CONTAINERS, 10)]

        def measure(target):
            time.sleep(1)
            before = target.group.cpu() if target.group else None
            self.note_times(target, "stats", self.client(target, "stats", *least, "-n", 8, "-pause", "1500ms")["stats"])
            if target.group:
                self.note(target, "stats_cpu", (target.group.cpu() - before) * 1000 / 9)
            before = target.group.cpu() if target.group else None
            self.note_times(target, "stats_row", self.client(target, "stats", *least, "-n", 20)["stats"])
            if target.group:
                self.note(target, "stats_row_cpu", (target.group.cpu() - before) * 1000 / 21)
        self.in_turn(f"stats of {STATS_CONTAINERS} containers", measure)
        for target in self.targets:
            self.client(target, "clean")

    def pods(self):
        """Memory a pod, and the CPU time that idle pods cost, of all targets at the same time."""
        for target in self.targets:
            say(f"{PODS} idle pods, {target.name}")
            self.client(target, "pods", "-n", PODS)
        time.sleep(1)
        for target in self.targets:
            if pods := machine.of_root(target.root, target.pid):
                rss, pss = machine.memory(pods)
                self.note(target, "pod_rss", rss / PODS)
                self.note(target, "pod_pss", pss / PODS)
        self.idle("idle_pods")
        for target in self.targets:
            self.client(target, "clean")

    def idle(self, key="idle"):
        seconds = max(1, min(IDLE_SECONDS, IDLE_SECONDS * self.scale))
        say(f"idle for {seconds:.0f} s")
        watched = [(t, machine.with_helpers(t.pid) + machine.of_root(t.root, t.pid)) for t in self.targets if t.pid]
        before = [machine.cpu_fine(pids) for _, pids in watched]
        time.sleep(seconds)
        for (target, pids), then in zip(watched, before):
            self.note(target, key, (machine.cpu_fine(pids) - then) * 1000 * 60 / seconds)

    def log(self):
        """Lines of 100 bytes, as fast as the container writes them, until all are in the log."""
        number = self.count(2_000_000, 1000)

        def measure(target):
            answer = self.client(target, "log", "-n", number, "-writer", self.tools["lines"])["log"]
            self.note(target, "log", answer["mb_per_s"])
        self.in_turn("log", measure)

    def log_memory(self):
        """What a log of 1 GB adds to anybody's memory: the most that is used, and whether that still grows when the first
        fifth is written. Buffers between container and log have filled by then, and what grows with the log would show."""
        number = self.count(10_000_000, 1000)

        def measure(target):
            sampler = machine.Sampler(target)
            sampler.start()
            try:
                begin = time.monotonic() - sampler.began
                took = self.client(target, "log", "-n", number, "-writer", self.tools["lines"])["log"]["seconds"]
            finally:
                sampler.stop()
            for what in sampler.seen:
                # Reading the log again for its check comes after; the daemon has nothing to do then.
                early = sampler.between(what, begin, begin + took / 5)
                late = sampler.between(what, begin + took / 5, begin + took)
                if early and late:
                    self.note(target, f"log_{what}", max(early, late))
                    self.note(target, f"log_{what}_growth", max(0, late - early))
        self.in_turn("log of 1 GB", measure, [t for t in self.targets if t.pid], rounds=1)

    def lists(self):
        """Status and ListContainers with more and more containers."""
        full = set()
        for size in SIZES:
            if self.scale < 1 and size > 100:
                break
            for target in self.targets:
                if target.name in full or time.monotonic() > self.deadline:
                    continue
                if size > self.peer_most and not target.ours:
                    self.remark(f"{target.name} is measured with {self.peer_most} containers at most (--peer-most)")
                    full.add(target.name)
                    continue
                say(f"filling up to {size} containers, {target.name}")
                have = self.client(target, "fill", "-n", size, "-limit", "90s")["fill"]
                if have["containers"] < size:
                    self.remark(f"{target.name} had {have['containers']} of {size} containers after {have['seconds']:.0f} s")
                    full.add(target.name)
                elif size == 1000:
                    self.idle_memory(target, "1000")
            for method in ("Status", "ListContainers"):
                self.in_turn(f"{method} with {size} containers", lambda t, m=method, s=size: self.repeat(t, m, s),
                             [t for t in self.targets if t.name not in full])
        for target in self.targets:
            say(f"removing the containers, {target.name}")
            self.client(target, "clean")

    def repeat(self, target, method, size):
        """As many calls as fit about a second."""
        rate, _, _ = self.h2load(target, SERVICE + method, 10)
        number = int(min(max(rate * self.scale, 20), 20000))
        _, used, took = self.h2load(target, SERVICE + method, number)
        self.note(target, f"{method}_{size}_p50", at(took, 0.5) * 1000)
        self.note(target, f"{method}_{size}_p99", at(took, 0.99) * 1000)
        if used is not None:
            self.note(target, f"{method}_{size}_cpu", used * 1e6)

    def after(self):
        """Idle memory once more, when everything is done and removed."""
        for target in self.targets:
            self.client(target, "info")
            self.idle_memory(target, "after")


def at(values, part):
    return values[int((len(values) - 1) * part + 0.5)]


def free_port():
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])
