"""`python -m bench.readme`: put the tables of bench/results/results.json into the documents.

README.md has a short one, ``zipfs help figures`` all of it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.speed.report import brief, markdown
from bench.speed.results import Results

ROOT: Final = Path(__file__).parents[1]
README: Final = ROOT / "README.md"
FIGURES: Final = ROOT / "zipfs/manual/figures.md"
RESULTS: Final = ROOT / "bench/results/results.json"
BEGIN: Final = "<!-- begin: made by `python -m bench.readme` from bench/results/ -->"
END: Final = "<!-- end -->"


def replaced(text: str, table: str) -> str:
    """*text* with *table* between the two marks; raises :exc:`BenchError` if they aren't there."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"the document lacks {BEGIN} or {END}")
    return f"{before}{begin}\n{table}\n{end}{after}"


def update(results: Results) -> None:
    for file, table in ((README, brief(results)), (FIGURES, markdown(results))):
        file.write_text(replaced(file.read_text(), table))


def main() -> int:
    try:
        update(Results.model_validate_json(RESULTS.read_text()))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
