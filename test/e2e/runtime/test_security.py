# SPDX-License-Identifier: Apache-2.0
"""Who a container's processes are and what they may do; what Status promises of it."""
import subprocess
import time

import grpc
import pytest
from cri import pb, refused
from serving import BUSYBOX, IMAGES, Pod
from test_contexts import linux, said

GROUPS_IMAGE = "gcr.io/k8s-staging-cri-tools/test-image-predefined-group:latest"  # uid 1000 is in group 50000


def user_of(cri, container):
    user = cri.status(container).user.linux
    return user.uid, user.gid, list(user.supplemental_groups)


def features(cri, handler=""):
    answer = cri.runtime.Status(pb.StatusRequest())
    return next(h.features for h in answer.runtime_handlers if h.name == handler)


def test_status_promises_what_is_so(cri):
    end = time.monotonic() + 20
    while not features(cri).recursive_read_only_mounts and time.monotonic() < end:
        time.sleep(0.05)  # our program is asked when the node starts
    assert features(cri).recursive_read_only_mounts  # Linux 5.12
    assert features(cri, "local") == features(cri)
    answer = cri.runtime.Status(pb.StatusRequest()).features
    assert answer.supplemental_groups_policy and answer.mount_options


@pytest.mark.root_only("an ordinary user has one id only")
def test_the_status_says_who_it_is(pod, cri):
    container = pod.run("sleep", "1000", linux=linux(
        run_as_user=pb.Int64Value(value=1000), run_as_group=pb.Int64Value(value=2000), supplemental_groups=[3000]))
    assert user_of(cri, container) == (1000, 2000, [2000, 3000])
    assert cri.exec_sync(container, "id", "-G").stdout == b"2000 3000\n"


@pytest.mark.root_only("an ordinary user has one id only")
def test_the_images_groups_are_merged_or_not(pod, cri):
    def groups(policy):
        container = pod.run("sleep", "1000", image=GROUPS_IMAGE, linux=linux(
            run_as_user=pb.Int64Value(value=1000), supplemental_groups=[1234], supplemental_groups_policy=policy))
        seen = [int(g) for g in cri.exec_sync(container, "id", "-G").stdout.split()]
        assert sorted(user_of(cri, container)[2]) == sorted(seen)
        return sorted(seen)

    assert groups(pb.Merge) == [1000, 1234, 50000]
    assert groups(pb.Strict) == [1000, 1234]


def test_the_default_is_the_images_user(pod, cri):
    container = pod.create("true")
    uid, gid, groups = user_of(cri, container)
    assert (uid, gid, groups[0]) == (0, 0, 0)


def test_the_stop_signal_in_force_is_shown(pod, cri):
    assert cri.status(pod.create("true")).stop_signal == pb.SIGNAL_SIGTERM
    assert cri.status(pod.create("true", stop_signal=pb.SIGNAL_SIGUSR1)).stop_signal == pb.SIGNAL_SIGUSR1
    container = pod.run("sh", "-c", "trap 'exit 5' USR2; while :; do sleep 0.05; done", stop_signal=pb.SIGNAL_SIGUSR2)
    cri.exec_sync(container, "true")
    cri.runtime.StopContainer(pb.StopContainerRequest(container_id=container, timeout=20))
    assert cri.status(container).exit_code == 5


@pytest.mark.root_only("an ordinary user has one id only")
def test_ambient_capabilities_work_for_ordinary_users_of_a_container(pod, cri):
    """Without them a user who is not root has none in force; with them what they allow can be done."""
    def tries(**caps):
        return said(pod, cri, "sh", "-c", "grep CapEff /proc/self/status; chown 5 /tmp && echo changed; true",
                    linux=linux(run_as_user=pb.Int64Value(value=1000), capabilities=pb.Capability(**caps))).split()

    assert tries(add_capabilities=["CHOWN"])[1:] == ["0000000000000000"]
    assert tries(add_ambient_capabilities=["CHOWN"])[1:] == ["0000000000000001", "changed"]
    container = pod.run("sleep", "1000", linux=linux(run_as_user=pb.Int64Value(value=1000), capabilities=pb.Capability(
        add_ambient_capabilities=["CHOWN"])))
    assert b"0000000000000001" in cri.exec_sync(container, "grep", "CapEff", "/proc/self/status").stdout


@pytest.mark.root_only("an ordinary user's job has no such rights")
def test_rights_over_the_machines_network_are_not_given_by_the_way(serve, cri):
    shared = Pod(serve, cri, "shared", host_network=False)  # without CNI its network is the machine's
    with refused("FAILED_PRECONDITION", "add_capabilities", "CAP_NET_ADMIN", "machine's own network"):
        shared.create("true", linux=linux(capabilities=pb.Capability(add_capabilities=["NET_ADMIN"])))
    out = said(shared, cri, "grep", "CapBnd", "/proc/self/status", linux=linux(capabilities=pb.Capability(add_capabilities=["ALL"])))
    assert int(out.split()[1], 16) & 1 << 12 == 0


