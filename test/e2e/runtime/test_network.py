# SPDX-License-Identifier: Apache-2.0
"""Networks of pods' own: CNI, as root, on a machine of the tests' own."""
import json
import os
import tempfile
import time

import grpc
import pytest
from networking import PLUGINS, Machine, NetServe, wait_for
from serving import USER, Pod, Serve

from cri import pb, pod_config, refused

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="network namespaces need root")
real_plugins = pytest.mark.skipif(PLUGINS is None, reason="the CNI plugins bridge, host-local and portmap are not installed")

RESULT = ('{"cniVersion":"1.0.0","interfaces":[{"name":"host0"},{"name":"eth0","sandbox":"x"}],"ips":['
          '{"address":"2001:db8::5/64","interface":1},{"address":"192.0.2.99/24","interface":0},{"address":"192.0.2.5/24","interface":1}]}')
# Notes its calls and what it was given; an ADD takes a lease, a DEL gives it back.
RECORD = r"""
name=${0##*/}
echo "$CNI_COMMAND:$name" >> "$CALLS"
cat > "$ROOT/input-$CNI_COMMAND-$name"
env > "$ROOT/env-$CNI_COMMAND-$name"
case $CNI_COMMAND in
ADD) echo "$CNI_CONTAINERID" > "$ROOT/leases/10.$name.$CNI_CONTAINERID"; echo '%s';;
DEL) rm -f "$ROOT/leases/10.$name.$CNI_CONTAINERID";;
esac
""" % RESULT


@pytest.fixture(scope="module")
def machine():
    try:
        machine = Machine()
    except OSError as error:
        pytest.skip(f"namespaces cannot be made here: {error}")
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def serve(machine, images):
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    server = NetServe(root, machine).start()
    server.kind = "root"
    loaded = server.ctl("load", str(images))
    assert loaded.returncode == 0, loaded.stderr + server.tail()
    yield server
    server.finish()


@pytest.fixture
def cri(serve):
    yield serve.client
    serve.client.remove_everything()
    wait_for(lambda: serve.network_leftovers() == [], what=f"removing {serve.network_leftovers()}")
    serve.configure()
    serve.forget_calls()


@pytest.fixture
def fakes(serve):
    """A network of two plugins that do nothing but note it."""
    for name in ("first", "second"):
        serve.fake(name, RECORD)
    serve.configure({"type": "first"}, {"type": "second"})


def network_ready(cri):
    condition = next(c for c in cri.runtime.Status(pb.StatusRequest()).status.conditions if c.type == "NetworkReady")
    return condition.status, condition.reason, condition.message


def info(cri, pod):
    return json.loads(cri.runtime.PodSandboxStatus(pb.PodSandboxStatusRequest(pod_sandbox_id=pod, verbose=True)).info["info"])


def own(serve, cri, name, **more):
    return Pod(serve, cri, name, host_network=False, **more)


def stop(cri, pod):
    cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod))


def remove(cri, pod):
    cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod))


def run_patiently(cri, config):
    """As kubelet does it: again and again."""
    end = time.monotonic() + 60
    while True:
        try:
            return cri.run_pod(config)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE and time.monotonic() < end, error
            time.sleep(0.1)


# ---- the real plugins ----


