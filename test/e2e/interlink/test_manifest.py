# SPDX-License-Identifier: Apache-2.0
"""Any interLink pod through our plugin: run from its manifest by our own agent, on this machine."""
import base64
import json
import os
import threading
import time

import kit
import pytest
from manifest_kit import busybox_image, container, ended, pod, running, statuses, wait_status
from images.build import docker_archive
from images.registry import Registry

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="containers of the plugin's own user: as root here")


@pytest.fixture(scope="module")
def registry():
    with Registry() as r:
        r.put("tests/busybox", "1", busybox_image())
        yield r


@pytest.fixture(scope="module")
def image(registry):
    return f"{registry.name}/tests/busybox:1"


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    import shutil
    import tempfile

    folder = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    p = kit.Plugin(folder, "")
    p.command = [a for a in p.command if a not in ("--program", "")]
    p.start()
    yield p
    for job in (p.dir / "jobs").iterdir():
        p.delete({"metadata": {"uid": job.name, "name": "x", "namespace": "default"}}, grace=0)
    p.close()
    shutil.rmtree(folder, ignore_errors=True)


def run(plugin, the_pod, **objects):
    jid = plugin.created(the_pod, **objects)
    assert jid
    return the_pod


def logs(plugin, the_pod, name, **opts):
    status, text = plugin.logs(the_pod, name, **opts)
    assert status == 200, (status, text)
    return text


def test_containers_in_order_and_their_states(plugin, image):
    p = run(plugin, pod([container("a", "echo out; echo err >&2; cat /shared/from-init; exit 7", image,
                                   volumeMounts=[{"name": "shared", "mountPath": "/shared"}]),
                         container("b", "echo last words >/dev/termination-log; exit 3", image)],
                        inits=[container("first", "echo one >/shared/from-init", image,
                                         volumeMounts=[{"name": "shared", "mountPath": "/shared"}]),
                               container("second", "echo two >>/shared/from-init", image,
                                         volumeMounts=[{"name": "shared", "mountPath": "/shared"}])],
                        volumes=[{"name": "shared", "emptyDir": {}}]))
    s = wait_status(plugin, p, ended())
    assert s["a"]["state"]["terminated"]["exitCode"] == 7
    assert s["a"]["state"]["terminated"]["reason"] == "Error"
    b = s["b"]["state"]["terminated"]
    assert (b["exitCode"], b["message"]) == (3, "last words\n")
    assert s["first"]["state"]["terminated"]["exitCode"] == 0 and s["first"]["ready"] is True
    assert s["first"]["state"]["terminated"]["finishedAt"] <= s["second"]["state"]["terminated"]["startedAt"]
    assert s["a"]["imageID"].startswith("sha256:") and s["a"]["image"] == image
    text = logs(plugin, p, "a")
    assert sorted(text.splitlines()) == ["err", "one", "out", "two"]
    # The second create is the same job.
    assert plugin.created(p) == json.loads(plugin.raw("GET", "/status", [p])[1])[0]["JID"]
    assert plugin.delete(p)[0] == 200
    assert plugin.delete(p)[0] == 404
    assert not plugin.job_dir(p).exists()


