# SPDX-License-Identifier: Apache-2.0
"""Commands and port forwards over every protocol that the streaming server speaks, behind one face.

    with command(url, "v5", stdin=True) as c:
        c.write(b"hello"); c.close_stdin()
        assert c.finish() == (b"hello", b"", 0)
"""
import base64
import json
import socket
import threading

import spdy
import websocket
from cri import pb

SPDY = ["spdy-v4", "spdy-v3", "spdy-v2", "spdy-v1"]
WEBSOCKET = ["v5", "v4", "v4.base64", "v1", "v1.base64", "none"]
_NAMES = {
    "spdy-v4": "v4.channel.k8s.io", "spdy-v3": "v3.channel.k8s.io", "spdy-v2": "v2.channel.k8s.io",
    "spdy-v1": "channel.k8s.io", "v5": "v5.channel.k8s.io", "v4": "v4.channel.k8s.io",
    "v4.base64": "v4.base64.channel.k8s.io", "v1": "channel.k8s.io", "v1.base64": "base64.channel.k8s.io", "none": None,
}
STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
TYPES = ["stdin", "stdout", "stderr", "error", "resize"]


def exec_url(cri, container, *command, stdin=False, stdout=True, stderr=True, tty=False):
    return cri.runtime.Exec(pb.ExecRequest(container_id=container, cmd=command, stdin=stdin, stdout=stdout,
                                           stderr=stderr and not tty, tty=tty)).url


def attach_url(cri, container, stdin=False, stdout=True, stderr=True, tty=False):
    return cri.runtime.Attach(pb.AttachRequest(container_id=container, stdin=stdin, stdout=stdout,
                                               stderr=stderr and not tty, tty=tty)).url


def forward_url(cri, pod, *ports):
    return cri.runtime.PortForward(pb.PortForwardRequest(pod_sandbox_id=pod, port=ports)).url


def code_of(status, version):
    """The exit code that the error channel tells; a text when it tells another error."""
    if version < 4:
        if status.startswith(b"command terminated with non-zero exit code: "):
            return int(status.rsplit(b" ", 1)[1])
        return status.decode() or 0
    told = json.loads(status)
    if told["status"] == "Success":
        return 0
    assert told["status"] == "Failure"
    if told.get("reason") == "NonZeroExitCode":
        return int(next(c["message"] for c in told["details"]["causes"] if c["reason"] == "ExitCode"))
    assert told["reason"] == "InternalError" and told["code"] == 500
    return told["message"]


def vanish(ws):
    """Without a word, and though another thread may be reading."""
    try:
        ws.sock.shutdown(socket.SHUT_RDWR)
    except (AttributeError, OSError):
        pass
    ws.shutdown()


