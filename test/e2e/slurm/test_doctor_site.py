# SPDX-License-Identifier: Apache-2.0
"""`interlink-cri doctor --site` on a login node of a real Slurm, by the plugin's own configuration and through a plugin that runs."""
import json
import os
import signal
import subprocess

import pytest
from slurm_site import NOBODY, Plugin, kit


def words(folder, user, *arguments):
    as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    return [*as_user, kit.PROGRAM, "doctor", "--site", *arguments]


def environment(site, folder):
    return {**site.env, "HOME": str(folder / "home"), "XDG_CONFIG_HOME": str(folder / "none")}


def prepare(folder, user, settings=""):
    (folder / "home").mkdir()
    (folder / "dir").mkdir(mode=0o700)
    (folder / "state").mkdir(mode=0o700)
    for name in ("home", "dir", "state"):
        os.chown(folder / name, user or 0, user or 0)
    (folder / "doctor.yaml").write_text(f"Dir: {folder}/dir\nBackend: slurm\nSlurm:\n  PollMin: 200ms\n{settings}")
    (folder / "config.yaml").write_text(f"Socket: {folder}/cri.sock\nStateDir: {folder}/state\nSharedPaths: [{folder}/home]\n"
                                        f"Handlers: [{{Name: slurm, Target: 'unix://{folder}/plugin/plugin.sock'}}]\n")
    return str(folder / "doctor.yaml"), str(folder / "config.yaml")


def look(site, folder, user, *arguments):
    done = subprocess.run(words(folder, user, *arguments, "-o", "json"), env=environment(site, folder), capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    return done.returncode, {f["what"]: (f["result"], f["found"], f["where"]) for f in report["findings"]}, report, done.stderr


def nothing_left(site, folder):
    assert not list((folder / "home").iterdir()) and not list((folder / "dir").iterdir())
    assert all(j["State"] not in ("PENDING", "RUNNING") for j in site.jobs() if j["Name"].startswith("doctor-"))


@pytest.mark.parametrize("user", [None, NOBODY], ids=["root", "user"])
def test_by_the_plugins_configuration(site, folder, user):
    plugin, config = prepare(folder, user)
    status, found, report, said = look(site, folder, user, "--plugin", plugin, "--config", config)
    assert found["Slurm"][0] == "ok" and "cluster fix" in found["Slurm"][1]
    assert found["script limit"][1] == "4096 KiB, Slurm's own"
    assert ("cgroup" in found["job limits"][1]) == site.cgroups and found["ended jobs"][0] == "ok"
    assert found["job"][0] == found["job deleted"][0] == "ok", said
    host = found["kernel"][2]
    assert {what for what, f in found.items() if f[2] == host} >= {"namespaces", "cgroups", "engine", "scratch", "clock skew", "apptainer"}
    assert report["facts"]["shared"] == [f"{folder}/home"]
    assert status == (1 if any(f[0] == "fail" for f in found.values()) else 0)
    nothing_left(site, folder)


def test_through_a_plugin(site, folder):
    _, config = prepare(folder, None)
    plugin = Plugin(site, folder, "").start()
    try:
        status, found, report, _ = look(site, folder, None, "--config", config)
        assert status == 0 and found["REST API"][0] == found["job"][0] == found[f"shared {folder}/home"][0] == "ok", report
        assert "Backend:" not in report["configuration"] and f"SharedPaths: [{folder}/home]" in report["configuration"]
        assert not list((plugin.dir / "records").iterdir())
    finally:
        plugin.stop()
        plugin.close()
    nothing_left(site, folder)


def test_interrupted_in_the_queue(site, folder):
    plugin, config = prepare(folder, None, "  Flags: --hold\n")
    process = subprocess.Popen(words(folder, None, "--plugin", plugin, "--config", config), env=environment(site, folder),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stderr.readline()
    while line and "JobHeldUser" not in line:
        line = process.stderr.readline()
    assert any(j["State"] == "PENDING" and j["Name"].startswith("doctor-") for j in site.jobs())
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted; job" in text and "JobHeldUser" in text
    nothing_left(site, folder)


def test_refused_and_unseen(site, folder):
    plugin, config = prepare(folder, None, "  Flags: --partition=nowhere\n")
    status, found, _, _ = look(site, folder, None, "--plugin", plugin, "--config", config)
    assert status == 1 and "invalid partition specified: nowhere" in found["job"][1] and "job deleted" not in found
    nothing_left(site, folder)
    # As when Dir is not on a file system that the compute nodes share.
    (folder / "doctor.yaml").write_text(f"Dir: {folder}/dir\nBackend: slurm\nProgram: /nowhere/interlink-cri\nSlurm:\n  PollMin: 200ms\n")
    status, found, _, _ = look(site, folder, None, "--plugin", plugin, "--config", config)
    assert status == 1 and "ended without a report" in found["job"][1] and "/nowhere/interlink-cri" in found["job"][1]
    nothing_left(site, folder)
