#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""slurm.py [--pods N] [--stock PROGRAM --apptainer PROGRAM]: what a pod costs beyond its job, on a private real Slurm (root; slurm-wlm, munge).

From the first line of the batch script to the first instruction of the container, with an image that is cached; each call by which a node makes
such a pod; ExecSync to a job on this host. With --stock the same for interLink's stock Slurm plugin with apptainer, which starts a
root folder that is unpacked already. Run it with the interpreter of test/e2e/venv.sh."""
import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid

TOP = pathlib.Path(__file__).resolve().parents[2]
for folder in ("", "runtime", "slurm", "interlink"):
    sys.path.insert(0, str(TOP / "test" / "e2e" / folder))

from cri import pb  # noqa: E402
from serving import Pod, free_port, make_images  # noqa: E402
from slurm_site import Site, kit, until  # noqa: E402
from test_pods import Cluster  # noqa: E402

# What the container does first: it says when that is, in hundredths of a second.
NOW = ("sh", "-c", "read up rest </proc/uptime; echo $up; sleep 1000")


def of_uptime(text):
    """Seconds since the epoch of what /proc/uptime said."""
    return time.time() - float(pathlib.Path("/proc/uptime").read_text().split()[0]) + float(text.split()[0])


def line(what, values, unit="ms", scale=1000):
    values = sorted(v * scale for v in values)
    print(f"| {what} | {statistics.median(values):.1f} | {values[0]:.1f} | {values[-1]:.1f} | {unit} | {len(values)} |", flush=True)


def ours(site, pods):
    cluster = Cluster(site, make_images(), None)
    cri = cluster.serve.client
    start, create, begin, whole, execs = [], [], [], [], []
    try:
        for i in range(pods + 1):  # the first one unpacks the image
            asked = time.monotonic()
            pod = Pod(cluster.serve, cri, f"p{i}")
            ready = time.monotonic()
            container = pod.create(*NOW)
            made = time.monotonic()
            cri.runtime.StartContainer(pb.StartContainerRequest(container_id=container))
            running = time.monotonic()
            said = until(lambda pod=pod, container=container: pod.output(container)[0].decode())
            info = json.loads(cri.runtime.PodSandboxStatus(pb.PodSandboxStatusRequest(pod_sandbox_id=pod.id, verbose=True)).info["info"])
            script = (cluster.plugin.dir / "jobs" / info["jobUid"] / "started").stat().st_mtime
            if i > 0:
                whole.append(of_uptime(said) - script)
                start.append(ready - asked)
                create.append(made - ready)
                begin.append(running - made)
            if i == pods:
                for _ in range(300):
                    asked = time.monotonic()
                    assert cri.exec_sync(container, "true").exit_code == 0
                    execs.append(time.monotonic() - asked)
            cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod.id), timeout=60)
        line("batch script's first line to container's first instruction", whole)
        line("RunPodSandbox (sbatch, Slurm's own start, the agent's call)", start)
        line("CreateContainer", create)
        line("StartContainer", begin)
        line("ExecSync `true`, round trip", execs)
        print(f"ExecSync: 99 of 100 within {sorted(execs)[int(len(execs) * 0.99)] * 1000:.1f} ms")
    finally:
        cluster.close()


def stock(site, pods, program, apptainer, rootfs):
    root = pathlib.Path(tempfile.mkdtemp(prefix="icri-", dir="/tmp"))
    port = free_port()
    (root / "SlurmConfig.yaml").write_text(f"""
SidecarPort: "{port}"
SbatchPath: {shutil.which('sbatch')}
ScancelPath: {shutil.which('scancel')}
SqueuePath: {shutil.which('squeue')}
SinfoPath: {shutil.which('sinfo')}
SingularityPath: {apptainer}
ContainerRuntime: singularity
ExportPodData: true
DataRootFolder: "{root}/jobs/"
BashPath: /bin/bash
""")
    log = (root / "log").open("ab")
    process = subprocess.Popen([program], env={**site.env, "SLURMCONFIGPATH": str(root / "SlurmConfig.yaml"), "HOME": str(root)}, cwd=root,
                               stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    whole = []

    def ask(path, body):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), method="POST")
        return urllib.request.urlopen(request, timeout=60).read()
    try:
        until(lambda: process.poll() is None and subprocess.run(["sh", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}"], executable="/bin/bash",
                                                                 stderr=subprocess.DEVNULL, check=False).returncode == 0)
        for i in range(pods + 1):
            uid = str(uuid.uuid4())
            mark = root / f"mark-{i}"
            limits = {"cpu": "1", "memory": "64Mi"}
            pod = {"metadata": {"name": f"p{i}", "namespace": "default", "uid": uid,
                                "annotations": {"slurm-job.vk.io/pre-exec": f"cat /proc/uptime >{mark}"}},
                   "spec": {"containers": [{"name": "main", "image": str(rootfs), "command": list(NOW[:1]), "args": list(NOW[1:]),
                                            "resources": {"limits": limits, "requests": limits}}]}, "status": {"phase": "Pending"}}
            ask("/create", {"pod": pod, "container": [{"name": "main", "configMaps": None, "projectedvolumemaps": None, "secrets": None,
                                                       "emptyDirs": None}], "jobConfig": {}})

            def said(uid=uid):
                found = [p.read_text() for p in (root / "jobs").glob(f"*{uid}*/run-main.out")]
                return next((w for t in found for w in t.splitlines() if w.replace(".", "", 1).isdigit()), None)
            began = until(said, 60, f"the container; {(root / 'log').read_text()[-2000:]}")
            if i > 0:
                whole.append(float(began) - float(mark.read_text().split()[0]))
            ask("/delete", pod)
        line("the same, stock plugin with apptainer", whole)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(root, ignore_errors=True)


def unpacked(folder):
    """A root folder of the same busybox."""
    for name in ("bin", "proc", "sys", "dev", "etc", "tmp", "root", "run", "var/tmp", "home"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/busybox", folder / "bin")
    for applet in ("sh", "sleep", "cat", "true"):
        (folder / "bin" / applet).symlink_to("busybox")
    for name in ("passwd", "group", "hosts", "resolv.conf", "localtime"):
        (folder / "etc" / name).touch()
    return folder


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--pods", type=int, default=15)
    ask.add_argument("--stock", help="interLink's stock Slurm plugin")
    ask.add_argument("--apptainer")
    wanted = ask.parse_args()
    root = pathlib.Path(tempfile.mkdtemp(prefix="icri-slurm-", dir="/tmp"))
    root.chmod(0o755)
    site = Site(root)
    try:
        site.up()
        print(f"Slurm: {site.run('sinfo', '--version').strip()}; control groups: {site.cgroups}; program: {kit.PROGRAM}")
        print("| what | median | least | most | unit | times |\n|---|---|---|---|---|---|")
        ours(site, wanted.pods)
        if wanted.stock:
            stock(site, wanted.pods, wanted.stock, wanted.apptainer, unpacked(root / "rootfs"))
    finally:
        site.down()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
