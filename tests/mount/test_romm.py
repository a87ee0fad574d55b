"""RomM's selection through a real mount: what it shows, and its config read again."""

from __future__ import annotations

import json
import os
import signal
import zipfile
from pathlib import Path

import pytest

from tests.support.libraries import expected_archive, make_game
from tests.support.mounting import Mounted, Mounts, run_zipfs
from tests.support.selections import CASES
from tests.support.waiting import poll

GAME = "roms/psx/Game"


def members(mounted: Mounted, archive: str) -> list[str]:
    with zipfile.ZipFile(mounted.path / archive) as opened:
        assert opened.testzip() is None
        return opened.namelist()


def archives(mounted: Mounted) -> set[str]:
    """All that isn't in the library: archives, by path."""
    found = set()
    for parent, _, names in os.walk(mounted.path, followlinks=False):
        for name in names:
            path = os.path.relpath(os.path.join(parent, name), mounted.path)
            if not os.path.lexists(mounted.library / path):
                found.add(path)
    return found


def wait_members(mounted: Mounted, wanted: list[str], archive: str = f"{GAME}.zip") -> None:
    def are_there() -> bool:
        try:
            return members(mounted, archive) == wanted
        except FileNotFoundError:
            return False

    poll(f"{archive} to have {wanted}", are_there)


@pytest.mark.parametrize("selection", ["romm", "general"])
@pytest.mark.parametrize(
    "name",
    [
        "structure B",
        "a template of a platform",
        "folders that are no games",
        "what is left out by name",
        "no folder of a game is left out",
        "links",
        "left out by path",
        "taken in",
    ],
)
def test_archives(name: str, selection: str, library: Path, place: Path, mount: Mounts) -> None:
    case = CASES[name]
    case.make(library)
    mounted = mount(library, *case.options(selection, place / "config.yml"))
    mounted.expect_log("is left out: a symbolic link to a folder")
    wanted = case.expected(selection)
    mounted.wait_sealed(len(wanted))
    assert archives(mounted) == set(wanted)
    assert {path: members(mounted, path) for path in wanted} == wanted


def test_what_is_no_game_is_shown_as_it_is(library: Path, mount: Mounts) -> None:
    """Folders and single files that RomM doesn't list included: it reads some of them."""
    folder = make_game(library, GAME, {"1": b"1", "2": b"2", "x.log": b"3"})
    make_game(library, "roms/psx", {"gamelist.xml": b"<gameList/>", "x.log": b"x"})
    make_game(library, "roms/psx/assets", {"1": b"1", "2": b"2"})
    mounted = mount(library, "--selection=romm")
    archive = mounted.wait_archive(GAME)
    assert archive.read_bytes() == expected_archive(folder, leave_out=["x.log"])
    assert (mounted.path / "roms/psx/gamelist.xml").read_bytes() == b"<gameList/>"
    assert sorted(os.listdir(mounted.path / "roms/psx")) == [
        "Game.zip", "assets", "gamelist.xml", "x.log",
    ]  # fmt: skip
    assert sorted(os.listdir(mounted.path / "roms/psx/assets")) == ["1", "2"]


# -- Reading it again ----------------------------------------------------------------------


@pytest.fixture
def config(place: Path) -> Path:
    return place / "config.yml"


def test_the_config_changes(library: Path, config: Path, mount: Mounts) -> None:
    """Noticed by itself; other members are another version, the same ones the same."""
    make_game(library, GAME, {"1": b"1", "2": b"2", "x.nfo": b"3"})
    make_game(library, "roms/psx/Other", {"1": b"1", "2": b"2"})
    make_game(library, "roms/ps2/Game", {"1": b"1", "2": b"2"})
    config.write_text("")
    mounted = mount(library, "--selection=romm", f"--romm-config={config}")
    mounted.wait_sealed(3)
    wait_members(mounted, ["1", "2", "x.nfo"])
    other = mounted.archive("roms/psx/Other")
    first, unchanged = mounted.archive(GAME).stat(), other.stat()
    config.write_text(
        "exclude: {platforms: [ps2], roms: {multi_file: {parts: {extensions: [nfo]}}}}"
    )
    wait_members(mounted, ["1", "2"])
    mounted.wait_gone("roms/ps2/Game.zip")
    assert sorted(os.listdir(mounted.wait_for("roms/ps2/Game"))) == ["1", "2"]
    changed = mounted.archive(GAME).stat()
    assert int(changed.st_mtime) != int(first.st_mtime)
    assert changed.st_ino != first.st_ino
    assert other.stat() == unchanged
    # And back again, to the same validators (V2).
    config.write_text("# nothing\n")
    wait_members(mounted, ["1", "2", "x.nfo"])
    again = mounted.archive(GAME).stat()
    assert (again.st_mtime_ns, again.st_ino) == (first.st_mtime_ns, first.st_ino)
    mounted.wait_archive("roms/ps2/Game")


