"""An ordinary user mounts, through fusermount3; others are let in only if told so."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from bench.mount import is_mounted
from tests.support.libraries import content, expected_archive, make_file, make_game, tree
from tests.support.mounting import Mounted, Mounts, as_user, run_zipfs
from tests.support.users import NOBODY, OTHER, needs_root, run_as
from tests.support.waiting import poll

pytestmark = needs_root

GAME = "roms/psx/Game"


@pytest.fixture
def game(library: Path) -> Path:
    make_file(library / "roms/gb/single.gb", b"single")
    return make_game(library, GAME, {"a": content(3_000_000, 1), "b": content(70_000, 2)})


def test_mount(
    game: Path, library: Path, mount: Mounts, public_program: str, public_device: None
) -> None:
    before = tree(library)
    mounted = mount(library, user=NOBODY, program=[public_program])
    mounted.wait_sealed(1)
    got = run_as(NOBODY, "cat", mounted.path / f"{GAME}.zip")
    assert got.stdout == expected_archive(game)
    assert run_as(NOBODY, "cat", mounted.path / "roms/gb/single.gb").stdout == b"single"
    assert b"Read-only file system" in run_as(NOBODY, "touch", mounted.path / "new").stderr
    # The kernel lets nobody else in, not even root.
    for user in (OTHER, None):
        for path in (mounted.path, mounted.path / f"{GAME}.zip"):
            assert b"Permission denied" in run_as(user, "ls", path).stderr
    with pytest.raises(PermissionError):
        os.listdir(mounted.path)
    mounted.stop()
    assert tree(library) == before


def test_stop_with_open_readers(
    game: Path, library: Path, mount: Mounts, public_program: str, public_device: None
) -> None:
    mounted = mount(library, user=NOBODY, program=[public_program])
    mounted.wait_sealed(1)
    script = 'exec 3<"$1"; echo ready; exec sleep 1000'
    with subprocess.Popen(
        [*as_user(NOBODY), "sh", "-c", script, "sh", mounted.path / f"{GAME}.zip"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as reader:
        try:
            assert reader.stdout
            assert reader.stdout.readline() == b"ready\n"
            mounted.stop(signal.SIGINT)
        finally:
            reader.kill()


def test_unmount(
    game: Path, library: Path, mount: Mounts, public_program: str, public_device: None
) -> None:
    mounted = mount(library, user=NOBODY, program=[public_program])
    done = run_zipfs("unmount", mounted.path, user=OTHER, program=[public_program])
    assert done.returncode == 4
    assert done.stderr.startswith(f"zipfs: can't unmount {mounted.path}: ")
    assert done.stderr.count("\n") == 1
    assert is_mounted(mounted.path)
    done = run_zipfs("unmount", mounted.path, user=NOBODY, program=[public_program])
    assert (done.returncode, done.stderr) == (0, "")
    mounted.see_end()


def test_mount_after_kill(
    game: Path, library: Path, mount: Mounts, public_program: str, public_device: None
) -> None:
    first = mount(library, user=NOBODY, program=[public_program])
    first.wait_sealed(1)
    first.kill()
    assert is_mounted(first.path)
    second = mount(library, mountpoint=first.path, user=NOBODY, program=[public_program])
    second.wait_sealed(1)
    got = run_as(NOBODY, "cat", second.path / f"{GAME}.zip")
    assert got.stdout == expected_archive(game)


def test_own_index(
    game: Path,
    library: Path,
    mount: Mounts,
    place: Path,
    public_program: str,
    public_device: None,
) -> None:
    """By default it is in the user's state folder, or in what systemd gives."""
    home = place / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    cases: dict[str, tuple[dict[str, str | None], Path]] = {
        "HOME": ({"HOME": str(home), "XDG_STATE_HOME": None}, home / ".local/state/zipfs"),
        "XDG": ({"HOME": str(home), "XDG_STATE_HOME": f"{home}/x"}, home / "x/zipfs"),
        "systemd": ({"STATE_DIRECTORY": f"{home}/s:{home}/t"}, home / "s"),
    }
    for name, (env, folder) in cases.items():
        done = run_zipfs("index", library, env=env, user=NOBODY, program=[public_program])
        assert done.returncode == 0, done.stderr
        assert "1 archive sealed" in done.stdout, name
        (index,) = [entry for entry in folder.iterdir() if entry.suffix == ".sqlite3"]
        assert index.name.startswith("library-")


def see_into(mounted: Mounted, user: int, *command: str) -> subprocess.CompletedProcess[bytes]:
    """Run *command* as *user* in the daemon's view of the system."""
    return run_as(
        None, "nsenter", "--mount", f"--target={mounted.process.pid}", *as_user(user), *command
    )


def test_allow_other(
    game: Path, library: Path, mount: Mounts, place: Path, public_program: str
) -> None:
    """With ``user_allow_other`` in /etc/fuse.conf, in a view of the system that has it."""
    (place / "fuse.conf").write_text("# allowed here\nuser_allow_other\n")
    point, state = place / "point", place / "state"
    for folder in (point, state):
        folder.mkdir()
        os.chown(folder, NOBODY, NOBODY)
    (game / "b").chmod(0o640)
    os.chown(game / "b", NOBODY, NOBODY)
    setup = (
        f"mount --bind {place}/fuse.conf /etc/fuse.conf;"
        "mount -t tmpfs none /dev; mknod /dev/fuse c 10 229; chmod 666 /dev/fuse;"
        'mknod /dev/null c 1 3; chmod 666 /dev/null; exec "$@"'
    )
    view = ["unshare", "--mount", "--propagation=private", "sh", "-euc", setup, "sh"]
    mounted = mount(
        library,
        "--allow-other",
        mountpoint=point,
        index=state / "index",
        program=[*view, *as_user(NOBODY), public_program],
    )
    mounted.wait_sealed(1)
    single, archive = f"{point}/roms/gb/single.gb", f"{point}/{GAME}.zip"
    assert see_into(mounted, OTHER, "cat", single).stdout == b"single"
    # Let in, and yet no file is more readable than its source (H3).
    assert see_into(mounted, NOBODY, "cat", archive).stdout == b""
    done = see_into(mounted, OTHER, "cat", archive)
    assert b"Permission denied" in done.stderr
    assert not done.stdout
    mounted.stop()


def test_file_that_only_a_group_may_read(
    library: Path, mount: Mounts, public_program: str, public_device: None
) -> None:
    """Left out unless the daemon is in that group."""
    folder = make_game(library, GAME, {"a": b"a", "b": b"b", "c": b"c"})
    for name, group in (("b", NOBODY), ("c", OTHER)):
        (folder / name).chmod(0o040)
        os.chown(folder / name, OTHER, group)
    mounted = mount(library, user=NOBODY, program=[public_program])
    mounted.expect_log(f"{GAME}/c is left out: a file that can't be read")
    mounted.wait_sealed(1)
    poll("the log", lambda: f"{GAME}/c is left out" in mounted.log_text())
    listed = run_as(NOBODY, "ls", mounted.path / "roms/psx")
    assert listed.stdout == b"Game.zip\n"
