"""Any archive, any range: the plan is the slice, and the headers say what the members are."""

from __future__ import annotations

import io
import zipfile

from hypothesis import given
from hypothesis import strategies as st

from tests.planned import PlannedArchive, held
from tests.property.strategies import files, sparse_files, times
from tests.reference import File, archive, dos_date_time
from tests.strictzip import read_archive
from zipfs.archive import records
from zipfs.archive.layout import Data, Layout, fill
from zipfs.archive.records import Member, archive_time, central_header, end_records, local_header

TOP = 1 << 64


def layout_of(members: list[File]) -> Layout:
    return Layout(
        Member(
            name=file.name,
            size=file.size,
            mtime=file.mtime,
            crc32=file.crc32,
            executable=file.executable,
        )
        for file in members
    )


def sources(members: list[File]) -> list[File]:
    return [file for file in members if not file.is_folder]


def planned(members: list[File]) -> PlannedArchive:
    contents = [file.data for file in sources(members) if isinstance(file.data, bytes)]
    return PlannedArchive(layout_of(members), held(contents))


@given(files)
def test_whole_archive_is_its_parts_in_order(members: list[File]) -> None:
    """Against plain concatenation, and against the specification written down twice."""
    layout = layout_of(members)
    whole = b""
    directory = b""
    for file, member in zip(members, layout.members, strict=True):
        assert isinstance(file.data, bytes)
        directory += central_header(member, len(whole))
        whole += local_header(member) + file.data
    whole += directory + end_records(len(members), len(whole), len(directory))
    assert planned(members).readall() == whole
    assert layout.size == len(whole)
    assert whole == archive(members).tobytes()


@given(files, st.data())
def test_any_range_is_the_slice(members: list[File], data: st.DataObject) -> None:
    whole = archive(members).tobytes()
    source = planned(members)
    limit = len(whole) + 10
    for _ in range(5):
        offset = data.draw(st.integers(0, limit), "offset")
        length = data.draw(st.integers(0, limit), "length")
        assert source.read_at(offset, length) == whole[offset : offset + length]


@given(files, st.integers(1, 100))
def test_reading_by_pieces_is_reading_at_once(members: list[File], length: int) -> None:
    assert b"".join(planned(members).chunks(length)) == archive(members).tobytes()


@given(sparse_files, st.data())
def test_plan_of_any_size(members: list[File], data: st.DataObject) -> None:
    """Beyond what memory holds: each piece is where a search through all segments finds it."""
    layout = layout_of(members)
    edges = [layout.size, *map(layout.header_offset, range(len(members)))]
    edges += map(layout.data_offset, range(len(members)))
    near = st.builds(int.__add__, st.sampled_from(edges), st.integers(-3, 3))
    offset = max(0, data.draw(st.one_of(near, st.integers(0, layout.size)), "offset"))
    end = max(offset, data.draw(st.one_of(near, st.integers(0, TOP)), "end"))
    position = offset
    numbers = [n for n, file in enumerate(members) if not file.is_folder]
    for piece in layout.plan(offset, end - offset):
        start = layout.data_offset(numbers[piece.source]) if isinstance(piece, Data) else None
        length = piece.length if isinstance(piece, Data) else len(piece)
        assert length > 0
        if isinstance(piece, Data) and start is not None:
            assert start + piece.offset == position
            size = members[numbers[piece.source]].size
            assert 0 <= piece.offset < piece.offset + length <= size
        else:
            inside = [
                n
                for n, file in enumerate(members)
                if 0 <= position - layout.data_offset(n) < file.size
            ]
            assert not inside
        position += length
    assert position == max(offset, min(end, layout.size))


@given(files, st.data())
def test_filling_a_view_is_the_slice_as_far_as_sources_give(
    members: list[File], data: st.DataObject
) -> None:
    """Whatever a source leaves out ends it: nothing behind the gap is asked for."""
    layout, whole = layout_of(members), archive(members).tobytes()
    offset = data.draw(st.integers(0, len(whole)), "offset")
    length = data.draw(st.integers(0, len(whole) - offset), "length")
    missing = data.draw(st.sampled_from([0, 0, 0, 1, 7]), "missing")
    ended = False

    def read(source: int, start: int, part: memoryview) -> int:
        nonlocal ended
        assert not ended
        found = sources(members)[source].data[start : start + max(0, len(part) - missing)]
        part[: len(found)] = found
        ended = len(found) < len(part)
        return len(found)

    view = memoryview(bytearray(b"\xee" * length))
    filled = fill(layout.plan(offset, length), view, read)
    assert view[:filled] == whole[offset : offset + filled]
    assert set(view[filled:]) <= {0xEE}
    assert ended == (filled < length)


@given(files)
def test_strict_reader_gives_the_members_back(members: list[File]) -> None:
    entries = read_archive(planned(members), check_data=True)
    assert [
        (entry.name.encode(), entry.size, entry.crc32, entry.executable) for entry in entries
    ] == [(file.name, file.size, file.crc32, file.executable) for file in members]
    # Wherever both are there, DOS time is the exact one's; where one isn't, it is all there is.
    assert [
        entry.mtime if entry.mtime is not None else int(entry.dos_time.timestamp())
        for entry in entries
    ] == [file.mtime for file in members]


@given(sparse_files)
def test_strict_reader_takes_any_size(members: list[File]) -> None:
    layout = layout_of(members)
    entries = read_archive(PlannedArchive(layout))
    assert [(entry.name.encode(), entry.size, entry.data_offset) for entry in entries] == [
        (file.name, file.size, layout.data_offset(n)) for n, file in enumerate(members)
    ]
    expected = archive(members)
    assert expected.size == layout.size
    directory = max((entry.data_offset + entry.size for entry in entries), default=0)
    tail = PlannedArchive(layout).read_at(directory, layout.size)
    assert tail == expected.read_at(directory, layout.size)


@given(files)
def test_python_gives_the_members_back(members: list[File]) -> None:
    with zipfile.ZipFile(io.BytesIO(planned(members).readall())) as reader:
        assert reader.testzip() is None
        infos = reader.infolist()
        assert [reader.read(info) for info in infos] == [file.data for file in members]
    assert [
        (info.orig_filename.encode(), info.file_size, info.CRC, info.compress_type, info.flag_bits)
        for info in infos
    ] == [
        (file.name, file.size, file.crc32, 0, 0 if file.name.isascii() else 1 << 11)
        for file in members
    ]


@given(files.flatmap(lambda members: st.tuples(st.just(members), st.permutations(members))))
def test_order_moves_members_and_changes_nothing_in_them(
    pair: tuple[list[File], list[File]],
) -> None:
    one, other = pair
    archives = [planned(members) for members in pair]
    assert archives[0].size == archives[1].size
    assert (archives[0].readall() == archives[1].readall()) is (one == other)
    found = [
        {
            (entry.name, entry.size, entry.crc32, entry.dos_time, entry.mtime)
            for entry in read_archive(each)
        }
        for each in archives
    ]
    assert found[0] == found[1]


@given(times | st.integers(-(1 << 70), 1 << 70))
def test_dos_time_is_the_calendars(mtime: int) -> None:
    assert records.dos_date_time(mtime) == dos_date_time(mtime)


@given(st.integers(-(1 << 70), 1 << 70))
def test_archive_time_is_stable(mtime: int) -> None:
    """What an archive can state, it states; and what it can't, goes to the nearest."""
    stated = archive_time(mtime)
    assert archive_time(stated) == stated
    assert dos_date_time(stated) == dos_date_time(mtime)
