"""The parts of `make bench` that need no server: ratios, verdicts, tables."""

from __future__ import annotations

import pytest
from rich.console import Console

from bench import BenchError, readme
from bench.speed.case import Case, Measured, Sample, measure
from bench.speed.reach import BARS, judge, number
from bench.speed.report import brief, markdown, tables
from bench.speed.results import (
    BINDFS,
    BUILT,
    STORED,
    STREAMED,
    ZIPFS,
    About,
    Results,
    Row,
    Series,
    Spread,
)


def series(*samples: float, sent: float = 0, written: int = 0, cpu: float = 0) -> Series:
    return Series(
        value=Spread(samples=samples), sent=sent, own_cpu=cpu, all_cpu=2 * cpu, written=written
    )


def results(*rows: Row) -> Results:
    return Results(
        date="2026-01-31",
        seconds=600,
        rounds=3,
        cpus=2,
        linux="6.1",
        load_before=0,
        archives={"Three Discs": 1_000_000_000},
        connections=32,
        about={ZIPFS: About(name="zipfs", version="1", settings="defaults")},
        rows=list(rows),
        memory={ZIPFS: 50_000_000},
    )


def row(key: str, *, unit: str = "MB/s", **figures: Series) -> Row:
    return Row(key=key, what=key, unit=unit, higher_is_better=unit != "ms", series=figures)


def verdict(what: str, of: Results) -> tuple[str, bool | None]:
    (found,) = [one for one in judge(of) if one.what == what]
    return found.value, found.met


def test_ratios_are_taken_round_by_round() -> None:
    slow_machine_later = row("first", zipfs=series(80, 8), stored=series(100, 10))
    ratio = slow_machine_later.ratio(STORED)
    assert ratio == Spread(samples=(0.8, 0.8))


def test_who_is_measured_less_often_is_compared_with_its_own_rounds() -> None:
    ratio = row("first", zipfs=series(6, 8, 100), built=series(2, 2)).ratio(BUILT)
    assert ratio is not None
    assert (ratio.low, ratio.median, ratio.high) == (3, 3.5, 4)
    assert row("first", zipfs=series(1)).ratio(BUILT) is None


def test_rounds_alternate_and_the_first_does_not_count() -> None:
    calls: list[str] = []

    def take(who: str) -> Sample:
        calls.append(who)
        return Sample(value=len(calls))

    def case(contenders: dict[str, int | None], *, warm_up: bool = True) -> Measured:
        return Measured(
            case=Case(
                key="key",
                what="what",
                unit="/s",
                contenders=contenders,
                measure=take,
                warm_up=warm_up,
            )
        )

    todo = [case({"a": None, "b": None, "slow": 1}), case({"cold": None}, warm_up=False)]
    steps = [(number, who) for number, _, who in measure(todo, 2)]
    assert steps == [
        *((0, "a"), (0, "b")),
        *((1, "a"), (1, "b"), (1, "slow"), (1, "cold")),
        *((2, "a"), (2, "b"), (2, "cold")),
    ]
    assert calls == [who for _, who in steps]
    first = todo[0].row()
    assert first.series["a"].value.samples == (3, 7)
    assert first.series["slow"].value.samples == (5,)


def test_what_fails_is_tried_again_and_then_given_up() -> None:
    answers = iter(["bad", "bad", "good", *["bad"] * 3])

    def take(_who: str) -> Sample:
        if next(answers) == "bad":
            raise BenchError("memory is short")
        return Sample(value=1)

    measured = Measured(
        case=Case(key="key", what="what", unit="/s", contenders={"a": None}, measure=take)
    )
    assert len(list(measure([measured], 5))) == 6
    assert measured.failure == "what, a: memory is short"


@pytest.mark.parametrize(
    ("what", "measured", "value", "met"),
    [
        (
            "first download, of a stored file",
            row("first", zipfs=series(75, 75, 80), stored=series(100, 100, 100)),
            "0.75 (0.75-0.80)",
            True,
        ),
        (
            "first download, of a stored file",
            row("first", zipfs=series(74), stored=series(100)),
            "0.74 (0.74-0.74)",
            False,
        ),
        (
            "first download, of one built while sending",
            row("first", zipfs=series(300), streamed=series(100)),
            "3.00 (3.00-3.00)",
            True,
        ),
        (
            "8 GiB, time to first byte, of a stored file",
            row("first-byte-first", unit="ms", zipfs=series(2.1), stored=series(1)),
            "2.10 (2.10-2.10)",
            False,
        ),
        (
            "8 GiB, time to first byte, of one built first",
            row("first-byte-first", unit="ms", zipfs=series(1), built=series(5000)),
            "1/5,000 (1/5,000-1/5,000)",
            True,
        ),
        (
            "the daemon's CPU at first touch",
            row("first", zipfs=series(1, sent=2e9, cpu=0.6)),
            "0.30 s/GB",
            True,
        ),
        (
            "bytes written to disk by serving 10 GB",
            row("first", zipfs=series(1, sent=10e9)),
            "0 for 10.0 GB",
            True,
        ),
        (
            "bytes written to disk by serving 10 GB",
            row("first", zipfs=series(1, sent=10e9, written=4096)),
            "4,096 for 10.0 GB",
            False,
        ),
        (
            "bytes written to disk by serving 10 GB",
            row("first", zipfs=series(1, sent=9e9)),
            "0 for 9.0 GB",
            None,
        ),
    ],
)
def test_verdicts(what: str, measured: Row, value: str, met: bool | None) -> None:
    assert verdict(what, results(measured)) == (value, met)


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert {one.met for one in judge(results())} == {None}


