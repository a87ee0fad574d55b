"""Empty folders and execute bits in archives (DESIGN B1, V1, V2, "The ZIP"): which, and when."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fs.conftest import SETTLE, sealed
from tests.fs.lab import FakeTime, open_below, root_only, unprivileged
from tests.support.libraries import MTIME, expected, make_file, make_game
from zipfs.index.index import Index
from zipfs.library.decorators.variants import WithVariants
from zipfs.library.library import Library
from zipfs.library.rules.general import Selection
from zipfs.library.rules.globs import Patterns
from zipfs.library.rules.playlists import Playlists
from zipfs.library.rules.romm import Rules
from zipfs.library.rules.variants import Variant
from zipfs.library.scan import GameScan
from zipfs.sealing.members import Style
from zipfs.sealing.outcomes import Plain, Sealed, Unsettled, Version
from zipfs.sealing.sealer import Sealer

GAME = b"roms/game"
FILES = {"game.exe": b"MZ", "data/level 1": b"one"}


@pytest.fixture(autouse=True)
def nothing_stays_open(library: Path) -> Iterator[None]:
    yield
    assert open_below(library) == []


@pytest.fixture
def game(library: Path) -> Path:
    return make_game(library, "roms/game", FILES)


def scan(library: Path, *exclude: bytes, include: tuple[bytes, ...] = ()) -> GameScan:
    policy = Selection((b"roms/*",), Patterns(exclude, include))
    return Library(str(library)).scan(GAME, policy)


def version_of(sealer: Sealer, path: bytes = GAME) -> Version:
    _, version = sealed(sealer, path)
    assert version is not None
    return version


def names(version: Version) -> list[bytes]:
    return [member.name for member in version.layout.members]


# -- Which folders -------------------------------------------------------------------


def test_only_the_leaves(library: Path, game: Path) -> None:
    for folder in ("saves", "data/mods", "a/b/c", "a/d", "Ü\udcff:"):
        (game / folder).mkdir(parents=True)
    assert scan(library).folders == (
        b"a/b/c", b"a/d", b"data/mods", b"saves", "Ü\udcff:".encode("utf-8", "surrogateescape"),
    )  # fmt: skip


def test_none_without_any(library: Path, game: Path) -> None:
    assert scan(library).folders == ()
    make_game(library, "roms/empty", {})
    found = Library(str(library)).scan(b"roms/empty", Selection((b"roms/*",)))
    assert (found.files, found.folders) == ((), ())  # the game itself is no entry of its own


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", "._x", "@eaDir/x.jpg"])
def test_what_systems_leave_behind_fills_no_folder(name: str, library: Path, game: Path) -> None:
    """Who looks into a folder mustn't change the archive."""
    (game / "saves").mkdir()
    make_file(game / "saves" / name, b"junk")
    assert scan(library).folders == (b"saves",)
    assert scan(library, include=(os.fsencode(name.partition("/")[0]),)).folders == ()


def test_what_the_user_excludes_is_there(library: Path, game: Path) -> None:
    """The folder of an excluded file isn't made empty by that."""
    make_file(game / "scans/cover.nfo", b"")
    make_file(game / "outer/inner/x.nfo", b"")
    (game / "kept/no").mkdir(parents=True)
    (game / "saves").mkdir()
    assert scan(library, b"*.nfo").folders == (b"kept/no", b"saves")
    assert scan(library, b"*.nfo", b"no", b"saves").folders == ()


def test_what_cant_be_shown_is_there(library: Path, game: Path) -> None:
    for folder in ("dangling", "pipe", "outside"):
        (game / folder).mkdir()
    (game / "dangling/link").symlink_to("nothing")
    os.mkfifo(game / "pipe/fifo")
    (game / "outside/link").symlink_to("/etc")
    found = scan(library)
    assert found.folders == ()
    assert len(found.left_out) == 3


@root_only
def test_what_cant_be_listed_isnt_known_to_be_empty(library: Path, game: Path) -> None:
    (game / "closed").mkdir(mode=0o300)
    (game / "around/closed").mkdir(mode=0o300, parents=True)
    with unprivileged():
        assert scan(library).folders == ()


def test_by_way_of_links(library: Path, game: Path) -> None:
    (library / "elsewhere").mkdir()
    (game / "linked").symlink_to("../../elsewhere")
    (game / "saves").mkdir()
    (game / "saves too").symlink_to("saves")
    assert scan(library).folders == (b"linked", b"saves", b"saves too")
    make_file(library / "elsewhere/x", b"x")
    assert scan(library).folders == (b"saves", b"saves too")


