# SPDX-License-Identifier: Apache-2.0
"""Volumes of pods whose job runs where the node's folders are not to be seen."""
import hashlib
import os
import subprocess
import tempfile
import time

import pytest
from cri import pb, refused
from kubelet_dir import Elsewhere, Kubelet, Node, Wire, mount, wait
from serving import USER, Pod, free_port

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="mount namespaces of a node and of another machine are made as root")


@pytest.fixture(scope="module", params=["root", "user"])
def serve(request, images):
    user = USER if request.param == "user" else None
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    wire = Wire()
    wire.relay = free_port()
    server = Node(root, user=user, config=f"""
Relay:
  Listen: 127.0.0.1:{wire.relay}
  Advertise: 127.0.0.1:{wire.port}
Handlers:
  - Name: cluster
    Target: unix://{root}/remote.sock
SharedPaths: [{root}/shared]
""")
    server.kind = request.param
    server.wire = wire
    server.kubelet = Kubelet(server.root / "kubelet", user)
    (server.root / "shared").mkdir()
    (server.root / "shared").chmod(0o777)
    server.plugin = Elsewhere(server, server.kubelet.root)
    server.plugin.start()
    server.start()
    assert server.ctl("load", str(images)).returncode == 0
    yield server
    server.client.remove_everything()
    left = os.listdir(server.root / "remote" / "jobs")
    server.plugin.stop()
    server.finish()
    wire.listener.close()
    assert not left


@pytest.fixture
def cri(serve):
    yield serve.client
    serve.client.remove_everything()


@pytest.fixture
def pod(serve, cri):
    made = Pod(serve, cri, "volumes")
    made.uid = made.config.metadata.uid
    return made


def sh(cri, container, script):
    done = cri.exec_sync(container, "sh", "-c", script)
    assert done.exit_code == 0, done.stderr
    return done.stdout.decode()


def test_files_modes_and_owners(serve, cri, pod):
    binary = bytes(range(256)) * 5
    large = os.urandom(1 << 20)
    kubelet = serve.kubelet
    cm = kubelet.projected(pod.uid, "configmap", "cm", {"text": b"hello", "binary": binary, "large": large, "empty": b"",
                                                        "run.sh": (b"#!/bin/sh\necho ran\n", 0o555)})
    (cm / "nested").mkdir()  # kubelet makes it for a mount inside
    secret = kubelet.projected(pod.uid, "secret", "sec", {"password": (b"hunter2", 0o440)}, group=2000)
    token = kubelet.projected(pod.uid, "projected", "kube-api-access", {"token": (b"t1", 0o600), "a/b/c": b"deep"})
    labels = kubelet.projected(pod.uid, "downward-api", "down", {"labels": b"a=\"b\"\n"})
    scratch = kubelet.empty_dir(pod.uid, "scratch", 0o2777, 2000)
    hosts = kubelet.hosts(pod.uid, "# Kubernetes-managed hosts file.\n192.0.2.7\tthe-pod\n")
    kubelet.own()
    container = pod.run("sleep", "1000", mounts=[
        mount(cm, "/cm", True), mount(secret, "/sec", True), mount(token, "/token", True), mount(labels, "/down", True),
        mount(scratch, "/scratch"), mount(scratch, "/cm/nested"), mount(hosts, "/etc/hosts")])
    assert sh(cri, container, "cat /cm/text; sh /cm/run.sh; cat /token/a/b/c /down/labels; grep -c the-pod /etc/hosts") == \
        'helloran\ndeepa="b"\n1\n'
    sums = sh(cri, container, "sha256sum < /cm/binary; sha256sum < /cm/large; wc -c < /cm/empty").split()
    assert sums[::2] == [hashlib.sha256(binary).hexdigest(), hashlib.sha256(large).hexdigest(), "0"]
    mine = {"root": ("0", "2000"), "user": ("0", "0")}[serve.kind]
    assert sh(cri, container, "stat -c '%a %u %g' /sec/..data/password /scratch /cm/..data/run.sh /token/..data/token").split("\n")[:4] == [
        f"440 {mine[0]} {mine[1]}", f"2777 {mine[0]} {mine[1]}", "555 0 0", "600 0 0"]
    assert sh(cri, container, "readlink /cm/text; readlink /cm/..data").split()[0] == "..data/text"
    assert cri.exec_sync(container, "touch", "/cm/x").exit_code != 0
    # An emptyDir is the pod's, not one container's.
    sh(cri, container, "echo shared > /scratch/from-one; cat /cm/nested/from-one")
    other = pod.run("cat", "/scratch/from-one", mounts=[mount(scratch, "/scratch")])
    assert cri.wait_exit(other).exit_code == 0
    assert pod.output(other)[0] == b"shared\n"
    assert not list(scratch.iterdir()), "the emptyDir is the node's"


