"""A random library, readers of its mount, and a model that knows what they may see."""
