# SPDX-License-Identifier: Apache-2.0
"""The operator's guide, from its first command to its last: a machine with nothing on it, a real kubeadm and kubelet, a site, pods,
an upgrade, and nothing left in the end.

The commands run as they stand, in the guide's order, with these replaced:

  api.example.org:6443, the token's hash      the API server of the fixture
  https://interlink.example.org:3000          a site of ours
  edge1.example.org:10443                     the node's address
  systemctl, journalctl                       stand-ins (systemctl.py), for systemd does not run here; systemd-analyze is the real one
  kubectl                                     the real one, with the administrator's credentials
  kubeadm                                     the real one; what it says of this machine before it joins (swap, cgroups) is not held
                                              against it, and a second patch gives kubelet the folders and the cgroup of the test

The machine is a private mount namespace, with copies of what the guide writes to, in the network namespace of the cluster."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest
from cluster import BINARY, FIXTURE, TOP, wait
from remote_site import RELAY, Site

GUIDE = TOP / "docs" / "operators-guide.md"
BUSYBOX = "registry.k8s.io/e2e-test-images/busybox:1.29-2"
# The only commands of the guide that are not run: they need SELinux, or are for a node that runs no pod itself (that file is tried
# in test/e2e/runtime/test_service_manager.py).
NOT_RUN = ["semanage fcontext", "restorecon", "mkdir -p /etc/systemd/system/interlink-cri.service.d",
           "cp deploy/interlink-cri-remote-only.conf", "systemctl daemon-reload && systemctl restart interlink-cri"]
COPIED = ["/etc", "/usr/local", "/usr/libexec", "/var/log", "/var/tmp", "/srv"]
KUBELET_UNIT = """[Service]
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
ExecStart=/usr/local/bin/kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf \
--config=/var/lib/kubelet/config.yaml $KUBELET_KUBEADM_ARGS --node-ip=10.199.0.1
Restart=always
"""
TOKEN = "abcdef.0123456789abcdef"


def blocks(kind):
    """[(the line of the guide, the text)] of the fenced blocks of a kind."""
    found = []
    text = GUIDE.read_text()
    for match in re.finditer(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        found.append((text.count("\n", 0, match.start()) + 1, match[1]))
    return found


def test_what_is_not_run_is_known():
    lines = [line for _, text in blocks("console") for line in text.splitlines()]
    assert len(lines) == len(NOT_RUN) and all(a.startswith(b) for a, b in zip(sorted(lines), sorted(NOT_RUN))), lines
    kinds = re.findall(r"^```(.+)$", GUIDE.read_text(), re.MULTILINE)
    assert set(kinds) == {"sh", "yaml", "console"}


class Machine:
    """What the guide's reader sits at."""

    def __init__(self, cluster, programs):
        self.cluster = cluster
        self.root = cluster.root / "edge"
        self.state = self.root / "services"
        for name in ("bin", "services", "work", "lib"):
            (self.root / name).mkdir(parents=True)
        self.site = Site(cluster, "site")
        self.site.says("128", "1Ti", "500", gpus="8")
        for name in ("interlink-cri", "deploy", "docs"):
            (self.root / "work" / name).symlink_to(BINARY if name == "interlink-cri" else TOP / name)
        self.program("systemctl", f'exec python3 {TOP}/test/e2e/kubernetes/systemctl.py "$@"')
        self.program("journalctl", f"tail -n 20 {self.state}/interlink-cri.log")
        self.program("kubectl", f'exec {programs}/kubectl --kubeconfig={cluster.root}/k8s/pki/admin.kubeconfig "$@"')
        self.program("kubeadm", f'''case $1 in join) set -- "$@" --ignore-preflight-errors=all ;; esac
exec {programs}/kubeadm "$@"''')
        if shutil.which("systemd-analyze") is None:
            self.program("systemd-analyze", "exit 0")
        self.holder = self.hold()
        self.run(f"install {programs}/kubelet /usr/local/bin/kubelet; mkdir -p /srv/images /etc/systemd/system /etc/kubernetes")
        self.write("/etc/systemd/system/kubelet.service", KUBELET_UNIT)

    def program(self, name, text):
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def hold(self):
        """A process that keeps the mount namespace."""
        script = [f"mount --bind {self.root}/lib /var/lib"]
        for folder in COPIED:
            name = f"{self.root}/{folder.replace('/', '_')}"
            script.append(f"mkdir {name} {name}.work && mount -t overlay o -o lowerdir={folder},upperdir={name},workdir={name}.work {folder}")
        script += [f"mkdir {self.root}/netns && mount --bind /run/netns {self.root}/netns",
                   "mount -t tmpfs none /run && mkdir -p /run/systemd/system /run/netns", "echo ready; exec sleep 100000"]
        holder = subprocess.Popen(self.cluster.inside("unshare", "--mount", "--propagation", "private", "sh", "-ec", "\n".join(script)),
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  start_new_session=True)
        line = holder.stdout.readline()
        if line.strip() != "ready":
            holder.kill()
            holder.wait()
            pytest.skip(f"no machine can be made here: {line}")
        return holder

    def inside(self, *command):
        return ["nsenter", f"--net=/run/netns/{self.cluster.netns}", f"--mount=/proc/{self.holder.pid}/ns/mnt",
                f"--wd={self.root}/work", *command]

    def run(self, text, check=True, timeout=300):
        env = {"PATH": f"{self.root}/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
               "SYSTEMCTL_STATE": str(self.state), "LANG": "C.UTF-8"}
        done = subprocess.run(self.inside("bash", "-euo", "pipefail", "-c", text), env=env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False)
        assert not check or done.returncode == 0, f"{text}\n{done.stdout}\n{self.logs()}"
        return done.stdout

    def write(self, path, text):
        subprocess.run(self.inside("tee", path), input=text, stdout=subprocess.DEVNULL, text=True, check=True)

    def logs(self):
        return "".join(f"== {p.name}\n" + "\n".join(p.read_text(errors="replace").splitlines()[-30:]) + "\n"
                       for p in sorted(self.state.glob("*.log")))

    def close(self):
        for name in ("kubelet", "interlink-cri"):
            self.run(f"systemctl disable --now {name}", check=False)
        mine = os.readlink(f"/proc/{self.holder.pid}/ns/mnt")
        end = time.monotonic() + 10
        while (left := [p for p in map(int, filter(str.isdigit, os.listdir("/proc"))) if p != self.holder.pid and self.is_in(p, mine)]) \
                and time.monotonic() < end:
            time.sleep(0.2)
        names = [pathlib.Path(f"/proc/{p}/cmdline").read_bytes() for p in left]
        for p in left:
            os.kill(p, signal.SIGKILL)
        self.holder.kill()
        self.holder.wait()
        self.site.stop()
        return names

    @staticmethod
    def is_in(pid, namespace):
        try:
            return os.readlink(f"/proc/{pid}/ns/mnt") == namespace
        except OSError:
            return False


