"""Library trees through both selections: which archives there are, and what is in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fs.conftest import SETTLE
from tests.fs.lab import FakeTime
from tests.support.libraries import make_game
from tests.support.selections import CASES
from zipfs.index.index import Index
from zipfs.library.library import Library
from zipfs.library.rules.globs import Patterns
from zipfs.library.rules.playlists import Playlists
from zipfs.library.rules.romm import Rules
from zipfs.library.rules.romm_config import read_rules
from zipfs.library.view import find_games
from zipfs.sealing import offline
from zipfs.sealing.outcomes import Plain
from zipfs.sealing.sealer import Sealer


def encoded(patterns: object) -> tuple[bytes, ...]:
    assert isinstance(patterns, list | tuple)
    return tuple(map(os.fsencode, patterns))


def archives(sealer: Sealer) -> dict[str, list[str]]:
    found = {}
    for game in find_games(sealer.library, sealer.policy):
        examination, version = offline.seal_one(sealer, game)
        if version is None:
            assert isinstance(examination.outcome, Plain), examination
            continue
        members = [member.name.decode() for member in version.layout.members]
        found[os.fsdecode(version.sealed.path)] = members
    return found


@pytest.mark.parametrize("selection", ["romm", "general"])
@pytest.mark.parametrize("name", CASES)
def test_archives(name: str, selection: str, library: Path, index: Index, clock: FakeTime) -> None:
    case = CASES[name]
    case.make(library)
    sealer = Sealer(
        Library(str(library)),
        index,
        globs=encoded(case.games),
        patterns=Patterns(encoded(case.exclude), encoded(case.include)),
        rules=read_rules(case.config.encode(), "config.yml") if selection == "romm" else None,
        settle=SETTLE,
    )
    assert archives(sealer) == case.expected(selection)


@pytest.mark.parametrize("name", CASES)
def test_playlists_of_romm(name: str, library: Path, index: Index, clock: FakeTime) -> None:
    """The same trees with RomM's playlists: last, and right to the byte."""
    case = CASES[name]
    case.make(library)
    sealer = Sealer(
        Library(str(library)),
        index,
        globs=encoded(case.games),
        patterns=Patterns(encoded(case.exclude), encoded(case.include)),
        rules=read_rules(case.config.encode(), "config.yml"),
        playlists=Playlists(mode="romm"),
        settle=SETTLE,
    )
    found = {}
    for game in find_games(sealer.library, sealer.policy):
        _, version = offline.seal_one(sealer, game)
        if version is None:
            continue
        layout = version.layout
        names = [member.name.decode() for member in layout.members]
        added = [(names[number], content) for number, content in layout.inline.items()]
        assert sorted(layout.inline) == list(range(len(version.files), len(names)))
        found[os.fsdecode(version.sealed.path)] = (names[: len(version.files)], added)
    assert found == {
        archive: (members, [playlist] if (playlist := case.playlist(archive)) else [])
        for archive, members in case.expected("romm").items()
    }


def test_a_link_to_a_folder_is_said_to_be_left_out(
    library: Path, index: Index, clock: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_game(library, "roms/psx/Game", {"1": b"1", "2": b"2", "sub/3": b"3"})
    (folder / "link").symlink_to("sub")
    sealer = Sealer(Library(str(library)), index, rules=Rules(), settle=SETTLE)
    archives(sealer)
    assert caplog.messages == ["roms/psx/Game/link is left out: a symbolic link to a folder"]


def test_an_unplugged_disk_changes_nothing(library: Path, index: Index) -> None:
    make_game(library, "roms/psx/Game", {"1": b"1", "2": b"2"})
    sealer = Sealer(Library(str(library)), index, rules=Rules(), settle=SETTLE)
    library.rename(f"{library}-away")
    sealer.detect()
    assert sealer.policy.is_game(b"roms/psx/Game")
    library.mkdir()
    (library / "lost+found").mkdir()
    sealer.detect()
    assert sealer.policy.is_game(b"roms/psx/Game")


def test_other_rules_are_adopted(library: Path, index: Index, clock: FakeTime) -> None:
    make_game(library, "roms/psx/Game", {"1": b"1", "2": b"2", "3.log": b"3", "4.nfo": b"4"})
    sealer = Sealer(Library(str(library)), index, rules=Rules(), settle=SETTLE)
    assert archives(sealer) == {"roms/psx/Game.zip": ["1", "2", "4.nfo"]}
    sealer.adopt(Rules(extensions=("nfo",)))
    assert archives(sealer) == {"roms/psx/Game.zip": ["1", "2", "3.log"]}


def test_the_later_of_two_rules_holds(
    library: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is still finding out about old rules doesn't put them back."""
    make_game(library, "psx/isos/Game", {"1": b"1", "2": b"2"})
    sealer = Sealer(Library(str(library)), index, rules=Rules(), settle=SETTLE)
    real = sealer.library.has_folder

    def slow(path: bytes) -> bool:
        monkeypatch.setattr(sealer.library, "has_folder", real)
        sealer.adopt(Rules(roms_folder="isos"))
        return real(path)

    monkeypatch.setattr(sealer.library, "has_folder", slow)
    sealer.adopt(Rules(roms_folder="games"))
    assert sealer.policy.is_game(b"psx/isos/Game")
    assert not sealer.policy.is_game(b"psx/games/Game")
