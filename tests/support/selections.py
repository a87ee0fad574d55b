"""Library trees, and what is to be made of them: one table for both selections.

A tree is a list of paths: a file, a folder if it ends in ``/``, or a symbolic link
(``path -> target``). What is expected are archives by their paths in the mount, each with
its members in order, and for ``romm`` the bytes of the playlist that RomM adds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.libraries import make_file

Archives = Mapping[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """*config* is RomM's ``config.yml``; *options* are those of both selections."""

    tree: Sequence[str]
    romm: Archives
    general: Archives | None = None
    """None: the same as *romm*."""
    playlists: Mapping[str, str | None] = field(default_factory=dict)
    """By archive, where RomM's isn't a line for each member, or there is none."""
    config: str = ""
    games: Sequence[str] = ()
    exclude: Sequence[str] = ()
    include: Sequence[str] = ()

    def expected(self, selection: str) -> dict[str, list[str]]:
        archives = self.romm
        if selection == "general" and self.general is not None:
            archives = self.general
        return {path: list(members) for path, members in archives.items()}

    def playlist(self, archive: str) -> tuple[str, bytes] | None:
        """Name and content of the playlist that RomM adds to *archive*."""
        content = self.playlists.get(archive, "\n".join(self.romm[archive]))
        name = archive.rpartition("/")[2].removesuffix(".zip") + ".m3u"
        return None if content is None else (name, content.encode())

    def make(self, library: Path) -> None:
        """Put the tree into *library*."""
        for path in self.tree:
            name, _, target = path.partition(" -> ")
            if target:
                (library / name).parent.mkdir(parents=True, exist_ok=True)
                os.symlink(target, library / name)
            elif path.endswith("/"):
                (library / name).mkdir(parents=True, exist_ok=True)
            else:
                make_file(library / name, name.encode())

    def options(self, selection: str, config: Path) -> list[str]:
        """The command line's options; *config* is where to write the ``config.yml``."""
        options = [f"--selection={selection}"]
        if selection == "romm" and self.config:
            config.write_text(self.config)
            options.append(f"--romm-config={config}")
        for name in ("games", "exclude", "include"):
            options += [f"--{name}={pattern}" for pattern in getattr(self, name)]
        return options


TWO = ("roms/psx/Game/1.bin", "roms/psx/Game/2.bin")
GAME = {"roms/psx/Game.zip": ["1.bin", "2.bin"]}

