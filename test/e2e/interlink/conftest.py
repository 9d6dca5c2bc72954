# SPDX-License-Identifier: Apache-2.0
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import kit  # noqa: E402


@pytest.fixture
def tmp_path():
    """Directly below /tmp: a unix socket's path is short."""
    path = Path(tempfile.mkdtemp(prefix="icri-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def plugins(tmp_path):
    """plugins(agent_script=kit.AGENT, *options) starts a plugin; all are ended with the test."""
    started = []

    def start(text=kit.AGENT, *options):
        program = kit.script(tmp_path, text)
        started.append(kit.Plugin(tmp_path, program, *options))
        return started[-1].start()

    yield start
    for plugin in started:
        plugin.close()


@pytest.fixture
def plugin(plugins):
    return plugins()


@pytest.fixture
def api(tmp_path, plugin):
    """The stand-in API server in front of the plugin."""
    server = kit.ApiServer(tmp_path, "--plugin", f"unix://{plugin.socket}").start()
    yield server
    server.close()
