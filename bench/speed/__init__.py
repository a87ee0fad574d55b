"""`make bench`: zipfs beside a stored file and its peers."""
