"""The gate: what a reader is, and how what it found is compared with the folder."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from tests.readers.corpus import Case


class Found(NamedTuple):
    """What a reader found under a name: bytes, and the SHA-256 of them in hex.

    It is empty where the content was not read, see :attr:`Reader.sizes_only_above`.
    """

    size: int
    sha256: str


SAMPLED: Final = 10_000
"""Members from which on a reader may read one in a hundred, to save time (a request each)."""
_PATH_MAX: Final = 3500
"""Bytes; with the path of the folder itself no more than the system's 4096."""

Read = Callable[[Path, Path], Mapping[bytes, Found]]
"""``read(archive, place)``: all that a program finds in the archive, by name. *place* is an
empty folder of its own. Raises if the program fails, complains, or finds a name twice."""

Show = Callable[[Path, Path], AbstractContextManager[Path]]
"""``show(archive, place)``: a folder with all that is in the archive, as long as it lasts."""


class MissingError(Exception):
    """The reader isn't installed."""


class WrongError(AssertionError):
    """The reader found something else than what is in the folder."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A program, or a library, that reads ZIP archives.

    *limits*: names of cases that it is known to be unable to read, each with the reason, which
    has to be one of its own. *heavy*: takes long to install, so it is left to ``make readers``.
    *version* says which one is installed here, and raises :exc:`MissingError` or
    :exc:`FileNotFoundError` if none is.

    *sizes_only_above*: of entries with more bytes than that it says only name and size, to
    save time; -1 for a program that just lists. *samples*: of archives with more than
    :data:`SAMPLED` members it reads the content of some only. *first_only*: it claims
    to read the first member, no other. *show*: it can show the archive as a folder, which is
    then compared by ``diff``.
    """

    name: str
    version: Callable[[], str]
    read: Read
    limits: Mapping[str, str] = field(default_factory=dict)
    heavy: bool = False
    sizes_only_above: int | None = None
    samples: bool = False
    first_only: bool = False
    show: Show | None = None


@cache
def wanted(case: Case) -> Mapping[bytes, Found]:
    """What has to be found; kept, because hashing it takes seconds for the heavy ones."""
    return {name: Found(entry.size, entry.sha256) for name, entry in case.entries().items()}


def check(
    reader: Reader, case: Case, archive: Path, place: Path, source: Path | None = None
) -> bool:
    """Whether all content was compared; raises :exc:`WrongError`, or what the reader raises,
    unless it finds what it has to. *source* is the folder that the archive was made of."""
    if not archive.exists():
        raise WrongError("zipfs shows no archive")
    if reader.show and source and _is_mirrored(case) and not _is_too_large(reader, case):
        with reader.show(archive, place) as shown:
            _diff(source, shown)
        return True
    return compare(reader, wanted(case), reader.read(archive, place))


def compare(reader: Reader, wanted: Mapping[bytes, Found], found: Mapping[bytes, Found]) -> bool:
    """The same for what it has found already."""
    if reader.first_only:
        first = next(iter(wanted))
        wanted = {first: wanted[first]}
    if missing := wanted.keys() - found.keys():
        raise WrongError(f"{len(missing)} not found, {min(missing)!r} for one")
    if unknown := found.keys() - wanted.keys():
        raise WrongError(f"{len(unknown)} that shouldn't be there, {min(unknown)!r} for one")
    complete = not reader.first_only
    if reader.samples and len(wanted) > SAMPLED:
        complete = False
        read = {name for name, entry in found.items() if entry.sha256}
        if len(read) < len(wanted) // 100:
            raise WrongError(f"the content of {len(read)} was read, of {len(wanted)}")
        for name in wanted.keys() - read:
            if found[name].size != wanted[name].size:
                raise WrongError(f"{name!r} is {found[name]}, has to be {wanted[name]}")
        wanted = {name: wanted[name] for name in wanted.keys() & read}
    for name, entry in wanted.items():
        if reader.sizes_only_above is not None and entry.size > reader.sizes_only_above:
            complete = False
            entry = entry._replace(sha256=found[name].sha256 and entry.sha256)  # noqa: PLW2901
        if found[name] != entry:
            raise WrongError(f"{name!r} is {found[name]}, has to be {entry}")
    return complete


