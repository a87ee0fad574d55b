"""Variants: archives with some of a game's files, as games beside it.

:class:`WithVariants` shows a variant at a path beside its game
(:mod:`zipfs.library.rules.variants`) where the library has nothing. Its files are files of the
game, so nothing is hashed twice.

Rules:

- An entry of the library with the name of a variant, or of its archive, hides the variant.
- A variant has an archive if its game has one and the two differ: at least one file is left,
  and one is missing or all have a prefix (:meth:`VariantScan.objection`).
- It has the empty folders of its game that it takes. One of which it takes no file isn't empty.
- A variant has the access and the settle time of its whole game.
- Lists have no variants.
"""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import xxhash

from zipfs.library.rules.general import Policy, PolicyDecorator
from zipfs.library.rules.variants import Variant, Variants
from zipfs.library.scan import NO_LINKS, Entry, GameScan, Kind, LeftOut, Origins, SourceFile
from zipfs.library.view import Decorator, LibraryView

_FEWEST: Final = 2
"""Minimum number of files of a game with an archive, in any library with variants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantScan(GameScan):
    """A variant: :attr:`files` are those of its game that it takes, under its names."""

    owns_folder: bool = False
    variant: Variant
    whole: tuple[SourceFile, ...]
    """All files of the game."""

    def objection(self, fewest: int) -> str:
        if len(self.whole) < fewest:
            return "the game itself has no archive"
        if not self.files:
            return "no file of the game belongs to it"
        if len(self.files) == len(self.whole) and not self.variant.prefix:
            return "nothing of the game is left out"
        return ""

    def without(self, refused: Callable[[SourceFile], bool]) -> Self:
        return dataclasses.replace(
            self,
            files=tuple(file for file in self.files if not refused(file)),
            whole=tuple(file for file in self.whole if not refused(file)),
        )

    def fingerprint(self) -> bytes:
        # Of the excluded files only the number counts: it decides whether there is a variant.
        return xxhash.xxh3_128_digest(self.files_digest() + self.objection(_FEWEST).encode())


@dataclass(frozen=True)
class _VariantPolicy(PolicyDecorator):
    """*policy*, under which variants of games are games."""

    variants: Variants

    def is_game(self, path: bytes) -> bool:
        if self.policy.is_game(path):
            return True
        found = self.variants.at(path)
        if found is None:
            return False
        game, variant = found
        return variant.is_of(game) and self.policy.is_game(game)


class WithVariants(Decorator):
    """*inner*, and *variants* of its games."""

    def __init__(self, inner: LibraryView, variants: Sequence[Variant]) -> None:
        super().__init__(inner)
        self._variants = Variants(variants)

    def extended(self, policy: Policy) -> Policy:
        return _VariantPolicy(super().extended(policy), self._variants)

    def variants_of(self, game: bytes) -> list[bytes]:
        return [] if self.list_of(game) is not None else self._variants.of(game)

    def beside(self, folder: bytes, games: Iterable[bytes], taken: Iterable[bytes]) -> list[bytes]:
        prefix = folder + b"/" if folder else b""
        there = set(taken)
        return [
            name
            for game in games
            for path in self.variants_of(prefix + game)
            if (name := path[len(prefix) :]) not in there and name + b".zip" not in there
        ]

    def entry(self, source: bytes, origins: Origins = NO_LINKS) -> Entry | LeftOut | None:
        return self.entry_at(source, source, origins)

    def entry_at(
        self, path: bytes, source: bytes, origins: Origins = NO_LINKS
    ) -> Entry | LeftOut | None:
        entry = super().entry_at(path, source, origins)
        if entry is None and (folder := self._folder_of(path, source, origins)):
            return Entry(source, folder.status, origins, Kind.VARIANT)
        return entry

    def is_listed(self, source: bytes, entry: Entry | LeftOut) -> bool:
        if isinstance(entry, Entry) and entry.kind is Kind.VARIANT:
            found = self._variants.at(source)
            return found is not None and super().is_listed(found[0], entry)
        return super().is_listed(source, entry)

    def scan(
        self,
        source: bytes,
        policy: Policy,
        origins: Origins = NO_LINKS,
        *,
        path: bytes | None = None,
    ) -> GameScan:
        shown_at = source if path is None else path
        found = self._variants.at(shown_at)
        # A link leads to another folder, whatever its name is.
        if found is None or shown_at.rpartition(b"/")[2] != source.rpartition(b"/")[2]:
            return super().scan(source, policy, origins, path=path)
        if self.exists(source):
            return super().scan(source, policy, origins, path=path)
        game, variant = found
        folder = self._folder_of(source, source, origins)
        if folder is None or not (variant.is_of(game) and policy.is_game(game)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        whole = super().scan(folder.source, policy, folder.origins, path=game)
        return _vary(whole, game, variant)

    def _folder_of(self, path: bytes, source: bytes, origins: Origins) -> Entry | None:
        """The folder of the game whose variant is at *source*, shown at *path*.

        None if no variant can be there. The library has nothing at *source*.
        """
        found = self._variants.at(source)
        if found is None or self.exists(source + b".zip"):
            return None
        game, _ = found
        if self.list_of(game) is not None:
            return None
        # The game is shown beside its variant: behind a link if and only if that is.
        entry = super().entry_at(game if path == source else path, game, origins)
        return entry if isinstance(entry, Entry) and entry.is_folder else None


def _vary(whole: GameScan, game: bytes, variant: Variant) -> VariantScan:
    files = tuple(
        dataclasses.replace(file, path=variant.named(file.path))
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
        folders=tuple(map(variant.named, filter(variant.takes_folder, whole.folders))),
        depth=variant.depth,
        is_spread=whole.is_spread,
        playlists=variant.playlists,
        game=game,
        variant=variant,
        whole=whole.files,
    )