def test_environment_and_volumes(plugin, image):
    env = [{"name": "A", "value": "a b'c\"$HOME\nline2"}, {"name": "B", "value": "$(A)-$$(A)-$(NONE)"},
           {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "a.txt"}}},
           {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "pw"}}},
           {"name": "GONE", "valueFrom": {"secretKeyRef": {"name": "none", "key": "x", "optional": True}}},
           {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
           {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
           {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}}]
    script = ("printf '%s|' \"$A\" \"$B\" \"$KEY\" \"$PW\" \"${GONE-unset}\" \"$ME\" \"$APP\" \"$MEM\" \"$PRE_a_txt\" \"$FROM_IMAGE\"; echo;"
              "cat /cfg/sub/one /sec/pw /proj/p /one.txt; ls /cfg; stat -Lc %a /sec/pw /cfg/sub/one; cat /host/f; touch /cfg/x 2>/dev/null || echo read-only")
    host = plugin.dir.parent / "host"
    host.mkdir(exist_ok=True)
    (host / "f").write_text("from the host\n")
    p = pod([container("main", script, image, env=env,
                       envFrom=[{"prefix": "PRE_", "configMapRef": {"name": "cm2"}}],
                       resources={"limits": {"memory": "64Mi", "cpu": "1"}},
                       volumeMounts=[{"name": "cfg", "mountPath": "/cfg"}, {"name": "sec", "mountPath": "/sec", "readOnly": True},
                                     {"name": "proj", "mountPath": "/proj"}, {"name": "host", "mountPath": "/host"},
                                     {"name": "cfg2", "mountPath": "/one.txt", "subPath": "a.txt"}])],
            volumes=[{"name": "cfg", "configMap": {"name": "cm", "items": [{"key": "a.txt", "path": "sub/one", "mode": 0o600}]}},
                     {"name": "cfg2", "configMap": {"name": "cm"}},
                     {"name": "sec", "secret": {"secretName": "sec", "defaultMode": 0o400}},
                     {"name": "proj", "projected": {"sources": []}},
                     {"name": "host", "hostPath": {"path": str(host), "type": "Directory"}}])
    run(plugin, p, configmaps=[{"metadata": {"name": "cm"}, "data": {"a.txt": "cfg-a\n"}},
                               {"metadata": {"name": "cm2"}, "data": {"a_txt": "prefixed"}}],
        secrets=[{"metadata": {"name": "sec"}, "data": {"pw": base64.b64encode(b"hunter2\n").decode()}}],
        projected=[{"metadata": {"name": "proj"}, "data": {"p": "projected\n"}}])
    s = wait_status(plugin, p, ended("main"))
    text = logs(plugin, p, "main")
    assert s["main"]["state"]["terminated"]["exitCode"] == 0, text
    assert text.startswith("a b'c\"$HOME\nline2|a b'c\"$HOME\nline2-$(A)-$(NONE)|cfg-a\n|hunter2\n|unset|" +
                           p["metadata"]["name"] + "|test|64|prefixed|yes|\n"), text
    assert text.endswith("cfg-a\nhunter2\nprojected\ncfg-a\nsub\n400\n600\nfrom the host\nread-only\n"), text
    # Secrets lie in files that only their owner reads.
    folder = plugin.job_dir(p)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "manifest.json").stat().st_mode & 0o777 == 0o600
    plugin.delete(p)


def test_restarts_probes_hooks_and_a_sidecar(plugin, image):
    """Readiness by a command, liveness that fails, postStart and preStop, a sidecar that is there before and after."""
    port = kit_free_port()
    shared = [{"name": "s", "mountPath": "/s"}]
    p = pod([container("web", f"mkdir -p /w; echo hi >/w/index.html; httpd -f -p 127.0.0.1:{port} -h /w & trap 'exit 0' TERM; wait", image,
                       ports=[{"name": "http", "containerPort": port}], volumeMounts=shared,
                       startupProbe={"httpGet": {"port": "http", "path": "/index.html"}, "periodSeconds": 1, "failureThreshold": 30},
                       readinessProbe={"tcpSocket": {"port": port}, "periodSeconds": 1},
                       lifecycle={"postStart": {"exec": {"command": ["/bin/sh", "-c", "echo post >>/s/log"]}},
                                  "preStop": {"exec": {"command": ["/bin/sh", "-c", "echo pre >>/s/log"]}}}),
             container("ill", "trap 'echo told; exit 3' TERM; echo begin; while :; do sleep 0.1; done", image,
                       livenessProbe={"exec": {"command": ["/bin/false"]}, "initialDelaySeconds": 2, "failureThreshold": 1})],
            restart="Always",
            inits=[container("side", "trap 'cat /s/log; echo bye; exit 0' TERM; echo side >>/s/log; while :; do sleep 0.1; done", image,
                             restartPolicy="Always", volumeMounts=shared),
                   container("init", "while [ ! -e /s/log ]; do sleep 0.05; done", image, volumeMounts=shared)],
            volumes=[{"name": "s", "emptyDir": {}}], terminationGracePeriodSeconds=20)
    run(plugin, p)
    s = wait_status(plugin, p, lambda s: s["web"]["ready"] and s["ill"]["restartCount"] >= 1 and s["side"]["ready"])
    last = s["ill"]["lastState"]["terminated"]
    assert last["exitCode"] == 3 and "liveness" in last["message"], last
    assert s["init"]["state"]["terminated"]["exitCode"] == 0
    kit.wait_for(lambda: "begin" in logs(plugin, p, "ill", Previous=True), what="the log of the attempt before")
    assert "told" in logs(plugin, p, "ill", Previous=True)
    # A follower sees the sidecar out, after all the others.
    seen = []
    follower = threading.Thread(target=lambda: seen.append(logs(plugin, p, "side", Follow=True)))
    follower.start()
    assert plugin.delete(p, timeout=60)[0] == 200
    follower.join(timeout=20)
    assert not follower.is_alive()
    assert seen[0].splitlines()[-3:] == ["post", "pre", "bye"] or sorted(seen[0].splitlines()) == ["bye", "post", "pre", "side"], seen[0]