@real_plugins
def test_pods_have_their_own_network(serve, cri, machine):
    serve.real()
    assert network_ready(cri)[:2] == (True, "CNI")
    one, two = own(serve, cri, "one"), own(serve, cri, "two")
    network = cri.sandbox_status(one.id).network
    assert network.ip.startswith("10.88.0.") and [a.ip for a in network.additional_ips][0].startswith("fd00:88:")
    server = one.run("sh", "-c", "echo from one > /tmp/index.html; exec httpd -f -p 80 -h /tmp")
    assert machine.get(f"http://{network.ip}:80/index.html") == "from one\n"
    assert machine.get(f"http://[{network.additional_ips[0].ip}]:80/index.html") == "from one\n"
    # The other pod reaches it, and has the same port for itself; the pod's own interfaces are what it sees.
    client = two.run("sh", "-c", "exec httpd -f -p 80 -h /tmp")
    page = cri.exec_sync(client, "wget", "-q", "-O", "-", f"http://{network.ip}/index.html")
    assert page.stdout == b"from one\n", page.stderr
    inside = cri.exec_sync(server, "sh", "-c", "ls /sys/class/net; hostname").stdout.decode().split()
    assert inside == ["eth0", "lo", "one"]
    used = cri.runtime.PodSandboxStats(pb.PodSandboxStatsRequest(pod_sandbox_id=one.id)).stats.linux.network.default_interface
    assert used.name == "eth0" and used.rx_bytes.value > 100 and used.tx_bytes.value > 100
    result = info(cri, one.id)["network"]["result"]
    assert result["ips"][0]["address"].split("/")[0] == network.ip
    assert len(machine.namespaces()) == 2
    # Stop gives the addresses back.
    stop(cri, one.id)
    assert len(machine.namespaces()) == 1 and network.ip not in serve.leased()
    stop(cri, one.id)


@real_plugins
def test_host_ports(serve, cri, machine):
    serve.real()
    ports = [pb.PortMapping(container_port=80, host_port=18080), pb.PortMapping(container_port=81)]
    pod = own(serve, cri, "ports", port_mappings=ports)
    pod.run("sh", "-c", "echo mapped > /tmp/index.html; exec httpd -f -p 80 -h /tmp")
    assert machine.get("http://127.0.0.1:18080/index.html") == "mapped\n"
    assert machine.get("http://198.51.100.7:18080/index.html") == "mapped\n"


@real_plugins
def test_a_user_namespace_owns_its_network(serve, cri):
    serve.real()
    mapping = [pb.IDMapping(host_id=200000, container_id=0, length=65536)]
    options = pb.NamespaceOption(pid=pb.CONTAINER, userns_options=pb.UserNamespace(mode=pb.POD, uids=mapping, gids=mapping))
    linux = pb.LinuxPodSandboxConfig(security_context=pb.LinuxSandboxSecurityContext(namespace_options=options))
    try:
        pod = own(serve, cri, "mapped", linux=linux)
    except grpc.RpcError as error:
        pytest.skip(error.details())
    admin = pb.LinuxContainerSecurityContext(namespace_options=options, capabilities=pb.Capability(add_capabilities=["NET_ADMIN"]))
    container = pod.run("sleep", "1000", linux=pb.LinuxContainerConfig(security_context=admin))
    done = cri.exec_sync(container, "sh", "-c", "ls /sys/class/net; cat /proc/self/uid_map; ifconfig eth0 mtu 1400 && cat /sys/class/net/eth0/mtu")
    assert done.stdout.decode().split() == ["eth0", "lo", "0", "200000", "65536", "1400"], done.stderr


