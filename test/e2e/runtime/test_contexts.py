# SPDX-License-Identifier: Apache-2.0
"""What a container is given: limits, user, files, namespaces. What cannot be given is refused by its name."""
import concurrent.futures
import pathlib
import uuid

import pytest
from cri import container_config, pb, pod_config, refused
from serving import BUSYBOX, Pod


def linux(**context):
    """A LinuxContainerConfig with this security context."""
    resources = context.pop("resources", None)
    return pb.LinuxContainerConfig(resources=resources, security_context=pb.LinuxContainerSecurityContext(
        namespace_options=pb.NamespaceOption(pid=context.pop("pid", pb.CONTAINER)), **context))


def said(pod, cri, *command, **more):
    """Runs a command to its end; returns its standard output as text. It must succeed."""
    container = pod.run(*command, **more)
    status = cri.wait_exit(container)
    out, err = pod.output(container)
    assert status.exit_code == 0, (status.exit_code, out, err)
    return out.decode()


@pytest.mark.root_only("limits need a cgroup")
def test_past_its_memory_limit_it_is_oom_killed(pod, cri):
    limit = pb.LinuxContainerResources(memory_limit_in_bytes=24 << 20, memory_swap_limit_in_bytes=24 << 20)
    container = pod.run("sh", "-c", "tail /dev/zero", linux=linux(resources=limit))
    status = cri.wait_exit(container, 60)
    assert (status.reason, status.exit_code) == ("OOMKilled", 137)


@pytest.mark.root_only("limits need a cgroup")
def test_limits_are_in_the_cgroup(pod, cri):
    limits = pb.LinuxContainerResources(cpu_quota=50000, cpu_period=100000, cpu_shares=204, memory_limit_in_bytes=64 << 20)
    container = pod.run("sleep", "1000", linux=linux(resources=limits))
    found = {}
    for root in pathlib.Path("/sys/fs/cgroup").iterdir():
        for name in ("memory.limit_in_bytes", "cpu.cfs_quota_us", "cpu.shares", "memory.max", "cpu.max"):
            for path in root.glob(f"interlink-cri/*/{container}/{name}"):
                found[name] = path.read_text().split()[0]
    assert found.get("memory.limit_in_bytes", found.get("memory.max")) == str(64 << 20)
    assert found.get("cpu.cfs_quota_us", found.get("cpu.max")) == "50000"


@pytest.mark.root_only("limits need a cgroup")
def test_pods_may_share_a_cgroup_parent(serve, cri):
    """One that ends must neither take the folder away nor kill what is in it of others."""
    parent = f"/icri-test-{uuid.uuid4()}"

    def run(i):
        config = pod_config(f"shared{i}")
        config.linux.cgroup_parent = parent + "/pods"
        sandbox = cri.run_pod(config)
        container = cri.run(sandbox, container_config("c", BUSYBOX, "sleep", "1000", log_path=""), config)
        return sandbox, container

    def rounds(k):
        for i in range(6):
            sandbox, container = run(f"{k}-{i}")
            assert cri.status(container).state == pb.CONTAINER_RUNNING
            cri.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox))

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert list(pool.map(rounds, range(6))) == [None] * 6
    for root in pathlib.Path("/sys/fs/cgroup").iterdir():
        for folder in (root / parent[1:] / "pods", root / parent[1:]):
            if folder.is_dir():
                folder.rmdir()  # it was named by us, so it is ours to remove


@pytest.mark.root_only("an ordinary user has one id only")
def test_the_user_is_the_one_asked_for(pod, cri):
    assert said(pod, cri, "sh", "-c", "id -u; id -g; id -G", linux=linux(
        run_as_user=pb.Int64Value(value=1000), run_as_group=pb.Int64Value(value=2000), supplemental_groups=[3000],
    )).split() == ["1000", "2000", "2000", "3000"]
    assert said(pod, cri, "sh", "-c", "id -u; id -g", linux=linux(run_as_username="www-data")).split() == ["33", "33"]
    image = "gcr.io/k8s-staging-cri-tools/test-image-user-uid-group:latest"
    assert said(pod, cri, "sh", "-c", "id -u; id -g", image=image).split() == ["1003", "100"]


def test_an_unknown_user_is_refused(pod, cri):
    with refused("INVALID_ARGUMENT", "run_as_username", "nobody-here"):
        pod.create("true", linux=linux(run_as_username="nobody-here"))


