"""Bytes to 24 kHz mono float32."""
