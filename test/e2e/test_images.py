# SPDX-License-Identifier: Apache-2.0
"""The image store against registries, good and bad, and archives on disk."""
import base64
import gzip
import json
import os
import random
import signal
import stat
import subprocess
import tarfile
import threading
import time

import pytest
from images import Driver, Image, Registry, blob_digest, docker_archive, oci_archive, oci_layout, tar
from images.build import DOCKER
from images.driver import Failed, build

RANDOM = os.urandom(3 << 20)  # does not compress


@pytest.fixture(scope="session")
def binary():
    return build()


@pytest.fixture
def registry():
    with Registry() as r:
        yield r


@pytest.fixture
def store(binary, tmp_path):
    with Driver(binary, tmp_path / "store") as d:
        yield d


def small(text="hello", **config):
    return Image([{"etc/name": text}, {"bin": None, "bin/app": "#!" + text}], **config)


def layer_file(store, image, n, name):
    with open(os.path.join(store.root, "layers", image.diff_ids[n][7:], name)) as f:
        return f.read()


# ---- pulling ----

@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("types", [None, DOCKER])
def test_pull(store, registry, compression, types):
    image = small(compression, compression=compression, User="1002", **({"types": types} if types else {}))
    name = registry.put("team/app", "v1", image)
    assert store.pull(name, annotation="a=b") == image.id
    got = store.images()
    assert got == [{"id": image.id, "tags": [name], "digests": [f"{registry.name}/team/app@{image.digest}"], "size": image.size,
                    "uid": 1002, "username": "", "pinned": False, "layers": image.diff_ids, "annotations": ["a", "b"]}]
    for text in (image.id, image.id[7:], image.id[7:20], name, f"{registry.name}/team/app@{image.digest}"):
        assert store.find(text) == got[0]
    for text in ("team/app:v1", image.id[7:15], name + "x", "sha256:" + "0" * 64, "sha256:", f"{registry.name}/team/other@{image.digest}"):
        assert store.find(text) is None
    assert layer_file(store, image, 1, "bin/app") == "#!" + compression
    assert json.loads(image.config) == store.command("config", name)
    store.settled(3, 2)
    assert all(os.stat(os.path.join(store.root, d)).st_mode & 0o77 == 0 for d in (".", "blobs", "layers", "images"))


def test_users(store, registry):
    for n, (user, uid, name) in enumerate([("", -1, ""), ("1003:users", 1003, ""), ("www-data", -1, "www-data"),
                                            ("www-data:www-data", -1, "www-data"), ("0", 0, "")]):
        store.pull(registry.put("users", f"t{n}", small(str(n), User=user)))
        got = store.find(f"{registry.name}/users:t{n}")
        assert (got["uid"], got["username"]) == (uid, name)


def test_names(store, registry):
    """One image, many names; a name that moves; a digest without tags."""
    one, two = small("one"), small("two")
    a, b = registry.put("a", "1", one), registry.put("b", "1", one)
    assert store.pull(a) == store.pull(b) == one.id
    assert [i["tags"] for i in store.images()] == [[a, b]]
    registry.put("a", "1", two)
    assert store.pull(a) == two.id
    by_id = {i["id"]: i for i in store.images()}
    assert by_id[one.id]["tags"] == [b]
    assert by_id[one.id]["digests"] == [f"{registry.name}/a@{one.digest}", f"{registry.name}/b@{one.digest}"]
    assert by_id[two.id]["tags"] == [a]
    three = small("three")
    registry.put("c", "1", three)
    assert store.pull(f"{registry.name}/c@{three.digest}") == three.id
    got = store.find(three.id)
    assert got["tags"] == [] and got["digests"] == [f"{registry.name}/c@{three.digest}"]
    # With a tag beside it the digest counts.
    assert store.pull(f"{registry.name}/c:none@{three.digest}") == three.id
    assert store.find(three.id) == got


def test_again_costs_one_head(store, registry):
    name = registry.put("app", "latest", small())
    first = store.pull(name)
    registry.log.clear()
    assert store.pull(f"{registry.name}/app") == first
    assert [r["method"] for r in registry.log] == ["HEAD"]
    # A server without HEAD, or without the digest in it: the long way.
    registry.fail("manifests", method="HEAD", status=405)
    assert store.pull(name) == first
    registry.digest_header = False
    assert store.pull(name) == first
    # Something new under the name.
    registry.digest_header = True
    new = small("new")
    registry.put("app", "latest", new)
    assert store.pull(name) == new.id
    # What is known is not fetched again even if the store lost it: here a whole layer.
    os.unlink(os.path.join(store.root, "blobs/sha256", blob_digest(new.layers[0])[7:]))
    assert store.pull(name) == new.id
    assert os.path.exists(os.path.join(store.root, "blobs/sha256", blob_digest(new.layers[0])[7:]))


def test_shared_layers(store, registry):
    base = {"base": "x" * 100000}
    one, two = Image([base, {"a": "1"}]), Image([base, {"b": "2"}], compression="gzip")
    store.pull(registry.put("one", "1", one))
    before = store.command("usage")["bytes"]
    store.pull(registry.put("two", "1", two))
    assert len(registry.requests(blob_digest(one.layers[0]))) == 1
    assert store.command("usage")["bytes"] - before < 60000
    store.settled(5, 3)
    store.remove(f"{registry.name}/one:1")
    store.settled(3, 2)
    assert layer_file(store, two, 0, "base")
    store.remove(two.id)
    store.settled(0, 0)
    assert store.images() == []


