# SPDX-License-Identifier: Apache-2.0
"""The container engines by themselves: engine_main.c drives them as the agent does, as root and as an ordinary user."""

import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import time
import uuid

import pytest

TOP = pathlib.Path(__file__).resolve().parents[3]
APPLETS = (
    "sh cat chmod cut dd df echo env false grep head hostname id kill ls mkdir mknod mount od ps pwd rm seq setsid sleep sort "
    "stat stty tail test touch tr true tty umount uniq wc ["
).split()
NOBODY = 65534

# Of the agent everything but its own files, which speak gRPC; what the driver does not use the linker drops.
SOURCES = [
    "src/base/*.c", "src/text/*.c", "src/io/child.c", "src/io/file.c", "src/io/loop.c", "src/io/netns.c", "src/io/subid.c",
    "src/io/userns.c", "src/image/config.c", "src/image/digest.c", "src/image/unpack.c", "src/image/flatten.c", "src/image/layer_*.c",
    "src/agent/agent_settle.c", "src/agent/apptainer.c", "src/agent/[b-z]*.c", "build/gen/cri.pb-c.c",
]


def users():
    return ["root", "user"] if os.getuid() == 0 else ["user"]


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """The driver, static as the program is, from the program's own sources and flags."""
    out = tmp_path_factory.mktemp("driver") / "engine_main"
    vendor = "build/vendor/musl"
    subprocess.run(["make", "-s", "vendor-musl", "gen"], cwd=TOP, check=True)
    files = [str(f.relative_to(TOP)) for pattern in SOURCES for f in sorted(TOP.glob(pattern))]
    subprocess.run(
        ["musl-gcc", "-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-static", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections",
         "-w", "-Isrc", "-isystem", "build/gen", "-isystem", f"{vendor}/include", "-isystem", f"{vendor}/include/libcrun/compat",
         "-idirafter", f"{vendor}/kernel", "-o", str(out), "test/e2e/engine/engine_main.c", *files, f"-L{vendor}/lib", "-lcrun",
         "-larchive", "-lzstd", "-lz", "-lbearssl", "-lprotobuf-c", "-lyaml", "-lseccomp", "-lcap"],
        cwd=TOP, check=True,
    )
    return out


def make_layer(path):
    """An unpacked layer with busybox, and its libraries when it has some."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    for folder in ("bin", "etc", "proc", "sys", "dev", "tmp", "root"):
        (path / folder).mkdir(parents=True)
    shutil.copy(busybox, path / "bin" / "busybox")
    for applet in APPLETS:
        (path / "bin" / applet).symlink_to("busybox")
    for line in subprocess.run(["ldd", busybox], capture_output=True, text=True).stdout.splitlines():
        words = [w for w in line.split() if w.startswith("/")]
        if words:
            (path / words[0].lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(words[0], path / words[0].lstrip("/"))
    (path / "bin" / "garbage").write_bytes(b"\x7fNOT a program\n")
    (path / "bin" / "garbage").chmod(0o755)
    (path / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/home/web:/bin/sh\n")
    (path / "etc" / "group").write_text("root:x:0:\nweb:x:1000:\nextra:x:2000:web\n")


class Place:
    """A folder for one kind of user, with a layer of its own."""

    def __init__(self, kind, root, driver):
        self.kind, self.root, self.driver = kind, root, driver
        self.drop = kind == "user" and os.getuid() == 0
        self.id = uuid.uuid4().hex
        self.processes = []
        make_layer(root / "layer")
        shutil.copy(driver, root / "engine_main")
        if self.drop:
            for folder, dirs, files in os.walk(root):
                for name in [folder] + [os.path.join(folder, n) for n in dirs + files]:
                    os.lchown(name, NOBODY, NOBODY)

    def cgroups(self):
        # os.walk takes it calmly when another runtime's folder goes meanwhile.
        return sorted(os.path.join(folder, name) for folder, names, _ in os.walk("/sys/fs/cgroup") for name in names
                      if self.id[:12] in name)

    def start(self, *args, env=None):
        job = self.root / "job"
        if job.exists():
            subprocess.run(["chmod", "-R", "u+rwX", job], check=False)
            shutil.rmtree(job)
        job.mkdir(mode=0o700)
        who = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if self.drop else {}
        if self.drop:
            os.chown(job, NOBODY, NOBODY)
        command = [str(self.root / "engine_main"), str(job), str(self.root / "layer"), *args]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd="/",
                                   env={"PATH": os.environ["PATH"], "SANDBOX_ID": self.id, **(env or {})}, **who)
        self.processes.append(process)
        return process

    def start_waiting(self):
        """One container runs in it until it is ended from outside. The process, and the inner one's pid."""
        process = self.start("crun", "wait")
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == "waiting\n":
                (inner,) = children(process.pid)
                return process, inner
        pytest.fail("".join(lines))


