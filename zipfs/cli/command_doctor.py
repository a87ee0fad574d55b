"""``zipfs doctor``: problems of a mount and of the machine, with their remedies."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from zipfs import __version__
from zipfs.cli.options import json_option, shared_index_option, shared_name_option
from zipfs.cli.terminal import load_settings, log_to_stderr, print_json
from zipfs.errors import FuseError, Level, ProblemsFoundError
from zipfs.ops.doctor.findings import Finding, worst
from zipfs.text import counted

_LINUX_ONLY: Final = "zipfs mounts on Linux only, so there is nothing to check here"
_STYLES: Final[dict[Level, str]] = {
    "ok": "green", "note": "cyan", "warning": "yellow", "problem": "bold red",
}  # fmt: skip


@click.command(short_help="Check the machine, the library and the mount.")
@click.argument("library", required=False)
@click.argument("mountpoint", required=False)
@click.option(
    "--config",
    metavar="FILE",
    help="The TOML file of the mount, for options that aren't given here.",
)
@click.option("--index", metavar="FILE", help="The index of checksums, as for `mount`.")
@shared_index_option
@shared_name_option
@click.option(
    "--allow-other", is_flag=True, help="Check that other users can be let into the mount."
)
@click.option(
    "--web-user",
    "web_users",
    metavar="USER",
    multiple=True,
    help="A user who must be able to read the mount, by name or number; can be given several"
    " times.  [default: those of www-data, nginx, caddy, apache, http, lighttpd and wwwrun that"
    " exist]",
)
@click.option(
    "--romm",
    metavar="URL",
    help="Ask for this download of RomM, of several files, and check each link on its way; a login"
    " is taken from the environment or ~/.netrc.",
)
@click.option("--lists", metavar="FOLDER", help="The folder of lists, as for `mount`.")
@click.option("--strict", is_flag=True, help="A warning counts as a problem.")
@json_option
def doctor(  # noqa: PLR0913 - its options
    library: str | None,
    mountpoint: str | None,
    *,
    config: str | None,
    index: str | None,
    shared_index: str | None,
    shared_name: str | None,
    allow_other: bool,
    web_users: tuple[str, ...],
    romm: str | None,
    lists: str | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Check the machine, and LIBRARY and MOUNTPOINT if they are given.

    Each finding is `ok`, a `note`, a `warning` or a `problem`, with its remedy. Nothing is
    changed. Run it as the user who mounts; as root it also tries to read the mount as the
    web server's user. The exit status is 9 if there is a problem.
    """
    if sys.platform != "linux":
        raise FuseError(_LINUX_ONLY)
    try:
        from zipfs.ops.doctor import doctor as examining  # noqa: PLC0415 - it imports modules for Linux only
    except ImportError as error:
        raise FuseError(f"{_LINUX_ONLY} ({error})") from None
    log_to_stderr("error")
    named = library is not None or config is not None
    settings = load_settings(
        config,
        library=library if named else ".",
        mountpoint=mountpoint,
        index=index,
        shared_index=shared_index,
        shared_name=shared_name,
        allow_other=allow_other,
        lists=lists,
    )
    subject = examining.Subject(settings, settings.library if named else None, web_users, romm)
    console = Console() if sys.stdout.isatty() else None
    findings = []
    for finding in examining.examine(subject):
        findings.append(finding)
        if console and not as_json:
            _print_row(finding, console)
        elif not as_json:
            _print_lines(finding)
    bad = [f for f in findings if f.level == "problem" or (strict and f.level == "warning")]
    if as_json:
        print_json(_as_json(findings, healthy=not bad))
    if bad:
        first = f"the first: {bad[0].name}: {bad[0].what}"
        raise ProblemsFoundError(f"{counted(len(bad), 'problem')} found; {first}")


def _print_lines(finding: Finding) -> None:
    """Print a finding as lines, for grep and logs."""
    click.echo(f"{finding.level:8}{finding.name}: {finding.what}")
    if finding.remedy:
        click.echo(f"{'':8}  remedy: {finding.remedy}")


def _print_row(finding: Finding, console: Console) -> None:
    """Print a finding as a row of a table, immediately, as some checks take seconds."""
    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(width=len("problem"))
    row.add_column(width=24, overflow="fold")
    row.add_column(overflow="fold")
    what = Text(finding.what)
    if finding.remedy:
        what.append(f"\n→ {finding.remedy}", style="bold")
    row.add_row(Text(finding.level, style=_STYLES[finding.level]), Text(finding.name), what)
    console.print(row)


def _as_json(findings: Sequence[Finding], *, healthy: bool) -> dict[str, object]:
    return {
        "zipfs": __version__,
        "healthy": healthy,
        "worst": worst(findings),
        "findings": [
            {
                "name": finding.name,
                "level": finding.level,
                "what": finding.what,
                "remedy": finding.remedy or None,
            }
            for finding in findings
        ],
    }
