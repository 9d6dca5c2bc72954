# SPDX-License-Identifier: Apache-2.0
"""serve with no more than deploy/interlink-cri-remote-only.conf leaves it, for pods that all run elsewhere; and a node that has lost its
state."""
import configparser
import os
import shutil
import subprocess
import tempfile
import time

import pytest
from cri import pb
from kubelet_dir import Kubelet
from serving import TOP, Pod, Serve, free_port

UNIT = TOP / "deploy" / "interlink-cri-remote-only.conf"
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="what root may do is taken away from root")


def settings():
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str
    parser.read(UNIT)
    return parser["Service"]


class Node(Serve):
    """NoNewPrivileges, CapabilityBoundingSet and ProtectSystem as systemd makes them of the file; the plugin runs as the machine does."""

    hardened = True

    def command(self, *arguments):
        if not self.hardened or arguments[0] != "serve":
            return super().command(*arguments)
        values = settings()
        assert values["NoNewPrivileges"] == "yes" and values["ProtectSystem"] == "strict"
        caps = ",".join("+" + name.removeprefix("CAP_").lower() for name in values["CapabilityBoundingSet"].split())
        # What is writable is below the test's folder: state, socket, kubelet's folders.
        script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec "$@"'
        return ["unshare", "-m", "--propagation", "private", "sh", "-c", script, str(self.root), "setpriv", "--no-new-privs",
                "--bounding-set", "-all," + caps, "--inh-caps=-all", *super().command(*arguments)]


@pytest.fixture
def node(images):
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    server = Node(root, config=f"""
Relay: {{Listen: '127.0.0.1:{free_port()}'}}
Handlers: [{{Name: cluster, Target: 'unix://{root}/remote.sock'}}]
""")
    with (server.root / "plugin.log").open("ab") as log:
        plugin = subprocess.Popen(server.command("plugin", "--dir", f"{root}/remote", "--listen", f"unix://{root}/remote.sock"),
                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=server.env, start_new_session=True)
    server.start()
    assert server.ctl("load", str(images)).returncode == 0, server.tail()
    yield server
    server.client.remove_everything()
    end = time.monotonic() + 10
    while os.listdir(server.root / "remote" / "jobs") and time.monotonic() < end:
        time.sleep(0.05)
    plugin.terminate()
    plugin.wait(10)
    server.finish()


def test_it_is_enough(node):
    """Images, logs, files of others that are copied, termination messages, exec, and a restart."""
    cri = node.client
    assert int(next(line.split()[1] for line in open(f"/proc/{node.process.pid}/status") if line.startswith("NoNewPrivs"))) == 1
    pod = Pod(node, cri, "away")
    uid = pod.config.metadata.uid
    volume = Kubelet(node.root / "kubelet").projected(uid, "secret", "s", {"key": (b"hunter2", 0o400)})
    os.chown(volume / "key", 1234, 1234)
    message = node.root / "kubelet" / "pods" / uid / "containers" / "c" / "1"
    message.parent.mkdir(parents=True)
    message.touch()
    container = pod.run("sh", "-c", "cat /s/key; echo last words >/dev/termination-log; stat -Lc %u /s/key",
                        mounts=[pb.Mount(container_path="/s", host_path=str(volume), readonly=True),
                                pb.Mount(container_path="/dev/termination-log", host_path=str(message))],
                        annotations={"io.kubernetes.container.terminationMessagePath": "/dev/termination-log"})
    assert cri.wait_exit(container).exit_code == 0
    assert pod.output(container)[0] == b"hunter21234\n" and message.read_text() == "last words\n"
    container = pod.run("sleep", "1000")
    assert cri.exec_sync(container, "echo", "hello").stdout == b"hello\n"
    node.stop()
    node.start()
    pod.wait_for_agent()
    assert cri.exec_sync(container, "echo", "again").stdout == b"again\n"


def test_a_node_that_has_lost_its_state(node):
    """With the relay's key from a backup, agents of old jobs hear that nobody knows them, and their jobs end."""
    node.hardened = False
    node.kill()
    node.start()
    cri = node.client
    pod = Pod(node, cri, "orphan")
    pod.run("sleep", "1000")
    jobs = node.root / "remote" / "jobs"
    job = jobs / os.listdir(jobs)[0]
    agent = [p for p in node.processes() if str(job) in open(f"/proc/{p}/environ").read()]
    assert agent
    node.kill()
    for entry in (node.root / "state").iterdir():
        if entry.name not in ("relay", "images"):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    node.start()
    assert not cri.runtime.ListPodSandbox(pb.ListPodSandboxRequest()).items
    end = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{p}") for p in agent):
        assert time.monotonic() < end, (job / "agent.log").read_text()
        time.sleep(0.1)
    Pod(node, cri, "anew").run("true")
    shutil.rmtree(job)  # the site tidies up by its own rules
