"""Playlists: who gets one, and every byte of it."""

from __future__ import annotations

import itertools
import re

import pytest

from tests.support.documents import section
from zipfs.archive.names import entry_names
from zipfs.library.rules.playlists import (
    IMAGES,
    PLATFORMS,
    RAW,
    TABLES,
    Mode,
    Playlist,
    Playlists,
    discs,
    platforms_named,
)

# What it is a case of; the other members of the archive; the playlist's lines, None: none.
DISCS: list[tuple[str, list[str], list[str] | None]] = [
    (
        "cue and one bin each",
        ["G (Disc 1).bin", "G (Disc 1).cue", "G (Disc 2).bin", "G (Disc 2).cue"],
        ["G (Disc 1).cue", "G (Disc 2).cue"],
    ),
    (
        "cue and many tracks",
        [
            *(f"G (Disc {d}) (Track {t:02}).bin" for d in (1, 2) for t in range(1, 30)),
            *("G (Disc 1).cue", "G (Disc 2).cue"),
        ],
        ["G (Disc 1).cue", "G (Disc 2).cue"],
    ),
    ("one disc of many tracks", ["G.cue", "G (Track 1).bin", "G (Track 2).bin"], None),
    ("cue and iso tracks", ["G.cue", "track 1.iso", "track 2.iso"], None),
    (
        "two cues and iso tracks",
        ["1.cue", "2.cue", "1 data.iso", "2 data.iso", "2 audio.wav"],
        ["1.cue", "2.cue"],
    ),
    ("chd", ["G (Disc 2).chd", "G (Disc 1).chd"], ["G (Disc 1).chd", "G (Disc 2).chd"]),
    ("one chd", ["G.chd", "readme.txt"], None),
    ("no disc at all", ["a.bin", "b.bin"], None),
    ("no members", [], None),
    ("iso", ["1.iso", "2.iso"], ["1.iso", "2.iso"]),
    ("pbp", ["EBOOT 1.PBP", "EBOOT 2.pbp"], ["EBOOT 1.PBP", "EBOOT 2.pbp"]),
    ("rvz", ["G (Disc 1).rvz", "G (Disc 2).rvz"], ["G (Disc 1).rvz", "G (Disc 2).rvz"]),
    (
        "gdi",
        [
            *("Disc 1/disc.gdi", "Disc 1/track01.bin", "Disc 1/track02.raw"),
            *("Disc 2/disc.gdi", "Disc 2/track01.bin"),
        ],
        ["Disc 1/disc.gdi", "Disc 2/disc.gdi"],
    ),
    (
        "ccd, img and sub",
        ["1.ccd", "1.img", "1.sub", "2.ccd", "2.img", "2.sub"],
        ["1.ccd", "2.ccd"],
    ),
    ("img and sub alone", ["1.img", "1.sub", "2.img", "2.sub"], ["1.img", "2.img"]),
    ("mds and mdf", ["1.mdf", "1.mds", "2.mdf", "2.mds"], ["1.mds", "2.mds"]),
    ("toc", ["1.bin", "1.toc", "2.bin", "2.toc"], ["1.toc", "2.toc"]),
    (
        "two tables of each disc",
        ["1.ccd", "1.cue", "1.img", "2.ccd", "2.cue", "2.img"],
        ["1.cue", "2.cue"],
    ),
    ("cue before gdi", ["1.cue", "1.gdi", "2.gdi"], ["1.cue", "2.gdi"]),
    ("both ccd and mds, one disc", ["1.ccd", "1.mds", "1.mdf", "1.img"], None),
    ("cue and chd of one disc", ["G.cue", "G.bin", "G.chd"], None),
    ("cue of one disc, chd of another", ["1.bin", "1.cue", "2.chd"], ["1.cue", "2.chd"]),
    ("cue of one disc, iso of another", ["1.bin", "1.cue", "2.iso"], None),
    (
        "that in folders of their own",
        ["1/1.bin", "1/1.cue", "2/2.iso"],
        ["1/1.cue", "2/2.iso"],
    ),
    ("chd and iso of one disc", ["1.chd", "1.iso", "2.iso"], ["1.chd", "2.iso"]),
    ("extensions in capitals", ["1.BIN", "1.CUE", "2.Bin", "2.Cue"], ["1.CUE", "2.Cue"]),
    ("same stem in two folders", ["a/G.chd", "b/G.chd"], ["a/G.chd", "b/G.chd"]),
    (
        "ten discs and more",
        [f"G (Disc {n}).chd" for n in (10, 11, 1, 2, 9, 3)],
        [f"G (Disc {n}).chd" for n in (1, 2, 3, 9, 10, 11)],
    ),
    (
        "ten folders and more",
        [f"Disc {n}/G.{extension}" for n in range(1, 13) for extension in ("cue", "bin")],
        [f"Disc {n}/G.cue" for n in range(1, 13)],
    ),
    ("leading zeros", ["d02.chd", "d1.chd", "d003.chd"], ["d1.chd", "d02.chd", "d003.chd"]),
    ("same number", ["d1.chd", "d01.chd", "d001.chd"], ["d001.chd", "d01.chd", "d1.chd"]),
    (
        "years",
        ["G 1999 (Disc 2).chd", "G 1999 (Disc 1).chd"],
        ["G 1999 (Disc 1).chd", "G 1999 (Disc 2).chd"],
    ),
    (
        "letter case",
        ["disc 2.chd", "Disc 1.chd", "DISC 3.chd"],
        ["Disc 1.chd", "disc 2.chd", "DISC 3.chd"],
    ),
    (
        "the first without a number",
        ["Game (Disc 2).chd", "Game.chd", "Game (Disc 10).chd"],
        ["Game.chd", "Game (Disc 2).chd", "Game (Disc 10).chd"],
    ),
    ("two extensions", ["1.chd", "1.5.chd", "1.chd.cue"], ["1.chd", "1.5.chd", "1.chd.cue"]),
    ("letters", ["Disc B.chd", "Disc A.chd"], ["Disc A.chd", "Disc B.chd"]),
    ("root and folder", ["Disc 2/G.chd", "Disc 1.chd"], ["Disc 1.chd", "Disc 2/G.chd"]),
    (
        "folders first of all",
        ["Disc 1 (Rev A)/a.chd", "Disc 1/b.chd"],
        ["Disc 1/b.chd", "Disc 1 (Rev A)/a.chd"],
    ),
    (
        "dlc, update, manual",
        [
            *("1.chd", "2.chd", "DLC/extra.chd", "updates/1.1.iso", "Manual/scan.iso"),
            *("mods/x.cue", "Patches/p.img", "hacks/h.chd", "translation/t.chd", "demos/d.chd"),
            *("cheats/c.iso", "Soundtracks/s.cue", "screenshots/1.img", "prototype/p.chd"),
            *("update/deep/er/1.2.iso", "a/dlc (2)/x.chd", "PATCH/x.chd"),
        ],
        ["1.chd", "2.chd"],
    ),
    ("a disc and its soundtrack", ["G.chd", "Soundtrack/OST.cue", "Soundtrack/OST.bin"], None),
    (
        "folders that only sound like it",
        ["Update Wars/1.chd", "Modern/2.chd", "game/3.chd", "Demolition/4.chd"],
        ["Demolition/4.chd", "game/3.chd", "Modern/2.chd", "Update Wars/1.chd"],
    ),
    ("a file called like it", ["demo.chd", "update.chd"], ["demo.chd", "update.chd"]),
    ("hidden", ["1.chd", ".2.chd", ".versions/3.chd", "a/.b/4.chd", "._1.chd"], None),
    ("only an extension", [".chd", "x/.cue", "1.chd"], None),
    ("m3u there", ["1.chd", "2.chd", "G.m3u"], None),
    ("m3u in capitals", ["1.chd", "2.chd", "other/PLAY.M3U"], None),
    ("m3u8 is none", ["1.chd", "2.chd", "music.m3u8"], ["1.chd", "2.chd"]),
    ("m3u in a name", ["m3u.chd", "a.m3u.chd"], ["a.m3u.chd", "m3u.chd"]),
    ("a folder of that name", ["1.chd", "2.chd", "Game.m3u/readme"], None),
    ("a folder of that name in capitals", ["1.chd", "2.chd", "GAME.M3U/readme"], None),
    (
        "a folder of that name further down",
        ["1.chd", "2.chd", "x/Game.m3u/y"],
        ["1.chd", "2.chd"],
    ),
    (
        "blanks",
        ["My Game  (Disc 1).chd", "My Game  (Disc 2) .chd"],
        ["My Game  (Disc 1).chd", "My Game  (Disc 2) .chd"],
    ),
    ("a # at the start", ["#1.chd", "#2.chd", "a#.chd"], ["./#1.chd", "./#2.chd", "a#.chd"]),
    ("a # folder", ["#x/1.chd", "#x/2.chd"], ["./#x/1.chd", "./#x/2.chd"]),
    ("a blank at the start", [" 1.chd", " 2.chd"], ["./ 1.chd", "./ 2.chd"]),
    ("a byte order mark", ["\ufeff1.chd", "2.chd"], ["2.chd", "./\ufeff1.chd"]),
    (
        "not ASCII",
        ["Übung (Disc 2).chd", "Übung (Disc 1).chd"],
        ["Übung (Disc 1).chd", "Übung (Disc 2).chd"],
    ),
    ("japanese", ["ゼルダ 10.chd", "ゼルダ 9.chd"], ["ゼルダ 9.chd", "ゼルダ 10.chd"]),
    (
        "digits of other scripts",
        ["\u0662.chd", "\u0661\u0660.chd"],
        ["\u0661\u0660.chd", "\u0662.chd"],
    ),
    ("mapped names", ["a%3A 1.chd", "a%3A 2.chd"], ["a%3A 1.chd", "a%3A 2.chd"]),
    ("floppies", ["G (Disk 2).adf", "G (Disk 1).adf"], ["G (Disk 1).adf", "G (Disk 2).adf"]),
    ("floppy and tape", ["side a.d64", "side b.d64", "G.tap"], ["side a.d64", "side b.d64"]),
    (
        "huge numbers",
        [f"1{'0' * 200}.chd", f"{'9' * 200}.chd"],
        [f"{'9' * 200}.chd", f"1{'0' * 200}.chd"],
    ),
]  # fmt: skip


