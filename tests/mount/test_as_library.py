"""``zipfs.open_archive`` and a mount of the same library show the same archives."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

import zipfs
from tests.support.libraries import MTIME, content, make_file, make_game
from tests.support.mounting import Mounted, Mounts
from tests.support.waiting import poll

GAMES: dict[str, dict[bytes, bytes | int]] = {
    "roms/psx/Discs": {b"1.chd": content(3_000_001, 1), b"2.chd": content(100, 2), b"empty": b""},
    "roms/psx/Deep": {
        b"b/c/z": b"z", b"a": b"a", "ü/é.txt".encode(): b"u", b".DS_Store": b"litter"
    },
    "roms/gb/Names": {b"a:b": b"1", b"\xff": b"2", b"con": b"3", b"x?": b"4", b"X?": b"5"},
    "roms/gb/Taken": {b"1": b"1", b"2": b"2"},
}  # fmt: skip


@pytest.fixture
def filled(library: Path) -> Path:
    for number, (game, files) in enumerate(GAMES.items()):
        make_game(library, game, files, mtime=MTIME + number + 0.123456789)
    make_file(library / "roms/gb/Taken.zip", b"theirs")
    (library / "roms/psx/Deep/empty?").mkdir()
    (library / "roms/psx/Deep/link").symlink_to("a")
    (library / "roms/gb/Names/empty").mkdir()
    next(path for path in (library / "roms/gb/Names").iterdir() if path.is_file()).chmod(0o755)
    (library / "roms/psx/Deep/other").symlink_to("../Discs/2.chd")
    (library / "roms/psx/Deep/away").symlink_to("/etc/passwd")
    return library


def in_mount(mounted: Mounted, game: str) -> Path:
    name = " (folder)" if game.endswith("Taken") else ""
    return mounted.wait_archive(game + name)


@pytest.mark.parametrize(
    "options", [{}, {"portable_names": True, "timestamps": "fixed", "execute_bits": True}]
)
@pytest.mark.parametrize("shared", [True, False], ids=["its index", "no index"])
def test_equal_archives(
    options: dict[str, object], shared: bool, filled: Path, mount: Mounts
) -> None:
    given = ["--portable-names", "--timestamps=fixed", "--execute-bits"] if options else []
    mounted = mount(filled, *given)
    mounted.expect_log("away is left out")
    mounted.expect_log(r" is called ")
    mounted.wait_sealed(len(GAMES))
    for game in GAMES:
        shown = in_mount(mounted, game)
        status = shown.stat()
        with zipfs.open_archive(
            filled / game,
            library=filled,
            index=mounted.index if shared else None,
            **options,  # type: ignore[arg-type]
        ) as archive:
            assert archive.name == shown.name
            assert (archive.size, archive.mtime_ns) == (status.st_size, status.st_mtime_ns)
            assert archive.read() == shown.read_bytes()
            playlist = archive.members[-1].name == b"Discs.m3u"
            assert playlist == (game == "roms/psx/Discs")
    # By itself, a folder without links is the same archive.
    with zipfs.open_archive(filled / "roms/gb/Names", **options) as archive:  # type: ignore[arg-type]
        shown = in_mount(mounted, "roms/gb/Names")
        assert archive.mtime_ns == shown.stat().st_mtime_ns
        assert archive.read() == shown.read_bytes()


def test_one_index_for_both(filled: Path, mount: Mounts, place: Path) -> None:
    """What the one has hashed, the other needn't."""
    index = place / "shared.sqlite3"
    for game in GAMES:
        zipfs.open_archive(filled / game, library=filled, index=index).close()

    def rows() -> list[object]:
        with contextlib.closing(sqlite3.connect(index)) as database:
            return database.execute("SELECT path, seal FROM files ORDER BY path").fetchall()

    before = rows()
    assert len(before) == sum(map(len, GAMES.values())) - 1  # but the litter
    mounted = mount(filled, "--log-level=debug", index=index)
    mounted.expect_log("away is left out")
    mounted.expect_log(r" is called ")
    mounted.wait_sealed(len(GAMES))
    assert "hash" not in mounted.notifications.status
    assert rows() == before
    # And at the same time.
    game = filled / "roms/psx/Discs"
    (game / "2.chd").write_bytes(b"another")
    with zipfs.open_archive(game, library=filled, index=index) as archive:
        mtime_ns = archive.mtime_ns

        def is_the_same() -> bool:
            try:
                return os.stat(mounted.archive("roms/psx/Discs")).st_mtime_ns == mtime_ns
            except FileNotFoundError:
                return False

        poll("the mount to show the same version", is_the_same)
        assert mounted.archive("roms/psx/Discs").read_bytes() == archive.read()
