"""Playlists as members of archives (DESIGN B1 to B4, V1, V2): last, and of no file."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from tests.fs.conftest import SETTLE, sealed
from tests.fs.lab import FakeTime
from tests.planned import PlannedArchive
from tests.strictzip import read_archive
from tests.support.libraries import MTIME, Expected, expected, make_file, make_game
from zipfs.archive.layout import Data
from zipfs.cli import report
from zipfs.index.index import Index
from zipfs.library.library import Library
from zipfs.library.rules.playlists import Mode, Playlists
from zipfs.library.view import find_games
from zipfs.sealing.members import FIXED_TIME, Style
from zipfs.sealing.offline import seal_all
from zipfs.sealing.outcomes import Plain, Sealed, Version
from zipfs.sealing.sealer import Sealer

GAME = "roms/psx/Game"
TWO = {"Game (Disc 2).chd": b"two", "Game (Disc 1).chd": b"one", "manual.pdf": b"pdf"}
OF_TWO = b"Game (Disc 1).chd\nGame (Disc 2).chd\n"


class Shop:
    """Makes sealers of one library, and what they make of its games."""

    def __init__(self, library: Path, index: Index) -> None:
        self.library = library
        self.index = index

    def sealer(self, mode: Mode = "discs", style: Style | None = None, *globs: bytes) -> Sealer:
        return Sealer(
            Library(str(self.library)),
            self.index,
            globs=globs or (b"roms/*/*",),
            settle=SETTLE,
            style=style or Style(),
            playlists=Playlists(mode=mode),
        )

    def version(
        self,
        game: str | bytes = GAME,
        mode: Mode = "discs",
        style: Style | None = None,
        *globs: bytes,
    ) -> Version:
        path = game.encode() if isinstance(game, str) else game
        _, version = sealed(self.sealer(mode, style, *globs), path)
        assert version is not None
        return version


@pytest.fixture
def shop(library: Path, index: Index, clock: FakeTime) -> Shop:
    return Shop(library, index)


def names_in(version: Version) -> list[str]:
    return [member.name.decode() for member in version.layout.members]


def read(version: Version, library: Path) -> bytes:
    """All bytes of the archive, the sources' read from their files."""

    def data(piece: Data) -> bytes:
        path = Library(str(library)).absolute(version.files[piece.source].source)
        whole = Path(path.decode()).read_bytes()
        return whole[piece.offset : piece.offset + piece.length]

    archive = PlannedArchive(version.layout, data)
    read_archive(archive, check_data=True)
    return archive.read_at(0, archive.size)


def assert_is(version: Version, wanted: Expected, path: str) -> None:
    """Its validators, computed by no sealer."""
    status = version.sealed
    assert (status.content, status.size) == (wanted.content_id, wanted.size)
    assert (status.mtime_ns, status.inode) == (wanted.mtime_ns, wanted.inode(path))
    assert status.count == len(wanted.layout.members)


