"""File managers on a mount, under a virtual display; `make desktop` runs these tests."""
