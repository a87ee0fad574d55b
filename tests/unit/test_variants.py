"""Variants: what category a file is of, which files a variant takes, where it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zipfs.library.rules.categories import CATEGORIES, category, category_named
from zipfs.library.rules.globs import Patterns
from zipfs.library.rules.playlists import Playlist, Playlists
from zipfs.library.rules.variants import Variant, Variants


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("disc 1.chd", "game"),
        ("extras/map.png", "game"),
        ("manual.pdf", "game"),  # a file, and no folder
        ("manual", "game"),
        ("manual/en.pdf", "manual"),
        ("Manuals/en.pdf", "manual"),
        ("MANUAL (2)/en.pdf", "manual"),
        ("patches/a.ips", "patch"),
        ("DLC/a.nsp", "dlc"),
        ("DLCs/a.nsp", "dlc"),
        ("game/disc.chd", "game"),
        ("games/dlc/a.nsp", "game"),  # the first counts
        ("extras/dlc/a.nsp", "dlc"),
        ("dlc/manual/a.pdf", "dlc"),
        ("my manual/a.pdf", "game"),
        ("manuals of it/a.pdf", "game"),
        ("mods2/a", "game"),
        ("café/manuel/a.pdf", "game"),
    ],
)
def test_category(path: str, expected: str) -> None:
    assert category(path.encode()) == expected.encode()


@pytest.mark.parametrize("name", CATEGORIES)
def test_each_category_is_a_folders_name(name: bytes) -> None:
    for folder in (name, name + b"s", name.upper(), name.title() + b"es", name + b"s (3)"):
        assert category_named(folder) == name
        assert category(folder + b"/x") == name
    for folder in (b"", name + b"x", b"x" + name, name + b" ", name + b"(2)", name + b"ss"):
        assert category_named(folder) is None


FILES = ["disc 1.chd", "DLC/more.chd", "DLC/read me.txt", "manual/en.pdf", "extras/dlc/map.pdf"]


def patterns(exclude: list[str], include: list[str] | None = None) -> Patterns:
    return Patterns(tuple(map(str.encode, exclude)), tuple(map(str.encode, include or [])))


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        (Variant(name=b"x"), FILES),
        (Variant(name=b"x", only=frozenset([b"game"])), FILES[:1]),
        (Variant(name=b"x", only=frozenset([b"game", b"manual"])), [FILES[0], FILES[3]]),
        (Variant(name=b"x", only=frozenset([b"hack"])), []),
        (Variant(name=b"x", without=frozenset([b"dlc"])), [FILES[0], FILES[3]]),
        (Variant(name=b"x", without=frozenset([b"hack"])), FILES),
        (Variant(name=b"x", patterns=patterns(["*.PDF"])), FILES[:3]),
        (Variant(name=b"x", patterns=patterns(["extras"])), FILES[:4]),
        (Variant(name=b"x", patterns=patterns(["dlc/*"])), [FILES[0], *FILES[3:]]),
        (Variant(name=b"x", patterns=patterns(["**/dlc"])), [FILES[0], FILES[3]]),
        # A folder that is left out takes what is in it along, unless it is taken in itself.
        (Variant(name=b"x", patterns=patterns(["dlc"], ["*.txt"])), [FILES[0], FILES[3]]),
        (Variant(name=b"x", patterns=patterns(["*.pdf"], ["map.*"])), [*FILES[:3], FILES[4]]),
        # Patterns win over categories, folders taken in as well as files.
        (
            Variant(name=b"x", without=frozenset([b"dlc"]), patterns=patterns([], ["*.txt"])),
            [FILES[0], FILES[2], FILES[3]],
        ),
        (
            Variant(name=b"x", only=frozenset([b"game"]), patterns=patterns([], ["extras"])),
            [FILES[0], FILES[4]],
        ),
        (
            Variant(
                name=b"x",
                only=frozenset([b"game"]),
                patterns=patterns(["*.txt", "*.chd", "map.*"], ["DLC"]),
            ),
            [],
        ),
    ],
)
def test_what_is_taken(variant: Variant, expected: list[str]) -> None:
    assert [path for path in FILES if variant.takes(path.encode())] == expected


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        (Variant(name=b"v"), ["manual", "extras/dlc", "saves", "dlc/en"]),
        (Variant(name=b"v", without=frozenset([b"manual", b"dlc"])), ["saves"]),
        (Variant(name=b"v", only=frozenset([b"dlc"])), ["extras/dlc", "dlc/en"]),
        (Variant(name=b"v", patterns=patterns(["extras"])), ["manual", "saves", "dlc/en"]),
        (Variant(name=b"v", patterns=patterns(["saves", "en"])), ["manual", "extras/dlc"]),
        (
            Variant(name=b"v", only=frozenset([b"hack"]), patterns=patterns([], ["saves"])),
            ["saves"],
        ),
    ],
)
def test_which_empty_folders_are_taken(variant: Variant, expected: list[str]) -> None:
    """As a file in them would be; a folder with a category's name is of it."""
    folders = ["manual", "extras/dlc", "saves", "dlc/en"]
    assert [folder for folder in folders if variant.takes_folder(folder.encode())] == expected


