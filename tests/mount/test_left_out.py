"""What isn't shown (DESIGN H2), and who may read what is (H3)."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.acls import set_list
from tests.support.libraries import content, expected_archive, make_file, make_game, tree
from tests.support.mounting import Mounted, Mounts
from tests.support.users import NOBODY, OTHER, needs_root, run_as
from tests.support.waiting import poll

GROUP = 4321
"""A group of nobody's."""
TWO = {"a.bin": b"a", "b.bin": b"b"}


def rescan(mounted: Mounted) -> None:
    """Have everything looked at again, and come to an end with that."""
    before = mounted.log_text().count("looking through the library again")
    mounted.process.send_signal(signal.SIGHUP)
    mounted.wait_log(rf"(?s)(looking through the library again.*){{{before + 1}}}")


def test_links_inside_the_library_are_followed(library: Path, mount: Mounts) -> None:
    make_file(library / "shared/patch.bin", b"patch")
    make_game(library, "shared/dlc", {"1.bin": b"dlc 1", "sub/2.bin": b"dlc 2"})
    folder = make_game(library, "roms/psx/Game", TWO)
    (folder / "patch.bin").symlink_to("../../../shared/patch.bin")
    (folder / "dlc").symlink_to(library / "shared/dlc")
    (library / "roms/psx/Linked").symlink_to("Game")
    (library / "roms/linked").symlink_to("psx")
    (library / "roms/one.gb").symlink_to("../shared/patch.bin")
    mounted = mount(library)
    wanted = expected_archive(folder)
    for game in ("psx/Game", "psx/Linked", "linked/Game", "linked/Linked"):
        assert mounted.wait_archive(f"roms/{game}").read_bytes() == wanted, game
    assert b"dlc/sub/2.bin" in wanted
    assert mounted.wait_for("roms/one.gb").read_bytes() == b"patch"
    # Shown as what they lead to: nobody has to follow them out of the mount.
    assert stat.S_ISREG((mounted.path / "roms/one.gb").lstat().st_mode)
    assert stat.S_ISDIR((mounted.path / "roms/linked").lstat().st_mode)


def test_links_that_leave_the_library(library: Path, mount: Mounts, place: Path) -> None:
    make_file(place / "secret/passwd", b"secret")
    folder = make_game(library, "roms/psx/Game", TWO)
    links = {
        "roms/psx/Game/absolute": place / "secret/passwd",
        "roms/psx/Game/relative": Path("../../../../secret/passwd"),
        "roms/psx/Game/folder": place / "secret",
        "roms/psx/Game/root": Path("/"),
        "roms/gb/single.gb": place / "secret/passwd",
        "roms/out": place / "secret",
        "roms/psx/Out": place / "secret",
        # One that comes back in by another way has left all the same.
        "roms/psx/Game/beside": place / "library2",
    }
    make_game(place, "library2", {"c": b"a sibling whose path begins like the library's"})
    (library / "roms/gb").mkdir()
    for name, target in links.items():
        (library / name).symlink_to(target)
    mounted = mount(library)
    mounted.expect_log("is left out: a symbolic link that leaves the library")
    archive = mounted.wait_archive("roms/psx/Game")
    found = archive.read_bytes()
    assert os.listdir(mounted.path / "roms/gb") == []
    assert sorted(os.listdir(mounted.path / "roms")) == ["gb", "psx"]
    assert os.listdir(mounted.path / "roms/psx") == ["Game.zip"]
    assert not (mounted.path / "roms/out").exists()
    for name in links:
        assert not (mounted.path / name).exists()
    rescan(mounted)
    archive.read_bytes()
    os.listdir(mounted.path / "roms/gb")
    said = mounted.log_text().splitlines()
    for name in links:
        lines = [line for line in said if f"{name} is left out" in line]
        assert len(lines) == 1, f"{name}: {lines}"
        (library / name).unlink()
    assert found == expected_archive(folder)


def test_links_that_lead_nowhere_or_back(library: Path, mount: Mounts) -> None:
    folder = make_game(library, "roms/psx/Game", {**TWO, "sub/c.bin": b"c"})
    (folder / "dangling").symlink_to("nothing")
    (folder / "itself").symlink_to("itself")
    (folder / "there").symlink_to("back")
    (folder / "back").symlink_to("there")
    (folder / "up").symlink_to(".")
    (folder / "sub/upper").symlink_to("..")
    (folder / "sub/top").symlink_to(library)
    (library / "roms/loop").symlink_to(".")
    (library / "roms/psx/Self").symlink_to("../psx")
    before = tree(library)
    mounted = mount(library)
    mounted.expect_log("is left out: a symbolic link")
    archive = mounted.wait_archive("roms/psx/Game")
    found = archive.read_bytes()
    for name in ("dangling", "itself", "there", "back", "up", "sub/upper", "sub/top"):
        assert f"roms/psx/Game/{name} is left out: a symbolic link" in mounted.log_text()
        (folder / name).unlink()
    assert found == expected_archive(folder)
    # A walk through the mount comes to an end.
    seen = [name for _, _, names in os.walk(mounted.path) for name in names]
    assert "Game.zip" in seen
    assert len(seen) < 100
    assert before.keys() > tree(library).keys()


