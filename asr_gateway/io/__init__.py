"""Thin shells around the cores: sockets, HTTP, the link."""
