"""The table `[[variants]]` of a config file, and what its keys share with the other settings."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from zipfs.library.rules.categories import CATEGORIES, category_named
from zipfs.library.rules.globs import check_placeholders, check_relative, encode

PlaylistMode = Literal["off", "romm", "discs"]


def kebab(name: str) -> str:
    return name.replace("_", "-")


def strings(value: object) -> object:
    """A TOML list as a tuple. Raises :exc:`ValueError` for a string, an easy mistake."""
    if isinstance(value, str):
        raise ValueError(f"a list is wanted, like [{value!r}]")
    return tuple(value) if isinstance(value, list) else value


class VariantSettings(BaseModel):
    """One table of `[[variants]]`: further archives of games, with some of their files."""

    model_config = ConfigDict(
        alias_generator=kebab, extra="forbid", frozen=True, populate_by_name=False, strict=True
    )

    name: str
    """Suffix of the game's name, shown in brackets."""
    only: tuple[str, ...] = ()
    """Categories of the files it contains; empty: all except `without`."""
    without: tuple[str, ...] = ()
    """Categories of the files it doesn't contain."""
    exclude: tuple[str, ...] = ()
    """Patterns of excluded files, relative to the game's folder."""
    include: tuple[str, ...] = ()
    """Patterns of included files; they take precedence over all other keys."""
    prefix: str = ""
    """Folders to put before each entry name."""
    games: tuple[str, ...] = ()
    """Patterns of the games that have it, relative to the library; empty: all games."""
    playlists: PlaylistMode | None = None
    """Which playlists it gets; None: as the setting `playlists`."""

    @field_validator("only", "without", "exclude", "include", "games", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return strings(value)

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not value.strip() or value != value.strip():
            raise ValueError(f"{value!r} isn't the name of a variant, like 'no manuals'")
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
            raise ValueError("'only' and 'without' exclude each other; give one of them")
        if not (self.only or self.without or self.exclude or self.prefix):
            raise ValueError(
                "it would be the same as the whole archive; give 'only', 'without', 'exclude' or"
                " 'prefix'"
            )
        return self