def kit_free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_log_options(plugin, image):
    p = run(plugin, pod([container("main", "for i in 1 2 3 4 5; do echo line $i; sleep 0.01; done; printf unfinished", image)]))
    wait_status(plugin, p, ended("main"))
    every = [f"line {i}" for i in range(1, 6)]
    assert logs(plugin, p, "main").splitlines() == every + ["unfinished"]
    assert logs(plugin, p, "main", Tail=2).splitlines() == ["line 5", "unfinished"]
    assert logs(plugin, p, "main", Tail=6).splitlines() == every + ["unfinished"]
    assert logs(plugin, p, "main", Tail=100).splitlines() == every + ["unfinished"]
    assert logs(plugin, p, "main", Bytes=9) == "line 1\nli"
    stamped = logs(plugin, p, "main", Timestamps=True).splitlines()
    assert [s.split(" ", 1)[1] for s in stamped] == every + ["unfinished"]
    third = stamped[2].split(" ")[0]
    assert logs(plugin, p, "main", SinceTime=third).splitlines() == every[2:] + ["unfinished"]
    assert logs(plugin, p, "main", SinceTime=third, Tail=2, Timestamps=True).splitlines() == stamped[-2:]
    assert logs(plugin, p, "main", SinceTime=third, Tail=50).splitlines() == every[2:] + ["unfinished"]
    assert logs(plugin, p, "main", SinceSeconds=3600).splitlines() == every + ["unfinished"]
    assert logs(plugin, p, "main", Follow=True).splitlines() == every + ["unfinished"]
    assert plugin.logs(p, "main", Tail=1, Bytes=1)[0] == 400
    assert plugin.logs(p, "main", SinceSeconds=1, SinceTime=third)[0] == 400
    assert plugin.logs(p, "main", Previous=True)[0] == 404
    assert plugin.logs(p, "other")[0] == 404
    assert plugin.logs(p, "../main")[0] == 400
    plugin.delete(p)


