"""What the reader reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from zipfs.archive.layout import Piece
from zipfs.library.scan import SourceFile


class Content(Protocol):
    """Something to read: a version of an archive, or a mirrored file in one state."""

    @property
    def size(self) -> int: ...
    @property
    def files(self) -> Sequence[SourceFile]: ...
    @property
    def digests(self) -> Sequence[bytes]: ...
    def plan(self, offset: int, length: int) -> Iterator[Piece]: ...
    def locate(self, offset: int, length: int) -> tuple[int, int] | None: ...
