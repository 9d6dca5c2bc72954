# SPDX-License-Identifier: Apache-2.0
"""Networks between a node and a site: namespaces around a router, which can be told to forward nothing, without a word to either end."""
import contextlib
import http.server
import os
import socket
import subprocess
import threading


class Namespace:
    """A network of its own, held by a process. /proc is the machine's, so that what runs there is seen from anywhere."""

    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "-n", "sh", "-c", "ip link set lo up && echo ready && exec sleep infinity"],
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.holder.stdout.readline() != "ready\n":
            self.holder.kill()
            raise OSError(self.holder.communicate()[1])

    def enter(self, *command):
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", *map(str, command)]

    def run(self, *command):
        done = subprocess.run(self.enter(*command), capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr + done.stdout

    def close(self):
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()
        self.holder.stderr.close()


class Network:
    """`router` at 10.198.N.1 of each of the ends; .ends[name] at 10.198.N.2."""

    def __init__(self, *names):
        self.router, self.ends, self.addresses = Namespace(), {}, {}
        for number, name in enumerate(names, 1):
            self.ends[name] = end = Namespace()
            self.addresses[name] = f"10.198.{number}.2"
            self.router.run("ip", "link", "add", f"to{number}", "type", "veth", "peer", "name", "eth0", "netns", end.holder.pid)
            self.router.run("ip", "addr", "add", f"10.198.{number}.1/24", "dev", f"to{number}")
            self.router.run("ip", "link", "set", f"to{number}", "up")
            end.run("ip", "addr", "add", f"10.198.{number}.2/24", "dev", "eth0")
            end.run("ip", "link", "set", "eth0", "up")
            end.run("ip", "route", "add", "default", "via", f"10.198.{number}.1")
        self.forward(True)

    def forward(self, on):
        """What is not for the router itself goes on, or is dropped in silence."""
        self.router.run("sysctl", "-qw", f"net.ipv4.ip_forward={int(on)}")

    def close(self):
        for namespace in (*self.ends.values(), self.router):
            namespace.close()


class Proxy(http.server.ThreadingHTTPServer):
    """An HTTP proxy that opens connections (CONNECT), for who knows `login` ("user:password" in base64) if that is set. `namespace`:
    where it listens and connects."""

    daemon_threads = True
    login = None
    refusal = None  # a status to answer with instead

    def __init__(self, namespace=None, address="127.0.0.1"):
        self.asked, self.redirect, self.namespace = [], None, namespace
        with self.inside():
            super().__init__((address, 0), ProxyHandler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @contextlib.contextmanager
    def inside(self):
        """This thread's sockets are made there."""
        if self.namespace is None:
            yield
            return
        with open("/proc/thread-self/ns/net", "rb") as here, open(f"/proc/{self.namespace.holder.pid}/ns/net", "rb") as there:
            setns(there)
            try:
                yield
            finally:
                setns(here)


def setns(file):
    import ctypes
    if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0x40000000) != 0:  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "setns")


class ProxyHandler(http.server.BaseHTTPRequestHandler):
    def do_CONNECT(self):
        login = self.headers.get("Proxy-Authorization")
        self.server.asked.append((self.path, login))
        wrong = self.server.login is not None and login != f"Basic {self.server.login}"
        if wrong or self.server.refusal:
            self.send_response(407 if wrong else self.server.refusal)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        host, port = self.path.rsplit(":", 1)
        with self.server.inside():
            far = socket.create_connection(self.server.redirect or (host, int(port)), timeout=10)
        far.settimeout(None)
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with far:
            back = threading.Thread(target=self.carry, args=(far, self.connection), daemon=True)
            back.start()
            self.carry(self.connection, far)
            back.join(10)
        self.close_connection = True

    @staticmethod
    def carry(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def log_message(self, *_):
        pass


def may_make_networks():
    return os.geteuid() == 0 and subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode == 0