def test_same_layer_twice(store, registry):
    layer = {"x": "1"}
    image = Image([layer, {"y": "2"}, layer])
    assert store.pull(registry.put("twice", "1", image)) == image.id
    assert store.find(image.id)["layers"] == image.diff_ids
    store.settled(3, 2)


def test_no_layers(store, registry):
    image = Image([])
    assert store.pull(registry.put("empty", "1", image)) == image.id
    store.settled(1, 0)


def test_platforms(store, registry):
    here = small("here")
    images = [Image([{"x": a}], platform={"os": o, "architecture": a}) for o, a in (("windows", "amd64"), ("linux", "s390x"))] + [here]
    attestation = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 5, "digest": "sha256:" + "1" * 64,
                   "platform": {"os": "unknown", "architecture": "unknown"}}
    name = registry.put_index("multi", "1", images, extra=[attestation])
    assert store.pull(name) == here.id
    got = store.find(name)
    top = blob_digest(registry.manifests["multi", "1"][1])
    assert got["digests"] == [f"{registry.name}/multi@{top}"]
    assert got["size"] == here.size + len(registry.manifests["multi", "1"][1])
    assert store.pull(name, platform="linux/s390x") == images[1].id
    with pytest.raises(Failed, match="no image for linux/riscv64; there is: windows/amd64, linux/s390x, linux/"):
        store.pull(name, platform="linux/riscv64")
    with pytest.raises(Failed, match="for windows, not for Linux"):
        store.pull(name, platform="windows/amd64")
    with pytest.raises(Failed, match="platform 'x'"):
        store.pull(name, platform="x")


def test_refused(store, registry):
    def put(tag, text, media_type=None):
        registry.put_manifest("bad", tag, json.dumps(text).encode() if not isinstance(text, bytes) else text,
                              media_type or "application/vnd.oci.image.manifest.v1+json")
        return f"{registry.name}/bad:{tag}"
    good = small()
    registry.put("bad", "good", good)
    with pytest.raises(Failed, match="INVALID_ARGUMENT: image reference 'Bad/x'|lower case"):
        store.pull("quay.io/Bad")
    with pytest.raises(Failed, match="NOT_FOUND: cannot pull 127.*404 Not Found .manifest unknown"):
        store.pull(f"{registry.name}/bad:none")
    with pytest.raises(Failed, match="schema 1"):
        store.pull(put("schema1", {"schemaVersion": 1}, "application/vnd.docker.distribution.manifest.v1+prettyjws"))
    with pytest.raises(Failed, match="both an image and an index"):
        store.pull(put("both", {**good.manifest_dict, "manifests": []}))
    with pytest.raises(Failed, match="JSON"):
        store.pull(put("json", b"{"))
    with pytest.raises(Failed, match="larger than|too large|more than"):
        store.pull(put("big", b" " * (5 << 20)))
    with pytest.raises(Failed, match="artifact of type application/vnd.cncf.helm"):
        store.pull(put("helm", {**good.manifest_dict, "config": {**good.manifest_dict["config"],
                                                                "mediaType": "application/vnd.cncf.helm.config.v1+json"}}))
    with pytest.raises(Failed, match="has 1 layers, but its configuration 2"):
        store.pull(put("fewer", {**good.manifest_dict, "layers": good.manifest_dict["layers"][:1]}))
    loop = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"}
    deepest = good.manifest
    for _ in range(6):
        deepest = json.dumps({**loop, "manifests": [{**Image.descriptor("x", deepest)}]}).encode()
        registry.put_manifest("bad", blob_digest(deepest), deepest, loop["mediaType"])
    with pytest.raises(Failed, match="nested"):
        store.pull(put("deep", deepest, loop["mediaType"]))
    wrong = Image([{"x": "1"}], diff_ids=["sha256:" + "2" * 64])
    with pytest.raises(Failed, match="DATA_LOSS.*configuration names"):
        store.pull(registry.put("bad", "diff", wrong))
    evil = Image([tar({"../../evil": "x"})])
    with pytest.raises(Failed, match="INVALID_ARGUMENT.*layer sha256:.*'..'"):
        store.pull(registry.put("bad", "evil", evil))
    assert store.images() == []
    assert not [f for f in store.files("layers") if ".tmp" in f and time.sleep(1) is None and f in store.files("layers")]


def test_wrong_content(store, registry):
    image = Image([{"x": RANDOM}])
    name = registry.put("app", "1", image)
    blob = blob_digest(image.layers[0])[7:]
    registry.fail(f"blobs/sha256:{blob}", corrupt=True)
    with pytest.raises(Failed, match=f"DATA_LOSS.*the blob sha256:{blob} that it sent is damaged"):
        store.pull(name)
    registry.fail(f"blobs/sha256:{blob}", short=1000)
    with pytest.raises(Failed, match="DATA_LOSS.*has 1000 bytes instead of"):
        store.pull(name)
    registry.fail(f"blobs/sha256:{blob}", body=RANDOM + RANDOM)
    with pytest.raises(Failed, match="longer|larger|more than"):
        store.pull(name)
    registry.fail("blobs/" + image.id, corrupt=True)
    with pytest.raises(Failed, match="DATA_LOSS.*configuration .* damaged"):
        store.pull(name)
    registry.fail("manifests/1", digest="sha256:" + "3" * 64)
    with pytest.raises(Failed, match="DATA_LOSS.*manifest that it sent is damaged"):
        store.pull(name)
    registry.fail(f"manifests/{image.digest}", corrupt=True)
    with pytest.raises(Failed, match="DATA_LOSS.*instead of sha256"):
        store.pull(f"{registry.name}/app@{image.digest}")
    registry.fail(f"blobs/sha256:{blob}", status=404)
    with pytest.raises(Failed, match="NOT_FOUND.*404"):
        store.pull(name)
    assert store.pull(name) == image.id


