# SPDX-License-Identifier: Apache-2.0
"""Who a container's processes are and what they may do; what Status promises of it."""
import time

import pytest
from conftest import IMAGES
from cri import pb, refused
from serving import BUSYBOX
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
