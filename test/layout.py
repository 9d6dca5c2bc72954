#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""layout.py: the rules of the source tree that a compiler does not hold. Run from the top; prints each breach.

 - interlink-cri.c includes every src/**/*.c exactly once, a folder after those that it uses
 - an include points to the same folder or one above it in ORDER, and generated messages are used from rpc on down
 - every file begins with its SPDX line; every header has an include guard made of its path
 - no file is longer than 700 lines, unless LONG says why
"""

import os
import re
import sys

# Reading order; a folder may use only itself and those before it.
ORDER = ["base", "text", "io", "http", "rpc", "image", "interlink", "kube", "agent", "plugin", "node", "cli"]

# Files that may be longer than MAX_LINES, each with its reason.
LONG = {}
MAX_LINES = 700

SPDX = "/* SPDX-License-Identifier: Apache-2.0 */"
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
GENERATED = re.compile(r"(\.pb-c\.[ch]|\.inc|^version\.h)$")

breaches = []


def breach(path, text):
    breaches.append(f"{path}: {text}")


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def sources():
    for folder, _, names in os.walk("src"):
        for name in names:
            if name.endswith((".c", ".h")):
                yield os.path.join(folder, name)


def folder_of(name):
    """The folder of a path relative to src, or None when it is not one of ours."""
    folder = name.split("/")[0]
    return folder if folder in ORDER and "/" in name else None


def check_file(path):
    text = read(path)
    lines = text.splitlines()
    mine = folder_of(path.removeprefix("src/"))
    if mine is None:
        breach(path, f"is in no folder of the design ({', '.join(ORDER)})")
        return
    if not lines or lines[0] != SPDX:
        breach(path, f"line 1 is not {SPDX}")
    if len(lines) > MAX_LINES and path not in LONG:
        breach(path, f"has {len(lines)} lines, more than {MAX_LINES}: split it, or list it in test/layout.py with a reason")
    if path in LONG and len(lines) <= MAX_LINES:
        breach(path, "is short enough: take it out of LONG in test/layout.py")
    if path.endswith(".h"):
        guard = re.sub(r"[^A-Z0-9]", "_", path.removeprefix("src/").upper())
        if f"#ifndef {guard}\n#define {guard}\n" not in text:
            breach(path, f"has no include guard {guard}")
    for name in INCLUDE.findall(text):
        if name.endswith(".c"):
            breach(path, f"includes {name}: only interlink-cri.c includes .c files")
        elif GENERATED.search(name):
            if name.endswith(".pb-c.h") and ORDER.index(mine) < ORDER.index("rpc"):
                breach(path, f"includes {name}: generated messages are used from rpc on down")
        elif folder_of(name) is None:
            breach(path, f'includes "{name}": write it relative to src, or with <> when it is not ours')
        elif not os.path.exists(os.path.join("src", name)):
            breach(path, f"includes {name}, which does not exist")
        elif ORDER.index(folder_of(name)) > ORDER.index(mine):
            breach(path, f"includes {name}: {mine} may not use {folder_of(name)}")


def check_root(root):
    text = read(root)
    if text.splitlines()[0] != SPDX:
        breach(root, f"line 1 is not {SPDX}")
    included = [name for name in INCLUDE.findall(text) if name.endswith(".c") and not GENERATED.search(name)]
    have = {path.removeprefix("src/") for path in sources() if path.endswith(".c")}
    for name in sorted(have - set(included)):
        breach(root, f"does not include {name}")
    for name in sorted(set(included)):
        if name not in have:
            breach(root, f"includes {name}, which does not exist")
        if included.count(name) > 1:
            breach(root, f"includes {name} {included.count(name)} times")
    places = [ORDER.index(folder_of(name)) for name in included if folder_of(name)]
    for before, after, name in zip(places, places[1:], included[1:]):
        if after < before:
            breach(root, f"includes {name} after a file of {ORDER[before]}: keep the folders in reading order")
    generated = {name for name in INCLUDE.findall(text) if name.endswith(".pb-c.c")}
    protos = {name[: -len(".proto")] + ".pb-c.c" for name in os.listdir("proto") if name.endswith(".proto")}
    for name in sorted(generated ^ protos):
        breach(root, f"{name} and proto/ do not agree: one has it, the other has not")


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    files = sorted(sources())
    for path in files:
        check_file(path)
    for path in LONG:
        if path not in files:
            breach(path, "is in LONG of test/layout.py and does not exist")
    check_root("interlink-cri.c")
    print("\n".join(breaches) or f"layout: {len(files)} files, no breach")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
