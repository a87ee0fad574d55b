"""What tells two states of a file apart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zipfs.library.filestate import FileState

STATE = FileState(inode=1, size=2, mtime_ns=30, ctime_ns=40)


def test_state_is_what_stat_says(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"four")
    os.utime(path, ns=(5, 1_234_567_890_123_456_789))
    status = path.stat()
    assert FileState.of(status) == FileState(
        status.st_ino, 4, 1_234_567_890_123_456_789, status.st_ctime_ns
    )


@pytest.mark.parametrize(
    ("mtime_ns", "ctime_ns", "expected"), [(30, 40, 40), (50, 40, 50), (-5, -7, -5)]
)
def test_changed_is_the_later_time(mtime_ns: int, ctime_ns: int, expected: int) -> None:
    assert STATE._replace(mtime_ns=mtime_ns, ctime_ns=ctime_ns).changed_ns == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, False),
        ({"ctime_ns": 41}, True),
        ({"ctime_ns": 39}, True),
        ({"mtime_ns": 31}, False),
        ({"mtime_ns": 31, "ctime_ns": 41}, False),
        ({"size": 3, "ctime_ns": 41}, False),
        ({"inode": 2, "ctime_ns": 41}, False),
    ],
)
def test_what_only_ctime_tells(change: dict[str, int], expected: bool) -> None:
    assert STATE.differs_in_ctime_only(STATE._replace(**change)) is expected


@pytest.mark.parametrize("field", ["st_ino", "st_size", "st_mtime_ns", "st_ctime_ns"])
def test_a_status_is_of_its_state_only(tmp_path: Path, field: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"four")
    status = path.stat()
    state = FileState.of(status)
    assert state.is_of(status)
    number = ["st_ino", "st_size", "st_mtime_ns", "st_ctime_ns"].index(field)
    values = list(state)
    values[number] += 1
    assert not FileState(*values).is_of(status)
