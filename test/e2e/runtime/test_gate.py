# SPDX-License-Identifier: Apache-2.0
"""Connections to pods on other machines: a node and a site in network namespaces of their own, joined by one link."""
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest
from networking import Machine, wait_for
from serving import BINARY, Pod, Serve

from cri import pb, refused

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="network namespaces need root")
FIXTURES = pathlib.Path(__file__).resolve().parents[2] / "fixtures"
CLIENT = pathlib.Path(__file__).with_name("gate_client.py")
NODE = "198.51.100.7"
RANGES = ("10.244.7.0/28", "fd00:244:7::/64")
OTHER_RANGES = ("10.244.9.0/28", "fd00:244:9::/64")
SOCKETS = ("sys_admin", "bpf")  # what serve must not have to need a socket for each port
EITHER = ("test_both_families", "test_only_what_the_pod_listens_on", "test_ports_come_and_go", "test_restarts_of_serve")
TCP = pb.TCP
TOOLS = pathlib.Path(tempfile.gettempdir()) / f"icri-tools-{os.getpid()}"
RELAY_PORTS = itertools.count(10443)


class Joined:
    """The node's machine and the site's."""

    def __init__(self):
        self.node = Machine()
        self.site = Machine()
        self.node.run("ip", "link", "add", "site0", "type", "veth", "peer", "name", "eth0", "netns", str(self.site.holder.pid))
        for machine, device, address in ((self.node, "site0", "10.197.0.1/24"), (self.site, "eth0", "10.197.0.2/24")):
            machine.run("ip", "address", "add", address, "dev", device)
            machine.run("ip", "link", "set", device, "up")
        self.site.run("ip", "route", "add", "default", "via", "10.197.0.1")
        self.site.run("ip", "address", "del", f"{NODE}/24", "dev", "lo")

    def close(self):
        self.site.close()
        self.node.close()


class GateServe(Serve):
    """serve on the node's machine, with a plugin on the site's. `without`: capabilities that serve has not."""

    def __init__(self, joined, network="", without=()):
        self.joined = joined
        self.without = without
        root = pathlib.Path(tempfile.mkdtemp(prefix="icri-", dir="/tmp"))
        root.chmod(0o755)
        super().__init__(root, config=f"""
Relay: {{Listen: '10.197.0.1:{next(RELAY_PORTS)}'}}
Metrics: {{Address: 'unix://{root}/metrics.sock'}}
Network: {{Mode: never, {network}}}
Handlers: [{{Name: cluster, Target: 'unix://{root}/remote.sock'}}]
SharedPaths: [{TOOLS}]
""")
        self.others = self.all_routes()
        with (root / "plugin.log").open("ab") as log:
            self.plugin = subprocess.Popen(
                joined.site.enter(str(BINARY), "plugin", "--dir", str(root / "remote"), "--listen", f"unix://{root}/remote.sock"),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, start_new_session=True)
        wait_for(lambda: (root / "remote.sock").exists(), what="the plugin's start")

    def command(self, *arguments):
        less = ["setpriv", "--bounding-set", ",".join(f"-{name}" for name in self.without)] if self.without else []
        return self.joined.node.enter(*less, str(BINARY), *arguments)

    def start(self, images=None):
        super().start()
        if images:
            loaded = self.ctl("load", str(images))
            assert loaded.returncode == 0, loaded.stderr
        return self

    def network(self):
        """NetworkReady."""
        found = next(c for c in self.client.runtime.Status(pb.StatusRequest()).status.conditions if c.type == "NetworkReady")
        assert found.status
        return found.reason, found.message

    def routes(self):
        return [line for line in self.all_routes() if line not in self.others]

    def all_routes(self):
        return [line for family in ("-4", "-6") for line in
                self.joined.node.run("ip", family, "route", "show", "table", "local", "proto", "105").splitlines()]

    def finish(self):
        self.client.remove_everything()
        self.plugin.terminate()
        assert self.plugin.wait(10) == 0
        super().finish()
        assert self.routes() == []


