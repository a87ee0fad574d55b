"""Memory of the daemon: what one thread has left, another can use."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.heaps import glibc_only, thread_heaps
from tests.support.libraries import make_game
from tests.support.mounting import Mounts


@glibc_only
def test_all_threads_share_one_heap(library: Path, mount: Mounts) -> None:
    """Else what each of them leaves free stays taken, and the daemon grows from day to day."""
    for number in range(30):
        make_game(library, f"roms/psx/Game {number}", {"a": b"a", "b": b"b"})
    mounted = mount(library)
    mounted.wait_sealed(30)
    for archive in sorted((mounted.path / "roms/psx").iterdir()):
        archive.read_bytes()
    assert len(os.listdir(f"/proc/{mounted.process.pid}/task")) > 1
    assert thread_heaps(mounted.process.pid) == 0
