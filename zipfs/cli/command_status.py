"""``zipfs status``: the status of a mount, for people and for programs."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any, Final

import click
from rich.console import RenderableType
from rich.live import Live

from zipfs.cli.options import json_option
from zipfs.cli.statustable import table
from zipfs.cli.terminal import console, mountpoint_of, print_json
from zipfs.mount.status.client import ask
from zipfs.mount.status.unserved import UnservedError

_EVERY: Final = "2"
"""Default interval of ``--watch``, in seconds."""
_SHORTEST: Final = 0.1
_WATCHED_NEWEST: Final = 5
"""Skipped paths that a live view shows."""


@click.command(short_help="Show a mount's status: archives, work to do, reads, errors.")
@click.argument("mountpoint", required=False)
@click.option("--config", metavar="FILE", help="The mount's config file, in place of MOUNTPOINT.")
@json_option
@click.option("--prometheus", is_flag=True, help="Metrics in Prometheus' text format.")
@click.option(
    "--watch",
    metavar="[SECONDS]",
    is_flag=False,
    flag_value=_EVERY,
    help=f"Repeat it every few seconds, by default {_EVERY}, with rates; Ctrl-C ends it.",
)
def status(
    mountpoint: str | None, config: str | None, as_json: bool, prometheus: bool, watch: str | None
) -> None:
    """Show the status of the mount on MOUNTPOINT.

    The daemon answers over a socket in its runtime folder, to root, the user who mounted
    and, if systemd runs it, its group. The mount itself isn't accessed.
    """
    if as_json + prometheus + (watch is not None) > 1:
        raise click.UsageError("choose one of --json, --prometheus and --watch")
    if watch is not None and mountpoint is None and config is None and not _is_number(watch):
        mountpoint, watch = watch, _EVERY  # `status --watch MOUNTPOINT`
    if mountpoint is not None and config is not None:
        raise click.UsageError("name either MOUNTPOINT or --config FILE")
    path = mountpoint_of(mountpoint, config)
    if watch is not None:
        _watch(path, _seconds(watch))
        return
    try:
        document = ask(path)
    except UnservedError as error:
        if prometheus:
            document = error.document  # which says that it isn't up
        else:
            if as_json:
                print_json(error.document)
            raise
    if as_json:
        print_json(document)
    elif prometheus:
        # Imported here, to save memory in the other commands, the daemon's above all.
        from zipfs.cli.exposition import exposition  # noqa: PLC0415

        click.echo(exposition(document), nl=False)
    else:
        console().print(table(document))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _seconds(text: str) -> float:
    if not _is_number(text) or float(text) < _SHORTEST:
        raise click.UsageError(f"--watch takes seconds, {_SHORTEST} or more, and not {text!r}")
    return float(text)


def _watch(path: str, seconds: float) -> None:
    """Show the mount at *path* every few *seconds*, until Ctrl-C."""
    screen = console()
    before: dict[str, Any] | None = None
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        live: Live | None = None
        while True:
            view: RenderableType
            try:
                document = ask(path)
                view = table(document, before, _WATCHED_NEWEST)
                before = document
            except UnservedError as error:  # another daemon is on its way
                view, before = f"zipfs: {error}", None
            if not screen.is_terminal:
                screen.print(view)
            elif live is None:
                live = stack.enter_context(Live(view, console=screen, auto_refresh=False))
            else:
                live.update(view, refresh=True)
            time.sleep(seconds)