def client(machine, function, *arguments):
    done = subprocess.run(machine.enter("python3", str(CLIENT), json.dumps([function, *arguments])), capture_output=True, text=True,
                          timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module", autouse=True)
def tools():
    """A folder that both machines have, with an echo server."""
    compiler = shutil.which("musl-gcc") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("a C compiler is missing")
    TOOLS.mkdir()
    subprocess.run([compiler, "-O2", "-static", "-o", str(TOOLS / "echo"), str(FIXTURES / "echo.c")], check=True)
    yield
    shutil.rmtree(TOOLS)


class GatePod(Pod):
    """A pod that echoes on port 8080 of all addresses, if it is not told otherwise. `echo`: where; None: nothing runs."""

    def __init__(self, serve, name, echo=("8080",), ports=(8080,), env=None, udp=(), **more):
        self.serve = serve
        mappings = [pb.PortMapping(protocol=TCP, container_port=port) for port in ports]
        mappings += [pb.PortMapping(protocol=pb.UDP, container_port=port) for port in udp]
        super().__init__(serve, serve.client, name, host_network=False, port_mappings=mappings, **more)
        self.echo = self.run_echo(*echo, env=env) if echo else None

    def run_echo(self, *where, env=None):
        return self.run("/tools/echo", *where, env=env,
                        mounts=[pb.Mount(container_path="/tools", host_path=str(TOOLS), readonly=True)])

    @property
    def ips(self):
        network = self.cri.sandbox_status(self.id).network
        return [network.ip, *(a.ip for a in network.additional_ips)] if network.ip else []

    def open_ports(self):
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=self.id, verbose=True)
        return json.loads(self.cri.runtime.PodSandboxStatus(request).info["info"])["openPorts"]

    def wait_open(self, *ports):
        wait_for(lambda: self.open_ports() == list(ports), what=f"opening {ports}, not {self.open_ports()}")
        return self


@pytest.fixture(scope="module")
def joined():
    try:
        made = Joined()
    except OSError as error:
        pytest.skip(f"namespaces cannot be made here: {error}")
    yield made
    made.close()


@pytest.fixture(scope="module", params=["all", "sockets"])
def serve(request, joined, images):
    """With one socket for all, and with one for each port."""
    without = SOCKETS if request.param == "sockets" else ("sys_admin",)
    server = GateServe(joined, f"RelayCIDRs: {json.dumps(RANGES)}", without).start(images)
    reason, message = server.network()
    assert reason == "RelayCIDRs" and "10.244.7.0/28,fd00:244:7::/64" in message
    if "sk_lookup" in message and request.param == "all":
        server.finish()
        pytest.skip(message)
    assert ("sk_lookup" in message) == (request.param == "sockets")
    yield server
    server.finish()


@pytest.fixture
def cri(request, serve):
    if serve.without == SOCKETS and request.node.originalname not in EITHER:
        pytest.skip("the same whatever takes the connections")
    yield serve.client
    serve.client.remove_everything()


def test_both_families(serve, cri, joined):
    pod = GatePod(serve, "both", udp=(53, 54)).wait_open(8080)
    assert serve.log.read_text().count("pod default/both declares port 53/UDP: only TCP is carried") == 1
    assert "declares port 54" not in serve.log.read_text()
    ip4, ip6 = pod.ips
    assert ip4.startswith("10.244.7.") and ip6.startswith("fd00:244:7::")
    assert [client(joined.node, "echo", ip, 8080) for ip in pod.ips] == ["hello", "hello"]
    assert client(joined.node, "outcome", ip4, 8081) == "refused"
    assert client(joined.site, "echo", ip4, 8080) == "hello", "from another machine that has a route to the node"


def test_only_what_the_pod_listens_on(serve, cri, joined):
    """Not what the node's programs or others on the job's machine listen on, nor what is for the loopback alone."""
    others = [subprocess.Popen(m.enter("python3", "-c", "import socket, time; s = socket.create_server(('', 9000)); time.sleep(100)"))
              for m in (joined.node, joined.site)]
    try:
        pod = GatePod(serve, "only", ("8080", "127.0.0.1:8082", "10.197.0.2:8083", "::1:8084")).wait_open(8080, 8083)
        ip = pod.ips[0]
        wait_for(lambda: client(joined.node, "outcome", NODE, 9000) == "ok")
        wanted = {8080: "ok", 8082: "refused", 8083: "ok", 8084: "refused", 9000: "refused"}
        if "sk_lookup" in serve.network()[1]:
            del wanted[9000]  # documented: without it the node's own programs answer on ports that no pod listens on
        assert {port: client(joined.node, "outcome", ip, port) for port in wanted} == wanted
        assert client(joined.node, "echo", ip, 8083) == "hello"
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_ports_come_and_go(serve, cri, joined):
    pod = GatePod(serve, "come", None)
    ip = pod.ips[0]
    assert client(joined.node, "outcome", ip, 8080) == "refused"
    later = pod.run_echo("8080")
    pod.wait_open(8080)
    assert client(joined.node, "echo", ip, 8080) == "hello"
    cri.runtime.StopContainer(pb.StopContainerRequest(container_id=later, timeout=0))
    pod.wait_open()
    assert client(joined.node, "outcome", ip, 8080) == "refused"


