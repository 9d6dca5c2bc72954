# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from cluster import FIXTURE, Cluster  # noqa: E402


@pytest.fixture(scope="session")
def cluster():
    if os.getuid() != 0:
        pytest.skip("a kubelet needs root")
    for program in ("openssl", "ip", "nsenter"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing")
    built = subprocess.run([str(FIXTURE / "build.sh")], stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode == 77:
        pytest.skip("Go is missing: Kubernetes cannot be built")
    assert built.returncode == 0, "Kubernetes could not be built"
    made = Cluster(built.stdout.split()[-1])
    try:
        made.up()
        yield made
    finally:
        made.down()