def test_prefix() -> None:
    assert Variant(name=b"x").named(b"a/b") == b"a/b"
    assert Variant(name=b"x").depth == 0
    hidden = Variant(name=b"x", prefix=b".hidden/discs")
    assert hidden.named(b"a/b") == b".hidden/discs/a/b"
    assert hidden.depth == 2


def test_where_they_are() -> None:
    variants = Variants(
        [
            Variant(name=b"no manuals"),
            Variant(name=b"psx only", games=(b"roms/{platform}/F*", b"roms/psx/*")),
        ]
    )
    assert variants.of(b"roms/psx/A") == [b"roms/psx/A [no manuals]", b"roms/psx/A [psx only]"]
    assert variants.of(b"roms/dc/A") == [b"roms/dc/A [no manuals]"]
    assert variants.of(b"roms/dc/F") == [b"roms/dc/F [no manuals]", b"roms/dc/F [psx only]"]
    for path in (
        b"",
        b"]",
        b"A",
        b"A [none]",
        b"A[no manuals]",
        b"A [no manuals",
        b"A [no manuals].zip",
        b"A [no manuals] ",
        b"A [NO MANUALS]",
        b" [no manuals]",
        b"roms/ [no manuals]",
    ):
        assert variants.at(path) is None, path
    game, variant = variants.at(b"roms/A [USA] [no manuals]") or (b"", None)
    assert (game, variant and variant.name) == (b"roms/A [USA]", b"no manuals")


_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/[]\0"), min_size=1, max_size=30)
_GAMES = st.binary(min_size=1, max_size=100).filter(lambda name: b"/" not in name)


@given(st.lists(_NAMES, min_size=1, unique=True), _GAMES)
def test_a_path_tells_its_variant(names: list[str], game: bytes) -> None:
    variants = Variants([Variant(name=name.encode()) for name in names])
    path = b"roms/" + game
    found = [variants.at(place) for place in variants.of(path)]
    assert [(at and at[0], at and at[1].name) for at in found] == [
        (path, name.encode()) for name in names
    ]


def test_discs_below_a_prefix() -> None:
    """It is hidden, and yet they are the game's; lines say where they are."""
    members = [b".hidden/a/Disc 2.chd", b".hidden/a/Disc 1.chd", b".hidden/a/dlc/Disc 3.chd"]
    of = Playlists().of
    assert of(b"G.m3u", members, b"psx") is None
    expected = Playlist(b"G.m3u", b".hidden/a/Disc 1.chd\n.hidden/a/Disc 2.chd\n")
    assert of(b"G.m3u", members, b"psx", depth=2) == expected
    assert of(b"G.m3u", members, b"psx", depth=1) == expected
    assert Playlists().by(None) == Playlists()
    romm = Playlists().by("romm").of(b"G.m3u", members[:2], None, depth=2)
    assert romm == Playlist(b"G.m3u", b".hidden/a/Disc 1.chd\n.hidden/a/Disc 2.chd")