def test_changes_arrive_whole(serve, cri, pod):
    """One container reads all the time while its ConfigMap changes."""
    def write(text):
        return serve.kubelet.projected(pod.uid, "configmap", "cm", {"one": text, "two": text, f"only-{text.decode()}": b""})
    volume = write(b"0")
    serve.kubelet.own()
    # One folder, one version: what was opened before a change may be gone, but never another one's.
    reader = pod.run("sh", "-c", "while :; do cd /cm/..data 2>/dev/null || continue; a=$(cat one 2>/dev/null) b=$(cat two 2>/dev/null); "
                     '[ -z "$a" ] || [ -z "$b" ] || [ "$a" = "$b" ] || echo "mixed $a $b"; done', mounts=[mount(volume, "/cm", True)])
    for i in range(1, 26):
        write(str(i).encode())
        if i % 5 == 0:
            wait(lambda i=i: sh(cri, reader, "cat /cm/one 2>/dev/null || true") == str(i), 5, "a change did not arrive in 5 s")
    assert sorted(sh(cri, reader, "ls /cm").split()) == ["one", "only-25", "two"]
    assert len(sh(cri, reader, "ls -A /cm").split()) == 5, "old versions are left"
    assert serve.watches() == 1
    cri.runtime.StopContainer(pb.StopContainerRequest(container_id=reader, timeout=0))
    assert pod.output(reader)[0] == b""
    wait(lambda: serve.watches() == 0, 5, "the volume of a container that has ended is still watched")


def test_a_rotated_token_and_a_restart_of_serve(serve, cri, pod):
    tokens = serve.kubelet.projected(pod.uid, "projected", "access", {"token": (b"first", 0o600)})
    config = serve.kubelet.projected(pod.uid, "configmap", "cm", {"key": b"stays"})
    serve.kubelet.own()
    container = pod.run("sleep", "1000", mounts=[mount(tokens, "/t", True), mount(config, "/c", True)])
    untouched = sh(cri, container, "readlink /c/..data; readlink /t/..data").split()
    serve.kubelet.projected(pod.uid, "projected", "access", {"token": (b"second", 0o600)})
    wait(lambda: sh(cri, container, "cat /t/token") == "second", 5)
    # Killed while it sends, and while it is away.
    for text in (b"third", b"fourth"):
        serve.kubelet.projected(pod.uid, "projected", "access", {"token": (text, 0o600)})
        if text == b"third":
            serve.kill()
        else:
            serve.start()
            pod.wait_for_agent()
    wait(lambda: sh(cri, container, "cat /t/token") == "fourth", 10)
    serve.kubelet.projected(pod.uid, "projected", "access", {"token": (b"fifth", 0o600)})
    wait(lambda: sh(cri, container, "cat /t/token") == "fifth", 5)
    now = sh(cri, container, "readlink /c/..data; readlink /t/..data").split()
    assert now[0] == untouched[0] and now[1] != untouched[1], "what had not changed was sent again"


def test_a_connection_that_is_cut(serve, cri, pod):
    """Cut while it changes, for a while, and mended: the container has the last version, and was not restarted."""
    def write(text):
        return serve.kubelet.projected(pod.uid, "configmap", "cm", {"key": text, "large": os.urandom(1 << 20)})
    volume = write(b"0")
    serve.kubelet.own()
    container = pod.run("sleep", "1000", mounts=[mount(volume, "/cm", True)])
    for i in range(1, 5):
        write(str(i).encode())
        time.sleep(0.1 * i)
        serve.wire.cut()
        write(f"{i} away".encode())
        time.sleep(0.1)
        serve.wire.mend()
        pod.wait_for_agent()
    wait(lambda: sh(cri, container, "cat /cm/key") == "4 away", 10)
    assert len(sh(cri, container, "ls -A /cm").split()) == 4


