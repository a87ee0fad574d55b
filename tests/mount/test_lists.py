"""Lists through a real mount: written, rewritten, removed, read by programs, hostile ones."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest

from bench.mount import zipfs_program
from tests.strictzip import read_archive
from tests.support.escapes import make_library, write_escapes
from tests.support.libraries import content, make_file, make_game, tree
from tests.support.lists import Wanted, expected_of, text_of, write_list
from tests.support.mounting import Mounted, Mounts, run_zipfs
from tests.support.users import OTHER, needs_root, run_as
from tests.support.waiting import SECONDS, poll

GAMES = 100
SUBSET: list[Wanted] = [
    ("Game 7/disc 1.bin", "roms/psx/Game 7/disc 1.bin"),
    ("Game 7.m3u", b"Game 7/disc 1.bin\n"),
    (".hidden/Game 3/sub/track 1.bin", "roms/psx/Game 3/sub/track 1.bin"),
]


@pytest.fixture
def games(library: Path) -> Path:
    for number in range(GAMES):
        files = {
            "disc 1.bin": content(2000 + number, number),
            "sub/track 1.bin": content(100, f"track {number}"),
        }
        make_game(library, f"roms/psx/Game {number}", files)
    return library


@pytest.fixture
def lists(place: Path) -> Path:
    folder = place / "lists"
    folder.mkdir()
    return folder


def bulk_of(library: Path) -> list[Wanted]:
    """All files, under their paths from the library's root."""
    paths = [path.relative_to(library) for path in library.rglob("*") if path.is_file()]
    return [(str(path), str(path)) for path in sorted(paths)]


def validators(archive: Path) -> tuple[int, int, int]:
    status = archive.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def assert_is(mounted: Mounted, name: str, library: Path, members: list[Wanted]) -> Path:
    """Wait for the list's archive to be what is expected of *members*."""
    wanted = expected_of(library, members)
    path = mounted.path / ".lists" / f"{name}.zip"
    want = wanted.inode(f".lists/{name}.zip"), wanted.size, wanted.mtime_ns
    poll(f"{name} as it is now", lambda: path.exists() and validators(path) == want)
    assert path.read_bytes() == wanted.read(0, wanted.size)
    return path


def test_bulk_and_subset(games: Path, lists: Path, mount: Mounts) -> None:
    before = tree(games)
    mounted = mount(games, "--lists", lists)
    assert os.listdir(mounted.path / ".lists") == []
    bulk = bulk_of(games)
    write_list(lists / "bulk.list", text_of(games, bulk))
    write_list(lists / "subset.list", text_of(games, SUBSET, crc="0BADF00D"))
    # By its name, before anybody has listed it.
    archive = assert_is(mounted, "subset", games, SUBSET)
    with archive.open("rb") as stream:
        assert [entry.name for entry in read_archive(stream, check_data=True)] == [
            name for name, _ in SUBSET
        ]
    archive = assert_is(mounted, "bulk", games, bulk)
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        assert len(opened.infolist()) == 2 * GAMES
    assert sorted(os.listdir(mounted.path / ".lists")) == ["bulk.zip", "subset.zip"]
    assert sorted(os.listdir(mounted.path)) == [".lists", "roms"]
    for name in ("subset", "subset.list", "none.zip"):
        assert not (mounted.path / ".lists" / name).exists()
    assert tree(games) == before  # H1


@pytest.mark.parametrize("program", [["unzip", "-q"], ["7z", "x", "-bd", "-y"]])
def test_programs_unpack_it(
    games: Path, lists: Path, place: Path, mount: Mounts, program: list[str]
) -> None:
    write_list(lists / "subset.list", text_of(games, SUBSET))
    archive = mount(games, "--lists", lists).wait_for(".lists/subset.zip")
    here = place / "unpacked"
    here.mkdir()
    subprocess.run([*program, archive], cwd=here, check=True, capture_output=True, timeout=SECONDS)
    for name, what in SUBSET:
        data = what if isinstance(what, bytes) else (games / what).read_bytes()
        assert (here / name).read_bytes() == data
    assert len([path for path in here.rglob("*") if path.is_file()]) == len(SUBSET)


