"""From a folder to an archive (DESIGN S1, V1 to V4, "The ZIP"): what a game is, and when."""

from __future__ import annotations

import logging
import os
import shutil
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.fs.conftest import SETTLE, sealed
from tests.fs.lab import FakeTime, source_file, unprivileged
from tests.support.libraries import MTIME, content, expected, make_file, make_game
from zipfs.archive import validators
from zipfs.index.hash_file import hash_file
from zipfs.index.index import Index
from zipfs.library.filestate import BLOCK
from zipfs.library.library import Library
from zipfs.library.view import find_games
from zipfs.sealing.outcomes import (
    Absent,
    Examination,
    Impossible,
    Outcome,
    Plain,
    Sealed,
    Unhashed,
    Unsettled,
    Version,
)
from zipfs.sealing.sealer import Sealer

GAME = b"roms/game"


def outcome(sealer: Sealer, before: Examination | None = None) -> Outcome:
    return sealer.examine(GAME, GAME, before)[0].outcome


def seal(sealer: Sealer, before: Examination | None = None) -> Sealed:
    found = sealed(sealer, GAME, before)[0].outcome
    assert isinstance(found, Sealed)
    return found


# -- What a game can be ----------------------------------------------------------------


def test_a_game_is_sealed_when_all_its_files_are_hashed(library: Path, sealer: Sealer) -> None:
    game = make_game(library, "roms/game", {"disc 1": b"1" * 5000, "disc 2": b"2", "empty": b""})
    first = outcome(sealer)
    assert isinstance(first, Unhashed)
    assert {file.path for file in first.missing} == {b"disc 1", b"disc 2", b"empty"}
    one = source_file(library, "roms/game/disc 1")
    checksums = hash_file(os.fsencode(game / "disc 1"), one.state)
    sealer.index.put_files({one.source: (one.state, checksums)})
    second = outcome(sealer)
    assert isinstance(second, Unhashed)
    assert {file.path for file in second.missing} == {b"disc 2", b"empty"}
    examination, version = sealed(sealer, GAME)
    wanted = expected(game)
    assert version is not None
    assert examination.outcome == version.sealed
    assert version.sealed == Sealed(
        path=b"roms/game.zip",
        content=wanted.content_id,
        inode=wanted.inode("roms/game.zip"),
        size=wanted.size,
        mtime_ns=wanted.mtime_ns,
        access=sealer.library.scan(GAME, sealer.policy).access,
        count=3,
    )
    assert version.digests == wanted.digests
    assert [sealer.library.absolute(file.source) for file in version.files] == list(wanted.files)


def test_a_record_of_another_state_is_none(library: Path, sealer: Sealer) -> None:
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    seal(sealer)
    one = source_file(library, "roms/game/1")
    _, checksums = sealer.index.files([b"roms/game/1"])[b"roms/game/1"]
    for field in ("size", "mtime_ns", "ctime_ns"):
        state = one.state._replace(**{field: getattr(one.state, field) + 1})
        sealer.index.put_files({one.source: (state, checksums)})
        found = outcome(sealer)
        assert isinstance(found, Unhashed)
        assert found.missing == (source_file(library, "roms/game/1"),)
    os.utime(game / "1", ns=(0, 5))
    assert isinstance(outcome(sealer), Unhashed)


def test_another_inode_alone_is_hashed_again_later(library: Path, sealer: Sealer) -> None:
    """What keeps its ctime over that can't be a rename: the inode didn't last."""
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    before = seal(sealer)
    one = source_file(library, "roms/game/1")
    _, checksums = sealer.index.files([b"roms/game/1"])[b"roms/game/1"]
    other = one.state._replace(inode=one.state.inode + 1)
    sealer.index.put_files({one.source: (other, checksums)})
    examination, version = sealed(sealer, b"roms/game")
    assert examination.outcome == before
    assert examination.unsure == (one,)
    assert version is not None
    assert [file.by_content for file in version.files] == [True, False]


@pytest.mark.parametrize(
    "files", [{}, {"1": b"1"}, {"1": b"1", ".DS_Store": b"", "desktop.ini": b""}]
)
def test_fewer_than_two_files_are_shown_as_they_are(
    files: dict[str, bytes], library: Path, sealer: Sealer
) -> None:
    make_game(library, "roms/game", files)
    assert outcome(sealer) == Plain(os.stat("."))


