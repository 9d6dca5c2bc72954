# SPDX-License-Identifier: Apache-2.0
"""The plugin's REST over a real Slurm. The agent is a small script: what is tested is the way to the job and back."""
import json
import os
import pathlib
import stat
import subprocess
import time

import pytest
from slurm_site import NOBODY, kit, pod, sleep, uid, until, wrapper

STUBBORN = "#!/bin/sh\ntrap 'echo got TERM' TERM\necho up\nwhile :; do sleep 0.05; done\n"


def exits(code):
    return f"#!/bin/sh\necho hello; exit {code}\n"


# ---- a job's life ----


def test_a_pod_is_a_job(site, anybody):
    the_pod = pod({"interlink.eu/constraint": ""}, {"cpu": "1500m", "memory": "64Mi", "nvidia.com/gpu": "1"},
                  activeDeadlineSeconds=600)
    jid = anybody.created(the_pod)
    assert anybody.created(the_pod) == jid, "created twice is created once"
    started = anybody.wait_phase(the_pod, "running")["startedAt"]
    assert len(site.jobs(uid(the_pod))) == 1
    shown = site.scontrol("-o", "show", "job", jid)
    assert "CPUs/Task=2" in shown and "TimeLimit=00:10:00" in shown and "gres:gpu:1" in shown and "MinMemoryNode=96M" in shown
    assert f"Comment=interlink-cri default/{the_pod['metadata']['name']}" in shown
    until(lambda: "agent agent in" in anybody.logs(the_pod)[1])
    assert f"Slurm job {jid} begins on {site.name}" in anybody.logs(the_pod)[1]
    status = json.loads(anybody.raw("GET", "/status", [{**the_pod, "status": {"phase": "Running"}}])[1])[0]
    assert status["JID"] == jid and started.endswith("Z")
    assert abs(time.time() - time.mktime(time.strptime(started, "%Y-%m-%dT%H:%M:%SZ")) + time.timezone) < 300
    begin = time.monotonic()
    assert anybody.delete(the_pod, grace=20)[0] == 200
    assert time.monotonic() - begin < 15, "an agent that ends on TERM is not waited for"
    assert site.job(jid)["State"] in ("FAILED", "COMPLETED", "CANCELLED")
    assert not anybody.job_dir(the_pod).exists() and anybody.state(the_pod) == {}
    assert not list((anybody.dir / "records").iterdir())


@pytest.mark.parametrize("code,reason,signal", [(0, "Completed", None), (7, "Error", None), (143, "Error", 15)])
def test_exit_codes(plugins, code, reason, signal):
    plugin = plugins(exits(code))
    the_pod = pod()
    plugin.created(the_pod)
    state = plugin.wait_phase(the_pod, "terminated")
    assert (state["exitCode"], state["reason"], state.get("signal")) == (code, reason, signal)
    assert state["startedAt"] <= state["finishedAt"]
    assert plugin.logs(the_pod)[1].endswith("hello\n")
    # It stays so without squeue, and after a restart.
    plugin.kill()
    plugin.start()
    assert plugin.state(the_pod)["terminated"] == state
    assert plugin.delete(the_pod)[0] == 200


def test_a_job_killed_by_a_signal(plugins):
    plugin = plugins("#!/bin/sh\nkill -9 $PPID\n")
    the_pod = pod()
    plugin.created(the_pod)
    state = plugin.wait_phase(the_pod, "terminated")
    assert (state["exitCode"], state["signal"], state["reason"]) == (137, 9, "Error")
    assert "signal 9" in state["message"]


# ---- the queue ----