def test_data_both_ways(serve, cri, joined):
    pod = GatePod(serve, "data").wait_open(8080)
    assert client(joined.node, "both_ways", pod.ips[0], 8080, 100)["same"]
    assert client(joined.node, "hold_many", pod.ips[0], 8080, 100) == 100
    assert client(joined.node, "echo_many", pod.ips[0], 8080, 100) == 100


def test_ends_and_resets(serve, cri, joined):
    pod = GatePod(serve, "ends", ("8080", "-8082"), env={"LAST_WORD": "bye"}).wait_open(8080, 8082)
    ip = pod.ips[0]
    assert client(joined.node, "echo", ip, 8080) == "hellobye", "what is said after the client has ended its way comes"
    taken = client(joined.node, "stall", ip, 8082, 2)
    assert taken < 64 << 20, "what nobody reads is not taken without end"
    assert client(joined.node, "reset", ip, 8080)
    # What served it learns of it: only the two that listen are left.
    wait_for(lambda: cri.exec_sync(pod.echo, "ps").stdout.count(b"/tools/echo") == 2, what="the reset's arrival")
    # An agent that is gone breaks what it carried.
    held = subprocess.Popen(joined.node.enter("python3", str(CLIENT), json.dumps(["is_reset", ip, 8082])), stdout=subprocess.PIPE,
                            text=True)
    # It is a reset for what is there and unread. /proc/net/tcp has the local address, the other, the state (01: established) and the queues.
    wait_for(lambda: re.search(rb":1F92 \S+ 01 0{8}:0{7}1 ", cri.exec_sync(pod.echo, "cat", "/proc/net/tcp", "/proc/net/tcp6").stdout),
             what="the byte's arrival")
    cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.id))
    assert held.communicate(timeout=30)[0] == "true\n"
    assert client(joined.node, "outcome", ip, 8080) == "refused"


def test_restarts_of_serve(serve, cri, joined):
    pod = GatePod(serve, "again").wait_open(8080)
    ips = pod.ips
    for how in (serve.kill, serve.stop):
        how()
        assert len(serve.routes()) == 2, "with a pod left nobody is sent elsewhere"
        assert client(joined.node, "outcome", ips[0], 8080) == "refused"
        serve.start()
        pod.wait_for_agent()
        assert pod.wait_open(8080).ips == ips
        assert client(joined.node, "echo", ips[0], 8080) == "hello"


def test_addresses_rest_and_run_out(serve, cri):
    def one(name):
        pod = GatePod(serve, name, None)
        ip = pod.ips[0]
        cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.id))
        cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod.id))
        return ip
    first = [one("a"), one("b")]
    serve.kill()
    serve.start()
    ips = first + [one(f"c{i}") for i in range(3)]
    assert len(set(ips)) == 5, ips
    pods = [GatePod(serve, f"many{i}", None) for i in range(13)]  # .2 to .14
    assert len({pod.ips[0] for pod in pods}) == 13
    with refused("UNAVAILABLE", "no address of 10.244.7.0/28 is free"):
        GatePod(serve, "toomany", None)
    cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pods[5].id))
    cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pods[5].id))
    GatePod(serve, "fits", None)


def test_host_network(serve, cri):
    pod = Pod(serve, cri, "host", host_network=True)
    assert not cri.sandbox_status(pod.id).HasField("network")


# ---- without a range ----

@pytest.fixture
def plain(joined, images):
    made = []

    def start(network="", without=()):
        made.append(GateServe(joined, network, without).start(images))
        return made[-1]
    yield start
    for server in made:
        server.finish()


