"""Names, dates, empty folders and permissions in archives, and what may be chosen of them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.readers.corpus import CASES
from tests.strictzip import read_archive
from tests.support.libraries import MTIME, content, expected, make_file, make_game
from tests.support.mounting import Mounted, Mounts, run_zipfs
from tests.support.waiting import poll

CORPUS = {case.name: case for case in CASES}


def seen(mounted: Mounted, game: str) -> list[bytes]:
    """The names in an archive, which has to be sound."""
    with mounted.wait_archive(game).open("rb") as stream:
        return [entry.name.encode() for entry in read_archive(stream, check_data=True)]


def validators(archive: Path) -> tuple[int, int, int]:
    status = archive.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def test_mapped_names_are_said_once(library: Path, mount: Mounts) -> None:
    case = CORPUS["unsafe"]
    case.build(os.fsencode(library / "roms/x/Game"))
    mounted = mount(library)
    mounted.expect_log(r"in roms/x/Game\.zip, ")
    assert seen(mounted, "roms/x/Game") == list(case.members())
    # A new version, and all is looked at again.
    make_file(library / "roms/x/Game/new.bin", b"new")

    def is_new() -> bool:
        try:
            return len(seen(mounted, "roms/x/Game")) == len(case.members()) + 1
        except FileNotFoundError:  # the old version has gone between the look and the open
            return False

    poll("the new version", is_new)
    for name, file in case.members().items():
        if file.name is not None:
            said = f"is called {name.decode()}\n"
            assert mounted.log_text().count(said) == 1, name
    assert mounted.log_text().count("is called") == len(case.members())


def test_many_mapped_names_fill_no_log(library: Path, mount: Mounts) -> None:
    make_game(library, "roms/x/Game", {f"{n:03}:": b"x" for n in range(500)})
    mounted = mount(library)
    mounted.expect_log(r"in roms/x/Game\.zip, ")
    assert len(seen(mounted, "roms/x/Game")) == 500
    log = mounted.log_text()
    assert log.count("is called") == 10
    assert log.count("490 more have other names; `zipfs inspect` shows them") == 1


def test_portable_names(library: Path, mount: Mounts) -> None:
    case = CORPUS["portable"]
    folder = library / "roms/x/Game"
    case.build(os.fsencode(folder))
    make_game(library, "roms/x/Plain", {"Disc 1.bin": b"1", "Disc 2.bin": b"2"})
    mounted = mount(library, "--portable-names")
    mounted.expect_log(r"in roms/x/Game\.zip, ")
    assert seen(mounted, "roms/x/Game") == list(case.members())
    with zipfile.ZipFile(mounted.archive("roms/x/Game")) as archive:
        for name, file in case.members().items():
            assert archive.read(name.decode()) == file.data
    # Names that need no change are no reason for other bytes.
    wanted = expected(library / "roms/x/Plain")
    plain = mounted.wait_archive("roms/x/Plain")
    assert plain.read_bytes() == wanted.read(0, wanted.size)
    assert validators(plain) == (wanted.inode("roms/x/Plain.zip"), wanted.size, wanted.mtime_ns)


def test_fixed_timestamps(library: Path, place: Path, mount: Mounts) -> None:
    """Copies whose files have other dates give the same archive, validators included."""
    files = {"b.bin": content(100_000, "b"), "a/c.bin": content(5, "c"), "d": b""}
    make_game(library, "roms/x/Game", files, mtime=MTIME)
    copy = place / "copy"
    make_game(copy, "roms/x/Game", files, mtime=MTIME - 1_000_000_000)
    first = mount(library, "--timestamps", "fixed").wait_archive("roms/x/Game")
    second = mount(copy, "--timestamps", "fixed").wait_archive("roms/x/Game")
    assert first.read_bytes() == second.read_bytes()
    assert validators(first) == validators(second)
    with zipfile.ZipFile(first) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 2, 0, 0, 0)}
    # A touch changes nothing; other content does.
    before = validators(first)
    os.utime(library / "roms/x/Game/d", (1, 1))
    poll("the archive to be back", lambda: first.exists() and validators(first) == before)
    make_file(library / "roms/x/Game/d", b"not empty any more")
    poll("a new version", lambda: first.exists() and validators(first) != before)


PROGRAMS = {
    "unzip": ("unzip", "-q", "{}"),
    "7z": ("7z", "x", "-bd", "{}"),
    "bsdtar": ("bsdtar", "-xf", "{}"),
}


def extract(argv: Sequence[str], archive: Path, place: Path) -> Path:
    """The new folder into which a program has unpacked *archive*."""
    folder = place / f"from {argv[0]}"
    folder.mkdir()
    subprocess.run(
        [argument.format(archive) for argument in argv],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return folder


def test_empty_folders(library: Path, place: Path, mount: Mounts) -> None:
    folder = make_game(library, "roms/x/Game", {"game.exe": b"MZ", "data/1": b"one"})
    without = expected(folder)
    for path in ("saves", "data/mods", "a/b/c"):
        (folder / path).mkdir(parents=True)
    wanted = expected(folder)
    mounted = mount(library)
    archive = mounted.wait_archive("roms/x/Game")
    assert seen(mounted, "roms/x/Game") == [
        b"data/1",
        b"a/b/c/",
        b"game.exe",
        b"data/mods/",
        b"saves/",
    ]
    assert archive.read_bytes() == wanted.read(0, wanted.size)
    assert validators(archive) == (wanted.inode("roms/x/Game.zip"), wanted.size, wanted.mtime_ns)
    for program in PROGRAMS.values():
        subprocess.run(
            ["diff", "--recursive", folder, extract(program, archive, place)], check=True
        )
    # One that goes is a change, and what systems leave in one is none.
    make_file(folder / "saves/.DS_Store", b"litter")
    (folder / "data/mods").rmdir()
    (folder / "a/b/c").rmdir()
    (folder / "a/b").rmdir()
    (folder / "a").rmdir()
    poll("the folders to go", lambda: archive.exists() and validators(archive)[1] < wanted.size)
    assert seen(mounted, "roms/x/Game") == [b"data/1", b"game.exe", b"saves/"]
    os.remove(folder / "saves/.DS_Store")
    (folder / "saves").rmdir()
    alone = (without.inode("roms/x/Game.zip"), without.size, without.mtime_ns)
    poll("none to be left", lambda: archive.exists() and validators(archive) == alone)
    # And back again, with other dates: the same version (V2).
    for path in ("saves", "data/mods", "a/b/c"):
        (folder / path).mkdir(parents=True)
        os.utime(folder / path, (0, 0))
    again = (wanted.inode("roms/x/Game.zip"), wanted.size, wanted.mtime_ns)
    poll("them to be back", lambda: archive.exists() and validators(archive) == again)


def test_hard_folders_are_in_the_mount_as_well(library: Path, mount: Mounts) -> None:
    case = CORPUS["empty folders"]
    case.build(os.fsencode(library / "roms/x/Game"))
    mounted = mount(library)
    mounted.expect_log(r"is left out|in roms/x/Game\.zip, ")
    assert seen(mounted, "roms/x/Game") == list(case.members())


@pytest.mark.parametrize("program", PROGRAMS)
def test_execute_bits(program: str, library: Path, place: Path, mount: Mounts) -> None:
    case = CORPUS["execute bits"]
    folder = library / "roms/x/Game"
    case.build(os.fsencode(folder))
    mounted = mount(library, "--execute-bits")
    archive = mounted.wait_archive("roms/x/Game")
    wanted = expected(folder, executable=True)
    assert archive.read_bytes() == wanted.read(0, wanted.size)
    assert validators(archive) == (wanted.inode("roms/x/Game.zip"), wanted.size, wanted.mtime_ns)
    found = extract(PROGRAMS[program], archive, place)
    for name, file in case.files().items():
        mode = stat.S_IMODE((found / name.decode()).stat().st_mode)
        assert mode == (0o755 if file.mode & 0o111 else 0o644), name
    assert (found / "saves").is_dir()


def test_a_change_of_an_execute_bit(library: Path, mount: Mounts) -> None:
    """Another version if bits are kept, and the same one if they aren't."""
    folder = make_game(library, "roms/x/Game", {"run.sh": b"#!/bin/sh", "data": b"data"})
    kept = mount(library, "--execute-bits").wait_archive("roms/x/Game")
    plain = mount(library).wait_archive("roms/x/Game")
    before = validators(kept)
    assert validators(plain) == before
    (folder / "run.sh").chmod(0o755)
    poll("a new version", lambda: kept.exists() and validators(kept) != before)
    assert int(validators(kept)[2] / 1e9) != int(before[2] / 1e9)  # V1: the size is the same
    with kept.open("rb") as stream:
        assert [entry.executable for entry in read_archive(stream)] == [False, True]
    poll("the same version", lambda: plain.exists() and validators(plain) == before)
    (folder / "run.sh").chmod(0o644)
    poll("the first version", lambda: kept.exists() and validators(kept) == before)


