"""What the daemon and the process that hashes tell each other.

Marshalled tuples, each after its length: both ends run the same interpreter and trust each other.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from zipfs.library.filestate import Checksums

_LENGTH: Final = struct.Struct("=I")

File: TypeAlias = tuple[int, bytes, tuple[int, int, int, int], bool]
"""A number, an absolute path, a state, and *afresh* (:class:`zipfs.index.hash_file.FileHasher`)."""


class Job(NamedTuple):
    """Hash *limit* bytes of *files*, each a number, an absolute path, a state, and *afresh*,
    which daemons of 0.1 leave out.

    *rate* is in bytes per second; 0: no limit. While files are read there is an answer at least
    every *interval* seconds. *parallel* small files are hashed at a time; 0, as with daemons that
    leave it out: as many as make the source quicker.
    """

    files: Sequence[File]
    limit: int
    rate: float
    interval: float
    parallel: int = 0


class Ready(NamedTuple):
    """The process has started."""


class At(NamedTuple):
    """*offset* bytes of a file are hashed."""

    number: int
    offset: int


class Done(NamedTuple):
    """The checksums of a file."""

    number: int
    crc32: int
    digest: bytes
    blocks: bytes

    @property
    def checksums(self) -> Checksums:
        return Checksums(self.crc32, self.digest, self.blocks)


class Failed(NamedTuple):
    """A file can't be hashed: *error* is the errno, 0 if the file has changed."""

    number: int
    error: int
    reason: str


class Unexpected(NamedTuple):
    """A file can't be hashed because of a defect in zipfs."""

    number: int
    traceback: str


class End(NamedTuple):
    """The job is done."""


Answer: TypeAlias = Ready | At | Done | Failed | Unexpected | End
_Message: TypeAlias = Job | Answer
_KINDS: Final[tuple[type[_Message], ...]] = (Job, Ready, At, Done, Failed, Unexpected, End)


def packed(message: _Message) -> bytes:
    """*message* as bytes: a 32-bit length in native order, then the marshalled tuple."""
    data = marshal.dumps((_KINDS.index(type(message)), *message))
    return _LENGTH.pack(len(data)) + data


def messages_in(buffer: bytearray) -> Iterator[_Message]:
    """The complete messages in *buffer*; each is removed from it."""
    while len(buffer) >= _LENGTH.size:
        end = _LENGTH.size + _LENGTH.unpack_from(buffer)[0]
        if len(buffer) < end:
            return
        data = bytes(buffer[_LENGTH.size : end])
        del buffer[:end]
        kind, *fields = marshal.loads(data)  # noqa: S302 - from our own parent, or child
        yield _KINDS[kind](*fields)
