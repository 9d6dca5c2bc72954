#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures CRI runtimes side by side and prints a table. See docs/benchmarks.md.

    bench.py run [--binary PROGRAM] [--no-peer]    starts ours and, where Debian's containerd and runc are installed and we are
                                                  root, a private containerd; measures both in turns; ends them
    bench.py --name NAME --socket PATH [--pid PID] [--agents-of FOLDER] [--name ...]
                                                  measures runtimes that run: the first is compared with the second

    --pid          the daemon, for its CPU time and memory
    --agents-of    the folder that the processes of its pods name in their arguments or environment, for the memory of a pod

Needs go (once, to build the client), h2load and nghttpd (Debian: nghttp2-client, nghttp2-server) and a C compiler. Pods are in
the host's network, images come from a registry on the loopback of a network namespace of our own. What it starts it ends.
"""
import argparse
import datetime
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile

import machine
import report
import runtimes
from measures import Bench, say

MEASURES = ("start", "rpc", "idle", "lifecycle", "parallel", "exec", "streams", "stats", "pods", "log", "log_memory", "lists", "after")


class AddTarget(argparse.Action):
    """--name begins another target; the options behind it are that one's."""

    def __call__(self, parser, space, value, option=None):
        targets = space.targets or []
        if option == "--name":
            targets = [*targets, runtimes.Target(value)]
        elif not targets:
            parser.error(f"{option} without a --name before it")
        else:
            setattr(targets[-1], {"--agents-of": "root"}.get(option, option[2:]), self.type_of(option)(value))
        space.targets = targets

    @staticmethod
    def type_of(option):
        return int if option == "--pid" else lambda path: pathlib.Path(path.removeprefix("unix://")).absolute()


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["run"], help="start the runtimes, too")
    parser.add_argument("--binary", type=pathlib.Path, default=runtimes.TOP / "interlink-cri", help="ours (%(default)s)")
    parser.add_argument("--no-peer", action="store_true", help="ours alone")
    parser.add_argument("--only", help="these measures, with commas between: " + ",".join(MEASURES))
    parser.add_argument("--rounds", type=int, default=3, help="times that each measure is taken (%(default)s)")
    parser.add_argument("--scale", type=float, default=1, help="part of the usual number of calls: 0.1 for a quick look")
    parser.add_argument("--seconds", type=float, default=900, help="when to begin no more measures (%(default)s)")
    parser.add_argument("--peer-most", type=int, default=1000, help="containers that are made in others than ours (%(default)s)")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    for name in ("--name", "--socket", "--pid", "--agents-of"):
        parser.add_argument(name, action=AddTarget, dest="targets", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if bool(given.what) == bool(given.targets):
        parser.error("either `run`, or --name and --socket of what runs")
    if any(not t.socket for t in given.targets or []) or len(given.targets or []) > 2:
        parser.error("one or two targets, each with --name and --socket")
    unknown = set((given.only or "").split(",")) - {"", *MEASURES}
    if unknown:
        parser.error(f"no such measure: {', '.join(sorted(unknown))}")
    return given


def start(given, folder):
    """The targets of `run`, how to enter their namespaces, and a function that ends everything."""
    layout = runtimes.images()
    endings, targets, inside = [], [], []
    try:
        missing = "--no-peer" if given.no_peer else runtimes.Peer.missing()
        if missing:
            say(f"ours alone: {missing}")
        else:
            peer = runtimes.Peer(folder, layout)
            endings.append(peer.stop)
            targets.append(peer.start())
            inside = peer.inside()
        ours = runtimes.Ours(folder, given.binary.absolute(), layout, inside)
        endings.append(ours.stop)
        targets.insert(0, ours.start())
        if not inside:
            ours.load()
        for number, target in enumerate(targets):
            if os.getuid() == 0:
                target.join_group(f"cribench-{os.getpid()}-{number}")
    except BaseException:
        finish(targets, endings)
        raise
    return targets, inside, endings


def finish(targets, endings):
    """Pods first, then daemons, then what would have been left."""
    for target in targets:
        target.remains()
    for end in reversed(endings):
        end()
    for target in targets:
        target.remains()
        target.leave_group()


def measure(given, targets, inside, folder):
    tools = {"cribench": runtimes.cribench(), "lines": runtimes.lines(folder), "inside": inside}
    for target in targets:
        target.logs = target.logs or folder / f"logs-{target.name}"
    bench = Bench(targets, tools, folder, given.rounds, given.scale, given.seconds, given.peer_most)
    wanted = set((given.only or ",".join(MEASURES)).split(","))
    if wanted & {"rpc", "lists"} and not shutil.which("h2load"):
        raise runtimes.Failed("h2load is not installed (Debian: nghttp2-client)")
    try:
        for name in MEASURES:
            if name in wanted or name == "start":
                getattr(bench, name)()
    except runtimes.Failed as failed:
        bench.remark(f"stopped: {failed}")
    finally:
        for target in targets:
            try:
                bench.client(target, "clean")
            except runtimes.Failed as failed:
                bench.remark(f"pods remain: {failed}")
    return bench


def show(bench, output, rows=report.rows):
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    load = f"{bench.load:.1f} at the beginning, {os.getloadavg()[0]:.1f} at the end"
    if output == "json":
        rows = [{k: v for k, v in r.items() if k != "row"} for r in report.results(bench, rows) if not isinstance(r, str)]
        print(json.dumps({"machine": machine.describe(), "date": now, "load": load, "rounds": bench.rounds, "notes": bench.notes,
                          "targets": {t.name: t.version for t in bench.targets}, "results": rows}, indent=1))
        return
    print(f"{machine.describe()}; {now}; load {load}")
    print("; ".join(f"{t.name}: {t.version}" for t in bench.targets) + (f"; medians of {bench.rounds} rounds" if bench.rounds > 1 else "") + "\n")
    print(report.table(bench, rows))
    if bench.notes:
        print("\n" + "\n".join(f"Note: {note}" for note in bench.notes))


def main():
    given = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # A unix socket's path is short, so the folder is directly below /tmp.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cribench-", dir="/tmp"))
    targets, endings = given.targets or [], []
    try:
        inside = []
        if given.what:
            targets, inside, endings = start(given, folder)
        bench = measure(given, targets, inside, folder)
        show(bench, given.output)
        return 1 if any("stopped:" in note or "remain" in note for note in bench.notes) else 0
    except (runtimes.Failed, OSError) as failed:
        print(f"bench: {failed}", file=sys.stderr)
        return 1
    finally:
        if given.what:
            finish(targets, endings)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
