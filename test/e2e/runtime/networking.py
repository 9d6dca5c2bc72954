# SPDX-License-Identifier: Apache-2.0
"""A machine of its own for tests of pod networks: a network and a mount namespace in which serve and its plugins run."""
import json
import os
import pathlib
import re
import shlex
import subprocess
import time

from serving import BINARY, Serve

PLUGINS = next((pathlib.Path(d) for d in ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni") if (pathlib.Path(d) / "bridge").exists()), None)


class Machine:
    """A process that holds the two namespaces; .run() runs commands in them."""

    def __init__(self):
        setup = ("ip link set lo up && ip address add 198.51.100.7/24 dev lo && sysctl -qw net.ipv4.ip_forward=1 && "
                 "mount -t tmpfs tmpfs /run && mkdir /run/netns && echo ready && exec sleep infinity")
        self.holder = subprocess.Popen(["unshare", "-n", "-m", "--propagation", "private", "sh", "-c", setup],
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.holder.stdout.readline() != "ready\n":
            self.holder.kill()
            raise OSError(self.holder.communicate()[1])

    def enter(self, *command):
        return ["nsenter", "-t", str(self.holder.pid), "-n", "-m", *command]

    def run(self, *command, check=True):
        done = subprocess.run(self.enter(*command), capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0 or not check, done.stderr + done.stdout
        return done.stdout

    def get(self, url, seconds=10):
        """The body of a page, as the machine sees it."""
        end = time.monotonic() + seconds
        while True:
            done = subprocess.run(self.enter("python3", "-c", "import sys, urllib.request as r; "
                                  "sys.stdout.write(r.build_opener(r.ProxyHandler({})).open(sys.argv[1], timeout=2).read().decode())",
                                  url), capture_output=True, text=True, timeout=30, check=False)
            if done.returncode == 0:
                return done.stdout
            assert time.monotonic() < end, done.stderr
            time.sleep(0.1)

    def namespaces(self):
        return sorted(self.run("ls", "/run/netns").split())

    def interfaces(self):
        return sorted(re.findall(r"^\d+: ([^:@]+)", self.run("ip", "-o", "link"), re.MULTILINE))

    def close(self):
        self.holder.kill()
        self.holder.wait()


class NetServe(Serve):
    """serve on such a machine. Configurations are in .conf, programs of plugins in .bin (fake ones) and where the system has them."""

    def __init__(self, root, machine, config="", network=""):
        self.machine = machine
        root = pathlib.Path(root)
        self.conf, self.bin, self.leases = root / "net.d", root / "bin", root / "leases"
        bins = [str(self.bin)] + ([str(PLUGINS)] if PLUGINS else [])
        super().__init__(root, config=f"Network:\n  ConfDir: {self.conf}\n  BinDirs: {json.dumps(bins)}\n{network}{config}")
        for folder in (self.conf, self.bin, self.leases):
            folder.mkdir()

    def command(self, *arguments):
        return self.machine.enter(str(BINARY), *arguments)

    def configure(self, *plugins, version="1.0.0", name="testnet", file="10-test.conflist", **more):
        """Replaces the configuration."""
        for old in self.conf.glob("*"):
            old.unlink()
        if plugins:
            (self.conf / file).write_text(json.dumps({"cniVersion": version, "name": name, "plugins": list(plugins), **more}))

    def real(self, **more):
        """bridge, host-local and portmap, two families."""
        ranges = [[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd00:88::/64"}]]
        self.configure({"type": "bridge", "bridge": "test0", "isGateway": True, "ipMasq": True,
                        "ipam": {"type": "host-local", "dataDir": str(self.leases), "ranges": ranges,
                                 "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
                       {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}, **more)

    def leased(self):
        return sorted(p.name for p in self.leases.rglob("*") if re.match(r"\d+\.|fd00", p.name))

    def fake(self, name, script):
        """A plugin: a shell script. $CALLS is the file of what was called, in order."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\nCALLS={shlex.quote(str(self.root / 'calls'))}\nexport ROOT={shlex.quote(str(self.root))}\n{script}\n")
        path.chmod(0o755)

    def calls(self):
        path = self.root / "calls"
        return path.read_text().split() if path.exists() else []

    def kill_everything(self):
        """serve, its workers and the plugins, as a service manager may do it; not the agents."""
        own = self.processes()
        self.kill()
        for pid in own:
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as line, open(f"/proc/{pid}/environ", "rb") as env:
                    if line.read().split(b"\0")[1] == b"serve" or b"CNI_COMMAND=" in env.read():
                        os.kill(pid, 9)
            except OSError:
                continue

    def forget_calls(self):
        (self.root / "calls").unlink(missing_ok=True)

    def leftovers(self):
        return super().leftovers() + self.network_leftovers()

    def network_leftovers(self):
        found = [f"network namespace: {n}" for n in self.machine.namespaces() if n.startswith("icri-")]
        found += [f"interface: {i}" for i in self.machine.interfaces() if i.startswith("veth")]
        found += [f"address: {a}" for a in self.leased()]
        rules = self.machine.run("iptables-save", "-t", "nat", check=False)
        found += [f"rule: {line}" for line in rules.splitlines() if "CNI-" in line and "CNI-HOSTPORT" not in line]
        return found


def wait_for(condition, seconds=20, what="it"):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.02)
