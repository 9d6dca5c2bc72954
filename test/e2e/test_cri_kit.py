# SPDX-License-Identifier: Apache-2.0
"""The test client itself, against a small CRI server written with the same stubs."""
import concurrent.futures
import time

import grpc
import pytest
from cri import (Client, container_config, health_grpc, health_pb, pb, pb_grpc, pod_config, reflection_grpc, reflection_pb,
                 refused)

import reflection_v1alpha_pb2
import reflection_v1alpha_pb2_grpc


class Runtime(pb_grpc.RuntimeServiceServicer):
    """Knows sandboxes, and containers that run for 0.1 s."""

    def __init__(self):
        self.sandboxes = {}
        self.containers = {}

    def Version(self, request, context):
        return pb.VersionResponse(version="0.1.0", runtime_name="kit", runtime_version="1.0.0", runtime_api_version="v1")

    def Status(self, request, context):
        while context.is_active():  # no answer before the caller gives up
            time.sleep(0.02)

    def RunPodSandbox(self, request, context):
        name = f"sandbox-{len(self.sandboxes)}"
        self.sandboxes[name] = request.config
        return pb.RunPodSandboxResponse(pod_sandbox_id=name)

    def StopPodSandbox(self, request, context):
        return pb.StopPodSandboxResponse()

    def RemovePodSandbox(self, request, context):
        self.sandboxes.pop(request.pod_sandbox_id, None)
        return pb.RemovePodSandboxResponse()

    def ListPodSandbox(self, request, context):
        return pb.ListPodSandboxResponse(items=[pb.PodSandbox(id=i) for i in self.sandboxes])

    def CreateContainer(self, request, context):
        name = f"container-{len(self.containers)}"
        self.containers[name] = (request.config, None)
        return pb.CreateContainerResponse(container_id=name)

    def StartContainer(self, request, context):
        config, _ = self.containers[request.container_id]
        self.containers[request.container_id] = (config, time.monotonic())
        return pb.StartContainerResponse()

    def ContainerStatus(self, request, context):
        if request.container_id not in self.containers:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no container {request.container_id}; list them with ps")
        config, started = self.containers[request.container_id]
        state = pb.CONTAINER_CREATED
        if started is not None:
            state = pb.CONTAINER_EXITED if time.monotonic() > started + 0.1 else pb.CONTAINER_RUNNING
        return pb.ContainerStatusResponse(status=pb.ContainerStatus(id=request.container_id, state=state, labels=config.labels))


class Health(health_grpc.HealthServicer):
    def Check(self, request, context):
        return health_pb.HealthCheckResponse(status="SERVING")


def reflection(messages, base):
    class Reflection(base):
        def ServerReflectionInfo(self, requests, context):
            for request in requests:
                answer = messages.ServerReflectionResponse()
                if request.WhichOneof("message_request") == "list_services":
                    answer.list_services_response.service.add(name="runtime.v1.RuntimeService")
                elif request.file_containing_symbol == "runtime.v1.Mount":
                    answer.file_descriptor_response.file_descriptor_proto.append(pb.DESCRIPTOR.serialized_pb)
                else:
                    answer.error_response.error_message = "unknown symbol"
                yield answer
    return Reflection()


@pytest.fixture
def socket(tmp_path):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    pb_grpc.add_RuntimeServiceServicer_to_server(Runtime(), server)
    health_grpc.add_HealthServicer_to_server(Health(), server)
    reflection_grpc.add_ServerReflectionServicer_to_server(
        reflection(reflection_pb, reflection_grpc.ServerReflectionServicer), server)
    reflection_v1alpha_pb2_grpc.add_ServerReflectionServicer_to_server(
        reflection(reflection_v1alpha_pb2, reflection_v1alpha_pb2_grpc.ServerReflectionServicer), server)
    server.add_insecure_port(f"unix:{tmp_path}/cri.sock")
    server.start()
    yield tmp_path / "cri.sock"
    server.stop(None).wait()


@pytest.fixture
def cri(socket):
    with Client(socket) as client:
        client.wait_ready()
        yield client


def test_life_of_a_container(cri):
    pod = pod_config("web", uid="u1", labels={"app": "web"})
    assert pod.metadata.uid == "u1" and pod.labels["app"] == "web" and pod.labels["io.kubernetes.pod.uid"] == "u1"
    assert pod.linux.security_context.namespace_options.network == pb.NODE
    sandbox = cri.run_pod(pod)
    config = container_config("main", "busybox", "sh", "-c", "exit", env={"A": "b", "RAW": b"\xff"}, tty=True)
    assert list(config.command) == ["sh", "-c", "exit"] and config.envs[1].value == b"\xff" and config.tty
    container = cri.run(sandbox, config, pod)
    status = cri.wait_exit(container, 5)
    assert status.labels["io.kubernetes.container.name"] == "main"
    cri.remove_everything()
    assert not cri.runtime.ListPodSandbox(pb.ListPodSandboxRequest()).items


def test_wait_exit_gives_up(cri):
    pod = pod_config("web")
    container = cri.create(cri.run_pod(pod), container_config("main", "busybox"), pod)
    with pytest.raises(TimeoutError, match="CONTAINER_CREATED"):
        cri.wait_exit(container, 0.2)


def test_refused(cri):
    with refused("NOT_FOUND", "no container x", "PS") as answer:
        cri.status("x")
    assert answer.error.details().startswith("no container")
    with refused("UNIMPLEMENTED"):
        cri.pull("busybox")
    for code, words, call in [
        ("INTERNAL", [], lambda: cri.status("x")),
        ("NOT_FOUND", ["tomorrow"], lambda: cri.status("x")),
        ("NOT_FOUND", [], cri.wait_ready),
    ]:
        with pytest.raises(AssertionError):
            with refused(code, *words):
                call()


def test_every_call_has_a_deadline(socket):
    with Client(socket, timeout=0.3) as cri, refused("DEADLINE_EXCEEDED"):
        cri.runtime.Status(pb.StatusRequest())


def test_nobody_there(tmp_path):
    with Client(tmp_path / "none.sock") as cri:
        with refused("UNAVAILABLE"):
            cri.runtime.Version(pb.VersionRequest())
        with refused("DEADLINE_EXCEEDED"):
            cri.wait_ready(0.3)


def test_raw_bytes(cri):
    answer = pb.VersionResponse.FromString(cri.raw("runtime.v1.RuntimeService/Version", b""))
    assert answer.runtime_name == "kit"
    with refused("UNIMPLEMENTED"):
        cri.raw("runtime.v1.RuntimeService/NoSuchMethod", b"")
    with pytest.raises(grpc.RpcError):
        cri.raw("runtime.v1.RuntimeService/Version", b"\xff\xff\xff")


def test_health_and_reflection(cri):
    assert cri.health.Check(health_pb.HealthCheckRequest()).status == health_pb.HealthCheckResponse.SERVING
    assert cri.services() == cri.services(v1alpha=True) == ["runtime.v1.RuntimeService"]
    assert cri.describe("runtime.v1.Mount")[0].package == "runtime.v1"
    with pytest.raises(KeyError, match="unknown symbol"):
        cri.describe("no.such.Thing")
