"""`make bench-scale`: very many games, members and clients."""
