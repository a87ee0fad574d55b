"""Variants in the tree (DESIGN S1, V1 to V4, H3): games beside games, found and forgotten."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fs.conftest import SETTLE, Tree, sealed
from tests.fs.lab import FakeTime, open_below, until
from tests.support.libraries import content, expected, make_file, make_game
from tests.support.lists import text_of, write_list
from zipfs.catalog.background.survey import Found, survey
from zipfs.catalog.background.widths import Widths
from zipfs.index.index import Index
from zipfs.library.decorators.lists import WithLists
from zipfs.library.decorators.variants import WithVariants
from zipfs.library.library import Library
from zipfs.library.rules.general import Selection
from zipfs.library.rules.variants import Variant
from zipfs.library.scan import Entry, LeftOut
from zipfs.library.view import find_games
from zipfs.library.vouching import Vouchers
from zipfs.sealing.offline import seal_all
from zipfs.sealing.outcomes import (
    Absent,
    Outcome,
    Plain,
    Sealed,
    Unhashed,
    Unneeded,
    Unsettled,
    Version,
)
from zipfs.sealing.sealer import Sealer
from zipfs.system.threads.lanes import Threads

GAME = "roms/psx/Final"
FILES = {
    "Final (Disc 1).chd": content(3000, 1),
    "Final (Disc 2).chd": content(3001, 2),
    "manual/en.pdf": content(500, "manual"),
    "DLC/more.chd": content(700, "dlc"),
}
VARIANTS = (
    Variant(name=b"no manuals", without=frozenset([b"manual"])),
    Variant(name=b"muOS", only=frozenset([b"game"]), prefix=b".hidden"),
    Variant(name=b"hacks", only=frozenset([b"hack"])),
    Variant(name=b"dc", prefix=b"dc", games=(b"roms/dc/*",)),
)
NO_MANUALS = f"{GAME} [no manuals]"
MUOS = f"{GAME} [muOS]"


@pytest.fixture(autouse=True)
def nothing_stays_open(library: Path) -> Iterator[None]:
    yield
    assert open_below(library) == []


@pytest.fixture
def games(library: Path) -> Path:
    make_game(library, GAME, FILES)
    make_game(library, "roms/psx/Solo", {"solo.chd": b"solo"})
    make_file(library / "roms/psx/Wipeout.chd", b"single")
    return library


def varied(library: Path, *variants: Variant) -> WithVariants:
    return WithVariants(Library(str(library)), variants or VARIANTS)


@pytest.fixture
def sealer(games: Path, index: Index, clock: FakeTime) -> Sealer:
    return Sealer(varied(games), index, globs=(b"roms/*/*",), settle=SETTLE)


def version_of(sealer: Sealer, path: str) -> Version:
    _, version = sealed(sealer, os.fsencode(path))
    assert version is not None
    return version


def outcome_of(sealer: Sealer, path: str) -> Outcome:
    return sealed(sealer, os.fsencode(path))[0].outcome


def unneeded(sealer: Sealer, path: str) -> str:
    outcome = outcome_of(sealer, path)
    assert isinstance(outcome, Unneeded)
    return outcome.reason


def names_of(version: Version) -> list[str]:
    return [member.name.decode() for member in version.layout.members]


# -- Archives ------------------------------------------------------------------------------


def test_archives(games: Path, sealer: Sealer) -> None:
    version = version_of(sealer, NO_MANUALS)
    lines = b"Final (Disc 1).chd\nFinal (Disc 2).chd\n"
    wanted = expected(games / GAME, leave_out=["manual/en.pdf"], playlist=("Final.m3u", lines))
    assert version.sealed.path == f"{NO_MANUALS}.zip".encode()
    assert version.sealed.content == wanted.content_id
    assert version.sealed.mtime_ns == wanted.mtime_ns
    assert version.sealed.inode == wanted.inode(f"{NO_MANUALS}.zip")
    version = version_of(sealer, MUOS)
    lines = b".hidden/Final (Disc 1).chd\n.hidden/Final (Disc 2).chd\n"
    left = ["manual/en.pdf", "DLC/more.chd"]
    wanted = expected(
        games / GAME, leave_out=left, playlist=("Final.m3u", lines), prefix=".hidden/"
    )
    assert version.sealed.content == wanted.content_id
    assert [file.source for file in version.files] == [
        f"{GAME}/Final (Disc {number}).chd".encode() for number in (1, 2)
    ]


def test_playlists_of_its_own(games: Path, index: Index, clock: FakeTime) -> None:
    """Not those of all archives; and the platform is the game's."""
    library = varied(
        games,
        Variant(name=b"off", prefix=b"x", playlists="off"),
        Variant(name=b"romm", prefix=b"x", only=frozenset([b"manual"]), playlists="romm"),
    )
    sealer = Sealer(library, index, globs=(b"roms/{platform}/Fin[a]l",), settle=SETTLE)
    assert names_of(version_of(sealer, GAME))[-1] == "Final.m3u"
    assert names_of(version_of(sealer, f"{GAME} [off]"))[-1] == "x/DLC/more.chd"
    version = version_of(sealer, f"{GAME} [romm]")
    assert names_of(version) == ["x/manual/en.pdf", "Final.m3u"]
    assert list(version.layout.inline.values()) == [b"x/manual/en.pdf"]


