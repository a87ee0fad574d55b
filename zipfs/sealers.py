"""The sealer that settings ask for, with its index: for the mount and the other commands."""

from __future__ import annotations

import hashlib
import os

from zipfs.config import Settings, state_folder
from zipfs.errors import IndexFileError
from zipfs.index import Index
from zipfs.library import Library
from zipfs.playlists import Playlists, platforms_named
from zipfs.sealing import Sealer
from zipfs.style import Style


def index_file(settings: Settings) -> str:
    """The index that *settings* name, or the one that is this library's own."""
    if settings.index:
        return settings.index
    library = os.path.realpath(settings.library)
    # Only for people, and a file's name has at most 255 bytes.
    name = "".join(c if c.isalnum() else "-" for c in os.path.basename(library))[:40] or "root"
    digest = hashlib.sha256(os.fsencode(library)).hexdigest()[:12]
    return os.path.join(state_folder(), f"{name}-{digest}.sqlite3")


def make_sealer(settings: Settings) -> Sealer:
    """The sealer for *settings*, its index open; close that in the end."""
    library = Library(settings.library)
    file = index_file(settings)
    if library.holds(file):
        raise IndexFileError(
            f"the index {file} would lie in the library, where zipfs writes nothing;"
            " name another place with --index"
        )
    index = Index(file)
    globs = tuple(os.fsencode(glob) for glob in settings.games)
    return Sealer(
        library,
        index,
        globs=globs,
        settle=settings.settle,
        trust_mtime=settings.trust == "mtime",
        style=Style(
            portable_names=settings.portable_names, fixed_times=settings.timestamps == "fixed"
        ),
        playlists=Playlists(
            mode=settings.playlists,
            platforms=platforms_named(map(os.fsencode, settings.playlist_platforms)),
        ),
    )
