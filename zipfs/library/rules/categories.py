"""Parts of a game, told by the folder that they are in. Pure.

RomM labels what a game consists of by the names of its sub-folders (https://docs.romm.app,
folder structure): ``dlc``, ``manual`` and so on, in the singular or the plural, whatever the
case. What is in no such folder is the game itself.
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
    + rb"(?:e?s)?(?: \([0-9]+\))?",  # the number that a name has got beside its like
    re.IGNORECASE,
)


def category_named(name: bytes) -> bytes | None:
    """The category, one of :data:`CATEGORIES`, that a folder called *name* stands for."""
    match = _FOLDER.fullmatch(name)
    return match[1].lower() if match else None


def category(path: bytes) -> bytes:
    """That of the file at *path* in a game's folder: of the first folder that has one."""
    folders = path.split(b"/")[:-1]
    return next(filter(None, map(category_named, folders)), GAME)
