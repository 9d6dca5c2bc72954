# SPDX-License-Identifier: Apache-2.0
"""serve ends on SIGTERM: calls under way in peace, streams with a word, pods not at all."""
import concurrent.futures
import os
import signal
import tempfile
import threading
import time

import grpc
import pytest
from cri import Client, health_pb, pb, pod_config
from serving import Pod, Serve
from site_queue import Site


@pytest.fixture(scope="module")
def server(images):
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    site = Site()
    server = Serve(root, config=f"""
Handlers:
  - Name: local
    Target: local
  - Name: cluster
    Target: {site.url}
DefaultHandler: local
""").start()
    assert server.ctl("load", str(images)).returncode == 0
    yield server
    server.finish()
    site.close()


@pytest.fixture
def own(server):
    yield server
    if server.process.poll() is not None:
        server.start()
    server.client.remove_everything()


def test_calls_end_streams_are_told_and_pods_go_on(own):
    pod = Pod(own, own.client, "pod")
    container = pod.run("sleep", "1000")
    with Client(own.socket) as other, concurrent.futures.ThreadPoolExecutor(2) as pool:
        states = []
        watch = other.health.Watch(health_pb.HealthCheckRequest(), timeout=None)
        states.append(next(watch).status)
        events = other.runtime.GetContainerEvents(pb.GetEventsRequest(), timeout=None)
        events.initial_metadata()
        started = threading.Event()

        def slow():
            started.set()
            return other.exec_sync(container, "sh", "-c", "sleep 0.7; echo done").stdout

        answer = pool.submit(slow)
        started.wait()
        time.sleep(0.3)
        own.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as end:
            for _ in events:
                pass
        assert end.value.code() == grpc.StatusCode.UNAVAILABLE and "stopped" in end.value.details()
        with pytest.raises(grpc.RpcError) as end:
            for state in watch:
                states.append(state.status)
        assert end.value.code() == grpc.StatusCode.UNAVAILABLE
        assert states == [health_pb.HealthCheckResponse.SERVING, health_pb.HealthCheckResponse.NOT_SERVING]
        assert answer.result() == b"done\n"
    assert own.process.wait(10) == 0
    own.start()
    assert own.client.status(container).state == pb.CONTAINER_RUNNING
    assert own.client.sandbox_status(pod.id).state == pb.SANDBOX_READY


def test_an_idle_server_ends_at_once_and_a_stuck_call_delays_it_for_seconds_only(own):
    pod = Pod(own, own.client, "pod")
    container = pod.run("sleep", "1000")
    with Client(own.socket) as other:
        call = other.runtime.ExecSync.future(pb.ExecSyncRequest(container_id=container, cmd=["sleep", "60"]))
        time.sleep(0.3)
        begin = time.monotonic()
        own.process.send_signal(signal.SIGTERM)
        assert own.process.wait(15) == 0
        assert 2.5 < time.monotonic() - begin
        assert call.exception().code() == grpc.StatusCode.UNAVAILABLE
    own.start()
    begin = time.monotonic()
    own.process.send_signal(signal.SIGTERM)
    assert own.process.wait(10) == 0
    assert time.monotonic() - begin < 2.5


def test_a_second_signal_ends_it_at_once(own):
    pod = Pod(own, own.client, "pod")
    container = pod.run("sleep", "1000")
    with Client(own.socket) as other:
        call = other.runtime.ExecSync.future(pb.ExecSyncRequest(container_id=container, cmd=["sleep", "60"]))
        time.sleep(0.3)
        own.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        begin = time.monotonic()
        own.process.send_signal(signal.SIGTERM)
        assert own.process.wait(10) == 0
        assert time.monotonic() - begin < 2
        assert call.exception() is not None


def test_who_waits_for_a_queue_hears_where_the_job_is(own):
    config = pod_config("waiting")
    with Client(own.socket) as other:
        call = other.runtime.RunPodSandbox.future(pb.RunPodSandboxRequest(config=config, runtime_handler="cluster"))
        time.sleep(1)
        own.process.send_signal(signal.SIGTERM)
        error = call.exception(5)
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert "4711" in error.details() and "stopped" in error.details(), error.details()
    assert own.process.wait(10) == 0
