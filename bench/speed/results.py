"""What `make bench` has found out, as it stands in its JSON file.

One *row* for each thing that was measured, with a *series* of figures for zipfs and for each of
those that it is compared with. Absolute figures drift with whatever else a machine does. So all of
a row were measured by turns, and what counts is the ratio of the two that belong to the same
round.
"""

from __future__ import annotations

import statistics
from typing import Final

from pydantic import BaseModel, ConfigDict, computed_field

ZIPFS: Final = "zipfs"
PROVING: Final = "proving"
STORED: Final = "stored"
BUILT: Final = "built"
STREAMED: Final = "streamed"
STREAMED_BARE: Final = "streamed-bare"
HFS: Final = "hfs"
ROMM_STREAMED: Final = "romm-streamed"
COPIED: Final = "romm-copied"
BINDFS: Final = "bindfs"
NULLFS: Final = "nullfs"
PEERS: Final = {
    STORED: "stored",
    NULLFS: "FUSE itself",
    BINDFS: "bindfs",
    STREAMED: "zipstream",
    STREAMED_BARE: "zipstream, bare",
    HFS: "hfs",
    BUILT: "built first",
}
"""In the order of the tables' columns, with what stands above them."""


class Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Spread(Model):
    """Several measurements of the same thing, one a round."""

    samples: tuple[float, ...]

    @computed_field  # type: ignore[prop-decorator]  # as pydantic's documentation has it
    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def low(self) -> float:
        return min(self.samples)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def high(self) -> float:
        return max(self.samples)


class Series(Model):
    """What one of them did in a row."""

    value: Spread
    """In the row's unit."""
    sent: float
    """Bytes, in all rounds."""
    own_cpu: float
    """Seconds of all rounds: the daemon's, or of what else makes this one what it is."""
    all_cpu: float
    """… and of the web server in front of it."""
    written: int
    """Bytes that all of them wrote to the disk."""
    calls: dict[str, float] = {}
    """Of a source that counts them, for each of its files: the median of each kind."""


class Row(Model):
    key: str
    what: str
    unit: str
    higher_is_better: bool = True
    series: dict[str, Series]
    note: str = ""

    def ratio(self, to: str, of: str = ZIPFS) -> Spread | None:
        """The one to the other, round by round; None if one of them wasn't measured."""
        if of not in self.series or to not in self.series:
            return None
        # Who takes long is measured in the first rounds only.
        pairs = zip(self.series[of].value.samples, self.series[to].value.samples, strict=False)
        return Spread(samples=tuple(one / other for one, other in pairs))


class About(Model):
    """What zipfs, or a peer, is and how it was run."""

    name: str
    version: str
    settings: str


class Verdict(Model):
    """One line of what the project wants to reach."""

    what: str
    bar: str
    value: str
    met: bool | None
    """None: it couldn't be measured."""


class Results(Model):
    date: str
    seconds: float
    rounds: int
    cpus: int
    linux: str
    load_before: float
    archives: dict[str, int]
    connections: int
    about: dict[str, About]
    rows: list[Row]
    memory: dict[str, int]
    """Peak bytes of each one's processes, the web server in front of it not counted."""
    left_out: list[str] = []
    reach: list[Verdict] = []

    def row(self, key: str) -> Row | None:
        return next((row for row in self.rows if row.key == key), None)
