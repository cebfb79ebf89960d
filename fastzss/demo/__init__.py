"""The demo: the whole story on the built-in world."""
