# SPDX-License-Identifier: Apache-2.0
"""A pod at another place: a plugin of its own, an agent that calls in over TLS and gets its image over that connection."""
import os
import subprocess
import tempfile
import time

import pytest
from cri import pb, refused
from serving import Pod, Serve, free_port


class Plugin:
    def __init__(self, serve):
        self.serve = serve
        self.process = None

    def start(self):
        with (self.serve.root / "plugin.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.serve.command("plugin", "--dir", str(self.serve.root / "remote"), "--listen",
                                   f"unix://{self.serve.root}/remote.sock"),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.serve.env, start_new_session=True)
        end = time.monotonic() + 10
        while not (self.serve.root / "remote.sock").exists():
            assert self.process.poll() is None and time.monotonic() < end, (self.serve.root / "plugin.log").read_text()
            time.sleep(0.02)

    def stop(self):
        self.process.terminate()
        assert self.process.wait(10) == 0


@pytest.fixture(scope="module")
def serve(images):
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    server = Serve(root, config=f"""
Relay:
  Listen: 127.0.0.1:{free_port()}
Handlers:
  - Name: cluster
    Target: unix://{root}/remote.sock
  - Name: local
    Target: local
DefaultHandler: cluster
""")
    server.kind = "root"
    server.plugin = Plugin(server)
    server.plugin.start()
    server.start()
    assert server.ctl("load", str(images)).returncode == 0
    yield server
    server.client.remove_everything()
    server.plugin.stop()
    server.finish()


@pytest.fixture
def cri(serve):
    yield serve.client
    serve.client.remove_everything()


def test_a_remote_pod_is_like_any_other(serve, cri):
    pod = Pod(serve, cri, "remote")
    container = pod.run("sh", "-c", "echo hello; trap 'echo bye; exit 4' TERM; while :; do sleep 0.05; done", env={"A": "b"})
    assert cri.exec_sync(container, "sh", "-c", "echo $A").stdout == b"b\n"
    time.sleep(0.2)
    cri.runtime.StopContainer(pb.StopContainerRequest(container_id=container, timeout=10))
    assert cri.status(container).exit_code == 4
    assert pod.output(container)[0] == b"hello\nbye\n"
    assert "cluster" in cri.runtime.PodSandboxStatus(
        pb.PodSandboxStatusRequest(pod_sandbox_id=pod.id, verbose=True)).info["info"]


def test_the_agents_say_what_their_machine_can(serve, cri):
    Pod(serve, cri, "says")
    features = {h.name: h.features for h in cri.runtime.Status(pb.StatusRequest()).runtime_handlers}
    assert features["cluster"].recursive_read_only_mounts  # Linux 5.12
    assert features[""] == features["cluster"]


def test_the_image_is_sent_once_a_pod(serve, cri):
    pod = Pod(serve, cri, "twice")
    containers = [pod.run("sh", "-c", f"exit {i}") for i in (1, 2, 3)]
    assert [cri.wait_exit(c).exit_code for c in containers] == [1, 2, 3]
    sent = [f for folder, _, files in os.walk(serve.root / "remote" / "jobs") for f in files if folder.endswith("/blobs")]
    assert len(sent) == len(set(sent)) <= 1  # one layer; unpacked, the blob may have gone


def test_image_volumes_and_profiles_are_sent_too(serve, cri):
    """The agent sees neither the image store nor (were it really elsewhere) the node's files."""
    pod = Pod(serve, cri, "volumes")
    profile = serve.root / "profile.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}')
    volume = pb.Mount(container_path="/image", readonly=True,
                      image=pb.ImageSpec(image="gcr.io/k8s-staging-cri-tools/test-image-predefined-group:latest"))
    security = pb.LinuxContainerSecurityContext(seccomp=pb.SecurityProfile(
        profile_type=pb.SecurityProfile.Localhost, localhost_ref=str(profile)))
    container = pod.run("sh", "-c", "grep -c 50000 /image/etc/group; mkdir /x", mounts=[volume],
                        linux=pb.LinuxContainerConfig(security_context=security))
    assert cri.wait_exit(container).exit_code != 0
    out, err = pod.output(container)
    assert out == b"1\n" and b"not permitted" in err


def test_serve_may_be_killed_and_started_again(serve, cri):
    pod = Pod(serve, cri, "crash")
    container = pod.run("sh", "-c", "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.01; done")
    for _ in range(3):
        time.sleep(0.4)
        serve.kill()
        serve.start()
    assert cri.wait_exit(container, 60).exit_code == 0
    assert pod.output(container)[0] == b"".join(b"line %d\n" % i for i in range(300))


def test_handlers_go_to_their_own_targets(serve, cri):
    here = Pod(serve, cri, "here", handler="local")
    assert "\"local\"" in cri.runtime.PodSandboxStatus(
        pb.PodSandboxStatusRequest(pod_sandbox_id=here.id, verbose=True)).info["info"]
    assert cri.wait_exit(here.run("true")).exit_code == 0


def test_a_plugin_that_is_away_is_said_so(serve, cri):
    serve.plugin.stop()
    try:
        with refused("UNAVAILABLE"):
            Pod(serve, cri, "away")
        assert not cri.runtime.ListPodSandbox(pb.ListPodSandboxRequest()).items
    finally:
        serve.plugin.start()