def test_broken_connections(store, registry):
    """A download goes on where it broke off."""
    image = Image([{"x": RANDOM}])
    name = registry.put("app", "1", image)
    blob = blob_digest(image.layers[0])
    registry.fail(f"blobs/{blob}", times=6, cut=400000)
    assert store.pull(name) == image.id
    ranges = [r["headers"].get("Range") for r in registry.requests(f"blobs/{blob}")]
    assert ranges[0] is None and all(r.startswith("bytes=") for r in ranges[1:]) and len(ranges) == 7
    # Without ranges it starts anew each time.
    registry.ranges = False
    other = Image([{"y": RANDOM}])
    name = registry.put("app", "2", other)
    registry.fail(f"blobs/{blob_digest(other.layers[0])}", times=2, cut=400000)
    assert store.pull(name) == other.id
    # And never without end: no progress is made here.
    registry.ranges = True
    registry.fail("manifests/3", times=99, reset=True)
    registry.put("app", "3", other)
    with pytest.raises(Failed, match="UNAVAILABLE"):
        store.pull(f"{registry.name}/app:3")


def test_overload(store, registry):
    image = small()
    name = registry.put("app", "1", image)
    registry.fail("manifests", status=429, headers={"Retry-After": "1"})
    registry.fail("manifests", status=503)
    registry.fail("blobs", times=2, status=500)
    start = time.monotonic()
    assert store.pull(name) == image.id
    assert 1.0 < time.monotonic() - start < 10
    registry.fail("manifests", status=429, headers={"Retry-After": "1000"})
    with pytest.raises(Failed, match="asks to wait 1000 s.*429"):
        store.pull(registry.put("app", "2", small("two")))


def test_redirects(store, registry, binary):
    with Registry(auth=None) as other:
        image = Image([{"x": RANDOM}])
        name = registry.put("app", "1", image)
        blob = blob_digest(image.layers[0])
        other.put("cdn", "1", image)
        registry.auth, registry.users = "basic", {"u": "p"}
        registry.fail(f"blobs/{blob}", times=9, redirect=f"{other.url}/v2/cdn/blobs/{blob}?signed=1")
        other.fail(f"blobs/{blob}", cut=500000)
        assert store.pull(name, user="u", password="p") == image.id
        got = other.requests("cdn")
        assert len(got) == 2 and got[1]["headers"]["Range"].startswith("bytes=")
        assert not any("Authorization" in r["headers"] for r in got)
        # Within the server, by a path; round in circles.
        two = Image([{"y": "1"}])
        registry.put("app", "2", two)
        registry.put("moved", "2", two)
        blob = blob_digest(two.layers[0])
        registry.fail(f"/app/blobs/{blob}", redirect=f"/v2/moved/blobs/{blob}")
        assert store.pull(f"{registry.name}/app:2", user="u", password="p") == two.id
        assert "Authorization" in registry.requests(f"moved/blobs/{blob}")[-1]["headers"]
        registry.put("app", "3", small("3"))
        registry.fail("manifests/3", times=99, redirect="/v2/app/manifests/3")
        with pytest.raises(Failed, match="redirects more than"):
            store.pull(f"{registry.name}/app:3", user="u", password="p")


# ---- logging in ----

def test_basic(store, registry):
    registry.auth, registry.users = "basic", {"user": "pass:word"}
    image = small()
    name = registry.put("private/app", "1", image)
    with pytest.raises(Failed, match="UNAUTHENTICATED.*wants a user name and password, and none were given"):
        store.pull(name)
    with pytest.raises(Failed, match="UNAUTHENTICATED.*does not take the credentials given"):
        store.pull(name, user="user", password="wrong")
    with pytest.raises(Failed, match="UNAUTHENTICATED.*not of that kind or not for it"):
        store.pull(name, user="user", password="pass:word", server="https://elsewhere.example/v1/")
    with pytest.raises(Failed, match="INVALID_ARGUMENT.*base64"):
        store.pull(name, auth="!!")
    with pytest.raises(Failed, match="INVALID_ARGUMENT.*user:password"):
        store.pull(name, auth=base64.b64encode(b"nocolon").decode())
    assert store.pull(name, auth=base64.b64encode(b"user:pass:word\0\0").decode()) == image.id
    assert store.pull(name, user="user", password="pass:word", server=registry.name) == image.id
    with open(store.log.name) as f:
        assert "pass:word" not in f.read()


