# SPDX-License-Identifier: Apache-2.0
"""The plugin with its local backend, driven by HTTP. A shell script plays the agent."""
import base64
import json
import os
import signal
import stat
import subprocess
import time

import kit
import pytest
from kit import alive, pod, wait_for


def secret_pod(**more):
    return pod(volumes=[{"name": "token", "secret": {"secretName": "s1", "defaultMode": 256}},
                        {"name": "conf", "configMap": {"name": "c1", "items": [{"key": "a", "path": "deep/er/a.txt"}]}},
                        {"name": "sa", "projected": {"sources": []}},
                        {"name": "scratch", "emptyDir": {}},
                        {"name": "host", "hostPath": {"path": "/", "type": "Directory"}}],
               container={"volumeMounts": [{"name": n, "mountPath": "/" + n}
                                           for n in ("token", "conf", "sa", "scratch", "host")],
                          "env": [{"name": "GREETING", "value": "a b'c\"$HOME\nline2"}]}, **more)


# Takes no notice of TERM.
STUBBORN = "#!/bin/sh\ntrap '' TERM\ntouch ready\nwhile :; do sleep 0.05; done\n"

OBJECTS = {
    "secrets": [{"metadata": {"name": "s1"}, "data": {"pw": base64.b64encode(b"hunter2\0\xff").decode()}, "type": "Opaque"}],
    "configmaps": [{"metadata": {"name": "c1"}, "data": {"a": "x", "b": "left out"}}],
    "projected": [{"metadata": {"name": "sa"}, "data": {"token": "eyJ"}, "binaryData": {"bin": "AAE="}}],
}


# ---- create ----

def test_a_job_runs_and_is_removed(plugin):
    p = pod()
    jid = plugin.created(p)
    assert jid
    assert plugin.state(p)["running"]["startedAt"]
    pid = plugin.pid(p)
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == str(plugin.job_dir(p))
    assert stat.S_IMODE(plugin.job_dir(p).stat().st_mode) == 0o700
    wait_for(lambda: "agent agent in" in plugin.logs(p)[1], what="the agent's first line")
    assert plugin.delete(p, grace=5)[0] == 200
    assert not alive(pid)
    assert not plugin.job_dir(p).exists()
    assert list((plugin.dir / "records").iterdir()) == []
    assert plugin.state(p) == {}


def test_same_uid_again_is_the_same_job(plugin):
    p = pod()
    first = plugin.created(p)
    pid = plugin.pid(p)
    assert plugin.created(p) == first
    assert plugin.pid(p) == pid
    assert len(list((plugin.dir / "jobs").iterdir())) == 1


def test_environment_and_volumes(plugins):
    plugin = plugins("#!/bin/sh\nenv >env.txt\numask >umask.txt\nexec sleep 1000\n")
    p = secret_pod()
    plugin.created(p, **OBJECTS)
    job = plugin.job_dir(p)
    wait_for(lambda: (job / "umask.txt").exists())
    env = (job / "env.txt").read_text()
    assert f"INTERLINK_JOB_DIR={job}\n" in env
    assert "GREETING=a b'c\"$HOME\nline2\n" in env
    assert (job / "volumes/token/pw").read_bytes() == b"hunter2\0\xff"
    assert (job / "volumes/conf/deep/er/a.txt").read_text() == "x"
    assert not (job / "volumes/conf/b").exists()
    assert (job / "volumes/sa/token").read_text() == "eyJ"
    assert (job / "volumes/sa/bin").read_bytes() == b"\0\1"
    assert (job / "volumes/scratch").is_dir()
    assert not (job / "volumes/host").exists()
    for path in job.rglob("*"):
        if "volumes" in path.parts:
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    command = open(f"/proc/{plugin.pid(p)}/cmdline", "rb").read()
    assert b"hunter2" not in command and b"eyJ" not in command


