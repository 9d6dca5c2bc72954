# SPDX-License-Identifier: Apache-2.0
"""The client, and short ways to write the messages that tests send."""
import contextlib
import time
import uuid

import cri_pb2 as pb
import cri_pb2_grpc
import grpc
import health_pb2_grpc
import reflection_pb2 as reflection_pb
import reflection_pb2_grpc
import reflection_v1alpha_pb2
import reflection_v1alpha_pb2_grpc
from google.protobuf import descriptor_pb2

MESSAGE_MAX = 16 << 20  # bytes; kubelet's limit in both directions


class _WithDeadline:
    """A stub whose calls all have a deadline, so that a server which never answers fails a test instead of hanging it."""

    def __init__(self, stub, seconds):
        self._stub = stub
        self._seconds = seconds

    def __getattr__(self, name):
        call = getattr(self._stub, name)

        def with_deadline(request, timeout=self._seconds, **more):
            return call(request, timeout=timeout, **more)

        with_deadline.future = getattr(call, "future", None)  # a unary call's asynchronous form, without a deadline
        return with_deadline


class Client:
    """All services on one CRI socket, over one connection, the way kubelet makes it.

    runtime, image, health, reflection and reflection_v1alpha are gRPC stubs. Their calls end after `timeout` seconds unless
    the call says otherwise (timeout=None: never).
    """

    def __init__(self, socket, timeout=20.0, options=()):
        self.socket = str(socket)
        self.timeout = timeout
        self.channel = grpc.insecure_channel("unix:" + self.socket, options=[
            ("grpc.default_authority", "localhost"),
            ("grpc.max_receive_message_length", MESSAGE_MAX),
            ("grpc.max_send_message_length", MESSAGE_MAX),
            ("grpc.use_local_subchannel_pool", 1),  # a connection of its own for each Client
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 200),
            *options,
        ])
        self.runtime = _WithDeadline(cri_pb2_grpc.RuntimeServiceStub(self.channel), timeout)
        self.image = _WithDeadline(cri_pb2_grpc.ImageServiceStub(self.channel), timeout)
        self.health = _WithDeadline(health_pb2_grpc.HealthStub(self.channel), timeout)
        self.reflection = _WithDeadline(reflection_pb2_grpc.ServerReflectionStub(self.channel), timeout)
        self.reflection_v1alpha = _WithDeadline(
            reflection_v1alpha_pb2_grpc.ServerReflectionStub(self.channel), timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.channel.close()

    def wait_ready(self, seconds=10.0):
        """Waits until the server answers Version, and returns the answer."""
        return self.runtime.Version(pb.VersionRequest(version="0.1.0"), timeout=seconds, wait_for_ready=True)

    def raw(self, method, body, timeout=None, metadata=None):
        """Calls "package.Service/Method" with any bytes as the message; returns the answer's bytes."""
        call = self.channel.unary_unary("/" + method.lstrip("/"), request_serializer=None, response_deserializer=None)
        return call(body, timeout=timeout or self.timeout, metadata=metadata)

    # --- reflection ---

    def services(self, v1alpha=False):
        """Names of the services that the server says it has."""
        messages = reflection_v1alpha_pb2 if v1alpha else reflection_pb
        stub = self.reflection_v1alpha if v1alpha else self.reflection
        answer = next(iter(stub.ServerReflectionInfo(iter([messages.ServerReflectionRequest(list_services="*")]))))
        return sorted(service.name for service in answer.list_services_response.service)

    def describe(self, symbol):
        """The FileDescriptorProtos that define a symbol. KeyError, with the server's words, when it has none."""
        question = reflection_pb.ServerReflectionRequest(file_containing_symbol=symbol)
        answer = next(iter(self.reflection.ServerReflectionInfo(iter([question]))))
        if answer.WhichOneof("message_response") != "file_descriptor_response":
            raise KeyError(answer.error_response.error_message)
        files = answer.file_descriptor_response.file_descriptor_proto
        return [descriptor_pb2.FileDescriptorProto.FromString(f) for f in files]

    # --- pods ---

    def run_pod(self, config, handler="", timeout=None):
        """RunPodSandbox; returns the sandbox's id."""
        request = pb.RunPodSandboxRequest(config=config, runtime_handler=handler)
        return self.runtime.RunPodSandbox(request, timeout=timeout or self.timeout).pod_sandbox_id

    def create(self, sandbox, config, pod):
        """CreateContainer; returns the container's id."""
        request = pb.CreateContainerRequest(pod_sandbox_id=sandbox, config=config, sandbox_config=pod)
        return self.runtime.CreateContainer(request).container_id

    def run(self, sandbox, config, pod):
        """CreateContainer and StartContainer; returns the container's id."""
        container = self.create(sandbox, config, pod)
        self.runtime.StartContainer(pb.StartContainerRequest(container_id=container))
        return container

    def pull(self, reference, auth=None, timeout=None):
        """PullImage; returns the image's id."""
        request = pb.PullImageRequest(image=pb.ImageSpec(image=reference), auth=auth)
        return self.image.PullImage(request, timeout=timeout or self.timeout).image_ref

    def status(self, container):
        """The ContainerStatus message."""
        return self.runtime.ContainerStatus(pb.ContainerStatusRequest(container_id=container)).status

    def sandbox_status(self, sandbox):
        """The PodSandboxStatus message."""
        return self.runtime.PodSandboxStatus(pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox)).status

    def exec_sync(self, container, *command, timeout=10):
        """ExecSync; the command is stopped after `timeout` seconds, the call given a little longer."""
        request = pb.ExecSyncRequest(container_id=container, cmd=command, timeout=timeout)
        return self.runtime.ExecSync(request, timeout=timeout + 10 if timeout else None)

    def wait_exit(self, container, seconds=20.0):
        """Polls until the container has exited; returns its ContainerStatus."""
        end = time.monotonic() + seconds
        while True:
            status = self.status(container)
            if status.state == pb.CONTAINER_EXITED:
                return status
            if time.monotonic() > end:
                state = pb.ContainerState.Name(status.state)
                raise TimeoutError(f"container {container} is {state} after {seconds} s, not exited")
            time.sleep(0.02)

    def remove_everything(self):
        """Stops and removes every sandbox that the server lists, with its containers."""
        for sandbox in self.runtime.ListPodSandbox(pb.ListPodSandboxRequest()).items:
            self.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=sandbox.id))
            self.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox.id))


