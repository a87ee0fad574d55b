"""The policy of the front end RomM: which folders are games, and which files belong.

Pure. From https://docs.romm.app (5.3, folder structure and configuration file) and the
behaviour of RomM:

- Each folder at the level of games is one game with all files in it, at any depth.
- Platforms and games are excluded by name, files by name and extension. The user's
  ``config.yml`` (:mod:`zipfs.library.rules.romm_config`) adds to the built-in exclusions.
- Within a game, no folder is excluded by name: ``Game/@eaDir/x`` is a file of the game. Links
  to files are followed, links to folders aren't. Empty folders are no part of it.
- Case is ignored in names of folders and in extensions, but not in names of files.
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
"""Folders that are neither platforms nor games; patterns, case is ignored."""
EXCLUDED_FILES: Final = (
    ".DS_Store", ".localized", ".Trashes", ".stfolder", "@SynoResource", "*:Zone.Identifier",
    "gamelist.xml", "metadata.pegasus.txt",
)  # fmt: skip
"""Files that belong to no game; patterns, case-sensitive."""
EXCLUDED_EXTENSIONS: Final = ("db", "ini", "tmp", "bak", "lock", "log", "cache", "crdownload")
"""Extensions of files that belong to no game; case is ignored."""

Templates = tuple[bytes, ...]


@dataclass(frozen=True)
class Structure:
    """Where games are: globs with placeholders, and overrides of them for some platforms.

    *overrides* are by the name of the platform's folder, in lower case. With *deepest*, a folder
    in which another template looks for games isn't a game.
    """

    templates: Templates
    overrides: tuple[tuple[str, Templates], ...] = ()
    deepest: bool = False

    def at(self, components: Sequence[bytes]) -> Sequence[_Template]:
        """The templates that apply to *components*."""
        if self._depth is not None and len(components) > self._depth:
            platform = text(components[self._depth]).lower()
            return self._overrides.get(platform, self._templates)
        return self._templates

    @cached_property
    def _templates(self) -> list[_Template]:
        return [_Template(template) for template in self.templates]

    @cached_property
    def _overrides(self) -> dict[str, list[_Template]]:
        return {
            platform: [_Template(template) for template in templates]
            for platform, templates in self.overrides
        }

    @cached_property
    def _depth(self) -> int | None:
        """The index of the platform's component, if there are overrides."""
        return self._templates[0].platform if self.overrides else None


class _Template:
    """One template; *platform* is the index of the platform's component, if that is fixed."""

    def __init__(self, template: bytes) -> None:
        components = template.strip(b"/").split(b"/")
        self.template = template
        self._glob: Compiled = compiled(template)
        self.platform: int | None = None
        if PLATFORM.encode() in components:
            number = components.index(PLATFORM.encode())
            if b"**" not in components[:number]:
                self.platform = number

    def matches(self, components: Sequence[bytes]) -> bool:
        return matches(self._glob, components)

    def is_above(self, components: Sequence[bytes]) -> bool:
        return is_prefix(self._glob, components)

    def may_be_platform(self, number: int) -> bool:
        """Whether the component with the index *number* can be the platform; any if unfixed."""
        return self.platform is None or self.platform == number


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The content of a ``config.yml``, defaults included."""

    platforms: tuple[str, ...] = EXCLUDED_FOLDERS
    games: tuple[str, ...] = EXCLUDED_FOLDERS
    files: tuple[str, ...] = EXCLUDED_FILES
    extensions: tuple[str, ...] = EXCLUDED_EXTENSIONS
    roms_folder: str = "roms"
    structure: Structure | None = None
    """Where games are; None: detected."""


def find_structure(rules: Rules, has: Callable[[bytes], bool]) -> Structure:
    """The structure that *rules* state, or else the one of the library.

    That is ``roms/{platform}/{game}`` if it has a folder ``roms``, else
    ``{platform}/roms/{game}``. *has* returns whether there is a folder at a path.
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
    """The policy of RomM for games at *structure*; *patterns* take precedence over *rules*."""

    rules: Rules
    structure: Structure
    patterns: Patterns = field(default_factory=Patterns)

    @property
    def follows_folder_links(self) -> bool:
        return False

    def is_game(self, path: bytes) -> bool:
        components = split(path)
        templates = self.structure.at(components)
        if self.structure.deepest and any(template.is_above(components) for template in templates):
            return False
        return any(
            template.matches(components)
            and self._allows(components, template, game=len(components) - 1)
            for template in templates
        )

    def may_hold_games(self, path: bytes) -> bool:
        components = split(path)
        return any(
            template.is_above(components) and self._allows(components, template)
            for template in self.structure.at(components)
        )

    def platform(self, game: bytes) -> bytes | None:
        components = split(game)
        for template in self.structure.at(components):
            if template.matches(components):
                return platform_of(template.template, components)
        return None

    def takes_folder(self, path: bytes) -> bool:
        return self.patterns.verdict(path) is not False

    def takes_file(self, path: bytes) -> bool:
        verdict = self.patterns.verdict(path)
        if verdict is not None:
            return verdict
        name = text(path.rpartition(b"/")[2])
        return not (name.lower().endswith(self._suffixes) or self._files.match(name))

    def is_empty(self, left: Iterable[tuple[bytes, bool]]) -> bool:
        return False

    def _allows(self, components: Sequence[bytes], template: _Template, game: int = -1) -> bool:
        """Whether nothing on the path is excluded; *game* is the index of the game, if any."""

        def allows(number: int) -> bool:
            name = text(components[number]).strip().lower()
            if number == game:
                return not self._games.match(name)
            return not (template.may_be_platform(number) and self._platforms.match(name))

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
