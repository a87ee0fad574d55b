"""What `zipfs verify` remembers from one run to the next: how far it is, and what it has found.

A JSON file beside the index, and no table in it: so verifying writes nothing into the index, and
never has to wait for a mount that does, nor a mount for it. Losing the file costs time only.

- A *round* goes through all files that the index knows, in the order of their paths, in as many
  runs as it takes. The next one begins when it has ended.
- A *finding* stands until its file is in another state, or is found to be right: one that was
  found in an earlier round, or run, is still true.

Paths are bytes; in JSON, bytes that aren't UTF-8 are lone surrogates (PEP 383).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from zipfs.library.filestate import FileState
from zipfs.system.syscalls import NO_LINK, leave_to_owner

SUFFIX: Final = ".verify"
"""Behind the index's name."""
_VERSION: Final = 1

Kind = Literal["damaged", "unreadable", "unstable"]
KINDS: Final[Mapping[str, Kind]] = {
    "damaged": "damaged",
    "unreadable": "unreadable",
    "unstable": "unstable",
}

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A file that isn't what it was, in the state that it was in then."""

    path: bytes
    """In the library."""
    kind: Kind
    """Other bytes, none at all, or other bytes only at first."""
    state: FileState
    crc32: int
    """What the index says that it was."""
    digest: bytes
    found_crc32: int | None = None
    """What it is now; None where not all of it could be read, or not in one go."""
    found_digest: bytes | None = None
    blocks: tuple[int, ...] = ()
    """Which blocks it is, if they are known."""
    error: str = ""
    """Why it can't be read."""
    seconds: int = 0
    """When it was found, Unix time."""
    archives: tuple[bytes, ...] = ()
    """Paths of the archives that it is in, as far as they are known."""


@dataclass(frozen=True, kw_only=True)
class Partial:
    """A file of which a part is done; see :class:`zipfs.ops.verify.comparing.Comparison`."""

    path: bytes
    state: FileState
    digest: bytes
    offset: int
    crc32: int
    bad: tuple[int, ...] = ()
    unread: tuple[int, ...] = ()


@dataclass(kw_only=True)
class Round:
    """How far a round is. Sizes are bytes, dates Unix times."""

    began: int
    position: bytes = b""
    """All paths up to this one, itself included, are done."""
    passed: int = 0
    """Bytes of the files, verified or not, that are done."""
    verified: int = 0
    """Files read, right or not."""
    size: int = 0
    """And their bytes."""
    changed: int = 0
    """Files in another state than the index knows: a mount hashes them anew."""
    gone: int = 0
    """Files that aren't there any more."""
    refused: int = 0
    """Files that we may not read."""
    unhashed: int | None = None
    """Files of games that the index doesn't know; None: not counted yet."""
    ended: int | None = None
    seconds: float = 0.0
    """How long its runs took."""


@dataclass
class Memory:
    """All that is remembered. *library* is the one that it is about, path and inode."""

    library: tuple[bytes, int]
    round: Round | None = None
    """The one that is under way."""
    partial: Partial | None = None
    last: Round | None = None
    """The last one that has ended."""
    findings: dict[bytes, Finding] = field(default_factory=dict)
    """Those that stand, by path."""
    replaces_another: bool = field(default=False, compare=False)
    """Whether there is a memory in its file, of another library."""


def load(file: str, library: tuple[bytes, int]) -> Memory:
    """What is remembered in *file* about *library*; nothing if that can't be made sense of.

    Raises :exc:`OSError` if there is a file and it can't be read.
    """
    try:
        with open(file, "rb") as stream:
            data = stream.read()
    except FileNotFoundError:
        return Memory(library)
    try:
        memory = _decoded(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Memory(library)
    return memory if memory.library == library else Memory(library, replaces_another=True)


def save(file: str, memory: Memory, *, durably: bool = False) -> None:
    """Keep *memory* in *file*: all of it, or it stays as it is. Raises :exc:`OSError`.

    *durably*: it outlives a power cut from now on.
    """
    draft = f"{file}.new"
    # Paths are private. And what is a link there isn't followed: root may be who does this.
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | NO_LINK, 0o600)
    leave_to_owner(descriptor, os.path.dirname(os.path.abspath(file)))
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(json.dumps(_encoded(memory), indent=1).encode())
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
    """Whether nobody else verifies by the index whose memory is *file*, as long as this lasts.

    By a file beside it, which stays: taking it away would let in two. Raises :exc:`OSError`.
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


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _path(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _encoded(memory: Memory) -> dict[str, Any]:
    partial = memory.partial
    return {
        "version": _VERSION,
        "library": _text(memory.library[0]),
        "inode": memory.library[1],
        "round": _round(memory.round),
        "partial": partial
        and {
            "path": _text(partial.path),
            "state": list(partial.state),
            "digest": partial.digest.hex(),
            "offset": partial.offset,
            "crc32": partial.crc32,
            "bad": list(partial.bad),
            "unread": list(partial.unread),
        },
        "last": _round(memory.last),
        "findings": [
            {
                "path": _text(finding.path),
                "kind": finding.kind,
                "state": list(finding.state),
                "crc32": finding.crc32,
                "digest": finding.digest.hex(),
                "found_crc32": finding.found_crc32,
                "found_digest": finding.found_digest and finding.found_digest.hex(),
                "blocks": list(finding.blocks),
                "error": finding.error,
                "seconds": finding.seconds,
                "archives": list(map(_text, finding.archives)),
            }
            for finding in memory.findings.values()
        ],
    }


def _round(round_: Round | None) -> dict[str, Any] | None:
    if round_ is None:
        return None
    return vars(round_) | {"position": _text(round_.position)}


def _decoded(values: dict[str, Any]) -> Memory:
    if values["version"] != _VERSION:
        raise ValueError
    findings = [_finding(finding) for finding in values["findings"]]
    partial = values["partial"]
    return Memory(
        library=(_path(values["library"]), int(values["inode"])),
        round=_round_of(values["round"]),
        partial=partial
        and Partial(
            path=_path(partial["path"]),
            state=_state(partial["state"]),
            digest=bytes.fromhex(partial["digest"]),
            offset=int(partial["offset"]),
            crc32=int(partial["crc32"]),
            bad=_numbers(partial["bad"]),
            unread=_numbers(partial["unread"]),
        ),
        last=_round_of(values["last"]),
        findings={finding.path: finding for finding in findings},
    )


def _finding(values: dict[str, Any]) -> Finding:
    return Finding(
        path=_path(values["path"]),
        kind=KINDS[values["kind"]],
        state=_state(values["state"]),
        crc32=int(values["crc32"]),
        digest=bytes.fromhex(values["digest"]),
        found_crc32=_maybe(int, values["found_crc32"]),
        found_digest=_maybe(bytes.fromhex, values["found_digest"]),
        blocks=_numbers(values["blocks"]),
        error=str(values["error"]),
        seconds=int(values["seconds"]),
        archives=tuple(map(_path, values["archives"])),
    )


def _round_of(values: dict[str, Any] | None) -> Round | None:
    if values is None:
        return None
    numbers = {
        name: int(values[name])
        for name in ("began", "passed", "verified", "size", "changed", "gone", "refused")
    }
    return Round(
        **numbers,
        position=_path(values["position"]),
        unhashed=_maybe(int, values["unhashed"]),
        ended=_maybe(int, values["ended"]),
        seconds=float(values["seconds"]),
    )


def _maybe(convert: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else convert(value)


def _state(values: list[int]) -> FileState:
    return FileState(*map(int, values))


def _numbers(values: list[int]) -> tuple[int, ...]:
    return tuple(map(int, values))
