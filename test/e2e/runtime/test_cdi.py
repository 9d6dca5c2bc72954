# SPDX-License-Identifier: Apache-2.0
"""Devices by CDI names: what the machine's files say is what the container gets."""
import json
import os
import tempfile

import pytest
from conftest import who
from cri import pb, refused
from serving import USER, Serve
from test_contexts import linux, said

HOOK = """#!/bin/sh
state=$(cat)
{ echo "$1 $GREETING"; echo "$state"; } >>%(out)s
test "$1" != fail
"""


@pytest.fixture(scope="module", params=who())
def serve(request, images):
    user = USER if request.param == "user" and os.getuid() == 0 else None
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    server = Serve(root, user=user, config=f"CDI:\n  SpecDirs: [{root}/cdi, {root}/run-cdi]\n")
    server.kind = request.param
    out = server.root / "pod-logs" / "hooks.out"
    hook = server.root / "hook"
    hook.write_text(HOOK % {"out": out})
    hook.chmod(0o755)
    data = server.root / "data"
    data.mkdir()
    (data / "library").write_text("the library\n")
    (server.root / "cdi").mkdir()

    def hooks(word, name="createContainer"):
        return [{"hookName": name, "path": str(hook), "args": ["hook", word], "env": ["GREETING=hello"], "timeout": 20}]

    (server.root / "cdi" / "vendor.json").write_text(json.dumps({
        "cdiVersion": "0.6.0", "kind": "vendor.com/gpu", "containerEdits": {"env": ["VENDOR=yes"]}, "devices": [
            {"name": "0", "containerEdits": {
                "env": ["GPU=0"], "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/full"}],
                "mounts": [{"hostPath": str(data), "containerPath": "/usr/lib/gpu", "options": ["ro", "nosuid", "nodev", "bind"]}],
                "hooks": hooks("create") + hooks("prestart", "prestart")}},
            {"name": "fails", "containerEdits": {"hooks": hooks("fail")}},
            {"name": "late", "containerEdits": {"hooks": hooks("late", "poststop")}},
        ]}))
    (server.root / "cdi" / "rdt.yaml").write_text(
        "cdiVersion: 1.1.0\nkind: intel.com/rdt\ndevices:\n- name: a\n  containerEdits:\n    intelRdt: {closID: a}\n")
    server.start()
    server.hooks_out = out
    assert server.ctl("load", str(images)).returncode == 0
    yield server
    server.finish()


def named(*names):
    return [pb.CDIDevice(name=name) for name in names]


def test_a_device_is_all_that_its_file_says(serve, pod, cri):
    script = "echo $VENDOR $GPU; cat /usr/lib/gpu/library; echo x 2>/dev/null >/dev/gpu0 || echo full; " \
             "echo x 2>/dev/null >/usr/lib/gpu/new || echo read-only"
    out = said(pod, cri, "sh", "-c", script, CDI_devices=named("vendor.com/gpu=0"))
    assert out == "yes 0\nthe library\nfull\nread-only\n"
    lines = serve.hooks_out.read_text().splitlines()
    assert {lines[0], lines[2]} == {"create hello", "prestart hello"}
    states = {line.split()[0]: json.loads(state) for line, state in zip(lines[::2], lines[1::2])}
    assert states["prestart"]["pid"] > 0 and states["create"]["status"] == "created"
    assert states["create"]["bundle"].startswith(str(serve.root)) and states["create"]["root"].startswith(str(serve.root))


def test_older_kubelets_name_devices_in_annotations(pod, cri):
    out = said(pod, cri, "sh", "-c", "echo $VENDOR", annotations={"cdi.k8s.io/any_thing": "vendor.com/gpu=0"})
    assert out == "yes\n"


def test_a_hook_that_fails_fails_the_start(pod, cri):
    container = pod.create("true", CDI_devices=named("vendor.com/gpu=fails"))
    with refused("INTERNAL", "hook", "exit code: 1"):
        cri.runtime.StartContainer(pb.StartContainerRequest(container_id=container))


def test_devices_that_cannot_be_had(pod, cri):
    for name, code, *words in (
            ("vendor.com/gpu=1", "FAILED_PRECONDITION", "CDI_devices[0]", "vendor.com/gpu=1"),
            ("vendor.com/gpu=late", "FAILED_PRECONDITION", "poststop"),
            ("intel.com/rdt=a", "FAILED_PRECONDITION", "intelRdt", "rdt.yaml"),
            ("gpu0", "INVALID_ARGUMENT", "CDI_devices[0]", "gpu0")):
        with refused(code, *words):
            pod.create("true", CDI_devices=named(name))


@pytest.mark.root_only("an ordinary user makes no nodes")
def test_the_user_of_the_container_may_use_the_device(pod, cri):
    out = said(pod, cri, "stat", "-c", "%u:%g", "/dev/gpu0", CDI_devices=named("vendor.com/gpu=0"), linux=linux(
        run_as_user=pb.Int64Value(value=1000), run_as_group=pb.Int64Value(value=2000)))
    assert out == "1000:2000\n"