class SpdyCommand:
    def __init__(self, url, how, stdin, stdout, stderr, tty, windows=False):
        self.version = int(how[-1])
        self.connection = spdy.Connection(url, [_NAMES[how]], windows)
        assert self.connection.protocol == _NAMES[how]
        wanted = [stdin, stdout, stderr and not tty, True, tty and self.version >= 3]
        self.streams = [None] * 5
        for i in (ERROR, STDIN, STDOUT, STDERR, RESIZE):  # the order of Kubernetes' client
            if wanted[i]:
                self.streams[i] = self.connection.open(streamType=TYPES[i])
                assert self.streams[i].replied

    def sink(self, which, function):
        stream = self.streams[which]
        with self.connection.news:  # what has come already
            function(bytes(stream.data))
            stream.data.clear()
            stream.sink = function

    def write(self, data):
        self.streams[STDIN].write(data)

    def close_stdin(self):
        self.streams[STDIN].close()

    def resize(self, width, height):
        self.streams[RESIZE].write(json.dumps({"Width": width, "Height": height}).encode() + b"\n")

    def wait_output(self, text, seconds=30):
        assert self.streams[STDOUT].wait(lambda s: text in s.data, seconds), bytes(self.streams[STDOUT].data)

    def output(self):
        return bytes(self.streams[STDOUT].data)

    def finish(self, seconds=30):
        """Waits for the end; (stdout, stderr, exit code or error text)."""
        texts = [s.read_all(seconds) if s else b"" for s in self.streams[STDOUT:ERROR]]
        return (*texts, code_of(self.streams[ERROR].read_all(seconds), self.version))

    def close(self):
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class WebSocketCommand:
    def __init__(self, url, how, stdin, stdout, stderr, tty):
        self.version = {"v5": 5, "v4": 4}.get(how.split(".")[0], 1)
        self.base64 = how.endswith("base64")
        name = _NAMES[how]
        # A browser's way to name the scheme.
        self.ws = websocket.create_connection("ws" + url[4:], timeout=30, subprotocols=[name] if name else None,
                                              sslopt={"cert_reqs": 0, "check_hostname": False})
        assert self.ws.getsubprotocol() == name
        self.data = [bytearray() for _ in range(5)]
        self.sinks = [None] * 5
        self.closed = None  # the code of the close frame
        self.news = threading.Condition()
        self.over = False
        self.first = None
        self.may_read = threading.Event()
        self.may_read.set()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            while True:
                self.may_read.wait()
                opcode, data = self.ws.recv_data()
                with self.news:
                    if opcode == websocket.ABNF.OPCODE_CLOSE:
                        self.closed = int.from_bytes(data[:2], "big")
                        break
                    assert opcode == (websocket.ABNF.OPCODE_TEXT if self.base64 else websocket.ABNF.OPCODE_BINARY), opcode
                    which = data[0] - (48 if self.base64 else 0)
                    text = base64.b64decode(data[1:], validate=True) if self.base64 else data[1:]
                    if self.first is None:
                        self.first = (which, bytes(text))
                    if self.sinks[which]:
                        self.sinks[which](text)
                    else:
                        self.data[which] += text
                    self.news.notify_all()
        except (OSError, websocket.WebSocketException):
            pass
        with self.news:
            self.over = True
            self.news.notify_all()

    def sink(self, which, function):
        with self.news:  # what has come already
            function(bytes(self.data[which]))
            self.data[which].clear()
            self.sinks[which] = function

    def send(self, which, data):
        if self.base64:
            self.ws.send((b"%d" % which + base64.b64encode(data)).decode())
        else:
            self.ws.send_binary(bytes([which]) + data)

    def write(self, data):
        for at in range(0, len(data), 1 << 15):
            self.send(STDIN, data[at:at + (1 << 15)])

    def close_stdin(self):
        assert self.version >= 5
        self.ws.send_binary(bytes([255, STDIN]))

    def resize(self, width, height):
        self.send(RESIZE, json.dumps({"Width": width, "Height": height}).encode() + b"\n")

    def wait_output(self, text, seconds=30):
        with self.news:
            assert self.news.wait_for(lambda: text in self.data[STDOUT] or self.over, seconds), bytes(self.data[STDOUT])
            assert text in self.data[STDOUT], bytes(self.data[STDOUT])

    def output(self):
        return bytes(self.data[STDOUT])

    def finish(self, seconds=30):
        with self.news:
            assert self.news.wait_for(lambda: self.over, seconds), [bytes(d[-200:]) for d in self.data]
        assert self.closed == 1000, self.closed
        assert self.first[1] == b""
        return (bytes(self.data[STDOUT]), bytes(self.data[STDERR]), code_of(bytes(self.data[ERROR]), self.version))

    def close(self):
        self.may_read.set()
        vanish(self.ws)
        self.thread.join(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def command(url, how, stdin=False, stdout=True, stderr=True, tty=False, **more):
    kind = SpdyCommand if how.startswith("spdy") else WebSocketCommand
    return kind(url, how, stdin, stdout, stderr, tty, **more)


def run(cri, container, *words, how="spdy-v4", stdin=False, stdout=True, stderr=True, tty=False, **more):
    """Exec; an open command."""
    url = exec_url(cri, container, *words, stdin=stdin, stdout=stdout, stderr=stderr, tty=tty)
    return command(url, how, stdin, stdout, stderr, tty, **more)


def attach(cri, container, how="spdy-v4", stdin=False, stdout=True, stderr=True, tty=False, **more):
    url = attach_url(cri, container, stdin=stdin, stdout=stdout, stderr=stderr, tty=tty)
    return command(url, how, stdin, stdout, stderr, tty, **more)


class Tunnel:
    """Enough of a socket for spdy.Connection: its bytes are the payload of WebSocket messages."""

    def __init__(self, url, name):
        self.ws = websocket.create_connection("ws" + url[4:], timeout=30, subprotocols=[name])
        assert self.ws.getsubprotocol() == name.lower()  # as the library has it
        self.rest = b""

    def sendall(self, data):
        self.ws.send_binary(data)

    def read(self, n):
        while len(self.rest) < n:
            try:
                opcode, data = self.ws.recv_data()
            except websocket.WebSocketException:
                break
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                break
            self.rest += data
        data, self.rest = self.rest[:n], self.rest[n:]
        return data

    def shutdown(self, _):
        vanish(self.ws)

    def close(self):
        pass


class Forward:
    """SPDY port forwards on one connection, also through a tunnel (how: "spdy", "v2.portforward.k8s.io", ...)."""

    def __init__(self, url, how="spdy", **more):
        if how == "spdy":
            self.connection = spdy.Connection(url, ["portforward.k8s.io"], **more)
        else:
            tunnel = Tunnel(url, how)
            self.connection = spdy.Connection(url, [], socket_pair=(tunnel, tunnel), **more)
        self.count = 0

    def open(self, port):
        """(data stream, error stream)"""
        headers = {"port": port, "requestID": self.count}
        self.count += 1
        error = self.connection.open(streamType="error", **headers)
        if error.replied:
            error.close()
        return self.connection.open(streamType="data", **headers), error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()


class Channels:
    """Numbered channels over WebSocket, as plain port forwards have them: .data[number] is what came."""

    def __init__(self, url, name):
        self.base64 = name is not None and "base64" in name
        self.ws = websocket.create_connection("ws" + url[4:], timeout=30, subprotocols=[name] if name else None)
        assert self.ws.getsubprotocol() == name
        self.data = [bytearray() for _ in range(8)]

    def send(self, which, data):
        if self.base64:
            self.ws.send((b"%d" % which + base64.b64encode(data)).decode())
        else:
            self.ws.send_binary(bytes([which]) + data)

    def wait(self, condition):
        while not condition(self.data):
            _, data = self.ws.recv_data()
            which = data[0] - (48 if self.base64 else 0)
            self.data[which] += base64.b64decode(data[1:], validate=True) if self.base64 else data[1:]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        vanish(self.ws)