def test_an_ordinary_user_is_told_what_cannot_be_done(serve, pod, cri):
    if serve.kind == "root":
        pytest.skip("for an ordinary user")
    with refused("FAILED_PRECONDITION", "run_as_user", "1000"):
        pod.create("true", linux=linux(run_as_user=pb.Int64Value(value=1000)))
    with refused("INVALID_ARGUMENT", "privileged", "the pod does not allow"):
        pod.create("true", linux=linux(privileged=True))
    with refused("FAILED_PRECONDITION", "add_capabilities", "CAP_NET_ADMIN"):
        pod.create("true", linux=linux(capabilities=pb.Capability(add_capabilities=["NET_ADMIN"])))
    mapping = [pb.IDMapping(container_id=0, host_id=200000, length=65536)]
    config = pod_config("mapped")
    config.linux.security_context.namespace_options.userns_options.CopyFrom(
        pb.UserNamespace(mode=pb.POD, uids=mapping, gids=mapping))
    with refused("FAILED_PRECONDITION", "userns_options", "only root"):
        cri.run_pod(config)
    mounts = [pb.Mount(host_path="/tmp", container_path="/mapped", uidMappings=mapping, gidMappings=mapping)]
    with refused("FAILED_PRECONDITION", "mounts[0].uidMappings", "only root"):
        pod.create("true", mounts=mounts)
    assert not cri.runtime.ListContainers(pb.ListContainersRequest()).containers


def test_a_read_only_root_cannot_be_written(pod, cri):
    container = pod.run("sh", "-c", "echo x >/file", linux=linux(readonly_rootfs=True))
    assert cri.wait_exit(container).exit_code != 0
    assert b"Read-only" in pod.output(container)[1]
    assert said(pod, cri, "sh", "-c", "echo x >/file && cat /file") == "x\n"


def test_capabilities_are_those_asked_for(serve, pod, cri):
    def effective(**caps):
        text = said(pod, cri, "grep", "CapEff", "/proc/self/status", linux=linux(capabilities=pb.Capability(**caps)))
        return int(text.split()[1], 16)

    assert effective(drop_capabilities=["ALL"]) == 0
    if serve.kind == "root":
        assert effective(drop_capabilities=["ALL"], add_capabilities=["NET_ADMIN"]) == 1 << 12
    assert effective() & 1 << 21 == 0  # SYS_ADMIN is not among the usual ones
    assert effective(drop_capabilities=["CAP_CHOWN"]) & 1 == 0


def test_no_new_privileges_and_seccomp(pod, cri):
    text = said(pod, cri, "grep", "-E", "NoNewPrivs|Seccomp:", "/proc/self/status", linux=linux(
        no_new_privs=True, seccomp=pb.SecurityProfile(profile_type=pb.SecurityProfile.RuntimeDefault)))
    assert text.split() == ["NoNewPrivs:", "1", "Seccomp:", "2"]
    text = said(pod, cri, "grep", "Seccomp:", "/proc/self/status", linux=linux(
        seccomp=pb.SecurityProfile(profile_type=pb.SecurityProfile.Unconfined)))
    assert text.split() == ["Seccomp:", "0"]


def test_a_seccomp_profile_from_a_file(serve, pod, cri):
    profile = serve.root / "profile.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}')
    local = pb.SecurityProfile(profile_type=pb.SecurityProfile.Localhost, localhost_ref=str(profile))
    container = pod.run("mkdir", "/x", linux=linux(seccomp=local))
    assert cri.wait_exit(container).exit_code != 0
    assert b"not permitted" in pod.output(container)[1]
    missing = pb.SecurityProfile(profile_type=pb.SecurityProfile.Localhost, localhost_ref="/nonexistent.json")
    with refused("NOT_FOUND", "seccomp", "/nonexistent.json"):
        pod.create("true", linux=linux(seccomp=missing))


def test_mounts_are_there_and_read_only_when_asked(serve, pod, cri):
    folder = serve.root / "volume"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    (folder / "a").write_text("content\n")
    mounts = [pb.Mount(host_path=str(folder), container_path="/rw"),
              pb.Mount(host_path=str(folder), container_path="/ro", readonly=True),
              pb.Mount(host_path=str(folder / "a"), container_path="/etc/one.conf", readonly=True)]
    out = said(pod, cri, "sh", "-c", "cat /ro/a /etc/one.conf; echo new >/rw/b; echo x 2>/dev/null >/ro/c || echo refused", mounts=mounts)
    assert out == "content\ncontent\nrefused\n"
    assert (folder / "b").read_text() == "new\n"
    created = pod.create("true", mounts=mounts)
    assert [m.container_path for m in cri.status(created).mounts] == ["/rw", "/ro", "/etc/one.conf"]