def test_waiting_tells_why(site, plugin):
    first = pod(resources={"cpu": "4"}, annotations={"interlink.eu/nodes": "2"}, activeDeadlineSeconds=60)
    plugin.created(first)
    plugin.wait_phase(first, "running")
    second, third = (pod(resources={"cpu": "4"}, annotations={"interlink.eu/nodes": "2"}, activeDeadlineSeconds=60) for _ in range(2))
    plugin.created(second)
    until(lambda: plugin.state(second).get("waiting", {}).get("reason") in ("Resources", "Priority"))
    plugin.created(third)
    message = until(lambda: "1 ahead in partition main" in plugin.state(third)["waiting"].get("message", "") and
                    plugin.state(third)["waiting"]["message"], what="the place in the queue")
    assert plugin.state(third)["waiting"]["reason"] in ("Priority", "Resources"), message
    until(lambda: "expected to start at 20" in plugin.state(second)["waiting"]["message"], 40, "the scheduler's estimate")
    jid = site.jobs(uid(third))[0]["JobID"]
    assert plugin.delete(third)[0] == 200
    assert site.job(jid)["State"] == "CANCELLED"
    held = pod({"interlink.eu/flags": "--hold"})
    plugin.created(held)
    until(lambda: plugin.state(held)["waiting"]["reason"] == "JobHeldUser")


@pytest.mark.parametrize("annotations,resources,words", [
    ({"interlink.eu/partition": "no such"}, None, "invalid partition specified: no such"),
    ({"slurm-job.vk.io/flags": "--time=never"}, None, "time"),
    ({"interlink.eu/flags": "--output=/etc/motd"}, None, "--output is not for pods to set"),
    ({"interlink.eu/flavor": "huge"}, None, 'no flavor "huge"'),
    ({}, {"example.org/fpga": "1"}, "no gres for example.org/fpga"),
    ({}, {"memory": "900Gi"}, "Memory specification can not be satisfied"),
])
def test_refusals_say_why(site, plugin, annotations, resources, words):
    the_pod = pod(annotations, resources)
    code, text = plugin.create(the_pod)
    assert code == 422 and words in text
    assert not plugin.job_dir(the_pod).exists() and plugin.state(the_pod) == {}
    assert all(j["State"] not in ("PENDING", "RUNNING") for j in site.jobs(uid(the_pod)))


def test_nothing_is_asked_while_idle(site, folder, plugins):
    count = folder / "count"
    squeue = wrapper(folder, "squeue", f'case "$*" in *--me*) echo >>{count};; esac; exec $REAL "$@"')
    plugin = plugins(settings=f"  PollMax: 3s\n  Commands: {{squeue: {squeue}}}\n")
    sleep(1)
    assert not count.exists(), "no jobs, no squeue"
    the_pod = pod()
    plugin.created(the_pod)
    plugin.wait_phase(the_pod, "running")
    sleep(7)  # 200 ms, 400, 800...: the longest pause is reached
    before = len(count.read_text())
    assert before <= 12
    sleep(6.5)
    assert 1 <= len(count.read_text()) - before <= 3
    assert plugin.delete(the_pod, grace=5)[0] == 200
    before = len(count.read_text())
    sleep(4)
    assert len(count.read_text()) == before, "no jobs any more, no squeue"


def test_one_squeue_for_many_jobs(site, folder, plugins):
    count = folder / "count"
    squeue = wrapper(folder, "squeue", f'case "$*" in *--me*) echo >>{count};; esac; exec $REAL "$@"')
    plugin = plugins(settings=f"  PollMin: 1s\n  Commands: {{squeue: {squeue}}}\n".replace("  PollMin: 1s\n", ""))
    pods = [pod({"interlink.eu/flags": "--hold"}) for _ in range(20)]
    begin = time.monotonic()
    for p in pods:
        plugin.created(p)
    until(lambda: all(s["waiting"]["reason"] == "JobHeldUser" for s in plugin.states(*pods).values()))
    assert len(count.read_text()) <= (time.monotonic() - begin) / 0.2 + 2
    for p in pods:
        assert plugin.delete(p)[0] == 200


# ---- the end of a job that runs ----


