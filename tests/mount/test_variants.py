"""Variants of archives through a real mount: shown, read by programs, changed, restarted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.strictzip import read_archive
from tests.support.documents import block
from tests.support.libraries import Expected, content, expected, make_file, make_game, tree
from tests.support.lists import text_of, write_list
from tests.support.mounting import Mounted, Mounts, run_zipfs
from tests.support.waiting import SECONDS, poll

GAME = "roms/psx/Final"
FILES = {
    "Final (Disc 1).chd": content(300_000, 1),
    "Final (Disc 2).chd": content(200_000, 2),
    "manual/en.pdf": content(5000, "manual"),
    "DLC/more.chd": content(700, "dlc"),
}
OTHER = "roms/switch/Base"
MANUAL = "manual/en.pdf"
LINES = b".hidden/Final (Disc 1).chd\n.hidden/Final (Disc 2).chd\n"


@pytest.fixture
def games(library: Path) -> Path:
    make_game(library, GAME, FILES)
    make_game(library, OTHER, {"base.nsp": content(1000, 1), "dlc/more.nsp": content(500, 2)})
    return library


@pytest.fixture
def config(place: Path) -> Path:
    """What the manual tells people to write, and a pattern."""
    file = place / "zipfs.toml"
    text = block("variants")
    file.write_text(f'{text}\n[[variants]]\nname = "no papers"\nexclude = ["*.pdf"]\n')
    return file


def validators(archive: Path) -> tuple[int, int, int]:
    status = archive.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def assert_is(mounted: Mounted, path: str, wanted: Expected) -> Path:
    """Wait for the archive at *path* to be what is *wanted*."""
    archive = mounted.path / path
    want = wanted.inode(path), wanted.size, wanted.mtime_ns
    poll(f"{path} as it is now", lambda: archive.exists() and validators(archive) == want)
    assert archive.read_bytes() == wanted.read(0, wanted.size)
    with archive.open("rb") as stream:
        read_archive(stream, check_data=True)
    return archive


def no_papers(library: Path) -> Expected:
    lines = b"Final (Disc 1).chd\nFinal (Disc 2).chd\n"
    return expected(library / GAME, leave_out=[MANUAL], playlist=("Final.m3u", lines))


def muos(library: Path) -> Expected:
    return expected(
        library / GAME,
        leave_out=[MANUAL, "DLC/more.chd"],
        playlist=("Final.m3u", LINES.removesuffix(b"\n")),
        prefix=".hidden/",
    )


def test_shown_and_read(games: Path, config: Path, place: Path, mount: Mounts) -> None:
    before = tree(games)
    mounted = mount(games, "--config", config)
    mounted.wait_sealed(6)
    assert sorted(os.listdir(mounted.path / "roms/psx")) == [
        "Final [muOS].zip", "Final [no DLC].zip", "Final [no papers].zip", "Final.zip",
    ]  # fmt: skip
    # Nothing for muOS there, and one file without DLC.
    assert sorted(os.listdir(mounted.path / "roms/switch")) == ["Base [no DLC].zip", "Base.zip"]
    assert_is(mounted, f"{GAME} [no papers].zip", no_papers(games))
    assert_is(mounted, f"{OTHER} [no DLC].zip", expected(games / OTHER, leave_out=["dlc/more.nsp"]))
    archive = assert_is(mounted, f"{GAME} [muOS].zip", muos(games))
    for path in (f"{GAME} [muOS]", f"{OTHER} [no papers].zip", "roms/psx [muOS].zip", f"{GAME}"):
        assert not (mounted.path / path).exists()
    here = place / "unpacked"
    here.mkdir()
    subprocess.run(["unzip", "-q", archive], cwd=here, check=True, timeout=SECONDS)
    assert sorted(os.listdir(here)) == [".hidden", "Final.m3u"]
    for line in (here / "Final.m3u").read_text().splitlines():
        assert (here / line).read_bytes() == FILES[line.removeprefix(".hidden/")]
    assert tree(games) == before  # H1


def test_by_its_name(games: Path, config: Path, mount: Mounts) -> None:
    """Before anybody has listed it."""
    assert_is(mount(games, "--config", config), f"{GAME} [muOS].zip", muos(games))


def test_a_change_concerns_those_that_hold_it(games: Path, config: Path, mount: Mounts) -> None:
    mounted = mount(games, "--config", config)
    mounted.wait_sealed(6)
    names = ("", " [muOS]", " [no DLC]", " [no papers]")
    seen = {name: validators(mounted.wait_archive(GAME + name)) for name in names}
    opened = (mounted.path / f"{GAME} [no papers].zip").open("rb")
    with opened:
        make_file(games / GAME / MANUAL, content(5000, "another"))
        for name in ("", " [no DLC]"):
            archive = mounted.path / f"{GAME}{name}.zip"

            def changed(archive: Path = archive, name: str = name) -> bool:
                return archive.exists() and validators(archive) != seen[name]

            poll(f"{archive} to change", changed)
        for name in (" [muOS]", " [no papers]"):
            assert validators(mounted.path / f"{GAME}{name}.zip") == seen[name]
        wanted = no_papers(games)
        assert opened.read() == wanted.read(0, wanted.size)
    # No manual, no archive without it; and it is back with the same validators.
    (games / GAME / MANUAL).unlink()
    mounted.wait_gone(f"{GAME} [no papers].zip")
    make_file(games / GAME / MANUAL, b"once more")
    assert (
        validators(assert_is(mounted, f"{GAME} [no papers].zip", no_papers(games)))
        == (seen[" [no papers]"])
    )
    make_file(games / GAME / "Final (Disc 1).chd", b"patched")
    assert_is(mounted, f"{GAME} [muOS].zip", muos(games))
    shutil.rmtree(games / GAME)
    mounted.wait_gone(f"{GAME} [muOS].zip")
    assert os.listdir(mounted.path / "roms/psx") == []


def test_what_the_library_has_wins(games: Path, config: Path, mount: Mounts) -> None:
    own = games / f"{GAME} [no papers].zip"
    make_file(own, b"the user's own")
    make_game(games, f"{GAME} [muOS]", {"a": b"A", "b": b"B"})
    mounted = mount(games, "--config", config)
    mounted.wait_sealed(6)
    assert (mounted.path / f"{GAME} [no papers].zip").read_bytes() == b"the user's own"
    assert_is(mounted, f"{GAME} [muOS].zip", expected(games / f"{GAME} [muOS]"))
    # What the library has is a game as any other, with variants of its own.
    assert sorted(os.listdir(mounted.path / "roms/psx")) == [
        "Final [muOS] [muOS].zip", "Final [muOS].zip", "Final [no DLC].zip",
        "Final [no papers].zip", "Final.zip",
    ]  # fmt: skip
    own.unlink()
    assert_is(mounted, f"{GAME} [no papers].zip", no_papers(games))
    shutil.rmtree(games / f"{GAME} [muOS]")
    assert_is(mounted, f"{GAME} [muOS].zip", muos(games))


def test_the_same_after_a_restart_and_anew(
    games: Path, config: Path, place: Path, mount: Mounts
) -> None:
    """V2: restarted, with a new index, and of a replica; and nothing is hashed twice."""
    copy = place / "replica"
    subprocess.run(["cp", "-a", games, copy], check=True)
    seen = set()
    for library, index in ((games, None), (games, None), (games, place / "new"), (copy, None)):
        mounted = mount(library, "--config", config, index=index)
        archive = assert_is(mounted, f"{GAME} [muOS].zip", muos(library))
        seen.add(validators(archive))
        assert mounted.stop() == 0
    assert len(seen) == 1
    assert not (mount(games).wait_archive(GAME).parent / "Final [muOS].zip").exists()


def test_commands_agree(games: Path, config: Path, place: Path, mount: Mounts) -> None:
    index = ["--config", config, "--index", place / "index"]
    done = run_zipfs("index", games, *index)
    assert done.returncode == 0, done.stderr
    size = sum(map(len, FILES.values())) + 1500
    assert done.stdout.startswith("6 archives sealed: ")
    assert f"({size} bytes hashed now)" in done.stdout
    for path in (f"{GAME} [muOS].zip", f"{GAME} [muOS]", games / f"{GAME} [muOS]"):
        done = run_zipfs("inspect", games, path, *index, "--json")
        facts = json.loads(done.stdout)
        assert [(member["name"], member["source"]) for member in facts["members"]] == [
            (".hidden/Final (Disc 1).chd", f"{GAME}/Final (Disc 1).chd"),
            (".hidden/Final (Disc 2).chd", f"{GAME}/Final (Disc 2).chd"),
            ("Final.m3u", None),
        ]
    archive = mount(games, *index).wait_archive(f"{GAME} [muOS]")
    assert validators(archive) == (facts["inode"], facts["size"], facts["mtime_ns"])
    for path, said in (
        (f"{OTHER} [no papers]", f"there is no {OTHER} [no papers]: nothing of the game is left"),
        (f"{GAME} [none]", f"there is no game folder {GAME} [none] in the library"),
    ):
        done = run_zipfs("inspect", games, path, *index)
        assert done.returncode == 3
        assert done.stderr.startswith(f"zipfs: {said}")
        assert len(done.stderr.splitlines()) == 1


def test_together_with_lists(games: Path, config: Path, place: Path, mount: Mounts) -> None:
    """Of which there are none, and changes of which are heard of as ever."""
    lists = place / "lists"
    lists.mkdir()
    mounted = mount(games, "--config", config, "--lists", lists)
    mounted.wait_sealed(6)
    write_list(lists / "x.list", text_of(games, [("a.pdf", f"{GAME}/{MANUAL}"), ("b", b"B")]))
    mounted.wait_sealed(7)
    assert os.listdir(mounted.path / ".lists") == ["x.zip"]


def test_bad_config(games: Path, config: Path, place: Path, fuse: None) -> None:
    config.write_text('[[variants]]\nname = "x"\nwithout = ["papers"]\n')
    (place / "point").mkdir()
    arguments = {"mount": [games, place / "point"], "index": [games], "inspect": [games, GAME]}
    for command, places in arguments.items():
        done = run_zipfs(command, "--config", config, *places)
        assert done.returncode == 2
        assert done.stderr.startswith(
            f"zipfs: bad value for 'without' of variant 1 in {config}: 'papers' is no category; "
        )
        assert len(done.stderr.splitlines()) == 1
