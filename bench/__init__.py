"""A real library, real web servers and a mount: what the demo, the benchmarks and the tests share.

Not part of the product, and not installed.
"""


class BenchError(Exception):
    """Something that the person at the keyboard can mend: one line that says what."""
