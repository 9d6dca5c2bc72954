# SPDX-License-Identifier: Apache-2.0
"""GetContainerEvents: what kubelet's evented PLEG lives on."""
import os
import queue
import socket
import tempfile
import threading
import time

import grpc
import pytest
from serving import Pod, Serve, free_port
from cri import Client, pb, refused
from test_remote import Plugin

CREATED, STARTED = pb.CONTAINER_CREATED_EVENT, pb.CONTAINER_STARTED_EVENT
STOPPED, DELETED = pb.CONTAINER_STOPPED_EVENT, pb.CONTAINER_DELETED_EVENT


class Subscriber:
    """A stream of events on a connection of its own, read in a thread. Subscribed once it is made."""

    def __init__(self, serve):
        self.client = Client(serve.socket)
        self.events = queue.Queue()
        self.error = None
        self.stream = self.client.runtime.GetContainerEvents(pb.GetEventsRequest(), timeout=None, wait_for_ready=True)
        self.stream.initial_metadata()
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        try:
            for event in self.stream:
                self.events.put(event)
        except grpc.RpcError as error:
            self.error = error
        self.events.put(None)

    def next(self, seconds=20):
        return self.events.get(timeout=seconds)

    def take(self, count):
        return [self.next() for _ in range(count)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.cancel()
        self.thread.join(10)
        self.client.close()


def words(events):
    return [(e.container_id, e.container_event_type) for e in events]


@pytest.fixture
def watch(serve):
    """A subscriber; what happened before it came has been read."""
    with Subscriber(serve) as subscriber:
        while True:
            try:
                subscriber.next(0.2)
            except queue.Empty:
                break
        yield subscriber


def test_the_whole_life_of_a_pod(watch, serve, cri):
    pod = Pod(serve, cri, "pod")
    events = watch.take(2)
    assert words(events) == [(pod.id, CREATED), (pod.id, STARTED)]
    assert events[1].pod_sandbox_status == cri.sandbox_status(pod.id)
    assert events[1].pod_sandbox_status.metadata == pod.config.metadata

    container = pod.create("sh", "-c", "read line; exit 3", stdin=True)
    event = watch.next()
    assert words([event]) == [(container, CREATED)]
    assert list(event.containers_statuses) == [cri.status(container)]
    assert event.containers_statuses[0].state == pb.CONTAINER_CREATED

    cri.runtime.StartContainer(pb.StartContainerRequest(container_id=container))
    event = watch.next()
    assert words([event]) == [(container, STARTED)]
    assert event.pod_sandbox_status.state == pb.SANDBOX_READY

    cri.runtime.StopContainer(pb.StopContainerRequest(container_id=container, timeout=0))
    event = watch.next()
    assert words([event]) == [(container, STOPPED)]
    assert list(event.containers_statuses) == [cri.status(container)]
    assert event.containers_statuses[0].exit_code == 137

    cri.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=container))
    event = watch.next()
    assert words([event]) == [(container, DELETED)]
    assert list(event.containers_statuses) == []
    assert event.pod_sandbox_status.state == pb.SANDBOX_READY

    cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.id))
    event = watch.next()
    assert words([event]) == [(pod.id, STOPPED)]
    assert event.pod_sandbox_status.state == pb.SANDBOX_NOTREADY
    cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod.id))
    event = watch.next()
    assert words([event]) == [(pod.id, DELETED)]
    # kubelet ignores an event without the pod's status, so the last one has it, too.
    assert event.pod_sandbox_status.metadata.uid == pod.config.metadata.uid


def test_a_pod_that_goes_at_once_leaves_its_parts_in_order(watch, serve, cri):
    pod = Pod(serve, cri, "pod")
    running, done, idle = pod.run("sleep", "1000"), pod.run("true"), pod.create("true")
    cri.wait_exit(done)
    cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.id))
    cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod.id))
    events = watch.take(2 + 4 + 4 + 3 + 2)
    told = words(events)
    for one, life in ((running, [CREATED, STARTED, STOPPED, DELETED]), (done, [CREATED, STARTED, STOPPED, DELETED]),
                      (idle, [CREATED, STOPPED, DELETED]), (pod.id, [CREATED, STARTED, STOPPED, DELETED])):
        assert [what for who, what in told if who == one] == life
    assert told[:2] == [(pod.id, CREATED), (pod.id, STARTED)] and told[-1] == (pod.id, DELETED)
    assert told.index((running, STOPPED)) < told.index((pod.id, STOPPED))
    stamps = [e.created_at for e in events]
    assert stamps == sorted(set(stamps))
    assert abs(stamps[-1] / 1e9 - time.time()) < 60


