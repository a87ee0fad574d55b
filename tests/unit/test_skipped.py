"""What isn't shown: a new look replaces the old one, and memory is bounded."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zipfs.catalog import skipped as skipped_module
from zipfs.catalog.skipped import KINDS, NEWEST, OTHER_KINDS, WENT_AWAY, By, Skipped, within
from zipfs.library.scan import LeftOut

GAME = (By.GAME, b"roms/game")
FOLDER = (By.FOLDER, b"roms")


def paths(skipped: Skipped) -> list[bytes]:
    return [skip.path for skip in skipped.newest]


def test_a_new_look_replaces_the_old_one() -> None:
    skipped = Skipped()
    skipped.replace(GAME, [LeftOut(b"roms/game/a", "bad"), LeftOut(b"roms/game/b", "worse")])
    since = {skip.path: skip.since for skip in skipped.newest}
    skipped.replace(GAME, [LeftOut(b"roms/game/b", "worse"), LeftOut(b"roms/game/c", "bad: why")])
    assert sorted(paths(skipped)) == [b"roms/game/b", b"roms/game/c"]
    assert skipped.kinds == {"worse": 1, "bad": 1}
    assert (
        next(s.since for s in skipped.newest if s.path == b"roms/game/b") == since[b"roms/game/b"]
    )
    skipped.replace(GAME, [])
    assert (len(skipped), skipped.kinds, skipped.newest) == (0, {}, [])


def test_what_is_the_same_keeps_its_place() -> None:
    skipped = Skipped()
    for name in (b"1", b"2", b"3"):
        skipped.replace((By.GAME, name), [LeftOut(name, "bad")])
    skipped.replace((By.GAME, b"1"), [LeftOut(b"1", "bad")])
    assert paths(skipped) == [b"3", b"2", b"1"]
    skipped.replace((By.GAME, b"1"), [LeftOut(b"1", "worse")])
    assert paths(skipped) == [b"1", b"3", b"2"]
    assert skipped.newest[0].reason == "worse"


def test_nothing_is_skipped_that_went_away() -> None:
    skipped = Skipped()
    skipped.replace(FOLDER, [LeftOut(b"roms/x", WENT_AWAY)])
    assert len(skipped) == 0


def test_owners_have_nothing_to_do_with_each_other() -> None:
    """A game's files that can't be hashed are renewed for themselves."""
    skipped = Skipped()
    for by in By:
        skipped.replace((by, b"roms/game"), [LeftOut(by.value.encode(), "can't be read: no")])
    skipped.drop(GAME)
    assert sorted(paths(skipped)) == [b"folder", b"hashing"]
    assert skipped.kinds == {"can't be read": 2}
    assert skipped.is_known(b"hashing")
    assert not skipped.is_known(b"game")


def test_old_owners_are_known_by_when_they_last_spoke(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(100)
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    skipped = Skipped()
    skipped.replace((By.FOLDER, b"old"), [LeftOut(b"old/x", "bad")])  # at 100
    skipped.replace((By.FOLDER, b"new"), [LeftOut(b"new/x", "bad")])  # at 101
    assert skipped.owners(101) == [(By.FOLDER, b"old")]
    skipped.replace((By.FOLDER, b"old"), [LeftOut(b"old/x", "bad")])  # the same, but later
    assert skipped.owners(102) == [(By.FOLDER, b"new")]


def test_of_too_many_only_the_number_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skipped_module, "NEWEST", 10)
    skipped = Skipped()
    for number in range(100):
        name = b"%d" % number
        skipped.replace((By.GAME, name), [LeftOut(name, "bad")])
    assert len(skipped) == 100
    assert paths(skipped) == [b"%d" % number for number in range(99, 89, -1)]
    # All of them are examined again, as by a scan: nothing changes.
    for number in range(100):
        name = b"%d" % number
        skipped.replace((By.GAME, name), [LeftOut(name, "bad")])
    assert (len(skipped), paths(skipped)[0]) == (100, b"99")
    # Those that are known by name are mended; the next scan names others.
    for number in range(90, 100):
        skipped.replace((By.GAME, b"%d" % number), [])
    assert (len(skipped), skipped.kinds, paths(skipped)) == (90, {"bad": 90}, [])
    for number in range(90):
        name = b"%d" % number
        skipped.replace((By.GAME, name), [LeftOut(name, "bad")])
    assert (len(skipped), len(paths(skipped))) == (90, 10)


def test_a_single_owner_fills_no_memory() -> None:
    skipped = Skipped()
    skipped.replace(FOLDER, (LeftOut(b"roms/%d" % n, "bad") for n in range(5 * NEWEST)))
    assert len(skipped) == 5 * NEWEST
    assert len(paths(skipped)) == NEWEST
    skipped.replace(FOLDER, [])
    assert len(skipped) == 0
    assert not skipped._said


def test_kinds_are_few() -> None:
    skipped = Skipped()
    skipped.replace(FOLDER, (LeftOut(b"roms/%d" % n, f"reason {n}") for n in range(KINDS + 50)))
    assert len(skipped.kinds) == KINDS + 1
    assert skipped.kinds[OTHER_KINDS] == 50
    assert sum(skipped.kinds.values()) == len(skipped)


NAMES = st.sampled_from([b"a", b"b", b"c", b"d"])
FOUND = st.dictionaries(NAMES, st.sampled_from(["bad", "worse: x", "worse: y"]), max_size=4)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(By), NAMES, FOUND), max_size=40))
def test_counts_are_those_of_what_was_said_last(
    said: list[tuple[By, bytes, dict[bytes, str]]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(skipped_module, "NEWEST", 6)
        skipped = Skipped()
        last: dict[tuple[By, bytes], dict[bytes, str]] = {}
        for by, name, found in said:
            skipped.replace((by, name), [LeftOut(path, why) for path, why in found.items()])
            last[by, name] = found
            wanted = Counter(
                why.partition(":")[0] for found in last.values() for why in found.values()
            )
            assert Counter(skipped.kinds) == wanted
            assert len(skipped) == wanted.total()
            assert len(paths(skipped)) <= 6
            assert all(
                any(found.get(skip.path) == skip.reason for found in last.values())
                for skip in skipped.newest
            )


@pytest.mark.parametrize(
    ("folders", "wanted"),
    [
        ([], False),
        ([b"roms"], True),
        ([b"roms/psx"], False),
        ([b"rom", b"roms/game"], True),
        ([b""], True),  # the library itself doesn't answer
    ],
)
def test_within(folders: list[bytes], wanted: bool) -> None:
    assert within(b"roms/game", folders) is wanted
