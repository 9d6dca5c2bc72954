# SPDX-License-Identifier: Apache-2.0
"""The table of features in docs/kubernetes.md and the tests here are the same."""
import pathlib
import re

from cluster import TOP

HERE = pathlib.Path(__file__).parent


def test_table_and_tests_agree():
    named = set()
    for line in (TOP / "docs" / "kubernetes.md").read_text().splitlines():
        for cell in line.split("|"):
            for part in cell.split(";"):
                if match := re.fullmatch(r"\s*(test_\w+): ((?:test_\w+(?:, )?)+)\s*", part):
                    named |= {f"{match[1]}: {test}" for test in match[2].split(", ")}
    texts = {path.stem: path.read_text() for path in HERE.glob("test_*.py")}
    there = {f"{stem}: {test}" for stem, text in texts.items() for test in re.findall(r"^def (test_\w+)", text, re.M)}
    both = {f"{stem}: {test}" for stem, text in texts.items() for test in re.findall(r"^def (test_\w+)\([^)]*\bplace\b", text, re.M)}
    assert sorted(named - there) == [], "there is no such test"
    assert sorted(both - named) == [], "runs here and elsewhere, and is not in docs/kubernetes.md"
