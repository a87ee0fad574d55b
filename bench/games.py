"""A small library of real games that anyone may have: Debian packages them.

Made by :func:`build` in the shape that front ends know, ``roms/PLATFORM/GAME``::

    roms/scummvm/Beneath a Steel Sky (CD)/          3 files
    roms/scummvm/Drascula - The Vampire Strikes Back/   hundreds of small files
    roms/scummvm/Flight of the Amazon Queen/        1 file: stays a folder in the mount
    roms/scummvm/Lure of the Temptress/             5 files
    roms/doom/Freedoom/                             2 files and the manual
    roms/doom/freedoom1.wad                         no folder: passed through
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import BenchError

SHARE: Final = Path("/usr/share")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where one game's files are, as the package installed them."""

    package: str
    """The Debian package, for the message that tells what to install."""
    game: str
    """The folder (or, for a game without one, the file) in the library."""
    folder: Path
    """The folder that the game's files are taken from, with all below it."""
    only: tuple[str, ...] = ()
    """These files of it, without which there is no game; empty: all of them."""
    documents: tuple[Path, ...] = ()
    """What comes with it and may be absent: small installations leave /usr/share/doc out."""

    def files(self) -> Iterator[tuple[Path, Path]]:
        """Each file, and its path relative to the game's folder."""
        if self.only:
            for name in self.only:
                yield self.folder / name, Path(name)
        else:
            for path in sorted(self.folder.rglob("*")):
                # is_file() follows links: Lure of the Temptress shares a file between its
                # languages that way. A dangling one is left out.
                if path.is_file():
                    yield path, path.relative_to(self.folder)
        for path in self.documents:
            if path.is_file():
                yield path, Path(path.name)

    def is_installed(self) -> bool:
        if self.only:
            return all((self.folder / name).is_file() for name in self.only)
        return self.folder.is_dir()


FREEDOOM_DOC: Final = SHARE / "doc/freedoom"

FOLDERS: Final = (
    Source(
        package="beneath-a-steel-sky",
        game="roms/scummvm/Beneath a Steel Sky (CD)",
        folder=SHARE / "scummvm/beneath-a-steel-sky",
        only=("sky.cpt", "sky.dnr", "sky.dsk"),
    ),
    Source(
        package="drascula",
        game="roms/scummvm/Drascula - The Vampire Strikes Back",
        folder=SHARE / "scummvm/drascula/en",
    ),
    Source(
        package="flight-of-the-amazon-queen",
        game="roms/scummvm/Flight of the Amazon Queen",
        folder=SHARE / "scummvm/flight-of-the-amazon-queen",
    ),
    Source(
        package="lure-of-the-temptress",
        game="roms/scummvm/Lure of the Temptress",
        folder=SHARE / "scummvm/lure-of-the-temptress/en",
    ),
    Source(
        package="freedoom",
        game="roms/doom/Freedoom",
        folder=SHARE / "games/doom",
        only=("freedoom1.wad", "freedoom2.wad"),
        documents=tuple(
            FREEDOOM_DOC / name
            for name in ("CREDITS.gz", "NEWS.html", "README.html", "freedoom-manual.pdf.gz")
        ),
    ),
)
SINGLE_FILE: Final = (SHARE / "games/doom/freedoom1.wad", "roms/doom/freedoom1.wad")


def build(target: Path) -> list[Path]:
    """Copy the games into *target*, dates included, and return the games' folders.

    About 240 MB. Copies, not links: a test may change one. Raises :exc:`BenchError` naming all
    packages that are missing, before anything is copied.
    """
    missing = [source.package for source in FOLDERS if not source.is_installed()]
    if missing:
        raise BenchError(f"games are missing: apt-get install {' '.join(missing)}")
    folders = []
    for source in FOLDERS:
        game = target / source.game
        for path, relative in source.files():
            copy = game / relative
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
        folders.append(game)
    path, name = SINGLE_FILE
    shutil.copy2(path, target / name)
    return folders