@pytest.mark.root_only("an ordinary user cannot mount")
def test_mounts_below_a_read_only_mount(serve, pod, cri):
    """They can be written to, unless the mount is read-only recursively."""
    folder = serve.root / "tree"
    (folder / "tmpfs").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder / "tmpfs"], check=True)
    try:
        def writes(**more):
            mount = pb.Mount(host_path=str(folder), container_path="/tree", readonly=True, **more)
            return said(pod, cri, "sh", "-c", "for d in . tmpfs; do touch /tree/$d/x 2>/dev/null && echo yes || echo no; done", mounts=[mount])

        assert writes() == "no\nyes\n"
        assert writes(recursive_read_only=True) == "no\nno\n"
    finally:
        subprocess.run(["umount", folder / "tmpfs"], check=True)


@pytest.mark.root_only("an ordinary user cannot mount")
def test_mounts_propagate_as_they_are_told(serve, pod, cri):
    folder = serve.root / "shared"
    folder.mkdir()

    def on_the_machine(*command):
        subprocess.run(command, check=True)

    on_the_machine("mount", "--bind", folder, folder)
    on_the_machine("mount", "--make-shared", folder)
    (folder / "in").mkdir()
    (folder / "out").mkdir()
    try:
        for propagation, seen_inside, seen_outside in ((pb.PROPAGATION_PRIVATE, False, False),
                                                       (pb.PROPAGATION_HOST_TO_CONTAINER, True, False),
                                                       (pb.PROPAGATION_BIDIRECTIONAL, True, True)):
            container = pod.run("sleep", "1000", linux=linux(capabilities=pb.Capability(add_capabilities=["SYS_ADMIN"])), mounts=[
                pb.Mount(host_path=str(folder), container_path="/shared", propagation=propagation)])
            on_the_machine("mount", "--bind", "/etc", folder / "in")
            inside = cri.exec_sync(container, "ls", "/shared/in").stdout != b""
            on_the_machine("umount", folder / "in")
            assert cri.exec_sync(container, "mount", "-o", "bind", "/bin", "/shared/out").exit_code == 0
            outside = any((folder / "out").iterdir())
            cri.exec_sync(container, "umount", "/shared/out")
            assert (inside, outside) == (seen_inside, seen_outside), propagation
            cri.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=container))
        with refused("FAILED_PRECONDITION", "mounts[0]", "not on a shared mount"):
            on_the_machine("mount", "--make-private", folder)
            pod.create("true", mounts=[pb.Mount(host_path=str(folder), container_path="/x", propagation=pb.PROPAGATION_BIDIRECTIONAL)])
    finally:
        on_the_machine("umount", folder)


def test_options_of_a_mount(serve, pod, cri):
    folder = serve.root / "options"
    folder.mkdir(mode=0o755, exist_ok=True)
    (folder / "program").write_text("#!/bin/sh\necho ran\n")
    (folder / "program").chmod(0o755)
    mount = pb.Mount(host_path=str(folder), container_path="/o", readonly=True, mount_options=["noexec", "nosuid"])
    assert said(pod, cri, "sh", "-c", "/o/program 2>/dev/null || echo refused", mounts=[mount]) == "refused\n"
    del mount.mount_options[:]
    assert said(pod, cri, "/o/program", mounts=[mount]) == "ran\n"
    mount.mount_options.append("loud")
    with refused("INVALID_ARGUMENT", "mounts[0].mount_options", "loud"):
        pod.create("true", mounts=[mount])


def test_what_may_be_done_with_a_device(serve, pod, cri):
    """Only cgroups can tell reading from writing; where there are none, a device that may only be read is refused."""
    def opened(permissions):
        device = pb.Device(host_path="/dev/kmsg", container_path="/dev/mine", permissions=permissions)
        return said(pod, cri, "sh", "-c", "true 2>/dev/null >/dev/mine && echo yes || echo no", devices=[device])

    try:
        assert opened("r") == "no\n"
    except grpc.RpcError as error:
        assert error.code().name == "FAILED_PRECONDITION" and "devices[0]" in error.details() and "cannot be enforced" in error.details()
        assert serve.kind == "user"
        return
    assert opened("w") == "yes\n"


def test_a_container_may_join_the_processes_of_another(pod, cri):
    """Ephemeral debug containers: NamespaceMode TARGET."""
    target = pod.run("sleep", "1234")
    debugger = pod.run("sleep", "1000", linux=pb.LinuxContainerConfig(security_context=pb.LinuxContainerSecurityContext(
        namespace_options=pb.NamespaceOption(network=pb.NODE, pid=pb.TARGET, target_id=target))))
    assert cri.exec_sync(debugger, "cat", "/proc/1/cmdline").stdout == b"sleep\x001234\x00"
    with refused("FAILED_PRECONDITION", "target_id", "not running"):
        pod.create("true", linux=pb.LinuxContainerConfig(security_context=pb.LinuxContainerSecurityContext(
            namespace_options=pb.NamespaceOption(network=pb.NODE, pid=pb.TARGET, target_id="0" * 64))))


