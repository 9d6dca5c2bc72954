# SPDX-License-Identifier: Apache-2.0
"""What Kubernetes promises about the life of a pod's containers."""
import time

from cluster import IMAGE, wait

SHARED = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
VOLUME = {"volumes": [{"name": "shared", "emptyDir": {}}]}
HOLD = {"finalizers": ["interlink.test/hold"]}


def container(name, script, **more):
    return {"name": name, "image": IMAGE, "command": ["sh", "-c", script], **more}


def deleted(cluster, name, follow=False):
    """Deletes a pod that HOLD keeps, waits until its containers have ended, and gives their last states, by name. `follow`: with
    what they write meanwhile; they have to have written something before."""
    follower = cluster.kubectl_start("logs", "-f", name, stdout=-1, text=True) if follow else None
    first = follower.stdout.readline() if follow else ""
    began = time.monotonic()
    cluster.ask("DELETE", cluster.path("pod", name))

    def ends():
        status = cluster.get("pod", name)["status"]
        every = status["containerStatuses"] + status.get("initContainerStatuses", [])
        return all("terminated" in c["state"] for c in every) and {c["name"]: c["state"]["terminated"] for c in every}
    last = wait(ends, 40, lambda: cluster.describe(name))
    last["seconds"] = time.monotonic() - began
    if follow:
        last["logs"] = first + follower.communicate(timeout=20)[0]
    cluster.let_go(name)
    return last


def test_init_containers_in_their_order(cluster, place):
    name = place.pod("inits", "sh", "-c", "cat /shared/order", wait_for="Succeeded", restartPolicy="Never", main=SHARED, **VOLUME,
                     initContainers=[container("first", "sleep 1; echo first >>/shared/order", **SHARED),
                                     container("second", "echo second >>/shared/order", **SHARED)])
    assert cluster.logs(name) == "first\nsecond\n"
    failed = place.pod("init-fails", "echo", "never", wait_for="Failed", restartPolicy="Never",
                       initContainers=[container("bad", "echo why; exit 9")])
    assert cluster.ended(failed, "bad", "initContainerStatuses")["exitCode"] == 9
    assert cluster.logs(failed, "-c", "bad") == "why\n"
    assert "waiting" in cluster.status(failed)["state"]
    again = place.pod("init-again", "sh", "-c", "echo main", wait_for="Succeeded", restartPolicy="OnFailure", main=SHARED, **VOLUME,
                      initContainers=[container("twice", "echo x >>/shared/n; [ $(wc -l </shared/n) = 2 ]", **SHARED)])
    assert cluster.status(again, "twice", "initContainerStatuses")["restartCount"] == 1


def test_sidecars(cluster, place):
    """They start in order before the containers, each when the one before has started, and end after them in reverse."""
    ends = "trap 'echo {0} >>/shared/ends; date +%s%N; exit 0' TERM; touch /shared/{0}; while :; do sleep 0.1; done"
    started = {"startupProbe": {"exec": {"command": ["sh", "-c", "test -e /shared/one"]}, "periodSeconds": 1}}
    name = place.pod("sidecars", "sh", "-c", "ls /shared; trap 'echo main >>/shared/ends; exit 0' TERM; while :; do sleep 0.1; done",
                     terminationGracePeriodSeconds=20, metadata=HOLD, main=SHARED, **VOLUME,
                     initContainers=[container("one", "sleep 1; " + ends.format("one"), restartPolicy="Always", **started, **SHARED),
                                     container("two", "ls /shared; " + ends.format("two"), restartPolicy="Always", **SHARED),
                                     container("init", "test -e /shared/one", **SHARED)])
    assert cluster.logs(name, "-c", "two").split() == ["one"]
    assert "one" in cluster.logs(name, "-c", "main").split()
    assert deleted(cluster, name)["main"]["exitCode"] == 0
    done = place.pod("sidecar-job", "sh", "-c", "echo work", wait_for="Succeeded", restartPolicy="Never",
                     initContainers=[container("side", "trap 'echo side ends; exit 0' TERM; while :; do sleep 0.1; done",
                                               restartPolicy="Always")])
    assert cluster.logs(done, "-c", "side") == "side ends\n"
    back = place.pod("sidecar-back", initContainers=[container("side", "sleep 1; exit 3", restartPolicy="Always")])
    wait(lambda: cluster.status(back, "side", "initContainerStatuses")["restartCount"] >= 1, 30)
    assert cluster.status(back)["restartCount"] == 0


