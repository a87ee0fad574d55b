"""Bad input: one line that names the thing and the remedy, and the documented status."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.mount import is_mounted, zipfs_program
from tests.support.libraries import make_file, make_game, tree
from tests.support.mounting import Mounts, as_user, environment, run_zipfs
from tests.support.users import NOBODY, needs_root
from tests.support.waiting import SECONDS
from zipfs.errors import EXIT_CODES

GAME = "roms/psx/Game"


@dataclass(frozen=True)
class Setting:
    """What a case finds."""

    library: Path
    point: Path
    index: Path
    place: Path


@pytest.fixture
def setting(library: Path, place: Path) -> Setting:
    make_game(library, GAME, {"a": b"a", "b": b"b"})
    make_file(library / "roms/gb/single.gb", b"single")
    make_game(library, "roms/gb/One", {"one.gb": b"one"})
    point = place / "point"
    point.mkdir()
    return Setting(library, point, place / "index.sqlite3", place)


def assert_one_line(
    done: subprocess.CompletedProcess[str], status: int, pattern: str, what: object = ""
) -> None:
    assert done.returncode == status, f"{what}: {done.returncode} {done.stderr}"
    assert status in EXIT_CODES
    assert done.stdout == ""
    assert re.fullmatch(rf"zipfs: {pattern}\n", done.stderr), f"{what}: {done.stderr}"


def mount_command(setting: Setting, *options: str | Path) -> list[str | Path]:
    return ["mount", "--index", setting.index, *options, setting.library, setting.point]


def commands(setting: Setting, library: Path, *options: str | Path) -> list[list[str | Path]]:
    """All commands that take a library."""
    return [
        ["mount", *options, library, setting.point],
        ["index", *options, library],
        ["inspect", *options, library, GAME],
    ]


# -- Libraries and games -------------------------------------------------------------


def test_no_such_library(setting: Setting) -> None:
    missing = setting.place / "missing"
    pattern = f"can't read the library {missing}: No such file or directory"
    for command in commands(setting, missing):
        assert_one_line(run_zipfs(*command), 3, pattern, command)
    file = setting.place / "file"
    file.write_bytes(b"")
    for command in commands(setting, file):
        assert_one_line(run_zipfs(*command), 3, f"the library {file} isn't a folder", command)


@needs_root
def test_closed_library(setting: Setting, public_program: str, public_device: None) -> None:
    setting.library.chmod(0o700)
    os.chown(setting.point, NOBODY, NOBODY)
    done = run_zipfs(*mount_command(setting), user=NOBODY, program=[public_program])
    assert_one_line(done, 3, f"can't read the library {setting.library}: Permission denied")


def test_no_such_game(setting: Setting) -> None:
    cases = {
        "roms/psx/Nothing": "there is no game folder roms/psx/Nothing in the library",
        "roms/gb/single.gb": "there is no game folder roms/gb/single.gb in the library",
        "roms/gb/One": "roms/gb/One has fewer than two files, so it is shown as a folder, .*",
        "roms/psx": "roms/psx isn't where games are; see --games in `zipfs index --help`",
        "../outside": "there is no game folder .*",
        "": "the library itself isn't where games are; .*",
        "/": "the library itself isn't where games are; .*",
    }
    for game, pattern in cases.items():
        done = run_zipfs("inspect", "--index", setting.index, setting.library, game)
        assert_one_line(done, 3, f"(?:{pattern})", game)


# -- Mount points --------------------------------------------------------------------


def test_mount_points(setting: Setting) -> None:
    full, file = setting.place / "full", setting.place / "file"
    make_file(full / "something", b"")
    file.write_bytes(b"")
    inside = setting.library / "roms"
    cases = {
        setting.place / "missing": "there is no folder {} to mount on; make it: mkdir -p {}",
        full: "the mount point {} isn't empty; choose an empty folder",
        file: "the mount point {} isn't a folder",
        file / "below": "the mount point {} isn't a folder",
        setting.library / "roms/psx/Game": "the mount point {} (isn't empty;|and the library) .*",
        inside: "the mount point {} (isn't empty;|and the library) .*",
        setting.library: "the mount point {} (isn't empty;|and the library) .*",
        setting.place: "the mount point {} (isn't empty;|and the library) .*",
    }
    before = tree(setting.place)
    for point, pattern in cases.items():
        done = run_zipfs("mount", "--index", setting.index, setting.library, point)
        assert_one_line(done, 4, pattern.replace("{}", re.escape(str(point))), point)
        assert not is_mounted(point)
    assert tree(setting.place).keys() == before.keys(), "not even an index was made"


def test_mount_point_inside_the_library(setting: Setting) -> None:
    """Also an empty one, and by a detour: it would wait for itself."""
    inside = setting.library / "empty"
    inside.mkdir()
    (setting.place / "detour").symlink_to(setting.library)
    for point in (inside, setting.place / "detour/empty"):
        done = run_zipfs("mount", "--index", setting.index, setting.library, point)
        assert_one_line(
            done, 4, f"the mount point {point} is in the library, or the library is in it; .*"
        )
    assert not is_mounted(inside)


def test_an_index_in_the_mount_point(setting: Setting, fuse: None) -> None:
    """The daemon would wait for itself."""
    setting.point.mkdir(exist_ok=True)
    (setting.place / "detour").symlink_to(setting.point)
    for index in (setting.point / "index", setting.place / "detour/x/index"):
        done = run_zipfs("mount", "--index", index, setting.library, setting.point)
        assert_one_line(done, 6, f"the index {index} would lie in the mount point; .*--index")
    env = {"STATE_DIRECTORY": str(setting.point / "state")}
    done = run_zipfs("mount", setting.library, setting.point, env=env)
    assert_one_line(done, 6, f"the index {setting.point}/state/.* would lie in the mount point; .*")
    assert not is_mounted(setting.point)
    assert os.listdir(setting.point) == []


def test_already_mounted(setting: Setting, mount: Mounts) -> None:
    mounted = mount(setting.library)
    done = run_zipfs("mount", "--index", setting.index, setting.library, mounted.path)
    pattern = f"something is mounted on {mounted.path} already; unmount it first: .*"
    assert_one_line(done, 4, pattern + f"zipfs unmount {mounted.path}")
    assert mounted.wait_archive(GAME).exists()
    # By another path to the same place.
    (setting.place / "link").symlink_to(mounted.path)
    done = run_zipfs("mount", "--index", setting.index, setting.library, setting.place / "link")
    assert_one_line(done, 4, "something is mounted on .* already; .*")


def test_unmount_what_is_not_mounted(setting: Setting) -> None:
    for path in (setting.point, setting.place / "missing", Path("/proc"), Path("/")):
        assert_one_line(run_zipfs("unmount", path), 4, f"no zipfs is mounted on {path}", path)


# -- Options and config files --------------------------------------------------------

CONFIGS: Sequence[tuple[str | None, str]] = [
    ('colour = "red"', "unknown key 'colour' in {}; the known ones are allow-other, .*"),
    ("allow_other = true", "unknown key 'allow_other' in {}; the known ones are .*allow-other.*"),
    ("[mount]\nsettle = 1", "unknown key 'mount' in {}; .*"),
    ('settle = "long"', "bad value for 'settle' in {}: .*"),
    ("settle = -1", "bad value for 'settle' in {}: .*"),
    ("settle = inf", "bad value for 'settle' in {}: .*"),
    ("settle = nan", "bad value for 'settle' in {}: .*"),
    ("read-ahead = true", "bad value for 'read-ahead' in {}: .*"),
    ('games = "roms/*"', "bad value for 'games' in {}: .*"),
    ('games = ["/absolute/*"]', "bad value for 'games' in {}: .*"),
    ('games = ["roms/*", 1]', "bad value for 'games' in {}: .*"),
    ('log-level = "loud"', "bad value for 'log-level' in {}: .*"),
    ('library = ""', "bad value for 'library' in {}: .*"),
    ("settle =", "the config file {} isn't valid TOML: .*"),
    ("settle = 1\nsettle = 2", "the config file {} isn't valid TOML: .*"),
    (None, "can't read the config file {}: No such file or directory"),
]


@pytest.mark.parametrize(("text", "pattern"), CONFIGS, ids=[str(text) for text, _ in CONFIGS])
def test_config_file(setting: Setting, text: str | None, pattern: str) -> None:
    config = setting.place / "config.toml"
    if text is not None:
        config.write_text(text)
    given = [] if text == 'library = ""' else [setting.library, setting.point]
    done = run_zipfs("mount", "--config", config, *given)
    assert_one_line(done, 2, pattern.replace("{}", re.escape(str(config))))


OPTIONS: Sequence[tuple[list[str], str]] = [
    (["--settle=0"], "bad value for 'settle' on the command line: .*"),
    (["--read-ahead=-1"], "bad value for 'read-ahead' on the command line: .*"),
    (["--games=../*"], "bad value for 'games' on the command line: .*"),
    (["--games="], "bad value for 'games' on the command line: .*"),
    (["-o", "rw"], "bad value for 'options' on the command line: the mount option 'rw' .*"),
    (["-o", "nodev,max_read=4096"], "bad value for 'options' .* 'max_read=4096' .*"),
]


@pytest.mark.parametrize(("options", "pattern"), OPTIONS, ids=[" ".join(o) for o, _ in OPTIONS])
def test_option(setting: Setting, options: list[str], pattern: str) -> None:
    assert_one_line(run_zipfs(*mount_command(setting, *options)), 2, pattern)


def test_usage(setting: Setting) -> None:
    """What isn't a command or option at all: the usage, and the same status."""
    for command in (["mount", "--colour"], ["nothing"], ["mount", "--settle=long"], ["inspect"]):
        done = run_zipfs(*command)
        assert done.returncode == 2, command
        assert done.stderr.startswith("Usage: zipfs"), command
        assert "Traceback" not in done.stderr
    for name in (["mount"], ["index"], ["inspect", "game"]):
        assert_one_line(run_zipfs(*name), 2, "no library given; .*")
    assert_one_line(run_zipfs("mount", setting.library), 2, "no mountpoint given; .*")


