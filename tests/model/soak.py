"""``make soak``: the model against zipfs for an hour, or ``SOAK_MINUTES``.

Random worlds, one after the other, each with a few hundred steps, from numbered seeds; two
threads read all the time. Every minute, and at the end, it prints its counts. A failure is
printed with its seed and all steps, and the soak goes on with the next world; the exit status
is 1 in the end. ``SOAK_SEED=n`` starts with that seed, ``SOAK_MINUTES`` is how long.

Steps come from seeds and can be taken again; time, and with it what zipfs has done between
two steps, can't. A failure that doesn't come back at once may need a few tries.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from typing import Final

from tests.model.shelf import CHANGES
from tests.model.world import READS, World
from tests.support.mounting import MARKER, Mounts, fuse_missing, sweep, temporary_folder

STEPS: Final = 500
HUNG: Final = 90.0
"""Seconds without a step after which a world is broken off."""
_WEIGHTS: Final = {name: weight for name, (weight, _) in {**CHANGES, **READS}.items()}


class Watchdog:
    """Kills the daemon of a world in which nothing happens any more: reads would wait for ever."""

    def __init__(self, world: World, mounts: Mounts) -> None:
        self._world = world
        self._mounts = mounts
        self._fed = time.monotonic()
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def feed(self) -> None:
        self._fed = time.monotonic()

    def end(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(1):
            if time.monotonic() - self._fed > HUNG:
                self._world.trace.append("nothing happens any more; broken off")
                self._mounts.break_off()
                return


def run_world(seed: int, counts: Counter[str], until: float) -> None:
    """The world of *seed*; prints and counts what goes wrong."""
    rng = random.Random(seed)
    names = list(_WEIGHTS)
    with temporary_folder() as place:
        mounts = Mounts(place)
        world = World(
            place,
            mounts,
            games=rng.choice([1, 2, 3, 4]),
            watch=rng.choice(["auto", "poll"]),
            settle=rng.choice([0.05, 0.1]),
            readers=2,
            counts=counts,
        )
        watchdog = Watchdog(world, mounts)
        try:
            with contextlib.closing(world):
                for name in rng.choices(names, [_WEIGHTS[name] for name in names], k=STEPS):
                    world.do(name, rng.randrange(1 << 32))
                    watchdog.feed()
                    if time.monotonic() > until:
                        break
                world.do("settle", 0)
                watchdog.feed()
        except Exception:  # noqa: BLE001 - whatever it is, the soak goes on
            counts["failures"] += 1
            traceback.print_exc()
            print(f"Seed {seed}:", *world.trace, "The log's end:", sep="\n    ")
            print(*world.log_text().splitlines()[-30:], sep="\n    ", flush=True)
        finally:
            watchdog.end()
        counts["worlds"] += 1


def report(counts: Counter[str], began: float) -> None:
    minutes = (time.monotonic() - began) / 60
    names = (
        "worlds", "steps", "states", "versions", "stats", "reads", "errors", "settled", "failures",
    )  # fmt: skip
    text = ", ".join(f"{counts[name]} {name}" for name in names)
    print(f"{minutes:5.1f} min: {text}", flush=True)


def main() -> int:
    if missing := fuse_missing():
        print(f"no FUSE: {missing}", file=sys.stderr)
        return 2
    # Whoever ends us early: unmount, and say how far it was.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    os.environ[MARKER] = str(os.getpid())
    sweep()
    began = time.monotonic()
    until = began + 60 * float(os.environ.get("SOAK_MINUTES") or 60)
    seed = int(os.environ.get("SOAK_SEED") or time.time_ns() % 10**9)
    counts: Counter[str] = Counter()
    print(f"the first seed is {seed}", flush=True)
    printed = began
    with contextlib.suppress(KeyboardInterrupt):
        while time.monotonic() < until:
            run_world(seed, counts, until)
            seed += 1
            if time.monotonic() - printed > 60:
                printed = time.monotonic()
                report(counts, began)
    report(counts, began)
    return 1 if counts["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
