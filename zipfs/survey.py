"""A walk through the library, from game to game, that no dead folder can stop."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator

from zipfs.library import Entry, LeftOut, Library, Origins
from zipfs.selection import Policy
from zipfs.threads import Threads


def lane_of(path: bytes) -> tuple[str, bytes]:
    """The lane of threads in which *path*, which is the item, is looked at."""
    return "folder", path.rpartition(b"/")[0]


async def survey(
    library: Library, policy: Policy, threads: Threads
) -> AsyncGenerator[tuple[bytes, Entry | None], None]:
    """Path and folder of each game, as *policy* takes them.

    None stands for the folder where something, a game or a folder of games, doesn't
    answer. A folder that can't be listed is passed over: whoever asks for it is told why.
    """
    todo: list[tuple[bytes, bytes, Origins]] = [(b"", b"", frozenset())]
    while todo:
        path, source, origins = todo.pop()
        prefix = path + b"/" if path else b""
        try:
            names = await threads.run(library.names, source, lane=lane_of(path), item=path)
        except TimeoutError:
            yield path, None
            continue
        except OSError:
            continue
        entries = await threads.map(
            functools.partial(_look, library, source, origins),
            names,
            lane=lane_of(prefix),
            key=lambda name, prefix=prefix: prefix + name,  # type: ignore[misc]  # mypy can't infer a lambda's default
        )
        for name, entry in zip(names, entries, strict=True):
            if entry is None:
                yield prefix + name, None
            elif isinstance(entry, Entry) and entry.is_folder:
                if policy.is_game(prefix + name):
                    yield prefix + name, entry
                elif policy.may_hold_games(prefix + name):
                    todo.append((prefix + name, entry.source, entry.origins))


def _look(library: Library, source: bytes, origins: Origins, name: bytes) -> Entry | LeftOut:
    """What *name* in the folder *source* is."""
    path = source + b"/" + name if source else name
    try:
        return library.entry(path, origins) or LeftOut(path, "went away meanwhile")
    except TimeoutError:
        raise
    except OSError as error:
        return LeftOut(path, f"can't be looked at: {error.strerror}")
