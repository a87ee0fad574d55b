"""Settings: from the command line and a TOML file, validated once, then frozen.

The names are those of the command line's long options, in the file as well
(``read-ahead = 1024``). What the command line says wins over the file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from zipfs.errors import ConfigError
from zipfs.library.filestate import MIN_SETTLE
from zipfs.library.rules.categories import CATEGORIES, category_named
from zipfs.library.rules.globs import check_placeholders, check_relative, encode, platform_names
from zipfs.system.ownership import Ownership, number_of, umask_of

Watch = Literal["auto", "events", "poll"]
Trust = Literal["state", "mtime"]
SelectionName = Literal["general", "romm"]
Timestamps = Literal["files", "fixed"]
PlaylistMode = Literal["off", "romm", "discs"]
LogLevel = Literal["debug", "info", "warning", "error"]


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def _not_empty(value: str) -> str:
    if not value:
        raise ValueError("it is empty")
    return value


# Not `min_length`: it refuses paths that aren't UTF-8, which Python gives as surrogates.
Path = Annotated[str, AfterValidator(_not_empty)]


def _strings(value: object) -> object:
    """A list of TOML as a tuple; a string by itself is a mistake that is easily made."""
    if isinstance(value, str):
        raise ValueError(f"a list is wanted, like [{value!r}]")
    return tuple(value) if isinstance(value, list) else value


class VariantSettings(BaseModel):
    """One of the `[[variants]]`: further archives of games, without some parts."""

    model_config = ConfigDict(
        alias_generator=_kebab, extra="forbid", frozen=True, populate_by_name=False, strict=True
    )

    name: str
    """What is shown in brackets behind a game's name."""
    only: tuple[str, ...] = ()
    """Categories of what is in it; empty: all but `without`."""
    without: tuple[str, ...] = ()
    """Categories of what isn't."""
    exclude: tuple[str, ...] = ()
    """Patterns, relative to the game's folder, of what is left out."""
    include: tuple[str, ...] = ()
    """The same of what is taken in all the same."""
    prefix: str = ""
    """Folders to put before each name."""
    games: tuple[str, ...] = ()
    """Which games have it, relative to the library; empty: all."""
    playlists: PlaylistMode | None = None
    """Which playlists it gets; None: as all archives."""

    @field_validator("only", "without", "exclude", "include", "games", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return _strings(value)

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not value.strip() or value != value.strip():
            raise ValueError(f"{value!r} is nothing to tell an archive by, like 'no manuals'")
        if set(value) & set("/[]") or not value.isprintable():
            raise ValueError(f"{value!r} has a slash, a bracket or a control character in it")
        return value

    @field_validator("only", "without")
    @classmethod
    def _categories(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        found = []
        for name in value:
            category = category_named(encode(name))
            if category is None:
                known = ", ".join(known.decode() for known in CATEGORIES)
                raise ValueError(f"{name!r} is no category; the known ones are {known}")
            found.append(category.decode())
        return tuple(found)

    @field_validator("exclude", "include")
    @classmethod
    def _relative(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for glob in value:
            try:
                check_relative(glob)
            except ValueError:
                raise ValueError(
                    f"{glob!r} isn't a pattern relative to the game's folder, like 'extras/*'"
                ) from None
        return value

    @field_validator("games")
    @classmethod
    def _globs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for glob in value:
            check_relative(glob)
            check_placeholders(glob)
        return value

    @field_validator("prefix")
    @classmethod
    def _folders(cls, value: str) -> str:
        path = value.removesuffix("/")
        if value and (
            {"", ".", ".."} & set(path.split("/"))
            or set(path) & set("\\:")
            or not path.isprintable()
            or any(len(encode(folder)) > 255 for folder in path.split("/"))
        ):
            raise ValueError(f"{value!r} isn't the path of a folder in an archive, like '.hidden'")
        return path

    @model_validator(mode="after")
    def _differs(self) -> Self:
        if self.only and self.without:
            raise ValueError("'only' and 'without' exclude each other; say one of them")
        if not (self.only or self.without or self.exclude or self.prefix):
            raise ValueError(
                "it would be the same as the whole archive; say 'only', 'without', 'exclude' or"
                " 'prefix'"
            )
        return self


class Settings(BaseModel):
    """All that `zipfs mount` can be told; the other commands take a part of it."""

    model_config = ConfigDict(
        alias_generator=_kebab, extra="forbid", frozen=True, populate_by_name=False, strict=True
    )

    library: Path
    """Folder to show."""
    mountpoint: Path | None = None
    """Empty folder to mount on."""
    index: Path | None = None
    """SQLite file that keeps the checksums; None: one a library in the state folder."""
    games: tuple[str, ...] = ()
    """Which folders are games, relative to the library; empty: found out."""
    selection: SelectionName = "general"
    """Whose rules say what games are, and what belongs to them."""
    romm_config: Path | None = None
    """RomM's `config.yml`; None: its defaults."""
    exclude: tuple[str, ...] = ()
    """Patterns of files and folders to leave out of archives."""
    include: tuple[str, ...] = ()
    """Patterns of those to take in, whatever else says otherwise."""
    portable_names: bool = False
    """Whether archives hold only names that Windows can create."""
    timestamps: Timestamps = "files"
    """Whether archives date their members as the files are, or all the same."""
    playlists: PlaylistMode = "discs"
    """Which games get a playlist: none, all as RomM does, or those of several discs."""
    playlist_platforms: tuple[str, ...] = ("default",)
    """Folders of the platforms whose games may get one; ``default`` stands for a list."""
    lists: Path | None = None
    """Folder of lists, each of which is shown as an archive."""
    lists_folder: str = ".lists"
    """Name of the mount's folder where they are shown."""
    lists_prefix: str = "/library/"
    """Where locations in lists have the library; with a ``/`` at both ends."""
    variants: tuple[VariantSettings, ...] = ()
    """Further archives of games; in the file only."""
    allow_other: bool = False
    """Whether other users may look into the mount."""
    settle: float = Field(2.0, ge=MIN_SETTLE, le=86400)
    """Seconds without a change after which a game is taken as complete."""
    read_ahead: int = Field(1024, ge=0, le=1 << 20)
    """The kernel's read-ahead for the mount, KiB; 0 leaves it as it is."""
    watch: Watch = "auto"
    """How changes are heard of before somebody asks: from the kernel, or by looking."""
    trust: Trust = "state"
    """What tells that a file is unchanged: all of its state, or all but its ctime."""
    read_timeout: float = Field(30.0, ge=0, le=86400)
    """Seconds after which a read of a source that doesn't answer fails; 0: never."""
    hash_rate: float = Field(0.0, ge=0, le=1 << 20)
    """MiB of files hashed in a second, at most; 0: as many as it can."""
    uid: int | None = None
    """Whose all files and folders are said to be; None: whose they are. In the file, or
    anywhere, also by name."""
    gid: int | None = None
    """The same of the group."""
    umask: int | None = None
    """What nobody may, everybody else may; a string of octal digits. None: what they grant."""
    options: tuple[str, ...] = ()
    """FUSE's own mount options."""
    log_level: LogLevel = "info"

    @field_validator("settle", "read_timeout", "hash_rate", mode="before")
    @classmethod
    def _whole(cls, value: object) -> object:
        # TOML tells 2 from 2.0, people don't.
        return float(value) if type(value) is int else value

    @field_validator("uid", mode="before")
    @classmethod
    def _user(cls, value: object) -> object:
        return number_of(value) if isinstance(value, str | int) else value

    @field_validator("gid", mode="before")
    @classmethod
    def _group(cls, value: object) -> object:
        return number_of(value, group=True) if isinstance(value, str | int) else value

    @field_validator("umask", mode="before")
    @classmethod
    def _octal(cls, value: object) -> object:
        # A number of TOML would be decimal, which nobody means.
        if not isinstance(value, str):
            raise ValueError("octal digits in quotes are wanted, like '022'")
        return umask_of(value)

    @field_validator("games", "exclude", "include", "playlist_platforms", "options", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return _strings(value)

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
                raise ValueError(f"two are called {name!r}")
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
            # `suid` and `dev` would take away what libfuse mounts with; nothing here needs them.
            if option in ("rw", "suid", "dev", "max_read") or option.startswith("max_read="):
                raise ValueError(
                    f"the mount option {option!r} can't be had with zipfs; leave it out"
                )
        return value

    @property
    def ownership(self) -> Ownership:
        """Whose files are said to be."""
        return Ownership(self.uid, self.gid, self.umask)

    @classmethod
    def load(cls, file: str | None, given: Mapping[str, Any]) -> Self:
        """Settings of the TOML *file*, if any, overridden by *given*.

        *given* has the same names as the file; a value of None says nothing.
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
    """The first complaint, with the place that the value came from."""
    first = error.errors()[0]
    key, *within = map(str, first["loc"] or "?")
    place = f"in {file}" if file and given.get(key) is None else "on the command line"
    fields = Settings.model_fields
    if key == "variants" and within:
        # The how manieth it is, for want of a better name: it may have none.
        place = f"of variant {int(within[0]) + 1} {place}"
        fields = VariantSettings.model_fields
        key = within[1] if len(within) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = ", ".join(sorted(map(_kebab, fields)))
        return f"unknown key {key!r} {place}; the known ones are {known}"
    if first["type"] == "missing":
        if within:
            return f"no {key} given {place}"
        return f"no {key} given; name it on the command line or in a config file"
    message = first["msg"].removeprefix("Value error, ")
    return f"bad value {f'for {key!r} ' if key else ''}{place}: {message}"


def state_folder(environment: Mapping[str, str] = os.environ) -> str:
    """Where indexes live: systemd's ``$STATE_DIRECTORY``, else the user's own.

    systemd.exec(5): several directories are joined by colons; the first is ours.
    """
    if given := environment.get("STATE_DIRECTORY"):
        return given.split(":")[0]
    return platformdirs.user_state_dir("zipfs")
