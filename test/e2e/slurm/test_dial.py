# SPDX-License-Identifier: Apache-2.0
"""Pods of a real Slurm whose agents cannot call: serve listens nowhere and comes to them by srun, in the job's own allocation."""
import os
import pathlib
import shutil
import signal
import tempfile

import pytest
from cri import pb
from serving import BINARY, Pod, Serve, make_images
from slurm_site import NOBODY, Plugin, until

LINES = "i=0; while [ ! -e /stop ]; do echo line $i; i=$((i+1)); sleep 0.02; done; echo end"


class Patient:
    """A client that asks again for a pod that is not ready, as kubelet does."""

    def __init__(self, client):
        self.client = client

    def __getattr__(self, name):
        return getattr(self.client, name)

    def run_pod(self, config, handler):
        found = []

        def ready():
            try:
                found.append(self.client.run_pod(config, handler))
            except Exception as error:  # noqa: BLE001 - told by until()
                found[:] = []
                self.last = error
            return bool(found)

        try:
            until(ready, 40, "the pod")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.last}") from None
        return found[0]


@pytest.fixture(params=["root", "user"])
def cluster(request, site):
    user = NOBODY if request.param == "user" else None
    root = pathlib.Path(tempfile.mkdtemp(prefix="icri-", dir="/tmp"))
    root.chmod(0o755)
    shared = root / "shared"
    shared.mkdir()
    if user is not None:
        os.chown(shared, user, user)
    plugin = Plugin(site, shared, "", user=user)
    plugin.start()
    as_user = f"setpriv, --reuid={user}, --regid={user}, --clear-groups, " if user is not None else ""
    serve = Serve(root / "serve", env=site.env, config=f"""
QueueHold: 5s
Handlers:
  - Name: slurm
    Target: unix://{plugin.socket}
    Dial: [{as_user}srun, --quiet, "--jobid={{jid}}", "--nodelist={{node}}", --overlap, --ntasks=1, --unbuffered, --cpu-bind=none, {BINARY}, join, "{{pod}}"]
""").start()
    loaded = serve.ctl("load", str(make_images()))
    assert loaded.returncode == 0, loaded.stderr
    yield serve
    try:
        serve.finish()
    finally:
        plugin.stop()
        plugin.close()
        shutil.rmtree(root, ignore_errors=True)


def steps(serve):
    """The srun processes of serve, by pid."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"srun") and str(serve.process.pid) == (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def connected(serve, pod):
    status = serve.client.runtime.PodSandboxStatus(pb.PodSandboxStatusRequest(pod_sandbox_id=pod.id, verbose=True))
    return '"agentConnected":true' in status.info["info"]


def test_the_node_comes_to_the_agent_by_srun(cluster):
    cri = cluster.client
    pod = Pod(cluster, Patient(cri), "dialled")
    container = pod.run("sh", "-c", LINES)
    assert cri.exec_sync(container, "echo", "hello").stdout == b"hello\n"
    assert len(cri.exec_sync(container, "sh", "-c", "head -c 1000000 /dev/zero").stdout) == 1000000
    (step,) = steps(cluster)
    os.kill(step, signal.SIGKILL)
    until(lambda: steps(cluster) not in ([], [step]) and connected(cluster, pod), 60, "another srun")
    cluster.kill()
    cluster.start()
    until(lambda: connected(cluster, pod), 60, "the connection")
    assert cri.exec_sync(container, "touch", "/stop").exit_code == 0
    assert cri.wait_exit(container, 30).exit_code == 0
    lines = until(lambda: (text := pod.output(container)[0].decode().split("\n"))[-2:] == ["end", ""] and text, 20, "the log's end")
    assert lines == [f"line {i}" for i in range(len(lines) - 2)] + ["end", ""]
