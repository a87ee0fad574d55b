"""What zipfs is measured beside, each a context manager that gives a running server or mount."""
