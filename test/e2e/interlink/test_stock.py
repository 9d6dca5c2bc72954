# SPDX-License-Identifier: Apache-2.0
"""Pods by way of the stock Slurm plugin, as the stand-in plays it: the agent in the batch script, and a restart of serve in every
phase of a job, with one job only and none left."""
import contextlib
import json
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import time

import grpc
import kit
import pytest

E2E = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(E2E), str(E2E / "runtime")]

from cri import pb, pod_config  # noqa: E402
from serving import BINARY, USER, Pod, Serve, free_port, make_images  # noqa: E402

LOOP = ("sh", "-c", "echo hello; trap 'echo bye; exit 4' TERM; while :; do sleep 0.05; done")


class Site:
    """The stand-in API server with the stock plugin in it, and serve before it. Jobs run as an ordinary user."""

    def __init__(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="icri-", dir="/tmp"))
        self.root.chmod(0o755)
        self.jobs_dir = self.root / "jobs"
        api = self.root / "api"
        api.mkdir()
        self.api = kit.ApiServer(api, "--stock", str(self.jobs_dir), "--keep", "1")
        if os.getuid() == 0:
            self.api.command[:0] = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
            self.jobs_dir.mkdir()
            for folder in (api, self.jobs_dir):
                os.chown(folder, USER, USER)
        self.api.start()
        self.program = self.root / "interlink-cri"
        self.program.symlink_to(BINARY)
        self.serve = Serve(self.root / "serve", config=f"""
QueueHold: 3s
Relay:
  Listen: 127.0.0.1:{free_port()}
Handlers:
  - Name: slurm
    Target: unix://{self.api.socket}
    Program: {self.program}
""").start()
        loaded = self.serve.ctl("load", str(make_images()))
        assert loaded.returncode == 0, loaded.stderr
        self.cri = self.serve.client

    def hold(self, hold):
        assert self.api.raw("POST", "/_hold", {"hold": hold})[0] == 200

    def jobs(self):
        """Batch scripts that run or wait, by uid."""
        return json.loads(self.api.raw("POST", "/_jobs")[1])

    def calls(self, path, since=0):
        return [c for c in json.loads(self.api.raw("POST", "/_log")[1])[since:] if c["path"] == path]

    def restart(self):
        self.serve.kill()
        self.serve.start()

    def config(self, name, **more):
        return pod_config(name, log_directory=str(self.serve.logs / name), **more)

    def ask(self, config):
        """RunPodSandbox, as kubelet calls it; the pod's id, or None and its words are in .words."""
        try:
            return self.cri.run_pod(config)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error
            self.words = error.details()
            return None

    def pod(self, config):
        """A Pod that is ready, however often it has to be asked for."""
        pod = Pod.__new__(Pod)
        pod.cri, pod.config, pod.logs, pod.count = self.cri, config, pathlib.Path(config.log_directory), 0
        pod.id = kit.wait_for(lambda: self.ask(config), 30, "the pod to be ready")
        return pod

    def nothing_left(self):
        kit.wait_for(lambda: not any(self.jobs().values()), 20, "the end of all jobs")
        kit.wait_for(lambda: [d.name for d in self.jobs_dir.iterdir()] in ([], ["tmp"]), 20, "the end of their folders")
        kit.wait_for(lambda: not list(self.jobs_dir.glob("tmp/*")), 20, "the end of what they had on the node")

    def close(self):
        try:
            self.serve.finish()
        finally:
            alive = self.api.process.poll() is None
            self.api.close()
            shutil.rmtree(self.root, ignore_errors=True)
            assert alive, "a malformed request killed the API server"


@pytest.fixture(scope="module")
def site():
    made = Site()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def tidy(site):
    yield
    site.api.faults()
    site.hold(False)
    site.cri.remove_everything()
    site.nothing_left()