def test_a_large_log_is_rotated_and_bounded(plugin, image):
    """26 MB in 10 MiB parts; the last lines come without reading all; a follower gets every line over the parts' ends."""
    p = run(plugin, pod([container("main", "while [ ! -e /go/go ]; do sleep 0.05; done; seq 1 400000 | sed 's/$/ "
                                           "0123456789/'", image,
                                   volumeMounts=[{"name": "go", "mountPath": "/go"}])],
                        volumes=[{"name": "go", "hostPath": {"path": str(plugin.dir.parent / "go"), "type": "DirectoryOrCreate"}}]))
    wait_status(plugin, p, running("main"))
    seen = []
    follower = threading.Thread(target=lambda: seen.append(plugin.raw("GET", "/getLogs", plugin.log_request(p, "main", Follow=True),
                                                                      timeout=120)[1]))
    follower.start()
    (plugin.dir.parent / "go" / "go").write_text("")
    wait_status(plugin, p, ended("main"), seconds=90)
    follower.join(timeout=60)
    lines = seen[0].splitlines()
    assert len(lines) == 400000 and lines[0] == "1 0123456789" and lines[-1] == "400000 0123456789"
    assert len(list((plugin.job_dir(p) / "logs" / "main").glob("0.log*"))) >= 3
    # Twenty that do not read: what they do not take is not read from the disk, and the plugin goes on.
    idle = []
    for _ in range(20):
        connection = kit.UnixHTTP(plugin.socket, 30)
        connection.request("GET", "/getLogs", json.dumps(plugin.log_request(p, "main")))
        idle.append(connection)
    before = time.monotonic()
    assert logs(plugin, p, "main", Tail=1) == "400000 0123456789\n"
    assert time.monotonic() - before < 10
    pages = int(open(f"/proc/{plugin.process.pid}/io").read().split("rchar:")[1].split()[0])
    assert logs(plugin, p, "main", Tail=1) == "400000 0123456789\n"
    read = int(open(f"/proc/{plugin.process.pid}/io").read().split("rchar:")[1].split()[0]) - pages
    assert read < 32 << 20, f"{read} bytes read for one line"
    for connection in idle:
        connection.close()
    assert logs(plugin, p, "main", Tail=3).splitlines() == [f"{i} 0123456789" for i in (399998, 399999, 400000)]
    plugin.delete(p)


@pytest.mark.parametrize("the_pod, word", [
    (lambda i: pod([container("../x", "true", i)]), "containers[0].name"),
    (lambda i: pod([container("a", "true", i), container("a", "true", i)]), "two called"),
    (lambda i: pod([container(f"c{k}", "true", i) for k in range(10000)]), "at most"),
    (lambda i: pod([container("a", "true", i, volumeMounts=[{"name": "none", "mountPath": "/x"}])]), "no volume"),
    (lambda i: pod([container("a", "true", i, volumeMounts=[{"name": "e", "mountPath": "/x", "subPath": "../../etc"}])],
                   volumes=[{"name": "e", "emptyDir": {}}]), "subPath"),
    (lambda i: pod([container("a", "true", i)], volumes=[{"name": "../e", "emptyDir": {}}]), "volumes[0].name"),
    (lambda i: pod([container("a", "true", i)], volumes=[{"name": "n", "nfs": {"server": "x"}}]), "nfs"),
    (lambda i: pod([container("a", "true", i, volumeMounts=[{"name": "c", "mountPath": "/x"}])],
                   volumes=[{"name": "c", "configMap": {"name": "cm", "items": [{"key": "k", "path": "../../evil"}]}}]), "items[0].path"),
    (lambda i: pod([container("a", "true", i, volumeMounts=[{"name": "c", "mountPath": "/x"}])],
                   volumes=[{"name": "c", "configMap": {"name": "cm"}}]), "did not come"),
    (lambda i: pod([container("a", "true", i, env=[{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}])]),
     "secretKeyRef"),
    (lambda i: pod([container("a", "true", i, livenessProbe={"grpc": {"port": 1}})]), "gRPC"),
    (lambda i: pod([container("a", "true", i)], restart="Sometimes"), "restartPolicy"),
    (lambda i: pod([container("a", "true", "")]), "image"),
    (lambda i: pod([]), "containers"),
])
def test_refused(plugin, image, the_pod, word):
    p = the_pod(image)
    status, text = plugin.create(p)
    assert status in (400, 422) and word in text, (status, text)
    assert not plugin.job_dir(p).exists()
    assert plugin.delete({"metadata": p["metadata"]})[0] == 404


def test_an_image_that_is_nowhere(plugin, registry):
    p = run(plugin, pod([container("main", "true", f"{registry.name}/tests/none:1")]))
    s = wait_status(plugin, p, lambda s: s["main"]["state"].get("waiting", {}).get("reason") in ("ErrImagePull", "ImagePullBackOff"))
    assert "tests/none" in s["main"]["state"]["waiting"]["message"]
    assert plugin.delete(p, grace=1)[0] == 200


