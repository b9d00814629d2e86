"""Thin shells around the cores: the ROUTER socket, the loop, the token log."""