def test_romm_has_files_only(library: Path, game: Path, index: Index, clock: FakeTime) -> None:
    (game / "saves").mkdir()
    romm = Sealer(Library(str(library)), index, globs=(b"roms/*",), rules=Rules(), settle=SETTLE)
    assert names(version_of(romm)) == [b"game.exe", b"data/level 1"]


# -- The archive ---------------------------------------------------------------------


def test_it_is_the_archive_of_the_specification(library: Path, game: Path, sealer: Sealer) -> None:
    """Its validators, computed by no sealer; the dates of folders take no part (B1)."""
    without = version_of(sealer).sealed
    assert without.content == expected(game).content_id
    for folder in ("saves", "data/mods", "Game"):
        (game / folder).mkdir()
    version = version_of(sealer)
    wanted = expected(game)
    assert names(version) == [b"Game/", b"game.exe", b"data/level 1", b"data/mods/", b"saves/"]
    assert version.sealed.content == wanted.content_id != without.content
    assert (version.sealed.size, version.sealed.mtime_ns) == (wanted.size, wanted.mtime_ns)
    assert version.sealed.count == 5
    assert {member.mtime for member in version.layout.members} == {MTIME}
    os.utime(game / "saves", (1, 1))
    assert version_of(sealer).sealed == version.sealed
    shutil.rmtree(game / "saves")
    for folder in ("data/mods", "Game"):
        (game / folder).rmdir()
    assert version_of(sealer).sealed == without


def test_files_alone_make_an_archive(library: Path, sealer: Sealer) -> None:
    one = make_game(library, "roms/game", {"solo.iso": b"x"})
    (one / "saves").mkdir()
    (one / "mods").mkdir()
    assert isinstance(sealed(sealer, GAME)[0].outcome, Plain)


def test_one_that_comes_or_goes_is_a_change(game: Path, sealer: Sealer, clock: FakeTime) -> None:
    """It has to settle, as any other (S1)."""
    examination, _ = sealed(sealer, GAME)
    clock.ahead_ns = 0
    (game / "saves").mkdir()
    then, _ = sealer.examine(GAME, GAME, examination)
    assert then.fingerprint != examination.fingerprint
    assert isinstance(then.outcome, Unsettled)
    clock.ahead_ns = 3600 * 10**9
    found, _ = sealer.examine(GAME, GAME, then)
    assert isinstance(found.outcome, Sealed)


