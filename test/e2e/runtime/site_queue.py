# SPDX-License-Identifier: Apache-2.0
"""An interLink API behind which every job waits in the queue, or which answers nothing but errors."""
import http.server
import json
import threading


class Site:
    def __init__(self, reason="Priority"):
        self.reason = reason
        self.broken = False
        self.state = None  # of all jobs; None: they wait
        self.pods = {}
        self.ping = {"status": "ok", "resources": {"cpu": "4", "memory": "1Gi", "pods": "10"}}
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, answer = site.answer(self.path.split("?")[0], body)
                answer = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_DELETE = do

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def answer(self, path, body):
        if self.broken:
            return 500, "the site is out of order"
        if path == "/create":
            pod = json.loads(body)["pod"]
            self.pods[pod["metadata"]["uid"]] = pod
            return 200, {"PodUID": pod["metadata"]["uid"], "PodJID": "4711"}
        if path == "/status":
            return 200, [{"name": p["metadata"]["name"], "UID": uid, "namespace": p["metadata"]["namespace"], "JID": "4711",
                          "containers": [{"name": "agent", "state": self.state or {"waiting": {"reason": self.reason}}}],
                          "initContainers": None} for uid, p in self.pods.items()]
        if path == "/delete":
            self.pods.pop(json.loads(body)["metadata"]["uid"], None)
            return 200, "deleted"
        return 200, self.ping

    def close(self):
        self.server.shutdown()
        self.server.server_close()
