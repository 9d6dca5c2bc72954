# SPDX-License-Identifier: Apache-2.0
"""What kubelet keeps on a node's disk for its pods, and two mount namespaces: the node's, which sees it, and that of the machine
where jobs run, which does not."""
import contextlib
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import threading
import time

from cri import pb
from serving import Serve


class Kubelet:
    """Folders as kubelet has them below its root; `owner` reads them, as serve does."""

    def __init__(self, root, owner=None):
        self.root = pathlib.Path(root)
        self.owner = owner
        self.root.mkdir()

    def pod(self, uid):
        return self.root / "pods" / uid

    def own(self):
        if self.owner is not None:
            subprocess.run(["chown", "-hR", f"{self.owner}:{self.owner}", str(self.root)], check=True)

    def projected(self, uid, kind, name, files, group=None):
        """Writes or rewrites a volume as kubelet's AtomicWriter does. files: path -> bytes, or (bytes, mode)."""
        volume = self.pod(uid) / "volumes" / f"kubernetes.io~{kind}" / name
        if not volume.exists():
            volume.mkdir(parents=True)
            volume.chmod(0o777)
        data = volume / time.strftime(f"..%Y_%m_%d_%H_%M_%S.{random.randrange(10**9)}", time.gmtime())
        data.mkdir()
        data.chmod(0o755)
        for path, content in files.items():
            content, mode = content if isinstance(content, tuple) else (content, 0o644)
            (data / path).parent.mkdir(parents=True, exist_ok=True)
            (data / path).write_bytes(content)
            (data / path).chmod(mode)
            if group is not None and self.owner is None:
                os.chown(data / path, 0, group)
        if self.owner is not None:
            subprocess.run(["chown", "-hR", f"{self.owner}:{self.owner}", str(data)], check=True)
        old = (volume / "..data").resolve() if (volume / "..data").exists() else None
        (volume / "..data_tmp").symlink_to(data.name)
        (volume / "..data_tmp").rename(volume / "..data")
        names = {path.split("/")[0] for path in files}
        for name in names:
            if not (volume / name).is_symlink():
                (volume / name).symlink_to(f"..data/{name}")
        for link in volume.iterdir():
            if link.is_symlink() and link.name != "..data" and link.name not in names:
                link.unlink()
        if old is not None:
            shutil.rmtree(old)
        return volume

    def empty_dir(self, uid, name, mode=0o777, group=None):
        volume = self.pod(uid) / "volumes" / "kubernetes.io~empty-dir" / name
        volume.mkdir(parents=True, exist_ok=True)
        if group is not None and self.owner is None:
            os.chown(volume, 0, group)
        volume.chmod(mode)
        return volume

    def hosts(self, uid, text):
        path = self.pod(uid) / "etc-hosts"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def termination_log(self, uid, container):
        path = self.pod(uid) / "containers" / container / f"{random.randrange(1 << 32):08x}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        path.chmod(0o666)
        return path


class Node(Serve):
    """serve in a mount namespace of its own, in which tests may mount what kubelet would."""

    def __init__(self, *arguments, own_user_namespace=False, **more):
        super().__init__(*arguments, **more)
        self.flags = ["-U", "-r", "-m"] if own_user_namespace else ["-m"]
        self.holder = subprocess.Popen(["unshare", *self.flags, "--propagation", "private", "sleep", "1000000"],
                                       stdin=subprocess.DEVNULL, start_new_session=True)
        wait(lambda: pathlib.Path(f"/proc/{self.holder.pid}/comm").read_text() == "sleep\n", 10)

    def inside(self):
        return ["nsenter", *[f for f in self.flags if f != "-r"], "-t", str(self.holder.pid)]

    def command(self, *arguments):
        return (self.inside() if arguments[0] == "serve" else []) + super().command(*arguments)

    def mount(self, *arguments):
        subprocess.run([*self.inside(), "mount", *(str(a) for a in arguments)], check=True)

    def umount(self, path):
        subprocess.run([*self.inside(), "umount", str(path)], check=True)

    def finish(self):
        super().finish()
        self.holder.kill()
        self.holder.wait()

    def watches(self):
        """How many folders the kernel watches for serve."""
        count = 0
        for info in pathlib.Path(f"/proc/{self.process.pid}/fdinfo").iterdir():
            count += info.read_text().count("inotify wd:")
        return count


class Elsewhere:
    """A plugin on a machine that has nothing of the kubelet's."""

    def __init__(self, serve, hidden):
        self.serve = serve
        self.hidden = str(hidden)
        self.process = None

    def start(self):
        command = self.serve.command("plugin", "--dir", str(self.serve.root / "remote"), "--listen",
                                     f"unix://{self.serve.root}/remote.sock")
        hide = 'mount -t tmpfs none "$0" && exec "$@"'
        with (self.serve.root / "plugin.log").open("ab") as log:
            self.process = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c", hide, self.hidden, *command],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.serve.env,
                                            start_new_session=True)
        wait(lambda: (self.serve.root / "remote.sock").exists() or self.process.poll() is not None, 20)
        assert self.process.poll() is None, (self.serve.root / "plugin.log").read_text()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0


class Wire:
    """What agents dial instead of the relay: connections that pass through here can be cut."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.relay = None  # its port
        self.up = True
        self.open = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near = self.listener.accept()[0]
                if not self.up:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.relay))
            except OSError:
                if self.listener.fileno() < 0:
                    return
                near.close()
                continue
            self.open += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=(a, b), daemon=True).start()

    @staticmethod
    def carry(a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def cut(self):
        self.up = False
        for s in self.open:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()
        self.open = []

    def mend(self):
        self.up = True


def mount(path, where, readonly=False, **more):
    return pb.Mount(host_path=str(path), container_path=where, readonly=readonly, **more)


def wait(condition, seconds, message="it did not become so in time"):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, message() if callable(message) else message
        time.sleep(0.05)
    return found
