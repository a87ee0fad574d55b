"""Between two versions of an archive there is a time without any."""

from __future__ import annotations

import pytest

from zipfs.catalog import versions
from zipfs.catalog.versions import Gaps


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(versions.time, "monotonic", lambda: now[0])
    return now


def test_another_version_waits(clock: list[float]) -> None:
    gaps = Gaps(2.0)
    assert gaps.left(b"a.zip", 7) == 0
    gaps.ended(b"a.zip", 7)
    clock[0] += 0.5
    assert gaps.left(b"a.zip", 8) == 1.5
    assert gaps.left(b"b.zip", 8) == 0
    clock[0] += 1.5
    assert gaps.left(b"a.zip", 8) == 0


def test_the_same_version_does_not(clock: list[float]) -> None:
    gaps = Gaps(2.0)
    gaps.ended(b"a.zip", 7)
    assert gaps.left(b"a.zip", 7) == 0


def test_the_last_version_counts(clock: list[float]) -> None:
    gaps = Gaps(2.0)
    gaps.ended(b"a.zip", 7)
    clock[0] += 2.5
    gaps.ended(b"a.zip", 8)
    assert gaps.left(b"a.zip", 7) == 2.0


def test_what_is_over_is_forgotten(clock: list[float]) -> None:
    gaps = Gaps(2.0)
    for number in range(1000):
        gaps.ended(b"%d.zip" % number, number)
        clock[0] += 1.0
    assert len(gaps._ended) <= 3


def test_all_that_a_daemon_before_has_shown(clock: list[float]) -> None:
    gaps = Gaps(2.0)
    gaps.ended(b"c.zip", 5)  # of one that was never shown
    shown = {b"a.zip": 1, b"c.zip": 6, b"d.zip": 9}
    gaps.will_end(shown)
    shown |= {b"a.zip": 7, b"e.zip": 4}
    del shown[b"d.zip"]
    gaps.have_ended(shown, [b"a.zip", b"d.zip", b"e.zip"])
    shown[b"a.zip"] = 8  # the next version is told of
    clock[0] += 0.5
    assert gaps.left(b"a.zip", 7) == 0
    assert gaps.left(b"a.zip", 8) == 1.5
    assert gaps.left(b"b.zip", 8) == 0
    assert gaps.left(b"d.zip", 8) == 0
    assert gaps.left(b"e.zip", 8) == 1.5
    assert gaps.left(b"c.zip", 5) == 1.5
    assert gaps.left(b"c.zip", 6) == 0
    gaps.ended(b"a.zip", 7)
    clock[0] += 1.5
    assert gaps.left(b"a.zip", 8) == 0.5
    assert gaps.left(b"c.zip", 5) == 0