def start_call(function, *arguments):
    """A call that serve will not live to answer."""
    def call():
        with contextlib.suppress(grpc.RpcError):
            function(*arguments)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def test_a_pod_is_like_any_other(site):
    pod = site.pod(site.config("web", annotations={"interlink.eu/size-nvidia.com_gpu": "1", "interlink.eu/partition": "main"}))
    folder = next(d for d in site.jobs_dir.iterdir() if d.name.startswith("default-"))
    token = (folder / "agent_envfile.properties").read_text().split("INTERLINK_TOKEN=")[1].splitlines()[0]
    script = (folder / "job.slurm").read_text()
    assert (folder / "agent_envfile.properties").stat().st_mode & 0o777 == 0o600
    assert "#SBATCH --gres=gpu:1\n" in script and "#SBATCH --partition=main\n" in script and "#SBATCH --mem=1056\n" in script
    assert token not in script and len(script) < 4096
    for process in site.serve.processes():
        assert token.encode() not in pathlib.Path(f"/proc/{process}/cmdline").read_bytes()
    container = pod.run(*LOOP, env={"A": "b"})
    assert site.cri.exec_sync(container, "sh", "-c", "echo $A").stdout == b"b\n"
    kit.wait_for(lambda: pod.output(container)[0] == b"hello\n")
    site.cri.runtime.StopContainer(pb.StopContainerRequest(container_id=container, timeout=10))
    assert site.cri.status(container).exit_code == 4
    assert "the container starts" not in (folder / "run-agent.out").read_text()


def test_a_program_that_is_not_there_is_said_so(site):
    site.program.rename(f"{site.program}.away")
    try:
        config = site.config("missing")
        kit.wait_for(lambda: site.ask(config) is None and "exit code 127" in site.words, 20, "its exit code")
        assert "its log ends in: interlink-cri: " in site.words and "is not there on " in site.words, site.words
        assert site.words.count("is not there on") == 1
    finally:
        pathlib.Path(f"{site.program}.away").rename(site.program)
    assert sum(site.jobs().values()) == 0


def test_killed_while_the_job_is_made(site):
    site.api.faults(create="hang", seconds=1)
    config = site.config("create")
    creates = len(site.calls("/create"))
    call = start_call(site.cri.run_pod, config)
    kit.wait_for(lambda: len(site.calls("/create")) > creates)
    site.serve.kill()
    call.join()
    site.serve.start()
    pod = site.pod(config)
    assert len(site.calls("/create")) == creates + 1 and sum(site.jobs().values()) == 1
    assert site.cri.exec_sync(pod.run("sleep", "100"), "true").exit_code == 0


def test_killed_while_the_job_waits(site):
    site.hold(True)
    config = site.config("queued")
    creates = len(site.calls("/create"))
    assert site.ask(config) is None
    site.restart()
    assert site.ask(config) is None and "is queued" in site.words
    assert sum(site.jobs().values()) == 1
    site.hold(False)
    site.pod(config)
    assert len(site.calls("/create")) == creates + 1 and sum(site.jobs().values()) == 1


def test_killed_while_it_runs_and_while_it_is_deleted(site):
    pod = site.pod(site.config("running"))
    container = pod.run("sh", "-c", "i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.02; done; exit 3")
    site.restart()
    assert site.cri.wait_exit(container, 30).exit_code == 3
    assert pod.output(container)[0] == b"".join(b"line %d\n" % i for i in range(60))
    assert sum(site.jobs().values()) == 1
    # A delete fails, serve dies, and the delete still has to come.
    site.api.faults(http={"/delete": {"status": 500, "text": "", "times": 1000}, "/pinglink": {"status": 500, "times": 1000}})
    deletes = len(site.calls("/delete"))
    call = start_call(site.cri.runtime.RemovePodSandbox, pb.RemovePodSandboxRequest(pod_sandbox_id=pod.id))
    kit.wait_for(lambda: len(site.calls("/delete")) > deletes, 20, "a delete")
    site.serve.kill()
    call.join()
    site.api.faults()
    site.serve.start()
    site.cri.remove_everything()
    site.nothing_left()


def test_not_now(site):
    site.api.faults(http={"/create": {"status": 503, "text": "<html>503 busy</html>", "headers": {"Retry-After": "2"}}})
    config = site.config("busy")
    creates = len(site.calls("/create"))
    assert site.ask(config) is None and "503 busy" in site.words
    began = time.monotonic()
    assert site.ask(config) is None and "wants to be left alone" in site.words
    site.pod(config)
    assert time.monotonic() - began > 1.0
    assert len(site.calls("/create")) == creates + 2