def test_any_range(games: Path, lists: Path, mount: Mounts) -> None:
    """B3, across the edges of content in the middle."""
    write_list(lists / "subset.list", text_of(games, SUBSET))
    archive = mount(games, "--lists", lists).wait_for(".lists/subset.zip")
    whole = archive.read_bytes()
    chance = random.Random(7)
    with archive.open("rb", buffering=0) as stream:
        for _ in range(200):
            offset, length = chance.randrange(len(whole)), chance.choice([1, 7, 100, 5000])
            stream.seek(offset)
            read = stream.read(length)
            assert read == whole[offset : offset + length]


@pytest.mark.large
@pytest.mark.timeout(900)
def test_half_a_million_members(games: Path, lists: Path, mount: Mounts) -> None:
    """It is served, though to look at it takes longer than a disk has to answer.

    They are of few files: what takes time is the list, and to ask for each file again.
    """
    members: list[Wanted] = [
        (f"{number // 1000:03}/{number:06}", f"roms/psx/Game {number % GAMES}/sub/track 1.bin")
        for number in range(500_000)
    ]
    wanted = expected_of(games, members)
    mounted = mount(games, "--lists", lists, "--read-timeout", "2")
    write_list(lists / "x.list", text_of(games, members))
    archive = mounted.wait_for(".lists/x.zip", timeout=600)
    with archive.open("rb") as stream:
        offset = 0
        while data := stream.read(1 << 20):
            assert data == wanted.read(offset, len(data)), f"the MiB from {offset} on"
            offset += len(data)
    assert offset == wanted.size == archive.stat().st_size
    listed = subprocess.run(["zipinfo", "-h", archive], check=True, capture_output=True)
    assert b"number of entries: 500000" in listed.stdout


