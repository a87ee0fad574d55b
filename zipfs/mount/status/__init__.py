"""What a daemon is asked: its status, over a socket in the runtime folder."""
