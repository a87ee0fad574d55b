"""The library under test: changes it, and tells the model after each single step.

A change is made of system calls, and zipfs may well see, and rightly publish, what lies
between two of them if the machine is busy. So the model is told after each of them
(:meth:`Shelf.look`). Of what the file system says only names, inodes and mtimes are taken;
contents are those that were written. :meth:`Shelf.verify` compares them with the disk.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, Final

from tests.model.versions import Blob, History, ModelError, Part, Source, check
from tests.support.libraries import content
from zipfs.archive.validators import DAY
from zipfs.system.mounts import mounts

NAMES: Final = (
    "Disc 1.bin", "Disc 2.bin", "disc.cue", "\u00fcbersicht.txt", "manual/page 1.txt",
    "manual/page 2.txt", "manual/deep/x", "dlc/a", "dlc/b", "back\\slash",
)  # fmt: skip
"""Names that members have: one has to be mapped, some are in folders of their own."""
SIZES: Final = (0, 1, 100, 4096, 5000, 70_000, 300_000, 1_048_577, 1_500_000)
"""Small for speed; the last two are more than one of the blocks that zipfs proves."""
YEAR_1996: Final = 820_454_400 * 10**9
_EXCHANGE: Final = 2  # renameat2(2), RENAME_EXCHANGE
_AT_FDCWD: Final = -100
_KEPT: Final = 12
"""How many earlier states of a game can be restored."""


@cache
def _blob(size: int, seed: int) -> Blob:
    # Few different ones: what makes one version another must often be small.
    return Blob(content(size, seed))


@dataclass
class Game:
    """A game's folder, what it was, and states to be restored: path, content, mtime."""

    folder: Path
    history: History
    states: list[dict[bytes, tuple[Blob, int]]]


