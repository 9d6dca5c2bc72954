# SPDX-License-Identifier: Apache-2.0
"""Bytes that no honest client sends: a clear answer or a closed connection, and the state stays as it was."""
import os
import random
import socket
import struct

import grpc
import pytest
from cri import pb, refused

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, payload=b"", length=None):
    n = len(payload) if length is None else length
    return struct.pack(">I", n)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def talk(serve, data):
    """Sends bytes and reads until the server closes or says nothing for a moment."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(1)
        s.connect(str(serve.socket))
        answer = b""
        try:
            s.sendall(data)
            while True:
                piece = s.recv(65536)
                if not piece:
                    return answer, True
                answer += piece
        except TimeoutError:
            return answer, False
        except OSError:
            return answer, True


CASES = {
    "http/1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + os.urandom(190),
    "zeros": b"\0" * 4096,
    "preface with rubbish": PREFACE + os.urandom(4096),
    "huge length": PREFACE + frame(4, 0, 0) + frame(0, 0, 1, b"x", 0xffffff),
    "headers on stream 0": PREFACE + frame(4, 0, 0) + frame(1, 4, 0, b"\x82"),
    "data without headers": PREFACE + frame(4, 0, 0) + frame(0, 1, 1, b"abc"),
    "bad hpack": PREFACE + frame(4, 0, 0) + frame(1, 5, 1, b"\xff\xff\xff\xff\xff\xff"),
    "settings of 5 bytes": PREFACE + frame(4, 0, 0, b"12345"),
    "window of 0": PREFACE + frame(4, 0, 0) + frame(8, 0, 0, b"\0\0\0\0"),
    "continuation alone": PREFACE + frame(4, 0, 0) + frame(9, 4, 1, b"\x82"),
    "even stream": PREFACE + frame(4, 0, 0) + frame(1, 5, 2, b"\x82"),
    "ping flood": PREFACE + frame(4, 0, 0) + frame(6, 0, 0, b"12345678") * 20000,
    "settings flood": PREFACE + frame(4, 0, 0) * 20000,
}


@pytest.mark.parametrize("name", CASES)
def test_a_broken_connection_hurts_nobody_else(serve, cri, pod, name):
    before = cri.runtime.ListPodSandbox(pb.ListPodSandboxRequest())
    talk(serve, CASES[name])
    assert cri.runtime.ListPodSandbox(pb.ListPodSandboxRequest()) == before


def test_random_frames(serve, cri):
    r = random.Random(11)
    for _ in range(150):
        data = PREFACE + frame(4, 0, 0)
        for _ in range(r.randrange(1, 20)):
            payload = r.randbytes(r.randrange(0, 60))
            data += frame(r.randrange(0, 11), r.randrange(256), r.choice([0, 1, 1, 3, 5, 2]), payload)
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(serve.socket))
            try:
                s.sendall(data)
            except OSError:
                pass
    assert cri.runtime.Version(pb.VersionRequest()).runtime_name == "interlink-cri"


def test_malformed_messages_are_refused(cri, pod):
    method = "runtime.v1.RuntimeService/RunPodSandbox"
    for body in [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05ab", b"\x0b\x0b", b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
                 b"\x0a\x04\x0a\x02\x0a\x09"]:
        with refused("INVALID_ARGUMENT"):
            cri.raw(method, body)
    # Valid wire format, wrong content.
    with refused("INVALID_ARGUMENT"):
        cri.raw(method, b"")
    # Nested far beyond anything CRI has.
    body = b""
    for _ in range(5000):
        body = b"\x0a" + _varint(len(body)) + body
    with pytest.raises(grpc.RpcError):
        cri.raw(method, body)
    assert len(cri.runtime.ListPodSandbox(pb.ListPodSandboxRequest()).items) == 1


def _varint(n):
    out = b""
    while n > 0x7f:
        out += bytes([n & 0x7f | 0x80])
        n >>= 7
    return out + bytes([n])


def test_random_mutations_of_a_real_request(cri, pod):
    """Whatever comes out either works or is refused; the server lives and other pods stay."""
    r = random.Random(5)
    seed = pb.CreateContainerRequest(pod_sandbox_id=pod.id, sandbox_config=pod.config)
    seed.config.metadata.name = "x"
    seed.config.image.image = "registry.example/none:1"
    data = seed.SerializeToString()
    for _ in range(400):
        mutated = bytearray(data)
        for _ in range(r.randrange(1, 8)):
            mutated[r.randrange(len(mutated))] = r.randrange(256)
        if r.random() < 0.3:
            del mutated[r.randrange(len(mutated)):]
        try:
            cri.raw("runtime.v1.RuntimeService/CreateContainer", bytes(mutated))
        except grpc.RpcError as error:
            assert error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), error
    assert cri.sandbox_status(pod.id).state == pb.SANDBOX_READY


def test_a_message_that_is_too_large_is_refused(cri):
    with refused("RESOURCE_EXHAUSTED"):
        cri.raw("runtime.v1.RuntimeService/Version", b"\x0a" + _varint(17 << 20) + b"x" * (17 << 20))


def test_unknown_methods_and_services(cri):
    for method in ["runtime.v1.RuntimeService/Nonsense", "nonsense.v1.Service/Method", "runtime.v1alpha2.RuntimeService/Version"]:
        with refused("UNIMPLEMENTED"):
            cri.raw(method, b"")
