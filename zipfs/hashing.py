"""Compatibility: the former module of the process that hashes.

A running daemon from before the packages, whose files were upgraded, starts that process by this
module's name. Both use the same messages; once :data:`zipfs.index.hash_process._MESSAGES` is
raised, this module can be removed.
"""

from zipfs.index.hash_process import main

__all__ = ["main"]