def test_sidecars_end_in_reverse(cluster, place):
    ends = "trap 'date +%s.%N; exit 0' TERM; while :; do sleep 0.05; done"
    name = place.pod("reverse", "sh", "-c", ends, terminationGracePeriodSeconds=20, metadata=HOLD,
                     initContainers=[container(n, ends, restartPolicy="Always") for n in ("one", "two")])
    last = deleted(cluster, name)
    assert last["main"]["finishedAt"] <= last["two"]["finishedAt"] <= last["one"]["finishedAt"], last
    assert [last[n]["exitCode"] for n in ("main", "one", "two")] == [0, 0, 0], last


def test_restart_policies(cluster, place):
    """The pod's own: Never, OnFailure and Always, and the back-off between starts."""
    never = place.pod("never", "sh", "-c", "exit 7", wait_for=None, restartPolicy="Never")
    onfailure = place.pod("onfailure", "sh", "-c", "echo x >>/shared/n; [ $(wc -l </shared/n) = 3 ]", wait_for=None,
                          restartPolicy="OnFailure", main=SHARED, **VOLUME)
    always = place.pod("always", "sh", "-c", "echo run; sleep 0.5", wait_for=None)
    cluster.phase(never, "Failed")
    state = cluster.ended(never)
    assert (state["exitCode"], state["reason"]) == (7, "Error")
    cluster.phase(onfailure, "Succeeded")
    assert cluster.status(onfailure)["restartCount"] == 2

    def waits():
        waiting = cluster.status(always).get("state", {}).get("waiting", {})
        return waiting.get("reason") == "CrashLoopBackOff" and "back-off" in waiting["message"]
    wait(waits, 60, lambda: cluster.describe(always))
    cluster.says(always, "Back-off restarting failed container main", reason="BackOff")
    wait(lambda: cluster.status(always)["restartCount"] >= 2, 60)
    assert cluster.status(always)["lastState"]["terminated"]["exitCode"] == 0


def test_restart_rules_of_a_container(cluster, place):
    """A container's own policy and rules by exit code, and the one that starts all of the pod's containers anew."""
    rule = {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
    name = place.pod("rules", wait_for="Failed", restartPolicy="Never", **VOLUME, containers=[
        container("main", "echo x >>/shared/n; [ $(wc -l </shared/n) = 3 ] && exit 1; exit 42", restartPolicy="Never",
                  restartPolicyRules=[rule], **SHARED),
        container("own", "echo x >>/shared/m; [ $(wc -l </shared/m) = 2 ]", restartPolicy="OnFailure", **SHARED)])
    assert (cluster.status(name)["restartCount"], cluster.ended(name)["exitCode"]) == (2, 1)
    assert (cluster.status(name, "own")["restartCount"], cluster.ended(name, "own")["exitCode"]) == (1, 0)
    everything = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]}}
    name = place.pod("all-anew", restartPolicy="Never", **VOLUME, containers=[
        container("main", "echo x >>/shared/n; [ $(wc -l </shared/n) = 1 ] && sleep 1 && exit 88; sleep 1000000", restartPolicy="Never",
                  restartPolicyRules=[everything], **SHARED),
        container("other", "echo o >>/shared/o; sleep 1000000", **SHARED)])
    wait(lambda: cluster.kubectl("exec", name, "-c", "other", "--", "cat", "/shared/o", check=False).stdout == "o\no\n", 40,
         lambda: cluster.describe(name))
    wait(lambda: cluster.status(name).get("state", {}).get("running"), 20)


