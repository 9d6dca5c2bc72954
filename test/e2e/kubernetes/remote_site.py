# SPDX-License-Identifier: Apache-2.0
"""A site behind the node: our plugin in a process and a network namespace of its own, which one link connects to the node's, and
before it a stand-in for interLink's API server that records what it is asked and says of its size what a test wants. Its jobs see no
loopback of the node's, and reach the relay over TLS as those of a real site do."""
import http.client
import itertools
import json
import socket
import subprocess

from cluster import BINARY, TOP, wait

API = TOP / "test" / "fixtures" / "interlink" / "api_server.py"
RELAY = "10.199.0.1:10443"  # on the node's address, where all sites' links lead
NUMBERS = itertools.count(1)


class Elsewhere:
    """A network beside the node's. `enter`: what a command begins with to be in it. `hide`: a folder of this machine that is not
    seen there."""

    def __init__(self, cluster, name, hide=None):
        self.cluster = cluster
        self.name = name
        self.root = cluster.root / name
        self.root.mkdir()
        self.netns = f"{cluster.netns}-{name}"
        self.connect(next(NUMBERS))
        self.enter = ["nsenter", f"--net=/run/netns/{self.netns}"]
        if hide is not None:
            self.enter += ["unshare", "-m", "--propagation", "private", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(hide)]

    def connect(self, number):
        """A link between the site's network and the node's."""
        self.link = f"site{number}"
        node = ["nsenter", f"--net=/run/netns/{self.cluster.netns}", "ip"]
        site = ["nsenter", f"--net=/run/netns/{self.netns}", "ip"]
        for command in (["ip", "netns", "add", self.netns],
                        [*node, "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.netns],
                        [*node, "addr", "add", f"10.197.{number}.1/24", "dev", self.link],
                        [*node, "link", "set", self.link, "up"],
                        [*site, "link", "set", "lo", "up"],
                        [*site, "addr", "add", f"10.197.{number}.2/24", "dev", "eth0"],
                        [*site, "link", "set", "eth0", "up"],
                        [*site, "route", "add", "default", "via", f"10.197.{number}.1"]):
            subprocess.run(command, check=True, timeout=20)

    def disconnect(self):
        subprocess.run(["ip", "netns", "del", self.netns], check=True, timeout=20)  # and the link with it


class Site(Elsewhere):
    def __init__(self, cluster, name, hide=None):
        super().__init__(cluster, name, hide)
        self.url = f"unix://{self.root}/api.sock"
        enter = self.enter
        self.processes = [
            self.start(*enter, BINARY, "plugin", "--dir", self.root / "jobs", "--listen", f"unix://{self.root}/plugin.sock"),
            self.start("python3", API, "--listen", self.url, "--plugin", f"unix://{self.root}/plugin.sock")]
        wait(lambda: all((self.root / f"{s}.sock").exists() for s in ("plugin", "api")), 20, "the site did not come up")

    def start(self, *command):
        with (self.root / "log").open("ab") as log:
            return subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                    start_new_session=True)

    def stop(self):
        for process in self.processes:
            process.terminate()
            process.wait(20)
        self.disconnect()

    def steer(self, path, what=""):
        connection = http.client.HTTPConnection("localhost", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(20)
        connection.sock.connect(str(self.root / "api.sock"))
        connection.request("POST", path, json.dumps(what))
        text = connection.getresponse().read()
        connection.close()
        return json.loads(text) if text else None

    def says(self, cpu, memory, pods, gpus=None, taints=None):
        """What a ping hears from now on; serve asks at its start and every 30 s."""
        resources = {"cpu": cpu, "memory": memory, "pods": pods}
        if gpus is not None:
            resources["accelerators"] = [{"resourceType": "nvidia.com/gpu", "available": gpus}]
        ping = {"status": "ok", "resources": resources}
        if taints is not None:
            ping["taints"] = taints
        self.steer("/_ping", ping)

    def jobs(self):
        """The pods that were submitted, in order."""
        return [json.loads(entry["body"])["pod"] for entry in self.steer("/_log") if entry["path"] == "/create"]

    def job(self, name):
        """The one job of a pod."""
        found = [p for p in self.jobs() if p["metadata"]["name"].startswith(name + "-")]
        assert len(found) == 1, found
        return found[0]
