"""Settings: from the command line and a TOML file, validated once, then frozen.

Keys in the file have the names of the command line's long options (``read-ahead = 1024``). The
command line takes precedence over the file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from zipfs.config_shared import check_address
from zipfs.config_variants import PlaylistMode, VariantSettings, kebab, strings
from zipfs.errors import ConfigError
from zipfs.library.filestate import MIN_SETTLE
from zipfs.library.rules.globs import check_placeholders, check_relative, platform_names
from zipfs.library.vouching import HashSingles, Prove
from zipfs.system.ownership import Ownership, number_of, umask_of

Watch = Literal["auto", "events", "poll"]
Trust = Literal["state", "mtime"]
SelectionName = Literal["general", "romm"]
Timestamps = Literal["files", "fixed"]
LogLevel = Literal["debug", "info", "warning", "error"]


def _not_empty(value: str) -> str:
    if not value:
        raise ValueError("it is empty")
    return value


# Not `min_length`: it refuses paths that aren't UTF-8, which Python represents by surrogates.
Path = Annotated[str, AfterValidator(_not_empty)]


_WITHOUT_EFFECT_UNLESS: Final = {
    "lists_folder": "lists",
    "lists_prefix": "lists",
    "lists_keep": "lists",
    "shared_name": "shared_index",
}
"""Options, each with that one without which it has no effect."""


class Settings(BaseModel):
    """All settings of `zipfs mount`; the other commands use some of them."""

    model_config = ConfigDict(
        alias_generator=kebab, extra="forbid", frozen=True, populate_by_name=False, strict=True
    )

    library: Path
    """Folder to show."""
    mountpoint: Path | None = None
    """Empty folder to mount on."""
    index: Path | None = None
    """SQLite file for the checksums; None: one file per library in the state folder."""
    shared_index: str | None = None
    """PostgreSQL database of checksums that other heads share, ``postgresql://…``."""
    shared_name: Path | None = None
    """Name of the library there; None: its path."""
    games: tuple[str, ...] = ()
    """Patterns of the folders that are games, relative to the library; empty: detected."""
    selection: SelectionName = "general"
    """The rules by which folders are games, and files belong to them."""
    romm_config: Path | None = None
    """RomM's `config.yml`; None: its defaults."""
    exclude: tuple[str, ...] = ()
    """Patterns of files and folders that archives don't contain."""
    include: tuple[str, ...] = ()
    """Patterns of those that they contain; they take precedence over all other rules."""
    portable_names: bool = False
    """Whether archives contain only names that Windows can create."""
    timestamps: Timestamps = "files"
    """Whether members have the dates of their files, or all the same date."""
    execute_bits: bool = False
    """Whether files that can be executed are so in archives."""
    playlists: PlaylistMode = "discs"
    """Which games get a playlist: none, all as RomM does, or those with several discs."""
    playlist_platforms: tuple[str, ...] = ("default",)
    """Folders of the platforms whose games can get one; ``default`` stands for a list."""
    lists: Path | None = None
    """Folder of lists, each of which is shown as an archive."""
    lists_folder: str = ".lists"
    """Name of the mount's folder where they are shown."""
    lists_prefix: str = "/library/"
    """URL path of the library in the locations of lists; with a ``/`` at both ends."""
    lists_keep: float = Field(0.0, ge=0, le=36500)
    """Days after which a list that nobody has asked for is removed; 0: never."""
    variants: tuple[VariantSettings, ...] = ()
    """Further archives of games; in the file only."""
    allow_other: bool = False
    """Whether other users have access to the mount."""
    settle: float = Field(2.0, ge=MIN_SETTLE, le=86400)
    """Settle time: seconds without a change after which a game counts as complete."""
    read_ahead: int = Field(1024, ge=0, le=1 << 20)
    """The kernel's read-ahead for the mount, in KiB; 0 keeps the kernel's default."""
    watch: Watch = "auto"
    """How changes are detected before an access: by the kernel's events, or by rescans."""
    trust: Trust = "state"
    """Which part of a file's state shows that it is unchanged: all, or size and mtime alone."""
    prove: Prove = "auto"
    """Where bytes are proven by their checksums before they are returned."""
    hash_singles: HashSingles = "auto"
    """Which files that are passed through alone get checksums."""
    read_timeout: float = Field(30.0, ge=0, le=86400)
    """Seconds after which a read of a source that doesn't answer fails; 0: never."""
    recheck_rate: float | None = Field(None, ge=0, le=1 << 20)
    """Rate of reading again what its dates don't vouch for, in MiB per second; 0: never.
    None: 1, and 0 on cloud storage."""
    parallel_reads: int | None = Field(None, ge=0, le=64)
    """How many files are read at a time for one reader, and ahead of it; 0: those that it asks
    for, one after the other. None: as many as the source turns out to be quicker with."""
    parallel_looks: int | None = Field(None, ge=1, le=32)
    """How many games and files are looked at, and small files hashed, at a time. None: as many as
    the source turns out to be quicker with."""
    hash_rate: float = Field(0.0, ge=0, le=1 << 20)
    """Maximum rate of hashing, in MiB per second; 0: unlimited."""
    uid: int | None = None
    """Owner of all files and folders, as a number or a name; None keeps the source's."""
    gid: int | None = None
    """Group of all files and folders, as a number or a name; None keeps the source's."""
    umask: int | None = None
    """Octal umask, as a string; replaces the source's permission bits. None keeps them."""
    no_supervise: bool = False
    """Whether the mount ends with its daemon, where no service manager holds it."""
    setuid: str | None = None
    """The user that the daemon becomes once root has mounted, ``USER[:GROUP]``; None: nobody."""
    options: tuple[str, ...] = ()
    """FUSE's own mount options."""
    log_level: LogLevel = "info"

    @field_validator(
        "settle", "read_timeout", "hash_rate", "recheck_rate", "lists_keep", mode="before"
    )
    @classmethod
    def _whole(cls, value: object) -> object:
        # TOML distinguishes 2 from 2.0, people don't.
        return float(value) if type(value) is int else value

    @field_validator("uid", mode="before")
    @classmethod
    def _user(cls, value: object) -> object:
        return number_of(value) if isinstance(value, str | int) else value

    @field_validator("gid", mode="before")
    @classmethod
    def _group(cls, value: object) -> object:
        return number_of(value, group=True) if isinstance(value, str | int) else value

    @field_validator("setuid", mode="before")
    @classmethod
    def _identity(cls, value: object) -> object:
        if type(value) is int:
            value = str(value)
        if isinstance(value, str) and os.name == "posix":
            from zipfs.system import users  # noqa: PLC0415 - there are none on Windows

            users.identity_of(value)
        return value

    @field_validator("shared_index")
    @classmethod
    def _without_password(cls, value: str | None) -> str | None:
        return None if value is None else check_address(value)

    @field_validator("umask", mode="before")
    @classmethod
    def _octal(cls, value: object) -> object:
        # A TOML number would be decimal, which nobody means.
        if not isinstance(value, str):
            raise ValueError("octal digits in quotes are wanted, like '022'")
        return umask_of(value)

    @field_validator("games", "exclude", "include", "playlist_platforms", "options", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return strings(value)

    @field_validator("variants", mode="before")
    @classmethod
    def _tables(cls, value: object) -> object:
        if not isinstance(value, list):
            raise ValueError("tables are wanted: write [[variants]], in two brackets")
        return tuple(value)

    @field_validator("variants")
    @classmethod
    def _unique(cls, value: tuple[VariantSettings, ...]) -> tuple[VariantSettings, ...]:
        names = [variant.name for variant in value]
        for name in names:
            if sum(other.casefold() == name.casefold() for other in names) > 1:
                raise ValueError(f"two have the name {name!r}")
        return value

    @field_validator("games", "exclude", "include")
    @classmethod
    def _relative(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for glob in value:
            check_relative(glob)
        return value

    @field_validator("games")
    @classmethod
    def _placeholders(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for glob in value:
            check_placeholders(glob)
        return value

    @field_validator("playlist_platforms")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return platform_names(value)

    @field_validator("lists_folder")
    @classmethod
    def _component(cls, value: str) -> str:
        if value in ("", ".", "..") or set(value) & {"/", "\0"} or len(os.fsencode(value)) > 255:
            raise ValueError(f"{value!r} isn't the name of a folder, like '.lists'")
        return value

    @field_validator("lists_prefix")
    @classmethod
    def _absolute(cls, value: str) -> str:
        path = value.strip("/")
        if not value.startswith("/") or (
            (path and {"", ".", ".."} & set(path.split("/"))) or set(path) & set("%+? \0")
        ):
            raise ValueError(f"{value!r} isn't the path of a URL, like '/library/'")
        return f"/{path}/" if path else "/"

    @field_validator("options")
    @classmethod
    def _harmless(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for option in map(str.strip, ",".join(value).split(",")):
            # `suid` and `dev` would cancel libfuse's `nosuid` and `nodev`; nothing needs them.
            if option in ("rw", "suid", "dev", "max_read") or option.startswith("max_read="):
                raise ValueError(
                    f"the mount option {option!r} can't be had with zipfs; leave it out"
                )
        return value

    @property
    def where(self) -> str:
        """The mount point; raises :exc:`ConfigError` if none is given."""
        if self.mountpoint is None:
            raise ConfigError(
                "no mountpoint given; name it on the command line or in a config file"
            )
        return self.mountpoint

    @property
    def ownership(self) -> Ownership:
        """Overrides of owner, group and permissions."""
        return Ownership(self.uid, self.gid, self.umask)

    def absolute(self) -> Self:
        """These settings with absolute paths, which hold in any working directory.

        Raises :exc:`ConfigError` for a relative one if the working directory has been removed.
        """
        paths = ("library", "mountpoint", "index", "romm_config", "lists")
        given = {name: getattr(self, name) for name in paths}
        relative = {name: path for name, path in given.items() if path and not os.path.isabs(path)}
        try:
            here = os.getcwd() if relative else ""
        except OSError as error:
            path = next(iter(relative.values()))
            raise ConfigError(
                f"can't find {path} in the working directory: {error.strerror}; give its whole path"
            ) from None
        return self.model_copy(
            update={name: os.path.join(here, path) for name, path in relative.items()}
        )

    @classmethod
    def load(cls, file: str | None, given: Mapping[str, Any]) -> Self:
        """Settings of the TOML *file*, if any, overridden by *given*.

        *given* has the same keys as the file; values of None are ignored.
        Raises :exc:`ConfigError` with one line that names the key.
        """
        values = _read_toml(file) if file else {}
        values |= {key: value for key, value in given.items() if value is not None}
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(_one_line(error, file, given)) from None
        if settings.romm_config and settings.selection != "romm":
            raise ConfigError("'romm-config' is for the selection 'romm' only; choose that as well")
        for name, needed in _WITHOUT_EFFECT_UNLESS.items():
            if name in settings.model_fields_set and getattr(settings, needed) is None:
                raise ConfigError(
                    f"{kebab(name)!r} is for {kebab(needed)!r} only; give that as well"
                )
        return settings


def _read_toml(file: str) -> dict[str, Any]:
    try:
        with open(file, "rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"can't read the config file {file}: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"the config file {file} isn't valid TOML: too deeply nested") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the config file {file} isn't valid TOML: {error}") from None


def _one_line(error: ValidationError, file: str | None, given: Mapping[str, Any]) -> str:
    """The message for the first error, with the place that the value came from."""
    first = error.errors()[0]
    key, *within = map(str, first["loc"] or "?")
    place = f"in {file}" if file and given.get(key) is None else "on the command line"
    fields = Settings.model_fields
    if key == "variants" and within:
        # By its number: a wrong table may have no name.
        place = f"of variant {int(within[0]) + 1} {place}"
        fields = VariantSettings.model_fields
        key = within[1] if len(within) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = ", ".join(sorted(map(kebab, fields)))
        return f"unknown key {key!r} {place}; the known ones are {known}"
    if first["type"] == "missing":
        if within:
            return f"no {key} given {place}"
        return f"no {key} given; name it on the command line or in a config file"
    message = first["msg"].removeprefix("Value error, ")
    return f"bad value {f'for {key!r} ' if key else ''}{place}: {message}"


def state_folder(environment: Mapping[str, str] = os.environ) -> str:
    """The folder of indexes: systemd's ``$STATE_DIRECTORY``, else the user's state folder.

    systemd.exec(5): several directories are separated by colons; the first is used. Raises
    :exc:`ConfigError` without a home.
    """
    if given := environment.get("STATE_DIRECTORY"):
        return given.split(":")[0]
    try:
        folder = platformdirs.user_state_dir("zipfs")
    except RuntimeError:  # a user without home and without entry in passwd(5)
        folder = "~"
    if not os.path.isabs(folder):
        raise ConfigError(_NO_HOME)
    return folder


_NO_HOME: Final = "there is no home for the index; name a file with --index, or $STATE_DIRECTORY"


def state_lacks(environment: Mapping[str, str] = os.environ) -> str | None:
    """Why there can't be an index in the state folder; None if there can."""
    try:
        folder = state_folder(environment)
    except ConfigError as error:
        return str(error)
    above = folder
    while not os.path.exists(above) and above != "/":
        above = os.path.dirname(above)
    if os.access(above, os.W_OK | os.X_OK):
        return None
    return (
        f"the index can't be made in {folder}, as {above} may not be written; name another place"
        " with --index, or $STATE_DIRECTORY"
    )
