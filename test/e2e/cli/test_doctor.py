# SPDX-License-Identifier: Apache-2.0
"""`interlink-cri doctor`: one line a check, an exit status that a script can use, and nothing left behind."""
import http.server
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading

import pytest
from fake import Fake
from kube import KubeApi

TOP = pathlib.Path(__file__).resolve().parents[3]
BINARY = pathlib.Path(os.environ.get("INTERLINK_CRI_BINARY") or TOP / "build" / "san" / "interlink-cri")
USER = 54321  # an ordinary user's id without an entry in /etc/passwd


@pytest.fixture
def root():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="icri-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def doctor(root, config, user=None, *arguments):
    """(exit status, {what was looked at: (result, what was found)}, everything it printed)"""
    file = root / "config.yaml"
    file.write_text(config)
    as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    env = {k: v for k, v in os.environ.items() if not k.startswith("INTERLINK_CRI_")}
    result = subprocess.run([*as_user, str(BINARY), "doctor", "--config", str(file), *arguments], env=env, capture_output=True, text=True, timeout=60)
    assert result.stderr == ""
    lines = {}
    for line in result.stdout.splitlines():
        if line[:6].strip() in ("ok", "warn", "FAIL"):
            lines[line[6:24].strip()] = (line[:6].strip(), line[24:])
    return result.returncode, lines, result.stdout


def test_a_good_set_up(root):
    fake = Fake(root / "cri.sock")
    state = root / "state"
    state.mkdir(mode=0o700)
    status, lines, text = doctor(root, f"Socket: {root}/cri.sock\nStateDir: {state}\n")
    fake.stop()
    assert status == 0, text
    assert lines["configuration"][0] == lines["state folder"][0] == lines["handler local"][0] == "ok"
    assert lines["socket"] == ("ok", f"{root}/cri.sock: fake 1.2.3 answers")
    assert {"kernel", "namespaces", "user ids", "overlayfs", "cgroups", "seccomp", "disk space", "clock", "log folder"} < set(lines)
    assert list(state.iterdir()) == []
    assert "0 failed" in text.splitlines()[-1]


@pytest.mark.skipif(os.getuid() != 0, reason="becomes an ordinary user, which only root can")
def test_an_ordinary_user(root):
    (root / "state").mkdir(mode=0o700)
    os.chown(root / "state", USER, USER)
    status, lines, text = doctor(root, f"Socket: {root}/cri.sock\nStateDir: {root}/state\n", USER)
    assert lines["state folder"][0] == "ok" and lines["socket"][0] == "warn", text
    assert status == (1 if lines["namespaces"][0] == "FAIL" else 0)
    assert lines["user ids"][0] == "warn" and "/etc/subuid" in lines["user ids"][1], text
    assert list((root / "state").iterdir()) == []


def test_a_bad_configuration(root):
    status, lines, text = doctor(root, "StateDri: /x\n")
    assert status == 1 and lines["configuration"][0] == "FAIL"
    assert "line 1, column 1: StateDri: no such key, did you mean StateDir?" in text
    assert "1 failed" in text.splitlines()[-1]


@pytest.mark.skipif(os.getuid() != 0, reason="networks of pods need root")
def test_a_pod_network(root):
    more = f"Socket: {root}/cri.sock\nStateDir: {root}/state\nNetwork: {{ConfDir: {root}/net.d, BinDirs: [{root}]}}\n"
    _, lines, _ = doctor(root, more)
    assert lines["pod network"][0] == "ok" and f"no CNI configuration is in {root}/net.d" in lines["pod network"][1]
    (root / "net.d").mkdir()
    (root / "net.d" / "1.conf").write_text('{"cniVersion":"1.0.0","name":"n","type":"absent"}')
    status, lines, text = doctor(root, more)
    assert status == 1 and lines["pod network"][0] == "FAIL" and "CNIPluginMissing" in lines["pod network"][1], text


@pytest.mark.skipif(os.getuid() != 0, reason="addresses of pods need root")
def test_pods_elsewhere(root):
    def look(network, user=None, local=""):
        (root / "state").mkdir(mode=0o700, exist_ok=True)
        handlers = f"[{{Name: cluster, Target: 'unix://{root}/none'}}{local}]"
        return doctor(root, f"Socket: {root}/cri.sock\nStateDir: {root}/state\nHandlers: {handlers}\n"
                            f"Network: {{ConfDir: {root}/net.d, BinDirs: [{root}]{network}}}\n", user)[1]["pods elsewhere"]
    result, text = look(", RelayCIDRs: ['127.0.0.0/24']")
    assert result == "warn" and "lo has the address 127.0.0.1" in text
    result, text = look(", RelayCIDRs: ['100.127.255.0/24']")
    assert result == "ok" and "get addresses of 100.127.255.0/24" in text
    assert look("")[1].startswith("get addresses of the node's pod CIDR")
    result, text = look("", user=USER)
    assert result == "warn" and "CAP_NET_ADMIN" in text
    (root / "net.d").mkdir()
    (root / "net.d" / "1.conf").write_text('{"cniVersion":"1.0.0","name":"n","type":"absent"}')
    result, text = look("", local=", {Name: local, Target: local}")
    assert result == "warn" and "CNI gives the pod CIDR" in text
    assert look("")[0] == "ok", "CNI is for pods on this machine, and there are none"


