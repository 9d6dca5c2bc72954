# SPDX-License-Identifier: Apache-2.0
"""A node that is larger than its machine: capacity from the site behind it, jobs as large as their pods, local pods beside them."""
import json
import subprocess

import pytest
from cluster import BINARY, TOP, pod, wait
from remote_site import RELAY, Site

DEPLOY = TOP / "deploy"
GPU = "nvidia.com/gpu"
RESOURCES = ("cpu", "memory", "pods", GPU)


class Sized:
    """The cluster with a site behind its node, and kubelet's credentials for serve."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.config = cluster.root / "config.yaml"
        self.before = self.config.read_text()
        self.site = Site(cluster, "cluster")
        self.other = Site(cluster, "gpus")
        self.kubeconfig = cluster.root / "serve.kubeconfig"
        self.kubeconfig.symlink_to(cluster.root / "k8s" / "pki" / "node.kubeconfig")
        self.site.says("128", "1Ti", "500", gpus="0")
        self.other.says("128", "512Gi", "100", gpus="8")
        self.configure()
        cluster.apply(*({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": name}
                        for name in ("cluster", "gpus", "local")))

    def configure(self, default="local", more=""):
        self.config.write_text(self.before + f"""
Kubeconfig: {self.kubeconfig}
Relay: {{Listen: '{RELAY}'}}
DefaultHandler: {default}
Handlers:
  - {{Name: local, Target: local}}
  - {{Name: cluster, Target: '{self.site.url}'}}
  - {{Name: gpus, Target: '{self.other.url}'}}
{more}""")
        self.restart()

    def restart(self):
        """Sites are asked at once then, instead of within 30 s."""
        self.cluster.kill_serve()
        self.cluster.start_serve()

    def node(self):
        return self.cluster.get("nodes")["items"][0]

    def carries(self, *wanted, seconds=45):
        def values():
            status = self.node()["status"]
            return [(status["capacity"].get(r), status["allocatable"].get(r)) for r in RESOURCES]
        wait(lambda: values() == [(w, w) for w in wanted], seconds, lambda: f"{values()}\n{self.cluster.tail()}")

    def close(self):
        cluster = self.cluster
        cluster.kubectl("delete", "--ignore-not-found", "-f", str(DEPLOY / "capacity-policy.yaml"))
        cluster.kubectl("delete", "pods", "--all", "--grace-period=1", "--timeout=60s")
        for line in cluster.ctl("pods", "-q").stdout.split():
            cluster.ctl("rmp", "-f", line)
        self.config.write_text(self.before)
        self.restart()
        for site in (self.site, self.other):
            site.stop()
        names = [k + "-" for k in self.node()["metadata"].get("annotations", {}) if k.startswith("interlink.eu/")]
        if names:
            cluster.kubectl("annotate", "node", "node1", *names)


@pytest.fixture(scope="module")
def sized(cluster):
    made = Sized(cluster)
    yield made
    made.close()


def limits(**resources):
    named = {k.replace("gpu", GPU): v for k, v in resources.items()}
    return {"resources": {"limits": named}}


def test_capacity_comes_from_the_sites(sized):
    """Without the policy the annotations are there and say nothing; with it they count within seconds."""
    wait(lambda: "is not in force" in sized.cluster.log.read_text(), 30, sized.cluster.tail)
    doctor = subprocess.run(["nsenter", f"--net=/run/netns/{sized.cluster.netns}", str(BINARY), "doctor", "--config",
                             str(sized.config)], capture_output=True, text=True, check=False).stdout
    assert "takes us for system:node:node1" in doctor and "has no policy" in doctor, doctor
    sized.cluster.kubectl("apply", "-f", str(DEPLOY / "capacity-policy.yaml"))
    sized.carries("256", "1536Gi", "600", "8")
    annotations = sized.node()["metadata"]["annotations"]
    assert annotations["interlink.eu/managed-capacity"] == "cpu,memory,pods,nvidia.com_gpu"


def test_a_pod_larger_than_the_machine(sized):
    cluster = sized.cluster
    cluster.pod("big", runtimeClassName="cluster", activeDeadlineSeconds=3600, main=limits(cpu="128", memory="500Gi"))
    assert cluster.kubectl("exec", "big", "--", "echo", "hello").stdout == "hello\n"
    job = sized.site.job("big")
    wanted = {"cpu": "128", "memory": "500Gi"}
    assert job["spec"]["containers"][0]["resources"] == {"limits": wanted, "requests": wanted}
    assert job["spec"]["activeDeadlineSeconds"] == 3600
    assert job["metadata"]["annotations"]["interlink.eu/job-size"] == \
        "cpu=128 (pod), memory=500Gi (pod), walltime=1h0m0s (pod)"
    # Eight GPUs are nowhere in what kubelet says: only the API server knows.
    cluster.pod("gpus", runtimeClassName="gpus", main=limits(cpu="128", memory="500Gi", gpu="8"))
    assert sized.other.job("gpus")["spec"]["containers"][0]["resources"]["limits"] == {
        "cpu": "128", "memory": "500Gi", GPU: "8"}
    cluster.apply(pod("toomany", runtimeClassName="gpus", main=limits(gpu="1")))
    wait(lambda: "Insufficient nvidia.com/gpu" in cluster.describe("toomany"), 30)
    before = cluster.get("pod", "big")["status"]["containerStatuses"][0]
    cluster.run("kubelet.sh", "stop")
    cluster.run("kubelet.sh", "start", str(cluster.socket))
    cluster.delete("pod", "toomany")
    sized.carries("256", "1536Gi", "600", "8")
    wait(lambda: cluster.get("pod", "big")["status"]["containerStatuses"][0] == before, 60, lambda: cluster.describe("big"))
    for name in ("big", "gpus"):
        cluster.delete("pod", name)


def test_sizes_as_the_scheduler_counts(sized):
    """Init containers, a sidecar, overhead by a RuntimeClass, the pod's own resources, annotations for what it leaves open."""
    cluster = sized.cluster
    cluster.apply({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "heavy"}, "handler": "cluster",
                   "overhead": {"podFixed": {"cpu": "1", "memory": "1Gi"}}})

    def container(name, requests, **more):
        return {"name": name, "image": "fixture.local/busybox:1", "command": ["sleep", "1000000"],
                "resources": {"requests": requests}, **more}

    cluster.pod("counted", runtimeClassName="heavy",
                containers=[container("a", {"cpu": "2", "memory": "1Gi"}), container("b", {"cpu": "1"})],
                initContainers=[container("side", {"cpu": "1"}, restartPolicy="Always"),
                                container("init", {"cpu": "9", "memory": "512Mi"}, command=["true"])])
    cluster.pod("level", runtimeClassName="cluster", resources={"requests": {"cpu": "3"}, "limits": {"cpu": "6", "memory": "2Gi"}},
                metadata={"annotations": {"interlink.eu/size-nvidia.com_gpu": "2", "interlink.eu/walltime": "2h"}})
    cluster.pod("nothing", runtimeClassName="cluster")

    def resources(name):
        return sized.site.job(name)["spec"]["containers"][0].get("resources", {})

    assert resources("counted")["requests"] == {"cpu": "11", "memory": "2Gi"}
    assert resources("level") == {"limits": {"cpu": "6", "memory": "2Gi", GPU: "2"}, "requests": {"cpu": "3", "memory": "2Gi", GPU: "2"}}
    assert sized.site.job("level")["spec"]["activeDeadlineSeconds"] == 7200
    assert resources("nothing") == {}
    shown = json.loads(cluster.ctl("inspectp", cluster.ctl("pods", "-q", "--name", "level").stdout.strip()).stdout)
    assert {r["name"]: r["source"] for r in shown["info"]["jobSize"]["resources"]} == {
        "cpu": "pod", "memory": "pod", GPU: "interlink.eu/size-nvidia.com_gpu"}
    for name in ("counted", "level", "nothing"):
        cluster.delete("pod", name)


