"""`make bench-far`: zipfs on sources that wait in each call."""
