"""What zipfs runs with: the packages that it declares, and those that they need in turn."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Final

PYPROJECT: Final = Path(__file__).parents[2] / "pyproject.toml"

_REQUIREMENT: Final = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(?P<extras>\[[^]]*\])?\s*(?P<rest>[^;]*?)\s*(?:;\s*(?P<marker>.*))?"
)
"""PEP 508, as far as our packages make use of it."""


def declared() -> list[str]:
    """The requirements in pyproject.toml, as they stand there."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    found: list[str] = project["dependencies"]
    return found


def optional() -> list[str]:
    """Those of the extra that zipfs itself imports, if it is there."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    found: list[str] = project["optional-dependencies"]["postgresql"]
    return found


def normal(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def split(requirement: str) -> tuple[str, str, str]:
    """The name, what is asked of the version, and on which condition it is needed."""
    match = _REQUIREMENT.fullmatch(requirement.strip())
    assert match, f"{requirement!r} is no plain requirement"
    return normal(match["name"]), match["rest"].strip("() "), match["marker"] or ""


def installed() -> dict[str, metadata.Distribution]:
    """All that runs with zipfs here, by name: what is declared, and what that needs in turn."""
    found: dict[str, metadata.Distribution] = {}
    todo = [split(requirement)[0] for requirement in [*declared(), *optional()]]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found[name] = distribution = metadata.distribution(name)
        for requirement in distribution.requires or []:
            needed, _, marker = split(requirement)
            # Rather one too many: what a condition asks for is only told from an extra, and
            # from another system's.
            if "extra" not in marker and _is_there(needed):
                todo.append(needed)
            elif "extra" not in marker:
                assert marker, f"{name} lacks {needed} on {sys.platform}"
    return found


def _is_there(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def licence(distribution: metadata.Distribution) -> str:
    """What a package says of its licence: PEP 639's expression, or what stood for it before."""
    told = distribution.metadata
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in told.get_all("Classifier") or []
        if text.startswith("License :: OSI Approved ::")
    ]
    first_line = (told.get("License") or "").strip().partition("\n")[0]
    return told.get("License-Expression") or " AND ".join(classifiers) or first_line
