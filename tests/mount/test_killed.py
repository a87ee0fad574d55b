"""Killed, and started again at once (DESIGN H5)."""

from __future__ import annotations

from pathlib import Path

from tests.support.libraries import expected_archive, make_game
from tests.support.mounting import Mounts


def test_started_again_while_the_kernel_still_knows_the_dead_mount(
    library: Path, mount: Mounts
) -> None:
    """What was looked at a moment ago is answered without us, so as if we were there."""
    folder = make_game(library, "roms/psx/Game", {"a": b"1", "b": b"2"})
    mounted = mount(library)
    wanted = expected_archive(folder)
    assert mounted.wait_archive("roms/psx/Game").read_bytes() == wanted
    mounted.path.stat()
    mounted.kill()
    again = mount(library, mountpoint=mounted.path)
    assert again.wait_archive("roms/psx/Game").read_bytes() == wanted
