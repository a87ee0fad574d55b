"""What is tried on a source, in this order, and what is seen: one row of the tables."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from tests.vm import judging
from tests.vm.guest import library
from tests.vm.guest.daemon import MOUNT, Daemon, Download, Offer, Server, download, running
from tests.vm.guest.library import CHANGES, SIZE, Change
from tests.vm.guest.processes import drop_caches, run, wait
from tests.vm.guest.sources import Source

Row = dict[str, Any]
Say = Callable[[str], None]

_BEFORE: Final = 1 << 20
"""Bytes that a client has when a game is changed; it takes the rest as fast as it comes, while
what is known of the member's file may be some seconds old."""
_DOWNLOADED: Final = 180.0
"""Most seconds for a download."""
_HUNG: Final = 60.0
"""Most seconds for a probe while the server doesn't answer."""
_BACK: Final = 120.0


def examine(source: Source, log: Path, patience: float, say: Say) -> Row:
    """Try all on *source*; a row with at least the key ``changes``."""
    daemon = Daemon(source.client, source.name, log)
    server = Server(log)
    daemon.forget()
    source.begin(say)
    for change in CHANGES.values():
        library.make(source.server, change.folder, change.seed)
    _begin_afresh(source)
    say("the library is there")
    row: Row = {"patience": patience}
    with running(daemon, server, len(CHANGES)):
        say("sealed")
        row["vouches"] = _vouching(source, daemon)
        row["changes"] = _change_all(source, server, patience, say)
    _begin_afresh(source)
    say("mounted again")
    with running(daemon, server, len(CHANGES)):
        row["remount"] = _hashed_again(daemon)
        say(f"after a remount: {row['remount']}")
        if source.can_hang:
            row.update(_hang(source, daemon, say))
    source.unmount()
    return row


def _begin_afresh(source: Source) -> None:
    """As after a boot: the source is mounted again, and nothing is cached."""
    source.unmount()
    drop_caches()
    source.mount(source)


def _vouching(source: Source, daemon: Daemon) -> str | None:
    """What vouches for the bytes of *source*, by the status: its state or its content."""
    found = (daemon.status() or {}).get("sources", [])
    return next((one["vouches"] for one in found if one["path"] == str(source.client)), None)


# ---------------------------------------------------------------- changes


def _change_all(source: Source, server: Server, patience: float, say: Say) -> dict[str, Row]:
    """Each game is changed in the middle of its download, and watched after that."""
    truths = {name: library.truth(source.server, c.folder) for name, c in CHANGES.items()}
    offers = {name: server.offered(c.archive) for name, c in CHANGES.items()}
    for name, offer in offers.items():
        if offer.status != HTTPStatus.OK:
            raise RuntimeError(f"{name}: nginx says {offer.status}")
    drop_caches()
    downloads = {name: Download(c.archive, _BEFORE, _DOWNLOADED) for name, c in CHANGES.items()}
    say("paused")
    changed: dict[str, float] = {}
    for name, change in CHANGES.items():
        change.apply(change.at(source.server), library.content(SIZE, change.seed + 5))
        changed[name] = time.monotonic()
    drop_caches()
    say("changed")
    # One by one: the first are done before attributes that were cached are asked for again.
    ended = {name: one.finish() for name, one in downloads.items()}
    say("downloaded")
    after = {name: library.truth(source.server, c.folder) for name, c in CHANGES.items()}
    rows = _watch(server, offers, changed, patience)
    for name, change in CHANGES.items():
        data, complete = ended[name]
        then, whole = download(change.archive, _DOWNLOADED)
        verdicts = [
            judging.judge(d, complete=c, old=truths[name], new=after[name])
            for d, c in ((data, complete), (then, whole))
        ]
        rows[name].update(during=verdicts[0], then=verdicts[1], received=len(data))
        say(f"{name}: {rows[name]}")
    return rows


def _watch(
    server: Server, offers: Mapping[str, Offer], changed: Mapping[str, float], patience: float
) -> dict[str, Row]:
    """Seconds until the old version of each archive isn't offered, and the new one is."""
    rows: dict[str, Row] = {name: {"noticed": None, "offered": None} for name in CHANGES}
    began = time.monotonic()
    while time.monotonic() - began < patience:
        for name, change in CHANGES.items():
            row = rows[name]
            if row["offered"] is not None:
                continue
            offer = server.offered(change.archive)
            seconds = round(time.monotonic() - changed[name], 1)
            if offer != offers[name] and row["noticed"] is None:
                row["noticed"] = seconds
            if offer.status == HTTPStatus.OK and offer.etag != offers[name].etag:
                row["offered"] = seconds
        if all(row["offered"] is not None for row in rows.values()):
            break
        time.sleep(1)
    return rows


# ---------------------------------------------------------------- a remount


def _hashed_again(daemon: Daemon) -> Row:
    status = daemon.status() or {}
    return {
        "hashed": status["pending"]["hashed_bytes"],
        "of": status["archives"]["bytes"],
    }


# ---------------------------------------------------------------- a server that hangs


class _Probe:
    """A program that reads, and may never end."""

    def __init__(self, *command: str | Path) -> None:
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        )

    def outcome(self, limit: float) -> Row:
        """How it ended, after how many seconds since its start; None: it didn't."""
        try:
            _, said = self._process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return {"seconds": None, "said": "no answer"}
        if self._process.returncode == 0:
            text = "right"
        else:  # the reason is behind the last colon: "dd: …: Input/output error"
            lines = said.decode(errors="replace").strip().splitlines() or ["failed"]
            text = lines[0].rpartition(": ")[2]
        return {"seconds": round(time.monotonic() - self._began, 1), "said": text}


def _reading(change: Change, mebibyte: int) -> tuple[str, ...]:
    return (
        "dd", f"if={MOUNT / change.archive}", "of=/dev/null", "bs=1M", f"skip={mebibyte}", "count=1"
    )  # fmt: skip


def _hang(source: Source, daemon: Daemon, say: Say) -> Row:
    change = CHANGES["in place"]
    truth = library.truth(source.server, change.folder)
    drop_caches()
    run("ls", MOUNT / library.PLATFORM)
    source.hang()
    try:
        reading = _Probe(*_reading(change, 5))
        listing = _Probe("ls", MOUNT / library.PLATFORM)
        rows: Row = {
            "hang": {
                "list": listing.outcome(_HUNG),
                "read": reading.outcome(_HUNG),
                "status": daemon.status() is not None,
            }
        }
        say(f"hung: {rows['hang']}")
    finally:
        source.back()
    began = time.monotonic()
    right = wait(lambda: _Probe(*_reading(change, 7)).outcome(_BACK)["said"] == "right", _BACK, 0.5)
    rows["back"] = {"seconds": None if right is None else round(time.monotonic() - began, 1)}
    data, complete = download(change.archive, _DOWNLOADED)
    rows["back"]["then"] = judging.judge(data, complete=complete, old=truth, new=truth)
    with contextlib.suppress(KeyError):
        say(f"back: {rows['back']}")
    return rows
