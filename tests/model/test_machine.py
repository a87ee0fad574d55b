"""The model against zipfs, for a moment; ``make soak`` does it for an hour."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.model.shelf import CHANGES
from tests.model.world import READS, World
from tests.support.mounting import Mounts, temporary_folder

_SEEDS = st.integers(0, (1 << 32) - 1)


class Machine(RuleBasedStateMachine):
    """A :class:`World` by the rules that are put into this class below, one a step."""

    mounts: Mounts

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
        self._world = World(place, self.mounts, games=games, watch=watch, settle=settle)

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


def test_every_read_is_of_one_version(mount: Mounts) -> None:
    run_state_machine_as_test(
        type("Machine", (Machine,), {"mounts": mount}),
        settings=settings(
            max_examples=12,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            database=None,
            # Time takes part, so the same steps may well do better the next time: a failure is
            # shown as it was, and not looked for in shorter examples.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
