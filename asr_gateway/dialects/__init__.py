"""Clients' protocols: bytes to typed events and back."""
