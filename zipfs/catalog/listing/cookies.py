"""Cookies of listings: the places from which readdir(3) and NFS's READDIR continue.

They are functions of the names, so they hold in any later listing, of another opendir(3) or
another daemon: whoever pages through a folder is told each name once that is there all the time,
whatever else comes and goes (DESIGN F1). Pure.

In the order of hashes the first name is known when the last one was read. So some *first names* of
a large folder are told before all others, and the last bits of a cookie are a *tag* of them: who
continues from one is told the others without them. With another tag he wasn't told those, and so
he is told all that have a higher hash.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import xxhash

MOST_FIRST: Final = 64
"""How many first names there are at most."""
_BITS: Final = 16
"""Of a tag. By one that is the same by chance, whoever continues misses names."""
_FIRST_HASHED: Final = 1 << 8
"""Lower ones are those of first names. 0 is the beginning, and NFSv4 has a use of its own for 1 and
2: RFC 8881, 18.23.3."""
_HASHED: Final = (1 << 63 - _BITS) - (1 << 24)
"""Cookies are positive in off_t; the highest are left to collisions."""


def cookies(names: Collection[bytes]) -> tuple[list[int], dict[int, bytes]]:
    """The cookies of the different *names*, in their order, and the name of each.

    A cookie is a hash of the name, in 47 bits, and no tag. Of several names with one hash, which is
    one chance in 28,000 in a folder with 100,000 names, all but the first have the next free ones.
    """
    hashed = _hashed(names)
    by_cookie = {number << _BITS: name for number, name in zip(hashed, names, strict=True)}
    if len(by_cookie) == len(names):
        return sorted(by_cookie), by_cookie
    by_cookie = {}
    last = 0
    for number, name in sorted(zip(hashed, names, strict=True)):
        last = number if number > last else last + 1
        by_cookie[last << _BITS] = name
    return list(by_cookie), by_cookie


def first_cookies(first: Collection[bytes]) -> dict[int, bytes]:
    """The cookies of *first* names, in their order, without a tag."""
    return {number << _BITS: name for number, name in enumerate(first, 1)}


def tag(first: Collection[bytes]) -> int:
    """The tag of these *first* names; 0 if there are none."""
    if not first:
        return 0
    return 1 + xxhash.xxh3_64_intdigest(b"/".join(first)) % ((1 << _BITS) - 1)


def split(cookie: int) -> tuple[int, int]:
    """The cookie without its tag, and the tag."""
    own = cookie & (1 << _BITS) - 1
    return cookie - own, own


def is_first(cookie: int) -> bool:
    """Whether *cookie* is that of a first name."""
    return 0 < cookie >> _BITS < _FIRST_HASHED


def _hashed(names: Collection[bytes]) -> list[int]:
    digest = xxhash.xxh3_64_intdigest  # 100,000 at a time
    return [_FIRST_HASHED + digest(name) % _HASHED for name in names]
