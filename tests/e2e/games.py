"""Games for the tests: what libraries hold, and what makes it hard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tests.support.libraries import content, make_file

MIXED: Final = "roms/psx/Ünder World - The Game [!] (Disc 1 & 2)"
"""The path of :func:`make_mixed`: blanks and letters that URLs, shells and formats stumble on."""


def make_mixed(library: Path) -> str:
    """24 MB in nested folders, with empty files, names in UTF-8, and dates of all kinds."""
    files: dict[str, bytes] = {
        "disc 1.cue": b'FILE "disc 1.bin" BINARY\n',
        "disc 1.bin": content(15_000_001, 1),
        "disc 2.bin": content(8_000_000, 2),
        "empty": b"",
        "extras/Приключение/地図.png": content(300_000, 3),
        "extras/Приключение/read me.txt": "Größe: 5 Zoll\n".encode(),
        "extras/deep/er/and/deep er/empty too.dat": b"",
        "extras/one byte": b"1",
        # The same base name twice: the order is by path then.
        "updates/v1.1/patch.bin": content(500_000, 4),
        "updates/v1.2/patch.bin": content(500_000, 5),
    }
    for number, (name, data) in enumerate(files.items()):
        # Odd seconds, which DOS time can't say; summer and winter; the first is from 1998.
        mtime = 900_000_001 + number * 80_000_002
        make_file(library / MIXED / name, data, mtime=mtime)
    # A fraction of a second, which an archive can't say either.
    os.utime(library / MIXED / "extras/one byte", ns=(0, 1_700_000_001_987_654_321))
    return MIXED
