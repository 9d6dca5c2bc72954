# SPDX-License-Identifier: Apache-2.0
"""Where pods go on one node with two sites behind it: RuntimeClasses, the default handler, the node's own pods, targets that are away."""
import json

import pytest
from cluster import TOP, pod, wait
from remote_site import RELAY, Site

DEPLOY = TOP / "deploy"
CLASSES = ("east", "west", "away", "nowhere")
WORK = {"Deployment": "spread", "Job": "once", "DaemonSet": "agent"}


class Routes:
    def __init__(self, cluster):
        self.cluster = cluster
        self.before = cluster.config.read_text()
        self.sites = {name: Site(cluster, name) for name in ("east", "west")}
        cluster.apply(*({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": name}
                        for name in CLASSES))

    def configure(self, default):
        """A site that is "away" is configured, and nobody listens there."""
        self.cluster.config.write_text(self.before + f"""
Relay: {{Listen: '{RELAY}'}}
DefaultHandler: {default}
QueueHold: 3s
Handlers:
  - {{Name: east, Target: '{self.sites["east"].url}'}}
  - {{Name: west, Target: '{self.sites["west"].url}'}}
  - {{Name: away, Target: 'unix://{self.cluster.root}/away.sock'}}
  - {{Name: local, Target: local}}
""")
        self.cluster.kill_serve()
        self.cluster.start_serve()

    def where(self):
        """{the name of a pod: the handler that runs it}"""
        found = {}
        for line in self.cluster.ctl("pods", "-q", "--state", "ready").stdout.split():
            shown = json.loads(self.cluster.ctl("inspectp", line).stdout)
            found[shown["status"]["metadata"]["name"]] = shown["info"]["handler"]
        return found

    def jobs(self, begin):
        """The sites that were given a job for a pod whose name begins so."""
        return [name for name, site in self.sites.items() for job in site.jobs() if job["metadata"]["name"].startswith(begin)]

    def close(self):
        cluster = self.cluster
        try:
            cluster.clear()
            for line in cluster.ctl("pods", "-q").stdout.split():
                cluster.ctl("rmp", "-f", line)
            for site in self.sites.values():
                wait(lambda folder=site.root / "jobs" / "jobs": not list(folder.iterdir()), 30, cluster.tail)
        finally:
            cluster.config.write_text(self.before)
            cluster.kill_serve()
            cluster.start_serve()
            for site in self.sites.values():
                site.stop()
            for name in CLASSES:
                cluster.delete("runtimeclass", name)


@pytest.fixture(scope="module")
def routes(cluster):
    made = Routes(cluster)
    yield made
    made.close()


def template(app, *command, **spec):
    return {"metadata": {"labels": {"app": app}}, "spec": pod("x", *command, **spec)["spec"]}


def workloads(**classes):
    """A Deployment of two, a Job, and a DaemonSet of kube-system; `classes`: their RuntimeClasses, by the name of the kind."""
    def spec(kind):
        return {"runtimeClassName": classes[kind]} if kind in classes else {}

    def selector(app):
        return {"selector": {"matchLabels": {"app": app}}}

    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "spread"},
         "spec": {"replicas": 2, **selector("spread"), "template": template("spread", **spec("Deployment"))}},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"},
         "spec": {"template": template("once", "sleep", "5", restartPolicy="Never", **spec("Job"))}},
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent", "namespace": "kube-system"},
         "spec": {**selector("agent"), "template": template("agent", hostNetwork=True, **spec("DaemonSet"))}}]


def run(routes, objects, **wanted):
    """Makes them, waits until all run, and compares where; then deletes them."""
    cluster = routes.cluster
    cluster.apply(*objects)

    def found():
        return {name.split("-")[0]: handler for name, handler in routes.where().items()}

    wait(lambda: found() == wanted, 60, lambda: f"{found()}\n{cluster.tail()}")
    wait(lambda: cluster.get("deployment", "spread")["status"].get("readyReplicas") == 2, 60, cluster.tail)
    wait(lambda: cluster.get("daemonset", "agent", "-n", "kube-system")["status"].get("numberReady") == 1, 60, cluster.tail)
    wait(lambda: cluster.get("job", "once")["status"].get("succeeded") == 1, 60, cluster.tail)
    for o in objects:
        path = cluster.path(o["kind"], o["metadata"]["name"], o["metadata"].get("namespace", "default"))
        cluster.ask("DELETE", path + "?propagationPolicy=Background")
    def left():
        names = [p["metadata"]["name"] for n in ("default", "kube-system") for p in cluster.get("pods", "-n", n)["items"]]
        return [name for name in names if not name.startswith("fixed-")]

    wait(lambda: not left(), 60, lambda: f"{left()}\n{cluster.tail()}")


