# SPDX-License-Identifier: Apache-2.0
"""The client's end of our channels against Kubernetes' own servers: goclient/server_test.go."""
import os
import pathlib
import shutil
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE.parents[2] / "build" / "e2e" / "streaming"


def test_our_client():
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    subprocess.run([HERE / "build.sh", OUT], check=True)
    program = OUT / "goclient.test"
    subprocess.run(["go", "test", "-c", "-o", program, "."], cwd=HERE / "goclient", check=True,
                   env={**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false", "CGO_ENABLED": "0"})
    done = subprocess.run([program, "-test.run=^TestOurClient$", "-test.v", "-test.timeout=100s"], capture_output=True, text=True,
                          timeout=120, env={**os.environ, "CHANNEL_MAIN": str(OUT / "channel_main")})
    assert done.returncode == 0 and done.stdout.count("--- PASS") == 5, done.stdout + done.stderr
