"""The gate: what a reader is, and how what it found is compared with the folder."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tests.readers.corpus import Case


class Found(NamedTuple):
    """What a reader found under a name: bytes, and the SHA-256 of them in hex."""

    size: int
    sha256: str


Read = Callable[[Path, Path], Mapping[bytes, Found]]
"""``read(archive, place)``: all that a program finds in the archive, by name. *place* is an
empty folder of its own. Raises if the program fails, complains, or finds a name twice."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A program, or a library, that reads ZIP archives.

    *limits*: names of cases that it is known to be unable to read, each with the reason, which
    has to be one of its own. *heavy*: takes long to install, so it is left to ``make readers``.
    *version* says which one is installed here.
    """

    name: str
    version: Callable[[], str]
    read: Read
    limits: Mapping[str, str] = field(default_factory=dict)
    heavy: bool = False


class WrongError(AssertionError):
    """The reader found something else than what is in the folder."""


def check(reader: Reader, case: Case, archive: Path, place: Path) -> None:
    """Raises :exc:`WrongError`, or what the reader raises, unless it finds what it has to."""
    found = dict(reader.read(archive, place))
    wanted = {name: Found(entry.size, entry.sha256) for name, entry in case.entries().items()}
    if missing := wanted.keys() - found.keys():
        raise WrongError(f"{len(missing)} not found, {min(missing)!r} for one")
    if unknown := found.keys() - wanted.keys():
        raise WrongError(f"{len(unknown)} that shouldn't be there, {min(unknown)!r} for one")
    for name, entry in wanted.items():
        if found[name] != entry:
            raise WrongError(f"{name!r} is {found[name]}, has to be {entry}")


def of_stream(stream: BinaryIO) -> Found:
    """What a stream gives up to its end."""
    digest = hashlib.sha256()
    size = 0
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
        size += len(chunk)
    return Found(size, digest.hexdigest())


def of_folder(folder: Path) -> dict[bytes, Found]:
    """What a program has extracted into *folder*; empty folders don't count."""
    root = os.fsencode(folder)
    found = {}
    for parent, _, names in os.walk(root):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as stream:
                found[os.path.relpath(path, root)] = of_stream(stream)
    return found


def of_lines(lines: Iterable[bytes]) -> dict[bytes, Found]:
    """What a driver of ours says, a line for each entry: ``NAME SIZE SHA256``, the name's bytes
    in hex (a lone ``-`` for an empty one)."""
    found: dict[bytes, Found] = {}
    for line in lines:
        name, size, sha256 = line.decode("ascii").split()
        raw = b"" if name == "-" else bytes.fromhex(name)
        if raw in found:
            raise WrongError(f"{raw!r} was found twice")
        found[raw] = Found(int(size), sha256)
    return found


def _python_zipfile(archive: Path, _place: Path) -> dict[bytes, Found]:
    found = {}
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            with opened.open(info) as stream:
                found[info.orig_filename.encode()] = of_stream(stream)  # type: ignore[arg-type] - it reads
    return found


READERS = (Reader("Python zipfile", lambda: sys.version.split()[0], _python_zipfile),)