@pytest.fixture
def machine(cluster):
    built = subprocess.run([str(FIXTURE / "build.sh"), "kubeadm"], stdout=subprocess.PIPE, text=True, check=False)
    assert built.returncode == 0, "kubeadm could not be built"
    cluster.run("kubelet.sh", "stop")  # one on a machine has port 10250
    env = dict(cluster.env)
    cluster.env["K8S_CGROUP"] = f"/{cluster.netns}-edge"
    left = None
    try:
        for one in cluster.get("runtimeclass")["items"]:  # of other tests
            if one["handler"] in ("local", "cluster"):
                cluster.kubectl("delete", "runtimeclass", one["metadata"]["name"])
        cluster.run("cgroup.sh", "up")
        made = Machine(cluster, built.stdout.split()[-1])
        try:
            yield made
        finally:
            left = made.close()
    finally:
        cluster.run("cgroup.sh", "down")
        cluster.env = env
        cluster.run("kubelet.sh", "start", str(cluster.socket))
        cluster.kubectl("delete", "--ignore-not-found", "-f", str(TOP / "deploy" / "runtime-classes.yaml"))
        cluster.kubectl("delete", "--ignore-not-found", "-f", str(TOP / "deploy" / "capacity-policy.yaml"))
        cluster.kubectl("wait", "--for=condition=Ready", "node/node1", "--timeout=60s")
    assert not left, left


def control_plane(machine):
    """What `kubeadm init` leaves in a cluster for those who join; the fixture's was made otherwise. Gives the hash of the CA's key."""
    cluster = machine.cluster
    pki = cluster.root / "k8s" / "pki"
    machine.write("/etc/kubernetes/init.yaml", f"""apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens: [{{token: {TOKEN}, ttl: 1h0m0s, usages: [signing, authentication], groups: ["system:bootstrappers:kubeadm:default-node-token"]}}]
localAPIEndpoint: {{advertiseAddress: 127.0.0.1}}
nodeRegistration: {{criSocket: "unix://{cluster.socket}"}}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.37.2
controlPlaneEndpoint: 127.0.0.1:6443
""")
    # kubeadm publishes a kubeconfig with the CA inside of it.
    machine.write("/etc/kubernetes/fixture.conf", machine.run(
        f"kubectl config view --raw --flatten --kubeconfig={pki}/admin.kubeconfig"))
    machine.run("""export KUBECONFIG=/etc/kubernetes/fixture.conf
kubeadm init phase upload-config all --config /etc/kubernetes/init.yaml --kubeconfig $KUBECONFIG
kubeadm init phase bootstrap-token --config /etc/kubernetes/init.yaml --kubeconfig $KUBECONFIG
rm /etc/kubernetes/*""")
    key = subprocess.run(f"openssl x509 -pubkey -noout -in {pki}/ca.crt | openssl pkey -pubin -outform der | sha256sum", shell=True,
                         stdout=subprocess.PIPE, text=True, check=True).stdout.split()[0]
    wait(lambda: cluster.ask("GET", "/api/v1/namespaces/kube-public/configmaps/cluster-info")[1].get("data", {}).get(
        "jws-kubeconfig-" + TOKEN.split(".")[0]), 30, "cluster-info is not signed")
    return key


