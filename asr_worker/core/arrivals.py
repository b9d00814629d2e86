"""Many small messages -> few large ones: the audio that a gateway sent in several blocks becomes one.

A gateway sends what has come together in one turn of its loop, often a single frame. Taking in a block costs the same
for one frame as for many, so blocks that arrived together are joined; nothing of one gateway overtakes anything else
of it.

    A: audio, audio, marker, audio    B: audio, audio    ──►    A: audio, marker, audio    B: audio
"""

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

import numpy as np

from shared.lone_frames import LoneFrame, block_of
from shared.messages import AudioBlock, ToWorker

MAX_JOINED_FRAMES: Final = 1_024
"""8 MB, which are copied once more."""

Arrival: TypeAlias = tuple[bytes, ToWorker | LoneFrame]


class _Waiting:
    """The audio of one gateway that came together, in order: blocks, then lone frames."""

    def __init__(self) -> None:
        self.n_frames = 0
        self.lone: list[LoneFrame] = []
        self._blocks: list[AudioBlock] = []

    def add(self, block: AudioBlock) -> None:
        """Take a block behind what waits."""
        self._gather()
        self._blocks.append(block)
        self.n_frames += len(block.sessions)

    def joined(self) -> AudioBlock:
        """Return everything as one block."""
        self._gather()
        if len(self._blocks) == 1:
            return self._blocks[0]
        return AudioBlock(
            sessions=np.concatenate([block.sessions for block in self._blocks]),
            epochs=np.concatenate([block.epochs for block in self._blocks]),
            frames=np.concatenate([block.frames for block in self._blocks]),
            pcm=np.concatenate([block.pcm for block in self._blocks]),
        )

    def _gather(self) -> None:
        if self.lone:
            self._blocks.append(block_of(self.lone))
            self.lone = []


def join_audio(arrivals: Iterable[Arrival]) -> Iterator[tuple[bytes, ToWorker]]:
    """Yield ``arrivals``, pairs of a gateway's routing id and a message, with neighbouring audio blocks joined."""
    waiting: dict[bytes, _Waiting] = {}
    for routing_id, message in arrivals:
        its = waiting.get(routing_id)
        if isinstance(message, list):
            if its is None:
                its = waiting[routing_id] = _Waiting()
            its.lone.append(message)
            its.n_frames += 1
        elif isinstance(message, AudioBlock):
            if its is None:
                its = waiting[routing_id] = _Waiting()
            its.add(message)
        else:
            if its is not None:
                yield routing_id, waiting.pop(routing_id).joined()
            yield routing_id, message
            continue
        if its.n_frames >= MAX_JOINED_FRAMES:
            yield routing_id, waiting.pop(routing_id).joined()
    for routing_id, its in waiting.items():
        yield routing_id, its.joined()
