"""What the tests share: libraries to mount, and mounts that are watched to their end."""