def test_nothing_that_makes_no_difference(games: Path, sealer: Sealer) -> None:
    make_game(games, "roms/psx/Plain", {"1.bin": b"1", "2.bin": b"2"})
    assert unneeded(sealer, "roms/psx/Plain [no manuals]") == "nothing of the game is left out"
    assert unneeded(sealer, "roms/psx/Plain [hacks]") == "no file of the game belongs to it"
    assert unneeded(sealer, "roms/psx/Solo [muOS]") == "the game itself has no archive"
    assert names_of(version_of(sealer, "roms/psx/Plain [muOS]")) == [
        ".hidden/1.bin", ".hidden/2.bin",
    ]  # fmt: skip
    make_game(games, "roms/dc/Ika", {"1.bin": b"1", "2.bin": b"2"})
    assert isinstance(outcome_of(sealer, "roms/dc/Ika [dc]"), Sealed)
    for path in ("roms/psx/Plain [dc]", "roms/psx/Plain [none]", "roms/psx/None [muOS]"):
        assert outcome_of(sealer, path) == Absent(), path


def test_a_refused_file_counts_for_neither(games: Path, sealer: Sealer) -> None:
    """Nor does a variant differ from a game without a manual that can't be opened."""
    version = version_of(sealer, GAME)
    by_path = {file.path: file for file in version.files}
    sealer.mark_unreadable(by_path[b"manual/en.pdf"])
    assert unneeded(sealer, NO_MANUALS) == "nothing of the game is left out"
    sealer.mark_unreadable(by_path[b"Final (Disc 2).chd"])
    assert names_of(version_of(sealer, MUOS)) == [".hidden/Final (Disc 1).chd"]
    sealer.mark_unreadable(by_path[b"DLC/more.chd"])
    assert unneeded(sealer, MUOS) == "the game itself has no archive"


def test_from_needed_to_not_and_back(games: Path, sealer: Sealer) -> None:
    before, version = sealed(sealer, NO_MANUALS.encode())
    assert version
    path = NO_MANUALS.encode()
    (games / GAME / "manual/en.pdf").rename(games / "away.pdf")
    examination, _ = sealer.examine(path, path, before)
    assert isinstance(examination.outcome, Unneeded)
    (games / "away.pdf").rename(games / GAME / "manual/en.pdf")
    examination, again = sealed(sealer, path, examination)
    assert again
    assert again.sealed == version.sealed


def test_a_part_left_out_changes_nothing(games: Path, sealer: Sealer) -> None:
    """But for those that hold it; and nothing is hashed that was."""
    path = NO_MANUALS.encode()
    before, version = sealed(sealer, path)
    whole = version_of(sealer, GAME)
    make_file(games / GAME / "manual/en.pdf", b"another")
    make_file(games / GAME / "manual/fr.pdf", b"new")
    examination, _ = sealer.examine(path, path, before)
    assert version
    assert examination.outcome is before.outcome
    assert version_of(sealer, GAME).sealed.content != whole.sealed.content
    make_file(games / GAME / "DLC/more.chd", b"another")
    assert version_of(sealer, NO_MANUALS).sealed.content != version.sealed.content