def test_files_count_in_all_sub_folders(library: Path, sealer: Sealer) -> None:
    make_game(library, "roms/game", {"a/b/1": b"1", "c/2": b"2"})
    assert seal(sealer).count == 2


def test_no_such_game(library: Path, sealer: Sealer) -> None:
    assert outcome(sealer) == Absent()
    make_file(library / "roms/game", b"a file")
    assert outcome(sealer) == Absent()


def test_a_game_that_cant_be_listed(
    library: Path, sealer: Sealer, caplog: pytest.LogCaptureFixture
) -> None:
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    game.chmod(0o000)
    try:
        with unprivileged():
            for _ in range(3):
                assert outcome(sealer) == Absent("can't be listed: Permission denied")
    finally:
        game.chmod(0o755)
    assert len(caplog.records) == 1
    assert "roms/game" in caplog.messages[0]


def test_a_game_that_no_zip_can_express(
    library: Path,
    sealer: Sealer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A name beyond 65,535 bytes, say."""
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})

    def refuse(*_: object) -> Version:
        raise ValueError("a name")

    monkeypatch.setattr(sealer, "_version", refuse)
    examination, _ = sealed(sealer, GAME)
    assert examination.outcome == Impossible("a name")
    assert outcome(sealer) == Impossible("a name")
    assert caplog.messages == ["roms/game.zip can't be made: a name"]


def test_what_is_left_out_is_said_once(
    library: Path, sealer: Sealer, caplog: pytest.LogCaptureFixture
) -> None:
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    os.mkfifo(game / "fifo")
    (game / "line\nbreak").symlink_to("/etc/passwd")
    for _ in range(3):
        assert seal(sealer).count == 2
    assert sorted(caplog.messages) == [
        "roms/game/fifo is left out: not a file or folder but a device, socket or FIFO",
        r"roms/game/line\nbreak is left out: a symbolic link that leaves the library",
    ]


def test_names_that_are_changed_are_said_once(
    library: Path, sealer: Sealer, caplog: pytest.LogCaptureFixture
) -> None:
    make_game(library, "roms/game", {b"a:b": b"1", b"\xff": b"2", "ä".encode(): b"3"})
    sealed(sealer, GAME)
    _, version = sealed(sealer, GAME)
    assert sorted(caplog.messages) == [
        "in roms/game.zip, \\xff is called %FF",
        "in roms/game.zip, a:b is called a%3Ab",
    ]
    assert version
    assert {member.name for member in version.layout.members} == {b"a%3Ab", b"%FF", "ä".encode()}


def test_a_file_that_was_refused_is_left_out_while_it_is_so(library: Path, sealer: Sealer) -> None:
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2", "3": b"3"})
    before = sealed(sealer, GAME)[0]
    sealer.mark_unreadable(source_file(library, "roms/game/2"))
    without, version = sealer.examine(GAME, GAME, before)
    assert version is not None
    assert [file.path for file in version.files] == [b"1", b"3"]
    sealer.mark_unreadable(source_file(library, "roms/game/3"))
    assert outcome(sealer, without) == Plain(os.stat("."))
    (game / "2").chmod(0o640)  # another state: perhaps it can be read now
    (game / "3").chmod(0o640)
    assert seal(sealer).count == 3


def test_dates_that_64_bits_dont_hold(library: Path, sealer: Sealer, clock: FakeTime) -> None:
    """One file from the year 2413 must not take its neighbours' checksums down with it."""
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    os.utime(game / "1", (0, 14_000_000_000))
    os.utime(game / "2", (0, -14_000_000_000))
    before, _ = unsettled(sealer)
    clock.ahead += SETTLE
    _, version = sealed(sealer, GAME, before)
    assert version is not None
    assert max(member.mtime for member in version.layout.members) == 4354819198  # DOS time's end


# -- Settling (S1) ---------------------------------------------------------------------


@pytest.fixture
def now(clock: FakeTime) -> FakeTime:
    """The real time, not an hour later; how long something was watched is up to the test."""
    clock.ahead_ns = 0
    clock.frozen = time.monotonic()
    return clock


def pass_time(clock: FakeTime, seconds: float) -> None:
    clock.ahead += seconds
    clock.ahead_ns += round(seconds * 1e9)


def unsettled(sealer: Sealer, before: Examination | None = None) -> tuple[Examination, float]:
    examination, version = sealer.examine(GAME, GAME, before)
    assert isinstance(examination.outcome, Unsettled)
    assert version is None
    return examination, examination.outcome.seconds


def test_a_game_settles(library: Path, sealer: Sealer, now: FakeTime) -> None:
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    first, seconds = unsettled(sealer)
    assert 0 < seconds <= SETTLE
    pass_time(now, SETTLE / 10)  # and what the test itself takes
    assert unsettled(sealer, first)[1] <= SETTLE * 9 / 10
    pass_time(now, SETTLE)
    assert isinstance(outcome(sealer, first), Unhashed)
    seal(sealer, first)
    os.utime(game / "1", ns=(0, 0))  # now begins anew
    before = sealer.examine(GAME, GAME)[0]
    assert not isinstance(before.outcome, Sealed)


def test_an_old_game_needs_no_wait_after_a_restart(library: Path, sealer: Sealer) -> None:
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    assert isinstance(outcome(sealer), Unhashed)
    seal(sealer)
    assert isinstance(outcome(sealer), Sealed)


def test_each_change_begins_the_wait_anew(library: Path, sealer: Sealer, now: FakeTime) -> None:
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    # Not by their own dates, which a copy program has set back already.
    now.ahead_ns = -(10**12)
    last, _ = unsettled(sealer)
    for change in (
        lambda: (game / "3").write_bytes(b"3"),
        lambda: (game / "3").write_bytes(b"33"),
        lambda: (game / "3").rename(game / "4"),
        lambda: os.utime(game / "4", ns=(0, 0)),
        (game / "4").unlink,
        lambda: (game / "2").chmod(0o600),
    ):
        now.ahead += SETTLE * 0.9
        change()
        last, seconds = unsettled(sealer, last)
        assert seconds == pytest.approx(SETTLE)
    now.ahead += SETTLE
    assert isinstance(outcome(sealer, last), Unhashed)


@pytest.mark.parametrize("when", [10**12, 3600 * 10**9, -(3600 * 10**9)])
def test_dates_in_the_future_only_cost_the_wait(
    when: int, library: Path, sealer: Sealer, now: FakeTime
) -> None:
    """A clock that was set back an hour; and a file that says it is from tomorrow."""
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    if when > 0:
        os.utime(game / "1", ns=(0, now.time_ns() + when))
    else:
        now.ahead_ns = when
    first, seconds = unsettled(sealer)
    assert seconds == pytest.approx(SETTLE)
    now.ahead += SETTLE - 0.01
    _, seconds = unsettled(sealer, first)
    assert 0 < seconds <= 0.02
    now.ahead += 0.02
    assert isinstance(outcome(sealer, first), Unhashed)
    seal(sealer, first)


def test_a_clock_set_back_while_a_game_settles(
    library: Path, sealer: Sealer, now: FakeTime
) -> None:
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    first, _ = unsettled(sealer)
    now.ahead_ns = -(10**15)
    now.ahead += SETTLE / 2
    assert unsettled(sealer, first)[1] == pytest.approx(SETTLE / 2)
    now.ahead += SETTLE / 2
    assert isinstance(outcome(sealer, first), Unhashed)


def test_litter_changes_nothing(library: Path, sealer: Sealer, now: FakeTime) -> None:
    """Looking into a folder with a file manager must not take its archive away."""
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    pass_time(now, SETTLE)
    before, _ = sealed(sealer, GAME)
    (game / ".DS_Store").write_bytes(b"x")
    (game / "@eaDir").mkdir()
    after, version = sealer.examine(GAME, GAME, before)
    assert after.outcome == before.outcome
    assert version is None


def test_a_sealed_game_is_put_together_once(library: Path, sealer: Sealer) -> None:
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    before, version = sealed(sealer, GAME)
    again, nothing = sealer.examine(GAME, GAME, before)
    assert (again.outcome, nothing) == (before.outcome, None)
    assert again.first_seen == before.first_seen
    whole, same = sealer.examine(GAME, GAME, again, whole=True)
    assert whole.outcome == before.outcome
    assert same is not None
    assert version is not None
    assert same.sealed == version.sealed
    assert same.files == version.files


def test_a_lost_index_costs_time_only(library: Path, sealer: Sealer, place: Path) -> None:
    """S3; and V2: the same archive comes of it."""
    make_game(library, "roms/game", {"1": b"1", "2": content(BLOCK + 1)})
    first = seal(sealer)
    with closing(Index(str(place / "another"))) as index:
        other = Sealer(sealer.library, index, globs=(b"roms/*",), settle=SETTLE)
        assert isinstance(outcome(other), Unhashed)
        assert seal(other) == first


def test_a_copy_elsewhere_is_the_same(library: Path, sealer: Sealer, place: Path) -> None:
    """B1, V2: neither the library's path nor inodes, owners or the host take part."""
    make_game(library, "roms/game", {"1": b"1", "sub/2": content(5000)})
    first = seal(sealer)
    shutil.copytree(library, place / "copy" / "of it", copy_function=shutil.copy2)
    with closing(Index(str(place / "another"))) as index:
        copied = Library(str(place / "copy" / "of it"))
        other = Sealer(copied, index, globs=(b"roms/*",), settle=SETTLE)
        assert seal(other) == first


# -- Validators ------------------------------------------------------------------------


def test_another_content_is_another_version(library: Path, sealer: Sealer) -> None:
    """V1, V2, V4 on the way from A to B and back to A."""
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    first = seal(sealer)
    make_file(game / "1", b"one")
    second = seal(sealer)
    assert second.mtime_ns // 10**9 != first.mtime_ns // 10**9
    assert second.inode != first.inode
    make_file(game / "1", b"1")
    assert seal(sealer) == first


def test_a_clash_of_times_moves_by_a_day(library: Path, sealer: Sealer) -> None:
    """V1: a content that asks for a time that another one of this path was given."""
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    wanted = expected(game)
    other = (wanted.content_id + validators.DAY) % (1 << 128)
    seconds = wanted.mtime_ns // 10**9
    assert sealer.index.issue(b"roms/game.zip", other, lambda taken: seconds) == seconds
    found = seal(sealer)
    assert found.mtime_ns == wanted.mtime_ns - validators.DAY * 10**9
    assert seal(sealer) == found


def test_a_chmod_gives_the_same_version_with_another_access(library: Path, sealer: Sealer) -> None:
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    first = seal(sealer)
    (game / "1").chmod(0o600)
    second = seal(sealer)
    assert second.access.mode == 0o400
    assert (second.inode, second.mtime_ns, second.size) == (
        first.inode,
        first.mtime_ns,
        first.size,
    )


# -- What the archive is called ----------------------------------------------------------

BESIDE: dict[str, tuple[list[str], bytes]] = {
    "nothing": ([], b"roms/game.zip"),
    "a file": (["game.zip"], b"roms/game (folder).zip"),
    "both": (["game.zip", "game (folder).zip"], b"roms/game (folder 2).zip"),
    "a folder of that name": (["game.zip/"], b"roms/game (folder).zip"),
    # That folder's own archive has the name by right.
    "a namesake": (["game.zip", "game (folder)/"], b"roms/game (folder 2).zip"),
    "a dangling link": (["game.zip@"], b"roms/game (folder).zip"),
    "another case": (["GAME.ZIP"], b"roms/game.zip"),
}


@pytest.mark.parametrize("case", BESIDE)
def test_a_real_file_keeps_its_name(case: str, library: Path, sealer: Sealer) -> None:
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    beside, wanted = BESIDE[case]
    for name in beside:
        path = library / "roms" / name.rstrip("@/")
        if name.endswith("@"):
            path.symlink_to("none")
        elif name.endswith("/"):
            path.mkdir()
        else:
            path.touch()
    assert sealer.archive_path(GAME, GAME) == wanted
    assert seal(sealer).path == wanted


def test_a_name_that_is_taken_later(library: Path, sealer: Sealer) -> None:
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    before, _ = sealed(sealer, GAME)
    (library / "roms/game.zip").touch()
    after, version = sealer.examine(GAME, GAME, before)
    assert isinstance(before.outcome, Sealed)
    assert isinstance(after.outcome, Sealed)
    assert after.outcome.path == b"roms/game (folder).zip"
    assert after.outcome.inode != before.outcome.inode
    assert after.outcome.content == before.outcome.content
    assert version is not None
    (library / "roms/game.zip").unlink()
    assert sealer.examine(GAME, GAME, after)[0].outcome == before.outcome


def test_the_name_counts_where_the_game_is_shown(library: Path, sealer: Sealer) -> None:
    """A game behind a link: neither the name nor its neighbours at the source matter."""
    make_game(library, "store/secret name", {"1": b"1", "2": b"2"})
    make_file(library / "store/game.zip", b"")
    (library / "roms").mkdir()
    (library / "roms/game").symlink_to("../store/secret name")
    assert sealer.archive_path(GAME, b"store/secret name") == b"roms/game.zip"
    make_file(library / "roms/game.zip", b"")
    assert sealer.archive_path(GAME, b"store/secret name") == b"roms/game (folder).zip"


def test_a_game_below_a_linked_folder(library: Path, sealer: Sealer) -> None:
    make_game(library, "store/a/game", {"1": b"1", "2": b"2"})
    (library / "roms").symlink_to("store/a")
    assert sealer.archive_path(GAME, b"store/a/game") == b"roms/game.zip"
    make_file(library / "store/a/game.zip", b"")
    assert sealer.archive_path(GAME, b"store/a/game") == b"roms/game (folder).zip"


def test_a_game_at_the_top_of_the_library(library: Path, sealer: Sealer) -> None:
    make_game(library, "game", {"1": b"1", "2": b"2"})
    assert sealer.archive_path(b"game", b"game") == b"game.zip"
    (library / "alias").symlink_to("game")
    assert sealer.archive_path(b"alias", b"game") == b"alias.zip"
    make_file(library / "alias.zip", b"")
    assert sealer.archive_path(b"alias", b"game") == b"alias (folder).zip"


# -- The library's structure -------------------------------------------------------------

STRUCTURES: dict[str, tuple[list[str], bytes]] = {
    "roms": (["roms/snes/game", "bios/x/y"], b"roms/snes/game"),
    "platforms with roms": (["snes/roms/game", "gb/other/game"], b"snes/roms/game"),
    "just platforms": (["snes/game"], b"snes/game"),
}


@pytest.mark.parametrize("case", STRUCTURES)
def test_the_structure_is_found_out(case: str, library: Path, index: Index) -> None:
    games, wanted = STRUCTURES[case]
    for game in games:
        make_game(library, game, {"1": b"1", "2": b"2"})
    sealer = Sealer(Library(str(library)), index, settle=SETTLE)
    assert sealer.policy.is_game(wanted)
    assert [path for path, _ in find_games(sealer.library, sealer.policy)] == [wanted]


def test_the_structure_may_change(library: Path, index: Index) -> None:
    make_game(library, "snes/game", {"1": b"1"})
    sealer = Sealer(Library(str(library)), index, settle=SETTLE)
    assert sealer.policy.is_game(b"snes/game")
    make_game(library, "roms/snes/game", {"1": b"1"})
    sealer.detect()
    assert not sealer.policy.is_game(b"snes/game")
    assert sealer.policy.is_game(b"roms/snes/game")
    shutil.rmtree(library)
    sealer.detect()  # an unplugged disk changes nothing
    assert sealer.policy.is_game(b"roms/snes/game")


def test_folders_that_cant_be_entered_are_no_hindrance(
    library: Path, index: Index, caplog: pytest.LogCaptureFixture
) -> None:
    make_game(library, "snes/game", {"1": b"1"})
    (library / "private").mkdir(mode=0o700)
    (library / "list").mkdir(mode=0o744)
    caplog.set_level(logging.WARNING)
    with unprivileged():
        sealer = Sealer(Library(str(library)), index, settle=SETTLE)
        assert [path for path, _ in find_games(sealer.library, sealer.policy)] == [b"snes/game"]
    assert caplog.messages == []


# -- Versions ----------------------------------------------------------------------------


def test_a_version_knows_about_what_it_takes(library: Path, sealer: Sealer) -> None:
    make_game(library, "roms/game", {f"{number:04}": b"x" for number in range(300)})
    _, version = sealed(sealer, GAME)
    assert isinstance(version, Version)
    assert version.memory >= version.layout.metadata_size
    assert version.size == version.layout.size == version.sealed.size
    assert b"".join(
        piece for piece in version.plan(0, 34) if isinstance(piece, memoryview)
    ).startswith(b"PK\x03\x04")


def test_the_date_is_that_of_the_newest_member(library: Path, sealer: Sealer) -> None:
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    os.utime(game / "1", (0, MTIME + 1000))
    newest = MTIME + 1000
    assert 0 <= newest - seal(sealer).mtime_ns // 10**9 < validators.DAY
