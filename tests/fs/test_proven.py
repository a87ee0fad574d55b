"""Blocks proven by their checksums: what is kept is right, and there is never too much of it."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import xxhash

from tests.support.libraries import content
from zipfs.library import proven as proven_module
from zipfs.library.filestate import BLOCK
from zipfs.library.proven import ProvenBlocks

SIZE = 5 * BLOCK + 123
DATA = content(SIZE, "proven")
DIGEST = xxhash.xxh3_128_digest(DATA)
CHECKSUMS = b"".join(
    xxhash.xxh3_64_digest(DATA[start : start + BLOCK]) for start in range(0, SIZE, BLOCK)
)


def block_of(proven: ProvenBlocks, start: int) -> memoryview:
    block = proven.buffer(min(BLOCK, SIZE - start))
    block[:] = DATA[start : start + BLOCK]
    return block


def checksums(digest: bytes) -> bytes | None:
    return CHECKSUMS if digest == DIGEST else None


def test_what_is_right_is_kept() -> None:
    proven = ProvenBlocks(checksums)
    view = memoryview(bytearray(100))
    for start in range(0, SIZE, BLOCK):
        assert not proven.copy(DIGEST, start, 7, view)
        assert proven.add(DIGEST, SIZE, start, block_of(proven, start))
        assert proven.copy(DIGEST, start, 7, view)
        assert view == DATA[start + 7 : start + 107]
        assert not proven.copy(bytes(16), start, 7, view)


@pytest.mark.parametrize("at", [0, BLOCK // 2, BLOCK - 1])
def test_what_is_wrong_is_not(at: int) -> None:
    proven = ProvenBlocks(checksums)
    block = block_of(proven, BLOCK)
    block[at] ^= 1
    assert not proven.add(DIGEST, SIZE, BLOCK, block)
    assert not proven.copy(DIGEST, BLOCK, 0, memoryview(bytearray(1)))
    # Another block of the same file, which has the right bytes of another place.
    assert not proven.add(DIGEST, SIZE, 2 * BLOCK, block_of(proven, BLOCK))


@pytest.mark.parametrize("size", [0, 1, BLOCK])
def test_a_file_of_one_block_is_proven_by_its_own_checksum(size: int) -> None:
    proven = ProvenBlocks(lambda _: None)
    data = DATA[:size]
    digest = xxhash.xxh3_128_digest(data)
    block = proven.buffer(size)
    block[:] = data
    assert proven.add(digest, size, 0, block)
    assert not proven.add(DIGEST, size, 0, memoryview(bytearray(data)))


@pytest.mark.parametrize("known", [None, b"", CHECKSUMS[:-8], CHECKSUMS + bytes(8)])
def test_without_its_checksums_nothing_is_right(known: bytes | None) -> None:
    proven = ProvenBlocks(lambda _: known)
    assert not proven.add(DIGEST, SIZE, 0, block_of(proven, 0))


def test_the_checksums_of_a_file_are_read_once() -> None:
    asked = []

    def counted(digest: bytes) -> bytes | None:
        asked.append(digest)
        return checksums(digest)

    proven = ProvenBlocks(counted)
    for start in range(0, SIZE, BLOCK):
        assert proven.add(DIGEST, SIZE, start, block_of(proven, start))
    assert asked == [DIGEST]


def test_no_more_is_kept_than_allowed() -> None:
    proven = ProvenBlocks(checksums, 2 * BLOCK)
    view = memoryview(bytearray(1))
    for start in (0, BLOCK, 2 * BLOCK):
        assert proven.add(DIGEST, SIZE, start, block_of(proven, start))
    kept = [proven.copy(DIGEST, start, 0, view) for start in (0, BLOCK, 2 * BLOCK)]
    assert kept == [False, True, True]
    assert proven.add(DIGEST, SIZE, 0, block_of(proven, 0))
    kept = [proven.copy(DIGEST, start, 0, view) for start in (0, BLOCK, 2 * BLOCK)]
    assert kept == [True, False, True]


def test_very_many_small_ones_are_no_more_than_allowed() -> None:
    proven = ProvenBlocks(checksums, 100_000)
    for number in range(1000):
        data = memoryview(bytearray(b"%d" % number))
        assert proven.add(xxhash.xxh3_128_digest(data), len(data), 0, data)
    assert 100 < len(proven) < 200


def test_what_has_to_be_read_again_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the daemon's memory grows with what was ever read at a time."""
    clock = [1000.0]
    monkeypatch.setattr(proven_module.time, "monotonic", lambda: clock[0])
    proven = ProvenBlocks(checksums)
    for start in (0, BLOCK, 2 * BLOCK):
        assert proven.add(DIGEST, SIZE, start, block_of(proven, start))
        clock[0] += 1
    left = []
    clock[0] += proven_module.LIFETIME - 4
    for _ in range(5):
        proven.drop_old()
        left.append(len(proven))
        clock[0] += 1
    assert left == [3, 2, 1, 0, 0]


def test_what_is_kept_is_read_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(proven_module.time, "monotonic", lambda: clock[0])
    proven = ProvenBlocks(checksums)
    view = memoryview(bytearray(1))
    assert proven.add(DIGEST, SIZE, 0, block_of(proven, 0))
    clock[0] += proven_module.LIFETIME - 1
    assert proven.copy(DIGEST, 0, 0, view)  # to be read doesn't make it younger
    clock[0] += 1
    assert not proven.copy(DIGEST, 0, 0, view)
    assert proven.add(DIGEST, SIZE, 0, block_of(proven, 0))
    assert proven.copy(DIGEST, 0, 0, view)
    clock[0] += 1
    assert proven.add(DIGEST, SIZE, 0, block_of(proven, 0))
    clock[0] += proven_module.LIFETIME - 1
    assert proven.copy(DIGEST, 0, 0, view)


def test_many_threads_get_no_bytes_of_another_block() -> None:
    """With room for two blocks, buffers are used again all the time."""
    proven = ProvenBlocks(checksums, 2 * BLOCK)
    begin = threading.Barrier(4)

    def read(seed: int) -> None:
        chance = random.Random(seed)
        begin.wait()
        for _ in range(200):
            start = chance.randrange(0, SIZE, BLOCK)
            length = min(4096, SIZE - start)
            offset = chance.randrange(0, min(BLOCK, SIZE - start) - length + 1)
            view = memoryview(bytearray(length))
            if not proven.copy(DIGEST, start, offset, view):
                block = block_of(proven, start)
                view[:] = block[offset : offset + length]
                assert proven.add(DIGEST, SIZE, start, block)
            assert view == DATA[start + offset : start + offset + length]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(4)))