def pod_config(name, uid=None, namespace="default", attempt=0, host_network=True, **more):
    """A PodSandboxConfig as kubelet would send it. `more` sets any other field of the message."""
    uid = uid or str(uuid.uuid4())
    labels = {
        "io.kubernetes.pod.name": name,
        "io.kubernetes.pod.namespace": namespace,
        "io.kubernetes.pod.uid": uid,
        **more.pop("labels", {}),
    }
    config = pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(name=name, uid=uid, namespace=namespace, attempt=attempt),
        labels=labels, **{"hostname": "" if host_network else name, **more})
    namespaces = config.linux.security_context.namespace_options
    if "linux" not in more:
        namespaces.network = pb.NODE if host_network else pb.POD
        namespaces.pid = pb.CONTAINER
    return config


def container_config(name, image, *command, args=(), env=None, attempt=0, **more):
    """A ContainerConfig. `command` replaces the image's ENTRYPOINT; `more` sets any other field of the message."""
    envs = [pb.KeyValue(key=k, value=v if isinstance(v, bytes) else str(v).encode()) for k, v in (env or {}).items()]
    config = pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name=name, attempt=attempt),
        image=pb.ImageSpec(image=image, user_specified_image=image),
        command=command, args=args, envs=envs,
        **{"labels": {"io.kubernetes.container.name": name}, "log_path": f"{name}/{attempt}.log", **more})
    if "linux" not in more:
        config.linux.security_context.namespace_options.pid = pb.CONTAINER
    return config


@contextlib.contextmanager
def refused(code, *words):
    """The block must fail with this gRPC code (by name), and its message must contain every one of the words.

    What it yields has the error as .error afterwards.
    """
    caught = type("Refused", (), {"error": None})()
    try:
        yield caught
    except grpc.RpcError as error:
        caught.error = error
        got, message = error.code().name, error.details()
        if got != code:
            raise AssertionError(f"expected {code}, got {got}: {message}") from error
        for word in words:
            if word.lower() not in message.lower():
                raise AssertionError(f"the {code} message does not say {word!r}: {message}") from error
        return
    raise AssertionError(f"expected {code}, but the call succeeded")
