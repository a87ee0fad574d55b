"""`make endure`: a day of work in an hour, and whether the daemon stays as it was."""