# Game, its files, the mode, then the archive's members in order, and its last one's content.
CASES: list[tuple[str, Mapping[str, bytes], Mode, list[str], bytes | None]] = [
    (GAME, TWO, "discs", ["Game (Disc 1).chd", "Game (Disc 2).chd", "manual.pdf", "Game.m3u"],
     OF_TWO),
    (GAME, TWO, "off", ["Game (Disc 1).chd", "Game (Disc 2).chd", "manual.pdf"], None),
    (GAME, TWO, "romm", ["Game (Disc 1).chd", "Game (Disc 2).chd", "manual.pdf", "Game.m3u"],
     OF_TWO + b"manual.pdf"),
    ("roms/switch/Game", TWO, "discs", ["Game (Disc 1).chd", "Game (Disc 2).chd", "manual.pdf"],
     None),
    ("roms/switch/Game", {"Game.nsp": b"1", "dlc/More.nsp": b"2"}, "romm",
     ["Game.nsp", "dlc/More.nsp", "Game.m3u"], b"Game.nsp\ndlc/More.nsp"),
    ("roms/PSX/Zelda's", {"z.chd": b"1", "a.chd": b"2"}, "discs",
     ["a.chd", "z.chd", "Zelda's.m3u"], b"a.chd\nz.chd\n"),
    # Last, though it would be first or in the midst by its name.
    ("roms/dc/!", {"Disc 1/d.gdi": b"", "Disc 1/t.bin": b"", "Disc 10/d.gdi": b"",
                   "Disc 2/d.gdi": b"", "x": b""}, "discs",
     ["Disc 1/d.gdi", "Disc 10/d.gdi", "Disc 2/d.gdi", "Disc 1/t.bin", "x", "!.m3u"],
     b"Disc 1/d.gdi\nDisc 2/d.gdi\nDisc 10/d.gdi\n"),
    ("roms/saturn/G", {"1.cue": b"", "1.bin": b"", "2.cue": b"", "2.bin": b"", "DLC/3.cue": b""},
     "discs", ["1.bin", "1.cue", "2.bin", "2.cue", "DLC/3.cue", "G.m3u"], b"1.cue\n2.cue\n"),
    ("roms/saturn/G", {"1.cue": b"", "1.bin": b"", "2.cue": b"", "2.bin": b"", "DLC/3.cue": b""},
     "romm", ["1.bin", "1.cue", "2.bin", "2.cue", "DLC/3.cue", "G.m3u"],
     b"1.cue\n2.cue\nDLC/3.cue"),
    (GAME, {"1.chd": b"", "2.chd": b"", "Own.m3u": b"2.chd"}, "discs",
     ["1.chd", "2.chd", "Own.m3u"], None),
    (GAME, {"1.chd": b"", "2.chd": b"", "Own.m3u": b"2.chd"}, "romm",
     ["1.chd", "2.chd", "Own.m3u"], None),
    # Names are those of the archive.
    (GAME, {"a:1.chd": b"", "a:2.chd": b""}, "discs", ["a%3A1.chd", "a%3A2.chd", "Game.m3u"],
     b"a%3A1.chd\na%3A2.chd\n"),
    ("roms/psx/Ga:me\n", {"1.chd": b"", "2.chd": b""}, "discs",
     ["1.chd", "2.chd", "Ga%3Ame%0A.m3u"], b"1.chd\n2.chd\n"),
    ("roms/psx/Pokémon 1.5", {"1.chd": b"", "2.chd": b""}, "romm",
     ["1.chd", "2.chd", "Pokémon 1.5.m3u"], b"1.chd\n2.chd"),
    # What operating systems leave behind is no member, so it is no disc.
    (GAME, {"1.chd": b"", "2.chd": b"", "@eaDir/3.chd": b"", "._1.chd": b""}, "romm",
     ["1.chd", "2.chd", "Game.m3u"], b"1.chd\n2.chd"),
]  # fmt: skip


@pytest.mark.parametrize(("game", "files", "mode", "names", "content"), CASES)
def test_members(
    game: str,
    files: Mapping[str, bytes],
    mode: Mode,
    names: list[str],
    content: bytes | None,
    library: Path,
    shop: Shop,
) -> None:
    folder = make_game(library, game, files)
    version = shop.version(game, mode)
    assert names_in(version) == names
    assert list(version.layout.inline.values()) == ([] if content is None else [content])
    playlist = None if content is None else (names[-1], content)
    wanted = expected(folder, playlist=playlist, leave_out=["@eaDir/3.chd", "._1.chd"])
    assert_is(version, wanted, f"{game}.zip")
    assert read(version, library) == wanted.read(0, wanted.size)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        (b"CON", "%43ON.m3u"),
        (b"Game.", "Game..m3u"),
        (b"what?", "what%3F.m3u"),
        (b"caf\xe9", "caf%E9.m3u"),
        (b"\xff" * 251, "%FF" * 78 + "~6c037945f0847cd5.m3u"),
        (b"x" * 251, "x" * 251 + ".m3u"),
    ],
)
def test_called_as_a_member_would_be(folder: bytes, name: str, library: Path, shop: Shop) -> None:
    game = b"roms/psx/" + folder
    make_game(library, game, {"1.chd": b"1", "2.chd": b"2"})
    assert names_in(shop.version(game, "discs", Style(portable_names=True)))[-1] == name
    assert len(name.encode()) <= 255


