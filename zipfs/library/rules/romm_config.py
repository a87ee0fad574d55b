"""RomM's ``config.yml``: from its bytes to :class:`Rules`.

Pure. The keys are those of https://docs.romm.app (5.3, configuration file); others are ignored,
and a key without a value counts as absent. ``exclude.roms.single_file`` is about files that
zipfs passes through, so only its form is checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from zipfs.errors import ConfigError
from zipfs.library.rules.globs import GAME, PLATFORM, encode, literal
from zipfs.library.rules.romm import (
    EXCLUDED_EXTENSIONS,
    EXCLUDED_FILES,
    EXCLUDED_FOLDERS,
    Rules,
    Structure,
)


def _to_table(value: object) -> object:
    """An empty table for a key without a value; likewise the functions below."""
    return {} if value is None else value


def _to_list(value: object) -> object:
    return [] if value is None else value


def _to_name(value: object) -> object:
    return Rules.roms_folder if value is None else value


def _to_names(value: object) -> object:
    return [value] if isinstance(value, str) else _to_list(value)


_Names = Annotated[list[str], BeforeValidator(_to_list)]


class _Section(BaseModel):
    # RomM has many more keys, and will have others.
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Files(_Section):
    names: _Names = []
    extensions: _Names = []


class _MultiFile(_Section):
    names: _Names = []
    parts: Annotated[_Files, BeforeValidator(_to_table)] = _Files()


class _Roms(_Section):
    single_file: Annotated[_Files, BeforeValidator(_to_table)] = _Files()
    multi_file: Annotated[_MultiFile, BeforeValidator(_to_table)] = _MultiFile()


class _Exclude(_Section):
    platforms: _Names = []
    roms: Annotated[_Roms, BeforeValidator(_to_table)] = _Roms()


class _Filesystem(_Section):
    roms_folder: Annotated[str, BeforeValidator(_to_name)] = Rules.roms_folder
    structure: Annotated[
        dict[str, Annotated[list[str], BeforeValidator(_to_names)]],
        BeforeValidator(_to_table),
    ] = {}


class _File(_Section):
    exclude: Annotated[_Exclude, BeforeValidator(_to_table)] = _Exclude()
    filesystem: Annotated[_Filesystem, BeforeValidator(_to_table)] = _Filesystem()


def read_rules(data: bytes, name: str) -> Rules:
    """The rules in *data*, the content of RomM's ``config.yml`` at the path *name*.

    Raises :exc:`ConfigError` with one line that names the file and the key.
    """
    try:
        config = _File.model_validate(_to_table(parse_yaml(data)))
    except ValidationError as error:
        raise _wrong_type(error, name) from None
    except ValueError as error:
        raise ConfigError(f"the RomM config {name} {error}") from None
    multi = config.exclude.roms.multi_file
    roms_folder = config.filesystem.roms_folder.strip("/")
    if "\0" in roms_folder or {"", ".", ".."} & set(roms_folder.split("/")):
        raise _error("filesystem.roms_folder", name, "a folder in the library is wanted")
    return Rules(
        platforms=(*EXCLUDED_FOLDERS, *config.exclude.platforms),
        games=(*EXCLUDED_FOLDERS, *multi.names),
        files=(*EXCLUDED_FILES, *multi.parts.names),
        extensions=(*EXCLUDED_EXTENSIONS, *multi.parts.extensions),
        roms_folder=roms_folder,
        structure=_structure(config.filesystem.structure, roms_folder, name),
    )


def _structure(given: Mapping[str, Sequence[str]], roms_folder: str, name: str) -> Structure | None:
    """``filesystem.structure``: ``default``, and platforms with templates of their own."""
    # `firmware` isn't about games, and it may be the only key.
    keys = {key: some for key, some in given.items() if some and key != "firmware"}
    if not keys:
        return None
    default = keys.pop("default", None) or [f"{roms_folder}/{PLATFORM}/{GAME}"]
    above = default[0].strip("/").split("/")
    above = above[: above.index(PLATFORM)] if PLATFORM in above else []
    overrides = {
        key.lower(): tuple(_template(t, key, above, name) for t in templates)
        for key, templates in keys.items()
    }
    return Structure(
        tuple(_template(template, "default", above, name) for template in default),
        tuple(sorted(overrides.items())),
        deepest=True,
    )


def _template(template: str, key: str, above: Sequence[str], name: str) -> bytes:
    """One template as a glob: literal names, ``{platform}``, ``{game}``, and ``*`` for others.

    All templates have to have their platforms in the folder *above*: RomM supports only one.
    """
    where = f"filesystem.structure.{key}"
    sections = template.strip("/").split("/")
    depth = len(above)
    if sections[-1] != GAME or sections.count(GAME) > 1 or sections.count(PLATFORM) > 1:
        raise _error(where, name, f"{template!r} has to end in {GAME}, and have {PLATFORM} once")
    if "{library}" in sections or {"", ".", ".."} & set(sections):
        raise _error(where, name, f"{template!r} isn't a path in the library")
    if PLATFORM not in sections and key != "default" and sections[depth:]:
        # The platform's own name, which is the same as the placeholder below its key.
        if sections[depth].lower() != key.lower():
            raise _error(where, name, f"{template!r} has no {PLATFORM}")
        sections[depth] = PLATFORM
    if PLATFORM not in sections:
        raise _error(where, name, f"{template!r} has no {PLATFORM}")
    if sections[: depth + 1] != [*above, PLATFORM] or any(map(_is_macro, above)):
        raise _error(
            where, name, f"{template!r}: all platforms have to be in one folder, called by its name"
        )
    return encode("/".join(map(_section, sections)))


def _section(section: str) -> str:
    if section in (PLATFORM, GAME):
        return section
    return "*" if _is_macro(section) else literal(section)


def _is_macro(section: str) -> bool:
    return section.startswith("{") and section.endswith("}")


def _error(key: str, name: str, message: str) -> ConfigError:
    return ConfigError(f"bad value for {key!r} in the RomM config {name}: {message}")


def _wrong_type(error: ValidationError, name: str) -> ConfigError:
    """The error for the first value of a wrong type."""
    # Without the input, which a few aliases can make very long.
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    key = _key(first["loc"])
    if not key:
        return ConfigError(f"the RomM config {name} isn't a table of keys")
    message = first["msg"]
    if first["type"] in ("model_type", "dict_type"):
        message = "a table of keys is wanted"
    elif first["type"] == "string_type":
        message += "; put it in quotes"
    return _error(key, name, message)


def _key(location: tuple[int | str, ...]) -> str:
    """``("a", "b", 0)`` as ``a.b[0]``."""
    key = ""
    for part in location:
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
    return key.lstrip(".").removesuffix(".[key]")


MAX_ALIASES: Final = 100
"""Maximum number of aliases in a file."""
MAX_MERGED: Final = 10_000
"""Maximum number of keys in one table."""
MAX_PLAIN: Final = 1000
"""Maximum length, in characters, of a value that isn't a string, such as a number."""


