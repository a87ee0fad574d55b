"""zipfs shows every multi-file game of a library as one virtual, seekable .zip file.

``zipfs help`` is the manual, DESIGN.md the contract; each module's docstring tells the theory of
its part.
What is named here can be used from other programs, on any platform.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # which would take any name for one of ours
    from zipfs.errors import (
        ConfigError,
        IndexFileError,
        LayoutError,
        LibraryError,
        NotSealedError,
        ZipfsError,
    )
    from zipfs.sealing.archivefile import ArchiveFile, ChangedError
    from zipfs.sealing.open_archive import open_archive

    __version__: str
else:
    _PLACES = {
        "ArchiveFile": "sealing.archivefile",
        "ChangedError": "sealing.archivefile",
        "ConfigError": "errors",
        "IndexFileError": "errors",
        "LayoutError": "errors",
        "LibraryError": "errors",
        "NotSealedError": "errors",
        "ZipfsError": "errors",
        "open_archive": "sealing.open_archive",
    }

    def __getattr__(name: str) -> object:
        # Whatever imports a module of zipfs imports this: the process that hashes has no use
        # for the rest, nor for the 4 MiB of importlib.metadata.
        if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415

            return version("zipfs")
        if place := _PLACES.get(name):
            from importlib import import_module  # noqa: PLC0415

            return getattr(import_module(f"zipfs.{place}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "ArchiveFile",
    "ChangedError",
    "ConfigError",
    "IndexFileError",
    "LayoutError",
    "LibraryError",
    "NotSealedError",
    "ZipfsError",
    "__version__",
    "open_archive",
]