def test_what_is_left_out_may_come_and_go(games: Path, sealer: Sealer) -> None:
    """As long as the game has an archive: a prefix is difference enough."""
    path = b"roms/psx/Two [muOS]"
    make_game(games, "roms/psx/Two", {"a": b"A", "dlc/b": b"B"})
    before, version = sealed(sealer, path)
    assert version
    make_file(games / "roms/psx/Two/c", b"C")
    (games / "roms/psx/Two/c").rename(games / "roms/psx/Two/dlc/c")
    examination, _ = sealer.examine(path, path, before)
    assert examination.outcome is before.outcome
    shutil.rmtree(games / "roms/psx/Two/dlc")
    examination, _ = sealer.examine(path, path, examination)
    assert examination.outcome == Unneeded("the game itself has no archive")


def test_nothing_is_hashed_twice(sealer: Sealer) -> None:
    sealed(sealer, GAME.encode())
    for path in (NO_MANUALS, MUOS):
        examination, version = sealer.examine(path.encode(), path.encode())
        assert not isinstance(examination.outcome, Unhashed)
        assert version


def test_it_has_to_settle(games: Path, sealer: Sealer, clock: FakeTime) -> None:
    clock.ahead_ns = 0
    make_file(games / GAME / "more.chd", b"new", mtime=0)
    outcome = sealer.examine(MUOS.encode(), MUOS.encode())[0].outcome
    assert isinstance(outcome, Unsettled)


def test_whoever_may_read_all_of_the_game(games: Path, sealer: Sealer) -> None:
    """H3, also of what is left out."""
    assert version_of(sealer, MUOS).sealed.access.mode == 0o444
    (games / GAME / "manual/en.pdf").chmod(0o400)
    assert version_of(sealer, MUOS).sealed.access.mode == 0o400


def test_too_long_a_name(games: Path, sealer: Sealer, caplog: pytest.LogCaptureFixture) -> None:
    name = "n" * 245
    make_game(games, f"roms/psx/{name}", {"1.bin": b"1", "2.bin": b"2"})
    assert isinstance(outcome_of(sealer, f"roms/psx/{name}"), Sealed)
    assert unneeded(sealer, f"roms/psx/{name} [muOS]") == "its name would be too long"
    assert "more than 255 bytes; it isn't there" in caplog.text
    make_game(games, "roms/psx/" + "m" * 244, {"1.bin": b"1", "2.bin": b"2"})
    names = [name for name, _ in find_games(sealer.library, sealer.policy)]
    assert {name[9:] for name in names if name.endswith(b"[muOS]")} == {
        b"Final [muOS]", b"Solo [muOS]", b"m" * 244 + b" [muOS]",
    }  # fmt: skip
    assert not [name for name in names if b"n" * 245 in name and name.endswith(b"]")]


def test_index_command(games: Path, sealer: Sealer) -> None:
    summary = seal_all(sealer, find_games(sealer.library, sealer.policy))
    assert (summary.archives, summary.problems, summary.changing) == (3, [], [])
    assert summary.hashed == sum(map(len, FILES.values()))


