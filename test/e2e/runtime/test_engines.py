# SPDX-License-Identifier: Apache-2.0
"""What an agent takes where namespaces are switched off, and what it says of it."""
import json
import os
import shutil
import subprocess

import pytest
from cri import pb
from serving import BINARY, Pod

# In a user namespace of its own nobody else notices the limit. Without capabilities root is as anybody.
OFF = """
echo 0 > /proc/sys/user/max_user_namespaces || exit 77
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""


def features(tmp_path, **settings):
    env = {"PATH": str(tmp_path), **{f"INTERLINK_{k.upper()}": v for k, v in settings.items()}}
    words = [f"{k}={v}" for k, v in env.items()]
    done = subprocess.run(["unshare", "-U", "-r", "-m", "sh", "-c", OFF, "sh", shutil.which("env"), "-i", *words, str(BINARY), "agent", "features"],
                          capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0 and not done.stdout:
        pytest.skip(f"user namespaces cannot be made and limited here: {done.stderr.strip()}")
    return json.loads(done.stdout)


def program(tmp_path, libexec):
    text = f"#!/bin/sh\ncase $1 in --version) echo apptainer version 9.9.9;; buildcfg) echo LIBEXECDIR={libexec};; esac\n"
    (tmp_path / "apptainer").write_text(text)
    (tmp_path / "apptainer").chmod(0o755)


def test_nothing_works(tmp_path):
    said = features(tmp_path)
    assert said["engine"] == "none"
    for part in ("not crun: namespaces: ", "a limit in /proc/sys/user/ is 0", "not apptainer: there is neither", "not host: the configuration"):
        assert part in said["engineReason"]


def test_an_apptainer_that_needs_what_is_off(tmp_path):
    program(tmp_path, tmp_path / "nothing")
    said = features(tmp_path)
    assert said["engine"] == "none"
    assert "not apptainer: " in said["engineReason"] and "has no setuid starter, and user namespaces are off in this job" in said["engineReason"]
    said = features(tmp_path, engine="apptainer")
    assert said["engine"] == "none" and "has no setuid starter" in said["engineReason"]


def test_a_setuid_apptainer(tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root makes a setuid program of root's")
    starter = tmp_path / "libexec" / "apptainer" / "bin" / "starter-suid"
    starter.parent.mkdir(parents=True)
    starter.touch()
    starter.chmod(0o4755)
    program(tmp_path, tmp_path / "libexec")
    said = features(tmp_path)
    assert said["engine"] == "apptainer"
    assert said["engineReason"].startswith(f"apptainer version 9.9.9 at {tmp_path}/apptainer, setuid; not crun: namespaces: ")


def test_the_host_engine_only_when_it_is_named(tmp_path):
    assert features(tmp_path, engine="host")["engine"] == "host"


def test_the_pods_status_names_it(serve, cri):
    pod = Pod(serve, cri, "engine")
    info = cri.runtime.PodSandboxStatus(pb.PodSandboxStatusRequest(pod_sandbox_id=pod.id, verbose=True)).info["info"]
    assert json.loads(info)["engine"] == "crun" and "namespaces" in json.loads(info)["engineReason"]