CASES: dict[str, Case] = {
    # -- RomM's playlists
    "only the cue files are in a playlist": Case(
        tree=[f"roms/nes/Game/{name}" for name in ("b.cue", "a.bin", "dlc/c.CUE", "z.pdf")],
        romm={"roms/nes/Game.zip": ["a.bin", "b.cue", "dlc/c.CUE", "z.pdf"]},
        playlists={"roms/nes/Game.zip": "b.cue\ndlc/c.CUE"},
    ),
    "no second playlist": Case(
        tree=["roms/psx/Game/1.cue", "roms/psx/Game/2.cue", "roms/psx/Game/extras/mine.M3U"],
        romm={"roms/psx/Game.zip": ["1.cue", "2.cue", "extras/mine.M3U"]},
        playlists={"roms/psx/Game.zip": None},
    ),
    "a playlist of whatever there is": Case(
        tree=["roms/switch/Pokémon #1/base.nsp", "roms/switch/Pokémon #1/manual/Größe.pdf"],
        romm={"roms/switch/Pokémon #1.zip": ["manual/Größe.pdf", "base.nsp"]},
        playlists={"roms/switch/Pokémon #1.zip": "manual/Größe.pdf\nbase.nsp"},
    ),
    # -- Where games are
    "structure A": Case(
        tree=[*TWO, "roms/gb/Single.gb", "bios/psx/1.bin", "bios/psx/2.bin"],
        romm=GAME,
    ),
    "structure B": Case(
        tree=["psx/roms/Game/1.bin", "psx/roms/Game/2.bin", "psx/bios/x/1", "psx/bios/x/2"],
        romm={"psx/roms/Game.zip": ["1.bin", "2.bin"]},
    ),
    "structure A wins": Case(
        tree=[*TWO, "psx/roms/Game/1.bin", "psx/roms/Game/2.bin"],
        romm=GAME,
    ),
    "no structure of RomM's": Case(
        tree=["psx/Game/1.bin", "psx/Game/2.bin"],
        romm={},
        general={"psx/Game.zip": ["1.bin", "2.bin"]},
    ),
    "another folder for roms": Case(
        tree=["my [roms]/psx/Game/1", "my [roms]/psx/Game/2", *TWO],
        config="filesystem: {roms_folder: 'my [roms]'}",
        romm={"my [roms]/psx/Game.zip": ["1", "2"]},
        general=GAME,
    ),
    "another folder for roms, in structure B": Case(
        tree=["psx/isos/Game/1", "psx/isos/Game/2"],
        config="filesystem: {roms_folder: isos}",
        romm={"psx/isos/Game.zip": ["1", "2"]},
        general={"psx/isos.zip": ["Game/1", "Game/2"]},
    ),
    "a template": Case(
        tree=["psx/roms/Game/1", "psx/roms/Game/2", "roms/psx/Game/1", "roms/psx/Game/2"],
        config="filesystem: {structure: {default: '{platform}/roms/{game}'}}",
        romm={"psx/roms/Game.zip": ["1", "2"]},
        general={"roms/psx/Game.zip": ["1", "2"]},
    ),
    "a template of a platform": Case(
        tree=[*TWO, "roms/SNES/USA/Game/1", "roms/SNES/USA/Game/2", "roms/SNES/USA/x.sfc"],
        config="filesystem: {structure: {snes: 'roms/{platform}/{region}/{game}'}}",
        romm={**GAME, "roms/SNES/USA/Game.zip": ["1", "2"]},
        general={**GAME, "roms/SNES/USA.zip": ["Game/1", "Game/2", "x.sfc"]},
    ),
    "a folder in which another template looks is no game": Case(
        tree=["roms/nes/Hacks/Game/1", "roms/nes/Hacks/Game/2", "roms/nes/a.nes"],
        config=(
            "filesystem: {structure: {nes: ['roms/{platform}/{game}',"
            " 'roms/{platform}/{category}/{game}']}}"
        ),
        romm={"roms/nes/Hacks/Game.zip": ["1", "2"]},
        general={"roms/nes/Hacks.zip": ["Game/1", "Game/2"]},
    ),
    "placeholders": Case(
        tree=["isos/psx/Game/1", "isos/psx/Game/2", *TWO],
        games=["isos/{platform}/{game}"],
        romm={"isos/psx/Game.zip": ["1", "2"]},
    ),
    "placeholders win over the config": Case(
        tree=["psx/x/Game/1", "psx/x/Game/2", *TWO],
        games=["{platform}/x/{game}"],
        config="filesystem: {structure: {default: 'roms/{platform}/{game}'}}",
        romm={"psx/x/Game.zip": ["1", "2"]},
    ),
    # -- What games there are
    "folders that are no games": Case(
        tree=[
            *TWO,
            *(
                f"roms/psx/{folder}/{name}"
                for folder in ("@eaDir", "ASSETS", "#recycle", ".Trash-1000", ".stversions")
                for name in ("1", "2")
            ),
        ],
        romm={**GAME, "roms/psx/.stversions.zip": ["1", "2"]},
        general={**GAME, "roms/psx/ASSETS.zip": ["1", "2"]},
    ),
    "folders that are no platforms": Case(
        tree=[*TWO, "roms/assets/Game/1", "roms/assets/Game/2", "roms/@eaDir/Game/1"],
        romm=GAME,
        general={**GAME, "roms/assets/Game.zip": ["1", "2"]},
    ),
    "platforms and games of the user's": Case(
        tree=[
            *TWO,
            "roms/PS2/Game/1",
            "roms/PS2/Game/2",
            "roms/psx/Media 1/1",
            "roms/psx/Media 1/2",
        ],
        config="exclude: {platforms: ['ps?'], roms: {multi_file: {names: ['media *']}}}",
        include=["psx"],
        romm=GAME,
        general={
            **GAME,
            "roms/PS2/Game.zip": ["1", "2"],
            "roms/psx/Media 1.zip": ["1", "2"],
        },
    ),
    "only platforms are excluded as such": Case(
        tree=[*TWO, "roms/Game/Game/1", "roms/Game/Game/2"],
        config="exclude: {platforms: [game, roms]}",
        romm=GAME,
        general={**GAME, "roms/Game/Game.zip": ["1", "2"]},
    ),
    "one file": Case(
        tree=["roms/psx/One/a.bin", "roms/psx/One/empty/", "roms/psx/One/gamelist.xml"],
        romm={},
        general={"roms/psx/One.zip": ["a.bin", "empty/", "gamelist.xml"]},
    ),
    "one file and what systems leave": Case(
        tree=["roms/psx/One/a.bin", "roms/psx/One/.DS_Store", "roms/psx/One/a.bin:Zone.Identifier"],
        romm={},
    ),
    # -- What is in them
    "sorted by base name, all parts": Case(
        tree=[
            f"roms/switch/Game/{path}"
            for path in ("z.nsp", "update/v2.nsp", "dlc/b.nsp", "dlc/a.nsp", "a/z.nsp", "B.nsp")
        ],
        romm={
            "roms/switch/Game.zip": [
                "B.nsp",
                "dlc/a.nsp",
                "dlc/b.nsp",
                "update/v2.nsp",
                "a/z.nsp",
                "z.nsp",
            ],
        },
    ),
    "what is left out by name": Case(
        tree=[
            f"roms/psx/Game/{path}"
            for path in (
                "1.bin",
                "2.bin",
                ".DS_Store",
                ".localized",
                ".Trashes",
                ".stfolder",
                "@SynoResource",
                "sub/gamelist.xml",
                "metadata.pegasus.txt",
                ".hidden",
                "Thumbs.db",
                "desktop.ini",
                "._1.bin",
                ".directory",
            )
        ],
        romm={"roms/psx/Game.zip": ["._1.bin", ".directory", ".hidden", "1.bin", "2.bin"]},
        general={
            "roms/psx/Game.zip": [
                ".hidden",
                "1.bin",
                "2.bin",
                "sub/gamelist.xml",
                "metadata.pegasus.txt",
            ],
        },
    ),
    "what is left out by extension": Case(
        tree=[
            f"roms/psx/Game/{path}"
            for path in (
                "1.bin",
                "2.bin",
                "a.db",
                "a.INI",
                "a.tmp",
                "a.bak",
                "a.lock",
                "a.log",
                "a.cache",
                "a.crdownload",
                "tmp",
                ".log",
                "a.log.txt",
            )
        ],
        romm={"roms/psx/Game.zip": ["1.bin", "2.bin", "a.log.txt", "tmp"]},
        general={
            "roms/psx/Game.zip": [
                ".log",
                "1.bin",
                "2.bin",
                "a.INI",
                "a.bak",
                "a.cache",
                "a.crdownload",
                "a.db",
                "a.lock",
                "a.log",
                "a.log.txt",
                "a.tmp",
                "tmp",
            ],
        },
    ),
    "case counts in names of files": Case(
        tree=[*TWO, "roms/psx/Game/GAMELIST.XML", "roms/psx/Game/.ds_store"],
        romm={"roms/psx/Game.zip": [".ds_store", "1.bin", "2.bin", "GAMELIST.XML"]},
        general={"roms/psx/Game.zip": ["1.bin", "2.bin", "GAMELIST.XML"]},
    ),
    "no folder of a game is left out": Case(
        tree=[*TWO, "roms/psx/Game/@eaDir/x.jpg", "roms/psx/Game/__MACOSX/y", "roms/psx/Game/e/"],
        romm={"roms/psx/Game.zip": ["1.bin", "2.bin", "@eaDir/x.jpg", "__MACOSX/y"]},
        general={"roms/psx/Game.zip": ["1.bin", "2.bin", "e/"]},
    ),
    "files of the user's": Case(
        tree=[*TWO, *(f"roms/psx/Game/{name}" for name in ("x.NFO", "y.xml", "data.tar.gz", "z"))],
        config=(
            "exclude: {roms: {multi_file: {parts: {names: ['?.xml'], extensions: [nfo, tar.gz]}},"
            " single_file: {names: [z], extensions: [bin]}}}"
        ),
        romm={"roms/psx/Game.zip": ["1.bin", "2.bin", "z"]},
        general={"roms/psx/Game.zip": ["1.bin", "2.bin", "data.tar.gz", "x.NFO", "y.xml", "z"]},
    ),
    "links": Case(
        tree=[
            *TWO,
            "other/a",
            "other/b",
            "roms/psx/Game/file -> ../../../other/a",
            "roms/psx/Game/folder -> ../../../other",
            "roms/psx/Link -> ../../other",
            "roms/alias -> psx",
        ],
        romm={
            "roms/psx/Game.zip": ["1.bin", "2.bin", "file"],
            "roms/psx/Link.zip": ["a", "b"],
            "roms/alias/Game.zip": ["1.bin", "2.bin", "file"],
            "roms/alias/Link.zip": ["a", "b"],
        },
        general={
            "roms/psx/Game.zip": ["1.bin", "2.bin", "folder/a", "folder/b", "file"],
            "roms/psx/Link.zip": ["a", "b"],
            "roms/alias/Game.zip": ["1.bin", "2.bin", "folder/a", "folder/b", "file"],
            "roms/alias/Link.zip": ["a", "b"],
        },
    ),
    # -- The user's patterns
    "left out by name": Case(
        tree=[
            *TWO,
            "roms/psx/Game/x.NFO",
            "roms/psx/Game/Extras/a.nfo/3",
            "roms/psx/Game/extras/4",
        ],
        exclude=["*.nfo", "extras"],
        romm=GAME,
    ),
    "left out by path": Case(
        tree=[
            *TWO,
            "roms/psx/Game/extras/3",
            "roms/ps2/Game/extras/1",
            "roms/ps2/Game/extras/2",
            "roms/gb/Game/1",
            "roms/gb/Game/2",
        ],
        exclude=["roms/psx/*/extras", "ROMS/gb", "extras/*"],
        romm={**GAME, "roms/ps2/Game.zip": ["extras/1", "extras/2"]},
    ),
    "left out below a link by the path that is shown": Case(
        tree=["other/1", "other/2", "other/x", "roms/psx/Link -> ../../other"],
        exclude=["roms/**/x", "other/1"],
        romm={"roms/psx/Link.zip": ["1", "2"]},
    ),
    "taken in": Case(
        tree=[
            *TWO,
            "roms/psx/Game/Thumbs.db",
            "roms/psx/Game/@eaDir/Thumbs.db",
            "roms/psx/assets/1",
            "roms/psx/assets/.DS_Store",
            "roms/psx/@eaDir/1",
            "roms/psx/@eaDir/2",
        ],
        include=["thumbs.db", "assets", "roms/psx/assets/*", "roms/psx/@eaDir"],
        romm={
            "roms/psx/Game.zip": ["1.bin", "2.bin", "@eaDir/Thumbs.db", "Thumbs.db"],
            "roms/psx/assets.zip": [".DS_Store", "1"],
            "roms/psx/@eaDir.zip": ["1", "2"],
        },
        general={
            "roms/psx/Game.zip": ["1.bin", "2.bin", "Thumbs.db"],
            "roms/psx/assets.zip": [".DS_Store", "1"],
            "roms/psx/@eaDir.zip": ["1", "2"],
        },
    ),
    "taken in wins": Case(
        tree=[*TWO, "roms/psx/Game/a.nfo", "roms/psx/Game/b.nfo"],
        exclude=["*.nfo"],
        include=["roms/psx/Game/b.*"],
        romm={"roms/psx/Game.zip": ["1.bin", "2.bin", "b.nfo"]},
    ),
}
