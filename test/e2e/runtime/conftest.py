# SPDX-License-Identifier: Apache-2.0
import os
import tempfile

import pytest
from serving import USER, Pod, Serve, make_images


def pytest_configure(config):
    config.addinivalue_line("markers", "root_only(reason): not for an ordinary user")


@pytest.fixture(scope="session")
def images():
    return make_images()


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
