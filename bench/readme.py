"""`python -m bench.readme`: put the tables of bench/results/ into the documents.

README.md has a short one, ``zipfs help figures`` all of it; those of many heads are in ``zipfs help
scaling``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from bench import BenchError, heads_report
from bench.far import report as far
from bench.far.results import FarResults
from bench.speed.report import brief, markdown
from bench.speed.results import Results

ROOT: Final = Path(__file__).parents[1]
README: Final = ROOT / "README.md"
FIGURES: Final = ROOT / "zipfs/manual/figures.md"
SCALING: Final = ROOT / "zipfs/manual/scaling.md"
RESULTS: Final = ROOT / "bench/results/results.json"
HEADS: Final = RESULTS.with_name("heads.json")
FAR: Final = RESULTS.with_name("far.json")
FAR_BEFORE: Final = RESULTS.with_name("far-before.json")
"""What an older version could do, if that is worth telling."""
BEGIN: Final = "<!-- begin: made by `python -m bench.readme` from bench/results/ -->"
BEGIN_FAR: Final = "<!-- begin: made by `python -m bench.readme` from bench/results/far.json -->"
BEGIN_HEADS: Final = (
    "<!-- begin: made by `python -m bench.readme` from bench/results/heads.json -->"
)
END: Final = "<!-- end -->"


def replaced(text: str, table: str, mark: str = BEGIN) -> str:
    """*text* with *table* between *mark* and the end that follows.

    Raises :exc:`BenchError` if they aren't there.
    """
    before, begin, rest = text.partition(mark)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"the document lacks {mark} or {END}")
    return f"{before}{begin}\n{table}\n{end}{after}"


def update(results: Results) -> None:
    for file, table in ((README, brief(results)), (FIGURES, markdown(results))):
        file.write_text(replaced(file.read_text(), table))


def update_far(results: FarResults) -> None:
    for file, table in ((README, far.brief(results)), (FIGURES, far.markdown(results, before()))):
        file.write_text(replaced(file.read_text(), table, BEGIN_FAR))


def update_heads(results: dict[str, Any]) -> None:
    table = heads_report.markdown(results)
    SCALING.write_text(replaced(SCALING.read_text(), table, BEGIN_HEADS))


def before() -> FarResults | None:
    """The older figures, if there are other ones now."""
    if not FAR_BEFORE.exists() or FAR_BEFORE.read_text() == FAR.read_text():
        return None
    return FarResults.model_validate_json(FAR_BEFORE.read_text())


def main() -> int:
    try:
        update(Results.model_validate_json(RESULTS.read_text()))
        update_far(FarResults.model_validate_json(FAR.read_text()))
        if HEADS.exists():
            update_heads(json.loads(HEADS.read_text()))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
