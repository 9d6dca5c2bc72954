# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a cluster's API server: TLS 1.2 or later, client certificates or tokens; pods, one Node, watches, faults.

`policy`: it carries deploy/capacity-policy.yaml, as far as that shows on a Node."""
import copy
import http.server
import json
import pathlib
import ssl
import subprocess
import threading
import time
import urllib.parse

NODE = "edge1"


def run(*arguments):
    subprocess.run([str(a) for a in arguments], check=True, capture_output=True)


class Pki:
    """An authority with EC keys, and certificates made by it."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ca = self.folder / "ca.crt"
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
            self.folder / "ca.key", "-out", self.ca, "-days", "30", "-subj", "/CN=test-ca")

    def make(self, name, subject, kind="ec", names=""):
        """NAME.pem with certificate and key in one file, as kubelet-client-current.pem has them."""
        key, csr, crt = (self.folder / f"{name}.{e}" for e in ("key", "csr", "crt"))
        new = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "ec" else ["rsa:2048"]
        run("openssl", "req", "-newkey", *new, "-nodes", "-keyout", key, "-out", csr, "-subj", subject)
        extensions = self.folder / f"{name}.ext"
        extensions.write_text("extendedKeyUsage=serverAuth,clientAuth\n" + (f"subjectAltName={names}\n" if names else ""))
        run("openssl", "x509", "-req", "-in", csr, "-CA", self.ca, "-CAkey", self.folder / "ca.key", "-CAcreateserial",
            "-days", "30", "-extfile", extensions, "-out", crt)
        pem = self.folder / f"{name}.pem"
        pem.write_text(crt.read_text() + key.read_text())
        return pem


