"""What changes in the library shows in the mount, without a remount and with other validators."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path

from tests.support.libraries import (
    MTIME,
    Expected,
    content,
    expected,
    expected_archive,
    make_file,
    make_game,
)
from tests.support.mounting import Mounted, Mounts
from tests.support.waiting import poll

FILES = {"a.bin": content(50_000, 1), "b.bin": content(60_000, 2), "c/d.bin": content(10, 3)}
GAME = "roms/psx/Game"


def inode_of(path: Path) -> int | None:
    """None if nothing is there."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def wait_version(mounted: Mounted, wanted: Expected, game: str = GAME) -> os.stat_result:
    """Wait until the archive of *game* is *wanted*, to the last byte; its ``stat``."""
    archive = mounted.archive(game)
    inode = wanted.inode(f"{game}.zip")
    found: list[tuple[os.stat_result, bytes]] = []

    def there() -> bool:
        # Opened, since for a second the kernel takes a name for what it last was.
        with contextlib.suppress(FileNotFoundError), archive.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_ino == inode:
                found.append((status, file.read()))
        return bool(found)

    poll(f"the new version of {archive}", there)
    status, data = found[0]
    assert status.st_size == wanted.size
    assert data == wanted.read(0, wanted.size)
    return status


def add(folder: Path) -> None:
    make_file(folder / "new.bin", b"new")


def add_in_new_folder(folder: Path) -> None:
    make_file(folder / "dlc/1/new.bin", b"new")


def remove(folder: Path) -> None:
    (folder / "b.bin").unlink()


def replace(folder: Path) -> None:
    make_file(folder / "draft", content(60_000, 9))
    os.replace(folder / "draft", folder / "b.bin")


def rewrite(folder: Path) -> None:
    """In place, and all times are those of before: only ctime tells."""
    before = (folder / "b.bin").stat()
    (folder / "b.bin").write_bytes(content(60_000, 9))
    os.utime(folder / "b.bin", ns=(before.st_atime_ns, before.st_mtime_ns))


def change_one_byte(folder: Path) -> None:
    before = (folder / "c/d.bin").stat()
    with (folder / "c/d.bin").open("r+b") as file:
        file.seek(5)
        file.write(b"!")
    os.utime(folder / "c/d.bin", ns=(before.st_atime_ns, before.st_mtime_ns))


def truncate(folder: Path) -> None:
    os.truncate(folder / "b.bin", 100)


def append(folder: Path) -> None:
    with (folder / "b.bin").open("ab") as file:
        file.write(b"more")


def rename(folder: Path) -> None:
    (folder / "b.bin").rename(folder / "z.bin")


def swap(folder: Path) -> None:
    """Names, sizes and dates stay; the contents change places."""
    make_file(folder / "b.bin", FILES["a.bin"] + bytes(10_000))
    make_file(folder / "a.bin", FILES["b.bin"][:50_000])


def touch(folder: Path) -> None:
    os.utime(folder / "b.bin", (MTIME + 10, MTIME + 10))


def age(folder: Path) -> None:
    """Older, so not the newest date any more: still other bytes."""
    os.utime(folder / "b.bin", (MTIME - 10**8, MTIME - 10**8))


def replace_folder(folder: Path) -> None:
    os.rename(folder, folder.with_name("old"))
    make_game(folder.parent, folder.name, {"other": b"1", "files": b"2"})
    shutil.rmtree(folder.with_name("old"))


def link(folder: Path) -> None:
    (folder / "e.bin").symlink_to("a.bin")


CHANGES = [
    add, add_in_new_folder, remove, replace, rewrite, change_one_byte, truncate, append, rename,
    swap, touch, age, replace_folder, link,
]  # fmt: skip


def test_changes(library: Path, mount: Mounts) -> None:
    """Other bytes: another inode, and another modification time to the second (V1, V4)."""
    games = {change: f"roms/psx/{change.__name__}" for change in CHANGES}
    for game in games.values():
        make_game(library, game, FILES)
    mounted = mount(library)
    mounted.wait_sealed(len(games))
    before = {
        change: wait_version(mounted, expected(library / game), game)
        for change, game in games.items()
    }
    for change, game in games.items():
        change(library / game)
    for change, game in games.items():
        after = wait_version(mounted, expected(library / game), game)
        assert after.st_ino != before[change].st_ino, game
        assert int(after.st_mtime) != int(before[change].st_mtime), game


def test_there_and_back(library: Path, mount: Mounts) -> None:
    """A, then B, then A again: A's bytes with A's validators (V2)."""
    folder = make_game(library, GAME, FILES)
    mounted = mount(library)
    first = wait_version(mounted, expected(folder))
    make_file(folder / "b.bin", content(60_000, 9))
    second = wait_version(mounted, expected(folder))
    make_file(folder / "b.bin", FILES["b.bin"])
    third = wait_version(mounted, expected(folder))
    assert (third.st_ino, third.st_size, third.st_mtime_ns) == (
        first.st_ino, first.st_size, first.st_mtime_ns,
    )  # fmt: skip
    assert second.st_ino != first.st_ino
    assert second.st_size == first.st_size


def test_change_of_permissions_changes_no_validator(library: Path, mount: Mounts) -> None:
    folder = make_game(library, GAME, FILES)
    mounted = mount(library)
    before = wait_version(mounted, expected(folder))
    (folder / "b.bin").chmod(0o600)
    archive = mounted.archive(GAME)
    poll("the new mode", lambda: archive.exists() and archive.stat().st_mode & 0o777 == 0o400)
    after = archive.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert archive.read_bytes() == expected_archive(folder)


