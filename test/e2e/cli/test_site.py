# SPDX-License-Identifier: Apache-2.0
"""`interlink-cri doctor --site` behind our own plugin, as a handler and by the plugin's configuration; hostile reports; Ctrl-C."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "interlink"))
import kit  # noqa: E402


@pytest.fixture
def root():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="icri-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "shared").mkdir()
    (folder / "home").mkdir()
    (folder / "state").mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder)


def command(root, *arguments, more=""):
    (root / "config.yaml").write_text(f"Socket: {root}/cri.sock\nStateDir: {root}/state\nImages: {{Dir: {root}/images}}\nHandlers:\n"
                                      f"- {{Name: there, Target: 'unix://{root}/plugin/plugin.sock', SharedPaths: [{root}/shared]}}\n{more}")
    return [kit.PROGRAM, "doctor", "--site", "--config", str(root / "config.yaml"), *arguments]


def environment(root):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("INTERLINK_CRI_") and not k.lower().endswith("_proxy")}
    return {**kept, "HOME": str(root / "home")}


def site(root, *arguments, more=""):
    """(exit status, what it printed, what it said meanwhile)"""
    done = subprocess.run(command(root, *arguments, more=more), env=environment(root), capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def plugin_file(root, program=""):
    (root / "plugin.yaml").write_text(f"Dir: {root}/own\n" + (f"Program: {kit.script(root, program)}\n" if program else ""))
    return "--plugin", str(root / "plugin.yaml")


def found(report):
    """{what: (result, what was found, how to mend it)} of the compute node and of this one; the worse one counts."""
    order = ["ok", "warn", "fail"]
    things = {}
    for f in report["findings"]:
        if f["what"] not in things or order.index(f["result"]) > order.index(things[f["what"]][0]):
            things[f["what"]] = (f["result"], f["found"], f["mend"])
    return things


def nothing_left(root):
    assert not list((root / "shared").iterdir()) and not list((root / "home").iterdir())
    for name in ("own", "plugin/jobs", "plugin/records"):
        assert not (root / name).exists() or not list((root / name).iterdir()), name


def test_a_site_behind_a_handler(root):
    plugin = kit.Plugin(root, kit.PROGRAM)
    plugin.start()
    try:
        status, text, said = site(root, "-o", "json", more="Relay: {Listen: '127.0.0.1:0', Advertise: '127.0.0.1:1'}\n"
                                                           f"SharedPaths: [{root}/nowhere]\n")
    finally:
        plugin.close()
    report = json.loads(text)
    things = found(report)
    assert status == 1 and "is submitted" in said
    assert things["REST API"][0] == things["job"][0] == things["job deleted"][0] == "ok"
    assert {"kernel", "namespaces", "user ids", "overlayfs", "cgroups", "seccomp", "apptainer", "engine", "scratch", "proxy"} < set(things)
    assert things["relay direct"][0] == "fail" and "Connection refused" in things["relay direct"][1] and "https_proxy" in things["relay direct"][2]
    assert things["clock skew"][0] == "ok" and things["relay"][0] == "ok"
    assert things[f"shared {root}/shared"][0] == "ok" and report["facts"]["shared"] == [f"{root}/shared", f"{root}/home"]
    for line in (f"Target: unix://{root}/plugin/plugin.sock", f"SharedPaths: [{root}/shared, {root}/home]", "Advertise: 127.0.0.1:1"):
        assert line in report["configuration"], report["configuration"]
    nothing_left(root)


def test_the_way_into_the_job(root):
    """Dial, to the same machine here; and one that leads nowhere."""
    plugin = kit.Plugin(root, kit.PROGRAM)
    plugin.start()
    try:
        for dial, result, words in ((f"[{kit.PROGRAM}, join, '{{pod}}']", "ok", "leads to `interlink-cri join`"),
                                    ("[sh, -c, 'echo no route to {jid} >&2; exit 255']", "fail", "sh ended: no route to local-"),
                                    (f"[{root}/none]", "fail", "No such file"), ("[ssh, '{node}']", "fail", "has not said yet what {node} is")):
            command(root)
            config = (root / "config.yaml").read_text().replace("SharedPaths:", f"Dial: {dial}, SharedPaths:")
            words_of = command(root, "-o", "json")
            (root / "config.yaml").write_text(config)
            done = subprocess.run(words_of, env=environment(root), capture_output=True, text=True, timeout=120, check=False)
            things = found(json.loads(done.stdout))
            assert things["dial"][0] == result and words in things["dial"][1], things["dial"]
            assert things["job"][0] == things["job deleted"][0] == "ok"
    finally:
        plugin.close()
    nothing_left(root)


def test_a_site_by_its_plugins_configuration(root):
    status, text, _ = site(root, *plugin_file(root))
    lines = {line[6:].split("  ")[0].strip() for line in text.splitlines() if line[:4].strip() in ("ok", "warn", "FAIL")}
    assert status == 0, text
    assert "this node" in lines and "To put into the configuration:" in text and f"Dir: {root}/own" in text
    assert ", 0 failed" in text.splitlines()[-1]
    nothing_left(root)
    status, text, _ = site(root, *plugin_file(root), "-o", "yaml")
    assert status == 0 and "- result: ok" in text and "facts:" in text


def test_a_job_that_tells_nothing(root):
    status, text, _ = site(root, *plugin_file(root, "#!/bin/sh\necho no such library\nexit 3\n"), "-o", "json")
    things = found(json.loads(text))
    assert status == 1 and things["job"][0] == "fail" and "ended with 3" in things["job"][1] and "no such library" in things["job"][1]
    assert things["job deleted"][0] == "ok" and json.loads(text)["facts"] is None
    nothing_left(root)


@pytest.mark.parametrize("report", ['{"findings":7,"host":[],"facts":"x"}', "{", "[]", '{"host":"\\u001b[31mred","timeNs":1,"findings":[{"what":"\\u001b[2J"}]}'])
def test_hostile_reports(root, report):
    """What is no report is none; what is one cannot disturb a terminal."""
    line = f"interlink-cri-probe: {report}".replace("\\", "\\\\")
    status, text, _ = site(root, *plugin_file(root, f"#!/bin/sh\nprintf '%b\\n' '{line}'\n"))
    assert status == 1 and "\033" not in text, text
    nothing_left(root)


def test_a_clock_that_is_wrong(root):
    script = '#!/bin/sh\necho \'interlink-cri-probe: {"host":"n1","findings":[],"facts":{},"timeNs":1000}\'\n'
    status, text, _ = site(root, *plugin_file(root, script), "-o", "json")
    assert status == 0 and found(json.loads(text))["clock skew"][0] == "warn"
    assert "behind this node's" in found(json.loads(text))["clock skew"][1]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(root, sign):
    words = command(root, *plugin_file(root, "#!/bin/sh\ntrap 'exit 0' TERM\nwhile :; do sleep 0.05; done\n"))
    process = subprocess.Popen(words, env=environment(root), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stderr.readline()
    while line and "runs" not in line and "submitted" not in line:
        line = process.stderr.readline()
    process.send_signal(sign)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in text and "nothing of job" in text, text
    nothing_left(root)


def test_out_of_time(root):
    status, text, _ = site(root, *plugin_file(root, "#!/bin/sh\ntrap 'exit 0' TERM\nwhile :; do sleep 0.05; done\n"), "--timeout", "1s")
    assert status == 1 and "no report in time" in text and "--timeout" in text
    nothing_left(root)


def test_what_cannot_be(root):
    for arguments, words in (("--handler", "nowhere"), "no handler of this name"), (("-o", "xml"), "wanted table, json or yaml"), \
            (("--plugin", f"{root}/none.yaml"), "none.yaml"):
        status, text, said = site(root, *arguments)
        assert status == 2 and words in said and text == "", (arguments, said)
    status, text, _ = site(root, "-o", "json")  # nothing listens there
    assert status == 1 and found(json.loads(text))["REST API"][0] == "fail"
    nothing_left(root)
    done = subprocess.run([kit.PROGRAM, "ctl", "doctor", "--site", "-o", "xml"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2 and "wanted table, json or yaml" in done.stderr
    status, text, _ = site(root, "--help")
    assert status == 0 and "--site" in text and "Ctrl-C" in text
