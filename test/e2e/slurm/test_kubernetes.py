# SPDX-License-Identifier: Apache-2.0
"""A real kubelet whose RuntimeClass "slurm" is a real Slurm: Jobs, Deployments, interactive pods, and what kubectl says of pods that wait,
run out of time or cannot be. Slurm has a network of its own, and sees nothing of what kubelet keeps."""
import os
import pathlib
import pty
import re
import shutil
import subprocess
import sys
import textwrap

import pytest
from slurm_site import Plugin
from slurm_site import Site as Slurm

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "kubernetes"))

from cluster import IMAGE, TOP, Cluster, pod, programs, wait  # noqa: E402
from remote_site import RELAY, Elsewhere  # noqa: E402

DOCS = TOP / "docs" / "slurm.md"
ECHO = TOP / "test" / "fixtures" / "echo.c"
WRITE = bool(os.environ.get("INTERLINK_CRI_WRITE_DOCS"))


class OnSlurm:
    """A cluster, and Slurm beside it; .slurm and .plugin are of slurm_site.py."""

    def __init__(self):
        self.cluster = Cluster(programs())

    def up(self):
        cluster = self.cluster.up()
        self.place = Elsewhere(cluster, "hpc", hide=cluster.root / "k8s")
        cluster.root.chmod(0o755)
        self.slurm = Slurm(self.place.root, self.place.enter, cgroups=False).up()
        shared = self.place.root / "shared"
        shared.mkdir()
        compiler = shutil.which("musl-gcc") or shutil.which("gcc") or shutil.which("cc")
        subprocess.run([compiler, "-O2", "-static", "-o", str(shared / "echo"), str(ECHO)], check=True)
        self.plugin = Plugin(self.slurm, shared, "").start()
        cluster.config.write_text(cluster.config.read_text() + f"""
Kubeconfig: {cluster.root}/k8s/pki/node.kubeconfig
QueueHold: 5s
QueueLease: 40s
Relay: {{Listen: '{RELAY}'}}
DefaultHandler: local
Handlers:
  - {{Name: local, Target: local}}
  - {{Name: slurm, Target: 'unix://{self.plugin.socket}'}}
SharedPaths: [{shared}]
""")
        cluster.kill_serve()
        cluster.start_serve()
        cluster.apply({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "slurm"}, "handler": "slurm"})
        return self

    def down(self):
        try:
            self.cluster.clear()
            for line in self.cluster.ctl("pods", "-q").stdout.split():
                self.cluster.ctl("rmp", "-f", line)
            wait(lambda: not self.running(), 60, lambda: f"left: {self.running()}")
        finally:
            for part in (getattr(self, "plugin", None), getattr(self, "slurm", None)):
                if part is not None:
                    part.close() if part is self.__dict__.get("plugin") else part.down()
            if "place" in self.__dict__:
                self.place.disconnect()
            self.cluster.down()

    def running(self):
        return [j for j in self.slurm.jobs() if j["State"] in ("RUNNING", "PENDING", "COMPLETING")]

    def jobs(self, name, state="RUNNING"):
        """Slurm's jobs of a pod, of which job names have the beginning of the name."""
        return [j for j in self.slurm.jobs() if j["Name"].startswith(f"{name}-") and j["State"] == state]


@pytest.fixture(scope="module")
def on(site):
    made = OnSlurm()
    try:
        yield made.up()
    finally:
        made.down()


@pytest.fixture
def cluster(on):
    yield on.cluster
    on.cluster.clear()


def annotated(name, *command, **annotations):
    return pod(name, *command, runtimeClassName="slurm", restartPolicy="Never",
               metadata={"annotations": {f"interlink.eu/{k}": v for k, v in annotations.items()}})


def container(on, *command, **more):
    return {"name": "main", "image": IMAGE, "command": [str(c) for c in command],
            "volumeMounts": [{"name": "shared", "mountPath": "/shared"}], **more}


def template(on, app, main, **spec):
    return {"metadata": {"labels": {"app": app}},
            "spec": {"runtimeClassName": "slurm", "terminationGracePeriodSeconds": 5, "containers": [main],
                     "volumes": [{"name": "shared", "hostPath": {"path": str(on.place.root / "shared")}}], **spec}}


# ---- what makes pods ----