def test_one_whose_start_failed_never_started(watch, pod, cri):
    container = pod.create("/no/such/program")
    with pytest.raises(grpc.RpcError):
        cri.runtime.StartContainer(pb.StartContainerRequest(container_id=container))
    assert cri.wait_exit(container).reason == "StartError"
    assert [what for who, what in words(watch.take(4)) if who == container] == [CREATED, STOPPED]


def test_all_subscribers_hear_the_same(serve, cri):
    with Subscriber(serve) as first, Subscriber(serve) as second:
        while not first.events.empty():
            first.next()
        pod = Pod(serve, cri, "pod")
        pod.run("true")
        heard = []
        while len(heard) < 3 or heard[-1].container_event_type != STOPPED:
            heard.append(first.next())
        heard = [e for e in heard if e.pod_sandbox_status.id == pod.id]
        assert second.take(len(heard)) == heard


def test_what_happens_while_nobody_listens_is_heard_first(serve, cri):
    with Subscriber(serve):
        pass
    pod = Pod(serve, cri, "pod")
    with Subscriber(serve) as subscriber:
        told = []
        while (pod.id, STARTED) not in told:
            told += words([subscriber.next()])
        assert (pod.id, CREATED) in told


def test_what_ends_while_serve_is_away_is_heard_afterwards(serve, cri, pod):
    container = pod.run("sh", "-c", "sleep 0.5; exit 9")
    with Subscriber(serve) as subscriber:
        serve.kill()
        while subscriber.next() is not None:
            pass
        assert subscriber.error.code() == grpc.StatusCode.UNAVAILABLE
    time.sleep(0.6)
    serve.start()
    with Subscriber(serve) as subscriber:
        event = subscriber.next()
        assert words([event]) == [(container, STOPPED)]
        assert event.containers_statuses[0].exit_code == 9


def test_too_many_subscribers_are_told_so(serve):
    streams = []
    with Client(serve.socket) as client:
        for _ in range(64):
            streams.append(client.runtime.GetContainerEvents(pb.GetEventsRequest(), timeout=None))
            streams[-1].initial_metadata()
        with refused("RESOURCE_EXHAUSTED", "64"):
            next(client.runtime.GetContainerEvents(pb.GetEventsRequest()))
        for stream in streams:
            stream.cancel()
        end = time.monotonic() + 10
        while True:
            with Subscriber(serve) as subscriber:
                if not subscriber.stream.done():
                    break
            assert time.monotonic() < end


# ---- an agent whose connection breaks ----

class Wire:
    """What lies between agents and the relay: carries bytes until it is cut."""

    def __init__(self, to):
        self.to = to
        self.whole = True
        self.sockets = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if not self.whole:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self.to))
            self.sockets += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=(a, b), daemon=True).start()

    @staticmethod
    def carry(a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        self.whole = False
        for s in self.sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.cut()
        self.listener.close()


@pytest.fixture
def remote(images):
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    port = free_port()
    wire = Wire(port)
    server = Serve(root, config=f"""
Relay:
  Listen: 127.0.0.1:{port}
  Advertise: 127.0.0.1:{wire.port}
Handlers:
  - Name: cluster
    Target: unix://{root}/remote.sock
""")
    server.kind = "root"
    server.wire = wire
    server.plugin = Plugin(server)
    server.plugin.start()
    server.start()
    assert server.ctl("load", str(images)).returncode == 0
    yield server
    server.client.remove_everything()
    server.plugin.stop()
    server.finish()
    wire.close()


def test_what_happens_while_an_agent_is_out_of_reach_is_heard_when_it_calls_again(remote):
    cri = remote.client
    with Subscriber(remote) as watch:
        pod = Pod(remote, cri, "far")
        ends, stays = pod.run("sh", "-c", "sleep 1; exit 5"), pod.run("sleep", "1000")
        assert words(watch.take(6)) == [(pod.id, CREATED), (pod.id, STARTED), (ends, CREATED), (ends, STARTED),
                                        (stays, CREATED), (stays, STARTED)]
        remote.wire.cut()
        time.sleep(1.5)
        assert watch.events.empty() and cri.status(ends).state == pb.CONTAINER_RUNNING
        remote.wire.whole = True
        event = watch.next()
        assert words([event]) == [(ends, STOPPED)]
        assert {(c.id, c.state, c.exit_code) for c in event.containers_statuses} == \
            {(ends, pb.CONTAINER_EXITED, 5), (stays, pb.CONTAINER_RUNNING, 0)}
        cri.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=ends))
        assert words([watch.next()]) == [(ends, DELETED)]
        assert watch.events.empty()
