"""Cookies of listings (DESIGN F1): functions of the names, which survive all changes."""

from __future__ import annotations

from bisect import bisect_right

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zipfs.catalog import dir_cache
from zipfs.catalog.dir_cache import cookies

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
    monkeypatch.setattr(dir_cache.xxhash, "xxh3_64_intdigest", lambda _: hashed)
    [(first, a), (second, b)] = cookies([b"b", b"a"])
    assert (a, b) == (b"a", b"b")
    assert 3 <= first < second == first + 1 < 1 << 63


@given(NAMES, st.integers(1, 7), st.integers(1, 5))
def test_each_name_is_told_once_however_they_collide(
    names: set[bytes], hashes: int, room: int
) -> None:
    """*room* entries an answer, each answer from a new listing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            dir_cache, "_hashed", lambda names: [(3 + sum(name) % hashes, name) for name in names]
        )
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
