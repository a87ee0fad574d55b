"""Through the kernel and a web server, with the programs that people use.

Whatever comes out is compared with an archive that :mod:`tests.e2e.expected` computes from the
library by itself: it shares no code with zipfs, and never looks at the mount.
"""