def test_lines_are_portable_as_the_names_are(library: Path, shop: Shop) -> None:
    make_game(
        library, GAME, {"Disc?.chd": b"1", "DISC.chd": b"2", "disc.chd": b"3", "nul.chd": b""}
    )
    version = shop.version(GAME, "discs", Style(portable_names=True))
    assert list(version.layout.inline.values()) == [
        b"%6Eul.chd\nDISC.chd\ndisc (2).chd\nDisc%3F.chd\n"
    ]


@pytest.mark.parametrize(
    ("game", "globs", "content"),
    [
        ("roms/psx/Game", (b"roms/psx/*",), None),  # no wildcard stands for the platform
        ("roms/psx/Game", (b"roms/{platform}/*",), OF_TWO),
        ("roms/old/psx/Game", (b"roms/{platform}/*/*",), None),
        ("roms/old/psx/Game", (b"roms/*/*/*",), OF_TWO),
        ("psx/old/Game", (b"{platform}/*/*",), OF_TWO),
        ("psx/roms/Game", (b"*/roms/*",), OF_TWO),
        ("psx/Game", (b"*/*",), OF_TWO),
        ("psx", (b"*",), None),
    ],
)
def test_platforms(
    game: str, globs: tuple[bytes, ...], content: bytes | None, library: Path, shop: Shop
) -> None:
    make_game(library, game, TWO)
    inline = shop.version(game, "discs", None, *globs).layout.inline
    assert list(inline.values()) == ([] if content is None else [content])


@pytest.mark.parametrize("game", ["roms/psx/Game", "psx/roms/Game", "psx/Game"])
def test_platforms_of_libraries_whose_structure_is_found(
    game: str, library: Path, index: Index, clock: FakeTime
) -> None:
    make_game(library, game, TWO)
    sealer = Sealer(Library(str(library)), index, settle=SETTLE)
    _, version = sealed(sealer, game.encode())
    assert version is not None
    assert list(version.layout.inline.values()) == [OF_TWO]


