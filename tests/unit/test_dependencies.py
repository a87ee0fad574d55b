"""What zipfs runs with: nothing from anywhere else than an index, under licences that suit."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

import pytest

from tests.audit import of_version, taken_back
from tests.support.dependencies import declared, installed, licence, normal, optional, split

LICENCES: Final = {
    "Apache Software License", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT",
    "MIT License", "PSF-2.0",
}  # fmt: skip
"""Those of which a part may be had under the MIT licence, or beside it."""
LINKED: Final = {
    "pyfuse3": "LGPL-2.1-or-later",
    "psycopg": "LGPL-3.0-only",
    "psycopg-pool": "LGPL-3.0-only",
}
"""Libraries that are used as such, as the LGPL wants it: imported, not copied."""
CAPPED: Final = {"pyfuse3": ",<4"}
"""Packages with an upper bound: see pyproject.toml for the reason."""
PACKAGE: Final = Path(__file__).parents[2] / "zipfs"
BESIDE: Final = {"telling"}
"""What zipfs.mount.restart.holder, run as a program without the package, finds beside itself."""


@pytest.mark.parametrize("requirement", [*declared(), *optional()])
def test_a_requirement_is_one_of_an_index(requirement: str) -> None:
    """By name and lowest version; no URL, no extra, and no upper bound to grow old under.

    But where zipfs leans on what is inside a package.
    """
    name, wanted, _ = split(requirement)
    wanted = wanted.removesuffix(CAPPED.get(name, ""))
    assert wanted.startswith(">=")
    assert "," not in wanted
    assert "[" not in requirement
    least = tuple(map(int, wanted.removeprefix(">=").split(".")))
    here = metadata.version(name).split(".")
    assert tuple(int(part) for part in here if part.isdecimal()) >= least


def test_all_that_is_imported_is_declared() -> None:
    """And the other way round: what nothing imports is one more to trust, for nothing."""
    owners = metadata.packages_distributions()
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    imported -= BESIDE
    foreign = {
        normal(owner)
        for module in imported - sys.stdlib_module_names - {"zipfs", "_typeshed"}
        for owner in owners[module]
    }
    assert foreign == {split(requirement)[0] for requirement in [*declared(), *optional()]}


def test_licences() -> None:
    for name, distribution in installed().items():
        told = licence(distribution)
        assert told == LINKED.get(name) or set(told.replace(" OR ", " AND ").split(" AND ")) <= (
            LICENCES
        ), f"{name} is {told}"


def test_what_is_installed_fits_together() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "check"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout


PAGES: Final = {
    "application/vnd.pypi.simple.v1+json": b"""{"files": [
        {"filename": "some_thing-1.0-py3-none-any.whl", "yanked": false},
        {"filename": "some-thing-1.0.tar.gz"},
        {"filename": "some_thing-1.0.1.tar.gz", "yanked": "broken"},
        {"filename": "some_thing-1.0.1-py3-none-any.whl", "yanked": true}
    ]}""",
    "text/html; charset=utf-8": b"""<!DOCTYPE html><html><body>
        <a href="x/some_thing-1.0-py3-none-any.whl#sha256=0">some_thing-1.0-py3-none-any.whl</a>
        <a href="x#sha256=0" data-requires-python="&gt;=3.8">some-thing-1.0.tar.gz</a><br/>
        <a href="x" data-yanked="broken" data-requires-python="">some_thing-1.0.1.tar.gz</a>
        <A HREF="x" data-yanked>some_thing-1.0.1-py3-none-any.whl</A></body></html>""",
}


@pytest.mark.parametrize("kind", PAGES)
def test_what_was_taken_back(kind: str) -> None:
    files = taken_back(PAGES[kind], kind)
    assert of_version(files, "some-thing", "1.0") == [False, False]
    assert of_version(files, "some-thing", "1.0.1") == [True, True]
    assert of_version(files, "some-thing", "2") == []
    assert of_version(files, "thing", "1.0") == []
