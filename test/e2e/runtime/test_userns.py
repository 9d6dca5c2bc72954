# SPDX-License-Identifier: Apache-2.0
"""Pods with a user namespace of their own."""
import os
import pathlib
import tempfile
import time
import uuid

import grpc
import pytest
from cri import pb, pod_config, refused
from serving import BUSYBOX, Pod, Serve

pytestmark = pytest.mark.root_only("only root may map the machine's ids")

FIRST, COUNT = 200000, 65536


def mapping(inside=0, outside=FIRST, count=COUNT):
    return [pb.IDMapping(container_id=inside, host_id=outside, length=count)]


def own(uids=None, gids=None, mode=pb.POD, **more):
    """NamespaceOptions with a user namespace of the pod's own."""
    uids = mapping() if uids is None else uids
    gids = uids if gids is None else gids
    more.setdefault("pid", pb.CONTAINER)
    return pb.NamespaceOption(userns_options=pb.UserNamespace(mode=mode, uids=uids, gids=gids), **more)


def config_of(name, options, **more):
    config = pod_config(name, **more)
    config.linux.security_context.namespace_options.CopyFrom(options)
    return config


class OwnPod(Pod):
    def __init__(self, serve, cri, name, options=None, sysctls=None, hostname="a-pod"):
        self.options = options or own()
        logs = serve.logs / f"{name}-{uuid.uuid4()}"
        config = config_of(name, self.options, log_directory=str(logs), hostname=hostname)
        config.linux.sysctls.update(sysctls or {})
        self.cri, self.logs, self.config, self.count = cri, logs, config, 0
        self.id = cri.run_pod(config)

    def linux(self, **context):
        return pb.LinuxContainerConfig(security_context=pb.LinuxContainerSecurityContext(
            namespace_options=context.pop("options", self.options), **context))

    def create(self, *command, linux=None, **more):
        return super().create(*command, linux=linux or self.linux(), **more)

    def says(self, *command, **more):
        """Runs a command to its end; its standard output. It must succeed."""
        container = self.run(*command, **more)
        status = self.cri.wait_exit(container)
        out, err = self.output(container)
        assert status.exit_code == 0, (status.exit_code, out, err)
        return out.decode()


@pytest.fixture
def pod(serve, cri):
    return OwnPod(serve, cri, "own")


def executed(pod, container, *command):
    """ExecSync's standard output, whole; it must succeed."""
    answer = pod.cri.exec_sync(container, *command)
    assert answer.exit_code == 0, (answer.exit_code, answer.stdout, answer.stderr)
    return answer.stdout.decode()


def owners_of(command_line):
    """Who runs it on the machine."""
    owners = []
    for process in pathlib.Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "cmdline").read_bytes() == command_line:
                owners.append(process.stat().st_uid)
        except OSError:
            pass  # it has just ended
    return owners


def upper(serve, container):
    """The container's own files on the machine."""
    found = list((serve.root / "state").glob(f"plugin/jobs/*/containers/{container}/upper"))
    assert len(found) == 1
    return found[0]


def test_its_root_is_nobody_on_the_machine(serve, pod):
    assert pod.says("cat", "/proc/self/uid_map").split() == ["0", str(FIRST), str(COUNT)]
    assert pod.says("cat", "/proc/self/gid_map").split() == ["0", str(FIRST), str(COUNT)]
    container = pod.run("sleep", "98765")
    assert executed(pod, container, "cat", "/proc/self/uid_map").split()[1] == str(FIRST)
    # The image's files are its root's, and what it makes belongs to it, inside and outside.
    made = "touch /x /tmp/y; mkdir -m 700 /d; chown 7:8 /x; stat -c %u:%g / /bin /bin/busybox /etc/hostname /dev/shm /x /d /tmp/y"
    assert executed(pod, container, "sh", "-c", made).split() == ["0:0"] * 5 + ["7:8", "0:0", "0:0"]
    x = (upper(serve, container) / "x").stat()
    assert (x.st_uid, x.st_gid) == (FIRST + 7, FIRST + 8)
    assert owners_of(b"sleep\x0098765\x00") == [FIRST]


