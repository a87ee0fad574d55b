"""zipfs shows every multi-file game of a library as one virtual, seekable .zip file.

README.md tells how to use it; each module's docstring tells the theory of its part.
"""

from typing import TYPE_CHECKING

__version__: str

if not TYPE_CHECKING:  # which would take any name for one of ours

    def __getattr__(name: str) -> str:
        # importlib.metadata takes 4 MiB, for which the process that hashes has no use.
        if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415

            return version("zipfs")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