def test_delete_waits_for_the_grace_period_and_then_kills(site, plugins):
    plugin = plugins(STUBBORN)
    the_pod = pod()
    jid = plugin.created(the_pod)
    until(lambda: "up" in plugin.logs(the_pod)[1])
    log = (plugin.job_dir(the_pod) / "agent.log").open()
    begin = time.monotonic()
    assert plugin.delete(the_pod, grace=2, timeout=90)[0] == 200
    assert 2 <= time.monotonic() - begin < 40
    text = log.read()
    assert text.count("got TERM") >= 2, "the second one is the order to kill; then comes KILL"
    assert site.job(jid)["State"] not in ("RUNNING", "COMPLETING")


def test_a_time_limit(site, plugins):
    """Two jobs: one that ends when it is told, one that does not."""
    plugin = plugins('#!/bin/sh\n[ -e "$STUBBORN" ] && trap "" TERM || trap "echo got TERM; exit 5" TERM\necho up\n'
                     "while :; do sleep 0.05; done\n")
    good = pod(activeDeadlineSeconds=60)
    bad = pod(activeDeadlineSeconds=60, container={"env": [{"name": "STUBBORN", "value": "/"}]})
    ids = [plugin.created(p) for p in (good, bad)]
    for p in (good, bad):
        until(lambda p=p: "up" in plugin.logs(p)[1])
    sleep(2)
    site.scontrol("update", f"JobId={ids[0]}", "EndTime=now+20")  # within the notice: told at once
    site.scontrol("update", f"JobId={ids[1]}", "EndTime=now+1")
    state = plugin.wait_phase(good, "terminated", 70)
    assert state["reason"] == "TIMEOUT" and state["exitCode"] == 5 and "it ended in time" in state["message"]
    assert "got TERM" in plugin.logs(good)[1]
    state = plugin.wait_phase(bad, "terminated", 70)
    assert state["reason"] == "TIMEOUT" and state["exitCode"] != 0 and "time limit of 1m0s" in state["message"]


def test_out_of_memory(site, plugins):
    if not site.cgroups:
        pytest.skip("Slurm cannot limit memory here")
    plugin = plugins("#!/bin/sh\nexec python3 -c \"x = b'a' * 300000000; import time; time.sleep(60)\"\n",
                     settings="  MemoryOverhead: 0\n")
    the_pod = pod(resources={"memory": "40Mi"})
    plugin.created(the_pod)
    state = plugin.wait_phase(the_pod, "terminated")
    assert (state["reason"], state["exitCode"], state["signal"]) == ("OUT_OF_MEMORY", 137, 9), state
    assert "slurmstepd" in plugin.logs(the_pod)[1]


def test_cancelled_by_somebody_else(site, plugin):
    the_pod = pod()
    jid = plugin.created(the_pod)
    plugin.wait_phase(the_pod, "running")
    site.run("scancel", jid)
    state = plugin.wait_phase(the_pod, "terminated")
    assert state["reason"] == "CANCELLED" and "CANCELLED by scancel" in state["message"] and state["exitCode"] != 0


def test_who_cancelled_it_is_told_by_accounting(site, folder, plugins):
    sacct = wrapper(folder, "sacct", 'for w; do case $p in --jobs) id=$w;; esac; p=$w; done; '
                    'echo "$id|CANCELLED by 1000|0:15|2026-11-24T10:00:00|2026-11-24T10:00:00|2026-11-24T10:01:00|60|main|n1|x"')
    plugin = plugins(settings=f"  Commands: {{sacct: {sacct}}}\n")
    the_pod = pod()
    jid = plugin.created(the_pod)
    plugin.wait_phase(the_pod, "running")
    site.run("scancel", jid)
    state = plugin.wait_phase(the_pod, "terminated")
    assert "CANCELLED by user 1000" in state["message"] and state["signal"] == 15


def test_preempted(site, plugin):
    the_pod = pod({"interlink.eu/nodes": "2"}, {"cpu": "4"})
    plugin.created(the_pod)
    plugin.wait_phase(the_pod, "running")
    urgent = pod({"interlink.eu/partition": "urgent"}, {"cpu": "4"})
    plugin.created(urgent)
    state = plugin.wait_phase(the_pod, "terminated", 60)
    assert state["reason"] == "PREEMPTED" and "higher priority" in state["message"]
    plugin.wait_phase(urgent, "running", 60)


