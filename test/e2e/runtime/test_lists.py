# SPDX-License-Identifier: Apache-2.0
"""Lists with filters, whole and streamed."""
import grpc
import pytest
from serving import Pod
from cri import pb, refused

UID = "io.kubernetes.pod.uid"


def listed(cri, **fields):
    """The ids that both forms of the list give: they must agree."""
    filter = pb.ContainerFilter(**fields) if fields else None
    whole = cri.runtime.ListContainers(pb.ListContainersRequest(filter=filter)).containers
    parts = list(cri.runtime.StreamContainers(pb.StreamContainersRequest(filter=filter)))
    streamed = [c for part in parts for c in part.containers]
    assert streamed == list(whole) and all(part.containers for part in parts)
    return {c.id for c in whole}


def listed_pods(cri, **fields):
    filter = pb.PodSandboxFilter(**fields) if fields else None
    whole = cri.runtime.ListPodSandbox(pb.ListPodSandboxRequest(filter=filter)).items
    parts = list(cri.runtime.StreamPodSandboxes(pb.StreamPodSandboxesRequest(filter=filter)))
    streamed = [s for part in parts for s in part.pod_sandboxes]
    assert streamed == list(whole) and all(part.pod_sandboxes for part in parts)
    return {s.id for s in whole}


def state(value):
    return pb.ContainerStateValue(state=value)


def test_filters_of_containers(serve, cri):
    one, two = Pod(serve, cri, "one"), Pod(serve, cri, "two")
    uid = one.config.metadata.uid
    labels = {UID: uid, "tier": "web"}
    running, created = one.run("sleep", "1000", labels=labels), one.create("true", labels=labels)
    exited, bare = two.run("true", labels={UID: two.config.metadata.uid, "tier": "web"}), two.create("true", labels={})
    cri.wait_exit(exited)
    everything = {running, created, exited, bare}
    assert listed(cri) == listed(cri, id="") == everything
    assert listed(cri, state=state(pb.CONTAINER_RUNNING)) == {running}
    assert listed(cri, state=state(pb.CONTAINER_CREATED)) == {created, bare}
    assert listed(cri, state=state(pb.CONTAINER_EXITED)) == {exited}
    assert listed(cri, state=state(pb.CONTAINER_UNKNOWN)) == set()
    assert listed(cri, state=state(77)) == set()
    assert listed(cri, id=running) == listed(cri, id=running[:20]) == {running}
    assert listed(cri, id="no") == listed(cri, pod_sandbox_id="no") == set()
    assert listed(cri, id=running, pod_sandbox_id=two.id) == set()
    assert listed(cri, id=running, state=state(pb.CONTAINER_EXITED)) == set()
    assert listed(cri, pod_sandbox_id=two.id) == listed(cri, pod_sandbox_id=two.id[:20]) == {exited, bare}
    assert listed(cri, label_selector={UID: uid}) == {running, created}
    assert listed(cri, label_selector={UID: uid, "tier": "db"}) == set()
    assert listed(cri, label_selector={UID: uid}, state=state(pb.CONTAINER_RUNNING)) == {running}
    assert listed(cri, label_selector={UID: uid}, pod_sandbox_id=two.id) == set()
    assert listed(cri, label_selector={"tier": "web"}) == {running, created, exited}
    assert listed(cri, label_selector={UID: ""}) == set()
    cri.runtime.StopContainer(pb.StopContainerRequest(container_id=running, timeout=0))
    cri.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=created))
    assert listed(cri, state=state(pb.CONTAINER_RUNNING)) == set()
    assert listed(cri, state=state(pb.CONTAINER_EXITED)) == {running, exited}
    assert listed(cri, label_selector={UID: uid}) == {running}
    assert listed(cri) == everything - {created}


def test_filters_of_sandboxes(serve, cri):
    one, two = Pod(serve, cri, "one"), Pod(serve, cri, "two")
    uid = one.config.metadata.uid
    again = Pod(serve, cri, "one", uid=uid, attempt=1)
    ready, notready = pb.PodSandboxStateValue(state=pb.SANDBOX_READY), pb.PodSandboxStateValue(state=pb.SANDBOX_NOTREADY)
    cri.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=one.id))
    assert listed_pods(cri) == {one.id, two.id, again.id}
    assert listed_pods(cri, state=ready) == {two.id, again.id}
    assert listed_pods(cri, state=notready) == {one.id}
    assert listed_pods(cri, state=pb.PodSandboxStateValue(state=9)) == set()
    assert listed_pods(cri, label_selector={UID: uid}) == {one.id, again.id}
    assert listed_pods(cri, label_selector={UID: uid}, state=ready) == {again.id}
    assert listed_pods(cri, id=two.id[:13]) == listed_pods(cri, id=two.id) == {two.id}
    cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=one.id))
    assert listed_pods(cri, label_selector={UID: uid}) == {again.id}


def test_a_large_list_comes_in_parts_and_as_of_its_beginning(pod, cri):
    made = {pod.create("true", log_path="", annotations={"a": "x" * 30000}) for _ in range(40)}
    stream = cri.runtime.StreamContainers(pb.StreamContainersRequest())
    first = next(stream)
    assert 4 <= len(first.containers) <= 6  # 128 KiB
    gone = next(c for c in made if c not in {c.id for c in first.containers})
    cri.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=gone))
    rest = [c.id for part in stream for c in part.containers]
    assert sorted([c.id for c in first.containers] + rest) == sorted(made)
    assert listed(cri) == made - {gone}


def test_a_client_that_goes_in_the_middle(pod, cri):
    for _ in range(8):
        pod.create("true", log_path="", annotations={"a": "x" * 200000})
    for _ in range(100):  # more than may be under way at a time
        stream = cri.runtime.StreamContainers(pb.StreamContainersRequest())
        next(stream)
        stream.cancel()
    assert len(listed(cri)) == 8


def test_images_are_streamed_like_their_list(cri):
    whole = cri.image.ListImages(pb.ListImagesRequest()).images
    parts = list(cri.image.StreamImages(pb.StreamImagesRequest()))
    assert [i for part in parts for i in part.images] == list(whole) and len(whole) > 3
    only = pb.ImageFilter(image=pb.ImageSpec(image=whole[0].id))
    parts = list(cri.image.StreamImages(pb.StreamImagesRequest(filter=only)))
    assert [i.id for part in parts for i in part.images] == [whole[0].id]


@pytest.mark.parametrize("method", ["RuntimeService/StreamContainers", "RuntimeService/StreamPodSandboxes",
                                    "ImageService/StreamImages"])
def test_a_malformed_filter_is_refused(cri, method):
    call = cri.channel.unary_stream("/runtime.v1." + method, request_serializer=None, response_deserializer=None)
    with refused("INVALID_ARGUMENT"):
        list(call(b"\x0a\x7f\x01", timeout=10))


def test_an_id_that_begins_like_another_is_no_match_of_it(cri, pod):
    container = pod.create("true")
    with pytest.raises(grpc.RpcError):
        cri.status(container + "0")
    assert listed(cri, id=container + "0") == set()
