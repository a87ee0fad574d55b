"""What `make bench-far` has found out, as it stands in its JSON file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bench.speed.results import STORED, About, Model, Row

CAT: Final = "cat"
COPY: Final = "copy"
TAR: Final = "tar"
FILES: Final = "files"
LIST: Final = "list"
PEERS: Final = {
    STORED: "stored",
    FILES: "file by file",
    CAT: "cat",
    COPY: "cp -r",
    TAR: "tar cf -",
    LIST: "ls -l",
}
"""In the order of the tables' columns, with what stands above them."""


class Part(Model):
    """One source, as far as this."""

    kind: str
    what: str
    files: int
    size: int
    """Bytes in all of them."""
    wait: float
    """Milliseconds of each call."""
    names: bool
    """Whether names and attributes are cached, as by NFS."""
    rows: list[Row]

    def row(self, key: str) -> Row | None:
        return next((row for row in self.rows if row.key == key), None)


class FarResults(Model):
    date: str
    seconds: float
    rounds: int
    cpus: int
    linux: str
    load_before: float
    load_after: float
    about: dict[str, About]
    parts: list[Part]
    left_out: list[str]

    def part(self, kind: str, wait: float, *, names: bool = True) -> Part | None:
        return next(self.some(kind, names=names, wait=wait), None)

    def some(self, kind: str, *, names: bool = True, wait: float | None = None) -> Iterator[Part]:
        """Those of *kind*, in the order of their waits."""
        for part in self.parts:
            if (part.kind, part.names) == (kind, names) and wait in (None, part.wait):
                yield part