def test_work_goes_away_and_the_nodes_own_pods_stay(routes):
    """The default handler is a site. Nothing but the Job names a RuntimeClass; a static pod needs none to stay."""
    cluster = routes.cluster
    routes.configure("east")
    manifest = cluster.root / "k8s" / "manifests" / "fixed.json"
    manifest.write_text(json.dumps(pod("fixed")))
    try:
        run(routes, workloads(Job="west"), spread="east", once="west", agent="local", fixed="local")
        assert cluster.get("pod", "fixed-node1")["status"]["phase"] == "Running"
    finally:
        manifest.unlink()
    assert routes.jobs("spread") == ["east", "east"] and routes.jobs("once") == ["west"]
    assert not routes.jobs("agent") and not routes.jobs("fixed")
    wait(lambda: cluster.ask("GET", cluster.path("pod", "fixed-node1"))[0] == 404, 60, cluster.tail)


def test_work_stays_unless_it_says_otherwise(routes):
    """The default handler is the machine: RuntimeClasses send away."""
    routes.configure("local")
    run(routes, workloads(Deployment="east", Job="west"), spread="east", once="west", agent="local")
    assert routes.jobs("spread") == ["east"] * 4 and routes.jobs("once") == ["west"] * 2


def test_no_such_handler_and_a_target_that_is_away(routes):
    """Each says what is wrong in an event, again and again, and nothing else is held up."""
    cluster = routes.cluster
    routes.configure("local")
    cluster.pod("lost", wait_for=None, runtimeClassName="nowhere")
    cluster.pod("stuck", wait_for=None, runtimeClassName="away")
    cluster.says("lost", 'no handler "nowhere" is configured on this node, only east, west, away, local', reason="FailedCreatePodSandBox")
    cluster.says("stuck", 'interLink at "away"', "away.sock", reason="FailedCreatePodSandBox")
    cluster.pod("east", runtimeClassName="east")
    cluster.pod("here")
    assert cluster.kubectl("exec", "east", "--", "echo", "hello").stdout == "hello\n"
    assert routes.where()["here"] == "local"
    # The site comes (somebody else's, under its name); the pod that waits goes there. No restart of anything.
    late = Site(cluster, "late")
    (cluster.root / "away.sock").symlink_to(late.root / "api.sock")
    cluster.phase("stuck", "Running")
    assert [j["metadata"]["name"].rsplit("-", 1)[0] for j in late.jobs()].count("stuck") <= 1 and late.jobs()
    for name in ("lost", "stuck", "east", "here"):
        cluster.delete("pod", name)
    wait(lambda: not list((late.root / "jobs" / "jobs").iterdir()), 60, cluster.tail)
    late.stop()


def test_policies_that_are_shipped(routes):
    """A namespace whose pods go away by its label; sizes by annotation refused."""
    cluster = routes.cluster
    routes.configure("local")
    for name in ("namespace-policy.yaml", "size-policy.yaml"):
        cluster.kubectl("apply", "-f", str(DEPLOY / name))
    cluster.kubectl("label", "namespace", "default", "interlink.eu/runtime-class=west")
    cluster.apply({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "west"}, "handler": "west",
                   "scheduling": {"nodeSelector": {"kubernetes.io/os": "linux"}}})

    def probe(o):
        return cluster.ask("POST", cluster.path("pod") + "?dryRun=All", o)

    def spec(o):
        return probe(o)[1].get("spec", {})

    wait(lambda: spec(pod("probe")).get("runtimeClassName") == "west", 30)
    assert spec(pod("probe"))["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert spec(pod("probe", runtimeClassName="east"))["runtimeClassName"] == "east"
    daemon = {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "x", "uid": "1"}]}
    assert "runtimeClassName" not in spec(pod("probe", metadata=daemon))
    greedy = pod("probe", metadata={"annotations": {"interlink.eu/size-nvidia.com_gpu": "8"}})
    wait(lambda: probe(greedy)[0] == 422, 30, lambda: str(probe(greedy)))
    assert "not by annotations" in probe(greedy)[1]["message"]
    cluster.pod("moved")
    assert routes.where()["moved"] == "west"
    for name in ("namespace-policy.yaml", "size-policy.yaml"):
        cluster.kubectl("delete", "-f", str(DEPLOY / name))
    cluster.kubectl("label", "namespace", "default", "interlink.eu/runtime-class-")
