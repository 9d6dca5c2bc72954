# SPDX-License-Identifier: Apache-2.0
"""Pods whose jobs wait in a queue: what a user sees of them, and that there is one job a pod and none without a pod, whatever
happens when. All scenarios of a round run at the same time, and serve is killed in each of them."""
import concurrent.futures
import contextlib
import os
import threading
import time

import pytest
from cluster import pod, wait
from remote_site import RELAY, Site

HOLD, LEASE = 3, 25  # seconds; kubelet comes again after 11 to 15
LONG = int(os.environ.get("INTERLINK_CRI_QUEUE_ROUNDS") or 0)  # a round without kills, so many more with them, kubelet away
WAITS = {"reason": "Priority", "message": "12 ahead"}


class Queue:
    def __init__(self, cluster):
        self.cluster = cluster
        self.before = cluster.config.read_text()
        self.site = Site(cluster, "queued")
        cluster.config.write_text(self.before + f"""
QueueHold: {HOLD}s
QueueLease: {LEASE}s
Relay: {{Listen: '{RELAY}'}}
DefaultHandler: local
Handlers:
  - {{Name: local, Target: local}}
  - {{Name: queued, Target: '{self.site.url}'}}
""")
        self.lock = threading.Lock()
        self.submitting = set()
        self.kill()
        cluster.apply({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "queued"}, "handler": "queued"})
        self.hold(WAITS)

    def close(self):
        cluster = self.cluster
        cluster.clear()
        with contextlib.suppress(AssertionError):
            wait(lambda: not self.left(), 60)
        left = self.left()
        cluster.config.write_text(self.before)
        self.kill()
        self.site.stop()
        assert not left, left

    def kill(self):
        # serve that dies just before it sends a create cannot know that it did not: the site is asked for 160 s then. Not in every round.
        if not LONG:
            with contextlib.suppress(AssertionError):
                wait(lambda: not self.submitting, 20)
        with self.lock:
            self.cluster.kill_serve()
            self.cluster.start_serve()

    # ---- the site ----
    def hold(self, what):
        self.site.steer("/_queue", {"hold": what})

    def jobs(self, name):
        return [j for j in self.site.steer("/_queue", {}).values() if j["pod"].startswith(name + "-")]

    def says(self, name, **state):
        self.site.steer("/_queue", {"pod": name + "-", "state": state})

    def release(self, name):
        self.site.steer("/_queue", {"pod": name + "-", "release": True})

    def left(self):
        """Jobs that nobody cancelled."""
        return [j for j in self.site.steer("/_queue", {}).values() if j["deletes"] == 0] + \
            [p.name for p in (self.site.root / "jobs" / "jobs").iterdir()]

    # ---- a pod ----
    def submit(self, name):
        self.submitting.add(name)
        try:
            self.cluster.create_pod(pod(name, runtimeClassName="queued"))
            wait(lambda: self.jobs(name), 250, lambda: self.cluster.describe(name))
        finally:
            self.submitting.discard(name)

    def failures(self, name):
        return [e for e in self.cluster.get("events")["items"]
                if e["involvedObject"]["name"] == name and e["reason"] == "FailedCreatePodSandBox"]

    def gone(self, name):
        return self.cluster.ask("GET", self.cluster.path("pod", name))[0] == 404

    def told(self, name, words, seconds=250 if LONG else 120):  # a kill takes the words away until kubelet comes again
        wait(lambda: any(words in e["message"] for e in self.failures(name)), seconds,
             lambda: f"no event of {name} says '{words}': {self.cluster.describe(name)}")

    def attempts(self, name):
        return sum(e.get("count", 1) for e in self.failures(name))

    def running(self, name, seconds=90):
        """kubelet makes its container anew when serve dies in the middle of the start."""
        def there():
            return "running" in self.cluster.status(name).get("state", {})
        wait(there, seconds, lambda: f"{name} does not run: {self.cluster.describe(name)}")

    def delete(self, name):
        self.cluster.delete("pod", name, gone=False)

    def over(self, name, jobs=1):
        """It is gone, had exactly so many jobs, each created once, and none of them is left."""
        wait(lambda: self.gone(name), 60, lambda: f"{name} is still there: {self.cluster.describe(name)}")
        wait(lambda: all(j["deletes"] for j in self.jobs(name)), 150,  # each kill begins the lease anew
             lambda: f"a job was not cancelled: {self.jobs(name)} {self.cluster.tail()}")
        found = self.jobs(name)
        assert len(found) == jobs and all(j["creates"] == 1 for j in found), (found, self.cluster.tail(200))


