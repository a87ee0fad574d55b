"""Building a sealer, with its library and index, from settings."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator

from zipfs.config import Settings, state_folder
from zipfs.config_variants import VariantSettings
from zipfs.errors import ConfigError, IndexFileError
from zipfs.index.index import Index
from zipfs.index.indexfile import IN_MEMORY
from zipfs.library.absence import Absence
from zipfs.library.decorators.lists import WithLists
from zipfs.library.decorators.variants import WithVariants
from zipfs.library.library import Library
from zipfs.library.policy import load_rules
from zipfs.library.rules.globs import Patterns, encode
from zipfs.library.rules.playlists import Playlists, platforms_named
from zipfs.library.rules.romm import Rules
from zipfs.library.rules.variants import Variant
from zipfs.library.view import LibraryView
from zipfs.library.vouching import Vouchers
from zipfs.sealing.members import Style
from zipfs.sealing.sealer import Sealer
from zipfs.system.paths import is_within
from zipfs.text import shown


def index_file(settings: Settings, root: bytes | None = None) -> str:
    """The path of the index that *settings* name, or else the default one of the library.

    *root* is the library's path without links, if that is known.
    """
    if settings.index:
        return settings.index
    library = os.path.realpath(settings.library) if root is None else os.fsdecode(root)
    # The readable part of the name; a file name has at most 255 bytes.
    name = "".join(c if c.isalnum() else "-" for c in os.path.basename(library))[:40] or "root"
    digest = hashlib.sha256(os.fsencode(library)).hexdigest()[:12]
    return os.path.join(state_folder(), f"{name}-{digest}.sqlite3")


def romm_rules(settings: Settings) -> Rules | None:
    """The rules of RomM if *settings* select them. Raises :exc:`ConfigError`."""
    if settings.selection != "romm":
        return None
    return load_rules(settings.romm_config) if settings.romm_config else Rules()


def make_library(settings: Settings, away: Absence | None = None) -> LibraryView:
    """The library that *settings* name, with its lists and variants; with *away*, it is gone.

    Raises :exc:`LibraryError` and :exc:`ConfigError` if a folder can't be read.
    """
    library: LibraryView = Library(settings.library, Vouchers(settings.prove), away)
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


def make_sealer(
    settings: Settings, index: Index | None = None, *, away: Absence | None = None
) -> Sealer:
    """The sealer for *settings*; the caller closes its index.

    That is *index* if given, else the file that *settings* name. With *away* the library is gone,
    and isn't touched. Raises :exc:`LibraryError`,
    :exc:`ConfigError` and :exc:`IndexFileError`.
    """
    rules = romm_rules(settings)
    library = make_library(settings, away)
    file = index_file(settings, library.root)
    check_index(file, settings.mountpoint)  # first, as a mount that nobody serves answers nothing
    if library.holds(file):
        raise IndexFileError(
            f"the index {file} would lie in the library, where zipfs writes nothing;"
            " name another place with --index"
        )
    if index is None:
        index = _make_index(settings, file, library)
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


def check_index(file: str, mountpoint: str | None, *, links: bool = False) -> None:
    """Refuse an index that lies in the mount, whose daemon would wait for itself.

    Nothing is accessed but, with *links*, what is on the way to it. Raises :exc:`IndexFileError`.
    """
    if mountpoint and file != IN_MEMORY:
        path = os.path.realpath(file) if links else os.path.abspath(file)
        if is_within(os.fsencode(path), os.fsencode(os.path.abspath(mountpoint))):
            raise IndexFileError(
                f"the index {file} would lie in the mount point; name another place with --index"
            )


def _make_index(settings: Settings, file: str, library: LibraryView) -> Index:
    if settings.shared_index is None:
        return Index(file)
    with psycopg_needed():
        from zipfs.index.shared.shared_index import SharedIndex  # noqa: PLC0415 - an extra
    return SharedIndex(file, settings.shared_index, shared_name(settings), library)


def shared_name(settings: Settings) -> str:
    """The name of the library in the shared index."""
    return settings.shared_name or shown(os.fsencode(os.path.realpath(settings.library)))


@contextlib.contextmanager
def psycopg_needed() -> Iterator[None]:
    """What is imported here needs psycopg. Raises :exc:`ConfigError` if it isn't there."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"a shared index needs psycopg, which can't be loaded ({error}); install"
            " zipfs[postgresql] and libpq5"
        ) from None


def _encoded(patterns: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(map(os.fsencode, patterns))
