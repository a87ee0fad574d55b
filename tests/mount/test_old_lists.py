"""Through a mount: lists go when nobody asks for them, and never while one is open."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import BinaryIO

from tests.support.libraries import content, make_game
from tests.support.lists import expected_of, text_of, write_list
from tests.support.mounting import Mounts
from tests.support.waiting import poll

SECONDS_KEPT = 4
DAYS = str(SECONDS_KEPT / 86400)


def test_only_what_nobody_asks_for(library: Path, place: Path, mount: Mounts) -> None:
    make_game(library, "roms/psx/Game", {f"disc {n}.bin": content(5000, n) for n in (1, 2)})
    members = [("disc 1.bin", "roms/psx/Game/disc 1.bin")]
    lists = place / "lists"
    lists.mkdir()
    later = time.time() + 86400
    for name in ("open", "dated", "old"):
        write_list(lists / f"{name}.list", text_of(library, members))
    os.utime(lists / "dated.list", (later, later))
    mounted = mount(library, "--lists", lists, "--lists-keep", DAYS)
    wanted = expected_of(library, members)
    streams: list[BinaryIO] = []

    def is_opened() -> bool:
        """As soon as it is there, which may take longer than a list is kept."""
        if not (lists / "open.list").exists():
            write_list(lists / "open.list", text_of(library, members))
        with contextlib.suppress(FileNotFoundError):
            streams.append((mounted.path / ".lists/open.zip").open("rb"))
        return bool(streams)

    poll("an archive to open", is_opened)
    with streams[0] as stream:
        poll("the old one to go", lambda: not (lists / "old.list").exists())
        mounted.wait_gone(".lists/old.zip")
        assert (lists / "dated.list").exists()
        assert (mounted.path / ".lists/dated.zip").read_bytes() == wanted.read(0, wanted.size)
        assert (lists / "open.list").exists()
        assert stream.read() == wanted.read(0, wanted.size)
    poll("the other to go", lambda: not (lists / "open.list").exists())
    poll("its temporary files to go", lambda: os.listdir(lists) == ["dated.list"])
    (lists / "dated.list").unlink()


def test_opening_counts(library: Path, place: Path, mount: Mounts) -> None:
    make_game(library, "roms/psx/Game", {f"disc {n}.bin": content(5000, n) for n in (1, 2)})
    lists = place / "lists"
    lists.mkdir()
    write_list(lists / "x.list", text_of(library, [("a", "roms/psx/Game/disc 1.bin")]))
    os.utime(lists / "x.list", (1e9, 1e9))
    # A tenth of the time that it is kept is over once its archive is there.
    mounted = mount(library, "--lists", lists, "--lists-keep", "0.00001", "--watch", "poll")
    path = mounted.path / ".lists/x.zip"

    def is_dated() -> bool:
        if not (lists / "x.list").exists():  # a machine that stood still for a second
            write_list(lists / "x.list", text_of(library, [("a", "roms/psx/Game/disc 1.bin")]))
            os.utime(lists / "x.list", (1e9, 1e9))
        if path.exists():
            try:
                path.read_bytes()
            except FileNotFoundError:
                return False
        return (lists / "x.list").exists() and (lists / "x.list").stat().st_mtime > 1e9

    poll("a date", is_dated)
