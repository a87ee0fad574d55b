"""Which folders are games, what belongs to them, and what their archives are called."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from zipfs.library.rules.general import Selection, archive_name, detect, folders_of
from zipfs.library.rules.globs import Patterns

# -- The structure of a library ------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ((), b"*/*"),
        ((b"doom", b"scummvm"), b"*/*"),
        ((b"roms",), b"roms/*/*"),
        ((b"roms", b"bios"), b"roms/*/*"),
        ((b"doom", b"doom/roms"), b"*/roms/*"),
        ((b"a", b"b", b"b/roms"), b"*/roms/*"),
        ((b"roms", b"roms/roms", b"doom", b"doom/roms"), b"roms/*/*"),
        ((b"a", b"a/b", b"a/b/roms"), b"*/*"),
        ((b"ROMs",), b"*/*"),
    ],
)
def test_detect(folders: Sequence[bytes], expected: bytes) -> None:
    top = [folder for folder in folders if b"/" not in folder]
    assert detect(folders.__contains__, top) == expected


# -- Games by glob -------------------------------------------------------------

# glob, path, whether it is a game, whether games may be below it
GLOBS: list[tuple[bytes, bytes, bool, bool]] = [
    (b"roms/*/*", b"", False, True),
    (b"roms/*/*", b"roms", False, True),
    (b"roms/*/*", b"roms/doom", False, True),
    (b"roms/*/*", b"roms/doom/freedoom", True, False),
    (b"roms/*/*", b"roms/doom/freedoom/music", False, False),
    (b"roms/*/*", b"bios", False, False),
    (b"roms/*/*", b"bios/doom/freedoom", False, False),
    (b"roms/*/*", b"ROMS/doom", False, False),
    (b"roms/*/*/", b"roms/doom/freedoom", True, False),
    (b"*", b"game", True, False),
    (b"*", b".hidden", True, False),
    (b"*", b"a\nb", True, False),
    (b"*", b"\xff", True, False),
    (b"a?c", b"abc", True, False),
    (b"a?c", b"ac", False, False),
    (b"a?c", b"a/c", False, False),
    (b"*.d", b"game.d", True, False),
    (b"*.d", b"game.d/x", False, False),
    (b"[a-c]x", b"bx", True, False),
    (b"[a-c]x", b"dx", False, False),
    (b"[!a-c]x", b"dx", True, False),
    (b"[[]a]", b"[a]", True, False),
    (b"a.c", b"abc", False, False),  # a dot is no pattern
    (b"(a|b)+", b"a", False, False),
    (b"(a|b)+", b"(a|b)+", True, False),
    # Any number of components, none included.
    (b"**", b"a", True, True),
    (b"**", b"a/b/c", True, True),
    (b"a/**", b"b", False, False),
    (b"a/**", b"a", True, True),
    (b"a/**", b"a/b/c", True, True),
    (b"**/disc", b"disc", True, True),
    (b"**/disc", b"a/b/disc", True, True),
    (b"**/disc", b"a/b/disc1", False, True),
    (b"a/**/z", b"a/z", True, True),
    (b"a/**/z", b"a/b/c/z", True, True),
    (b"a/**/z", b"a/b/c", False, True),
    (b"a/**/z", b"z", False, False),
    (b"**/a/**/b", b"x/a/y/b", True, True),
    (b"**/a/**/b", b"x/b/y/a", False, True),
    (b"**/**", b"a", True, True),
    (b"a**", b"abc", True, False),  # not a component by itself, so a plain star
    (b"a**", b"ab/c", False, False),
    # What no game is in.
    (b"*/*", b"doom/__MACOSX", False, False),
    (b"*/*", b"@eaDir", False, False),
    (b"*/*", b"@eaDir/doom", False, False),
    (b"**", b"doom/.Trash-1000", False, False),
    (b"**", b"doom/.Trash-1000/files/game", False, False),
]


@pytest.mark.parametrize(("glob", "path", "game", "holds"), GLOBS)
def test_glob(glob: bytes, path: bytes, game: bool, holds: bool) -> None:
    selection = Selection((glob,))
    assert selection.is_game(path) is game
    assert selection.may_hold_games(path) is holds


def test_any_glob_will_do() -> None:
    selection = Selection((b"a/*", b"b/*/*"))
    found = [path for path in (b"a/1", b"b/1", b"b/1/2", b"c/1") if selection.is_game(path)]
    assert found == [b"a/1", b"b/1/2"]
    assert [selection.may_hold_games(path) for path in (b"a", b"b", b"b/1", b"c")] == [
        True,
        True,
        True,
        False,
    ]


def test_no_globs_no_games() -> None:
    assert not Selection(()).is_game(b"a")
    assert not Selection(()).may_hold_games(b"")


def test_whoever_holds_a_game_may_hold_games() -> None:
    """A walk that follows ``may_hold_games`` reaches every game."""
    for glob, path, game, _ in GLOBS:
        selection = Selection((glob,))
        folder = path
        while game and folder:
            folder = folder.rpartition(b"/")[0]
            assert selection.may_hold_games(folder), (glob, folder)


@pytest.mark.parametrize(
    ("glob", "path"),
    [
        ("Pok?mon", "Pokémon"),
        ("[é]", "é"),
        ("[à-ü]x", "éx"),
        ("*[!a]", "é"),
        ("ゼ??の伝説", "ゼルダの伝説"),
    ],
)
def test_a_question_mark_is_a_character(glob: str, path: str) -> None:
    assert Selection((glob.encode(),)).is_game(path.encode())


# -- Platforms -----------------------------------------------------------------

# globs, path of a game, the folder that stands for its platform
PLATFORMS: list[tuple[Sequence[bytes], bytes, bytes | None]] = [
    ((b"roms/*/*",), b"roms/psx/Game", b"psx"),
    ((b"*/roms/*",), b"psx/roms/Game", b"psx"),
    ((b"*/*",), b"psx/Game", b"psx"),
    ((b"*/*/",), b"psx/Game", b"psx"),
    ((b"*",), b"Game", None),
    ((b"psx/*",), b"psx/Game", None),
    ((b"roms/psx/Game",), b"roms/psx/Game", None),
    ((b"roms/p*/*",), b"roms/psx/Game", b"psx"),
    ((b"roms/ps?/Game",), b"roms/psx/Game", b"psx"),
    ((b"roms/ps[x2]/*",), b"roms/ps2/Game", b"ps2"),
    ((b"*/*/*",), b"a/psx/Game", b"psx"),
    ((b"{platform}/*/*",), b"psx/a/Game", b"psx"),
    ((b"{platform}/*",), b"psx/Game", b"psx"),
    ((b"roms/{platform}/a/*",), b"roms/psx/a/Game", b"psx"),
    ((b"{platform}",), b"Game", None),
    ((b"roms/*/**",), b"roms/psx/a/b/Game", b"psx"),
    ((b"roms/*/**",), b"roms/psx/Game", b"psx"),
    ((b"roms/*/**",), b"roms/Game", None),
    ((b"**/*/*",), b"a/b/psx/Game", b"psx"),
    ((b"**/*/*",), b"psx/Game", b"psx"),
    ((b"**/{platform}/x/*",), b"a/psx/x/Game", b"psx"),
    ((b"**/*",), b"a/Game", None),
    ((b"**/*/**/x",), b"a/b/c/x", None),
    ((b"**",), b"a/Game", None),
    ((b"roms/{game}/*",), b"roms/{game}/Game", None),
    # The glob by which it is a game.
    ((b"a/*", b"*/*"), b"psx/Game", b"psx"),
    ((b"psx/*", b"*/*"), b"psx/Game", None),
    ((b"*/*",), b"caf\xe9/Game", b"caf\xe9"),
    ((b"*/*",), b"a/b/c", None),
    ((), b"psx/Game", None),
]


@pytest.mark.parametrize(("globs", "game", "expected"), PLATFORMS)
def test_platform(globs: Sequence[bytes], game: bytes, expected: bytes | None) -> None:
    assert Selection(globs).platform(game) == expected


@pytest.mark.parametrize("path", [b"roms/psx/Game", b"roms/psx", b"a/b/c", b"roms/*/x"])
def test_a_platform_is_any_name(path: bytes) -> None:
    named, plain = Selection((b"roms/{platform}/*",)), Selection((b"roms/*/*",))
    assert named.is_game(path) is plain.is_game(path)
    assert named.may_hold_games(path) is plain.may_hold_games(path)
    assert named.platform(path) == plain.platform(path)


# -- Litter --------------------------------------------------------------------

LITTER_FOLDERS = [
    b"@eaDir", b"@EADIR", b"#recycle", b"#snapshot", b"__MACOSX", b".AppleDouble", b".Trashes",
    b".TemporaryItems", b".Trash-1000", b".Trash-0", b".Spotlight-V100", b".fseventsd",
    b".DocumentRevisions-V100", b".stfolder", b".stversions", b"$RECYCLE.BIN", b"$Recycle.Bin",
    b"System Volume Information", b"lost+found",
]  # fmt: skip
FOLDERS = [
    b"data", b"music", b".config", b".Trash", b"eaDir", b"x@eaDir", b"@eaDir2", b"lostfound",
    b"__MACOSX\n", b"trash", b"\xff", b"assets",
]  # fmt: skip
LITTER_FILES = [
    b".DS_Store", b".ds_store", b"._game.bin", b"._", b"Thumbs.db", b"thumbs.db", b"THUMBS.DB",
    b"ehthumbs.db", b"desktop.ini", b"Desktop.ini", b".localized", b".LSOverride",
    b".VolumeIcon.icns", b".Trashes", b".stfolder", b"game.exe:Zone.Identifier",
    b"@SynoResource", b"@SynoEAStream", b".directory", b".nfs0000000001", b".nfs000000000000abcd",
    b".fuse_hidden0000000400000001", b".syncthing.game.bin.tmp", b"._\xff\xfe",
]  # fmt: skip
FILES = [
    b"game.bin", b"DS_Store", b"a.DS_Store", b".DS_Store2", b"Thumbs.db.bak", b"thumbs",
    b"desktop.ini.txt", b"game.ini", b"game.db", b"_.bin", b".nfsx", b".nfs", b"Zone.Identifier",
    b"syncthing.tmp", b".directory2", b".htaccess", b"readme\n", b"\xff", b"desktop.ini\n",
    b"save.tmp", "de\u017fktop.ini".encode(), "@\u017fynoResource".encode(),
]  # fmt: skip


@pytest.mark.parametrize("name", LITTER_FOLDERS)
def test_folder_of_litter(name: bytes) -> None:
    assert not Selection((b"*",)).takes_folder(name)


@pytest.mark.parametrize("name", FOLDERS)
def test_folder_that_belongs(name: bytes) -> None:
    assert Selection((b"*",)).takes_folder(name)


@pytest.mark.parametrize("name", LITTER_FILES)
def test_file_of_litter(name: bytes) -> None:
    assert not Selection((b"*",)).takes_file(name)


@pytest.mark.parametrize("name", FILES)
def test_file_that_belongs(name: bytes) -> None:
    assert Selection((b"*",)).takes_file(name)


@pytest.mark.parametrize(
    ("left", "empty"),
    [
        ([], True),
        ([(b".DS_Store", False)], True),
        ([(b"Thumbs.db", False), (b"@eaDir", True)], True),
        ([(b"save.dat", False)], False),
        ([(b".DS_Store", False), (b"save.dat", False)], False),
        ([(b"Thumbs.db", True)], False),  # a folder with the name of a file
        ([(b"@eaDir", False)], False),
        ([(b"excluded", False), (b"lost+found", True)], False),
    ],
)
def test_empty_folder(left: list[tuple[bytes, bool]], empty: bool) -> None:
    """By what is left in it, whether the user excludes it or not."""
    assert Selection((b"*",)).is_empty(left) is empty
    everything = Patterns((b"excluded", b"save.dat", b".DS_Store"))
    assert Selection((b"*",), everything).is_empty(left) is empty


# -- What archives are called --------------------------------------------------


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ((), b"doom.zip"),
        ((b"doom.zip",), b"doom (folder).zip"),
        ((b"doom.zip", b"doom (folder).zip"), b"doom (folder 2).zip"),
        # The folder of that name has a better right to its archive's proper name.
        ((b"doom.zip", b"doom (folder)"), b"doom (folder 2).zip"),
        (
            (b"doom.zip", b"doom (folder)", b"doom (folder 2).zip", b"doom (folder 3)"),
            b"doom (folder 4).zip",
        ),
        ((b"doom (folder).zip",), b"doom.zip"),
        ((b"DOOM.zip", b"doom.ZIP"), b"doom.zip"),
    ],
)
def test_archive_name(there: Sequence[bytes], expected: bytes) -> None:
    assert archive_name(b"doom", (b"doom", *there).__contains__) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"doom.zip", [b"doom"]),
        (b"doom (folder).zip", [b"doom (folder)", b"doom"]),
        (b"doom (folder 2).zip", [b"doom (folder 2)", b"doom"]),
        (b"doom (folder 19).zip", [b"doom (folder 19)", b"doom"]),
        (b"doom (folder 1).zip", [b"doom (folder 1)"]),
        (b"doom (folder 02).zip", [b"doom (folder 02)"]),
        (b"doom (folder) (folder).zip", [b"doom (folder) (folder)", b"doom (folder)"]),
        (b"doom.zip.zip", [b"doom.zip"]),
        (b"a\nb (folder).zip", [b"a\nb (folder)", b"a\nb"]),
        (b"\xff.zip", [b"\xff"]),
        (b".zip", []),
        (b" (folder).zip", [b" (folder)"]),
        (b"doom", []),
        (b"doom.ZIP", []),
        (b"doom.zip\n", []),
        (b"doom.7z", []),
    ],
)
def test_folders_of(name: bytes, expected: list[bytes]) -> None:
    assert folders_of(name) == expected


def test_each_alternative_leads_back() -> None:
    there = {b"doom", b"doom.zip"}
    for _ in range(120):
        name = archive_name(b"doom", there.__contains__)
        assert name not in there
        assert b"doom" in folders_of(name)
        there.add(name)
