# SPDX-License-Identifier: Apache-2.0
"""The table: every figure with its unit, how many times better ours is, the aim and whether it is met."""
import dataclasses

from measures import IN_FLIGHT, SIZES

MIB = 1024


@dataclasses.dataclass
class Row:
    key: str
    label: str
    unit: str
    times: float = 0  # aim: so many times better than the other one
    most: float = 0  # aim: at most
    least: float = 0  # aim: at least
    none: bool = False  # aim: none at all
    more: bool = False  # more is better
    other: str = ""  # compared with this target instead of the peer


def rows():
    yield "RPC (h2load, one connection, Version)"
    for n in IN_FLIGHT:
        yield Row(f"rpc_{n}", f"server CPU a call, {n} in flight", "us", times=4)
        yield Row(f"rpc_{n}", "  beside nghttpd, a file of 5 bytes", "us", times=0.5, other="nghttpd")
        yield Row(f"rate_{n}", f"calls a second, {n} in flight", "/s", more=True)
    yield Row("latency_1", "latency p50, 1 in flight", "ms")
    yield "Lists (one call in flight)"
    for size in SIZES:
        for method in ("Status", "ListContainers"):
            aim = 10 if method == "ListContainers" and size == 1000 else 0
            yield Row(f"{method}_{size}_cpu", f"{method}, {size} containers: server CPU", "us", times=aim)
            yield Row(f"{method}_{size}_p50", "  latency p50", "us")
            yield Row(f"{method}_{size}_p99", "  latency p99", "us")
    yield "Pods (host network, one container)"
    for step in ("RunPodSandbox", "CreateContainer", "StartContainer", "StopPodSandbox", "RemovePodSandbox"):
        yield Row(f"{step}_p50", f"{step} p50", "ms")
        yield Row(f"{step}_p99", "  p99", "ms")
    yield Row("total_p50", "whole lifecycle p50", "ms", times=5)
    yield Row("total_p99", "  p99", "ms")
    yield Row("lifecycle_cpu", "  CPU of all its processes", "ms")
    yield Row("parallel", "lifecycles a second, 16 at a time", "/s", more=True)
    yield Row("exec_p50", "ExecSync true p50", "ms", times=5)
    yield Row("exec_p99", "  p99", "ms")
    yield Row("exec_cpu", "  CPU of all its processes", "ms")
    yield "Streams (client-go over SPDY; data there and back)"
    yield Row("stream_exec_p50", "Exec true, from the call to its status: p50", "ms", times=4)
    yield Row("stream_exec_p99", "  p99", "ms")
    yield Row("stream_mb", "exec of cat, standard input to output", "MB/s", times=1.5, more=True)
    yield Row("stream_cpu", "  CPU of all its processes for a GB", "s", times=1)
    yield Row("attach_p50", "attach, from the call to the first line back: p50", "ms", times=4)
    yield Row("attach_p99", "  p99", "ms")
    yield Row("attach_lean_p50", "  with a lean client: p50", "ms", times=4)
    yield Row("attach_lean_p99", "  p99", "ms")
    yield Row("attach_line_p50", "  a line there and back p50", "ms")
    yield Row("attach_line_p99", "  p99", "ms")
    yield Row("attach_mb", "attach to cat, lines through it and its log", "MB/s", times=1.5, more=True)
    yield Row("attach_cpu", "  CPU of all its processes for a GB", "s", times=1)
    yield Row("forward_connect_p50", "port-forward, new connection to first answer: p50", "ms", times=4)
    yield Row("forward_connect_p99", "  p99", "ms")
    yield Row("forward_lean_p50", "  with a lean client: p50", "ms", times=4)
    yield Row("forward_lean_p99", "  p99", "ms")
    yield Row("forward_direct_p50", "  the same line to the echo without a runtime: p50", "ms")
    yield Row("forward_question_p50", "  a question on each of ten connections p50", "ms")
    yield Row("forward_question_p99", "  p99", "ms")
    yield Row("forward_mb", "port-forward to an echo, ten connections", "MB/s", times=1.5, more=True)
    yield Row("forward_cpu", "  CPU of all its processes for a GB", "s", times=1)
    yield Row("websocket_exec_p50", "WebSocket: Exec true p50", "ms")
    yield Row("websocket_exec_p99", "  p99", "ms")
    yield Row("websocket_mb", "WebSocket: exec of cat", "MB/s", more=True)
    yield Row("websocket_cpu", "  CPU of all its processes for a GB", "s")
    yield "Stats (ListContainerStats, 100 running containers in 50 pods)"
    yield Row("stats_p50", "measured anew, p50", "ms", times=4)
    yield Row("stats_p99", "  p99", "ms")
    yield Row("stats_cpu", "  CPU of all its processes", "ms", times=4)
    yield Row("stats_row_p50", "several in a row, p50", "ms")
    yield Row("stats_row_p99", "  p99", "ms")
    yield Row("stats_row_cpu", "  CPU of all its processes", "ms")
    yield "Memory"
    yield Row("rss_started", "daemon just started, RSS", "MiB", times=10, most=4 * MIB)
    yield Row("pss_started", "  PSS", "MiB")
    yield Row("rss_pulled", "daemon with an image pulled, RSS", "MiB", times=10, most=6 * MIB)
    yield Row("pss_pulled", "  PSS", "MiB")
    yield Row("rss_1000", "daemon with 1000 containers, RSS", "MiB")
    yield Row("pss_1000", "  PSS", "MiB")
    yield Row("rss_after", "daemon when all is removed, RSS", "MiB")
    yield Row("pod_rss", "a pod with one idle container, RSS", "MiB", times=6, most=2 * MIB)
    yield Row("pod_pss", "  PSS", "MiB")
    yield "Idle"
    yield Row("idle", "CPU a minute, no pods", "ms")
    yield Row("idle_pods", "CPU a minute, ten idle pods", "ms")
    yield "Logs (lines of 100 bytes)"
    yield Row("log", "payload until all is in the log", "MB/s", least=100, more=True)
    yield Row("log_daemon", "while 1 GB is logged: daemon's RSS at most", "MiB")
    yield Row("log_daemon_growth", "  growth after the first fifth", "MiB", most=MIB)
    yield Row("log_pod", "while 1 GB is logged: pod's RSS at most", "MiB")
    yield Row("log_pod_growth", "  growth after the first fifth", "MiB", most=MIB)
    yield "Size"
    yield Row("binary", "programs", "MiB", most=3 * MIB)


