"""Playlists in archives, through a real mount: options, programs, restarts, ranges."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.strictzip import read_archive
from tests.support.libraries import content, expected, make_file, make_game
from tests.support.mounting import Mounted, Mounts, run_zipfs
from tests.support.waiting import SECONDS, poll

GAME = "roms/psx/Fear & Loathing (Disc 1-10)"
NAME = "Fear & Loathing (Disc 1-10).m3u"
FILES = {
    **{f"Disc {n}/Game (Disc {n}).bin": content(30_000, n) for n in range(1, 11)},
    **{f"Disc {n}/Game (Disc {n}).cue": b"FILE" for n in range(1, 11)},
    "DLC/Extra.chd": content(100, "dlc"),
    "readme.txt": b"Hello\n",
}
DISCS = "".join(f"Disc {n}/Game (Disc {n}).cue\n" for n in range(1, 11)).encode()
# In the archive's order: base name, then path.
ROMM = "\n".join(f"Disc {n}/Game (Disc {n}).cue" for n in (1, 10, *range(2, 10))).encode()
OTHER = "roms/switch/Base and DLC"


@pytest.fixture
def games(library: Path) -> Path:
    make_game(library, GAME, FILES)
    make_game(library, OTHER, {"base.nsp": content(1000, 1), "dlc/more.nsp": content(500, 2)})
    return library


def validators(archive: Path) -> tuple[int, int, int]:
    status = archive.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def members(mounted: Mounted, game: str) -> dict[str, bytes]:
    """What Python finds in an archive, which the strict reader takes."""
    archive = mounted.wait_archive(game)
    with archive.open("rb") as stream:
        names = [entry.name for entry in read_archive(stream, check_data=True)]
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        assert [info.filename for info in opened.infolist()] == names
        return {name: opened.read(name) for name in names}


@pytest.mark.parametrize(
    ("options", "playlist"),
    [
        ([], DISCS),
        (["--playlists", "discs"], DISCS),
        (["--playlists=romm"], ROMM),
        (["--playlists=off"], None),
        (["--playlist-platforms", "3do,switch"], None),
        (["--playlist-platforms", "3do", "--playlist-platforms=PSX"], DISCS),
        (["--playlist-platforms", "default,switch"], DISCS),
        (["--games", "roms/psx/*", "--games", "roms/switch/*"], None),
        (["--games", "roms/{platform}/*"], DISCS),
    ],
)
def test_options(games: Path, mount: Mounts, options: list[str], playlist: bytes | None) -> None:
    mounted = mount(games, *options)
    made = None if playlist is None else (NAME, playlist)
    wanted = expected(games / GAME, playlist=made)
    archive = mounted.wait_archive(GAME)
    assert archive.read_bytes() == wanted.read(0, wanted.size)
    assert validators(archive) == (wanted.inode(f"{GAME}.zip"), wanted.size, wanted.mtime_ns)
    found = members(mounted, GAME)
    assert [*found][-1] == (NAME if playlist is not None else "readme.txt")
    assert found.get(NAME) == playlist
    other = [*members(mounted, OTHER)]
    romm = "--playlists=romm" in options
    assert other == ["base.nsp", "dlc/more.nsp", *(["Base and DLC.m3u"] if romm else [])]


@pytest.mark.parametrize("program", [["unzip", "-q"], ["7z", "x", "-bd", "-y"]])
def test_programs_unpack_it(games: Path, place: Path, mount: Mounts, program: list[str]) -> None:
    archive = mount(games).wait_archive(GAME)
    here = place / "unpacked"
    here.mkdir()
    subprocess.run([*program, archive], cwd=here, check=True, capture_output=True, timeout=SECONDS)
    assert (here / NAME).read_bytes() == DISCS
    # What it names is there, from where it is.
    for line in DISCS.decode().splitlines():
        assert (here / line).read_bytes() == FILES[line]
    assert len([path for path in here.rglob("*") if path.is_file()]) == len(FILES) + 1


def test_any_range(games: Path, mount: Mounts) -> None:
    """B3, across the edges of a member that no file holds."""
    archive = mount(games).wait_archive(GAME)
    whole = archive.read_bytes()
    start = whole.index(DISCS)
    edges = [start - 40, start - 1, start, start + 1, start + len(DISCS) - 1, start + len(DISCS)]
    with archive.open("rb", buffering=0) as stream:
        for offset in edges:
            for length in (1, 2, len(DISCS), len(DISCS) + 100, 100_000):
                stream.seek(offset)
                read = b""
                while len(read) < length and (more := stream.read(length - len(read))):
                    read += more
                assert read == whole[offset : offset + length]


def test_the_same_after_a_restart_and_anew(games: Path, place: Path, mount: Mounts) -> None:
    """V2: restarted, with a new index, and of a replica."""
    first = mount(games)
    archive = first.wait_archive(GAME)
    seen = validators(archive), archive.read_bytes()
    assert first.stop() == 0
    second = mount(games)
    archive = second.wait_archive(GAME)
    assert (validators(archive), archive.read_bytes()) == seen
    assert second.stop() == 0
    copy = place / "replica"
    subprocess.run(["cp", "-a", games, copy], check=True)
    archive = mount(copy).wait_archive(GAME)
    assert (validators(archive), archive.read_bytes()) == seen


def test_another_mode_is_another_archive(games: Path, mount: Mounts) -> None:
    """V1, with one index; and back again (V2)."""
    seen = {}
    for mode in ("discs", "off", "romm", "discs"):
        mounted = mount(games, f"--playlists={mode}")
        found = validators(mounted.wait_archive(GAME))
        assert seen.setdefault(mode, found) == found
        assert mounted.stop() == 0
    assert len({mtime_ns // 10**9 for _, _, mtime_ns in seen.values()}) == 3
    assert len({inode for inode, _, _ in seen.values()}) == 3


def test_it_follows_the_discs(games: Path, mount: Mounts) -> None:
    mounted = mount(games)
    before = validators(mounted.wait_archive(GAME))
    own = games / GAME / "own.M3U"
    make_file(own, b"Disc 1/Game (Disc 1).cue\n")
    archive = mounted.archive(GAME)
    poll("a new version", lambda: archive.exists() and validators(archive) != before)
    assert NAME not in members(mounted, GAME)
    own.unlink()
    poll("the old version", lambda: archive.exists() and validators(archive) == before)
    assert members(mounted, GAME)[NAME] == DISCS


def test_all_commands_agree(games: Path, place: Path, mount: Mounts) -> None:
    config = place / "zipfs.toml"
    config.write_text(
        f'library = "{games}"\nindex = "{place}/index"\n'
        'playlists = "discs"\nplaylist-platforms = ["switch", "psx"]\n'
    )
    done = run_zipfs("index", "--config", config)
    assert done.returncode == 0, done.stderr
    assert f"2 archives sealed: {len(FILES) + 1 + 2} members" in done.stdout
    done = run_zipfs("inspect", "--config", config, "--json", GAME)
    facts = json.loads(done.stdout)
    assert [(m["name"], m["path"]) for m in facts["members"]][-1] == (NAME, None)
    done = run_zipfs("inspect", "--config", config, GAME)
    assert f"{NAME} is made by zipfs\n" in done.stdout
    done = run_zipfs("inspect", "--config", config, "--playlists=off", GAME)
    assert "is made by zipfs" not in done.stdout
    mounted = mount(games, "--config", config)
    found = validators(mounted.wait_archive(GAME))
    assert found == (facts["inode"], facts["size"], facts["mtime_ns"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--playlists", "all"], "Invalid value for '--playlists': 'all' is not one of"),
        (["--playlist-platforms", "a/b"], "zipfs: bad value for 'playlist-platforms' on the "),
        (["--playlist-platforms", ""], "zipfs: bad value for 'playlist-platforms' on the "),
        (["--playlist-platforms", "psx,,dc"], "zipfs: bad value for 'playlist-platforms' on the "),
    ],
)
def test_bad_options(games: Path, place: Path, options: list[str], said: str) -> None:
    arguments = {"mount": [games, place / "point"], "index": [games], "inspect": [games, GAME]}
    for command, places in arguments.items():
        done = run_zipfs(command, *options, *places)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr
