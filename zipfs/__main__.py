"""``python -m zipfs`` is ``zipfs``."""

from zipfs.cli.cli import main

main()
