"""Bytes and validators change together, and only together (DESIGN V1, V2)."""

from __future__ import annotations

from dataclasses import replace

import xxhash
from hypothesis import given
from hypothesis import strategies as st

from tests.planned import PlannedArchive, held
from tests.property.strategies import files, names, times
from tests.reference import File
from zipfs.archive import validators
from zipfs.archive.layout import Layout
from zipfs.archive.records import DOS_MIN, Member, archive_time
from zipfs.archive.validators import DAY, NANOSECONDS

contents = st.integers(0, (1 << 128) - 1)
dates = st.integers(DOS_MIN, 1 << 32)


def archive_of(members: list[File]) -> tuple[Layout, bytes, int]:
    """Layout, bytes and content id of the archive of *members*, with times as a disk has them."""
    layout = Layout(
        Member(
            name=file.name,
            size=file.size,
            mtime=archive_time(file.mtime),
            crc32=file.crc32,
            executable=file.executable,
        )
        for file in members
    )
    data = [file.data for file in members if isinstance(file.data, bytes) and not file.is_folder]
    digests = [xxhash.xxh3_128_digest(content) for content in data]
    whole = PlannedArchive(layout, held(data)).readall()
    return layout, whole, validators.content_id(layout, digests)


@st.composite
def changed(draw: st.DrawFn, members: list[File]) -> list[File]:
    """*members* with something otherwise; or, now and then, nothing."""
    members = list(members)
    if not members:
        return draw(files)
    n = draw(st.integers(0, len(members) - 1))
    one = members[n]
    assert isinstance(one.data, bytes)
    kinds = ["time", "second", "name", "order", "less", "kind"]
    if not any(file.is_folder for file in members[n : n + 2]):
        kinds += ["data", "boundary", "executable"]
    kind = draw(st.sampled_from(kinds))
    if kind == "data":
        members[n] = replace(one, data=draw(st.binary(max_size=60)))
    elif kind == "time":
        members[n] = replace(one, mtime=draw(times))
    elif kind == "second":
        members[n] = replace(one, mtime=one.mtime + draw(st.sampled_from([-1, 1])))
    elif kind == "name":
        name = draw(names)
        if name not in {file.name.removesuffix(b"/") for file in members}:
            members[n] = replace(one, name=name)
    elif kind == "kind":
        name = one.name.removesuffix(b"/") if one.is_folder else one.name + b"/"
        members[n] = File(name=name, mtime=one.mtime)
    elif kind == "executable":
        members[n] = replace(one, executable=not one.executable)
    elif kind == "order":
        members = draw(st.permutations(members))
    elif kind == "less":
        del members[n]
    elif n + 1 < len(members):
        after = members[n + 1]
        assert isinstance(after.data, bytes)
        joined = one.data + after.data
        cut = draw(st.integers(0, len(joined)))
        members[n] = replace(one, data=joined[:cut])
        members[n + 1] = replace(after, data=joined[cut:])
    return members


@given(files.flatmap(lambda members: st.tuples(st.just(members), changed(members))))
def test_content_id_differs_exactly_if_bytes_do(pair: tuple[list[File], list[File]]) -> None:
    (one, bytes_one, id_one), (other, bytes_other, id_other) = map(archive_of, pair)
    assert (id_one == id_other) is (bytes_one == bytes_other)
    if id_one == id_other:
        # V2: then all that is made of it is equal as well.
        assert validators.date(one) == validators.date(other)
        assert one.size == other.size


@given(dates, contents)
def test_mtime_is_of_the_day(newest: int, content: int) -> None:
    seconds = validators.first_mtime(newest, content)
    assert 0 <= newest - seconds < DAY
    whole, nanoseconds = divmod(validators.mtime_ns(seconds, content), NANOSECONDS)
    assert whole == seconds
    # Seconds and nanoseconds are different bits: together they tell more contents apart.
    assert (newest - seconds) + DAY * nanoseconds == content % (DAY * NANOSECONDS)


@given(
    st.lists(st.tuples(st.sampled_from([DOS_MIN, 10**9, 10**9 + DAY]), st.integers(0, 4 * DAY)),
             max_size=40),
)  # fmt: skip
def test_no_two_versions_share_a_second(versions: list[tuple[int, int]]) -> None:
    """V1 and V2, with the index's memory: A, B, A gives A's time again, and never B's."""
    issued: dict[tuple[int, int], int] = {}
    for newest, content in versions:
        # Few contents for few seconds, so that they clash.
        version = (newest, content % 5 * DAY + content % 3)
        if version not in issued:
            taken = set(issued.values())
            issued[version] = validators.resolve_clash(newest, version[1], taken.__contains__)
    assert len(set(issued.values())) == len(issued)
    for (newest, content), seconds in issued.items():
        assert (newest - seconds) % DAY == content % DAY
        assert seconds <= newest


@given(st.binary(min_size=1, max_size=20), st.binary(max_size=40), st.binary(max_size=16))
def test_inode_is_a_number_for_a_node(kind: bytes, path: bytes, version: bytes) -> None:
    inode = validators.inode(kind, path, version)
    assert validators.ROOT_INODE < inode < 1 << 64
    assert inode != validators.inode(kind, path, version + b"\1")
    assert inode != validators.inode(kind, path + b"x", version)


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 62))
def test_etags_tell_time_and_size(seconds: int, size: int) -> None:
    time_digits, _, size_digits = validators.nginx_etag(seconds, size).strip('"').partition("-")
    assert (int(time_digits, 16), int(size_digits, 16)) == (seconds, size)
    both = validators.caddy_etag(seconds, size)
    assert both == validators.caddy_etag(seconds, 0)[:-2] + validators.caddy_etag(0, size)[2:]
    assert int(validators.caddy_etag(0, size)[2:-1], 36) == size