def test_bearer(store, registry):
    registry.auth = "bearer"
    image = small()
    name = registry.put("team/app", "1", image)
    assert store.pull(name) == image.id  # a token for nobody in particular
    assert len(registry.requests("^/token")) == 1  # shared by all requests
    assert "scope=repository%3Ateam%2Fapp%3Apull" in registry.requests("^/token")[0]["path"]
    registry.users = {"user": "password"}
    two = registry.put("team/app", "2", small("two"))
    with pytest.raises(Failed, match="UNAUTHENTICATED.*token server.*401"):
        store.pull(two)
    with pytest.raises(Failed, match="UNAUTHENTICATED.*incorrect username or password"):
        store.pull(two, user="user", password="wrong")
    store.pull(two, user="user", password="password")
    # An identity token is exchanged by OAuth's POST; a password without a user is one, too.
    registry.refresh_tokens["refresh me"] = True
    store.pull(registry.put("team/app", "3", small("three")), identity="refresh me")
    store.pull(registry.put("team/app", "4", small("four")), password="refresh me")
    posts = registry.requests("^/token", "POST")
    assert len(posts) == 2 and posts[0]["form"]["service"] == ["tests"]
    with pytest.raises(Failed, match="UNAUTHENTICATED.*incorrect token"):
        store.pull(registry.put("team/app", "5", small("five")), identity="wrong")
    # A server without POST, and a user beside the token: the older way.
    registry.oauth = False
    store.pull(registry.put("team/app", "6", small("six")), identity="x", user="user", password="password")
    # A registry token is used as it is.
    registry.given_tokens.add(("given", "team/app"))
    registry.log.clear()
    store.pull(registry.put("team/app", "7", small("seven")), token="given")
    assert not registry.requests("^/token")
    with pytest.raises(Failed, match="UNAUTHENTICATED"):
        store.pull(registry.put("team/app", "8", small("eight")), token="not given")
    # The token server is overloaded for a while.
    registry.fail("^/token", status=503)
    store.pull(registry.put("team/app", "9", small("nine")), user="user", password="password")


def test_token_expires(store, registry):
    registry.auth = "bearer"
    image = Image([{"x": RANDOM}])
    name = registry.put("app", "1", image)
    registry.fail(f"blobs/{blob_digest(image.layers[0])}", times=3, cut=300000)
    registry.fail(f"blobs/{blob_digest(image.layers[0])}", times=1, rate=2 << 20)

    def expire():
        time.sleep(0.7)
        registry.given_tokens.clear()
    threading.Thread(target=expire).start()
    assert store.pull(name) == image.id


# ---- mirrors ----

def test_mirror(store, registry):
    image = small()
    registry.put("library/app", "1", image)
    assert store.pull("app:1", mirror=f"docker.io={registry.url}") == image.id
    assert store.images()[0]["tags"] == ["docker.io/library/app:1"]
    assert registry.log[0]["path"].endswith("?ns=docker.io")


def test_hosts_toml(store, registry, tmp_path):
    """A mirror that is down, one that has nothing, one that has it; and only digests from some."""
    certs = tmp_path / "certs.d"
    (certs / "registry.example").mkdir(parents=True)
    hosts = certs / "registry.example" / "hosts.toml"
    image = small()
    with Registry() as empty:
        hosts.write_text(f'''server = "{registry.url}"
[host."http://127.0.0.1:1"]
[host."{empty.url}"]
  capabilities = ["pull"]
[host."{registry.url}/v2/sub"]
  override_path = true
  [host."{registry.url}/v2/sub".header]
    x-site = "hpc"
''')
        registry.put("sub/app", "1", image)
        assert store.pull("registry.example/app:1", certs=certs) == image.id
        assert not empty.requests("manifests")  # it may not resolve
        assert len(empty.requests("blobs")) == 3  # asked first, and 404
        assert all(r["headers"]["x-site"] == "hpc" for r in registry.requests("/sub/"))
        with pytest.raises(Failed, match="NOT_FOUND.*127.0.0.1:1: .*; 127.0.0.1:.*404"):
            store.pull("registry.example/none:1", certs=certs)
    hosts.write_text('server = \n')
    with pytest.raises(Failed, match="hosts.toml:1:"):
        store.pull("registry.example/app:1", certs=certs)


def test_damaged_mirror(store, registry, tmp_path):
    """What one server has damaged, the next one may have whole."""
    certs = tmp_path / "certs.d"
    (certs / "_default").mkdir(parents=True)
    image = Image([{"x": RANDOM}])
    with Registry() as bad:
        (certs / "_default" / "hosts.toml").write_text(f'server = "{registry.url}"\n[host."{bad.url}"]\n')
        for r in (bad, registry):
            r.put("app", "1", image)
        bad.fail("blobs", times=9, corrupt=True)
        assert store.pull("any.example/app:1", certs=certs) == image.id
        assert bad.requests("blobs") and registry.requests("blobs")


def certificate(folder, name):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem",
                    "-out", folder / "cert.pem"], check=True, capture_output=True)
    return str(folder / "cert.pem"), str(folder / "key.pem")


def test_tls(store, tmp_path):
    cert, key = certificate(tmp_path, "tests")
    image = small()
    with Registry(tls=(cert, key)) as r:
        name = r.put("app", "1", image)
        # On loopback plain http is tried first and https then; its certificate is unknown.
        with pytest.raises(Failed, match="(?i)certificate"):
            store.pull(name)
        certs = tmp_path / "certs.d"
        (certs / r.name).mkdir(parents=True)
        (certs / r.name / "hosts.toml").write_text(f'server = "{r.url}"\nca = "{cert}"\n')
        assert store.pull(name, certs=certs) == image.id
        (certs / r.name / "hosts.toml").write_text(f'server = "{r.url}"\nskip_verify = true\n')
        assert store.pull(r.put("app", "2", small("2")), certs=certs)
        (certs / r.name / "hosts.toml").write_text(f'server = "{r.url}"\nca = "/nonexistent"\n')
        with pytest.raises(Failed, match="authorities for 127.*nonexistent"):
            store.pull(name, certs=certs)
        # Docker's way: a certificate in the folder.
        (certs / r.name / "hosts.toml").unlink()
        os.symlink(cert, certs / r.name / "ca.crt")
        assert store.pull(r.put("app", "3", small("3")), certs=certs)