def test_the_handler_says_so(serve, cri):
    status = cri.runtime.Status(pb.StatusRequest())
    assert {h.name: h.features.user_namespaces for h in status.runtime_handlers} == {"": True, "local": True}
    assert status.features.user_namespaces_host_network


def test_exec_is_inside(pod):
    container = pod.run("sleep", "1000", linux=pod.linux(run_as_user=pb.Int64Value(value=1000), supplemental_groups=[2000]))
    spaces = "for n in user ipc uts pid mnt net; do readlink /proc/self/ns/$n; done"
    first = executed(pod, container, "sh", "-c", "id -u; id -G; for n in user ipc uts pid mnt net; do readlink /proc/1/ns/$n; done")
    lines = first.split("\n")
    assert lines[:2] == ["1000", "0 2000"]
    assert executed(pod, container, "sh", "-c", spaces).split() == lines[2:8]
    assert lines[2] != os.readlink("/proc/self/ns/user")
    # Its standard output can be opened by name.
    assert executed(pod, container, "sh", "-c", "echo hi >/dev/stdout") == "hi\n"
    assert executed(pod, container, "grep", "CapEff", "/proc/self/status").split() == ["CapEff:", "0" * 16]


def test_what_belongs_to_the_pod_is_its_roots(serve, cri):
    pod = OwnPod(serve, cri, "settings", sysctls={"kernel.shmmni": "77", "fs.mqueue.msg_max": "7"})
    other = pod.linux(capabilities=pb.Capability(add_capabilities=["SYS_ADMIN"]))
    container = pod.run("sleep", "1000", linux=other)
    said = executed(pod, container, "sh", "-c", "hostname; cat /etc/hostname /proc/sys/kernel/shmmni /proc/sys/fs/mqueue/msg_max")
    assert said.split() == ["a-pod", "a-pod", "77", "7"]
    # With CAP_SYS_ADMIN it may do in its namespaces what root does.
    script = "hostname b-pod && mount -t tmpfs none /tmp && mount -t proc none /tmp && hostname"
    assert executed(pod, container, "sh", "-c", script) == "b-pod\n"
    assert os.uname().nodename != "b-pod"
    # Another container of the pod is in the same namespaces.
    again = pod.run("sh", "-c", "hostname; readlink /proc/self/ns/user")
    cri.wait_exit(again)
    assert pod.output(again)[0].decode().split() == ["b-pod", executed(pod, container, "readlink", "/proc/self/ns/user").strip()]


def test_the_machine_cannot_be_reached(pod):
    container = pod.run("sleep", "1000", linux=pod.linux(capabilities=pb.Capability(add_capabilities=["ALL"])))
    for forbidden in ("echo 1 >/proc/sys/kernel/panic", "echo x >/sys/kernel/mm/ksm/run", "mknod /null c 1 3 && echo x >/null",
                      "kill -9 -1; kill -0 1 && hostname -F /nothing"):
        assert pod.cri.exec_sync(container, "sh", "-c", forbidden).exit_code != 0, forbidden
    assert executed(pod, container, "echo", "alive") == "alive\n"


def test_a_shared_pid_namespace_is_the_pods(serve, cri):
    pod = OwnPod(serve, cri, "shared", own(pid=pb.POD))
    first = pod.run("sleep", "1234")
    said = pod.says("sh", "-c", "ps -o pid,user,args; readlink /proc/self/ns/pid; ls /proc/1/root 2>&1; true")
    assert "sleep 1234" in said and said.count("interlink") == 2  # the keeper, by name and program
    assert "Permission denied" in said  # nobody looks into the keeper
    assert executed(pod, first, "readlink", "/proc/self/ns/pid") in said
    # The keeper reaps what lost its parent, and ends with the pod only.
    executed(pod, first, "sh", "-c", "(sleep 0.1 &) ; kill -9 1; kill 1; sleep 0.3")
    assert "[" not in executed(pod, first, "ps", "-o", "stat,args").replace("[sh]", "")
    assert pod.cri.status(first).state == pb.CONTAINER_RUNNING


