"""``make audit``: is anything known against what zipfs runs with?

Two questions, about each package that is installed and that zipfs needs:

- Has its author taken this version back (PEP 592)? That is asked of the index it came from.
- Is there an advisory against it? pip-audit asks PyPI, and then OSV. Mirrors of PyPI have
  packages and no advisories, and pip-audit then finds nothing against anything. So a version
  that is known to be bad is asked for first: what knows nothing of that, knows nothing.

Where advisories can't be asked for, it says so, and that is no failure: it is to run on machines
that have only an index, too. The exit status is 1 if something is known.
"""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

from tests.support.dependencies import installed

CANARY: Final = "jinja2==2.10"
"""Let templates out of their sandbox: CVE-2019-10906, of April 2019."""
SERVICES: Final = ("pypi", "osv")
_JSON: Final = "application/vnd.pypi.simple.v1+json"
_LINK: Final = re.compile(r"<a\s([^>]*)>([^<]*)</a>", re.IGNORECASE)


def taken_back(page: bytes, kind: str) -> dict[str, bool]:
    """The files on a *page* of an index (PEP 503, 691), and whether they were taken back."""
    if kind.startswith(_JSON):
        return {file["filename"]: bool(file.get("yanked")) for file in json.loads(page)["files"]}
    return {
        html.unescape(name).strip(): "data-yanked" in attributes.lower()
        for attributes, name in _LINK.findall(page.decode("utf-8", "replace"))
    }


def of_version(files: dict[str, bool], name: str, version: str) -> list[bool]:
    """What is said of the files of one version, PEP 625 and 427."""
    words = "[-_.]+".join(map(re.escape, name.split("-")))
    stem = re.compile(rf"{words}-{re.escape(version)}(-|\.tar|\.zip)", re.IGNORECASE)
    return [back for file, back in files.items() if stem.match(file)]


def _ask_index(name: str) -> dict[str, bool] | None:
    url = f"{_index().rstrip('/')}/{name}/"
    request = urllib.request.Request(url, headers={"Accept": f"{_JSON}, text/html;q=0.5"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return taken_back(answer.read(), answer.headers.get("Content-Type", ""))
    except (urllib.error.URLError, TimeoutError):
        return None


def _index() -> str:
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        check=False,
    )
    return os.environ.get("PIP_INDEX_URL") or asked.stdout.strip() or "https://pypi.org/simple"


def _advisories(requirements: list[str], service: str) -> dict[str, list[str]] | None:
    """Advisories by requirement; None if none can be asked for."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder, "requirements.txt")
        listed.write_text("\n".join(requirements))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip_audit", "--requirement", str(listed)),
                *("--no-deps", "--disable-pip", "--format", "json"),
                *("--progress-spinner", "off", "--timeout", "20"),
                *("--vulnerability-service", service),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return None
    if any("skip_reason" in package for package in found):
        return None
    return {
        f"{package['name']}=={package['version']}": [bug["id"] for bug in package["vulns"]]
        for package in found
    }


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _look_for_taken_back(versions: dict[str, str]) -> list[str]:
    problems = []
    unknown = []
    for name, version in versions.items():
        files = _ask_index(name)
        said = of_version(files, name, version) if files else []
        if not said:
            unknown.append(name)
        elif all(said):
            problems.append(f"{name} {version} was taken back by its author")
    _say(f"Taken back by their authors: {len(problems)} of {len(versions) - len(unknown)}.")
    if unknown:
        _say(f"Not known to the index, so not asked about: {', '.join(unknown)}.")
    return problems


def _look_for_advisories(versions: dict[str, str]) -> list[str]:
    for service in SERVICES:
        known = _advisories([CANARY], service)
        if known and all(known.values()):
            found = _advisories([f"{n}=={v}" for n, v in versions.items()], service)
            if found is not None:
                _say(f"Advisories: asked {service}.")
                return [f"{what}: {', '.join(bugs)}" for what, bugs in found.items() if bugs]
    _say(
        f"Advisories: NOT asked. Neither {' nor '.join(SERVICES)} can be reached from here, or what"
        f" answers for them knows nothing of {CANARY}, which has some."
    )
    return []


def main() -> None:
    versions = {name: package.version for name, package in sorted(installed().items())}
    _say(f"What zipfs runs with: {', '.join(f'{n} {v}' for n, v in versions.items())}.")
    problems = _look_for_taken_back(versions) + _look_for_advisories(versions)
    for problem in problems:
        _say(f"Found: {problem}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
