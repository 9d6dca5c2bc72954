# SPDX-License-Identifier: Apache-2.0
"""The gRPC layer against grpc's own client for Python (the C core)."""
import concurrent.futures
import subprocess
import threading
import time

import grpc
import pytest
from cri import health_grpc, health_pb, reflection_grpc, reflection_pb
from google.protobuf import descriptor_pb2

MESSAGE_MAX = 16 << 20


class Stub:
    def __init__(self, target, **options):
        import echo_pb2
        import echo_pb2_grpc

        self.pb = echo_pb2
        self.channel = grpc.insecure_channel(target, options=[
            ("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1), *options.items()])
        self.stub = echo_pb2_grpc.EchoStub(self.channel)
        self.request = echo_pb2.EchoRequest

    def __getattr__(self, name):
        return getattr(self.stub, name)

    def counters(self):
        return self.stub.Counters(self.pb.CountersRequest(), timeout=20)

    def settle(self, **expected):
        """Waits until the counters have these values."""
        end = time.monotonic() + 10
        while True:
            seen = self.counters()
            if all(getattr(seen, name) == value for name, value in expected.items()):
                return
            assert time.monotonic() < end, seen
            time.sleep(0.02)


@pytest.fixture(params=["unix", "tcp"])
def stub(request, echo):
    client = Stub("unix:" + echo.socket if request.param == "unix" else f"127.0.0.1:{echo.port}")
    client.echo = echo
    yield client
    client.channel.close()


def error_of(function, *args, **more):
    with pytest.raises(grpc.RpcError) as caught:
        function(*args, **more)
    return caught.value.code().name, caught.value.details()


def test_unary(stub):
    reply = stub.Unary(stub.request(text="grüße", payload=b"\0\1\2"), timeout=20)
    assert (reply.text, reply.payload) == ("grüße", b"\0\1\2")
    assert 15000 < reply.time_left_ms <= 20000
    assert stub.Unary(stub.request()).time_left_ms == -1


def test_every_status(stub):
    text = "100% \"böse\"\n☃"
    for code in grpc.StatusCode:
        if code is not grpc.StatusCode.OK:
            assert error_of(stub.Unary, stub.request(fail_code=code.value[0], text=text)) == (code.name, text)
    assert error_of(stub.Unary, stub.request(fail_code=5)) == ("NOT_FOUND", "")
    long = "x" * 1000
    assert error_of(stub.Unary, stub.request(fail_code=2, text=long)) == ("UNKNOWN", long)


def test_unknown_method(stub):
    call = stub.channel.unary_unary("/echo.v1.Echo/Nothing")
    assert error_of(call, b"") == ("UNIMPLEMENTED", "unknown method Nothing of service echo.v1.Echo")
    call = stub.channel.unary_unary("/no.Such/Thing")
    assert error_of(call, b"") == ("UNIMPLEMENTED", "unknown service no.Such")


def test_malformed_message(stub):
    call = stub.channel.unary_unary("/echo.v1.Echo/Unary")
    code, text = error_of(call, b"\x0a\x05ab")
    assert code == "INVALID_ARGUMENT" and "field text of echo.v1.EchoRequest: cut off" in text
    code, text = error_of(call, b"\x0a\x01\xff")
    assert code == "INVALID_ARGUMENT" and "UTF-8" in text


def test_compression_is_refused(stub):
    code, text = error_of(stub.Unary, stub.request(text="a" * 1000), compression=grpc.Compression.Gzip)
    assert (code, text) == ("UNIMPLEMENTED", 'grpc-encoding "gzip" is not supported; identity is')


def test_metadata(stub):
    metadata = [("x-text", "plain text"), ("x-raw-bin", b"\0\1\xff,"), ("x-empty", ""), ("x-empty-bin", b""), ("other", "1")]
    _, call = stub.Unary.with_call(stub.request(echo_metadata=True), metadata=metadata)
    assert set(call.initial_metadata()) >= set(metadata[:4])
    assert set(call.trailing_metadata()) >= set(metadata[:4])
    assert not [m for m in call.initial_metadata() if m[0] == "other"]


def test_streams(stub):
    assert [m.index for m in stub.Generate(stub.request(count=1000, size=3), timeout=20)] == list(range(1000))
    assert list(stub.Generate(stub.request(), timeout=20)) == []
    reply = stub.Collect((stub.request(payload=b"x" * i) for i in range(1000)), timeout=20)
    assert (reply.messages, reply.bytes) == (1000, 999 * 1000 // 2)
    assert stub.Collect(iter([]), timeout=20).messages == 0
    texts = [f"message {i}" for i in range(100)]
    assert [m.text for m in stub.Chat((stub.request(text=t) for t in texts), timeout=20)] == texts


def test_ping_pong(stub):
    """Each message is answered before the next is sent."""
    turn = threading.Semaphore(1)

    def questions():
        for i in range(200):
            turn.acquire()
            yield stub.request(text=str(i))

    for i, answer in enumerate(stub.Chat(questions(), timeout=20)):
        assert answer.text == str(i)
        turn.release()


def test_a_stream_that_fails(stub):
    seen = []
    with pytest.raises(grpc.RpcError) as caught:
        for answer in stub.Chat((stub.request(fail_code=9 if i == 5 else 0, text="enough") for i in range(1000)), timeout=20):
            seen.append(answer.index)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert seen == [0, 1, 2, 3, 4]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Collect((stub.request(fail_code=9, payload=b"x" * 100000) for i in range(1000)), timeout=20)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    stub.settle(running=0)


def test_large_messages(stub):
    payload = bytes(range(256)) * 4096 * 15
    assert stub.Unary(stub.request(payload=payload), timeout=20).payload == payload
    largest = b"x" * (MESSAGE_MAX - 5)
    assert stub.Unary(stub.request(payload=largest), timeout=20).payload == largest
    code, text = error_of(stub.Unary, stub.request(payload=largest + b"x"), timeout=20)
    assert code == "RESOURCE_EXHAUSTED" and "16777217" in text
    sizes = [len(m.payload) for m in stub.Generate(stub.request(count=5, size=MESSAGE_MAX - 20), timeout=20)]
    assert sizes == [MESSAGE_MAX - 20] * 5
    reply = stub.Collect((stub.request(payload=largest) for _ in range(5)), timeout=20)
    assert reply.bytes == 5 * len(largest)


def test_deadline(stub):
    begin = time.monotonic()
    assert error_of(stub.Unary, stub.request(delay_ms=5000), timeout=0.2)[0] == "DEADLINE_EXCEEDED"
    assert time.monotonic() - begin < 2
    stub.settle(cancelled=1, running=0)


def test_cancellation(stub):
    """It reaches the handler, whatever the kind of call and whether data is under way."""
    call = stub.Unary.future(stub.request(delay_ms=60000))
    stub.settle(running=1)
    call.cancel()
    stub.settle(running=0, cancelled=1)
    stream = stub.Generate(stub.request(count=1000000, size=10000))
    assert next(stream).index == 0
    stream.cancel()
    stub.settle(running=0, cancelled=2)
    hold = threading.Event()

    def endless():
        yield stub.request()
        hold.wait()

    stream = stub.Chat(endless())
    next(stream)
    stream.cancel()
    hold.set()
    stub.settle(running=0, cancelled=3)


def test_channel_closed(echo, built):
    first, second = Stub("unix:" + echo.socket), Stub("unix:" + echo.socket)
    call = first.Unary.future(first.request(delay_ms=60000))
    second.settle(running=1)
    first.channel.close()
    second.settle(running=0, cancelled=1)
    assert call.done()
    second.channel.close()


def test_200_concurrent_streams(stub):
    """Calls of all kinds, all open at once, on one connection."""
    barrier = threading.Barrier(201)

    def chat(number):
        def questions():
            yield stub.request(text=f"{number}")
            barrier.wait(30)  # until all have begun
            for i in range(5):
                yield stub.request(text=f"{number}.{i}", payload=b"p" * 5000)

        return [m.text for m in stub.Chat(questions(), timeout=60)]

    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        results = [pool.submit(chat, n) for n in range(200)]
        stub.settle(running=200)
        barrier.wait(30)
        for number, result in enumerate(results):
            assert result.result(60) == [f"{number}"] + [f"{number}.{i}" for i in range(5)]
    calls = [stub.Unary.future(stub.request(text=str(i), delay_ms=50), timeout=60) for i in range(2000)]
    assert [c.result().text for c in calls] == [str(i) for i in range(2000)]


def test_back_pressure(stub):
    """A reader that stops costs the server a window and a queue, not the stream; others go on."""
    stream = stub.Generate(stub.request(count=2000, size=100000))
    next(stream)
    time.sleep(0.5)
    assert stub.echo.rss_kib() < 200 * 1024  # of a sanitized program; the whole stream would add that much
    before = time.monotonic()
    assert stub.Unary(stub.request(text="meanwhile"), timeout=10).text == "meanwhile"
    assert time.monotonic() - before < 1
    assert sum(1 for _ in stream) == 1999
    # The other way round: the server stops reading for a while.
    reply = stub.Collect((stub.request(payload=b"x" * 100000, pause_ms=500) for _ in range(500)), timeout=60)
    assert (reply.messages, reply.bytes) == (500, 50000000)


def test_keepalive(echo, built):
    """A client's pings are answered, and a few are no flood."""
    client = Stub("unix:" + echo.socket, **{"grpc.keepalive_time_ms": 100, "grpc.keepalive_timeout_ms": 2000,
                                             "grpc.keepalive_permit_without_calls": 1, "grpc.http2.max_pings_without_data": 0})
    assert client.Unary(client.request(delay_ms=2000, text="still here"), timeout=20).text == "still here"
    time.sleep(1)
    assert client.Unary(client.request(text="and now")).text == "and now"
    client.channel.close()


def test_graceful_shutdown(echo, built):
    """What runs ends in peace; what comes later finds nobody."""
    client = Stub("unix:" + echo.socket)
    running = client.Unary.future(client.request(delay_ms=1000, text="made it"), timeout=20)
    client.settle(running=1)
    echo.process.terminate()
    assert running.result().text == "made it"
    assert echo.process.wait(10) == 0
    assert error_of(client.Unary, client.request(), timeout=5)[0] == "UNAVAILABLE"
    client.channel.close()


def test_health(echo, stub):
    health = health_grpc.HealthStub(stub.channel)
    serving = health_pb.HealthCheckResponse.SERVING
    assert health.Check(health_pb.HealthCheckRequest()).status == serving
    assert health.Check(health_pb.HealthCheckRequest(service="echo.v1.Echo")).status == serving
    assert error_of(health.Check, health_pb.HealthCheckRequest(service="nope"))[0] == "NOT_FOUND"
    names = health.List(health_pb.HealthListRequest()).statuses
    assert {"", "echo.v1.Echo", "grpc.health.v1.Health"} <= set(names)
    watch = health.Watch(health_pb.HealthCheckRequest())
    unknown = health.Watch(health_pb.HealthCheckRequest(service="nope"))
    assert next(watch).status == serving
    assert next(unknown).status == health_pb.HealthCheckResponse.SERVICE_UNKNOWN
    echo.process.terminate()
    assert next(watch).status == health_pb.HealthCheckResponse.NOT_SERVING
    with pytest.raises(grpc.RpcError):
        next(watch)
    unknown.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection(stub, version):
    if version == "v1":
        reflection, pb = reflection_grpc.ServerReflectionStub(stub.channel), reflection_pb
    else:
        import reflection_v1alpha_pb2 as pb
        import reflection_v1alpha_pb2_grpc
        reflection = reflection_v1alpha_pb2_grpc.ServerReflectionStub(stub.channel)
    request = pb.ServerReflectionRequest

    def ask(**question):
        return next(reflection.ServerReflectionInfo(iter([request(host="h", **question)]), timeout=20))

    services = ask(list_services="").list_services_response.service
    assert {s.name for s in services} == {"echo.v1.Echo", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
                                           "grpc.reflection.v1alpha.ServerReflection"}
    for symbol in ["echo.v1.Echo", "echo.v1.Echo.Unary", "echo.v1.EchoRequest"]:
        answer = ask(file_containing_symbol=symbol)
        assert answer.valid_host == "h" and answer.original_request.file_containing_symbol == symbol
        file = descriptor_pb2.FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0])
        assert file.name == "echo.proto" and file.service[0].name == "Echo"
    nested = "grpc.health.v1.HealthCheckResponse.ServingStatus"
    file = ask(file_containing_symbol=nested).file_descriptor_response.file_descriptor_proto[0]
    assert descriptor_pb2.FileDescriptorProto.FromString(file).name == "health.proto"
    assert ask(file_by_filename="health.proto").file_descriptor_response.file_descriptor_proto[0] == file
    for question in [{"file_containing_symbol": "echo.v1.Nope"}, {"file_containing_symbol": "echo.v1"}, {"file_containing_symbol": ""},
                     {"file_by_filename": "nope.proto"}, {"all_extension_numbers_of_type": "nope.Nope"},
                     {"file_containing_extension": {"containing_type": "echo.v1.EchoRequest", "extension_number": 1}}]:
        assert ask(**question).error_response.error_code == 5, question
    known = ask(all_extension_numbers_of_type="echo.v1.EchoRequest").all_extension_numbers_response
    assert known.base_type_name == "echo.v1.EchoRequest" and not known.extension_number
    assert ask().error_response.error_code == 3
    many = list(reflection.ServerReflectionInfo((request(file_by_filename="echo.proto") for _ in range(2000)), timeout=60))
    assert len(many) == 2000


def test_memory_comes_back(echo, built):
    """After a storm a quiet server is as small as before, within what sanitizers and the allocator keep."""
    def storm():
        client = Stub("unix:" + echo.socket)
        for call in [client.Unary.future(client.request(payload=b"x" * 10000)) for _ in range(500)]:
            call.result()
        sum(1 for _ in client.Generate(client.request(count=100, size=100000)))
        client.channel.close()

    storm()
    time.sleep(2.5)
    before = echo.rss_kib()
    for _ in range(5):
        storm()
    time.sleep(2.5)
    assert echo.rss_kib() < before + 20 * 1024


def test_garbage_on_the_socket(echo, built):
    """Other protocols are hung up on, with one line in the log."""
    import socket
    for text in [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00", b"\0" * 100]:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(echo.socket)
            s.sendall(text + b"\0" * 24)
            while s.recv(1000):
                pass
    client = Stub("unix:" + echo.socket)
    assert client.Unary(client.request(text="fine")).text == "fine"
    client.channel.close()
    assert echo.text().count("\n") == 3


def test_bench_like_load(echo, built):
    """nghttp2's own load generator, when it is installed: nothing is refused at full speed."""
    import shutil
    if shutil.which("h2load") is None:
        pytest.skip("h2load is not installed")
    body = built / "empty.bin"
    body.write_bytes(b"\0\0\0\0\0")
    out = subprocess.run(["h2load", "-n20000", "-c4", "-m64", "-d", body, "-H", "content-type: application/grpc", "-H", "te: trailers",
                          "-B", f"unix:{echo.socket}", "http://localhost/echo.v1.Echo/Unary"],
                         capture_output=True, text=True, timeout=60, check=True).stdout
    assert "20000 succeeded, 0 failed" in out, out
