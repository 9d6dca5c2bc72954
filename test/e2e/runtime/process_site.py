# SPDX-License-Identifier: Apache-2.0
"""A plugin that runs a pod's container as the stock Slurm plugin's batch script does, but as a plain process on this machine, without
its image: the script's own words in job.out, both streams in run-NAME.out, bash's `time` at the end, an exit code in a file."""
import base64
import contextlib
import datetime
import http.server
import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def stamp(when):
    return when.isoformat().replace("+00:00", "Z")


class Job:
    def __init__(self, folder, request, environment):
        self.request = request
        self.pod = request["pod"]
        self.container = self.pod["spec"]["containers"][0]
        self.name = self.container["name"]
        self.dir = folder
        self.dir.mkdir(parents=True)
        self.out = self.dir / f"run-{self.name}.out"
        self.code = None
        self.started, self.finished = now(), None
        self.deleted = False
        meta = self.pod["metadata"]
        self.say(f"This pod {meta['name']}/{meta['uid']} has been submitted to SLURM node n1.",
                 "To get more info, please run: scontrol show job 12.")
        places = self.place_mounts()

        def there(text):
            for path in sorted(places, key=len, reverse=True):
                text = text.replace(path, places[path])
            return text

        command = [there(word) for word in self.container["command"] + self.container.get("args", [])]
        env = {"PATH": os.environ["PATH"], **environment, **{e["name"]: there(e["value"]) for e in self.container.get("env") or []}}
        with self.out.open("ab") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                            stdout=out, stderr=subprocess.STDOUT, env=env, cwd=self.dir, start_new_session=True)
        self.say(f"{self.date()} Running in background {self.name} pid {self.process.pid}...",
                 f"{self.date()} Waiting for container {self.name} pid {self.process.pid}...")
        threading.Thread(target=self.wait, daemon=True).start()

    def place_mounts(self):
        """Nothing is mounted: where each mount's files are instead."""
        places = {}
        volumes = {v["name"]: v for v in self.pod["spec"].get("volumes") or []}
        for mount in self.container.get("volumeMounts") or []:
            volume = volumes[mount["name"]]
            if "hostPath" in volume:
                places[mount["mountPath"]] = volume["hostPath"]["path"]
            elif "secret" in volume:
                folder = self.dir / "secrets" / mount["name"]
                folder.mkdir(parents=True)
                secret = next(s for s in self.request["container"][0]["secrets"] if s["metadata"]["name"] == mount["name"])
                for name, data in secret["data"].items():
                    (folder / name).write_bytes(base64.b64decode(data))
                    (folder / name).chmod(volume["secret"]["defaultMode"])
                places[mount["mountPath"]] = str(folder)
        return places

    @staticmethod
    def date():
        return now().replace(microsecond=0).isoformat()

    def say(self, *lines):
        with (self.dir / "job.out").open("a") as out:
            out.write("".join(line + "\n" for line in lines))

    def wait(self):
        code = self.process.wait()
        with contextlib.suppress(OSError):  # the job's folder may have been deleted
            with self.out.open("a") as out:
                out.write("\nreal\t0m1.005s\nuser\t0m0.002s\nsys\t0m0.001s\n")
            self.say(f"{self.date()} Container {self.name} pid {self.process.pid} ended with status {code}.",
                     f"{self.date()} End of script, highest exit code {code}...")
        self.finished = now()
        self.code = code if code >= 0 else 128 - code

    def state(self):
        if self.code is None:
            return {"running": {"startedAt": stamp(self.started)}}
        return {"terminated": {"exitCode": self.code, "startedAt": stamp(self.started), "finishedAt": stamp(self.finished)}}

    def kill(self):
        self.deleted = True
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, number)
            if number == signal.SIGTERM:
                end = time.monotonic() + 1
                while self.code is None and time.monotonic() < end:
                    time.sleep(0.01)

    def log(self):
        return (self.dir / "job.out").read_bytes(), self.out.read_bytes()


class ProcessSite:
    """`environment`: of every job, beside the container's own."""

    def __init__(self, folder, environment=None):
        self.dir = pathlib.Path(folder)
        self.environment = environment or {}
        self.jobs = {}       # uid -> Job
        self.creates = []    # request bodies, in order
        self.follow_pause = 0.05
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do(self):
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
                path = self.path.split("?")[0]
                if path == "/getLogs":
                    self.stream(body)
                    return
                status, text = getattr(site, path.strip("/"))(body)
                data = text.encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def piece(self, data):
                if data:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                    self.wfile.flush()

            def stream(self, request):
                job = site.jobs.get(request["PodUID"])
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                with contextlib.suppress(OSError):
                    if job is not None:
                        script, text = job.log()
                        self.piece(script + text)
                        self.follow(job, len(text), request["Opts"]["Follow"])
                    self.wfile.write(b"0\r\n\r\n")

            def follow(self, job, at, follow):
                while follow and not job.deleted:
                    ended = job.code is not None
                    text = job.log()[1]
                    self.piece(text[at:])
                    at = len(text)
                    if ended:
                        return
                    time.sleep(site.follow_pause)

            do_GET = do_POST = do_DELETE = do

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def create(self, request):
        self.creates.append(request)
        meta = request["pod"]["metadata"]
        assert meta["uid"] not in self.jobs, "two jobs of one uid"
        self.jobs[meta["uid"]] = Job(self.dir / f"{meta['namespace']}-{meta['uid']}", request, self.environment)
        return 200, json.dumps({"PodUID": meta["uid"], "PodJID": str(11 + len(self.creates))})

    def status(self, pods):
        if not pods:
            return 200, json.dumps({"status": "ok"})
        answer = []
        for pod in pods:
            job = self.jobs.get(pod["metadata"]["uid"])
            answer.append({"name": pod["metadata"]["name"], "UID": pod["metadata"]["uid"], "namespace": pod["metadata"]["namespace"],
                           "JID": "", "initContainers": None,
                           "containers": [{"name": c["name"], "state": job.state() if job else {}} for c in pod["spec"]["containers"]]})
        return 200, json.dumps(answer)

    def delete(self, pod):
        job = self.jobs.pop(pod["metadata"]["uid"], None)
        if job is None:
            return 500, ""  # it panics
        job.kill()
        shutil.rmtree(job.dir)
        return 200, "deleted"

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        for job in self.jobs.values():
            job.kill()
