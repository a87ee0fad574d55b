"""Which folders are games, what their archives are called, and what is in them."""

from __future__ import annotations

import io
import os
import signal
import zipfile
from pathlib import Path

import pytest

from tests.support.libraries import expected, expected_archive, make_file, make_game
from tests.support.mounting import Mounts

TWO = {"a.bin": b"a", "b.bin": b"b"}


def names_in(folder: Path | bytes) -> set[bytes]:
    return set(os.listdir(os.fsencode(folder)))


def files_in(folder: Path) -> set[str]:
    """Relative paths of all files below *folder*."""
    return {
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, names in os.walk(folder)
        for name in names
    }


@pytest.mark.parametrize(
    ("games", "others"),
    [
        pytest.param(["roms/psx/A", "roms/gb/B"], ["psx/roms/C", "psx/D"], id="roms first"),
        pytest.param(["psx/roms/A", "gb/roms/B"], ["psx/bios/C", "psx/D"], id="roms second"),
        pytest.param(["psx/A", "gb/B"], ["C"], id="no roms"),
    ],
)
def test_structure_is_found(
    library: Path, mount: Mounts, games: list[str], others: list[str]
) -> None:
    for path in games + others:
        make_game(library, path, TWO)
    mounted = mount(library)
    mounted.wait_sealed(len(games))
    wanted = {f"{game}.zip" for game in games}
    wanted |= {f"{other}/{name}" for other in others for name in TWO}
    assert files_in(mounted.path) == wanted
    for game in games:
        assert mounted.archive(game).read_bytes() == expected_archive(library / game)


@pytest.mark.parametrize(
    ("globs", "games"),
    [
        (["roms/psx/*"], {"roms/psx/A", "roms/psx/B"}),
        (["roms/psx/A", "isos/*"], {"roms/psx/A", "isos/C"}),
        (["roms/p?x/[BC]"], {"roms/psx/B"}),
        (["**/A"], {"roms/psx/A", "roms/gb/A"}),
        (["nothing/like/this"], set()),
    ],
)
def test_games_by_glob(library: Path, mount: Mounts, globs: list[str], games: set[str]) -> None:
    folders = {"roms/psx/A", "roms/psx/B", "roms/gb/A", "isos/C"}
    for folder in folders:
        make_game(library, folder, TWO)
    mounted = mount(library, *(f"--games={glob}" for glob in globs))
    for game in games:
        mounted.wait_archive(game)
    wanted = {f"{game}.zip" for game in games}
    wanted |= {f"{folder}/{name}" for folder in folders - games for name in TWO}
    assert files_in(mounted.path) == wanted


def test_structure_that_changes_is_found_again(library: Path, mount: Mounts) -> None:
    make_game(library, "psx/A", TWO)
    mounted = mount(library)
    mounted.wait_archive("psx/A")
    make_game(library, "roms/psx/B", TWO)
    mounted.process.send_signal(signal.SIGHUP)
    mounted.wait_archive("roms/psx/B")
    mounted.wait_for("psx/A/a.bin")
    assert files_in(mounted.path) == {"roms/psx/B.zip", "psx/A/a.bin", "psx/A/b.bin"}


LITTER = (
    ".DS_Store", "._disc.bin", "Thumbs.db", "desktop.ini", "THUMBS.DB", "@eaDir/disc.bin/x.jpg",
    "__MACOSX/disc.bin", ".Trash-1000/files/disc.bin", "disc.bin:Zone.Identifier",
    "sub/.DS_Store", "sub/@eaDir/y",
)  # fmt: skip


def test_litter_is_left_out_of_archives(library: Path, mount: Mounts) -> None:
    real = {"disc.bin": b"1", "sub/disc.bin": b"2"}
    folder = make_game(library, "roms/psx/Game", real | dict.fromkeys(LITTER, b"litter"))
    make_game(library, "roms/psx/@eaDir", TWO)  # where a game would be
    mounted = mount(library)
    archive = mounted.wait_archive("roms/psx/Game").read_bytes()
    assert archive == expected_archive(folder, leave_out=LITTER)
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert set(opened.namelist()) == set(real)
    assert b"@eaDir.zip" not in names_in(mounted.path / "roms/psx")


