# SPDX-License-Identifier: Apache-2.0
import fcntl
import os
import pathlib
import subprocess
import tempfile

import pytest
from serving import TOP, USER, Pod, Serve

IMAGES = pathlib.Path(os.environ.get("INTERLINK_CRI_TEST_IMAGES") or TOP / "build" / "e2e" / "images")


def pytest_configure(config):
    config.addinivalue_line("markers", "root_only(reason): not for an ordinary user")


@pytest.fixture(scope="session")
def images():
    """An OCI layout with small real images; made once, whichever of several test processes comes first."""
    IMAGES.parent.mkdir(parents=True, exist_ok=True)
    with (IMAGES.parent / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (IMAGES / "index.json").exists():
            subprocess.run([TOP / "test" / "fixtures" / "images" / "make-images.sh", "build", IMAGES], check=True)
            subprocess.run(["chmod", "-R", "a+rX", IMAGES], check=True)
    return IMAGES


def who():
    """Both kinds of user when the tests run as root, else the one that we are."""
    return ["root", "user"] if os.getuid() == 0 else ["user"]


@pytest.fixture(scope="module", params=who())
def serve(request, images):
    """One server a module, images loaded; each test removes its own pods."""
    user = USER if request.param == "user" and os.getuid() == 0 else None
    # Short, because a unix socket's path is limited; where an ordinary user may go.
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    server = Serve(root, user=user).start()
    server.kind = request.param
    loaded = server.ctl("load", str(images))
    assert loaded.returncode == 0, loaded.stderr + server.tail()
    yield server
    server.finish()


@pytest.fixture(autouse=True)
def for_root(request):
    marker = request.node.get_closest_marker("root_only")
    if marker and "serve" in request.fixturenames and request.getfixturevalue("serve").kind != "root":
        pytest.skip(marker.args[0])


@pytest.fixture
def cri(serve):
    yield serve.client
    serve.client.remove_everything()


@pytest.fixture
def pod(serve, cri):
    """A ready pod: an object with .config, .id, .logs and .run(command...)."""
    return Pod(serve, cri, "pod")
