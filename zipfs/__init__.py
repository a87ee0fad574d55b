"""zipfs shows every multi-file game of a library as one virtual, seekable .zip file.

README.md tells how to use it; each module's docstring tells the theory of its part.
"""

from importlib.metadata import version

__version__ = version("zipfs")
