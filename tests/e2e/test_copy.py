"""The mount as what it is, a folder: programs that copy files copy archives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.expected import Expected, sha256_of
from tests.e2e.games import make_mixed
from tests.e2e.programs import run
from tests.support.libraries import content, make_file, make_game
from tests.support.mounting import Mounted, Mounts, temporary_folder

OTHER: Final = "roms/nes/Two files"
SINGLE: Final = "roms/nes/single.nes"


@pytest.fixture(scope="module")
def mounted(fuse: None) -> Iterator[Mounted]:
    with temporary_folder() as place:
        library = place / "library"
        make_mixed(library)
        make_game(library, OTHER, {"one": content(100_000), "two": b""}, mtime=1_500_000_001)
        make_file(library / SINGLE, content(40_000, 1))
        mounts = Mounts(place)
        try:
            mounted = mounts(library)
            mounted.wait_sealed(2)
            yield mounted
        finally:
            mounts.end()


def _look(folder: Path) -> dict[str, tuple[int, int, str]]:
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_mtime_ns,
            path.stat().st_size,
            sha256_of(path),
        )
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("program", ["cp -a", "rsync -a"])
def test_a_copy_is_the_same(mounted: Mounted, place: Path, program: str) -> None:
    target = place / "copy"
    target.mkdir()
    run(*program.split(), f"{mounted.path}/.", target)
    copied = _look(target)
    assert copied == _look(mounted.path)
    source = mounted.library
    games = {
        path.relative_to(source).as_posix(): Expected(path).sha256()
        for path in (*source.glob("roms/psx/*"), source / OTHER)
    }
    assert {name: digest for name, (_, _, digest) in copied.items()} == {
        **{f"{game}.zip": digest for game, digest in games.items()},
        SINGLE: sha256_of(source / SINGLE),
    }


def test_rsync_finds_nothing_to_do_the_second_time(mounted: Mounted, place: Path) -> None:
    target = place / "copy"
    sync = ("rsync", "-a", "--itemize-changes", f"{mounted.path}/", target)
    assert run(*sync).stdout.count(b">f") == 3
    assert run(*sync).stdout == b""
    assert run(*sync[:2], "--checksum", *sync[2:]).stdout == b""


def test_rsync_mends_a_broken_copy(mounted: Mounted, place: Path) -> None:
    copy = place / "copy.zip"
    archive = next((mounted.path / "roms/psx").iterdir())
    data = bytearray(archive.read_bytes())
    data[5_000_000] ^= 1
    copy.write_bytes(data[:20_000_000])
    run("rsync", "-a", "--inplace", "--no-whole-file", archive, copy)
    assert copy.read_bytes() == archive.read_bytes()