def _is_mirrored(case: Case) -> bool:
    """Whether the archive has just what the folder has, under the same names, none of which is
    longer than what diff can open."""
    renamed = any(path != name for path, name in case.folders.items())
    return not (case.others or case.made() or renamed) and all(
        file.name is None and len(path) < _PATH_MAX for path, file in case.files().items()
    )


def _is_too_large(reader: Reader, case: Case) -> bool:
    limit = reader.sizes_only_above
    return limit is not None and any(entry.size > limit for entry in wanted(case).values())


def _diff(source: Path, shown: Path) -> None:
    command = ["diff", "--recursive", "--no-dereference"]
    done = subprocess.run([*command, source, shown], capture_output=True, check=False, timeout=300)
    if done.returncode or done.stdout or done.stderr:
        said = (done.stdout + done.stderr).decode(errors="replace")[:500]
        raise WrongError(f"diff -r ends with {done.returncode}: {said}")


_EMPTY: Final = Found(0, hashlib.sha256().hexdigest())


def of_stream(stream: BinaryIO) -> Found:
    """What a stream gives up to its end."""
    digest = hashlib.sha256()
    size = 0
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
        size += len(chunk)
    return Found(size, digest.hexdigest())


def of_folder(folder: Path, sizes_only_above: int | None = None) -> dict[bytes, Found]:
    """What a program has extracted into *folder*; an empty folder with a ``/`` at its end.

    *sizes_only_above*: see :class:`Reader`.
    """
    root = os.fsencode(folder)
    found = {}
    # By descriptors: some paths are longer than the system takes in one.
    for parent, folders, names, descriptor in os.fwalk(root):
        if parent != root and not folders and not names:
            found[parent[len(root) + 1 :] + b"/"] = _EMPTY
        for name in names:
            inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=descriptor)
            with open(inner, "rb", buffering=0) as stream:
                size = os.fstat(inner).st_size
                listed = sizes_only_above is not None and size > sizes_only_above
                path = parent[len(root) + 1 :] + b"/" * (parent != root) + name
                found[path] = Found(size, "") if listed else of_stream(stream)
    return found


def of_lines(lines: Iterable[bytes]) -> dict[bytes, Found]:
    """What a driver of ours says, a line for each entry: ``NAME SIZE SHA256``, the name's bytes
    in hex (a lone ``-`` for an empty one). ``-`` for a SHA-256: content not read."""
    return unique(_of_line(line) for line in lines)


def _of_line(line: bytes) -> tuple[bytes, Found]:
    name, size, sha256 = line.decode("ascii").split()
    raw = b"" if name == "-" else bytes.fromhex(name)
    return raw, Found(int(size), "" if sha256 == "-" else sha256)


def of_frames(stream: BinaryIO) -> dict[bytes, Found]:
    """What a driver of ours says that doesn't hash: for each entry a line ``NAME SIZE``, the name
    in hex, and the content itself."""

    def frames() -> Iterator[tuple[bytes, Found]]:
        while line := stream.readline():
            name, size = line.decode("ascii").split()
            yield bytes.fromhex(name), _of_bytes(stream, int(size))

    return unique(frames())


def _of_bytes(stream: BinaryIO, size: int) -> Found:
    digest = hashlib.sha256()
    left = size
    while left:
        chunk = stream.read(min(left, 1 << 20))
        if not chunk:
            raise WrongError(f"ends {left} bytes too early")
        digest.update(chunk)
        left -= len(chunk)
    return Found(size, digest.hexdigest())


def unique(entries: Iterable[tuple[bytes, Found]]) -> dict[bytes, Found]:
    """By name; raises :exc:`WrongError` if there are two of one."""
    found: dict[bytes, Found] = {}
    for name, entry in entries:
        if name in found:
            raise WrongError(f"{name!r} was found twice")
        found[name] = entry
    return found
