# SPDX-License-Identifier: Apache-2.0
"""A CRI server for tests of the command line client: it keeps what it is told and answers from memory."""
import concurrent.futures
import threading
import time

import grpc
from cri import pb, pb_grpc

import control_pb2
import control_pb2_grpc

SECOND = 10**9
IMAGE = "sha256:" + "ab" * 32


class Runtime(pb_grpc.RuntimeServiceServicer):
    def __init__(self):
        self.pods = {}
        self.containers = {}
        self.requests = []
        self.log_folder = None
        self.count = self.looks = 0
        self.events_held = False
        self.url = ""
        self.cancelled = threading.Event()

    def seen(self, kind):
        return [request for request in self.requests if isinstance(request, kind)]

    def find(self, table, name, context):
        fits = [key for key in table if key.startswith(name)]
        if len(fits) != 1:
            context.abort(grpc.StatusCode.NOT_FOUND, f'"{name}" is not known here')
        return table[fits[0]]

    def Version(self, request, context):
        self.requests.append(request)
        return pb.VersionResponse(version="0.1.0", runtime_name="fake", runtime_version="1.2.3", runtime_api_version="v1")

    def Status(self, request, context):
        answer = pb.StatusResponse(status=pb.RuntimeStatus(conditions=[pb.RuntimeCondition(type="RuntimeReady", status=True)]),
                                   runtime_handlers=[pb.RuntimeHandler(name="local", features=pb.RuntimeHandlerFeatures(
                                       user_namespaces=True))],
                                   features=pb.RuntimeFeatures(supplemental_groups_policy=True))
        if request.verbose:
            answer.info["config"] = '{"z": 1, "a": {"b": "c"}}'
            answer.info["word"] = '"quoted"'
        return answer

    def RunPodSandbox(self, request, context):
        self.requests.append(request)
        if request.runtime_handler == "full":
            context.abort(grpc.StatusCode.UNAVAILABLE, "job 4711 is queued: Priority")
        if request.runtime_handler == "slow":
            while context.is_active():
                time.sleep(0.02)
            self.cancelled.set()
        self.count += 1
        name = f"{self.count:x}" * 64
        name = name[:64]
        self.pods[name] = pb.PodSandboxStatus(
            id=name, metadata=request.config.metadata, state=pb.SANDBOX_READY, created_at=int((time.time() - 125) * SECOND) + self.count,
            labels=request.config.labels, annotations=request.config.annotations, runtime_handler=request.runtime_handler,
            network=pb.PodSandboxNetworkStatus(ip="10.0.0.1", additional_ips=[pb.PodIP(ip="fd00::1")]))
        return pb.RunPodSandboxResponse(pod_sandbox_id=name)

    def StopPodSandbox(self, request, context):
        self.find(self.pods, request.pod_sandbox_id, context).state = pb.SANDBOX_NOTREADY
        return pb.StopPodSandboxResponse()

    def RemovePodSandbox(self, request, context):
        self.pods.pop(self.find(self.pods, request.pod_sandbox_id, context).id)
        return pb.RemovePodSandboxResponse()

    def PodSandboxStatus(self, request, context):
        return pb.PodSandboxStatusResponse(status=self.find(self.pods, request.pod_sandbox_id, context),
                                           info={"runtime": '{"job": "4711"}'} if request.verbose else {})

    def ListPodSandbox(self, request, context):
        self.requests.append(request)
        wanted = request.filter
        items = []
        for p in self.pods.values():
            if wanted.id and not p.id.startswith(wanted.id) or wanted.HasField("state") and wanted.state.state != p.state:
                continue
            if any(p.labels.get(key) != value for key, value in wanted.label_selector.items()):
                continue
            items.append(pb.PodSandbox(id=p.id, metadata=p.metadata, state=p.state, created_at=p.created_at, labels=p.labels,
                                       annotations=p.annotations, runtime_handler=p.runtime_handler))
        return pb.ListPodSandboxResponse(items=items)

    def CreateContainer(self, request, context):
        self.requests.append(request)
        pod = self.find(self.pods, request.pod_sandbox_id, context)
        self.count += 1
        name = f"c{self.count:063x}"
        self.containers[name] = container = pb.ContainerStatus(
            id=name, metadata=request.config.metadata, state=pb.CONTAINER_CREATED, created_at=int(time.time() * SECOND),
            image=request.config.image, labels=request.config.labels, annotations=request.config.annotations)
        container.annotations["pod"] = pod.id
        if self.log_folder and request.config.log_path:
            container.log_path = str(self.log_folder / request.config.log_path)
        return pb.CreateContainerResponse(container_id=name)

    def StartContainer(self, request, context):
        container = self.find(self.containers, request.container_id, context)
        if container.state != pb.CONTAINER_CREATED:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "it is not created but something else")
        container.state = pb.CONTAINER_RUNNING
        container.started_at = 1795498560120000000
        return pb.StartContainerResponse()

    def StopContainer(self, request, context):
        self.requests.append(request)
        container = self.find(self.containers, request.container_id, context)
        container.state, container.exit_code, container.finished_at = pb.CONTAINER_EXITED, 143, 1795498561000000000
        return pb.StopContainerResponse()

    def RemoveContainer(self, request, context):
        self.containers.pop(self.find(self.containers, request.container_id, context).id)
        return pb.RemoveContainerResponse()

    def ContainerStatus(self, request, context):
        return pb.ContainerStatusResponse(status=self.find(self.containers, request.container_id, context),
                                          info={"pid": '{"pid": 17}'} if request.verbose else {})

    def ListContainers(self, request, context):
        self.requests.append(request)
        wanted = request.filter
        found = []
        for c in self.containers.values():
            if wanted.id and not c.id.startswith(wanted.id) or wanted.HasField("state") and wanted.state.state != c.state:
                continue
            pod = c.annotations["pod"]
            if wanted.pod_sandbox_id and not pod.startswith(wanted.pod_sandbox_id):
                continue
            if any(c.labels.get(key) != value for key, value in wanted.label_selector.items()):
                continue
            found.append(pb.Container(id=c.id, pod_sandbox_id=pod, metadata=c.metadata, image=c.image, state=c.state,
                                      created_at=c.created_at, labels=c.labels, annotations=c.annotations))
        return pb.ListContainersResponse(containers=found)

    def ReopenContainerLog(self, request, context):
        self.requests.append(request)
        return pb.ReopenContainerLogResponse()

    def ExecSync(self, request, context):
        self.requests.append(request)
        self.find(self.containers, request.container_id, context)
        code = int(request.cmd[1]) if request.cmd[0] == "exit" else 0
        return pb.ExecSyncResponse(stdout=b"out\x00put\n", stderr=b"error\n", exit_code=code)

    # Streams: where they are is told by the test.

    def Exec(self, request, context):
        self.requests.append(request)
        return pb.ExecResponse(url=self.url)

    def Attach(self, request, context):
        self.requests.append(request)
        return pb.AttachResponse(url=self.url)

    def PortForward(self, request, context):
        self.requests.append(request)
        return pb.PortForwardResponse(url=self.url)

    # Statistics: each look finds a quarter of a second of CPU time more, measured a second later.

    def usage(self, first):
        self.looks += 1
        return pb.CpuUsage(timestamp=self.looks * SECOND, usage_core_nano_seconds=pb.UInt64Value(value=first + self.looks * SECOND // 4))

    def ListContainerStats(self, request, context):
        self.requests.append(request)
        stats = []
        for c in reversed(self.containers.values()):
            if request.filter.id and not c.id.startswith(request.filter.id):
                continue
            one = pb.ContainerStats(attributes=pb.ContainerAttributes(id=c.id, metadata=c.metadata, labels=c.labels))
            if c.state == pb.CONTAINER_RUNNING:
                one.cpu.CopyFrom(self.usage(1000))
                one.memory.working_set_bytes.value = 12345678
                one.writable_layer.used_bytes.value = 40960
                one.writable_layer.inodes_used.value = 9
                one.swap.swap_usage_bytes.value = 512
            stats.append(one)
        return pb.ListContainerStatsResponse(stats=stats)

    def ListPodSandboxStats(self, request, context):
        self.requests.append(request)
        return pb.ListPodSandboxStatsResponse(stats=[
            pb.PodSandboxStats(attributes=pb.PodSandboxAttributes(id=p.id, metadata=p.metadata, labels=p.labels),
                               linux=pb.LinuxPodSandboxStats(cpu=self.usage(5), memory=pb.MemoryUsage(
                                   working_set_bytes=pb.UInt64Value(value=2000)))) for p in self.pods.values()])

    def ListMetricDescriptors(self, request, context):
        return pb.ListMetricDescriptorsResponse(descriptors=[
            pb.MetricDescriptor(name="container_cpu_usage_seconds_total", help="CPU time", label_keys=["id", "name"])])

    def ListPodSandboxMetrics(self, request, context):
        return pb.ListPodSandboxMetricsResponse(pod_metrics=[pb.PodSandboxMetrics(pod_sandbox_id="p1", metrics=[
            pb.Metric(name="container_cpu_usage_seconds_total", timestamp=17, metric_type=pb.COUNTER, label_values=["a", "b"],
                      value=pb.UInt64Value(value=42))])])

    def GetContainerEvents(self, request, context):
        context.add_callback(self.cancelled.set)
        for i, kind in enumerate((pb.CONTAINER_CREATED_EVENT, pb.CONTAINER_STARTED_EVENT)):
            yield pb.ContainerEventResponse(container_id="c1", container_event_type=kind, created_at=1795498560000000001 + i)
        while self.events_held and context.is_active():
            time.sleep(0.02)

    # Changes.

    def UpdateContainerResources(self, request, context):
        self.requests.append(request)
        self.find(self.containers, request.container_id, context)
        if request.linux.memory_limit_in_bytes == 1:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "linux.memory_limit_in_bytes: the container uses more than that")
        return pb.UpdateContainerResourcesResponse()

    def CheckpointContainer(self, request, context):
        self.requests.append(request)
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "checkpoints are not offered")

    def RuntimeConfig(self, request, context):
        return pb.RuntimeConfigResponse(linux=pb.LinuxRuntimeConfiguration(cgroup_driver=pb.CGROUPFS))

    def UpdateRuntimeConfig(self, request, context):
        self.requests.append(request)
        return pb.UpdateRuntimeConfigResponse()