def _made(
    members: list[str], mode: Mode = "discs", platform: bytes | None = b"psx"
) -> Playlist | None:
    names = [member.encode() for member in members]
    return Playlists(mode=mode).of(b"Game.m3u", names, platform)


@pytest.mark.parametrize(
    ("members", "lines"), [pytest.param(*case[1:], id=case[0]) for case in DISCS]
)
def test_discs(members: list[str], lines: list[str] | None) -> None:
    expected = None
    if lines is not None:
        expected = Playlist(b"Game.m3u", "".join(f"{line}\n" for line in lines).encode())
    for order in itertools.islice(itertools.permutations(members), 50):
        assert _made(list(order)) == expected


def test_each_case_is_another() -> None:
    assert len(DISCS) >= 40
    assert len({name for name, _, _ in DISCS}) == len(DISCS)
    # They are what an archive can hold.
    for _, members, _ in DISCS:
        names = [member.encode() for member in members]
        assert entry_names(names) == {name: name for name in names}


@pytest.mark.parametrize("extension", [*TABLES, *IMAGES])
def test_each_kind_of_disc(extension: bytes) -> None:
    members = [b"Disk %d.%s" % (number, extension) for number in (1, 2)]
    assert discs([*members, b"Disk 1.bin", b"Disk 2.txt"]) == members
    upper = [member.upper() for member in members]
    assert discs(upper) == upper