def parse_yaml(data: bytes) -> object:
    """The value of *data*, one YAML document; None if it is empty.

    Whatever *data* is, the result has only plain values (tables, lists, strings, numbers,
    dates, bytes), which can refer to each other, and time and memory are at most proportional
    to *data*'s size. A safe loader alone doesn't guarantee that: in a kilobyte, aliases of
    aliases can define a table of a billion keys (``<<``), and in a megabyte, one number to base
    60 can take a minute. Hence :data:`MAX_ALIASES`, :data:`MAX_MERGED` and :data:`MAX_PLAIN`.
    Whether a file that merges the same keys repeatedly is refused depends on the version of
    PyYAML: some merge them into one key at once.

    Raises :exc:`ValueError`, whose message is the end of a sentence about the file.
    """
    try:
        loader = _Loader(data.decode("utf-8-sig"))
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except UnicodeDecodeError:
        raise ValueError("isn't UTF-8 text") from None
    except RecursionError:
        raise ValueError("isn't valid YAML: too deeply nested") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML raises ValueError for a date that doesn't exist.
        raise ValueError(f"isn't valid YAML: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark):
        what = ", ".join(filter(None, (error.context, error.problem)))
        return f"{what}, line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(str(error).split())


class _Loader(yaml.SafeLoader):
    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > MAX_ALIASES:
                raise yaml.YAMLError(f"more than {MAX_ALIASES} aliases")
        return super().compose_node(parent, index)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MAX_MERGED:
            raise yaml.YAMLError(f"more than {MAX_MERGED} keys in one table")

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        if node.tag != "tag:yaml.org,2002:str" and len(node.value) > MAX_PLAIN:
            raise yaml.YAMLError(f"more than {MAX_PLAIN} characters that aren't a string")
        return super().construct_scalar(node)
