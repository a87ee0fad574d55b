"""Which folders are games, and which files belong, by the rules of the front end RomM.

Pure. From https://docs.romm.app (5.3, folder structure and configuration file) and from
what RomM does:

- Each folder at the level of games is one game, of all files in it, however deep.
- What is left out is told by names of platforms and games, and by names and extensions of
  files. The user's lists in ``config.yml`` (:mod:`zipfs.library.rules.romm_config`) add to the
  built-in ones.
- Nothing within a game is left out for the name of a folder: ``Game/@eaDir/x`` is a file
  of it. Links to files are, links to folders aren't followed.
- Case doesn't count in the names of folders and in extensions. It does in names of files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cached_property
from typing import Final

from zipfs.library.rules.globs import (
    GAME,
    PLATFORM,
    Compiled,
    Patterns,
    compiled,
    encode,
    is_prefix,
    literal,
    matches,
    platform_of,
    split,
    text,
)

EXCLUDED_FOLDERS: Final = (
    "@eaDir", "assets", "__MACOSX", "#recycle", "$RECYCLE.BIN", ".Trash-*", ".stfolder",
    ".Spotlight-V100", ".fseventsd", ".DocumentRevisions-V100", "System Volume Information",
)  # fmt: skip
"""Folders that are no platforms and no games; patterns, case doesn't count."""
EXCLUDED_FILES: Final = (
    ".DS_Store", ".localized", ".Trashes", ".stfolder", "@SynoResource", "*:Zone.Identifier",
    "gamelist.xml", "metadata.pegasus.txt",
)  # fmt: skip
"""Files that belong to no game; patterns, case counts."""
EXCLUDED_EXTENSIONS: Final = ("db", "ini", "tmp", "bak", "lock", "log", "cache", "crdownload")
"""The same by extension; case doesn't count."""

Templates = tuple[bytes, ...]


@dataclass(frozen=True)
class Structure:
    """Where games are: globs with placeholders, and others for some platforms.

    *overrides* are by the platform's folder, in lower case. With *deepest*, a folder in which
    another template looks for games is none itself.
    """

    templates: Templates
    overrides: tuple[tuple[str, Templates], ...] = ()
    deepest: bool = False

    def at(self, components: Sequence[bytes]) -> Sequence[_Place]:
        """The templates that are for *components*."""
        if self._depth is not None and len(components) > self._depth:
            platform = text(components[self._depth]).lower()
            return self._overrides.get(platform, self._places)
        return self._places

    @cached_property
    def _places(self) -> list[_Place]:
        return [_Place(template) for template in self.templates]

    @cached_property
    def _overrides(self) -> dict[str, list[_Place]]:
        return {
            platform: [_Place(template) for template in templates]
            for platform, templates in self.overrides
        }

    @cached_property
    def _depth(self) -> int | None:
        """Which component is the platform, if there are overrides."""
        return self._places[0].platform if self.overrides else None


class _Place:
    """One template: where it leads, and which component is the platform."""

    def __init__(self, template: bytes) -> None:
        components = template.strip(b"/").split(b"/")
        self.template = template
        self._glob: Compiled = compiled(template)
        self.platform: int | None = None
        if PLATFORM.encode() in components:
            place = components.index(PLATFORM.encode())
            if b"**" not in components[:place]:
                self.platform = place

    def matches(self, components: Sequence[bytes]) -> bool:
        return matches(self._glob, components)

    def is_above(self, components: Sequence[bytes]) -> bool:
        return is_prefix(self._glob, components)

    def may_be_platform(self, place: int) -> bool:
        """Whether the component at *place*, above a game, is a platform; any, if it isn't said."""
        return self.platform is None or self.platform == place


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a ``config.yml`` says, defaults included; without one, the defaults."""

    platforms: tuple[str, ...] = EXCLUDED_FOLDERS
    games: tuple[str, ...] = EXCLUDED_FOLDERS
    files: tuple[str, ...] = EXCLUDED_FILES
    extensions: tuple[str, ...] = EXCLUDED_EXTENSIONS
    roms_folder: str = "roms"
    structure: Structure | None = None
    """Where games are; None: found out."""


def find_structure(rules: Rules, has: Callable[[bytes], bool]) -> Structure:
    """The structure that *rules* tell of, or the one that the library has.

    *has* tells whether there is a folder at a path: ``roms/{platform}/{game}`` if there is
    ``roms``, else ``{platform}/roms/{game}``.
    """
    if rules.structure:
        return rules.structure
    roms = literal(rules.roms_folder)
    template = (
        f"{roms}/{PLATFORM}/{GAME}"
        if has(encode(rules.roms_folder))
        else f"{PLATFORM}/{roms}/{GAME}"
    )
    return Structure((encode(template),))


@dataclass(frozen=True)
class RommSelection:
    """The policy of RomM, by *rules*, for games at *structure*. What *patterns* say wins."""

    rules: Rules
    structure: Structure
    patterns: Patterns = field(default_factory=Patterns)

    @property
    def follows_folder_links(self) -> bool:
        return False

    def is_game(self, path: bytes) -> bool:
        components = split(path)
        places = self.structure.at(components)
        if self.structure.deepest and any(place.is_above(components) for place in places):
            return False
        return any(
            place.matches(components) and self._allows(components, place, game=len(components) - 1)
            for place in places
        )

    def may_hold_games(self, path: bytes) -> bool:
        components = split(path)
        return any(
            place.is_above(components) and self._allows(components, place)
            for place in self.structure.at(components)
        )

    def platform(self, game: bytes) -> bytes | None:
        components = split(game)
        for place in self.structure.at(components):
            if place.matches(components):
                return platform_of(place.template, components)
        return None

    def takes_folder(self, path: bytes) -> bool:
        return self.patterns.verdict(path) is not False

    def takes_file(self, path: bytes) -> bool:
        verdict = self.patterns.verdict(path)
        if verdict is not None:
            return verdict
        name = text(path.rpartition(b"/")[2])
        return not (name.lower().endswith(self._suffixes) or self._files.match(name))

    def _allows(self, components: Sequence[bytes], place: _Place, game: int = -1) -> bool:
        """Whether nothing on the way to *components* is left out; *game* is which one is a game."""

        def allows(number: int) -> bool:
            name = text(components[number]).strip().lower()
            if number == game:
                return not self._games.match(name)
            return not (place.may_be_platform(number) and self._platforms.match(name))

        return self.patterns.allow(components, allows)

    @cached_property
    def _platforms(self) -> re.Pattern[str]:
        return _folders(self.rules.platforms)

    @cached_property
    def _games(self) -> re.Pattern[str]:
        return _folders(self.rules.games)

    @cached_property
    def _files(self) -> re.Pattern[str]:
        return re.compile("|".join(map(translate, self.rules.files)))

    @cached_property
    def _suffixes(self) -> tuple[str, ...]:
        return tuple(f".{extension.lower()}" for extension in self.rules.extensions)


def _folders(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(translate(pattern.strip().lower()) for pattern in patterns))
