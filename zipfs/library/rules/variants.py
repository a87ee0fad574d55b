"""Variants of games: their paths, which files they take, and under what names. Pure.

The variant *V* of the game at ``NAME`` is beside it at ``NAME [V]``, and its archive at
``NAME [V].zip``. The name of a variant has no brackets, so its path is unambiguous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from zipfs.library.rules.categories import category
from zipfs.library.rules.globs import Compiled, Patterns, compiled, matches, split
from zipfs.library.rules.playlists import Mode

_OPEN: Final = b" ["
_CLOSE: Final = b"]"
_SUFFIX: Final = b".zip"
_NAME_MAX: Final = 255


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A variant that the operator has defined."""

    name: bytes
    only: frozenset[bytes] = frozenset()
    """Categories (:mod:`zipfs.library.rules.categories`) that it takes; none: all except those
    in *without*."""
    without: frozenset[bytes] = frozenset()
    patterns: Patterns = field(default_factory=Patterns)
    """Patterns of paths in the game's folder; they take precedence over categories."""
    prefix: bytes = b""
    """Folders that are put before each name."""
    games: tuple[bytes, ...] = ()
    """Globs of the games that have it; none: all games."""
    playlists: Mode | None = None
    """Which playlists it gets; None: those of the mount."""

    @property
    def depth(self) -> int:
        """Number of folders in the prefix."""
        return len(split(self.prefix))

    def is_of(self, game: bytes) -> bool:
        """Whether the game at the path *game* can have it."""
        components = split(game)
        return not self.games or any(matches(glob, components) for glob in self._games)

    def takes(self, path: bytes) -> bool:
        """Whether it takes the file at *path* in the game's folder.

        A folder that is excluded or included is so with all that it holds.
        """
        return self._takes(path, path)

    def takes_folder(self, path: bytes) -> bool:
        """Whether it takes the empty folder at *path* in the game's folder, by the same rules."""
        return self._takes(path, path + b"/")

    def _takes(self, path: bytes, within: bytes) -> bool:
        taken = self._has(within)
        if not (self.patterns.exclude or self.patterns.include):
            return taken
        components = split(path)
        for count in range(1, len(components) + 1):
            verdict = self.patterns.verdict(b"/".join(components[:count]))
            if verdict is False:
                return False
            taken |= verdict is True
        return taken

    def named(self, path: bytes) -> bytes:
        """The name in the variant of what is at *path* in the game's folder."""
        return self.prefix + b"/" + path if self.prefix else path

    def _has(self, path: bytes) -> bool:
        if not (self.only or self.without):
            return True
        found = category(path)
        return found in self.only if self.only else found not in self.without

    @cached_property
    def _games(self) -> list[Compiled]:
        return [compiled(glob) for glob in self.games]


class Variants:
    """All variants of a library, found by path."""

    def __init__(self, variants: Sequence[Variant]) -> None:
        self._by_name = {variant.name: variant for variant in variants}

    def of(self, game: bytes) -> list[bytes]:
        """The paths of the variants that the game at the path *game* can have.

        Those whose archive would have too long a name are omitted.
        """
        room = _NAME_MAX - len(game.rpartition(b"/")[2]) - len(_OPEN + _CLOSE + _SUFFIX)
        return [
            game + _OPEN + name + _CLOSE
            for name, variant in self._by_name.items()
            if len(name) <= room and variant.is_of(game)
        ]

    def at(self, path: bytes) -> tuple[bytes, Variant] | None:
        """The game's path and the variant, if *path* can be that of a variant; else None."""
        if not path.endswith(_CLOSE):
            return None
        game, found, name = path[: -len(_CLOSE)].rpartition(_OPEN)
        if not found or not game or game.endswith(b"/"):
            return None
        variant = self._by_name.get(name)
        return (game, variant) if variant else None
