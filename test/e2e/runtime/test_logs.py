# SPDX-License-Identifier: Apache-2.0
"""Container output in CRI's format."""
import os
import pathlib
import re
import time

from cri import pb, refused
from serving import Pod

LINE = re.compile(rb"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) ([FP]) (.*)$", re.S)


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_lines_are_in_cri_s_format(pod, cri):
    container = pod.run("sh", "-c", "echo one; echo; printf unfinished")
    cri.wait_exit(container)
    lines = pathlib.Path(cri.status(container).log_path).read_bytes().splitlines()
    assert [LINE.match(x).groups() for x in lines] == [
        (b"stdout", b"F", b"one"), (b"stdout", b"F", b""), (b"stdout", b"P", b"unfinished")]


def test_long_lines_come_in_parts_and_binary_is_kept(pod, cri):
    container = pod.run("sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; echo; printf 'a\\000b\\377c\\n'")
    cri.wait_exit(container)
    out, _ = pod.output(container)
    assert out == b"x" * 100000 + b"\n" + b"a\0b\xffc\n"


def test_output_is_complete_and_in_order(pod, cri):
    container = pod.run("sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")
    cri.wait_exit(container, 60)
    out, _ = pod.output(container)
    assert out == b"".join(b"line %d\n" % i for i in range(20000))


def test_rotation_loses_nothing(pod, cri):
    container = pod.run("sh", "-c", "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; sleep 1000")
    path = pathlib.Path(cri.status(container).log_path)
    rotated = []
    for n in range(5):
        time.sleep(0.03)
        rotated.append(path.with_suffix(f".{n}"))
        os.rename(path, rotated[-1])
        cri.runtime.ReopenContainerLog(pb.ReopenContainerLogRequest(container_id=container))
        assert path.exists()
        size = rotated[-1].stat().st_size
        time.sleep(0.02)
        assert rotated[-1].stat().st_size == size

    def everything():
        return b"".join(p.read_bytes() for p in [*rotated, path])

    wait_for(lambda: everything().count(b"\n") == 3000, 30)
    assert [x.split(b" ", 3)[3] for x in everything().splitlines()] == [b"line %d" % i for i in range(3000)]
    cri.runtime.StopContainer(pb.StopContainerRequest(container_id=container))
    with refused("FAILED_PRECONDITION", "not running"):
        cri.runtime.ReopenContainerLog(pb.ReopenContainerLogRequest(container_id=container))


def test_output_over_restarts_is_neither_lost_nor_doubled(pod, cri, serve):
    total = 6000
    container = pod.run("sh", "-c", f"i=0; while [ $i -lt {total} ]; do echo line $i; i=$((i+1)); [ $((i % 200)) = 0 ] && sleep 0.1; done")
    path = pathlib.Path(cri.status(container).log_path)
    for _ in range(6):
        time.sleep(0.3)
        serve.kill()
        time.sleep(0.1)
        serve.start()
    cri.wait_exit(container, 60)
    assert [x.split(b" ", 3)[3] for x in path.read_bytes().splitlines()] == [b"line %d" % i for i in range(total)]


def test_a_pod_without_a_log_directory_keeps_none(serve, cri):
    quiet = Pod(serve, cri, "quiet", log_directory="")
    container = quiet.run("sh", "-c", "head -c 10000000 /dev/zero")
    assert cri.wait_exit(container, 30).exit_code == 0
    assert cri.status(container).log_path == ""