class Images(pb_grpc.ImageServiceServicer):
    def __init__(self):
        self.images = {}
        self.requests = []
        self.count = 0

    def add(self, name, **more):
        self.count += 1
        more.setdefault("id", IMAGE if self.count == 1 else f"sha256:{self.count:064x}")
        more.setdefault("repo_tags", [f"docker.io/library/{name}"])
        more.setdefault("repo_digests", [f"docker.io/library/{name.split(':')[0]}@sha256:{self.count + 15:064x}"])
        self.images[more["id"]] = image = pb.Image(size=4260000 * self.count, **more)
        return image

    def find(self, name):
        for image in self.images.values():
            short = image.id.removeprefix("sha256:")
            if name in image.repo_tags or name == image.id or len(name) > 5 and short.startswith(name):
                return image
            if f"docker.io/library/{name}" in image.repo_tags or f"docker.io/library/{name}:latest" in image.repo_tags:
                return image
        return None

    def PullImage(self, request, context):
        self.requests.append(request)
        name = request.image.image
        if name == "missing":
            context.abort(grpc.StatusCode.NOT_FOUND, "docker.io/library/missing:latest: the registry has no such image")
        image = self.find(name) or self.add(name if ":" in name else name + ":latest")
        return pb.PullImageResponse(image_ref=image.id)

    def ListImages(self, request, context):
        name = request.filter.image.image
        return pb.ListImagesResponse(images=[i for i in self.images.values() if not name or i == self.find(name)])

    def ImageStatus(self, request, context):
        return pb.ImageStatusResponse(image=self.find(request.image.image), info={"imageSpec": '{"os": "linux"}'} if request.verbose else {})

    def RemoveImage(self, request, context):
        image = self.find(request.image.image)
        if image:
            del self.images[image.id]
        return pb.RemoveImageResponse()

    def ImageFsInfo(self, request, context):
        return pb.ImageFsInfoResponse(image_filesystems=[pb.FilesystemUsage(
            timestamp=17, fs_id=pb.FilesystemIdentifier(mountpoint="/images"), used_bytes=pb.UInt64Value(value=1234567),
            inodes_used=pb.UInt64Value(value=42))])