def test_the_same_through_the_plugin_wire(plugin, api):
    p = secret_pod()
    api.created(p, **OBJECTS)
    assert (plugin.job_dir(p) / "volumes/token/pw").read_bytes() == b"hunter2\0\xff"
    assert (plugin.job_dir(p) / "volumes/conf/deep/er/a.txt").read_text() == "x"
    assert (plugin.job_dir(p) / "volumes/sa/token").read_text() == "eyJ"
    assert "running" in api.state(p)
    assert json.loads(api.raw("POST", "/pinglink")[1])["status"] == "ok"
    wait_for(lambda: "agent agent in" in api.logs(p)[1])
    assert api.delete(p, grace=5)[0] == 200
    assert not plugin.job_dir(p).exists()
    assert api.delete(p, grace=5)[0] == 404


def test_command_line_reaches_the_agent(plugin):
    p = pod(command=("interlink-cri", "agent", "--x"), container={"args": ["y z", ""]})
    plugin.created(p)
    wait_for(lambda: "agent agent --x y z" in plugin.logs(p)[1])


REFUSED = [
    (pod(annotation="other"), 422, "interlink.eu/job"),
    (pod(command=("/bin/sh", "-c", "id")), 422, "command"),
    (pod(command=("interlink-cri", "serve")), 422, "command"),
    (pod(initContainers=[{"name": "i", "image": "x"}]), 422, "init"),
    (pod(container={"env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}), 422, "X"),
    (pod(uid="../../etc"), 400, "uid"),
    (pod(uid="A" * 36), 400, "uid"),
    (pod(uid="a" * 65), 400, "uid"),
    (pod(volumes=[{"name": "v", "secret": {"secretName": "nowhere"}}],
         container={"volumeMounts": [{"name": "v", "mountPath": "/v"}]}), 422, "nowhere"),
    (pod(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
         container={"volumeMounts": [{"name": "v", "mountPath": "/v"}]}), 422, "persistentVolumeClaim"),
    (pod(volumes=[{"name": "../v", "emptyDir": {}}],
         container={"volumeMounts": [{"name": "../v", "mountPath": "/v"}]}), 400, "../v"),
]


@pytest.mark.parametrize("the_pod, code, word", REFUSED)
def test_refused(plugin, the_pod, code, word):
    status, text = plugin.create(the_pod)
    assert status == code and word in text, (status, text)
    assert list((plugin.dir / "jobs").iterdir()) == []
    assert list((plugin.dir / "records").iterdir()) == []


@pytest.mark.parametrize("key", ["../x", "/x", "a/../../x", "", "a//b", ".", ".."])
def test_keys_do_not_leave_their_volume(plugin, key):
    p = pod(volumes=[{"name": "v", "projected": {"sources": []}}],
            container={"volumeMounts": [{"name": "v", "mountPath": "/v"}]})
    status, text = plugin.create(p, projected=[{"metadata": {"name": "v"}, "data": {key: "x"}}])
    assert status == 400, text
    assert list((plugin.dir / "jobs").iterdir()) == []


def test_a_program_that_cannot_start(plugins, tmp_path):
    plugin = plugins("#!/no/such/interpreter\n")
    status, text = plugin.create(pod())
    assert status in (404, 500) and "agent.sh" in text, (status, text)
    assert list((plugin.dir / "records").iterdir()) == []


# ---- requests that make no sense ----

GARBAGE = [
    ("POST", "/create", b"", 400), ("POST", "/create", b"null", 400), ("POST", "/create", b"{", 400),
    ("POST", "/create", b"[]", 400), ("POST", "/create", b"{}", 400), ("POST", "/create", b'{"pod":null}', 400),
    ("POST", "/create", b'{"pod":[]}', 400), ("POST", "/create", b'{"pod":{"spec":{"containers":{}}}}', 400),
    ("POST", "/create", b"\xff\xfe", 400), ("POST", "/create", b"[" * 5000, 413),
    ("POST", "/create", b'{"pod":{"metadata":{"uid":"a\\u0000b"}}}', 400),
    ("GET", "/create", b"{}", 405), ("DELETE", "/create", b"{}", 405),
    ("GET", "/status", b"{}", 400), ("GET", "/status", b"[1]", 400), ("GET", "/status", b"[null]", 400),
    ("GET", "/status", b'[{"metadata":7}]', 400),
    ("POST", "/delete", b"", 400), ("POST", "/delete", b"null", 400), ("POST", "/delete", b"[]", 400),
    ("POST", "/delete", b"{}", 400), ("GET", "/delete", b"{}", 405),
    ("GET", "/getLogs", b"", 400), ("GET", "/getLogs", b"{}", 400),
    ("GET", "/getLogs", b'{"PodUID":"nope"}', 404),
    ("GET", "/getLogs", b'{"PodUID":"a","Opts":{"Tail":1,"Bytes":1}}', 400),
    ("GET", "/getLogs", b'{"PodUID":"a","Opts":{"SinceSeconds":1,"SinceTime":"2026-01-01T00:00:00Z"}}', 400),
    ("GET", "/getLogs", b'{"PodUID":"a","Opts":{"Tail":-1}}', 400),
    ("GET", "/nowhere", b"", 404), ("GET", "/", b"", 404),
    ("GET", "/status", b"", 200), ("GET", "/status", b"null", 200), ("GET", "/status", b"[]", 200),
    ("PATCH", "/pinglink", b"", 200),
]


def test_garbage(plugin):
    p = pod()
    plugin.created(p)
    for method, path, body, code in GARBAGE:
        status, text = plugin.raw(method, path, body)
        assert status == code, (method, path, body[:60], status, text)
        assert text
    assert "running" in plugin.state(p)
    assert len(list((plugin.dir / "jobs").iterdir())) == 1


def test_too_large(plugin):
    # Answered on the length alone.
    connection = kit.UnixHTTP(plugin.socket, 10)
    connection.putrequest("POST", "/delete")
    connection.putheader("Content-Length", str(2 << 20))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_status_of_many(plugin):
    known, unknown = pod(), pod()
    plugin.created(known)
    states = plugin.states(unknown, known)
    assert states[unknown["metadata"]["uid"]] == {}
    assert "running" in states[known["metadata"]["uid"]]


def test_ping_says_what_there_is(plugin):
    answer = json.loads(plugin.raw("GET", "/status", b"[]")[1])
    assert answer["status"] == "ok"
    assert int(answer["resources"]["cpu"]) >= 1
    assert answer["resources"]["memory"].endswith("i")
    assert int(answer["resources"]["pods"]) > 0


# ---- the end of a job ----

def test_exit_code(plugins):
    plugin = plugins("#!/bin/sh\nexit 7\n")
    p = pod()
    plugin.created(p)
    state = wait_for(lambda: plugin.state(p).get("terminated"))
    assert state["exitCode"] == 7 and state["reason"] == "Error" and state["finishedAt"]
    assert plugin.logs(p)[0] == 200
    assert plugin.delete(p)[0] == 200
    assert plugin.state(p) == {}


def test_exit_zero(plugins):
    plugin = plugins("#!/bin/sh\n:\n")
    p = pod()
    plugin.created(p)
    state = wait_for(lambda: plugin.state(p).get("terminated"))
    assert state["exitCode"] == 0 and state["reason"] == "Completed"


def test_killed_agent_takes_everything_along(plugins):
    # A child in a session of its own, one with an empty environment, and a grandchild whose parent has gone.
    plugin = plugins("""#!/bin/sh
setsid sleep 1001 &
(setsid sh -c 'sleep 1002 & sleep 1003') &
sleep 1004 &
wait
""")
    p = pod()
    plugin.created(p)
    pid = plugin.pid(p)
    marker = f"INTERLINK_JOB_DIR={plugin.job_dir(p)}".encode()

    def members():
        found = []
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and marker in open(f"/proc/{entry}/environ", "rb").read().split(b"\0"):
                    found.append(int(entry))
            except OSError:
                pass
        return found

    wait_for(lambda: len(members()) >= 6)
    os.kill(pid, signal.SIGKILL)
    state = wait_for(lambda: plugin.state(p).get("terminated"))
    assert state["exitCode"] == 137 and state["reason"] == "Error" and state["signal"] == 9
    wait_for(lambda: members() == [], what="no process of the job")
    assert plugin.job_dir(p).exists()
    assert plugin.delete(p)[0] == 200
    assert not plugin.job_dir(p).exists()


def test_grace_period(plugins):
    plugin = plugins(STUBBORN)
    p = pod()
    plugin.created(p)
    pid = plugin.pid(p)
    wait_for(lambda: (plugin.job_dir(p) / "ready").exists())
    start = time.monotonic()
    assert plugin.delete(p, grace=1)[0] == 200
    assert 0.9 < time.monotonic() - start < 4
    assert not alive(pid)


def test_grace_of_the_pod_and_a_shorter_one_later(plugins):
    plugin = plugins(STUBBORN.replace("''", "'touch term'"))
    p = pod(terminationGracePeriodSeconds=600)
    plugin.created(p)
    pid = plugin.pid(p)
    wait_for(lambda: (plugin.job_dir(p) / "ready").exists())
    with pytest.raises(TimeoutError):
        plugin.delete(p, timeout=1.0)
    wait_for(lambda: (plugin.job_dir(p) / "term").exists(), what="the TERM")
    assert alive(pid)
    assert "running" in plugin.state(p)
    assert plugin.create(p)[0] == 503  # not while it is ending
    assert plugin.delete(p, grace=0)[0] == 200
    assert not alive(pid)


def test_term_ends_it_at_once(plugin):
    p = pod()
    plugin.created(p)
    wait_for(lambda: "agent" in plugin.logs(p)[1])
    start = time.monotonic()
    assert plugin.delete(p, grace=30)[0] == 200
    assert time.monotonic() - start < 5


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_mounts_below_the_job_are_taken_off(plugins):
    plugin = plugins("#!/bin/sh\nmkdir -p 'a b' c && mount -t tmpfs none 'a b' && mount -t tmpfs none c && touch done\n"
                     "exec sleep 1000\n")
    p = pod()
    plugin.created(p)
    wait_for(lambda: (plugin.job_dir(p) / "done").exists())
    assert str(plugin.job_dir(p)) in open("/proc/self/mountinfo").read()
    assert plugin.delete(p, grace=0)[0] == 200
    assert str(plugin.job_dir(p)) not in open("/proc/self/mountinfo").read()
    assert not plugin.job_dir(p).exists()


def cgroup_parent():
    for path in ("/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
        if os.path.isfile(path + "/cgroup.procs") and os.access(path, os.W_OK):
            return path
    return None


@pytest.mark.skipif(os.geteuid() != 0 or cgroup_parent() is None, reason="needs cgroups that root can make")
def test_cgroups_that_the_agent_named_are_removed(plugins):
    group = f"{cgroup_parent()}/interlink-test-{os.getpid()}"
    plugin = plugins(f"""#!/bin/sh
echo {group} >>cgroups
echo {cgroup_parent()} >>cgroups
echo /tmp >>cgroups
mkdir {group} {group}/inner
env -i setsid sh -c 'echo $$ >{group}/inner/cgroup.procs; exec sleep 1005' &
wait
""")
    p = pod()
    plugin.created(p)
    procs = f"{group}/inner/cgroup.procs"
    try:
        member = int(wait_for(lambda: os.path.exists(procs) and open(procs).read().strip()))
        os.kill(plugin.pid(p), signal.SIGKILL)
        wait_for(lambda: not os.path.exists(group), what="the cgroup's removal")
        assert not alive(member)
        assert plugin.delete(p)[0] == 200
        assert os.path.isdir("/tmp")
    finally:
        for left in (group + "/inner", group):
            if os.path.exists(left):
                os.rmdir(left)


# ---- restarts ----

def test_kill_and_restart(plugin):
    pods = [pod() for _ in range(5)]
    jids = [plugin.created(p) for p in pods]
    pids = [plugin.pid(p) for p in pods]
    plugin.kill()
    os.kill(pids[0], signal.SIGKILL)  # ends while nobody looks
    plugin.start()
    assert all("running" in plugin.state(p) for p in pods[1:])
    assert plugin.state(pods[0])["terminated"]["exitCode"] == 137
    assert [plugin.created(p) for p in pods] == jids
    assert [plugin.pid(p) for p in pods] == pids
    os.kill(pids[1], signal.SIGKILL)  # ends while it is nobody's child
    state = wait_for(lambda: plugin.state(pods[1]).get("terminated"))
    assert state["exitCode"] == 137 and state["signal"] == 9
    for p, pid in zip(pods, pids):
        assert plugin.delete(p, grace=5)[0] == 200
        assert not alive(pid)
    assert list((plugin.dir / "jobs").iterdir()) == []
    assert list((plugin.dir / "records").iterdir()) == []


def test_an_end_survives_a_restart(plugins):
    plugin = plugins("#!/bin/sh\nexit 9\n")
    p = pod()
    plugin.created(p)
    wait_for(lambda: plugin.state(p).get("terminated"))
    assert plugin.stop() == 0
    plugin.start()
    assert plugin.state(p)["terminated"]["exitCode"] == 9


def test_a_delete_survives_a_restart(plugins):
    plugin = plugins(STUBBORN)
    p = pod(terminationGracePeriodSeconds=1)
    plugin.created(p)
    pid = plugin.pid(p)
    wait_for(lambda: (plugin.job_dir(p) / "ready").exists())
    with pytest.raises(TimeoutError):
        plugin.delete(p, grace=600, timeout=0.5)
    plugin.kill()
    plugin.start()
    wait_for(lambda: not alive(pid), what="the end of the job")
    wait_for(lambda: plugin.state(p) == {}, what="its removal")


def test_kill_in_the_middle_of_creates(plugin):
    """kill -9 at any instant: each job either exists once or not at all, and an answered one exists."""
    for round_number in range(8):
        answered, pods = set(), [pod() for _ in range(6)]
        killer = subprocess.Popen(["sh", "-c", f"sleep {0.004 * round_number:.3f}; kill -9 {plugin.process.pid}"])
        for p in pods:
            try:
                if plugin.create(p)[0] == 200:
                    answered.add(p["metadata"]["uid"])
            except OSError:
                break
        killer.wait()
        plugin.process.wait()
        plugin.start()
        for p in pods:
            state = plugin.state(p)
            if p["metadata"]["uid"] in answered:
                assert "running" in state, state
            wait_for(lambda p=p: plugin.create(p)[0] == 200, what="a create after what was left is gone")
        assert len(list((plugin.dir / "jobs").iterdir())) == len(pods)
        for p in pods:
            assert plugin.delete(p, grace=5)[0] == 200
        assert list((plugin.dir / "jobs").iterdir()) == []


def test_foreign_and_torn_records_are_set_aside(plugin):
    p = pod()
    plugin.created(p)
    assert plugin.stop() == 0
    records = plugin.dir / "records"
    (records / "torn.json").write_text('{"version":1,"uid":"to')
    (records / "empty.json").write_text("")
    (records / "foreign.json").write_text('{"version":1,"uid":"another"}')
    (records / "later.json").write_text('{"version":2,"uid":"later"}')
    (plugin.dir / "jobs" / "orphan").mkdir()
    (plugin.dir / "jobs" / "orphan" / "file").write_text("x")
    plugin.start()
    assert "running" in plugin.state(p)
    assert sorted(f.name for f in records.glob("*.bad")) == ["empty.json.bad", "foreign.json.bad", "later.json.bad",
                                                              "torn.json.bad"]
    wait_for(lambda: not (plugin.dir / "jobs" / "orphan").exists())
    (records / "torn.json.bad").unlink()


def test_two_plugins_do_not_share_a_folder(plugin):
    second = subprocess.run([*plugin.command, "--listen", f"unix://{plugin.dir}/second.sock"], capture_output=True, text=True,
                            timeout=10)
    assert second.returncode == 1
    assert "another plugin" in second.stderr


# ---- logs ----

LINES = "".join(f"2026-11-24T05:36:{i:02d}.000Z info  agent: line {i}\n" for i in range(50))


@pytest.fixture
def logged(plugins, tmp_path):
    (tmp_path / "lines").write_text(LINES)
    plugin = plugins(f"#!/bin/sh\ncat {tmp_path}/lines\ntouch ready\nwhile [ ! -e more ]; do sleep 0.02; done\necho more\n")
    p = pod()
    plugin.created(p)
    wait_for(lambda: (plugin.job_dir(p) / "ready").exists())
    return plugin, p


def test_log_options(logged):
    plugin, p = logged
    lines = LINES.splitlines(keepends=True)
    assert plugin.logs(p) == (200, LINES)
    assert plugin.logs(p, container="") == (200, LINES)
    assert plugin.logs(p, Tail=3) == (200, "".join(lines[-3:]))
    assert plugin.logs(p, Tail=50) == (200, LINES)
    assert plugin.logs(p, Tail=5000) == (200, LINES)
    assert plugin.logs(p, Bytes=100) == (200, LINES[:100])
    assert plugin.logs(p, SinceTime="2026-11-24T05:36:40Z") == (200, "".join(lines[40:]))
    assert plugin.logs(p, SinceTime="2099-01-01T00:00:00Z") == (200, "")
    assert plugin.logs(p, container="other")[0] == 404
    assert plugin.logs(p, Previous=True)[0] == 404
    assert plugin.logs(pod())[0] == 404


def test_follow_until_the_end(logged):
    plugin, p = logged
    connection = kit.UnixHTTP(plugin.socket, 10)
    connection.request("GET", "/getLogs", json.dumps(plugin.log_request(p, Follow=True, Tail=1)))
    response = connection.getresponse()
    assert b"line 49" in response.readline()
    (plugin.job_dir(p) / "more").touch()
    assert response.read() == b"more\n"
    connection.close()


def test_a_follower_that_leaves(logged):
    plugin, p = logged
    before = len(os.listdir(f"/proc/{plugin.process.pid}/fd"))
    connections = []
    for _ in range(20):
        connection = kit.UnixHTTP(plugin.socket, 10)
        connection.request("GET", "/getLogs", json.dumps(plugin.log_request(p, Follow=True)))
        assert connection.getresponse().readline()
        connections.append(connection)
    assert len(os.listdir(f"/proc/{plugin.process.pid}/fd")) >= before + 30
    for connection in connections:
        connection.sock.close()
        connection.close()
    wait_for(lambda: len(os.listdir(f"/proc/{plugin.process.pid}/fd")) <= before, what="the followers' descriptors")


def test_follow_ends_with_a_delete(logged):
    plugin, p = logged
    connection = kit.UnixHTTP(plugin.socket, 10)
    connection.request("GET", "/getLogs", json.dumps(plugin.log_request(p, Follow=True)))
    response = connection.getresponse()
    assert plugin.delete(p, grace=0)[0] == 200
    assert response.read().decode().startswith(LINES)
    connection.close()


# ---- starting ----

def test_tcp_is_refused_unless_allowed(tmp_path):
    command = [kit.PROGRAM, "plugin", "--dir", str(tmp_path / "d"), "--listen", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    assert done.returncode == 1 and "TCP" in done.stderr


def test_command_line(tmp_path):
    def run(*options):
        return subprocess.run([kit.PROGRAM, "plugin", *options], capture_output=True, text=True, timeout=10)

    assert run("--help").returncode == 0 and "Usage" in run("--help").stdout
    assert run("--no-such").returncode == 2
    assert run("word").returncode == 2
    assert run("--log-level", "loud").returncode == 2
    done = run("--backend", "nothing", "--dir", str(tmp_path / "d"))
    assert done.returncode == 1 and "nothing" in done.stderr
    config = tmp_path / "config.yaml"
    config.write_text("Dir: /tmp\nListen: x\n# comment\nBackennd: local\n")
    done = run("--config", str(config))
    assert done.returncode == 1 and "line 4" in done.stderr and "Backend" in done.stderr


def test_configuration_file(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(f"Dir: {tmp_path}/plugin\nLogLevel: debug\nProgram: {kit.script(tmp_path)}\n")
    plugin = kit.Plugin(tmp_path, "unused")
    plugin.command = [kit.PROGRAM, "plugin", "--config", str(config)]
    try:
        plugin.start()
        assert plugin.stop() == 0
    finally:
        plugin.close()


# ---- at the end: nothing is left ----

def test_a_hundred_jobs_leave_nothing(plugin):
    before = len(os.listdir(f"/proc/{plugin.process.pid}/fd"))
    for _ in range(100):
        p = pod()
        plugin.created(p)
        assert plugin.delete(p, grace=1)[0] == 200
    wait_for(lambda: len(os.listdir(f"/proc/{plugin.process.pid}/fd")) <= before)
    assert list((plugin.dir / "jobs").iterdir()) == []
    assert list((plugin.dir / "records").iterdir()) == []
    children = open(f"/proc/{plugin.process.pid}/task/{plugin.process.pid}/children").read().split()
    assert children == []
