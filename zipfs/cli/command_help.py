"""``zipfs help``: shows the manual, one page for each topic.

The pages are ``zipfs/manual/TOPIC.md``. On a terminal they are rendered at its width and shown by
the pager; other outputs get the Markdown of the file, unchanged.
"""

from __future__ import annotations

import difflib
import io
import re
import sys
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import ClassVar, Final, NamedTuple

import click
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Heading, Markdown, MarkdownElement, TableElement
from rich.table import Table
from rich.text import Text

from zipfs.errors import TopicError

_WIDEST: Final = 100
"""Most columns, also on a wider terminal: longer lines are hard to read."""
_COMMENT: Final = re.compile(r"<!--.*?-->\n?", re.DOTALL)
_FENCED: Final = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_LINK: Final = re.compile(r"\[([^]]+)\]\(([a-z-]*)(?:\.md)?(#[^)]*)?\)")
_NEAREST: Final = 3


class Page(NamedTuple):
    """A topic of the manual."""

    topic: str
    title: str
    text: str
    """Markdown."""


class Hit(NamedTuple):
    """A section of a page with all of the words searched for."""

    topic: str
    heading: str
    line: str
    """Its first line with one of the words."""


def pages() -> list[Page]:
    """All pages, in the order of their topics."""
    folder: Traversable = files("zipfs") / "manual"
    found = (
        _page(entry.name.removesuffix(".md"), entry.read_text(encoding="utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".md")
    )
    return sorted(found)


def _page(topic: str, text: str) -> Page:
    return Page(topic, text.partition("\n")[0].removeprefix("# "), text)


def page(topic: str) -> Page:
    """The page of *topic*, in any letter case. Raises :exc:`TopicError`, with similar names."""
    found = {one.topic: one for one in pages()}
    wanted = topic.lower().removesuffix(".md").replace("_", "-").replace(" ", "-")
    if wanted in found:
        return found[wanted]
    near = [name for name in found if wanted and (name.startswith(wanted) or wanted in name)]
    near += difflib.get_close_matches(wanted, found, n=_NEAREST, cutoff=0.5)
    names = ", ".join(dict.fromkeys(near[:_NEAREST]))
    hint = f"the nearest: {names}" if names else "`zipfs help --list` lists all"
    raise TopicError(f"the manual has no topic {topic!r}; {hint}")


def search(words: str) -> Iterator[Hit]:
    """The sections that have each of *words*, in any letter case."""
    wanted = words.lower().split()
    for one in pages():
        for heading, text in _sections(one):
            lines = [heading, *text.splitlines()]
            if all(word in f"{heading}\n{text}".lower() for word in wanted):
                line = next(
                    line for line in (*lines[1:], heading)
                    if any(word in line.lower() for word in wanted)
                )  # fmt: skip
                yield Hit(one.topic, heading, line.strip(" |-*#"))


def _sections(one: Page) -> Iterator[tuple[str, str]]:
    """Heading and text of each section; the first heading is the page's title."""
    text = _COMMENT.sub("", one.text)
    # In a fenced block a line that begins with `#` is a comment, not a heading.
    blanked = _FENCED.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), text)
    starts = [match.start() for match in re.finditer(r"^#+ ", blanked, re.MULTILINE)]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        heading, _, rest = text[start:end].partition("\n")
        yield heading.lstrip("# "), rest


class _Heading(Heading):
    """A heading on the left and without a frame, unlike rich's."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.tag == "h1":
            yield Text(self.text.plain, style="bold")
            yield Text("─" * min(len(self.text.plain), options.max_width), style="dim")
        else:
            yield Text("")
            yield Text(self.text.plain, style="bold cyan")


class _Table(TableElement):
    """A table whose cells are wrapped, and never cut off."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in super().__rich_console__(console, options):
            if isinstance(part, Table):
                for column in part.columns:
                    column.overflow = "fold"
            yield part


class _Manual(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _Heading,
        "table_open": _Table,
    }


def render(text: str, width: int, *, color: bool = True) -> str:
    """The Markdown *text* for a terminal of *width* columns, with its escape sequences."""
    text = _LINK.sub(_as_command, _COMMENT.sub("", text))
    out = io.StringIO()
    console = Console(
        file=out,
        width=max(20, min(width, _WIDEST)),
        force_terminal=True,
        color_system="standard" if color else None,
        legacy_windows=False,
    )
    console.print(_Manual(text, code_theme="ansi_light", hyperlinks=False))
    return re.sub(r"[ ]+$", "", out.getvalue(), flags=re.MULTILINE)


def _as_command(link: re.Match[str]) -> str:
    """The text of a *link* to another page on a terminal: the command that shows the page."""
    text, topic = link[1], link[2]
    if topic == text:
        return f"`zipfs help {topic}`"
    return f"{text} (`zipfs help {topic}`)" if topic else text


def _list() -> str:
    found = pages()
    width = max(len(one.topic) for one in found)
    return "".join(f"{one.topic:{width}}  {one.title}\n" for one in found)


@click.command("help", short_help="Show the manual: a topic, all topics, or a search.")
@click.argument("topic", required=False)
@click.option("--list", "as_list", is_flag=True, help="List all topics, a line each.")
@click.option(
    "--search",
    "words",
    metavar="WORDS",
    help="List the sections of the manual that have all of these words.",
)
@click.pass_context
def manual(ctx: click.Context, topic: str | None, as_list: bool, words: str | None) -> None:
    """Show the manual's page about TOPIC, or a command's `--help`; without TOPIC list all topics.

    On a terminal it is shown by $PAGER, or `less`. Otherwise it is Markdown.
    """
    if sum((topic is not None, as_list, words is not None)) > 1:
        raise click.UsageError("choose one of TOPIC, --list and --search")
    if words is not None:
        _search(words)
    elif topic is None:
        click.echo(_list(), nl=False)
        if not as_list:
            click.echo("\n`zipfs help TOPIC` shows one; `zipfs COMMAND --help` lists options.")
    else:
        _show(ctx, topic)


def _search(words: str) -> None:
    hits = list(search(words)) if words.strip() else []
    if not hits:
        raise TopicError(f"the manual has nothing about {words!r}; `zipfs help --list` lists all")
    for hit in hits:
        click.echo(f"{hit.topic}: {hit.heading}\n    {hit.line}")


def _show(ctx: click.Context, topic: str) -> None:
    group = ctx.parent.command if ctx.parent is not None else None
    try:
        text = page(topic).text
    except TopicError:
        command = group.get_command(ctx, topic) if isinstance(group, click.Group) else None
        if command is None or ctx.parent is None:
            raise
        with click.Context(command, info_name=topic, parent=ctx.parent) as context:
            click.echo(command.get_help(context))
        return
    if sys.stdout.isatty():
        terminal = Console()
        click.echo_via_pager(render(text, terminal.width, color=terminal.color_system is not None))
    else:
        click.echo(text, nl=False)
