"""A walk through very many games on a source that waits in each call."""

from __future__ import annotations

import time
from typing import Final

from bench.peers.slowfs import build, slowfs
from bench.scale.many import make_games
from bench.scale.run import OLD_SECONDS, Scale

WAIT: Final = 1000
"""Microseconds of each call."""
FILES: Final = 3
WALKS: Final = 2
BAR: Final = 1 / 12
"""Of the time that all its calls took, one after the other."""


def walks(scale: Scale) -> None:
    """100,000 games of 3 files, all of them known: two walks, of which the first is new to it."""
    games = scale.sizes.games
    library = scale.folder / "far/games"
    scale.status.update(f"Making {games:,} games …")
    make_games(library, games, FILES, scale.stop)
    program, _ = build(scale.folder, scale.stop)
    shown = scale.folder / "slow"
    shown.mkdir()
    with slowfs(program, library.parent, shown, scale.folder / "slow.control") as slow:
        seen = shown / library.name
        scale.hash(seen)
        with scale.mount(seen) as live:
            live.ready()
            live.wait_sealed()
            slow.wait(WAIT)
            for number in range(WALKS):
                scale.status.update(f"{games:,} games, {WAIT / 1e3:g} ms a call …")
                time.sleep(OLD_SECONDS)
                calls, cpu = slow.calls(), live.cpu
                took = live.rescan()
                alone = (slow.calls() - calls).total * WAIT / 1e6
                what = "again" if number else f"{games:,} games at {WAIT / 1e3:g} ms a call: walk"
                scale.add(f"  {what}" if number else what, took, "s")
                scale.add("  its calls, one after the other", alone, "s")
                scale.add("  ratio to that", took / alone, "", BAR)
                scale.add("  CPU of the daemon for that", live.cpu - cpu, "s")
            slow.wait(0)