# ---- failures of the site ----


def test_a_node_fails(site, plugin):
    """One job that may be requeued, one that may not."""
    node = site.nodes[1]
    lost = pod({"interlink.eu/flags": f"--no-requeue -w {node}"})
    plugin.created(lost)
    plugin.wait_phase(lost, "running")
    site.node_down(node)
    try:
        state = plugin.wait_phase(lost, "terminated")
        assert state["reason"] == "NODE_FAIL" and node in state["message"] and state["exitCode"] != 0
    finally:
        site.node_up(node)


def test_a_requeued_job_is_followed(site, plugin):
    the_pod = pod()
    jid = plugin.created(the_pod)
    plugin.wait_phase(the_pod, "running")
    (plugin.job_dir(the_pod) / "scratch").mkdir()
    site.scontrol("requeue", jid)
    state = until(lambda: plugin.state(the_pod).get("waiting"), what="the queue again")
    assert "requeued 1 times" in until(lambda: plugin.state(the_pod)["waiting"].get("message")), state
    site.start_requeued(jid)
    plugin.wait_phase(the_pod, "running", 60)
    until(lambda: "restart 1" in plugin.logs(the_pod)[1])
    until(lambda: not (plugin.job_dir(the_pod) / "scratch").exists())
    assert plugin.created(the_pod) == jid
    assert plugin.delete(the_pod, grace=5)[0] == 200


def test_slurmctld_is_restarted(site, plugin):
    runs, waits = pod(), pod({"interlink.eu/flags": "--hold"})
    jid = plugin.created(runs)
    plugin.created(waits)
    plugin.wait_phase(runs, "running")
    site.controller(False)
    try:
        until(lambda: "does not answer" in plugin.state(waits)["waiting"].get("message", ""), 90, "that Slurm is away")
        assert "running" in plugin.state(runs), "what runs is not taken for ended"
        code, text = plugin.create(pod())
        assert code == 503 and "Unable to contact slurm controller" in text
    finally:
        site.controller(True)
    until(lambda: plugin.state(waits)["waiting"].get("reason") == "JobHeldUser" and
          "does not answer" not in plugin.state(waits)["waiting"].get("message", ""), 90, "that Slurm is back")
    assert plugin.state(runs)["running"] and site.job(jid)["State"] == "RUNNING"
    for p in (runs, waits):
        assert plugin.delete(p, grace=5, timeout=90)[0] == 200


def test_what_slurm_forgets_is_told_by_the_jobs_own_record(site, folder, plugins):
    flag = folder / "forget"
    forget = f'[ -e {flag} ] || exec $REAL "$@"'
    squeue = wrapper(folder, "squeue", forget + "; exit 0")
    scontrol = wrapper(folder, "scontrol", forget + '; echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1')
    plugin = plugins('#!/bin/sh\necho up; while [ ! -e go ]; do sleep 0.05; done; exit 9\n',
                     settings=f"  Commands: {{squeue: {squeue}, scontrol: {scontrol}}}\n")
    ends, vanishes = pod(), pod()
    plugin.created(ends)
    jid = plugin.created(vanishes)
    for p in (ends, vanishes):
        plugin.wait_phase(p, "running")
        until(lambda p=p: "up" in plugin.logs(p)[1])
    plugin.kill()
    (plugin.job_dir(ends) / "go").touch()
    site.run("scancel", "--signal=KILL", "--batch", jid)
    until(lambda: (plugin.job_dir(ends) / "ended").exists() and site.job(jid)["State"] not in ("RUNNING", "COMPLETING"))
    flag.touch()
    plugin.start()
    state = plugin.wait_phase(ends, "terminated")
    assert state["exitCode"] == 9 and "its own record" in state["message"]
    state = plugin.wait_phase(vanishes, "terminated")
    assert state["exitCode"] == 137 and state["reason"] in ("Lost", "CANCELLED") and f"Slurm job {jid}" in state["message"]


