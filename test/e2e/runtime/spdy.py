# SPDX-License-Identifier: Apache-2.0
"""A client of SPDY/3.1 as Kubernetes uses it, written for tests from the specification alone (SPDY Protocol, draft 3.1)."""
import socket
import ssl
import struct
import threading
import urllib.parse
import zlib

# Section 2.6.10.1: what both sides' compressors begin with: names, each behind its length, and some text.
_WORDS = """options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow
authorization cache-control connection content-base content-encoding content-language content-length content-location content-md5
content-range content-type date etag expect expires from host if-match if-modified-since if-none-match if-range
if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after
server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1
url public set-cookie keep-alive origin"""
_TEXT = (b"100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative "
         b"Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal "
         b"Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, "
         b"Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
         b"application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8"
         b"charset=iso-8859-1,utf-,*,enq=0.")
DICTIONARY = b"".join(struct.pack(">I", len(w)) + w.replace("_", " ").encode() for w in _WORDS.split()) + _TEXT
assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2  # as the specification says

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FIN = 1


class UpgradeError(Exception):
    """The server answered something other than 101."""

    def __init__(self, status, headers, body):
        super().__init__(f"{status}: {body}")
        self.status, self.headers, self.body = status, headers, body


def upgrade(url, headers, method="POST", timeout=20):
    """Sends the request; returns (socket, file for reading, headers of the answer) after a 101."""
    where = urllib.parse.urlsplit(url)
    sock = socket.create_connection((where.hostname, where.port), timeout)
    if where.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        sock = context.wrap_socket(sock, server_hostname=where.hostname)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    path = where.path + ("?" + where.query if where.query else "")
    lines = [f"{method} {path} HTTP/1.1", f"Host: {where.netloc}", *[f"{k}: {v}" for k, v in headers], "", ""]
    sock.sendall("\r\n".join(lines).encode())
    file = sock.makefile("rb", 1 << 18)
    status = int(file.readline().split()[1])
    answer = {}
    for line in iter(file.readline, b"\r\n"):
        key, value = line.decode().split(":", 1)
        answer[key.lower()] = value.strip()
    if status != 101:
        body = file.read(int(answer.get("content-length", 0))).decode()
        file.close()
        sock.close()
        raise UpgradeError(status, answer, body)
    return sock, file, answer


class Stream:
    """One stream; what arrives is kept in .data, unless .sink takes it."""

    def __init__(self, connection, number):
        self.connection, self.number = connection, number
        self.data = bytearray()
        self.sink = None
        self.replied = self.ended = self.reset = False

    def write(self, data, flags=0):
        for at in range(0, max(len(data), 1), 1 << 15):  # Go copies in pieces of that size
            piece = data[at:at + (1 << 15)]
            last = at + (1 << 15) >= len(data)
            self.connection.send(struct.pack(">II", self.number, (flags if last else 0) << 24 | len(piece)) + piece)

    def close(self):
        self.write(b"", FIN)

    def cancel(self):
        self.connection.control(RST_STREAM, 0, struct.pack(">II", self.number, 5))

    def wait(self, condition, seconds=30):
        """Until condition(self), which is asked whenever something came on the connection."""
        with self.connection.news:
            if not self.connection.news.wait_for(lambda: condition(self) or self.connection.over, seconds):
                raise TimeoutError(f"stream {self.number}: {bytes(self.data[-200:])!r} ended={self.ended} reset={self.reset}")
        return condition(self)

    def read_all(self, seconds=30):
        self.wait(lambda s: s.ended or s.reset, seconds)
        return bytes(self.data)


class Connection:
    """windows: behave as SPDY/3.1 asks (WINDOW_UPDATE for what was read); Kubernetes' own clients do not."""

    def __init__(self, url, protocols, windows=False, method="POST", socket_pair=None):
        if socket_pair is None:
            headers = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("Content-Length", "0")]
            headers += [("X-Stream-Protocol-Version", p) for p in protocols]
            self.sock, self.file, answer = upgrade(url, headers, method)
            self.protocol = answer["x-stream-protocol-version"]
            self.sock.settimeout(None)
        else:  # something that carries the frames
            self.sock, self.file = socket_pair
        self.windows = windows
        self.no_window_for = None  # a stream whose reader does not read
        self.streams = {}
        self.next_number = 1
        self.over = False
        self.goaway = None
        self.error = None
        self.pongs = []
        self.news = threading.Condition()
        self.may_read = threading.Event()
        self.may_read.set()
        self.lock = threading.Lock()
        self.compress = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
        self.decompress = zlib.decompressobj(zlib.MAX_WBITS, DICTIONARY)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    # --- writing ---

    def send(self, data):
        with self.lock:
            self.sock.sendall(data)

    def control(self, kind, flags, body):
        self.send(struct.pack(">HHI", 0x8003, kind, flags << 24 | len(body)) + body)

    def pack_headers(self, headers):
        text = struct.pack(">I", len(headers))
        for key, value in headers.items():
            for word in (key.lower().encode(), str(value).encode()):
                text += struct.pack(">I", len(word)) + word
        return self.compress.compress(text) + self.compress.flush(zlib.Z_SYNC_FLUSH)

    def open(self, wait=True, flags=0, **headers):
        number = self.next_number
        self.next_number += 2
        stream = self.streams[number] = Stream(self, number)
        self.control(SYN_STREAM, flags, struct.pack(">IIBB", number, 0, 0, 0) + self.pack_headers(headers))
        if wait:
            stream.wait(lambda s: s.replied or s.reset)
        return stream

    def ping(self, number=1):
        self.control(PING, 0, struct.pack(">I", number))

    def close(self):
        self.may_read.set()
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.thread.join(10)
        self.file.close()
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # --- reading ---

    def _exactly(self, n):
        data = self.file.read(n)
        if len(data) < n:
            raise EOFError
        return data

    def _read(self):
        try:
            while True:
                self.may_read.wait()
                first, second = struct.unpack(">II", self._exactly(8))
                body = self._exactly(second & 0xFFFFFF)
                with self.news:
                    if first >> 31:
                        self._on_control(first & 0xFFFF, second >> 24, body)
                    else:
                        self._on_data(first, second >> 24, body)
                    self.news.notify_all()
        except (EOFError, OSError, ValueError) as error:
            self.error = error
        with self.news:
            self.over = True
            self.news.notify_all()

    def _on_data(self, number, flags, body):
        stream = self.streams[number]
        if stream.sink is not None:
            stream.sink(body)
        else:
            stream.data += body
        stream.ended = stream.ended or bool(flags & FIN)
        if self.windows and body:
            for which in (number, 0) if number != self.no_window_for else (0,):
                self.control(WINDOW_UPDATE, 0, struct.pack(">II", which, len(body)))

    def _on_control(self, kind, flags, body):
        if kind == SYN_REPLY:
            self.decompress.decompress(body[4:])
        number = struct.unpack(">I", body[:4])[0] & 0x7FFFFFFF
        if kind == SYN_REPLY:
            self.streams[number].replied = True
            self.streams[number].ended |= bool(flags & FIN)
        elif kind == RST_STREAM:
            self.streams[number].reset = True
        elif kind == PING:
            self.pongs.append(number) if number % 2 else self.control(PING, 0, body)
        elif kind == GOAWAY:
            self.goaway = number