class KubeApi:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.pki = Pki(self.folder / "pki")
        self.tokens = {}   # token -> user
        self.pods = {}     # (namespace, name) -> object
        self.node = None
        self.policy = True
        self.fault = None  # "hang", "garbage", "close", or a status number
        self.junk = b""      # what the next watch sends first
        self.requests = [] # (user, method, path)
        self.version = 1
        self.changed = threading.Condition()
        self.server = None
        self.port = 0
        self.starting = False  # a server that has just started knows no roles
        self.classes = []  # handlers that RuntimeClasses name
        self.certificate = self.pki.make("server", "/CN=kube-apiserver", names="IP:127.0.0.1")
        self.start()

    # ---- the server ----
    def start(self):
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                api.answer(self, body)

            do_GET = do_POST = do_PATCH = do

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_):
                pass

            def get_request(self):  # the handshake is the connection's own thread's business
                connection, address = self.socket.accept()
                connection.settimeout(60)
                return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        context.load_verify_locations(self.pki.ca)
        context.verify_mode = ssl.CERT_OPTIONAL
        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        """Connections refused from now on; watches end."""
        self.server.shutdown()
        self.server.server_close()
        self.server = None
        with self.changed:
            self.changed.notify_all()

    close = stop

    # ---- credentials ----
    def kubeconfig(self, name="kubelet.conf", token=None, cert=None, **user):
        """Writes one; the certificate and key are in one file, the CA in another."""
        path = self.folder / name
        if cert is not None:
            user.update({"client-certificate": str(cert), "client-key": str(cert)})
        if token is not None:
            self.tokens[token] = user.pop("name", "system:serviceaccount:kube-system:interlink")
            user["token"] = token
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": f"https://127.0.0.1:{self.port}",
                                                   "certificate-authority": "pki/ca.crt"}}],
            "users": [{"name": "u", "user": user}]}))
        return path

    def user(self, handler):
        authorization = handler.headers.get("Authorization", "")
        if authorization.startswith("Bearer "):
            return self.tokens.get(authorization[7:])
        certificate = handler.connection.getpeercert()
        for part in (certificate or {}).get("subject", ()):
            for key, value in part:
                if key == "commonName":
                    return value
        return None

    # ---- objects ----
    def add_pod(self, name, uid, spec, namespace="default", **metadata):
        self.pods[namespace, name] = {"apiVersion": "v1", "kind": "Pod", "spec": spec,
                                      "metadata": {"name": name, "namespace": namespace, "uid": uid, **metadata}}

    def register_node(self, **annotations):
        """What a kubelet does when it starts and the Node is not there."""
        self.update_node({"kind": "Node", "metadata": {"name": NODE, "annotations": annotations}, "spec": {},
                          "status": {"capacity": {"cpu": "2", "memory": "4Gi", "pods": "110"},
                                     "images": [{"names": ["x" * 200]}] * 50}})

    def update_node(self, node):
        with self.changed:
            self.version += 1
            if node is not None:
                node["metadata"]["resourceVersion"] = str(self.version)
            self.node = node
            self.changed.notify_all()

    def annotations(self):
        return (self.node or {}).get("metadata", {}).get("annotations") or {}

    # ---- answers ----
    def answer(self, handler, body):
        url = urllib.parse.urlsplit(handler.path)
        query = urllib.parse.parse_qs(url.query)
        user = self.user(handler)
        self.requests.append((user, handler.command, handler.path))
        if self.fault == "hang":
            time.sleep(20)
        if self.fault == "close":
            handler.close_connection = True
            return
        if self.fault == "garbage":
            self.send(handler, 200, b'{"metadata": [')
        elif isinstance(self.fault, int):
            self.refuse(handler, self.fault, "out of order")
        elif user is None:
            self.refuse(handler, 401, "Unauthorized")
        elif url.path.startswith("/api/v1/namespaces/"):
            parts = url.path.split("/")
            pod = self.pods.get((parts[4], parts[6]))
            if pod is None:
                self.refuse(handler, 404, f'pods "{parts[6]}" not found')
            else:
                self.send(handler, 200, json.dumps(pod).encode())
        elif url.path.endswith("/selfsubjectreviews") and self.starting:
            self.refuse(handler, 403, "selfsubjectreviews is forbidden: the roles are not there yet")
        elif url.path == "/api/v1/nodes" and f"metadata.name={NODE}" not in query.get("fieldSelector", [f"metadata.name={NODE}"]):
            self.refuse(handler, 403, "kubelets may read their own Node only")
        elif url.path.endswith("/selfsubjectreviews"):
            self.send(handler, 201, json.dumps({"status": {"userInfo": {"username": user}}}).encode())
        elif url.path == "/api/v1/nodes" and "watch" in query:
            self.watch(handler, query)
        elif handler.command == "PATCH" and url.path.startswith(f"/api/v1/nodes/{NODE}"):
            self.patch(handler, user, url.path.endswith("/status"), json.loads(body), "dryRun" in query)
        elif url.path == f"/api/v1/nodes/{NODE}" and self.node is not None:
            self.send(handler, 200, json.dumps(self.node).encode())
        elif url.path == "/apis/node.k8s.io/v1/runtimeclasses":
            self.send(handler, 200, json.dumps({"items": [{"handler": h} for h in self.classes]}).encode())
        elif url.path == "/version":
            self.send(handler, 200, b'{"major": "1", "minor": "37", "gitVersion": "v1.37.2"}')
        else:
            self.refuse(handler, 404, f"{url.path} not found")

    def send(self, handler, status, body):
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def refuse(self, handler, status, message):
        self.send(handler, status, json.dumps({"kind": "Status", "status": "Failure", "message": message,
                                               "code": status}).encode())

    def watch(self, handler, query):
        assert query["fieldSelector"] == [f"metadata.name={NODE}"], query
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        junk, self.junk = self.junk, b""
        if junk:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(junk), junk))
        server, end, seen, there = self.server, time.monotonic() + float(query["timeoutSeconds"][0]), None, False
        while self.server is server and time.monotonic() < end:
            with self.changed:
                if seen == self.version:
                    self.changed.wait(1)
                    continue
                seen, node = self.version, copy.deepcopy(self.node)
            if node is None and not there:
                continue
            kind = "DELETED" if node is None else "MODIFIED" if there else "ADDED"
            there = node is not None
            line = json.dumps({"type": kind, "object": node or {"metadata": {"name": NODE}}}).encode() + b"\n"
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        handler.close_connection = True

    def patch(self, handler, user, status, patch, dry):
        with self.changed:
            node = copy.deepcopy(self.node)
            if node is None:
                self.refuse(handler, 404, f'nodes "{NODE}" not found')
                return
            wanted = patch.get("metadata", {}).pop("resourceVersion", None)
            if wanted is not None and wanted != node["metadata"]["resourceVersion"]:
                self.refuse(handler, 409, "the object has been modified")
                return
            if "taints" in patch.get("spec", {}) and user.startswith("system:node:"):
                self.refuse(handler, 403, f'node "{NODE}" is not allowed to modify taints')
                return
            merge(node, {k: v for k, v in patch.items() if k == "metadata" or k == ("status" if status else "spec")})
            if status and self.policy:
                for key, value in (node["metadata"].get("annotations") or {}).items():
                    if key.startswith("interlink.eu/capacity-"):
                        node["status"]["capacity"][key[22:].replace("_", "/", 1)] = value
            if not dry:
                self.update_node(node)
            self.send(handler, 200, json.dumps(node).encode())


def merge(into, patch):
    """RFC 7396."""
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        else:
            into[key] = value
