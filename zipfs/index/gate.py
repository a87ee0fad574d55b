"""Which files are to be hashed here, where others may hash them as well."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import TYPE_CHECKING, Protocol

from zipfs.library.filestate import Checksums
from zipfs.library.scan import SourceFile

if TYPE_CHECKING:
    from zipfs.index.hash_jobs import Rank
    from zipfs.index.hash_queue import Hasher


class Gate(Protocol):
    """Asked by the queue, in trio's thread; :mod:`zipfs.index.shared.gate` is one."""

    def is_full(self, rank: Rank) -> bool:
        """Whether nothing of that rank is to be asked for now."""

    def admits(self, file: SourceFile, rank: Rank) -> bool:
        """Whether *file* is to be hashed now; if not, it waits for an :meth:`Hasher.admit`."""

    def hurry(self, file: SourceFile) -> None:
        """Somebody asks for *file*."""

    def finished(self, file: SourceFile, result: Checksums | Exception) -> None:
        """*file* was hashed, or couldn't be."""

    async def run(
        self,
        hasher: Hasher,
        save: Callable[[], Awaitable[None]],
        reissued: Callable[[Iterable[bytes]], object],
    ) -> None:
        """Share the work of *hasher*, for ever.

        *save* saves what was hashed; *reissued* is called with archives whose modification times
        are others now.
        """


class Claims(Protocol):
    """The same without a queue, for commands; :mod:`zipfs.index.shared.claims` is one."""

    def each(
        self,
        files: Iterable[SourceFile],
        save: Callable[[], object],
        known: Callable[[SourceFile], object],
    ) -> Generator[SourceFile]:
        """Those of *files* that are to be hashed here, each when it is its turn; to be closed.

        Of the others it waits until somebody has hashed them, and calls *known* with each. *save*
        saves what was hashed here: also before it waits, since others may wait for that.
        """

    def failed(self, file: SourceFile) -> None:
        """*file*, the latest, couldn't be hashed here."""


class Unshared:
    """All is to be hashed here."""

    def each(
        self,
        files: Iterable[SourceFile],
        save: Callable[[], object],
        known: Callable[[SourceFile], object],
    ) -> Generator[SourceFile]:
        yield from files

    def failed(self, file: SourceFile) -> None:
        pass