def test_sysctls_of_a_pod_are_its_own(serve, cri):
    sysctls = {"kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "77"}
    pod = Pod(serve, cri, "sysctls", linux=pb.LinuxPodSandboxConfig(sysctls=sysctls))
    other = Pod(serve, cri, "others")
    script = ("sh", "-c", "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max")
    assert said(pod, cri, *script) == "1\n77\n"
    assert said(other, cri, *script) == "0\n10\n"
    for name, word in (("net.core.somaxconn", "machine's network"), ("kernel.panic", "no namespace")):
        with refused("FAILED_PRECONDITION", "linux.sysctls", name, word):
            Pod(serve, cri, "refused", linux=pb.LinuxPodSandboxConfig(sysctls={name: "1"}))


def test_a_pod_that_contradicts_itself(serve, cri):
    context = pb.LinuxSandboxSecurityContext(run_as_group=pb.Int64Value(value=1))
    with refused("INVALID_ARGUMENT", "run_as_group", "run_as_user"):
        Pod(serve, cri, "group", linux=pb.LinuxPodSandboxConfig(security_context=context))
    with refused("FAILED_PRECONDITION", "windows"):
        Pod(serve, cri, "windows", windows=pb.WindowsPodSandboxConfig())


def image_mount(path="/mnt/image", sub_path="", image=BUSYBOX, **more):
    more.setdefault("readonly", True)
    return pb.Mount(container_path=path, image=pb.ImageSpec(image=image), image_sub_path=sub_path, **more)


def test_an_image_as_a_volume(pod, cri):
    container = pod.run("sleep", "1000", mounts=[image_mount(), image_mount("/conf", "etc"), image_mount("/who", "etc/passwd")])
    script = "cmp /mnt/image/etc/passwd /conf/passwd && cmp /who /conf/passwd && /mnt/image/bin/true && echo same"
    assert cri.exec_sync(container, "sh", "-c", script).stdout == b"same\n"
    for path in ("/mnt/image/new", "/conf/passwd", "/who"):
        answer = cri.exec_sync(container, "sh", "-c", f"echo x >{path}")
        assert answer.exit_code != 0 and b"Read-only" in answer.stderr, path
    mounts = cri.status(container).mounts
    assert [m.image_sub_path for m in mounts] == ["", "etc", "etc/passwd"]
    image = cri.image.ImageStatus(pb.ImageStatusRequest(image=pb.ImageSpec(image=BUSYBOX))).image
    assert mounts[0].image.image_ref == image.id


def test_an_image_volume_is_kept_while_it_is_used(serve, pod, cri):
    container = pod.run("sleep", "1000", mounts=[image_mount(image=GROUPS_IMAGE)])
    cri.image.RemoveImage(pb.RemoveImageRequest(image=pb.ImageSpec(image=GROUPS_IMAGE)))
    serve.kill()
    serve.start()
    pod.wait_for_agent()
    assert b"50000" in cri.exec_sync(container, "cat", "/mnt/image/etc/group").stdout
    assert serve.ctl("load", str(IMAGES)).returncode == 0


def test_image_volumes_that_cannot_be(pod, cri):
    for mount, code, *words in (
            (image_mount(readonly=False), "INVALID_ARGUMENT", "mounts[0].readonly"),
            (image_mount(host_path="/tmp"), "INVALID_ARGUMENT", "mounts[0]", "host_path"),
            (image_mount(propagation=pb.PROPAGATION_HOST_TO_CONTAINER), "INVALID_ARGUMENT", "propagation"),
            (image_mount(image="example.org/none:1"), "NOT_FOUND", "mounts[0].image", "example.org/none:1"),
            (image_mount(sub_path="not/there"), "NOT_FOUND", "image_sub_path", "not/there"),
            (image_mount(sub_path="etc/passwd/x"), "NOT_FOUND", "image_sub_path"),
            (image_mount(sub_path="../../etc"), "INVALID_ARGUMENT", "image_sub_path", "leaves"),
            (image_mount(sub_path="/etc"), "INVALID_ARGUMENT", "image_sub_path", "leaves"),
            (pb.Mount(container_path="/x", host_path="/tmp", image_sub_path="etc"), "INVALID_ARGUMENT", "image_sub_path")):
        with refused(code, *words):
            pod.create("true", mounts=[mount])
    assert not cri.runtime.ListContainers(pb.ListContainersRequest()).containers
