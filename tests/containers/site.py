"""An archive behind nginx in the machine, as a client there sees it."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
from collections.abc import Callable

from tests.containers.conftest import GAME
from tests.containers.engine import Engine
from tests.e2e.expected import Expected
from tests.support.waiting import poll

URL = f"http://127.0.0.1:8080/{GAME}.zip"

Shell = Callable[[str], str]


class Site:
    """What *shell* reads at :data:`URL`, compared with *expected*."""

    def __init__(self, shell: Shell, expected: Expected, url: str = URL) -> None:
        self._shell = shell
        self._expected = expected
        self.url = url

    def status(self) -> str:
        with contextlib.suppress(AssertionError):
            return self._shell(f"curl -s -o /dev/null -w '%{{http_code}}' {self.url}").strip()
        return ""

    def wait(self) -> None:
        poll("the archive behind nginx", lambda: self.status() == "200", 300)

    def headers(self) -> dict[str, str]:
        said = self._shell(f"curl -sfI {self.url}")
        found = re.findall(r"^([\w-]+): *(.*?)\r?$", said, re.MULTILINE)
        return {name.lower(): value for name, value in found}

    def check(self) -> None:
        """The whole of it, and ranges, have the right bytes."""
        self.wait()
        whole = self._expected[:]
        assert self._sum("") == hashlib.sha256(whole).hexdigest()
        assert int(self.headers()["content-length"]) == len(whole)
        for first, last in ((0, 0), (100, 99_999), (47_999_000, 48_010_000)):
            found = self._sum(f"-r {first}-{last}")
            assert found == hashlib.sha256(whole[first : last + 1]).hexdigest(), (first, last)

    def _sum(self, options: str) -> str:
        return self._shell(f"curl -sf {options} {self.url} | sha256sum").split()[0]

    # -- A download under way --------------------------------------------------

    def begin(self, file: str) -> None:
        """Begin a slow download into *file*, in the background."""
        command = f"curl -sf --limit-rate 4M -o {file} {self.url}"
        self._shell(f"rm -f {file}; nohup sh -c {shlex.quote(command)} >/dev/null 2>&1 &")
        poll("the download to begin", lambda: self._size(file) > 1_000_000)

    def resume(self, file: str) -> None:
        """Continue what was cut, and see that it is right."""
        self._shell(f"pkill -x curl || true; curl -sf -C - -o {file} {self.url}")
        found = self._shell(f"sha256sum {file}").split()[0]
        assert found == hashlib.sha256(self._expected[:]).hexdigest()

    def _size(self, file: str) -> int:
        return int(self._shell(f"stat -c %s {file} 2>/dev/null || echo 0"))


def mounted(machine: Engine, where: str = "/srv") -> list[str]:
    """The mounts of zipfs that the machine itself has."""
    table = machine.shell("cat /proc/mounts")
    found = re.findall(r"^\S+ (\S+) fuse\.zipfs ", table, re.MULTILINE)
    return [path for path in found if where in path]