# ---- time ----

def test_deadline(store, registry):
    image = Image([{"x": RANDOM}])
    name = registry.put("app", "1", image)
    for timeout in ("0", "1"):
        with pytest.raises(Failed, match="DEADLINE_EXCEEDED"):
            store.pull(name, timeout=timeout)
    registry.fail("blobs/" + blob_digest(image.layers[0]), rate=500000)
    with pytest.raises(Failed, match="DEADLINE_EXCEEDED.*of [0-9]* bytes have come"):
        store.pull(name, timeout="1000")
    # What came is kept for the next try.
    assert store.pull(name) == image.id
    assert registry.requests("blobs/" + blob_digest(image.layers[0]))[-1]["headers"]["Range"].startswith("bytes=")


def test_cancel(store, registry):
    image = Image([{"x": RANDOM}])
    name = registry.put("app", "1", image)
    registry.fail("blobs", times=9, rate=100000)
    tag = store.start_pull(name)
    time.sleep(0.5)
    store.command("cancel", tag)
    time.sleep(0.3)
    assert not any(map(alive, children(store.process.pid)))
    registry.faults.clear()
    assert store.pull(name) == image.id


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return f.read().split()


def test_two_at_once(store, registry):
    """Jobs that want the same blobs get them once, whether they pull one image or two that share layers."""
    base = {"x": RANDOM}
    one, two = Image([base, {"a": "1"}]), Image([base, {"b": "1"}])
    names = [registry.put("one", "1", one), registry.put("one", "1", one), registry.put("two", "1", two)]
    registry.fail("blobs/" + blob_digest(one.layers[0]), times=9, rate=4 << 20)
    tags = [store.start_pull(n) for n in names]
    assert [store.wait(t)["id"] for t in tags] == [one.id, one.id, two.id]
    assert len(registry.requests("blobs/" + blob_digest(one.layers[0]))) == 1
    store.settled(5, 3)


def test_many_times_two_at_once(store, registry):
    """Small images, so that the jobs meet at every step."""
    for i in range(25):
        base = {"x": os.urandom(2000)}
        images = [Image([base, {"a": str(i)}]), Image([base, {"b": str(i)}])]
        names = [registry.put("a", str(i), images[0])] * 2 + [registry.put("b", str(i), images[1])]
        tags = [store.start_pull(n) for n in names]
        assert [store.wait(t)["id"] for t in tags] == [images[0].id, images[0].id, images[1].id]
    store.settled(25 * 5, 25 * 3)


def test_second_goes_on_when_the_first_is_cancelled(store, registry):
    image = Image([{"x": RANDOM}])
    name = registry.put("app", "1", image)
    blob = "blobs/" + blob_digest(image.layers[0])
    registry.fail(blob, rate=1 << 20)
    first = store.start_pull(name)
    time.sleep(0.6)
    second = store.start_pull(name)
    time.sleep(0.3)
    store.command("cancel", first)
    assert store.wait(second)["id"] == image.id
    assert registry.requests(blob)[-1]["headers"]["Range"].startswith("bytes=")


def test_many_wait(store, registry):
    images = [small(str(i)) for i in range(12)]
    tags = [store.start_pull(registry.put("app", str(i), image)) for i, image in enumerate(images)]
    assert [store.wait(t)["id"] for t in tags] == [i.id for i in images]
    assert len(store.images()) == 12


def test_progress(store, registry):
    name = registry.put("app", "1", Image([{"x": RANDOM}]))
    registry.fail("blobs", times=9, rate=4 << 20)
    assert store.wait(store.start_pull(name))["progress"] >= 3


# ---- removing, holding ----

def test_remove(store, registry):
    image = small()
    name = registry.put("app", "1", image)
    store.pull(name)
    store.remove("none/such")
    store.remove(image.id[7:30])  # an id must be whole to be removed
    assert len(store.images()) == 1
    store.remove(name)
    store.remove(name)
    assert store.images() == []
    assert store.find(image.id) is None
    store.settled(0, 0)
    assert store.files("images") == []
    assert store.pull(name) == image.id


def test_remove_while_pulling(store, registry):
    """What a pull under way relies on stays, even if its last image is removed meanwhile."""
    base = {"x": RANDOM}
    one, two = Image([base]), Image([base, {"y": RANDOM}])
    store.pull(registry.put("one", "1", one))
    name = registry.put("two", "1", two)
    registry.fail("blobs/" + blob_digest(two.layers[1]), rate=2 << 20)
    tag = store.start_pull(name)
    time.sleep(0.5)
    store.remove(one.id)
    assert store.wait(tag)["id"] == two.id
    assert len(registry.requests("blobs/" + blob_digest(one.layers[0]))) == 1
    store.settled(3, 2)


def test_hold(binary, registry, tmp_path):
    image = small()
    name = registry.put("app", "1", image)
    with Driver(binary, tmp_path / "store") as store:
        store.pull(name)
        store.command("hold", image.id, "container1")
        store.command("hold", image.id, "container1")
        store.remove(image.id)
        assert store.images() == []
        time.sleep(0.3)
        assert len(store.files("layers")) == 4
        with pytest.raises(Failed, match="NOT_FOUND"):
            store.command("hold", "sha256:" + "0" * 64, "x")
    with Driver(binary, tmp_path / "store", start=False) as store:
        store.command("hold", image.id, "container1")
        store.command("start")
        assert store.images() == []
        time.sleep(0.3)
        assert len(store.files("layers")) == 4
        store.pull(name)  # it comes back as if it were new
        assert [i["tags"] for i in store.images()] == [[name]]
        store.remove(name)
        store.command("release", "container1")
        store.settled(0, 0)
    with Driver(binary, tmp_path / "store", start=False) as store:
        store.command("start")
        store.pull(name)
        store.command("hold", image.id, "gone")
        store.remove(name)
    with Driver(binary, tmp_path / "store", start=False) as store:  # nobody holds it any more
        store.command("start")
        store.settled(0, 0)
        assert store.files("images") == []