# ---- the scenarios ----

def adopted(queue, name, crash):
    queue.submit(name)
    queue.told(name, "is queued: Priority, 12 ahead")
    assert name not in queue.cluster.ctl("pods").stdout
    crash()
    queue.says(name, waiting={"reason": "Resources", "message": "1 ahead"})
    queue.told(name, "is queued: Resources, 1 ahead")
    crash()
    queue.release(name)
    crash()
    queue.running(name)
    assert " 0 " in next(x for x in queue.cluster.ctl("pods").stdout.splitlines() if name in x)  # its attempt
    queue.delete(name)
    queue.over(name)


def deleted_while_held(queue, name, crash):
    queue.submit(name)
    queue.delete(name)
    crash()
    queue.over(name)


def deleted_in_the_back_off(queue, name, crash):
    queue.submit(name)
    queue.told(name, "desc = job 47")
    crash()
    queue.delete(name)
    crash()
    queue.over(name)


def deleted_before_its_agent_calls(queue, name, crash):
    queue.submit(name)
    queue.says(name, running={"startedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
    queue.told(name, "has started; its agent has not called in")
    queue.delete(name)
    crash()
    queue.over(name)


def deleted_when_its_agent_calls(queue, name, crash):
    queue.submit(name)
    queue.told(name, "desc = job 47")
    with concurrent.futures.ThreadPoolExecutor() as both:
        both.submit(queue.release, name)
        both.submit(queue.delete, name).result()
    crash()
    queue.over(name)


def deleted_while_it_runs(queue, name, crash):
    queue.submit(name)
    queue.release(name)
    queue.running(name)
    crash()
    queue.delete(name)
    crash()
    queue.over(name)


def agent_calls_after_the_deletion(queue, name, crash):
    """In the time of the lease: kubelet finds a pod that it does not know, and stops it."""
    queue.submit(name)
    queue.delete(name)
    wait(lambda: queue.gone(name), 30)
    queue.release(name)
    crash()
    queue.over(name)


def answer_lost(queue, name, crash):
    """The job was made, but the API server's answer never came."""
    queue.site.steer("/_faults", {"create": "drop", "only": name})
    queue.submit(name)
    queue.site.steer("/_faults", {"only": name})
    crash()
    queue.told(name, "is queued: Priority")
    queue.release(name)
    queue.running(name)
    queue.delete(name)
    queue.over(name)


def deleted_when_the_answer_was_lost(queue, name, crash):
    queue.site.steer("/_faults", {"create": "gateway", "only": name})
    queue.submit(name)
    queue.delete(name)
    queue.site.steer("/_faults", {"only": name})
    crash()
    queue.over(name)


def kubelet_restarts(queue, name, crash):
    queue.submit(name)
    log = queue.cluster.root / "k8s" / "log" / "kubelet.log"
    starts = log.read_text().count('"Started kubelet"')
    with queue.lock:  # it ends at once when there is no serve
        queue.cluster.restart_kubelet()
        wait(lambda: log.read_text().count('"Started kubelet"') > starts, 30)
    queue.told(name, "is queued: Priority")
    crash()
    queue.release(name)
    queue.running(name)
    queue.delete(name)
    queue.over(name)


SCENARIOS = [adopted, deleted_while_held, deleted_in_the_back_off, deleted_before_its_agent_calls, deleted_when_its_agent_calls,
             deleted_while_it_runs, agent_calls_after_the_deletion, answer_lost, deleted_when_the_answer_was_lost,
             kubelet_restarts]


# ---- jobs that fail ----

def no_hot_loop(queue, name, seconds):
    """kubelet tries again at its own pace."""
    before, start = queue.attempts(name), time.monotonic()
    time.sleep(seconds)
    made = queue.attempts(name) - before
    assert made <= (time.monotonic() - start) / 10 + 1, queue.cluster.describe(name)


def learns_why(queue, name, words, crash):
    """From an event. Of a job that ended just before serve was killed, only serve's log may know."""
    def known():
        return any(words in e["message"] for e in queue.failures(name)) or \
            (crash == queue.kill and words in queue.cluster.log.read_text(errors="replace"))
    wait(known, 250 if LONG else 90, lambda: f"no event of {name} says '{words}': {queue.cluster.describe(name)}")


def refused(queue, name, crash):
    queue.site.steer("/_faults", {"create": "text", "only": name, "fail_text": "sbatch: error: invalid account"})
    queue.submitting.add(name)
    queue.cluster.create_pod(pod(name, runtimeClassName="queued"))
    queue.told(name, "handler queued did not take the pod")
    queue.submitting.discard(name)
    queue.told(name, "sbatch: error: invalid account")
    no_hot_loop(queue, name, 40)
    assert not queue.jobs(name)
    queue.site.steer("/_faults", {"only": name})
    wait(lambda: queue.jobs(name), 60)
    crash()
    queue.release(name)
    queue.running(name)
    queue.delete(name)
    queue.over(name)


def fails_early(queue, name, crash):
    """Its job ends before its agent has called in; the pod gets another one, and the user hears why."""
    queue.submit(name)
    queue.told(name, "is queued: Priority")
    queue.says(name, terminated={"exitCode": 1, "reason": "NodeFail", "message": "node c7 is gone"})
    learns_why(queue, name, "the pod's job ended with exit code 1, NodeFail: node c7 is gone", crash)
    wait(lambda: len(queue.jobs(name)) == 2, 60)
    crash()
    no_hot_loop(queue, name, 30)
    queue.release(name)
    queue.running(name)
    queue.delete(name)
    queue.over(name, jobs=2)


def cancelled_by_the_batch_system(queue, name, crash):
    queue.submit(name)
    queue.told(name, "is queued: Priority")
    queue.says(name, terminated={"exitCode": 15, "reason": "Cancelled", "message": "CANCELLED by 0"})
    crash()
    learns_why(queue, name, "the pod's job ended with exit code 15, Cancelled: CANCELLED by 0", crash)
    queue.delete(name)
    wait(lambda: queue.gone(name), 60)
    queue.over(name, jobs=len(queue.jobs(name)))


def ends_well_without_an_agent(queue, name, crash):
    """Believed after 70 s only; then a failure like any other."""
    queue.submit(name)
    queue.says(name, terminated={"exitCode": 0})
    time.sleep(45)
    assert len(queue.jobs(name)) == 1
    learns_why(queue, name, "the pod's job ended with exit code 0", crash)
    queue.delete(name)
    wait(lambda: queue.gone(name), 60)
    queue.over(name, jobs=len(queue.jobs(name)))


FAILURES = [refused, fails_early, cancelled_by_the_batch_system] + [ends_well_without_an_agent] * (LONG > 0)


# ---- rounds ----

@pytest.fixture(scope="module")
def queue(cluster):
    made = Queue(cluster)
    yield made
    made.close()


@pytest.fixture(scope="module", params=["killed"] + ["calm"] * (LONG > 0) + [f"killed-{i}" for i in range(LONG)])
def futures(queue, request):
    mode = request.param
    crash = queue.kill if mode != "calm" else lambda: None
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(SCENARIOS + FAILURES)) as pool:
        yield {f: pool.submit(f, queue, f"{f.__name__.replace('_', '-')}-{mode}", crash) for f in SCENARIOS + FAILURES}


@pytest.mark.parametrize("scenario", SCENARIOS + FAILURES, ids=lambda f: f.__name__)
def test_in_a_queue(futures, scenario):
    futures[scenario].result()


@pytest.mark.skipif(not LONG, reason="takes a minute: INTERLINK_CRI_QUEUE_ROUNDS=1 has it")
def test_kubelet_away_for_longer_than_the_lease(queue):
    queue.submit("patient")
    queue.told("patient", "is queued: Priority")
    queue.cluster.run("kubelet.sh", "stop")
    time.sleep(LEASE + 15)
    assert [(j["creates"], j["deletes"]) for j in queue.jobs("patient")] == [(1, 0)]
    queue.cluster.run("kubelet.sh", "start", str(queue.cluster.socket))
    queue.release("patient")
    queue.running("patient")
    queue.delete("patient")
    queue.over("patient")
