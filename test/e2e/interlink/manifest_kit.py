# SPDX-License-Identifier: Apache-2.0
"""Pods that are nobody's but their own: run from a manifest by the plugin's own program."""
import json
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path

import kit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from images.build import Image  # noqa: E402

BUSYBOX = "/bin/busybox"  # Debian's busybox-static


def program(name, data, mode=0o755):
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), mode, 1000000000
    return info


def busybox_image(**config):
    """An image with busybox and its applets as links."""
    import io

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as t:
        for folder in ("bin", "etc", "tmp", "proc", "sys", "dev"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            t.addfile(info)
        data = Path(BUSYBOX).read_bytes()
        t.addfile(program("bin/busybox", data), io.BytesIO(data))
        for applet in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
            info = tarfile.TarInfo("bin/" + applet)
            info.type, info.linkname = tarfile.LNKTYPE, "bin/busybox"
            if applet != "busybox":
                t.addfile(info)
        passwd = b"root:x:0:0:root:/:/bin/sh\n"
        t.addfile(program("etc/passwd", passwd, 0o644), io.BytesIO(passwd))
    return Image([out.getvalue()], **{"Cmd": ["/bin/sh"], "Env": ["PATH=/bin", "FROM_IMAGE=yes"], **config})


def container(name, script, image, **more):
    return {"name": name, "image": image, "command": ["/bin/sh", "-c", script], "imagePullPolicy": "IfNotPresent", **more}


def pod(containers, restart="Never", inits=(), uid=None, annotations=None, **spec):
    uid = uid or str(uuid.uuid4())
    return {"metadata": {"name": "m-" + uid[:8], "namespace": "default", "uid": uid, "annotations": annotations or {},
                         "labels": {"app": "test"}},
            "spec": {"containers": list(containers), "initContainers": list(inits), "restartPolicy": restart, **spec},
            "status": {"phase": "Pending"}}


def statuses(rest, the_pod):
    """{name: v1.ContainerStatus}"""
    status, text = rest.raw("GET", "/status", [{**the_pod, "status": {"phase": "Running"}}])
    assert status == 200, (status, text)
    answer = json.loads(text)[0]
    return {c["name"]: c for c in answer["containers"] + (answer["initContainers"] or [])}


def wait_status(rest, the_pod, condition, seconds=30, what="status"):
    """Until condition({name: status}); those."""
    last = {}

    def look():
        last["seen"] = statuses(rest, the_pod)
        return last["seen"] if condition(last["seen"]) else None

    try:
        return kit.wait_for(look, seconds, what)
    except AssertionError:
        folder = rest.dir / "jobs" / the_pod["metadata"]["uid"] if hasattr(rest, "dir") else None
        log = (folder / "agent.log").read_text() if folder is not None and (folder / "agent.log").exists() else ""
        raise AssertionError(f"{what}: {json.dumps(last['seen'], indent=1)}\n{log}") from None


def ended(*names):
    return lambda s: all("terminated" in s[n]["state"] for n in (names or s))


def running(*names):
    return lambda s: all("running" in s[n]["state"] for n in (names or s))