def test_taints_with_an_account_of_our_own(sized):
    """kubelet may not change its node's taints; the account of deploy/node-access.yaml may."""
    cluster = sized.cluster
    sized.site.says("128", "1Ti", "500", gpus="0", taints=[{"key": "site.example/slow", "value": "yes", "effect": "PreferNoSchedule"}])
    sized.restart()
    wait(lambda: "is not allowed to modify taints" in cluster.log.read_text(), 30, cluster.tail)
    cluster.kubectl("apply", "-f", str(DEPLOY / "node-access.yaml"))
    token = cluster.kubectl("-n", "kube-system", "create", "token", "interlink-cri").stdout
    (cluster.root / "token").write_text(token)
    text = (cluster.root / "k8s" / "pki" / "node.kubeconfig").read_text()
    users = text[text.index("users:"):]
    (cluster.root / "account.kubeconfig").write_text(
        text.replace(users, f"users: [{{name: u, user: {{tokenFile: {cluster.root}/token}}}}]\n"))
    self_link = cluster.root / "new.kubeconfig"
    self_link.symlink_to(cluster.root / "account.kubeconfig")
    self_link.rename(sized.kubeconfig)
    sized.configure(more="Node: {Name: node1}\n")
    taint = {"key": "site.example/slow", "value": "yes", "effect": "PreferNoSchedule"}
    wait(lambda: taint in sized.node()["spec"].get("taints", []), 30, cluster.tail)
    cluster.pod("read", runtimeClassName="gpus", main=limits(gpu="4"))  # the account may read pods, too
    assert sized.other.job("read")["spec"]["containers"][0]["resources"]["limits"][GPU] == "4"
    cluster.delete("pod", "read")
    sized.site.says("128", "1Ti", "500", gpus="0", taints=[])
    sized.restart()
    wait(lambda: not sized.node()["spec"].get("taints"), 30, cluster.tail)
    self_link.symlink_to(cluster.root / "k8s" / "pki" / "node.kubeconfig")
    self_link.rename(sized.kubeconfig)
    sized.configure()


