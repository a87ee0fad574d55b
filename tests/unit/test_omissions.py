"""The book of what isn't shown: a new look replaces the old one, and memory is bounded."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zipfs.catalog import skipped as omissions_module
from zipfs.catalog.skipped import KINDS, OF_ONE, OTHER_KINDS, WENT_AWAY, By, Omissions, within
from zipfs.library.scan import LeftOut

GAME = (By.GAME, b"roms/game")
FOLDER = (By.FOLDER, b"roms")


def paths(book: Omissions) -> list[bytes]:
    return [omission.path for omission in book.newest(10**6)]


def test_a_new_look_replaces_the_old_one() -> None:
    book = Omissions()
    book.replace(GAME, [LeftOut(b"roms/game/a", "bad"), LeftOut(b"roms/game/b", "worse")])
    since = {omission.path: omission.since for omission in book.newest(2)}
    book.replace(GAME, [LeftOut(b"roms/game/b", "worse"), LeftOut(b"roms/game/c", "bad: why")])
    assert sorted(paths(book)) == [b"roms/game/b", b"roms/game/c"]
    assert book.kinds == {"worse": 1, "bad": 1}
    assert (
        next(o.since for o in book.newest(9) if o.path == b"roms/game/b") == since[b"roms/game/b"]
    )
    book.replace(GAME, [])
    assert (len(book), book.kinds, book.newest(9)) == (0, {}, [])


def test_what_is_the_same_keeps_its_place() -> None:
    book = Omissions()
    for name in (b"1", b"2", b"3"):
        book.replace((By.GAME, name), [LeftOut(name, "bad")])
    book.replace((By.GAME, b"1"), [LeftOut(b"1", "bad")])
    assert paths(book) == [b"3", b"2", b"1"]
    book.replace((By.GAME, b"1"), [LeftOut(b"1", "worse")])
    assert paths(book) == [b"1", b"3", b"2"]
    assert book.newest(1)[0].reason == "worse"


def test_nothing_is_left_out_that_went_away() -> None:
    book = Omissions()
    book.replace(FOLDER, [LeftOut(b"roms/x", WENT_AWAY)])
    assert len(book) == 0


def test_one_path_of_a_folder() -> None:
    book = Omissions()
    book.settle(b"roms/fine", None)
    book.settle(b"roms/x", LeftOut(b"roms/x", "bad"))
    book.settle(b"roms/y", LeftOut(b"roms/y", "bad"))
    assert sorted(paths(book)) == [b"roms/x", b"roms/y"]
    assert book.holds(b"roms/x")
    book.settle(b"roms/x", LeftOut(b"roms/x", "worse"))
    assert book.kinds == {"bad": 1, "worse": 1}
    book.settle(b"roms/x", None)
    assert paths(book) == [b"roms/y"]
    assert not book.holds(b"roms/x")
    book.settle(b"top", LeftOut(b"top", "bad"))  # in the library itself
    assert book.of((By.FOLDER, b"")) == book.newest(1)


def test_a_list_is_elsewhere() -> None:
    book = Omissions()
    for _ in range(2):
        book.settle(b".lists/x", LeftOut(b"/etc/lists/x.list", "bad"))
    assert paths(book) == [b"/etc/lists/x.list"]
    book.replace((By.FOLDER, b".lists"), [])
    assert len(book) == 0


def test_more_of_the_same_owner() -> None:
    book = Omissions()
    for _ in range(2):
        for name in (b"a", b"b"):
            book.add((By.HASHING, b"roms/game"), LeftOut(name, "can't be read: no"))
    assert sorted(paths(book)) == [b"a", b"b"]
    assert book.kinds == {"can't be read": 2}


def test_old_owners_are_known_by_when_they_last_spoke(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(100)
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    book = Omissions()
    book.replace((By.FOLDER, b"old"), [LeftOut(b"old/x", "bad")])  # at 100
    book.replace((By.FOLDER, b"new"), [LeftOut(b"new/x", "bad")])  # at 101
    book.replace(GAME, [LeftOut(b"roms/game", "bad")])
    assert book.owners(By.FOLDER, 101) == [b"old"]
    book.replace((By.FOLDER, b"old"), [LeftOut(b"old/x", "bad")])  # the same, but later
    assert book.owners(By.FOLDER, 102) == [b"new"]


def test_of_too_many_only_the_number_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(omissions_module, "REMEMBERED", 10)
    book = Omissions()
    for number in range(100):
        name = b"%d" % number
        book.replace((By.GAME, name), [LeftOut(name, "bad")])
    assert len(book) == 100
    assert paths(book) == [b"%d" % number for number in range(99, 89, -1)]
    # Looks at all of them, as a walk does: nothing changes.
    for number in range(100):
        name = b"%d" % number
        book.replace((By.GAME, name), [LeftOut(name, "bad")])
    assert (len(book), paths(book)[0]) == (100, b"99")
    # Those that only were counted are mended.
    for number in range(95):
        book.replace((By.GAME, b"%d" % number), [])
    assert (len(book), book.kinds) == (5, {"bad": 5})
    # There is room again.
    book.replace((By.GAME, b"new"), [LeftOut(b"new", "bad")])
    assert paths(book) == [b"new", b"99", b"98", b"97", b"96", b"95"]


def test_a_single_owner_fills_no_memory() -> None:
    book = Omissions()
    book.replace(FOLDER, (LeftOut(b"roms/%d" % n, "bad") for n in range(5 * OF_ONE)))
    assert len(book) == 5 * OF_ONE
    assert len(paths(book)) == OF_ONE
    # Which of the others is meant can't be told, so it stays as it is until the next listing.
    book.settle(b"roms/4999", None)
    assert len(book) == 5 * OF_ONE
    book.replace(FOLDER, [])
    assert len(book) == 0


def test_kinds_are_few() -> None:
    book = Omissions()
    book.replace(FOLDER, (LeftOut(b"roms/%d" % n, f"reason {n}") for n in range(KINDS + 50)))
    assert len(book.kinds) == KINDS + 1
    assert book.kinds[OTHER_KINDS] == 50
    assert sum(book.kinds.values()) == len(book)


NAMES = st.sampled_from([b"a", b"b", b"c", b"d"])
FOUND = st.dictionaries(NAMES, st.sampled_from(["bad", "worse: x", "worse: y"]), max_size=4)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(By), NAMES, FOUND), max_size=40))
def test_counts_are_those_of_what_was_said_last(
    said: list[tuple[By, bytes, dict[bytes, str]]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(omissions_module, "REMEMBERED", 6)
        patch.setattr(omissions_module, "OF_ONE", 3)
        book = Omissions()
        last: dict[tuple[By, bytes], dict[bytes, str]] = {}
        for by, name, found in said:
            book.replace((by, name), [LeftOut(path, why) for path, why in found.items()])
            last[by, name] = found
            wanted = Counter(
                why.partition(":")[0] for found in last.values() for why in found.values()
            )
            assert Counter(book.kinds) == wanted
            assert len(book) == wanted.total()
            assert len(paths(book)) <= 6
            assert all(
                any(found.get(o.path) == o.reason for found in last.values())
                for o in book.newest(99)
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
