# SPDX-License-Identifier: Apache-2.0
"""Clients of pods' ports: run as a program, in the network namespace of who wants to be one. Says what it saw as JSON."""
import concurrent.futures
import hashlib
import json
import os
import socket
import struct
import sys
import threading
import time


def connect(host, port, timeout=20):
    return socket.create_connection((host, port), timeout=timeout)


def outcome(host, port):
    """"ok", "refused" or the like: what connecting gives."""
    try:
        with connect(host, port, 5):
            return "ok"
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return type(error).__name__


def read_all(s):
    pieces = []
    while piece := s.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def echo(host, port, text="hello"):
    """Sends, ends its way, reads to the end."""
    with connect(host, port) as s:
        s.sendall(text.encode())
        s.shutdown(socket.SHUT_WR)
        return read_all(s).decode()


def echo_many(host, port, count):
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return sum(pool.map(lambda i: echo(host, port, f"number {i}") == f"number {i}", range(count)))


def hold_many(host, port, count):
    """So many at once, each of them alive."""
    all_of_them = [connect(host, port) for _ in range(count)]
    for i, s in enumerate(all_of_them):
        s.sendall(b"%d\n" % i)
    good = sum(s.makefile("rb").readline() == b"%d\n" % i for i, s in enumerate(all_of_them))
    for s in all_of_them:
        s.close()
    return good


def both_ways(host, port, megabytes):
    """Sends so much to an echo and gets it back, at the same time."""
    data, sent, got = os.urandom(1 << 20), hashlib.sha256(), hashlib.sha256()
    begin = time.monotonic()
    with connect(host, port, 120) as s:
        def send():
            for _ in range(megabytes):
                s.sendall(data)
                sent.update(data)
            s.shutdown(socket.SHUT_WR)
        sender = threading.Thread(target=send)
        sender.start()
        while piece := s.recv(1 << 20):
            got.update(piece)
        sender.join()
    return {"same": sent.digest() == got.digest(), "seconds": time.monotonic() - begin}


def reset(host, port):
    """Breaks a connection off, after the other side has answered."""
    with connect(host, port) as s:
        s.sendall(b"hello\n")
        s.recv(1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return True


def is_reset(host, port):
    """Whether the other side breaks it off, instead of ending it."""
    try:
        with connect(host, port) as s:
            s.sendall(b"x")
            read_all(s)
            return False
    except ConnectionResetError:
        return True


def stall(host, port, seconds):
    """Sends what nobody reads: how much of it was taken."""
    with connect(host, port) as s:
        s.settimeout(seconds)
        taken = 0
        try:
            while taken < 1 << 30:
                taken += s.send(bytes(1 << 16))
        except TimeoutError:
            pass
        return taken


def latency(host, port, count):
    """Milliseconds of connecting, one byte there and one back; the middle one."""
    times = []
    for _ in range(count):
        begin = time.monotonic()
        with connect(host, port) as s:
            s.sendall(b"x")
            s.recv(1)
        times.append((time.monotonic() - begin) * 1000)
    return sorted(times)[count // 2]


if __name__ == "__main__":
    function, *arguments = json.loads(sys.argv[1])
    print(json.dumps(globals()[function](*arguments)))
