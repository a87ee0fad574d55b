"""Names and dates in archives, and what the operator may choose of them."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

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
