# SPDX-License-Identifier: Apache-2.0
"""Many pods at once, here and elsewhere: started, probed and deleted, and nothing of them remains."""
import os
import pathlib
import re

from cluster import pod, wait

LOCAL, REMOTE = 60, 20
FIRST_PORT = 21000  # each server has its own port, for here all pods of a machine share its network


def probed(name, i):
    """Every kind of probe; of ten pods four have none."""
    port = FIRST_PORT + i
    server = ("httpd", "-f", "-p", str(port), "-h", "/etc")
    main = {"ports": [{"containerPort": port}]}
    if i % 10 in (0, 3):
        return pod(name, main={"readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 2}})
    if i % 10 in (1, 4):
        check = {"httpGet": {"port": port, "path": "/passwd"}, "periodSeconds": 2}
        return pod(name, *server, main={**main, "readinessProbe": check, "livenessProbe": check})
    if i % 10 in (2, 5):
        return pod(name, *server, main={**main, "livenessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 2}})
    return pod(name)


def is_ready(p):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", []))


class Remains:
    """What pods have on this machine."""

    def __init__(self, cluster, site):
        self.cluster = cluster
        mounts = set()
        for pid in (cluster.serve.pid, *(p.pid for p in site.processes)):
            lines = pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
            mounts |= {line.split()[4] for line in lines if str(cluster.root) in line}
        self.found = {
            "processes": set(self.processes()),
            "mounts": mounts,
            "cgroups": set(self.cgroups()),
            # "node": what serve remembers of itself, as the range that it takes addresses from.
            "files": {os.path.join(folder, name) for top in (cluster.root / "state", site.root)
                      for folder, folders, files in os.walk(top) for name in folders + files
                      if pathlib.Path(folder) != cluster.root / "state" / "node"},
            "sandboxes": set(cluster.ctl("pods", "-q").stdout.split()),
            "containers": set(cluster.ctl("ps", "-a", "-q").stdout.split()),
        }

    def processes(self):
        """Those that name the cluster's folder, in their arguments or environment: agents do, and what they start for themselves."""
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes()
                if str(self.cluster.root).encode() in command + (entry / "environ").read_bytes():
                    yield entry.name, command.replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue  # it has ended

    def cgroups(self):
        """Those of pods, in kubelet's cgroup and, when their job is a site's, in ours."""
        pods = set(re.findall(r"pod ([0-9a-f]{13})", self.cluster.log.read_text(errors="replace")))
        for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
            _, where, kind = line.split(" ")[:3]
            if kind not in ("cgroup", "cgroup2"):
                continue
            for folder, folders, _ in os.walk(f"{where}/{self.cluster.netns}"):
                yield from (os.path.join(folder, name) for name in folders if name.startswith("pod"))
            yield from (str(f) for f in pathlib.Path(where).glob("interlink-cri/*/") if f.name[:13] in pods)

    def since(self, before):
        return {what: sorted(found - before.found[what], key=str)[:20] for what, found in self.found.items()
                if found - before.found[what]}


def test_many_pods_leave_nothing(cluster, remote):
    cluster.clear()
    for line in cluster.ctl("pods", "-q").stdout.split():  # of other tests; kubelet would take a minute
        cluster.ctl("rmp", "-f", line)
    before = Remains(cluster, remote)
    for i in range(LOCAL):
        cluster.create_pod(probed(f"many-{i}", i))
    for i in range(REMOTE):
        cluster.create_pod(pod(f"far-{i}", main={"readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 2}},
                               runtimeClassName="remote"))

    def waiting():
        return [p["metadata"]["name"] for p in cluster.get("pods")["items"] if not is_ready(p)]
    wait(lambda: not waiting(), 120, lambda: f"not ready: {waiting()}: {cluster.describe(waiting()[0])}")
    pods = cluster.get("pods")["items"]
    assert len(pods) == LOCAL + REMOTE
    # What was made is seen: otherwise that nothing remains would say nothing.
    now = Remains(cluster, remote).since(before)
    assert set(now) == {"processes", "mounts", "cgroups", "files", "sandboxes", "containers"}, now
    cluster.clear()
    assert not [e for e in cluster.get("events")["items"] if e["reason"] in ("Unhealthy", "Killing") and
                "liveness" in e["message"].lower() and e["involvedObject"]["name"].startswith(("many-", "far-"))]
    wait(lambda: not Remains(cluster, remote).since(before), 90, lambda: f"left behind: {Remains(cluster, remote).since(before)}")
