"""Lists for tests: written as front ends write them, and the archives that are expected."""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import xxhash

from tests.support.libraries import Expected
from zipfs.archive.layout import Layout
from zipfs.archive.names import entry_names
from zipfs.archive.records import Member, archive_time
from zipfs.sealing.members import FIXED_TIME

Wanted = tuple[str, str | bytes]
"""Its name, and the path of its file in the library, or its content."""


def text_of(library: Path, members: Sequence[Wanted], *, crc: str = "-") -> bytes:
    """The list of *members*, whose files are in *library*."""
    lines = []
    for name, what in members:
        if isinstance(what, bytes):
            size = len(what)
            location = f"/decode?value={base64.b64encode(what).decode()}"
        else:
            size = (library / what).stat().st_size
            location = "/library/" + quote(os.fsencode(what))
        lines.append(f"{crc} {size} {location} {name}".encode("utf-8", "surrogateescape"))
    return b"\n".join(lines)


def write_list(path: Path, text: bytes) -> None:
    """*text* as the list at *path*, there from one moment to the next."""
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_bytes(text)
    aside.rename(path)


def expected_of(library: Path, members: Sequence[Wanted]) -> Expected:
    """The archive that is expected of the list of *members*: computed by no mount."""
    paths = [os.fsencode(name) for name, _ in members]
    names = entry_names(paths)
    dates = [
        archive_time((library / what).stat().st_mtime_ns // 10**9)
        for _, what in members
        if isinstance(what, str)
    ]
    newest = max(dates, default=FIXED_TIME)
    files, digests, inline, made = [], [], {}, []
    for number, (path, (_, what)) in enumerate(zip(paths, members, strict=True)):
        mtime = newest
        if isinstance(what, bytes):
            data = inline[number] = what
        else:
            source = library / what
            data = source.read_bytes()
            mtime = archive_time(source.stat().st_mtime_ns // 10**9)
            files.append(os.fsencode(source))
            digests.append(xxhash.xxh3_128_digest(data))
        made.append(Member(name=names[path], size=len(data), mtime=mtime, crc32=zlib.crc32(data)))
    return Expected(layout=Layout(made, inline), files=tuple(files), digests=tuple(digests))