def test_sub_paths(serve, cri, pod):
    kubelet = serve.kubelet
    cm = kubelet.projected(pod.uid, "configmap", "cm", {"one.conf": (b"old", 0o640), "other": b""})
    scratch = kubelet.empty_dir(pod.uid, "scratch", 0o2777, 2000)
    (scratch / "in" / "deep").mkdir(parents=True)
    subpaths = kubelet.pod(pod.uid) / "volume-subpaths"
    file, folder = subpaths / "cm" / "c" / "0", subpaths / "scratch" / "c" / "1"
    file.parent.mkdir(parents=True)
    file.touch()
    folder.mkdir(parents=True)
    kubelet.own()
    serve.mount("--bind", cm / "one.conf", file)
    serve.mount("--bind", scratch / "in" / "deep", folder)
    try:
        container = pod.run("sleep", "1000", mounts=[mount(file, "/etc/one.conf", True), mount(folder, "/part"), mount(scratch, "/whole")])
        assert sh(cri, container, "cat /etc/one.conf; stat -c ' %a' /etc/one.conf") == "old 640\n"
        sh(cri, container, "echo x > /part/x; cat /whole/in/deep/x")
        # Kubernetes does not refresh them either.
        kubelet.projected(pod.uid, "configmap", "cm", {"one.conf": b"new", "other": b""})
        # The next container sees what is in the job: here a file, though kubelet has made a folder for want of one.
        sh(cri, container, "rmdir /whole/in/deep 2>/dev/null || rm -r /whole/in/deep; echo file > /whole/in/deep")
        other = pod.run("cat", "/part", mounts=[mount(folder, "/part")])
        assert cri.wait_exit(other).exit_code == 0 and pod.output(other)[0] == b"file\n"
        assert sh(cri, container, "cat /etc/one.conf") == "old"
        assert cri.exec_sync(container, "sh", "-c", "echo x > /etc/one.conf").exit_code != 0
    finally:
        serve.umount(file)
        serve.umount(folder)


def test_memory(serve, cri, pod):
    ram = serve.kubelet.empty_dir(pod.uid, "ram")
    serve.mount("-t", "tmpfs", "-o", "size=3m,mode=0777", "none", ram)
    try:
        container = pod.run("sleep", "1000", mounts=[mount(ram, "/ram")])
        assert "tmpfs" in sh(cri, container, "grep ' /ram ' /proc/mounts")
        assert sh(cri, container, "df -k /ram | tail -1").split()[1] == "3072"
        assert cri.exec_sync(container, "dd", "if=/dev/zero", "of=/ram/x", "bs=1M", "count=4").exit_code != 0
        other = pod.run("stat", "-c", "%s", "/again/x", mounts=[mount(ram, "/again")])
        cri.wait_exit(other)
        assert pod.output(other)[0] == b"3145728\n"
    finally:
        serve.umount(ram)


def test_huge_pages(serve, cri, pod):
    if "hugetlbfs" not in open("/proc/filesystems", encoding="ascii").read() or serve.kind != "root":
        pytest.skip("no huge pages")
    huge = serve.kubelet.empty_dir(pod.uid, "huge")
    serve.mount("-t", "hugetlbfs", "-o", "pagesize=2M", "nodev", huge)
    try:
        container = pod.run("sleep", "1000", mounts=[mount(huge, "/huge")])
        line = sh(cri, container, "grep ' /huge ' /proc/mounts")
        assert "hugetlbfs" in line and "pagesize=2M" in line
    finally:
        serve.umount(huge)


def test_shared_paths(serve, cri, pod):
    shared = serve.root / "shared" / "data"
    shared.mkdir(exist_ok=True)
    shared.chmod(0o777)
    claim = serve.kubelet.pod(pod.uid) / "volumes" / "kubernetes.io~local-volume" / "pv"
    claim.mkdir(parents=True)
    serve.kubelet.own()
    serve.mount("--bind", shared, claim)
    try:
        container = pod.run("sleep", "1000", mounts=[mount(shared, "/shared"), mount(claim, "/claim")])
        sh(cri, container, "echo seen > /shared/file; cat /claim/file")
        assert (shared / "file").read_text() == "seen\n"
    finally:
        serve.umount(claim)
    # kubelet's check of the type was about this node; there it is not made.
    with refused("NOT_FOUND", "mounts[0]", "/shared/none"):
        pod.create("true", mounts=[mount(serve.root / "shared" / "none", "/x")])


def test_what_cannot_be_had_is_refused_before_anything_is_made(serve, cri, pod):
    good = serve.kubelet.projected(pod.uid, "configmap", "cm", {"key": b"value"})
    claim = serve.kubelet.pod(pod.uid) / "volumes" / "kubernetes.io~csi" / "pvc-1" / "mount"
    claim.mkdir(parents=True)
    serve.kubelet.own()
    cases = [
        ("/etc/ssl", "FAILED_PRECONDITION", "SharedPaths"),
        (claim, "FAILED_PRECONDITION", "SharedPaths"),
        (good.parent / "none", "NOT_FOUND", "none"),
        (serve.kubelet.pod("another-pod") / "etc-hosts", "FAILED_PRECONDITION", "another-pod"),
        (f"{good}/../../../../../../../etc", "INVALID_ARGUMENT", "absolute path"),
        (f"{serve.root}/shared/../kubelet", "INVALID_ARGUMENT", "absolute path"),
        (f"{serve.root}/shared-not", "FAILED_PRECONDITION", "SharedPaths"),
        ("", "INVALID_ARGUMENT", "absolute path"),
    ]
    for path, code, word in cases:
        with refused(code, "config.mounts[1].host_path", word):
            pod.create("true", mounts=[mount(good, "/good", True), mount(path, "/bad")])
    assert not cri.runtime.ListContainers(pb.ListContainersRequest()).containers
    # A link out of a volume is copied as a link, and leads to the container's own files.
    (good / "..data" / "escape").symlink_to("/etc/passwd")
    secret = serve.root / "secret"
    secret.write_text("the node's own")
    (good / "..data" / "key").unlink()
    (good / "..data" / "key").symlink_to(secret)
    container = pod.run("sh", "-c", "head -c 4 /good/escape; cat /good/key", mounts=[mount(good, "/good", True)])
    cri.wait_exit(container)
    assert pod.output(container)[0] == b"root" and b"No such file" in pod.output(container)[1]


