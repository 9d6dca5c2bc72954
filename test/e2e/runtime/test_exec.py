# SPDX-License-Identifier: Apache-2.0
"""ExecSync."""
import time

import pytest
from cri import pb, refused


@pytest.fixture
def container(pod):
    return pod.run("sleep", "1000", env={"GREETING": "hello"}, working_dir="/tmp")


def test_both_streams_and_the_code(container, cri):
    answer = cri.exec_sync(container, "sh", "-c", "echo out; echo err >&2; exit 5")
    assert (answer.stdout, answer.stderr, answer.exit_code) == (b"out\n", b"err\n", 5)


def test_environment_folder_and_namespaces_are_the_container_s(container, cri):
    answer = cri.exec_sync(container, "sh", "-c", "echo $GREETING; pwd; cat /proc/1/cmdline")
    assert answer.stdout == b"hello\n/tmp\nsleep\0001000\000"


def test_binary_output_passes_unchanged(container, cri):
    answer = cri.exec_sync(container, "sh", "-c", "dd if=/dev/urandom of=/tmp/r bs=1k count=300 2>/dev/null; cat /tmp/r; md5sum /tmp/r >&2")
    import hashlib
    assert len(answer.stdout) == 300 * 1024
    assert hashlib.md5(answer.stdout).hexdigest() == answer.stderr.decode().split()[0]


def test_past_its_time_out_nothing_is_left(container, cri):
    start = time.monotonic()
    with refused("DEADLINE_EXCEEDED", "timeout 1s exceeded: context deadline exceeded"):
        cri.exec_sync(container, "sh", "-c", "(setsid sleep 777 &); sleep 777 & trap '' TERM; sleep 777", timeout=1)
    assert time.monotonic() - start < 4
    assert b"777" not in cri.exec_sync(container, "ps").stdout


def test_a_client_that_leaves_ends_its_command(container, cri):
    call = cri.runtime.ExecSync.future(pb.ExecSyncRequest(container_id=container, cmd=["sleep", "888"]))
    time.sleep(0.5)
    assert b"888" in cri.exec_sync(container, "ps").stdout
    call.cancel()
    for _ in range(50):
        if b"888" not in cri.exec_sync(container, "ps").stdout:
            return
        time.sleep(0.05)
    raise AssertionError("the command lives on")


def test_errors(container, cri, pod):
    with refused("INVALID_ARGUMENT", "cmd"):
        cri.exec_sync(container)
    with refused("NOT_FOUND", "/no/such"):
        cri.exec_sync(container, "/no/such")
    ended = pod.run("true")
    cri.wait_exit(ended)
    with refused("FAILED_PRECONDITION", "not running"):
        cri.exec_sync(ended, "true")


def test_output_beyond_16_mib_is_dropped_and_the_command_goes_on(container, cri):
    answer = cri.exec_sync(container, "sh", "-c", "echo err >&2; head -c 20000000 /dev/zero; exit 7", timeout=60)
    assert 16 << 20 > len(answer.stdout) > (16 << 20) - 100000
    assert (answer.stdout.strip(b"\0"), answer.stderr, answer.exit_code) == (b"", b"err\n", 7)


def test_a_time_out_may_be_as_long_as_can_be(container, cri):
    call = cri.runtime.ExecSync(pb.ExecSyncRequest(container_id=container, cmd=["true"], timeout=(1 << 63) - 1))
    assert call.exit_code == 0


def test_many_at_once(container, cri):
    calls = [cri.runtime.ExecSync.future(pb.ExecSyncRequest(container_id=container, cmd=["sh", "-c", f"echo {i}"]))
             for i in range(40)]
    assert [c.result(30).stdout for c in calls] == [f"{i}\n".encode() for i in range(40)]
