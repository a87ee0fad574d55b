"""Comparing what was read with what was known, in pieces of any size."""

from __future__ import annotations

import zlib

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from tests.support.libraries import content
from zipfs.library.filestate import BLOCK, Checksums
from zipfs.ops.verify.comparing import Comparison, ranges

SIZE = 5 * BLOCK + 17
DATA = content(SIZE, "compared")


def checksums(data: bytes, *, blocks: bool = True) -> Checksums:
    hashes = b"".join(
        xxhash.xxh3_64_digest(data[start : start + BLOCK]) for start in range(0, len(data), BLOCK)
    )
    return Checksums(
        zlib.crc32(data),
        xxhash.xxh3_128_digest(data),
        hashes if blocks and len(data) > BLOCK else b"",
    )


def damaged(*offsets: int) -> bytes:
    data = bytearray(DATA)
    for offset in offsets:
        data[offset] ^= 1
    return bytes(data)


def compared(data: bytes, known: Checksums, *, cuts: list[int]) -> Comparison:
    """*data* compared in pieces that end at *cuts*."""
    comparison = Comparison(len(data), known)
    for end in [*cuts, len(data)]:
        comparison.feed(memoryview(data)[comparison.offset : end])
    return comparison


@given(cuts=st.sets(st.integers(1, 5)), bad=st.sets(st.integers(0, SIZE - 1), max_size=3))
def test_damage_is_found_and_named_however_it_is_read(cuts: set[int], bad: set[int]) -> None:
    data = damaged(*bad)
    comparison = compared(data, checksums(DATA), cuts=[cut * BLOCK for cut in sorted(cuts)])
    assert comparison.is_done
    assert comparison.matches == (not bad)
    assert comparison.bad == sorted({offset // BLOCK for offset in bad})
    assert comparison.crc32 == zlib.crc32(data)
    assert comparison.digest == xxhash.xxh3_128_digest(data)


@pytest.mark.parametrize("blocks", [False, True])
def test_without_checksums_of_blocks_it_is_only_known_that_it_is_damaged(blocks: bool) -> None:
    comparison = compared(damaged(BLOCK), checksums(DATA, blocks=blocks), cuts=[])
    assert not comparison.matches
    assert comparison.has_blocks == blocks
    assert comparison.bad == ([1] if blocks else [])


def test_crc_32_alone_tells_of_damage() -> None:
    known = checksums(DATA)
    assert compared(DATA, known, cuts=[]).matches
    assert not compared(DATA, known._replace(crc32=known.crc32 ^ 1), cuts=[]).matches
    assert not compared(DATA, known._replace(digest=bytes(16)), cuts=[]).matches


def test_what_could_not_be_read_never_matches() -> None:
    comparison = Comparison(SIZE, checksums(DATA))
    comparison.feed(memoryview(DATA)[: 2 * BLOCK])
    comparison.skip(BLOCK)
    comparison.feed(memoryview(DATA)[3 * BLOCK :])
    assert comparison.is_done
    assert not comparison.matches
    assert (comparison.unread, comparison.bad, comparison.digest) == ([2], [], None)


def test_an_empty_file() -> None:
    comparison = Comparison(0, checksums(b""))
    assert comparison.is_done
    assert comparison.matches
    assert not comparison.has_blocks


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([], []),
        ([0], [(0, BLOCK)]),
        ([3, 1, 2], [(BLOCK, 3 * BLOCK)]),
        ([0, 2, 5], [(0, BLOCK), (2 * BLOCK, BLOCK), (5 * BLOCK, 17)]),
    ],
)
def test_stretches_of_blocks(blocks: list[int], expected: list[tuple[int, int]]) -> None:
    assert list(ranges(blocks, SIZE)) == expected
