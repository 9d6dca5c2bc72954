# SPDX-License-Identifier: Apache-2.0
"""What a service manager hears on a real datagram socket, by path and in the abstract namespace."""
import pathlib
import signal
import socket
import tempfile
import time

import pytest
from cri import pod_config
from serving import Serve


@pytest.fixture(params=["path", "abstract"])
def managed(request):
    root = pathlib.Path(tempfile.mkdtemp(prefix="icri-", dir="/tmp"))
    root.chmod(0o755)
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    name = f"{root}/notify" if request.param == "path" else "@" + root.name
    manager.bind(name.replace("@", "\0"))
    manager.settimeout(30)
    serve = Serve(root, env={"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"})
    yield serve, manager
    manager.close()
    serve.finish()


def hear(manager):
    """The lines of one message, and who sent it."""
    text, extra, _, _ = manager.recvmsg(4096, socket.CMSG_SPACE(12))
    return text.decode().splitlines(), int.from_bytes(extra[0][2][:4], "little")


def test_ready_alive_stopping(managed):
    serve, manager = managed
    serve.start()
    assert hear(manager) == (["READY=1"], serve.process.pid)
    heard = [hear(manager) for _ in range(4)]
    assert {pid for _, pid in heard} == {serve.process.pid}
    assert sorted(line for lines, _ in heard for line in lines)[0] == f"STATUS=Serving CRI on unix://{serve.socket}"
    assert heard.count((["WATCHDOG=1"], serve.process.pid)) == 3
    # No process of a pod speaks in our name.
    serve.client.run_pod(pod_config("child"))
    others = [p for p in serve.processes() if p != serve.process.pid]
    assert others
    started = pathlib.Path(f"/proc/{serve.process.pid}/environ").read_bytes()
    assert b"NOTIFY_SOCKET" in started  # what it was given at first; children get what it keeps
    agents = [p for p in others if b"INTERLINK_SANDBOX" in pathlib.Path(f"/proc/{p}/environ").read_bytes()]
    assert agents and not any(b"NOTIFY" in pathlib.Path(f"/proc/{p}/environ").read_bytes() for p in agents)
    # A process that hangs gives no sign of life.
    serve.process.send_signal(signal.SIGSTOP)
    time.sleep(0.1)
    manager.setblocking(False)
    while True:
        try:
            hear(manager)
        except BlockingIOError:
            break
    time.sleep(0.5)
    with pytest.raises(BlockingIOError):
        hear(manager)
    manager.settimeout(30)
    serve.process.send_signal(signal.SIGCONT)
    assert hear(manager)[0] == ["WATCHDOG=1"]
    serve.client.remove_everything()
    serve.process.send_signal(signal.SIGTERM)
    heard = []
    while serve.process.poll() is None or not heard or "STOPPING=1" not in heard[-1]:
        heard.append(hear(manager)[0])
        if "STOPPING=1" in heard[-1]:
            break
    assert heard[-1] == ["STOPPING=1", "STATUS=Stopping; pods go on"]
    assert serve.process.wait(20) == 0


def test_not_ready_when_it_cannot_serve(managed):
    serve, manager = managed
    serve.config.write_text(serve.config.read_text().replace("/cri.sock", "/no/such/folder/cri.sock"))
    with pytest.raises(AssertionError, match="did not come up"):
        serve.start()
    lines, _ = hear(manager)
    assert lines[0].startswith("STATUS=") and "no/such/folder" in lines[0] and len(lines) == 1
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        hear(manager)