@pytest.mark.parametrize("extension", [*TABLES, *RAW])
def test_a_raw_image_beside_a_table_is_its_tracks(extension: bytes) -> None:
    assert discs([b"G.cue", b"track." + extension]) == (
        [b"G.cue"] if extension in RAW else [b"G.cue", b"track." + extension]
    )


# What it is a case of; the members in any order; the playlist, None: none.
ROMM: list[tuple[str, list[str], str | None]] = [
    ("cues only", ["b.cue", "a.cue", "a.bin", "b.bin"], "a.cue\nb.cue"),
    ("else everything", ["2.chd", "1.chd", "manual.pdf"], "1.chd\n2.chd\nmanual.pdf"),
    ("dlc as well", ["base.nsp", "dlc/a.nsp", "update/z.nsp"], "dlc/a.nsp\nbase.nsp\nupdate/z.nsp"),
    ("by base name", ["z/1.cue", "a/2.cue", "10.cue"], "z/1.cue\n10.cue\na/2.cue"),
    ("one cue", ["G.cue", "G.bin"], "G.cue"),
    ("capitals", ["A.CUE", "b.cue", "b.bin"], "A.CUE\nb.cue"),
    ("hidden files too", [".1.cue", "a.cue"], ".1.cue\na.cue"),
    ("names as they are", ["#1.cue", " 2.cue"], " 2.cue\n#1.cue"),
    ("not ASCII", ["Übung.bin", "ゼ.bin"], "Übung.bin\nゼ.bin"),
    ("m3u there", ["a.cue", "b.cue", "G.m3u"], None),
    ("m3u in capitals, deep", ["a.cue", "b.cue", "x/y/G.M3U"], None),
    ("no extension", ["cue", "m3u"], "cue\nm3u"),
    # RomM's extension takes words in lower case before it along, so these are no cue and no m3u.
    ("two extensions", ["game.disc.cue", "a.bin"], "a.bin\ngame.disc.cue"),
    ("two extensions, m3u", ["game.disc.m3u", "a.bin"], "a.bin\ngame.disc.m3u"),
    ("a number between", ["vol.1.cue", "a.bin"], "vol.1.cue"),
    ("a folder of that name", ["a.bin", "game.M3U/b"], None),
]


