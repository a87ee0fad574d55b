"""A walk through the library, from game to game, that no dead folder can stop."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Final

from zipfs.library import Library
from zipfs.selection import Policy
from zipfs.sources import Entry, LeftOut, Origins, Place
from zipfs.threads import Threads

STEP: Final = 256
"""Entries of a folder that are looked at in one go, games of it that are told of at once."""

Found = tuple[list[tuple[bytes, Place]], list[bytes]]
"""Games in one folder, path and place, and where something, a game or a folder of games,
doesn't answer."""


def lane_of(path: bytes) -> tuple[str, bytes]:
    """The lane of threads in which *path*, which is the item, is looked at."""
    return "folder", path.rpartition(b"/")[0]


async def survey(
    library: Library,
    policy: Policy,
    threads: Threads,
    tell: Callable[[bytes, Iterable[LeftOut]], object] = lambda folder, left_out: None,
) -> AsyncGenerator[Found, None]:
    """All games, as *policy* takes them, up to :data:`STEP` at a time.

    A folder that can't be listed is passed over: whoever asks for it is told why. *tell* hears
    the source of each folder that was gone through, and what is left out of it.
    """
    todo: list[tuple[bytes, bytes, Origins]] = [(b"", b"", frozenset())]
    while todo:
        path, source, origins = todo.pop()
        prefix = path + b"/" if path else b""
        try:
            names = await threads.run(library.names, source, lane=lane_of(path), item=path)
        except TimeoutError as error:
            tell(source, [LeftOut(source, f"can't be listed: {error.strerror}")])
            yield [], [path]
            continue
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            tell(source, [LeftOut(source, f"can't be listed: {error.strerror}")])
            continue
        left_out = []
        for start in range(0, len(names), STEP):
            some = names[start : start + STEP]
            entries = await threads.map(
                functools.partial(_look, library, source, origins),
                some,
                lane=lane_of(prefix),
                key=lambda name, prefix=prefix: prefix + name,  # type: ignore[misc]  # mypy can't infer a lambda's default
            )
            games = []
            silent = []
            for name, entry in zip(some, entries, strict=True):
                child = prefix + name
                if entry is None:
                    silent.append(child)
                    silent += library.variants_of(child)
                    left_out.append(LeftOut(_join(source, name), "doesn't answer"))
                elif isinstance(entry, LeftOut):
                    left_out.append(entry)
                elif entry.is_folder:
                    if policy.is_game(child):
                        games.append((child, entry.place))
                    elif policy.may_hold_games(child):
                        todo.append((child, entry.source, entry.origins))
            own = (path.removeprefix(prefix) for path, _ in games)
            games += [
                (prefix + name, Place(_join(source, name), origins))
                for name in library.beside(path, own, names)
            ]
            if games or silent:
                yield games, silent
        tell(source, left_out)


def _look(library: Library, source: bytes, origins: Origins, name: bytes) -> Entry | LeftOut:
    """What *name* in the folder *source* is."""
    path = _join(source, name)
    try:
        return library.entry(path, origins) or LeftOut(path, "went away meanwhile")
    except TimeoutError:
        raise
    except OSError as error:
        return LeftOut(path, f"can't be looked at: {error.strerror}")


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name