def test_a_job(on, cluster):
    """Completions, each of them a job of Slurm; a failure that is tried again; its log and its end."""
    spec = template(on, "sums", container(on, "sh", "-c", "echo part $JOB_COMPLETION_INDEX; [ $JOB_COMPLETION_INDEX != 1 ] || "
                                          "[ -e /shared/failed ] || { touch /shared/failed; exit 3; }"), restartPolicy="Never")
    cluster.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "sums"},
                   "spec": {"template": spec, "completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimit": 2}})
    cluster.kubectl("wait", "--for=condition=complete", "job/sums", "--timeout=120s")
    pods = cluster.get("pods", "-l", "app=sums")["items"]
    ended = sorted(p["status"]["phase"] for p in pods)
    assert ended == ["Failed", "Succeeded", "Succeeded", "Succeeded"], ended
    good = [p["metadata"]["name"] for p in pods if p["status"]["phase"] == "Succeeded"]
    assert sorted(cluster.logs(name) for name in good) == ["part 0\n", "part 1\n", "part 2\n"]
    cluster.delete("job", "sums")
    wait(lambda: not on.running(), 60)


def test_a_deployment_with_a_service_and_probes(on, cluster):
    """Reached by the Service's endpoints; probed by http and by a command; one that fails its probe is started again in its job."""
    main = container(on, "sh", "-c", "mkdir -p /www; hostname >/www/index.html; exec httpd -f -p 8080 -h /www",
                     ports=[{"name": "http", "containerPort": 8080}],
                     readinessProbe={"httpGet": {"port": "http", "path": "/index.html"}, "periodSeconds": 1},
                     livenessProbe={"exec": {"command": ["test", "-e", "/www/index.html"]}, "periodSeconds": 1, "failureThreshold": 2})
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
                   "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}},
                  {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
                   "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template(on, "web", main)}})

    def endpoints():
        slices = cluster.get("endpointslices", "-l", "kubernetes.io/service-name=web")["items"]
        return [(e["targetRef"]["name"], e["addresses"][0]) for s in slices for e in s.get("endpoints") or () if e["conditions"]["ready"]]
    wait(lambda: len(endpoints()) >= 1, 90, lambda: cluster.kubectl("describe", "pods", check=False).stdout + cluster.tail())
    name, address = endpoints()[0]
    port = cluster.get("pod", name)["spec"]["containers"][0]["ports"][0]["containerPort"]
    url = f"http://{address}:{port}/" if ":" not in address else f"http://[{address}]:{port}/"
    fetched = subprocess.run(cluster.inside("python3", "-c", "import sys, urllib.request; "
                                            "print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode(), end='')", url),
                             capture_output=True, text=True, check=False, timeout=60)
    assert fetched.stdout == name + "\n", fetched.stderr
    before = on.jobs(name)
    cluster.kubectl("exec", name, "--", "rm", "/www/index.html")
    wait(lambda: cluster.status(name)["restartCount"] == 1, 60, lambda: cluster.describe(name))
    cluster.says(name, "Liveness probe failed")
    cluster.ready(name, 60)
    assert len(before) == 1 and [j["JobID"] for j in on.jobs(name)] == [j["JobID"] for j in before], "in the same job"
    cluster.delete("deployment", "web")
    cluster.delete("service", "web")


# ---- an interactive pod ----


def test_a_notebook(on, cluster):
    """As Jupyter is used: a web server and a long connection by port-forward, a shell with a terminal, files by exec."""
    name = "notebook"
    main = container(on, "sh", "-c", "mkdir -p /www; echo notebook >/www/tree; /shared/echo 8889 & exec httpd -f -p 8888 -h /www",
                     ports=[{"containerPort": 8888}, {"containerPort": 8889}],
                     readinessProbe={"tcpSocket": {"port": 8888}, "periodSeconds": 1})
    cluster.create_pod({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, **{"spec": template(on, name, main)["spec"]}})
    cluster.ready(name, 90)
    forward = cluster.kubectl_start("port-forward", f"pod/{name}", "18888:8888", "18889:8889", stdout=subprocess.PIPE, text=True)
    try:
        assert "Forwarding" in forward.stdout.readline()
        client = textwrap.dedent("""
            import socket, urllib.request
            assert urllib.request.urlopen("http://127.0.0.1:18888/tree", timeout=20).read() == b"notebook\\n"
            long = socket.create_connection(("127.0.0.1", 18889), timeout=20)
            for i in range(200):  # small messages both ways, as a WebSocket's
                message = b"message %d\\n" % i
                long.sendall(message)
                got = b""
                while len(got) < len(message):
                    got += long.recv(4096)
                assert got == message
                if i == 100:  # while others come and go
                    assert urllib.request.urlopen("http://127.0.0.1:18888/tree", timeout=20).status == 200
            print("held")
            """)
        done = subprocess.run(cluster.inside("python3", "-c", client), capture_output=True, text=True, check=False, timeout=90)
        assert done.stdout == "held\n", done.stderr + cluster.tail()
    finally:
        forward.kill()
        forward.wait()
    assert terminal(cluster, name) == 7
    assert cluster.kubectl("exec", name, "--", "cat", "/www/from-the-terminal").stdout == "typed\n"
    info = cluster.ctl("inspectp", cluster.ctl("pods", "-q", "--label", f"io.kubernetes.pod.name={name}").stdout.split()[0]).stdout
    job, = on.jobs(name)
    assert re.search(rf'"jobId": *"{job["JobID"]}"', info) and re.search(rf'"jobNodes": *"{job["NodeList"]}"', info), info
    cluster.delete("pod", name)


def terminal(cluster, name):
    """kubectl exec -it, typed into; the shell's exit code."""
    master, slave = pty.openpty()
    shell = cluster.kubectl_start("exec", "-it", name, "--", "sh", stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    os.write(master, b"tty && echo typed >/www/from-the-terminal; exit 7\n")
    seen = b""
    try:
        while piece := os.read(master, 4096):
            seen += piece
    except OSError:  # its other end is closed
        pass
    finally:
        os.close(master)
    assert b"/dev/" in seen, seen
    return shell.wait(30)


def test_init_containers_and_volumes(on, cluster):
    """Files of every kind in the job, changed while it runs; init containers in their order; a restart in place."""
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"word": "one"}},
                  {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"k": "hunter2"}})
    mounts = [{"name": "work", "mountPath": "/work"}, {"name": "settings", "mountPath": "/settings"}, {"name": "key", "mountPath": "/key"},
              {"name": "shared", "mountPath": "/shared"}]
    inits = [{"name": f"i{i}", "image": IMAGE, "command": ["sh", "-c", f"echo {i} >>/work/order"], "volumeMounts": mounts} for i in range(2)]
    main = {"name": "main", "image": IMAGE, "volumeMounts": mounts, "command": [
        "sh", "-c", "cat /work/order /settings/word /key/k; echo; [ -e /work/again ] || { touch /work/again; exit 1; }; sleep 1000000"]}
    cluster.create_pod({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "files"}, "spec": {
        "runtimeClassName": "slurm", "terminationGracePeriodSeconds": 1, "initContainers": inits, "containers": [main], "volumes": [
            {"name": "work", "emptyDir": {}}, {"name": "settings", "configMap": {"name": "settings"}},
            {"name": "key", "secret": {"secretName": "key"}}, {"name": "shared", "hostPath": {"path": str(on.place.root / "shared")}}]}})
    wait(lambda: cluster.status("files").get("restartCount") == 1 and "running" in cluster.status("files")["state"], 90,
         lambda: cluster.describe("files"))
    assert cluster.logs("files") == cluster.logs("files", "--previous") == "0\n1\nonehunter2\n"
    assert len(on.jobs("files")) == 1
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"word": "two"}})
    wait(lambda: cluster.kubectl("exec", "files", "--", "cat", "/settings/word").stdout == "two", 90)
    cluster.delete("pod", "files")


