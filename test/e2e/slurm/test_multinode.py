# SPDX-License-Identifier: Apache-2.0
"""Pods of several nodes, Slurm's commands inside of containers, scratch folders of nodes, and the site's apptainer, with a real Slurm."""
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest
from cri import pb
from serving import Pod, Serve, free_port, make_images
from slurm_site import NOBODY, TOP, Plugin, until


@pytest.fixture(scope="module")
def static():
    """In a container only a program without libraries can be apptainer's way in."""
    subprocess.run(["make", "-s", "interlink-cri"], cwd=TOP, check=True)
    return TOP / "interlink-cri"


class Cluster:
    """serve, our plugin with its lines of Setup, and Slurm; jobs run as `user`."""

    def __init__(self, site, static, user=None, setup=(), engine="auto"):
        self.site, self.user = site, user
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="icri-", dir="/tmp"))
        self.root.chmod(0o755)
        self.scratch = self.root / "scratch"
        self.scratch.mkdir()
        shared = self.root / "shared"
        shared.mkdir()
        for folder in (shared, self.scratch) if user is not None else ():
            os.chown(folder, user, user)
        program = self.root / "interlink-cri"
        shutil.copy(static, program)
        program.chmod(0o755)
        lines = [f"export INTERLINK_SCRATCH={self.scratch}", *setup]
        self.plugin = Plugin(site, shared, str(program), "  Setup: |\n" + "".join(f"    {line}\n" for line in lines), user=user).start()
        self.serve = Serve(self.root / "serve", config=f"""
QueueHold: 5s
Relay:
  Listen: 127.0.0.1:{free_port()}
Handlers:
  - Name: slurm
    Target: unix://{self.plugin.socket}
    Engine: {engine}
""").start()
        loaded = self.serve.ctl("load", str(make_images()))
        assert loaded.returncode == 0, loaded.stderr

    def agent_log(self):
        return "".join(p.read_text() for p in (self.plugin.dir / "jobs").glob("*/agent.log"))

    def pods(self):
        """Folders of pods below the node's scratch folder."""
        return sorted(p.name for p in self.scratch.glob("interlink-cri-*/pods/*"))

    def close(self):
        try:
            self.serve.client.remove_everything()
            self.serve.finish()
        finally:
            self.plugin.stop()
            self.plugin.close()
            shutil.rmtree(self.root, ignore_errors=True)


@pytest.fixture
def clusters(site, static):
    made = []

    def start(**more):
        made.append(Cluster(site, static, **more))
        return made[-1]

    yield start
    for cluster in made:
        cluster.close()


def apptainer(user):
    """The line of Setup that says where it is."""
    made = TOP / "build" / "apptainer" / "usr" / "bin" / "apptainer"
    done = subprocess.run([TOP / "test" / "fixtures" / "slurm" / "apptainer.sh", TOP / "build" / "apptainer"], capture_output=True, text=True,
                          check=False)
    if done.returncode == 77 and not made.exists():
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    if user is not None and subprocess.run([made, "--version"], user=user, group=user, extra_groups=[], cwd="/", capture_output=True,
                                           check=False).returncode != 0:
        pytest.skip(f"an ordinary user cannot run {made}")
    return f"export INTERLINK_APPTAINER={made}"


def slurm_paths(site):
    """What a container needs to run this machine's srun: the program, its libraries, its plugins, and what it looks up."""
    plugins = [str(p) for p in pathlib.Path("/usr/lib").glob("*/slurm-wlm")]
    needed = {"/usr/bin/srun", "/etc/passwd", "/etc/group", str(site.dir), *plugins}
    for binary in ["/usr/bin/srun", *(str(p) for folder in plugins for p in pathlib.Path(folder).glob("auth_munge.so"))]:
        for line in subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout.splitlines():
            needed.update(word for word in line.split() if word.startswith("/"))
    # What is in a folder of the list is there already.
    paths = [path for path in sorted(needed) if not any(path.startswith(folder + "/") for folder in needed)]
    return "export INTERLINK_SLURM_PATHS=" + ":".join(paths)