def test_masked_and_read_only_paths(pod, cri):
    assert said(pod, cri, "sh", "-c", "cat /etc/passwd | wc -c; echo 1 2>/dev/null >/bin/x || echo refused",
                linux=linux(masked_paths=["/etc/passwd"], readonly_paths=["/bin"])) == "0\nrefused\n"


def test_environment_folder_and_arguments(pod, cri):
    out = said(pod, cri, "sh", "-c", 'printf "%s|" "$A" "$B" "$@"; pwd', "name", args=["one two", "$(x)"],
               env={"A": "line1\nline2", "B": "ü '\"$"}, working_dir="/var")
    assert out == "line1\nline2|ü '\"$|one two|$(x)|/var\n"
    missing = said(pod, cri, "pwd", working_dir="/made/for/me")
    assert missing == "/made/for/me\n"


def test_the_pod_has_its_name_and_its_resolver(serve, cri):
    pod = Pod(serve, cri, "named", host_network=False, dns_config=pb.DNSConfig(
        servers=["192.0.2.53"], searches=["a.example", "b.example"], options=["ndots:5"]))
    out = said(pod, cri, "sh", "-c", "hostname; cat /etc/resolv.conf")
    assert out.split("\n")[0] == "named"
    assert "nameserver 192.0.2.53" in out and "search a.example b.example" in out and "ndots:5" in out


def test_containers_of_a_pod_share_what_they_should(serve, cri):
    pod = Pod(serve, cri, "sharing", host_network=False)
    shared = pod.run("sh", "-c", "echo x >/dev/shm/seen; sleep 1000", linux=linux(pid=pb.POD))
    alone = pod.run("sleep", "1000")
    other = pod.run("sleep", "1000", linux=linux(pid=pb.POD))
    assert cri.exec_sync(other, "cat", "/dev/shm/seen").stdout == b"x\n"
    assert cri.exec_sync(alone, "cat", "/proc/1/cmdline").stdout == b"sleep\x001000\x00"
    assert cri.exec_sync(other, "ps").stdout.count(b"sleep 1000") >= 2
    assert cri.exec_sync(alone, "ps").stdout.count(b"sleep 1000") == 1
    names = [cri.exec_sync(c, "readlink", "/proc/self/ns/ipc").stdout for c in (shared, alone, other)]
    assert len(set(names)) == 1


def test_a_terminal(pod, cri):
    container = pod.run("sh", "-c", "test -t 1 && echo yes; tty", tty=True)
    assert cri.wait_exit(container).exit_code == 0
    assert pod.output(container)[0].split() == [b"yes", b"/dev/pts/0"]


@pytest.mark.root_only("an ordinary user cannot make devices")
def test_devices(pod, cri):
    device = pb.Device(host_path="/dev/full", container_path="/dev/mine", permissions="rw")
    assert said(pod, cri, "sh", "-c", "test -c /dev/mine; echo x 2>/dev/null >/dev/mine || echo full", devices=[device]) == "full\n"
    with refused("FAILED_PRECONDITION", "devices", "/dev/none"):
        pod.create("true", devices=[pb.Device(host_path="/dev/none", container_path="/dev/none", permissions="r")])


def test_nothing_of_ours_is_in_the_container(pod, cri):
    out = said(pod, cri, "sh", "-c", "env; ls /proc/self/fd")
    assert "INTERLINK" not in out
    assert out.split("\n")[-5:-1] == ["0", "1", "2", "3"]  # 3: ls itself reads the folder


def test_a_field_nobody_can_honour_is_named(pod, cri):
    with refused("FAILED_PRECONDITION", "apparmor"):
        pod.create("true", linux=linux(apparmor=pb.SecurityProfile(
            profile_type=pb.SecurityProfile.Localhost, localhost_ref="localhost/none")))
    config = container_config("x", BUSYBOX, "true", mounts=[pb.Mount(host_path="/nonexistent/file", container_path="relative")])
    with refused("INVALID_ARGUMENT", "mounts"):
        pod.cri.create(pod.id, config, pod.config)


def test_a_container_cannot_end_its_pod_by_a_signal(serve, cri):
    pod = Pod(serve, cri, "attacked", host_network=False)
    other = pod.run("sleep", "1000")
    container = pod.run("sh", "-c", "for s in TERM INT KILL; do kill -$s 1; done; sleep 1000", linux=linux(pid=pb.POD))
    cri.exec_sync(container, "sleep", "0.5")
    assert cri.sandbox_status(pod.id).state == pb.SANDBOX_READY
    assert cri.status(other).state == pb.CONTAINER_RUNNING
