# SPDX-License-Identifier: Apache-2.0
"""The image store as a process, driven over its standard input (pull_main.c)."""
import json
import os
import queue
import subprocess
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
LIBRARIES = "-lcurl -larchive -lzstd -lnghttp2 -lbearssl -lprotobuf-c -lz -lyaml -lllhttp -lpthread -lm".split()


def build():
    """The driver's path. PULL_MAIN names one that is built already."""
    if os.environ.get("PULL_MAIN"):
        return os.environ["PULL_MAIN"]
    subprocess.run(["make", "-s", "-C", TOP, "build/san/libinterlink-cri.a"], check=True)
    out = os.path.join(TOP, "build/san/pull_main")
    subprocess.run(["gcc", "-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-fsanitize=address,undefined", "-Isrc",
                    "-isystem", "build/gen", "-isystem", "build/vendor/host/include", "-o", out,
                    os.path.join(HERE, "pull_main.c"), "build/san/libinterlink-cri.a", "-Lbuild/vendor/host/lib", *LIBRARIES],
                   check=True, cwd=TOP)
    return out


class Failed(Exception):
    def __init__(self, answer):
        super().__init__(f"{answer['code']}: {answer['error']}")
        self.code, self.message = answer["code"], answer["error"]


END = object()


class Driver:
    def __init__(self, binary, root, start=True, user=None):
        self.root = str(root)
        self.log = open(self.root.rstrip("/") + ".log", "ab")
        self.process = subprocess.Popen([binary, self.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, user=user)
        self.answers, self.others, self.next_tag = queue.Queue(), {}, 0
        threading.Thread(target=self._read, daemon=True).start()
        self._answer("open")
        if start:
            self.command("start")

    def _read(self):
        for line in self.process.stdout:
            self.answers.put(json.loads(line))
        self.answers.put(END)

    def _get(self, timeout):
        answer = self.answers.get(timeout=timeout)
        if answer is END:
            raise EOFError(f"the driver has ended; see {self.log.name}")
        return answer

    def _answer(self, tag, timeout=60):
        """The answer with that tag; None: the next one without a tag of somebody else's."""
        if tag in self.others:
            return self._check(self.others.pop(tag))
        while True:
            answer = self._get(timeout)
            if not isinstance(answer, dict) or answer.get("tag") is None or answer.get("tag") == tag:
                return self._check(answer)
            self.others[answer["tag"]] = answer

    @staticmethod
    def _check(answer):
        if isinstance(answer, dict) and "code" in answer:
            raise Failed(answer)
        return answer

    def send(self, *fields):
        self.process.stdin.write(("\t".join(fields) + "\n").encode())
        self.process.stdin.flush()

    def command(self, *fields):
        self.send(*fields)
        return self._answer(fields[0])

    def start_pull(self, reference, **settings):
        self.command("unset")
        for name, value in settings.items():
            self.command("set", name, str(value))
        self.next_tag += 1
        tag = f"t{self.next_tag}"
        self.send("pull", tag, reference)
        return tag

    def wait(self, tag, timeout=60):
        return self._answer(tag, timeout)

    def pull(self, reference, **settings):
        """The image's id."""
        return self.wait(self.start_pull(reference, **settings))["id"]

    def load(self, path, **settings):
        self.command("unset")
        for name, value in settings.items():
            self.command("set", name, str(value))
        self.next_tag += 1
        tag = f"t{self.next_tag}"
        self.send("load", tag, str(path))
        return self.wait(tag)["id"].split()

    def images(self):
        return self.command("list")

    def find(self, text):
        return self.command("find", text)

    def remove(self, text):
        self.command("remove", text)

    def files(self, folder):
        return sorted(os.listdir(os.path.join(self.root, folder)))

    def settled(self, blobs, layers, timeout=10):
        """Waits until that many blobs and layers are left and nothing is on its way in or out."""
        until = time.monotonic() + timeout
        while True:
            now = (len(self.files("blobs/sha256")), len([f for f in self.files("layers") if len(f) == 64]))
            rest = self.files("trash") + self.files("ingest") + [f for f in self.files("layers") if ".tmp" in f]
            if now == (blobs, layers) and not rest:
                return
            assert time.monotonic() < until, (now, rest)
            time.sleep(0.02)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            assert self.process.wait(20) == 0
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, *exc):
        if kind is not None:
            self.kill()
        self.close() if kind is None else self.log.close()
