"""The command ``asr``: serve, transcribe, validate, fetch, doctor."""
