# SPDX-License-Identifier: Apache-2.0
"""Bad input from the cluster: each gives an event with words that its user can act on, and nothing runs half."""
import base64
import ctypes
import io
import json
import os
import sys
import tarfile
import threading

import pytest
from cluster import IMAGE, TOP, pod, wait

sys.path.insert(0, str(TOP / "test" / "e2e"))
from images.build import Image  # noqa: E402
from images.registry import Registry  # noqa: E402

CLONE_NEWNET = 0x40000000
EM_S390 = 22


def within(cluster, make):
    """What `make` gives when it runs in the cluster's network: sockets stay in the network that they were made in."""
    given = []

    def run():
        with open(f"/run/netns/{cluster.netns}", "rb") as netns:
            assert ctypes.CDLL(None, use_errno=True).setns(netns.fileno(), CLONE_NEWNET) == 0
        given.append(make())
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return given[0]


def program_of(machine):
    """The head of a program for another machine (elf(5): e_machine)."""
    with open("/bin/busybox", "rb") as f:
        program = bytearray(f.read(1 << 16))
    program[18:20] = machine.to_bytes(2, "little")
    return bytes(program)


def archive(name, data):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o755
        t.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture(scope="module")
def registry(cluster):
    with within(cluster, lambda: Registry(auth="bearer", users={"me": "secret"})) as made:
        yield made


def waiting(cluster, name, reason):
    """The message of a container that waits for a reason."""
    def there():
        state = cluster.status(name).get("state", {}).get("waiting", {})
        return state.get("reason") == reason and (state.get("message") or "-")
    return wait(there, 60, lambda: f"{name} does not wait for {reason}: {cluster.describe(name)}")


def test_volumes(cluster, place):
    """None that is there, of the wrong kind, over the wrong thing."""
    def mounting(name, volume, at="/there", **more):
        return place.pod(name, wait_for=None, volumes=[{"name": "v", **volume}], main={"volumeMounts": [{"name": "v", "mountPath": at, **more}]})
    shared = cluster.root / "shared"
    (shared / "file").write_text("x")
    cm = mounting("no-cm", {"configMap": {"name": "not-there"}})
    secret = mounting("no-secret", {"secret": {"secretName": "not-there"}})
    path = mounting("no-path", {"hostPath": {"path": f"{shared}/not-there", "type": "Directory"}})
    claim = mounting("no-claim", {"persistentVolumeClaim": {"claimName": "not-there"}})
    over = mounting("over-file", {"hostPath": {"path": str(shared)}}, at="/etc/passwd")
    sub = mounting("no-sub", {"hostPath": {"path": str(shared)}}, subPath="file/below")
    cluster.says(cm, 'configmap "not-there" not found', reason="FailedMount")
    cluster.says(secret, 'secret "not-there" not found', reason="FailedMount")
    cluster.says(path, "hostPath type check failed", "not-there", reason="FailedMount")
    cluster.says(claim, 'persistentvolumeclaim "not-there" not found', reason="FailedScheduling")
    cluster.says(over, "/etc/passwd", "not a directory", reason="Failed")
    cluster.says(sub, "subPath", reason="Failed")
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "not-there"}, "data": {"now": "there"}})
    cluster.phase(cm, "Running")  # as soon as what was missing is there
    cluster.delete("configmap", "not-there")


def test_image_names(cluster, place, registry):
    """Names that are none, registries that do not answer, images that are not there."""
    wrong = place.pod("wrong-name", wait_for=None, main={"image": "Not/A:Name!"})
    host = place.pod("no-host", wait_for=None, main={"image": "registry.invalid/some/image:1"})
    refused = place.pod("no-registry", wait_for=None, main={"image": "127.0.0.1:9/some/image:1"})
    absent = place.pod("never-pulled", wait_for=None, main={"image": "fixture.local/absent:1", "imagePullPolicy": "Never"})
    digest = place.pod("no-digest", wait_for=None, main={"image": f"{registry.name}/open@sha256:{'0' * 64}"})
    assert 'couldn\'t parse image name "Not/A:Name!"' in waiting(cluster, wrong, "InvalidImageName")
    cluster.says(host, "registry.invalid/some/image:1", "name cannot be looked up", reason="Failed")
    cluster.says(refused, "127.0.0.1:9", "refused", reason="Failed")
    assert "not present with pull policy of Never" in waiting(cluster, absent, "ErrImageNeverPull")
    cluster.says(digest, "401", reason="Failed")
    for name in (host, refused):
        waiting(cluster, name, "ImagePullBackOff")


def test_registry_that_wants_a_login(cluster, place, registry):
    """Without one, with a wrong one, and with the right one in imagePullSecrets; then a tag that it has not."""
    image = Image([{"here": "content"}])
    private = registry.put(f"private-{place.name}", "1", image)

    def login(password):
        auth = base64.b64encode(f"me:{password}".encode()).decode()
        text = json.dumps({"auths": {registry.name: {"auth": auth}}})
        cluster.apply({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson", "metadata": {"name": f"login-{password}"},
                       "stringData": {".dockerconfigjson": text}})
        return {"imagePullSecrets": [{"name": f"login-{password}"}]}
    none = place.pod("no-login", wait_for=None, main={"image": private})
    wrong = place.pod("wrong-login", wait_for=None, main={"image": private}, **login("wrong"))
    cluster.says(none, private, "401 Unauthorized", reason="Failed")
    cluster.says(wrong, private, "incorrect username or password", reason="Failed")
    right = place.pod("login", wait_for=None, main={"image": private, "command": ["/none"]}, **login("secret"))
    cluster.says(right, "Successfully pulled image", reason="Pulled")
    tag = place.pod("no-tag", wait_for=None, main={"image": private.removesuffix(":1") + ":2"}, **login("secret"))
    cluster.says(tag, "not found", reason="Failed")


