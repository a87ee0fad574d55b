"""Never a wrong byte: what happens while a download runs, behind four web servers.

Each row is something that happens to a library, a daemon or a machine; each column is a server.
What every response must satisfy, in all rows, stands in one place: ``Versions.check`` in
:mod:`tests.e2e.matrix.versions`. The table of what was seen is printed when the tests end.
"""