def test_a_site_that_is_away_keeps_what_it_had(sized):
    """Also over a restart of serve, and for a Node that is made anew meanwhile."""
    cluster = sized.cluster
    sized.carries("256", "1536Gi", "600", "8")
    (sized.other.root / "api.sock").rename(sized.other.root / "away.sock")
    sized.site.says("100", "1Ti", "500", gpus="0")
    sized.restart()
    sized.carries("228", "1536Gi", "600", "8")
    shown = {h["name"]: h for h in json.loads(cluster.ctl("info").stdout)["config"]["handlers"]}
    assert not shown["gpus"]["healthy"] and shown["cluster"]["healthy"], shown
    # And the other way round: the cluster's API server is away while a site changes.
    (sized.other.root / "away.sock").rename(sized.other.root / "api.sock")
    cluster.run("control-plane.sh", "stop")
    sized.site.says("128", "1Ti", "500", gpus="0")
    sized.restart()
    wait(lambda: json.loads(cluster.ctl("info").stdout)["config"]["cluster"]["message"], 30, cluster.tail)
    cluster.run("control-plane.sh", "start")
    sized.carries("256", "1536Gi", "600", "8", seconds=90)


def test_accelerators_go_and_the_node_is_made_anew(sized):
    cluster = sized.cluster
    sized.other.says("128", "512Gi", "100")
    sized.restart()
    sized.carries("256", "1536Gi", "600", "0")
    cluster.kubectl("delete", "node", "node1")
    cluster.run("kubelet.sh", "stop")
    cluster.run("kubelet.sh", "start", str(cluster.socket))
    wait(lambda: cluster.get("nodes")["items"], 60)
    wait(lambda: [sized.node()["status"]["capacity"].get(r) for r in ("cpu", "memory", "pods")] == ["256", "1536Gi", "600"], 30,
         cluster.tail)
    cluster.kubectl("wait", "--for=condition=Ready", "node/node1", "--timeout=60s")
    cluster.kubectl("wait", "--for=jsonpath={.metadata.name}", "serviceaccount/default", "--timeout=30s")
