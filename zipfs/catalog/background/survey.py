"""Where the games of a library are: a walk from folder to folder, which no dead one can stop."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from typing import Final, NamedTuple

from zipfs.catalog.background.widths import Widths
from zipfs.catalog.game import lane_of
from zipfs.library.rules.general import Policy
from zipfs.library.scan import Entry, LeftOut, Origins, Place, Type
from zipfs.library.view import LibraryView
from zipfs.system.paths import join
from zipfs.system.threads.lanes import Threads

STEP: Final = 256
"""Entries of a folder, and at most as many games, that one step has."""
_WIDE: Final = 4
"""So many times as many, at most, where many are looked at at once: each of the threads has enough
to be worth its start."""


class Found(NamedTuple):
    """Games in one folder, up to :data:`STEP`; and paths that may be or have some: they don't
    answer, or can't be listed just now."""

    games: list[tuple[bytes, Place]]
    silent: list[bytes]
    files: Sequence[tuple[bytes, Entry]] = ()
    """Files that aren't in games, each with its path."""
    beside: Collection[bytes] = ()
    """All names in that folder."""


class Skips(NamedTuple):
    """All that is skipped of the folder with that source."""

    folder: bytes
    left_out: Iterable[LeftOut]
    failed: bool = False
    """Whether the folder couldn't be listed, and may be in a moment."""


async def survey(
    library: LibraryView, policy: Policy, threads: Threads, widths: Widths
) -> AsyncGenerator[Found | Skips, None]:
    """All games, as *policy* takes them; and after those of a folder what is skipped of it.

    A folder that can't be listed is passed over: whoever asks for it is told why.
    """
    todo: list[tuple[bytes, bytes, Origins]] = [(b"", b"", frozenset())]
    while todo:
        path, source, origins = todo.pop()
        prefix = path + b"/" if path else b""
        try:
            kinds = await threads.run(library.kinds, source, lane=lane_of(path), item=path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            left_out = [LeftOut(source, f"can't be listed: {error.strerror}")]
            is_lasting = isinstance(error, PermissionError | TimeoutError)
            yield Skips(source, left_out, failed=not is_lasting)
            if not isinstance(error, PermissionError):
                yield Found([], [path])
            continue
        left_out = []
        names = sorted(kinds)
        end = 0
        while end < len(names):
            start = end
            end += STEP * min(_WIDE, widths.of(source, "examine").now)
            some = names[start:end]
            # A folder is looked at when it is listed or examined: a call less for each game.
            folders = [name for name in some if kinds[name] is Type.FOLDER]
            children = [(prefix + name, Place(join(source, name), origins)) for name in folders]
            others = [name for name in some if kinds[name] is not Type.FOLDER]
            entries = await threads.map(
                functools.partial(_look, library, source, origins),
                others,
                lane=lane_of(prefix),
                key=lambda name, prefix=prefix: prefix + name,  # type: ignore[misc]  # mypy can't infer a lambda's default
                width=widths.of(source, "look"),
            )
            silent = []
            files = []
            for name, entry in zip(others, entries, strict=True):
                child = prefix + name
                if entry is None:
                    silent.append(child)
                    silent += library.variants_of(child)
                    left_out.append(LeftOut(join(source, name), "doesn't answer"))
                elif isinstance(entry, LeftOut):
                    left_out.append(entry)
                elif not entry.is_folder:
                    files.append((child, entry))
                else:
                    children.append((child, entry.place))
            games = []
            for child, place in children:
                if policy.is_game(child):
                    games.append((child, place))
                elif policy.may_hold_games(child):
                    todo.append((child, *place))
            own = (path.removeprefix(prefix) for path, _ in games)
            games += [
                (prefix + name, Place(join(source, name), origins))
                for name in library.beside(path, own, names)
            ]
            if games or silent or files:
                yield Found(games, silent, files, kinds.keys())
        yield Skips(source, left_out)


def _look(library: LibraryView, source: bytes, origins: Origins, name: bytes) -> Entry | LeftOut:
    """What *name* in the folder *source* is."""
    path = join(source, name)
    try:
        return library.entry(path, origins) or LeftOut(path, "went away meanwhile")
    except TimeoutError:
        raise
    except OSError as error:
        return LeftOut(path, f"can't be looked at: {error.strerror}")
