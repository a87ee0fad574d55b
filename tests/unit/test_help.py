"""``zipfs help``: the manual on a terminal, as Markdown, and searched."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from zipfs.cli.cli import cli
from zipfs.cli.command_help import page, pages, render, search
from zipfs.errors import TopicError


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["help", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("arguments", [[], ["--list"]])
def test_all_topics_are_listed(arguments: list[str]) -> None:
    said = run(*arguments)
    for one in pages():
        assert f"{one.topic} " in said
        assert one.title in said
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize("topic", [one.topic for one in pages()])
def test_no_terminal_gets_markdown(topic: str) -> None:
    assert run(topic) == page(topic).text


@pytest.mark.parametrize("name", ["romm", "ROMM", "romm.md"])
def test_names_of_a_topic(name: str) -> None:
    assert page(name).topic == "romm"
    assert page("exit statuses") == page("exit_statuses") == page("exit-statuses")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("rom", "romm"), ("playlist", "playlists"), ("statuses", "exit-statuses"), ("lsits", "lists")],
)
def test_an_unknown_topic(name: str, nearest: str) -> None:
    with pytest.raises(TopicError, match=nearest) as raised:
        page(name)
    assert raised.value.exit_code == 2
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["xyzzy", "", "../README", "manual/romm", "\x1b[2J"])
def test_a_topic_that_is_like_none(name: str) -> None:
    """Nothing but pages is read, and what was typed is escaped."""
    with pytest.raises(TopicError, match="the manual has no topic") as raised:
        page(name)
    assert str(raised.value).isprintable()


def test_a_command_that_is_no_topic() -> None:
    assert run("mount").startswith("Usage: ")
    assert "--read-ahead" in run("mount")


def test_search() -> None:
    hits = list(search("X-ACCEL-redirect"))
    assert {hit.topic for hit in hits} >= {"redirects", "middleware"}
    assert all("x-accel-redirect" in hit.line.lower() for hit in hits)
    both = {(hit.topic, hit.heading) for hit in search("caddy 2.6")}
    assert ("redirects", "Caddy in front") in both
    assert both <= {(hit.topic, hit.heading) for hit in search("caddy")}
    assert "redirects: Caddy in front\n" in run("--search", "caddy 2.6")


def test_a_comment_in_a_block_is_no_heading() -> None:
    found = {hit.heading for hit in search("No archive there:")}
    assert "nginx in front" in found
    assert not any(heading.startswith("No archive") for heading in found)


@pytest.mark.parametrize("words", ["", " ", "xyzzy nginx"])
def test_nothing_is_found(words: str) -> None:
    done = CliRunner().invoke(cli, ["help", "--search", words])
    assert isinstance(done.exception, TopicError)


@pytest.mark.parametrize("arguments", [["romm", "--list"], ["--list", "--search", "x"]])
def test_one_thing_at_a_time(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli, ["help", *arguments]).exit_code == 2


# ---------------------------------------------------------------- rendered


@pytest.mark.parametrize("width", [80, 200, 1])
@pytest.mark.parametrize("topic", [one.topic for one in pages()])
def test_it_fits(topic: str, width: int) -> None:
    """No line is longer than the terminal, or than one reads well, and nothing is cut off."""
    lines = render(page(topic).text, width, color=False).splitlines()
    assert max(map(len, lines)) <= max(20, min(width, 100))
    if width == 80:
        text = re.sub(r"\s", "", "".join(lines))
        assert "…" not in text.replace("…", "", page(topic).text.count("…"))


def test_links_and_comments() -> None:
    text = "# T\n<!-- c -->\n[lists](lists.md) [who](lists.md#security) [here](#t) [x](http://x/)\n"
    shown = render(text, 80, color=False)
    assert "<!--" not in shown
    assert "zipfs help lists who (zipfs help lists) here" in shown
    assert "http://x/" in shown


def test_colours() -> None:
    assert "\x1b[" in render("# T\n`x`", 80)
    assert "\x1b[3" not in render("# T\n`x`", 80, color=False)
