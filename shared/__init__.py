"""What a gateway and a worker must agree on: units, messages, their encoding, configuration, errors and logs.

And what more than one program needs: transcripts and subtitles, say.

Nothing in here imports torch, zmq, aiohttp or asyncio.
"""
