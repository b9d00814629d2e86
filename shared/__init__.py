"""What a gateway and a worker must agree on: units, messages, their encoding, configuration, errors and logs.

Nothing in here imports torch, zmq, aiohttp or asyncio.
"""
