"""Mounts that outlive their daemon: what is kept of one, who keeps it, and who takes it over."""
