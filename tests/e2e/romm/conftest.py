"""One library, mounted behind RomM's stand-in, for the tests that change nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.romm.shelf import make_shelf
from tests.e2e.romm.stand import Stand, standing
from tests.support.mounting import temporary_folder


@pytest.fixture(scope="package", params=["hook", "nginx"])
def stand(request: pytest.FixtureRequest, fuse: None) -> Iterator[Stand]:
    """Both ways: the hook in RomM, and nginx's JavaScript before it."""
    with temporary_folder() as place:
        library = place / "library"
        make_shelf(library)
        with standing(library, place, front=request.param) as stand:
            stand.mounted.wait_sealed()
            yield stand
