# SPDX-License-Identifier: Apache-2.0
"""An ordinary user with ranges of ids in /etc/subuid and /etc/subgid."""
import io
import os
import pathlib
import shutil
import tarfile
import tempfile
import time

import pytest
from cri import pb, refused
from images.build import Image, oci_archive
from serving import USER, Pod, Serve

FIRST, COUNT = 300000, 65536

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="the tests must run as root, to give a user its ranges"),
    pytest.mark.skipif(shutil.which("newuidmap") is None, reason="newuidmap is not installed (Debian: uidmap)"),
]


@pytest.fixture(scope="module")
def serve(images):
    root = tempfile.mkdtemp(prefix="icri-", dir="/tmp")
    os.chmod(root, 0o755)
    server = Serve(root, user=USER, ranges=(FIRST, COUNT)).start()
    server.kind = "ranges"
    loaded = server.ctl("load", str(images))
    assert loaded.returncode == 0, loaded.stderr + server.tail()
    yield server
    server.finish()


def linux(**context):
    return pb.LinuxContainerConfig(security_context=pb.LinuxContainerSecurityContext(
        namespace_options=pb.NamespaceOption(pid=context.pop("pid", pb.CONTAINER)), **context))


def says(pod, *command, **more):
    container = pod.run(*command, **more)
    status = pod.cri.wait_exit(container)
    out, err = pod.output(container)
    assert status.exit_code == 0, (status.exit_code, out, err)
    return out.decode()


def test_its_ids_are_there(serve, pod):
    assert says(pod, "cat", "/proc/self/uid_map").split() == ["0", str(USER), "1", "1", str(FIRST), str(COUNT)]
    assert "65537 ids" in "".join(p.read_text() for p in serve.root.glob("state/plugin/jobs/*/agent.log"))
    assert says(pod, "sh", "-c", "id -u; id -G", linux=linux(
        run_as_user=pb.Int64Value(value=1000), run_as_group=pb.Int64Value(value=2000), supplemental_groups=[3000],
    )).split() == ["1000", "2000", "3000"]
    assert says(pod, "sh", "-c", "id -u; id -g", linux=linux(run_as_username="www-data")).split() == ["33", "33"]


