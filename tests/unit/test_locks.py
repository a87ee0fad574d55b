"""The locks: all that is declared is in them, by version and hash, and from nowhere in particular.

``make upgrade`` renews them. What is wrong here after a change of pyproject.toml, it puts right.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.support.dependencies import PYPROJECT, normal

ROOT: Final = PYPROJECT.parent
LOCKS: Final = ROOT / ".ci/locks"
PROJECT: Final[dict[str, Any]] = tomllib.loads(PYPROJECT.read_text())["project"]
EXTRAS: Final[dict[str, list[str]]] = PROJECT["optional-dependencies"]
DECLARED: Final[dict[str, list[str]]] = {
    "build": [*(LOCKS / "build.in").read_text().splitlines()],
    "upgrade": [*(LOCKS / "upgrade.in").read_text().splitlines()],
    "readers": [*(ROOT / "tests/readers/requirements.txt").read_text().splitlines()],
    "run": PROJECT["dependencies"],
    "dev": PROJECT["dependencies"] + EXTRAS["dev"],
    "lowest": PROJECT["dependencies"] + EXTRAS["dev"],
    "audit": EXTRAS["audit"],
    "bench": EXTRAS["bench"],
    "dist": EXTRAS["dist"],
    "postgresql": EXTRAS["postgresql"],
}
TOGETHER: Final = ("build", "dev", "run", "audit", "bench", "dist", "postgresql")
"""Come into one environment."""
NPM: Final = ("tests/readers/drivers/node", ".ci/locks/hfs")

_HASH: Final = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def locked(name: str) -> dict[str, set[str]]:
    """The versions of each package; more than one where Pythons take different ones."""
    text = (LOCKS / f"{name}.txt").read_text().replace("\\\n", "")
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        wanted, *hashes = line.split("--hash=")
        assert hashes, line
        requirement = Requirement(wanted.strip())
        (exact,) = requirement.specifier
        assert exact.operator == "=="
        found.setdefault(normal(requirement.name), set()).add(exact.version)
    return found


def test_all_locks_are_known() -> None:
    assert {path.stem for path in LOCKS.glob("*.txt")} == set(DECLARED)
    assert set(EXTRAS) <= set(DECLARED)


@pytest.mark.parametrize("name", DECLARED)
def test_a_lock_has_what_is_declared(name: str) -> None:
    versions = locked(name)
    for line in DECLARED[name]:
        if line and not line.startswith("#"):
            wanted = Requirement(line)
            assert all(v in wanted.specifier for v in versions[normal(wanted.name)]), line


@pytest.mark.parametrize("name", DECLARED)
def test_a_lock_has_hashes_and_no_address(name: str) -> None:
    for line in (LOCKS / f"{name}.txt").read_text().splitlines():
        assert "://" not in line
        assert re.match(r"#|[a-z0-9-]+==|    --hash=", line), line
        if "--hash" in line:
            assert _HASH.search(line)


def test_what_comes_together_is_of_one_version() -> None:
    first: dict[str, set[str]] = {}
    for name in TOGETHER:
        for package, versions in locked(name).items():
            assert first.setdefault(package, versions) == versions, package


def test_the_lowest_are_the_lowest() -> None:
    versions = locked("lowest")
    for line in PROJECT["dependencies"]:
        wanted = Requirement(line)
        (least,) = (bound.version for bound in wanted.specifier if bound.operator == ">=")
        (version,) = versions[normal(wanted.name)]
        assert Version(version).release[: len(Version(least).release)] == Version(least).release


@pytest.mark.parametrize("folder", NPM)
def test_npm_has_a_lock(folder: str) -> None:
    wanted = json.loads((ROOT / folder / "package.json").read_text())["dependencies"]
    lock = json.loads((ROOT / folder / "package-lock.json").read_text())
    packages = lock["packages"]
    assert packages.pop("")["dependencies"] == wanted
    for name, version in wanted.items():
        assert packages[f"node_modules/{name}"]["version"] == version
    for name, package in packages.items():
        assert "resolved" not in package, name
        assert package["integrity"].startswith("sha512-"), name