def test_renamed_into_place_rewritten_and_removed(games: Path, lists: Path, mount: Mounts) -> None:
    mounted = mount(games, "--lists", lists)
    path = lists / "x.list"
    contents: list[list[Wanted]] = [SUBSET, SUBSET[:2], [("a", "roms/psx/Game 9/disc 1.bin")]]
    seen = set()
    for members in contents:
        write_list(path, text_of(games, members))
        seen.add(validators(assert_is(mounted, "x", games, members)))
    for members in contents:  # in place
        path.write_bytes(text_of(games, members))
        assert validators(assert_is(mounted, "x", games, members)) in seen
    assert len({mtime_ns // 10**9 for _, _, mtime_ns in seen}) == 3  # V1
    with (mounted.path / ".lists/x.zip").open("rb") as opened:
        path.unlink()
        mounted.wait_gone(".lists/x.zip")
        assert os.listdir(mounted.path / ".lists") == []
        # R1: whoever has it open goes on.
        wanted = expected_of(games, contents[-1])
        assert opened.read() == wanted.read(0, wanted.size)
    write_list(path, text_of(games, SUBSET))
    assert_is(mounted, "x", games, SUBSET)


def test_nobody_has_to_ask(games: Path, lists: Path, mount: Mounts) -> None:
    """A list that came, changed or went is heard of."""
    mounted = mount(games, "--lists", lists)
    mounted.wait_sealed(GAMES)
    write_list(lists / "x.list", text_of(games, SUBSET))
    mounted.wait_sealed(GAMES + 1)
    write_list(lists / "y.list", text_of(games, SUBSET[:1]))
    mounted.wait_sealed(GAMES + 2)
    (lists / "z.list").write_bytes(b"- 1 /library/none x")
    mounted.expect_log("there is no .lists/z.zip: z.list, line 1: there is no none in the library")
    mounted.wait_log("there is no .lists/z.zip")
    for name in ("x", "y", "z"):
        (lists / f"{name}.list").unlink()
    poll(
        "the status to tell of it",
        lambda: mounted.notifications.status == f"{GAMES} archives sealed",
    )


def test_changed_members(games: Path, lists: Path, mount: Mounts) -> None:
    mounted = mount(games, "--lists", lists)
    write_list(lists / "x.list", text_of(games, SUBSET))
    before = validators(assert_is(mounted, "x", games, SUBSET))
    file = games / "roms/psx/Game 7/disc 1.bin"
    old = file.read_bytes()
    make_file(file, old[::-1])
    assert validators(assert_is(mounted, "x", games, SUBSET)) != before
    make_file(file, old)
    assert validators(assert_is(mounted, "x", games, SUBSET)) == before
    mounted.expect_log("there is no .lists/x.zip: x.list, line 1: ")
    file.unlink()
    mounted.wait_gone(".lists/x.zip")
    make_file(file, old)
    assert validators(assert_is(mounted, "x", games, SUBSET)) == before


def test_polled(games: Path, lists: Path, mount: Mounts) -> None:
    """Where no events come, asking is enough."""
    mounted = mount(games, "--lists", lists, "--watch=poll")
    write_list(lists / "x.list", text_of(games, SUBSET))
    assert_is(mounted, "x", games, SUBSET)
    (lists / "x.list").unlink()
    mounted.wait_gone(".lists/x.zip")


def test_the_same_after_a_restart_and_anew(
    games: Path, lists: Path, place: Path, mount: Mounts
) -> None:
    """V2: restarted, with a new index, and of a replica."""
    write_list(lists / "x.list", text_of(games, SUBSET))
    seen = set()
    copy = place / "replica"
    subprocess.run(["cp", "-a", games, copy], check=True)
    for library, index in ((games, None), (games, None), (games, place / "new"), (copy, None)):
        mounted = mount(library, "--lists", lists, index=index)
        seen.add(validators(assert_is(mounted, "x", games, SUBSET)))
        assert mounted.stop() == 0
    assert len(seen) == 1


def test_one_wrong_line(games: Path, lists: Path, mount: Mounts) -> None:
    """Said once, by the log and by `zipfs inspect`; and once more when it has changed."""
    mounted = mount(games, "--lists", lists)
    mounted.expect_log("there is no .lists/bad.zip: ")
    good = text_of(games, SUBSET).split(b"\n")
    for text, said in (
        (b"<html>", "line 1: it has less than CRC, SIZE, LOCATION and NAME"),
        (b"\n".join([*good, good[0]]), "line 4: its name Game 7/disc 1.bin is that of line 1"),
        (b"\r\n".join([good[1], b"- 1 /library/none x"]), "line 2: there is no none in the lib"),
        (b"- 1 /library/roms/psx/Game%207/disc%201.bin x", "line 1: its size is 1, but roms/psx/"),
    ):
        write_list(lists / "bad.list", text)
        mounted.wait_log(re.escape(f"there is no .lists/bad.zip: bad.list, {said}"))
        for _ in range(3):
            assert not (mounted.path / ".lists/bad.zip").exists()
        done = run_zipfs("inspect", games, ".lists/bad.zip", "--lists", lists)
        assert done.returncode == 7
        assert f"zipfs: .lists/bad.zip has no archive: bad.list, {said}" in done.stderr
        assert len(re.findall(re.escape(said), mounted.log_text())) == 1
    write_list(lists / "bad.list", text_of(games, SUBSET))
    assert_is(mounted, "bad", games, SUBSET)


def test_folders_and_names_that_arent_tidy(
    games: Path, lists: Path, place: Path, mount: Mounts
) -> None:
    """As a front end writes them for nginx's module, which needs nothing new."""
    text = text_of(games, SUBSET) + b"\n0 0 @directory A/save\n- 4096 @directory ./B//\n"
    write_list(lists / "x.list", text)
    mounted = mount(games, "--lists", lists)
    archive = mounted.wait_for(".lists/x.zip")
    wanted = expected_of(games, [*SUBSET, ("A/save/", b""), ("B/", b"")])
    assert archive.read_bytes() == wanted.read(0, wanted.size)
    assert validators(archive) == (
        wanted.inode(".lists/x.zip"), wanted.size, wanted.mtime_ns
    )  # fmt: skip
    subprocess.run(["unzip", "-q", archive, "-d", place / "out"], check=True)
    assert (place / "out/A/save").is_dir()
    assert (place / "out/B").is_dir()


def test_commands_agree(games: Path, lists: Path, place: Path, mount: Mounts) -> None:
    config = place / "zipfs.toml"
    config.write_text(
        f'library = "{games}"\nindex = "{place}/index"\n'
        f'lists = "{lists}"\nlists-folder = "bulk"\nlists-prefix = "/files/of/games"\n'
    )
    text = text_of(games, SUBSET).replace(b"/library/", b"/files/of/games/")
    write_list(lists / "x.list", text)
    done = run_zipfs("index", "--config", config)
    assert done.returncode == 0, done.stderr
    assert f"{GAMES + 1} archives sealed: {2 * GAMES + 3} members" in done.stdout
    done = run_zipfs("inspect", "--config", config, "bulk/x.zip", "--json")
    facts = json.loads(done.stdout)
    assert [(m["name"], m["source"]) for m in facts["members"]] == [
        (name, what if isinstance(what, str) else None) for name, what in SUBSET
    ]
    done = run_zipfs("inspect", "--config", config, "bulk/x")
    assert "Game 7.m3u is in the list itself\n" in done.stdout
    mounted = mount(games, "--config", config)
    archive = mounted.wait_for("bulk/x.zip")
    assert validators(archive) == (facts["inode"], facts["size"], facts["mtime_ns"])
    assert "bulk" in os.listdir(mounted.path)
    done = run_zipfs("inspect", "--config", config, "bulk/none.zip")
    assert (done.returncode, done.stderr) == (
        3,
        "zipfs: there is no list none.list in the folder of lists\n",
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--lists", "{place}/none"],
            "zipfs: can't read the folder of lists {place}/none: No such",
        ),
        (["--lists", "{library}"], "zipfs: the folder of lists {library} lies in the library"),
        (["--lists", ""], "zipfs: bad value for 'lists' on the command line: it is empty"),
        (
            ["--lists", "{lists}", "--lists-folder", "roms"],
            "zipfs: the library has a roms of its own; show the lists under another name",
        ),
        (["--lists-folder", "a/b"], "zipfs: bad value for 'lists-folder' on the command line: "),
        (["--lists-prefix", "x"], "zipfs: bad value for 'lists-prefix' on the command line: "),
    ],
)
def test_bad_options(
    games: Path, lists: Path, place: Path, fuse: None, options: list[str], said: str
) -> None:
    (place / "point").mkdir()
    fields = {"place": place, "library": games, "lists": lists}
    options = [option.format(**fields) for option in options]
    arguments = {"mount": [games, place / "point"], "index": [games], "inspect": [games, "x"]}
    for command, places in arguments.items():
        done = run_zipfs(command, *options, *places)
        assert done.returncode == 2
        assert done.stderr.startswith(said.format(**fields))
        assert len(done.stderr.splitlines()) == 1


