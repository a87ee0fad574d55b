"""Through a mount, nothing comes out that a link leads to which was a folder (DESIGN H2)."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Final

import pytest

from tests.support.mounting import Mounts
from tests.support.swapping import OPEN, SECRET, make_library, swapping

SECONDS: Final = 4.0
PATIENCE: Final = 200.0
READERS: Final = 4
CAREFUL: Final = None
CARELESS: Final = [sys.executable, "-m", "tests.support.swapping"]


class Readers:
    """Readers of all that can be seen in a mount, until they are told to end."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.seen: set[bytes] = set()
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.run) for _ in range(READERS)]
        for thread in self.threads:
            thread.start()

    def run(self) -> None:
        while not self.ended.is_set():
            for name in ("roms/psx/single", "roms/psx/Game.zip", "roms/away/single"):
                try:
                    self.seen.add((self.root / name).read_bytes())
                except OSError:
                    continue

    def end(self) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def got_out(self) -> bool:
        return any(SECRET in data for data in self.seen)


@pytest.mark.parametrize("program", [CAREFUL, CARELESS], ids=["zipfs", "without its care"])
def test_a_platform_becomes_a_link(
    program: list[str] | None, library: Path, place: Path, mount: Mounts
) -> None:
    """Without its care a secret comes out: so there is a race, and the test sees it."""
    one, two = make_library(library, place / "outside")
    mounted = mount(library, program=program)
    mounted.expect_log("is left out: a symbolic link (that leaves|to nothing)")
    mounted.expect_log("ended in an error")
    archive = mounted.wait_archive("roms/psx/Game").read_bytes()
    readers = Readers(mounted.path)
    start = time.monotonic()
    try:
        with swapping(one, two):
            while (lasted := time.monotonic() - start) < SECONDS + PATIENCE:
                if readers.got_out() or (program is CAREFUL and lasted > SECONDS):
                    break
                time.sleep(0.05)
    finally:
        readers.end()
    assert readers.got_out() == (program is CARELESS)
    if program is CAREFUL:
        assert any(OPEN in data for data in readers.seen)
        if one.is_symlink():
            one.unlink()
            two.rename(one)
        assert mounted.wait_archive("roms/psx/Game").read_bytes() == archive