def test_debugging_another_container(pod):
    target = pod.run("sleep", "4321")
    options = own(pid=pb.TARGET, target_id=target)
    assert "sleep 4321" in pod.says("ps", "-o", "args", linux=pod.linux(options=options))


def test_terminals(pod):
    container = pod.run("sh", "-c", "tty; stat -c %u:%g $(tty); echo hi >/dev/tty; id -u", tty=True,
                        linux=pod.linux(run_as_user=pb.Int64Value(value=1000)))
    assert pod.cri.wait_exit(container).exit_code == 0
    assert pod.output(container)[0].split() == [b"/dev/pts/0", b"1000:5", b"hi", b"1000"]


def test_the_machines_null_device_stays_its_own(pod):
    pod.says("true", stdin=False)
    pod.says("true", tty=True)
    assert (os.stat("/dev/null").st_uid, os.stat("/dev/null").st_gid, os.stat("/dev/null").st_mode & 0o777) == (0, 0, 0o666)


def test_standard_streams_belong_to_the_user(pod):
    user = pod.linux(run_as_user=pb.Int64Value(value=1000))
    assert pod.says("sh", "-c", "echo one; echo two >/dev/stdout; echo three >/proc/self/fd/1", linux=user) == "one\ntwo\nthree\n"


def test_volumes_have_mapped_owners(serve, pod):
    folder = serve.root / "volume"
    folder.mkdir()
    (folder / "mine").write_text("text")
    os.chown(folder / "mine", 7, 8)
    mapped = pb.Mount(host_path=str(folder), container_path="/mapped", uidMappings=mapping(), gidMappings=mapping())
    plain = pb.Mount(host_path=str(folder), container_path="/plain")
    script = "stat -c %u:%g /mapped /mapped/mine /plain /plain/mine; echo x >/mapped/new; echo x >/plain/other || echo refused"
    said = pod.says("sh", "-c", script, mounts=[mapped, plain])
    assert said.split() == ["0:0", "7:8", "65534:65534", "65534:65534", "refused"]
    assert (folder / "new").stat().st_uid == 0
    shifted = pb.Mount(host_path=str(folder), container_path="/mapped", uidMappings=mapping(0, FIRST + 100, 50),
                       gidMappings=mapping(0, FIRST + 200, 50))
    assert pod.says("stat", "-c", "%u:%g", "/mapped/mine", mounts=[shifted]).split() == ["107:208"]
    mounts = [line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if str(serve.root) in line]
    assert not mounts


def test_files_and_images_as_volumes(serve, pod):
    file = serve.root / "message"
    file.write_text("")
    mapped = {"uidMappings": mapping(), "gidMappings": mapping()}
    mounts = [pb.Mount(host_path=str(file), container_path="/dev/termination-log", **mapped),
              pb.Mount(host_path=str(file), container_path="/only/read", readonly=True, **mapped),
              pb.Mount(image=pb.ImageSpec(image=BUSYBOX), container_path="/image", readonly=True, **mapped),
              pb.Mount(image=pb.ImageSpec(image=BUSYBOX), image_sub_path="bin", container_path="/bins", readonly=True)]
    script = """echo done >/dev/termination-log; echo x >/only/read || stat -c %u:%g /dev/termination-log /only/read /image/etc /bins/sh"""
    assert pod.says("sh", "-c", script, mounts=mounts).split() == ["0:0"] * 4
    assert file.read_text() == "done\n"
    assert file.stat().st_uid == 0
    mounts[2].uidMappings[0].host_id += 1
    with refused("FAILED_PRECONDITION", "mounts[2].uidMappings", "those of the pod"):
        pod.create("true", mounts=mounts)


