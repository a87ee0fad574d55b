"""The data that `zipfs verify` saves between runs: its position, and the bad files found.

They are in a JSON file beside the index and not in a table of it, so that verifying never writes
to the index, never waits for a mount that does, and no mount waits for it. Losing the file costs
time only.

- A *round* reads all files that the index knows, in the order of their paths, in as many runs as
  needed. The next round begins after its end.
- A file is read in one run. If the run ends in the middle of it, the next run begins the file
  again.
- A *bad file* is listed until its state has changed, or a later read finds it right. One that an
  earlier run or round has found is still listed.

In JSON, paths are text, with a lone surrogate for each byte that isn't UTF-8 (PEP 383), checksums
of 16 bytes are hexadecimal, and dates are ISO 8601 in UTC. A file of version 1, which had Unix
times and the offset in a file read in part, is read and saved as version 2, without that offset. A
file that can't be decoded counts as missing.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, PlainSerializer

from zipfs.library.filestate import FileState
from zipfs.system.syscalls import NO_LINK, leave_to_owner

SUFFIX: Final = ".verify"
"""Appended to the index's name."""
_VERSION: Final = 2

Kind = Literal["damaged", "unreadable", "unstable"]
"""damaged: other bytes. unreadable: the disk returns none. unstable: other bytes at the first read
only."""


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _path(value: object) -> bytes:
    """A path from JSON's text; bytes are returned unchanged."""
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else _bytes(value)


def _digest(value: object) -> bytes:
    """A checksum from hexadecimal digits; bytes are returned unchanged."""
    return bytes.fromhex(value) if isinstance(value, str) else _bytes(value)


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("neither text nor bytes")  # pydantic reports no TypeError
    return value


def _hex(digest: bytes) -> str:
    return digest.hex()


Path = Annotated[bytes, BeforeValidator(_path), PlainSerializer(_text)]
Digest = Annotated[bytes, BeforeValidator(_digest), PlainSerializer(_hex)]


@dataclass(frozen=True, kw_only=True)
class BadFile:
    """A file with other bytes than were hashed, though its state is the same."""

    path: Path
    """In the library."""
    kind: Kind
    state: FileState
    crc32: int
    """The index's checksums, of the right bytes."""
    digest: Digest
    found_crc32: int | None = None
    """Checksums of the bytes read; None if not all could be read."""
    found_digest: Digest | None = None
    blocks: tuple[int, ...] = ()
    """Numbers of the bad blocks; empty if the index has no checksums of blocks."""
    error: str = ""
    """Why it can't be read."""
    found_at: AwareDatetime
    archives: tuple[Path, ...] = ()
    """Paths of the archives that it is in, as far as known."""


@dataclass(kw_only=True)
class Round:
    """Progress of a round. Sizes are in bytes."""

    began: AwareDatetime
    position: Path = b""
    """The last path that is done; all before it are done, too."""
    given_up: Path = b""
    """The file abandoned at the deadline of the last run; the next run reads it to its end."""
    passed: int = 0
    """Bytes of the files that are done, verified or not."""
    verified: int = 0
    """Number of files read, right or not."""
    size: int = 0
    """Bytes of these files."""
    changed: int = 0
    """Files in another state than in the index: a mount hashes them again."""
    gone: int = 0
    """Files that don't exist any more."""
    refused: int = 0
    """Files that this user may not read."""
    unhashed: int | None = None
    """Files of games that aren't in the index; None before they are counted."""
    ended: AwareDatetime | None = None
    seconds: float = 0.0
    """Duration of all its runs."""


@dataclass
class Memory:
    """All saved data. *library* is the path and inode of the library."""

    library: tuple[bytes, int]
    round: Round | None = None
    """The current round."""
    last: Round | None = None
    """The last round that has ended."""
    bad_files: dict[bytes, BadFile] = field(default_factory=dict)
    """By path."""
    replaces_another: bool = field(default=False, compare=False)
    """Whether the file has the data of another library."""


class _File(BaseModel):
    """The JSON file."""

    version: Literal[2]
    library: tuple[Path, int]
    round: Round | None
    last: Round | None
    bad_files: list[BadFile]


def load(file: str, library: tuple[bytes, int]) -> Memory:
    """The data in *file* about *library*; empty if there is no file, or it can't be decoded.

    Raises :exc:`OSError` if there is a file and it can't be read.
    """
    try:
        with open(file, "rb") as stream:
            data = stream.read()
    except FileNotFoundError:
        return Memory(library)
    try:
        values = json.loads(data)  # not pydantic's parser, which takes no lone surrogates
        kept = _File.model_validate(_of_version_1(values) if values["version"] == 1 else values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Memory(library)
    if kept.library != library:
        return Memory(library, replaces_another=True)
    bad_files = {found.path: found for found in kept.bad_files}
    return Memory(library, kept.round, kept.last, bad_files)


def save(file: str, memory: Memory, *, durably: bool = False) -> None:
    """Save *memory* to *file*, atomically. Raises :exc:`OSError`.

    With *durably* the data are on the disk when this returns.
    """
    kept = _File.model_construct(
        version=_VERSION,
        library=memory.library,
        round=memory.round,
        last=memory.last,
        bad_files=list(memory.bad_files.values()),
    )
    data = json.dumps(kept.model_dump(mode="json"), indent=1).encode()
    draft = f"{file}.new"
    # 0600, as paths are private. A link isn't followed, as this process may be root.
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | NO_LINK, 0o600)
    leave_to_owner(descriptor, os.path.dirname(os.path.abspath(file)))
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            if durably:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(draft, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise


@contextmanager
def alone(file: str) -> Iterator[bool]:
    """Lock *file* for the context; yields False if another process holds the lock.

    The lock is on a file beside it, which isn't removed, or two processes could hold locks at
    once. Raises :exc:`OSError`.
    """
    try:
        import fcntl  # noqa: PLC0415 - Windows has none
    except ImportError:
        yield True
        return
    descriptor = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT | NO_LINK, 0o600)
    leave_to_owner(descriptor, os.path.dirname(os.path.abspath(file)))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def _of_version_1(values: dict[str, Any]) -> dict[str, Any]:
    """*values* of version 1 in the form of version 2; pydantic accepts Unix times as dates."""
    bad_files = [
        {("found_at" if name == "seconds" else name): value for name, value in found.items()}
        for found in values["findings"]
    ]
    library = values["library"], values["inode"]
    return values | {"version": _VERSION, "library": library, "bad_files": bad_files}
