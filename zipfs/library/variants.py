"""A library with variants in it: archives of games without some parts, or only some.

A variant is a game to all that is above here, at a path beside that of the game
(:mod:`zipfs.library.rules.variants`), where the library has nothing. It is found as a game's
folder is found, and scanned as one: its files are some of the game's, so nothing is hashed twice.

Rules:

- What the library has of a variant's name, or of its archive's, is there in its stead.
- A variant has an archive only if the game has one, some file is left, and it isn't the
  whole: with a file less, or with a prefix. What else there may be is told by
  :attr:`VariantScan.idle`.
- Whoever may read all of the game may read its variants, and they settle together.
- Lists have no variants.
"""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import xxhash

from zipfs.library.filestate import FileState
from zipfs.library.library import Library
from zipfs.library.rules.general import Policy, Wrapped
from zipfs.library.rules.variants import Variant, Variants
from zipfs.library.scan import Entry, GameScan, LeftOut, Origins, SourceFile

_NO_LINKS: Final[Origins] = frozenset()
_FEWEST: Final = 2
"""How many files make a game, wherever there are variants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantScan(GameScan):
    """A variant as it was found: :attr:`files` are those that it has, under its names."""

    game: bytes
    """The game's path."""
    variant: Variant
    whole: tuple[SourceFile, ...]
    """All files of the game."""

    def is_archive(self, fewest: int) -> bool:
        return not self.idle(fewest)

    def idle(self, fewest: int) -> str:
        """Why there is no such variant; nothing if there is."""
        if len(self.whole) < fewest:
            return "the game itself has no archive"
        if not self.files:
            return "no file of the game belongs to it"
        if len(self.files) == len(self.whole) and not self.variant.prefix:
            return "nothing of the game is left out"
        return ""

    def without(self, refused: Callable[[SourceFile], bool]) -> GameScan:
        return dataclasses.replace(
            self,
            files=tuple(file for file in self.files if not refused(file)),
            whole=tuple(file for file in self.whole if not refused(file)),
        )

    def fingerprint(self) -> bytes:
        # What is left out only decides on whether there is a variant: what it is changes nothing.
        # `super()` doesn't know a class with slots.
        found = GameScan.fingerprint(self)
        return xxhash.xxh3_128_digest(found + self.idle(_FEWEST).encode())


class VariantEntry(Entry):
    """A variant, which stands in the tree where a game's folder stands; its status is that."""

    __slots__ = ()

    @property
    def is_real(self) -> bool:
        return False


@dataclass(frozen=True)
class _WithVariants(Wrapped):
    """*policy*, where variants of games are games."""

    variants: Variants

    def is_game(self, path: bytes) -> bool:
        if self.policy.is_game(path):
            return True
        found = self.variants.at(path)
        if found is None:
            return False
        game, variant = found
        return variant.is_of(game) and self.policy.is_game(game)


class VariedLibrary(Library):
    """The library *inner*, and *variants* of its games."""

    def __init__(self, inner: Library, variants: Sequence[Variant]) -> None:
        super().__init__(inner.root)
        self.inner = inner
        self._variants = Variants(variants)

    # -- The library's questions -----------------------------------------------

    def with_lists(self, policy: Policy) -> Policy:
        return _WithVariants(self.inner.with_lists(policy), self._variants)

    def list_of(self, path: bytes) -> bytes | None:
        return self.inner.list_of(path)

    def state(self, source: bytes) -> FileState:
        return self.inner.state(source)

    def names(self, source: bytes) -> list[bytes]:
        return self.inner.names(source)

    def folder(
        self, source: bytes, origins: Origins = _NO_LINKS
    ) -> list[tuple[bytes, Entry | LeftOut]]:
        return self.inner.folder(source, origins)

    def has_folder(self, source: bytes) -> bool:
        return self.inner.has_folder(source)

    def exists(self, source: bytes) -> bool:
        return self.inner.exists(source)

    def variants_of(self, game: bytes) -> list[bytes]:
        return [] if self.inner.list_of(game) is not None else self._variants.of(game)

    def beside(self, folder: bytes, games: Iterable[bytes], taken: Iterable[bytes]) -> list[bytes]:
        prefix = folder + b"/" if folder else b""
        there = set(taken)
        return [
            name
            for game in games
            for path in self.variants_of(prefix + game)
            if (name := path[len(prefix) :]) not in there and name + b".zip" not in there
        ]

    def entry(self, source: bytes, origins: Origins = _NO_LINKS) -> Entry | LeftOut | None:
        entry = self.inner.entry(source, origins)
        if entry is None and (found := self._stand_in(source, origins)):
            return VariantEntry(source, found.status, origins)
        return entry

    def scan(
        self,
        source: bytes,
        policy: Policy,
        origins: Origins = _NO_LINKS,
        *,
        path: bytes | None = None,
    ) -> GameScan:
        shown_at = source if path is None else path
        found = self._variants.at(shown_at)
        # Behind a link is another folder, however that is called.
        if found is None or shown_at.rpartition(b"/")[2] != source.rpartition(b"/")[2]:
            return self.inner.scan(source, policy, origins, path=path)
        if self.inner.exists(source):
            return self.inner.scan(source, policy, origins, path=path)
        game, variant = found
        folder = self._stand_in(source, origins)
        if folder is None or not (variant.is_of(game) and policy.is_game(game)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        whole = self.inner.scan(folder.source, policy, folder.origins, path=game)
        return _vary(whole, game, variant)

    # -- Variants --------------------------------------------------------------

    def _stand_in(self, source: bytes, origins: Origins) -> Entry | None:
        """The folder of the game whose variant is at *source*, where the library has nothing."""
        found = self._variants.at(source)
        if found is None or self.inner.exists(source + b".zip"):
            return None
        game, _ = found
        if self.inner.list_of(game) is not None:
            return None
        entry = self.inner.entry(game, origins)
        return entry if isinstance(entry, Entry) and entry.is_folder else None


def _vary(whole: GameScan, game: bytes, variant: Variant) -> VariantScan:
    files = tuple(
        SourceFile(variant.named(file.path), file.source, file.state)
        for file in whole.files
        if variant.takes(file.path)
    )
    return VariantScan(
        files=files,
        access=whole.access,
        changed_ns=whole.changed_ns,
        written_ns=whole.written_ns,
        left_out=whole.left_out,
        status=whole.status,
        problem=whole.problem,
        game=game,
        variant=variant,
        whole=whole.files,
    )