def test_each_mode_is_another_content(library: Path, shop: Shop) -> None:
    """V1: other bytes, another date. V2: the same mode again, the same validators."""
    make_game(library, GAME, TWO)
    modes: list[Mode] = ["off", "romm", "discs"]
    seals = [shop.version(GAME, mode).sealed for mode in modes]
    assert len({seal.content for seal in seals}) == 3
    assert len({seal.mtime_ns // 10**9 for seal in seals}) == 3
    assert len({seal.inode for seal in seals}) == 3
    assert [shop.version(GAME, mode).sealed for mode in modes] == seals


def test_a_new_index_gives_the_same(library: Path, shop: Shop, tmp_path: Path) -> None:
    folder = make_game(library, GAME, TWO)
    wanted = expected(folder, playlist=("Game.m3u", OF_TWO))
    first = shop.version()
    assert_is(first, wanted, f"{GAME}.zip")
    with closing(Index(str(tmp_path / "another"))) as index:
        again = Shop(library, index).version()
    assert again.sealed == first.sealed
    assert read(again, library) == read(first, library)


def test_another_folder_name_is_another_content(library: Path, shop: Shop) -> None:
    """The folder's name is in the archive, so it has to be in the validators."""
    for folder in ("Game", "Other"):
        make_game(library, f"roms/psx/{folder}", TWO)
    first, second = shop.version("roms/psx/Game"), shop.version("roms/psx/Other")
    assert [names_in(version)[-1] for version in (first, second)] == ["Game.m3u", "Other.m3u"]
    assert first.layout.inline == second.layout.inline
    assert first.sealed.content != second.sealed.content


def test_siblings_take_no_part(library: Path, shop: Shop) -> None:
    """The archive gives way to a file of its name; its content doesn't change by that."""
    make_game(library, GAME, TWO)
    before = shop.version()
    make_file(library / f"{GAME}.zip", b"somebody else's")
    after = shop.version()
    assert before.sealed.path == b"roms/psx/Game.zip"
    assert after.sealed.path == b"roms/psx/Game (folder).zip"
    assert names_in(after)[-1] == "Game.m3u"
    assert after.sealed.content == before.sealed.content


def test_dated_as_the_newest_member(library: Path, shop: Shop) -> None:
    folder = make_game(library, GAME, TWO)
    make_file(folder / "Game (Disc 1).chd", b"one", mtime=MTIME + 1001)
    version = shop.version()
    assert version.layout.members[-1].mtime == MTIME + 1001
    off = shop.version(GAME, "off")
    # The archive's date is what it would be without: that day, or the one before.
    days = {seal.mtime_ns // 10**9 for seal in (version.sealed, off.sealed)}
    assert all(MTIME + 1001 - 86400 < day <= MTIME + 1001 for day in days)
    fixed = shop.version(GAME, "discs", Style(fixed_times=True))
    assert {member.mtime for member in fixed.layout.members} == {FIXED_TIME}


@pytest.mark.parametrize("mode", ["discs", "romm"])
def test_it_makes_no_archive_by_itself(mode: Mode, library: Path, shop: Shop) -> None:
    for game in ("roms/psx/One", "roms/psx/None"):
        make_game(library, game, {"1.chd": b"1"} if game.endswith("One") else {})
        examination, version = sealed(shop.sealer(mode), game.encode())
        assert isinstance(examination.outcome, Plain)
        assert version is None


def test_it_comes_and_goes_with_the_discs(library: Path, shop: Shop) -> None:
    folder = make_game(library, GAME, {"1.chd": b"1", "manual.pdf": b""})
    sealer = shop.sealer()
    examination, version = sealed(sealer, GAME.encode())
    assert version is not None
    assert names_in(version) == ["1.chd", "manual.pdf"]
    make_file(folder / "2.chd", b"2")
    examination, version = sealed(sealer, GAME.encode(), examination)
    assert version is not None
    assert names_in(version) == ["1.chd", "2.chd", "manual.pdf", "Game.m3u"]
    with_playlist = version.sealed
    make_file(folder / "Game.m3u", b"2.chd\n")
    examination, version = sealed(sealer, GAME.encode(), examination)
    assert version is not None
    assert names_in(version) == ["1.chd", "2.chd", "Game.m3u", "manual.pdf"]
    assert not version.layout.inline
    (folder / "Game.m3u").unlink()
    examination, version = sealed(sealer, GAME.encode(), examination)
    assert isinstance(examination.outcome, Sealed)
    assert examination.outcome == with_playlist
    # What is known isn't put together again, but when it is, it is the same.
    examination, version = sealer.examine(GAME.encode(), GAME.encode(), examination)
    assert version is None
    _, version = sealer.examine(GAME.encode(), GAME.encode(), examination, whole=True)
    assert version is not None
    assert version.sealed == with_playlist


def test_inspect_says_who_made_it(library: Path, shop: Shop) -> None:
    make_game(library, GAME, TWO)
    version = shop.version()
    made = report.as_json(version)["members"][-1]
    assert (made["name"], made["path"], made["source"]) == ("Game.m3u", None, None)
    assert made["size"] == len(OF_TWO)
    shown = io.StringIO()
    report.print_version(version, Console(file=shown, width=120))
    assert "Game.m3u is made by zipfs\n" in shown.getvalue()


def test_it_counts_as_a_member(library: Path, shop: Shop) -> None:
    make_game(library, GAME, TWO)
    sealer = shop.sealer()
    summary = seal_all(sealer, list(find_games(sealer.library, sealer.policy)))
    version = shop.version()
    assert (summary.archives, summary.members) == (1, 4)
    assert summary.size == version.size
    assert summary.hashed == sum(map(len, TWO.values()))
