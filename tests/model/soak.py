"""``make soak``: the model against zipfs for an hour, or ``SOAK_MINUTES``.

Random worlds, one after the other, each with a few hundred steps, from numbered seeds; two
threads read all the time. Every minute, and at the end, it prints its counts. A failure is
printed with its seed and all steps, and the soak goes on with the next world; the exit status
is 1 in the end. ``SOAK_SEED=n`` starts with that seed, ``SOAK_MINUTES`` is how long. In the worlds
of odd seeds the daemon is killed or replaced every few seconds, and the mount goes on;
``--kills``: in all. ``SOAK_HEADS=2`` mounts each library so often, with a shared index in a
PostgreSQL of its own, and gives contents so few times of a day that they often clash.

As root it has a mount namespace of its own (mount_namespaces(7)): whatever starts a container on
this machine meanwhile would get a copy of each mount, which then goes on when it is unmounted, and
its daemon with it. Neither has it copies of others.

Steps come from seeds and can be taken again; time, and with it what zipfs has done between
two steps, can't. A failure that doesn't come back at once may need a few tries.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Final

from tests.model.shelf import CHANGES
from tests.model.world import CROWDED, READS, RESTARTS, World
from tests.support.mounting import MARKER, Mounts, fuse_missing, sweep, temporary_folder
from tests.support.postgresql import Server, database, server
from tests.support.waiting import SECONDS
from zipfs.archive.validators import DAY

STEPS: Final = 500
HUNG: Final = SECONDS + 60
"""Seconds without an answer, not of a whole step, after which a world is broken off: more than any
wait that ends by itself, and tells what it was for."""
_WEIGHTS: Final = {name: weight for name, (weight, _) in {**CHANGES, **READS}.items()}
_RESTARTS: Final = {name: weight for name, (weight, _) in RESTARTS.items()}


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


def steps(rng: random.Random, count: int, *, kills: bool) -> Iterator[tuple[str, int]]:
    """*count* steps and their seeds, with *kills* or without."""
    weights = {**_WEIGHTS, **_RESTARTS} if kills else _WEIGHTS
    for name in rng.choices([*weights], [*weights.values()], k=count):
        yield name, rng.randrange(1 << 32)


def run_world(
    seed: int, counts: Counter[str], until: float, *, kills: bool, heads: int, on: Server | None
) -> None:
    """The world of *seed*, with *kills* or without; prints and counts what goes wrong.

    Its *heads* share an index *on* that server, if there is one.
    """
    rng = random.Random(seed)
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(temporary_folder())
        mounts = Mounts(place)
        world = World(
            place,
            mounts,
            games=rng.choice([1, 2, 3, 4]),
            watch=rng.choice(["auto", "poll"]),
            settle=rng.choice([0.05, 0.1]),
            readers=2,
            supervised=kills,
            heads=heads,
            shared=stack.enter_context(database(on)).address if on else "",
            times=CROWDED if on else DAY,
            counts=counts,
        )
        watchdog = Watchdog(world, mounts)
        world.progress = watchdog.feed
        try:
            with contextlib.closing(world):
                for name, number in steps(rng, STEPS, kills=kills):
                    world.do(name, number)
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
        "worlds", "steps", "states", "versions", "stats", "reads", "kills", "hand-overs", "errors",
        "lost", "settled", "clashes", "failures",
    )  # fmt: skip
    text = ", ".join(f"{counts[name]} {name}" for name in names)
    print(f"{minutes:5.1f} min: {text}", flush=True)


_ALONE: Final = "ZIPFS_SOAK_ALONE"
_LET_GO: Final = (
    "grep ' - fuse' /proc/self/mountinfo | cut -d' ' -f5 | tac | while read -r path; do"
    ' umount --lazy "$(printf %b "$path")"; done; exec "$@"'
)


def be_alone() -> None:
    """Begin once more, in a mount namespace of our own; only root can."""
    if os.geteuid() != 0 or os.environ.get(_ALONE) or not shutil.which("unshare"):
        return
    os.environ[_ALONE] = "1"
    command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _LET_GO, "sh"]
    command += [sys.executable, "-m", "tests.model.soak", *sys.argv[1:]]
    os.execvp(command[0], command)  # noqa: S606 - a list, no shell


def main() -> int:
    be_alone()
    if missing := fuse_missing():
        print(f"no FUSE: {missing}", file=sys.stderr)
        return 2
    # Whoever ends us early: unmount, and say how far it was.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    always = sys.argv[1:] == ["--kills"]
    os.environ[MARKER] = str(os.getpid())
    sweep()
    began = time.monotonic()
    until = began + 60 * float(os.environ.get("SOAK_MINUTES") or 60)
    seed = int(os.environ.get("SOAK_SEED") or time.time_ns() % 10**9)
    heads = int(os.environ.get("SOAK_HEADS") or 1)
    counts: Counter[str] = Counter()
    print(f"the first seed is {seed}", flush=True)
    printed = began
    with contextlib.ExitStack() as stack, contextlib.suppress(KeyboardInterrupt):
        on = None
        if heads > 1:
            on = stack.enter_context(server(stack.enter_context(temporary_folder()) / "postgresql"))
        while time.monotonic() < until:
            kills = always or seed % 2 == 1
            run_world(seed, counts, until, kills=kills, heads=heads, on=on)
            seed += 1
            if time.monotonic() - printed > 60:
                printed = time.monotonic()
                report(counts, began)
    report(counts, began)
    return 1 if counts["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
