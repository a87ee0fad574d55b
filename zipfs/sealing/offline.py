"""Sealing games without a mount, for ``zipfs index``, ``zipfs inspect`` and ``open_archive``.

Blocking, in the caller's thread. Checksums are saved while it runs, so that the next run
continues one that was interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final, Protocol

from zipfs.errors import ChangedError
from zipfs.index.hash_file import hash_file
from zipfs.index.rows import Made, Record
from zipfs.library.filestate import FileState
from zipfs.library.scan import Entry, SourceFile
from zipfs.sealing.outcomes import (
    Absent,
    Examination,
    Impossible,
    Sealed,
    Unhashed,
    Unsettled,
    Version,
)
from zipfs.sealing.sealer import Sealer
from zipfs.text import shown

_SAVE_COUNT: Final = 500
_SAVE_SECONDS: Final = 2.0
_TRIES: Final = 5
"""Maximum number of examinations of a game that keeps changing."""

FoundGame = tuple[bytes, Entry]
"""A game's path and its folder, as :func:`zipfs.library.view.find_games` gives them."""


class Progress(Protocol):
    """Receives the progress of hashing, in bytes."""

    def total(self, size: int) -> None:
        """*size* bytes are to be hashed in total."""

    def advance(self, size: int) -> None:
        """*size* more bytes are hashed, or don't have to be."""


@dataclass
class Summary:
    """The result of :func:`seal_all`; *problems* are lines for the user. Sizes in bytes."""

    archives: int = 0
    members: int = 0
    size: int = 0
    hashed: int = 0
    """Bytes that had to be read."""
    hashed_elsewhere: int = 0
    """Bytes that others, who share the index, have read meanwhile."""
    changing: list[bytes] = field(default_factory=list)
    """Paths of the games that kept changing."""
    problems: list[str] = field(default_factory=list)


class Silent:
    """Ignores progress."""

    def total(self, size: int) -> None:
        pass

    def advance(self, size: int) -> None:
        pass


def seal_all(
    sealer: Sealer,
    games: Iterable[FoundGame],
    progress: Progress | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Summary:
    """Hash the files of *games* that aren't hashed yet, the smallest first."""
    progress = progress or Silent()
    summary = Summary()
    folders = dict(games)
    before: dict[bytes, Examination] = {}
    given_up: set[tuple[bytes, FileState]] = set()
    made: dict[bytes, Made | None] = {}
    for _ in range(_TRIES):
        wait = 0.0
        missing: dict[bytes, SourceFile] = {}
        for path, entry in folders.items():
            before[path], version = _examine(sealer, path, entry, before.get(path))
            outcome = before[path].outcome
            if version and version.key:
                made[path] = sealer.remember(path, entry.source, before[path], version)
                if len(made) >= _SAVE_COUNT:
                    sealer.index.put_games(made)
                    made = {}
            if isinstance(outcome, Unsettled):
                wait = max(wait, outcome.seconds)
            elif isinstance(outcome, Unhashed):
                missing.update(
                    (file.source, file)
                    for file in outcome.missing
                    if (file.source, file.state) not in given_up
                )
        done = summary.hashed + summary.hashed_elsewhere
        progress.total(done + sum(file.state.size for file in missing.values()))
        given_up |= _hash(sealer, missing.values(), progress, summary)
        if not missing and not wait:
            break
        if wait:
            sleep(wait)
    sealer.index.put_games(made)
    for path, examination in before.items():
        outcome = examination.outcome
        if isinstance(outcome, Sealed):
            summary.archives += 1
            summary.members += outcome.count
            summary.size += outcome.size
        elif isinstance(outcome, Unsettled | Unhashed):
            summary.changing.append(path)
        elif isinstance(outcome, Impossible | Absent) and outcome.reason:
            summary.problems.append(f"{shown(path)}: {outcome.reason}")
    return summary


def prune(sealer: Sealer) -> int:
    """Forget the checksums of files that the library hasn't any more; returns how many.

    Of a file that can't be looked at they are kept. Raises :exc:`GoneError` if the library, or a
    disk in it, went away meanwhile.
    """
    library, index = sealer.library, sealer.index
    gone: list[bytes] = []
    after: bytes | None = b""
    with library.presence.asking(b"", inside=True) as asking:
        if not library.presence.has_content():  # as it is without its disk
            return 0
        while after is not None:
            found, after = index.files_after(after)
            for path, _ in found:
                try:
                    if library.entry(path) is None:
                        gone.append(path)
                except OSError:
                    continue
        asking.confirm()
    if gone:
        index.prune(gone)
    return len(gone)


def seal_one(
    sealer: Sealer, game: FoundGame, progress: Progress | None = None
) -> tuple[Examination, Version | None]:
    """Hash *game* and examine it, with its version if it is sealed."""
    seal_all(sealer, [game], progress)
    return _examine(sealer, *game, None, whole=True)


def _examine(
    sealer: Sealer, path: bytes, entry: Entry, before: Examination | None, *, whole: bool = False
) -> tuple[Examination, Version | None]:
    return sealer.examine(path, entry.source, before, origins=entry.origins, whole=whole)


def _hash(
    sealer: Sealer, files: Iterable[SourceFile], progress: Progress, summary: Summary
) -> set[tuple[bytes, FileState]]:
    """Hash *files*, or have others do it; returns source and state of those that can't be read."""
    failed = set()
    records: dict[bytes, Record] = {}
    saved = time.monotonic()

    def save() -> None:
        nonlocal saved
        if records:
            sealer.index.put_files(dict(records))
            records.clear()
        saved = time.monotonic()

    def known(file: SourceFile) -> None:
        summary.hashed_elsewhere += file.state.size
        progress.advance(file.state.size)

    claims = sealer.index.claims
    by_size = sorted(files, key=lambda file: file.state.size)
    with closing(claims.each(by_size, save, known)) as mine:
        try:
            for file in mine:
                path = sealer.library.absolute(file.source)
                try:
                    checksums = hash_file(
                        path, file.state, progress.advance, afresh=file.by_content
                    )
                    records[file.source] = file.state, checksums
                except ChangedError:
                    claims.failed(file)  # the next examination finds its new state
                except PermissionError:
                    claims.failed(file)
                    sealer.mark_unreadable(file)
                    summary.problems.append(f"{shown(file.source)} is left out: it can't be read")
                except OSError as error:
                    claims.failed(file)
                    failed.add((file.source, file.state))
                    summary.problems.append(f"can't read {shown(file.source)}: {error.strerror}")
                else:
                    summary.hashed += file.state.size
                if len(records) >= _SAVE_COUNT or time.monotonic() - saved > _SAVE_SECONDS:
                    save()
        finally:
            save()
    return failed
