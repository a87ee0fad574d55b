"""What the index remembers of games' archives, and whether they still are that.

An archive depends on what a scan of its game finds, and on settings. A scan takes time: it makes a
file of each name, decides whether it belongs, and so on. All that it goes by is in the folder's
*tree*, a checksum of names and stat results (:mod:`zipfs.library.tree`). So a game is as it was if
its tree is; where it isn't, or there is none, since links or lists have part in it, the scan shows
whether it found the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet

import xxhash

from zipfs import __version__
from zipfs.archive.records import FORMAT_VERSION
from zipfs.index.rows import Made
from zipfs.library.rules.general import Policy
from zipfs.library.scan import GameScan
from zipfs.sealing.outcomes import Sealed, Version, archive_inode
from zipfs.system.permissions import Access


class Remembered:
    """Keys of archives, by *settings* of whatever kind that they depend on."""

    def __init__(self, *settings: object) -> None:
        self._settings = canonical((FORMAT_VERSION, __version__, settings)).encode()
        self._policy: tuple[Policy | None, bytes] = None, b""

    def key(self, archive: bytes, scan: GameScan, fingerprint: bytes, policy: Policy) -> bytes:
        """XXH3-128 of all that *archive* depends on, by what *scan* has found."""
        how = repr((policy.platform(scan.game), scan.depth, scan.playlists)).encode()
        return xxhash.xxh3_128_digest(b"\0".join((fingerprint, self._settings, how, archive)))

    def tree_key(self, archive: bytes, tree: bytes, policy: Policy) -> bytes:
        """The same by a *tree*; empty if there is none."""
        if not tree:
            return b""
        of, text = self._policy
        if of is not policy:
            text = canonical(policy).encode()
            self._policy = policy, text
        return xxhash.xxh3_128_digest(b"\0".join((tree, self._settings, text, archive)))


def made_of(version: Version, fingerprint: bytes, tree_key: bytes) -> Made:
    """What is to be remembered of *version*."""
    sealed = version.sealed
    return Made(
        tree_key,
        version.key,
        fingerprint,
        sealed.path,
        sealed.content,
        sealed.size,
        sealed.mtime_ns,
        sealed.count,
        *sealed.access,
    )


def sealed_as(made: Made, access: Access | None = None) -> Sealed:
    """The archive that was *made*, with another *access* if one is given."""
    return Sealed(
        path=made.archive,
        content=made.content,
        inode=archive_inode(made.archive, made.content),
        size=made.size,
        mtime_ns=made.mtime_ns,
        access=access or Access(made.mode, made.uid, made.gid),
        count=made.members,
    )


def canonical(value: object) -> str:
    """A text that is the same for equal settings, in any process."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = (field.name for field in dataclasses.fields(value))
        return f"{type(value).__name__}({', '.join(canonical(getattr(value, n)) for n in names)})"
    if isinstance(value, str | bytes | int | float | None):
        return repr(value)
    if isinstance(value, Mapping):
        return f"dict{canonical(frozenset(map(canonical, value.items())))}"
    if isinstance(value, AbstractSet):
        return f"{{{', '.join(sorted(map(canonical, value)))}}}"
    if isinstance(value, Collection):
        return f"[{', '.join(map(canonical, value))}]"
    return f"{type(value).__name__}{canonical(vars(value))}"
