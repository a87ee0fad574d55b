"""``python -m zipfs`` is ``zipfs``."""

from zipfs.cli import main

main()