def test_the_plugin_may_die_at_any_time(plugin, image):
    p = pod([container("main", "trap 'echo told; exit 5' TERM; echo begin; while :; do sleep 0.1; done", image)])
    jid = plugin.created(p)
    plugin.kill()
    plugin.start()
    wait_status(plugin, p, running("main"))
    kit.wait_for(lambda: logs(plugin, p, "main") == "begin\n", 30, "its first word")
    assert plugin.created(p) == jid
    plugin.kill()
    os.kill(plugin.pid(p), 15)  # the batch system says so, while nobody looks
    kit.wait_for(lambda: not kit.alive(plugin.pid(p)), 30, "the agent's end")
    plugin.start()
    s = wait_status(plugin, p, ended("main"))
    assert s["main"]["state"]["terminated"]["exitCode"] == 5
    assert logs(plugin, p, "main").splitlines() == ["begin", "told"]
    assert plugin.delete(p)[0] == 200


SAMPLES = kit.TOP / "test" / "fixtures" / "interlink"


@pytest.mark.parametrize("name", ["plugin-create-RetrievedPodData.json", "api-create-request.json"])
def test_captured_bodies(plugin, tmp_path, name):
    """What the real API server sends to a plugin, and what the virtual kubelet sends to it, byte for byte but for the image's place."""
    archive = tmp_path / "busy.tar"
    docker_archive(str(archive), {("busy:1",): busybox_image()})
    body = (SAMPLES / name).read_text().replace("/images/busy.sif", str(archive)).replace("sleep 3; ", "")
    p = json.loads(body)["pod"]
    status, text = plugin.raw("POST", "/create", body)
    assert status == 200 and json.loads(text)["PodUID"] == p["metadata"]["uid"], (status, text)
    assert plugin.raw("POST", "/create", body) == (status, text)
    s = wait_status(plugin, p, ended())
    assert s["main"]["state"]["terminated"]["exitCode"] == 7
    text = plugin.raw("GET", "/getLogs", json.loads((SAMPLES / "plugin-getLogs-request.json").read_text()))[1]
    for word in ("hi", "FOO=a b'c\"$HOME", "cfg-a", "hunter2", "err"):
        assert word in text.splitlines() or word in text, text
    assert plugin.raw("POST", "/delete", p)[0] == 200
    assert plugin.raw("GET", "/status", [])[0] == 200


def test_ping(plugin):
    status, text = plugin.raw("GET", "/status", [])
    resources = json.loads(text)["resources"]
    assert status == 200 and int(resources["cpu"]) >= 1 and resources["memory"] and int(resources["pods"]) > 0


@pytest.mark.parametrize("change", [
    lambda b: b.update(container=7), lambda b: b.update(pod=[]), lambda b: b["pod"]["spec"].update(containers={}),
    lambda b: b["pod"]["spec"].update(volumes="x"), lambda b: b["pod"]["metadata"].update(uid="../../x"),
    lambda b: b["pod"]["spec"]["containers"][0].update(env=[7]), lambda b: b["pod"]["spec"]["containers"][0].update(args="x"),
    lambda b: b["container"][0]["secrets"][0].update(data={"pw": "!"}),
    lambda b: b["container"][0]["configMaps"][0].update(data={"../../etc/passwd": "x"}),
    lambda b: b["pod"]["spec"].update(terminationGracePeriodSeconds="soon"),
])
def test_hostile_bodies_change_nothing(plugin, change):
    body = json.loads((SAMPLES / "plugin-create-RetrievedPodData.json").read_text())
    change(body)
    before = sorted(plugin.dir.rglob("*"))
    status, text = plugin.raw("POST", "/create", body)
    assert status in (400, 422) and text, (status, text)
    assert sorted(plugin.dir.rglob("*")) == before