@needs_root
def test_an_index_on_a_file_system_that_is_read_only(setting: Setting) -> None:
    """It isn't damaged, and no right is missing: so no such remedy."""
    rom = setting.place / "rom"
    rom.mkdir()
    index = rom / "index"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", rom], check=True)
    try:
        assert run_zipfs("index", "--index", index, setting.library).returncode in (0, 8)
        subprocess.run(["mount", "-o", "remount,ro", rom], check=True)
        done = run_zipfs("verify", "--index", index, setting.library)
        assert_one_line(done, 6, f"can't read the index {index}: .*copy it off that read-only .*")
        told = run_zipfs("doctor", "--index", index, setting.library).stdout
        assert "can't be written: its file system is mounted read-only" in " ".join(told.split())
        assert "chown" not in told
    finally:
        subprocess.run(["umount", rom], check=True)


def test_an_option_that_fuse_does_not_know(setting: Setting, fuse: None) -> None:
    arguments = ["--index", setting.index, setting.library, setting.point]
    for how in ([], ["--no-supervise"]):
        done = run_zipfs("mount", *how, "-o", "nonsense=1", *arguments)
        assert_one_line(done, 2, f"can't mount on {setting.point}: .*unknown option.*nonsense=1.*")
        assert "seccomp" not in done.stderr
        assert not is_mounted(setting.point)