def test_new_game(library: Path, mount: Mounts) -> None:
    """Also in a folder, and a system, that wasn't there; found by listing as by name."""
    make_game(library, GAME, FILES)
    mounted = mount(library)
    mounted.wait_archive(GAME)
    by_name = make_game(library, "roms/new system/By name", FILES)
    wait_version(mounted, expected(by_name), "roms/new system/By name")
    listed = make_game(library, "roms/psx/Listed", FILES)
    poll("the listing", lambda: "Listed.zip" in os.listdir(mounted.path / "roms/psx"))
    wait_version(mounted, expected(listed), "roms/psx/Listed")
    assert "new system" in os.listdir(mounted.path / "roms")


def test_removed_game(library: Path, mount: Mounts) -> None:
    folder = make_game(library, GAME, FILES)
    other = make_game(library, "roms/psx/Other", FILES)
    make_game(library, "roms/gb/Game", FILES)
    mounted = mount(library)
    mounted.wait_sealed(3)
    shutil.rmtree(folder)
    mounted.wait_gone(f"{GAME}.zip")
    assert os.listdir(mounted.path / "roms/psx") == ["Other.zip"]
    shutil.rmtree(library / "roms/gb")
    mounted.wait_gone("roms/gb")
    poll("the listing", lambda: os.listdir(mounted.path / "roms") == ["psx"])
    assert mounted.archive("roms/psx/Other").read_bytes() == expected_archive(other)


def test_renamed_game(library: Path, mount: Mounts) -> None:
    folder = make_game(library, GAME, FILES)
    mounted = mount(library)
    before = wait_version(mounted, expected(folder))
    renamed = folder.rename(folder.with_name("Renamed"))
    after = wait_version(mounted, expected(renamed), "roms/psx/Renamed")
    mounted.wait_gone(f"{GAME}.zip")
    assert after.st_mtime_ns == before.st_mtime_ns
    assert after.st_ino != before.st_ino


def test_two_games_change_places(library: Path, mount: Mounts) -> None:
    one = make_game(library, GAME, FILES)
    two = make_game(library, "roms/psx/Other", {"x": b"1", "y": b"2"})
    mounted = mount(library)
    mounted.wait_sealed(2)
    one.rename(one.with_name("between"))
    two.rename(one)
    one.with_name("between").rename(two)
    wait_version(mounted, expected(one))
    wait_version(mounted, expected(two), "roms/psx/Other")


def test_from_one_file_to_two_and_back(library: Path, mount: Mounts) -> None:
    """A folder, an archive, and a folder again."""
    folder = make_game(library, GAME, {"a.bin": b"a"})
    mounted = mount(library)
    for _ in range(2):
        mounted.wait_for(f"{GAME}/a.bin")
        assert os.listdir(mounted.path / "roms/psx") == ["Game"]
        make_file(folder / "b.bin", b"b")
        wait_version(mounted, expected(folder))
        mounted.wait_gone(GAME)
        assert os.listdir(mounted.path / "roms/psx") == ["Game.zip"]
        (folder / "b.bin").unlink()
        mounted.wait_gone(f"{GAME}.zip")


def test_folder_becomes_file(library: Path, mount: Mounts) -> None:
    folder = make_game(library, GAME, FILES)
    mounted = mount(library)
    mounted.wait_archive(GAME)
    shutil.rmtree(folder)
    make_file(folder, b"now a file")
    poll("the file", lambda: os.listdir(mounted.path / "roms/psx") == ["Game"])
    assert mounted.wait_for(GAME).read_bytes() == b"now a file"
    folder.unlink()
    make_game(library, GAME, FILES)
    wait_version(mounted, expected(folder))


def test_single_file_changes(library: Path, mount: Mounts) -> None:
    single = library / "roms/gb/Game.gb"
    make_file(single, content(5000, 1))
    mounted = mount(library)
    shown = mounted.wait_for("roms/gb/Game.gb")
    before = shown.stat()
    assert shown.read_bytes() == content(5000, 1)
    # In place, same size, old date: the kernel must not show old pages for it.
    single.write_bytes(content(5000, 2))
    os.utime(single, ns=(before.st_atime_ns, before.st_mtime_ns))
    poll("another inode", lambda: shown.stat().st_ino != before.st_ino)
    assert shown.read_bytes() == content(5000, 2)
    single.unlink()
    mounted.wait_gone("roms/gb/Game.gb")


def test_rescan_finds_what_nobody_asks_for(library: Path, mount: Mounts) -> None:
    make_game(library, GAME, FILES)
    mounted = mount(library)
    mounted.wait_sealed(1)
    make_game(library, "roms/psx/New", FILES)
    mounted.process.send_signal(signal.SIGHUP)
    mounted.wait_sealed(2)
    shutil.rmtree(library / "roms/psx/New")
    make_game(library, "roms/psx/Newer", {"x": b"x", "y": b"y"})
    make_game(library, "roms/psx/Newest", {"x": b"x", "y": b"y"})
    mounted.process.send_signal(signal.SIGHUP)
    mounted.wait_sealed(3)


def test_file_that_comes_and_goes_while_a_game_settles(library: Path, mount: Mounts) -> None:
    """As rsync and browsers do: a temporary name first."""
    folder = make_game(library, GAME, {"a.bin": b"a"})
    mounted = mount(library)
    for number in range(5):
        draft = folder / f".b.bin.{number}"
        draft.write_bytes(b"part")
        inode_of(mounted.archive(GAME))
        draft.unlink()
    make_file(folder / ".b.bin.x", b"whole")
    (folder / ".b.bin.x").rename(folder / "b.bin")
    wait_version(mounted, expected(folder))
