"""An archive read through the kernel is the one expected, in any piece (DESIGN B1 to B3, V2)."""

from __future__ import annotations

import os
import random
import signal
import stat
from collections.abc import Mapping
from pathlib import Path

from tests.support.libraries import MTIME, content, expected, make_file, make_game
from tests.support.mounting import Mounts

FILES: Mapping[str, bytes | int] = {
    "disc 1.bin": content(3_000_000, 1),
    "disc 2.bin": content(1_500_001, 2),
    "disc.cue": b'FILE "disc 1.bin" BINARY\n',
    "empty": b"",
    "manual/page 1.txt": content(70_000, 3),
    "manual/deep/er/page 2.txt": b"x",
}


def test_whole_archive(library: Path, mount: Mounts) -> None:
    wanted = expected(make_game(library, "roms/psx/Game", FILES))
    mounted = mount(library)
    archive = mounted.wait_archive("roms/psx/Game")
    assert archive.read_bytes() == wanted.read(0, wanted.size)


def test_any_range(library: Path, mount: Mounts) -> None:
    wanted = expected(make_game(library, "roms/psx/Game", FILES))
    data = wanted.read(0, wanted.size)
    archive = mount(library).wait_archive("roms/psx/Game")
    # Where pieces meet, and where pages do.
    edges = {0, wanted.size, 4096, 131072, 1 << 20}
    for member in range(len(FILES)):
        edges |= {wanted.layout.header_offset(member), wanted.layout.data_offset(member)}
    rng = random.Random(1)
    ranges = [(max(0, edge - 3), length) for edge in edges for length in (1, 3, 7, 5000)]
    ranges += [(rng.randrange(wanted.size), rng.randrange(1, 300_000)) for _ in range(200)]
    with archive.open("rb", buffering=0) as file:
        for offset, length in ranges:
            got = os.pread(file.fileno(), length, offset)
            assert got == data[offset : offset + length], (offset, length)
        assert os.pread(file.fileno(), 10, wanted.size) == b""
        assert os.pread(file.fileno(), 10, wanted.size + 12345) == b""
        assert os.pread(file.fileno(), 10, wanted.size - 4) == data[-4:]


def test_ranges_past_the_page_cache(library: Path, mount: Mounts) -> None:
    """With O_DIRECT each read is a request of its own, as it was asked for."""
    wanted = expected(make_game(library, "roms/psx/Game", FILES))
    data = wanted.read(0, wanted.size)
    archive = mount(library).wait_archive("roms/psx/Game")
    rng = random.Random(2)
    descriptor = os.open(archive, os.O_RDONLY | os.O_DIRECT)
    try:
        for _ in range(200):
            offset, length = rng.randrange(wanted.size), rng.randrange(1, 2_000_000)
            got = os.pread(descriptor, length, offset)
            assert got == data[offset : offset + length], (offset, length)
    finally:
        os.close(descriptor)


