"""The command ``asr``: serve, transcribe, validate, fetch, doctor.

It starts the gateway and the worker as processes and speaks to them as any client does; it imports neither.
"""