# ---- crashes ----

def test_survives_kill(binary, registry, tmp_path):
    names = [registry.put("app", str(i), small(str(i))) for i in range(3)]
    store = Driver(binary, tmp_path / "store")
    for name in names:
        store.pull(name)
    before = store.images()
    store.kill()
    with Driver(binary, tmp_path / "store") as store:
        assert store.images() == before


def test_killed_while_pulling(binary, registry, tmp_path):
    image = Image([{"x": RANDOM}, {"y": "1"}])
    name = registry.put("app", "1", image)
    registry.fail("blobs/" + blob_digest(image.layers[0]), rate=1 << 20)
    store = Driver(binary, tmp_path / "store")
    store.start_pull(name)
    time.sleep(0.7)
    pids = children(store.process.pid)
    assert pids
    store.kill()
    time.sleep(0.2)
    assert not any(map(alive, pids))  # it does not outlive its owner
    with Driver(binary, tmp_path / "store") as store:
        store.settled(0, 0)
        assert store.pull(name) == image.id


def test_child_killed(store, registry):
    """The child of a pull dies of itself: an error, and the next try goes on."""
    image = Image([{"x": RANDOM}])
    name = registry.put("app", "1", image)
    registry.fail("blobs/" + blob_digest(image.layers[0]), rate=1 << 20)
    tag = store.start_pull(name)
    time.sleep(0.6)
    for pid in children(store.process.pid):
        os.kill(int(pid), signal.SIGKILL)
    with pytest.raises(Failed, match="INTERNAL.*ended by signal 9"):
        store.wait(tag)
    assert store.pull(name) == image.id


def test_kill_loop(binary, registry, tmp_path):
    """Killed at any moment of a loop of pulls and removals: what was answered holds, and nothing is half there."""
    dice = random.Random(1)
    base = {"base": RANDOM[:200000]}
    images = {registry.put("loop", str(i), im): im for i, im in enumerate(Image([base, {"n": str(i)}]) for i in range(6))}
    present, doubtful = set(), None
    for turn in range(60):
        store = Driver(binary, tmp_path / "store")
        listed = {t for i in store.images() for t in i["tags"]}
        assert listed - {doubtful} == present - {doubtful}, turn
        assert store.files("set-aside") == []
        present, doubtful = listed, None
        for _ in range(dice.randrange(4)):
            name = dice.choice(list(images))
            if dice.random() < 0.6:
                assert store.pull(name) == images[name].id
                present.add(name)
            else:
                store.remove(name)
                present.discard(name)
        doubtful = dice.choice(list(images))
        if dice.random() < 0.7:
            store.start_pull(doubtful)
        else:
            store.send("remove", doubtful)
        time.sleep(dice.random() * 0.06)
        store.kill()
    with Driver(binary, tmp_path / "store") as store:
        listed = {t for i in store.images() for t in i["tags"]}
        store.settled(len(listed) * 2 + bool(listed), len(listed) + bool(listed))
        for name in listed:
            assert layer_file(store, images[name], 1, "n") == name[-1]


def test_bad_records(binary, registry, tmp_path):
    images = [small(str(i)) for i in range(5)]
    with Driver(binary, tmp_path / "store") as store:
        for i, image in enumerate(images):
            store.pull(registry.put("app", str(i), image))
    records = tmp_path / "store" / "images"
    path = [records / i.id[7:] for i in images]
    path[0].write_bytes(path[0].read_bytes()[:-10])
    path[1].write_bytes(path[1].read_bytes().replace(b"app:1", b"app:9"))
    path[2].rename(records / ("a" * 64))
    (records / "garbage").write_bytes(b"\0\1\2" * 100)
    (records / "half.tmp").write_bytes(b"x")
    (tmp_path / "store" / "layers" / images[3].diff_ids[0][7:]).rename(tmp_path / "elsewhere")
    with Driver(binary, tmp_path / "store") as store:
        assert [i["id"] for i in store.images()] == [images[4].id]
        assert store.files("set-aside") == sorted([i.id[7:] for i in (images[0], images[1], images[3])] + ["a" * 64, "garbage"])
        store.settled(3, 2)
        for i, image in enumerate(images):
            assert store.pull(f"{registry.name}/app:{i}") == image.id
    with open(tmp_path / "store.log") as f:
        text = f.read()
    assert text.count("is set aside") == 5 and "checksum is wrong" in text and "a layer is gone" in text


def test_one_owner(binary, tmp_path):
    with Driver(binary, tmp_path / "store"):
        with pytest.raises(Failed, match="FAILED_PRECONDITION.*in use by another process"):
            Driver(binary, tmp_path / "store")