def shown(value, unit):
    if value is None:
        return "-"
    if unit == "MiB":
        value /= MIB
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def judge(row, ours, other):
    """(ratio: how many times better ours is, the aim in words, met? or None where it cannot be said)"""
    ratio = None
    if ours and other:
        ratio = ours / other if row.more else other / ours
    aims, met = [], []
    if row.times:
        aims.append(f">= {row.times:g}x")
        met.append(None if ratio is None else ratio >= row.times)
    if row.most:
        aims.append(f"<= {shown(row.most, row.unit)}")
        met.append(None if ours is None else ours <= row.most)
    if row.least:
        aims.append(f">= {shown(row.least, row.unit)}")
        met.append(None if ours is None else ours >= row.least)
    if row.none:
        aims.append("none")
        met.append(None if ours is None else ours == 0)
    verdict = False if False in met else None if None in met or not met else True
    return ratio, ", ".join(aims), verdict


def results(bench, wanted=rows):
    """Everything as plain data; headings are strings."""
    first, peer = bench.targets[0].name, bench.targets[1].name if len(bench.targets) > 1 else None
    for row in wanted():
        if isinstance(row, str):
            yield row
            continue
        name = row.other or peer
        ours, other = bench.figure(first, row.key), bench.figure(name, row.key)
        if ours is None and other is None:
            continue
        ratio, aim, met = judge(row, ours, other)
        rounds, rounds_other = (bench.found.get(n, {}).get(row.key) for n in (first, name))
        yield {"key": row.key, "measure": row.label.strip(), "unit": "KiB" if row.unit == "MiB" else row.unit,
               first: ours, "other": name, "theirs": other, "ratio": ratio, "aim": aim, "met": met,
               "rounds": rounds, "rounds_other": rounds_other, "row": row}


def table(bench, wanted=rows):
    """Aligned text."""
    first, peer = bench.targets[0].name, bench.targets[1].name if len(bench.targets) > 1 else "-"
    lines = [("measure", "unit", first, peer, "ratio", "aim", "met")]
    for item in results(bench, wanted):
        if isinstance(item, str):
            lines.append(item)
            continue
        row, ratio = item["row"], item["ratio"]
        unit = row.unit
        lines.append((row.label, unit, shown(item[first], unit), shown(item["theirs"], unit),
                      f"{ratio:.1f}x" if ratio and ratio < 100 else f"{ratio:.0f}x" if ratio else "-", item["aim"],
                      {True: "yes", False: "NO", None: ""}[item["met"]]))
    lines = [l for i, l in enumerate(lines)  # no heading without rows
             if not isinstance(l, str) or (i + 1 < len(lines) and not isinstance(lines[i + 1], str))]
    width = [max(len(l[column]) for l in lines if not isinstance(l, str)) for column in range(7)]
    text = []
    for line in lines:
        if isinstance(line, str):
            text += ["", line]
        else:
            text.append("  ".join(cell.ljust(width[i]) if i in (0, 1, 5, 6) else cell.rjust(width[i])
                                  for i, cell in enumerate(line)).rstrip())
    return "\n".join(text)