def test_volumes_that_cannot_be_mapped_are_refused(serve, pod):
    volume = pb.Mount(host_path="/sys/kernel", container_path="/mapped", uidMappings=mapping(), gidMappings=mapping())
    with refused("FAILED_PRECONDITION", "mounts[0]", "uidMappings", "mapped owners"):
        pod.create("true", mounts=[volume])
    half = pb.Mount(host_path="/tmp", container_path="/mapped", uidMappings=mapping())
    with refused("INVALID_ARGUMENT", "mounts[0].gidMappings"):
        pod.create("true", mounts=[half])
    nothing = pb.Mount(host_path="/tmp", container_path="/mapped", uidMappings=mapping(count=0), gidMappings=mapping())
    with refused("INVALID_ARGUMENT", "mounts[0].uidMappings[0]"):
        pod.create("true", mounts=[nothing])


def test_devices_are_the_pods_roots(pod):
    device = pb.Device(host_path="/dev/null", container_path="/dev/mine", permissions="rw")
    assert pod.says("stat", "-c", "%u:%g %t:%T", "/dev/mine", "/dev/null", devices=[device]).split("\n")[0] == "0:0 1:3"
    assert pod.says("sh", "-c", "echo x >/dev/mine; head -c 3 /dev/zero | wc -c", devices=[device]).strip() == "3"


def test_limits_are_seen_from_inside(pod):
    limits = pb.LinuxContainerResources(memory_limit_in_bytes=64 << 20)
    context = pod.linux()
    context.resources.CopyFrom(limits)
    script = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
    assert pod.says("sh", "-c", script, linux=context).strip() == str(64 << 20)
    assert pod.says("sh", "-c", "ls /sys/class/net; touch /sys/x || echo refused").split()[-1] == "refused"


def test_an_image_with_a_user(pod):
    image = "gcr.io/k8s-staging-cri-tools/test-image-user-uid-group:latest"
    assert pod.says("sh", "-c", "id -u; id -g; cd; pwd", image=image).split()[:2] == ["1003", "100"]


def test_ids_beyond_the_map_are_refused(pod):
    with refused("FAILED_PRECONDITION", "run_as_user", str(COUNT)):
        pod.create("true", linux=pod.linux(run_as_user=pb.Int64Value(value=COUNT)))
    with refused("FAILED_PRECONDITION", "supplemental_groups", "99999"):
        pod.create("true", linux=pod.linux(supplemental_groups=[99999]))


def test_containers_want_what_the_pod_has(serve, cri, pod):
    plain = pb.LinuxContainerConfig(security_context=pb.LinuxContainerSecurityContext(
        namespace_options=pb.NamespaceOption(pid=pb.CONTAINER)))
    for linux in (plain, pod.linux(options=own(mode=pb.NODE, uids=[], gids=[])), pod.linux(options=own(mapping(count=COUNT - 1)))):
        with refused("INVALID_ARGUMENT", "userns_options", "those of the pod"):
            pod.create("true", linux=linux)
    with refused("FAILED_PRECONDITION", "privileged"):
        pod.create("true", linux=pod.linux(privileged=True))
    other = Pod(serve, cri, "plain")
    with refused("INVALID_ARGUMENT", "userns_options", "those of the pod"):
        other.create("true", linux=pod.linux())
    node = own(mode=pb.NODE, uids=[], gids=[])
    assert cri.wait_exit(other.run("true", linux=pod.linux(options=node))).exit_code == 0


@pytest.mark.parametrize("options, words", [
    (own(mapping() + mapping(inside=COUNT)), ["userns_options.uids", "one mapping"]),
    (own(mapping(), []), ["userns_options.gids", "one mapping"]),
    (own(mapping(inside=1)), ["container_id", "0 must be mapped"]),
    (own(mapping(count=0)), ["userns_options.uids[0]"]),
    (own(mapping(outside=2**32 - 10)), ["userns_options.uids[0]"]),
    (own(mode=pb.CONTAINER), ["userns_options.mode"]),
    (own(mode=pb.TARGET), ["userns_options.mode"]),
    (own(mode=pb.NODE), ["userns_options", "without mappings"]),
    (own(pid=pb.NODE), ["namespace_options.pid"]),
    (own(ipc=pb.NODE), ["namespace_options.ipc"]),
], ids=lambda value: value[0] if isinstance(value, list) else "")
def test_nonsense_is_refused(cri, options, words):
    with refused("INVALID_ARGUMENT", *words):
        cri.run_pod(config_of("nonsense", options))
    config = config_of("privileged", own())
    config.linux.security_context.privileged = True
    with refused("INVALID_ARGUMENT", "privileged"):
        cri.run_pod(config)