@real_plugins
def test_sysctls_of_the_network(serve, cri):
    serve.real()
    linux = pb.LinuxPodSandboxConfig(sysctls={"net.ipv4.conf.eth0.forwarding": "1", "net.ipv4.ip_unprivileged_port_start": "7"})
    pod = own(serve, cri, "sysctls", linux=linux)
    container = pod.run("sleep", "1000")
    files = ["/proc/sys/net/ipv4/conf/eth0/forwarding", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/net/ipv4/ping_group_range"]
    assert cri.exec_sync(container, "cat", *files).stdout.split() == [b"1", b"7", b"0", b"2147483647"]


def test_the_machines_network(serve, cri, fakes, machine):
    """A pod that asks for it has it, whatever is configured; and no plugin is called."""
    pod = Pod(serve, cri, "host", host_network=True)
    container = pod.run("sleep", "1000")
    assert not cri.sandbox_status(pod.id).HasField("network")
    assert cri.exec_sync(container, "cat", "/proc/net/route").stdout.decode() == machine.run("cat", "/proc/net/route")
    assert serve.calls() == []
    own_pod = own(serve, cri, "own")
    context = pb.LinuxContainerSecurityContext(namespace_options=pb.NamespaceOption(network=pb.NODE, pid=pb.CONTAINER))
    with refused("FAILED_PRECONDITION", "namespace_options.network"):
        own_pod.create("true", linux=pb.LinuxContainerConfig(security_context=context))


# ---- what plugins are told ----


def test_what_plugins_are_told(serve, cri):
    for name in ("first", "second"):
        serve.fake(name, RECORD)
    all_of_them = {c: True for c in ("portMappings", "bandwidth", "dns", "ipRanges", "cgroupPath", "io.kubernetes.cri.pod-annotations")}
    serve.configure({"type": "first", "capabilities": all_of_them, "kept": {"as": ["it", 1.50, None]}, "prevResult": {}, "cni.dev/x": 1},
                    {"type": "second", "capabilities": {"portMappings": False, "mac": True}}, version="0.4.0", cniVersions=["1.0.0", "9.0.0"])
    cri.runtime.UpdateRuntimeConfig(pb.UpdateRuntimeConfigRequest(runtime_config=pb.RuntimeConfig(
        network_config=pb.NetworkConfig(pod_cidr="10.9.0.0/24,fd09::/64"))))
    annotations = {"kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "1500k"}
    pod = own(serve, cri, "told", namespace="space", annotations=annotations, dns_config=pb.DNSConfig(servers=["192.0.2.53"], searches=["a.b"]),
              port_mappings=[pb.PortMapping(container_port=53, host_port=5353, protocol=pb.UDP, host_ip="127.0.0.1")])
    network = cri.sandbox_status(pod.id).network
    assert (network.ip, [a.ip for a in network.additional_ips]) == ("192.0.2.5", ["2001:db8::5"])
    first = json.loads((serve.root / "input-ADD-first").read_text())
    assert first["runtimeConfig"] == {
        "portMappings": [{"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"}],
        "bandwidth": {"ingressRate": 10000000, "ingressBurst": 2**32 - 1, "egressRate": 1500000, "egressBurst": 2**32 - 1},
        "dns": {"servers": ["192.0.2.53"], "searches": ["a.b"]},
        "ipRanges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd09::/64"}]],
        "io.kubernetes.cri.pod-annotations": annotations}
    assert (first["name"], first["cniVersion"], first["kept"]) == ("testnet", "1.0.0", {"as": ["it", 1.5, None]})
    assert "prevResult" not in first and "cni.dev/x" not in first
    second = json.loads((serve.root / "input-ADD-second").read_text())
    assert second["prevResult"] == json.loads(RESULT) and "runtimeConfig" not in second
    env = dict(line.split("=", 1) for line in (serve.root / "env-ADD-first").read_text().splitlines())
    assert env["CNI_CONTAINERID"] == pod.id and env["CNI_IFNAME"] == "eth0" and env["CNI_NETNS"].endswith(pod.id)
    assert env["CNI_PATH"].split(":")[0] == str(serve.bin)
    assert env["CNI_ARGS"] == (f"IgnoreUnknown=1;K8S_POD_NAMESPACE=space;K8S_POD_NAME=told;K8S_POD_INFRA_CONTAINER_ID={pod.id};"
                               f"K8S_POD_UID={pod.config.metadata.uid}")
    assert set(env) <= {"PATH", "HOME", "CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH",
                        "ROOT", "PWD", "OLDPWD", "SHLVL", "_"}
    # What is configured by then does not matter: a pod goes as it came.
    serve.configure({"type": "nothing"})
    stop(cri, pod.id)
    assert serve.calls() == ["ADD:first", "ADD:second", "DEL:second", "DEL:first"]
    last = json.loads((serve.root / "input-DEL-first").read_text())
    assert last["prevResult"] == json.loads(RESULT) and last["runtimeConfig"] == first["runtimeConfig"]


def test_a_single_plugin_of_old(serve, cri):
    serve.fake("first", RECORD)
    (serve.conf / "05-old.conf").write_text('{"cniVersion":"0.3.1","name":"old","type":"first"}')
    pod = own(serve, cri, "old")
    assert cri.sandbox_status(pod.id).network.ip == "192.0.2.5"
    stop(cri, pod.id)
    assert "prevResult" not in json.loads((serve.root / "input-DEL-first").read_text())


