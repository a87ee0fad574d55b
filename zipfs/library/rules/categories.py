"""Categories of the files of a game, by the folder that they are in. Pure.

RomM labels the files of a game by the names of its sub-folders (https://docs.romm.app, folder
structure): ``dlc``, ``manual`` and so on, in the singular or the plural, in any case. A file in
no such folder is of the category ``game``.
"""

from __future__ import annotations

import re
from typing import Final

GAME: Final = b"game"
PARTS: Final = (
    *(b"dlc", b"update", b"patch", b"mod", b"hack", b"manual", b"translation", b"prototype"),
    *(b"demo", b"cheat", b"soundtrack", b"screenshot"),
)
CATEGORIES: Final = (GAME, *PARTS)

_FOLDER: Final = re.compile(
    b"(%s)" % b"|".join(CATEGORIES)
    + rb"(?:e?s)?(?: \([0-9]+\))?",  # "dlc (2)", as programs name a second folder
    re.IGNORECASE,
)


def category_named(name: bytes) -> bytes | None:
    """The category, one of :data:`CATEGORIES`, of a folder called *name*; None if it has none."""
    match = _FOLDER.fullmatch(name)
    return match[1].lower() if match else None


def category(path: bytes) -> bytes:
    """The category of the file at *path* in a game's folder: that of the first folder with one.

    With a ``/`` at the end, *path* is a folder.
    """
    folders = path.split(b"/")[:-1]
    return next(filter(None, map(category_named, folders)), GAME)