def test_hooks(cluster, place):
    """postStart and preStop by exec and sleep; a hook that fails; what a hook sees."""
    name = place.pod("hooks", "sh", "-c", "while [ ! -e /tmp/started ]; do sleep 0.1; done; echo saw start; "
                     "trap 'echo term; exit 4' TERM; while :; do sleep 0.1; done", terminationGracePeriodSeconds=20, metadata=HOLD,
                     main={"lifecycle": {"postStart": {"exec": {"command": ["touch", "/tmp/started"]}},
                                         "preStop": {"exec": {"command": ["sh", "-c", "echo hook >/proc/1/fd/1; sleep 1"]}}}})
    wait(lambda: "saw start" in cluster.logs(name), 20)
    sleeps = place.pod("hook-sleeps", "sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.1; done", terminationGracePeriodSeconds=20,
                       metadata=HOLD, main={"lifecycle": {"postStart": {"sleep": {"seconds": 1}}, "preStop": {"sleep": {"seconds": 2}}}})
    fails = place.pod("hook-fails", wait_for=None, main={"lifecycle": {"postStart": {"exec": {"command": ["sh", "-c", "echo words; exit 3"]}}}})
    last = deleted(cluster, name, follow=True)
    assert last["main"]["exitCode"] == 4 and last["logs"].split() == ["saw", "start", "hook", "term"], last
    last = deleted(cluster, sleeps)
    assert last["main"]["exitCode"] == 5 and last["seconds"] >= 2, last
    cluster.says(fails, "PostStartHook failed", reason="FailedPostStartHook")


def test_grace_and_signals(cluster, place):
    """TERM and then KILL after the grace; the signal that an image or a pod names; --force."""
    script = "trap 'echo got {0}; exit 3' {0}; echo up; while :; do sleep 0.1; done"
    term = place.pod("term", "sh", "-c", script.format("TERM"), terminationGracePeriodSeconds=20, metadata=HOLD)
    usr1 = place.pod("usr1", "sh", "-c", script.format("USR1"), terminationGracePeriodSeconds=20, metadata=HOLD, os={"name": "linux"},
                     main={"lifecycle": {"stopSignal": "SIGUSR1"}})
    cluster.load("fixture.local/usr2:1", "--stop-signal", "SIGUSR2")
    usr2 = place.pod("usr2", "sh", "-c", script.format("USR2"), terminationGracePeriodSeconds=20, metadata=HOLD,
                     main={"image": "fixture.local/usr2:1"})
    deaf = place.pod("deaf", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done", terminationGracePeriodSeconds=2, metadata=HOLD)
    forced = place.pod("forced", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done", terminationGracePeriodSeconds=30)
    assert cluster.status(usr1)["stopSignal"] == "SIGUSR1"
    for name, signal in ((term, "TERM"), (usr1, "USR1"), (usr2, "USR2")):
        wait(lambda n=name: "up" in cluster.logs(n), 20)
        last = deleted(cluster, name, follow=True)
        assert last["main"]["exitCode"] == 3 and f"got {signal}" in last["logs"] and last["seconds"] < 15, last
    last = deleted(cluster, deaf)
    assert last["main"]["exitCode"] == 137 and 2 <= last["seconds"] < 20, last
    cluster.kubectl("delete", "pod", forced, "--force", "--grace-period=0")
    assert cluster.ask("GET", cluster.path("pod", forced))[0] == 404
    wait(lambda: not cluster.ctl("ps", "-q", "--label", f"io.kubernetes.pod.name={forced}").stdout.split(), 30,
         lambda: cluster.ctl("ps").stdout)


def test_termination_messages(cluster, place):
    both = {"restartPolicy": "Never", "wait_for": "Failed"}
    name = place.pod("messages", **both, containers=[
        container("file", "echo -n famous last words >/tmp/words; echo not this; exit 1", terminationMessagePath="/tmp/words"),
        container("logs", "for i in $(seq 100); do echo line $i; done; exit 2", terminationMessagePolicy="FallbackToLogsOnError"),
        container("kept", "echo mine >/dev/termination-log; echo not this; exit 3", terminationMessagePolicy="FallbackToLogsOnError"),
        container("fine", "echo nothing", terminationMessagePolicy="FallbackToLogsOnError"),
        container("long", "head -c 10000 /dev/zero | tr '\\0' x >/dev/termination-log; exit 4")])
    words = {c: cluster.ended(name, c).get("message") for c in ("file", "logs", "kept", "fine", "long")}
    assert words["file"] == "famous last words"
    assert words["logs"].endswith("line 100\n") and len(words["logs"]) <= 2048
    assert (words["kept"], words["fine"]) == ("mine\n", None)
    assert words["long"].startswith("x" * 1000) and len(words["long"]) <= 4096


def test_active_deadline(cluster, place):
    name = place.pod("late", wait_for="Failed", activeDeadlineSeconds=3)
    assert cluster.get("pod", name)["status"]["reason"] == "DeadlineExceeded"
    wait(lambda: not cluster.ctl("ps", "-q", "--label", f"io.kubernetes.pod.name={name}").stdout.split(), 30)
