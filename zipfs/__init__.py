"""zipfs shows every multi-file game of a library as one virtual, seekable .zip file.

``zipfs help`` is the manual, DESIGN.md the contract; each module's docstring explains its part.
The names exported here are the public API for other programs, on any platform.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # with __getattr__, mypy would accept any name
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
    _MODULES = {
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
        # Importing any module of zipfs imports this one. Lazily, since the process that hashes
        # needs none of these names, nor the 4 MiB of importlib.metadata.
        if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415

            return version("zipfs")
        if module := _MODULES.get(name):
            from importlib import import_module  # noqa: PLC0415

            return getattr(import_module(f"zipfs.{module}"), name)
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
