"""Changes on a source, carried out once for all tests that look at what came of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Seen
from tests.e2e.sources.trials import Plan, Trial, trials


@pytest.fixture(scope="module")
def carried_out(
    fuse: None, request: pytest.FixtureRequest
) -> Iterator[dict[tuple[str, str], Trial]]:
    """By the names of change and server; the parameter is the plan."""
    plan: Plan = request.param
    with trials(plan) as made:
        yield made


@pytest.fixture
def trial(
    carried_out: dict[tuple[str, str], Trial],
    change: str,
    server: str,
    request: pytest.FixtureRequest,
    seen: Seen,
) -> Trial:
    made = carried_out[change, server]
    seen(f"{request.node.callspec.params['carried_out']}: {made.change.text}", server)
    return made
