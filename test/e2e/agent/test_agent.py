# SPDX-License-Identifier: Apache-2.0
"""The agent by itself, with real containers: node_main.c is its node. As root and as an ordinary user, over a unix socket and TLS."""

import os
import pathlib
import shutil
import subprocess

import pytest

TOP = pathlib.Path(__file__).resolve().parents[3]
NOBODY = 65534
APPLETS = "sh cat dd echo head hostname id ls ps seq setsid sleep stty tr true".split()
FOLDERS = ["base", "text", "io", "http", "rpc", "image", "interlink", "kube", "agent"]
LIBRARIES = "crun curl archive zstd nghttp2 bearssl protobuf-c z yaml llhttp seccomp cap pthread".split()


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """node_main, static as the program is, from the program's own sources. It is its own agent."""
    out = tmp_path_factory.mktemp("node") / "node_main"
    vendor = "build/vendor/musl"
    subprocess.run(["make", "-s", "vendor-musl", "gen"], cwd=TOP, check=True)
    files = [str(f.relative_to(TOP)) for folder in FOLDERS for f in sorted((TOP / "src" / folder).glob("*.c"))]
    subprocess.run(
        ["musl-gcc", "-std=c11", "-D_GNU_SOURCE", "-DNGHTTP2_STATICLIB", "-DCURL_STATICLIB", "-Os", "-static", "-s",
         "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-w", "-Isrc", "-isystem", "build/gen",
         "-isystem", f"{vendor}/include", "-isystem", f"{vendor}/include/libcrun/compat", "-idirafter", f"{vendor}/kernel",
         "-o", str(out), "test/e2e/agent/node_main.c", "src/node/relay.c", *files,
         *(f"build/gen/{name}.pb-c.c" for name in ("agent", "cri", "health", "reflection", "reflection_v1alpha", "state")),
         f"-L{vendor}/lib", *(f"-l{name}" for name in LIBRARIES)],
        cwd=TOP, check=True,
    )
    return out


def make_layer(path):
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    for folder in ("bin", "etc", "proc", "sys", "dev", "tmp"):
        (path / folder).mkdir(parents=True)
    shutil.copy(busybox, path / "bin" / "busybox")
    for applet in APPLETS:
        (path / "bin" / applet).symlink_to("busybox")
    for line in subprocess.run(["ldd", busybox], capture_output=True, text=True).stdout.splitlines():
        for word in (w for w in line.split() if w.startswith("/")):
            (path / word.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, path / word.lstrip("/"))
    (path / "etc" / "passwd").write_text("root:x:0:0:root:/:/bin/sh\n")


@pytest.fixture(scope="module", params=["root", "user"] if os.getuid() == 0 else ["user"])
def place(request, driver, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    for parent in [root, *root.parents]:
        if parent == pathlib.Path("/tmp"):
            break
        parent.chmod(0o755)
    make_layer(root / "layer")
    shutil.copy(driver, root / "node_main")
    drop = request.param == "user" and os.getuid() == 0
    if drop:
        for folder, dirs, files in os.walk(root):
            for name in [folder] + [os.path.join(folder, n) for n in dirs + files]:
                os.lchown(name, NOBODY, NOBODY)
    return root, drop


def run(place, *scenarios, **env):
    root, drop = place
    who = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if drop else {}
    done = subprocess.run([root / "node_main", root / "w", root / "layer", *scenarios], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", cwd="/", timeout=250,
                          env={"PATH": os.environ["PATH"], **env}, **who)
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    assert "FAIL" not in done.stdout
    assert str(root) not in pathlib.Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("scenario", "life start_error exec oom cut refused term killed blobs attach update forward soak memory".split())
def test_scenario(place, scenario):
    run(place, scenario)


@pytest.mark.parametrize("scenario", "life exec cut refused attach forward".split())
def test_over_tls(place, scenario):
    run(place, scenario, RELAY="tls")
