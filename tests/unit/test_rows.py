"""Seals of the index's rows: what they are made of stays what it is, for indexes that are there."""

from __future__ import annotations

import struct

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from zipfs.index.rows import Bind, seal_of, signed, verifies

VALUES = st.lists(
    st.binary(max_size=40)
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.sampled_from([bytes(511), bytes(512), bytes(513), bytes(5000)])
)


@given(VALUES)
def test_a_seal_is_of_all_values_and_of_their_lengths(values: list[Bind]) -> None:
    data = b"".join(
        struct.pack("<q", value)
        if isinstance(value, int)
        else struct.pack("<Q", len(value)) + value
        for value in values
    )
    seal = seal_of(*values)
    assert seal == signed(xxhash.xxh3_64_intdigest(data))
    assert verifies((*values, seal))
    assert not verifies((*values, seal ^ 1))


def test_the_seal_of_a_row_as_released() -> None:
    assert seal_of(b"roms/psx/game", 1, -1, bytes(600), b"") == 644421017680899927


@pytest.mark.parametrize("value", [None, 1.5, "text", 1 << 63, [1]])
def test_what_no_row_has_does_not_verify(value: object) -> None:
    assert not verifies((b"a", value, 0))  # type: ignore[arg-type]  # as a damaged row
