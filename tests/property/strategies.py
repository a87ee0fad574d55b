"""What the properties are tried on: members, and paths as unpleasant as a disk can hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hypothesis import strategies as st

from tests.reference import File
from zipfs.archive.records import DOS_MAX, DOS_MIN, TIMESTAMP_MAX, archive_time

_EDGES: Final = [-(1 << 31), -1, 0, DOS_MIN, TIMESTAMP_MAX, DOS_MAX]

times = st.one_of(
    st.integers(-(1 << 31) - 10, DOS_MAX + 10),
    st.builds(int.__add__, st.sampled_from(_EDGES), st.integers(-3, 3)),
    st.integers(),
)
"""Modification times as a disk may give them, Unix seconds."""

_MAX_32: Final = 0xFFFFFFFF
sizes = st.one_of(
    st.integers(0, 300),
    st.integers(_MAX_32 - 200, _MAX_32 + 200),
    st.integers(0, 1 << 40),
)

# Pieces of names that meet each other once they are mapped.
_FRAGMENTS: Final = [
    b"a", b"b", b".", b"..", b"%", b"3A", b"%3A", b"%FF", b"%5C", b"%2E", b" (2)", b" (3)", b".x",
    b":", b"\\", b"\n", b"\x7f", b"\xff", b"\xc3", b"\xa9", b"\xc3\xa9", b"e\xcc\x81",
    b"\xc2\x85", b"\xed\xa0\x80", b"\xc0\xaf", "ゼ".encode(), "😀".encode(),
    b"A", b"con", b"NUL", b"lpt1", b"?", b"*", b" ", "É".encode(), "ß".encode(), b"SS", b"K",
    "\u212a".encode(), "\u0131".encode(), b"i", b"I",
]  # fmt: skip
components = st.one_of(
    st.lists(st.sampled_from(_FRAGMENTS), min_size=1, max_size=4).map(b"".join),
    st.binary(min_size=1, max_size=12).map(lambda raw: raw.translate(None, b"/\0") or b"x"),
)
long_components = st.builds(
    lambda raw, times, end: (raw * times)[:255] + end,
    components,
    st.integers(1, 255),
    st.sampled_from([b"", b".bin", b":", b"\xff.x"]),
)
"""Names as long as a disk can hold them, and a little longer."""
paths = st.lists(components, min_size=1, max_size=3).map(b"/".join)


def without_folders(found: Iterable[bytes]) -> list[bytes]:
    """Those of the paths that aren't the folder of another one: what a disk can hold."""
    found = list(dict.fromkeys(found))
    folders = set()
    for path in found:
        while path := path.rpartition(b"/")[0]:
            folders.add(path)
    return [path for path in found if path not in folders]


trees = st.lists(paths, max_size=12).map(without_folders)
"""The files of a game folder, as paths."""

_SAFE: Final = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="/\\:"),
    min_size=1,
    max_size=8,
).filter(lambda name: name not in (".", ".."))
names = st.lists(_SAFE, min_size=1, max_size=3).map("/".join).map(str.encode)
"""Entry names that nothing has to be changed in."""


@st.composite
def _files(draw: st.DrawFn, data: st.SearchStrategy[bytes | int]) -> list[File]:
    found = without_folders(draw(st.lists(names, max_size=6)))
    return [
        File(name=name + b"/", mtime=archive_time(draw(times)))
        if draw(st.sampled_from([False, False, False, True]))
        else File(
            name=name,
            data=draw(data),
            mtime=archive_time(draw(times)),
            executable=draw(st.booleans()),
        )
        for name in found
    ]


files = _files(st.binary(max_size=60))
"""Members with their data, and empty folders."""

sparse_files = _files(sizes)
"""Members of any size; all zeros, of which none exists."""
