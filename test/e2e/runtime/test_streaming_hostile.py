# SPDX-License-Identifier: Apache-2.0
"""The streaming server against clients that mean no good: raw sockets, wrong bytes, too much of everything, and no goodbye.
After each of them it must serve others as before, and keep neither process, descriptor nor memory."""
import contextlib
import os
import pathlib
import random
import re
import socket
import struct
import tempfile
import time
import urllib.parse
import zlib

import pytest
import spdy
import streams
from cri import pb
from serving import Pod, Serve

SEED = int(os.environ.get("INTERLINK_CRI_SEED") or 4711)
WS_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Box:
    def __init__(self, serve):
        self.serve, self.cri = serve, serve.client
        self.pod = Pod(serve, serve.client, "hostile")
        self.container = self.pod.run("sleep", "100000")

    def url(self, *command, **more):
        return streams.exec_url(self.cri, self.container, *command, **more)

    def runs(self, text):
        answer = self.cri.exec_sync(self.container, "ps")
        return any(text in line and b" [" not in line for line in answer.stdout.splitlines())

    def processes(self):
        return [self.serve.process.pid, *(p for p in self.serve.processes()
                                          if b"\0agent\0" in pathlib.Path(f"/proc/{p}/cmdline").read_bytes() + b"\0")]

    def descriptors(self):
        return [len(os.listdir(f"/proc/{p}/fd")) for p in self.processes()]

    def memory_kib(self):
        return sum(int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{p}/status").read_text())[1]) for p in self.processes())

    def works(self):
        """An honest client is served at once."""
        for how in ("spdy-v4", "v5"):
            with streams.run(self.cri, self.container, "echo", "still here", how=how) as c:
                assert c.finish() == (b"still here\n", b"", 0)


@pytest.fixture(scope="module")
def box(images):
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    serve = Serve(root)
    # The address sanitizer keeps freed memory for a while, by default far more than what is tested here.
    serve.env["ASAN_OPTIONS"] += ":quarantine_size_mb=1"
    serve.start()
    loaded = serve.ctl("load", str(images))
    assert loaded.returncode == 0, loaded.stderr + serve.tail()
    box = Box(serve)
    box.works()
    time.sleep(1)
    box.before = box.descriptors()
    yield box
    serve.finish()


@pytest.fixture(autouse=True)
def nothing_is_left(box):
    yield
    box.works()
    eventually(lambda: all(now <= then for now, then in zip(box.descriptors(), box.before, strict=True)))


def eventually(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.05)


def raw(url, data=b"", timeout=15):
    """A plain connection to where the URL points."""
    where = urllib.parse.urlsplit(url)
    sock = socket.create_connection((where.hostname, where.port), timeout)
    sock.sendall(data)
    return sock


def read_all(sock):
    """What comes until the server closes; a reset ends it, too."""
    data = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := sock.recv(1 << 16):
            data += piece
    return bytes(data)


def vanish(sock):
    """Without a FIN: as a machine that lost its process, with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def open_spdy(url, protocol="v4.channel.k8s.io"):
    sock, file, _ = spdy.upgrade(url, [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("Content-Length", "0"),
                                       ("X-Stream-Protocol-Version", protocol)])
    return sock, file


def open_websocket(url, protocol="v5.channel.k8s.io"):
    sock, file, _ = spdy.upgrade(url, [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
                                       ("Sec-WebSocket-Key", WS_KEY), ("Sec-WebSocket-Protocol", protocol)], "GET")
    return sock, file


class Frames:
    """Makes a client's frames."""

    def __init__(self):
        self.deflate = zlib.compressobj(9, zlib.DEFLATED, 15, 8, 0, spdy.DICTIONARY)

    def block(self, plain):
        return self.deflate.compress(plain) + self.deflate.flush(zlib.Z_SYNC_FLUSH)

    def syn(self, number, **headers):
        plain = struct.pack(">I", len(headers))
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                plain += struct.pack(">I", len(text)) + text
        return self.syn_block(number, plain)

    def syn_block(self, number, plain):
        payload = struct.pack(">IIH", number, 0, 0) + self.block(plain)
        return struct.pack(">II", 0x80030001, len(payload)) + payload

    def command(self, *types):
        return b"".join(self.syn(2 * i + 1, streamtype=t) for i, t in enumerate(types))


def data(number, payload, fin=False):
    return struct.pack(">II", number, fin << 24 | len(payload)) + payload


def control(kind, *numbers):
    return struct.pack(">II", 0x80030000 | kind, 4 * len(numbers)) + struct.pack(f">{len(numbers)}I", *numbers)


def ws(opcode, payload, fin=True, masked=True):
    head = bytes([fin << 7 | opcode])
    n, bit = len(payload), 0x80 if masked else 0
    head += bytes([bit | n]) if n < 126 else bytes([bit | 126]) + struct.pack(">H", n)
    return head + (bytes(4) if masked else b"") + payload


# ---- before the upgrade ----

@pytest.mark.parametrize("request_bytes", [
    b"\0\1\2\3", b"\x80\x03\0\x01\0\0\0\x0a", b"GET", b"\r\n\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET  /  HTTP/1.1\r\n\r\n",
    b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: \0\r\n\r\n",
    b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX: " + b"x" * 70000,
    b"GET %s HTTP/1.1\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
    b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST %s HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
    b"Content-Length: 99999999\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"CONNECT %s HTTP/1.1\r\nHost: a\r\n\r\n",
], ids=lambda b: ascii(b[:24]))
def test_malformed_requests(box, request_bytes):
    url = box.url("true")
    path = urllib.parse.urlsplit(url).path.encode()
    with raw(url, request_bytes.replace(b"%s", path)) as sock:
        sock.shutdown(socket.SHUT_WR)
        answer = read_all(sock)
    assert answer == b"" or re.match(rb"HTTP/1\.1 4\d\d ", answer), answer[:200]
    # It was not the token's use.
    with streams.command(url, "spdy-v4") as c:
        assert c.finish()[2] == 0


def test_guessing_tokens(box):
    """Two thousand guesses, near misses among them, all answered the same; then one truth."""
    url = box.url("echo", "right")
    where = urllib.parse.urlsplit(url)
    kind, token = where.path.strip("/").split("/")
    random.seed(SEED)
    answers = set()
    sock = raw(url)
    file = sock.makefile("rb")
    for i in range(2000):
        at = random.randrange(len(token))
        guess = [token[:at] + random.choice("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_") + token[at + 1:],
                 token[:at], token + token[at], token.swapcase(), "%00" + token[1:], token[::-1], "*" * 43, ""][i % 8]
        if guess == token:
            continue
        sock.sendall(f"GET /{kind}/{guess} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        status = int(file.readline().split()[1])
        length = 0
        for line in iter(file.readline, b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answers.add((status, file.read(length)))
        if status == 400:  # the connection is closed behind an encoded NUL
            file.close()
            sock.close()
            sock = raw(url)
            file = sock.makefile("rb")
    file.close()
    sock.close()
    assert {status for status, _ in answers} <= {404, 400}
    assert not any(token.encode() in text for _, text in answers)
    with streams.command(url, "v5") as c:
        assert c.finish() == (b"right\n", b"", 0)
    with pytest.raises(spdy.UpgradeError) as again:
        open_spdy(url)
    assert again.value.status == 404


def test_one_token_many_takers(box):
    """Only one of many connections that use a token at once is served."""
    url = box.url("sleep", "1")
    path = urllib.parse.urlsplit(url).path
    request = (f"POST {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
               "X-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n").encode()
    socks = [raw(url, request[:-2]) for _ in range(40)]
    for sock in socks:
        sock.sendall(request[-2:])
    firsts = [sock.recv(12) for sock in socks]
    assert sorted(firsts) == [b"HTTP/1.1 101"] + [b"HTTP/1.1 404"] * 39
    for sock in socks:
        vanish(sock)


# ---- after it ----

def headers_bomb():
    f = Frames()
    return f.syn(1, streamtype="error") + f.syn_block(3, struct.pack(">III", 1, 4, 4) + bytes(1 << 20))


SPDY_FAULTS = {
    "version": (b"\x80\x02\0\x01\0\0\0\x0a" + bytes(10), True),
    "stream 0": (data(0, b"x"), True),
    "own number": (Frames().syn(2, streamtype="error"), True),
    "too short": (struct.pack(">II", 0x80030001, 9) + bytes(9), True),
    "16 MB": (struct.pack(">II", 0x80030001, 0xFFFFFF) + bytes(100000), True),
    "no zlib": (struct.pack(">II", 0x80030001, 14) + struct.pack(">IIH", 1, 0, 0) + b"\xff\xff\xff\xff", True),
    "bomb": (headers_bomb(), True),
    "settings": (struct.pack(">III", 0x80030004, 12, 9999) + bytes(8), True),
    "window of nothing": (control(9, 0, 0), True),
    "window overflow": (control(9, 0, 0x7FFFFFFF) * 2, True),
    "twice": (Frames().command("error") + b"", False),
    "unknown frames": (b"".join(struct.pack(">II", 0x80030000 | k, 500) + bytes(500) for k in range(20, 300)), False),
    "data to nobody": (b"".join(data(2 * i + 1, b"x" * 100) for i in range(3000)), False),
    "resets of nobody": (b"".join(control(3, 2 * i + 1, 5) for i in range(3000)), False),
    "goaway": (control(7, 0, 0), False),
}


@pytest.mark.parametrize("name", SPDY_FAULTS)
def test_spdy_faults(box, name):
    sent, fatal = SPDY_FAULTS[name]
    memory = box.memory_kib()
    sock, file = open_spdy(box.url("sleep", "4720"))
    with contextlib.suppress(ConnectionError):
        sock.sendall(sent)
    if fatal:
        answer = file.read()
        assert answer.endswith(answer[-16:]) and answer[-16:-12] == b"\x80\x03\0\x07", answer[-40:]
        assert answer[-1] == 1  # PROTOCOL_ERROR
    sock.close()
    file.close()
    eventually(lambda: not box.runs(b"sleep 4720"))
    assert box.memory_kib() < memory + 20000


WS_FAULTS = {
    "not masked": (ws(2, b"\0x", masked=False), 1002),
    "reserved bits": (b"\xf2\x81\0\0\0\0x", 1002),
    "opcode": (ws(5, b"x"), 1002),
    "continuation": (ws(0, b"x"), 1002),
    "ping of 126": (ws(9, bytes(126)), 1002),
    "ping in parts": (ws(9, b"x", fin=False), 1002),
    "2^63": (b"\x82\xff\xff" + bytes(7) + bytes(4), 1002),
    "half a code": (ws(8, b"\x03"), 1002),
    "reason": (ws(8, b"\x03\xe8\xff\xfe"), 1007),
    "end of nothing": (ws(2, b"\xff\x09"), 1008),
    "end without number": (ws(2, b"\xff"), 1002),
}


@pytest.mark.parametrize("name", WS_FAULTS)
def test_websocket_faults(box, name):
    sent, code = WS_FAULTS[name]
    sock, file = open_websocket(box.url("sleep", "4721", stdin=True))
    sock.sendall(sent)
    answer = file.read()
    assert re.search(rb"\x88[\x02-\x7d]" + re.escape(struct.pack(">H", code)), answer, re.DOTALL), answer
    sock.close()
    file.close()
    eventually(lambda: not box.runs(b"sleep 4721"))


def test_ten_thousand_streams(box):
    """On a port forward: as many as may be are taken, the rest refused, and memory stays where it was."""
    url = streams.forward_url(box.cri, box.pod.id)
    sock, file = open_spdy(url, "portforward.k8s.io")
    memory = box.memory_kib()
    frames = Frames()
    sock.sendall(b"".join(frames.syn(2 * i + 1, streamtype="error", port="9", requestid=str(i)) for i in range(10000)))
    sock.sendall(control(6, 1))
    refused = replied = 0
    while True:
        head = file.read(8)
        first, length = struct.unpack(">II", head)
        payload = file.read(length & 0xFFFFFF)
        if first == 0x80030006:
            break
        refused += first == 0x80030003 and payload[-1] == 3
        replied += first == 0x80030002
    assert replied <= 1000 and refused + replied >= 9000, (replied, refused)
    assert box.memory_kib() < memory + 30000
    sock.close()
    file.close()


def test_opening_and_resetting(box):
    """Streams that are opened and reset at once, without end in sight."""
    url = streams.forward_url(box.cri, box.pod.id)
    sock, file = open_spdy(url, "portforward.k8s.io")
    memory = box.memory_kib()
    frames = Frames()
    for turn in range(20):
        sock.sendall(b"".join(frames.syn(n, streamtype="data", port="9", requestid=str(n)) + control(3, n, 5)
                              for n in range(2000 * turn + 1, 2000 * (turn + 1), 2)))
    sock.sendall(control(6, 1))
    while (head := file.read(8))[:4] != b"\x80\x03\0\x06":
        file.read(struct.unpack(">I", head[4:])[0] & 0xFFFFFF)
    assert box.memory_kib() < memory + 30000
    sock.close()
    file.close()


def flood(sock, piece, most):
    """Sends until the server takes no more; bytes sent."""
    sent = 0
    sock.settimeout(1)
    with contextlib.suppress(TimeoutError, ConnectionError):
        while sent < most:
            sent += sock.send(piece[sent % len(piece):] if sent % len(piece) else piece)
    return sent


@pytest.mark.parametrize("how", ["spdy", "websocket"])
def test_input_that_nobody_reads(box, how):
    memory = box.memory_kib()
    url = box.url("sleep", "4722", stdin=True)
    if how == "spdy":
        sock, file = open_spdy(url)
        sock.sendall(Frames().command("error", "stdin", "stdout", "stderr"))
        piece = data(3, bytes(1 << 16))
    else:
        sock, file = open_websocket(url)
        piece = ws(2, bytes(1 << 15))
    sent = flood(sock, piece, 200 << 20)
    assert 1 << 17 < sent < 100 << 20
    assert box.memory_kib() < memory + 30000
    assert box.runs(b"sleep 4722")
    vanish(sock)
    file.close()
    eventually(lambda: not box.runs(b"sleep 4722"))


@pytest.mark.parametrize("how", ["spdy", "websocket"])
def test_output_that_nobody_reads(box, how):
    memory = box.memory_kib()
    url = box.url("sh", "-c", "cat /dev/zero; sleep 4723")
    if how == "spdy":
        sock, file = open_spdy(url)
        sock.sendall(Frames().command("error", "stdout", "stderr"))
    else:
        sock, file = open_websocket(url)
    time.sleep(1.5)
    assert box.memory_kib() < memory + 30000
    assert box.runs(b"cat /dev/zero")
    # Nobody answers what is asked meanwhile, either: pings without end.
    sent = flood(sock, control(6, 1) * 1000 if how == "spdy" else ws(9, b"p" * 100) * 1000, 100 << 20)
    assert sent < 100 << 20
    assert box.memory_kib() < memory + 30000
    vanish(sock)
    file.close()
    eventually(lambda: not box.runs(b"cat /dev/zero"))


def test_vanishing_in_the_middle(box):
    """Fifty clients go at any point of a transfer, both ways, each without a word."""
    random.seed(SEED)
    for i in range(50):
        url = box.url("sh", "-c", "cat; exec sleep 4724", stdin=True)
        if i % 2:
            sock, file = open_spdy(url)
            sent = Frames().command("error", "stdin", "stdout", "stderr") + data(3, bytes(30000)) * 10
        else:
            sock, file = open_websocket(url)
            sent = ws(2, bytes(30001)) * 10
        with contextlib.suppress(ConnectionError):
            sock.sendall(sent[:random.randrange(len(sent))])
            if i % 3 == 0:
                file.read1(10000)
        if i % 5 == 0:
            sock.close()
        else:
            vanish(sock)
        file.close()
    eventually(lambda: not box.runs(b"sleep 4724") and not box.runs(b"cat"))


def test_drop_by_drop(box):
    """A client that sends one byte at a time is served."""
    sock, file = open_spdy(box.url("cat", stdin=True, stderr=False))
    for byte in Frames().command("error", "stdin", "stdout") + data(3, b"slow but honest", fin=True):
        sock.sendall(bytes([byte]))
    assert b"slow but honest" in file.read()
    sock.close()
    file.close()


class Drips:
    """Connections that never come to the end of their request's head."""

    def __init__(self, url, count):
        self.socks = [raw(url, b"GET /exec/x HTTP/1.1\r\nX: ") for _ in range(count)]

    def drip(self):
        for sock in list(self.socks):
            try:
                sock.sendall(b"y")
            except ConnectionError:
                self.socks.remove(sock)
                sock.close()
        return self.socks


def test_any_bytes(box):
    """Honest sessions with bytes changed, dropped and doubled, while others drip."""
    random.seed(SEED)
    drips = Drips(box.url("true"), 50)
    honest = {
        "spdy": Frames().command("error", "stdin", "stdout") + data(3, b"hello" * 50) + control(6, 1) + data(3, b"", fin=True),
        "websocket": ws(2, b"\0hello" * 20) + ws(9, b"ping") + ws(2, b"\xff\0") + ws(8, b"\x03\xe8"),
    }
    for i in range(100):
        drips.drip()
        how = ["spdy", "websocket"][i % 2]
        sent = bytearray(honest[how])
        for _ in range(random.randint(1, 6)):
            at = random.randrange(len(sent))
            change = random.randrange(4)
            if change == 0:
                sent[at] = random.randrange(256)
            elif change == 1:
                del sent[at:at + random.randint(1, 20)]
            elif change == 2:
                sent[at:at] = sent[at:at + random.randint(1, 20)]
            else:
                sent[at] ^= 1 << random.randrange(8)
            sent = sent or bytearray(b"x")
        url = box.url("cat", stdin=True, stderr=False)
        sock, file = (open_spdy if how == "spdy" else open_websocket)(url)
        with contextlib.suppress(ConnectionError):
            sock.sendall(sent)
            sock.settimeout(0.02)
            with contextlib.suppress(TimeoutError):
                sock.recv(1000)
        vanish(sock)
        file.close()
    eventually(lambda: not box.runs(b"cat"))
    eventually(lambda: not drips.drip())
    assert isinstance(box.cri.runtime.Version(pb.VersionRequest()).version, str)
