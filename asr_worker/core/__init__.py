"""Decisions of the worker, without sockets, clocks or torch."""