def test_dates_before_1970(library: Path, mount: Mounts) -> None:
    """A reader that takes seconds for unsigned mustn't see 2106."""
    case = CORPUS["before 1970"]
    case.build(os.fsencode(library / "roms/x/Game"))
    mounted = mount(library)
    assert seen(mounted, "roms/x/Game") == list(case.members())
    listed = subprocess.run(
        ["7z", "l", "-ba", mounted.archive("roms/x/Game")],
        env={**os.environ, "TZ": "UTC"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert [line[:19] for line in listed.splitlines()] == [
        "1980-01-01 00:00:00",
        "1980-01-01 00:00:00",
        "1970-01-01 00:00:00",
    ]


def test_deeper_than_a_path_can_say(library: Path, mount: Mounts) -> None:
    case = CORPUS["deeper than PATH_MAX"]
    folder = os.fsencode(library / "roms/x/Game")
    case.build(folder)
    mounted = mount(library)
    wanted = list(case.members())
    assert max(map(len, wanted)) > 4096
    assert seen(mounted, "roms/x/Game") == wanted
    with zipfile.ZipFile(mounted.archive("roms/x/Game")) as archive:
        for name, file in case.members().items():
            assert archive.read(name.decode()) == file.data
    before = validators(mounted.archive("roms/x/Game"))
    # The kernel's events come from down there as well, and a change is seen.
    here = os.open(folder, os.O_PATH)
    *parents, name = max(wanted, key=len).split(b"/")
    for parent in parents:
        below = os.open(parent, os.O_PATH, dir_fd=here)
        os.close(here)
        here = below
    descriptor = os.open(name, os.O_WRONLY | os.O_APPEND, dir_fd=here)
    os.write(descriptor, b"more")
    os.close(descriptor)
    os.close(here)
    archive = mounted.archive("roms/x/Game")
    poll("a new version", lambda: archive.exists() and validators(archive) != before)
    assert seen(mounted, "roms/x/Game") == wanted


def test_inspect_and_the_mount_agree(library: Path, place: Path, mount: Mounts) -> None:
    """One config file for all commands: the same archive, mapped names shown."""
    make_game(library, "roms/x/Game", {"CON": b"1", "a:b": b"2"})
    config = place / "zipfs.toml"
    config.write_text(
        f'library = "{library}"\nindex = "{place}/index"\n'
        'portable-names = true\ntimestamps = "fixed"\n'
    )
    done = run_zipfs("index", "--config", config)
    assert done.returncode == 0, done.stderr
    done = run_zipfs("inspect", "--config", config, "--json", library / "roms/x/./Game")
    facts = json.loads(done.stdout)
    assert [(member["name"], member["path"]) for member in facts["members"]] == [
        ("%43ON", "CON"),
        ("a%3Ab", "a:b"),
    ]
    done = run_zipfs("inspect", "--config", config, "roms/x/Game.zip")
    assert "a%3Ab is a:b in the game's folder\n" in done.stdout
    mounted = mount(library, "--portable-names", "--timestamps", "fixed")
    mounted.expect_log(r"in roms/x/Game\.zip, ")
    found = validators(mounted.wait_archive("roms/x/Game"))
    assert found == (facts["inode"], facts["size"], facts["mtime_ns"])
