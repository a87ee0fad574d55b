"""The model against zipfs, for a moment; ``make soak`` does it for an hour.

With two heads of one library it is DESIGN K1 and K2 as well.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.model.shelf import CHANGES
from tests.model.soak import steps
from tests.model.world import CROWDED, READS, RESTARTS, World
from tests.support.mounting import Mounts, temporary_folder
from tests.support.postgresql import Shared

_SEEDS = st.integers(0, (1 << 32) - 1)


class Machine(RuleBasedStateMachine):
    """A :class:`World` by the rules that are put into this class below, one a step."""

    mounts: Mounts
    counts: Counter[str]
    supervised = False

    def __init__(self) -> None:
        super().__init__()
        self._exit = ExitStack()
        self._world: World | None = None

    @initialize(
        games=st.integers(1, 3),
        watch=st.sampled_from(["auto", "poll"]),
        settle=st.sampled_from([0.05, 0.1]),
    )
    def mount(self, games: int, watch: str, settle: float) -> None:
        place = self._exit.enter_context(temporary_folder())
        self._world = World(
            place,
            self.mounts,
            games=games,
            watch=watch,
            settle=settle,
            readers=2 if self.supervised else 0,
            supervised=self.supervised,
            counts=self.counts,
        )

    def take(self, name: str, seed: int) -> None:
        assert self._world
        try:
            self._world.do(name, seed)
        except BaseException:
            note("\n".join([*self._world.trace, self._world.log_text()]))
            raise

    def teardown(self) -> None:
        with self._exit:
            if self._world:
                try:
                    self.take("settle", 0)
                finally:
                    self._world.close()


def _rule(name: str) -> Callable[[Machine, int], None]:
    def step(self: Machine, seed: int) -> None:
        self.take(name, seed)

    step.__name__ = name
    return rule(seed=_SEEDS)(step)


# Every rule is as likely as any other, and these take long. Each example ends with `settle`.
_SLOW = {"restart", "settle", "store_twice"}

for _name in sorted({**CHANGES, **READS}.keys() - _SLOW):
    setattr(Machine, _name, _rule(_name))


class Outliving(Machine):
    """A world whose mount outlives its daemons."""

    supervised = True


for _name in RESTARTS:
    setattr(Outliving, _name, _rule(_name))


def test_every_read_is_of_one_version(mount: Mounts) -> None:
    _run(Machine, mount, examples=12, steps=20)


def test_whoever_serves(mount: Mounts) -> None:
    counts = _run(Outliving, mount, examples=3, steps=60)
    assert counts["kills"]


def test_two_heads_of_one_library(mount: Mounts, shared: Shared, place: Path) -> None:
    """With daemons that are killed, and so few times of a day that contents often clash (V3)."""
    counts: Counter[str] = Counter()
    rng = random.Random(18)
    world = World(
        place,
        mount,
        readers=2,
        supervised=True,
        heads=2,
        shared=shared.address,
        times=CROWDED,
        counts=counts,
    )
    with closing(world):
        for name, seed in steps(rng, 120, kills=True):
            world.do(name, seed)
        world.do("settle", 0)
        while not world.clashes:  # a slow head has seen few contents
            world.do("rewrite", rng.randrange(1 << 32))
            world.do("settle", 0)
    assert counts["kills"]
    assert shared.count("issued")


def _run(machine: type[Machine], mount: Mounts, *, examples: int, steps: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    run_state_machine_as_test(
        type("Run", (machine,), {"mounts": mount, "counts": counts}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            # Time takes part, so the same steps may well do better the next time: a failure is
            # shown as it was, and not looked for in shorter examples.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    return counts