def test_litter_does_not_move_the_validators(library: Path, mount: Mounts) -> None:
    folder = make_game(library, "roms/psx/Game", TWO)
    mounted = mount(library)
    archive = mounted.wait_archive("roms/psx/Game")
    before = archive.stat()
    make_file(folder / ".DS_Store", b"a file manager was here")
    mounted.process.send_signal(signal.SIGHUP)
    mounted.wait_archive("roms/psx/Game")
    assert archive.stat() == before


def test_real_file_keeps_its_name(library: Path, mount: Mounts) -> None:
    """``NAME.zip`` beside ``NAME/``: the virtual one is ``NAME (folder).zip``."""
    make_file(library / "roms/psx/Game.zip", b"a real one")
    folder = make_game(library, "roms/psx/Game", TWO)
    other = make_game(library, "roms/psx/Other", TWO)
    for name in ("Other.zip", "Other (folder).zip"):
        make_file(library / "roms/psx" / name, b"real, too")
    mounted = mount(library)
    mounted.wait_sealed(2)
    assert names_in(mounted.path / "roms/psx") == {
        b"Game.zip", b"Game (folder).zip",
        b"Other.zip", b"Other (folder).zip", b"Other (folder 2).zip",
    }  # fmt: skip
    shown = mounted.path / "roms/psx"
    assert (shown / "Game.zip").read_bytes() == b"a real one"
    assert (shown / "Game (folder).zip").read_bytes() == expected_archive(folder)
    assert (shown / "Other (folder 2).zip").read_bytes() == expected_archive(other)


def test_name_taken_and_given_back(library: Path, mount: Mounts) -> None:
    folder = make_game(library, "roms/psx/Game", TWO)
    mounted = mount(library)
    mounted.wait_archive("roms/psx/Game")
    real = library / "roms/psx/Game.zip"
    make_file(real, b"a real one")
    moved = mounted.wait_for("roms/psx/Game (folder).zip")
    assert moved.read_bytes() == expected_archive(folder)
    assert mounted.archive("roms/psx/Game").read_bytes() == b"a real one"
    real.unlink()
    mounted.wait_gone("roms/psx/Game (folder).zip")
    assert mounted.wait_archive("roms/psx/Game").read_bytes() == expected_archive(folder)
    assert names_in(mounted.path / "roms/psx") == {b"Game.zip"}


def test_names_that_are_not_utf_8(library: Path, mount: Mounts) -> None:
    """Shown as the bytes they are; inside archives they are mapped, and the log says so."""
    game = b"roms/psx/Pok\xe9mon"
    folder = make_game(library, game, {b"\xe9t\xe9.bin": b"1", b"ok.bin": b"2"})
    make_file(os.fsencode(library) + b"/roms/gb/\xff\xfe.gb", b"single")
    mounted = mount(library)
    mounted.expect_log(r"in roms/psx/Pok\\xe9mon.zip, \\xe9t\\xe9.bin is called %E9t%E9.bin")
    archive = mounted.wait_for(game + b".zip")
    assert names_in(mounted.path / "roms/psx") == {b"Pok\xe9mon.zip"}
    assert archive.read_bytes() == expected_archive(folder)
    with zipfile.ZipFile(archive) as opened:
        assert opened.namelist() == ["%E9t%E9.bin", "ok.bin"]
        assert opened.testzip() is None
    assert names_in(mounted.path / "roms/gb") == {b"\xff\xfe.gb"}
    assert mounted.wait_for(b"roms/gb/\xff\xfe.gb").read_bytes() == b"single"
    assert len(mounted.problems()) == 0
    assert mounted.log_text().count("is called") == 1