def test_one_handle_read_by_many_at_once(library: Path, mount: Mounts) -> None:
    wanted = expected(make_game(library, "roms/psx/Game", FILES))
    archive = mount(library).wait_archive("roms/psx/Game")
    handles = [archive.open("rb") for _ in range(20)]
    try:
        for handle in handles:
            handle.seek(wanted.size // 2)
        pieces = {handle.read(500_000) for handle in handles}
        assert pieces == {wanted.read(wanted.size // 2, 500_000)}
    finally:
        for handle in handles:
            handle.close()


def test_validators(library: Path, mount: Mounts) -> None:
    """What ``stat`` says is a function of the content (and of the path, for the inode)."""
    wanted = expected(make_game(library, "roms/psx/Game", FILES, mtime=MTIME + 0.5))
    same = expected(make_game(library, "roms/psx/Same", FILES, mtime=MTIME + 0.5))
    mounted = mount(library)
    mounted.wait_sealed(2)
    found = mounted.archive("roms/psx/Game").stat()
    assert stat.S_ISREG(found.st_mode)
    assert found.st_size == wanted.size
    assert found.st_mtime_ns == wanted.mtime_ns
    assert found.st_ino == wanted.inode("roms/psx/Game.zip")
    assert found.st_nlink == 1
    # "The date is right to the day" (V3).
    assert MTIME - 86400 < found.st_mtime <= MTIME + 1
    twin = mounted.archive("roms/psx/Same").stat()
    assert same == wanted or same.content_id == wanted.content_id
    assert (twin.st_mtime_ns, twin.st_size) == (found.st_mtime_ns, found.st_size)
    assert twin.st_ino != found.st_ino
    # The listing tells the same inode as stat does.
    with os.scandir(mounted.path / "roms/psx") as entries:
        assert {entry.name: entry.inode() for entry in entries} == {
            "Game.zip": found.st_ino,
            "Same.zip": twin.st_ino,
        }


def test_validators_do_not_move(library: Path, mount: Mounts) -> None:
    make_game(library, "roms/psx/Game", FILES)
    mounted = mount(library)
    archive = mounted.wait_archive("roms/psx/Game")
    before = archive.stat()
    mounted.process.send_signal(signal.SIGHUP)
    mounted.wait_log("looking through the library again")
    archive.read_bytes()
    assert archive.stat() == before


def test_single_file_is_passed_through(library: Path, mount: Mounts) -> None:
    data = content(500_000, 1)
    make_file(library / "roms/gb/Game.gb", data, mtime=MTIME)
    mounted = mount(library)
    game = mounted.wait_for("roms/gb/Game.gb")
    source = (library / "roms/gb/Game.gb").stat()
    assert game.read_bytes() == data
    assert game.stat().st_size == source.st_size
    assert game.stat().st_mtime_ns == source.st_mtime_ns
    with game.open("rb", buffering=0) as file:
        for offset, length in ((0, 1), (4095, 3), (123_456, 300_000), (499_999, 5), (500_000, 1)):
            assert os.pread(file.fileno(), length, offset) == data[offset : offset + length]


def test_folder_with_one_file_is_mirrored(library: Path, mount: Mounts) -> None:
    make_game(library, "roms/gb/Game", {"sub/Game.gb": b"one file", ".DS_Store": b"litter"})
    make_game(library, "roms/gb/Empty", {})
    mounted = mount(library)
    assert mounted.wait_for("roms/gb/Game/sub/Game.gb").read_bytes() == b"one file"
    assert sorted(os.listdir(mounted.path / "roms/gb")) == ["Empty", "Game"]
    assert os.listdir(mounted.path / "roms/gb/Empty") == []
    assert not mounted.archive("roms/gb/Game").exists()


def test_what_is_no_game_is_mirrored(library: Path, mount: Mounts) -> None:
    make_file(library / "readme.txt", b"top")
    make_file(library / "bios/psx/scph1001.bin", b"bios")
    make_file(library / "bios/psx/scph5500.bin", b"bios too")
    make_game(library, "roms/psx/Game", {"a": b"1", "b": b"2"})
    mounted = mount(library)
    mounted.wait_archive("roms/psx/Game")
    assert (mounted.path / "readme.txt").read_bytes() == b"top"
    assert sorted(os.listdir(mounted.path / "bios/psx")) == ["scph1001.bin", "scph5500.bin"]
    assert (mounted.path / "bios/psx/scph5500.bin").read_bytes() == b"bios too"
    assert sorted(os.listdir(mounted.path)) == ["bios", "readme.txt", "roms"]
    folder, source = (mounted.path / "bios/psx").stat(), (library / "bios/psx").stat()
    assert folder.st_mtime_ns == source.st_mtime_ns
    assert stat.S_ISDIR(folder.st_mode)


def test_game_folder_itself_is_not_shown(library: Path, mount: Mounts) -> None:
    make_game(library, "roms/psx/Game", FILES)
    mounted = mount(library)
    mounted.wait_archive("roms/psx/Game")
    assert os.listdir(mounted.path / "roms/psx") == ["Game.zip"]
    assert not (mounted.path / "roms/psx/Game").exists()
    assert not (mounted.path / "roms/psx/Game/empty").exists()


def test_file_system_statistics(library: Path, mount: Mounts) -> None:
    make_game(library, "roms/psx/Game", FILES)
    mounted = mount(library)
    shown, source = os.statvfs(mounted.path), os.statvfs(library)
    assert (shown.f_blocks, shown.f_bsize) == (source.f_blocks, source.f_bsize)
    assert shown.f_flag & os.ST_RDONLY
    assert shown.f_namemax == 255


def test_large_folder_is_listed_whole(library: Path, mount: Mounts) -> None:
    """More names than fit into one answer of readdir."""
    names = [
        f"Game {number:04} with quite a long name to fill the answer" for number in range(1500)
    ]
    for name in names:
        make_file(library / "roms/gb" / f"{name}.gb", b"x")
    mounted = mount(library)
    assert sorted(os.listdir(mounted.path / "roms/gb")) == [f"{name}.gb" for name in names]


def test_page_cache_is_kept(library: Path, mount: Mounts) -> None:
    """What was read once, the kernel has for the next who opens the same version."""
    wanted = expected(make_game(library, "roms/psx/Game", FILES))
    mounted = mount(library)
    archive = mounted.wait_archive("roms/psx/Game")

    def read_by_daemon() -> int:
        """Bytes that it has read from anything so far."""
        lines = Path(f"/proc/{mounted.process.pid}/io").read_text().splitlines()
        return int(lines[0].removeprefix("rchar: "))

    assert archive.read_bytes() == wanted.read(0, wanted.size)
    before = read_by_daemon()
    for _ in range(5):
        assert archive.read_bytes() == wanted.read(0, wanted.size)
    assert read_by_daemon() - before < wanted.size