@needs_root
def test_who_may_read(games: Path, lists: Path, mount: Mounts) -> None:
    """H3: what all members grant, and of content its list."""
    file = games / "roms/psx/Game 7/disc 1.bin"
    mounted = mount(games, "--lists", lists, "--allow-other")
    write_list(lists / "files.list", text_of(games, SUBSET[::2]))
    (lists / "files.list").chmod(0o600)
    write_list(lists / "content.list", text_of(games, SUBSET[1:2]))
    (lists / "content.list").chmod(0o600)
    open_to_all = mounted.wait_for(".lists/files.zip")
    private = mounted.wait_for(".lists/content.zip")
    assert run_as(OTHER, "cat", open_to_all).returncode == 0
    assert run_as(OTHER, "cat", private).returncode == 1
    (lists / "content.list").chmod(0o644)
    poll("its mode", lambda: private.exists() and stat.S_IMODE(private.stat().st_mode) == 0o444)
    file.chmod(0o600)
    poll(
        "its mode",
        lambda: open_to_all.exists() and stat.S_IMODE(open_to_all.stat().st_mode) == 0o400,
    )
    assert run_as(OTHER, "cat", open_to_all).returncode == 1
    lists.chmod(0o700)
    poll("its mode", lambda: stat.S_IMODE(open_to_all.parent.stat().st_mode) == 0o500)
    assert run_as(OTHER, "ls", open_to_all.parent).returncode == 2


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_hostile_lists(library: Path, place: Path, lists: Path, mount: Mounts) -> None:
    """H2: not one of hundreds opens a file outside the library. The kernel is witness."""
    outside = place / "outside"
    make_library(library, outside)
    names = write_escapes(lists, library, outside)
    calls = place / "calls"
    program = ["strace", "-f", "-y", "-qq", "-o", str(calls)]
    program += ["-e", "trace=open,openat,openat2,creat", zipfs_program()]
    mounted = mount(library, "--lists", lists, "--watch=poll", program=program)
    mounted.expect_log(r"there is no \.lists/escape-\d+\.zip: escape-\d+\.list, line 1: ")
    mounted.expect_log("is left out: a symbolic link")
    control = mounted.wait_for(".lists/control.zip")
    assert b"inside" in control.read_bytes()
    mounted.wait_sealed()
    for name in names:
        assert not (mounted.path / ".lists" / f"{name}.zip").exists(), name
    assert os.listdir(mounted.path / ".lists") == ["control.zip"]
    for name in names:
        assert f"there is no .lists/{name}.zip: {name}.list, line 1: " in mounted.log_text()
    assert mounted.unmount() == 0
    traced = calls.read_text(errors="replace")
    opened = set(re.findall(r"= \d+<([^>]*)>", traced))
    assert f"{library}/roms/psx/inside" in opened
    assert f"{lists}/{names[0]}.list" in opened
    assert not {path for path in opened if path.startswith((f"{outside}", f"{library}2"))}
    # Nor tried to.
    assert '/secret"' not in traced
    assert '"secret"' not in traced