# ---- what kubectl says ----


def described(on, name, node):
    """`kubectl describe`, shortened to what tells of the job; names of this run are replaced."""
    text = on.cluster.kubectl("describe", "pod", name).stdout
    lines, events, seen = [], False, set()
    for line in text.splitlines():
        if events:
            words = line.split(None, 4)
            if len(words) == 5 and words[0] in ("Normal", "Warning"):
                kind, reason, _, rest = line.split(None, 3)
                source, message = re.sub(r"^(\(x\d+ over [^)]*\) *)|^from +", "", rest).split(None, 1)
                if message not in seen and reason in ("FailedCreatePodSandBox", "Failed"):
                    seen.add(message)
                    lines.append(f"  {kind}  {reason}  {source}  {message}")
        elif re.match(r"(Status|Reason|Message): |    +(State|Reason|Message|Exit Code): ", line):
            lines.append(line.rstrip())
        events = events or line.startswith("Events:")
        if line.startswith("Events:"):
            lines.append("Events:")
    found = "\n".join(lines)
    found = re.sub(r"(?<=job )\d+", "4711", found)
    found = found.replace(node, "n1")
    found = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "2026-11-24T15:00:00Z", found)
    found = re.sub(r"^([A-Z]\w+): +", r"\1:  ", found, flags=re.M)
    return found