@pytest.mark.parametrize("platform", [None, b"psx", b"switch"])
@pytest.mark.parametrize(
    ("members", "content"), [pytest.param(*case[1:], id=case[0]) for case in ROMM]
)
def test_romm(members: list[str], content: str | None, platform: bytes | None) -> None:
    expected = None if content is None else Playlist(b"Game.m3u", content.encode())
    for order in itertools.permutations(members):
        assert _made(list(order), "romm", platform) == expected


def test_off() -> None:
    for _, members, _ in DISCS:
        assert _made(members, "off") is None


@pytest.mark.parametrize(
    ("platform", "gets_one"),
    [
        (b"psx", True),
        (b"PSX", True),
        (b"Dreamcast", True),
        (b"gc", True),
        (b"amiga", True),
        (b"switch", False),
        (b"ps2", False),
        (b"3do", False),
        (b"neogeocd", False),
        (b"wii", False),
        (b"dos", False),
        (b"psx2", False),
        (b"", False),
        (b"\xff", False),
        (b"default", False),
        (None, False),
    ],
)
def test_platforms(platform: bytes | None, gets_one: bool) -> None:
    assert (_made(["1.chd", "2.chd"], platform=platform) is not None) is gets_one


def test_platforms_are_in_lower_case() -> None:
    assert {name.lower() for name in PLATFORMS} == PLATFORMS
    assert b"default" not in PLATFORMS


def test_the_manual_has_them_all() -> None:
    listed = section("playlists#platforms").partition("-->")[2].partition("<!--")[0]
    assert {name.encode() for name in re.findall("`([^`]+)`", listed)} == PLATFORMS


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ([], set()),
        ([b"default"], PLATFORMS),
        ([b"Default", b"3DO"], PLATFORMS | {b"3do"}),
        ([b"3DO", b"psp"], {b"3do", b"psp"}),
        ([b"caf\xe9"], {b"caf\xe9"}),
    ],
)
def test_platforms_named(named: list[bytes], expected: set[bytes]) -> None:
    platforms = platforms_named(named)
    assert platforms == expected
    for name in expected:
        made = Playlists(platforms=platforms).of(b"G.m3u", [b"1.chd", b"2.chd"], name.upper())
        assert made == (b"G.m3u", b"1.chd\n2.chd\n")


@pytest.mark.parametrize(
    ("name", "folder", "free"),
    [
        ("Pokémon.m3u", "POKÉMON.m3u", False),
        ("Pokémon.m3u", "Poke\u0301mon.M3U", False),
        ("Straße.m3u", "STRASSE.m3u", False),
        ("Game.m3u", "Game.m3u8", True),
        ("Game.m3u", "Game 2.m3u", True),
    ],
)
def test_a_folder_that_is_the_same_elsewhere(name: str, folder: str, free: bool) -> None:
    """To Windows and macOS, that is: a file and a folder can't both be there."""
    members = [b"1.chd", b"2.chd", f"{folder}/x".encode()]
    assert (Playlists().of(name.encode(), members, b"psx") is not None) is free