def kubelet_patch(machine):
    pki = machine.cluster.root / "k8s" / "pki"
    return f"""address: 10.199.0.1
cgroupRoot: {machine.cluster.env["K8S_CGROUP"]}
enforceNodeAllocatable: []
failSwapOn: false
evictionHard: {{memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}}
imageGCHighThresholdPercent: 100
resolvConf: {machine.cluster.root}/k8s/resolv.conf
makeIPTablesUtilChains: false
tlsCertFile: {pki}/kubelet-server.crt
tlsPrivateKeyFile: {pki}/kubelet-server.key
"""


def looked(text):
    """What the last `doctor` in an output said: {what: (result, words)}"""
    lines = {}
    for line in text.splitlines():
        if line[:6].strip() in ("ok", "warn", "FAIL"):
            lines[line[6:24].strip()] = (line[:6].strip(), line[24:])
    return lines


def test_the_guide(machine):
    cluster = machine.cluster
    subprocess.run([str(FIXTURE / "mkimage.py"), str(machine.root / "_srv" / "images" / "busybox.tar"), BUSYBOX], check=True)
    key = control_plane(machine)
    replaced = {"api.example.org:6443": "127.0.0.1:6443", "sha256:" + "0123456789abcdef" * 4: "sha256:" + key,
                "https://interlink.example.org:3000": machine.site.url, "edge1.example.org:10443": RELAY}
    said = {}
    times = {}
    for line, text in blocks("sh"):
        for a, b in replaced.items():
            text = text.replace(a, b)
        if "kubeadm join" in text:
            machine.run("mkdir -p /etc/interlink-cri/kubeadm/patches")
            machine.write("/etc/interlink-cri/kubeadm/patches/kubeletconfiguration1+merge.yaml", kubelet_patch(machine))
        begin = time.monotonic()
        said[line] = machine.run(text)
        times[line] = round(time.monotonic() - begin, 1)
        after(machine, text, said[line])
    print(times)
    listed = json.loads(cluster.kubectl("get", "nodes", "-o", "json").stdout)["items"]
    assert [n["metadata"]["name"] for n in listed] == ["node1"]
    left = machine.run("ls -d /etc/kubernetes/kubelet.conf /etc/interlink-cri /var/lib/interlink-cri /run/interlink-cri /usr/local/bin/interlink-cri 2>/dev/null || true")
    assert left == ""
    assert not list((machine.site.root / "jobs" / "jobs").iterdir())


def after(machine, text, output):
    """What must be so after some of the steps."""
    cluster = machine.cluster
    if "interlink-cri doctor" in text:
        assert "FAIL" not in output, output
    if "node/edge1 --timeout=120s" in text:
        found = looked(output)
        for what in ("configuration", "state folder", "service", "socket", "handler local", "handler cluster", "node's own pods", "relay",
                     "cluster", "node", "kubelet endpoint", "kubelet stats"):
            assert found[what][0] == "ok", output
        assert "takes us for system:node:edge1" in found["cluster"][1]
        assert found["runtime classes"][0] == "warn" and found["capacity"][0] == "warn"
    if "get node edge1" in text:
        assert looked(output)["runtime classes"][0] == "ok", output
        wait(lambda: cluster.get("node", "edge1")["status"]["capacity"].get("nvidia.com/gpu") == "8", 60, machine.logs)
        assert cluster.get("node", "edge1")["status"]["capacity"]["cpu"] == "128"
        assert looked(machine.run("interlink-cri doctor"))["capacity"][0] == "ok"
    if "DefaultHandler: cluster" in text:
        # The pod that names nothing goes away, the DaemonSet's of kube-system would stay (test_handlers.py).
        cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "steady"}, "spec": {
            "nodeName": "edge1", "terminationGracePeriodSeconds": 1, "containers": [
                {"name": "main", "image": BUSYBOX, "command": ["sleep", "100000"]}]}})
        cluster.phase("steady", "Running")
        assert machine.site.job("steady")
    if "interlink-cri.old" in text or "Pinned" in text:
        status = cluster.status("steady")
        assert status["restartCount"] == 0 and "running" in status["state"], status
    if "tar -C" in text:
        listed = machine.run("tar -tzf /var/tmp/interlink-cri-backup.tar.gz")
        assert "etc/interlink-cri/config.yaml" in listed and re.search(r"relay/\S+", listed), listed
