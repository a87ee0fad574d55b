"""Lists for tests: written as front ends write them, and the archives that are expected."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from tests.support.libraries import Expected, expected_of_members
from zipfs.archive.names import entry_names

Wanted = tuple[str, str | bytes]
"""Its name, and the path of its file in the library, or its content; a folder's name ends in
``/``, and its content is empty."""


def text_of(library: Path, members: Sequence[Wanted], *, crc: str = "-") -> bytes:
    """The list of *members*, whose files are in *library*."""
    lines = []
    for name, what in members:
        if name.endswith("/"):
            size, location = 0, "@directory"
        elif isinstance(what, bytes):
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
    paths = [os.fsencode(name.removesuffix("/")) for name, _ in members]
    names = entry_names(paths)
    return expected_of_members(
        [
            (
                names[path] + b"/" * name.endswith("/"),
                what if isinstance(what, bytes) else library / what,
            )
            for path, (name, what) in zip(paths, members, strict=True)
        ]
    )