def test_deadline(plugin, image):
    p = run(plugin, pod([container("main", "trap 'exit 9' TERM; while :; do sleep 0.1; done", image)], activeDeadlineSeconds=3))
    s = wait_status(plugin, p, ended("main"))
    assert s["main"]["state"]["terminated"]["exitCode"] == 9
    assert "DeadlineExceeded" in s["main"]["state"]["terminated"]["message"]
    plugin.delete(p)


def test_by_hand(image, plugin, tmp_path):
    """agent --manifest without any plugin: only the store is the plugin's."""
    import subprocess

    p = run(plugin, pod([container("main", "true", image)]))
    wait_status(plugin, p, ended())
    folder = tmp_path / "job"
    folder.mkdir(mode=0o700)
    (folder / "images.json").write_bytes((plugin.job_dir(p) / "images.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps(pod([container("main", "echo alone; exit 4", image)])))
    environment = {**os.environ, "INTERLINK_IMAGES": str(plugin.dir / "images"), "INTERLINK_NAMESPACES": "ipc,uts,pid"}
    done = subprocess.run([kit.PROGRAM, "agent", "--manifest", str(folder / "manifest.json")], env=environment, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 4, done.stderr
    assert (folder / "logs" / "main" / "0.log").read_text().endswith(" stdout F alone\n")
    state = json.loads((folder / "status.json").read_text())[0]["containers"][0]["state"]
    assert state["terminated"]["exitCode"] == 4
    (folder / "manifest.json").write_text("{}")
    done = subprocess.run([kit.PROGRAM, "agent", "--manifest", str(folder / "manifest.json")], env=environment, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 64 and "uid" in done.stderr
    plugin.delete(p)


def test_a_pull_goes_on_in_the_next_life(plugin, registry):
    p = run(plugin, pod([container("main", "echo at last", f"{registry.name}/tests/late:1")]))
    wait_status(plugin, p, lambda s: s["main"]["state"].get("waiting", {}).get("reason") == "ErrImagePull")
    plugin.kill()
    registry.put("tests/late", "1", busybox_image(Labels={"late": "yes"}))
    plugin.start()
    wait_status(plugin, p, ended())
    assert logs(plugin, p, "main") == "at last\n"
    plugin.delete(p)


def test_kill_in_the_middle_of_creates(plugin, image):
    """Whatever was answered runs, once; what was not may be asked for again."""
    pods = [pod([container("main", "echo ran; exit 3", image)]) for _ in range(6)]
    answered = {}

    def create(p):
        try:
            status, text = plugin.create(p)
        except OSError:
            return
        if status == 200:
            answered[p["metadata"]["uid"]] = json.loads(text)["PodJID"]

    threads = [threading.Thread(target=create, args=(p,)) for p in pods]
    for t in threads[:3]:
        t.start()
    plugin.kill()
    for t in threads[:3]:
        t.join()
    plugin.start()
    for p in pods:
        # One that was not answered is removed first: 503 until then.
        kit.wait_for(lambda p=p: plugin.create(p)[0] == 200, what="a create")
        jid = plugin.created(p)
        assert answered.get(p["metadata"]["uid"], jid) == jid
    for p in pods:
        s = wait_status(plugin, p, ended())
        assert s["main"]["state"]["terminated"]["exitCode"] == 3 and logs(plugin, p, "main") == "ran\n"
        assert plugin.delete(p)[0] == 200


def test_a_deletion_says_how_long(plugin, image):
    """Longer than the pod's own grace period."""
    folder = plugin.dir.parent / "slow-end"
    p = run(plugin, pod([container("main", "trap 'sleep 2; echo whole >/h/end; exit 0' TERM; echo up; while :; do sleep 0.1; done", image,
                                   volumeMounts=[{"name": "h", "mountPath": "/h"}])], terminationGracePeriodSeconds=1,
                        volumes=[{"name": "h", "hostPath": {"path": str(folder), "type": "DirectoryOrCreate"}}]))
    kit.wait_for(lambda: logs(plugin, p, "main") == "up\n", what="its first word")
    assert plugin.delete(p, grace=20)[0] == 200
    assert (folder / "end").read_text() == "whole\n"