def test_bad_requests(serve, cri, fakes):
    def run(name, **more):
        return cri.run_pod(pod_config(name, host_network=False, **more))

    with refused("INVALID_ARGUMENT", "metadata.name", ";"):
        run("a;K8S_POD_UID=x")
    with refused("INVALID_ARGUMENT", "host_port"):
        run("a", port_mappings=[pb.PortMapping(container_port=1, host_port=65536)])
    with refused("INVALID_ARGUMENT", "host_ip"):
        run("a", port_mappings=[pb.PortMapping(container_port=1, host_port=1, host_ip="localhost")])
    with refused("FAILED_PRECONDITION", "port_mappings", "portMappings", "testnet"):
        run("a", port_mappings=[pb.PortMapping(container_port=1, host_port=1)])
    with refused("INVALID_ARGUMENT", "ingress-bandwidth"):
        run("a", annotations={"kubernetes.io/ingress-bandwidth": "fast"})
    with refused("INVALID_ARGUMENT", "egress-bandwidth", "1k"):
        run("a", annotations={"kubernetes.io/egress-bandwidth": "999"})
    assert serve.calls() == []


def test_without_a_configuration(serve, cri, machine):
    ready, reason, message = network_ready(cri)
    assert (ready, reason) == (True, "JobNetwork") and str(serve.conf) in message
    with refused("FAILED_PRECONDITION", "host_port", "8080", "80"):
        own(serve, cri, "differs", port_mappings=[pb.PortMapping(container_port=80, host_port=8080)])
    with refused("FAILED_PRECONDITION", "host_ip"):
        own(serve, cri, "narrow", port_mappings=[pb.PortMapping(container_port=80, host_port=80, host_ip="127.0.0.1")])
    pod = own(serve, cri, "plain", port_mappings=[pb.PortMapping(container_port=18081, host_port=18081, host_ip="0.0.0.0")])
    pod.run("sh", "-c", "echo plain > /tmp/index.html; exec httpd -f -p 18081 -h /tmp")
    assert machine.get("http://127.0.0.1:18081/index.html") == "plain\n"
    with refused("FAILED_PRECONDITION", "net.ipv4.ip_forward", "machine's network"):
        own(serve, cri, "sysctl", linux=pb.LinuxPodSandboxConfig(sysctls={"net.ipv4.ip_forward": "1"}))


# ---- when it does not work ----


def test_a_broken_configuration_is_told(serve, cri, fakes):
    def broken(reason, *words):
        ready, why, message = network_ready(cri)
        assert (ready, why) == (False, reason) and all(w in message for w in words), message
        with refused("FAILED_PRECONDITION" if reason != "CNIConfigInvalid" or "spoken" in message else "INVALID_ARGUMENT", *words):
            own(serve, cri, "refused")

    (serve.conf / "10-test.conflist").write_text('{"cniVersion": "1.0.0", "name": "x", "plugins": [')
    broken("CNIConfigInvalid", "10-test.conflist", "line 1")
    Pod(serve, cri, "host", host_network=True)
    serve.configure({"type": "first"}, version="0.2.0")
    broken("CNIConfigInvalid", "0.2.0", "spoken")
    serve.configure({"type": "../first"})
    broken("CNIConfigInvalid", "../first")
    serve.configure({"type": "first"}, {"type": "absent"})
    broken("CNIPluginMissing", "absent", str(serve.bin))
    serve.configure({"type": "first", "ipam": {"type": "gone"}})
    broken("CNIPluginMissing", "gone")
    # Mended, with a plugin that came from a folder.
    serve.configure({"type": "first"})
    (serve.conf / "testnet").mkdir()
    (serve.conf / "testnet" / "50-more.conf").write_text('{"type": "second"}')
    assert network_ready(cri)[:2] == (True, "CNI")
    own(serve, cri, "mended")
    (serve.conf / "testnet" / "50-more.conf").unlink()
    (serve.conf / "testnet").rmdir()
    assert serve.calls() == ["ADD:first", "ADD:second"]


