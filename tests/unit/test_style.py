"""What may be chosen of names and dates, and what follows for validators."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests import reference
from zipfs.archive.records import archive_time
from zipfs.sealing.members import FIXED_TIME, Style

TIMES = (-(1 << 40), -1, 0, 315_532_800, 1_600_000_001, (1 << 31) + 1, 1 << 40)


@pytest.mark.parametrize("mtime", TIMES)
def test_times(mtime: int) -> None:
    assert Style().time(mtime) == archive_time(mtime)
    assert Style(fixed_times=True).time(mtime) == FIXED_TIME


def test_the_fixed_time_is_never_before_1980() -> None:
    moment = datetime.fromtimestamp(FIXED_TIME, UTC)
    assert moment.isoformat() == "1980-01-02T00:00:00+00:00"
    for hours in (-12, 14):  # the zones that there are
        assert (moment + timedelta(hours=hours)).year == 1980
    assert archive_time(FIXED_TIME) == FIXED_TIME
    assert reference.dos_date_time(FIXED_TIME) == (0x22, 0)


def test_names() -> None:
    paths = [b"CON", b"a:b"]
    assert Style().names(paths) == {b"CON": b"CON", b"a:b": b"a%3Ab"}
    assert Style(portable_names=True).names(paths) == {b"CON": b"%43ON", b"a:b": b"a%3Ab"}
