# SPDX-License-Identifier: Apache-2.0
"""The configurations of docs/sites, as they stand there, with a real Slurm: only paths, addresses and the site's own programs are
replaced. Each runs a pod as the page says, on a site that is restricted as the page says."""
import os
import pathlib
import re
import shutil
import tempfile

import pytest
from cri import pb
from serving import BINARY, Pod, Serve, free_port, make_images
from slurm_site import NOBODY, TOP, Plugin
from test_dial import Patient
from test_multinode import apptainer, static  # noqa: F401 - a fixture

PAGES = sorted(p.stem for p in (TOP / "docs" / "sites").glob("*.md"))


def blocks(page):
    """The configurations of a page, by the file that their first line names."""
    text = (TOP / "docs" / "sites" / f"{page}.md").read_text()
    found = {}
    for block in re.findall(r"^```yaml\n(.*?)^```$", text, re.S | re.M):
        found[re.match(r"# (\S+):", block)[1]] = block
    return found


class Place:
    """serve and the plugin as a page has them."""

    def __init__(self, site, page, user, environment, program):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="icri-", dir="/tmp"))
        self.root.chmod(0o755)
        shared = self.root / "shared"
        shared.mkdir()
        address = f"127.0.0.1:{free_port()}"
        self.words = {
            "/etc/kubernetes/kubelet.conf": f"{self.root}/kubelet.conf", "/home/interlink/plugin": f"{shared}/plugin",
            "0.0.0.0:10443": address, "edge1.example.org:10443": address, "/shared/bin/interlink-cri": str(BINARY),
            "/etc/interlink-cri/inside-ca.pem": f"{self.root}/ca.pem", "https://registry.inside.example": "https://127.0.0.1:1",
        }
        if page == "no-user-namespaces":
            self.words["/opt/site/bin/apptainer"] = apptainer(user).split("=")[1]
        found = blocks(page)
        (self.root / "ca.pem").write_bytes(pathlib.Path("/etc/ssl/certs/ca-certificates.crt").read_bytes())
        self.plugin = Plugin(site, shared, "", user=user, environment=environment)
        # The page's own file; its folder and its socket are where it says.
        (shared / "plugin.yaml").write_text(self.here(found["plugin.yaml"]) + "  PollMin: 200ms\n")
        at = self.plugin.command.index("--config")
        before = self.plugin.command[:self.plugin.command.index("plugin") - 1]
        self.plugin.command = [*before, str(program), "plugin", *self.plugin.command[at:at + 2]]
        self.plugin.socket = f"{shared}/plugin/plugin.sock"
        self.plugin.dir = shared / "plugin"
        self.plugin.start()
        config = self.here(found["config.yaml"])
        if "srun" in config:  # the jobs' user is not serve's, as at a site with one account for both it would be
            config = config.replace("[srun,", "[srun, --cpu-bind=none,")
        self.serve = Serve(self.root / "serve", config=config, env={**site.env, **environment}).start()
        loaded = self.serve.ctl("load", str(make_images()))
        assert loaded.returncode == 0, loaded.stderr

    def here(self, text):
        for name, ours in self.words.items():
            text = text.replace(name, ours)
        return text

    def close(self):
        try:
            self.serve.finish()
        finally:
            self.plugin.stop()
            self.plugin.close()
            shutil.rmtree(self.root, ignore_errors=True)


@pytest.mark.parametrize("page", PAGES)
def test_a_pod(site, page, static):  # noqa: F811
    """Run, reached by exec, ended; by the engine and the way that the page names."""
    user = NOBODY if page in ("no-root", "no-user-namespaces") else None
    environment = {}
    if page == "airgapped":  # whoever asks anything outside fails at once
        environment = {"https_proxy": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1", "no_proxy": "127.0.0.1"}
    place = Place(site, page, user, environment, static if page == "no-user-namespaces" else BINARY)
    try:
        cri = place.serve.client
        pod = Pod(place.serve, Patient(cri), page, handler="slurm")
        container = pod.run("sh", "-c", "echo at work; sleep 1000")
        assert cri.exec_sync(container, "sh", "-c", "echo from inside").stdout == b"from inside\n"
        info = cri.runtime.PodSandboxStatus(pb.PodSandboxStatusRequest(pod_sandbox_id=pod.id, verbose=True)).info["info"]
        engine = "apptainer" if page == "no-user-namespaces" else "crun"
        assert f'"engine":"{engine}"' in info, info
        if page == "no-outbound":
            assert "Relay" not in blocks(page)["config.yaml"]
        if page == "airgapped":
            with pytest.raises(Exception, match="127.0.0.1"):
                cri.pull("docker.io/library/nothing:1")
        cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod.id), timeout=90)
    finally:
        place.close()


def test_each_page_has_both_files():
    assert len(PAGES) == 5
    for page in PAGES:
        assert set(blocks(page)) == {"config.yaml", "plugin.yaml"}, page
