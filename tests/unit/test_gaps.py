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