# -- The index -----------------------------------------------------------------------


def test_index_that_can_not_be_written(setting: Setting) -> None:
    file = setting.place / "file"
    file.write_bytes(b"")
    cases = [file / "index", setting.place, Path("/proc/index"), setting.place / ("x" * 300)]
    for index in cases:
        done = run_zipfs("mount", "--index", index, setting.library, setting.point)
        assert_one_line(done, 6, f".*{re.escape(str(index))}.*", index)
    for command in commands(setting, setting.library, "--index", file / "index"):
        assert_one_line(run_zipfs(*command), 6, f".*{file}/index.*", command)
    assert not is_mounted(setting.point)


@needs_root
def test_index_in_a_closed_folder(
    setting: Setting, public_program: str, public_device: None
) -> None:
    os.chown(setting.point, NOBODY, NOBODY)
    done = run_zipfs(*mount_command(setting), user=NOBODY, program=[public_program])
    assert_one_line(done, 6, f".*{re.escape(str(setting.index))}.*")


def test_index_in_the_library(setting: Setting) -> None:
    """Nothing in the library is ever written (H1), so no index goes there either."""
    before = tree(setting.library)
    (setting.place / "detour").symlink_to(setting.library)
    for folder in (setting.library, setting.library / "new/folder", setting.place / "detour"):
        index = folder / "index.sqlite3"
        done = run_zipfs("index", "--index", index, setting.library)
        assert_one_line(done, 6, f"the index {index} would lie in the library, .*--index")
    assert tree(setting.library) == before


