# SPDX-License-Identifier: Apache-2.0
"""The streaming server against client-go, which kubectl and the API server use: the tests of ../streaming/goclient."""
import os
import pathlib
import re
import shutil
import subprocess

import pytest
from serving import TOP, Pod

SOURCE = pathlib.Path(__file__).resolve().parents[1] / "streaming" / "goclient"
NAMES = re.findall(r"^func (Test\w+)\(t ", (SOURCE / "client_test.go").read_text(), re.MULTILINE)


@pytest.fixture(scope="session")
def go_tests():
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    program = TOP / "build" / "e2e" / "streaming" / "goclient.test"
    program.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["go", "test", "-c", "-o", program, "."], cwd=SOURCE, check=True,
                   env={**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false", "CGO_ENABLED": "0"})
    return program


@pytest.fixture(scope="module")
def box(serve):
    pod = Pod(serve, serve.client, "go-streams")
    yield pod.id, pod.run("sleep", "100000")
    serve.client.remove_everything()


@pytest.mark.parametrize("name", NAMES)
def test_go(go_tests, serve, box, name):
    pod, container = box
    done = subprocess.run([go_tests, f"-test.run=^{name}$", "-test.v", "-test.timeout=150s"], capture_output=True, text=True,
                          timeout=180, env={**os.environ, "CRI_SOCKET": str(serve.socket), "CRI_POD": pod,
                                            "CRI_CONTAINER": container})
    assert done.returncode == 0 and f"--- PASS: {name}" in done.stdout, done.stdout + done.stderr + serve.tail()
