"""Eight downloads: games with names that are hard on headers and URLs, whole and in part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e.romm.stand import Romm
from tests.support.libraries import content, make_file, make_game
from tests.support.lists import Wanted

CUE: Final = "roms/psx/Vagrant Story (USA)"
DISCS: Final = 'roms/psx/Pokémon + 100% "Émeraude" [x]'
OWN_PLAYLIST: Final = "roms/dc/What's #1; a=b, c & {d} (Disc 1-2)"
FOLDERS: Final = "roms/switch/Game with folders"
SINGLE: Final = "roms/switch/Single ü.nsp"

_FILES: Final[dict[str, dict[str, bytes]]] = {
    CUE: {
        "Vagrant Story.cue": b'FILE "Vagrant Story.bin" BINARY\n',
        "Vagrant Story (Track 1).bin": content(2_500_000, 1),
        "Vagrant Story (Track 2).bin": content(400_000, 2),
    },
    DISCS: {
        'Pokémon + 100% "Disc 1" [x].chd': content(1_500_000, 3),
        'Pokémon + 100% "Disc 2" [x].chd': content(1_200_000, 4),
    },
    OWN_PLAYLIST: {
        "a+b&c%41;d=e.gdi": content(1_100_000, 5),
        "b  two blanks ~`^|<>.gdi": content(1_300_000, 6),
        "it's.m3u": b"a+b&c%41;d=e.gdi\nb  two blanks ~`^|<>.gdi",
    },
    FOLDERS: {
        "base #1.nsp": content(2_200_000, 7),
        "dlc/ü pack/one.nsp": content(300_000, 8),
        "update/v2 100%.nsp": content(900_000, 9),
    },
}


def make_shelf(library: Path) -> None:
    for path, files in _FILES.items():
        make_game(library, path, files)
    make_file(library / SINGLE, content(70_000, 10))


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """One that RomM offers, and the archive that has to come of it."""

    url: Callable[[Romm], str]
    members: Sequence[Wanted]
    called: str
    """The name of the file, without ``.zip``."""


def _of(path: str, *names: str, below: str = "") -> list[Wanted]:
    """The members from a game, in RomM's order: by base name."""
    found = names or tuple(sorted(_FILES[path], key=lambda name: name.rpartition("/")[2]))
    return [(below + name, f"{path}/{name}") for name in found]


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _playlist(path: str, *lines: str) -> Wanted:
    return f"{_name(path)}.m3u", "\n".join(lines).encode()


_PARTS: Final = ("dlc/ü pack/one.nsp", "update/v2 100%.nsp")

DOWNLOADS: Final[dict[str, Download]] = {
    "discs with a table of tracks": Download(
        url=lambda romm: romm.game(CUE),
        members=[*_of(CUE), _playlist(CUE, "Vagrant Story.cue")],
        called=_name(CUE),
    ),
    "discs": Download(
        url=lambda romm: romm.game(DISCS),
        members=[*_of(DISCS), _playlist(DISCS, *sorted(_FILES[DISCS]))],
        called=_name(DISCS),
    ),
    "discs with their playlist": Download(
        url=lambda romm: romm.game(OWN_PLAYLIST),
        members=_of(OWN_PLAYLIST),
        called=_name(OWN_PLAYLIST),
    ),
    "folders": Download(
        url=lambda romm: romm.game(FOLDERS),
        members=[*_of(FOLDERS), _playlist(FOLDERS, *(name for name, _ in _of(FOLDERS)))],
        called=_name(FOLDERS),
    ),
    "hidden": Download(
        url=lambda romm: romm.game(CUE, "hidden_folder=true"),
        members=[*_of(CUE, below=".hidden/"), _playlist(CUE, ".hidden/Vagrant Story.cue")],
        called=_name(CUE),
    ),
    "subset": Download(
        url=lambda romm: romm.game(FOLDERS, romm.files(FOLDERS, *_PARTS)),
        members=[*_of(FOLDERS, *_PARTS), _playlist(FOLDERS, *_PARTS)],
        called=_name(FOLDERS),
    ),
    "two games": Download(
        url=lambda romm: romm.bulk(DISCS, OWN_PLAYLIST),
        members=[*_of(OWN_PLAYLIST), *_of(DISCS)],
        called="2 ROMs",
    ),
    "all games": Download(
        url=lambda romm: romm.bulk(*_FILES, SINGLE),
        members=[*_of(OWN_PLAYLIST), *_of(DISCS), *_of(CUE), *_of(FOLDERS), (SINGLE, SINGLE)],
        called="5 ROMs",
    ),
}

for _key in ("two games", "all games"):  # under their paths in the library
    _one = DOWNLOADS[_key]
    DOWNLOADS[_key] = Download(
        url=_one.url, members=[(str(what), what) for _, what in _one.members], called=_one.called
    )
