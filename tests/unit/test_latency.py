"""R3, and the kernel's read-ahead: how soon a file system answers, and what doesn't answer."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from zipfs.config import Settings
from zipfs.mount.mountpoint import FAR_READ_AHEAD, read_ahead_for
from zipfs.system.measuring import latency


def answering(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    """One call after the other takes so many seconds, by a clock that is only moved by them."""
    now, left = [0.0], list(seconds)

    def statvfs(_path: str) -> None:
        now[0] += left.pop(0)

    monkeypatch.setattr(latency.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(os, "statvfs", statvfs)


def test_the_soonest_answer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else the machine did in the others."""
    answering(monkeypatch, 0.9, 0.1, 0.00001, 0.3, 0.2)
    assert not latency.is_far("/library")
    answering(monkeypatch, 0.001, 0.0011, 0.0012, 0.3, 0.001)
    assert latency.is_far("/library")


def test_what_does_not_answer_is_far(monkeypatch: pytest.MonkeyPatch) -> None:
    hung = threading.Event()
    monkeypatch.setattr(os, "statvfs", lambda _path: hung.wait())
    assert latency.is_far("/library", patience=0.05)
    hung.set()


def test_what_cannot_be_asked_is_not(tmp_path: Path) -> None:
    assert not latency.is_far(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("given", "far", "wanted"), [(1024, False, 1024), (1024, True, 4096), (0, True, 0)]
)
def test_the_kernel_reads_ahead_farther_where_the_library_is_far(
    monkeypatch: pytest.MonkeyPatch, given: int, far: bool, wanted: int
) -> None:
    assert FAR_READ_AHEAD == 4
    monkeypatch.setattr(latency, "is_far", lambda _path: far)
    settings = Settings.load(None, {"library": "/library", "read-ahead": given})
    assert read_ahead_for(settings) == wanted