# -- FUSE ----------------------------------------------------------------------------


def in_a_namespace(setup: str, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run *command* after *setup*, shell commands that change only its own view of the system."""
    script = f'{setup}\nexec "$@"'
    return subprocess.run(
        ["unshare", "--mount", "--propagation=private", "sh", "-euc", script, "sh", *command],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@needs_root
def test_no_device(setting: Setting) -> None:
    done = in_a_namespace("mount -t tmpfs none /dev", [zipfs_program(), *mount_command(setting)])
    assert_one_line(done, 5, "there is no /dev/fuse: load the kernel module .*")


@needs_root
def test_closed_device(setting: Setting, public_program: str) -> None:
    done = in_a_namespace(
        "mount -t tmpfs none /dev; mknod -m 600 /dev/fuse c 10 229",
        [*as_user(NOBODY), public_program, *mount_command(setting)],
    )
    assert_one_line(done, 5, "no permission to open /dev/fuse; .*0666.*")


OPEN_DEVICE = "mount -t tmpfs none /dev; mknod /dev/fuse c 10 229; chmod 666 /dev/fuse"


@needs_root
def test_no_fusermount(setting: Setting, public_program: str) -> None:
    done = in_a_namespace(
        OPEN_DEVICE,
        [*as_user(NOBODY), "PATH=/nonexistent", public_program, *mount_command(setting)],
    )
    assert_one_line(done, 5, "fusermount3 isn't there, .*install the package fuse3.*")


@needs_root
@pytest.mark.parametrize("text", ["", "#user_allow_other\n", "mount_max = 5\n", None])
def test_allow_other_is_forbidden(setting: Setting, public_program: str, text: str | None) -> None:
    hide = f"mount --bind {setting.place}/fuse.conf /etc/fuse.conf"
    if text is None:
        hide = "mount -t tmpfs none /etc; echo nobody:x:65534:65534:::/ > /etc/passwd"
    else:
        (setting.place / "fuse.conf").write_text(text)
    done = in_a_namespace(
        f"{OPEN_DEVICE}; {hide}",
        [*as_user(NOBODY), public_program, *mount_command(setting, "--allow-other")],
    )
    assert_one_line(
        done,
        5,
        "--allow-other is forbidden to users: an administrator has to add the line"
        " 'user_allow_other' to /etc/fuse.conf.*",
    )


@needs_root
def test_mount_without_the_privilege(setting: Setting) -> None:
    """Root in a container without CAP_SYS_ADMIN: the flag that gives it, in one line."""
    drop = ["--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--no-new-privs"]
    done = run_zipfs(
        *mount_command(setting), program=["setpriv", *drop, "--", "env", "--", zipfs_program()]
    )
    assert_one_line(
        done,
        5,
        r"root has no right to mount here \(CAP_SYS_ADMIN\); in a container, it needs --cap-add"
        " SYS_ADMIN",
    )
