"""zipfs under a real systemd, booted in a container made from this system's own root."""