def test_ten_thousand_lists(games: Path, lists: Path, mount: Mounts) -> None:
    """At once: all are listed, and any of them is there when it is asked for."""
    count = 10_000
    chance = random.Random(1)
    members = bulk_of(games)
    for number in range(count):
        (lists / f"{number}.list").write_bytes(text_of(games, chance.sample(members, 3)))
    mounted = mount(games, "--lists", lists)
    mounted.wait_sealed(GAMES + count)
    folder = mounted.path / ".lists"
    assert len(os.listdir(folder)) == count
    for number in chance.sample(range(count), 50):
        with (folder / f"{number}.zip").open("rb") as stream:
            assert len(list(read_archive(stream, check_data=True))) == 3
    for number in range(0, count, 2):
        (lists / f"{number}.list").unlink()
    poll("half of them", lambda: len(os.listdir(folder)) == count // 2)
    assert not (folder / "0.zip").exists()
    assert (folder / "1.zip").exists()


def test_a_list_of_many_files(library: Path, lists: Path, mount: Mounts) -> None:
    """100 games, 5,000 files."""
    for game in range(100):
        make_game(
            library,
            f"roms/psx/Game {game}",
            {f"{part}/{n}": f"{game} {part} {n}".encode() for part in range(5) for n in range(10)},
        )
    members = bulk_of(library)
    assert len(members) == 5000
    write_list(lists / "all.list", text_of(library, members))
    mounted = mount(library, "--lists", lists)
    archive = assert_is(mounted, "all", library, members)
    with archive.open("rb") as stream:
        assert len(list(read_archive(stream, check_data=True))) == 5000
