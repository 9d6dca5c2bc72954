#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""amalgamate.py ROOT OUT: write the program as one flat C file.

Every include of ours is replaced by the file's text, a header the first time only; what comes with <> (the C library and the
third-party libraries) stays an include. The result compiles to the same program as ROOT.
"""

import os
import re
import subprocess
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
FOLDERS = ("src", "build/gen")

# Generated messages are not written to our warnings.
QUIET = ("-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wmissing-prototypes", "-Wunused-const-variable", "-Wunused-parameter")


def find(name, where):
    """The path of an included file, or None when it is not ours. As the compiler does: beside the includer, then -I."""
    for folder in (os.path.dirname(where), *FOLDERS):
        path = os.path.normpath(os.path.join(folder, name))
        if os.path.exists(path):
            return path
    return None


def revision():
    if os.path.exists("REVISION"):
        return open("REVISION", encoding="utf-8").read().strip()
    try:
        return subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], check=True,
                              capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def flatten(path, out, seen):
    for number, line in enumerate(open(path, encoding="utf-8"), 1):
        match = INCLUDE.match(line)
        target = match and find(match.group(1), path)
        if match and not target:
            sys.exit(f"amalgamate: {path}:{number}: no such file: {match.group(1)} (third-party headers are included with <>)")
        if not match:
            out.write(line)
            continue
        if target in seen and not target.endswith(".inc"):
            continue  # its guard would make it empty
        seen.add(target)
        generated = target.startswith("build/gen/")
        out.write(f"/* ---- begin {target} ---- */\n")
        if generated:
            out.write("#pragma GCC diagnostic push\n" + "".join(f'#pragma GCC diagnostic ignored "{w}"\n' for w in QUIET))
        flatten(target, out, seen)
        if generated:
            out.write("#pragma GCC diagnostic pop\n")
        out.write(f"/* ---- end {target} ---- */\n")


def main():
    root, name = sys.argv[1:]
    version = open("VERSION", encoding="utf-8").read().strip()
    with open(name + ".part", "w", encoding="utf-8") as out:
        out.write(f"""/* SPDX-License-Identifier: Apache-2.0 */
/*
 * interlink-cri {version}, revision {revision()}: all of its sources in one file. Generated, do not edit.
 *
 * The libraries that it includes with <> are not in it: `vendor/build.sh musl` builds them. From the top of the source tree:
 *
 *     make build/interlink-cri-flat
 *
 * compiles this file and links it as `make` does; the program is the same.
 */
""")
        flatten(root, out, {root})
    os.replace(name + ".part", name)


if __name__ == "__main__":
    main()