def test_names_are_mapped_as_all_are(
    game: Path, sealer: Sealer, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("a:b", "a%3Ab", "data/é\udcff"):
        (game / folder).mkdir()
    assert set(names(version_of(sealer))) == {
        b"game.exe", b"data/level 1", b"a%3Ab (2)/", b"a%3Ab/", "data/é%FF/".encode(),
    }  # fmt: skip
    assert "in roms/game.zip, a:b is called a%3Ab (2)" in caplog.text


def test_portable_names_are_those_of_siblings(
    library: Path, game: Path, index: Index, clock: FakeTime
) -> None:
    for folder in ("Data", "CON"):
        (game / folder).mkdir()
    portable = Sealer(
        Library(str(library)), index, globs=(b"roms/*",), settle=SETTLE,
        style=Style(portable_names=True),
    )  # fmt: skip
    assert names(version_of(portable)) == [b"%43ON/", b"Data/", b"game.exe", b"data (2)/level 1"]


@pytest.mark.parametrize("mode", ["romm", "discs"])
def test_playlists_have_files_only(mode: str, library: Path, index: Index, clock: FakeTime) -> None:
    assert mode in ("romm", "discs")
    game = make_game(library, "roms/psx/game", {"Disc 1.chd": b"1", "Disc 2.chd": b"2"})
    (game / "Disc 3.chd").mkdir()
    (game / "list.m3u").mkdir()
    of = Sealer(
        Library(str(library)), index, globs=(b"roms/{platform}/*",), settle=SETTLE,
        playlists=Playlists(mode="romm" if mode == "romm" else "discs"),
    )  # fmt: skip
    version = version_of(of, b"roms/psx/game")
    assert names(version)[-1] == b"game.m3u"
    content = version.layout.inline[len(version.layout.members) - 1]
    assert content.split() == b"Disc 1.chd Disc 2.chd".replace(b" ", b"\n").split()
    # A folder of the playlist's name takes it.
    (game / "GAME.M3U").mkdir()
    assert names(version_of(of, b"roms/psx/game"))[-1] == b"list.m3u/"


def test_variants_have_those_that_they_take(
    library: Path, game: Path, index: Index, clock: FakeTime
) -> None:
    """Of those that the game has; leaving out files makes none."""
    make_file(game / "manual/en.pdf", b"pdf")
    make_file(game / "scans/1.png", b"png")
    for folder in ("saves", "manual/de", "dlc", "extras"):
        (game / folder).mkdir()
    variants = (
        Variant(name=b"lean", without=frozenset([b"manual", b"dlc"]), prefix=b"x/y"),
        Variant(name=b"more", patterns=Patterns((b"*.png", b"extras", b"manual/de"))),
    )
    sealer = Sealer(
        WithVariants(Library(str(library)), variants), index, globs=(b"roms/*",), settle=SETTLE
    )
    assert names(version_of(sealer, GAME + b" [lean]")) == [
        b"x/y/scans/1.png", b"x/y/extras/", b"x/y/game.exe", b"x/y/data/level 1", b"x/y/saves/",
    ]  # fmt: skip
    assert names(version_of(sealer, GAME + b" [more]")) == [
        b"dlc/", b"manual/en.pdf", b"game.exe", b"data/level 1", b"saves/",
    ]  # fmt: skip


def test_a_variant_differs_by_its_files(
    library: Path, game: Path, index: Index, clock: FakeTime
) -> None:
    (game / "dlc").mkdir()
    variant = Variant(name=b"lean", without=frozenset([b"dlc"]))
    sealer = Sealer(
        WithVariants(Library(str(library)), [variant]), index, globs=(b"roms/*",), settle=SETTLE
    )
    assert sealed(sealer, GAME + b" [lean]")[1] is None


# -- Execute bits --------------------------------------------------------------------


@pytest.fixture
def keeping(library: Path, index: Index, clock: FakeTime) -> Sealer:
    """A sealer that keeps them."""
    style = Style(execute_bits=True)
    return Sealer(Library(str(library)), index, globs=(b"roms/*",), settle=SETTLE, style=style)


def executable(version: Version) -> set[bytes]:
    return {member.name for member in version.layout.members if member.executable}


def test_anybodys_bit_counts(game: Path, keeping: Sealer) -> None:
    modes = {"u": 0o744, "g": 0o654, "o": 0o645, "none": 0o644, "set-uid": 0o4644}
    for name, mode in modes.items():
        make_file(game / name, b"")
        (game / name).chmod(mode)
    (game / "saves").mkdir()
    assert executable(version_of(keeping)) == {b"u", b"g", b"o"}


def test_off_by_default(game: Path, sealer: Sealer, keeping: Sealer) -> None:
    """And where no file can be executed, both give the same."""
    before = version_of(sealer).sealed
    assert version_of(keeping).sealed == before
    (game / "game.exe").chmod(0o755)
    assert version_of(sealer).sealed == before
    found = version_of(keeping)
    assert executable(found) == {b"game.exe"}
    wanted = expected(game, executable=True)
    assert found.sealed.content == wanted.content_id != before.content
    assert (found.sealed.size, found.sealed.mtime_ns) == (wanted.size, wanted.mtime_ns)
    assert found.sealed.mtime_ns // 10**9 != before.mtime_ns // 10**9  # V1
    assert found.sealed.size == before.size
    (game / "game.exe").chmod(0o644)
    assert version_of(keeping).sealed == before  # V2


def test_a_bit_alone_is_a_change(library: Path, game: Path) -> None:
    """On a file system whose ctime doesn't tell, as well."""
    before = scan(library)
    (game / "game.exe").chmod(0o755)
    after = scan(library)
    states = {file.path: file.state for file in before.files}
    files = tuple(dataclasses.replace(file, state=states[file.path]) for file in after.files)
    same_states = dataclasses.replace(after, files=files)
    assert same_states.fingerprint() != before.fingerprint()


def test_behind_a_closed_folder(library: Path, game: Path, keeping: Sealer) -> None:
    """What a link shows is as executable as it is where it lies; and no more readable (H3)."""
    make_file(library / "private/run.sh", b"#!")
    (library / "private/run.sh").chmod(0o755)
    (library / "private").chmod(0o700)
    (game / "run.sh").symlink_to("../../private/run.sh")
    found = version_of(keeping)
    assert executable(found) == {b"run.sh"}
    assert found.sealed.access.mode == 0o400
