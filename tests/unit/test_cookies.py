"""Cookies of listings (DESIGN F1): functions of the names, which survive all changes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from zipfs.catalog.listing import cookies as module
from zipfs.catalog.listing.cookies import MOST_FIRST, is_first, tag
from zipfs.catalog.listing.cookies import cookies as _cookies
from zipfs.catalog.listing.listing import NOTHING, Listing, Names, Seen
from zipfs.catalog.nodes import unseen_root
from zipfs.library.filestate import FileState


def cookies(names: Iterable[bytes]) -> list[tuple[int, bytes]]:
    numbers, by_cookie = _cookies(list(names))
    assert numbers == sorted(by_cookie)
    return [(number, by_cookie[number]) for number in numbers]


NAMES = st.sets(st.binary(min_size=1, max_size=8), max_size=60)


def test_a_cookie_depends_on_the_name_alone() -> None:
    few, many = (dict(_by_name(count)) for count in (10, 1000))
    assert few == {name: many[name] for name in few}


def _by_name(count: int) -> list[tuple[bytes, int]]:
    return [(name, cookie) for cookie, name in cookies(b"%d.zip" % n for n in range(count))]


def test_cookies_are_positive_in_off_t_and_none_of_those_of_nfs() -> None:
    numbers = [cookie for cookie, _ in cookies(b"%d" % number for number in range(20_000))]
    assert numbers == sorted(set(numbers))
    assert numbers[0] > 2
    assert 1 << 62 < numbers[-1] < 1 << 63


@pytest.mark.parametrize("hashed", [0, 1, 2, 3, 4, (1 << 64) - 1])
def test_odd_hashes(hashed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.xxhash, "xxh3_64_intdigest", lambda _: hashed)
    [(first, a), (second, b)] = cookies([b"b", b"a"])
    assert (a, b) == (b"a", b"b")
    assert 256 << 16 <= first < second == first + (1 << 16) < 1 << 63


@given(NAMES, st.integers(1, 7), st.integers(1, 5))
def test_each_name_is_told_once_however_they_collide(
    names: set[bytes], hashes: int, room: int
) -> None:
    """*room* entries an answer, each answer from a new listing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_hashed", lambda names: [3 + sum(name) % hashes for name in names])
        told: list[bytes] = []
        cookie = 0
        while True:
            listing = cookies(sorted(names, reverse=len(told) % 2 == 1))
            start = bisect_right([number for number, _ in listing], cookie)
            if not (some := listing[start : start + room]):
                break
            told += [name for _, name in some]
            cookie = some[-1][0]
    assert sorted(told) == sorted(names)


@given(NAMES, NAMES, NAMES, st.integers(1, 5))
def test_names_that_come_and_go_take_no_other_along(
    staying: set[bytes], going: set[bytes], coming: set[bytes], room: int
) -> None:
    """Each name that is there all the time is told once, no name twice."""
    going -= staying
    coming -= staying | going
    told: list[bytes] = []
    cookie = 0
    names = staying | going
    while True:
        listing = cookies(names)
        start = bisect_right([number for number, _ in listing], cookie)
        if not (some := listing[start : start + room]):
            break
        told += [name for _, name in some]
        cookie = some[-1][0]
        names = (names - set(sorted(going)[: len(told)])) | set(sorted(coming)[: len(told)])
    assert len(told) == len(set(told))
    assert staying <= set(told)


# -- First names -----------------------------------------------------------------------------------


def listed(names: Iterable[bytes], first: Iterable[bytes]) -> Listing:
    """A listing of *names*, all of which are known, that has these *first* names."""
    state = FileState(1, 1, 1, 1)
    listing = Listing(unseen_root(), Names.of(state, 0, set(names), {}, list(first)))
    listing.seen = {name: Seen(name, unseen_root()) for name in names}
    return listing


def page(listing: Listing, cookie: int, room: int) -> list[tuple[bytes, int]]:
    """Up to *room* names behind *cookie*, as the adapter tells them."""
    number, told = listing.behind(cookie)
    found: list[tuple[bytes, int]] = []
    while number < len(listing) and len(found) < room:
        seen = listing.at(number, told)
        if seen and seen is not NOTHING:
            found.append((seen.name, listing.names.cookies[number] | told))
        number += 1
    return found


@given(NAMES, st.lists(st.binary(min_size=1, max_size=8), unique=True, max_size=MOST_FIRST))
def test_first_names_are_told_first(names: set[bytes], first: list[bytes]) -> None:
    """As far as they are there; and cookies grow all the same."""
    listing = listed(names, first)
    assert listing.unknown(0, 1000) == []  # nothing that is gone is looked for
    found = page(listing, 0, 1000)
    there = [name for name in first if name in names]
    assert [name for name, _ in found][: len(there)] == there
    assert sorted(name for name, _ in found) == sorted(names)
    numbers = [number for _, number in found]
    assert numbers == sorted(set(numbers))
    assert all(2 < number < 1 << 63 for number in numbers)
    assert [is_first(number) for number in numbers] == [name in there for name, _ in found]


@given(st.data(), NAMES, NAMES, st.integers(1, 5))
def test_whoever_began_without_first_names_goes_on_without(
    data: st.DataObject, names: set[bytes], others: set[bytes], room: int
) -> None:
    """They may come while somebody pages through the folder, and be others after a restart."""
    choices = [[], *([one] for one in sorted(names | others))]
    begun = data.draw(st.sampled_from(choices))
    told: list[bytes] = []
    cookie = 0
    first = begun
    while some := page(listed(names, first), cookie, room):
        told += [name for name, _ in some]
        cookie = some[-1][1]
        if not is_first(cookie):
            first = data.draw(st.sampled_from(choices))
            assume(first == begun or tag(first) != tag(begun))  # one chance in 65,535
    assert set(told) == names
    assert len(told) == len(set(told)) or begun  # after first names of its own


@given(NAMES, st.integers(1, 5))
def test_whoever_was_told_first_names_is_told_the_others(names: set[bytes], room: int) -> None:
    first = sorted(names)[::3]
    told: list[bytes] = []
    cookie = 0
    while some := page(listed(names, first), cookie, room):
        told += [name for name, _ in some]
        cookie = some[-1][1]
    assert len(told) == len(names)
    assert set(told) == names
