# SPDX-License-Identifier: Apache-2.0
"""A registry (OCI distribution API, reading only) that can misbehave in every way a client should survive."""
import base64
import http.server
import json
import re
import socket
import ssl
import struct
import threading
import time
import urllib.parse

from .build import OCI, blob_digest, index


class Fault:
    """What goes wrong with requests whose path matches, `times` times."""

    def __init__(self, pattern, times, method, **how):
        self.pattern, self.left, self.method, self.how = re.compile(pattern), times, method, how


class Registry:
    def __init__(self, tls=None, auth=None, users=None, ranges=True):
        """auth: None, "basic" or "bearer". users: {"name": "password"}; empty: tokens for anybody. tls: (certificate, key)."""
        self.auth, self.users, self.ranges = auth, users or {}, ranges
        self.refresh_tokens, self.given_tokens, self.token_life = {}, set(), None
        self.oauth = True
        self.blobs, self.manifests, self.faults, self.log = {}, {}, [], []
        self.digest_header = True
        self.lock = threading.Lock()
        registry = self

        class Handler(_Handler):
            pass
        Handler.registry = registry
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.scheme = "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            self.scheme = "https"
        self.port = self.server.server_address[1]
        self.name = f"127.0.0.1:{self.port}"
        self.url = f"{self.scheme}://{self.name}"
        threading.Thread(target=self.server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()

    # ---- content ----
    def put(self, repo, tag, image):
        """Full name of what was put."""
        self.put_manifest(repo, tag, image.manifest, image.types["manifest"])
        self.blobs.setdefault(repo, {}).update(image.blobs)
        return f"{self.name}/{repo}:{tag}"

    def put_index(self, repo, tag, images, types=OCI, extra=()):
        for image in images:
            self.put(repo, image.digest, image)
        self.put_manifest(repo, tag, index(images, types, extra), types["index"])
        return f"{self.name}/{repo}:{tag}"

    def put_manifest(self, repo, tag, text, media_type):
        self.manifests[repo, tag] = self.manifests[repo, blob_digest(text)] = (media_type, text)

    # ---- trouble ----
    def fail(self, pattern, times=1, method=None, **how):
        """how: status=, headers=, body=; cut=BYTES (the connection breaks after so many of the body); reset=True (before any answer);
        corrupt=True; rate=BYTES a second; delay=SECONDS; redirect=URL; short=BYTES (a whole answer of so many)"""
        self.faults.append(Fault(pattern, times, method, **how))

    def requests(self, pattern, method=None):
        with self.lock:
            return [r for r in self.log if re.search(pattern, r["path"]) and method in (None, r["method"])]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536
    registry = None

    def log_message(self, *args):
        pass

    def handle(self):
        try:
            super().handle()
        except (ConnectionError, ssl.SSLError, TimeoutError):
            pass

    def finish(self):
        try:
            super().finish()
        except (ConnectionError, ssl.SSLError):
            pass

    def reply(self, status, body=b"", headers=None, how=None):
        how = how or {}
        body = how.get("body", body)
        if how.get("corrupt"):
            body = bytes([body[0] ^ 1]) + body[1:]
        if "short" in how:
            body = body[:how["short"]]
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = how.get("cut")
        if cut is not None:
            self.wfile.write(body[:cut])
            self.wfile.flush()
            self.abort()
        elif "rate" in how:
            step = max(1, how["rate"] // 50)
            for at in range(0, len(body), step):
                self.wfile.write(body[at:at + step])
                self.wfile.flush()
                time.sleep(0.02)
        else:
            self.wfile.write(body)
        self.wfile.flush()

    def abort(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        raise ConnectionError("cut")

    def find_fault(self):
        with self.registry.lock:
            for fault in self.registry.faults:
                if fault.left > 0 and fault.pattern.search(self.path) and fault.method in (None, self.command):
                    fault.left -= 1
                    return fault.how
        return {}

    # ---- logging in ----
    def allowed(self, repo):
        registry, header = self.registry, self.headers.get("Authorization", "")
        if registry.auth is None:
            return True
        if registry.auth == "basic":
            return self.basic_user() is not None
        return header.startswith("Bearer ") and (header[7:], repo) in registry.given_tokens

    def basic_user(self):
        header = self.headers.get("Authorization", "")
        if not header.startswith("Basic "):
            return None
        user, _, password = base64.b64decode(header[6:]).decode().partition(":")
        return user if self.registry.users.get(user) == password else None

    def challenge(self, repo):
        registry = self.registry
        if registry.auth == "basic":
            value = 'Basic realm="tests, and more"'
        else:
            value = f'Bearer realm="{registry.url}/token",service="tests",scope="repository:{repo}:pull"'
        self.reply(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}', {"WWW-Authenticate": value})

    def give_token(self, scopes, key="token"):
        registry = self.registry
        token = f"token-{len(registry.given_tokens)}"
        for scope in scopes:
            kind, repo, actions = scope.split(":")
            if kind == "repository" and "pull" in actions:
                registry.given_tokens.add((token, repo))
        self.reply(200, json.dumps({key: token, "expires_in": 300}).encode(), {"Content-Type": "application/json"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        form = urllib.parse.parse_qs(body)
        registry = self.registry
        with registry.lock:
            registry.log.append({"method": "POST", "path": self.path, "headers": dict(self.headers), "form": form})
        if self.path != "/token" or not registry.oauth:
            self.reply(404)
        elif form.get("grant_type") == ["refresh_token"] and form["refresh_token"][0] in registry.refresh_tokens:
            self.give_token(form["scope"][0].split(" "), "access_token")
        else:
            self.reply(401, b'{"details":"incorrect token"}')

    # ---- content ----
    def do_GET(self):
        registry = self.registry
        with registry.lock:
            registry.log.append({"method": self.command, "path": self.path, "headers": dict(self.headers)})
        how = self.find_fault()
        if "delay" in how:
            time.sleep(how["delay"])
        if how.get("reset"):
            self.abort()
        path, _, query = self.path.partition("?")
        if "redirect" in how:
            self.reply(307, b"", {"Location": how["redirect"]})
            return
        if "status" in how:
            self.reply(how["status"], how.get("body", b""), how.get("headers"))
            return
        if path == "/token":
            user = self.basic_user()
            if registry.users and user is None:
                self.reply(401, b'{"details":"incorrect username or password"}')
            else:
                self.give_token(urllib.parse.parse_qs(query)["scope"])
            return
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/]+)", path)
        if not match:
            self.reply(404, b"{}")
            return
        repo, kind, name = match.groups()
        if not self.allowed(repo):
            self.challenge(repo)
        elif kind == "manifests":
            self.manifest(repo, name, how)
        else:
            self.blob(repo, name, how)

    do_HEAD = do_GET

    def manifest(self, repo, name, how):
        found = self.registry.manifests.get((repo, name))
        if found is None:
            self.reply(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
            return
        headers = {"Content-Type": how.get("type", found[0])}
        if self.registry.digest_header:
            headers["Docker-Content-Digest"] = how.get("digest", blob_digest(found[1]))
        self.reply(200, found[1], headers, how)

    def blob(self, repo, name, how):
        data = self.registry.blobs.get(repo, {}).get(name)
        if data is None:
            self.reply(404, b'{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}')
            return
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start and self.registry.ranges:
            at = int(start[1])
            if at >= len(data):
                self.reply(416)
            else:
                self.reply(206, data[at:], {"Content-Range": f"bytes {at}-{len(data) - 1}/{len(data)}"}, how)
        else:
            self.reply(200, data, {"Content-Type": "application/octet-stream"}, how)
