"""Opens the files of a content in threads: several at a time where each takes long."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import trio

from zipfs.library.files import Key, close_all, key_of, open_files
from zipfs.library.scan import SourceFile
from zipfs.mount.fd_pool import FdPool, Loan
from zipfs.system.folders import Folders
from zipfs.system.measuring.gauge import is_slow
from zipfs.system.threads.calls import raise_first
from zipfs.system.threads.lanes import LANE

_TRIED: Final = 8
"""Files that are opened one after the other, to see how long that takes."""
_EACH: Final = 16
"""Files in one call of a thread, if it does take long."""


class Run(Protocol):
    """:meth:`zipfs.system.threads.lanes.Threads.run`, in a lane."""

    def __call__(
        self,
        function: Callable[[Sequence[SourceFile]], dict[Key, int]],
        sources: Sequence[SourceFile],
        *,
        discard: Callable[[dict[Key, int]], object],
        ended: Callable[[], object],
    ) -> Awaitable[dict[Key, int]]: ...


class Opening:
    """Opens files with *run*, and ends *loan* when all threads have ended."""

    def __init__(
        self,
        absolute: Callable[[bytes], bytes],
        folders: Folders,
        pool: FdPool,
        loan: Loan,
        *,
        provable: bool,
    ) -> None:
        self._open_files = functools.partial(
            open_files, absolute, provable=provable, folders=folders
        )
        self._pool = pool
        self._loan = loan
        self._under_way = 1
        self._opened: dict[Key, int] = {}
        self._errors: list[Exception] = []
        self.seconds: list[float] = []
        """How long each file took."""

    async def open(self, sources: Sequence[SourceFile], run: Run) -> dict[Key, int]:
        """Descriptors of *sources*. Raises the first error; then none stays open."""
        # One file can be there twice, behind a link.
        sources = list({key_of(source): source for source in sources}.values())
        try:
            if sources:
                await self._call(run, sources[:_TRIED])
            rest = sources[_TRIED:]
            if rest and not self._errors:
                each = _EACH if is_slow(self.seconds) else len(rest)
                todo: list[Sequence[SourceFile]]
                todo = [rest[start : start + each] for start in range(0, len(rest), each)]
                todo.reverse()
                async with trio.open_nursery() as nursery:
                    for _ in range(min(LANE, len(todo))):
                        nursery.start_soon(self._calls, run, todo)
        finally:
            self._end()
        if self._errors:
            self._pool.close(list(self._opened.values()))
            raise_first(self._errors)
        return self._opened

    async def _calls(self, run: Run, todo: list[Sequence[SourceFile]]) -> None:
        while todo and not self._errors:
            await self._call(run, todo.pop())

    async def _call(self, run: Run, sources: Sequence[SourceFile]) -> None:
        self._under_way += 1
        try:
            opened = await run(self._timed, sources, discard=_discard, ended=self._end)
        except Exception as error:  # noqa: BLE001 - raised by `open`
            self._errors.append(error)
        else:
            self._opened |= opened

    def _timed(self, sources: Sequence[SourceFile]) -> dict[Key, int]:
        """In a thread."""
        opened: dict[Key, int] = {}
        try:
            for source in sources:
                started = time.perf_counter()
                opened |= self._open_files([source])
                self.seconds.append(time.perf_counter() - started)
        except BaseException:
            close_all(opened.values())
            raise
        return opened

    def _end(self) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._loan.end()


def _discard(late: dict[Key, int]) -> None:
    close_all(late.values())