def test_without_the_privilege(plain, joined):
    serve = plain(f"RelayCIDRs: {json.dumps(OTHER_RANGES)}", without=("sys_admin", "bpf", "net_admin"))
    reason, message = serve.network()
    assert reason == "NodeAddress" and "CAP_NET_ADMIN" in message
    pod = GatePod(serve, "first").wait_open(8080)
    assert pod.ips == [NODE] or pod.ips == ["10.197.0.1"]
    ip = pod.ips[0]
    assert client(joined.node, "echo", ip, 8080) == "hello"
    second = GatePod(serve, "second", None)
    assert second.ips == [] and "port 8080 of this node is pod default/first's" in serve.tail()
    undeclared = GatePod(serve, "undeclared", None, ports=())
    assert undeclared.ips == [ip]
    serve.kill()
    serve.start()
    pod.wait_for_agent()
    pod.wait_open(8080)
    assert client(joined.node, "echo", ip, 8080) == "hello"
    serve.client.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.id))
    assert client(joined.node, "outcome", ip, 8080) == "refused"
    third = GatePod(serve, "third").wait_open(8080)
    assert third.ips == [ip] and client(joined.node, "echo", ip, 8080) == "hello"


def test_ranges_that_are_taken(plain, joined):
    serve = plain("RelayCIDRs: ['198.51.100.0/24']")
    assert serve.network() == ("NodeAddress", serve.network()[1]) and "lo has the address 198.51.100.7" in serve.network()[1]
    serve.config.write_text(serve.config.read_text().replace("198.51.100.0/24", "10.197.0.0/16"))
    serve.stop()
    serve.start()
    assert "10.197.0.0/16 is not free: site0 has the address 10.197.0.1" in serve.network()[1]


def test_a_part_of_what_a_bridge_has(plain, joined):
    """As beside CNI: its network is larger, and its broadcast address is in ours."""
    joined.node.run("ip", "address", "add", "10.247.0.1/24", "broadcast", "+", "dev", "site0")
    try:
        serve = plain("RelayCIDRs: ['10.247.0.128/25']")
        assert serve.network()[0] == "RelayCIDRs", serve.network()
        pod = GatePod(serve, "part").wait_open(8080)
        assert pod.ips == ["10.247.0.130"] and client(joined.node, "echo", pod.ips[0], 8080) == "hello"
        # A neighbour on that network finds it without a route.
        joined.site.run("ip", "address", "add", "10.247.0.5/24", "dev", "eth0")
        assert client(joined.site, "echo", pod.ips[0], 8080) == "hello"
    finally:
        joined.site.run("ip", "address", "del", "10.247.0.5/24", "dev", "eth0", check=False)
        joined.node.run("ip", "address", "del", "10.247.0.1/24", "dev", "site0")


def test_the_range_comes_from_kubelet(plain, joined):
    serve = plain()
    assert "kubelet has told no pod CIDR" in serve.network()[1]

    def tell(cidr):
        config = pb.RuntimeConfig(network_config=pb.NetworkConfig(pod_cidr=cidr))
        serve.client.runtime.UpdateRuntimeConfig(pb.UpdateRuntimeConfigRequest(runtime_config=config))
    tell("10.245.1.0/24")
    assert serve.network()[0] == "RelayCIDRs"
    old = GatePod(serve, "old").wait_open(8080)
    tell("10.246.1.0/24")
    new = GatePod(serve, "new", ("8090",), ports=()).wait_open(8090)  # the two share the site's machine
    assert old.ips[0].startswith("10.245.1.") and new.ips[0].startswith("10.246.1.")
    serve.kill()
    serve.start()
    for pod, port in ((old, 8080), (new, 8090)):
        pod.wait_for_agent()
        pod.wait_open(port)
        assert client(joined.node, "echo", pod.ips[0], port) == "hello"
    serve.client.remove_everything()
    serve.stop()
    assert serve.routes() == []
    serve.start()


@pytest.mark.parametrize("value, words", [("10.1.2.3/24", "begins at 10.1.2.0"), ("10.1.2.0", "no range of addresses"),
                                          ("10.1.0.0/24, 10.2.0.0/24", "one of IPv4 and one of IPv6")])
def test_bad_ranges(value, words):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="icri-", dir="/tmp"))
    try:
        (folder / "c.yaml").write_text(f"Socket: {folder}/s\nStateDir: {folder}/state\nNetwork: {{RelayCIDRs: [{value}]}}\n")
        done = subprocess.run([str(BINARY), "serve", "--config", str(folder / "c.yaml")], capture_output=True, text=True, timeout=20,
                              check=False)
        assert done.returncode != 0 and "Network.RelayCIDRs" in done.stderr and words in done.stderr, done.stderr
    finally:
        shutil.rmtree(folder)