def test_devices_sockets_and_fifos(library: Path, mount: Mounts) -> None:
    folder = make_game(library, "roms/psx/Game", TWO)
    names = ["roms/psx/Game/fifo", "roms/psx/Game/socket", "roms/fifo"]
    os.mkfifo(library / "roms/psx/Game/fifo")
    os.mkfifo(library / "roms/fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
    if os.geteuid() == 0:
        names.append("roms/psx/Game/null")
        os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    mounted = mount(library)
    mounted.expect_log("is left out: not a file or folder but a device, socket or FIFO")
    archive = mounted.wait_archive("roms/psx/Game")
    assert os.listdir(mounted.path / "roms") == ["psx"]
    for name in names:
        assert not (mounted.path / name).exists()
        assert mounted.log_text().count(f"{name} is left out") == 1
        (library / name).unlink()
    assert archive.read_bytes() == expected_archive(folder)


@needs_root
def test_unreadable_files_and_folders(
    library: Path, mount: Mounts, public_program: str, public_device: None
) -> None:
    """They are left out, that is said once each, and the rest works."""
    folder = make_game(library, "roms/psx/Game", {**TWO, "closed/c": b"c", "shut": b"s"})
    make_game(library, "roms/psx/Open", TWO)
    make_game(library, "roms/psx/Locked", TWO)
    make_game(library, "roms/locked/Game", TWO)
    make_file(library / "roms/gb/shut.gb", b"s")
    make_file(library / "roms/gb/open.gb", b"o")
    closed = ("roms/psx/Game/closed", "roms/psx/Locked", "roms/locked")
    for name in (*closed, "roms/psx/Game/shut", "roms/gb/shut.gb"):
        (library / name).chmod(0)
    mounted = mount(library, user=NOBODY, program=[public_program])
    mounted.expect_log("can't be (read|listed)")

    def seen(*command: str | Path) -> bytes:
        done = run_as(NOBODY, *command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    mounted.wait_sealed(2)
    assert seen("ls", mounted.path / "roms/psx").split() == [b"Game.zip", b"Open.zip"]
    got = seen("cat", mounted.archive("roms/psx/Game"))
    assert got == expected_archive(folder, leave_out=["closed/c", "shut"])
    assert seen("ls", mounted.path / "roms/gb").split() == [b"open.gb"]
    # A folder outside any game is mirrored as it is: closed.
    assert b"Permission denied" in run_as(NOBODY, "ls", mounted.path / "roms/locked").stderr
    log = mounted.log_text()
    assert log.count("roms/psx/Game/shut is left out") == 1
    assert log.count("roms/psx/Game/closed is left out") == 1
    assert log.count("roms/gb/shut.gb is left out") == 1
    assert log.count("roms/psx/Locked") == 1
    assert seen("stat", "-c", "%a", mounted.path / "roms/gb/open.gb") == b"444\n"


CASES: Mapping[str, tuple[dict[str, tuple[int, int, int]], tuple[int, int, int]]] = {
    # What the parts of a game grant (mode, owner, group); what its archive then grants.
    "all to all": (
        {".": (0o755, 0, 0), "a.bin": (0o644, 0, 0), "b.bin": (0o666, 0, 0)},
        (0o444, 0, 0),
    ),
    "one only to the group": (
        {".": (0o755, 7, 8), "a.bin": (0o640, 7, 8), "b.bin": (0o644, 7, 8)},
        (0o440, 7, 8),
    ),
    "one only to its owner": (
        {".": (0o755, 7, 8), "a.bin": (0o600, 7, 8), "b.bin": (0o644, 7, 8)},
        (0o400, 7, 8),
    ),
    "the folder is closed": (
        {".": (0o700, 7, 8), "a.bin": (0o644, 7, 8), "b.bin": (0o644, 7, 8)},
        (0o400, 7, 8),
    ),
    "the folder can be listed, not entered": (
        {".": (0o744, 7, 8), "a.bin": (0o644, 7, 8), "b.bin": (0o644, 7, 8)},
        (0o400, 7, 8),
    ),
    "two owners": (
        {".": (0o755, 7, 8), "a.bin": (0o640, 7, 8), "b.bin": (0o640, 9, 8)},
        (0o040, 0, 8),
    ),
    "two owners, open to all": (
        {".": (0o755, 7, 8), "a.bin": (0o644, 7, 8), "b.bin": (0o644, 9, 8)},
        (0o444, 0, 8),
    ),
    "two groups": (
        {".": (0o755, 7, 8), "a.bin": (0o640, 7, 8), "b.bin": (0o640, 7, 9)},
        (0o400, 7, 0),
    ),
}


@needs_root
def test_archive_grants_what_all_its_members_grant(library: Path, mount: Mounts) -> None:
    for name, (parts, _) in CASES.items():
        folder = make_game(library, f"roms/psx/{name}", TWO)
        for part, (mode, uid, gid) in parts.items():
            (folder / part).chmod(mode)
            os.chown(folder / part, uid, gid)
    mounted = mount(library)
    mounted.wait_sealed(len(CASES))
    for name, (_, granted) in CASES.items():
        found = mounted.archive(f"roms/psx/{name}").stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == granted, name


@needs_root
def test_permissions_are_enforced_and_followed(library: Path, mount: Mounts, place: Path) -> None:
    """With ``--allow-other``, each user may read just what the sources grant; a chmod counts."""
    data = content(10_000)
    folder = make_game(library, "roms/psx/Game", {"a": data, "b": data})
    make_file(library / "roms/gb/Game.gb", data)
    for path in (folder / "b", library / "roms/gb/Game.gb"):
        path.chmod(0o4600)
        os.chown(path, 0, 0)

    def readable(path: Path) -> bool:
        return path.exists() and stat.S_IMODE(path.stat().st_mode) == 0o444

    mounted = mount(library, "--allow-other")
    archive = mounted.wait_archive("roms/psx/Game")
    single = mounted.wait_for("roms/gb/Game.gb")
    for path in (archive, single):
        assert stat.S_IMODE(path.stat().st_mode) == 0o400  # no set-user-id bit either
        done = run_as(OTHER, "cat", path)
        assert b"Permission denied" in done.stderr
        assert not done.stdout
    before = archive.stat()
    (folder / "b").chmod(0o644)
    (library / "roms/gb/Game.gb").chmod(0o644)
    # Until it has settled again it isn't there: the same signs could be those of a write (S1).
    poll("both to be readable", lambda: readable(archive) and readable(single))
    assert run_as(OTHER, "cat", archive).stdout == expected_archive(folder)
    assert run_as(OTHER, "cat", single).stdout == data
    # No byte of it has changed, so nothing that a web server tells of it.
    after = archive.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@needs_root
def test_a_group_that_an_access_control_list_leaves_out(
    library: Path, mount: Mounts, place: Path
) -> None:
    """H3: of a file with such a list, ``stat`` gives as the group's bits what they aren't."""
    data = content(10_000)
    folder = make_game(library, "roms/psx/Game", {"a": data, "b": data})
    make_file(library / "roms/gb/Game.gb", data)
    files = (folder / "a", folder / "b", library / "roms/gb/Game.gb")
    os.chown(folder, 0, GROUP)
    for path in files:
        os.chown(path, 0, GROUP)
        set_list(path, users={OTHER + 1: 4}, group=0)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640

    def as_member(path: Path) -> bytes:
        done = subprocess.run(
            ["cat", str(path)],
            user=OTHER,
            group=GROUP,
            extra_groups=[],
            capture_output=True,
            check=False,
        )
        return done.stdout

    mounted = mount(library, "--allow-other")
    archive = mounted.wait_archive("roms/psx/Game")
    single = mounted.wait_for("roms/gb/Game.gb")
    for path in (*files, archive, single):
        assert as_member(path) == b""
    for path in files:
        set_list(path, users={OTHER + 1: 4}, group=4)
    poll("both to be readable", lambda: as_member(archive) and as_member(single))
    assert as_member(archive) == expected_archive(folder)


@needs_root
def test_links_into_closed_folders(library: Path, mount: Mounts, place: Path) -> None:
    """H3: whom the way to a link's target is closed to, he doesn't get it by the link."""
    make_file(library / "priv/file", b"secret")
    make_game(library, "priv/sub/Game", TWO)
    make_game(library, "priv/sub/One", {"only.bin": b"secret"})
    folder = make_game(library, "roms/psx/File", {"b": b"b"})
    (folder / "a").symlink_to("../../../priv/file")
    folder = make_game(library, "roms/psx/Folder", {"b": b"b"})
    (folder / "sub").symlink_to("../../../priv/sub/Game")
    for name in ("Game", "One"):
        (library / "roms/psx" / name).symlink_to(f"../../priv/sub/{name}")
    (library / "roms/psx/single").symlink_to("../../priv/file")
    (library / "roms/all").symlink_to("../priv/sub")
    (place / "lists").mkdir()
    (place / "lists/1.list").write_text("- 6 /library/roms/psx/single name\n")
    (library / "priv").chmod(0o700)
    mounted = mount(library, "--allow-other", "--lists", place / "lists")
    archives = ["roms/psx/File", "roms/psx/Folder", "roms/psx/Game", "roms/all/Game", ".lists/1"]
    for archive in archives:
        mounted.wait_archive(archive)
    shown = [f"{archive}.zip" for archive in archives]
    shown += ["roms/psx/single", "roms/psx/One/only.bin", "roms/all/One/only.bin", "priv/file"]
    for path in shown:
        assert run_as(None, "cat", mounted.path / path).returncode == 0, path
        assert b"Permission denied" in run_as(OTHER, "cat", mounted.path / path).stderr, path
    (library / "priv").chmod(0o711)  # to be entered is enough
    rescan(mounted)
    for path in shown:
        poll(
            f"{path} to be for everybody",
            lambda path=path: run_as(OTHER, "cat", mounted.path / path).returncode == 0,
        )
