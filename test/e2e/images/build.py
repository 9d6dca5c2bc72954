# SPDX-License-Identifier: Apache-2.0
"""Small images, made in memory."""
import gzip
import hashlib
import io
import json
import os
import tarfile

OCI = {
    "manifest": "application/vnd.oci.image.manifest.v1+json",
    "index": "application/vnd.oci.image.index.v1+json",
    "config": "application/vnd.oci.image.config.v1+json",
    "layer": "application/vnd.oci.image.layer.v1.tar",
    "gzip": "+gzip", "zstd": "+zstd", "none": "",
}
DOCKER = {
    "manifest": "application/vnd.docker.distribution.manifest.v2+json",
    "index": "application/vnd.docker.distribution.manifest.list.v2+json",
    "config": "application/vnd.docker.container.image.v1+json",
    "layer": "application/vnd.docker.image.rootfs.diff.tar",
    "gzip": ".gzip", "zstd": ".zstd", "none": "",
}


def blob_digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def zstd(data):
    """One frame of raw blocks (RFC 8878): no compressor needed."""
    out = [b"\x28\xb5\x2f\xfd\xa0", len(data).to_bytes(4, "little")]
    pieces = [data[i:i + 65536] for i in range(0, len(data), 65536)] or [b""]
    for i, piece in enumerate(pieces):
        out.append((len(piece) << 3 | (i == len(pieces) - 1)).to_bytes(3, "little") + piece)
    return b"".join(out)


def tar(files):
    """{"path": b"content" | "text" | None (a folder) | ("link", target) | TarInfo}"""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as t:
        for name, value in files.items():
            if isinstance(value, tarfile.TarInfo):
                t.addfile(value)
                continue
            info = tarfile.TarInfo(name)
            info.mtime = 1000000000
            if value is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                t.addfile(info)
            elif isinstance(value, tuple):
                info.type, info.linkname = tarfile.SYMTYPE, value[1]
                t.addfile(info)
            else:
                data = value.encode() if isinstance(value, str) else value
                info.size, info.mode = len(data), 0o644
                t.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Image:
    """layers: file lists as tar() takes them, or whole plain tar archives."""

    def __init__(self, layers, compression="gzip", types=OCI, platform=None, diff_ids=None, **config):
        plain = [layer if isinstance(layer, bytes) else tar(layer) for layer in layers]
        pack = {"gzip": lambda b: gzip.compress(b, mtime=0), "zstd": zstd, "none": lambda b: b}[compression]
        self.layers = [pack(p) for p in plain]
        self.plain = plain
        self.types = types
        self.platform = platform or {"os": "linux", "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]}
        self.config = json.dumps({
            **self.platform, "created": "2026-01-01T00:00:00Z", "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids or [blob_digest(p) for p in plain]},
        }, sort_keys=True).encode()
        self.manifest_dict = {
            "schemaVersion": 2, "mediaType": types["manifest"],
            "config": self.descriptor(types["config"], self.config),
            "layers": [self.descriptor(types["layer"] + types[compression], b) for b in self.layers],
        }

    @staticmethod
    def descriptor(media_type, data):
        return {"mediaType": media_type, "size": len(data), "digest": blob_digest(data)}

    @property
    def manifest(self):
        return json.dumps(self.manifest_dict, sort_keys=True).encode()

    @property
    def id(self):
        return blob_digest(self.config)

    @property
    def digest(self):
        return blob_digest(self.manifest)

    @property
    def size(self):
        return len(self.manifest) + len(self.config) + sum(map(len, self.layers))

    @property
    def blobs(self):
        return {blob_digest(b): b for b in [self.config, *self.layers]}

    @property
    def diff_ids(self):
        return [blob_digest(p) for p in self.plain]


def index(images, types=OCI, extra=()):
    """A manifest list; returns its text."""
    return json.dumps({
        "schemaVersion": 2, "mediaType": types["index"],
        "manifests": [{**Image.descriptor(i.types["manifest"], i.manifest), "platform": i.platform} for i in images] + list(extra),
    }, sort_keys=True).encode()


def _layout_files(images):
    """{"name": image} -> the files of an OCI layout."""
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    entries = []
    for name, image in images.items():
        files["blobs/sha256/" + image.digest[7:]] = image.manifest
        for digest, data in image.blobs.items():
            files["blobs/sha256/" + digest[7:]] = data
        key = "io.containerd.image.name" if "/" in name else "org.opencontainers.image.ref.name"
        entries.append({**Image.descriptor(image.types["manifest"], image.manifest), "annotations": {key: name} if name else {}})
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    return files


def oci_layout(path, images):
    for name, data in _layout_files(images).items():
        target = os.path.join(path, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as f:
            f.write(data)
    return path


def oci_archive(path, images):
    with open(path, "wb") as f:
        f.write(tar(_layout_files(images)))
    return path


def docker_archive(path, images, links=True):
    """What `docker save` wrote before version 25: {("name:tag", ...): image}. With links: equal layers are links to the first."""
    files, manifest, seen = {}, [], {}
    for n, (tags, image) in enumerate(images.items()):
        names = []
        for k, plain in enumerate(image.plain):
            name = f"{n}{k}/layer.tar"
            if links and plain in seen:
                files[name] = ("link", "../" + seen[plain])
            else:
                files[name] = plain
                seen[plain] = name
            names.append(name)
        config = image.id[7:] + ".json"
        files[config] = image.config
        manifest.append({"Config": config, "RepoTags": list(tags) or None, "Layers": names})
    files["manifest.json"] = json.dumps(manifest).encode()
    with open(path, "wb") as f:
        f.write(tar(files))
    return path