# ---- never two jobs, never none ----


SLOW = 'exec 3<&0; [ -e {flag} ] && {{ echo >>{flag}.seen; {before} }}; $REAL "$@" <&3; code=$?; {after} exit $code'


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_sbatch_runs(site, folder, plugins, when):
    """kill -9 before Slurm has heard of the job, and after it has, but not yet the plugin."""
    flag = folder / "slow"
    pause = f"while [ -e {flag} ]; do sleep 0.05; done;"
    sbatch = wrapper(folder, "sbatch", SLOW.format(flag=flag, before=pause if when == "before" else "", after=pause if when == "after" else ""))
    plugin = plugins(settings=f"  Commands: {{sbatch: {sbatch}}}\n")
    the_pod = pod()
    flag.touch()
    asking = subprocess.Popen(["python3", "-c", "import sys; sys.path.insert(0, sys.argv[1]); import kit, json; "
                               "kit.Rest(sys.argv[2]).create(json.loads(sys.argv[3]))", str(pathlib.Path(kit.__file__).parent),
                               plugin.socket, json.dumps(the_pod)], stderr=subprocess.DEVNULL)
    until(lambda: pathlib.Path(f"{flag}.seen").exists())
    if when == "after":
        until(lambda: site.jobs(uid(the_pod)))
    plugin.kill()
    asking.wait()
    plugin.start()
    assert plugin.state(the_pod) == {} or when == "after", "no promise before a yes"
    flag.unlink()
    jid = plugin.created(the_pod)  # the caller asks again
    plugin.wait_phase(the_pod, "running")
    assert [j["JobID"] for j in site.jobs(uid(the_pod))] == [jid]
    assert plugin.delete(the_pod, grace=5)[0] == 200
    assert not [j for j in site.jobs(uid(the_pod)) if j["State"] in ("PENDING", "RUNNING")]


def test_killed_before_sbatch_was_ever_run(site, folder, plugins):
    """A record without a job: nobody was told yes, and nothing is left of it once Slurm says that there is none."""
    sbatch = wrapper(folder, "sbatch", "sleep 2; exit 1")
    plugin = plugins(settings=f"  Commands: {{sbatch: {sbatch}}}\n")
    the_pod = pod()
    with pytest.raises(TimeoutError):
        plugin.raw("POST", "/create", kit.create_body(the_pod), timeout=1)
    plugin.kill()
    plugin.start()
    assert plugin.state(the_pod) == {}
    assert plugin.delete(the_pod, timeout=100)[0] == 200
    assert not plugin.job_dir(the_pod).exists() and not site.jobs(uid(the_pod))


def test_sbatch_times_out_though_slurm_has_taken_the_job(site, folder, plugins):
    sbatch = wrapper(folder, "sbatch", '$REAL "$@" >/dev/null; echo "sbatch: error: Batch job submission failed: Socket timed out on '
                     'send/recv operation" >&2; exit 1')
    plugin = plugins(settings=f"  Commands: {{sbatch: {sbatch}}}\n")
    the_pod = pod()
    jid = plugin.created(the_pod)
    assert [j["JobID"] for j in site.jobs(uid(the_pod))] == [jid]
    plugin.wait_phase(the_pod, "running")


