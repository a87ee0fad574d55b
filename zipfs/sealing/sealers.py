"""Building a sealer, with its library and index, from settings."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

from zipfs.config import Settings, VariantSettings, state_folder
from zipfs.errors import IndexFileError
from zipfs.index.index import Index
from zipfs.library.library import Library
from zipfs.library.lists import WithLists
from zipfs.library.policy import load_rules
from zipfs.library.rules.globs import Patterns, encode
from zipfs.library.rules.playlists import Playlists, platforms_named
from zipfs.library.rules.romm import Rules
from zipfs.library.rules.variants import Variant
from zipfs.library.variants import WithVariants
from zipfs.library.view import LibraryView
from zipfs.library.vouching import Vouchers
from zipfs.sealing.members import Style
from zipfs.sealing.sealer import Sealer


def index_file(settings: Settings) -> str:
    """The path of the index that *settings* name, or else the default one of the library."""
    if settings.index:
        return settings.index
    library = os.path.realpath(settings.library)
    # The readable part of the name; a file name has at most 255 bytes.
    name = "".join(c if c.isalnum() else "-" for c in os.path.basename(library))[:40] or "root"
    digest = hashlib.sha256(os.fsencode(library)).hexdigest()[:12]
    return os.path.join(state_folder(), f"{name}-{digest}.sqlite3")


def romm_rules(settings: Settings) -> Rules | None:
    """The rules of RomM if *settings* select them. Raises :exc:`ConfigError`."""
    if settings.selection != "romm":
        return None
    return load_rules(settings.romm_config) if settings.romm_config else Rules()


def make_library(settings: Settings) -> LibraryView:
    """The library that *settings* name, with its lists and variants.

    Raises :exc:`LibraryError` and :exc:`ConfigError` if a folder can't be read.
    """
    library: LibraryView = Library(settings.library, Vouchers(settings.prove))
    if settings.lists is not None:
        library = WithLists(
            library,
            settings.lists,
            shown_in=os.fsencode(settings.lists_folder),
            prefix=os.fsencode(settings.lists_prefix),
        )
    if settings.variants:
        library = WithVariants(library, list(map(_variant, settings.variants)))
    return library


def _variant(settings: VariantSettings) -> Variant:
    return Variant(
        name=encode(settings.name),
        only=frozenset(_encoded(settings.only)),
        without=frozenset(_encoded(settings.without)),
        patterns=Patterns(_encoded(settings.exclude), _encoded(settings.include)),
        prefix=encode(settings.prefix),
        games=_encoded(settings.games),
        playlists=settings.playlists,
    )


def make_sealer(settings: Settings, index: Index | None = None) -> Sealer:
    """The sealer for *settings*; the caller closes its index.

    That is *index* if given, else the file that *settings* name. Raises :exc:`LibraryError`,
    :exc:`ConfigError` and :exc:`IndexFileError`.
    """
    rules = romm_rules(settings)
    library = make_library(settings)
    file = index_file(settings)
    if library.holds(file):
        raise IndexFileError(
            f"the index {file} would lie in the library, where zipfs writes nothing;"
            " name another place with --index"
        )
    if index is None:
        index = Index(file)
    return Sealer(
        library,
        index,
        globs=_encoded(settings.games),
        patterns=Patterns(_encoded(settings.exclude), _encoded(settings.include)),
        rules=rules,
        settle=settings.settle,
        trust_mtime=settings.trust == "mtime",
        style=Style(
            portable_names=settings.portable_names,
            fixed_times=settings.timestamps == "fixed",
            execute_bits=settings.execute_bits,
        ),
        playlists=Playlists(
            mode=settings.playlists,
            platforms=platforms_named(map(os.fsencode, settings.playlist_platforms)),
        ),
    )


def _encoded(patterns: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(map(os.fsencode, patterns))
