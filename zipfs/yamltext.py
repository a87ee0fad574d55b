"""YAML that others wrote: plain values only, in bounded time and memory.

Pure. PyYAML's safe loader makes no objects, but a file of a kilobyte can have it make a
table of a billion keys (``<<`` of aliases of ``<<`` of aliases).
"""

from __future__ import annotations

from typing import Any, Final

import yaml

MAX_ALIASES: Final = 100
"""How often a file may refer to a part of itself."""
MAX_MERGED: Final = 10_000
"""How many keys one table may have."""


def parse(data: bytes) -> object:
    """What *data*, one YAML document, says; None if it is empty.

    Raises :exc:`ValueError`: what it isn't, and where, as the end of a sentence.
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
        # A ValueError is what a date without such a day ends in.
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
