"""Decisions of the gateway, without sockets, clocks or tasks."""
