"""Many small messages -> few large ones: the audio that a gateway sent in several blocks becomes one.

A gateway sends what has come together in one turn of its loop, often a single frame. Taking in a block costs the same
for one frame as for many, so blocks that arrived together are joined; nothing of one gateway overtakes anything else
of it.

    A: audio, audio, marker, audio    B: audio, audio    ──►    A: audio, marker, audio    B: audio
"""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from shared.messages import AudioBlock, ToWorker

MAX_JOINED_FRAMES: Final = 1_024
"""8 MB, which are copied once more."""

Arrival = tuple[bytes, ToWorker]


def join_audio(arrivals: Iterable[Arrival]) -> Iterator[Arrival]:
    """Yield ``arrivals``, pairs of a gateway's routing id and a message, with neighbouring audio blocks joined."""
    waiting: dict[bytes, list[AudioBlock]] = {}
    n_waiting: dict[bytes, int] = {}
    for routing_id, message in arrivals:
        if isinstance(message, AudioBlock):
            waiting.setdefault(routing_id, []).append(message)
            n_waiting[routing_id] = n_waiting.get(routing_id, 0) + len(message.sessions)
            if n_waiting[routing_id] >= MAX_JOINED_FRAMES:
                del n_waiting[routing_id]
                yield routing_id, _join(waiting.pop(routing_id))
            continue
        if routing_id in waiting:
            del n_waiting[routing_id]
            yield routing_id, _join(waiting.pop(routing_id))
        yield routing_id, message
    for routing_id, blocks in waiting.items():
        yield routing_id, _join(blocks)


def _join(blocks: list[AudioBlock]) -> AudioBlock:
    if len(blocks) == 1:
        return blocks[0]
    return AudioBlock(
        sessions=np.concatenate([block.sessions for block in blocks]),
        epochs=np.concatenate([block.epochs for block in blocks]),
        frames=np.concatenate([block.frames for block in blocks]),
        pcm=np.concatenate([block.pcm for block in blocks]),
    )
