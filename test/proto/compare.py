#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Holds our .proto texts against the official contracts, element by element, in both directions.

    compare.py [--proto DIR]   compare (DIR is ../../proto unless given)
    compare.py --self-test     compare, then break copies of our texts in every way and see each one caught

proto/cri.proto must equal k8s.io/cri-api at NEWEST, and must still hold everything of OLDEST, the contract of
the oldest kubelet we serve. health.proto and reflection*.proto must equal what google.golang.org/grpc carries.
Comments, order and file options do not count; names, numbers, types, labels, JSON names, oneofs, map entries,
reserved and deprecated marks, enum values and methods do.

The official modules come through the Go module proxy, are pinned by their go.sum hash, and are kept in
${INTERLINK_CRI_CACHE:-${XDG_CACHE_HOME:-~/.cache}/interlink-cri}/go, so that one run with network is enough.

Needs protoc, python3-protobuf and, once, go. Exit: 0 equal, 1 different, 2 cannot run, 77 skipped (no network, no cache).
"""
import argparse
import ast
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

try:
    from google.protobuf import descriptor_pb2
except ImportError:
    print(f"compare.py: {sys.executable} has no protobuf module; install python3-protobuf and use /usr/bin/python3")
    sys.exit(2)

# (module, version, go.sum hash)
NEWEST = ("k8s.io/cri-api", "v0.37.2", "h1:UMvN3s6yoG3SVbxX9Mw6yVmVmaLwVAjy0hXUpJzXogo=")
OLDEST = ("k8s.io/cri-api", "v0.24.17", "h1:Bm2qSWLN+LCitIp0c+sqKLOEMUHT2LDUDprx6n4VFuQ=")
GRPC = ("google.golang.org/grpc", "v1.76.0", "h1:UnVkv1+uMLYXoIz6o7chp59WfQUYA2ex/BXQ9rHZu7A=")

CRI_FILE = "pkg/apis/runtime/v1/api.proto"
GRPC_FILES = {  # ours: where the module's generated Go code carries the encoded descriptor
    "health.proto": "health/grpc_health_v1/health.pb.go",
    "reflection.proto": "reflection/grpc_reflection_v1/reflection.pb.go",
    "reflection_v1alpha.proto": "reflection/grpc_reflection_v1alpha/reflection.pb.go",
}

F = descriptor_pb2.FieldDescriptorProto


class Skip(Exception):
    """Nothing cached and no way to fetch."""


class CannotRun(Exception):
    """A tool is missing or the pinned source is not what it was."""


# --- the official modules ---------------------------------------------------------------------------

def cache_folder():
    base = os.environ.get("INTERLINK_CRI_CACHE")
    if base:
        return Path(base) / "go"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "interlink-cri" / "go"


def module_hash(path):
    """go.sum's h1: a SHA-256 over the sorted lines "SHA256(file)  name" of all files in the zip."""
    with zipfile.ZipFile(path) as z:
        lines = [f"{hashlib.sha256(z.read(n)).hexdigest()}  {n}\n" for n in sorted(z.namelist())]
    return "h1:" + base64.b64encode(hashlib.sha256("".join(lines).encode()).digest()).decode()


def intact(path, want):
    try:
        return module_hash(path) == want
    except (OSError, zipfile.BadZipFile):
        return False