def test_names_of_all_sorts(library: Path, mount: Mounts) -> None:
    games = ["Pokémon", "ゼルダ", "a b  c", "100% %41", "it's [!] (v1.0)", "-rf", "x" * 251, "é"]
    for game in games:
        make_game(library, f"roms/all/{game}", {"ファイル.bin": b"1", "ü/naïve.txt": b"2"})
    mounted = mount(library)
    mounted.wait_sealed(len(games))
    assert names_in(mounted.path / "roms/all") == {os.fsencode(f"{game}.zip") for game in games}
    for game in games:
        wanted = expected_archive(library / "roms/all" / game)
        assert mounted.archive(f"roms/all/{game}").read_bytes() == wanted


def test_a_name_too_long_for_an_archive(library: Path, mount: Mounts) -> None:
    """With .zip behind it no file could have it, so the game stays a folder."""
    long = "é" * 126  # 252 bytes
    make_game(library, f"roms/all/{long}", {"1": b"1", "2": b"2"})
    make_game(library, "roms/all/short", {"1": b"1", "2": b"2"})
    mounted = mount(library)
    mounted.expect_log("its folder is shown as it is")
    mounted.wait_sealed(1)
    assert names_in(mounted.path / "roms/all") == {long.encode(), b"short.zip"}
    assert (mounted.path / "roms/all" / long / "2").read_bytes() == b"2"
    assert mounted.log_text().count("its folder is shown as it is") == 1


def test_unsafe_names_are_mapped(library: Path, mount: Mounts) -> None:
    """Backslash, colon, control characters; two that would be called the same."""
    folder = make_game(
        library,
        "roms/psx/Game",
        {"a\\b": b"1", "c:d": b"2", "new\nline": b"3", "x%5Cy": b"4", "x\\y": b"5"},
    )
    mounted = mount(library)
    mounted.expect_log("is called")
    archive = mounted.wait_archive("roms/psx/Game")
    assert archive.read_bytes() == expected_archive(folder)
    with zipfile.ZipFile(archive) as opened:
        assert sorted(opened.namelist()) == sorted(
            ["a%5Cb", "c%3Ad", "new%0Aline", "x%5Cy", "x%5Cy (2)"]
        )
        assert opened.read("x%5Cy") == b"4"
    assert r"new\nline is called new%0Aline" in mounted.log_text()


def test_game_of_empty_files(library: Path, mount: Mounts) -> None:
    folder = make_game(library, "roms/psx/Game", {"a": b"", "b": b"", "c/d": b""})
    make_file(library / "roms/gb/Empty.gb", b"")
    mounted = mount(library)
    archive = mounted.wait_archive("roms/psx/Game")
    assert archive.read_bytes() == expected_archive(folder)
    assert mounted.wait_for("roms/gb/Empty.gb").read_bytes() == b""


def test_game_of_many_files(library: Path, mount: Mounts) -> None:
    """More members than descriptors a process may have by default (R4)."""
    folder = make_game(
        library, "roms/psx/Game", {f"{n % 50}/{n}.bin": b"%d" % n * 100 for n in range(3000)}
    )
    wanted = expected(folder)
    mounted = mount(library)
    archive = mounted.wait_archive("roms/psx/Game")
    assert archive.read_bytes() == wanted.read(0, wanted.size)
    assert len(mounted.descriptors()) < 1000


def test_library_given_by_a_link(library: Path, mount: Mounts, place: Path) -> None:
    folder = make_game(library, "roms/psx/Game", TWO)
    (place / "link").symlink_to(library)
    mounted = mount(place / "link")
    assert mounted.wait_archive("roms/psx/Game").read_bytes() == expected_archive(folder)


def test_relative_paths_on_the_command_line(
    library: Path, mount: Mounts, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_game(library, "roms/psx/Game", TWO)
    (place / "here").mkdir()
    monkeypatch.chdir(place)
    mounted = mount(Path("library"), mountpoint=Path("here"))
    mounted.wait_archive("roms/psx/Game")
