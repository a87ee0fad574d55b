"""What may happen to a game while somebody downloads it: the rows of the first table.

The game has the members ``a`` and ``b``, of equal size and date, and ``c``, a small one. A client
has read the beginning of ``a``.
"""

from __future__ import annotations

import functools
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from tests.e2e.expected import HIDDEN
from tests.e2e.programs import run
from tests.support.libraries import MTIME, content, make_file, make_game

SIZE: Final = 9 << 20
"""Of ``a`` and of ``b``: much more than what is on its way to a client that doesn't read."""


def make(library: Path, name: str, size: int = SIZE, seed: str = "") -> Path:
    """The game *name*; one with another *seed* has other bytes in ``a`` and ``b``."""
    files = {"a": content(size, f"{seed}1"), "b": content(size, f"{seed}2"), "c": b"c"}
    return make_game(library, name, files)


_content = functools.cache(content)


def _size(game: Path) -> int:
    """Of ``a`` and of ``b``, which is the same in all versions that have both."""
    return (game / "a").stat().st_size


class After(Enum):
    """What there is of the archive after the change."""

    ANOTHER = "another version"
    SAME = "the same version"
    NONE = "no archive"


@dataclass(frozen=True, slots=True)
class Change:
    text: str
    apply: Callable[[Path, Path], None]
    """Called with the game's folder, and an empty one on the same file system."""
    completes: bool
    """Whether the running download completes, with the old bytes (R2), or is cut off (R1)."""
    after: After = After.ANOTHER


def _replaced(game: Path, spare: Path) -> None:
    # Nothing but the content tells the two apart.
    make_file(spare / "b", _content(_size(game), 3))
    os.rename(spare / "b", game / "b")


def _swapped_members(game: Path, spare: Path) -> None:
    os.rename(game / "a", spare / "a")
    os.rename(game / "b", game / "a")
    os.rename(spare / "a", game / "b")


def _rewritten(game: Path, _: Path) -> None:
    with (game / "b").open("r+b") as stream:
        stream.write(_content(_size(game), 3))


def _rewritten_dated(game: Path, spare: Path) -> None:
    _rewritten(game, spare)
    os.utime(game / "b", (MTIME, MTIME))


def _rewritten_same_second(game: Path, spare: Path) -> None:
    _rewritten(game, spare)
    later = MTIME * 1_000_000_000 + 900_000_000
    os.utime(game / "b", ns=(later, later))


def _rewritten_twice(game: Path, spare: Path) -> None:
    # One after the other, as fast as can be: often within a tick of the file system's clock.
    with (game / "b").open("r+b", buffering=0) as stream:
        for seed in range(20):
            stream.seek(_size(game) // 2)
            stream.write(content(1000, seed))


def _one_byte(game: Path, _: Path) -> None:
    with (game / "b").open("r+b") as stream:
        stream.seek(_size(game) - 1)
        last = stream.read(1)
        stream.seek(_size(game) - 1)
        stream.write(bytes([last[0] ^ 1]))
    os.utime(game / "b", (MTIME, MTIME))


def _truncated(game: Path, _: Path) -> None:
    os.truncate(game / "b", _size(game) // 2)
    os.utime(game / "b", (MTIME, MTIME))


def _appended(game: Path, _: Path) -> None:
    with (game / "b").open("ab") as stream:
        stream.write(b"more")
    os.utime(game / "b", (MTIME, MTIME))


def _deleted(game: Path, _: Path) -> None:
    (game / "b").unlink()


def _renamed(game: Path, _: Path) -> None:
    os.rename(game / "b", game / "b, the second")


def _added(game: Path, _: Path) -> None:
    make_file(game / "added", b"added")


def _make_other(game: Path, spare: Path) -> None:
    size = _size(game)
    make_game(spare, "other", {"a": _content(size, 3), "b": _content(size, 4), "c": b"c"})


def _swapped_folder(game: Path, spare: Path) -> None:
    _make_other(game, spare)
    os.rename(game, spare / "away")
    os.rename(spare / "other", game)


def _swapped_link(game: Path, spare: Path) -> None:
    _make_other(game, spare)
    os.rename(game, spare / "away")
    # Inside the library, where links are followed, and not at a place for games. Relative, since
    # a share has another path at its server.
    shelf = game.parent.parent.parent / "shelf"
    shelf.mkdir(exist_ok=True)
    os.rename(spare / "other", shelf / game.name)
    game.symlink_to(os.path.relpath(shelf / game.name, game.parent))


def _removed(game: Path, _: Path) -> None:
    # Of what is open, libfuse keeps hidden files, and with them the folder, until it is closed.
    shutil.rmtree(game, ignore_errors=True)
    assert not game.exists() or all(path.name.startswith(HIDDEN) for path in game.iterdir())


def _older_copied(game: Path, spare: Path) -> None:
    # The newest date of the game stays what it was.
    make_file(spare / "older", _content(_size(game), 3), mtime=900_000_000)
    run("cp", "-p", spare / "older", game / "b")


def _unzipped(game: Path, spare: Path) -> None:
    with zipfile.ZipFile(spare / "old", "w") as archive:
        for seed, name in enumerate("ab"):
            entry = zipfile.ZipInfo(name, (1996, 6, 23, 12, 0, 0))
            entry.external_attr = 0o644 << 16  # Apache, started by root, is somebody else
            archive.writestr(entry, _content(_size(game), 3 + seed))
    run("unzip", "-oq", spare / "old", "-d", game)


def _touched(game: Path, _: Path) -> None:
    run("touch", game / "b")


def _touched_back(game: Path, _: Path) -> None:
    run("touch", game / "b")
    os.utime(game / "b", (MTIME, MTIME))


def _mode_changed(game: Path, _: Path) -> None:
    run("chmod", "-R", "a+rX,g-w", game)
    run("chmod", "-R", "g+w", game)


CHANGES: Final = {
    "replaced": Change("a member replaced by rename", _replaced, True),
    "swapped members": Change("two members swapped by rename", _swapped_members, True),
    "rewritten": Change("rewritten in place, same size", _rewritten, False),
    "rewritten, dated": Change(
        "rewritten in place, its old mtime put back", _rewritten_dated, False
    ),
    "rewritten, same second": Change(
        "rewritten in place within the same second", _rewritten_same_second, False
    ),
    "rewritten twice": Change("rewritten in place 20 times at once", _rewritten_twice, False),
    "one byte": Change("its last byte changed, its old mtime put back", _one_byte, False),
    "truncated": Change("truncated", _truncated, False),
    "appended": Change("appended to", _appended, False),
    "deleted": Change("a member deleted", _deleted, True),
    "renamed": Change("a member renamed", _renamed, True),
    "added": Change("a member added", _added, True),
    "swapped folder": Change("the game's folder swapped", _swapped_folder, True),
    "swapped for a link": Change("the game's folder swapped for a link", _swapped_link, True),
    "removed": Change("the game's folder removed", _removed, True, After.NONE),
    "older copied": Change("`cp -p` of an older file over a member", _older_copied, False),
    "unzipped": Change("`unzip` over it, restoring dates of 1996", _unzipped, True),
    "touched": Change("`touch` of a member", _touched, False),
    "touched back": Change("`touch`, and its old mtime put back", _touched_back, True, After.SAME),
    "chmod": Change("`chmod -R` of the game", _mode_changed, True, After.SAME),
}