def module(pin):
    """The module's zip, from the cache or the proxy, verified either way."""
    name, version, want = pin
    kept = cache_folder() / f"{name.replace('/', '+')}@{version}.zip"
    if intact(kept, want):
        return kept
    go = shutil.which("go")
    if not go:
        raise Skip(f"{name} {version} is not cached in {kept.parent} and there is no go command to fetch it")
    with tempfile.TemporaryDirectory(prefix="cri-compare-") as tmp:
        Path(tmp, "go.mod").write_text("module scratch\n")
        # Our own pin is checked below, so the checksum database need not be reached as well.
        env = dict(os.environ, GOFLAGS="-mod=mod -modcacherw", GOSUMDB="off", GOTOOLCHAIN="local", GOWORK="off",
                   GOMODCACHE=os.path.join(tmp, "mod"))
        try:
            run = subprocess.run([go, "mod", "download", "-json", f"{name}@{version}"], cwd=tmp, env=env,
                                 capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            raise Skip(f"{name} {version} is not cached and the Go module proxy did not answer within 300 s") from None
        try:
            answer = json.loads(run.stdout)
        except ValueError:
            answer = {"Error": run.stderr.strip()}
        if "Zip" not in answer:
            raise Skip(f"{name} {version} is not cached and could not be fetched: {answer.get('Error', 'no reason')}")
        found = module_hash(answer["Zip"])
        if found != want:
            raise CannotRun(f"{name} {version} has the hash {found}, pinned is {want}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(f"{kept.name}.{os.getpid()}")
        shutil.copyfile(answer["Zip"], part)
        part.replace(kept)
    return kept


def member(pin, path):
    with zipfile.ZipFile(module(pin)) as z:
        return z.read(f"{pin[0]}@{pin[1]}/{path}").decode()


def without_foreign_options(text):
    """Takes out what only steers Go code or what protoc before 22 does not know. Neither reaches the wire."""
    text = re.sub(r'^import "[^"]*gogo\.proto";', "", text, flags=re.M)
    text = re.sub(r"^option \(gogoproto\.\w+\)\s*=[^;]*;", "", text, flags=re.M)
    return re.sub(r"\s*\[debug_redact\s*=\s*true\]", "", text)


def embedded_descriptor(go_text, path):
    """The FileDescriptorProto that protoc-gen-go writes into its output as a constant of string literals."""
    found = re.search(r"^const file_\w+_rawDesc = ((?:\s*\"(?:[^\"\\\n]|\\.)*\"\s*\+?)+)", go_text, flags=re.M)
    if not found:
        raise CannotRun(f"{path} carries no descriptor where it used to be")
    literals = re.findall(r"\"(?:[^\"\\\n]|\\.)*\"", found.group(1))
    return descriptor_pb2.FileDescriptorProto.FromString(b"".join(ast.literal_eval("b" + s) for s in literals))


# --- from text to elements ---------------------------------------------------------------------------

def compiled(text, name):
    protoc = os.environ.get("PROTOC") or shutil.which("protoc")
    if not protoc:
        raise CannotRun("there is no protoc; install protobuf-compiler")
    with tempfile.TemporaryDirectory(prefix="cri-compare-") as tmp:
        Path(tmp, name).write_text(text)
        run = subprocess.run([protoc, f"-I{tmp}", f"--descriptor_set_out={tmp}/set", name], capture_output=True, text=True)
        if run.returncode != 0:
            raise ValueError(run.stderr.strip())
        return descriptor_pb2.FileDescriptorSet.FromString(Path(tmp, "set").read_bytes()).file[0]


def type_of(field):
    if field.type_name:
        return field.type_name.lstrip(".")
    return F.Type.Name(field.type)[len("TYPE_"):].lower()


def ranges(descriptor):
    return sorted((r.start, r.end) for r in descriptor.reserved_range), sorted(descriptor.reserved_name)


def elements(file):
    """Each element of a contract: (kind, full name) -> {aspect: value}."""
    out = {("file", file.package): {"syntax": file.syntax}}

    def enum(e, scope):
        name = f"{scope}.{e.name}"
        out["enum", name] = {"deprecated": e.options.deprecated, "aliases": e.options.allow_alias, "reserved": ranges(e)}
        for v in e.value:
            out["value", f"{name}.{v.name}"] = {"number": v.number, "deprecated": v.options.deprecated}

    def message(m, scope):
        name = f"{scope}.{m.name}"
        out["message", name] = {"map entry": m.options.map_entry, "deprecated": m.options.deprecated, "reserved": ranges(m)}
        for f in m.field:
            out["field", f"{name}.{f.name}"] = {
                "number": f.number,
                "type": type_of(f),
                "label": F.Label.Name(f.label)[len("LABEL_"):].lower(),
                "explicit presence": f.proto3_optional,
                "oneof": m.oneof_decl[f.oneof_index].name if f.HasField("oneof_index") else None,
                "JSON name": f.json_name or None,
                "default": f.default_value,
                "packed": f.options.packed if f.options.HasField("packed") else None,
                "deprecated": f.options.deprecated,
            }
        for nested in m.nested_type:
            message(nested, name)
        for e in m.enum_type:
            enum(e, name)

    for m in file.message_type:
        message(m, file.package)
    for e in file.enum_type:
        enum(e, file.package)
    for s in file.service:
        name = f"{file.package}.{s.name}"
        out["service", name] = {"deprecated": s.options.deprecated}
        for m in s.method:
            out["method", f"{name}/{m.name}"] = {
                "request": m.input_type.lstrip("."),
                "response": m.output_type.lstrip("."),
                "client streams": m.client_streaming,
                "server streams": m.server_streaming,
                "deprecated": m.options.deprecated,
            }
    return out


# --- the comparison ----------------------------------------------------------------------------------

def successor(kind, name, theirs, ours):
    """What carries a missing element's number in ours: it was renamed."""
    number = theirs[kind, name].get("number")
    scope = name.rpartition(".")[0]
    for (k, n), aspects in ours.items():
        if k == kind and n.rpartition(".")[0] == scope and aspects.get("number") == number:
            return f"; its number {number} belongs to {n.rpartition('.')[2]}"
    return ""


def differences(ours, theirs, label, both_ways=True):
    """Lines that say what is not equal."""
    lines = []
    for kind, name in theirs.keys() - ours.keys():
        hint = successor(kind, name, theirs, ours) if kind in ("field", "value") else ""
        lines.append(f"{kind} {name}: in {label}, missing here{hint}")
    if both_ways:
        lines += [f"{kind} {name}: here, not in {label}" for kind, name in ours.keys() - theirs.keys()]
    for kind, name in ours.keys() & theirs.keys():
        a, b = ours[kind, name], theirs[kind, name]
        lines += [f"{kind} {name}: {aspect} is {a[aspect]} here, {b[aspect]} in {label}"
                  for aspect in b if a[aspect] != b[aspect]]
    return sorted(lines)


def same_wire(line):
    """A proto3 string that became bytes reads and writes the same bytes."""
    return re.search(r": type is bytes here, string in ", line) is not None


class Officials:
    """The official contracts, as elements."""

    def __init__(self):
        self.newest = elements(compiled(without_foreign_options(member(NEWEST, CRI_FILE)), "cri.proto"))
        self.oldest = elements(compiled(without_foreign_options(member(OLDEST, CRI_FILE)), "cri.proto"))
        self.grpc = {}
        for ours, path in GRPC_FILES.items():
            self.grpc[ours] = elements(embedded_descriptor(member(GRPC, path), path))


def check(file, text, officials):
    """(differences, notes, elements) for one of our files."""
    ours = elements(compiled(text, file))
    if file != "cri.proto":
        return differences(ours, officials.grpc[file], f"{GRPC[0]} {GRPC[1]}"), [], len(ours)
    bad = differences(ours, officials.newest, f"{NEWEST[0]} {NEWEST[1]}")
    notes = []
    for line in differences(ours, officials.oldest, f"{OLDEST[0]} {OLDEST[1]}", both_ways=False):
        (notes if same_wire(line) and not bad else bad).append(line)
    return bad, notes, len(ours)


# --- the self-test -----------------------------------------------------------------------------------

BREAKS = [  # (file, what is broken, text, replacement)
    ("cri.proto", "field number", "string image_id = 10;", "string image_id = 11;"),
    ("cri.proto", "field name", "string runtime_handler = 9;", "string handler = 9;"),
    ("cri.proto", "field number, the next free one", "string host_path = 2;  // symbolic", "string host_path = 12;  // symbolic"),
    ("cri.proto", "JSON name", "string log_directory = 3;", 'string log_directory = 3 [json_name = "logDir"];'),
    ("cri.proto", "scalar type", "int64 cpu_quota = 2;", "uint64 cpu_quota = 2;"),
    ("cri.proto", "integer width", "int32 exit_code = 7;", "int64 exit_code = 7;"),
    ("cri.proto", "message type", "SwapUsage swap = 5;", "IoUsage swap = 5;"),
    ("cri.proto", "bytes to string", "bytes value = 2;", "string value = 2;"),
    ("cri.proto", "label", "repeated PodIP additional_ips = 2;", "PodIP additional_ips = 2;"),
    ("cri.proto", "presence", "bool pinned = 8;", "optional bool pinned = 8;"),
    ("cri.proto", "map value", "map<string, string> sysctls = 3;", "map<string, bytes> sysctls = 3;"),
    ("cri.proto", "map to list", "map<string, string> unified = 9;", "repeated KeyValue unified = 9;"),
    ("cri.proto", "oneof", "LinuxContainerUser linux = 1;", "oneof os { LinuxContainerUser linux = 1; }"),
    ("cri.proto", "packing", "repeated int32 port = 2;", "repeated int32 port = 2 [packed = false];"),
    ("cri.proto", "deprecated mark", "string apparmor_profile = 9 [deprecated = true];", "string apparmor_profile = 9;"),
    ("cri.proto", "reserved range", "message PodIP {", "message PodIP { reserved 7;"),
    ("cri.proto", "field gone", "  uint32 cpu_group = 2;\n", ""),
    ("cri.proto", "field added", "  uint32 cpu_group = 2;\n", "  uint32 cpu_group = 2;\n  bool more = 3;\n"),
    ("cri.proto", "message added", "message GetEventsRequest {}", "message GetEventsRequest {}\nmessage More {}"),
    ("cri.proto", "enum value", "SIGNAL_SIGTERM = 23;", "SIGNAL_SIGTERM = 123;"),
    ("cri.proto", "enum value name", "Localhost = 2;", "LocalHost = 2;"),
    ("cri.proto", "enum value gone", "  SCTP = 2;\n", ""),
    ("cri.proto", "method gone", "  rpc Attach(AttachRequest) returns (AttachResponse);\n", ""),
    ("cri.proto", "method name", "rpc ImageFsInfo(", "rpc ImageFSInfo("),
    ("cri.proto", "request type", "rpc Exec(ExecRequest)", "rpc Exec(AttachRequest)"),
    ("cri.proto", "server streaming", "returns (stream ContainerEventResponse)", "returns (ContainerEventResponse)"),
    ("cri.proto", "client streaming", "rpc Status(StatusRequest)", "rpc Status(stream StatusRequest)"),
    ("cri.proto", "package", "package runtime.v1;", "package runtime.v1alpha2;"),
    ("health.proto", "enum value", "SERVICE_UNKNOWN = 3;", "SERVICE_UNKNOWN = 4;"),
    ("reflection.proto", "oneof member", "string list_services = 7;", "string list_services = 8;"),
    ("reflection_v1alpha.proto", "package", "grpc.reflection.v1alpha;", "grpc.reflection.v1;"),
]


def self_test(texts, officials):
    """Applies each break alone; returns the lines of those that nobody noticed."""
    missed = []
    for file, what, old, new in BREAKS:
        if texts[file].count(old) < 1:
            missed.append(f"{file}: {what}: the text to break is not there: {old!r}")
            continue
        try:
            bad, _, _ = check(file, texts[file].replace(old, new, 1), officials)
        except ValueError as error:
            missed.append(f"{file}: {what}: does not compile, so it proves nothing: {error}")
            continue
        if not bad:
            missed.append(f"{file}: {what}: not noticed")
    # Should the official contract itself drop what the oldest kubelets use, following it is not enough.
    text = texts["cri.proto"].replace("  string hostname = 2;       //", "  string host_name = 2;  //", 1)
    follower = Officials.__new__(Officials)
    follower.newest, follower.oldest, follower.grpc = elements(compiled(text, "cri.proto")), officials.oldest, officials.grpc
    bad, _, _ = check("cri.proto", text, follower)
    if not any("PodSandboxConfig.hostname" in line and "belongs to host_name" in line for line in bad):
        missed.append("cri.proto: renamed by a newer official contract: not noticed")
    return missed


# --- main ----------------------------------------------------------------------------------------------

def main():
    parser = argparse.ArgumentParser(description="compare our .proto texts with the official contracts")
    parser.add_argument("--proto", type=Path, default=Path(__file__).resolve().parents[2] / "proto", metavar="DIR")
    parser.add_argument("--self-test", action="store_true", help="also break copies of our texts and see it noticed")
    options = parser.parse_args()
    files = ["cri.proto", *GRPC_FILES]
    texts = {f: (options.proto / f).read_text() for f in files}
    officials = Officials()

    bad, notes, total = [], [], 0
    for file in files:
        try:
            lines, changed, count = check(file, texts[file], officials)
        except ValueError as error:
            lines, changed, count = [f"does not compile: {error}"], [], 0
        bad += [f"{file}: {line}" for line in lines]
        notes += [f"{file}: changed by the official contract since, same bytes on the wire: {line}" for line in changed]
        total += count
    for line in notes + bad:
        print(line)
    if bad:
        print(f"proto: {len(bad)} differences")
        return 1
    print(f"proto: {total} elements equal {NEWEST[0]} {NEWEST[1]} and {GRPC[0]} {GRPC[1]}; "
          f"all {len(officials.oldest)} of {OLDEST[0]} {OLDEST[1]} are there")
    if options.self_test:
        missed = self_test(texts, officials)
        for line in missed:
            print(line)
        print(f"proto self-test: {len(BREAKS) + 1 - len(missed)} of {len(BREAKS) + 1} breaks noticed")
        return 1 if missed else 0
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Skip as reason:
        print(f"proto: skipped: {reason}")
        sys.exit(77)
    except (CannotRun, OSError) as reason:
        print(f"proto: cannot run: {reason}")
        sys.exit(2)