def test_an_open_state_folder(root):
    (root / "state").mkdir(mode=0o755)
    (root / "state").chmod(0o755)
    status, lines, text = doctor(root, f"Socket: {root}/cri.sock\nStateDir: {root}/state\n")
    assert status == 1 and lines["state folder"][0] == "FAIL"
    assert f"-> chown it to this user and chmod 700 {root}/state" in text


class Api(http.server.BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200 if self.path == "/pinglink" else 404)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


def test_interlink_servers(root):
    server = http.server.HTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    handlers = (f"Handlers:\n- {{Name: there, Target: 'http://127.0.0.1:{port}', SharedPaths: [{root}, /no/such/folder]}}\n"
                f"- {{Name: gone, Target: 'unix://{root}/none.sock'}}\n")
    status, lines, text = doctor(root, f"Socket: {root}/cri.sock\nStateDir: {root}/state\n{handlers}")
    server.shutdown()
    server.server_close()
    assert status == 1
    assert lines["handler there"] == ("ok", f"http://127.0.0.1:{port} answers"), text
    assert lines["handler gone"][0] == "FAIL"
    assert lines["relay"][0] == "warn" and "set Relay.Listen" in text
    assert lines["volumes"] == ("warn", "SharedPaths that this machine does not have: /no/such/folder"), text
    assert lines["node's own pods"][0] == "warn" and "go to handler there, on another machine" in lines["node's own pods"][1], text
    _, lines, _ = doctor(root, f"Socket: {root}/cri.sock\nStateDir: {root}/state\n{handlers}- {{Name: here, Target: local}}\n")
    assert lines["node's own pods"] == ("ok", "static pods and those of kube-system without a RuntimeClass go to handler here, this machine")


def test_a_cluster(root):
    api = KubeApi(root / "kube")
    api.register_node()
    conf = api.kubeconfig(cert=api.pki.make("kubelet", "/O=system:nodes/CN=system:node:edge1"))
    kubelet = root / "kubelet"
    kubelet.mkdir()
    more = (f"Socket: {root}/cri.sock\nStateDir: {root}/state\nHandlers: [{{Name: there, Target: 'unix://{root}/none.sock'}},"
            " {Name: here, Target: local}]\n")
    _, lines, _ = doctor(root, more, None, "--kubelet-dir", str(kubelet))
    assert lines["cluster"][0] == "warn" and "without Kubeconfig" in lines["cluster"][1]
    assert lines["kubelet"][0] == "ok" and "huge pages" in lines
    more += f"Kubeconfig: {conf}\n"
    _, lines, text = doctor(root, more, None, "--kubelet-dir", str(kubelet))
    assert lines["cluster"] == ("ok", f"https://127.0.0.1:{api.port} takes us for system:node:edge1")
    assert lines["node"] == ("ok", "edge1 is in the cluster") and lines["capacity"][0] == "ok", text
    assert not api.annotations()  # it was only asked what would be
    assert lines["runtime classes"] == ("warn", "no pod can ask for handler here: no RuntimeClass names it")
    api.classes = ["other", "here"]
    api.policy = False
    (kubelet / "cpu_manager_state").write_text('{"policyName":"static","defaultCpuSet":"","checksum":1}')
    api.register_node(**{"interlink.eu/capacity-hugepages-2Mi": "1Gi"})
    _, lines, text = doctor(root, more, None, "--kubelet-dir", str(kubelet))
    assert lines["capacity"][0] == "warn" and "v1.37.2" in lines["capacity"][1]
    assert lines["runtime classes"][0] == "ok"
    assert "-> kubectl apply -f deploy/capacity-policy.yaml" in text
    assert lines["kubelet"][0] == "warn" and "cpuManagerPolicy is static" in lines["kubelet"][1]
    assert lines["node"][0] == "warn" and "capacity-hugepages-2Mi" in lines["node"][1]
    (kubelet / "cpu_manager_state").unlink()
    (kubelet / "config.yaml").write_text("kind: KubeletConfiguration\nmemoryManagerPolicy: Static\n")
    api.update_node(None)
    _, lines, text = doctor(root, more, None, "--kubelet-dir", str(kubelet))
    assert lines["kubelet"][0] == "warn" and "memoryManagerPolicy is Static" in lines["kubelet"][1]
    assert lines["node"][0] == "warn" and "capacity" not in lines
    api.stop()
    status, lines, text = doctor(root, more)
    assert status == 1 and lines["cluster"][0] == "FAIL" and "Connection refused" in lines["cluster"][1]
    conf.write_text("current-context: c\n")
    _, lines, _ = doctor(root, more)
    assert lines["cluster"][0] == "FAIL" and 'contexts: none is called "c"' in lines["cluster"][1]