@pytest.fixture(scope="module", params=users())
def place(request, driver, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    for parent in [root, *root.parents]:
        if parent == pathlib.Path("/tmp"):
            break
        parent.chmod(0o755)
    place = Place(request.param, root, driver)
    yield place
    for process in place.processes:
        process.kill()
        process.wait()


def mounts(folder):
    """Those below our folder: others may mount things, too."""
    return [line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]


def apptainer():
    """test/fixtures/slurm/apptainer.sh makes one; a site's own would do as well."""
    made = TOP / "build" / "apptainer" / "usr" / "bin" / "apptainer"
    found = os.environ.get("APPTAINER") or (str(made) if made.exists() else shutil.which("apptainer"))
    if found is None:
        pytest.skip("there is no apptainer: test/fixtures/slurm/apptainer.sh build/apptainer")
    return found


@pytest.mark.parametrize("mode", ["crun", "crun host-pid", "host", "host host-pid", "apptainer"])
def test_driver(place, mode):
    env = {"APPTAINER": apptainer()} if mode == "apptainer" else None
    if env and place.drop and subprocess.run([env["APPTAINER"], "--version"], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/",
                                             capture_output=True, check=False).returncode != 0:
        pytest.skip(f"an ordinary user cannot run {env['APPTAINER']}")
    process = place.start(*mode.split(), env=env)
    try:
        out, _ = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
        pytest.fail(f"timed out after:\n{out}")
    failed = [line for line in out.splitlines() if line.startswith("FAIL")]
    assert process.returncode == 0 and not failed, out
    assert mounts(place.root) == []
    assert place.cgroups() == []


def children(pid):
    out = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(word) for word in out.split()]


def wait_until(condition, seconds=5):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_nothing_outlives_the_outer_process(place):
    """kill -9 of what the job's supervisor sees: the kernel ends all the rest."""
    process, inner = place.start_waiting()
    process.kill()
    process.wait()
    assert wait_until(lambda: not pathlib.Path(f"/proc/{inner}").exists())
    process.stdout.read()  # ends when the container, which holds it too, has gone
    remove_cgroups(place)


def test_inner_death_is_mirrored(place):
    process, inner = place.start_waiting()
    os.kill(inner, signal.SIGKILL)
    assert process.wait(timeout=10) == 128 + signal.SIGKILL
    process.stdout.read()
    remove_cgroups(place)


def remove_cgroups(place):
    """What a plugin does after a killed agent: the list in the job's folder says which cgroups there are."""
    listed = place.root / "job" / "cgroups"
    for path in listed.read_text().split() if listed.exists() else []:
        def gone(path=path):
            for folder, _, _ in os.walk(path, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:
                    return False
            return True
        assert wait_until(gone), path
        try:
            os.rmdir(os.path.dirname(path))
        except OSError:
            pass  # other pods' are there
    assert place.cgroups() == []


def test_the_binary_cannot_be_written(place):
    """CVE-2019-5736: through /proc/PID/exe the agent's program is on a read-only mount, or a sealed copy."""
    if place.kind != "root":
        pytest.skip("only root may open another's /proc/PID/exe")
    process, inner = place.start_waiting()
    exe = f"/proc/{inner}/exe"
    sealed = os.readlink(exe).startswith("/memfd:")
    assert sealed or os.statvfs(exe).f_flag & os.ST_RDONLY
    before = (place.root / "engine_main").read_bytes()
    fd = os.open(exe, os.O_PATH)
    process.kill()
    process.wait()
    process.stdout.read()
    with pytest.raises(OSError):
        os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_TRUNC)
    os.close(fd)
    assert (place.root / "engine_main").read_bytes() == before
    remove_cgroups(place)


def test_host_to_container_propagation(place):
    """As root: a mount that the machine makes later appears in the container, also when / is private there."""
    if place.kind != "root":
        pytest.skip("needs root")
    shared = place.root / "shared"
    shared.mkdir(exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    MS_BIND, MS_SHARED, MNT_DETACH = 4096, 1 << 20, 2

    def mount(source, target, kind, flags):
        assert libc.mount(source and str(source).encode(), str(target).encode(), kind and kind.encode(), flags, None) == 0, ctypes.get_errno()

    mount(shared, shared, None, MS_BIND)
    try:
        mount(None, shared, None, MS_SHARED)
        process = place.start("crun", "propagate", env={"SHARED": str(shared)})
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == "mount now\n":
                (shared / "late").mkdir()
                mount("late", shared / "late", "tmpfs", 0)
                (shared / "late" / "file").write_text("seen\n")
        assert process.wait() == 0, "".join(lines)
        assert (shared / "up" / "mark").exists(), "a mount made in the container came here"
        libc.umount2(str(shared / "up").encode(), MNT_DETACH)
        assert (shared / "late" / "file").exists(), "removing the container left the machine's mounts alone"
        libc.umount2(str(shared / "late").encode(), MNT_DETACH)
    finally:
        libc.umount2(str(shared).encode(), MNT_DETACH)
    assert place.cgroups() == []


def documented(engine):
    """docs/engines.md, "Field by field": field -> word."""
    lines = (TOP / "docs" / "engines.md").read_text().split("| field | crun |")[1].splitlines()[2:]
    rows = {}
    for line in lines:
        if not line.startswith("|"):
            break
        field, *words = [word.strip().replace("`", "") for word in line.strip("|").split("|")]
        rows[field] = dict(zip(("crun", "apptainer", "host"), words))[engine]
    return {field: word for field, word in rows.items() if word}


@pytest.mark.parametrize("engine", ["crun", "apptainer", "host"])
def test_the_table_of_engines(place, engine):
    if place.kind != "root":
        pytest.skip("the table is as root")
    process = place.start(engine, "table", env={"APPTAINER": apptainer()} if engine == "apptainer" else None)
    out, _ = process.communicate(timeout=60)
    rows = dict(line.split("|")[1:3] for line in out.splitlines() if line.startswith("row|"))
    # "own": the job's user is no wish that could be refused, and another one is.
    wanted = {field: "no" if word == "own" else word for field, word in documented(engine).items()}
    assert rows == wanted and len(rows) >= 16, out
