"""Lists: what was written is read, and nothing else is ever done with bytes but to refuse them."""

from __future__ import annotations

import base64
import contextlib
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from zipfs.library.rules.modzip import ListedMember, ListError, parse

PREFIX = b"/library/"

_component = (
    st.binary(min_size=1, max_size=20)
    .map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_"))
    .filter(lambda raw: raw not in (b".", b".."))
)
_path = st.lists(_component, min_size=1, max_size=4).map(b"/".join)
_name = _path.map(
    lambda raw: (
        raw.replace(b"\r", b"_").replace(b"\n", b"_").replace(b" ", b"_", 1)
        if raw.startswith(b" ")
        else raw.replace(b"\r", b"_").replace(b"\n", b"_")
    )
)
_crc = st.one_of(st.just("-"), st.integers(0, 2**32 - 1).map(lambda crc: f"{crc:x}"))
_blanks = st.integers(1, 3).map(lambda count: " " * count)
_end = st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\r\n\r\n"])


@st.composite
def written(draw: st.DrawFn) -> tuple[bytes, list[tuple[bytes, int, bytes, bytes | None]]]:
    """A list as front ends write it, and its members: name, size, path, content."""
    # A number first, so that names differ, and none is a folder of another one.
    names = [
        b"%d%s" % (number, name)
        for number, name in enumerate(draw(st.lists(_name, min_size=1, max_size=6)))
    ]
    data = b""
    members: list[tuple[bytes, int, bytes, bytes | None]] = []
    for name in names:
        content = draw(st.one_of(st.none(), st.binary(max_size=50)))
        if content is None:
            size = draw(st.integers(0, 2**63 - 1))
            path = draw(_path)
            location = "/library/" + quote(path)
        else:
            size, path = len(content), b""
            value = base64.b64encode(content).decode()
            location = "/decode?value=" + (quote(value) if draw(st.booleans()) else value)
        fields = [draw(_crc), str(size), location]
        data += "".join(field + draw(_blanks) for field in fields).encode() + name
        data += draw(_end).encode()
        members.append((name, size, path, content))
    return data, members


@given(written())
def test_what_is_written_is_read(
    case: tuple[bytes, list[tuple[bytes, int, bytes, bytes | None]]],
) -> None:
    data, members = case
    assert [entry[1:] for entry in parse(data, PREFIX)] == [
        (size, name, path, content) for name, size, path, content in members
    ]


_noise = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.sampled_from(
            [
                *(b"-", b" ", b"5", b"/library/", b"..", b"%2e", b"%", b"/", b"a", b"?", b"\n"),
                *(b"/decode?value=", b"QQ==", b"\0", b"\xff", b"%2f", b"+", b"\\", b"%00", b"\r"),
                *(b"@directory ", b".", b"./", b"0 0 @directory a", b"- 5 /library/a "),
            ]
        ),
        max_size=40,
    ).map(b"".join),
    st.lists(st.binary(max_size=30), max_size=4).map(
        lambda parts: b"".join(b"- 5 /library/%s n%d\n" % (p, n) for n, p in enumerate(parts))
    ),
)


def _is_inside(path: bytes) -> bool:
    components = path.split(b"/")
    return not {b"", b".", b".."} & set(components) and b"\0" not in path


def _is_fine(entry: ListedMember) -> bool:
    is_folder = entry.name.endswith(b"/")
    return (
        _is_inside(entry.name.removesuffix(b"/"))
        and (entry.content is not None or _is_inside(entry.path))
        and (not is_folder or (entry.size, entry.content) == (0, b""))
    )


@given(_noise)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """And if they are read, then as paths that lead down, and nowhere else."""
    with contextlib.suppress(ListError):
        assert all(map(_is_fine, parse(data, PREFIX)))