def test_kubelets_settings(root):
    kubelet = root / "kubelet"
    kubelet.mkdir()
    file = kubelet / "config.yaml"
    local = f"Socket: {root}/cri.sock\nStateDir: {root}/state\n"
    remote = local + f"Handlers: [{{Name: there, Target: 'unix://{root}/none.sock'}}]\n"

    def look(config, text):
        file.write_text(text)
        return doctor(root, config, None, "--kubelet-dir", str(kubelet))[1:]

    head = "kind: KubeletConfiguration\nfailCgroupV1: false\n"
    lines, text = look(local, head)
    assert lines["kubelet endpoint"][0] == "warn" and "looks for containerd" in lines["kubelet endpoint"][1], text
    lines, text = look(local, head + "containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n")
    assert lines["kubelet endpoint"][0] == "FAIL" and f"-> set `containerRuntimeEndpoint: unix://{root}/cri.sock` in {file}" in text
    good = head + f"containerRuntimeEndpoint: unix://{root}/cri.sock\n"
    lines, text = look(local, good)
    assert lines["kubelet endpoint"] == ("ok", f"kubelet connects to unix://{root}/cri.sock")
    assert "kubelet stats" not in lines and "kubelet cgroups" not in lines, text
    lines, text = look(remote, good)
    assert lines["kubelet stats"][0] == "warn" and "-> set `featureGates: {PodAndContainerStatsFromCRI: true}`" in text
    lines, text = look(remote, good + "featureGates: {PodAndContainerStatsFromCRI: true}\n")
    assert lines["kubelet stats"][0] == "ok", text
    # kubeadm of older clusters writes options, which go before the file.
    (kubelet / "kubeadm-flags.env").write_text('KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///x.sock --v=2"\n')
    lines, _ = look(local, good)
    assert lines["kubelet endpoint"] == ("FAIL", f"kubelet connects to unix:///x.sock, and serve listens on unix://{root}/cri.sock")
    lines, _ = look(local, "[1,")
    assert "kubelet endpoint" not in lines
    lines, text = look(local, good.replace("failCgroupV1: false", "failCgroupV1: true"))
    v2 = pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists()
    assert ("kubelet cgroups" in lines) != v2, text


@pytest.mark.skipif(os.getuid() != 0, reason="a mount namespace needs root")
def test_the_unit_of_systemd(root):
    """In a mount namespace whose /run says that systemd runs, and whose /etc is a folder of ours."""
    if subprocess.run(["unshare", "-m", "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        pytest.skip("mount namespaces are refused here")
    (root / "config.yaml").write_text(f"Socket: {root}/cri.sock\nStateDir: {root}/state\n")
    unit = root / "etc" / "systemd" / "system" / "interlink-cri.service"
    unit.parent.mkdir(parents=True)
    script = f"mount -t tmpfs none /run && mkdir -p /run/systemd/system && mount --bind {root}/etc /etc && exec {BINARY} doctor --config {root}/config.yaml"

    def look():
        done = subprocess.run(["unshare", "-m", "--propagation", "private", "sh", "-c", script], capture_output=True, text=True,
                              timeout=60, check=False)
        return next((line for line in done.stdout.splitlines() if line[6:].startswith("service ")), done.stdout + done.stderr)

    assert look().startswith("warn") and "no unit" in look()
    shipped = (TOP / "deploy" / "interlink-cri.service").read_text()
    unit.write_text(shipped)
    assert look() == f"ok    service           {unit.as_posix().replace(str(root), '')}"
    unit.write_text(shipped.replace("KillMode=process", "KillMode=mixed"))
    assert look().startswith("FAIL") and "kills every pod" in look()
    unit.write_text(shipped.replace("Type=notify", "Type=simple"))
    assert look().startswith("warn") and 'Type is "simple"' in look()