def test_disk_full(binary, registry, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs a small file system of its own")
    root = tmp_path / "store"
    root.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tests", root], capture_output=True).returncode != 0:
        pytest.skip("cannot mount")
    try:
        with Driver(binary, root) as store:
            with pytest.raises(Failed, match="RESOURCE_EXHAUSTED.*No space left"):
                store.pull(registry.put("big", "1", Image([{"x": RANDOM}])))
            with pytest.raises(Failed, match="RESOURCE_EXHAUSTED.*No space left"):
                store.pull(registry.put("zeros", "1", Image([{"x": b"\0" * (3 << 20)}])))
            store.settled(0, 0)
            ok = small()
            assert store.pull(registry.put("small", "1", ok)) == ok.id
            assert store.command("usage")["mountpoint"] == str(root)
    finally:
        subprocess.run(["umount", "-l", root], check=True)


def test_usage(store, registry):
    store.pull(registry.put("app", "1", Image([{f"f{i}": RANDOM[:5000 * i] for i in range(50)}, {"x": "y"}])))
    store.pull(registry.put("app", "2", Image([{"big": RANDOM}])))
    usage = store.command("usage")
    blocks = inodes = 0
    for folder in ("blobs/sha256", "layers", "images"):
        for path, dirs, files in os.walk(os.path.join(store.root, folder)):
            for name in dirs + files:
                blocks += os.lstat(os.path.join(path, name)).st_blocks * 512
                inodes += 1
    assert abs(usage["bytes"] - blocks) < 0.02 * blocks
    assert abs(usage["inodes"] - inodes) <= 2
    assert os.path.ismount(usage["mountpoint"])


# ---- an ordinary user ----

def test_as_user(binary, registry, tmp_path):
    """Everything is the user's and can be read and removed by it, whatever the archive says."""
    if os.geteuid() != 0:
        pytest.skip("the other tests are run by one already")
    for folder in [tmp_path, *tmp_path.parents][:-1]:
        if folder.stat().st_uid == 0 and str(folder) != "/tmp":
            folder.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)

    def entry(name, kind=tarfile.REGTYPE, mode=0o644, uid=1234):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.uid, info.gid = kind, mode, uid, uid
        return info
    device = entry("dev/null", tarfile.CHRTYPE, 0o666)
    device.devmajor, device.devminor = 1, 3
    first = {"locked": entry("locked", tarfile.DIRTYPE, 0), "locked/secret": entry("locked/secret", mode=0),
             "su": entry("su", mode=0o4755), "dev/null": device, "gone": "1", "folder/old": "1"}
    image = Image([first, {".wh.gone": "", "folder/.wh..wh..opq": "", "folder/new": "2"}])
    name = registry.put("app", "1", image)
    with Driver(binary, home / "store", user=65534) as store:
        assert store.pull(name) == image.id
        lower, upper = (os.path.join(store.root, "layers", d[7:]) for d in image.diff_ids)
        for path, dirs, files in os.walk(lower):
            assert all(os.lstat(os.path.join(path, f)).st_uid == 65534 for f in dirs + files)
        assert os.stat(lower + "/locked").st_mode & 0o7777 == 0o700
        assert os.stat(lower + "/locked/secret").st_mode & 0o7777 == 0o400
        assert os.stat(lower + "/su").st_mode & 0o7777 == 0o4755
        assert not os.path.exists(lower + "/dev/null")
        assert stat.S_ISCHR(os.stat(upper + "/gone").st_mode) and os.stat(upper + "/gone").st_rdev == 0
        assert os.getxattr(upper + "/folder", "user.overlay.opaque") == b"y"
        with open(upper + ".info") as f:
            assert json.load(f)["form"] == "user"
        # The kernel takes it as it is.
        mount = f"lowerdir={upper}:{lower},userxattr"
        merged = tmp_path / "merged"
        merged.mkdir()
        done = subprocess.run(["unshare", "-m", "sh", "-c", f"mount -t overlay -o {mount} none {merged} && ls {merged} {merged}/folder"],
                              capture_output=True, text=True)
        if done.returncode == 0:
            assert done.stdout.split() == [f"{merged}:", "dev", "folder", "locked", "su", f"{merged}/folder:", "new"]
        store.remove(name)
        store.settled(0, 0)


