# SPDX-License-Identifier: Apache-2.0
"""Authentication towards interLink's REST API: servers that fail in each way that TLS can fail, and what the pod's event then says;
client certificates with all kinds of keys; a bearer token that is renewed; a proxy on the way."""
import contextlib
import datetime
import http.server
import os
import socket
import ssl
import subprocess
import tempfile
import threading
import time

import grpc
import pytest
from cri import pod_config
from serving import Serve
from site_network import Proxy

END = {"ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["-newkey", "rsa:2048"]}


class Authority:
    """A CA in a folder, made with openssl(1)."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.index").write_text("")
        (folder / f"{name}.conf").write_text(
            f"[ca]\ndefault_ca=d\n[d]\ndatabase={folder}/{name}.index\nrand_serial=yes\nnew_certs_dir={folder}\ndefault_md=sha256\n"
            "policy=p\nunique_subject=no\n[p]\ncommonName=supplied\n")
        self.run("req", "-x509", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem",
                 "-addext", "keyUsage=critical,keyCertSign", *END["ec"])

    def run(self, *arguments):
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr

    def issue(self, name, san, days=(-1, 1), key="ec", cn=None):
        """(certificate, key) files; valid from and until so many days from now."""
        now = datetime.datetime.now(datetime.timezone.utc)
        start, end = ((now + datetime.timedelta(days=d)).strftime("%Y%m%d%H%M%SZ") for d in days)
        self.run("req", "-new", "-nodes", "-subj", f"/CN={cn or name}", "-keyout", f"{name}.key", "-out", f"{name}.csr", *END[key])
        (self.folder / f"{name}.ext").write_text((f"subjectAltName={san}\n" if san else "") + "basicConstraints=CA:FALSE\n")
        self.run("ca", "-batch", "-notext", "-config", f"{self.name}.conf", "-cert", f"{self.name}.pem", "-keyfile", f"{self.name}.key",
                 "-startdate", start, "-enddate", end, "-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", f"{name}.ext")
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"


class API(http.server.ThreadingHTTPServer):
    """Takes no pod: its answer to a create, which reaches the event, says who called."""

    daemon_threads = True

    def __init__(self, context=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.heard = []
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # failed handshakes are what is tested


class Handler(http.server.BaseHTTPRequestHandler):
    def handle_any(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        certificate = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        who = dict(x[0] for x in certificate["subject"])["commonName"] if certificate else "nobody"
        self.server.heard.append((self.path, dict(self.headers)))
        text = f"refused: certificate {who}, {self.headers.get('Authorization', 'no token')}".encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_DELETE = handle_any

    def log_message(self, *_):
        pass


class Canned:
    """A server that says the same to everybody, whatever it hears, and closes."""

    def __init__(self, reply):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.server_port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, args=(reply,), daemon=True).start()

    def run(self, reply):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                with client:
                    client.recv(65536)
                    client.sendall(reply)

    def shutdown(self):
        self.listener.close()


def context(certificate, client_ca=None, maximum=None):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(*certificate)
    if client_ca is not None:
        c.verify_mode = ssl.CERT_REQUIRED
        c.load_verify_locations(client_ca)
        c.maximum_version = ssl.TLSVersion.TLSv1_2
    if maximum is not None:
        c.minimum_version, c.maximum_version = ssl.TLSVersion.TLSv1, maximum
        c.set_ciphers("DEFAULT:@SECLEVEL=0")
    return c


# How the server fails, how it is called, and what the pod's event says.
FAILURES = {
    "expired": ("localhost", "has expired"),
    "early": ("localhost", "is not valid yet"),
    "name": ("localhost", "was issued for another name"),
    "address": ("127.0.0.1", "does not carry this IP address"),
    "common": ("localhost", "was issued for another name"),
    "stranger": ("localhost", "was not issued by any of the 1 authorities"),
    "demanding": ("localhost", "client certificate"),
    "mistrusting": ("localhost", "does not know the authority that issued our certificate"),
    "old": ("localhost", "speaks no TLS as new as 1.2"),
    "plain": ("localhost", "what the peer sends is not TLS 1.2"),
    "truncated": ("localhost", "closed the connection during the handshake"),
    "garbage": ("localhost", "what the peer sends is not TLS 1.2"),
    "mismatch": ("localhost", "does not belong to"),
}
KEYS = {"ec-sec1": "ec", "ec-pkcs8": "ec", "rsa-pkcs1": "rsa", "rsa-pkcs8": "rsa"}


@pytest.fixture(scope="module")
def world():
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    world = Serve(root)
    ca, other = Authority(world.root / "ca", "ca"), Authority(world.root / "other", "other")
    good = ca.issue("good", "DNS:localhost,DNS:*.site.example,IP:127.0.0.1")
    client = {"ec": ca.issue("client-ec", "DNS:client", cn="ec"), "rsa": ca.issue("client-rsa", "DNS:client", key="rsa", cn="rsa")}
    ca.run("ec", "-in", "client-ec.key", "-out", "ec-sec1.key")
    ca.run("rsa", "-in", "client-rsa.key", "-traditional", "-out", "rsa-pkcs1.key")
    keys = {"ec-sec1": ca.folder / "ec-sec1.key", "ec-pkcs8": client["ec"][1], "rsa-pkcs1": ca.folder / "rsa-pkcs1.key",
            "rsa-pkcs8": client["rsa"][1]}
    strange = other.issue("strange-client", "DNS:client")
    demanding = API(context(good, client_ca=ca.folder / "ca.pem"))
    servers = {
        "expired": API(context(ca.issue("expired", "DNS:localhost", days=(-3, -1)))),
        "early": API(context(ca.issue("early", "DNS:localhost", days=(1, 2)))),
        "name": API(context(ca.issue("name", "DNS:elsewhere.example,DNS:*.localhost"))),
        "address": API(context(ca.issue("address", "DNS:127.0.0.1"))),
        "common": API(context(ca.issue("common", "", cn="localhost"))),
        "stranger": API(context(other.issue("stranger", "DNS:localhost"))),
        "demanding": demanding,
        "mistrusting": demanding,
        "old": API(context(good, maximum=ssl.TLSVersion.TLSv1_1)),
        "plain": API(),
        "truncated": Canned(b"\x16\x03\x03\x00\x50\x02\x00\x00\x4c\x03\x03"),  # the head of a hello
        "garbage": Canned(b"SSH-2.0-OpenSSH_9.2\r\n" * 20),
        "mismatch": demanding,
    }
    api, proxy = API(context(good)), Proxy()
    proxy.login, proxy.redirect = "bWU6YSBi", ("127.0.0.1", api.server_port)
    handlers = []

    def handler(name, host, port, **keys):
        lines = [f"  - Name: {name}", f"    Target: https://{host}:{port}", f"    CAFile: {ca.folder}/ca.pem"]
        handlers.append("\n".join(lines + [f"    {k}: {v}" for k, v in keys.items()]))

    for name, (host, _) in FAILURES.items():
        more = {"mistrusting": {"CertFile": strange[0], "KeyFile": strange[1]},
                "mismatch": {"CertFile": client["ec"][0], "KeyFile": client["rsa"][1]}}.get(name, {})
        handler(name, host, servers[name].server_port, **more)
    for name, kind in KEYS.items():
        handler(name, "localhost", demanding.server_port, CertFile=client[kind][0], KeyFile=keys[name])
    handler("address-good", "127.0.0.1", api.server_port)
    world.token = world.root / "token"
    world.token.write_text("first\n")
    handler("token", "localhost", api.server_port, BearerTokenFile=world.token)
    handler("proxied", "api.site.example", 443, Proxy=f"http://me:a%20b@127.0.0.1:{proxy.server_port}")
    handler("proxied-unknown", "api.site.example", 443, Proxy=f"http://127.0.0.1:{proxy.server_port}")
    world.config.write_text(world.config.read_text() + "QueueHold: 5s\nHandlers:\n  - Name: local\n    Target: local\n" +
                            "\n".join(handlers) + "\n")
    world.api, world.proxy = api, proxy
    world.start()
    yield world
    world.finish()
    for server in {*servers.values(), api, proxy}:
        server.shutdown()


def event(world, handler):
    """What kubelet would show of a pod that is sent there."""
    with pytest.raises(grpc.RpcError) as caught:
        world.client.run_pod(pod_config(f"p-{handler}-{time.monotonic_ns()}"), handler)
    return caught.value.details()


@pytest.mark.parametrize("name", FAILURES)
def test_each_way_in_which_tls_fails_is_said(world, name):
    text = event(world, name)
    assert FAILURES[name][1] in text and "refused: certificate" not in text, text


@pytest.mark.parametrize("name", KEYS)
def test_client_certificates_with_all_kinds_of_keys(world, name):
    assert f"certificate {KEYS[name]}," in event(world, name)


def test_an_address_is_verified_as_one(world):
    assert "refused: certificate nobody" in event(world, "address-good")


def test_a_token_is_read_again_when_it_changes(world):
    assert "Bearer first" in event(world, "token")
    new = world.root / "token.new"
    new.write_text("second\n")
    new.rename(world.token)
    assert "Bearer second" in event(world, "token")
    world.token.write_text("third")  # in place
    assert "Bearer third" in event(world, "token")
    world.token.write_text("two\nlines\n")
    assert "does not hold a bearer token on one line" in event(world, "token")
    world.token.write_text("fourth\n")
    assert "Bearer fourth" in event(world, "token")
    assert all(h.get("InterLink-Http-Session", "").startswith("interlink-cri-") for _, h in world.api.heard)


def test_a_proxy_leads_to_the_api(world):
    """A wildcard name that only the proxy can find; the TLS inside is with the API."""
    assert "refused: certificate nobody" in event(world, "proxied")
    assert ("api.site.example:443", "Basic bWU6YSBi") in world.proxy.asked
    assert "407" in event(world, "proxied-unknown")
