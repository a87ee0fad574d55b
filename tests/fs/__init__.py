"""Tests without a kernel mount: the tree, the background work and the FUSE handlers, directly."""
