"""The status of a mount for Prometheus: :mod:`zipfs.mount.status.document` as metrics.

https://prometheus.io/docs/instrumenting/exposition_formats/ and, for the names,
https://prometheus.io/docs/practices/naming/: base units, ``_total`` for counters. Every series
has the mount point as a label, as the files that node_exporter collects must have no duplicate
series; none has a file or archive, as their number is unlimited.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

_Series = tuple[Mapping[str, str], float]
_INFINITE: Final = "+Inf"


def exposition(document: Mapping[str, Any]) -> str:
    """The metrics of *document*, as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Mount(document))
    return generate_latest(registry).decode()


class _Mount(Collector):
    """Metric families of one document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._mountpoint = str(document["mountpoint"])

    def collect(self) -> Iterator[Metric]:
        is_served = self._document.get("serving", True)
        yield self._gauge("up", "Whether a daemon answers for the mount.", is_served)
        if not is_served:
            yield from self._attempts(self._document["restarts"])
            return
        yield self._info()
        yield from self._state()
        yield from self._work()
        yield from self._requests()
        yield from self._restarts()
        yield from self._index()
        yield from self._shared_index()

    def _info(self) -> Metric:
        found = InfoMetricFamily("zipfs", "Version and settings of zipfs.", labels=["mountpoint"])
        document = self._document
        about = {name: str(document[name]) for name in ("version", "format_version", "library")}
        about |= {name: str(document["options"][name]) for name in ("selection", "watching")}
        found.add_metric([self._mountpoint], about)
        return found

    def _state(self) -> Iterator[Metric]:
        document, opened = self._document, self._document["open"]
        archives, stuck = document["archives"], document["stuck"]
        yield self._gauge(
            "start_time_seconds", "Start of the mount, Unix time.", document["started"]
        )
        yield self._gauge(
            "gone_places",
            "Disks that are not there: the library's, and those mounted in it.",
            len(document.get("gone", ())),
        )
        yield self._gauge("archives", "Sealed archives.", archives["sealed"])
        yield self._gauge("archive_members", "Members of all archives.", archives["members"])
        yield self._gauge("archive_size_bytes", "Size of all archives.", archives["bytes"])
        yield self._gauge("open_handles", "Files and archives that are open.", opened["handles"])
        yield self._gauge("pool_files", "Files of the library held open.", opened["files"])
        yield self._gauge("pool_files_limit", "Limit of zipfs_pool_files.", opened["most_files"])
        yield self._gauges(
            "stuck",
            "Threads and processes that wait for a disk that does not answer.",
            (({"doing": doing}, count) for doing, count in stuck.items()),
            ["doing"],
        )
        yield self._gauges(
            "left_out",
            "Skipped paths of the library, by reason.",
            (({"reason": reason}, n) for reason, n in document["left_out"]["reasons"].items()),
            ["reason"],
        )

    def _work(self) -> Iterator[Metric]:
        pending = self._document["pending"]
        yield self._gauge(
            "surveyed", "Whether the whole library has been scanned once.", pending["surveyed"]
        )
        yield self._gauge("unsealed_games", "Games without an archive yet.", pending["games"])
        yield self._gauge("unhashed_bytes", "Bytes still to hash.", pending["bytes"])
        yield self._counter("hashed_bytes", "Bytes hashed.", pending["hashed_bytes"])
        if singles := self._document.get("singles"):  # an older daemon says nothing of them
            yield self._gauge(
                "unhashed_singles", "Files outside archives still to hash.", singles["waiting"]
            )
            yield self._counter(
                "hashed_singles", "Files outside archives that were hashed.", singles["hashed"]
            )

    def _requests(self) -> Iterator[Metric]:
        document, reads = self._document, self._document["reads"]
        yield self._counter("read_bytes", "Bytes returned to readers.", reads["bytes"])
        yield self._counters(
            "reads",
            "Reads answered, by whether the data was in the page cache.",
            (({"cached": str(name == "cached").lower()}, reads[name]) for name in _READS),
            ["cached"],
        )
        yield self._counters(
            "errors",
            "Requests that ended in an error, by operation and errno.",
            (
                ({"operation": error["operation"], "errno": error["errno"]}, error["count"])
                for error in document["errors"]
            ),
            ["operation", "errno"],
        )
        durations = HistogramMetricFamily(
            "zipfs_request_duration_seconds",
            "Duration of the requests without an error, by operation.",
            labels=["mountpoint", "operation"],
        )
        for operation, found in document["requests"].items():
            buckets = [(str(bound), float(count)) for bound, count in found["below"]]
            buckets.append((_INFINITE, float(found["count"])))
            durations.add_metric([self._mountpoint, operation], buckets, found["seconds"])
        yield durations

    def _attempts(self, restarts: Mapping[str, Any]) -> Iterator[Metric]:
        yield self._gauge(
            "restart_attempt",
            "Which attempt to go on after a crash the daemon is, or the next one; 0: none.",
            restarts.get("attempt", 0),
        )
        yield self._gauge(
            "restart_attempts_limit",
            "Attempts within two minutes after which the mount is taken away.",
            restarts.get("attempts", 0),
        )
        yield self._gauge(
            "restart_pause_seconds", "Time until the next attempt.", restarts.get("starts_in") or 0
        )

    def _restarts(self) -> Iterator[Metric]:
        found = self._document.get("restarts")  # an older daemon says nothing of it
        if found is None:
            return
        yield from self._attempts(found)
        yield self._counter("restarts", "Daemons that this mount had before.", found["count"])
        if found["outage"] is not None:
            yield self._gauge(
                "last_outage_seconds",
                "Time without a daemon before the current one.",
                found["outage"],
            )
        yield self._gauge(
            "asked_again",
            "Whether the kernel asked the current daemon what the one before had not answered.",
            found["asked_again"],
        )
        yield self._counter(
            "reopened", "Files and folders opened again after a restart.", found["reopened"]
        )
        yield self._counter(
            "lost", "Files and folders that a restart has made stale.", found["lost"]
        )
        yield self._counter("failed_restarts", "Daemons that failed to take over.", found["failed"])

    def _index(self) -> Iterator[Metric]:
        index = self._document["index"]
        yield self._gauge("index_up", "Whether the index of checksums answers.", index is not None)
        if index is None:
            return
        yield self._gauge("index_size_bytes", "Size of the index on disk.", index["size"])
        yield self._gauge("index_saving", "Whether checksums are saved.", index["saving"])
        yield self._counter(
            "index_rows_checked", "Rows of the index that were read.", index["rows_checked"]
        )
        yield self._counter(
            "index_rows_dropped", "Damaged rows among those read.", index["rows_dropped"]
        )
        yield self._counter(
            "index_set_aside", "Times that an unusable index was set aside.", index["set_aside"]
        )

    def _shared_index(self) -> Iterator[Metric]:
        shared = self._document.get("shared_index")  # an older daemon says nothing of it
        if shared is None:
            return
        yield self._gauges(
            "shared_index_mode",
            "What this head does with the shared index: 1 for the current mode.",
            (({"mode": mode}, mode == shared["mode"]) for mode in _MODES),
            ["mode"],
        )
        yield self._gauge("shared_index_heads", "Heads that are alive.", shared["heads"])
        yield self._gauge(
            "shared_index_waiting_rows", "Rows still to be saved there.", shared["waiting"]
        )
        yield self._gauge(
            "shared_index_unlike_files",
            "Files with other inodes or times here than on other heads.",
            shared["unlike"],
        )
        yield self._counter("shared_index_rows_taken", "Rows read from there.", shared["taken"])
        yield self._counter("shared_index_rows_shared", "Rows saved there.", shared["shared"])
        yield self._counter(
            "shared_index_rows_dropped", "Damaged rows among those read.", shared["damaged"]
        )

    def _gauge(self, name: str, help_: str, value: float) -> Metric:
        return self._gauges(name, help_, [({}, value)])

    def _counter(self, name: str, help_: str, value: float) -> Metric:
        return self._counters(name, help_, [({}, value)])

    def _gauges(
        self, name: str, help_: str, series: Iterable[_Series], labels: Iterable[str] = ()
    ) -> Metric:
        family = GaugeMetricFamily(f"zipfs_{name}", help_, labels=["mountpoint", *labels])
        for values, value in series:
            family.add_metric([self._mountpoint, *values.values()], value)
        return family

    def _counters(
        self, name: str, help_: str, series: Iterable[_Series], labels: Iterable[str] = ()
    ) -> Metric:
        family = CounterMetricFamily(f"zipfs_{name}", help_, labels=["mountpoint", *labels])
        for values, value in series:
            family.add_metric([self._mountpoint, *values.values()], value)
        return family


_READS: Final = ("cached", "waited")
_MODES: Final = ("joining", "sharing", "reading", "alone", "away")