def test_images_of_another_machine(cluster, place, registry):
    """Another architecture in the list of what there is; one that only its program's first bytes show."""
    registry.auth = None
    try:
        other = Image([archive("here", program_of(EM_S390))], platform={"os": "linux", "architecture": "s390x"})
        listed = registry.put_index(f"listed-{place.name}", "1", [other])
        plain = registry.put(f"plain-{place.name}", "1", other)
        name = place.pod("other-arch", wait_for=None, main={"image": listed})
        cluster.says(name, "linux/amd64" if os.uname().machine == "x86_64" else "linux/arm64", "s390x", reason="Failed")
        name = place.pod("other-arch-plain", wait_for=None, main={"image": plain, "command": ["/here"]})
        cluster.says(name, "/here", "not a program for this machine", reason="Failed")
    finally:
        registry.auth = "bearer"


def test_commands(cluster, place):
    """That do not exist, may not be run, are a folder, or begin in a folder that is a file; users that the image does not know."""
    every = {"missing": (["/no/such/program"], {}, ("/no/such/program", "no such file")),
             "unnamed": (["nosuchprogram"], {}, ("nosuchprogram", "not found in $PATH")),
             "plain": (["/etc/passwd"], {}, ("/etc/passwd", "permission denied")),
             "folder": (["/etc"], {}, ("/etc", "not a regular file")),
             "workdir": (["true"], {"workingDir": "/etc/passwd/x"}, ("/etc/passwd/x", "not a directory"))}
    names = {k: place.pod(f"cmd-{k}", *command, wait_for=None, restartPolicy="Never", main=more) for k, (command, more, _) in every.items()}
    for key, name in names.items():
        cluster.says(name, *every[key][2], reason="Failed")
        assert not cluster.status(name).get("state", {}).get("running")
    state = cluster.ended(names["missing"])
    assert state["reason"] == "StartError" and state["exitCode"] == 128, state
    user = place.pod("no-user", wait_for=None, main={"securityContext": {"runAsNonRoot": True}})
    assert "image will run as root" in waiting(cluster, user, "CreateContainerConfigError")
    key = place.pod("no-key", wait_for=None, main={"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}}]})
    assert 'secret "none" not found' in waiting(cluster, key, "CreateContainerConfigError")


def test_large_environment(cluster, place):
    """1 MiB in all is passed on; 1 MiB in one variable is more than the kernel takes."""
    many = [{"name": f"V{i}", "value": "x" * 100_000} for i in range(10)]
    good = place.pod("env-many", "sh", "-c", "env | grep -c xxxxx; sleep 1000000", main={"env": many})
    wait(lambda: cluster.logs(good) == "10\n", 20)
    bad = place.pod("env-one", wait_for=None, restartPolicy="Never", main={"env": [{"name": "HUGE", "value": "x" * (1 << 20)}]})
    cluster.says(bad, "HUGE", reason="Failed")


def test_500_mounts(cluster, place):
    mounts = [{"name": f"v{i % 20}", "mountPath": f"/mnt/{i}"} for i in range(500)]
    name = place.pod("mounts", "sh", "-c", "grep -c ' /mnt/' /proc/self/mounts; echo x >/mnt/0/x; cat /mnt/480/x; sleep 1000000",
                     main={"volumeMounts": mounts}, volumes=[{"name": f"v{i}", "emptyDir": {}} for i in range(20)])
    wait(lambda: cluster.logs(name).split() == ["500", "x"], 30, lambda: cluster.describe(name) + cluster.logs(name))


def test_names_at_their_limits(cluster, place):
    """As long as they may be: containers, volumes, labels, hosts, pods; and a pod's name that makes its log folder's too long."""
    box, label = "c" * 63, {"x" * 63: "y" * 63}
    volume = "v" * 63
    # The folder of its logs is NAMESPACE_NAME_UID and has 255 bytes.
    name = ("p" * 63 + "." + "q" * 63 + "." + "r" * 63)[:210 - len(place.name)]
    name = name.rstrip(".") + "z"
    name = place.pod(name, wait_for=None, metadata={"labels": label}, volumes=[{"name": volume, "emptyDir": {}}], containers=[
        {"name": box, "image": IMAGE, "command": ["sh", "-c", "hostname; sleep 1000000"], "volumeMounts": [{"name": volume, "mountPath": "/v"}]}])
    cluster.phase(name, "Running")
    wait(lambda: cluster.logs(name) == "p" * 63 + "\n", 20, lambda: cluster.logs(name))
    assert cluster.kubectl("exec", name, "-c", box, "--", "echo", "in").stdout == "in\n"
    long = ".".join(["p" * 63] * 4)[:253 - len(place.name) - 1]
    long = place.pod(long, wait_for=None)
    cluster.says(long, "file name too long")


def test_refused_by_the_runtime(cluster, place):
    """What a place cannot do is refused by the field's name."""
    name = place.pod("hostport", wait_for=None, main={"ports": [{"containerPort": 8461, "hostPort": 8462}]})
    cluster.says(name, "host_port", reason="FailedCreatePodSandBox")
    name = place.pod("sysctl", wait_for=None, securityContext={"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "7"}]})
    cluster.says(name, "kernel.shm_rmid_forced")
    name = place.pod("seccomp", wait_for=None, securityContext={"seccompProfile": {"type": "Localhost", "localhostProfile": "none.json"}})
    cluster.says(name, "none.json")