def test_large_volumes(serve, cri, pod):
    half = os.urandom(9 << 20)
    volume = serve.kubelet.projected(pod.uid, "configmap", "cm", {"half": half, **{f"key-{i}": b"x" for i in range(2000)}})
    serve.kubelet.own()
    container = pod.run("sh", "-c", "sha256sum < /cm/half; ls /cm | wc -l", mounts=[mount(volume, "/cm", True)])
    cri.wait_exit(container)
    assert pod.output(container)[0].split()[::2] == [hashlib.sha256(half).hexdigest().encode(), b"2001"]
    serve.kubelet.projected(pod.uid, "configmap", "cm", {"half": half, "other": half})
    with refused("RESOURCE_EXHAUSTED", "config.mounts[0].host_path", "16777216 bytes"):
        pod.create("true", mounts=[mount(volume, "/cm", True)])


def test_termination_messages(serve, cri, pod):
    logs = [serve.kubelet.termination_log(pod.uid, name) for name in ("short", "long", "none", "away")]
    serve.kubelet.own()
    for log in logs:
        log.chmod(0o666)
    short = pod.run("sh", "-c", "ls -l /dev/termination-log | cut -c1-10; echo -n 'it is over' > /dev/termination-log; exit 3",
                    mounts=[mount(logs[0], "/dev/termination-log")])
    long = pod.run("sh", "-c", "head -c 9000 /dev/zero | tr '\\0' x > /msg; echo -n end >> /msg", mounts=[mount(logs[1], "/msg")])
    none = pod.run("true", mounts=[mount(logs[2], "/dev/termination-log")])
    script = "echo -n before > /dev/termination-log; while [ ! -e /shared/go ]; do sleep 0.05; done; exit 5"
    away = pod.run("sh", "-c", script, mounts=[mount(logs[3], "/dev/termination-log"), mount(serve.root / "shared", "/shared")])
    assert cri.wait_exit(short).exit_code == 3
    assert logs[0].read_bytes() == b"it is over", "it is there by the time the end is reported"
    assert pod.output(short)[0] == b"-rw-rw-rw-\n"
    cri.wait_exit(long)
    assert logs[1].read_bytes() == b"x" * (4096 - 3) + b"end"
    cri.wait_exit(none)
    assert logs[2].read_bytes() == b""
    # It ends while serve is away.
    wait(lambda: sh(cri, away, "cat /dev/termination-log") == "before", 5)
    serve.kill()
    (serve.root / "shared" / "go").touch()
    time.sleep(0.5)
    serve.start()
    assert cri.wait_exit(away).exit_code == 5
    assert logs[3].read_bytes() == b"before"
    (serve.root / "shared" / "go").unlink()


def test_without_signs_from_the_kernel(images):
    """Where nobody may watch folders any more, they are looked at."""
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    server = Node(root, own_user_namespace=True, config=f"""
Relay: {{Listen: "127.0.0.1:{free_port()}"}}
Handlers: [{{Name: cluster, Target: "unix://{root}/remote.sock"}}]
""")
    server.kind = "root"
    server.kubelet = Kubelet(server.root / "kubelet")
    server.plugin = Elsewhere(server, server.kubelet.root)
    try:
        done = subprocess.run([*server.inside(), "sh", "-c", "echo 0 > /proc/sys/user/max_inotify_watches"], check=False)
        if done.returncode != 0:
            pytest.skip("the limit cannot be set in a user namespace")
        server.plugin.start()
        server.start()
        assert server.ctl("load", str(images)).returncode == 0
        pod = Pod(server, server.client, "blind")
        uid = pod.config.metadata.uid
        volume = server.kubelet.projected(uid, "configmap", "cm", {"key": b"old"})
        container = pod.run("sleep", "1000", mounts=[mount(volume, "/cm", True)])
        server.kubelet.projected(uid, "configmap", "cm", {"key": b"new"})
        wait(lambda: sh(server.client, container, "cat /cm/key") == "new", 5)
        assert server.watches() == 0 and "max_user_watches" in server.log.read_text()
        server.client.remove_everything()
        server.plugin.stop()
    finally:
        server.finish()
