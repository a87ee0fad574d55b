"""Every archive that a test downloads is read by the strict checker, without the test asking.

There are four ways to get hold of one, and the check is part of each:

- a program writes it to a file: ``running`` in :mod:`tests.e2e.programs`;
- curl gives it to us, whole or as a stream: :mod:`tests.e2e.curl`;
- our own client reads it: :mod:`tests.e2e.matrix.client`;
- something else (``cp``, the test itself) leaves a ``*.zip`` in the test's folder, which is
  looked through when the test is over: ``conftest.py``.

What isn't whole is known by how it ended: a status other than 200, a program's exit status other
than 0, a reader that left before the end. A file that stays so has to be declared by its test.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final, Self
from urllib.parse import unquote

from tests.strictzip import Source, StrictZipError, read_archive

LARGE: Final = 1 << 30
"""Of larger archives only the records are checked: their tests compare SHA-256 with what is
expected, and reading 6 GiB a second time, many times over, takes minutes."""
_ZEROS: Final = bytes(1 << 20)

_checked: Final[set[tuple[int, ...]]] = set()
"""Files in the state in which a program has written them, which needn't be read once more."""
_partial: Final[set[Path]] = set()


class DamagedDownloadError(AssertionError):
    """It should be a whole archive, and isn't a valid one."""


def is_archive(url: str) -> bool:
    return url.startswith("http://") and url.endswith(".zip")


def check(source: Source, size: int, what: object) -> None:
    """Fail unless *source*, of *size* bytes, is a valid archive."""
    try:
        read_archive(source, check_data=size <= LARGE)
    except StrictZipError as error:
        raise DamagedDownloadError(f"{what}: {error}") from None


def check_file(path: Path) -> None:
    """The same for a file."""
    with path.open("rb") as stream:
        check(stream, os.fstat(stream.fileno()).st_size, path)


def check_written(argv: Sequence[str | Path]) -> None:
    """The same for the file that *argv* has downloaded, if it is a command that does so."""
    if path := _written_by(argv):
        check_file(path)
        _checked.add(_state(path))


def declare_partial(path: Path) -> None:
    """This file is no whole archive, and needn't become one."""
    _partial.add(path)


def check_folder(folder: Path) -> None:
    """Check all ``*.zip`` in *folder* and below. Nothing is mounted there any more."""
    for path in sorted(folder.rglob("*.zip")):
        if path not in _partial and path.is_file() and _state(path) not in _checked:
            check_file(path)


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns


def _written_by(argv: Sequence[str | Path]) -> Path | None:
    """The file for the archive that *argv* downloads; None if it writes none."""
    words = [os.fspath(word) for word in argv]
    program = os.path.basename(words[0])
    if program not in ("curl", "wget", "aria2c") or not any(map(is_archive, words)):
        return None
    if program == "wget" and "-P" in words:  # as -N wants it: the name is the URL's
        [url] = filter(is_archive, words)
        return Path(words[words.index("-P") + 1]) / unquote(url.rpartition("/")[2])
    option = "-O" if program == "wget" else "-o"
    if option not in words:
        assert program == "curl", f"say where {program} is to write, with {option}"
        return None  # to its output: tests.e2e.curl
    target = Path(words[words.index(option) + 1])
    return Path(words[words.index("-d") + 1]) / target if program == "aria2c" else target


class Kept:
    """What comes through a pipe, kept in a file without a name until it can be checked."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._size = 0
        self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed by our __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, piece: bytes) -> None:
        # Zeros take no space there: some archives have gigabytes of them.
        if piece == _ZEROS:
            self._file.seek(len(piece), os.SEEK_CUR)
        else:
            self._file.write(piece)
        self._size += len(piece)

    def check(self) -> None:
        self._file.truncate(self._size)
        check(self._file, self._size, self._what)
