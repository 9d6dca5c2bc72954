# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import slurm_site  # noqa: E402
from slurm_site import NOBODY, Plugin, Site, kit  # noqa: E402


@pytest.fixture(scope="session")
def site():
    if os.getuid() != 0 or shutil.which("slurmctld", path=os.environ["PATH"] + ":/usr/sbin") is None:
        pytest.skip("a real Slurm needs root, and: apt-get install --no-install-recommends slurm-wlm munge")
    root = pathlib.Path(tempfile.mkdtemp(prefix="icri-slurm-", dir="/tmp"))
    root.chmod(0o755)
    made = Site(root)
    try:
        yield made.up()
    finally:
        made.down()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def folder():
    """Directly below /tmp: a unix socket's path is short. Seen by all nodes of this site under the same name."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="icri-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def plugins(site, folder):
    """plugins(agent_script, settings=..., user=...) starts a plugin; at the end its jobs are gone from Slurm, too."""
    started = []

    def start(text=kit.AGENT, **more):
        program = kit.script(folder, text)
        started.append(Plugin(site, folder, program, **more))
        return started[-1].start()

    yield start
    for plugin in started:
        plugin.close()
    for job in site.jobs():
        if job["State"] in ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING"):
            site.run("scancel", "--full", "--signal=KILL", job["JobID"], check=False)
            site.run("scancel", job["JobID"], check=False)
    slurm_site.until(lambda: all(j["State"] not in ("RUNNING", "COMPLETING", "CONFIGURING", "PENDING") for j in site.jobs()), 60,
                     "the queue to be empty")


@pytest.fixture
def plugin(plugins):
    return plugins()


@pytest.fixture(params=["root", "user"])
def anybody(request, plugins):
    """The plugin, as root and as an ordinary user."""
    return plugins(user=NOBODY if request.param == "user" else None)