def test_overlay(store, registry, tmp_path):
    """As root: what overlayfs makes of the layers is what the image means."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    image = Image([{"gone": "1", "folder/old": "1", "swap/x": "1", "file": "1"},
                   {".wh.gone": "", "folder/.wh..wh..opq": "", "folder/new": "2", ".wh.swap": "", "swap/y": "2", "file/z": "2"}])
    store.pull(registry.put("app", "1", image))
    lower, upper = (os.path.join(store.root, "layers", d[7:]) for d in image.diff_ids)
    merged = tmp_path / "merged"
    merged.mkdir()
    done = subprocess.run(["unshare", "-m", "sh", "-c", f"mount -t overlay -o lowerdir={upper}:{lower} none {merged} && cd {merged} && "
                           "find . -type f | sort"], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(done.stderr)
    assert done.stdout.split() == ["./file/z", "./folder/new", "./swap/y"]


# ---- loading ----

def test_load_layout(store, tmp_path):
    one, two = small("one"), small("two", compression="zstd")
    path = oci_layout(tmp_path / "layout", {"registry.example/one:1": one, "quay.io/two:2": two})
    assert store.load(path) == [one.id, two.id]
    assert {i["id"]: i["tags"] for i in store.images()} == {one.id: ["registry.example/one:1"], two.id: ["quay.io/two:2"]}
    assert store.find(two.id)["digests"] == [f"quay.io/two@{two.digest}"]
    assert layer_file(store, two, 0, "etc/name") == "two"
    store.settled(6, 4)


@pytest.mark.parametrize("packed", [False, True])
def test_load_archive(store, tmp_path, packed):
    image = small()
    path = oci_archive(tmp_path / "image.tar", {"v1.0": image})
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert store.load(path) == [image.id]
    assert store.images()[0]["tags"] == []  # only a tag: no name
    assert store.load(path, base="quay.io/app") == [image.id]
    assert store.images()[0]["tags"] == ["quay.io/app:v1.0"]
    assert store.images()[0]["size"] == image.size
    store.settled(3, 2)


def test_load_docker_archive(store, tmp_path):
    base = {"base": RANDOM[:100000]}
    one, two = Image([base, {"a": "1"}], User="7"), Image([base, {"b": "2"}])
    path = docker_archive(tmp_path / "save.tar", {("app:1", "quay.io/app:1"): one, (): two})
    assert store.load(path) == [one.id, two.id]
    got = store.find("app:1")
    assert got["tags"] == ["docker.io/library/app:1", "quay.io/app:1"] and got["digests"] == [] and got["uid"] == 7
    assert got["size"] == len(one.config) + sum(map(len, one.plain))
    assert store.find(two.id)["tags"] == []
    assert layer_file(store, two, 1, "b") == "2"
    store.settled(5, 3)


def test_load_platforms(store, tmp_path):
    here, other = small("here"), Image([{"x": "1"}], platform={"os": "linux", "architecture": "s390x"})
    layout = oci_layout(tmp_path / "layout", {"quay.io/a:1": here})
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0]["platform"] = here.platform
    index["manifests"].append({**Image.descriptor(other.types["manifest"], other.manifest), "platform": other.platform,
                               "annotations": {"io.containerd.image.name": "quay.io/a:1"}})
    (layout / "index.json").write_text(json.dumps(index))
    assert store.load(layout) == [here.id]
    with pytest.raises(Failed, match="NOT_FOUND.*no image for this platform .2 entries"):
        store.load(layout, platform="linux/riscv64")


def test_load_refused(store, tmp_path):
    def bad(match, write):
        path = tmp_path / "bad"
        write(path)
        with pytest.raises(Failed, match=match):
            store.load(path)
        assert store.images() == []
        subprocess.run(["rm", "-rf", path], check=True)

    def change(path, name, text):
        oci_layout(path, {"quay.io/a:1": image})
        (path / name).write_bytes(text)
    image = small()
    blob = "blobs/sha256/" + blob_digest(image.layers[0])[7:]
    bad("No such file", lambda p: None)
    bad("tar archive", lambda p: p.write_bytes(b"garbage" * 100))
    bad("neither", lambda p: p.write_bytes(tar({"x": "1"})))
    bad("neither", lambda p: p.mkdir())
    bad("index.json.*JSON", lambda p: change(p, "index.json", b"{"))
    bad("damaged", lambda p: change(p, blob, b"other"))
    bad("damaged", lambda p: change(p, "blobs/sha256/" + image.digest[7:], b"{}"))
    bad("damaged", lambda p: change(p, "blobs/sha256/" + image.id[7:], b"{}"))

    def outside(path):
        (tmp_path / "secret").write_bytes(image.layers[0])
        oci_layout(path, {"quay.io/a:1": image})
        (path / blob).unlink()
        (path / blob).symlink_to(tmp_path / "secret")
    bad("no file", outside)
    evil = json.dumps([{"Config": "../../../../etc/passwd", "RepoTags": ["a:1"], "Layers": []}])
    bad("no file '../../../../etc/passwd'", lambda p: p.write_bytes(tar({"manifest.json": evil})))
    links = json.dumps([{"Config": "c", "RepoTags": ["a:1"], "Layers": ["l"]}])
    bad("no file 'l'", lambda p: p.write_bytes(tar({"manifest.json": links, "c": image.config, "l": ("link", "../../etc/passwd")})))
    bad("no file 'l'", lambda p: p.write_bytes(tar({"manifest.json": links, "c": image.config, "l": ("link", "l")})))
    bad("object", lambda p: p.write_bytes(tar({"manifest.json": "[1]"})))
    bad("array", lambda p: p.write_bytes(tar({"manifest.json": "{}"})))
    bad("'..'", lambda p: docker_archive(p, {("a:1",): Image([tar({"../x": "1"})])}))
    assert store.files("ingest") == []


# ---- the images of the conformance tests ----

def test_fixture(store, tmp_path):
    make = os.path.join(os.path.dirname(__file__), "../fixtures/images/make-images.sh")
    if not os.path.exists("/bin/busybox"):
        pytest.skip("needs busybox-static")
    subprocess.run(["bash", make, "build", tmp_path / "images"], check=True, capture_output=True)
    refs = json.loads((tmp_path / "images" / "refs.json").read_text())
    store.load(tmp_path / "images")
    tags = {t: i for i in store.images() for t in i["tags"]}
    assert sorted(tags) == sorted(refs)
    busybox = tags["registry.k8s.io/e2e-test-images/busybox:1.29-2"]
    layer = os.path.join(store.root, "layers", busybox["layers"][0][7:])
    assert os.stat(os.path.join(layer, "bin/ls")).st_ino == os.stat(os.path.join(layer, "bin/busybox")).st_ino
    nnp = tags["registry.k8s.io/e2e-test-images/nonewprivs:1.3"]
    assert os.stat(os.path.join(store.root, "layers", nnp["layers"][1][7:], "nnp")).st_mode & stat.S_ISUID
    assert len(tags["registry.k8s.io/pause:3.9"]["tags"]) == 2
