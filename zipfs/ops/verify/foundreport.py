"""Formats the results of verifying: lines for people, JSON for programs."""

from __future__ import annotations

from typing import Any, Final

from zipfs.ops.verify.comparing import ranges
from zipfs.ops.verify.verified import BadFile, Memory, Round
from zipfs.text import date, shown

_SHOWN: Final = 8
"""Most ranges of a file, or archives, that a line names."""
_MIB: Final = 1 << 20
_WHAT: Final = {
    "damaged": "is damaged",
    "unreadable": "can't be read",
    "unstable": "was read wrong at first, and right the second time",
}
_REMEDY: Final = {
    "damaged": "restore it from a backup",
    "unreadable": "see what the disk's health is, and restore it from a backup",
    "unstable": "suspect memory, cable and controller before the disk",
}


def line(bad_file: BadFile) -> str:
    """One line: the file, the kind and place of the damage, and the remedy."""
    parts = [f"{shown(bad_file.path)} {_WHAT[bad_file.kind]}"]
    if bad_file.error:
        parts.append(f" ({bad_file.error})")
    if bad_file.blocks:
        stretches = [
            f"{start // _MIB}-{-(-(start + length) // _MIB)}"
            for start, length in ranges(bad_file.blocks, bad_file.state.size)
        ]
        parts.append(f" at MiB {_few(stretches)} of {-(-bad_file.state.size // _MIB)}")
    if bad_file.found_crc32 is not None:
        parts.append(f": CRC-32 {bad_file.found_crc32:08x} instead of {bad_file.crc32:08x}")
        if bad_file.found_digest is not None:
            parts.append(f", XXH3 {bad_file.found_digest.hex()} instead of {bad_file.digest.hex()}")
    if bad_file.archives:
        parts.append(f"; it is in {_few(list(map(shown, bad_file.archives)))}")
    parts.append(f"; {_REMEDY[bad_file.kind]}")
    return "".join(parts)


def _few(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def as_json(memory: Memory) -> dict[str, Any]:
    """The rounds and all bad files; sizes and offsets in bytes, dates in UTC."""
    return {
        "round": memory.round and round_as_json(memory.round),
        "last_round": memory.last and round_as_json(memory.last),
        "findings": [bad_file_as_json(found) for _, found in sorted(memory.bad_files.items())],
    }


def round_as_json(round_: Round) -> dict[str, Any]:
    return {
        "began": date(round_.began.timestamp()),
        "ended": None if round_.ended is None else date(round_.ended.timestamp()),
        "seconds": round(round_.seconds, 3),
        "verified": {"files": round_.verified, "bytes": round_.size},
        "done_bytes": round_.passed,
        "changed": round_.changed,
        "gone": round_.gone,
        "refused": round_.refused,
        "unhashed": round_.unhashed,
    }


def bad_file_as_json(bad_file: BadFile) -> dict[str, Any]:
    found = bad_file.found_crc32, bad_file.found_digest
    return {
        "path": shown(bad_file.path),
        "kind": bad_file.kind,
        "archives": list(map(shown, bad_file.archives)),
        "size": bad_file.state.size,
        "expected": {"crc32": f"{bad_file.crc32:08x}", "xxh3_128": bad_file.digest.hex()},
        "found": {
            "crc32": None if found[0] is None else f"{found[0]:08x}",
            "xxh3_128": None if found[1] is None else found[1].hex(),
        },
        "blocks": [
            {"offset": start, "length": length}
            for start, length in ranges(bad_file.blocks, bad_file.state.size)
        ],
        "error": bad_file.error or None,
        "found_at": date(bad_file.found_at.timestamp()),
    }


def not_verified(round_: Round) -> str:
    """Numbers of files that weren't verified in a round, by reason; empty if all were."""
    reasons = (
        (round_.changed, "changed since they were hashed"),
        (round_.gone, "gone"),
        (round_.refused, "may not be read"),
        (round_.unhashed or 0, "not hashed yet"),
    )
    return ", ".join(f"{count} {reason}" for count, reason in reasons if count)