@pytest.mark.parametrize("user", [None, NOBODY])
def test_srun_inside_reaches_the_other_nodes(site, clusters, user):
    """As root with crun. In an ordinary user's container of crun that user is 0, which Slurm does not take; with apptainer it is itself."""
    cluster = clusters(setup=[slurm_paths(site), *([apptainer(user)] if user is not None else [])], user=user,
                       engine="auto" if user is None else "apptainer")
    cri = cluster.serve.client
    pod = Pod(cluster.serve, cri, "mpi", annotations={"interlink.eu/nodes": "2", "interlink.eu/slurm-inside": "true"})
    jid = next(j for j in site.jobs() if j["State"] == "RUNNING")
    assert site.run("squeue", "-h", "-j", jid["JobID"], "-o", "%D").strip() == "2"
    container = pod.run("sh", "-c", "env | grep ^SLURM_JOB; /usr/bin/srun -n 2 -N 2 --mem=8 /bin/sh -c 'echo on $SLURMD_NODENAME $SLURM_PROCID'; "
                        "echo rc=$?")
    assert cri.wait_exit(container, 60).exit_code == 0
    output = pod.output(container)
    text = output[0].decode()
    assert f"SLURM_JOB_ID={jid['JobID']}" in text and "SLURM_JOB_NUM_NODES=2" in text, output
    assert "rc=0" in text and {f"on {n}" for n in site.nodes} == {" ".join(line.split()[:2]) for line in text.splitlines() if
                                                                 line.startswith("on ")}, (output, cluster.agent_log())


def test_gpus_of_the_job_are_named(site, clusters):
    cluster = clusters()
    pod = Pod(cluster.serve, cluster.serve.client, "gpu", annotations={"interlink.eu/gpus": "nvidia", "interlink.eu/gres": "gpu:1"})
    container = pod.run("sh", "-c", "env | grep -E 'CUDA|GPU'")
    cluster.serve.client.wait_exit(container, 30)
    assert b"SLURM_GPUS_ON_NODE=1" in pod.output(container)[0], pod.output(container)


@pytest.mark.parametrize("user", [None, NOBODY])
def test_scratch_is_cleaned_whatever_happens(site, clusters, user):
    cluster = clusters(user=user)
    cri = cluster.serve.client
    pod = Pod(cluster.serve, cri, "tidy")
    container = pod.run("sh", "-c", "echo x > /file; sleep 1000")
    assert pod.id in cluster.pods(), cluster.agent_log()
    images = list(cluster.scratch.glob("interlink-cri-*/images-*/layers/*.info"))
    assert images, "the layers are the node's"
    assert not (cluster.plugin.dir / "jobs" / "images").exists()
    cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod.id))
    until(lambda: not cluster.pods(), 30, "the pod's folder to go")
    # The agent is killed, and all of the job.
    pod = Pod(cluster.serve, cri, "killed")
    jid = next(j["JobID"] for j in site.jobs() if j["State"] == "RUNNING")
    container = pod.run("sleep", "1000")
    assert list(cluster.scratch.glob("interlink-cri-*/images-*/layers/*.info")) == images, "unpacked once"
    site.run("scancel", "--full", "--signal=KILL", jid)
    until(lambda: site.job(jid)["State"] not in ("RUNNING", "COMPLETING"), 30, "the end of the job")
    # The next agent of the node sweeps.
    after = Pod(cluster.serve, cri, "after")
    until(lambda: [n for n in cluster.pods() if not n.endswith(".lock")] == [after.id], 30, "the dead pod's folder to go")
    assert container


@pytest.mark.parametrize("user", [None, NOBODY])
def test_the_sites_apptainer(site, clusters, user):
    cluster = clusters(user=user, setup=[apptainer(user)], engine="apptainer")
    cri = cluster.serve.client
    pod = Pod(cluster.serve, cri, "appt")
    assert "engine apptainer (configured; apptainer version" in cluster.agent_log() + cluster.serve.tail(400)
    container = pod.run("sh", "-c", "echo hello; trap 'echo bye; exit 4' TERM; while :; do sleep 0.05; done", env={"A": "b c"})
    until(lambda: pod.output(container)[0] == b"hello\n")
    assert cri.exec_sync(container, "sh", "-c", "echo $A; id -u; exit 3").stdout == b"b c\n%d\n" % (user or 0)
    stats = cri.runtime.ContainerStats(pb.ContainerStatsRequest(container_id=container)).stats
    assert stats.memory.working_set_bytes.value > 0
    cri.runtime.StopContainer(pb.StopContainerRequest(container_id=container, timeout=10))
    assert cri.status(container).exit_code == 4
    assert pod.output(container)[0] == b"hello\nbye\n"
    again = pod.run("sh", "-c", "sleep 1000 & exit 6")
    assert cri.wait_exit(again).exit_code == 6
