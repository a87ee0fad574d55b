"""The one way to matplotlib, for all plots."""

from __future__ import annotations

from typing import Any

from bench import BenchError


def load_pyplot(suffix: str = ".svg") -> Any:
    """The module ``matplotlib.pyplot``, for files with that *suffix*, ``.svg`` or ``.png``.

    Raises :exc:`BenchError` if it isn't installed.
    """
    try:
        import matplotlib  # noqa: PLC0415 - takes a second, and is part of the extra `bench`
    except ImportError:
        raise BenchError("matplotlib is missing: pip install '.[bench]'") from None
    matplotlib.use("svg" if suffix == ".svg" else "agg")
    from matplotlib import pyplot  # noqa: PLC0415 - after the choice of what it draws with

    return pyplot