@pytest.mark.parametrize("script, words", [
    ("""[ $CNI_COMMAND = ADD ] && { echo '{"cniVersion":"1.0.0","code":7,"msg":"no luck today","details":"try a walk"}'; exit 1; }; exit 0""",
     ["INTERNAL", "CNI plugin second failed (ADD): no luck today; try a walk"]),
    ("""[ $CNI_COMMAND = ADD ] && { echo '{"code":11,"msg":"later"}'; exit 1; }; exit 0""", ["UNAVAILABLE", "second", "later"]),
    ("""[ $CNI_COMMAND = ADD ] && { echo 'all is lost' >&2; exit 3; }; exit 0""", ["INTERNAL", "second", "status 3", "all is lost"]),
    ("""[ $CNI_COMMAND = ADD ] && kill -SEGV $$; exit 0""", ["INTERNAL", "second", "signal 11"]),
    ("""echo 'What a result!'""", ["INVALID_ARGUMENT", "second", "result"]),
    ("""echo '{"ips":[{"address":"everywhere"}]}'""", ["INVALID_ARGUMENT", "second", "everywhere"]),
    ("""echo '{}'""", ["FAILED_PRECONDITION", "testnet", "no address"]),
    ("""[ $CNI_COMMAND = ADD ] && exec yes; exit 0""", ["RESOURCE_EXHAUSTED", "second", "printed more"]),
])
def test_an_add_that_fails(serve, cri, fakes, script, words):
    serve.fake("second", f'echo "$CNI_COMMAND:second" >> "$CALLS"\n{script}')
    with refused(*words):
        own(serve, cri, "fails")
    wait_for(lambda: serve.calls()[-2:] == ["DEL:second", "DEL:first"], what="DEL")
    assert serve.calls()[:2] == ["ADD:first", "ADD:second"]
    wait_for(lambda: serve.network_leftovers() == [])
    assert len(cri.runtime.ListPodSandbox(pb.ListPodSandboxRequest()).items) == 0


def test_a_del_that_fails_is_tried_again(serve, cri, fakes):
    pod = own(serve, cri, "stays")
    serve.fake("second", """[ $CNI_COMMAND = DEL ] && { echo '{"code":9,"msg":"held"}'; exit 1; }; exit 0""")
    for call in (stop, remove):
        with refused("INTERNAL", "CNI plugin second failed (DEL): held"):
            call(cri, pod.id)
    assert cri.sandbox_status(pod.id).state == pb.SANDBOX_NOTREADY and info(cri, pod.id)["network"]["fault"].endswith("held")
    serve.kill()
    serve.start()
    with refused("INTERNAL", "held"):
        stop(cri, pod.id)
    serve.fake("second", RECORD)
    stop(cri, pod.id)
    remove(cri, pod.id)
    # A pod that never was is cleared away without anybody's asking.
    serve.fake("second", "exit 1")
    config = pod_config("never", host_network=False)
    with refused("INTERNAL", "second"):
        cri.run_pod(config)
    def says_why():
        with refused("UNAVAILABLE") as answer:
            cri.run_pod(config)
        return "second" in answer.error.details()

    wait_for(says_why)
    serve.fake("second", RECORD)
    wait_for(lambda: serve.network_leftovers() == [])
    cri.run_pod(config)


def test_status_of_plugins(serve, cri, fakes):
    serve.fake("second", """[ $CNI_COMMAND = STATUS ] && { echo '{"code":50,"msg":"no daemon"}'; exit 1; }; """ + RECORD)
    serve.configure({"type": "first"}, {"type": "second"}, version="1.1.0")
    network_ready(cri)
    wait_for(lambda: "no daemon" in network_ready(cri)[2])
    assert network_ready(cri)[:2] == (False, "CNINotReady")
    serve.fake("second", RECORD)
    serve.configure({"type": "first"}, {"type": "second"}, version="1.1.0", name="other")
    wait_for(lambda: network_ready(cri)[:2] == (True, "CNI"))
    assert "STATUS:first" in serve.calls() and "STATUS:second" in serve.calls()


# ---- restarts ----


