"""``python -m zipfs`` is ``zipfs``."""

import sys


def main() -> None:
    """The console script ``zipfs``."""
    if "--unit" in sys.argv[2:-1]:
        # Readers wait for the unit's commands, and the whole command line takes half a second.
        from zipfs.mount.restart.unit import nothing_to_do  # noqa: PLC0415

        if nothing_to_do(sys.argv[1:]):
            return
    from zipfs.cli.cli import main as command_line  # noqa: PLC0415

    command_line()


if __name__ == "__main__":
    main()
