"""What verifying has found, described: in lines for people, as JSON for programs."""

from __future__ import annotations

from typing import Any, Final

from zipfs.ops.verify.comparing import ranges
from zipfs.ops.verify.verified import Finding, Memory, Round
from zipfs.text import date, shown

_SHOWN: Final = 8
"""Stretches of a file, or archives, that are named in a line."""
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


def line(finding: Finding) -> str:
    """One line: the file, what is wrong with it and where, and what to do."""
    parts = [f"{shown(finding.path)} {_WHAT[finding.kind]}"]
    if finding.error:
        parts.append(f" ({finding.error})")
    if finding.blocks:
        stretches = [
            f"{start // _MIB}-{-(-(start + length) // _MIB)}"
            for start, length in ranges(finding.blocks, finding.state.size)
        ]
        parts.append(f" at MiB {_few(stretches)} of {-(-finding.state.size // _MIB)}")
    if finding.found_crc32 is not None:
        parts.append(f": CRC-32 {finding.found_crc32:08x} instead of {finding.crc32:08x}")
        if finding.found_digest is not None:
            parts.append(f", XXH3 {finding.found_digest.hex()} instead of {finding.digest.hex()}")
    if finding.archives:
        parts.append(f"; it is in {_few(list(map(shown, finding.archives)))}")
    parts.append(f"; {_REMEDY[finding.kind]}")
    return "".join(parts)


def _few(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def as_json(memory: Memory) -> dict[str, Any]:
    """All that stands; sizes and offsets in bytes, dates in UTC."""
    return {
        "round": memory.round and round_as_json(memory.round),
        "last_round": memory.last and round_as_json(memory.last),
        "findings": [finding_as_json(finding) for _, finding in sorted(memory.findings.items())],
    }


def round_as_json(round_: Round) -> dict[str, Any]:
    return {
        "began": date(round_.began),
        "ended": None if round_.ended is None else date(round_.ended),
        "seconds": round(round_.seconds, 3),
        "verified": {"files": round_.verified, "bytes": round_.size},
        "done_bytes": round_.passed,
        "changed": round_.changed,
        "gone": round_.gone,
        "refused": round_.refused,
        "unhashed": round_.unhashed,
    }


def finding_as_json(finding: Finding) -> dict[str, Any]:
    found = finding.found_crc32, finding.found_digest
    return {
        "path": shown(finding.path),
        "kind": finding.kind,
        "archives": list(map(shown, finding.archives)),
        "size": finding.state.size,
        "expected": {"crc32": f"{finding.crc32:08x}", "xxh3_128": finding.digest.hex()},
        "found": {
            "crc32": None if found[0] is None else f"{found[0]:08x}",
            "xxh3_128": None if found[1] is None else found[1].hex(),
        },
        "blocks": [
            {"offset": start, "length": length}
            for start, length in ranges(finding.blocks, finding.state.size)
        ],
        "error": finding.error or None,
        "found_at": date(finding.seconds),
    }


def left_out(round_: Round) -> str:
    """What of a round wasn't verified, and why; nothing if all was."""
    reasons = (
        (round_.changed, "changed since they were hashed"),
        (round_.gone, "gone"),
        (round_.refused, "may not be read"),
        (round_.unhashed or 0, "not hashed yet"),
    )
    return ", ".join(f"{count} {reason}" for count, reason in reasons if count)
