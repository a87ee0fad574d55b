"""Members whose content is made up: the archive is the same as if a file held it."""

from __future__ import annotations

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from tests.planned import PlannedArchive, held
from tests.property.strategies import files, sparse_files
from tests.property.test_layout import layout_of
from tests.reference import File, archive
from zipfs.archive import validators
from zipfs.archive.layout import Data, Layout
from zipfs.archive.records import Member


def with_inline(members: list[File], chosen: set[int]) -> tuple[Layout, list[bytes]]:
    """The layout in which *chosen* members are inline, and the contents of the others."""
    contents = [file.data for file in members if isinstance(file.data, bytes)]
    layout = Layout(layout_of(members).members, {n: contents[n] for n in chosen})
    return layout, [content for n, content in enumerate(contents) if n not in chosen]


def some_of(data: st.DataObject, members: list[File]) -> set[int]:
    """Some members, with all folders: those are inline anyway."""
    numbers = st.sampled_from(range(len(members))) if members else st.nothing()
    chosen = data.draw(st.sets(numbers) if members else st.just(set()), "inline")
    return chosen | {n for n, file in enumerate(members) if file.is_folder}


@given(files, st.data())
def test_is_the_same_archive(members: list[File], data: st.DataObject) -> None:
    layout, contents = with_inline(members, some_of(data, members))
    whole = archive(members).tobytes()
    source = PlannedArchive(layout, held(contents))
    assert source.readall() == whole
    offset = data.draw(st.integers(0, len(whole) + 10), "offset")
    length = data.draw(st.integers(0, len(whole) + 10), "length")
    assert source.read_at(offset, length) == whole[offset : offset + length]


@given(files, st.data())
def test_has_the_same_name(members: list[File], data: st.DataObject) -> None:
    layout, contents = with_inline(members, some_of(data, members))
    digests = [xxhash.xxh3_128_digest(content) for content in contents]
    every = [
        xxhash.xxh3_128_digest(f.data)
        for f in members
        if isinstance(f.data, bytes) and not f.is_folder
    ]
    assert validators.content_id(layout, digests) == validators.content_id(
        layout_of(members), every
    )
    with pytest.raises(ValueError, match="zip"):
        validators.content_id(layout, [*digests, bytes(16)])
    if digests:
        with pytest.raises(ValueError, match="zip"):
            validators.content_id(layout, digests[:-1])


@given(files, st.data())
def test_sources_are_numbered_in_order(members: list[File], data: st.DataObject) -> None:
    chosen = some_of(data, members)
    layout, _ = with_inline(members, chosen)
    numbers = [layout.source_of(n) for n in range(len(members))]
    assert [n for n, number in enumerate(numbers) if number is None] == sorted(chosen)
    assert [number for number in numbers if number is not None] == list(
        range(len(members) - len(chosen))
    )


@given(sparse_files, st.data())
def test_what_is_in_one_source_is_located_there(members: list[File], data: st.DataObject) -> None:
    small = [n for n, file in enumerate(members) if isinstance(file.data, bytes)]
    chosen = data.draw(st.sets(st.sampled_from(small))) if small else set()
    plain = layout_of(members)
    layout = Layout(
        plain.members, {n: d for n in chosen if isinstance(d := members[n].data, bytes)}
    )
    edges = [layout.data_offset(n) for n in range(len(members))] or [0]
    near = st.builds(int.__add__, st.sampled_from(edges), st.integers(-3, 300))
    offset = data.draw(st.one_of(near, st.integers(0, layout.size - 1)), "offset")
    offset = min(max(0, offset), layout.size - 1)
    length = data.draw(st.integers(1, layout.size - offset), "length")
    pieces = list(layout.plan(offset, length))
    found = layout.locate(offset, length)
    if len(pieces) == 1 and isinstance(pieces[0], Data):
        assert found == (pieces[0].source, pieces[0].offset)
    else:
        assert found is None


@pytest.mark.parametrize("content", [b"", b"other", b"longer than it"])
def test_another_content_than_the_members_is_refused(content: bytes) -> None:
    member = Member(name=b"a", size=5, mtime=0, crc32=0x3610A686)  # "hello"
    assert Layout([member], {0: b"hello"}).inline == {0: b"hello"}
    with pytest.raises(ValueError, match="isn't the member's"):
        Layout([member], {0: content})
