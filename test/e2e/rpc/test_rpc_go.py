# SPDX-License-Identifier: Apache-2.0
"""The gRPC layer against grpc-go, which kubelet uses: the tests of goclient/, each on a server of its own."""
import os
import pathlib
import re
import subprocess

import pytest

SOURCE = pathlib.Path(__file__).resolve().parent / "goclient" / "client_test.go"
NAMES = [n for n in re.findall(r"^func (Test\w+)\(t ", SOURCE.read_text(), re.MULTILINE)]


@pytest.mark.parametrize("name", NAMES)
def test_go(go_tests, echo, built, name):
    done = subprocess.run([go_tests, f"-test.run=^{name}$", "-test.v", "-test.timeout=100s"], capture_output=True, text=True,
                          timeout=120, env={**os.environ, "ECHO_SOCKET": echo.socket,
                                            "ECHO_DESCRIPTORS": str(built / "descriptors.bin")})
    assert done.returncode == 0 and f"--- PASS: {name}" in done.stdout, done.stdout + done.stderr