class Control(control_pb2_grpc.ControlServicer):
    def __init__(self, images):
        self.images = images
        self.requests = []

    def LoadImage(self, request, context):
        self.requests.append(request)
        return control_pb2.LoadImageResponse(image_ids=[self.images.add("loaded:1").id])

    def PullImageProgress(self, request, context):
        self.requests.append(request)
        for done in (0, 500000, 1000000):
            yield control_pb2.PullImageProgressResponse(blobs=[
                control_pb2.BlobProgress(digest="sha256:1", done=done, total=1000000),
                control_pb2.BlobProgress(digest="sha256:2", done=1000, total=1000)])
            time.sleep(0.15)
        yield control_pb2.PullImageProgressResponse(image_ref=self.images.PullImage(request, context).image_ref)


class Fake:
    """All services on one socket."""

    def __init__(self, socket, control=True):
        self.runtime, self.images = Runtime(), Images()
        self.control = Control(self.images)
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        pb_grpc.add_RuntimeServiceServicer_to_server(self.runtime, self.server)
        pb_grpc.add_ImageServiceServicer_to_server(self.images, self.server)
        if control:
            control_pb2_grpc.add_ControlServicer_to_server(self.control, self.server)
        self.server.add_insecure_port(f"unix:{socket}")
        self.server.start()

    def stop(self):
        self.server.stop(None).wait()