def test_an_unreadable_file_is_told_once(
    games: Path, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although each of its archives calls it otherwise."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("zipfs.sealing.offline.hash_file", fail)
    summary = seal_all(sealer, find_games(sealer.library, sealer.policy), sleep=lambda _: None)
    assert len(summary.problems) == len(set(summary.problems)) == len(FILES)


# -- What the library has ------------------------------------------------------------------


def test_what_is_there_wins(games: Path, sealer: Sealer) -> None:
    library = sealer.library
    names = [name for name, _ in find_games(library, sealer.policy)]
    assert NO_MANUALS.encode() in names
    assert isinstance(library.entry(NO_MANUALS.encode()), Entry)
    make_game(games, NO_MANUALS, {"own 1": b"1", "own 2": b"2"})
    assert names_of(version_of(sealer, NO_MANUALS)) == ["own 1", "own 2"]
    names = [name for name, _ in find_games(library, sealer.policy)]
    assert names.count(NO_MANUALS.encode()) == 1
    assert f"{NO_MANUALS} [muOS]".encode() in names  # of the real one
    make_file(games / f"{MUOS}.zip", b"own")
    assert library.entry(MUOS.encode()) is None
    assert outcome_of(sealer, MUOS) == Absent()
    assert MUOS.encode() not in [name for name, _ in find_games(library, sealer.policy)]
    (games / f"{MUOS}.zip").unlink()
    (games / MUOS).symlink_to("nowhere")
    assert isinstance(library.entry(MUOS.encode()), LeftOut)
    (games / MUOS).unlink()
    (games / MUOS).symlink_to("Solo")  # which has one file
    examination, _ = sealer.examine(MUOS.encode(), b"roms/psx/Solo")
    assert isinstance(examination.outcome, Plain)


def test_only_games_have_variants(games: Path, sealer: Sealer) -> None:
    for path in ("roms/psx", "roms/psx/Final/manual", "roms/psx/Wipeout.chd"):
        assert outcome_of(sealer, f"{path} [no manuals]") == Absent(), path
    assert sealer.policy.is_game(b"roms/psx/Final [muOS]")
    assert not sealer.policy.is_game(b"roms/psx [muOS]")


def test_lists_have_no_variants(games: Path, place: Path, index: Index, clock: FakeTime) -> None:
    lists = place / "lists"
    lists.mkdir()
    write_list(lists / "x.list", text_of(games, [("a", f"{GAME}/manual/en.pdf"), ("b", b"B")]))
    inner = WithLists(Library(str(games)), str(lists), shown_in=b".lists", prefix=b"/library/")
    sealer = Sealer(WithVariants(inner, VARIANTS), index, globs=(b"roms/*/*",), settle=SETTLE)
    assert isinstance(outcome_of(sealer, ".lists/x"), Sealed)
    assert outcome_of(sealer, ".lists/x [muOS]") == Absent()
    names = [name for name, _ in find_games(sealer.library, sealer.policy)]
    assert b".lists/x" in names
    assert MUOS.encode() in names
    assert b".lists/x [muOS]" not in names


def test_behind_links(games: Path, sealer: Sealer) -> None:
    """The platform's folder, and the game's; but a link that is gone is no variant."""
    make_game(games, "store/X", {"1": b"1", "2": b"2"})
    with pytest.raises(FileNotFoundError):
        sealer.library.scan(b"store/X [muOS]", sealer.policy, path=NO_MANUALS.encode())
    shutil.rmtree(games / "store")
    (games / "roms/psx").rename(games / "store")
    (games / "roms/psx").symlink_to("../store")
    (games / "store/Other").symlink_to("Final")
    summary = seal_all(sealer, find_games(sealer.library, sealer.policy))
    assert summary.archives == 6
    names = [name for name, _ in find_games(sealer.library, sealer.policy)]
    for path in (NO_MANUALS, "roms/psx/Other [no manuals]"):
        assert path.encode() in names
        source = path.replace("roms/psx", "store").encode()
        _, version = sealer.examine(path.encode(), source)
        assert version
        assert version.sealed.path == f"{path}.zip".encode()
        assert {file.source.rpartition(b"/")[0] for file in version.files} == {
            b"store/Final", b"store/Final/DLC",
        }  # fmt: skip


# -- The tree ------------------------------------------------------------------------------


async def test_listed_and_looked_up(running: Tree) -> None:
    shown = ["Final [muOS].zip", "Final [no manuals].zip", "Final.zip"]
    for name in shown:
        await running.sealed(f"roms/psx/{name}")
    assert sorted(await running.names("roms/psx")) == [*shown, "Solo", "Wipeout.chd"]
    assert await running.names("roms") == ["psx"]
    for path in (
        NO_MANUALS, MUOS, f"{GAME} [hacks]", f"{GAME} [hacks].zip", f"{GAME} [dc].zip",
        "roms/psx/Solo [muOS].zip", "roms/psx/Solo [muOS]", "roms/psx [muOS]", "roms [muOS].zip",
        "roms/psx [muOS].zip", "roms/psx/Wipeout.chd [muOS].zip", "roms/psx/Solo/x [muOS].zip",
    ):  # fmt: skip
        assert not await running.is_there(path), path
    totals = running.catalog.totals()
    assert (totals.archives, totals.unsealed) == (3, 0)
    # Known not to be there, so that it is no news each time that it is looked for.
    unshown = running.games.get(f"{GAME} [hacks]".encode())
    assert unshown
    assert isinstance(unshown.outcome, Unneeded)


async def test_told_of_changes(running: Tree, games: Path, stale: None) -> None:
    await running.sealed(f"{NO_MANUALS}.zip")
    muos = await running.sealed(f"{MUOS}.zip")
    make_file(games / GAME / "Final (Disc 1).chd", b"another")
    running.catalog.changed([f"{GAME}/Final (Disc 1).chd".encode()])
    await until(
        lambda: (
            (game := running.games.by_archive(f"{MUOS}.zip".encode()))
            and isinstance(game.outcome, Sealed)
            and game.outcome.inode != muos.attributes.inode
        )
    )
    shutil.rmtree(games / GAME)
    running.catalog.changed([GAME.encode()])
    await until(lambda: not running.catalog.totals().archives)
    assert await running.names("roms/psx") == ["Solo", "Wipeout.chd"]
    make_game(games, GAME, FILES)
    running.catalog.changed([GAME.encode()])
    await until(lambda: running.catalog.totals().archives == 3)


async def test_a_real_one_comes_and_goes(running: Tree, games: Path, stale: None) -> None:
    virtual = await running.sealed(f"{MUOS}.zip")
    make_game(games, MUOS, {"own 1": b"1", "own 2": b"2"})
    running.catalog.changed([MUOS.encode()])
    await until(
        lambda: (
            (game := running.games.by_archive(f"{MUOS}.zip".encode()))
            and isinstance(game.outcome, Sealed)
            and game.outcome.inode != virtual.attributes.inode
        )
    )
    names = await running.names("roms/psx")
    assert names.count("Final [muOS].zip") == 1
    shutil.rmtree(games / MUOS)
    running.catalog.changed([MUOS.encode()])
    await until(
        lambda: (
            (game := running.games.by_archive(f"{MUOS}.zip".encode()))
            and isinstance(game.outcome, Sealed)
            and game.outcome.inode == virtual.attributes.inode
        )
    )


async def test_a_game_that_doesnt_answer(
    running: Tree, sealer: Sealer, stale: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its variants are shown, and kept, as they were last known, as it is itself."""
    for path in (GAME, MUOS, NO_MANUALS):
        await running.sealed(f"{path}.zip")
    before = sorted(await running.names("roms/psx"))
    library = sealer.library
    look = library.entry

    def hang(source: bytes, *rest: frozenset[bytes]) -> Entry | LeftOut | None:
        if source.startswith(GAME.encode()):
            raise TimeoutError
        return look(source, *rest)

    monkeypatch.setattr(library, "entry", hang)
    running.catalog._listings.clear()
    assert sorted(await running.names("roms/psx")) == before
    found = [
        found
        async for found in survey(library, sealer.policy, Threads(4), Widths(library.presence, 4))
    ]
    steps = [step for step in found if isinstance(step, Found)]
    games = {path for step in steps for path, _ in step.games}
    silent = {path for step in steps for path in step.silent}
    # Those are examined, or passed over: neither is forgotten.
    assert {GAME.encode(), MUOS.encode(), NO_MANUALS.encode()} <= games | silent
    assert not games & silent


def test_without_variants_nothing_is_asked(games: Path, index: Index, clock: FakeTime) -> None:
    library = Library(str(games))

    def fail() -> Iterator[bytes]:
        raise AssertionError("a call per entry")
        yield b""

    assert library.beside(b"roms", fail(), fail()) == ()
    assert library.variants_of(b"roms/psx/Final") == ()
    sealer = Sealer(library, index, globs=(b"roms/*/*",), settle=SETTLE)
    assert outcome_of(sealer, NO_MANUALS) == Absent()


def test_what_is_known_of_a_file_holds_in_a_variant(games: Path) -> None:
    """R1: whether its state vouches for its bytes, whether it can be executed, all but the name."""
    library = WithVariants(Library(str(games), Vouchers("always")), VARIANTS)
    (games / GAME / "DLC/more.chd").chmod(0o755)
    policy = library.extended(Selection((b"roms/*/*",)))
    whole = {file.source: file for file in library.scan(GAME.encode(), policy).files}
    files = library.scan(NO_MANUALS.encode(), policy).files
    assert len(files) == len(FILES) - 1
    for file in files:
        assert file.by_content
        assert file == whole[file.source]
    assert [file.source for file in files if file.executable] == [f"{GAME}/DLC/more.chd".encode()]
    hidden = library.scan(MUOS.encode(), policy).files
    assert all(file.by_content and file.path.startswith(b".hidden/") for file in hidden)