def test_a_ready_pod_stays_and_is_checked(serve, cri, fakes):
    pod = own(serve, cri, "ready")
    container = pod.run("sleep", "1000")
    before = cri.sandbox_status(pod.id).network
    interfaces = cri.exec_sync(container, "ls", "/sys/class/net").stdout
    serve.fake("second", """[ $CNI_COMMAND = CHECK ] && { echo '{"code":100,"msg":"moved"}'; exit 1; }; """ + RECORD)
    serve.kill()
    serve.start()
    pod.wait_for_agent()
    assert cri.sandbox_status(pod.id).network == before and cri.exec_sync(container, "ls", "/sys/class/net").stdout == interfaces
    wait_for(lambda: "moved" in info(cri, pod.id)["network"]["fault"], what="CHECK")
    assert cri.sandbox_status(pod.id).state == pb.SANDBOX_READY
    assert json.loads((serve.root / "input-CHECK-first").read_text())["prevResult"] == json.loads(RESULT)


BLOCK = """
if [ $CNI_COMMAND = %s ] && [ -e "$ROOT/block" ]; then
    rm "$ROOT/block"
    echo blocked >> "$CALLS"
    %s
    while [ ! -e "$ROOT/go" ]; do sleep 0.05; done
    echo finished >> "$CALLS"
fi
"""
CHILD = """setsid sh -c 'sleep 1000; echo late > "$ROOT/leases/10.late"' &"""


@pytest.mark.parametrize("plugin, command, everything", [("first", "ADD", False), ("second", "ADD", False), ("second", "DEL", False),
                                                         ("first", "DEL", False), ("second", "ADD", True), ("first", "DEL", True)])
def test_killed_in_the_middle(serve, cri, fakes, plugin, command, everything):
    """A chain that was begun is ended, and what comes next waits for it; the pod goes on, or goes. When the plugin is killed, too, its
    children do not go on."""
    serve.fake(plugin, BLOCK % (command, CHILD if everything else "") + RECORD)
    (serve.root / "block").touch()
    config = pod_config("cut", host_network=False)
    if command == "ADD":
        request = cri.runtime.RunPodSandbox.future(pb.RunPodSandboxRequest(config=config))
    else:
        pod = cri.run_pod(config)
        request = cri.runtime.StopPodSandbox.future(pb.StopPodSandboxRequest(pod_sandbox_id=pod))
    wait_for(lambda: "blocked" in serve.calls(), what="the plugin's call")
    (serve.kill_everything if everything else serve.kill)()
    serve.start()
    assert request.exception() is not None
    if not everything:
        time.sleep(0.3)
        assert serve.calls()[-1] == "blocked"
        (serve.root / "go").touch()
    if command == "ADD":
        pod = run_patiently(cri, config)
        assert cri.sandbox_status(pod).network.ip == "192.0.2.5"
    else:
        assert cri.sandbox_status(pod).state == pb.SANDBOX_NOTREADY
    stop(cri, pod)
    remove(cri, pod)
    (serve.root / "go").unlink(missing_ok=True)
    assert ("finished" in serve.calls()) != everything
    assert os.system(f"grep -alz '^ROOT={serve.root}$' /proc/[0-9]*/environ 2>/dev/null") != 0


@real_plugins
def test_killed_at_any_moment(serve, cri, machine):
    """No namespace, interface, rule or address is left after any crash."""
    serve.real()
    for delay in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4):
        configs = [pod_config(f"crash{i}", host_network=False, port_mappings=[pb.PortMapping(container_port=80, host_port=18100 + i)])
                   for i in range(3)]
        for config in configs:
            cri.runtime.RunPodSandbox.future(pb.RunPodSandboxRequest(config=config))
        time.sleep(delay)
        serve.kill()
        serve.start()
        for listed in cri.runtime.ListPodSandbox(pb.ListPodSandboxRequest()).items[:2]:
            cri.runtime.StopPodSandbox.future(pb.StopPodSandboxRequest(pod_sandbox_id=listed.id))
        time.sleep(delay / 2)
        serve.kill()
        serve.start()
    end = time.monotonic() + 60
    while True:  # what was being started when serve was killed becomes ready or goes
        cri.remove_everything()
        if not serve.network_leftovers():
            break
        assert time.monotonic() < end, "\n".join(serve.network_leftovers()) + serve.tail(60)
        time.sleep(0.1)