def owned_layer():
    """A layer in which others than root own something, even its root folder; one owner is beyond any range."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as t:
        def add(name, mode, uid, gid, data=None, **more):
            info = tarfile.TarInfo(name)
            info.mode, info.uid, info.gid, info.pax_headers = mode, uid, gid, more.pop("headers", {})
            info.type = more.pop("type", tarfile.REGTYPE if data is not None else tarfile.DIRTYPE)
            info.linkname = more.pop("link", "")
            info.size = len(data or b"")
            t.addfile(info, io.BytesIO(data or b""))

        add(".", 0o755, 4000, 4000)
        add("bin", 0o755, 0, 0)
        add("bin/busybox", 0o755, 0, 0, pathlib.Path(shutil.which("busybox")).read_bytes())
        for applet in ("sh", "cat", "stat", "id", "touch", "mkdir", "chmod", "ls", "sleep", "tty", "readlink"):
            add(f"bin/{applet}", 0o777, 0, 0, type=tarfile.SYMTYPE, link="busybox")
        add("etc", 0o755, 0, 0)
        add("etc/passwd", 0o644, 0, 0, b"root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
        add("etc/group", 0o644, 0, 0, b"root:x:0:\napp:x:1000:\nmore:x:1500:app\nbeyond:x:99999:app\n")
        add("home/app", 0o700, 1000, 1000)
        add("home/app/secret", 0o400, 1000, 1000, b"hidden\n")
        add("home/app/link", 0o777, 1000, 1000, type=tarfile.SYMTYPE, link="secret")
        add("home/other", 0o000, 2000, 2000)
        add("home/other/deep", 0o000, 2000, 2000)
        add("home/other/deep/file", 0o000, 2000, 2000, b"x")
        add("far", 0o644, 99999, 99999, b"x")
        add("suid", 0o4755, 1000, 0, b"x")
    return out.getvalue()


@pytest.fixture(scope="module")
def owned(serve):
    busybox = shutil.which("busybox")
    if busybox is None or b"ld-linux" in pathlib.Path(busybox).read_bytes()[:4096]:
        pytest.skip("there is no static busybox (Debian: busybox-static)")
    path = oci_archive(serve.root / "owned.tar", {"example.com/owned:1": Image([owned_layer()], User="app", WorkingDir="/home/app/new")})
    loaded = serve.ctl("load", str(path))
    assert loaded.returncode == 0, loaded.stderr
    return "example.com/owned:1"


FILES = ("/", "/home/app", "/home/app/secret", "/home/app/link", "/home/other", "/far", "/suid", "/bin")
OWNERS = ["4000:4000", "1000:1000", "1000:1000", "1000:1000", "2000:2000", "0:0", "1000:0", "0:0"]


def test_an_images_files_keep_their_owners(serve, pod, owned):
    script = f"id -u; id -g; id -G; stat -c %u:%g {' '.join(FILES)}; cat secret 2>/dev/null || cat ../secret; touch ../x && stat -c %u ../x"
    said = says(pod, "sh", "-c", script, image=owned).split()
    assert said == ["1000", "1000", "1000", "1500", *OWNERS, "hidden", "1000"]
    assert says(pod, "stat", "-c", "%a", "/suid", "/home/other", image=owned, linux=linux(run_as_user=pb.Int64Value(value=0))).split() == [
        "4755", "0"]
    # On the machine they belong to ids of the range, in the node's store and nowhere else: no pod had to unpack the image again.
    layers = [f for f in serve.root.glob("state/images/layers/*/home/app/secret")]
    assert [f.stat().st_uid for f in layers] == [FIRST + 999]
    assert not list(serve.root.glob("state/plugin/jobs/*/images/layers/*"))


def test_others_are_kept_out(pod, owned):
    container = pod.run("sleep", "1000", image=owned, linux=linux(run_as_user=pb.Int64Value(value=2000)))
    for forbidden in ("cat /home/app/secret", "touch /etc/x", "cat /home/other/deep/file", "touch /home/app/x", "chmod 666 /etc/passwd"):
        assert pod.cri.exec_sync(container, "sh", "-c", forbidden).exit_code != 0, forbidden
    answer = pod.cri.exec_sync(container, "sh", "-c", "id -u; id -G; echo out >/dev/stdout")
    assert answer.stdout.split() == [b"2000", b"0", b"out"]


def test_a_terminal_belongs_to_its_user(pod, owned):
    container = pod.run("sh", "-c", "tty; stat -c %u:%g $(tty)", tty=True, image=owned)
    assert pod.cri.wait_exit(container).exit_code == 0
    assert pod.output(container)[0].split() == [b"/dev/pts/0", b"1000:5"]


def test_what_is_beyond_the_ranges_is_refused(pod, owned):
    with refused("FAILED_PRECONDITION", "run_as_user", "uid 70000", "/etc/subuid", "65536"):
        pod.create("true", linux=linux(run_as_user=pb.Int64Value(value=70000)))
    with refused("FAILED_PRECONDITION", "supplemental_groups", "gid 70000"):
        pod.create("true", linux=linux(supplemental_groups=[70000]))


def test_everything_can_be_removed(serve, cri, pod, owned):
    """Folders of other ids, in the job, in the store, and of an agent that was killed."""
    make = "mkdir -p d/e && touch d/e/f && chmod 0 d/e/f && chmod 0 d/e && chmod 0 d; sleep 1000"
    container = pod.run("sh", "-c", f"cd /home/app; {make}", image=owned)
    other = Pod(serve, cri, "killed")
    other.run("sh", "-c", f"cd /home/app; {make}", image=owned)
    folder = next(serve.root.glob(f"state/plugin/jobs/*/containers/{container}/upper/home/app"))
    until(lambda: (folder / "d").is_dir() and (folder / "d").stat().st_mode & 0o777 == 0)
    assert (folder / "d").stat().st_uid == FIRST + 999
    victims = [int(p.name) for p in pathlib.Path("/proc").iterdir() if p.name.isdigit() and is_agent(p, serve, other)]
    assert victims
    for victim in victims:
        os.kill(victim, 9)
    cri.remove_everything()
    until(lambda: not list(serve.root.glob("state/plugin/jobs/*")))
    removed = serve.ctl("rmi", owned)
    assert removed.returncode == 0, removed.stderr
    until(lambda: not list(serve.root.glob("state/images/layers/*/home/app")) and not list(serve.root.glob("state/images/trash/*")))
    assert serve.ctl("load", str(serve.root / "owned.tar")).returncode == 0


def is_agent(process, serve, pod):
    try:
        environment = (process / "environ").read_bytes()
    except OSError:
        return False
    return f"INTERLINK_SANDBOX={pod.id}".encode() in environment and str(serve.root).encode() in environment


def until(condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def another(tmp, ranges=(FIRST, COUNT), groups=""):
    """A second server, of an ordinary user again."""
    root = pathlib.Path(tempfile.mkdtemp(prefix="icri-", dir="/tmp"))
    os.chmod(root, 0o755)
    server = Serve(root, user=USER, ranges=ranges, groups=groups)
    server.kind = "ranges"
    shutil.copy(tmp, root / "owned.tar")
    return server


def test_images_unpacked_before_the_ranges_came(serve, owned):
    """Their owners are all the user's: a pod unpacks them anew, once, for itself."""
    server = another(serve.root / "owned.tar", ranges=None)
    try:
        server.start()
        assert server.ctl("load", str(server.root / "owned.tar")).returncode == 0
        pod = Pod(server, server.client, "before")
        assert says(pod, "stat", "-c", "%u", "/suid", image=owned, linux=linux(run_as_user=pb.Int64Value(value=0))) == "0\n"
        with refused("FAILED_PRECONDITION", "uid 1000", "one id only", "/etc/subuid", "newuidmap"):
            pod.create("true", image=owned)
        server.stop()
        server.ranges = (FIRST, COUNT)
        server.write_ranges(*server.ranges)
        server.start()
        pod = Pod(server, server.client, "after")
        for _ in range(2):
            assert says(pod, "stat", "-c", "%u:%g", *FILES, image=owned).split() == OWNERS
        assert len(list(server.root.glob("state/plugin/jobs/*/images/layers/*.info"))) == 1
    finally:
        server.finish()