def test_every_bar_says_one_thing() -> None:
    assert len({bar.what for bar in BARS}) == len(BARS)
    assert all((bar.least is None) != (bar.most is None) for bar in BARS)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12345.6, "12,346"),
        (99.94, "99.9"),
        (1.005, "1.00"),
        (0.01, "0.01"),
        (0.0002, "1/5,000"),
        (0, "0.00"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


FIGURES = results(
    row("first", zipfs=series(75, 80, 85, sent=3e9, cpu=0.3), stored=series(100, 100, 100)),
    row("ranges", unit="/s", zipfs=series(4000), bindfs=series(2000)),
    row("busy", unit="ms", zipfs=series(4), without=series(2)),
)


def test_markdown() -> None:
    table = markdown(FIGURES)
    assert table.splitlines()[:4] == [
        "| | zipfs | to stored | to bindfs |",
        "|---|--:|--:|--:|",
        "| first | 80.0 MB/s | 0.80 (0.75–0.85) |  |",  # noqa: RUF001 - as typography has it
        "| ranges | 4,000 /s |  | 2.00 (2.00–2.00) |",  # noqa: RUF001 - as typography has it
    ]
    # What has no peer is no line of this table.
    assert "busy" not in table


def test_other_ways_to_send_have_a_table_of_their_own() -> None:
    found = results(row("first", zipfs=series(80), stored=series(100), built=series(40)))
    lines = [line for line in markdown(found).splitlines() if line.startswith("| ")]
    assert [line.count("|") for line in lines] == [4, 4, 4, 4]
    assert lines[2] == "| | zipfs | to built first |"


def test_brief() -> None:
    lines = brief(FIGURES).splitlines()
    assert lines[:3] == [
        "| | zipfs | to stored |",
        "|---|--:|--:|",
        "| first | 80.0 MB/s | 0.80 |",
    ]
    assert "2026-01-31" in lines[4]


def test_tables() -> None:
    judged = FIGURES.model_copy(update={"reach": list(judge(FIGURES))})
    console = Console(width=110)
    with console.capture() as said:
        for part in tables(judged):
            console.print(part, highlight=False)
    text = said.get()
    for expected in ("0.75-0.85", " met", "0.10 s/GB", "zipfs: 1"):
        assert expected in text


def test_results_survive_their_file() -> None:
    assert Results.model_validate_json(FIGURES.model_dump_json()) == FIGURES
    assert {BINDFS, STREAMED} & FIGURES.rows[0].series.keys() == set()


def test_readme_is_replaced_between_its_marks() -> None:
    text = f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n"
    assert readme.replaced(text, "new") == f"before\n{readme.BEGIN}\nnew\n{readme.END}\nafter\n"
    with pytest.raises(BenchError, match="lacks"):
        readme.replaced("before", "new")


def test_the_documents_show_the_results() -> None:
    """What they say was measured, all of it, and nothing by hand."""
    found = Results.model_validate_json(readme.RESULTS.read_text())
    for file, table in ((readme.README, brief(found)), (readme.FIGURES, markdown(found))):
        text = file.read_text()
        assert readme.replaced(text, table) == text, "run: python -m bench.readme"


def test_three_ways_of_romm() -> None:
    """A table of their own, by each way; none without them, and none of the others' columns."""
    ways = {"zipfs": series(900, 1000, 1100, sent=3e9, written=0, cpu=0.6)}
    ways["romm-streamed"] = series(400, 500, 600, sent=3e9, cpu=1.2)
    ways["romm-copied"] = series(200, sent=1e9, written=1_000_000_000, cpu=0.9)
    found = results(
        *FIGURES.rows, row("romm-first-byte", unit="ms", **ways), row("romm-download", **ways)
    )
    text = markdown(found)
    assert text.startswith(markdown(FIGURES).partition("\n\nMedians")[0])
    table = text[text.index("| RomM |") :].partition("\n\n")[0]
    assert table.splitlines() == [
        "| RomM | from zipfs | while sending | copied first |",
        "|---|--:|--:|--:|",
        "| romm-first-byte, ms | 1,000 (900–1,100) | 500 (400–600) | 200 (200–200) |",  # noqa: RUF001 - as typography has it
        "| romm-download, MB/s | 1,000 (900–1,100) | 500 (400–600) | 200 (200–200) |",  # noqa: RUF001 - as typography has it
        "| CPU s/GB, server included | 0.40 | 0.80 | 1.80 |",
        "| CPU s/GB, without | 0.20 | 0.40 | 0.90 |",
        "| MB written to disk per GB | 0 | 0 | 1,000 |",
    ]
    assert "RomM" not in markdown(FIGURES)
    console = Console(width=110)
    with console.capture() as said:
        for part in tables(found.model_copy(update={"reach": []})):
            console.print(part, highlight=False)
    assert "copied first" in said.get()


def test_what_proving_costs() -> None:
    """A table of its own; the ratios are of neighbours, and no other table has the column."""
    both = {
        "zipfs": series(900, 1000, 1100, sent=3e9, cpu=0.6),
        "proving": series(450, 800, 1100, sent=3e9, cpu=1.2),
    }
    found = results(*FIGURES.rows, row("first-proven", **both))
    text = markdown(found)
    table = text[text.index("| `--prove always` |") :].partition("\n\n")[0]
    assert table.splitlines() == [
        (
            "| `--prove always` | trusting | proving | proving to trusting | CPU s/GB"
            " | CPU s/GB, proving |"
        ),
        "|---|--:|--:|--:|--:|--:|",
        "| first-proven | 1,000 MB/s | 800 MB/s | 0.80 (0.50–1.00) | 0.20 | 0.40 |",  # noqa: RUF001 - as typography has it
    ]
    assert "to proving" not in text.replace("proving to trusting", "")
    assert "--prove" not in markdown(FIGURES)