def test_what_no_record_knows_is_tidied(serve, cri, fakes, machine):
    own(serve, cri, "known")
    tag = machine.namespaces()[0].split("-")[1]
    name = f"icri-{tag}-" + "1" * 64
    (serve.leases / ("10.first." + "1" * 64)).touch()
    serve.kill()
    machine.run("ip", "netns", "add", name)
    machine.run("touch", f"/run/netns/icri-{tag}-stranger", "/run/netns/icri-00000000-" + "a" * 64)
    serve.start()
    wait_for(lambda: name not in machine.namespaces(), what="tidying up")
    assert len(machine.namespaces()) == 3  # the pod's, and others' are left alone
    machine.run("rm", f"/run/netns/icri-{tag}-stranger", "/run/netns/icri-00000000-" + "a" * 64)
    assert serve.calls()[2:4] == ["DEL:second", "DEL:first"] and len(serve.leased()) == 2


@pytest.fixture
def other(machine):
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    serve = NetServe(root, machine, config="QueueHold: 300ms\n", network="  Mode: always\n  GC: true\n  Timeout: 3s\n").start()
    yield serve
    serve.finish()


def test_modes(other):
    """always: a pod waits for a network, however long it takes. At a start GC tells plugins what there is. never: none."""
    serve, cri = other, other.client
    ready, reason, message = network_ready(cri)
    assert (ready, reason) == (False, "CNINotConfigured") and str(serve.conf) in message
    config = pod_config("waits", host_network=False)
    with refused("UNAVAILABLE", "no CNI configuration"):
        cri.run_pod(config)
    serve.fake("first", RECORD)
    serve.fake("slow", "[ $CNI_COMMAND = ADD ] && { touch $ROOT/begun; sleep 1; }\n" + RECORD)
    serve.configure({"type": "first"}, {"type": "slow"}, version="1.1.0")
    with refused("UNAVAILABLE", "network is still being set up"):
        cri.run_pod(config)
    serve.kill()
    serve.start()
    pod = run_patiently(cri, config)
    wait_for(lambda: serve.calls().count("GC:slow") == 1, what="GC")
    serve.kill()
    serve.start()
    wait_for(lambda: serve.calls().count("GC:slow") == 2, what="another GC")
    assert json.loads((serve.root / "input-GC-first").read_text())["cni.dev/valid-attachments"] == [{"containerID": pod, "ifname": "eth0"}]
    # What takes too long is killed, with what it started; the pod's next try is told why.
    serve.fake("slow", "[ $CNI_COMMAND = ADD ] && { (setsid sleep 777 &); touch $ROOT/hangs; exec sleep 888; }\n" + RECORD)
    hangs = pod_config("hangs", host_network=False)
    with refused("UNAVAILABLE"):
        cri.run_pod(hangs, timeout=5)
    wait_for((serve.root / "hangs").exists, what="the plugin's call")
    removed = serve.calls().count("DEL:first")
    wait_for(lambda: serve.calls().count("DEL:first") > removed, what="DEL")
    assert "CNI plugin slow did not end in time" in serve.tail(200)
    assert os.system("ps -eo args= | grep -qx 'sleep 777'") != 0
    serve.stop()
    serve.env["INTERLINK_CRI_NETWORK_MODE"] = "never"
    serve.start()
    assert network_ready(cri)[:2] == (True, "JobNetwork") and "never" in network_ready(cri)[2]
    added = serve.calls().count("ADD:first")
    run_patiently(cri, pod_config("plain", host_network=False))
    assert serve.calls().count("ADD:first") == added


def test_an_ordinary_user_has_the_machines_network(tmp_path_factory):
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    serve = Serve(root, user=USER, config=f"Network:\n  ConfDir: {root}\n")
    (serve.root / "10-x.conf").write_text('{"cniVersion":"1.0.0","name":"x","type":"first"}')
    try:
        ready, reason, message = network_ready(serve.start().client)
        assert (ready, reason) == (True, "JobNetwork") and "root" in message
    finally:
        serve.finish()
