"""Every test here mounts for real; none may leave a process behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faultfs import Faults, faultfs


@pytest.fixture(autouse=True)
def _clean_up(no_process_left: None) -> None:
    pass


@pytest.fixture
def faulty(
    fuse: None, _clean_up: None, library: Path, place: Path
) -> Iterator[tuple[Path, Faults]]:
    """The library, shown by a file system that fails on command, and what makes it fail.

    A test that mounts it asks for this first, so that it ends last.
    """
    with faultfs(library, place) as shown:
        yield shown
