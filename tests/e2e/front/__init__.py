"""A front end's application behind nginx and Caddy: it decides, they serve out of the mount."""