def test_ranges_that_are_refused(serve, owned):
    """newuidmap does not know its caller: one id is left, and the refusal says why."""
    server = another(serve.root / "owned.tar")
    (server.root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    for name in ("subuid", "subgid"):
        (server.root / "etc" / name).write_text(f"{USER}:{FIRST}:{COUNT}\n")
    try:
        server.start()
        assert server.ctl("load", str(server.root / "owned.tar")).returncode == 0
        pod = Pod(server, server.client, "refused")
        assert says(pod, "cat", "/proc/self/uid_map", image=owned, linux=linux(run_as_user=pb.Int64Value(value=0))).split() == [
            "0", str(USER), "1"]
        with refused("FAILED_PRECONDITION", "uid 1000", "newuidmap refused"):
            pod.create("true", image=owned)
        assert "newuidmap refused" in "".join(p.read_text() for p in server.root.glob("state/plugin/jobs/*/agent.log"))
    finally:
        server.finish()


def test_group_folders_stay_within_reach(serve, owned):
    """The user's other groups have no number in the container, and still count for its root, who is the user."""
    server = another(serve.root / "owned.tar", groups="61234")
    shared = server.root / "shared"
    shared.mkdir()
    os.chown(shared, 0, 61234)
    os.chmod(shared, 0o770)
    mount = [pb.Mount(host_path=str(shared), container_path="/shared")]
    try:
        server.start()
        assert server.ctl("load", str(server.root / "owned.tar")).returncode == 0
        pod = Pod(server, server.client, "groups")
        user_root = linux(run_as_user=pb.Int64Value(value=0))
        container = pod.run("sh", "-c", "touch /shared/one; sleep 1000", image=owned, linux=user_root, mounts=mount)
        assert pod.cri.exec_sync(container, "touch", "/shared/two").exit_code == 0
        until(lambda: len(list(shared.iterdir())) == 2)
        assert {f.stat().st_uid for f in shared.iterdir()} == {USER}
        strict = linux(run_as_user=pb.Int64Value(value=0), supplemental_groups_policy=pb.Strict)
        for context in (linux(), strict):
            other = pod.run("sh", "-c", "touch /shared/three", image=owned, mounts=mount, linux=context)
            assert pod.cri.wait_exit(other).exit_code != 0
    finally:
        server.finish()


class Weak(Serve):
    """Root that may not make namespaces, as in a container."""

    def command(self, *arguments):
        return ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", *super().command(*arguments)]


def test_root_without_the_right_to_make_namespaces(serve, owned):
    """In a user namespace everything is allowed again, and root may map all the ids that it has."""
    root = pathlib.Path(tempfile.mkdtemp(prefix="icri-", dir="/tmp"))
    shutil.copy(serve.root / "owned.tar", root / "owned.tar")
    server = Weak(root)
    try:
        server.start()
        assert server.ctl("load", str(root / "owned.tar")).returncode == 0
        pod = Pod(server, server.client, "weak")
        said = says(pod, "sh", "-c", f"id -u; stat -c %u:%g {' '.join(FILES)}", image=owned).split()
        assert said == ["1000", *OWNERS[:5], "99999:99999", *OWNERS[6:]]
        assert not list(root.glob("state/plugin/jobs/*/images/layers/*"))
    finally:
        server.finish()
