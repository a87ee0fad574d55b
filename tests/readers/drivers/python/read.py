"""What a Python library finds in a ZIP: a line for each entry, NAME SIZE SHA256, the name in hex.

    read.py LIBRARY ARCHIVE [LARGEST]     (ARCHIVE: "-" is standard input; or a URL)

Of entries above LARGEST bytes only name and size are said, "-" in place of the SHA-256; over
HTTP, of very many entries (a request each), the same of all but one in a hundred.

Runs in the readers' own environment, not in zipfs's. The rest is up to the library: what it
complains of ends this program.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

_CHUNK = 1 << 18
_SAMPLED = 10_000
_LARGEST = float(sys.argv[3]) if len(sys.argv) > 3 else float("inf")


def _say(name: bytes, chunks: Iterable[bytes], size: int | None) -> None:
    digest = hashlib.sha256()
    found = 0
    for chunk in chunks:
        digest.update(chunk)
        found += len(chunk)
    if size is not None and found != size:
        raise ValueError(f"{name!r} has {found} bytes, not {size}")
    sys.stdout.write(f"{name.hex() or '-'} {found} {digest.hexdigest()}\n")


def _skipped(name: bytes, size: int, number: int = 0, count: int = 0) -> bool:
    """Whether all that is to be said of an entry, number of so many, has been said by this."""
    if size > _LARGEST or (count > _SAMPLED and number % 100):
        sys.stdout.write(f"{name.hex() or '-'} {size} -\n")
        return True
    return False


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


def _libarchive(archive: str) -> None:
    import libarchive  # noqa: PLC0415 - one library for each run

    opened = libarchive.fd_reader(0) if archive == "-" else libarchive.file_reader(archive)
    with opened as entries:
        for entry in entries:
            name = entry.pathname.encode()
            if not _skipped(name, entry.size):
                _say(name, entry.get_blocks(max(1, min(entry.size, _CHUNK))), entry.size)


def _remotezip(url: str) -> None:
    from remotezip import RemoteZip  # noqa: PLC0415 - one library for each run

    with RemoteZip(url) as opened:
        entries = opened.infolist()
        for number, info in enumerate(entries):
            name = info.orig_filename.encode()
            if not _skipped(name, info.file_size, number, len(entries)):
                with opened.open(info) as stream:
                    _say(name, _chunks(stream), info.file_size)


def _stream_unzip(_archive: str) -> None:
    from stream_unzip import stream_unzip  # noqa: PLC0415 - one library for each run

    for name, size, chunks in stream_unzip(_chunks(sys.stdin.buffer), chunk_size=_CHUNK):
        _say(name, chunks, size)


def _unzip_http(url: str) -> None:
    from unzip_http import RemoteZipFile  # noqa: PLC0415 - one library for each run

    with RemoteZipFile(url) as opened:
        entries = list(opened.infolist())
        for number, info in enumerate(entries):
            name = info.filename.encode()
            if not _skipped(name, info.file_size, number, len(entries)):
                # By its entry: a name would be taken for a pattern.
                _say(name, _chunks(opened.open(info)), info.file_size)


_LIBRARIES: dict[str, Callable[[str], None]] = {
    "libarchive-c": _libarchive,
    "remotezip": _remotezip,
    "stream-unzip": _stream_unzip,
    "unzip-http": _unzip_http,
}

if __name__ == "__main__":
    _LIBRARIES[sys.argv[1]](sys.argv[2])