def test_the_network_is_the_machines(serve, cri, pod):
    assert executed(pod, pod.run("sleep", "100"), "readlink", "/proc/self/ns/net").strip() == os.readlink("/proc/self/ns/net")
    host = OwnPod(serve, cri, "host", own(network=pb.NODE))
    assert host.says("sh", "-c", "echo ok; ls /sys/class/net >/dev/null") == "ok\n"


def test_it_survives_a_restart_of_serve(serve, cri):
    pod = OwnPod(serve, cri, "restarted")
    container = pod.run("sleep", "1000")
    inside = executed(pod, container, "readlink", "/proc/self/ns/user")
    serve.kill()
    serve.start()
    end = time.monotonic() + 10
    while True:
        try:
            assert executed(pod, container, "readlink", "/proc/self/ns/user") == inside
            break
        except grpc.RpcError as error:  # until the agent has called in
            assert error.code() == grpc.StatusCode.UNAVAILABLE and time.monotonic() < end
            time.sleep(0.05)
    assert pod.says("readlink", "/proc/self/ns/user") == inside


def test_an_image_as_a_volume_is_the_pods_too(pod):
    volume = pb.Mount(container_path="/image", readonly=True, image=pb.ImageSpec(image=BUSYBOX), image_sub_path="etc")
    container = pod.run("sleep", "1000", mounts=[volume])
    assert executed(pod, container, "stat", "-c", "%u:%g", "/image", "/image/passwd").split() == ["0:0", "0:0"]
    assert executed(pod, container, "cmp", "/image/passwd", "/etc/passwd") == ""


class Elsewhere(Serve):
    """Its state is on a file system that cannot map owners: overlayfs itself."""

    def command(self, *arguments):
        script = ('cd "$0" && mkdir -p lower upper work state && '
                  'mount -t overlay none state -o lowerdir=lower,upperdir=upper,workdir=work && exec "$@"')
        return ["unshare", "--mount", "sh", "-c", script, str(self.root), *super().command(*arguments)]


def test_file_systems_that_cannot_map_owners(serve, images):
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    server = Elsewhere(root)
    try:
        server.start()
        assert server.ctl("load", str(images)).returncode == 0
        status = server.client.runtime.Status(pb.StatusRequest())
        assert not any(h.features.user_namespaces for h in status.runtime_handlers)
        assert not status.features.user_namespaces_host_network
        pod = OwnPod(server, server.client, "refused")
        with refused("FAILED_PRECONDITION", "userns_options", "mapped owners"):
            pod.create("true")
        assert Pod(server, server.client, "plain").run("true")
    finally:
        server.finish()


def test_an_image_that_is_copied(serve, pod):
    """Where overlayfs cannot use a layer the image is copied, and the copy shown with mapped owners."""
    infos = list(serve.root.glob("state/images/layers/*.info"))
    before = {info: info.read_text() for info in infos}
    try:
        for info, text in before.items():
            info.write_text(text.replace('"form":"any"', '"form":"flat"'))
        container = pod.run("sleep", "1000", linux=pod.linux(run_as_user=pb.Int64Value(value=0)))
        script = "stat -c %u:%g / /bin/busybox; mkdir /d && chown 5:6 /d && stat -c %u:%g /d"
        assert executed(pod, container, "sh", "-c", script).split() == ["0:0", "0:0", "5:6"]
        assert not list(upper(serve, container).iterdir())
        assert (upper(serve, container).parent / "rootfs" / "d").stat().st_uid == 5
    finally:
        for info, text in before.items():
            info.write_text(text)
