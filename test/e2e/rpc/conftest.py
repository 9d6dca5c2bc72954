# SPDX-License-Identifier: Apache-2.0
"""The echo server of this folder, built once and started afresh for each test that asks for `echo`."""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # for the package cri
OUT = HERE.parents[2] / "build" / "e2e" / "rpc"


class Echo:
    """A running echo_server."""

    def __init__(self, folder):
        self.socket = os.path.join(folder, "echo.sock")
        self.log = open(os.path.join(folder, "log"), "w+b")
        # The address sanitizer keeps freed memory for a while, by default far more than what is tested here.
        options = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1"
        self.process = subprocess.Popen([OUT / "echo_server", self.socket, "tcp"], stdout=subprocess.PIPE, stderr=self.log,
                                        env={**os.environ, "ASAN_OPTIONS": options})
        word, port = self.process.stdout.readline().split()
        assert word == b"ready"
        self.port = int(port)

    def text(self):
        self.log.seek(0)
        return self.log.read().decode()

    def rss_kib(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        return 0

    def stop(self, seconds=20):
        """Drains; the sanitizers' word is in the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


@pytest.fixture(scope="session")
def built():
    subprocess.run([HERE / "build.sh", OUT], check=True)
    if str(OUT / "py") not in sys.path:
        sys.path.insert(0, str(OUT / "py"))
    return OUT


@pytest.fixture
def echo(built):
    folder = tempfile.mkdtemp(prefix="icri-rpc-", dir="/tmp")
    server = Echo(folder)
    yield server
    status = server.stop()
    text = server.text()
    server.log.close()
    shutil.rmtree(folder)
    assert status == 0, text


@pytest.fixture(scope="session")
def go_tests(built):
    """The compiled tests of goclient/."""
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    program = OUT / "goclient.test"
    subprocess.run(["go", "test", "-c", "-o", program, "."], cwd=HERE / "goclient", check=True,
                   env={**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false", "CGO_ENABLED": "0"})
    return program
