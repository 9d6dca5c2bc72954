#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures what one `serve` and one plugin need for many queued pods and many running agents. See docs/benchmarks.md.

    site_scale.py [--binary PROGRAM] [--queued 250,500,1000,2000] [--agents 200] [--idle 63]

serve has one handler on "another machine": our plugin with the slurm backend. Slurm is a stand-in: sbatch, squeue and scancel are
small scripts over a file, which count their calls; jobs of the partition `run` are started at once, with real agents that call in
over TLS, all others stay in the queue. A client asks for the lists of pods and containers once a second meanwhile, as kubelet does.
Run it with the Python of test/e2e/venv.sh: $(test/e2e/venv.sh)/bin/python test/bench/site_scale.py. What it starts it ends.
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import machine

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "test" / "e2e" / "interlink"))
sys.path.insert(0, str(TOP / "test" / "e2e"))
import kit  # noqa: E402

CLIENTS = 8  # connections: each may have some hundred calls open
ANNOTATION = "interlink.eu/partition"

SBATCH = """#!/bin/sh
printf . >>"$D/calls.sbatch"
for a; do case $a in --job-name=*) name=${a#*=};; --chdir=*) dir=${a#*=};; --partition=*) part=${a#*=};; esac; done
exec 9>>"$D/lock"; flock 9
read -r id <"$D/next"; echo $((id + 1)) >"$D/next"
if [ "$part" = run ]; then
  echo "$id|RUNNING|0|2026-01-01T00:00:00|N/A|2026-01-01T00:00:00|UNLIMITED|0|$((9000000 - id))|run|n1|None|$name|" >>"$D/queue"
  cd "$dir" && SLURM_JOB_ID=$id SLURM_JOB_NODELIST=n1 setsid sh job.sh </dev/null >>agent.log 2>&1 9>&- &
else
  echo "$id|PENDING|0|N/A|N/A|2026-01-01T00:00:00|UNLIMITED|0|$((9000000 - id))|main||Priority|$name|" >>"$D/queue"
fi
echo "$id"
"""
SQUEUE = """#!/bin/sh
case "$*" in
*--states=PENDING*) printf . >>"$D/calls.places"; exec awk -F'|' '$2 == "PENDING" { print $1 "|" $9 "|" $10 "|" }' "$D/queue";;
esac
printf . >>"$D/calls.squeue"
exec cat "$D/queue"
"""
SCANCEL = """#!/bin/sh
printf . >>"$D/calls.scancel"
"""


class StandIn:
    """Slurm's programs over a file."""

    def __init__(self, folder):
        self.folder = folder / "slurm"
        self.folder.mkdir()
        (self.folder / "next").write_text("1000\n")
        (self.folder / "queue").write_text("")
        for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scancel", SCANCEL)):
            path = self.folder / name
            path.write_text(text.replace("\n", f"\nD={self.folder}\n", 1))
            path.chmod(0o755)

    def calls(self):
        return {name: (self.folder / f"calls.{name}").stat().st_size if (self.folder / f"calls.{name}").exists() else 0
                for name in ("sbatch", "squeue", "places", "scancel")}

    def edit(self, name, change):
        """Changes the lines of jobs with this in their name."""
        lines = (self.folder / "queue").read_text().splitlines()
        changed = [change(line.split("|")) if name in line else line for line in lines]
        assert changed != lines, name
        (self.folder / "queue.new").write_text("\n".join(changed) + "\n")
        os.replace(self.folder / "queue.new", self.folder / "queue")


