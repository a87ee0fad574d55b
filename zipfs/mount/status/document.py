"""The state of a mount as one JSON document, made in the daemon.

Paths are quoted as in the log, so that they are text whatever bytes they have; sizes are in
bytes, durations in seconds, and dates in seconds since the epoch. ``null`` is what isn't known.
:data:`DOCUMENT` is raised when a key changes its meaning or goes.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any, Final

import trio

from zipfs import __version__
from zipfs.archive.records import FORMAT_VERSION
from zipfs.catalog.tree import Catalog
from zipfs.config import Settings
from zipfs.index.index import Index
from zipfs.index.indexfile import Facts
from zipfs.library.vouching import report
from zipfs.mount.fs import Operations
from zipfs.mount.metrics import BOUNDS, QUANTILES, Histogram, errno_name
from zipfs.mount.reader import Reader
from zipfs.mount.restart.succession import Succession
from zipfs.system.mounts import mounted_at
from zipfs.text import shown

if TYPE_CHECKING:
    from zipfs.index.shared.state import HeadFacts

DOCUMENT: Final = 1
_SECOND: Final = 1_000_000_000
_INDEX_PATIENCE: Final = 1.0
"""Seconds to wait for the index, which may be waiting for its disk."""


class Status:
    """Makes the document of the mount of *settings* at *path*."""

    def __init__(
        self,
        settings: Settings,
        path: str,
        index: Index,
        catalog: Catalog,
        reader: Reader,
        operations: Operations,
        succession: Succession | None = None,
    ) -> None:
        self._settings = settings
        self._path = path
        self._index = index
        self._catalog = catalog
        self._reader = reader
        self._operations = operations
        self._succession = succession
        self._asking = trio.CapacityLimiter(1)
        self._device: str | None = None

    async def document(self) -> bytes:
        """The document, JSON in UTF-8."""
        if self._device is None and (mount := mounted_at(self._path)):
            self._device = mount.device
        index = await self._index_facts()
        found = {
            **self._about(),
            "sources": self._sources(),
            "gone": self._gone(),
            "archives": self._archives(),
            "pending": self._pending(),
            "singles": {
                "waiting": self._catalog.singles.waiting,
                "hashed": self._catalog.singles.hashed,
            },
            "left_out": self._skipped(),
            "open": {
                "handles": self._operations.open_handles,
                "files": self._reader.open_files,
                "most_files": self._reader.most_files,
            },
            "stuck": {
                "looking": self._catalog.stuck,
                "reading": self._reader.stuck,
                "hashing": self._catalog.hasher.stuck,
            },
            **self._requests(),
            "restarts": self._restarts(),
            "index": _as_json(index[0]) if index else None,
            "shared_index": index[1]._asdict() if index and index[1] else None,
        }
        return json.dumps(found).encode()

    def _about(self) -> dict[str, Any]:
        settings = self._settings
        started = self._operations.metrics.started
        return {
            "document": DOCUMENT,
            "version": __version__,
            "format_version": FORMAT_VERSION,
            "pid": os.getpid(),
            "device": self._device,
            "library": shown(os.fsencode(os.path.abspath(settings.library))),
            "mountpoint": shown(os.fsencode(self._path)),
            "started": started,
            "uptime": max(0.0, time.time() - started),
            "options": {
                "selection": settings.selection,
                "watch": settings.watch,
                "watching": "poll" if self._catalog.polling else "events",
                "trust": settings.trust,
                "prove": settings.prove,
                "hash_singles": settings.hash_singles,
                "settle": settings.settle,
                "read_timeout": settings.read_timeout,
                "hash_rate": settings.hash_rate,
                "allow_other": settings.allow_other,
            },
        }

    def _sources(self) -> list[dict[str, Any]]:
        """The file systems that the library is on, and what vouches for bytes there."""
        return [
            {
                "path": shown(os.fsencode(mount.path)),
                "kind": mount.kind,
                "vouches": "content" if vouching.by_content else "state",
                "why": vouching.why,
            }
            for mount, vouching in report(self._catalog.presence.root, self._settings.prove)
        ]

    def _gone(self) -> list[dict[str, Any]]:
        return [
            {"path": shown(source), "reason": reason, "since": since}
            for source, reason, since in self._catalog.presence.gone
        ]

    def _archives(self) -> dict[str, Any]:
        totals = self._catalog.totals()
        return {"sealed": totals.archives, "members": totals.members, "bytes": totals.size}

    def _pending(self) -> dict[str, Any]:
        totals = self._catalog.totals()
        speed = self._catalog.hasher.speed
        rate = speed.now(time.monotonic())
        left: float | None = None
        if self._catalog.is_surveyed:  # before the first scan ends there may be more
            if not totals.pending_bytes:
                left = 0.0
            elif rate:
                left = totals.pending_bytes / rate
        return {
            "surveyed": self._catalog.is_surveyed,
            "games": totals.unsealed,
            "bytes": totals.pending_bytes,
            "bytes_per_second": rate,
            "seconds_left": left,
            "hashed_bytes": speed.total,
        }

    def _skipped(self) -> dict[str, Any]:
        skipped = self._catalog.skipped
        return {
            "count": len(skipped),
            "reasons": skipped.kinds,
            "newest": [
                {"path": shown(path), "reason": reason, "since": since}
                for path, reason, since in skipped.newest
            ],
        }

    def _requests(self) -> dict[str, Any]:
        metrics = self._operations.metrics
        errors = sorted(metrics.errors.items())
        return {
            "reads": {
                "bytes": metrics.bytes_read,
                "cached": metrics.cached.count,
                "waited": metrics.waited.count,
            },
            "requests": {name: _durations(found) for name, found in metrics.operations()},
            "errors": [
                {"operation": operation, "errno": errno_name(number), "count": count}
                for (operation, number), count in errors
            ],
        }

    def _restarts(self) -> dict[str, Any]:
        """The daemons of this mount before this one; ``holder`` is the process that keeps it."""
        succession = self._succession
        nodes = self._operations.nodes
        # zipfs.mount.status.unserved has some of these names, for when there is no daemon.
        return {
            "outlives": succession is not None and succession.lasts,
            "holder": succession.holder if succession else None,
            "count": succession.restarts if succession else 0,
            "attempt": succession.attempt[0] if succession else 0,
            "attempts": succession.attempt[1] if succession else 0,
            "outage": succession.outage if succession else None,
            "asked_again": succession.asked_again if succession else False,
            "reopened": self._operations.reopened,
            "found_again": nodes.found_again,
            "lost": nodes.lost,
            "failed": succession.failed if succession else 0,
            "remount_for": succession.remount_for if succession else [],
        }

    async def _index_facts(self) -> tuple[Facts, HeadFacts | None] | None:
        """Facts about the index, and about who shares it.

        None if it doesn't answer: it may be on a dead disk.
        """
        with trio.move_on_after(_INDEX_PATIENCE):
            return await trio.to_thread.run_sync(
                lambda: (self._index.facts(), self._index.head_facts()),
                limiter=self._asking,
                abandon_on_cancel=True,
            )
        return None


def _as_json(index: Facts) -> dict[str, Any]:
    return {**index._asdict(), "file": shown(os.fsencode(index.file))}


def _durations(histogram: Histogram) -> dict[str, Any]:
    """*histogram* in seconds; ``below`` pairs each bound with the number of shorter ones."""
    quantiles = {str(share): histogram.quantile(share) for share in QUANTILES}
    return {
        "count": histogram.count,
        "seconds": histogram.total / _SECOND,
        "longest": histogram.highest / _SECOND,
        "quantiles": {
            share: None if value is None else value / _SECOND for share, value in quantiles.items()
        },
        "below": [[bound / _SECOND, histogram.below(bound)] for bound in BOUNDS],
    }
