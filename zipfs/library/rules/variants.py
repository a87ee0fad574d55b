"""Variants of a game's archive: which there are, which files they take, under what names. Pure.

A variant *V* of the game at ``NAME`` is at ``NAME [V]``, beside it, and its archive at
``NAME [V].zip``. The name of a variant has no brackets, so a path tells which one it is of.
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
    """One that the operator has named."""

    name: bytes
    only: frozenset[bytes] = frozenset()
    """Categories (:mod:`zipfs.library.rules.categories`) that it has; none: all but those
    *without*."""
    without: frozenset[bytes] = frozenset()
    patterns: Patterns = field(default_factory=Patterns)
    """Of paths in the game's folder; they win over categories."""
    prefix: bytes = b""
    """Folders that stand before each name."""
    games: tuple[bytes, ...] = ()
    """Globs of the games that have it; none: all."""
    playlists: Mode | None = None
    """Which playlists it gets; None: as all archives."""

    @property
    def depth(self) -> int:
        """Of how many folders the prefix is."""
        return len(split(self.prefix))

    def is_of(self, game: bytes) -> bool:
        """Whether the game at the path *game* has it, if it makes a difference."""
        components = split(game)
        return not self.games or any(matches(glob, components) for glob in self._games)

    def takes(self, path: bytes) -> bool:
        """Whether the file at *path* in the game's folder belongs to it.

        What is in a folder that is left out is left out with it; to take a folder in is to
        take in what is in it.
        """
        taken = self._has(path)
        if not (self.patterns.exclude or self.patterns.include):
            return taken
        components = split(path)
        for place in range(len(components)):
            verdict = self.patterns.verdict(b"/".join(components[: place + 1]))
            if verdict is False:
                return False
            taken |= verdict is True
        return taken

    def named(self, path: bytes) -> bytes:
        """What the file at *path* in the game's folder is called."""
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
    """All variants of a library, by their place."""

    def __init__(self, variants: Sequence[Variant]) -> None:
        self._by_name = {variant.name: variant for variant in variants}

    def of(self, game: bytes) -> list[bytes]:
        """The paths of the variants that the game at the path *game* may have.

        None whose archive would have too long a name: not even the folder could have it.
        """
        room = _NAME_MAX - len(game.rpartition(b"/")[2]) - len(_OPEN + _CLOSE + _SUFFIX)
        return [
            game + _OPEN + name + _CLOSE
            for name, variant in self._by_name.items()
            if len(name) <= room and variant.is_of(game)
        ]

    def at(self, path: bytes) -> tuple[bytes, Variant] | None:
        """The path of the game, and which of its variants can be at *path*."""
        if not path.endswith(_CLOSE):
            return None
        game, found, name = path[: -len(_CLOSE)].rpartition(_OPEN)
        if not found or not game or game.endswith(b"/"):
            return None
        variant = self._by_name.get(name)
        return (game, variant) if variant else None
