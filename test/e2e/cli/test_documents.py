# SPDX-License-Identifier: Apache-2.0
"""What documents and deploy/ promise, as far as it can be seen without a cluster (test/e2e/kubernetes goes through the guide)."""
import os
import pathlib
import re
import shutil
import subprocess

import pytest

TOP = pathlib.Path(__file__).resolve().parents[3]
BINARY = pathlib.Path(os.environ.get("INTERLINK_CRI_BINARY") or TOP / "build" / "san" / "interlink-cri")
GUIDE = TOP / "docs" / "operators-guide.md"
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("**/*.md"))]


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    text = page.read_text()
    anchors = {re.sub(r"[^a-z0-9 -]", "", h.lower()).strip().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target:
            assert (page.parent / target.split("#")[0]).exists(), target


def test_commands_are_a_shells():
    for text in blocks("sh") + blocks("console"):
        done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and not done.stderr, f"{text}\n{done.stderr}"


def test_doctor_looks_at_what_the_guide_says():
    """Its table of symptoms sends people to lines of `doctor` by their names."""
    sources = "".join(p.read_text() for p in (TOP / "src" / "cli").glob("doctor*.c"))
    table = GUIDE.read_text().split("## When something is wrong")[1].split("## Uninstalling")[0]
    named = [n.strip() for text in re.findall(r"`doctor`: ([^|;]+)", table) for n in text.split(",")]
    assert len(named) > 8
    for name in named:
        assert f'"{name}"' in sources or name == "handler x", name


def test_the_guides_configuration(tmp_path):
    """As it stands, with the rest of the guide's keys added."""
    text = "".join(re.findall(r"config\.yaml <<'EOF'\n(.*?)^EOF$", "".join(blocks("sh")), re.MULTILINE | re.DOTALL))
    assert text.count("Handlers:") == 1 and "Pinned" in text and "NodePods" in text
    file = tmp_path / "config.yaml"
    file.write_text(text)
    done = subprocess.run([str(BINARY), "doctor", "--config", str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert "2 handlers, default local" in done.stdout, done.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing")
def test_the_unit_is_systemds(tmp_path):
    unit = tmp_path / "interlink-cri.service"
    unit.write_text((TOP / "deploy" / unit.name).read_text().replace("/usr/local/bin/interlink-cri", "/bin/true"))
    more = tmp_path / "interlink-cri.service.d"
    more.mkdir()
    for name in (None, "interlink-cri-remote-only.conf"):
        if name:
            shutil.copy(TOP / "deploy" / name, more / name)
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and str(unit.name) not in done.stderr, done.stderr
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=50", str(unit)], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stdout.splitlines()[-1:]


def test_every_role_has_a_help():
    def run(*words):
        return subprocess.run([BINARY, *words], capture_output=True, text=True, timeout=30, check=False)
    roles = re.findall(r"^  ([a-z]+)  ", run("--help").stdout, re.MULTILINE)
    assert {"serve", "plugin", "agent", "join", "ctl", "doctor"} <= set(roles)
    for role in set(roles) - {"version", "help"}:
        done = run(role, "--help")
        assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith(f"Usage: interlink-cri {role}"), role
    wrong = run("agent", "--manifest")
    assert wrong.returncode == 64 and "interlink-cri agent --help" in wrong.stderr