class Shelf:
    """A library at *root* with *count* games; *aside* is for what isn't in it, on the same disk.

    *times* are those of a :class:`tests.model.versions.Version`.
    """

    platform = "roms/psx"
    """Where its games are."""

    def __init__(self, root: Path, aside: Path, count: int, times: int = DAY) -> None:
        self.root = root
        self._times = times
        self.aside = aside
        aside.mkdir()
        (root / "store").mkdir(parents=True)
        self.games: list[Game] = []
        """All that change, those that are gone too."""
        self._sources: dict[int, Source] = {}
        """By inode. An inode that is used again comes with another source."""
        self._mapped: tuple[Source, BinaryIO, mmap.mmap] | None = None
        """What a writer keeps mapped."""
        self._writes_back = writes_back(root)
        self._number = 0
        self.last = ""
        """What the last change was, for the trace."""
        for number in range(count):
            self.make_game(
                f"{self.platform}/Game {number}",
                dict.fromkeys(NAMES[: 2 + number], _blob(SIZES[2 + number], number)),
            )

    def make_game(self, path: str, files: Mapping[str, Blob]) -> Game:
        """A new game with *files* at *path*."""
        game = self._new_game(path)
        game.folder.mkdir(parents=True)
        for name, blob in files.items():
            self._create(game.folder / name, blob, None)
        return game

    def _new_game(self, path: str) -> Game:
        game = Game(self.root / path, History(f"{path}.zip", self._times), [])
        self.games.append(game)
        return game

    # -- What is there now ------------------------------------------------------

    def look(self) -> None:
        """Tell the model what the games are now."""
        for game in self.games:
            parts = list(self._parts(game))
            folders = list(_empty_folders(os.fsencode(game.folder)))
            if game.history.note(parts, folders, time.monotonic()) and len(parts) >= 2:
                game.states.append({part.path: (part.blob, part.mtime_ns) for part in parts})
                del game.states[:-_KEPT]

    def _parts(self, game: Game) -> Iterator[Part]:
        root = os.fsencode(game.folder)
        for path in _files(root):
            status = os.stat(path)
            source = self._sources[status.st_ino]
            check(
                len(source.blob.data) == status.st_size,
                f"the model is wrong about the size of {path!r}",
            )
            relative = os.path.relpath(path, root)
            yield Part(relative, source, source.blob, status.st_mtime_ns, source.writes)

    def verify(self) -> None:
        """Fails if a game isn't what was written into it."""
        for game in self.games:
            for path in _files(os.fsencode(game.folder)):
                source = self._sources[os.stat(path).st_ino]
                with open(path, "rb") as file:
                    if file.read() != source.blob.data:
                        raise ModelError(f"somebody has changed {path!r}")

    # -- What can be done to it ------------------------------------------------

    def add(self, rng: random.Random) -> None:
        game = self._game(rng)
        if free := [name for name in NAMES if not os.path.lexists(game.folder / name)]:
            path = game.folder / rng.choice(free)
            self._create(path, self._any_blob(rng), self._any_mtime(rng, None))
            self._log(f"added {path}")

    def remove(self, rng: random.Random) -> None:
        if path := self._member(rng):
            path.unlink()
            self.look()
            self._log(f"removed {path}")

    def rename(self, rng: random.Random) -> None:
        game = self._game(rng)
        free = [name for name in NAMES if not os.path.lexists(game.folder / name)]
        if free and (path := self._member(rng, game)):
            new = game.folder / rng.choice(free)
            new.parent.mkdir(parents=True, exist_ok=True)
            path.rename(new)
            self.look()
            self._log(f"renamed {path} to {new}")

    def replace(self, rng: random.Random) -> None:
        if path := self._member(rng):
            before = path.stat()
            size = before.st_size if rng.random() < 0.5 else None
            new = self._write_aside(self._any_blob(rng, size))
            if (mtime := self._any_mtime(rng, before.st_mtime_ns)) is not None:
                os.utime(new, ns=(mtime, mtime))
            new.rename(path)
            self.look()
            self._log(f"replaced {path} by rename, mtime {mtime}")

    def rewrite(self, rng: random.Random) -> None:
        """In place, with the same size: all of it, or a part; often with the old mtime after."""
        if path := self._member(rng):
            size = path.stat().st_size
            self.rewrite_member(rng, path, rng.randrange(size + 1) if rng.random() < 0.5 else 0)

    def rewrite_member(self, rng: random.Random, path: Path, start: int = 0) -> None:
        """The same with the member at *path*, from byte *start* on."""
        before = path.stat()
        blob = self._any_blob(rng, before.st_size)
        if start:
            old = self._source(path).blob.data
            blob = Blob(b"".join([old[:start], blob.data[start:]]))
        with self._changing(path, blob), path.open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), blob.data[start:], start)
        mtime = self._put_mtime(rng, path, before.st_mtime_ns)
        self._log(f"rewrote {path} in place from {start}, mtime {mtime}")

    def write_mapped(self, rng: random.Random) -> None:
        path = self._member(rng)
        if path and (before := path.stat()).st_size:
            data = bytearray(self._source(path).blob.data)
            at = rng.randrange(len(data))
            data[at] ^= rng.randrange(1, 256)
            with (
                self._changing(path, Blob(bytes(data))),
                path.open("r+b", buffering=0) as file,
                mmap.mmap(file.fileno(), 0) as mapped,
            ):
                mapped[at] = data[at]
                if rng.random() < 0.5:
                    mapped.flush()
            mtime = self._put_mtime(rng, path, before.st_mtime_ns)
            self._log(f"wrote byte {at} of {path} by mmap, mtime {mtime}")

    def keep_mapped(self, rng: random.Random) -> None:
        """Map a member, to write to it in later steps."""
        path = self._member(rng)
        if path and path.stat().st_size and self._writes_back:
            self.close()
            file = path.open("r+b", buffering=0)
            self._mapped = self._source(path), file, mmap.mmap(file.fileno(), 0)
            self.store(rng)
            self._log(f"mapped {path}; {self.last}")

    def store(self, rng: random.Random) -> None:
        """Change a byte of a member that is mapped already, whatever it is called by now."""
        if self._mapped:
            source, file, mapped = self._mapped
            data = bytearray(source.blob.data)
            if size := min(len(data), len(mapped)):  # beyond the file's end there is SIGBUS
                at = rng.choice([0, 0, rng.randrange(size)])
                data[at] ^= rng.randrange(1, 256)
                source.writes += 1
                mapped[at] = data[at]
                source.blob = Blob(bytes(data))
                self.look()
                self._log(
                    f"stored byte {at} of a mapped file, inode {os.fstat(file.fileno()).st_ino}"
                )

    def close(self) -> None:
        """Let go of what is mapped."""
        if self._mapped:
            _, file, mapped = self._mapped
            self._mapped = None
            mapped.close()
            file.close()

    def truncate(self, rng: random.Random) -> None:
        if path := self._member(rng):
            before = path.stat()
            data = self._source(path).blob.data
            size = rng.choice(
                [0, before.st_size // 2, max(0, before.st_size - 1), rng.choice(SIZES)]
            )
            with self._changing(path, Blob(data[:size].ljust(size, b"\0"))):
                os.truncate(path, size)
            mtime = self._put_mtime(rng, path, before.st_mtime_ns)
            self._log(f"cut {path} from {before.st_size} to {size}, mtime {mtime}")

    def append(self, rng: random.Random) -> None:
        if path := self._member(rng):
            before = path.stat()
            more = self._any_blob(rng).data
            with (
                self._changing(path, Blob(self._source(path).blob.data + more)),
                path.open("ab", 0) as file,
            ):
                file.write(more)
            mtime = self._put_mtime(rng, path, before.st_mtime_ns)
            self._log(f"appended {len(more)} to {path}, mtime {mtime}")
            if path.stat().st_size > 2 * SIZES[-1]:
                with self._changing(path, Blob(b"")):
                    os.truncate(path, 0)

    def swap(self, rng: random.Random) -> None:
        """Two members, at once or by way of a third name."""
        game = self._game(rng)
        one, other = self._member(rng, game), self._member(rng, game)
        if one and other and one != other:
            if rng.random() < 0.5:
                _exchange(one, other)
            else:
                aside = self._aside()
                one.rename(aside)
                self.look()
                other.rename(one)
                self.look()
                aside.rename(other)
            self.look()
            self._log(f"swapped {one} and {other}")

    def link(self, rng: random.Random) -> None:
        """Move a member, a folder of members, or the game, elsewhere in the library; link to it."""
        game = self._game(rng)
        member = self._member(rng, game)
        choices = [game.folder, *(game.folder / "manual", game.folder / "dlc")]
        choices += [member] if member else []
        path = rng.choice(choices)
        if path.exists() and not path.is_symlink():
            target = self.root / "store" / str(self._next())
            path.rename(target)
            self.look()
            path.symlink_to(target)
            self.look()
            self._log(f"moved {path} to {target}, and linked to it")

    def unlink(self, rng: random.Random) -> None:
        """The other way round."""
        links = [path for path in self._all_links() if path.exists()]
        if links:
            path = rng.choice(links)
            target = Path(os.readlink(path))
            if not target.exists():
                return
            path.unlink()
            self.look()
            target.rename(path)
            self.look()
            self._log(f"put {target} back in the place of the link {path}")

    def touch(self, rng: random.Random) -> None:
        if path := self._member(rng):
            mtime = self._any_mtime(rng, path.stat().st_mtime_ns)
            if mtime is None:
                mtime = time.time_ns()
            with self._changing(path):
                os.utime(path, ns=(mtime, mtime))
            self._log(f"touched {path}: {mtime}")

    def chmod(self, rng: random.Random) -> None:
        if path := self._member(rng):
            mode = rng.choice([0o644, 0o600, 0o444, 0o640])
            path.chmod(mode)
            self.look()
            self._log(f"gave {path} the mode {mode:o}")

    def hard_link(self, rng: random.Random) -> None:
        """A second name for a member, in the game or out of it."""
        game = self._game(rng)
        if path := self._member(rng, game):
            free = [name for name in NAMES if not os.path.lexists(game.folder / name)]
            new = self.root / "store" / str(self._next())
            if free and rng.random() < 0.5:
                new = game.folder / rng.choice(free)
                new.parent.mkdir(parents=True, exist_ok=True)
            os.link(path.resolve(), new)
            self.look()
            self._log(f"linked {new} to {path}")

    def write_elsewhere(self, rng: random.Random) -> None:
        """Write to a file outside of all games; it may be a member by another name."""
        files = [path for path in (self.root / "store").iterdir() if path.is_file()]
        if files:
            path = rng.choice(sorted(files))
            mtime = path.stat().st_mtime_ns
            data = bytes(byte ^ 1 for byte in self._source(path).blob.data[:4096])
            rest = self._source(path).blob.data[4096:]
            with self._changing(path, Blob(data + rest)), path.open("r+b", buffering=0) as file:
                file.write(data)
            self._put_mtime(rng, path, mtime)
            self._log(f"wrote to {path}")

    def add_game(self, rng: random.Random) -> None:
        files = {name: self._any_blob(rng) for name in rng.sample(NAMES, rng.randint(2, 6))}
        game = self.make_game(f"{self.platform}/Made {self._next()}", files)
        self._log(f"made {game.folder}")

    def rename_game(self, rng: random.Random) -> None:
        game = self._game(rng)
        if os.path.lexists(game.folder):
            new = self._new_game(f"{self.platform}/Renamed {self._next()}")
            game.folder.rename(new.folder)
            self.look()
            self._log(f"renamed {game.folder} to {new.folder}")

    def remove_game(self, rng: random.Random) -> None:
        game = self._game(rng)
        if os.path.lexists(game.folder):
            if rng.random() < 0.5 and not game.folder.is_symlink():
                for member in self._members(game):
                    member.unlink()
                    self.look()
                shutil.rmtree(game.folder)
                self._log(f"deleted {game.folder}")
            else:
                game.folder.rename(self.aside / game.folder.name)
                self._log(f"moved {game.folder} away")
                if rng.random() < 0.7:
                    self.look()
                    time.sleep(rng.choice([0.0, 0.05, 0.3]))
                    (self.aside / game.folder.name).rename(game.folder)
                    self._log(f"moved {game.folder} away, and back")
                else:
                    _delete(self.aside / game.folder.name)
            self.look()

    def restore(self, rng: random.Random) -> None:
        """An earlier state, as ``cp -p`` would: contents, names and mtimes."""
        game = self._game(rng)
        if not game.states:
            return
        state = rng.choice(game.states)
        how = rng.choice(["in place", "anew", "at once"])
        if how == "at once":
            folder = self._aside()
            for name, (blob, mtime) in state.items():
                self._create(folder / os.fsdecode(name), blob, mtime)
            if os.path.lexists(game.folder):
                old = self._aside()
                game.folder.rename(old)
                self.look()
                folder.rename(game.folder)
                _delete(old)
            else:
                folder.rename(game.folder)
            self.look()
        else:
            self._restore_files(game, state, in_place=how == "in place")
        self._log(f"restored {game.folder} {how}: {sorted(state)}")

    def _restore_files(
        self, game: Game, state: dict[bytes, tuple[Blob, int]], *, in_place: bool
    ) -> None:
        for member in self._members(game):
            if not in_place or os.fsencode(member.relative_to(game.folder)) not in state:
                member.unlink()
                self.look()
        for name, (blob, mtime) in state.items():
            path = game.folder / os.fsdecode(name)
            if path.is_symlink():
                path.unlink()  # or the restored one would be as dead as what it leads to
                self.look()
            if not path.exists():
                self._create(path, blob, mtime)
                continue
            with self._changing(path, blob), path.open("r+b", buffering=0) as file:
                # One of the two, so that the model needn't know of a state in between.
                if file.seek(0, os.SEEK_END) > len(blob.data):
                    data = self._source(path).blob.data[: len(blob.data)]
                    with self._changing(path, Blob(data)):
                        file.truncate(len(blob.data))
                os.pwrite(file.fileno(), blob.data, 0)
            with self._changing(path):
                os.utime(path, ns=(mtime, mtime))

    # -- Helpers ---------------------------------------------------------------

    def _log(self, text: str) -> None:
        self.last = text.replace(f"{self.root}/", "").replace(f"{self.platform}/", "")

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _aside(self) -> Path:
        return self.aside / str(self._next())

    def _game(self, rng: random.Random) -> Game:
        return rng.choice(self.games)

    def _members(self, game: Game) -> list[Path]:
        return sorted(Path(os.fsdecode(path)) for path in _files(os.fsencode(game.folder)))

    def _member(self, rng: random.Random, game: Game | None = None) -> Path | None:
        members = self._members(game or self._game(rng))
        return rng.choice(members) if members else None

    def _all_links(self) -> list[Path]:
        found = []
        for game in self.games:
            if game.folder.is_symlink():
                found.append(game.folder)
            for parent, folders, files in os.walk(game.folder):
                found += [p for name in folders + files if (p := Path(parent, name)).is_symlink()]
        return sorted(found)

    def _source(self, path: Path) -> Source:
        return self._sources[path.stat().st_ino]

    def _any_blob(self, rng: random.Random, size: int | None = None) -> Blob:
        return _blob(rng.choice(SIZES) if size is None else size, rng.randrange(4))

    def _any_mtime(self, rng: random.Random, old: int | None) -> int | None:
        """The old one, one of 1996, one a second later; None: leave it to the kernel."""
        choices = [None, YEAR_1996, YEAR_1996 + 10**9 * rng.randrange(3)]
        choices += [old, old, old + 1, old + 10**9] if old is not None else []
        return rng.choice(choices)

    def _put_mtime(self, rng: random.Random, path: Path, old: int) -> int | None:
        mtime = self._any_mtime(rng, old)
        if mtime is not None:
            with self._changing(path):
                os.utime(path, ns=(mtime, mtime))
        return mtime

    def _write_aside(self, blob: Blob) -> Path:
        path = self._aside()
        path.write_bytes(blob.data)
        self._sources[path.stat().st_ino] = Source(blob)
        return path

    def _create(self, path: Path, blob: Blob, mtime: int | None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb", buffering=0) as file:
            source = self._sources[path.stat().st_ino] = Source(_blob(0, 0))
            self.look()
            if blob.data:
                source.writes += 1
                file.write(blob.data)
                source.blob = blob
                self.look()
        if mtime is not None:
            source.writes += 1
            os.utime(path, ns=(mtime, mtime))
            self.look()

    @contextmanager
    def _changing(self, path: Path, blob: Blob | None = None) -> Iterator[None]:
        """In here *path* is changed in place, to hold *blob*, or its mtime only."""
        source = self._source(path)
        source.writes += 1  # before: a reader beside us may fail from here on
        yield
        if blob is not None:
            source.blob = blob
        self.look()


def writes_back(folder: Path) -> bool:
    """Whether what is written to files in *folder* is dirty until it is on a disk.

    Only then do stores into a page that somebody keeps mapped ever move the file's times again.
    """
    holding = max(
        (mount for mount in mounts() if folder.is_relative_to(mount.path)),
        key=lambda mount: len(mount.path),
    )
    return holding.kind not in ("overlay", "ramfs", "tmpfs")


def _files(root: bytes) -> Iterator[bytes]:
    for parent, folders, names in os.walk(root, followlinks=True):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            if os.path.isfile(path):
                yield path


def _empty_folders(root: bytes) -> Iterator[bytes]:
    for parent, folders, names in os.walk(root, followlinks=True):
        if parent != root and not folders and not names:
            yield os.path.relpath(parent, root)


def _delete(path: Path) -> None:
    if stat.S_ISDIR(path.lstat().st_mode):
        shutil.rmtree(path)
    else:
        path.unlink()


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fspath(one))


CHANGES: Final[dict[str, tuple[int, Callable[[Shelf, random.Random], None]]]] = {
    "add": (5, Shelf.add),
    "remove": (3, Shelf.remove),
    "rename": (2, Shelf.rename),
    "replace": (4, Shelf.replace),
    "rewrite": (4, Shelf.rewrite),
    "write_mapped": (2, Shelf.write_mapped),
    "keep_mapped": (1, Shelf.keep_mapped),
    "store": (2, Shelf.store),
    "truncate": (2, Shelf.truncate),
    "append": (2, Shelf.append),
    "swap": (2, Shelf.swap),
    "link": (1, Shelf.link),
    "unlink": (1, Shelf.unlink),
    "touch": (2, Shelf.touch),
    "chmod": (2, Shelf.chmod),
    "hard_link": (1, Shelf.hard_link),
    "write_elsewhere": (2, Shelf.write_elsewhere),
    "add_game": (1, Shelf.add_game),
    "rename_game": (1, Shelf.rename_game),
    "remove_game": (1, Shelf.remove_game),
    "restore": (6, Shelf.restore),
}
"""All changes, by name, and how often each is made."""