def test_hangup_reads_it(library: Path, config: Path, mount: Mounts) -> None:
    """At once, also where its state never holds still, for which it would wait otherwise."""
    make_game(library, GAME, {"1": b"1", "2": b"2", "x.nfo": b"3", "y.xml": b"4"})
    config.write_text("exclude: {roms: {multi_file: {parts: {extensions: [nfo]}}}}")
    mounted = mount(library, "--selection=romm", f"--romm-config={config}")
    wait_members(mounted, ["1", "2", "y.xml"])
    config.write_text("exclude: {roms: {multi_file: {parts: {extensions: [xml]}}}}")
    mounted.process.send_signal(signal.SIGHUP)

    def has_changed() -> bool:
        os.utime(config)
        return "has changed; rescanning all games" in mounted.log_text()

    poll("the config to be read", has_changed)
    wait_members(mounted, ["1", "2", "x.nfo"])


def test_a_mistake_in_a_running_mount(library: Path, config: Path, mount: Mounts) -> None:
    make_game(library, GAME, {"1": b"1", "2": b"2", "x.nfo": b"3"})
    config.write_text("exclude: {roms: {multi_file: {parts: {extensions: [nfo]}}}}")
    mounted = mount(library, "--selection=romm", f"--romm-config={config}")
    mounted.expect_log("its previous content stays in force")
    wait_members(mounted, ["1", "2"])
    config.write_text("exclude: [")
    for _ in range(2):
        mounted.process.send_signal(signal.SIGHUP)
        mounted.wait_log("isn't valid YAML: .*; its previous content stays in force")
    wait_members(mounted, ["1", "2"])
    config.unlink()
    mounted.wait_log("can't read the RomM config .*; its previous content stays in force")
    wait_members(mounted, ["1", "2"])
    assert mounted.log_text().count("isn't valid YAML") == 1
    config.write_text("")
    wait_members(mounted, ["1", "2", "x.nfo"])


def test_the_structure_changes(library: Path, config: Path, mount: Mounts) -> None:
    make_game(library, GAME, {"1": b"1", "2": b"2"})
    make_game(library, "psx/isos/Game", {"1": b"1", "2": b"2"})
    config.write_text("")
    mounted = mount(library, "--selection=romm", f"--romm-config={config}")
    mounted.wait_archive(GAME)
    config.write_text("filesystem: {structure: {default: '{platform}/isos/{game}'}}")
    mounted.wait_archive("psx/isos/Game")
    mounted.wait_for(f"{GAME}/1")
    assert archives(mounted) == {"psx/isos/Game.zip"}


# -- The other commands --------------------------------------------------------------------


def test_index_and_inspect(library: Path, place: Path, config: Path) -> None:
    make_game(library, GAME, {"1.db": b"1", "2.nfo": b"2", "3.bin": b"3", "4.bin": b"4"})
    make_game(library, "roms/psx/assets", {"1": b"1", "2": b"2"})
    config.write_text("exclude: {roms: {multi_file: {parts: {extensions: [nfo]}}}}")
    options = ["--index", place / "index", "--selection", "romm", "--romm-config", config]
    done = run_zipfs("index", *options, library)
    assert done.stdout.startswith("1 archive sealed: 2 members, "), done.stderr
    done = run_zipfs("inspect", *options, "--include=1.*", "--exclude=3.*", "--json", library, GAME)
    assert done.returncode == 0, done.stderr
    assert [member["name"] for member in json.loads(done.stdout)["members"]] == ["1.db", "4.bin"]
    done = run_zipfs("inspect", *options, library, "roms/psx/assets")
    assert done.returncode == 3
    # The same by a config file.
    toml = place / "zipfs.toml"
    toml.write_text(
        f'library = "{library}"\nindex = "{place}/index"\nselection = "romm"\n'
        f'romm-config = "{config}"\nexclude = ["3.*"]\ninclude = ["2.*"]\n'
        'games = ["roms/{platform}/{game}"]\n'
    )
    done = run_zipfs("inspect", "--config", toml, "--json", GAME)
    assert [member["name"] for member in json.loads(done.stdout)["members"]] == ["2.nfo", "4.bin"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ["--romm-config={config}"],
            "'romm-config' is for the selection 'romm' only; choose that as well",
        ),
        (
            ["--selection=romm", "--romm-config={config}"],
            "can't read the RomM config {config}: No such file or directory",
        ),
        (
            ["--games=roms/{x}/{game}"],
            (
                "bad value for 'games' on the command line: 'roms/{x}/{game}': {x} is unknown,"
                " there are {platform} and {game}; write * for a folder of any name"
            ),
        ),
        (
            ["--exclude=/x"],
            (
                "bad value for 'exclude' on the command line: '/x' isn't a pattern relative to"
                " the library, like 'roms/*/*'"
            ),
        ),
    ],
)
def test_mistakes(options: list[str], line: str, library: Path, place: Path, config: Path) -> None:
    make_game(library, GAME, {"1": b"1", "2": b"2"})
    (place / "point").mkdir()
    options = [option.replace("{config}", str(config)) for option in options]
    for command in (
        ["mount", *options, library, place / "point"],
        ["index", *options, library],
        ["inspect", *options, library, GAME],
    ):
        done = run_zipfs(*command)
        wanted = f"zipfs: {line}\n".replace("{config}", str(config))
        assert (done.returncode, done.stdout, done.stderr) == (2, "", wanted)