class Site:
    """serve, its plugin and the stand-in, in a folder of their own."""

    def __init__(self, folder, binary):
        self.folder, self.binary = folder, binary
        self.slurm = StandIn(folder)
        self.plugin = self.serve = None
        self.clients = []

    def start(self):
        from cri import Client
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        commands = ", ".join(f"{n}: {self.slurm.folder}/{n}" for n in ("sbatch", "squeue", "scancel"))
        (self.folder / "plugin.yaml").write_text(f"Backend: slurm\nSlurm:\n  Commands: {{{commands}, sacct: '', sinfo: ''}}\n")
        (self.folder / "config.yaml").write_text(
            f"Socket: {self.folder}/cri.sock\nStateDir: {self.folder}/state\nQueueHold: 1s\nQueueLease: 12h\n"
            f"Metrics: {{Address: 'unix://{self.folder}/metrics.sock'}}\nRelay: {{Listen: '127.0.0.1:{port}'}}\n"
            f"Handlers: [{{Name: site, Target: 'unix://{self.folder}/plugin/plugin.sock', Engine: host}}]\n")
        self.plugin = self.spawn("plugin", "--dir", str(self.folder / "plugin"), "--config", str(self.folder / "plugin.yaml"))
        kit.wait_for((self.folder / "plugin" / "plugin.sock").exists, 10, "the plugin")
        self.serve = self.spawn("serve", "--config", str(self.folder / "config.yaml"))
        kit.wait_for((self.folder / "cri.sock").exists, 10, "serve")
        self.clients = [Client(self.folder / "cri.sock", timeout=600) for _ in range(CLIENTS)]
        for client in self.clients:
            client.wait_ready()

    def spawn(self, *arguments):
        with (self.folder / f"{arguments[0]}.log").open("ab") as log:
            return subprocess.Popen([str(self.binary), *arguments], cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def run(self, names, partition):
        """Asks for pods, all at once; those that wait are answered with an error. When all are answered: seconds."""
        import grpc
        from cri import pb, pod_config
        begin, calls = time.monotonic(), []
        for i, name in enumerate(names):
            config = pod_config(name, annotations={ANNOTATION: partition})
            run = self.clients[i % CLIENTS].runtime.RunPodSandbox.future
            calls.append((name, run(pb.RunPodSandboxRequest(config=config), timeout=600)))
        words = {}
        for name, call in calls:
            try:
                words[name] = call.result()
            except grpc.RpcError as error:
                words[name] = error.details()
        return time.monotonic() - begin, words

    def metrics(self):
        connection = kit.UnixHTTP(self.folder / "metrics.sock", 10)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def rest_calls(self):
        return sum(int(float(n)) for n in re.findall(r"^interlink_cri_rest_requests_total\{[^}]*\} (\S+)", self.metrics(), re.M))

    def stop(self):
        for client in self.clients:
            client.close()
        for process in (self.serve, self.plugin):
            if process is not None:
                process.kill()
                process.wait()
        machine.end(machine.of_root(self.folder, 0))


class Kubelet(threading.Thread):
    """Asks for the lists once a second."""

    def __init__(self, site):
        super().__init__(daemon=True)
        self.client, self.over, self.took = site.clients[1], threading.Event(), []

    def run(self):
        from cri import pb
        while not self.over.wait(1):
            begin = time.monotonic()
            self.client.runtime.ListPodSandbox(pb.ListPodSandboxRequest())
            self.client.runtime.ListContainers(pb.ListContainersRequest())
            self.took.append(time.monotonic() - begin)

    def stop(self):
        self.over.set()
        self.join()


def used(site):
    return {"serve": machine.cpu_fine(machine.with_helpers(site.serve.pid)), "plugin": machine.cpu_fine([site.plugin.pid]),
            "wakeups": machine.wakeups([site.serve.pid]), **site.slurm.calls(), "rest": site.rest_calls()}


def memory(site):
    return machine.memory(machine.with_helpers(site.serve.pid))[0] / 1024, machine.memory([site.plugin.pid])[0] / 1024


def idle(site, seconds, prefix, out):
    """Nothing changes for a while."""
    kubelet = Kubelet(site)
    kubelet.start()
    before, begin = used(site), time.monotonic()
    time.sleep(seconds)
    after, took = used(site), time.monotonic() - begin
    kubelet.stop()
    for what in ("serve", "plugin"):
        out[f"{prefix}_{what}_cpu"] = (after[what] - before[what]) / took * 100
    for what in ("squeue", "places", "rest", "wakeups"):
        out[f"{prefix}_{what}"] = (after[what] - before[what]) / took * 60
    out[f"{prefix}_list_ms"] = sorted(kubelet.took)[len(kubelet.took) // 2] * 1000


def notice(site, name):
    """A queued job fails: from then until RunPodSandbox says so."""
    def failed(fields):
        fields[1], fields[2], fields[10], fields[11] = "FAILED", "256", "n1", "NonZeroExitCode"
        fields[3] = fields[4] = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        return "|".join(fields)

    log = site.folder / "serve.log"
    pod = re.search(rf"pod (\w+): default/{name} ", log.read_text(errors="replace"))[1]
    site.slurm.edit(f"|{name}-", failed)
    begin = time.monotonic()
    words = f"pod {pod}: the pod's job ended"
    kit.wait_for(lambda: words in log.read_text(errors="replace"), 180, words)
    return time.monotonic() - begin


def measure(binary, queued, agents, seconds, samples):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="scale-", dir="/tmp"))
    site, out = Site(folder, binary), {"queued": queued, "agents": agents}
    try:
        site.start()
        out["serve_rss_0"], out["plugin_rss_0"] = memory(site)
        before, begin = used(site), time.monotonic()
        names = [f"q{i}" for i in range(queued)]
        out["submit_s"], words = site.run(names, "main")
        wrong = {n: w for n, w in words.items() if "job" not in str(w)}
        out["not_queued"] = len(wrong)
        if wrong:
            print(next(iter(wrong.items())), file=sys.stderr)
        kit.wait_for(lambda: site.slurm.calls()["sbatch"] == queued, 300, "all jobs")
        out["submitted_s"] = time.monotonic() - begin
        after = used(site)
        for what in ("serve", "plugin"):
            out[f"submit_{what}_ms"] = (after[what] - before[what]) * 1000 / max(queued, 1)
        if agents:
            site.run([f"r{i}" for i in range(agents)], "run")
            kit.wait_for(lambda: re.search(rf"agents_connected\{{[^}}]*\}} {agents}\n", site.metrics()), 300, "all agents")
        time.sleep(15)  # what has just begun is looked at more often
        idle(site, seconds, "idle", out)
        out["serve_rss"], out["plugin_rss"] = memory(site)
        if agents:
            pids = [p for p in machine.of_root(folder, site.serve.pid) if b"agent" in machine.read(f"/proc/{p}/cmdline").split(b"\0")]
            out["agent_rss"] = machine.memory(pids)[0] / 1024 / agents
            begin = machine.cpu_fine(pids)
            time.sleep(20)
            out["agent_cpu_ms_minute"] = (machine.cpu_fine(pids) - begin) * 3000 / agents
        took = [notice(site, names[-1 - i]) for i in range(samples)]
        if took:
            out["notice_min"], out["notice_max"] = min(took), max(took)
        return out
    except BaseException:
        for name in ("serve", "plugin"):
            log = folder / f"{name}.log"
            print(f"{name}:", log.read_text(errors="replace")[-1500:] if log.exists() else "", file=sys.stderr)
        raise
    finally:
        site.stop()
        shutil.rmtree(folder, ignore_errors=True)


ROWS = (
    ("submit_s", "all asked for at once, until all are answered \"queued\"", "s"), ("submitted_s", "  and all are in Slurm's queue", "s"),
    ("submit_serve_ms", "  CPU of serve, a pod", "ms"),
    ("submit_plugin_ms", "  CPU of the plugin, a pod", "ms"), ("idle_serve_cpu", "idle: CPU of serve, of one processor", "%"),
    ("idle_plugin_cpu", "  CPU of the plugin", "%"), ("idle_wakeups", "  wakeups of serve a minute", ""), ("idle_rest", "  REST calls a minute", ""),
    ("idle_squeue", "  squeue a minute", ""), ("idle_places", "  squeue of the whole queue a minute", ""), ("idle_list_ms", "  lists of pods and containers, p50", "ms"),
    ("notice_min", "a job's end is noticed: at best", "s"), ("notice_max", "  at worst", "s"), ("serve_rss_0", "serve just started, RSS", "MiB"),
    ("serve_rss", "serve, RSS", "MiB"), ("plugin_rss_0", "plugin just started, RSS", "MiB"), ("plugin_rss", "plugin, RSS", "MiB"),
    ("agent_rss", "an agent, RSS", "MiB"), ("agent_cpu_ms_minute", "  its CPU a minute", "ms"),
)


def show(results, loads):
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    print(f"{machine.describe()}; {now}; load {', '.join(f'{l:.1f}' for l in loads)} at the beginning of each column\n")
    heads = [f"{r['queued']} queued" + (f" + {r['agents']} agents" if r["agents"] else "") for r in results]
    width = max(len(label) for _, label, _ in ROWS)
    print(f"{'measure':{width}}  unit  " + "  ".join(f"{h:>12}" for h in heads))
    for key, label, unit in ROWS:
        cells = [f"{r[key]:.2f}" if key in r else "-" for r in results]
        print(f"{label:{width}}  {unit:4}  " + "  ".join(f"{c:>{max(12, len(h))}}" for c, h in zip(cells, heads)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=TOP / "interlink-cri")
    parser.add_argument("--queued", default="250,500,1000,2000")
    parser.add_argument("--agents", type=int, default=200, help="as a last column, with the most queued pods (%(default)s)")
    parser.add_argument("--idle", type=float, default=63, help="seconds: six rounds of the status query")
    parser.add_argument("--samples", type=int, default=3, help="ends of jobs that are to be noticed, a column")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    numbers = [int(n) for n in given.queued.split(",")]
    wanted = [(n, 0) for n in numbers] + ([(max(numbers), given.agents)] if given.agents else [])
    results, loads = [], []
    for queued, agents in wanted:
        print(f"{queued} queued, {agents} agents", file=sys.stderr)
        loads.append(os.getloadavg()[0])
        results.append(measure(given.binary.absolute(), queued, agents, given.idle, given.samples))
        print(json.dumps(results[-1]), file=sys.stderr)
    if given.output == "json":
        print(json.dumps({"machine": machine.describe(), "loads": loads, "results": results}, indent=1))
    else:
        show(results, loads)


if __name__ == "__main__":
    main()
