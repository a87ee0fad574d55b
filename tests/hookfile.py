"""`make manual`: the hook for RomM, one file made of the modules of ``zipfs/front/``.

It runs where no zipfs is installed, so it has all of their code, without their imports of each
other: the middleware and the hook are the same, and are tested once.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

FRONT: Final = Path(__file__).parents[1] / "zipfs/front"
HOOK: Final = FRONT / "files/gunicorn.conf.py"
MODULES: Final = ("settings", "calls", "archives", "headers", "asgi", "hook")
"""In the order in which they need each other."""
HEAD: Final = '''"""Downloads of several files from zipfs, for RomM: gunicorn reads this file.

It stands as ``/backend/gunicorn.conf.py`` in RomM's container, or ``GUNICORN_CMD_ARGS="--config
FILE"`` names it. `zipfs help romm` says how. Settings, by environment:

- ``ZIPFS_LISTS``: the folder that zipfs has as ``--lists`` (default ``/zipfs/lists``);
- ``ZIPFS_SHOWN``: where RomM sees the mount's ``.lists`` (``/romm/cache/zipfs/.lists``);
- ``ZIPFS_LOCATION``: the same for RomM's nginx (``/cache/zipfs/.lists``);
- ``ZIPFS_WAIT``: seconds to wait for an archive (5);
- ``ZIPFS_REUSE``: seconds for which an answer serves again to the same client (10);
- ``ZIPFS_FALLBACK``: without an archive, ``list`` (RomM's own way) or ``503`` (try again later).

It needs Python 3.12 or later, and nothing but its standard library. It is made of zipfs/front/ by
`make manual`: change that.
"""

from __future__ import annotations
'''


def hook_text() -> str:
    """What :data:`HOOK` has to be."""
    imports: dict[str, set[str]] = {}
    parts = []
    for name in MODULES:
        text = (FRONT / f"{name}.py").read_text()
        tree = ast.parse(text)
        end = 0
        for node in tree.body:
            if isinstance(node, ast.Import):
                imports |= {alias.name: set() for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                if node.module and not node.module.startswith(("zipfs", "__future__")):
                    found = imports.setdefault(f"from {node.module}", set())
                    found |= {alias.name for alias in node.names}
            elif not _is_text(node):
                break
            end = node.end_lineno or 0
        body = "".join(text.splitlines(keepends=True)[end:]).strip("\n")
        blank = "\n" * body.startswith(("@", "class ", "def "))
        parts.append(f"# {'-' * 64} {name}\n\n{blank}{body}\n\n")
    plain = [f"import {name}\n" for name in sorted(imports) if not name.startswith("from ")]
    chosen = [
        f"{module} import {', '.join(sorted(names, key=_rank))}\n"
        for module, names in sorted(imports.items())
        if module.startswith("from ")
    ]
    return "\n".join([HEAD, "".join([*plain, *chosen]), *parts]).rstrip("\n") + "\n"


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _rank(name: str) -> tuple[int, str]:
    """The order of ruff: CONSTANT, Class, function."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name
