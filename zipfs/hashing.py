"""Where a daemon of before there were packages, upgraded while it runs, looks for its process.

It starts one whenever there are files to hash, by the name of this module. It speaks the same
messages until :data:`zipfs.index.hash_process._MESSAGES` is raised: then this can go.
"""

from zipfs.index.hash_process import main

__all__ = ["main"]
