# SPDX-License-Identifier: Apache-2.0
"""Runs the plugin (and the stand-in API server in front of it) and talks to it. The program is $INTERLINK_CRI_BINARY, or the one in
the repository's top folder."""
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

TOP = Path(__file__).resolve().parents[3]
PROGRAM = os.environ.get("INTERLINK_CRI_BINARY") or str(TOP / "interlink-cri")
API_SERVER = TOP / "test" / "fixtures" / "interlink" / "api_server.py"

# What plays the agent: says what it got, ends with 3 on TERM.
AGENT = """#!/bin/sh
echo "agent $* in $INTERLINK_JOB_DIR"
trap 'echo got TERM; exit 3' TERM
while :; do sleep 0.05; done
"""


class UnixHTTP(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def wait_for(condition, seconds=10.0, what="condition"):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {what}")


def script(folder, text=AGENT, name="agent.sh"):
    path = Path(folder) / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def pod(uid=None, command=("interlink-cri", "agent"), annotation="agent", **spec):
    uid = uid or str(uuid.uuid4())
    return {"metadata": {"name": "p-" + uid[:8], "namespace": "default", "uid": uid,
                         "annotations": {"interlink.eu/job": annotation} if annotation else {}},
            "spec": {"containers": [{"name": "agent", "image": "none", "command": list(command), **spec.pop("container", {})}],
                     **spec},
            "status": {"phase": "Pending"}}


def create_body(the_pod, configmaps=(), secrets=(), projected=()):
    return {"pod": the_pod, "configmaps": list(configmaps), "secrets": list(secrets), "projectedvolumesmaps": list(projected),
            "jobscriptURL": ""}


class Rest:
    """One side of the REST contract, at a unix socket: raw requests, and the usual ones."""

    def __init__(self, socket_path):
        self.socket = str(socket_path)

    def raw(self, method, path, body=b"", timeout=30.0, headers=None):
        connection = UnixHTTP(self.socket, timeout)
        with contextlib.closing(connection):
            connection.request(method, path, body if isinstance(body, (bytes, str)) else json.dumps(body), headers or {})
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")

    def create(self, the_pod, **objects):
        return self.raw("POST", "/create", create_body(the_pod, **objects))

    def created(self, the_pod, **objects):
        status, text = self.create(the_pod, **objects)
        assert status == 200, (status, text)
        answer = json.loads(text)
        assert answer["PodUID"] == the_pod["metadata"]["uid"]
        return answer["PodJID"]

    def states(self, *pods):
        """{uid: state of the first container}; what is unknown is {}."""
        status, text = self.raw("GET", "/status", [{**p, "status": {"phase": "Running"}} for p in pods])
        assert status == 200, (status, text)
        return {s["UID"]: s["containers"][0]["state"] for s in json.loads(text)}

    def state(self, the_pod):
        return self.states(the_pod)[the_pod["metadata"]["uid"]]

    def delete(self, the_pod, grace=None, timeout=60.0):
        body = json.loads(json.dumps(the_pod))
        if grace is not None:
            body["metadata"]["deletionGracePeriodSeconds"] = grace
        return self.raw("DELETE", "/delete", body, timeout=timeout)

    def logs(self, the_pod, container="agent", **opts):
        return self.raw("GET", "/getLogs", self.log_request(the_pod, container, **opts))

    @staticmethod
    def log_request(the_pod, container="agent", **opts):
        return {"Namespace": "default", "PodUID": the_pod["metadata"]["uid"], "PodName": the_pod["metadata"]["name"],
                "ContainerName": container,
                "Opts": {"Tail": 0, "Bytes": 0, "Timestamps": False, "Follow": False, "Previous": False, "SinceSeconds": 0,
                         "SinceTime": "0001-01-01T00:00:00Z", **opts}}


class Plugin(Rest):
    def __init__(self, folder, program, *options):
        self.dir = Path(folder) / "plugin"
        super().__init__(self.dir / "plugin.sock")
        self.command = [PROGRAM, "plugin", "--dir", str(self.dir), "--log-level", "debug", "--program", program, *options]
        self.log = open(Path(folder) / "plugin.log", "ab")
        self.process = None

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        wait_for(self.answers, what="the plugin's first answer")
        return self

    def answers(self):
        assert self.process.poll() is None, Path(self.log.name).read_text()
        try:
            return self.raw("POST", "/pinglink")[0] == 200
        except OSError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Asks it to end; its exit status."""
        self.process.terminate()
        return self.process.wait(timeout=10)

    def job_dir(self, the_pod):
        return self.dir / "jobs" / the_pod["metadata"]["uid"]

    def pid(self, the_pod):
        return int((self.dir / "records" / (the_pod["metadata"]["uid"] + ".pid")).read_text().split()[0])

    def close(self):
        """Nothing may be left of it, whatever the test did."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for record in (self.dir / "records").glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(record.read_text().split()[0]), signal.SIGKILL)
        self.log.close()


class ApiServer(Rest):
    def __init__(self, folder, *options):
        super().__init__(Path(folder) / "api.sock")
        self.command = [sys.executable, str(API_SERVER), "--listen", f"unix://{self.socket}", *options]
        self.process = None

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE)
        assert b"listening" in self.process.stdout.readline()
        return self

    def faults(self, **faults):
        assert self.raw("POST", "/_faults", faults)[0] == 200

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


def alive(pid):
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
