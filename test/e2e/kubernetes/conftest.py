# SPDX-License-Identifier: Apache-2.0
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from cluster import Cluster, Place, programs  # noqa: E402
from remote_site import RELAY, Site  # noqa: E402


@pytest.fixture(scope="session")
def cluster():
    """One for each worker of pytest-xdist: they differ in their network namespace."""
    made = Cluster(programs())
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture(scope="module")
def remote(cluster):
    """A site that shares one folder with the node and sees nothing of what kubelet keeps, behind the RuntimeClass "remote"."""
    before = cluster.config.read_text()
    if cluster.site is None:
        (cluster.root / "shared").mkdir()
        cluster.site = Site(cluster, "elsewhere", hide=cluster.root / "k8s")
        cluster.apply({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "remote"}, "handler": "elsewhere"})
    cluster.config.write_text(before + f"""
Relay: {{Listen: '{RELAY}'}}
DefaultHandler: local
Handlers:
  - {{Name: local, Target: local}}
  - {{Name: elsewhere, Target: '{cluster.site.url}'}}
SharedPaths: [{cluster.root}/shared, {cluster.programs}]
""")
    restart_serve(cluster)
    yield cluster.site
    cluster.clear()
    for line in cluster.ctl("pods", "-q").stdout.split():
        cluster.ctl("rmp", "-f", line)
    left = list((cluster.site.root / "jobs" / "jobs").iterdir())
    cluster.config.write_text(before)
    restart_serve(cluster)
    assert not left


def restart_serve(cluster):
    cluster.kill_serve()
    cluster.start_serve()


@pytest.fixture(params=["local", "remote"])
def place(request, cluster, remote):
    made = Place(cluster, request.param)
    yield made
    made.close()