@pytest.mark.parametrize("phase", ["queued", "running", "ending", "ended"])
def test_killed_in_each_phase(site, plugins, phase):
    plugin = plugins(STUBBORN if phase == "ending" else exits(4) if phase == "ended" else kit.AGENT)
    the_pod = pod({"interlink.eu/flags": "--hold"} if phase == "queued" else {})
    jid = plugin.created(the_pod)
    plugin.wait_phase(the_pod, {"queued": "waiting", "ended": "terminated"}.get(phase, "running"))
    if phase == "ending":
        until(lambda: "up" in plugin.logs(the_pod)[1])
        with pytest.raises(TimeoutError):
            plugin.raw("DELETE", "/delete", {**the_pod, "metadata": {**the_pod["metadata"], "deletionGracePeriodSeconds": 3}}, timeout=1)
    before = plugin.state(the_pod)
    for _ in range(2):
        plugin.kill()
        plugin.start()
    if phase == "ending":
        until(lambda: plugin.state(the_pod) == {}, 90, "the cancel to be carried out")
    else:
        assert plugin.state(the_pod).keys() == before.keys()
        sleep(1)
        assert plugin.state(the_pod).keys() == before.keys()
        assert plugin.created(the_pod) == jid
    assert len(site.jobs(uid(the_pod))) == 1
    assert plugin.delete(the_pod, grace=5, timeout=90)[0] == (404 if phase == "ending" else 200)
    assert site.job(jid)["State"] not in ("PENDING", "RUNNING")
    assert not list((plugin.dir / "records").iterdir()) and not list((plugin.dir / "jobs").iterdir())


# ---- secrets, users, prefixes ----


def test_secrets_are_seen_by_nobody(site, plugins):
    plugin = plugins(user=NOBODY, environment={"TOKEN_OF_THE_SERVICE": "s3cret-service", "SBATCH_COMMENT": "s3cret-sbatch"},
                     text="#!/bin/sh\nenv; echo \"token $(cat volumes/t/k) $PASSWORD\"; while :; do sleep 0.05; done\n")
    the_pod = pod(container={"env": [{"name": "PASSWORD", "value": "s3cret env"}], "volumeMounts": [{"name": "t", "mountPath": "/t"}]},
                  volumes=[{"name": "t", "secret": {"secretName": "t", "defaultMode": 256}}])
    secret = {"metadata": {"name": "t", "namespace": "default"}, "data": {"k": "czNjcmV0LXRva2Vu"}}
    code, text = plugin.create(the_pod, secrets=[secret])
    assert code == 200
    jid = json.loads(text)["PodJID"]
    until(lambda: "token s3cret-token s3cret env" in plugin.logs(the_pod)[1])
    assert "s3cret-service" not in plugin.logs(the_pod)[1]
    assert "s3cret" not in site.scontrol("show", "job", jid) + site.scontrol("write", "batch_script", jid, "-")
    for process in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert b"s3cret" not in process.read_bytes()
        except OSError:
            continue
    for top, folders, files in os.walk(plugin.dir):
        for name in folders + files:
            mode = os.lstat(os.path.join(top, name)).st_mode
            assert stat.S_ISSOCK(mode) or not mode & 0o077, (top, name, oct(mode))
    assert len((plugin.job_dir(the_pod) / "job.sh").read_bytes()) < 4096


def test_through_a_shell_like_ssh(site, folder, plugins):
    """What stands before each command may be read by another shell."""
    ssh = folder / "ssh"
    ssh.write_text('#!/bin/sh\nexport SLURM_CONF="$(cat ' + str(folder) + '/conf)"\nshift\nexec sh -c "$*"\n')
    ssh.chmod(0o755)
    (folder / "conf").write_text(site.env["SLURM_CONF"])
    plugin = plugins(settings=f"  Prefix: [{ssh}, login1]\n", environment={"SLURM_CONF": "/nonexistent"})
    the_pod = pod({"interlink.eu/flags": "--licenses= --comment='x'" if False else "--constraint=''"})
    code, text = plugin.create(pod({"interlink.eu/partition": "it's; touch /tmp/x $(id)"}))
    assert code == 422 and "it's; touch /tmp/x $(id)" in text
    jid = plugin.created(the_pod)
    plugin.wait_phase(the_pod, "running")
    assert site.job(jid)["State"] == "RUNNING"
    assert plugin.delete(the_pod, grace=5)[0] == 200


def test_what_the_site_has(site, plugin):
    ping = json.loads(until(lambda: '"cpu":"8"' in plugin.raw("POST", "/pinglink")[1] and plugin.raw("POST", "/pinglink")[1]))
    assert ping["resources"]["memory"] == "4Gi"
    assert ping["resources"]["accelerators"] == [{"resourceType": "nvidia.com/gpu", "available": "4"}]