def in_docs(name, text):
    """The text stands in the docs as it is; with INTERLINK_CRI_WRITE_DOCS=1 it is put there."""
    block = "".join(f"    {line}".rstrip() + "\n" for line in [f"$ kubectl describe pod {name}", *text.splitlines()])
    page = DOCS.read_text()
    if WRITE:
        page = re.sub(rf"    \$ kubectl describe pod {name}\n(?:    .*\n)*", lambda _: block, page)
        DOCS.write_text(page)
    assert block in page, f"docs/slurm.md does not say:\n{block}"


def test_a_queued_pod(on, cluster):
    cluster.create_pod(annotated("queued", flags="--hold"))
    cluster.says("queued", "is queued", "JobHeldUser", seconds=90)
    held, = on.jobs("queued", "PENDING")
    text = "\n".join(line for line in described(on, "queued", on.slurm.nodes[0]).splitlines() if "has been submitted" not in line)
    in_docs("queued", text)
    on.slurm.scontrol("release", held["JobID"])
    cluster.phase("queued", "Running", seconds=90)
    assert on.jobs("queued")[0]["JobID"] == held["JobID"]
    cluster.delete("pod", "queued")
    wait(lambda: not on.jobs("queued"), 60)


def test_a_pod_that_runs_out_of_time(on, cluster):
    node = on.slurm.nodes[0]
    cluster.create_pod(annotated("long", "sh", "-c", "echo began; sleep 1000000", walltime="1m", flags=f"-w {node}"))
    cluster.phase("long", "Running", seconds=90)
    wait(lambda: cluster.logs("long") == "began\n", 20)
    job, = on.jobs("long")
    assert job["NodeList"] == node
    wait(lambda: "RunTime=00:00:0" not in on.slurm.scontrol("show", "job", job["JobID"]), 30)
    on.slurm.scontrol("update", f"JobId={job['JobID']}", "EndTime=now+1")
    cluster.phase("long", "Failed", seconds=120)
    assert cluster.logs("long") == "began\n"
    in_docs("long", described(on, "long", node))


def test_a_pod_that_cannot_be(on, cluster):
    cluster.create_pod(annotated("impossible", partition="nowhere"))
    cluster.says("impossible", "invalid partition specified: nowhere", seconds=60)
    in_docs("impossible", described(on, "impossible", on.slurm.nodes[0]))


def test_a_node_that_dies(on, cluster):
    """The pod is made anew, elsewhere: as a job that may not be requeued, and under the same name."""
    spec = annotated("survivor", "sh", "-c", "echo on $SLURM_JOB_NODELIST; sleep 1000000", flags="--no-requeue")
    spec["spec"]["restartPolicy"] = "Always"
    cluster.create_pod(spec)
    cluster.phase("survivor", "Running", seconds=90)
    job, = on.jobs("survivor")
    on.slurm.node_down(job["NodeList"])
    try:
        wait(lambda: [j for j in on.jobs("survivor") if j["JobID"] != job["JobID"]], 120, lambda: cluster.describe("survivor"))
        wait(lambda: cluster.status("survivor").get("restartCount") == 1 and "running" in cluster.status("survivor")["state"], 60,
             lambda: cluster.describe("survivor"))
    finally:
        on.slurm.node_up(job["NodeList"])
    again, = on.jobs("survivor")
    assert again["NodeList"] != job["NodeList"]
    said = cluster.status("survivor")["lastState"]["terminated"]
    assert "NODE_FAIL" in said["message"] and job["NodeList"] in said["message"], said
